/* SPDX-License-Identifier: Apache-2.0 */
/* Message bodies in the database: the first BLOB_CHUNK bytes in the row of the blob, the others
 * in rows of `chunk`.  (One value for all would be walked from its start at every access.)
 * Rows that share a body share the blob, by count. */
#include "base/error.h"
#include "store/sqlite_int.h"

/* ---- writing ---- */

/* Up to BLOB_CHUNK bytes at `offset`, without a copy where they lie together in memory. */
static const void *
chunk_at(Db *db, const Blob *blob, uint64_t offset, size_t *ret_len, GError **ret_error)
{
	size_t want = (size_t)MIN(blob_len(blob) - offset, (uint64_t)BLOB_CHUNK);
	size_t n;
	const char *bytes = blob_peek(blob, offset, &n);
	*ret_len = want;
	if (bytes != NULL && n >= want)
		return bytes;
	if (!blob_read(blob, offset, db->buffer, want, &n, ret_error))
		return NULL;
	k_assert(n == want);
	return db->buffer;
}

static bool
insert_chunk(Db *db, const Blob *blob, int64_t id, uint64_t offset, GError **ret_error)
{
	size_t len;
	const void *bytes = chunk_at(db, blob, offset, &len, ret_error);
	if (bytes == NULL)
		return false;
	sqlite3_stmt *stmt = db_stmt(db, offset == 0 ? SQL_BLOB_INSERT : SQL_CHUNK_INSERT);
	sqlite3_bind_int64(stmt, 1, id);
	sqlite3_bind_int64(stmt, 2, (int64_t)(offset == 0 ? blob_len(blob) : offset));
	sqlite3_bind_blob(stmt, 3, bytes, (int)len, SQLITE_STATIC);
	return db_run(db, stmt, ret_error);
}

static bool
add_ref(Db *db, int64_t id, bool *ret_found, GError **ret_error)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_BLOB_REF);
	sqlite3_bind_int64(stmt, 1, id);
	if (!db_run(db, stmt, ret_error))
		return false;
	*ret_found = sqlite3_changes(db->handle) > 0;
	return true;
}

bool
db_put_blob(Db *db, Blob *blob, int64_t *ret_id, GError **ret_error)
{
	int64_t id = blob_ids_find(&db->ids, blob);
	bool found = false;
	if (id != 0 && !add_ref(db, id, &found, ret_error))
		return false;
	if (!found) {
		id = db->next_blob++;
		uint64_t offset = 0;
		do {
			if (!insert_chunk(db, blob, id, offset, ret_error))
				return false;
			offset += BLOB_CHUNK;
		} while (offset < blob_len(blob));
		blob_ids_add(&db->ids, blob, id);
	}
	*ret_id = id;
	return true;
}

/* ---- reading ---- */

static bool
damaged(int64_t id, const char *how, GError **ret_error)
{
	return error_set(ret_error, K_ERROR_INPUT, "blob %" G_GINT64_FORMAT ": %s", id, how);
}

/* Appends the bytes in column 1. */
static bool
take_bytes(sqlite3_stmt *stmt, int64_t id, Blob *blob, GError **ret_error)
{
	if (sqlite3_column_type(stmt, 1) != SQLITE_BLOB && sqlite3_column_bytes(stmt, 1) > 0)
		return damaged(id, "content is no blob", ret_error);
	const void *bytes = sqlite3_column_blob(stmt, 1);
	return blob_append(blob, bytes, (size_t)sqlite3_column_bytes(stmt, 1), ret_error);
}

static bool
take_chunks(Db *db, int64_t id, Blob *blob, GError **ret_error)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_CHUNK_SELECT);
	sqlite3_bind_int64(stmt, 1, id);
	bool ok = true;
	int rc = SQLITE_DONE;
	while (ok && (rc = db_step(db, stmt, ret_error)) == SQLITE_ROW) {
		if ((uint64_t)sqlite3_column_int64(stmt, 0) != blob_len(blob))
			ok = damaged(id, "a chunk is missing", ret_error);
		else
			ok = take_bytes(stmt, id, blob, ret_error);
	}
	db_done(stmt);
	return ok && rc == SQLITE_DONE;
}

static Blob *
start_blob(Db *db, int64_t id, GError **ret_error)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_BLOB_SELECT);
	sqlite3_bind_int64(stmt, 1, id);
	g_autoptr(Blob) blob = NULL;
	int rc = db_step(db, stmt, ret_error);
	if (rc == SQLITE_DONE) {
		damaged(id, "missing", ret_error);
	} else if (rc == SQLITE_ROW) {
		blob = blob_new(&db->limits);
		int64_t len = sqlite3_column_int64(stmt, 0);
		if (sqlite3_column_type(stmt, 0) != SQLITE_INTEGER || len < 0 ||
		    !blob_set_total(blob, (uint64_t)len)) {
			damaged(id, "no valid length", ret_error);
			g_clear_pointer(&blob, blob_unref);
		} else if (!take_bytes(stmt, id, blob, ret_error)) {
			g_clear_pointer(&blob, blob_unref);
		}
	}
	db_done(stmt);
	return g_steal_pointer(&blob);
}

Blob *
db_get_blob(Db *db, int64_t id, GError **ret_error)
{
	g_autoptr(Blob) blob = start_blob(db, id, ret_error);
	if (blob == NULL)
		return NULL;
	if (blob_len(blob) < (uint64_t)blob_total(blob) && !take_chunks(db, id, blob, ret_error))
		return NULL;
	if (blob_len(blob) != (uint64_t)blob_total(blob)) {
		damaged(id, "shorter than it should be", ret_error);
		return NULL;
	}
	blob_finalize(blob);
	blob_ids_tell(&db->ids, blob, id);
	return g_steal_pointer(&blob);
}

/* ---- removing ---- */

bool
db_unref_blob(Db *db, int64_t id, GError **ret_error)
{
	static const DbStmt STEPS[] = {SQL_BLOB_UNREF, SQL_BLOB_DELETE, SQL_CHUNK_DELETE};
	for (size_t i = 0; i < G_N_ELEMENTS(STEPS); i++) {
		sqlite3_stmt *stmt = db_stmt(db, STEPS[i]);
		sqlite3_bind_int64(stmt, 1, id);
		if (!db_run(db, stmt, ret_error))
			return false;
		if (sqlite3_changes(db->handle) == 0)
			break; /* not there, or still used */
	}
	return true;
}
