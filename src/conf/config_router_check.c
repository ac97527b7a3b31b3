/* SPDX-License-Identifier: Apache-2.0 */
/* What refers to what in a router's configuration: each name that nothing answers to, and each
 * combination that would lose or multiply mail. */
#include <string.h>

#include "conf/config_int.h"

/* Where a key of a sender or tag comes from. */
static const YamlNode *
sender_place(const SenderPlace *place, const char *key)
{
	if (yaml_get(place->own, key) != NULL)
		return yaml_get(place->own, key);
	return place->own;
}

/* "sender 'x'" or "sender 'x' tag 'y'".  Caller frees. */
static char *
sender_title(const SenderConf *sender)
{
	return sender->tag == NULL
		       ? g_strdup_printf("sender '%s'", sender->name)
		       : g_strdup_printf("sender '%s' tag '%s'", sender->name, sender->tag);
}

static const EndpointConf *
find_endpoint(const RouterLoader *loader, const char *name)
{
	return name == NULL ? NULL : router_config_endpoint(loader->config, name);
}

static void
check_output_chain(RouterLoader *loader, const SenderPlace *place)
{
	const SenderConf *sender = place->sender;
	g_autofree char *title = sender_title(sender);
	if (sender->output_chain == NULL) {
		/* A sender whose tags name their chains is only ever used with a tag. */
		if (!sender->has_tags)
			conf_error(loader->report, place->own, "%s has no 'output_chain'", title);
		return;
	}
	if (find_endpoint(loader, sender->output_chain) != NULL)
		return;
	/* A tag that inherits a bad name was reported with its sender. */
	if (place->parent != NULL && yaml_get(place->own, "output_chain") == NULL)
		return;
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	for (unsigned i = 0; i < loader->config->endpoints->len; i++) {
		const EndpointConf *endpoint = loader->config->endpoints->pdata[i];
		if (endpoint->name != NULL)
			g_ptr_array_add(names, endpoint->name);
	}
	g_autofree char *hint = config_hint(sender->output_chain, names);
	conf_error(loader->report, sender_place(place, "output_chain"),
		   "%s: there is no endpoint '%s'%s", title, sender->output_chain, hint);
}

static void
check_retry(RouterLoader *loader, const SenderPlace *place)
{
	const SenderConf *sender = place->sender;
	const EndpointConf *endpoint = find_endpoint(loader, sender->output_chain);
	g_autofree char *title = sender_title(sender);
	if (sender->notification && !sender->retry)
		conf_error(loader->report, sender_place(place, "notification"),
			   "%s: 'notification: output_chain' needs 'retry: output_chain' beside it",
			   title);
	if (endpoint == NULL || !sender->retry)
		return;
	if (!endpoint->has_retry)
		conf_warning(loader->report, sender_place(place, "retry"),
			     "%s retries, but endpoint '%s' has no 'retry_params': each "
			     "transaction is attempted once",
			     title, endpoint->name);
	else if (endpoint->chain != NULL && endpoint->chain->incremental)
		conf_error(loader->report, sender_place(place, "retry"),
			   "%s retries endpoint '%s', which ends in an exploder: recipients that "
			   "have their message would get it again; set 'retry: null' here%s",
			   title, endpoint->name,
			   sender->tag != NULL ? " (a tag takes over its sender's 'retry')" : "");
}

/* The transactions that an exploder makes: it decides itself, per recipient and only once it has
 * said 250, whether they are retried and bounced.  A sender that has both on from the start would
 * retry what the SMTP client is going to retry as well. */
static void
check_behind_exploder(RouterLoader *loader, const SenderPlace *place)
{
	const SenderConf *front = place->sender;
	const EndpointConf *exploder = find_endpoint(loader, front->output_chain);
	if (exploder == NULL || exploder->chain == NULL || !exploder->chain->incremental)
		return;
	const char *tag = front->upstream_tag != NULL ? front->upstream_tag : front->tag;
	const SenderConf *behind = conf_model_sender(loader->config->model, front->upstream_sender,
						     tag);
	g_autofree char *title = sender_title(front);
	const YamlNode *node = sender_place(place, front->upstream_tag != NULL ? "upstream_tag"
									       : "upstream_sender");
	if (behind == NULL) {
		conf_error(loader->report, node,
			   "%s: the exploder's transactions go to sender '%s'%s%s%s, which does "
			   "not exist",
			   title, front->upstream_sender, tag != NULL ? " tag '" : "",
			   tag != NULL ? tag : "", tag != NULL ? "'" : "");
		return;
	}
	g_autofree char *behind_title = sender_title(behind);
	if (behind->retry || behind->notification)
		conf_error(loader->report, node,
			   "%s: its exploder hands recipients to %s, which has '%s: output_chain': "
			   "the exploder turns that on itself once it has taken the message; set "
			   "'%s: null' there (a tag takes over what its sender says)",
			   title, behind_title, behind->retry ? "retry" : "notification",
			   behind->retry ? "retry" : "notification");
	const EndpointConf *next = find_endpoint(loader, behind->output_chain);
	if (next == exploder)
		conf_error(loader->report, node,
			   "%s: the exploder in endpoint '%s' would hand recipients to itself; "
			   "'upstream_sender' or 'upstream_tag' must lead to another endpoint",
			   title, exploder->name);
	else if (next != NULL && !next->has_retry)
		conf_warning(loader->report, node,
			     "%s: endpoint '%s' behind its exploder has no 'retry_params': a "
			     "recipient that fails for now after the message was taken is lost",
			     title, next->name);
}

static void
check_notification(RouterLoader *loader, const EndpointPlace *place)
{
	const EndpointConf *endpoint = place->endpoint;
	if (endpoint->notification_sender == NULL)
		return;
	const YamlNode *map = yaml_get(yaml_get(place->map, "output_handler"), "notification");
	const ConfModel *model = loader->config->model;
	bool reached = endpoint->name != NULL &&
		       g_hash_table_contains(loader->reachable, endpoint->name);
	g_autoptr(ConfReport) report = conf_report_new();
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	for (unsigned i = 0; i < model->senders->len; i++)
		g_ptr_array_add(names, ((SenderConf *)model->senders->pdata[i])->name);
	g_autofree char *hint = config_hint(endpoint->notification_sender, names);
	if (conf_model_sender(model, endpoint->notification_sender, NULL) == NULL)
		conf_error(report, config_place(map, "sender"),
			   "bounces go to sender '%s', which does not exist%s",
			   endpoint->notification_sender, hint);
	else if (conf_model_sender(model, endpoint->notification_sender,
				   endpoint->notification_tag) == NULL)
		conf_error(report, config_place(map, "tag"),
			   "bounces go to sender '%s' tag '%s', which does not exist",
			   endpoint->notification_sender, endpoint->notification_tag);
	if (loader->config->mailer_daemon_mailbox == NULL)
		conf_warning(report, map,
			     "bounces are on, but 'global.mailer_daemon_mailbox' is not set");
	conf_report_move(loader->report, report, !reached);
}

void
config_check_router(RouterLoader *loader)
{
	for (unsigned i = 0; i < loader->senders->len; i++) {
		const SenderPlace *place = &g_array_index(loader->senders, SenderPlace, i);
		check_output_chain(loader, place);
		check_retry(loader, place);
		check_behind_exploder(loader, place);
	}
	for (unsigned i = 0; i < loader->endpoints->len; i++)
		check_notification(loader, &g_array_index(loader->endpoints, EndpointPlace, i));
}
