/* SPDX-License-Identifier: Apache-2.0 */
/* What each job does in the database, inside the transaction of its group. */
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "store/pg_int.h"

/* ---- insert, update ---- */

/* Somebody waits for it now: the claim finds it, and at once when it is due at once. */
static void
row_waits(Pg *pg, Job *job, const char *destination, int64_t next_attempt)
{
	job->due |= next_attempt <= clock_wall_sec();
	pg_add_wait(pg, destination, next_attempt);
}

static void
row_params(const Pg *pg, const StoreRow *row, PgParams *params)
{
	const char *const texts[] = {row->id,          row->sender,      row->tag,
				     row->json,        row->builder,     row->responses,
				     row->mail_from,   row->rcpt,        row->destination,
				     row->held_reason, row->final_reason};
	/* What is leased is being attempted by this process already. */
	const int64_t numbers[] = {row->creation,
				   clock_wall_sec(),
				   row->next_attempt,
				   row->attempts,
				   (int64_t)row->version,
				   row->leased,
				   row->leased ? pg->session : 0};
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
		pg_text(params, texts[i]);
	for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++)
		pg_int(params, numbers[i]);
	pg_bool(params, row->held);
}

/* The row with its body, which for most mail is one statement. */
static bool
insert_row(Pg *pg, Job *job, const StoreBlob *body)
{
	g_auto(PgParams) params = {0};
	row_params(pg, job->row, &params);
	if (body == NULL) {
		pg_null(&params);
		return pg_push(pg, PG_TX_INSERT, &params, NULL, &job->error);
	}
	int64_t id;
	bool fresh;
	if (!pg_blob_id(pg, body->blob, &id, &fresh, &job->error))
		return false;
	pg_int(&params, id);
	if (!fresh)
		return pg_put_ref(pg, body->blob, id, &job->error) &&
		       pg_push(pg, PG_TX_INSERT, &params, NULL, &job->error);
	size_t len;
	const void *bytes = pg_chunk_at(pg, body->blob, 0, &len, &job->error);
	if (bytes == NULL)
		return false;
	pg_int(&params, (int64_t)blob_len(body->blob));
	pg_bytes(&params, bytes, len);
	return pg_push(pg, PG_TX_INSERT_BODY, &params, NULL, &job->error) &&
	       (blob_len(body->blob) <= BLOB_CHUNK ||
		pg_put_content(pg, body->blob, id, BLOB_CHUNK, &job->error));
}

static bool
insert_parts(Pg *pg, Job *job)
{
	const StoreRow *row = job->row;
	for (guint i = 0; i < row->blobs->len; i++) {
		const StoreBlob *part = g_ptr_array_index(row->blobs, i);
		if (part->name == NULL)
			continue;
		int64_t id;
		bool fresh;
		if (!pg_blob_id(pg, part->blob, &id, &fresh, &job->error) ||
		    !(fresh ? pg_put_content(pg, part->blob, id, 0, &job->error)
			    : pg_put_ref(pg, part->blob, id, &job->error)))
			return false;
		g_auto(PgParams) params = {0};
		pg_text(&params, row->id);
		pg_int(&params, i);
		pg_text(&params, part->name);
		pg_int(&params, id);
		if (!pg_push(pg, PG_PART_INSERT, &params, NULL, &job->error))
			return false;
	}
	return true;
}

static bool
run_insert(Pg *pg, Job *job)
{
	const StoreRow *row = job->row;
	if (row->idem_key != NULL && !pg_idem_put(pg, job, true))
		return false;
	if (!insert_row(pg, job, row_body(row)) || !insert_parts(pg, job))
		return false;
	if (row_is_waiting(row))
		row_waits(pg, job, row->destination, row->next_attempt);
	return true;
}

static bool
run_update(Pg *pg, Job *job)
{
	const StoreRow *row = job->row;
	const PgPending about = {.job = job};
	g_auto(PgParams) params = {0};
	pg_text(&params, row->id);
	pg_text(&params, row->responses);
	pg_int(&params, row->attempts);
	pg_int(&params, row->next_attempt);
	pg_int(&params, (int64_t)row->version);
	pg_text(&params, row->final_reason);
	pg_int(&params, clock_wall_sec());
	pg_int(&params, row->leased);
	pg_int(&params, pg->session);
	pg->returned |= !row->leased && row->final_reason == NULL;
	return pg_push(pg, PG_TX_UPDATE, &params, &about, &job->error);
}

/* When nothing was changed there is nothing to undo. */
void
pg_updated(Pg *pg, Job *job, const PGresult *result)
{
	const StoreRow *row = job->row;
	const char *destination = pg_get_text(result, 0, 0);
	if (destination == NULL && !pg_get_bool(result, 0, 1))
		job_not_found(job);
	else if (destination == NULL)
		error_set(&job->error, K_ERROR_CONFLICT,
			  "transaction %.96s is not leased by this process", row->id);
	job->due = !row->leased && suspect_end(&pg->suspect, row->id);
	if (destination != NULL && !row->leased && row->final_reason == NULL)
		row_waits(pg, job, destination, row->next_attempt);
}

/* ---- cancel, act ---- */

typedef struct State {
	PGresult *result; /* owns `destination` */
	int64_t n, session, next_attempt;
	const char *destination;
	bool final, held;
} State;

static void
state_clear(State *state)
{
	PQclear(state->result);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(State, state_clear)

static bool
read_state(Pg *pg, Job *job, State *ret_state)
{
	g_auto(PgParams) params = {0};
	pg_text(&params, job->id);
	PGresult *result = pg_query(pg, PG_TX_STATE, &params, false, &job->error);
	if (result == NULL)
		return false;
	ret_state->result = result;
	if (PQntuples(result) == 0)
		return job_not_found(job);
	ret_state->n = pg_get_int(result, 0, 0);
	ret_state->session = pg_get_int(result, 0, 1);
	ret_state->final = pg_get_bool(result, 0, 2);
	ret_state->destination = pg_get_text(result, 0, 3);
	ret_state->next_attempt = pg_get_int(result, 0, 4);
	ret_state->held = pg_get_bool(result, 0, 5);
	return true;
}

/* Cancel and hold: a reason. */
static bool
push_reason(Pg *pg, Job *job, PgStmt stmt, int64_t n)
{
	g_auto(PgParams) params = {0};
	pg_int(&params, n);
	pg_text(&params, job->text);
	pg_int(&params, clock_wall_sec());
	return pg_push(pg, stmt, &params, NULL, &job->error);
}

static bool
run_cancel(Pg *pg, Job *job)
{
	g_auto(State) state = {0};
	if (!read_state(pg, job, &state))
		return false;
	if (state.final)
		return true;
	return state.session != 0 ? job_under_way(job, job->id)
				  : push_reason(pg, job, PG_TX_CANCEL, state.n);
}

/* Not held any more, with a clean record. */
static bool
set_free(Pg *pg, Job *job, const State *state, int64_t next_attempt)
{
	g_auto(PgParams) params = {0};
	pg_int(&params, state->n);
	pg_int(&params, next_attempt);
	pg_int(&params, clock_wall_sec());
	row_waits(pg, job, state->destination, next_attempt);
	return pg_push(pg, PG_TX_FREE, &params, NULL, &job->error);
}

static bool
run_act(Pg *pg, Job *job)
{
	g_auto(State) state = {0};
	if (!read_state(pg, job, &state))
		return false;
	if (state.final)
		return error_set(&job->error, K_ERROR_CONFLICT, "transaction %.96s is finished",
				 job->id);
	bool leased = state.session != 0;
	if (job->action == STORE_HOLD)
		return leased ? job_under_way(job, job->id)
			      : push_reason(pg, job, PG_TX_HOLD, state.n);
	if (leased || (job->action == STORE_RELEASE && !state.held))
		return true; /* as wished already */
	return set_free(pg, job, &state,
			job->action == STORE_RETRY_NOW ? clock_wall_sec() : state.next_attempt);
}

/* ---- collect ---- */

/* Adds the ids in one column; NULLs are none. */
static void
add_ids(GArray *ids, const PGresult *result, int column)
{
	for (int i = 0; i < PQntuples(result); i++) {
		int64_t id = pg_get_int(result, i, column);
		if (PQgetisnull(result, i, column) == 0)
			g_array_append_val(ids, id);
	}
}

static bool
delete_rows(Pg *pg, Job *job, const GArray *rows, const GArray *blobs)
{
	static const struct {
		PgStmt stmt;
		bool blobs;
	} STEPS[] = {{PG_BLOB_UNREF, true},
		     {PG_CHUNK_DELETE, true},
		     {PG_BLOB_DELETE, true},
		     {PG_PART_DELETE, false},
		     {PG_TX_DELETE, false}};
	for (size_t i = 0; i < G_N_ELEMENTS(STEPS); i++) {
		g_auto(PgParams) params = {0};
		pg_ints(&params, STEPS[i].blobs ? blobs : rows);
		if (!pg_push(pg, STEPS[i].stmt, &params, NULL, &job->error))
			return false;
	}
	return true;
}

static bool
run_collect(Pg *pg, Job *job)
{
	g_auto(PgParams) old_params = {0}, part_params = {0};
	pg_int(&old_params, job->time);
	pg_int(&old_params, job->limit);
	g_autoptr(PGresult) old = pg_query(pg, PG_TX_OLD, &old_params, false, &job->error);
	if (old == NULL || PQntuples(old) == 0)
		return old != NULL;
	g_autoptr(GArray) rows = g_array_new(FALSE, FALSE, sizeof(int64_t));
	g_autoptr(GArray) blobs = g_array_new(FALSE, FALSE, sizeof(int64_t));
	add_ids(rows, old, 0);
	add_ids(blobs, old, 1);
	pg_ints(&part_params, rows);
	g_autoptr(PGresult) parts = pg_query(pg, PG_PART_BLOBS, &part_params, false, &job->error);
	if (parts == NULL)
		return false;
	add_ids(blobs, parts, 0);
	job->count = rows->len;
	return delete_rows(pg, job, rows, blobs);
}

bool
pg_run_job(Pg *pg, Job *job)
{
	static bool (*const RUN[])(Pg *, Job *) = {
		[JOB_INSERT] = run_insert,        [JOB_UPDATE] = run_update,
		[JOB_CLAIM] = pg_run_claim,       [JOB_LOAD] = pg_run_load,
		[JOB_REUSE] = pg_run_reuse,       [JOB_CANCEL] = run_cancel,
		[JOB_COLLECT] = run_collect,      [JOB_ACT] = run_act,
		[JOB_LIST] = pg_run_list,         [JOB_COUNT] = pg_run_count,
		[JOB_IDEM_PUT] = pg_run_idem_put, [JOB_IDEM_GET] = pg_run_idem_get,
	};
	_Static_assert(G_N_ELEMENTS(RUN) == JOB_KINDS, "one function each");
	return RUN[job->kind](pg, job);
}
