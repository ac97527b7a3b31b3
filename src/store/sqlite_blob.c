/* SPDX-License-Identifier: Apache-2.0 */
/* Message bodies in the database: the first BLOB_CHUNK bytes in the row of the blob, the others
 * in rows of `chunk`.  (One value for all would be walked from its start at every access.)
 * Rows that share a body share the blob, by count. */
#include "base/error.h"
#include "store/sqlite_int.h"

/* A Blob keeps its id for life, but may meet another Db or find its row deleted by then.  Ids are
 * not used again while the process lives, so the rest of the number tells which Db gave it. */
#define INSTANCE_SHIFT 48
#define ID_MASK        ((INT64_C(1) << INSTANCE_SHIFT) - 1)

static int64_t
known_id(const Db *db, const Blob *blob)
{
	const int64_t *fresh = g_hash_table_lookup(db->new_ids, blob);
	if (fresh != NULL)
		return *fresh;
	int64_t stored = blob_stored_id(blob);
	return stored >> INSTANCE_SHIFT == db->instance ? stored & ID_MASK : 0;
}

static void
tell_id(const Db *db, Blob *blob, int64_t id)
{
	if (blob_stored_id(blob) == 0)
		blob_set_stored_id(blob, db->instance << INSTANCE_SHIFT | id);
}

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
	int64_t id = known_id(db, blob);
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
		g_ptr_array_add(db->new_blobs, blob);
		g_hash_table_replace(db->new_ids, blob, g_memdup2(&id, sizeof id));
	}
	*ret_id = id;
	return true;
}

void
db_publish_blobs(Db *db)
{
	for (guint i = 0; i < db->new_blobs->len; i++) {
		Blob *blob = g_ptr_array_index(db->new_blobs, i);
		tell_id(db, blob, known_id(db, blob));
	}
	db_forget_blobs(db, 0);
}

void
db_forget_blobs(Db *db, guint keep)
{
	for (guint i = keep; i < db->new_blobs->len; i++)
		g_hash_table_remove(db->new_ids, g_ptr_array_index(db->new_blobs, i));
	g_ptr_array_set_size(db->new_blobs, (gint)keep);
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
	tell_id(db, blob, id);
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
