/* SPDX-License-Identifier: Apache-2.0 */
/* Queues, groups and answers; what is done in the database is the backend's. */
#include "store/store.h"

#include <pthread.h>
#include <string.h>

#include "base/error.h"
#include "base/metrics.h"
#include "loop/thread.h"
#include "store/store_int.h"

/* When a group fails as a whole its jobs are tried one by one; when so many in a row fail alone it
 * is not about one of them. */
#define LONE_FAILURES_MAX 16

#define HINT_INTERVAL (250 * USEC_PER_MS) /* between two hints */

typedef enum LaneKind {
	LANE_MAIL,      /* all jobs that write, and what must be in order with them */
	LANE_OPERATORS, /* long questions */
	LANES
} LaneKind;

typedef struct Lane {
	Store *store;
	Backend *db; /* the thread's */
	pthread_t thread;
	bool started;
	pthread_cond_t filled;
	/* by the store's mutex: */
	Job *head, *tail;
	unsigned queued;
	bool waiting; /* the thread sleeps */
} Lane;

struct Store {
	Lane lanes[LANES];
	unsigned queue_max;

	pthread_mutex_t mutex; /* what follows, and what lanes say */
	bool stop;
	bool abandoned; /* tests: ends without a word */
	StoreStats stats;
	Worker *hint_worker;
	WorkerFn *hint_fn;
	void *hint_arg;
	Deadline hint_at;   /* when the next one is posted; 0: none is due */
	Deadline hint_last; /* when the last one was */
};

/* ---- jobs ---- */

static void
job_free(Job *job)
{
	job_clear_answer(job);
	store_row_free(job->row);
	g_clear_pointer(&job->busy, g_hash_table_unref);
	g_free((char *)job->filter.mail_from);
	g_free((char *)job->filter.rcpt);
	g_free((char *)job->filter.destination);
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
			.count = job->count,
			.damaged = job->damaged,
		};
		if (job->fn != NULL)
			job->fn(job->arg, &result);
		if (job->count_fn != NULL)
			job->count_fn(job->arg, job->error, job->counts);
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
	job_keep_error(job);
}

/* What was done in a transaction that did not come to its end never happened, whatever the single
 * jobs answered. */
static void
fail_all(Job *jobs, const GError *error)
{
	for (Job *job = jobs; job != NULL; job = job->next)
		fail_job(job, error);
}

/* All jobs from `jobs` on in one transaction. */
static GroupEnd
run_together(Backend *db, Job *jobs, GError **ret_error)
{
	if (!db->ops->begin(db, jobs, ret_error))
		return GROUP_LOST;
	GroupEnd end = GROUP_GOES_ON;
	for (Job *job = jobs; end == GROUP_GOES_ON && job != NULL; job = job->next) {
		end = db->ops->run_member(db, job);
		if (job->error != NULL)
			fail_job(job, NULL);
	}
	if (end == GROUP_GOES_ON)
		end = db->ops->commit(db, ret_error);
	if (end != GROUP_COMMITTED)
		db->ops->rollback(db);
	return end;
}

/* Returns whether it was committed. */
static bool
run_alone(Backend *db, Job *job)
{
	g_autoptr(GError) error = NULL;
	job_clear_answer(job);
	Job *next = job->next;
	job->next = NULL;
	GroupEnd end = run_together(db, job, &error);
	job->next = next;
	if (end != GROUP_COMMITTED)
		fail_job(job, error);
	return end == GROUP_COMMITTED;
}

static unsigned
run_each_alone(Backend *db, Job *jobs)
{
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

/* Returns how many transactions were committed. */
static unsigned
run_group(Backend *db, Job *jobs)
{
	g_autoptr(GError) error = NULL;
	GroupEnd end = GROUP_UNDONE;
	if (db->ops->run_all != NULL)
		end = db->ops->run_all(db, jobs, &error);
	if (end == GROUP_UNDONE) {
		for (Job *job = jobs; job != NULL; job = job->next)
			job_clear_answer(job);
		g_clear_error(&error);
		end = run_together(db, jobs, &error);
	}
	if (end == GROUP_COMMITTED)
		return 1;
	if (end == GROUP_UNDONE && jobs->next != NULL)
		return run_each_alone(db, jobs);
	fail_all(jobs, error);
	return 0;
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

static bool
made_due(const Job *jobs)
{
	for (; jobs != NULL; jobs = jobs->next) {
		if (jobs->due && jobs->error == NULL)
			return true;
	}
	return false;
}

/* ---- hints ---- */

/* With the mutex: plans a hint, not too soon after the last one; only the mail lane posts it. */
static void
plan_hint(Store *store)
{
	if (store->hint_fn == NULL || store->hint_at != 0)
		return;
	store->hint_at = MAX(clock_mono(), store->hint_last + HINT_INTERVAL);
	Lane *lane = &store->lanes[LANE_MAIL];
	if (lane->waiting)
		pthread_cond_signal(&lane->filled);
}

void
store_hint(Store *store)
{
	pthread_mutex_lock(&store->mutex);
	plan_hint(store);
	pthread_mutex_unlock(&store->mutex);
}

/* With the mutex. */
static void
post_hint(Store *store)
{
	if (!clock_passed(store->hint_at))
		return;
	store->hint_at = 0;
	store->hint_last = clock_mono();
	worker_post(store->hint_worker, store->hint_fn, store->hint_arg);
}

void
store_on_hint(Store *store, Worker *worker, WorkerFn *fn, void *arg)
{
	pthread_mutex_lock(&store->mutex);
	store->hint_worker = worker;
	store->hint_fn = fn;
	store->hint_arg = arg;
	if (fn == NULL)
		store->hint_at = 0;
	pthread_mutex_unlock(&store->mutex);
}

/* ---- the thread: its turns ---- */

static void
wait_until(Lane *lane, Deadline deadline)
{
	pthread_mutex_t *mutex = &lane->store->mutex;
	lane->waiting = true;
	if (deadline == 0) {
		pthread_cond_wait(&lane->filled, mutex);
	} else {
		const struct timespec at = {.tv_sec = deadline / USEC_PER_SEC,
					    .tv_nsec = deadline % USEC_PER_SEC * 1000};
		(void)pthread_cond_timedwait(&lane->filled, mutex, &at);
	}
	lane->waiting = false;
}

static Deadline
earlier(Deadline a, Deadline b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

/* Waits for jobs and takes them all; NULL when it is time for something else.  False: to end. */
static bool
take_jobs(Lane *lane, Deadline tick_at, Job **ret_jobs)
{
	Store *store = lane->store;
	bool mail = lane == &store->lanes[LANE_MAIL];
	pthread_mutex_lock(&store->mutex);
	for (;;) {
		if (mail)
			post_hint(store);
		if (lane->head != NULL || store->stop || clock_passed(tick_at))
			break;
		wait_until(lane, earlier(tick_at, mail ? store->hint_at : 0));
	}
	*ret_jobs = lane->head;
	bool ended = lane->head == NULL && store->stop;
	lane->head = lane->tail = NULL;
	store->stats.queued -= lane->queued;
	lane->queued = 0;
	pthread_mutex_unlock(&store->mutex);
	return !ended;
}

/* Cuts what has a transaction of its own off; the rest stays. */
static Job *
next_group(const Backend *db, Job **rest)
{
	Job *jobs = *rest, *last = jobs;
	while (last->next != NULL && !(db->ops->claims_end_groups && last->kind == JOB_CLAIM))
		last = last->next;
	*rest = last->next;
	last->next = NULL;
	return jobs;
}

/* What mail waits for. */
static void
observe_group(const Lane *lane, const Job *jobs, Deadline since)
{
	int64_t count = 0;
	if (lane != &lane->store->lanes[LANE_MAIL])
		return;
	for (; jobs != NULL; jobs = jobs->next)
		count++;
	metric_observe(HISTOGRAM_STORE_COMMIT, clock_mono() - since);
	metric_observe(HISTOGRAM_STORE_BATCH, count);
}

static void
run_jobs(Lane *lane, Job *jobs)
{
	Store *store = lane->store;
	Backend *db = lane->db;
	Deadline since = clock_mono();
	unsigned commits = run_group(db, jobs);
	observe_group(lane, jobs, since);
	bool collected = has_collect(jobs), due = made_due(jobs);
	pthread_mutex_lock(&store->mutex);
	count_group(&store->stats, jobs, commits);
	if (due)
		plan_hint(store);
	bool idle = lane->head == NULL;
	pthread_mutex_unlock(&store->mutex);
	post_answers(jobs);
	if (due && db->ops->tell_others != NULL)
		db->ops->tell_others(db);
	db->ops->maintain(db, idle, collected);
}

static void *
lane_main(void *arg)
{
	Lane *lane = arg;
	Backend *db = lane->db;
	Job *jobs;
	Deadline tick_at = 0;
	bool due = false;
	do {
		if (due)
			store_hint(lane->store);
		due = false;
		tick_at = db->ops->tick(db, &due);
		if (!take_jobs(lane, tick_at, &jobs))
			break;
		while (jobs != NULL)
			run_jobs(lane, next_group(db, &jobs));
	} while (true);
	pthread_mutex_lock(&lane->store->mutex);
	bool abandoned = lane->store->abandoned;
	pthread_mutex_unlock(&lane->store->mutex);
	if (db->ops->sign_off != NULL)
		db->ops->sign_off(db, !abandoned);
	return NULL;
}

/* ---- life ---- */

static bool
lane_start(Store *store, LaneKind kind, Backend *db, GError **ret_error)
{
	static const char *const NAMES[] = {"store", "store-list"};
	Lane *lane = &store->lanes[kind];
	lane->db = db;
	db->store = store;
	int rc = thread_start(&lane->thread, NAMES[kind], lane_main, lane);
	lane->started = rc == 0;
	return lane->started ||
	       error_set_errno(ret_error, K_ERROR_IO, rc, "cannot start the store's thread");
}

static bool
start_lanes(Store *store, const StoreConfig *config, GError **ret_error)
{
	Backend *db = store_url_is_postgres(config->url) ? pg_open(config, ret_error)
							 : sqlite_open(config, ret_error);
	store->lanes[LANE_MAIL].db = db;
	if (db == NULL)
		return false;
	Backend *reader = db->ops->open_reader(db, config, ret_error);
	store->lanes[LANE_OPERATORS].db = reader;
	return reader != NULL && lane_start(store, LANE_MAIL, db, ret_error) &&
	       lane_start(store, LANE_OPERATORS, reader, ret_error);
}

Store *
store_open(const StoreConfig *config, GError **ret_error)
{
	Store *store = g_new0(Store, 1);
	store->queue_max = config->queue_max > 0 ? config->queue_max : STORE_QUEUE_MAX;
	pthread_mutex_init(&store->mutex, NULL);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	for (int i = 0; i < LANES; i++) {
		store->lanes[i].store = store;
		pthread_cond_init(&store->lanes[i].filled, &monotonic);
	}
	pthread_condattr_destroy(&monotonic);
	if (!start_lanes(store, config, ret_error)) {
		store_close(store);
		return NULL;
	}
	return store;
}

void
store_stop(Store *store)
{
	if (store == NULL)
		return;
	pthread_mutex_lock(&store->mutex);
	store->stop = true;
	for (int i = 0; i < LANES; i++)
		pthread_cond_signal(&store->lanes[i].filled);
	pthread_mutex_unlock(&store->mutex);
	for (int i = 0; i < LANES; i++) {
		Lane *lane = &store->lanes[i];
		if (lane->started)
			k_assert(pthread_join(lane->thread, NULL) == 0);
		lane->started = false;
	}
}

void
store_close(Store *store)
{
	if (store == NULL)
		return;
	store_stop(store);
	for (int i = LANES - 1; i >= 0; i--) { /* readers first */
		Backend *db = store->lanes[i].db;
		if (db != NULL)
			db->ops->close(db);
		pthread_cond_destroy(&store->lanes[i].filled);
	}
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

void
store_test_abandon(Store *store)
{
	pthread_mutex_lock(&store->mutex);
	store->abandoned = true;
	pthread_mutex_unlock(&store->mutex);
}

bool
store_is_leaseholder(Store *store)
{
	Backend *db = store->lanes[LANE_MAIL].db;
	return db->ops->is_leaseholder == NULL || db->ops->is_leaseholder(db);
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
	job->since = clock_mono();
	k_assert(job->asker != NULL);
	return job;
}

/* With the mutex. */
static void
enqueue(Lane *lane, Job *job)
{
	if (lane->tail != NULL)
		lane->tail->next = job;
	else
		lane->head = job;
	lane->tail = job;
	lane->queued++;
	lane->store->stats.queued++;
	if (lane->waiting)
		pthread_cond_signal(&lane->filled);
}

static void
submit(Store *store, Job *job)
{
	Lane *lane = &store->lanes[job->kind >= JOB_LIST ? LANE_OPERATORS : LANE_MAIL];
	pthread_mutex_lock(&store->mutex);
	bool stopped = store->stop;
	bool full = stopped || lane->queued >= store->queue_max;
	if (full) {
		store->stats.jobs++;
		store->stats.failures++;
	} else {
		enqueue(lane, job);
	}
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
	if (row->destination == NULL)
		row->destination = row_destination_of(row->rcpt);
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
store_claim(Store *store, int64_t now, unsigned limit, unsigned per_destination,
	    const GPtrArray *busy, StoreFn *fn, void *arg)
{
	Job *job = job_new(JOB_CLAIM, NULL, fn, arg);
	job->time = now;
	job->limit = limit;
	job->per_destination = per_destination;
	if (busy != NULL && busy->len > 0) {
		job->busy = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
		for (guint i = 0; i < busy->len; i++)
			g_hash_table_add(job->busy, g_strdup(g_ptr_array_index(busy, i)));
	}
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

void
store_replan(Store *store, int64_t horizon, unsigned limit, StoreFn *fn, void *arg)
{
	Job *job = job_new(JOB_REPLAN, NULL, fn, arg);
	job->time = horizon;
	job->limit = limit;
	submit(store, job);
}

void
store_idem_put(Store *store, StoreRow *row, StoreFn *fn, void *arg)
{
	k_assert(row->id != NULL && row->idem_key != NULL && row->idem_hash != NULL);
	Job *job = job_new(JOB_IDEM_PUT, NULL, fn, arg);
	job->row = row;
	submit(store, job);
}

void
store_idem_get(Store *store, const char *key, StoreFn *fn, void *arg)
{
	submit(store, job_new(JOB_IDEM_GET, key, fn, arg));
}

void
store_act(Store *store, const char *id, StoreAction action, const char *reason, StoreFn *fn,
	  void *arg)
{
	Job *job = job_new(JOB_ACT, id, fn, arg);
	job->action = action;
	job->text = g_strdup(reason);
	submit(store, job);
}

static char *
lower(const char *text)
{
	return text != NULL ? g_ascii_strdown(text, -1) : NULL;
}

void
store_list(Store *store, const StoreFilter *filter, StoreFn *fn, void *arg)
{
	Job *job = job_new(JOB_LIST, filter->after, fn, arg);
	job->filter = (StoreFilter){.state = filter->state,
				    .mail_from = lower(filter->mail_from),
				    .rcpt = lower(filter->rcpt),
				    .destination = lower(filter->destination),
				    .older_than = filter->older_than,
				    .limit = MIN(filter->limit, STORE_LIST_MAX)};
	submit(store, job);
}

void
store_count(Store *store, unsigned destinations_max, StoreCountFn *fn, void *arg)
{
	Job *job = job_new(JOB_COUNT, NULL, NULL, arg);
	job->count_fn = fn;
	job->limit = destinations_max;
	submit(store, job);
}

/* ---- maintenance ---- */

bool
store_migrate(const char *url, GError **ret_error)
{
	if (store_url_is_postgres(url))
		return pg_migrate(url, ret_error);
	g_autofree char *path = store_url_path(url, ret_error);
	return path != NULL && sqlite_migrate(path, ret_error);
}

bool
store_check(const char *url, char **ret_report, GError **ret_error)
{
	g_autofree char *path = NULL;
	bool postgres = store_url_is_postgres(url);
	if (!postgres && (path = store_url_path(url, ret_error)) == NULL)
		return false;
	GString *report = g_string_new(NULL);
	bool ok = postgres ? pg_check(url, report, ret_error)
			   : sqlite_check(path, report, ret_error);
	*ret_report = g_string_free(report, FALSE);
	return ok;
}
