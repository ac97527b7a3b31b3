/* SPDX-License-Identifier: Apache-2.0 */
/* Reading rows: by id, for a claim, for operators. */
#include <string.h>

#include "base/error.h"
#include "store/sqlite_int.h"

/* Places in TX_COLUMNS. */
enum {
	COL_N,
	COL_ID,
	COL_SENDER,
	COL_TAG,
	COL_JSON,
	COL_BUILDER,
	COL_RESPONSES,
	COL_MAIL_FROM,
	COL_RCPT,
	COL_CREATION,
	COL_LAST_UPDATE,
	COL_NEXT_ATTEMPT,
	COL_ATTEMPTS,
	COL_LEASED,
	COL_VERSION,
	COL_FINAL_REASON,
	COL_BODY,
	COL_DESTINATION,
	COL_HELD,
	COL_HELD_REASON,
	COL_CRASHES
};

/* Text as C string; NULL for NULL.  False for what cannot be one. */
static bool
column_text(sqlite3_stmt *stmt, int column, char **ret_text)
{
	int type = sqlite3_column_type(stmt, column);
	if (type == SQLITE_NULL)
		return true;
	const char *text = (const char *)sqlite3_column_text(stmt, column);
	if (type != SQLITE_TEXT || text == NULL ||
	    strlen(text) != (size_t)sqlite3_column_bytes(stmt, column))
		return false;
	*ret_text = g_strdup(text);
	return true;
}

static bool
read_texts(sqlite3_stmt *stmt, StoreRow *row)
{
	return column_text(stmt, COL_ID, &row->id) && column_text(stmt, COL_SENDER, &row->sender) &&
	       column_text(stmt, COL_TAG, &row->tag) && column_text(stmt, COL_JSON, &row->json) &&
	       column_text(stmt, COL_BUILDER, &row->builder) &&
	       column_text(stmt, COL_RESPONSES, &row->responses) &&
	       column_text(stmt, COL_MAIL_FROM, &row->mail_from) &&
	       column_text(stmt, COL_RCPT, &row->rcpt) &&
	       column_text(stmt, COL_FINAL_REASON, &row->final_reason) &&
	       column_text(stmt, COL_DESTINATION, &row->destination) &&
	       column_text(stmt, COL_HELD_REASON, &row->held_reason) && row->id != NULL &&
	       row->json != NULL && row->destination != NULL;
}

/* Reads the row at which `stmt` stands.  False: what is there makes no sense. */
static bool
read_row(sqlite3_stmt *stmt, StoreRow *row)
{
	for (int i = COL_CREATION; i <= COL_VERSION; i++) {
		if (sqlite3_column_type(stmt, i) != SQLITE_INTEGER ||
		    sqlite3_column_int64(stmt, i) < 0)
			return false;
	}
	int64_t attempts = sqlite3_column_int64(stmt, COL_ATTEMPTS);
	row->creation = sqlite3_column_int64(stmt, COL_CREATION);
	row->last_update = sqlite3_column_int64(stmt, COL_LAST_UPDATE);
	row->next_attempt = sqlite3_column_int64(stmt, COL_NEXT_ATTEMPT);
	row->attempts = (int)MIN(attempts, (int64_t)G_MAXINT / 2);
	row->leased = sqlite3_column_int64(stmt, COL_LEASED) != 0;
	row->version = (uint64_t)sqlite3_column_int64(stmt, COL_VERSION);
	row->held = sqlite3_column_int64(stmt, COL_HELD) != 0;
	int64_t crashes = sqlite3_column_int64(stmt, COL_CRASHES);
	/* What runs has not crashed yet. */
	row->crashes = (unsigned)CLAMP(crashes - (row->leased ? 1 : 0), 0, G_MAXINT);
	return read_texts(stmt, row);
}

static bool
add_blob(const Loader *loader, StoreRow *row, const char *name, int64_t id, GError **ret_error)
{
	if (!loader->contents) {
		store_row_add_blob(row, name, NULL);
		return true;
	}
	Blob *seen = loader->seen != NULL ? g_hash_table_lookup(loader->seen, &id) : NULL;
	g_autoptr(Blob) blob = seen != NULL ? blob_ref(seen)
					    : db_get_blob(loader->db, id, ret_error);
	if (blob == NULL)
		return false;
	store_row_add_blob(row, name, blob);
	if (loader->seen != NULL && seen == NULL)
		g_hash_table_insert(loader->seen, g_memdup2(&id, sizeof id), blob_ref(blob));
	return true;
}

static bool
add_parts(const Loader *loader, StoreRow *row, int64_t n, GError **ret_error)
{
	sqlite3_stmt *stmt = db_stmt(loader->db, SQL_PART_SELECT);
	db_bind_int(stmt, 1, n);
	bool ok = true;
	int rc = SQLITE_DONE;
	while (ok && (rc = db_step(loader->db, stmt, ret_error)) == SQLITE_ROW) {
		g_autofree char *name = NULL;
		if (!column_text(stmt, 0, &name) || name == NULL)
			ok = error_set(ret_error, K_ERROR_INPUT, "a part has no name");
		else
			ok = add_blob(loader, row, name, sqlite3_column_int64(stmt, 1), ret_error);
	}
	db_done(stmt);
	return ok && rc == SQLITE_DONE;
}

StoreRow *
db_load_row(const Loader *loader, sqlite3_stmt *stmt, GError **ret_error)
{
	g_autoptr(StoreRow) row = store_row_new();
	int rc = db_step(loader->db, stmt, ret_error);
	bool ok = false, has_body = false;
	int64_t n = 0, body = 0;
	if (rc == SQLITE_DONE) {
		error_set(ret_error, K_ERROR_NOT_FOUND, "no such stored transaction");
	} else if (rc == SQLITE_ROW) {
		n = sqlite3_column_int64(stmt, COL_N);
		has_body = sqlite3_column_type(stmt, COL_BODY) != SQLITE_NULL;
		body = sqlite3_column_int64(stmt, COL_BODY);
		ok = read_row(stmt, row) ||
		     error_set(ret_error, K_ERROR_INPUT, "a column is missing or makes no sense");
	}
	db_done(stmt);
	if (!ok || (has_body && !add_blob(loader, row, NULL, body, ret_error)) ||
	    !add_parts(loader, row, n, ret_error))
		return NULL;
	return g_steal_pointer(&row);
}

bool
db_run_load(Db *db, Job *job)
{
	const Loader loader = {.db = db, .contents = job->with_blobs};
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_SELECT);
	db_bind_text(stmt, 1, job->id);
	StoreRow *row = db_load_row(&loader, stmt, &job->error);
	if (row == NULL) {
		/* To who asks for one row, a damaged one is the store's failure. */
		if (job->error->code == K_ERROR_INPUT)
			job->error->code = K_ERROR_STORE;
		return false;
	}
	job_answer_row(job, row);
	return true;
}

bool
db_run_reuse(Db *db, Job *job)
{
	sqlite3_stmt *stmt = db_stmt(db, job->text == NULL ? SQL_REUSE_BODY : SQL_REUSE_PART);
	db_bind_text(stmt, 1, job->id);
	if (job->text != NULL)
		db_bind_text(stmt, 2, job->text);
	int rc = db_step(db, stmt, &job->error);
	bool found = rc == SQLITE_ROW && sqlite3_column_type(stmt, 0) != SQLITE_NULL;
	int64_t id = found ? sqlite3_column_int64(stmt, 0) : 0;
	db_done(stmt);
	if (!found)
		return job->error != NULL ? false : job_not_found(job);
	g_autoptr(Blob) blob = db_get_blob(db, id, &job->error);
	if (blob == NULL) {
		if (job->error->code == K_ERROR_INPUT)
			job->error->code = K_ERROR_STORE;
		return false;
	}
	StoreRow *row = store_row_new();
	row->id = g_strdup(job->id);
	store_row_add_blob(row, job->text, blob);
	job_answer_row(job, row);
	return true;
}

char *
db_row_id(Db *db, int64_t n)
{
	char *id = NULL;
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_SELECT_N);
	db_bind_int(stmt, 1, n);
	if (db_step(db, stmt, NULL) == SQLITE_ROW)
		(void)column_text(stmt, COL_ID, &id);
	db_done(stmt);
	return id;
}

/* ---- for operators ---- */

/* The place in the order of creation that `after` names. */
static bool
find_after(Db *db, Job *job, int64_t *ret_n)
{
	*ret_n = 0;
	if (job->id == NULL)
		return true;
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_STATE);
	db_bind_text(stmt, 1, job->id);
	int rc = db_step(db, stmt, &job->error);
	if (rc == SQLITE_ROW)
		*ret_n = sqlite3_column_int64(stmt, 0);
	db_done(stmt);
	return rc == SQLITE_ROW || (rc == SQLITE_DONE && job_not_found(job));
}

/* A row that cannot be read is listed with what can: its id, and why it is shown like this. */
static bool
list_damaged(Db *db, Job *job, int64_t n, const GError *why)
{
	StoreRow *row = store_row_new();
	row->id = db_row_id(db, n);
	if (row->id == NULL)
		row->id = g_strdup("(no id)");
	row->json = g_strdup("{}");
	row->destination = g_strdup("");
	row->held = true;
	row->held_reason = g_strdup(why->message);
	g_ptr_array_add(job->rows, row);
	return true;
}

static bool
list_row(const Loader *loader, Job *job, int64_t n)
{
	g_autoptr(GError) error = NULL;
	sqlite3_stmt *stmt = db_stmt(loader->db, SQL_TX_SELECT_N);
	db_bind_int(stmt, 1, n);
	StoreRow *row = db_load_row(loader, stmt, &error);
	if (row != NULL)
		g_ptr_array_add(job->rows, row);
	else if (error->code == K_ERROR_INPUT || db_is_corrupt(loader->db))
		return list_damaged(loader->db, job, n, error);
	else
		g_propagate_error(&job->error, g_steal_pointer(&error));
	return row != NULL;
}

static bool
list_numbers(Db *db, Job *job, int64_t after, GArray *numbers)
{
	static const DbStmt BY_STATE[] = {[STORE_ANY] = SQL_LIST_ANY,
					  [STORE_QUEUED] = SQL_LIST_QUEUED,
					  [STORE_LEASED] = SQL_LIST_LEASED,
					  [STORE_HELD] = SQL_LIST_HELD,
					  [STORE_FINAL] = SQL_LIST_FINAL};
	const StoreFilter *filter = &job->filter;
	const char *const addresses[] = {filter->mail_from, filter->rcpt};
	sqlite3_stmt *stmt = db_stmt(db, BY_STATE[filter->state]);
	db_bind_int(stmt, 1, after);
	for (int i = 0; i < 2; i++) { /* "@domain" has a place of its own */
		if (addresses[i] != NULL)
			db_bind_text(stmt, 2 + 2 * i + (addresses[i][0] == '@'), addresses[i]);
	}
	db_bind_text(stmt, 6, filter->destination);
	db_bind_int(stmt, 7, filter->older_than);
	db_bind_int(stmt, 8, filter->limit);
	int rc;
	while ((rc = db_step(db, stmt, &job->error)) == SQLITE_ROW) {
		int64_t n = sqlite3_column_int64(stmt, COL_N);
		g_array_append_val(numbers, n);
	}
	db_done(stmt);
	return rc == SQLITE_DONE;
}

bool
db_run_list(Db *db, Job *job)
{
	const Loader loader = {.db = db};
	g_autoptr(GArray) numbers = g_array_new(FALSE, FALSE, sizeof(int64_t));
	int64_t after;
	if (!find_after(db, job, &after) || !list_numbers(db, job, after, numbers))
		return false;
	job->rows = row_array_new();
	bool ok = true;
	for (guint i = 0; ok && i < numbers->len; i++)
		ok = list_row(&loader, job, g_array_index(numbers, int64_t, i));
	return ok;
}

static bool
add_counts(Db *db, Job *job, sqlite3_stmt *stmt)
{
	int rc;
	while ((rc = db_step(db, stmt, &job->error)) == SQLITE_ROW) {
		StoreCount *count = g_new0(StoreCount, 1);
		uint64_t *const numbers[] = {&count->queued, &count->leased, &count->held,
					     &count->final};
		count->destination = g_strdup((const char *)sqlite3_column_text(stmt, 0));
		for (int i = 0; i < 4; i++)
			*numbers[i] = (uint64_t)sqlite3_column_int64(stmt, 1 + i);
		count->oldest = sqlite3_column_int64(stmt, 5);
		g_ptr_array_add(job->counts, count);
	}
	db_done(stmt);
	return rc == SQLITE_DONE;
}

bool
db_run_count(Db *db, Job *job)
{
	job->counts = count_array_new();
	if (!add_counts(db, job, db_stmt(db, SQL_COUNT_ALL)))
		return false;
	if (job->limit == 0)
		return true;
	sqlite3_stmt *stmt = db_stmt(db, SQL_COUNT_EACH);
	db_bind_int(stmt, 1, job->limit);
	return add_counts(db, job, stmt);
}
