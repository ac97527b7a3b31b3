/* SPDX-License-Identifier: Apache-2.0 */
/* The row of an Output in the store, and those who wait until it is there. */
#include "base/clock.h"
#include "base/error.h"
#include "service/output_int.h"
#include "service/row.h"

/* ---- acknowledgements ---- */

void
output_run_acks(GArray **list, const RestVerdict *verdict)
{
	g_autoptr(GArray) acks = g_steal_pointer(list);
	for (guint i = 0; acks != NULL && i < acks->len; i++) {
		const Ack *ack = &g_array_index(acks, Ack, i);
		ack->done(ack->arg, verdict);
	}
}

/* Without a row an acknowledgement is true once the next hop has taken the message, or once its
 * sender's notification is stored. */
static bool
ack_must_wait(const Output *output)
{
	if (output->row != ROW_NONE)
		return output->row == ROW_WRITING;
	return output->notice == NOTICE_WRITING ||
	       (output->refusal.status != 0 && output->state == OUTPUT_RUNNING);
}

static void
run_yes(Output *output)
{
	static const RestVerdict yes = {.status = 200};
	if (output->acks != NULL && tx_body_ready(output->tx))
		output->promised = true;
	output_run_acks(&output->acks, &yes);
}

/* The client has no promise of us and may ask again. */
static void
leave_to_client(Output *output, const RestVerdict *no)
{
	const RestVerdict verdict = *no;
	output->refusal = (RestVerdict){0};
	output_set_dirty(output, false);
	output_run_acks(&output->acks, &verdict);
	output_linger(output);
}

/* The first attempt of a REST client's transaction starts behind the 201, which thus shows the
 * transaction as it was created. */
void
output_ack_now(void *arg)
{
	static const RestVerdict yes = {.status = 200};
	Output *output = arg;
	if (!output_is_active(output->state))
		output_run_acks(&output->cancels, &yes);
	if (ack_must_wait(output))
		return;
	run_yes(output);
	if (!output->gone && output->state == OUTPUT_COMMITTING && !output->deferred)
		output_start_attempt(output);
}

void
output_list_ack(GArray **list, RestDoneFn *done, void *arg)
{
	const Ack ack = {done, arg};
	if (*list == NULL)
		*list = g_array_new(FALSE, FALSE, sizeof(Ack));
	g_array_append_val(*list, ack);
}

void
output_add_ack(Output *output, RestDoneFn *done, void *arg)
{
	if (done == NULL)
		return;
	output_list_ack(&output->acks, done, arg);
	if (!ack_must_wait(output))
		defer_queue(worker_defers(output->home->worker), &output->ack_defer);
}

/* ---- the last word on a row ---- */

static void
on_noticed(void *arg, const RestVerdict *verdict)
{
	Output *output = arg;
	if (!output_job_end(output))
		return;
	if (verdict->status == 200) {
		output->notice = NOTICE_STORED;
		if (output->row == ROW_NONE)
			run_yes(output);
		output_settle(output);
		return;
	}
	output->notice = NOTICE_OWED;
	if (output->row == ROW_NONE && !output->promised)
		leave_to_client(output, verdict);
	else
		timer_set(&output->timer, WRITE_AGAIN);
}

/* Readers find how it ended after a restart, too.  What was refused to its client is not kept. */
static bool
is_kept(const Output *output)
{
	return output->origin == OUTPUT_FROM_REST && !output_is_incremental(output) &&
	       tx_body_ready(output->tx) && (output->promised || !output->tx->durable_refused);
}

static void
settle_unstored(Output *output)
{
	output_set_dirty(output, false);
	if (is_kept(output)) {
		output_insert(output);
		output_linger(output);
	} else if (output->refusal.status != 0 && !output->promised) {
		leave_to_client(output, &output->refusal);
	} else {
		output_linger(output);
	}
}

void
output_settle(Output *output)
{
	if (output->notice == NOTICE_WRITING)
		return; /* its answer comes back here */
	output_set_dirty(output, true);
	if (output->notice == NOTICE_OWED) {
		output->notice = NOTICE_WRITING;
		output_job_begin(output);
		if (output_send_bounce(output, BOUNCE_END, on_noticed, output))
			return;
		output->jobs--;
		output->notice = NOTICE_NONE;
	}
	if (output->row != ROW_NONE)
		output_write(output);
	else
		settle_unstored(output);
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

/* A notification that a former run of the process has stored already: its id is made of the failed
 * transaction's. */
static void
stored_before(Output *output)
{
	static const RestVerdict yes = {.status = 200};
	output_run_acks(&output->acks, &yes);
	output_set_state(output, OUTPUT_DONE);
	output_remove(output);
}

/* Nothing has been done with it yet, and whoever asked holds it still. */
static void
refuse_creation(Output *output, const RestVerdict *no)
{
	output_run_acks(&output->acks, no);
	if (output->origin != OUTPUT_FROM_PORT) {
		output_set_state(output, OUTPUT_DONE);
		output_remove(output);
		return;
	}
	g_autoptr(Response)
		response = no->status == 507 ? response_new(452, "4.3.1 insufficient system "
								 "storage")
					     : response_new(451, "4.3.0 message cannot be stored");
	tx_fill_in_flight(output->tx, response);
	output_finish(output, NULL);
}

/* The message may be on its way to the next hop, or there already: a client that is told to repeat
 * it would send it twice, so that hop's word decides. */
static void
refuse_upload(Output *output, const RestVerdict *no)
{
	if (output->state == OUTPUT_RUNNING || output->notice == NOTICE_WRITING) {
		output->refusal = *no;
		return;
	}
	if (output->state == OUTPUT_DONE) {
		if (response_ok(output->tx->data_response) || output->notice == NOTICE_STORED)
			run_yes(output);
		if (!output->promised)
			leave_to_client(output, no);
		return;
	}
	output_run_acks(&output->acks, no);
	if (output->state == OUTPUT_PARKED) /* in the hope of a row */
		output_remove(output);
}

/* The user of the port has gone. */
static void
abandon(Output *output)
{
	if (output->state == OUTPUT_WAITING)
		output_set_state(output, OUTPUT_DONE);
	if (output->state == OUTPUT_DONE && output->notice != NOTICE_OWED &&
	    output->notice != NOTICE_WRITING)
		output_remove(output);
}

/* The same request came twice, and the other one was first. */
static void
key_taken(Output *output, const GError *error)
{
	static const RestVerdict taken = {.status = 409, .text = "the idempotency key is in use"};
	log_debug(&((LogCtx){.tx = output->tx->id}), "tx.repeated",
		  LOG_S("reason", error->message));
	output->row = ROW_NONE;
	output_run_acks(&output->acks, &taken);
	output_set_state(output, OUTPUT_DONE);
	output_remove(output);
}

static void
insert_refused(Output *output, const GError *error)
{
	if (g_error_matches(error, K_ERROR, K_ERROR_CONFLICT) && output->tx->idem_key != NULL &&
	    output->state == OUTPUT_COMMITTING) {
		key_taken(output, error);
		return;
	}
	if (g_error_matches(error, K_ERROR, K_ERROR_CONFLICT) &&
	    output->origin == OUTPUT_FROM_QUEUE && output->state == OUTPUT_COMMITTING) {
		stored_before(output);
		return;
	}
	log_error(&((LogCtx){.tx = output->tx->id}), "store.insert_failed",
		  LOG_S("error", error->message), LOG_S("message", "not acknowledged"));
	output->row = ROW_NONE;
	const bool full = g_error_matches(error, K_ERROR, K_ERROR_FULL);
	const RestVerdict no = {.status = full ? 507 : 503,
				.text = full ? "no space to store the message"
					     : "the message cannot be stored now"};
	tx_refuse_durable(output->tx);
	if (output->state == OUTPUT_COMMITTING)
		refuse_creation(output, &no);
	else if (output->origin == OUTPUT_FROM_REST)
		refuse_upload(output, &no);
	else if (output->released)
		abandon(output);
}

static void
inserted(Output *output)
{
	output->row = ROW_STORED;
	tx_set_durable(output->tx);
	if (output->origin == OUTPUT_FROM_REST && output->state == OUTPUT_COMMITTING)
		tx_created(output->tx); /* the 201 is about to tell it */
	output_ack_now(output);
	if (output->gone)
		return;
	if (output->state == OUTPUT_WAITING || output->state == OUTPUT_COMMITTING) {
		/* The row says when; the queue brings it back. */
		output_set_state(output, OUTPUT_PARKED);
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
	if (!output_job_end(output))
		return;
	if (result->error != NULL)
		insert_refused(output, result->error);
	else
		inserted(output);
}

void
output_insert(Output *output)
{
	k_assert_for(output->row == ROW_NONE, output->tx->id);
	output->row = ROW_WRITING;
	StoreRow *row = row_from_tx(output->tx);
	schedule_of(output, row);
	output_job_begin(output);
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
	if (output_is_active(output->state))
		output_set_state(output, OUTPUT_DONE);
	output_set_dirty(output, false);
	if (output->origin != OUTPUT_FROM_PORT || output->released)
		output_remove(output);
}

static void
on_written(void *arg, const StoreResult *result)
{
	Output *output = arg;
	if (!output_job_end(output))
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
	output_set_dirty(output, false);
	if (output->state == OUTPUT_PARKED) {
		if (output->origin != OUTPUT_FROM_PORT || output->released)
			output_remove(output);
	} else if (output->state == OUTPUT_DONE) {
		output_linger(output);
	}
}

void
output_write(Output *output)
{
	output_set_dirty(output, true);
	StoreRow *row = row_update_from_tx(output->tx, output->former);
	schedule_of(output, row);
	output_job_begin(output);
	store_update(output->home->router->store, row, on_written, output);
}
