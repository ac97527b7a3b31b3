/* SPDX-License-Identifier: Apache-2.0 */
#include "service/output.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "service/bounce.h"
#include "service/router_int.h"
#include "service/row.h"

#define REASON_SUCCESS   "upstream response success"
#define REASON_PERM      "upstream response permfail"
#define REASON_MAIL_PERM "upstream mail_response permfail"
#define REASON_RCPT_PERM "upstream rcpt_response permfail"
#define REASON_RCPTS     "exploder/oneshot all rcpts failed"
#define REASON_TIMEOUT   "downstream timeout"
#define REASON_CANCELLED "downstream cancelled"

#define WRITE_AGAIN (1 * USEC_PER_SEC) /* after a failed write of a row */

typedef enum RowState {
	ROW_NONE,    /* not in the store */
	ROW_WRITING, /* the insert is under way */
	ROW_STORED
} RowState;

/* Somebody who waits until the transaction may be acknowledged. */
typedef struct Ack {
	RestDoneFn *done;
	void *arg;
} Ack;

struct Output {
	TxPort port; /* first */
	RouterHome *home;
	Tx *tx;
	const SenderConf *sender;
	const EndpointConf *endpoint;
	OutputOrigin origin;
	OutputState state;
	RowState row;
	bool released;    /* its user has gone */
	bool dirty;       /* the row does not show the newest state yet */
	bool deferred;    /* its destination has enough to do: the queue starts the first attempt */
	bool owes_notice; /* a bounce is to be on disk before the row says that this failed */
	char *destination; /* counted there (service/destinations.h); NULL: not counted */
	DestinationKind kind;
	Deadline cancel_by; /* cancelled, but the attempt may still end by itself; 0: not */
	bool gone;          /* out of the home; freed when the last store job is answered */
	unsigned jobs;      /* store jobs under way */
	int64_t creation, next_attempt; /* unix seconds */
	Deadline started, changed;      /* the attempt; the last news from downstream */
	Chain *chain;                   /* of the running attempt */
	TxWatch watch;
	TxMark mark;
	Timer timer;
	Defer ack_defer;
	GArray *acks;    /* Ack */
	GArray *cancels; /* Ack: who waits for the end of a cancelled attempt */
};

static void output_write(Output *output);
static void output_insert(Output *output);
static void settle(Output *output);
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

static void
output_destroy(void *arg)
{
	Output *output = arg;
	g_array_unref(output->acks);
	g_array_unref(output->cancels);
	g_free(output->destination);
	tx_unref(output->tx);
	g_free(output);
}

void
output_free(Output *output)
{
	if (output == NULL || output->gone)
		return;
	output->gone = true;
	tx_unwatch(&output->watch);
	defer_cancel(&output->ack_defer);
	timer_clear(&output->timer);
	chain_free(g_steal_pointer(&output->chain));
	if (output->jobs == 0)
		output_destroy(output);
}

static void
run_acks(GArray **list, const RestVerdict *verdict)
{
	g_autoptr(GArray) acks = *list;
	*list = g_array_new(FALSE, FALSE, sizeof(Ack));
	for (guint i = 0; i < acks->len; i++) {
		const Ack *ack = &g_array_index(acks, Ack, i);
		ack->done(ack->arg, verdict);
	}
}

/* Out of the home's tables; freed at the end of the turn. */
static void
output_remove(Output *output)
{
	RouterHome *home = output->home;
	if (output->gone)
		return;
	if (output->origin != OUTPUT_FROM_PORT)
		rest_table_remove(rest_table(&home->router->host, home->worker), output->tx);
	g_hash_table_steal(home->outputs, output->tx);
	output->gone = true;
	tx_unwatch(&output->watch);
	defer_cancel(&output->ack_defer);
	timer_clear(&output->timer);
	chain_free(g_steal_pointer(&output->chain));
	static const RestVerdict yes = {.status = 200};
	run_acks(&output->cancels, &yes);
	if (output->jobs == 0)
		worker_reap(home->worker, output, output_destroy);
}

static void
job_begin(Output *output)
{
	output->jobs++;
}

/* False: the output is gone and has been freed. */
static bool
job_end(Output *output)
{
	output->jobs--;
	if (!output->gone)
		return true;
	if (output->jobs == 0)
		output_destroy(output);
	return false;
}

static bool
state_is_active(OutputState state)
{
	return state != OUTPUT_DONE && state != OUTPUT_PARKED;
}

static void
leave_destination(Output *output)
{
	if (output->destination == NULL)
		return;
	router_leave(output->home->router, output->destination, output->kind);
	g_clear_pointer(&output->destination, g_free);
}

static void
set_state(Output *output, OutputState state)
{
	k_assert_for(state_is_active(output->state), output->tx->id);
	if (!state_is_active(state))
		atomic_fetch_sub_explicit(&output->home->active, 1, memory_order_relaxed);
	output->state = state;
	if (state != OUTPUT_COMMITTING && state != OUTPUT_RUNNING)
		leave_destination(output);
	if (!state_is_active(state) && output->cancels->len > 0)
		defer_queue(worker_defers(output->home->worker), &output->ack_defer);
}

/* ---- acknowledgements ---- */

static void
ack_now(void *arg)
{
	static const RestVerdict yes = {.status = 200};
	Output *output = arg;
	if (!state_is_active(output->state))
		run_acks(&output->cancels, &yes);
	if (output->row != ROW_WRITING)
		run_acks(&output->acks, &yes);
}

/* Waits for the row when there is, or will be, one; else the answer comes at the end of the turn.
 */
static void
add_ack(Output *output, RestDoneFn *done, void *arg)
{
	if (done == NULL)
		return;
	const Ack ack = {done, arg};
	g_array_append_val(output->acks, ack);
	if (output->row != ROW_WRITING)
		defer_queue(worker_defers(output->home->worker), &output->ack_defer);
}

/* ---- the attempt ---- */

/* Retries are enabled here, so that the message becomes ours once it is complete. */
static bool
is_ours(const Output *output)
{
	return output->tx->retry != NULL && output->endpoint->has_retry &&
	       tx_body_ready(output->tx);
}

static void
arm_timer(Output *output)
{
	if (tx_body_ready(output->tx))
		timer_cancel(&output->timer);
	else
		timer_set(&output->timer, MIN(output->endpoint->upstream_refresh,
					      output->endpoint->downstream_timeout));
}

static void
start_attempt(Output *output)
{
	k_assert_for(output->chain == NULL, output->tx->id);
	if (output->row == ROW_STORED && !store_is_leaseholder(output->home->router->store)) {
		/* The row may be somebody else's by now: back to the queue, if it is still ours. */
		log_warn(&((LogCtx){.tx = output->tx->id}), "tx.not_started",
			 LOG_S("reason", "the lease on the queue is in doubt"));
		set_state(output, OUTPUT_PARKED);
		output_write(output);
		return;
	}
	set_state(output, OUTPUT_RUNNING);
	tx_begin_attempt(output->tx);
	tx_mark(output->tx, &output->mark);
	output->started = output->changed = clock_mono();
	output->chain = chain_new(output->endpoint->chain, output->tx, output->home->env);
	arm_timer(output);
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

/* The answer that decided, for the log. */
static const Response *
deciding_response(const Tx *tx)
{
	if (response_err(tx->mail_response))
		return tx->mail_response;
	if (tx->data_response != NULL)
		return tx->data_response;
	return tx_rcpt_count(tx) > 0 ? tx_rcpt(tx, 0)->response : NULL;
}

static void
log_end(const Output *output, const char *event, const char *reason)
{
	const Tx *tx = output->tx;
	const Response *response = deciding_response(tx);
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

/* Done and nobody looks: it goes.  Readers over REST may look for a while. */
static void
linger(Output *output)
{
	if (output->origin == OUTPUT_FROM_PORT) {
		if (output->released && !output->dirty)
			output_remove(output);
		return;
	}
	timer_set(&output->timer, MAX(output->home->router->config->cache_ttl, USEC_PER_SEC));
}

/* The notification of `output`, under way; NULL when none is owed or can be made.  `done` (may be
 * NULL) is told when it is on disk.  Its row is given to the store before the one of the failed
 * transaction says "final", so that a crash between the two repeats the notification instead of
 * losing it. */
static Output *
send_bounce(Output *output, BounceKind kind, RestDoneFn *done, void *arg)
{
	Router *router = output->home->router;
	g_autoptr(Tx)
		tx = bounce_new(output->tx, output->endpoint, router->config->mailer_daemon_mailbox,
				output->creation, kind);
	if (tx == NULL)
		return NULL;
	const SenderConf *sender = conf_model_sender(router->config->model, tx->sender_name,
						     tx->sender_tag);
	const EndpointConf *endpoint = sender != NULL && sender->output_chain != NULL
					       ? router_config_endpoint(router->config,
									sender->output_chain)
					       : NULL;
	if (endpoint == NULL) {
		log_error(&((LogCtx){.tx = output->tx->id}), "bounce.no_sender",
			  LOG_S("sender", tx->sender_name), LOG_S("tag", tx->sender_tag));
		return NULL;
	}
	g_autofree char *id = ids_tx_new(worker_index(output->home->worker), router->host.entropy);
	tx_set_id(tx, id);
	/* A notification is tried as long as any message of that chain (B3). */
	tx_enable_retry(tx, NULL);
	log_info(&((LogCtx){.tx = output->tx->id}),
		 kind == BOUNCE_DELAY ? "bounce.delay" : "bounce.sent", LOG_S("bounce", id),
		 LOG_S("to", output->tx->mail_from->addr));
	Output *bounce = output_new(output->home, tx, sender, endpoint, OUTPUT_FROM_QUEUE);
	output_start(bounce, done, arg);
	return bounce;
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

/* The attempt has failed for good and the sender of the message is to hear of it from us. */
static void
take_over_failure(Output *output)
{
	Tx *tx = output->tx;
	if (tx->mail_from != NULL && tx->mail_from->addr[0] == '\0') {
		tx_set_durable(tx); /* nobody to tell (RFC 5321 4.5.5) */
		return;
	}
	if (send_bounce(output, BOUNCE_FAILURE, late_bounce_done, tx_ref(tx)) == NULL) {
		tx_unref(tx);
		tx_refuse_durable(tx);
	}
}

/* ---- the last word on a row ---- */

static void
on_noticed(void *arg, const RestVerdict *verdict)
{
	Output *output = arg;
	if (!job_end(output))
		return;
	if (verdict->status != 200) {
		timer_set(&output->timer, WRITE_AGAIN);
		return;
	}
	output->owes_notice = false;
	settle(output);
}

/* The row says "final" once the notification, if one is owed, is on disk: whatever fails or dies
 * between the two repeats the notification instead of losing it. */
static void
settle(Output *output)
{
	output->dirty = true;
	if (!output->owes_notice) {
		output_write(output);
		return;
	}
	job_begin(output);
	if (send_bounce(output, BOUNCE_FAILURE, on_noticed, output) != NULL)
		return;
	output->jobs--;
	output->owes_notice = false;
	output_write(output);
}

/* `reason` NULL: the one attempt of a transaction without retries failed for now; readers keep
 * its answers and are shown no final reason. */
static void
finish(Output *output, const char *reason)
{
	if (output->state == OUTPUT_DONE)
		return;
	if (reason != NULL)
		tx_finish(output->tx, reason);
	chain_free(g_steal_pointer(&output->chain));
	set_state(output, OUTPUT_DONE);
	timer_cancel(&output->timer);
	log_end(output, "tx.end", reason != NULL ? reason : ROW_ONESHOT);
	bool keep = output->origin == OUTPUT_FROM_REST && !output_is_incremental(output) &&
		    tx_body_ready(output->tx);
	if (output->row != ROW_NONE) {
		output->owes_notice = reason != NULL;
		settle(output);
	} else {
		if (reason != NULL)
			send_bounce(output, BOUNCE_FAILURE, NULL, NULL);
		if (keep)
			output_insert(output);
	}
	linger(output);
}

/* When to try next, into output->next_attempt. */
static RetryVerdict
plan_retry(Output *output)
{
	return retry_next(&output->endpoint->retry, output->creation, clock_wall_sec(),
			  output->tx->attempt_count, (double)ids_random_below(1000) / 1000,
			  &output->next_attempt);
}

/* The attempt failed for now. */
static void
end_temporary(Output *output)
{
	chain_free(g_steal_pointer(&output->chain));
	if (output->cancel_by != 0) {
		tx_cancel(output->tx);
		finish(output, REASON_CANCELLED);
		return;
	}
	if (output->tx->retry == NULL || !output->endpoint->has_retry) {
		/* A port's user may still enable retries; over REST that was the one attempt. */
		if (output->origin == OUTPUT_FROM_PORT && !output->released)
			set_state(output, OUTPUT_WAITING);
		else
			finish(output, NULL);
		return;
	}
	const int64_t this_attempt = output->next_attempt;
	RetryVerdict verdict = plan_retry(output);
	if (verdict != RETRY_AT) {
		finish(output, retry_reason(verdict));
		return;
	}
	log_end(output, "tx.retry", "temporary");
	if (bounce_delay_is_due(output->endpoint, output->creation, this_attempt,
				output->next_attempt))
		send_bounce(output, BOUNCE_DELAY, NULL, NULL);
	if (output->row == ROW_NONE) {
		set_state(output, OUTPUT_WAITING);
		arm_timer(output);
		return;
	}
	set_state(output, OUTPUT_PARKED);
	output_write(output);
}

/* ---- the row ---- */

static void
schedule_of(const Output *output, StoreRow *row)
{
	row->creation = output->creation;
	row->leased = output->state == OUTPUT_RUNNING ||
		      (output->state == OUTPUT_COMMITTING && !output->deferred);
	row->next_attempt = output->state == OUTPUT_DONE ? 0 : output->next_attempt;
	if (output->state == OUTPUT_DONE && row->final_reason == NULL)
		row->final_reason = g_strdup(ROW_ONESHOT);
}

static void
insert_refused(Output *output, const GError *error)
{
	log_error(&((LogCtx){.tx = output->tx->id}), "store.insert_failed",
		  LOG_S("error", error->message), LOG_S("message", "not acknowledged"));
	output->row = ROW_NONE;
	const bool full = g_error_matches(error, K_ERROR, K_ERROR_FULL);
	const RestVerdict no = {.status = full ? 507 : 503,
				.text = full ? "no space to store the message"
					     : "the message cannot be stored now"};
	run_acks(&output->acks, &no);
	tx_refuse_durable(output->tx);
	if (output->state == OUTPUT_COMMITTING) {
		g_autoptr(Response) response = response_new(
			full ? 452 : 451, full ? "4.3.1 insufficient system storage"
					       : "4.3.0 message cannot be stored");
		tx_fill_in_flight(output->tx, response);
		finish(output, NULL);
	} else if (output->state == OUTPUT_DONE && output->released) {
		output_remove(output);
	}
}

static void
inserted(Output *output)
{
	output->row = ROW_STORED;
	tx_set_durable(output->tx);
	ack_now(output);
	if (output->gone)
		return;
	if (output->state == OUTPUT_COMMITTING && !output->deferred) {
		start_attempt(output);
	} else if (output->state == OUTPUT_WAITING || output->state == OUTPUT_COMMITTING) {
		/* The row says when; the queue brings it back. */
		set_state(output, OUTPUT_PARKED);
		if (output->origin != OUTPUT_FROM_PORT || output->released)
			output_remove(output);
	} else if (output->state == OUTPUT_DONE && output->origin == OUTPUT_FROM_PORT &&
		   output->released && !output->dirty) {
		output_remove(output);
	}
}

static void
on_inserted(void *arg, const StoreResult *result)
{
	Output *output = arg;
	if (!job_end(output))
		return;
	if (result->error != NULL)
		insert_refused(output, result->error);
	else
		inserted(output);
}

static void
output_insert(Output *output)
{
	k_assert_for(output->row == ROW_NONE, output->tx->id);
	output->row = ROW_WRITING;
	StoreRow *row = row_from_tx(output->tx);
	schedule_of(output, row);
	job_begin(output);
	store_insert(output->home->router->store, row, on_inserted, output);
}

/* While this process stood still its lease ran out and another one took the row: what was learnt
 * here is void, and only the log tells of it. */
static void
lose_lease(Output *output)
{
	log_error(&((LogCtx){.tx = output->tx->id}), "tx.lease_lost",
		  LOG_S("state", output_state_name(output->state)),
		  LOG_S("reason", output->tx->final_attempt_reason),
		  LOG_S("message", "another process works on it now; nothing was written"));
	chain_free(g_steal_pointer(&output->chain));
	if (state_is_active(output->state))
		set_state(output, OUTPUT_DONE);
	output->dirty = false;
	if (output->origin != OUTPUT_FROM_PORT || output->released)
		output_remove(output);
}

static void
on_written(void *arg, const StoreResult *result)
{
	Output *output = arg;
	if (!job_end(output))
		return;
	if (g_error_matches(result->error, K_ERROR, K_ERROR_CONFLICT)) {
		lose_lease(output);
		return;
	}
	if (result->error != NULL && !g_error_matches(result->error, K_ERROR, K_ERROR_NOT_FOUND)) {
		log_error(&((LogCtx){.tx = output->tx->id}), "store.update_failed",
			  LOG_S("error", result->error->message));
		timer_set(&output->timer, WRITE_AGAIN);
		return;
	}
	output->dirty = false;
	if (output->state == OUTPUT_PARKED) {
		if (output->origin != OUTPUT_FROM_PORT || output->released)
			output_remove(output);
	} else if (output->state == OUTPUT_DONE) {
		linger(output);
	}
}

static void
output_write(Output *output)
{
	output->dirty = true;
	StoreRow *row = row_update_from_tx(output->tx);
	schedule_of(output, row);
	job_begin(output);
	store_update(output->home->router->store, row, on_written, output);
}

/* ---- events ---- */

/* A retry was enabled after the attempt had failed (store and forward): plan it like any other
 * failed attempt and write the row. */
static void
plan_late_retry(Output *output)
{
	RetryVerdict verdict = plan_retry(output);
	if (verdict != RETRY_AT)
		finish(output, retry_reason(verdict));
	else
		output_insert(output);
}

static void
check_row(Output *output)
{
	if (output->tx->retry != NULL && !output->endpoint->has_retry &&
	    output->origin == OUTPUT_FROM_PORT)
		tx_refuse_durable(output->tx);
	if (output->row != ROW_NONE || !is_ours(output))
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
		take_over_failure(output);
	if (output->state == OUTPUT_DONE || output->state == OUTPUT_PARKED)
		return;
	if (news & TX_NEW_REQUESTS)
		output->changed = clock_mono();
	if (tx->cancelled) {
		bool late = response_ok(tx->data_response);
		finish(output, late ? REASON_SUCCESS : REASON_CANCELLED);
		return;
	}
	if (news & TX_NEW_BODY_FINAL)
		arm_timer(output);
	check_row(output);
	if (output->state != OUTPUT_RUNNING)
		return;
	const char *reason = NULL;
	switch (judge(tx, &reason)) {
	case GOING:
		break;
	case TEMPORARY:
		end_temporary(output);
		break;
	case FINAL:
		finish(output, reason);
		break;
	}
}

static void
on_timer(void *arg)
{
	Output *output = arg;
	if (output->dirty) {
		if (output->jobs == 0)
			settle(output);
	} else if (output->state == OUTPUT_DONE && output->jobs > 0) {
		timer_set(&output->timer, WRITE_AGAIN); /* somebody waits for its row */
	} else if (output->state == OUTPUT_DONE) {
		output_remove(output);
	} else if (clock_passed(output->cancel_by)) {
		tx_cancel(output->tx);
	} else if (output->origin != OUTPUT_FROM_PORT &&
		   clock_passed(output->changed + output->endpoint->downstream_timeout)) {
		finish(output, REASON_TIMEOUT);
	} else {
		if (output->chain != NULL)
			chain_heartbeat(output->chain);
		arm_timer(output);
	}
}

/* ---- the outside ---- */

Output *
output_new(RouterHome *home, Tx *tx, const SenderConf *sender, const EndpointConf *endpoint,
	   OutputOrigin origin)
{
	Output *output = g_new0(Output, 1);
	output->port.ops = &output_port_ops;
	output->home = home;
	output->tx = tx_ref(tx);
	output->sender = sender;
	output->endpoint = endpoint;
	output->origin = origin;
	output->creation = clock_wall_sec();
	output->acks = g_array_new(FALSE, FALSE, sizeof(Ack));
	output->cancels = g_array_new(FALSE, FALSE, sizeof(Ack));
	timer_init(&output->timer, home->worker, on_timer, output);
	defer_init(&output->ack_defer, ack_now, output);
	if (sender->retry)
		tx_enable_retry(tx, NULL);
	if (sender->notification)
		tx_enable_notification(tx, NULL);
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
	output->creation = row->creation;
	output->next_attempt = row->next_attempt;
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
	if (output->row == ROW_NONE && is_ours(output)) {
		output->started = clock_mono();
		enter_destination(output);
		set_state(output, OUTPUT_COMMITTING);
		output_insert(output);
		add_ack(output, done, arg);
		return;
	}
	start_attempt(output);
	add_ack(output, done, arg);
}

void
output_complete(Output *output, RestDoneFn *done, void *arg)
{
	if (output->state == OUTPUT_RUNNING || output->state == OUTPUT_WAITING)
		check_row(output);
	add_ack(output, done, arg);
}

void
output_cancel(Output *output, RestDoneFn *done, void *arg)
{
	k_assert_for(output->state != OUTPUT_PARKED, output->tx->id);
	const bool on_its_way = output->state == OUTPUT_RUNNING && tx_body_ready(output->tx);
	if (done != NULL) {
		const Ack ack = {done, arg};
		g_array_append_val(output->cancels, ack);
	}
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
	if (output->row != ROW_NONE || is_ours(output))
		return; /* ours: it goes on without its user */
	log_end(output, "tx.end", output->state == OUTPUT_WAITING ? ROW_ONESHOT : REASON_CANCELLED);
	set_state(output, OUTPUT_DONE);
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
