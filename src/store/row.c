/* SPDX-License-Identifier: Apache-2.0 */
/* Values: rows, answers, and the fair choice between due rows. */
#include <string.h>

#include "base/error.h"
#include "store/store_int.h"

static void
store_blob_free(void *data)
{
	StoreBlob *part = data;
	g_free(part->name);
	blob_unref(part->blob);
	g_free(part);
}

StoreRow *
store_row_new(void)
{
	StoreRow *row = g_new0(StoreRow, 1);
	row->blobs = g_ptr_array_new_with_free_func(store_blob_free);
	return row;
}

void
store_row_free(StoreRow *row)
{
	if (row == NULL)
		return;
	g_free(row->id);
	g_free(row->sender);
	g_free(row->tag);
	g_free(row->json);
	g_free(row->builder);
	g_free(row->responses);
	g_free(row->mail_from);
	g_free(row->rcpt);
	g_free(row->final_reason);
	g_free(row->destination);
	g_free(row->held_reason);
	g_free(row->owner_uri);
	g_free(row->idem_key);
	g_free(row->idem_hash);
	g_ptr_array_unref(row->blobs);
	g_free(row);
}

void
store_row_add_blob(StoreRow *row, const char *name, Blob *blob)
{
	for (guint i = 0; i < row->blobs->len; i++) {
		const StoreBlob *other = g_ptr_array_index(row->blobs, i);
		k_assert_for(name != NULL || other->name != NULL, row->id); /* one body */
	}
	StoreBlob *part = g_new0(StoreBlob, 1);
	part->name = g_strdup(name);
	part->blob = blob != NULL ? blob_ref(blob) : NULL;
	g_ptr_array_add(row->blobs, part);
}

const StoreBlob *
row_body(const StoreRow *row)
{
	for (guint i = 0; i < row->blobs->len; i++) {
		const StoreBlob *part = g_ptr_array_index(row->blobs, i);
		if (part->name == NULL)
			return part;
	}
	return NULL;
}

char *
row_destination_of(const char *rcpt)
{
	const char *at = rcpt != NULL ? strrchr(rcpt, '@') : NULL;
	return g_ascii_strdown(at != NULL ? at + 1 : "", -1);
}

static void
row_destroy(void *data)
{
	store_row_free(data);
}

GPtrArray *
row_array_new(void)
{
	return g_ptr_array_new_with_free_func(row_destroy);
}

static void
count_destroy(void *data)
{
	StoreCount *count = data;
	g_free(count->destination);
	g_free(count);
}

GPtrArray *
count_array_new(void)
{
	return g_ptr_array_new_with_free_func(count_destroy);
}

/* ---- answers ---- */

void
job_clear_answer(Job *job)
{
	g_clear_error(&job->error);
	g_clear_pointer(&job->rows, g_ptr_array_unref);
	g_clear_pointer(&job->damaged, g_ptr_array_unref);
	g_clear_pointer(&job->counts, g_ptr_array_unref);
	job->next_due = 0;
	job->count = 0;
	job->due = false;
}

void
job_keep_error(Job *job)
{
	GError *keep = g_steal_pointer(&job->error);
	job_clear_answer(job);
	job->error = keep;
}

void
job_add_damaged(Job *job, const char *id, const char *reason)
{
	if (job->damaged == NULL)
		job->damaged = g_ptr_array_new_with_free_func(g_free);
	g_ptr_array_add(job->damaged,
			g_strdup_printf("%s: %s", id != NULL ? id : "(no id)", reason));
}

void
job_answer_row(Job *job, StoreRow *row)
{
	job->rows = row_array_new();
	g_ptr_array_add(job->rows, row);
}

bool
job_not_found(Job *job)
{
	return error_set(&job->error, K_ERROR_NOT_FOUND, "no stored transaction %.96s",
			 job->id != NULL ? job->id : job->row->id);
}

bool
job_key_taken(Job *job)
{
	return error_set(&job->error, K_ERROR_CONFLICT,
			 "the idempotency key of %.96s stands for another transaction",
			 job->row->id);
}

bool
job_under_way(Job *job, const char *id)
{
	return error_set(&job->error, K_ERROR_CONFLICT, "transaction %.96s is under way", id);
}

/* ---- the fair choice ---- */

unsigned
due_quota(unsigned limit, unsigned per_destination, unsigned destinations)
{
	if (destinations == 0 || limit == 0)
		return 0;
	unsigned left = limit > destinations ? limit - destinations : 0;
	return MIN(per_destination, left + 1);
}

static int
compare_due(const void *a, const void *b)
{
	const DueRow *x = a, *y = b;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	if (x->due != y->due)
		return x->due < y->due ? -1 : 1;
	return x->n < y->n ? -1 : x->n > y->n;
}

void
due_choose(GArray *due, unsigned limit)
{
	g_array_sort(due, compare_due);
	if (due->len > limit)
		g_array_set_size(due, limit);
}

/* ---- suspects ---- */

bool
suspect_is(const StoreRow *row, unsigned crash_max)
{
	return row->crashes > 0 && row->crashes + 1 >= crash_max;
}

void
suspect_take(Suspect *suspect, const char *id)
{
	k_assert(suspect->id == NULL);
	suspect->id = g_strdup(id);
	suspect->fresh = true;
}

bool
suspect_end(Suspect *suspect, const char *id)
{
	if (g_strcmp0(suspect->id, id) != 0)
		return false;
	g_clear_pointer(&suspect->id, g_free);
	return true;
}

void
suspect_settle(Suspect *suspect, bool committed)
{
	if (suspect->fresh && !committed)
		g_clear_pointer(&suspect->id, g_free);
	suspect->fresh = false;
}
