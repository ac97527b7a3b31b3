/* SPDX-License-Identifier: Apache-2.0 */
/* Message bodies in the database, as in SQLite: the first BLOB_CHUNK bytes in the row of the blob,
 * the others in rows of `chunk`. */
#include <endian.h>
#include <string.h>

#include "base/error.h"
#include "store/pg_int.h"

#define IDS_AT_ONCE   1000 /* the sequence counts thousands */
#define SMALL_AT_ONCE 32   /* bodies of up to BLOB_CHUNK bytes in one answer */

/* ---- writing ---- */

static bool
more_ids(Pg *pg, GError **ret_error)
{
	g_autoptr(PGresult) result = pg_query(pg, PG_BLOB_IDS, NULL, false, ret_error);
	if (result == NULL)
		return false;
	pg->next_blob = pg_get_int(result, 0, 0) * IDS_AT_ONCE;
	pg->last_blob = pg->next_blob + IDS_AT_ONCE - 1;
	return true;
}

bool
pg_blob_id(Pg *pg, Blob *blob, int64_t *ret_id, bool *ret_new, GError **ret_error)
{
	int64_t id = blob_ids_find(&pg->ids, blob);
	*ret_new = id == 0;
	if (id == 0) {
		if (pg->next_blob > pg->last_blob && !more_ids(pg, ret_error))
			return false;
		id = pg->next_blob++;
		blob_ids_add(&pg->ids, blob, id);
	}
	*ret_id = id;
	return true;
}

bool
pg_put_ref(Pg *pg, Blob *blob, int64_t id, GError **ret_error)
{
	const PgPending about = {.blob = blob};
	g_auto(PgParams) params = {0};
	pg_int(&params, id);
	return pg_push(pg, PG_BLOB_REF, &params, &about, ret_error);
}

const void *
pg_chunk_at(Pg *pg, const Blob *blob, uint64_t offset, size_t *ret_len, GError **ret_error)
{
	size_t want = (size_t)MIN(blob_len(blob) - offset, (uint64_t)BLOB_CHUNK);
	size_t n;
	const char *bytes = blob_peek(blob, offset, &n);
	*ret_len = want;
	if (bytes != NULL && n >= want)
		return bytes;
	if (!blob_read(blob, offset, pg->buffer, want, &n, ret_error))
		return NULL;
	k_assert(n == want);
	return pg->buffer;
}

bool
pg_put_content(Pg *pg, Blob *blob, int64_t id, uint64_t offset, GError **ret_error)
{
	for (bool first = offset == 0; first || offset < blob_len(blob); first = false) {
		size_t len;
		const void *bytes = pg_chunk_at(pg, blob, offset, &len, ret_error);
		if (bytes == NULL)
			return false;
		g_auto(PgParams) params = {0};
		pg_int(&params, id);
		pg_int(&params, (int64_t)(first ? blob_len(blob) : offset));
		pg_bytes(&params, bytes, len);
		if (!pg_push(pg, first ? PG_BLOB_INSERT : PG_CHUNK_INSERT, &params, NULL,
			     ret_error))
			return false;
		offset += BLOB_CHUNK;
	}
	return true;
}

/* ---- reading ---- */

static bool
damaged(int64_t id, const char *how, GError **ret_error)
{
	return error_set(ret_error, K_ERROR_INPUT, "blob %" G_GINT64_FORMAT ": %s", id, how);
}

/* A bigint in binary form. */
static bool
binary_int(const PGresult *result, int row, int column, int64_t *ret_number)
{
	uint64_t bytes;
	if (PQgetlength(result, row, column) != (int)sizeof bytes)
		return false;
	memcpy(&bytes, PQgetvalue(result, row, column), sizeof bytes);
	*ret_number = (int64_t)be64toh(bytes);
	return true;
}

static bool
take_bytes(const PGresult *result, int row, Blob *blob, GError **ret_error)
{
	return blob_append(blob, PQgetvalue(result, row, 1), (size_t)PQgetlength(result, row, 1),
			   ret_error);
}

/* Some chunks at once; sets *ret_more to false at the end. */
static bool
take_chunks(Pg *pg, int64_t id, Blob *blob, bool *ret_more, GError **ret_error)
{
	g_auto(PgParams) params = {0};
	pg_int(&params, id);
	pg_int(&params, (int64_t)blob_len(blob));
	g_autoptr(PGresult) result = pg_query(pg, PG_CHUNK_SELECT, &params, true, ret_error);
	if (result == NULL)
		return false;
	*ret_more = PQntuples(result) > 0;
	for (int i = 0; i < PQntuples(result); i++) {
		int64_t offset;
		if (!binary_int(result, i, 0, &offset) || (uint64_t)offset != blob_len(blob))
			return damaged(id, "a chunk is missing", ret_error);
		if (!take_bytes(result, i, blob, ret_error))
			return false;
	}
	return true;
}

/* The length and the first bytes. */
static Blob *
blob_of(Pg *pg, int64_t id, const PGresult *result, int row, GError **ret_error)
{
	int64_t len;
	g_autoptr(Blob) blob = blob_new(&pg->limits);
	if (!binary_int(result, row, 0, &len) || len < 0 || !blob_set_total(blob, (uint64_t)len))
		damaged(id, "no valid length", ret_error);
	else if (take_bytes(result, row, blob, ret_error))
		return g_steal_pointer(&blob);
	return NULL;
}

static Blob *
start_blob(Pg *pg, int64_t id, GError **ret_error)
{
	g_auto(PgParams) params = {0};
	pg_int(&params, id);
	g_autoptr(PGresult) result = pg_query(pg, PG_BLOB_SELECT, &params, true, ret_error);
	if (result == NULL)
		return NULL;
	if (PQntuples(result) > 0)
		return blob_of(pg, id, result, 0, ret_error);
	damaged(id, "missing", ret_error);
	return NULL;
}

/* What cannot be taken here is looked for again, alone, and fails there. */
static bool
take_small(Pg *pg, const GArray *ids, GHashTable *seen, GError **ret_error)
{
	g_auto(PgParams) params = {0};
	pg_ints(&params, ids);
	g_autoptr(PGresult) result = pg_query(pg, PG_BLOB_SMALL, &params, true, ret_error);
	if (result == NULL)
		return false;
	for (int i = 0; i < PQntuples(result); i++) {
		int64_t id;
		Blob *blob = binary_int(result, i, 2, &id) ? blob_of(pg, id, result, i, NULL)
							   : NULL;
		if (blob == NULL)
			continue;
		blob_finalize(blob);
		blob_ids_tell(&pg->ids, blob, id);
		g_hash_table_insert(seen, g_memdup2(&id, sizeof id), blob);
	}
	return true;
}

bool
pg_get_small(Pg *pg, const GArray *ids, GHashTable *seen, GError **ret_error)
{
	g_autoptr(GArray) slice = g_array_new(FALSE, FALSE, sizeof(int64_t));
	for (guint i = 0; i < ids->len; i += SMALL_AT_ONCE) {
		g_array_set_size(slice, 0);
		g_array_append_vals(slice, &g_array_index(ids, int64_t, i),
				    MIN(ids->len - i, SMALL_AT_ONCE));
		if (!take_small(pg, slice, seen, ret_error))
			return false;
	}
	return true;
}

Blob *
pg_get_blob(Pg *pg, int64_t id, GError **ret_error)
{
	g_autoptr(Blob) blob = start_blob(pg, id, ret_error);
	if (blob == NULL)
		return NULL;
	bool more = true;
	while (more && blob_len(blob) < (uint64_t)blob_total(blob)) {
		if (!take_chunks(pg, id, blob, &more, ret_error))
			return NULL;
	}
	if (blob_len(blob) != (uint64_t)blob_total(blob)) {
		damaged(id, "shorter than it should be", ret_error);
		return NULL;
	}
	blob_finalize(blob);
	blob_ids_tell(&pg->ids, blob, id);
	return g_steal_pointer(&blob);
}
