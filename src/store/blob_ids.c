/* SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>

#include "store/store_int.h"

/* A Blob keeps its id for life, but may meet another backend or find its row deleted by then.  Ids
 * are not used again while the process lives, so the rest of the number tells who gave it. */
#define INSTANCE_SHIFT 48
#define INSTANCE_MAX   0x3fff
#define ID_MASK        ((INT64_C(1) << INSTANCE_SHIFT) - 1)

void
blob_ids_init(BlobIds *ids)
{
	static atomic_int instances;
	ids->instance = 1 + (atomic_fetch_add(&instances, 1) & INSTANCE_MAX);
	ids->fresh = g_ptr_array_new();
	ids->ids = g_hash_table_new_full(NULL, NULL, NULL, g_free);
	ids->gone = g_hash_table_new(NULL, NULL);
}

void
blob_ids_clear(BlobIds *ids)
{
	g_hash_table_unref(ids->gone);
	g_hash_table_unref(ids->ids);
	g_ptr_array_unref(ids->fresh);
}

int64_t
blob_ids_find(const BlobIds *ids, const Blob *blob)
{
	const int64_t *fresh = g_hash_table_lookup(ids->ids, blob);
	if (fresh != NULL)
		return *fresh;
	int64_t stored = blob_stored_id(blob);
	if (stored >> INSTANCE_SHIFT != ids->instance || g_hash_table_contains(ids->gone, blob))
		return 0;
	return stored & ID_MASK;
}

void
blob_ids_add(BlobIds *ids, Blob *blob, int64_t id)
{
	g_ptr_array_add(ids->fresh, blob);
	g_hash_table_replace(ids->ids, blob, g_memdup2(&id, sizeof id));
}

guint
blob_ids_count(const BlobIds *ids)
{
	return ids->fresh->len;
}

void
blob_ids_forget(BlobIds *ids, guint keep)
{
	for (guint i = keep; i < ids->fresh->len; i++)
		g_hash_table_remove(ids->ids, g_ptr_array_index(ids->fresh, i));
	g_ptr_array_set_size(ids->fresh, (gint)keep);
}

void
blob_ids_publish(BlobIds *ids)
{
	for (guint i = 0; i < ids->fresh->len; i++) {
		Blob *blob = g_ptr_array_index(ids->fresh, i);
		blob_ids_tell(ids, blob, blob_ids_find(ids, blob));
	}
	blob_ids_forget(ids, 0);
	g_hash_table_remove_all(ids->gone);
}

void
blob_ids_set_gone(BlobIds *ids, Blob *blob)
{
	g_hash_table_add(ids->gone, blob);
}

void
blob_ids_tell(const BlobIds *ids, Blob *blob, int64_t id)
{
	if (blob_stored_id(blob) == 0)
		blob_set_stored_id(blob, ids->instance << INSTANCE_SHIFT | id);
}
