/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway as a host of REST resources: each is one SMTP delivery, kept in memory until its
 * client has had time to read the answer. */
#include "base/error.h"
#include "base/log.h"
#include "service/gateway_int.h"

typedef struct GatewayTx {
	GatewayHome *home;
	Tx *tx;
	TxPort *port;
	TxWatch watch;
	TxMark mark;
	Timer timer;
	bool done;
	/* the creation's answer, given at the end of the turn */
	Defer created;
	RestDoneFn *done_fn;
	void *done_arg;
} GatewayTx;

static void
delivery_free(void *arg)
{
	GatewayTx *delivery = arg;
	tx_unref(delivery->tx);
	g_free(delivery);
}

static void
delivery_end(GatewayTx *delivery)
{
	if (!delivery->done)
		atomic_fetch_sub(&delivery->home->active, 1);
	tx_unwatch(&delivery->watch);
	tx_port_stop(delivery->port);
	timer_clear(&delivery->timer);
	defer_cancel(&delivery->created);
}

static void
forget(void *arg)
{
	GatewayTx *delivery = arg;
	GatewayHome *home = delivery->home;
	rest_table_remove(rest_table(&home->gateway->host, home->worker), delivery->tx);
	g_hash_table_remove(home->deliveries, delivery->tx);
	delivery_end(delivery);
	worker_reap(home->worker, delivery, delivery_free);
}

/* Forgetting is due some time after the last change: soon when it is over, else late. */
static void
on_change(void *arg, Tx *tx)
{
	GatewayTx *delivery = arg;
	const RestListenerConf *conf = &delivery->home->gateway->config->rest;
	tx_mark(tx, &delivery->mark);
	bool done = tx->data_response != NULL || tx->cancelled || response_err(tx->mail_response);
	if (done && !delivery->done) {
		delivery->done = true;
		atomic_fetch_sub(&delivery->home->active, 1);
		const Response *response = tx->data_response != NULL ? tx->data_response
								     : tx->mail_response;
		log_info(&((LogCtx){.tx = tx->id}), "smtp.delivery", LOG_S("tag", tx->sender_tag),
			 LOG_S("host", tx->remote_host != NULL ? tx->remote_host->host : NULL),
			 LOG_I("rcpts", tx_rcpt_count(tx)), LOG_B("cancelled", tx->cancelled),
			 LOG_I("code", response != NULL ? response->code : 0),
			 LOG_B("unacknowledged", smtp_response_is_unacknowledged(response)),
			 LOG_S("text", response != NULL ? response->message : NULL));
	}
	timer_set(&delivery->timer, done ? conf->gc_done_ttl : conf->gc_tx_ttl);
}

static RestVerdict
admit(RestHost *host, const char *sender, const char *tag, bool *ret_incremental)
{
	Gateway *gateway = (Gateway *)host;
	(void)sender; /* any: the tag chooses the output (behaviour spec 4.3) */
	if (gateway_output(gateway, tag) == NULL)
		return (RestVerdict){.status = 404, .text = "no such smtp_output host tag"};
	if (atomic_load(&gateway->draining))
		return (RestVerdict){.status = 503, .text = "shutting down"};
	*ret_incremental = true;
	return (RestVerdict){.status = 0};
}

static void
created(void *arg)
{
	GatewayTx *delivery = arg;
	const RestVerdict yes = {.status = 200};
	delivery->done_fn(delivery->done_arg, &yes);
}

static void
create(RestHost *host, Worker *worker, Tx *tx, RestDoneFn *done, void *arg)
{
	Gateway *gateway = (Gateway *)host;
	GatewayHome *home = gateway_home(gateway, worker);
	GatewayTx *delivery = g_new0(GatewayTx, 1);
	delivery->home = home;
	delivery->tx = tx_ref(tx);
	delivery->done_fn = done;
	delivery->done_arg = arg;
	timer_init(&delivery->timer, worker, forget, delivery);
	timer_set(&delivery->timer, gateway->config->rest.gc_tx_ttl);
	defer_init(&delivery->created, created, delivery);
	atomic_fetch_add(&home->active, 1);
	g_hash_table_insert(home->deliveries, tx, delivery);
	rest_table_add(rest_table(host, worker), tx);
	tx_watch(tx, &delivery->watch, on_change, delivery);
	delivery->port = gateway_port_start(gateway, worker, tx->sender_tag, tx);
	defer_queue(worker_defers(worker), &delivery->created);
}

/* ---- answers that are known at once ---- */

typedef struct Later {
	Defer defer;
	RestVerdict verdict;
	RestDoneFn *done;
	RestLoadFn *loaded;
	RestBlobFn *reused;
	void *arg;
} Later;

static void
later_run(void *arg)
{
	Later *later = arg;
	if (later->done != NULL)
		later->done(later->arg, &later->verdict);
	else if (later->loaded != NULL)
		later->loaded(later->arg, &later->verdict, NULL);
	else
		later->reused(later->arg, &later->verdict, NULL);
	g_free(later);
}

static void
answer_later(Worker *worker, const Later *values)
{
	Later *later = g_new0(Later, 1);
	*later = *values;
	defer_init(&later->defer, later_run, later);
	defer_queue(worker_defers(worker), &later->defer);
}

static void
load(RestHost *host, Worker *worker, const char *id, RestLoadFn *done, void *arg)
{
	(void)host;
	(void)id;
	answer_later(worker, &(Later){.verdict = {.status = 404, .text = "transaction not found"},
				      .loaded = done,
				      .arg = arg});
}

static void
complete(RestHost *host, Tx *tx, RestDoneFn *done, void *arg)
{
	(void)host;
	(void)tx;
	answer_later(worker_current(),
		     &(Later){.verdict = {.status = 200}, .done = done, .arg = arg});
}

static void
cancel(RestHost *host, Worker *worker, const char *id, Tx *tx, RestDoneFn *done, void *arg)
{
	(void)host;
	(void)id;
	RestVerdict verdict = {.status = 200};
	if (tx != NULL)
		tx_cancel(tx);
	else
		verdict = (RestVerdict){.status = 404, .text = "transaction not found"};
	answer_later(worker, &(Later){.verdict = verdict, .done = done, .arg = arg});
}

static void
reuse(RestHost *host, Worker *worker, const char *id, const char *name, const RestPrincipal *who,
      RestBlobFn *done, void *arg)
{
	(void)host;
	(void)who;
	(void)id;
	(void)name;
	answer_later(worker, &(Later){.verdict = {.status = 404, .text = "nothing to reuse here"},
				      .reused = done,
				      .arg = arg});
}

static bool
is_active(RestHost *host, Tx *tx)
{
	GatewayHome *home = gateway_home((Gateway *)host, worker_current());
	return g_hash_table_contains(home->deliveries, tx);
}

static bool
is_incremental(RestHost *host, Tx *tx)
{
	(void)host;
	(void)tx;
	return true;
}

void
gateway_rest_init(Gateway *gateway)
{
	RestHost *host = &gateway->host;
	host->accepts_body_json = false;
	host->arg = gateway;
	host->admit = admit;
	host->create = create;
	host->load = load;
	host->complete = complete;
	host->cancel = cancel;
	host->reuse = reuse;
	host->is_active = is_active;
	host->is_incremental = is_incremental;
}

void
gateway_rest_clear(GatewayHome *home)
{
	GHashTableIter iter;
	void *value;
	g_hash_table_iter_init(&iter, home->deliveries);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		g_hash_table_iter_steal(&iter);
		delivery_end(value);
		delivery_free(value);
	}
	g_hash_table_unref(home->deliveries);
}

/* ---- the port ---- */

static void
refusal_stop(TxPort *port)
{
	(void)port;
}

TxPort *
gateway_port_start(Gateway *gateway, Worker *worker, const char *tag, Tx *tx)
{
	static const TxPortOps refusal_ops = {.name = "refusal", .stop = refusal_stop};
	static TxPort refusal = {.ops = &refusal_ops};
	const SmtpOutputConf *output = gateway_output(gateway, tag);
	if (output == NULL) {
		tx_answer_mail(tx, response_newf(450, "4.3.5 no such smtp_output host tag: %s",
						 tag != NULL ? tag : ""));
		tx_check_preconditions(tx);
		return &refusal;
	}
	return smtp_delivery_start(gateway_home(gateway, worker)->pool, output, tx);
}
