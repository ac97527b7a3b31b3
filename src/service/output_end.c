/* SPDX-License-Identifier: Apache-2.0 */
/* How attempts and transactions end: retries, final reasons, notifications (behaviour spec 12.3 to
 * 12.5). */
#include "base/clock.h"
#include "base/metrics.h"
#include "service/output_int.h"
#include "service/row.h"

/* ---- the log ---- */

/* The answer that decided, for the log. */
static const Response *
deciding_response(const Tx *tx)
{
	const Response *rcpt = tx_rcpt_count(tx) == 1 ? tx_rcpt(tx, 0)->response : NULL;
	if (response_err(tx->mail_response))
		return tx->mail_response;
	if (response_err(rcpt) || tx->data_response == NULL)
		return rcpt;
	return tx->data_response;
}

/* By what readers are told. */
static Metric
metric_of(const char *reason)
{
	static const struct {
		const char *reason;
		Metric metric;
	} rows[] = {{REASON_SUCCESS, METRIC_TX_SUCCESS},     {REASON_PERM, METRIC_TX_FAILED},
		    {REASON_MAIL_PERM, METRIC_TX_FAILED},    {REASON_RCPT_PERM, METRIC_TX_FAILED},
		    {REASON_RCPTS, METRIC_TX_FAILED},        {REASON_TIMEOUT, METRIC_TX_ABANDONED},
		    {REASON_CANCELLED, METRIC_TX_CANCELLED}, {ROW_ONESHOT, METRIC_TX_TEMPORARY}};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		if (g_str_equal(rows[i].reason, reason))
			return rows[i].metric;
	}
	return METRIC_TX_EXPIRED; /* the retry policy's */
}

void
output_log_end(const Output *output, const char *event, const char *reason)
{
	const Tx *tx = output->tx;
	const Response *response = deciding_response(tx);
	metric_observe(HISTOGRAM_ATTEMPT, clock_mono() - output->started);
	if (g_str_equal(event, "tx.end"))
		metric_add(metric_of(reason), 1);
	/* An exploder's own transaction is told of by its session; its recipients tell the rest. */
	LogLevel level = output_is_incremental(output) && output->origin == OUTPUT_FROM_PORT
				 ? LOG_DEBUG
				 : LOG_INFO;
	log_at(level, &((LogCtx){.tx = tx->id}), event, LOG_S("sender", tx->sender_name),
	       LOG_S("tag", tx->sender_tag), LOG_S("reason", reason),
	       LOG_S("from", tx->mail_from != NULL ? tx->mail_from->addr : NULL),
	       LOG_S("to", tx_rcpt_count(tx) > 0 ? tx_rcpt(tx, 0)->to->addr : NULL),
	       LOG_I("rcpts", tx_rcpt_count(tx)),
	       LOG_I("bytes", tx->body ? tx_body_len(tx->body) : 0),
	       LOG_I("attempt", tx->attempt_count), LOG_I("code", response ? response->code : 0),
	       LOG_S("text", response ? response->message : NULL),
	       LOG_T("took", clock_mono() - output->started));
}

/* ---- ends ---- */

void
output_linger(Output *output)
{
	if (output->origin == OUTPUT_FROM_PORT) {
		if (output->released && !output->dirty)
			output_remove(output);
		return;
	}
	timer_set(&output->timer, MAX(output->home->router->config->cache_ttl, USEC_PER_SEC));
}

/* The id is made of the failed transaction's: whatever fails or dies in between, a notification
 * that is repeated meets the one that is there already. */
static char *
bounce_id(const Output *output, BounceKind kind)
{
	if (kind == BOUNCE_END)
		return g_strconcat(output->tx->id, "-b", NULL);
	return ids_tx_new(worker_index(output->home->worker), output->home->router->host.entropy);
}

bool
output_send_bounce(Output *output, BounceKind kind, RestDoneFn *done, void *arg)
{
	Router *router = output->home->router;
	const char *daemon = router->config->mailer_daemon_mailbox;
	g_autoptr(Tx) tx = bounce_new(output->tx, output->endpoint, daemon, output->creation, kind);
	if (tx == NULL)
		return false;
	const SenderConf *sender = conf_model_sender(router->config->model, tx->sender_name,
						     tx->sender_tag);
	const EndpointConf *endpoint = sender != NULL && sender->output_chain != NULL
					       ? router_config_endpoint(router->config,
									sender->output_chain)
					       : NULL;
	if (endpoint == NULL) {
		log_error(&((LogCtx){.tx = output->tx->id}), "bounce.no_sender",
			  LOG_S("sender", tx->sender_name), LOG_S("tag", tx->sender_tag));
		return false;
	}
	g_autofree char *id = bounce_id(output, kind);
	const Tx *former = rest_table_find(rest_table(&router->host, output->home->worker), id);
	if (former != NULL) { /* it is on its way, or on disk */
		output_add_ack(router_find(output->home, former), done, arg);
		return true;
	}
	tx_set_id(tx, id);
	/* A notification is tried as long as any message of that chain (B3). */
	tx_enable_retry(tx, NULL);
	log_info(&((LogCtx){.tx = output->tx->id}),
		 kind == BOUNCE_DELAY ? "bounce.delay" : "bounce.sent", LOG_S("bounce", id),
		 LOG_S("to", output->tx->mail_from->addr));
	Output *bounce = output_new(output->home, tx, sender, endpoint, OUTPUT_FROM_QUEUE);
	metric_add(METRIC_BOUNCES, 1);
	output_start(bounce, done, arg);
	return true;
}

/* ---- a failure that its user makes ours afterwards (the exploder, answers of both kinds) ---- */

static void
late_bounce_done(void *arg, const RestVerdict *verdict)
{
	g_autoptr(Tx) tx = arg;
	if (verdict->status == 200)
		tx_set_durable(tx);
	else
		tx_refuse_durable(tx);
}

void
output_take_over_failure(Output *output)
{
	Tx *tx = output->tx;
	if (bounce_is_unwanted(tx)) {
		tx_set_durable(tx);
		return;
	}
	if (!output_send_bounce(output, BOUNCE_END, late_bounce_done, tx_ref(tx))) {
		tx_unref(tx);
		tx_refuse_durable(tx);
	}
}

/* ---- the end ---- */

void
output_finish(Output *output, const char *reason)
{
	const Tx *tx = output->tx;
	if (output->state == OUTPUT_DONE)
		return;
	if (reason != NULL)
		tx_finish(output->tx, reason);
	output_end_chain(output);
	output_set_state(output, OUTPUT_DONE);
	timer_cancel(&output->timer);
	output_log_end(output, "tx.end", reason != NULL ? reason : ROW_ONESHOT);
	if (reason != NULL && bounce_is_owed(tx, output->endpoint,
					     output->home->router->config->mailer_daemon_mailbox))
		output->notice = NOTICE_OWED;
	/* A REST client that has not uploaded all of its message holds it still: what is owed then
	 * is owed from the end of the upload on (output_complete). */
	const bool whole = output->origin != OUTPUT_FROM_REST || tx_body_ready(tx);
	if (output->row == ROW_NONE && response_ok(tx->data_response))
		output_ack_now(output);
	if (output->row != ROW_NONE || whole)
		output_settle(output);
	output_linger(output);
}

/* Chance in few steps: what fails together is spread, yet lies together in the index of due times,
 * where one commit then changes some pages and not one for each message. */
#define JITTER_STEPS 8

RetryVerdict
output_plan_retry(Output *output)
{
	double jitter = (double)ids_random_below(JITTER_STEPS + 1) / JITTER_STEPS;
	return retry_next(&output->endpoint->retry, output->creation, clock_wall_sec(),
			  output->tx->attempt_count, jitter, &output->next_attempt);
}

void
output_end_temporary(Output *output)
{
	output_end_chain(output);
	if (output->cancel_by != 0) {
		tx_cancel(output->tx);
		output_finish(output, REASON_CANCELLED);
		return;
	}
	if (output->tx->retry == NULL || !output->endpoint->has_retry ||
	    output->tx->durable_refused) {
		/* A port's user may still enable retries; over REST that was the one attempt. */
		if (output->origin == OUTPUT_FROM_PORT && !output->released)
			output_set_state(output, OUTPUT_WAITING);
		else
			output_finish(output, NULL);
		return;
	}
	const int64_t this_attempt = output->next_attempt;
	RetryVerdict verdict = output_plan_retry(output);
	if (verdict != RETRY_AT) {
		output_finish(output, retry_reason(verdict));
		return;
	}
	output_log_end(output, "tx.retry", "temporary");
	metric_add(METRIC_RETRIES, 1);
	if (bounce_delay_is_due(output->endpoint, output->creation, this_attempt,
				output->next_attempt))
		output_send_bounce(output, BOUNCE_DELAY, NULL, NULL);
	if (output->row == ROW_NONE) {
		output_set_state(output, OUTPUT_WAITING);
		output_arm_timer(output);
		return;
	}
	output_set_state(output, OUTPUT_PARKED);
	output_write(output);
}
