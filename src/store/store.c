/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store.h"

#include <pthread.h>
#include <string.h>

#include "base/error.h"
#include "loop/thread.h"
#include "store/store_int.h"

/* When a group fails as a whole its jobs are tried one by one; when so many in a row fail alone it
 * is not about one of them. */
#define LONE_FAILURES_MAX 16

struct Store {
	Db *db; /* the thread's */
	pthread_t thread;
	bool started;
	unsigned queue_max;

	pthread_mutex_t mutex; /* what follows */
	pthread_cond_t filled;
	Job *head, *tail;
	bool waiting; /* the thread sleeps */
	bool stop;
	StoreStats stats;
};

/* ---- rows ---- */

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

/* ---- jobs ---- */

static void
job_clear_answer(Job *job)
{
	g_clear_error(&job->error);
	g_clear_pointer(&job->rows, g_ptr_array_unref);
	g_clear_pointer(&job->damaged, g_ptr_array_unref);
	job->next_due = 0;
}

static void
job_free(Job *job)
{
	job_clear_answer(job);
	store_row_free(job->row);
	g_free(job->id);
	g_free(job->text);
	g_free(job);
}

/* On the worker that asked: the answers of one group. */
static void
answer_jobs(void *arg)
{
	Job *next = arg;
	while (next != NULL) {
		Job *job = next;
		next = job->next;
		const StoreResult result = {
			.error = job->error,
			.rows = job->rows,
			.next_due = job->next_due,
			.damaged = job->damaged,
		};
		if (job->fn != NULL)
			job->fn(job->arg, &result);
		job_free(job);
	}
}

/* ---- the thread: one group of jobs, one commit ---- */

static void
fail_job(Job *job, const GError *error)
{
	if (job->error == NULL)
		job->error = error != NULL
				     ? g_error_copy(error)
				     : g_error_new_literal(K_ERROR, K_ERROR_STORE,
							   "database: the transaction was lost");
	g_clear_pointer(&job->rows, g_ptr_array_unref);
	g_clear_pointer(&job->damaged, g_ptr_array_unref);
}

/* Undoes what the job did; the others of its group stand.  False: the database threw the whole
 * transaction away. */
static bool
undo_job(Db *db, Job *job, guint blobs)
{
	db_forget_blobs(db, blobs);
	fail_job(job, NULL);
	return db_in_transaction(db) && db_run(db, db_stmt(db, SQL_ROLLBACK_TO), NULL) &&
	       db_run(db, db_stmt(db, SQL_RELEASE), NULL);
}

static bool
run_member(Db *db, Job *job)
{
	guint blobs = db->new_blobs->len;
	if (!db_run(db, db_stmt(db, SQL_SAVE), &job->error))
		return false;
	if (!db_run_job(db, job))
		return undo_job(db, job, blobs);
	return db_run(db, db_stmt(db, SQL_RELEASE), &job->error);
}

/* All jobs from `jobs` on in one transaction; false when not even what succeeded could be
 * committed, with the reason. */
static bool
run_together(Db *db, Job *jobs, GError **ret_error)
{
	bool ok = true;
	for (Job *job = jobs; ok && job != NULL; job = job->next)
		ok = run_member(db, job);
	if (ok && db_commit(db, ret_error)) {
		db_publish_blobs(db);
		return true;
	}
	db_rollback(db);
	db_forget_blobs(db, 0);
	return false;
}

/* Returns whether it was committed. */
static bool
run_alone(Db *db, Job *job)
{
	g_autoptr(GError) error = NULL;
	job_clear_answer(job);
	Job *next = job->next;
	job->next = NULL;
	bool ok = db_begin(db, &error) && run_together(db, job, &error);
	job->next = next;
	if (!ok)
		fail_job(job, error);
	return ok;
}

/* Returns how many transactions were committed. */
static unsigned
run_group(Db *db, Job *jobs)
{
	g_autoptr(GError) error = NULL;
	if (!db_begin(db, &error)) {
		for (Job *job = jobs; job != NULL; job = job->next)
			fail_job(job, error);
		return 0;
	}
	if (run_together(db, jobs, &error))
		return 1;
	if (jobs->next == NULL) {
		fail_job(jobs, error);
		return 0;
	}
	unsigned commits = 0, failures = 0;
	const GError *last = NULL;
	for (Job *job = jobs; job != NULL; job = job->next) {
		if (failures >= LONE_FAILURES_MAX) {
			job_clear_answer(job);
			fail_job(job, last);
		} else if (run_alone(db, job)) {
			commits++;
			failures = 0;
		} else {
			failures++;
			last = job->error;
		}
	}
	return commits;
}

static void
count_group(StoreStats *stats, const Job *jobs, unsigned commits)
{
	stats->commits += commits;
	for (const Job *job = jobs; job != NULL; job = job->next) {
		stats->jobs++;
		stats->failures += job->error != NULL ? 1 : 0;
		stats->damaged += job->damaged != NULL ? job->damaged->len : 0;
	}
}

/* Takes the jobs of the first one's asker out of the list, in their order. */
static Job *
take_of_one_asker(Job **jobs)
{
	Job *taken = *jobs;
	Worker *asker = taken->asker;
	Job **last = &taken->next, **rest = jobs;
	for (Job *job = taken->next, *next; job != NULL; job = next) {
		next = job->next;
		if (job->asker == asker) {
			*last = job;
			last = &job->next;
		} else {
			*rest = job;
			rest = &job->next;
		}
	}
	*last = NULL;
	*rest = NULL;
	return taken;
}

/* One message to each worker; it may free its jobs at once. */
static void
post_answers(Job *jobs)
{
	while (jobs != NULL) {
		Job *taken = take_of_one_asker(&jobs);
		worker_post(taken->asker, answer_jobs, taken);
	}
}

static bool
has_collect(const Job *jobs)
{
	for (; jobs != NULL; jobs = jobs->next) {
		if (jobs->kind == JOB_COLLECT)
			return true;
	}
	return false;
}

/* Waits for jobs and takes them all; NULL when it is time to end. */
static Job *
take_jobs(Store *store)
{
	pthread_mutex_lock(&store->mutex);
	while (store->head == NULL && !store->stop) {
		store->waiting = true;
		pthread_cond_wait(&store->filled, &store->mutex);
		store->waiting = false;
	}
	Job *jobs = store->head;
	store->head = store->tail = NULL;
	store->stats.queued = 0;
	pthread_mutex_unlock(&store->mutex);
	return jobs;
}

static void *
store_main(void *arg)
{
	Store *store = arg;
	Job *jobs;
	while ((jobs = take_jobs(store)) != NULL) {
		unsigned commits = run_group(store->db, jobs);
		bool collected = has_collect(jobs);
		pthread_mutex_lock(&store->mutex);
		count_group(&store->stats, jobs, commits);
		bool idle = store->head == NULL;
		pthread_mutex_unlock(&store->mutex);
		post_answers(jobs);
		db_maintain(store->db, idle, collected);
	}
	return NULL;
}

/* ---- life ---- */

Store *
store_open(const StoreConfig *config, GError **ret_error)
{
	Db *db = db_open(config, ret_error);
	if (db == NULL)
		return NULL;
	Store *store = g_new0(Store, 1);
	store->db = db;
	store->queue_max = config->queue_max > 0 ? config->queue_max : STORE_QUEUE_MAX;
	pthread_mutex_init(&store->mutex, NULL);
	pthread_cond_init(&store->filled, NULL);
	int rc = thread_start(&store->thread, "store", store_main, store);
	if (rc != 0) {
		error_set_errno(ret_error, K_ERROR_IO, rc, "cannot start the store's thread");
		store_close(store);
		return NULL;
	}
	store->started = true;
	return store;
}

void
store_stop(Store *store)
{
	if (store == NULL || !store->started)
		return;
	pthread_mutex_lock(&store->mutex);
	store->stop = true;
	pthread_cond_signal(&store->filled);
	pthread_mutex_unlock(&store->mutex);
	k_assert(pthread_join(store->thread, NULL) == 0);
	store->started = false;
}

void
store_close(Store *store)
{
	if (store == NULL)
		return;
	store_stop(store);
	db_close(store->db);
	pthread_cond_destroy(&store->filled);
	pthread_mutex_destroy(&store->mutex);
	g_free(store);
}

void
store_stats(Store *store, StoreStats *ret_stats)
{
	pthread_mutex_lock(&store->mutex);
	*ret_stats = store->stats;
	pthread_mutex_unlock(&store->mutex);
}

/* ---- asking ---- */

static Job *
job_new(JobKind kind, const char *id, StoreFn *fn, void *arg)
{
	Job *job = g_new0(Job, 1);
	job->kind = kind;
	job->id = g_strdup(id);
	job->asker = worker_current();
	job->fn = fn;
	job->arg = arg;
	k_assert(job->asker != NULL);
	return job;
}

static void
submit(Store *store, Job *job)
{
	pthread_mutex_lock(&store->mutex);
	bool stopped = store->stop;
	bool full = stopped || store->stats.queued >= store->queue_max;
	bool wake = false;
	if (full) {
		store->stats.jobs++;
		store->stats.failures++;
	} else {
		if (store->tail != NULL)
			store->tail->next = job;
		else
			store->head = job;
		store->tail = job;
		store->stats.queued++;
		wake = store->waiting;
	}
	if (wake)
		pthread_cond_signal(&store->filled);
	pthread_mutex_unlock(&store->mutex);
	if (full) {
		if (stopped)
			error_set(&job->error, K_ERROR_STORE, "the store is closed");
		else
			error_set(&job->error, K_ERROR_FULL, "the store has %u jobs waiting",
				  store->queue_max);
		worker_post(job->asker, answer_jobs, job);
	}
}

void
store_insert(Store *store, StoreRow *row, StoreFn *fn, void *arg)
{
	k_assert_for(row->id != NULL && row->json != NULL, row->id);
	for (guint i = 0; i < row->blobs->len; i++) {
		const StoreBlob *part = g_ptr_array_index(row->blobs, i);
		k_assert_for(part->blob != NULL && blob_is_final(part->blob), row->id);
	}
	Job *job = job_new(JOB_INSERT, NULL, fn, arg);
	job->row = row;
	submit(store, job);
}

void
store_update(Store *store, StoreRow *row, StoreFn *fn, void *arg)
{
	k_assert(row->id != NULL);
	Job *job = job_new(JOB_UPDATE, NULL, fn, arg);
	job->row = row;
	submit(store, job);
}

void
store_claim(Store *store, int64_t now, unsigned limit, StoreFn *fn, void *arg)
{
	Job *job = job_new(JOB_CLAIM, NULL, fn, arg);
	job->time = now;
	job->limit = limit;
	submit(store, job);
}

void
store_load(Store *store, const char *id, bool with_blobs, StoreFn *fn, void *arg)
{
	Job *job = job_new(JOB_LOAD, id, fn, arg);
	job->with_blobs = with_blobs;
	submit(store, job);
}

void
store_reuse(Store *store, const char *id, const char *name, StoreFn *fn, void *arg)
{
	Job *job = job_new(JOB_REUSE, id, fn, arg);
	job->text = g_strdup(name);
	submit(store, job);
}

void
store_cancel(Store *store, const char *id, const char *reason, StoreFn *fn, void *arg)
{
	Job *job = job_new(JOB_CANCEL, id, fn, arg);
	job->text = g_strdup(reason);
	submit(store, job);
}

void
store_collect(Store *store, int64_t before, unsigned limit, StoreFn *fn, void *arg)
{
	Job *job = job_new(JOB_COLLECT, NULL, fn, arg);
	job->time = before;
	job->limit = limit;
	submit(store, job);
}
