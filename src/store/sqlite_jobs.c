/* SPDX-License-Identifier: Apache-2.0 */
/* What each job does in the database, inside the transaction of its group. */
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "store/sqlite_int.h"

/* ---- insert, update ---- */

static bool
insert_parts(Db *db, const StoreRow *row, int64_t n, GError **ret_error)
{
	for (guint i = 0; i < row->blobs->len; i++) {
		const StoreBlob *part = g_ptr_array_index(row->blobs, i);
		if (part->name == NULL)
			continue;
		int64_t id;
		if (!db_put_blob(db, part->blob, &id, ret_error))
			return false;
		sqlite3_stmt *stmt = db_stmt(db, SQL_PART_INSERT);
		db_bind_int(stmt, 1, n);
		db_bind_int(stmt, 2, i);
		db_bind_text(stmt, 3, part->name);
		db_bind_int(stmt, 4, id);
		if (!db_run(db, stmt, ret_error))
			return false;
	}
	return true;
}

/* Somebody waits for it now: the claim finds it, and at once when it is due at once. */
static bool
row_waits(Db *db, Job *job, const char *destination, int64_t next_attempt)
{
	job->due |= next_attempt <= clock_wall_sec();
	return db_destination_due(db, destination, next_attempt, &job->error);
}

static bool
run_insert(Db *db, Job *job)
{
	const StoreRow *row = job->row;
	const StoreBlob *body = row_body(row);
	int64_t body_id = 0;
	if (row->idem_key != NULL && !db_idem_put(db, job, true))
		return false;
	if (body != NULL && !db_put_blob(db, body->blob, &body_id, &job->error))
		return false;
	const char *const texts[] = {row->id,          row->sender,      row->tag,
				     row->json,        row->builder,     row->responses,
				     row->mail_from,   row->rcpt,        row->destination,
				     row->held_reason, row->final_reason};
	/* What is leased is being attempted by this process already. */
	const int64_t numbers[] = {row->creation, clock_wall_sec(), row->next_attempt,
				   row->attempts, row->leased,      (int64_t)row->version,
				   row->held,     row->leased};
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_INSERT);
	int at = 1;
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
		db_bind_text(stmt, at++, texts[i]);
	for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++)
		db_bind_int(stmt, at++, numbers[i]);
	if (body != NULL)
		db_bind_int(stmt, at, body_id);
	return db_run(db, stmt, &job->error) &&
	       insert_parts(db, row, sqlite3_last_insert_rowid(db->handle), &job->error) &&
	       (!row_is_waiting(row) || row_waits(db, job, row->destination, row->next_attempt));
}

/* ---- the state of one row ---- */

typedef struct State {
	int64_t n, next_attempt;
	char *destination;
	bool leased, final, held;
} State;

static void
state_clear(State *state)
{
	g_free(state->destination);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(State, state_clear)

static bool
read_state(Db *db, Job *job, const char *id, State *ret_state)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_STATE);
	db_bind_text(stmt, 1, id);
	int rc = db_step(db, stmt, &job->error);
	if (rc == SQLITE_ROW)
		*ret_state = (State){
			.n = sqlite3_column_int64(stmt, 0),
			.leased = sqlite3_column_int(stmt, 1) != 0,
			.final = sqlite3_column_int(stmt, 2) != 0,
			.destination = g_strdup((const char *)sqlite3_column_text(stmt, 3)),
			.next_attempt = sqlite3_column_int64(stmt, 4),
			.held = sqlite3_column_int(stmt, 5) != 0,
		};
	db_done(stmt);
	return rc == SQLITE_ROW || (rc == SQLITE_DONE && job_not_found(job));
}

static bool
not_ours(Db *db, Job *job)
{
	g_auto(State) state = {0};
	return read_state(db, job, job->row->id, &state) &&
	       error_set(&job->error, K_ERROR_CONFLICT,
			 "transaction %.96s is not leased by this process", job->row->id);
}

/* *ret_destination is set when the row waits from now on. */
static bool
write_update(Db *db, Job *job, bool waits, bool *ret_found, char **ret_destination)
{
	const StoreRow *row = job->row;
	sqlite3_stmt *stmt = db_stmt(db, waits ? SQL_TX_GIVE_BACK : SQL_TX_UPDATE);
	db_bind_text(stmt, 1, row->id);
	db_bind_text(stmt, 2, row->responses);
	db_bind_int(stmt, 3, row->attempts);
	db_bind_int(stmt, 4, row->next_attempt);
	db_bind_int(stmt, 5, row->leased);
	db_bind_int(stmt, 6, (int64_t)row->version);
	db_bind_text(stmt, 7, row->final_reason);
	db_bind_int(stmt, 8, clock_wall_sec());
	int rc = db_step(db, stmt, &job->error);
	if (rc == SQLITE_ROW)
		*ret_destination = g_strdup((const char *)sqlite3_column_text(stmt, 0));
	db_done(stmt);
	*ret_found = rc == SQLITE_ROW || (!waits && sqlite3_changes(db->handle) > 0);
	return rc == SQLITE_ROW || rc == SQLITE_DONE;
}

static bool
run_update(Db *db, Job *job)
{
	const StoreRow *row = job->row;
	const bool waits = !row->leased && row->final_reason == NULL;
	g_autofree char *destination = NULL;
	bool found;
	if (!write_update(db, job, waits, &found, &destination))
		return false;
	if (!found)
		return not_ours(db, job);
	job->due = !row->leased && suspect_end(&db->suspect, row->id);
	return !waits || row_waits(db, job, destination, row->next_attempt);
}

/* ---- cancel, act ---- */

static bool
run_cancel(Db *db, Job *job)
{
	g_auto(State) state = {0};
	if (!read_state(db, job, job->id, &state))
		return false;
	if (state.final)
		return true;
	if (state.leased)
		return job_under_way(job, job->id);
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_CANCEL);
	db_bind_int(stmt, 1, state.n);
	db_bind_text(stmt, 2, job->text);
	db_bind_int(stmt, 3, clock_wall_sec());
	return db_run(db, stmt, &job->error);
}

static bool
hold(Db *db, Job *job, const State *state)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_HOLD);
	db_bind_int(stmt, 1, state->n);
	db_bind_text(stmt, 2, job->text);
	db_bind_int(stmt, 3, clock_wall_sec());
	return db_run(db, stmt, &job->error);
}

/* Not held any more, with a clean record. */
static bool
set_free(Db *db, Job *job, const State *state, int64_t next_attempt)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_FREE);
	db_bind_int(stmt, 1, state->n);
	db_bind_int(stmt, 2, next_attempt);
	db_bind_int(stmt, 3, clock_wall_sec());
	return db_run(db, stmt, &job->error) &&
	       row_waits(db, job, state->destination, next_attempt);
}

static bool
run_act(Db *db, Job *job)
{
	g_auto(State) state = {0};
	if (!read_state(db, job, job->id, &state))
		return false;
	if (state.final)
		return error_set(&job->error, K_ERROR_CONFLICT, "transaction %.96s is finished",
				 job->id);
	if (job->action == STORE_HOLD)
		return state.leased ? job_under_way(job, job->id) : hold(db, job, &state);
	if (state.leased || (job->action == STORE_RELEASE && !state.held))
		return true; /* as wished already */
	return set_free(db, job, &state,
			job->action == STORE_RETRY_NOW ? clock_wall_sec() : state.next_attempt);
}

/* ---- collect ---- */

typedef struct OldRow {
	int64_t n, body; /* body 0: none */
} OldRow;

static bool
find_old(Db *db, const Job *job, GArray *old, GError **ret_error)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_OLD);
	db_bind_int(stmt, 1, job->time);
	db_bind_int(stmt, 2, job->limit);
	int rc;
	while ((rc = db_step(db, stmt, ret_error)) == SQLITE_ROW) {
		const OldRow row = {sqlite3_column_int64(stmt, 0), sqlite3_column_int64(stmt, 1)};
		g_array_append_val(old, row);
	}
	db_done(stmt);
	return rc == SQLITE_DONE;
}

static bool
unref_parts(Db *db, int64_t n, GError **ret_error)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_PART_SELECT);
	db_bind_int(stmt, 1, n);
	bool ok = true;
	int rc = SQLITE_DONE;
	while (ok && (rc = db_step(db, stmt, ret_error)) == SQLITE_ROW)
		ok = db_unref_blob(db, sqlite3_column_int64(stmt, 1), ret_error);
	db_done(stmt);
	return ok && rc == SQLITE_DONE;
}

static bool
delete_by_n(Db *db, DbStmt which, int64_t n, GError **ret_error)
{
	sqlite3_stmt *stmt = db_stmt(db, which);
	db_bind_int(stmt, 1, n);
	return db_run(db, stmt, ret_error);
}

static bool
run_collect(Db *db, Job *job)
{
	g_autoptr(GArray) old = g_array_new(FALSE, FALSE, sizeof(OldRow));
	if (!find_old(db, job, old, &job->error))
		return false;
	for (guint i = 0; i < old->len; i++) {
		const OldRow *row = &g_array_index(old, OldRow, i);
		if ((row->body != 0 && !db_unref_blob(db, row->body, &job->error)) ||
		    !unref_parts(db, row->n, &job->error) ||
		    !delete_by_n(db, SQL_PART_DELETE, row->n, &job->error) ||
		    !delete_by_n(db, SQL_TX_DELETE, row->n, &job->error))
			return false;
	}
	job->count = old->len;
	return true;
}

bool
db_run_job(Db *db, Job *job)
{
	static bool (*const RUN[])(Db *, Job *) = {
		[JOB_INSERT] = run_insert,        [JOB_UPDATE] = run_update,
		[JOB_CLAIM] = db_run_claim,       [JOB_LOAD] = db_run_load,
		[JOB_REUSE] = db_run_reuse,       [JOB_CANCEL] = run_cancel,
		[JOB_COLLECT] = run_collect,      [JOB_ACT] = run_act,
		[JOB_LIST] = db_run_list,         [JOB_COUNT] = db_run_count,
		[JOB_IDEM_PUT] = db_run_idem_put, [JOB_IDEM_GET] = db_run_idem_get,
	};
	_Static_assert(G_N_ELEMENTS(RUN) == JOB_KINDS, "one function each");
	return RUN[job->kind](db, job);
}
