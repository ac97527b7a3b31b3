/* SPDX-License-Identifier: Apache-2.0 */
/* Seals the finished message (ARC, RFC 8617 5.1), so that those whom we pass it on to may go by
 * what we found out, although our changes break what it was signed with. */
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "filter/body_job.h"
#include "filter/body_prefix.h"
#include "filter/kinds.h"
#include "mailauth/arc.h"
#include "mailauth/dkim_name.h"
#include "mailauth/dkim_sign.h"

typedef struct SealConf {
	char *key, *domain, *selector, *authserv_id;
	DkimKeyFile *file;
} SealConf;

typedef struct Work {
	Blob *raw;
	DkimKey *key;
	char *domain, *selector, *id;
	ArcStatus status;
	char *set; /* NULL: `error` */
	unsigned instance;
	GError *error;
} Work;

typedef struct SealState {
	BodyJob *job;
	bool done;
} SealState;

static void
work_run(void *arg)
{
	Work *w = arg;
	const ArcSealer sealer = {
		.key = w->key, .domain = w->domain, .selector = w->selector, .authserv_id = w->id};
	w->set = arc_seal(&sealer, w->raw, w->status, clock_wall_sec(), &w->instance, &w->error);
}

static void
work_free(void *arg)
{
	Work *w = arg;
	blob_unref(w->raw);
	dkim_key_unref(w->key);
	g_free(w->domain);
	g_free(w->selector);
	g_free(w->id);
	g_free(w->set);
	g_clear_error(&w->error);
	g_free(w);
}

/* What arc_check found; nobody knows when it has found nothing. */
static ArcStatus
status_of(const Filter *filter)
{
	const char *result = json_get_str(filter_get_output(filter, "arc"), "result");
	for (ArcStatus status = ARC_NONE; result != NULL && status < ARC_STATUSES; status++) {
		if (strcmp(arc_status_names[status], result) == 0)
			return status;
	}
	return ARC_TEMPERROR;
}

static BodyJob *
start(Filter *filter, Blob *raw)
{
	const SealConf *conf = filter->conf;
	Work *w = g_new0(Work, 1);
	w->raw = blob_ref(raw);
	w->key = dkim_key_file_get(conf->file);
	w->domain = g_strdup(conf->domain);
	w->selector = g_strdup(conf->selector);
	w->id = g_strdup(conf->authserv_id != NULL ? conf->authserv_id
						   : filter_env(filter)->hostname);
	w->status = status_of(filter);
	return body_job_start(filter, blob_len(raw), work_run, work_free, w);
}

static void
publish(Filter *filter, const Work *w)
{
	json_t *output = json_object();
	json_object_set_new(output, "instance", json_integer(w->instance));
	if (w->instance > 0)
		json_object_set_new(output, "cv", json_string(arc_status_names[w->status]));
	else if (w->error != NULL)
		json_object_set_new(output, "reason", json_string(w->error->message));
	else
		json_object_set_new(output, "reason",
				    json_string(w->status == ARC_TEMPERROR
							? "nobody knows whether the chain is good"
							: "the chain takes no further set"));
	filter_set_output(filter, output);
}

/* Mail goes on without a seal where there can be none. */
static void
pass(Filter *filter, const TxBody *body, const Work *w)
{
	if (w->set == NULL && !g_error_matches(w->error, K_ERROR, K_ERROR_INPUT)) {
		filter_fail(filter, w->error->message);
		return;
	}
	publish(filter, w);
	if (w->instance > 0)
		body_pass_prefixed(filter, body, w->set);
	else
		body_pass_raw(filter, body, body->raw);
}

static FilterResult
arc_seal_update(Filter *filter, unsigned news)
{
	SealState *state = filter->state;
	const TxBody *body = filter->down->body;
	if ((news & (TX_NEW_BODY | TX_NEW_BODY_FINAL)) == 0)
		return FILTER_CONTINUE;
	if (body->raw == NULL) { /* still a builder: nothing to seal */
		filter_pass_body(filter, news);
		return FILTER_CONTINUE;
	}
	if ((news & TX_NEW_BODY_FINAL) == 0 || state->done)
		return FILTER_CONTINUE;
	if (state->job == NULL)
		state->job = start(filter, body->raw);
	if (state->job != NULL && !state->job->finished)
		return FILTER_WAIT;
	state->done = true;
	if (state->job != NULL)
		pass(filter, body, state->job->arg);
	else
		filter_fail(filter, "the pool takes no more work");
	g_clear_pointer(&state->job, body_job_free);
	return FILTER_CONTINUE;
}

static void
arc_seal_close(Filter *filter)
{
	SealState *state = filter->state;
	g_clear_pointer(&state->job, body_job_free);
}

static void
arc_seal_conf_check(void *data, const YamlNode *node, const ConfModel *model, ConfReport *report)
{
	(void)model;
	SealConf *conf = data;
	g_autoptr(GError) error = NULL;
	if (conf->key == NULL || conf->domain == NULL || conf->selector == NULL)
		return; /* was reported */
	conf->file = dkim_key_file_new(conf->key, &error);
	if (conf->file == NULL)
		conf_error(report, yaml_get(node, "key"), "ARC key: %s", error->message);
	if (!dkim_domain_ok(conf->domain, 2))
		conf_error(report, yaml_get(node, "domain"), "'%s' is no domain to seal for",
			   conf->domain);
	if (!dkim_domain_ok(conf->selector, 1))
		conf_error(report, yaml_get(node, "selector"), "'%s' is no selector",
			   conf->selector);
}

static void
arc_seal_conf_free(void *data)
{
	SealConf *conf = data;
	dkim_key_file_free(conf->file);
}

static const ConfKey arc_seal_keys[] = {
	{.name = "key",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(SealConf, key),
	 .flags = CONF_REQUIRED,
	 .doc = "Path of the private key, RSA or Ed25519, in PEM; read again when it changes."},
	{.name = "domain",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(SealConf, domain),
	 .flags = CONF_REQUIRED,
	 .doc = "Domain that seals (d=)."},
	{.name = "selector",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(SealConf, selector),
	 .flags = CONF_REQUIRED,
	 .doc = "Selector of the key (s=)."},
	{.name = "authserv_id",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(SealConf, authserv_id),
	 .doc = "Whose `Authentication-Results` fields are taken into the seal; as in "
		"auth_results; default `koukan.hostname`."},
	{0},
};

const FilterKind filter_arc_seal_kind = {
	.name = "arc_seal",
	.output_name = "arc_seal",
	.doc = "Seals the message (ARC, RFC 8617) with what arc_check found, which stands before it "
	       "in the same chain, and with our own `Authentication-Results`: auth_results stands "
	       "before it, here or where the message came in.  It comes last of what changes the "
	       "message.  Mail goes on without a further seal when the newest one says that the "
	       "chain has failed, behind 50 of them, when a key could not be looked up, and when "
	       "its header cannot be read.",
	.flags = FILTER_PROXY,
	.conf_size = sizeof(SealConf),
	.keys = arc_seal_keys,
	.conf_check = arc_seal_conf_check,
	.conf_free = arc_seal_conf_free,
	.behind = "arc_check",
	.state_size = sizeof(SealState),
	.update = arc_seal_update,
	.close = arc_seal_close,
	.example = "- filter: arc_check\n"
		   "- filter: auth_results\n"
		   "  authserv_id: mx.example.com\n"
		   "- filter: arc_seal\n"
		   "  key: /etc/koukan/rsa.pem\n"
		   "  domain: example.com\n"
		   "  selector: rsa2026\n"
		   "  authserv_id: mx.example.com\n",
};
