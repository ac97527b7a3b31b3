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

/* The first attempt of a REST client's transaction starts behind the 201, which thus shows the
 * transaction as it was created. */
void
output_ack_now(void *arg)
{
	static const RestVerdict yes = {.status = 200};
	Output *output = arg;
	if (!output_is_active(output->state))
		output_run_acks(&output->cancels, &yes);
	if (output->row == ROW_WRITING)
		return;
	output_run_acks(&output->acks, &yes);
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
	if (output->row != ROW_WRITING)
		defer_queue(worker_defers(output->home->worker), &output->ack_defer);
}

/* ---- the last word on a row ---- */

static void
on_noticed(void *arg, const RestVerdict *verdict)
{
	Output *output = arg;
	if (!output_job_end(output))
		return;
	if (verdict->status != 200) {
		timer_set(&output->timer, WRITE_AGAIN);
		return;
	}
	output->owes_notice = false;
	output_settle(output);
}

void
output_settle(Output *output)
{
	output->dirty = true;
	if (!output->owes_notice) {
		output_write(output);
		return;
	}
	output_job_begin(output);
	if (output_send_bounce(output, BOUNCE_FAILURE, on_noticed, output) != NULL)
		return;
	output->jobs--;
	output->owes_notice = false;
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

static void
insert_refused(Output *output, const GError *error)
{
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
	output_run_acks(&output->acks, &no);
	tx_refuse_durable(output->tx);
	if (output->state == OUTPUT_COMMITTING) {
		g_autoptr(Response) response = response_new(
			full ? 452 : 451, full ? "4.3.1 insufficient system storage"
					       : "4.3.0 message cannot be stored");
		tx_fill_in_flight(output->tx, response);
		output_finish(output, NULL);
	} else if (output->state == OUTPUT_DONE && output->released) {
		output_remove(output);
	} else if (output->state == OUTPUT_WAITING && output->released) {
		output_set_state(output, OUTPUT_DONE);
		output_remove(output);
	}
}

static void
inserted(Output *output)
{
	output->row = ROW_STORED;
	tx_set_durable(output->tx);
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
	output->dirty = false;
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
	output->dirty = false;
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
	output->dirty = true;
	StoreRow *row = row_update_from_tx(output->tx);
	schedule_of(output, row);
	output_job_begin(output);
	store_update(output->home->router->store, row, on_written, output);
}
