/* SPDX-License-Identifier: Apache-2.0 */
/* Chains that run as in the router, but nothing leaves: what would go to another node ends in a
 * Sink that accepts, and what would go to another sender of the router runs that sender's chain
 * here. */
#include "base/json.h"
#include "cmd/dns_tool.h"
#include "cmd/explain_int.h"
#include "filter/chain.h"

#define ACCEPTED "2.0.0 ok (nothing was sent: koukan explain)"
#define TOO_DEEP "2.0.0 ok (not followed: koukan explain)"

typedef struct Explain Explain;

/* Another node, as far as a chain can tell. */
typedef struct Sink {
	TxPort port; /* first */
	const char *text;
	TxWatch watch;
} Sink;

/* One transaction of the router: what service/output.c is there, without attempts and store. */
typedef struct Run {
	TxPort port; /* first */
	Explain *explain;
	const EndpointConf *endpoint;
	Tx *tx;
	TxWatch watch;
	Chain *chain;
	bool stored; /* the router would have become responsible for it */
	json_t *why; /* once it has ended */
} Run;

struct Explain {
	const ExplainTask *task;
	TxPorts ports;
	FilterEnv env;
	DnsTool *tool;
	GPtrArray *runs; /* Run*; the first is the one that was asked about */
	guint rcpts;     /* given to it so far */
	bool told;
	Timer timer;
};

/* ---- the other nodes ---- */

static void
sink_stop(TxPort *port)
{
	Sink *sink = (Sink *)port;
	tx_unwatch(&sink->watch);
	g_free(sink);
}

static const TxPortOps sink_ops = {.name = "explain", .stop = sink_stop};

static void
on_sink(void *arg, Tx *tx)
{
	const Sink *sink = arg;
	if (tx->mail_from != NULL && tx->mail_response == NULL)
		tx_answer_mail(tx, response_new(250, sink->text));
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		if (tx_rcpt(tx, i)->response == NULL)
			tx_answer_rcpt(tx, i, response_new(250, sink->text));
	}
	if (tx_body_ready(tx) && tx->data_response == NULL)
		tx_answer_data(tx, response_new(250, sink->text));
}

static TxPort *
sink_new(Tx *tx, const char *text)
{
	Sink *sink = g_new0(Sink, 1);
	sink->port.ops = &sink_ops;
	sink->text = text;
	tx_watch(tx, &sink->watch, on_sink, sink);
	tx_touch(tx);
	return &sink->port;
}

static TxPort *
open_url(TxPorts *ports, const char *url, Tx *tx, const TxPortOptions *options)
{
	(void)ports;
	(void)url;
	(void)options;
	return sink_new(tx, ACCEPTED);
}

/* ---- the router's transactions ---- */

static void
run_end(Run *run)
{
	if (run->chain == NULL)
		return;
	run->why = chain_why(run->chain, WHY_ALL);
	json_object_set_new(run->why, "transaction", json_string(run->tx->id));
	json_object_set_new(run->why, "stored", json_boolean(run->stored));
	chain_free(g_steal_pointer(&run->chain));
	tx_unwatch(&run->watch);
}

static void
run_free(void *data)
{
	Run *run = data;
	run_end(run);
	json_decref(run->why);
	tx_unref(run->tx);
	g_free(run);
}

static void
run_stop(TxPort *port)
{
	run_end((Run *)port); /* the list keeps it */
}

static const TxPortOps run_ops = {.name = "explain", .stop = run_stop};

/* As the router: retries are enabled, so with the whole message it is ours. */
static void
on_run(void *arg, Tx *tx)
{
	Run *run = arg;
	if (tx->retry == NULL || tx->durable || tx->durable_refused)
		return;
	if (!run->endpoint->has_retry) {
		tx_refuse_durable(tx);
	} else if (tx_body_ready(tx)) {
		run->stored = true;
		tx_set_durable(tx);
	}
}

static Run *
run_new(Explain *explain, Tx *tx, const EndpointConf *endpoint, const SenderConf *sender)
{
	Run *run = g_new0(Run, 1);
	run->port.ops = &run_ops;
	run->explain = explain;
	run->endpoint = endpoint;
	run->tx = tx_ref(tx);
	g_ptr_array_add(explain->runs, run);
	g_autofree char *id = g_strdup_printf("%u", explain->runs->len);
	tx_set_id(tx, id);
	tx->notifies = true;
	if (sender != NULL && sender->retry)
		tx_enable_retry(tx, NULL);
	if (sender != NULL && sender->notification)
		tx_enable_notification(tx, NULL);
	tx_begin_attempt(tx);
	run->chain = chain_new(endpoint->chain, tx, &explain->env);
	return run;
}

static TxPort *
open_sender(TxPorts *ports, const char *name, const char *tag, Tx *tx)
{
	Explain *explain = (Explain *)((char *)ports - offsetof(Explain, ports));
	const RouterConfig *config = explain->task->config;
	tx_set_sender(tx, name, tag);
	const SenderConf *sender = conf_model_sender(config->model, name, tag);
	const EndpointConf *endpoint = sender != NULL && sender->output_chain != NULL
					       ? router_config_endpoint(config,
									sender->output_chain)
					       : NULL;
	if (endpoint == NULL || explain->runs->len >= EXPLAIN_RUNS_MAX)
		return sink_new(tx, TOO_DEEP);
	Run *run = run_new(explain, tx, endpoint, sender);
	tx_watch(tx, &run->watch, on_run, run);
	tx_touch(tx);
	return &run->port;
}

/* ---- the client ---- */

static void
tell(Explain *explain)
{
	if (explain->told)
		return;
	explain->told = true;
	dns_tool_done(explain->tool);
}

static void
add_rcpt(Explain *explain, Tx *tx)
{
	const GPtrArray *rcpts = explain->task->rcpts;
	g_autoptr(Mailbox) to = mailbox_new(g_ptr_array_index(rcpts, explain->rcpts++), NULL, 0);
	tx_add_rcpt(tx, to);
}

static void
add_body(const Explain *explain, Tx *tx)
{
	g_autoptr(TxBody) body = tx_body_new_raw(explain->task->message);
	tx_set_body(tx, body);
}

/* An SMTP client waits for each answer; who submits over REST says all at once. */
static void
go_on(Explain *explain, Tx *tx)
{
	const guint all = explain->task->rcpts->len;
	if (tx->data_response != NULL || response_err(tx->mail_response)) {
		tell(explain);
	} else if (explain->rcpts < all) {
		if (tx->mail_response != NULL && tx->rcpt_answers == explain->rcpts)
			add_rcpt(explain, tx);
	} else if (tx->rcpt_answers == all && tx_rcpts_accepted(tx) == 0) {
		tell(explain);
	} else if (tx->body == NULL && tx->mail_response != NULL && tx->rcpt_answers == all) {
		add_body(explain, tx);
	}
}

static void
on_first(void *arg, Tx *tx)
{
	Run *run = arg;
	on_run(run, tx);
	go_on(run->explain, tx);
}

static json_t *
client_meta(const ExplainTask *task)
{
	json_t *meta = json_pack("{s:s, s:b, s:b, s:o}", "ehlo_host", task->helo, "esmtp", 1, "tls",
				 (int)task->tls, "auth",
				 task->user != NULL ? json_true() : json_null());
	if (task->user != NULL)
		json_object_set_new(meta, SMTP_META_AUTH_USER, json_string(task->user));
	return meta;
}

static void
on_timeout(void *arg)
{
	tell(arg);
}

static void
start(DnsTool *tool, Worker *worker, Dns *dns, void *arg)
{
	Explain *explain = arg;
	const ExplainTask *task = explain->task;
	explain->tool = tool;
	explain->env = (FilterEnv){.worker = worker,
				   .ports = &explain->ports,
				   .dns = dns,
				   .model = task->config->model,
				   .hostname = task->hostname,
				   .explain = true};
	timer_init(&explain->timer, worker, on_timeout, explain);
	timer_set(&explain->timer, task->timeout);
	g_autoptr(Tx) tx = tx_new(worker_defers(worker));
	if (task->sender != NULL)
		tx_set_sender(tx, task->sender->name, task->sender->tag);
	if (task->remote != NULL) {
		g_autoptr(json_t) meta = client_meta(task);
		tx_set_hosts(tx, task->remote, NULL);
		tx_set_smtp_meta(tx, meta);
	}
	g_autoptr(Mailbox) from = mailbox_new(task->mail_from, NULL, 0);
	tx_set_mail_from(tx, from);
	Run *run = run_new(explain, tx, task->endpoint, task->sender);
	tx_watch(tx, &run->watch, on_first, run);
	if (task->endpoint->chain->incremental)
		return;
	while (explain->rcpts < task->rcpts->len)
		add_rcpt(explain, tx);
	add_body(explain, tx);
}

static void
stop(void *arg)
{
	Explain *explain = arg;
	timer_clear(&explain->timer);
	for (guint i = 0; i < explain->runs->len; i++)
		run_end(g_ptr_array_index(explain->runs, i));
}

json_t *
explain_run(const ExplainTask *task, GError **ret_error)
{
	static const DnsToolWork work = {.start = start, .stop = stop};
	const DnsConfig config = {.forward = task->config->koukan.dns_forward,
				  .use_system = true,
				  .timeout = task->config->koukan.dns_timeout};
	Explain explain = {.task = task,
			   .ports = {.open_url = open_url, .open_sender = open_sender},
			   .runs = g_ptr_array_new_with_free_func(run_free)};
	json_t *out = NULL;
	if (dns_tool_run_as(&config, task->dns != NULL ? explain_dns_answer : NULL, task->dns,
			    &work, &explain, ret_error)) {
		out = json_array();
		for (guint i = 0; i < explain.runs->len; i++) {
			const Run *run = g_ptr_array_index(explain.runs, i);
			json_array_append(out, run->why);
		}
	}
	g_ptr_array_unref(explain.runs);
	return out;
}
