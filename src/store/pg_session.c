/* SPDX-License-Identifier: Apache-2.0 */
/* Our session among those of other processes: connecting again, what a lost connection left,
 * heartbeats, the leases of the dead.  All times are the server's. */
#include <poll.h>
#include <string.h>

#include "base/error.h"
#include "store/pg_int.h"

#define BACKOFF_MIN  (50 * USEC_PER_MS)
#define BACKOFF_MAX  (1 * USEC_PER_SEC)
#define ATTEMPT_WAIT (2 * USEC_PER_SEC) /* for one connection */

void
pg_alive(Pg *pg, Deadline since)
{
	atomic_store(&pg->holder, since);
}

/* ---- what a lost connection left ---- */

/* The group was committed after its jobs were told that it failed: nobody waits for what it
 * inserted, nobody works on what it claimed.  The ids are free for those who try again. */
static bool
disown(Pg *pg, const PgOrphans *orphans, GError **ret_error)
{
	g_auto(PgParams) inserted = {0}, claimed = {0}, keys = {0};
	pg_texts(&keys, orphans->inserted);
	pg_texts(&inserted, orphans->inserted);
	pg_int(&inserted, pg->session);
	pg_int(&inserted, clock_wall_sec());
	pg_ints(&claimed, orphans->claimed);
	pg_int(&claimed, pg->session);
	return pg_push(pg, PG_TX_DISOWN, &inserted, NULL, ret_error) &&
	       pg_push(pg, PG_IDEM_DISOWN, &keys, NULL, ret_error) &&
	       pg_push(pg, PG_TX_UNCLAIM_DEST, &claimed, NULL, ret_error) &&
	       pg_push(pg, PG_TX_UNCLAIM, &claimed, NULL, ret_error) && pg_sync(pg, ret_error);
}

/* ---- joining ---- */

static bool
new_session(Pg *pg, GError **ret_error)
{
	g_auto(PgParams) params = {0};
	pg_text(&params, pg->uri);
	pg_int(&params, pg->refresh);
	pg_int(&params, PG_SCHEMA_VERSION);
	Deadline since = clock_mono();
	g_autoptr(PGresult) result = pg_query(pg, PG_SESSION_NEW, &params, false, ret_error);
	if (result == NULL || !pg_sync(pg, ret_error))
		return false;
	if (PQntuples(result) != 1)
		return error_set(ret_error, K_ERROR_STORE,
				 "database: its schema is not version %d any more",
				 PG_SCHEMA_VERSION);
	pg->session = pg_get_int(result, 0, 0);
	pg->epoch = pg->group_no = 0;
	g_clear_pointer(&pg->suspect.id, g_free);
	pg_alive(pg, since);
	return true;
}

/* From here on nothing that the former connection still has under way can be committed: either it
 * is counted in the row by now (this waits for its lock), or its GUARD fails. */
static bool
fence(Pg *pg, GError **ret_error)
{
	g_auto(PgParams) params = {0};
	pg_int(&params, pg->session);
	Deadline since = clock_mono();
	g_autoptr(PGresult) result = pg_query(pg, PG_SESSION_FENCE, &params, false, ret_error);
	if (result == NULL || !pg_sync(pg, ret_error))
		return false;
	bool found = PQntuples(result) == 1;
	int64_t group_no = found ? pg_get_int(result, 0, 1) : 0;
	if (pg->committing) {
		pg->committed = group_no == pg->group_no;
		pg->committing = false;
	}
	if (pg->orphans != NULL && group_no == pg->orphans->group_no &&
	    !disown(pg, pg->orphans, ret_error))
		return false;
	g_clear_pointer(&pg->orphans, pg_orphans_free);
	if (!found || !pg_get_bool(result, 0, 2)) {
		pg->session = 0; /* taken for dead: our leases are others' */
		return true;
	}
	pg->epoch = pg_get_int(result, 0, 0);
	pg->group_no = group_no;
	pg_alive(pg, since);
	return true;
}

static bool
join(Pg *pg, GError **ret_error)
{
	if (pg->reader)
		return true;
	if (pg->session != 0 && !fence(pg, ret_error))
		return false;
	return pg->session != 0 || new_session(pg, ret_error);
}

static void
pause_until(Deadline deadline)
{
	(void)poll(NULL, 0, (int)(clock_left(deadline) / USEC_PER_MS) + 1);
}

static bool
attempt(Pg *pg, GError **ret_error)
{
	pg_disconnect(pg);
	Deadline end = clock_after(MAX(MIN(ATTEMPT_WAIT, clock_left(pg->give_up)), BACKOFF_MIN));
	if (pg_connect(pg, end, ret_error)) {
		if (join(pg, ret_error)) {
			pg->backoff = 0;
			pg->retry_at = 0;
			return true;
		}
		pg_disconnect(pg);
	}
	pg->backoff = CLAMP(2 * pg->backoff, BACKOFF_MIN, BACKOFF_MAX);
	pg->retry_at = clock_after(pg->backoff);
	return false;
}

bool
pg_ready(Pg *pg, GError **ret_error)
{
	if (pg->conn != NULL && !pg->failed)
		return true;
	for (;;) {
		g_autoptr(GError) error = NULL;
		if (!clock_passed(pg->retry_at) && pg->retry_at != 0)
			pause_until(MIN(pg->retry_at, pg->give_up));
		bool may = pg->retry_at == 0 || clock_passed(pg->retry_at);
		if (may && attempt(pg, &error))
			return true;
		if (!clock_passed(pg->give_up))
			continue;
		if (error != NULL)
			g_propagate_error(ret_error, g_steal_pointer(&error));
		else
			error_set(ret_error, K_ERROR_STORE, "database: it is away");
		return false;
	}
}

/* ---- the end of a group that was not answered ---- */

static void
make_orphans(Pg *pg, const Job *jobs)
{
	k_assert(pg->orphans == NULL);
	PgOrphans *orphans = g_new0(PgOrphans, 1);
	orphans->group_no = pg->group_no;
	orphans->inserted = g_ptr_array_new_with_free_func(g_free);
	orphans->claimed = g_array_new(FALSE, FALSE, sizeof(int64_t));
	g_array_append_vals(orphans->claimed, pg->claimed->data, pg->claimed->len);
	for (const Job *job = jobs; job != NULL; job = job->next) {
		if (job->kind == JOB_INSERT && job->error == NULL)
			g_ptr_array_add(orphans->inserted, g_strdup(job->row->id));
	}
	pg->orphans = orphans;
}

GroupEnd
pg_settle(Pg *pg, const Job *jobs, GError **ret_error)
{
	k_assert(pg->committing);
	pg->give_up = MAX(pg->give_up, clock_after(pg->wait));
	if (pg_ready(pg, ret_error))
		return pg->committed ? GROUP_COMMITTED : GROUP_UNDONE;
	pg->committing = false;
	make_orphans(pg, jobs);
	return GROUP_LOST;
}

/* ---- heartbeats ---- */

bool
pg_push_guard(Pg *pg, GError **ret_error)
{
	g_auto(PgParams) params = {0};
	pg_int(&params, pg->session);
	pg_int(&params, pg->epoch);
	pg_int(&params, ++pg->group_no);
	return pg_push(pg, PG_GUARD, &params, NULL, ret_error);
}

/* Ends the sessions, frees what they leased. */
static bool
end_sessions(Pg *pg, const GArray *ids, int uncount, GError **ret_error)
{
	g_auto(PgParams) params = {0}, dest = {0}, rows = {0};
	pg_ints(&params, ids);
	pg_ints(&dest, ids);
	pg_ints(&rows, ids);
	pg_int(&rows, uncount);
	return pg_push(pg, PG_SESSION_END, &params, NULL, ret_error) &&
	       pg_push(pg, PG_FREE_DEST, &dest, NULL, ret_error) &&
	       pg_push(pg, PG_FREE, &rows, NULL, ret_error);
}

static bool
reclaim(Pg *pg, GError **ret_error)
{
	g_auto(PgParams) params = {0};
	pg_int(&params, pg->session);
	g_autoptr(PGresult) dead = pg_query(pg, PG_SESSION_DEAD, &params, false, ret_error);
	if (dead == NULL)
		return false;
	g_autoptr(GArray) ids = g_array_new(FALSE, FALSE, sizeof(int64_t));
	for (int i = 0; i < PQntuples(dead); i++) {
		int64_t id = pg_get_int(dead, i, 0);
		g_array_append_val(ids, id);
	}
	if (ids->len == 0)
		return true;
	pg->reclaimed = true;
	return end_sessions(pg, ids, 0, ret_error) &&
	       pg_push(pg, PG_SESSION_OLD, NULL, NULL, ret_error);
}

bool
pg_begin(Pg *pg, GError **ret_error)
{
	for (int i = 0;; i++) {
		g_autoptr(GError) error = NULL;
		if (!pg_ready(pg, ret_error))
			return false;
		pg->sqlstate[0] = '\0';
		Deadline since = clock_mono();
		if (pg_push(pg, PG_BEGIN, NULL, NULL, &error) &&
		    (pg->reader || pg_push_guard(pg, &error)) && pg_drain(pg, &error)) {
			if (!pg->reader)
				pg_alive(pg, since);
			return true;
		}
		/* A new connection looks after the session, too. */
		pg_disconnect(pg);
		if (i > 0 && clock_passed(pg->give_up)) {
			g_propagate_error(ret_error, g_steal_pointer(&error));
			return false;
		}
		if (i > 0)
			pause_until(clock_after(BACKOFF_MIN));
	}
}

bool
pg_beat(Pg *pg, GError **ret_error)
{
	if (!pg_begin(pg, ret_error))
		return false;
	if (reclaim(pg, ret_error) && pg_push(pg, PG_COMMIT, NULL, NULL, ret_error) &&
	    pg_sync(pg, ret_error))
		return true;
	pg_disconnect(pg);
	return false;
}

void
pg_sign_off(Pg *pg)
{
	g_autoptr(GArray) own = g_array_new(FALSE, FALSE, sizeof(int64_t));
	g_array_append_val(own, pg->session);
	pg->give_up = clock_mono();
	if (pg->conn == NULL || pg->failed || !pg_begin(pg, NULL))
		return; /* others will find it dead */
	if (!end_sessions(pg, own, 1, NULL) || !pg_push(pg, PG_COMMIT, NULL, NULL, NULL) ||
	    !pg_sync(pg, NULL))
		pg->failed = true; /* the same */
	pg_disconnect(pg);
	pg->session = 0;
}
