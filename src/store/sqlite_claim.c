/* SPDX-License-Identifier: Apache-2.0 */
/* Claiming what is due, fairly, at a cost that the length of the queue has no part in.
 *
 *   dest  (name, due)   for each destination with waiting rows; `due` is at or before the
 *                       next_attempt of the first of them
 *   tx_waiting          index (destination, next_attempt, n) of the waiting rows
 *
 * Whoever makes a row wait lowers `due`; nobody raises it but a claim, which looks at the first
 * row itself.  So a claim walks the destinations in the order of being due, steps over those
 * that are busy, and takes rows from the front of each: a destination with a million due rows
 * costs as much as one with a single one. */
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "store/sqlite_int.h"

#define WALK_PAGE 128 /* destinations read at once */

/* ---- what is known of `dest`: only this connection writes it ---- */

#define DUES_MAX 10000

void
db_forget_dues(Db *db)
{
	g_hash_table_remove_all(db->dues);
}

static void
know_due(Db *db, const char *name, int64_t due)
{
	if (g_hash_table_size(db->dues) >= DUES_MAX)
		db_forget_dues(db);
	g_hash_table_replace(db->dues, g_strdup(name), g_memdup2(&due, sizeof due));
}

bool
db_destination_due(Db *db, const char *name, int64_t due, GError **ret_error)
{
	const int64_t *known = g_hash_table_lookup(db->dues, name);
	if (known != NULL && *known <= due)
		return true;
	sqlite3_stmt *stmt = db_stmt(db, SQL_DEST_DUE);
	db_bind_text(stmt, 1, name);
	db_bind_int(stmt, 2, due);
	if (!db_run(db, stmt, ret_error))
		return false;
	know_due(db, name, due);
	return true;
}

/* ---- destinations ---- */

typedef struct Destination {
	char *name;
	int64_t due;
} Destination;

static void
destination_clear(void *data)
{
	g_free(((Destination *)data)->name);
}

/* Up to WALK_PAGE destinations behind `last` (NULL: from the first). */
static bool
read_page(Db *db, const Destination *last, GArray *page, GError **ret_error)
{
	g_array_set_size(page, 0);
	sqlite3_stmt *stmt = db_stmt(db, SQL_DEST_WALK);
	db_bind_int(stmt, 1, last != NULL ? last->due : -1);
	db_bind_text(stmt, 2, last != NULL ? last->name : "");
	db_bind_int(stmt, 3, WALK_PAGE);
	int rc;
	while ((rc = db_step(db, stmt, ret_error)) == SQLITE_ROW) {
		const Destination dest = {g_strdup((const char *)sqlite3_column_text(stmt, 0)),
					  sqlite3_column_int64(stmt, 1)};
		g_array_append_val(page, dest);
	}
	db_done(stmt);
	return rc == SQLITE_DONE;
}

/* A walk over the destinations that are not busy, in the order of being due. */
typedef struct Walk {
	Db *db;
	const Job *job;
	GArray *page;
	guint next;
	bool started, ended;
} Walk;

static void
walk_init(Walk *walk, Db *db, const Job *job)
{
	*walk = (Walk){.db = db, .job = job};
	walk->page = g_array_new(FALSE, FALSE, sizeof(Destination));
	g_array_set_clear_func(walk->page, destination_clear);
}

static bool
walk_next_page(Walk *walk, GError **ret_error)
{
	Destination last = {0};
	if (walk->page->len > 0) {
		last = g_array_index(walk->page, Destination, walk->page->len - 1);
		last.name = g_strdup(last.name);
	}
	bool ok = read_page(walk->db, walk->started ? &last : NULL, walk->page, ret_error);
	g_free(last.name);
	walk->started = true;
	walk->next = 0;
	walk->ended = walk->page->len == 0;
	return ok;
}

/* *ret_dest is NULL at the end; valid until the next call. */
static bool
walk_step(Walk *walk, const Destination **ret_dest, GError **ret_error)
{
	*ret_dest = NULL;
	while (!walk->ended) {
		if (walk->next == walk->page->len && !walk_next_page(walk, ret_error))
			return false;
		if (walk->ended)
			break;
		const Destination *dest = &g_array_index(walk->page, Destination, walk->next++);
		if (walk->job->busy != NULL && g_hash_table_contains(walk->job->busy, dest->name))
			continue;
		*ret_dest = dest;
		break;
	}
	return true;
}

/* ---- choosing ---- */

/* The first waiting rows of a destination, at most `max`, also those not yet due. */
static bool
front_of(Db *db, const char *name, unsigned max, GArray *rows, GError **ret_error)
{
	g_array_set_size(rows, 0);
	sqlite3_stmt *stmt = db_stmt(db, SQL_DEST_ROWS);
	db_bind_text(stmt, 1, name);
	db_bind_int(stmt, 2, max);
	int rc;
	while ((rc = db_step(db, stmt, ret_error)) == SQLITE_ROW) {
		const DueRow row = {.n = sqlite3_column_int64(stmt, 0),
				    .due = sqlite3_column_int64(stmt, 1),
				    .at = rows->len};
		g_array_append_val(rows, row);
	}
	db_done(stmt);
	return rc == SQLITE_DONE;
}

/* Makes `due` exact again. */
static bool
correct(Db *db, const char *name, GError **ret_error)
{
	g_autoptr(GArray) front = g_array_new(FALSE, FALSE, sizeof(DueRow));
	if (!front_of(db, name, 1, front, ret_error))
		return false;
	g_hash_table_remove(db->dues, name);
	sqlite3_stmt *stmt = db_stmt(db, front->len > 0 ? SQL_DEST_SET : SQL_DEST_DROP);
	db_bind_text(stmt, 1, name);
	if (front->len > 0)
		db_bind_int(stmt, 2, g_array_index(front, DueRow, 0).due);
	return db_run(db, stmt, ret_error);
}

/* The destinations that have due rows, at most as many as rows are wanted. */
static bool
find_destinations(Db *db, Job *job, GPtrArray *names)
{
	g_autoptr(GArray) front = g_array_new(FALSE, FALSE, sizeof(DueRow));
	Walk walk;
	walk_init(&walk, db, job);
	const Destination *dest;
	bool ok;
	while ((ok = walk_step(&walk, &dest, &job->error)) && dest != NULL &&
	       dest->due <= job->time && names->len < job->limit) {
		g_autofree char *name = g_strdup(dest->name);
		ok = front_of(db, name, 1, front, &job->error);
		if (!ok)
			break;
		if (front->len > 0 && g_array_index(front, DueRow, 0).due <= job->time)
			g_ptr_array_add(names, g_steal_pointer(&name));
		else if (!(ok = correct(db, name, &job->error)))
			break;
	}
	g_array_unref(walk.page);
	return ok;
}

static bool
find_due(Db *db, Job *job, const GPtrArray *names, GArray *due)
{
	g_autoptr(GArray) front = g_array_new(FALSE, FALSE, sizeof(DueRow));
	unsigned quota = due_quota(job->limit, job->per_destination, names->len);
	for (guint i = 0; i < names->len; i++) {
		if (!front_of(db, g_ptr_array_index(names, i), quota, front, &job->error))
			return false;
		for (guint k = 0; k < front->len; k++) {
			DueRow row = g_array_index(front, DueRow, k);
			row.source = i;
			if (row.due <= job->time)
				g_array_append_val(due, row);
		}
	}
	due_choose(due, job->limit);
	return true;
}

/* ---- taking ---- */

static bool
mark_row(Db *db, DbStmt which, int64_t n, const char *reason, GError **ret_error)
{
	sqlite3_stmt *stmt = db_stmt(db, which);
	int at = 1;
	db_bind_int(stmt, at++, n);
	if (reason != NULL)
		db_bind_text(stmt, at++, reason);
	db_bind_int(stmt, at, clock_wall_sec());
	return db_run(db, stmt, ret_error);
}

/* A row that cannot be run is set aside, with the reason, and does not stop the others. */
static bool
set_aside(Db *db, Job *job, int64_t n, const char *reason)
{
	g_autofree char *id = db_row_id(db, n);
	job_add_damaged(job, id, reason);
	return mark_row(db, SQL_TX_SET_ASIDE, n, reason, &job->error);
}

/* A suspect that is not the only one. */
static bool
put_off(Db *db, Job *job, int64_t n, unsigned place)
{
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_PUT_OFF);
	db_bind_int(stmt, 1, n);
	db_bind_int(stmt, 2, job->time + SUSPECT_PAUSE(place));
	return db_run(db, stmt, &job->error);
}

/* One due row.  What cannot be loaded for want of space or memory stays due. */
static bool
claim_row(const Loader *loader, Job *job, int64_t n, unsigned *ret_waiting, GError **ret_trouble)
{
	g_autoptr(GError) error = NULL;
	Db *db = loader->db;
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_SELECT_N);
	db_bind_int(stmt, 1, n);
	g_autoptr(StoreRow) row = db_load_row(loader, stmt, &error);
	if (row == NULL) {
		if (error->code == K_ERROR_INPUT || db_is_corrupt(db))
			return set_aside(db, job, n, error->message);
		g_clear_error(ret_trouble);
		g_propagate_error(ret_trouble, g_steal_pointer(&error));
		return db_in_transaction(db);
	}
	if (row->crashes >= db->crash_max) {
		g_autofree char *why = g_strdup_printf("crashed %u times", row->crashes);
		return set_aside(db, job, n, why);
	}
	if (suspect_is(row, db->crash_max)) {
		if (db->suspect.id != NULL)
			return put_off(db, job, n, (*ret_waiting)++);
		suspect_take(&db->suspect, row->id);
	}
	if (!mark_row(db, SQL_TX_LEASE, n, NULL, &job->error))
		return false;
	row->leased = true;
	g_ptr_array_add(job->rows, g_steal_pointer(&row));
	return true;
}

static void
blob_destroy(void *data)
{
	blob_unref(data);
}

static bool
claim_rows(Db *db, Job *job, const GArray *due)
{
	g_autoptr(GHashTable)
		seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, blob_destroy);
	const Loader loader = {.db = db, .contents = true, .seen = seen};
	g_autoptr(GError) trouble = NULL;
	job->rows = row_array_new();
	bool ok = true;
	unsigned waiting = 0;
	for (guint i = 0; ok && i < due->len; i++)
		ok = claim_row(&loader, job, g_array_index(due, DueRow, i).n, &waiting, &trouble);
	if (trouble != NULL && (!ok || job->rows->len == 0) && job->error == NULL) {
		job->error = g_steal_pointer(&trouble);
		return false;
	}
	return ok;
}

static bool
find_next_due(Db *db, Job *job)
{
	Walk walk;
	walk_init(&walk, db, job);
	const Destination *dest;
	bool ok = walk_step(&walk, &dest, &job->error);
	/* 0 stands for "none", so what is due since ever is due since second 1. */
	if (ok && dest != NULL)
		job->next_due = MAX(dest->due, 1);
	g_array_unref(walk.page);
	return ok;
}

bool
db_run_claim(Db *db, Job *job)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GArray) due = g_array_new(FALSE, FALSE, sizeof(DueRow));
	if (!find_destinations(db, job, names) || !find_due(db, job, names, due) ||
	    !claim_rows(db, job, due))
		return false;
	for (guint i = 0; i < names->len; i++) {
		if (!correct(db, g_ptr_array_index(names, i), &job->error))
			return false;
	}
	return find_next_due(db, job);
}

/* ---- planned by a clock that was ahead ---- */

bool
db_run_replan(Db *db, Job *job)
{
	int64_t now = clock_wall_sec();
	sqlite3_stmt *stmt = db_stmt(db, SQL_TX_REPLAN);
	db_bind_int(stmt, 1, now);
	db_bind_int(stmt, 2, MAX(job->time, now));
	db_bind_int(stmt, 3, job->limit);
	if (!db_run(db, stmt, &job->error))
		return false;
	job->count = (uint64_t)sqlite3_changes(db->handle);
	if (job->count == 0)
		return true;
	job->due = true;
	db_forget_dues(db);
	stmt = db_stmt(db, SQL_DEST_REPLAN);
	db_bind_int(stmt, 1, now);
	return db_run(db, stmt, &job->error);
}
