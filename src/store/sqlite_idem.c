/* SPDX-License-Identifier: Apache-2.0 */
/* Idempotency keys: which transaction one stands for. */
#include "base/clock.h"
#include "base/error.h"
#include "store/sqlite_int.h"

/* Each new one takes a few of the old ones with it, so that nobody else has to. */
static bool
drop_old(Db *db, int64_t now, GError **ret_error)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_IDEM_OLD);
	db_bind_int(stmt, 1, now);
	return db_run(db, stmt, ret_error);
}

bool
db_idem_put(Db *db, Job *job, bool kept)
{
	const StoreRow *row = job->row;
	int64_t now = clock_wall_sec();
	if (!drop_old(db, now, &job->error))
		return false;
	sqlite3_stmt *stmt = db_stmt(db, SQL_IDEM_PUT);
	db_bind_text(stmt, 1, row->idem_key);
	db_bind_text(stmt, 2, row->idem_hash);
	db_bind_text(stmt, 3, row->id);
	db_bind_int(stmt, 4, row->idem_until);
	db_bind_int(stmt, 5, kept);
	db_bind_int(stmt, 6, now);
	if (!db_run(db, stmt, &job->error))
		return false;
	return sqlite3_changes(db->handle) > 0 || job_key_taken(job);
}

bool
db_run_idem_put(Db *db, Job *job)
{
	return db_idem_put(db, job, false);
}

bool
db_run_idem_get(Db *db, Job *job)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_IDEM_GET);
	db_bind_text(stmt, 1, job->id);
	db_bind_int(stmt, 2, clock_wall_sec());
	int rc = db_step(db, stmt, &job->error);
	if (rc == SQLITE_ROW) {
		StoreRow *row = store_row_new();
		row->id = g_strdup((const char *)sqlite3_column_text(stmt, 0));
		row->idem_hash = g_strdup((const char *)sqlite3_column_text(stmt, 1));
		job_answer_row(job, row);
	}
	db_done(stmt);
	return rc == SQLITE_ROW || (rc == SQLITE_DONE && job_not_found(job));
}
