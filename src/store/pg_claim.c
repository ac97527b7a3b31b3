/* SPDX-License-Identifier: Apache-2.0 */
/* Claiming what is due, fairly; the scheme is that of sqlite_claim.c, among several processes:
 *
 * - Rows are taken with FOR UPDATE SKIP LOCKED, so two claims never wait for each other.
 * - Whoever makes rows wait lowers the `due` of their destinations at the end of the transaction,
 *   in one order for all, so nobody waits in a circle.
 * - Only a claim raises it: it locks the destination, if nobody has it, then looks again.  A
 *   transaction that made a row wait and is not committed yet has the lock, so its row is not
 *   overlooked; one that comes later waits for the lock, and lowers what it finds then.
 * - A claim is the last job of its transaction: after it no lock is waited for. */
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "store/pg_int.h"

#define WALK_MIN 32 /* destinations looked at, at once */

/* ---- destinations that wait ---- */

void
pg_add_wait(Pg *pg, const char *destination, int64_t due)
{
	int64_t *known = g_hash_table_lookup(pg->waits, destination);
	if (known == NULL)
		g_hash_table_insert(pg->waits, g_strdup(destination), g_memdup2(&due, sizeof due));
	else if (due < *known)
		*known = due;
}

bool
pg_push_waits(Pg *pg, GError **ret_error)
{
	/* Updates learn only by their answers where their rows go. */
	if (pg->returned && !pg_drain(pg, ret_error))
		return false;
	pg->returned = false;
	if (g_hash_table_size(pg->waits) == 0)
		return true;
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	g_autoptr(GArray) dues = g_array_new(FALSE, FALSE, sizeof(int64_t));
	GHashTableIter iter;
	void *name, *due;
	g_hash_table_iter_init(&iter, pg->waits);
	while (g_hash_table_iter_next(&iter, &name, &due)) {
		g_ptr_array_add(names, name);
		g_array_append_val(dues, *(int64_t *)due);
	}
	g_auto(PgParams) params = {0};
	pg_texts(&params, names);
	pg_ints(&params, dues);
	bool ok = pg_push(pg, PG_DEST_DUE, &params, NULL, ret_error);
	g_hash_table_remove_all(pg->waits);
	return ok;
}

/* ---- one claim ---- */

typedef struct Claim {
	Pg *pg;
	Job *job;
	GPtrArray *busy;    /* char* */
	GPtrArray *touched; /* char*: destinations whose `due` may be too early now */
	GPtrArray *names;   /* char*: those with due rows */
	GArray *due;        /* DueRow */
	unsigned waiting;   /* suspects that were put off */
} Claim;

/* Looks at the destinations behind (*due, *name); sets *ret_more to false at the end. */
static bool
walk_page(Claim *claim, int64_t *due, char **name, bool *ret_more)
{
	unsigned page = MAX(claim->job->limit, WALK_MIN);
	g_auto(PgParams) params = {0};
	pg_int(&params, claim->job->time);
	pg_int(&params, *due);
	pg_text(&params, *name);
	pg_texts(&params, claim->busy);
	pg_int(&params, page);
	g_autoptr(PGresult)
		result = pg_query(claim->pg, PG_DEST_WALK, &params, false, &claim->job->error);
	if (result == NULL)
		return false;
	int count = PQntuples(result);
	for (int i = 0; i < count && claim->names->len < claim->job->limit; i++) {
		const char *found = pg_get_text(result, i, 0);
		g_ptr_array_add(claim->touched, g_strdup(found));
		if (PQgetisnull(result, i, 2) == 0)
			g_ptr_array_add(claim->names, g_strdup(found));
	}
	*ret_more = count == (int)page;
	if (count > 0) {
		*due = pg_get_int(result, count - 1, 1);
		g_free(*name);
		*name = g_strdup(pg_get_text(result, count - 1, 0));
	}
	return true;
}

static bool
find_destinations(Claim *claim)
{
	int64_t due = -1;
	char *name = g_strdup("");
	bool ok = true, more = true;
	while (ok && more && claim->names->len < claim->job->limit)
		ok = walk_page(claim, &due, &name, &more);
	g_free(name);
	return ok;
}

/* Locks the first rows of each. */
static bool
find_due(Claim *claim)
{
	Job *job = claim->job;
	if (claim->names->len == 0)
		return true;
	g_auto(PgParams) params = {0};
	pg_texts(&params, claim->names);
	pg_int(&params, job->time);
	pg_int(&params, due_quota(job->limit, job->per_destination, claim->names->len));
	g_autoptr(PGresult) result = pg_query(claim->pg, PG_DEST_ROWS, &params, false, &job->error);
	if (result == NULL)
		return false;
	for (int i = 0; i < PQntuples(result); i++) {
		DueRow row = {.n = pg_get_int(result, i, 0),
			      .due = pg_get_int(result, i, 1),
			      .source = (guint)pg_get_int(result, i, 2)};
		const DueRow *last = claim->due->len > 0 ? &g_array_index(claim->due, DueRow,
									  claim->due->len - 1)
							 : NULL;
		row.at = last != NULL && last->source == row.source ? last->at + 1 : 0;
		g_array_append_val(claim->due, row);
	}
	due_choose(claim->due, job->limit);
	return true;
}

/* A row that cannot be run is set aside, with the reason, and does not stop the others. */
static bool
set_aside(Claim *claim, int64_t n, const char *id, const char *reason)
{
	job_add_damaged(claim->job, id, reason);
	g_auto(PgParams) params = {0};
	pg_int(&params, n);
	pg_text(&params, reason);
	pg_int(&params, clock_wall_sec());
	return pg_push(claim->pg, PG_TX_SET_ASIDE, &params, NULL, &claim->job->error);
}

/* A suspect that is not the only one. */
static bool
put_off(Claim *claim, int64_t n)
{
	g_auto(PgParams) params = {0};
	pg_int(&params, n);
	pg_int(&params, claim->job->time + SUSPECT_PAUSE(claim->waiting++));
	return pg_push(claim->pg, PG_TX_PUT_OFF, &params, NULL, &claim->job->error);
}

/* What cannot be loaded for want of space or memory stays due. */
static bool
take_row(Claim *claim, const PgLoader *loader, const PGresult *result, int at, GArray *taken,
	 GError **ret_trouble)
{
	g_autoptr(GError) error = NULL;
	int64_t n = pg_get_int(result, at, 0);
	g_autoptr(StoreRow) row = pg_load_row(loader, result, at, &error);
	if (row == NULL && error->code == K_ERROR_INPUT)
		return set_aside(claim, n, pg_get_text(result, at, 1), error->message);
	if (row == NULL) {
		g_clear_error(ret_trouble);
		g_propagate_error(ret_trouble, g_steal_pointer(&error));
		return !claim->pg->failed && !claim->pg->aborted;
	}
	if (row->crashes >= claim->pg->crash_max) {
		g_autofree char *why = g_strdup_printf("crashed %u times", row->crashes);
		return set_aside(claim, n, row->id, why);
	}
	if (suspect_is(row, claim->pg->crash_max)) {
		if (claim->pg->suspect.id != NULL)
			return put_off(claim, n);
		suspect_take(&claim->pg->suspect, row->id);
	}
	g_array_append_val(taken, n);
	row->leased = true;
	g_ptr_array_add(claim->job->rows, g_steal_pointer(&row));
	return true;
}

static void
blob_destroy(void *data)
{
	blob_unref(data);
}

static bool
take_rows(Claim *claim, const PGresult *result, GArray *taken)
{
	Job *job = claim->job;
	g_autoptr(GHashTable)
		seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, blob_destroy);
	g_auto(PgLoader) loader = {.pg = claim->pg, .contents = true, .seen = seen};
	g_autoptr(GError) trouble = NULL;
	bool ok = pg_load_parts(&loader, result, &job->error);
	/* In the order of the choice. */
	for (guint i = 0; ok && i < claim->due->len; i++) {
		int64_t n = g_array_index(claim->due, DueRow, i).n;
		for (int at = 0; ok && at < PQntuples(result); at++) {
			if (pg_get_int(result, at, 0) != n)
				continue;
			ok = take_row(claim, &loader, result, at, taken, &trouble);
			break;
		}
	}
	if (trouble != NULL && (!ok || job->rows->len == 0) && job->error == NULL) {
		job->error = g_steal_pointer(&trouble);
		return false;
	}
	return ok;
}

static bool
lease(Claim *claim, const GArray *taken)
{
	if (taken->len == 0)
		return true;
	g_auto(PgParams) params = {0};
	pg_int(&params, claim->pg->session);
	pg_int(&params, clock_wall_sec());
	pg_ints(&params, taken);
	g_array_append_vals(claim->pg->claimed, taken->data, taken->len);
	return pg_push(claim->pg, PG_TX_LEASE, &params, NULL, &claim->job->error);
}

static bool
load_and_lease(Claim *claim)
{
	Job *job = claim->job;
	job->rows = row_array_new();
	if (claim->due->len == 0)
		return true;
	g_autoptr(GArray) numbers = g_array_new(FALSE, FALSE, sizeof(int64_t));
	for (guint i = 0; i < claim->due->len; i++)
		g_array_append_val(numbers, g_array_index(claim->due, DueRow, i).n);
	g_auto(PgParams) params = {0};
	pg_int(&params, claim->pg->session);
	pg_ints(&params, numbers);
	g_autoptr(PGresult)
		result = pg_query(claim->pg, PG_TX_SELECT_N, &params, false, &job->error);
	g_autoptr(GArray) taken = g_array_new(FALSE, FALSE, sizeof(int64_t));
	return result != NULL && take_rows(claim, result, taken) && lease(claim, taken);
}

/* Makes `due` exact again, where nobody else is at it. */
static bool
correct(Claim *claim)
{
	if (claim->touched->len == 0)
		return true;
	Pg *pg = claim->pg;
	GError **ret_error = &claim->job->error;
	g_auto(PgParams) params = {0}, locked = {0};
	pg_texts(&params, claim->touched);
	g_autoptr(PGresult) result = pg_query(pg, PG_DEST_LOCK, &params, false, ret_error);
	if (result == NULL)
		return false;
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	for (int i = 0; i < PQntuples(result); i++)
		g_ptr_array_add(names, PQgetvalue(result, i, 0));
	pg_texts(&locked, names);
	return pg_push(pg, PG_DEST_SET, &locked, NULL, ret_error) &&
	       pg_push(pg, PG_DEST_DROP, &locked, NULL, ret_error);
}

static bool
find_next_due(Claim *claim)
{
	g_auto(PgParams) params = {0};
	pg_texts(&params, claim->busy);
	g_autoptr(PGresult)
		result = pg_query(claim->pg, PG_DEST_NEXT, &params, false, &claim->job->error);
	if (result == NULL)
		return false;
	/* 0 stands for "none", so what is due since ever is due since second 1. */
	if (PQntuples(result) > 0)
		claim->job->next_due = MAX(pg_get_int(result, 0, 0), 1);
	return true;
}

bool
pg_run_claim(Pg *pg, Job *job)
{
	Claim claim = {.pg = pg, .job = job};
	claim.busy = g_ptr_array_new();
	claim.touched = g_ptr_array_new_with_free_func(g_free);
	claim.names = g_ptr_array_new_with_free_func(g_free);
	claim.due = g_array_new(FALSE, FALSE, sizeof(DueRow));
	if (job->busy != NULL) {
		GHashTableIter iter;
		void *name;
		g_hash_table_iter_init(&iter, job->busy);
		while (g_hash_table_iter_next(&iter, &name, NULL))
			g_ptr_array_add(claim.busy, name);
	}
	bool ok = pg_push_waits(pg, &job->error) && find_destinations(&claim) && find_due(&claim) &&
		  load_and_lease(&claim) && correct(&claim) && find_next_due(&claim);
	g_ptr_array_unref(claim.busy);
	g_ptr_array_unref(claim.touched);
	g_ptr_array_unref(claim.names);
	g_array_unref(claim.due);
	return ok;
}
