/* SPDX-License-Identifier: Apache-2.0 */
/* PostgreSQL as backend: groups. */
#include <string.h>

#include "base/error.h"
#include "store/pg_int.h"

#define HOLDER_BEATS 5 /* missed ones, after which we do not trust our leases */

static Pg *
pg_of(Backend *backend)
{
	return (Pg *)backend; /* its first member */
}

/* ---- ends of groups ---- */

static void
forget_group(Pg *pg, bool committed)
{
	suspect_settle(&pg->suspect, committed);
	blob_ids_forget(&pg->ids, 0);
	g_hash_table_remove_all(pg->ids.gone);
	g_hash_table_remove_all(pg->waits);
	g_array_set_size(pg->claimed, 0);
	pg->committing = pg->committed = pg->returned = false;
}

static void
rollback(Backend *backend)
{
	Pg *pg = pg_of(backend);
	bool synced = pg->aborted;
	bool ok = pg->conn != NULL && pg_recover(pg);
	/* libpq knows whether there is a transaction as of the last synchronisation, which may have
	 * been before BEGIN. */
	if (ok && !synced)
		ok = pg_sync(pg, NULL) || !pg->failed;
	if (ok && PQtransactionStatus(pg->conn) != PQTRANS_IDLE)
		ok = pg_push(pg, PG_ROLLBACK, NULL, NULL, NULL) && pg_sync(pg, NULL);
	if (!ok)
		pg_disconnect(pg);
	forget_group(pg, false);
}

/* Nobody would be served better by another try now: locked, too slow, the disk is full. */
static bool
is_hopeless(const Pg *pg)
{
	static const char *const STATES[] = {"55P03", "57014", "53100"};
	for (size_t i = 0; i < G_N_ELEMENTS(STATES); i++) {
		if (pg_failed_with(pg, STATES[i]))
			return true;
	}
	return false;
}

/* What was committed, and what never will be. */
static GroupEnd
end_group(Pg *pg, const Job *jobs, GError **ret_error)
{
	g_autoptr(GError) error = NULL;
	pg->committing = !pg->reader;
	pg->committed = false; /* a heartbeat may have been */
	bool ok = pg_push(pg, PG_COMMIT, NULL, NULL, &error) && pg_sync(pg, &error);
	GroupEnd end = GROUP_UNDONE;
	if (pg->committed)
		end = GROUP_COMMITTED;
	else if (pg->failed && pg->committing)
		end = pg_settle(pg, jobs, ret_error);
	else if (ok)
		error_set(&error, K_ERROR_STORE, "database: the transaction was undone");
	else if (is_hopeless(pg))
		end = GROUP_LOST;
	pg->committing = false;
	if (end == GROUP_COMMITTED)
		blob_ids_publish(&pg->ids);
	else if (error != NULL && ret_error != NULL && *ret_error == NULL)
		g_propagate_error(ret_error, g_steal_pointer(&error));
	return end;
}

/* ---- all at once ---- */

/* A job that wrote something before it failed, or whose answer is needed to go on. */
static bool
breaks_group(const Pg *pg, const Job *job)
{
	return pg->failed || pg->aborted || job->kind == JOB_INSERT || job->kind == JOB_CLAIM ||
	       job->kind == JOB_COLLECT || job->kind == JOB_REPLAN;
}

static GroupEnd
push_group(Pg *pg, Job *jobs, GError **ret_error)
{
	if (!pg_push(pg, PG_BEGIN, NULL, NULL, ret_error) || !pg_push_guard(pg, ret_error))
		return GROUP_UNDONE;
	for (Job *job = jobs; job != NULL; job = job->next) {
		if (!pg_run_job(pg, job) && breaks_group(pg, job))
			return is_hopeless(pg) ? GROUP_LOST : GROUP_UNDONE;
	}
	if (!pg_push_waits(pg, ret_error))
		return is_hopeless(pg) ? GROUP_LOST : GROUP_UNDONE;
	return end_group(pg, jobs, ret_error);
}

static GroupEnd
try_all(Pg *pg, Job *jobs, GError **ret_error)
{
	pg->sqlstate[0] = '\0';
	if (!pg_ready(pg, ret_error))
		return GROUP_LOST;
	Deadline since = clock_mono();
	GroupEnd end = push_group(pg, jobs, ret_error);
	if (end == GROUP_COMMITTED) {
		pg_alive(pg, since);
		forget_group(pg, true);
	} else {
		rollback(&pg->backend);
	}
	return end;
}

static GroupEnd
run_all(Backend *backend, Job *jobs, GError **ret_error)
{
	Pg *pg = pg_of(backend);
	g_autoptr(GError) error = NULL;
	GroupEnd end;
	unsigned losses;
	pg->give_up = jobs->since + pg->wait;
	do { /* a lost connection says nothing about the jobs */
		for (Job *job = jobs; job != NULL; job = job->next)
			job_clear_answer(job);
		g_clear_error(&error);
		losses = pg->losses;
		end = try_all(pg, jobs, &error);
	} while (end == GROUP_UNDONE && pg->losses != losses && !clock_passed(pg->give_up));
	for (const Job *job = jobs; end == GROUP_LOST && error == NULL && job != NULL;
	     job = job->next)
		error = job->error != NULL ? g_error_copy(job->error) : NULL;
	if (error != NULL)
		g_propagate_error(ret_error, g_steal_pointer(&error));
	return end;
}

/* ---- one after the other ---- */

static bool
begin(Backend *backend, const Job *jobs, GError **ret_error)
{
	Pg *pg = pg_of(backend);
	pg->group_jobs = jobs;
	pg->give_up = jobs->since + pg->wait;
	return pg_begin(pg, ret_error);
}

static bool
try_member(Pg *pg, Job *job, GError **ret_error)
{
	return pg_push(pg, PG_SAVE, NULL, NULL, ret_error) && pg_run_job(pg, job) &&
	       pg_drain(pg, ret_error) && job->error == NULL;
}

/* Undoes what the job did. */
static bool
undo_member(Pg *pg, guint blobs)
{
	blob_ids_forget(&pg->ids, blobs);
	suspect_settle(&pg->suspect, false);
	return pg_recover(pg) && pg_push(pg, PG_ROLLBACK_TO, NULL, NULL, NULL) &&
	       pg_push(pg, PG_RELEASE, NULL, NULL, NULL) && pg_drain(pg, NULL);
}

static GroupEnd
run_member(Backend *backend, Job *job)
{
	Pg *pg = pg_of(backend);
	guint blobs = blob_ids_count(&pg->ids);
	for (int i = 0;; i++) {
		g_autoptr(GError) error = NULL;
		guint gone = g_hash_table_size(pg->ids.gone);
		if (try_member(pg, job, &error) && pg_push(pg, PG_RELEASE, NULL, NULL, &error))
			return GROUP_GOES_ON;
		if (job->error == NULL)
			job->error = g_steal_pointer(&error);
		if (is_hopeless(pg))
			return GROUP_LOST;
		/* A deadlock, or a database that does not wait but refuses: all again. */
		if (pg_failed_with(pg, "40") || !undo_member(pg, blobs))
			return GROUP_UNDONE;
		if (i > 0 || g_hash_table_size(pg->ids.gone) == gone)
			return GROUP_GOES_ON;
		job_clear_answer(job); /* once more, with the content of what is gone */
	}
}

static GroupEnd
commit(Backend *backend, GError **ret_error)
{
	Pg *pg = pg_of(backend);
	if (!pg_push_waits(pg, ret_error))
		return is_hopeless(pg) ? GROUP_LOST : GROUP_UNDONE;
	/* Here all jobs that have no error have their answers. */
	GroupEnd end = end_group(pg, pg->group_jobs, ret_error);
	if (end == GROUP_COMMITTED)
		forget_group(pg, true);
	return end;
}

/* ---- between groups ---- */

static void
maintain(Backend *backend, bool idle, bool collected)
{
	(void)backend;
	(void)idle;
	(void)collected; /* the server's own vacuum does it */
}

static Deadline
tick(Backend *backend, bool *ret_due)
{
	Pg *pg = pg_of(backend);
	if (pg->hint == NULL)
		pg->hint = pg_hint_start(pg->url, backend->store);
	Deadline next = pg->conn == NULL || pg->failed ? pg->retry_at : pg->beat_at;
	if (next != 0 && !clock_passed(next))
		return next;
	pg->give_up = clock_mono();
	pg->beat_at = clock_after(pg->refresh);
	if (!pg_beat(pg, NULL) && pg->retry_at == 0)
		pg->retry_at = clock_after(USEC_PER_SEC);
	*ret_due = pg->reclaimed;
	pg->reclaimed = false;
	return pg->conn == NULL || pg->failed ? pg->retry_at : pg->beat_at;
}

static Deadline
reader_tick(Backend *backend, bool *ret_due)
{
	(void)backend;
	(void)ret_due;
	return 0;
}

static void
tell_others(Backend *backend)
{
	pg_hint_tell(pg_of(backend)->hint);
}

static void
sign_off(Backend *backend, bool orderly)
{
	Pg *pg = pg_of(backend);
	pg_hint_stop(g_steal_pointer(&pg->hint));
	if (orderly)
		pg_sign_off(pg);
}

static bool
is_leaseholder(Backend *backend)
{
	Pg *pg = pg_of(backend);
	Deadline since = atomic_load(&pg->holder);
	return since != 0 && clock_mono() - since < HOLDER_BEATS * pg->refresh;
}

/* ---- life ---- */

static void
close_backend(Backend *backend)
{
	pg_free(pg_of(backend));
}

static Backend *open_reader(Backend *backend, const StoreConfig *config, GError **ret_error);

static const BackendOps OPS = {
	.close = close_backend,
	.open_reader = open_reader,
	.run_all = run_all,
	.begin = begin,
	.run_member = run_member,
	.commit = commit,
	.rollback = rollback,
	.maintain = maintain,
	.tick = tick,
	.tell_others = tell_others,
	.sign_off = sign_off,
	.is_leaseholder = is_leaseholder,
	.claims_end_groups = true,
};

static const BackendOps READER_OPS = {
	.close = close_backend,
	.begin = begin,
	.run_member = run_member,
	.commit = commit,
	.rollback = rollback,
	.maintain = maintain,
	.tick = reader_tick,
};

/* It connects when it is asked for the first time. */
static Backend *
open_reader(Backend *backend, const StoreConfig *config, GError **ret_error)
{
	(void)backend;
	(void)ret_error;
	Pg *pg = pg_new_reader(config);
	pg->backend.ops = &READER_OPS;
	return &pg->backend;
}

static bool
check_url(const char *url, GError **ret_error)
{
	char *message = NULL;
	PQconninfoOption *options = PQconninfoParse(url, &message);
	bool ok = options != NULL;
	if (!ok)
		error_set(ret_error, K_ERROR_CONFIG, "storage: %.*s",
			  message != NULL ? (int)strcspn(message, "\n") : 0,
			  message != NULL ? message : "");
	PQconninfoFree(options);
	PQfreemem(message);
	return ok;
}

static bool
start(Pg *pg, const StoreConfig *config, GError **ret_error)
{
	if (!check_url(pg->url, ret_error))
		return false;
	PGconn *conn = pg_connect_raw(pg->url, clock_after(pg->wait), ret_error);
	if (conn == NULL)
		return false;
	pg_check_settings(conn, config->warnings);
	int64_t version;
	bool ok = pg_set_up_schema(conn, &version, ret_error);
	PQfinish(conn);
	pg->give_up = clock_after(pg->wait);
	pg->beat_at = clock_after(pg->refresh);
	return ok && pg_beat(pg, ret_error);
}

Backend *
pg_open(const StoreConfig *config, GError **ret_error)
{
	if (!pg_lib_load(ret_error))
		return NULL;
	Pg *pg = pg_new(config);
	pg->backend.ops = &OPS;
	if (start(pg, config, ret_error))
		return &pg->backend;
	pg_free(pg);
	return NULL;
}
