/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/worker.h"

#include <errno.h>
#include <event2/event.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/error.h"
#include "base/ids.h"
#include "base/log.h"
#include "loop/inbox.h"
#include "loop/thread.h"
#include "loop/worker_int.h"

/* Generations of deferred work a turn runs before it looks at the sockets again. */
#define DEFER_ROUNDS 16
/* How often tear-down goes round the workers; more means that work breeds work for ever. */
#define DRAIN_ROUNDS 100000

typedef struct Reap {
	void *object;
	WorkerFn *free_fn;
} Reap;

struct Worker {
	Workers *set;
	unsigned index;
	pthread_t thread;
	atomic_bool running; /* its loop runs on `thread` */
	atomic_bool stop;
	struct event_base *base;
	struct event *wake_event;
	Inbox inbox;
	bool posted_here; /* something was posted by the worker itself since the inbox ran */
	DeferQueue defers;
	DeferQueue flushes;
	GArray *reaps;  /* Reap */
	Orphan orphans; /* head of the ring */
	char *scratch;
};

struct Workers {
	unsigned count;
	bool started;
	Worker *workers; /* `count` */
};

static __thread Worker *current;

static unsigned
count_cores(void)
{
	cpu_set_t cpus;
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) > 0)
		return (unsigned)CPU_COUNT(&cpus);
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	return online > 0 ? (unsigned)online : 1;
}

static void
on_wake(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	Worker *worker = arg;
	inbox_rest(&worker->inbox); /* it runs after the callbacks of this turn */
}

static struct event_base *
make_base(void)
{
	struct event_config *config = event_config_new();
	if (config == NULL)
		return NULL;
	/* One thread a base, so no locks; the environment has no say in the method. */
	struct event_base *base = NULL;
	if (event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV) == 0)
		base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

static bool
worker_init(Worker *worker, Workers *set, unsigned index, GError **ret_error)
{
	worker->set = set;
	worker->index = index;
	worker->orphans.next = worker->orphans.prev = &worker->orphans;
	worker->reaps = g_array_new(FALSE, FALSE, sizeof(Reap));
	worker->scratch = g_malloc(WORKER_SCRATCH);
	if (!inbox_init(&worker->inbox, ret_error))
		return false;
	worker->base = make_base();
	if (worker->base == NULL)
		return error_set(ret_error, K_ERROR_IO, "cannot make an event loop");
	worker->wake_event = event_new(worker->base, worker->inbox.wake_fd, EV_READ | EV_PERSIST,
				       on_wake, worker);
	if (worker->wake_event == NULL || event_add(worker->wake_event, NULL) != 0)
		return error_set(ret_error, K_ERROR_IO, "cannot watch the inbox");
	return true;
}

static void
worker_destroy(Worker *worker)
{
	if (worker->wake_event != NULL)
		event_free(worker->wake_event);
	if (worker->base != NULL)
		event_base_free(worker->base);
	inbox_clear(&worker->inbox);
	if (worker->reaps != NULL)
		(void)g_array_free(worker->reaps, TRUE);
	g_free(worker->scratch);
}

Workers *
workers_new(unsigned count, GError **ret_error)
{
	if (count == 0)
		count = MIN(count_cores(), IDS_WORKERS_MAX);
	if (count > IDS_WORKERS_MAX) {
		error_set(ret_error, K_ERROR_CONFIG, "%u workers: at most %d are possible", count,
			  IDS_WORKERS_MAX);
		return NULL;
	}
	Workers *set = g_new0(Workers, 1);
	set->count = count;
	set->workers = g_new0(Worker, count);
	for (unsigned i = 0; i < count; i++)
		set->workers[i].inbox.wake_fd = -1;
	for (unsigned i = 0; i < count; i++) {
		if (!worker_init(&set->workers[i], set, i, ret_error)) {
			workers_free(set);
			return NULL;
		}
	}
	return set;
}

static void
run_reaps(Worker *worker)
{
	/* Freeing one object may reap another. */
	for (guint i = 0; i < worker->reaps->len; i++) {
		Reap reap = g_array_index(worker->reaps, Reap, i);
		reap.free_fn(reap.object);
	}
	(void)g_array_set_size(worker->reaps, 0);
}

/* All of a turn but waiting for I/O; true when there was something to do. */
static bool
run_queues(Worker *worker)
{
	worker->posted_here = false;
	bool any = inbox_run(&worker->inbox);
	any |= !defer_is_empty(&worker->defers) || !defer_is_empty(&worker->flushes) ||
	       worker->reaps->len > 0;
	(void)defer_run(&worker->defers, DEFER_ROUNDS);
	log_flush(); /* what is said to a peer was logged before */
	(void)defer_run(&worker->flushes, 1);
	run_reaps(worker);
	log_flush();
	return any;
}

static bool
has_work(const Worker *worker)
{
	return worker->posted_here || !defer_is_empty(&worker->defers) ||
	       !defer_is_empty(&worker->flushes);
}

static void *
worker_main(void *arg)
{
	Worker *worker = arg;
	current = worker;
	log_hold();
	run_queues(worker); /* what was prepared before the start */
	while (!atomic_load(&worker->stop)) {
		int flags = has_work(worker) ? EVLOOP_NONBLOCK : EVLOOP_ONCE;
		k_assert(event_base_loop(worker->base, flags) >= 0);
		run_queues(worker);
	}
	current = NULL;
	return NULL;
}

bool
workers_start(Workers *workers, GError **ret_error)
{
	k_assert(!workers->started);
	workers->started = true;
	for (unsigned i = 0; i < workers->count; i++) {
		Worker *worker = &workers->workers[i];
		char name[16];
		(void)snprintf(name, sizeof(name), "worker-%u", i % IDS_WORKERS_MAX);
		atomic_store(&worker->stop, false);
		atomic_store(&worker->running, true);
		int rc = thread_start(&worker->thread, name, worker_main, worker);
		if (rc != 0) {
			atomic_store(&worker->running, false);
			workers_stop(workers);
			return error_set_errno(ret_error, K_ERROR_IO, rc, "cannot start a worker");
		}
	}
	return true;
}

void
workers_stop(Workers *workers)
{
	for (unsigned i = 0; i < workers->count; i++) {
		Worker *worker = &workers->workers[i];
		if (atomic_load(&worker->running)) {
			atomic_store(&worker->stop, true);
			inbox_wake(&worker->inbox);
		}
	}
	for (unsigned i = 0; i < workers->count; i++) {
		Worker *worker = &workers->workers[i];
		if (atomic_load(&worker->running)) {
			k_assert(pthread_join(worker->thread, NULL) == 0);
			atomic_store(&worker->running, false);
		}
	}
	workers->started = false;
}

static void
end_orphans(Worker *worker)
{
	while (worker->orphans.next != &worker->orphans) {
		Orphan *orphan = worker->orphans.next;
		worker_release(orphan);
		orphan->free_fn(orphan->object);
	}
}

/* Work of one worker may post to another, so go round until all are quiet. */
void
workers_settle(Workers *workers)
{
	bool any = true;
	for (unsigned round = 0; any && round < DRAIN_ROUNDS; round++) {
		any = false;
		for (unsigned i = 0; i < workers->count; i++) {
			current = &workers->workers[i];
			if (current->wake_event == NULL)
				continue; /* half built */
			any |= run_queues(current);
			end_orphans(current);
			any |= current->reaps->len > 0;
		}
	}
	current = NULL;
}

void
workers_free(Workers *workers)
{
	if (workers == NULL)
		return;
	k_assert(current == NULL);
	workers_stop(workers);
	workers_settle(workers);
	for (unsigned i = 0; i < workers->count; i++)
		worker_destroy(&workers->workers[i]);
	g_free(workers->workers);
	g_free(workers);
}

unsigned
workers_count(const Workers *workers)
{
	return workers->count;
}

Worker *
workers_get(Workers *workers, unsigned index)
{
	k_assert(index < workers->count);
	return &workers->workers[index];
}

Worker *
worker_current(void)
{
	return current;
}

unsigned
worker_index(const Worker *worker)
{
	return worker->index;
}

Workers *
worker_set(Worker *worker)
{
	return worker->set;
}

struct event_base *
worker_base(Worker *worker)
{
	return worker->base;
}

DeferQueue *
worker_defers(Worker *worker)
{
	return &worker->defers;
}

DeferQueue *
worker_flushes(Worker *worker)
{
	return &worker->flushes;
}

void
worker_adopt(Worker *worker, Orphan *orphan, WorkerFn *free_fn, void *object)
{
	*orphan = (Orphan){
		.next = &worker->orphans,
		.prev = worker->orphans.prev,
		.free_fn = free_fn,
		.object = object,
	};
	orphan->prev->next = orphan;
	worker->orphans.prev = orphan;
}

void
worker_release(Orphan *orphan)
{
	if (orphan->prev == NULL)
		return;
	orphan->prev->next = orphan->next;
	orphan->next->prev = orphan->prev;
	orphan->next = orphan->prev = NULL;
}

char *
worker_scratch(Worker *worker)
{
	return worker->scratch;
}

void
worker_post(Worker *worker, WorkerFn *fn, void *arg)
{
	bool here = current == worker;
	if (here)
		worker->posted_here = true;
	inbox_put(&worker->inbox, fn, arg, !here);
}

void
worker_reap(Worker *worker, void *object, WorkerFn *free_fn)
{
	k_assert_on(worker);
	Reap reap = {.object = object, .free_fn = free_fn};
	(void)g_array_append_val(worker->reaps, reap);
}

void
worker_test_turn(Worker *worker, Usec wait)
{
	k_assert(current == NULL && !atomic_load(&worker->running));
	current = worker;
	int flags = EVLOOP_NONBLOCK;
	if (wait > 0 && !has_work(worker)) {
		struct timeval span = {.tv_sec = wait / USEC_PER_SEC,
				       .tv_usec = wait % USEC_PER_SEC};
		k_assert(event_base_loopexit(worker->base, &span) == 0);
		flags = EVLOOP_ONCE;
	}
	k_assert(event_base_loop(worker->base, flags) >= 0);
	run_queues(worker);
	current = NULL;
}

bool
worker_is_here(const Worker *worker)
{
	return current == worker || !atomic_load_explicit(&worker->running, memory_order_acquire);
}
