/* SPDX-License-Identifier: Apache-2.0 */
/* Sends a copy of the transaction through another sender's chain (behaviour spec 13.5).  The
 * synchronous form goes first: what it refuses is refused, and the chain goes on behind it.  With
 * store_and_forward its answers do not matter, only that the copy is on disk before the message is
 * acknowledged, when that sender retries at all. */
#include "base/clock.h"
#include "base/text.h"
#include "filter/kinds.h"

#define STORE_TIMEOUT (30 * USEC_PER_SEC) /* for the router's word that the copy is on disk */

#define SUFFIX    " (AddRouteFilter upstream)"
#define NOOP      "ok (AddRouteFilter noop)"
#define NO_WORKER "4.3.0 no copy of the message can be made now (AddRouteFilter)"

typedef struct AddRouteConf {
	char *sender, *tag;
	bool store_and_forward;
} AddRouteConf;

typedef struct AddRoute {
	Tx *side;
	TxPort *port;
	TxWatch watch;
	GArray *map;   /* guint32 by recipient of `side`: its index in down */
	size_t looked; /* recipients of down */
	bool body_shown;
	uint64_t body_len; /* what the copy was told of, */
	bool body_final;   /* since news come again after a wait */
	Deadline store_by; /* the copy is complete; 0: not yet */
	Timer timer;
} AddRoute;

/* ---- the copy ---- */

static void
on_side(void *arg, Tx *tx)
{
	(void)tx;
	filter_resume(arg);
}

static void
on_timer(void *arg)
{
	filter_resume(arg);
}

static void
start_side(Filter *filter)
{
	AddRoute *route = filter->state;
	const AddRouteConf *conf = filter->conf;
	const Tx *down = filter->down;
	TxPorts *ports = filter_env(filter)->ports;
	Tx *side = route->side;
	tx_set_hosts(side, down->remote_host, down->local_host);
	if (down->smtp_meta != NULL)
		tx_set_smtp_meta(side, down->smtp_meta);
	if (down->mail_from != NULL)
		tx_set_mail_from(side, down->mail_from);
	tx_watch(side, &route->watch, on_side, filter);
	route->port = ports->open_sender(ports, conf->sender, conf->tag, side);
	if (route->port != NULL)
		return;
	g_autoptr(Response) response = response_new(451, NO_WORKER);
	tx_fill_in_flight(side, response);
}

static void
add_rcpts(Filter *filter)
{
	AddRoute *route = filter->state;
	const Tx *down = filter->down;
	for (; route->looked < tx_rcpt_count(down); route->looked++) {
		const TxRcpt *rcpt = tx_rcpt(down, route->looked);
		if (rcpt->response != NULL)
			continue;
		bool first = route->side == NULL;
		if (first)
			route->side = tx_new(down->queue);
		tx_add_rcpt(route->side, rcpt->to);
		guint32 index = (guint32)route->looked;
		g_array_append_val(route->map, index);
		if (first)
			start_side(filter);
	}
}

static void
add_body(Filter *filter)
{
	AddRoute *route = filter->state;
	TxBody *body = filter->down->body;
	uint64_t len = tx_body_len(body);
	bool final = tx_body_is_final(body);
	if (route->side->body == NULL)
		tx_set_body(route->side, body);
	else if (len != route->body_len || final != route->body_final)
		tx_note_body(route->side);
	route->body_len = len;
	route->body_final = final;
}

/* ---- its answers ---- */

static Response *
marked(const Response *response)
{
	return response_newf(response->code, "%s" SUFFIX, response->message);
}

static void
noop_envelope(Filter *filter, bool with_rcpts)
{
	const AddRoute *route = filter->state;
	Tx *down = filter->down;
	if (down->mail_response == NULL)
		tx_answer_mail(down, response_new(250, NOOP));
	for (guint i = 0; with_rcpts && i < route->map->len; i++) {
		guint32 index = g_array_index(route->map, guint32, i);
		if (tx_rcpt(down, index)->response == NULL)
			tx_answer_rcpt(down, index, response_new(250, NOOP));
	}
}

static void
take_rcpt_errors(Filter *filter)
{
	const AddRoute *route = filter->state;
	Tx *down = filter->down;
	for (guint i = 0; i < route->map->len; i++) {
		const Response *response = tx_rcpt(route->side, i)->response;
		guint32 index = g_array_index(route->map, guint32, i);
		/* Behind a MAIL that failed for now the class is that of MAIL. */
		if (response_temp(route->side->mail_response) && response_perm(response))
			continue;
		if (response_err(response) && tx_rcpt(down, index)->response == NULL)
			tx_answer_rcpt(down, index, marked(response));
	}
}

static bool
all_refused(const Tx *tx)
{
	return tx->rcpt_answers == tx_rcpt_count(tx) && tx_rcpts_accepted(tx) == 0;
}

/* Nothing is owed on the side: its errors become ours. */
static FilterResult
take_errors(Filter *filter)
{
	const AddRoute *route = filter->state;
	const Tx *side = route->side;
	Tx *down = filter->down;
	if (response_err(side->mail_response) && down->mail_response == NULL)
		tx_answer_mail(down, marked(side->mail_response));
	take_rcpt_errors(filter);
	if (response_err(side->mail_response))
		return FILTER_STOP;
	if (all_refused(down)) {
		noop_envelope(filter, false);
		return FILTER_STOP;
	}
	if (!response_err(side->data_response) || tx_rcpts_accepted(side) == 0)
		return FILTER_CONTINUE;
	noop_envelope(filter, true);
	if (down->data_response == NULL)
		tx_answer_data(down, marked(side->data_response));
	return FILTER_STOP;
}

static bool
is_stored(const AddRoute *route)
{
	const Tx *side = route->side;
	return side->retry == NULL || side->durable || side->durable_refused ||
	       side->data_response != NULL || side->final_attempt_reason != NULL ||
	       clock_passed(route->store_by);
}

static FilterResult
judge(Filter *filter)
{
	AddRoute *route = filter->state;
	const AddRouteConf *conf = filter->conf;
	if (!conf->store_and_forward)
		return tx_in_flight(route->side) ? FILTER_WAIT : take_errors(filter);
	if (route->store_by == 0 || is_stored(route)) {
		timer_cancel(&route->timer);
		return FILTER_CONTINUE;
	}
	timer_set_at(&route->timer, route->store_by);
	return FILTER_WAIT;
}

static FilterResult
add_route_update(Filter *filter, unsigned news)
{
	AddRoute *route = filter->state;
	const AddRouteConf *conf = filter->conf;
	if (conf->sender == NULL)
		return FILTER_CONTINUE;
	if (route->side != NULL && route->side->data_response == NULL) {
		if ((news & TX_NEW_CANCEL) != 0)
			tx_cancel(route->side);
		if ((news & TX_NEW_HEARTBEAT) != 0)
			tx_heartbeat(route->side);
	}
	if (filter->down->cancelled)
		return FILTER_CONTINUE;
	bool body = (news & (TX_NEW_BODY | TX_NEW_BODY_FINAL)) != 0;
	route->body_shown |= body;
	if ((news & TX_NEW_RCPT) != 0)
		add_rcpts(filter);
	if (route->side == NULL)
		return FILTER_CONTINUE;
	if (body || (route->body_shown && route->side->body == NULL))
		add_body(filter);
	if ((news & TX_NEW_BODY_FINAL) != 0 && route->store_by == 0)
		route->store_by = clock_after(STORE_TIMEOUT);
	return judge(filter);
}

static void
add_route_open(Filter *filter)
{
	AddRoute *route = filter->state;
	route->map = g_array_new(FALSE, FALSE, sizeof(guint32));
	timer_init(&route->timer, filter_env(filter)->worker, on_timer, filter);
}

static void
add_route_close(Filter *filter)
{
	AddRoute *route = filter->state;
	timer_clear(&route->timer);
	tx_unwatch(&route->watch);
	tx_port_stop(g_steal_pointer(&route->port));
	g_clear_pointer(&route->side, tx_unref);
	g_clear_pointer(&route->map, g_array_unref);
}

static void
add_route_conf_check(void *data, const YamlNode *node, const ConfModel *model, ConfReport *report)
{
	const AddRouteConf *conf = data;
	if (conf->sender == NULL) {
		conf_warning(report, node, "add_route without sender does nothing");
		return;
	}
	if (conf_model_sender(model, conf->sender, conf->tag) != NULL)
		return;
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	for (guint i = 0; i < model->senders->len; i++)
		g_ptr_array_add(names, ((SenderConf *)g_ptr_array_index(model->senders, i))->name);
	const char *nearest = text_nearest(conf->sender, (const char *const *)names->pdata,
					   names->len);
	const YamlNode *place = yaml_get(node, "sender");
	if (nearest != NULL && !text_equal_nocase(nearest, conf->sender))
		conf_error(report, place, "unknown sender '%s', did you mean '%s'?", conf->sender,
			   nearest);
	else
		conf_error(report, place, "unknown sender '%s'%s%s", conf->sender,
			   conf->tag != NULL ? " with tag " : "",
			   conf->tag != NULL ? conf->tag : "");
}

static const ConfKey add_route_keys[] = {
	{.name = "sender",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(AddRouteConf, sender),
	 .doc = "Sender of our own router whose chain gets the copy; absent: disabled."},
	{.name = "tag",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(AddRouteConf, tag),
	 .doc = "Tag of that sender."},
	{.name = "store_and_forward",
	 .type = CONF_BOOL,
	 .offset = CONF_KEY(AddRouteConf, store_and_forward),
	 .doc = "Do not wait for the copy's answers and ignore its errors."},
	{0},
};

const FilterKind filter_add_route_kind = {
	.name = "add_route",
	.doc = "Sends a copy of the transaction through the chain of another sender.",
	.flags = FILTER_WHOLE_BODY,
	.conf_size = sizeof(AddRouteConf),
	.keys = add_route_keys,
	.conf_check = add_route_conf_check,
	.state_size = sizeof(AddRoute),
	.open = add_route_open,
	.update = add_route_update,
	.close = add_route_close,
	.example = "- filter: add_route\n"
		   "  sender: archive\n"
		   "  store_and_forward: yes\n",
};
