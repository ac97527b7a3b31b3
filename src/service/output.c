/* SPDX-License-Identifier: Apache-2.0 */
#include "service/output.h"

#include "base/clock.h"
#include "base/metrics.h"
#include "base/new.h"
#include "service/output_int.h"
#include "service/row.h"

#define VERSIONS_LOST 1000 /* more than one attempt has */

static void output_stop_port(TxPort *port);

static const TxPortOps output_port_ops = {.name = "router", .stop = output_stop_port};

static const char *const state_names[] = {"COMMITTING", "RUNNING", "WAITING", "PARKED", "DONE"};
_Static_assert(G_N_ELEMENTS(state_names) == OUTPUT_STATES, "a name for each state");

const char *
output_state_name(OutputState state)
{
	return state_names[state];
}

/* ---- life ---- */

void
output_set_dirty(Output *output, bool dirty)
{
	if (dirty && !output->dirty)
		atomic_fetch_add_explicit(&output->home->unwritten, 1, memory_order_relaxed);
	else if (!dirty && output->dirty)
		atomic_fetch_sub_explicit(&output->home->unwritten, 1, memory_order_relaxed);
	output->dirty = dirty;
}

static void
output_destroy(void *arg)
{
	Output *output = arg;
	g_clear_pointer(&output->acks, g_array_unref);
	g_clear_pointer(&output->cancels, g_array_unref);
	g_free(output->destination);
	json_decref(output->former);
	tx_unref(output->tx);
	g_free(output);
}

void
output_free(Output *output)
{
	if (output == NULL || output->gone)
		return;
	output->gone = true;
	output_set_dirty(output, false);
	tx_unwatch(&output->watch);
	defer_cancel(&output->ack_defer);
	timer_clear(&output->timer);
	chain_free(g_steal_pointer(&output->chain));
	if (output->jobs == 0)
		output_destroy(output);
}

void
output_remove(Output *output)
{
	RouterHome *home = output->home;
	if (output->gone)
		return;
	if (output->origin != OUTPUT_FROM_PORT)
		rest_table_remove(rest_table(&home->router->host, home->worker), output->tx);
	g_hash_table_steal(home->outputs, output->tx);
	output->gone = true;
	output_set_dirty(output, false);
	tx_unwatch(&output->watch);
	defer_cancel(&output->ack_defer);
	timer_clear(&output->timer);
	chain_free(g_steal_pointer(&output->chain));
	static const RestVerdict yes = {.status = 200}, no = {.status = 503};
	output_run_acks(&output->cancels, &yes);
	output_run_acks(&output->acks, output->row == ROW_STORED ? &yes : &no);
	if (output->jobs == 0)
		worker_reap(home->worker, output, output_destroy);
}

void
output_job_begin(Output *output)
{
	output->jobs++;
}

bool
output_job_end(Output *output)
{
	output->jobs--;
	if (!output->gone)
		return true;
	if (output->jobs == 0)
		output_destroy(output);
	return false;
}

static void
leave_destination(Output *output)
{
	if (output->destination == NULL)
		return;
	router_leave(output->home->router, output->destination, output->kind);
	g_clear_pointer(&output->destination, g_free);
}

void
output_set_state(Output *output, OutputState state)
{
	k_assert_for(output_is_active(output->state), output->tx->id);
	if (!output_is_active(state))
		atomic_fetch_sub_explicit(&output->home->active, 1, memory_order_relaxed);
	output->state = state;
	if (state != OUTPUT_COMMITTING && state != OUTPUT_RUNNING)
		leave_destination(output);
	if (!output_is_active(state) && output->cancels != NULL)
		defer_queue(worker_defers(output->home->worker), &output->ack_defer);
}

/* ---- the attempt ---- */

bool
output_is_ours(const Output *output)
{
	return output->tx->retry != NULL && output->endpoint->has_retry &&
	       !output->tx->durable_refused && tx_body_ready(output->tx);
}

void
output_arm_timer(Output *output)
{
	if (tx_body_ready(output->tx))
		timer_cancel(&output->timer);
	else
		timer_set(&output->timer, MIN(output->endpoint->upstream_refresh,
					      output->endpoint->downstream_timeout));
}

void
output_start_attempt(Output *output)
{
	k_assert_for(output->chain == NULL, output->tx->id);
	if (output->row == ROW_STORED && !store_is_leaseholder(output->home->router->store)) {
		/* The row may be somebody else's by now: back to the queue, if it is still ours. */
		log_warn(&((LogCtx){.tx = output->tx->id}), "tx.not_started",
			 LOG_S("reason", "the lease on the queue is in doubt"));
		output_set_state(output, OUTPUT_PARKED);
		output_write(output);
		return;
	}
	output_set_state(output, OUTPUT_RUNNING);
	tx_begin_attempt(output->tx);
	tx_mark(output->tx, &output->mark);
	output->started = output->changed = clock_mono();
	output->chain = chain_new(output->endpoint->chain, output->tx, output->home->env);
	output_arm_timer(output);
}

typedef enum Verdict { GOING, TEMPORARY, FINAL } Verdict;

static Verdict
verdict_of(const Response *response, const char *perm_reason, const char **ret_reason)
{
	if (response_ok(response))
		*ret_reason = REASON_SUCCESS;
	else if (response_perm(response))
		*ret_reason = perm_reason;
	else
		return TEMPORARY;
	return FINAL;
}

/* Is the attempt over (behaviour spec 12.2)? */
static Verdict
judge(const Tx *tx, const char **ret_reason)
{
	if (tx->mail_response == NULL)
		return GOING;
	if (response_err(tx->mail_response))
		return verdict_of(tx->mail_response, REASON_MAIL_PERM, ret_reason);
	size_t rcpts = tx_rcpt_count(tx);
	if (tx->body != NULL && rcpts > 0 && tx->rcpt_answers == rcpts &&
	    tx_rcpts_accepted(tx) == 0) {
		if (rcpts == 1)
			return verdict_of(tx_rcpt(tx, 0)->response, REASON_RCPT_PERM, ret_reason);
		*ret_reason = REASON_RCPTS;
		return FINAL;
	}
	if (tx->data_response == NULL)
		return GOING;
	return verdict_of(tx->data_response, REASON_PERM, ret_reason);
}

/* ---- events ---- */

/* A retry was enabled after the attempt had failed (store and forward): plan it like any other
 * failed attempt and write the row. */
static void
plan_late_retry(Output *output)
{
	RetryVerdict verdict = output_plan_retry(output);
	if (verdict != RETRY_AT)
		output_finish(output, retry_reason(verdict));
	else
		output_insert(output);
}

static void
check_row(Output *output)
{
	if (output->tx->retry != NULL && !output->endpoint->has_retry &&
	    output->origin == OUTPUT_FROM_PORT)
		tx_refuse_durable(output->tx);
	if (output->row != ROW_NONE || !output_is_ours(output))
		return;
	if (output->state == OUTPUT_RUNNING)
		output_insert(output);
	else if (output->state == OUTPUT_WAITING)
		plan_late_retry(output);
}

static void
on_change(void *arg, Tx *tx)
{
	Output *output = arg;
	unsigned news = tx_since(tx, &output->mark);
	tx_mark(tx, &output->mark);
	if (output->state == OUTPUT_DONE && (news & TX_NEW_RETRY) != 0 && output->row == ROW_NONE &&
	    !response_ok(tx->data_response))
		output_take_over_failure(output);
	if (output->state == OUTPUT_DONE || output->state == OUTPUT_PARKED)
		return;
	if (news & TX_NEW_REQUESTS)
		output->changed = clock_mono();
	if (tx->cancelled) {
		bool late = response_ok(tx->data_response);
		output_finish(output, late ? REASON_SUCCESS : REASON_CANCELLED);
		return;
	}
	if (news & TX_NEW_BODY_FINAL)
		output_arm_timer(output);
	check_row(output);
	if (output->state != OUTPUT_RUNNING)
		return;
	const char *reason = NULL;
	switch (judge(tx, &reason)) {
	case GOING:
		break;
	case TEMPORARY:
		output_end_temporary(output);
		break;
	case FINAL:
		output_finish(output, reason);
		break;
	}
}

static void
on_timer(void *arg)
{
	Output *output = arg;
	if (output->dirty && output->jobs > 0) {
		timer_set(&output->timer, WRITE_AGAIN);
	} else if (output->dirty) {
		output_settle(output);
	} else if (output->state == OUTPUT_DONE && output->jobs > 0) {
		timer_set(&output->timer, WRITE_AGAIN); /* somebody waits for its row */
	} else if (output->state == OUTPUT_DONE) {
		output_remove(output);
	} else if (clock_passed(output->cancel_by)) {
		tx_cancel(output->tx);
	} else if (output->origin != OUTPUT_FROM_PORT &&
		   clock_passed(output->changed + output->endpoint->downstream_timeout)) {
		output_finish(output, REASON_TIMEOUT);
	} else {
		if (output->chain != NULL)
			chain_heartbeat(output->chain);
		output_arm_timer(output);
	}
}

/* ---- the outside ---- */

Output *
output_new(RouterHome *home, Tx *tx, const SenderConf *sender, const EndpointConf *endpoint,
	   OutputOrigin origin)
{
	Output *output = k_new0(Output);
	output->port.ops = &output_port_ops;
	output->home = home;
	output->tx = tx_ref(tx);
	output->sender = sender;
	output->endpoint = endpoint;
	output->origin = origin;
	output->promised = origin != OUTPUT_FROM_REST;
	output->creation = clock_wall_sec();
	tx->notifies = true;
	timer_init(&output->timer, home->worker, on_timer, output);
	defer_init(&output->ack_defer, output_ack_now, output);
	if (sender->retry)
		tx_enable_retry(tx, NULL);
	if (sender->notification)
		tx_enable_notification(tx, NULL);
	static const Metric METRIC[] = {[OUTPUT_FROM_PORT] = METRIC_TX_FROM_PORT,
					[OUTPUT_FROM_REST] = METRIC_TX_FROM_REST,
					[OUTPUT_FROM_QUEUE] = METRIC_TX_FROM_QUEUE};
	metric_add(METRIC[origin], 1);
	tx_watch(tx, &output->watch, on_change, output);
	atomic_fetch_add_explicit(&home->active, 1, memory_order_relaxed);
	g_hash_table_insert(home->outputs, tx, output);
	if (origin != OUTPUT_FROM_PORT)
		rest_table_add(rest_table(&home->router->host, home->worker), tx);
	return output;
}

void
output_set_row(Output *output, const StoreRow *row)
{
	output->row = ROW_STORED;
	output->former = row_former(row);
	output->creation = row->creation;
	output->next_attempt = row->next_attempt;
	/* A process that died may have told of versions that it did not write. */
	if (row->crashes > 1)
		tx_set_version(output->tx, row->version + VERSIONS_LOST);
	output->destination = g_strdup(row->destination != NULL ? row->destination : "");
	output->kind = DESTINATION_QUEUED;
}

/* A destination that hangs may not take all places: beyond its share new messages wait in the
 * queue, which is fair. */
static void
enter_destination(Output *output)
{
	Router *router = output->home->router;
	g_autofree char *name = row_destination(output->tx);
	if (destinations_count(router->destinations, name, DESTINATION_FRESH) >=
	    router->fresh_max) {
		output->deferred = output->origin != OUTPUT_FROM_PORT;
		return;
	}
	destinations_enter(router->destinations, name, DESTINATION_FRESH);
	output->destination = g_steal_pointer(&name);
	output->kind = DESTINATION_FRESH;
}

void
output_start(Output *output, RestDoneFn *done, void *arg)
{
	output->started = clock_mono();
	if (output->row == ROW_NONE && output_is_ours(output)) {
		enter_destination(output);
		output_insert(output);
	} else if (done == NULL) {
		output_start_attempt(output);
	}
	output_add_ack(output, done, arg);
}

bool
output_is_unkept(const Output *output)
{
	const Tx *tx = output->tx;
	if (output->drained)
		return true; /* an upload that has won the race to its end must not be told 200 */
	if (output->state != OUTPUT_DONE || output->row == ROW_STORED || output->promised)
		return false;
	return tx->final_attempt_reason == NULL
		       ? tx->durable_refused
		       : g_str_equal(tx->final_attempt_reason, REASON_TIMEOUT);
}

void
output_complete(Output *output, RestDoneFn *done, void *arg)
{
	if (output->row == ROW_NONE && !output->promised) {
		/* The client may be repeating an upload that was refused. */
		tx_retry_durable(output->tx);
		output->refusal = (RestVerdict){0};
		if (output->state == OUTPUT_RUNNING || output->state == OUTPUT_WAITING)
			check_row(output);
		if (output->state == OUTPUT_DONE && output->row == ROW_NONE)
			output_settle(output);
	}
	output_add_ack(output, done, arg);
}

void
output_drain(Output *output)
{
	if (output->origin != OUTPUT_FROM_REST || !output_is_active(output->state) ||
	    tx_body_ready(output->tx))
		return;
	output->drained = true;
	tx_cancel(output->tx);
}

void
output_cancel(Output *output, RestDoneFn *done, void *arg)
{
	k_assert_for(output->state != OUTPUT_PARKED, output->tx->id);
	const bool on_its_way = output->state == OUTPUT_RUNNING && tx_body_ready(output->tx);
	if (done != NULL)
		output_list_ack(&output->cancels, done, arg);
	if (output->state == OUTPUT_DONE) {
		if (output->tx->final_attempt_reason == NULL)
			tx_cancel(output->tx);
		defer_queue(worker_defers(output->home->worker), &output->ack_defer);
	} else if (!on_its_way) {
		tx_cancel(output->tx);
	} else if (output->cancel_by == 0) {
		output->cancel_by = clock_after(OUTPUT_CANCEL_GRACE);
		timer_set_at(&output->timer, output->cancel_by);
	}
}

OutputWay
output_make_way(Output *output)
{
	if (output->state != OUTPUT_PARKED)
		return OUTPUT_STAYS;
	if (output->jobs > 0)
		return OUTPUT_LEAVING;
	if (output->dirty)
		return OUTPUT_STAYS;
	output_remove(output);
	return OUTPUT_GONE;
}

void
output_release(Output *output)
{
	output->released = true;
	if (output->state == OUTPUT_DONE || output->state == OUTPUT_PARKED) {
		if (!output->dirty && output->row != ROW_WRITING)
			output_remove(output);
		return;
	}
	if (output->row != ROW_NONE || output_is_ours(output))
		return; /* ours: it goes on without its user */
	output_log_end(output, "tx.end",
		       output->state == OUTPUT_WAITING ? ROW_ONESHOT : REASON_CANCELLED);
	output_set_state(output, OUTPUT_DONE);
	output_remove(output);
}

static void
output_stop_port(TxPort *port)
{
	output_release((Output *)port);
}

TxPort *
output_port(Output *output)
{
	return &output->port;
}

Tx *
output_tx(const Output *output)
{
	return output->tx;
}

OutputState
output_state(const Output *output)
{
	return output->state;
}

bool
output_is_incremental(const Output *output)
{
	return output->endpoint->chain->incremental;
}
