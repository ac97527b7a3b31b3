/* SPDX-License-Identifier: Apache-2.0 */
/* What each job does in the database, inside the transaction of its group. */
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "store/store_int.h"

/* ---- insert, update ---- */

/* Columns that both statements take, at their own places. */
static void
bind_int(sqlite3_stmt *stmt, int index, int64_t value)
{
	k_assert(sqlite3_bind_int64(stmt, index, value) == SQLITE_OK);
}

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
		bind_int(stmt, 1, n);
		bind_int(stmt, 2, i);
		db_bind_text(stmt, 3, part->name);
		bind_int(stmt, 4, id);
		if (!db_run(db, stmt, ret_error))
			return false;
	}
	return true;
}

static const StoreBlob *
row_body(const StoreRow *row)
{
	for (guint i = 0; i < row->blobs->len; i++) {
		const StoreBlob *part = g_ptr_array_index(row->blobs, i);
		if (part->name == NULL)
			return part;
	}
	return NULL;
}

static bool
run_insert(Db *db, Job *job)
{
	const StoreRow *row = job->row;
	const StoreBlob *body = row_body(row);
	int64_t body_id = 0;
	if (body != NULL && !db_put_blob(db, body->blob, &body_id, &job->error))
		return false;
	const char *const texts[] = {row->id,      row->sender,    row->tag,       row->json,
				     row->builder, row->responses, row->mail_from, row->rcpt};
	const int64_t numbers[] = {row->creation, clock_wall_sec(), row->next_attempt,
				   row->attempts, row->leased,      (int64_t)row->version};
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_INSERT);
	int at = 1;
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
		db_bind_text(stmt, at++, texts[i]);
	for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++)
		bind_int(stmt, at++, numbers[i]);
	db_bind_text(stmt, at++, row->final_reason);
	if (body != NULL)
		bind_int(stmt, at, body_id);
	if (!db_run(db, stmt, &job->error))
		return false;
	return insert_parts(db, row, sqlite3_last_insert_rowid(db->handle), &job->error);
}

static bool
not_found(Job *job)
{
	return error_set(&job->error, K_ERROR_NOT_FOUND, "no stored transaction %.96s",
			 job->id != NULL ? job->id : job->row->id);
}

static bool
run_update(Db *db, Job *job)
{
	const StoreRow *row = job->row;
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_UPDATE);
	db_bind_text(stmt, 1, row->id);
	db_bind_text(stmt, 2, row->responses);
	bind_int(stmt, 3, row->attempts);
	bind_int(stmt, 4, row->next_attempt);
	bind_int(stmt, 5, row->leased);
	bind_int(stmt, 6, (int64_t)row->version);
	db_bind_text(stmt, 7, row->final_reason);
	bind_int(stmt, 8, clock_wall_sec());
	if (!db_run(db, stmt, &job->error))
		return false;
	return sqlite3_changes(db->handle) > 0 || not_found(job);
}

/* ---- reading rows ---- */

/* Places in SQL_TX_SELECT and SQL_TX_SELECT_N. */
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
	COL_BODY
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
	       column_text(stmt, COL_FINAL_REASON, &row->final_reason) && row->id != NULL &&
	       row->json != NULL;
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
	return read_texts(stmt, row);
}

/* Where the parts of a row come from.  `seen` lets the rows of one claim share their bodies. */
typedef struct Loader {
	Db *db;
	bool contents;
	GHashTable *seen; /* int64_t* -> Blob*, or NULL */
} Loader;

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
	bind_int(stmt, 1, n);
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

/* Loads the row that `stmt` finds, and is done with it.  NULL with K_ERROR_INPUT for a damaged
 * one, K_ERROR_NOT_FOUND for none. */
static StoreRow *
load_row(const Loader *loader, sqlite3_stmt *stmt, GError **ret_error)
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

static void
row_destroy(void *data)
{
	store_row_free(data);
}

static void
answer_row(Job *job, StoreRow *row)
{
	job->rows = g_ptr_array_new_with_free_func(row_destroy);
	g_ptr_array_add(job->rows, row);
}

static bool
run_load(Db *db, Job *job)
{
	const Loader loader = {.db = db, .contents = job->with_blobs};
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_SELECT);
	db_bind_text(stmt, 1, job->id);
	StoreRow *row = load_row(&loader, stmt, &job->error);
	if (row == NULL) {
		/* To who asks for one row, a damaged one is the store's failure. */
		if (job->error->code == K_ERROR_INPUT)
			job->error->code = K_ERROR_STORE;
		return false;
	}
	answer_row(job, row);
	return true;
}

static bool
run_reuse(Db *db, Job *job)
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
		return job->error != NULL ? false : not_found(job);
	g_autoptr(Blob) blob = db_get_blob(db, id, &job->error);
	if (blob == NULL) {
		if (job->error->code == K_ERROR_INPUT)
			job->error->code = K_ERROR_STORE;
		return false;
	}
	StoreRow *row = store_row_new();
	row->id = g_strdup(job->id);
	store_row_add_blob(row, job->text, blob);
	answer_row(job, row);
	return true;
}

/* ---- claim ---- */

static bool
find_due(Db *db, const Job *job, GArray *due, GError **ret_error)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_DUE);
	bind_int(stmt, 1, job->time);
	bind_int(stmt, 2, job->limit);
	int rc;
	while ((rc = db_step(db, stmt, ret_error)) == SQLITE_ROW) {
		int64_t n = sqlite3_column_int64(stmt, 0);
		g_array_append_val(due, n);
	}
	db_done(stmt);
	return rc == SQLITE_DONE;
}

static bool
mark_row(Db *db, DbStmt which, int64_t n, const char *reason, GError **ret_error)
{
	sqlite3_stmt *stmt = db_stmt(db, which);
	int at = 1;
	bind_int(stmt, at++, n);
	if (reason != NULL)
		db_bind_text(stmt, at++, reason);
	bind_int(stmt, at, clock_wall_sec());
	return db_run(db, stmt, ret_error);
}

/* A row that cannot be read is set aside, with the reason, and does not stop the others. */
static bool
set_aside(Db *db, Job *job, int64_t n, const char *reason)
{
	if (job->damaged == NULL)
		job->damaged = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *id = NULL;
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_SELECT_N);
	bind_int(stmt, 1, n);
	if (db_step(db, stmt, NULL) == SQLITE_ROW)
		(void)column_text(stmt, COL_ID, &id);
	db_done(stmt);
	g_ptr_array_add(job->damaged,
			g_strdup_printf("%s: %s", id != NULL ? id : "(no id)", reason));
	return mark_row(db, SQL_TX_PARK, n, reason, &job->error);
}

/* One due row.  What cannot be loaded for want of space or memory stays due. */
static bool
claim_row(const Loader *loader, Job *job, int64_t n, GError **ret_trouble)
{
	g_autoptr(GError) error = NULL;
	sqlite3_stmt *stmt = db_stmt(loader->db, SQL_TX_SELECT_N);
	bind_int(stmt, 1, n);
	g_autoptr(StoreRow) row = load_row(loader, stmt, &error);
	if (row == NULL) {
		if (error->code == K_ERROR_INPUT || db_is_corrupt(loader->db))
			return set_aside(loader->db, job, n, error->message);
		g_clear_error(ret_trouble);
		g_propagate_error(ret_trouble, g_steal_pointer(&error));
		return db_in_transaction(loader->db);
	}
	if (!mark_row(loader->db, SQL_TX_LEASE, n, NULL, &job->error))
		return false;
	row->leased = true;
	g_ptr_array_add(job->rows, g_steal_pointer(&row));
	return true;
}

static bool
find_next_due(Db *db, Job *job)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_NEXT);
	bool ok = db_step(db, stmt, &job->error) == SQLITE_ROW;
	/* 0 stands for "none", so what is due since ever is due since second 1. */
	if (ok && sqlite3_column_type(stmt, 0) != SQLITE_NULL)
		job->next_due = MAX(sqlite3_column_int64(stmt, 0), 1);
	db_done(stmt);
	return ok;
}

static void
blob_destroy(void *data)
{
	blob_unref(data);
}

static bool
run_claim(Db *db, Job *job)
{
	g_autoptr(GArray) due = g_array_new(FALSE, FALSE, sizeof(int64_t));
	if (!find_due(db, job, due, &job->error))
		return false;
	job->rows = g_ptr_array_new_with_free_func(row_destroy);
	g_autoptr(GHashTable)
		seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, blob_destroy);
	const Loader loader = {.db = db, .contents = true, .seen = seen};
	g_autoptr(GError) trouble = NULL;
	bool ok = true;
	for (guint i = 0; ok && i < due->len; i++)
		ok = claim_row(&loader, job, g_array_index(due, int64_t, i), &trouble);
	if (trouble != NULL && (!ok || job->rows->len == 0) && job->error == NULL) {
		job->error = g_steal_pointer(&trouble);
		return false;
	}
	return ok && find_next_due(db, job);
}

/* ---- cancel, collect ---- */

static bool
run_cancel(Db *db, Job *job)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_STATE);
	db_bind_text(stmt, 1, job->id);
	int rc = db_step(db, stmt, &job->error);
	bool leased = rc == SQLITE_ROW && sqlite3_column_int(stmt, 0) != 0;
	bool final = rc == SQLITE_ROW && sqlite3_column_int(stmt, 1) != 0;
	db_done(stmt);
	if (rc == SQLITE_DONE)
		return not_found(job);
	if (rc != SQLITE_ROW)
		return false;
	if (final)
		return true;
	if (leased)
		return error_set(&job->error, K_ERROR_CONFLICT, "transaction %.96s is under way",
				 job->id);
	stmt = db_stmt(db, SQL_TX_CANCEL);
	db_bind_text(stmt, 1, job->id);
	db_bind_text(stmt, 2, job->text);
	bind_int(stmt, 3, clock_wall_sec());
	return db_run(db, stmt, &job->error);
}

typedef struct OldRow {
	int64_t n, body; /* body 0: none */
} OldRow;

static bool
find_old(Db *db, const Job *job, GArray *old, GError **ret_error)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_OLD);
	bind_int(stmt, 1, job->time);
	bind_int(stmt, 2, job->limit);
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
	bind_int(stmt, 1, n);
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
	bind_int(stmt, 1, n);
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
	return true;
}

bool
db_run_job(Db *db, Job *job)
{
	static bool (*const RUN[])(Db *, Job *) = {
		[JOB_INSERT] = run_insert,   [JOB_UPDATE] = run_update, [JOB_CLAIM] = run_claim,
		[JOB_LOAD] = run_load,       [JOB_REUSE] = run_reuse,   [JOB_CANCEL] = run_cancel,
		[JOB_COLLECT] = run_collect,
	};
	_Static_assert(G_N_ELEMENTS(RUN) == JOB_KINDS, "one function each");
	return RUN[job->kind](db, job);
}
