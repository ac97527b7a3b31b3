/* SPDX-License-Identifier: Apache-2.0 */
/* Workers, timers and the pool, with real threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/ids.h"
#include "loop/pool.h"
#include "loop/worker.h"

/* A count that a test thread waits for. */
typedef struct Latch {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int count;
} Latch;

#define LATCH ((Latch){PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0})

static void
latch_add(Latch *latch)
{
	pthread_mutex_lock(&latch->lock);
	latch->count++;
	pthread_cond_broadcast(&latch->changed);
	pthread_mutex_unlock(&latch->lock);
}

static void
latch_await(Latch *latch, int count)
{
	struct timespec limit;
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 20;
	pthread_mutex_lock(&latch->lock);
	while (latch->count < count &&
	       pthread_cond_timedwait(&latch->changed, &latch->lock, &limit) == 0)
		;
	int got = latch->count;
	pthread_mutex_unlock(&latch->lock);
	assert_true(got >= count);
}

static Workers *
start(unsigned count)
{
	Workers *workers = workers_new(count, NULL);
	assert_non_null(workers);
	assert_true(workers_start(workers, NULL));
	return workers;
}

static void
test_count(void **state)
{
	(void)state;
	GError *trouble = NULL;
	assert_null(workers_new(IDS_WORKERS_MAX + 1, &trouble));
	assert_true(g_error_matches(trouble, K_ERROR, K_ERROR_CONFIG));
	g_error_free(trouble);
	Workers *workers = workers_new(0, NULL);
	assert_true(workers_count(workers) >= 1);
	assert_int_equal(worker_index(workers_get(workers, 0)), 0);
	assert_ptr_equal(worker_set(workers_get(workers, 0)), workers);
	assert_null(worker_current());
	workers_free(workers);
	workers_free(NULL);
}

/* ---- posting ---- */

typedef struct Order {
	Worker *worker;
	Latch latch;
	int seen[1000];
	int len;
	atomic_bool wrong;
} Order;

typedef struct Post {
	Order *order;
	int number;
} Post;

static void
on_post(void *arg)
{
	Post *post = arg;
	Order *order = post->order;
	if (worker_current() != order->worker || !worker_is_here(order->worker))
		atomic_store(&order->wrong, true);
	order->seen[order->len++] = post->number;
	latch_add(&order->latch);
}

static void
test_post_order(void **state)
{
	(void)state;
	Workers *workers = start(2);
	Order order = {.worker = workers_get(workers, 1), .latch = LATCH};
	Post posts[1000];
	assert_false(worker_is_here(order.worker));
	for (int i = 0; i < 1000; i++) {
		posts[i] = (Post){&order, i};
		worker_post(order.worker, on_post, &posts[i]);
	}
	latch_await(&order.latch, 1000);
	workers_stop(workers);
	assert_true(worker_is_here(order.worker));
	for (int i = 0; i < 1000; i++)
		assert_int_equal(order.seen[i], i);
	assert_false(atomic_load(&order.wrong));
	workers_stop(workers);
	workers_free(workers);
}

typedef struct Storm {
	Worker *worker;
	Latch latch;
	int count; /* touched on the worker only */
	int want;
} Storm;

static void
on_storm(void *arg)
{
	Storm *storm = arg;
	if (++storm->count == storm->want)
		latch_add(&storm->latch);
}

static void *
storm_main(void *arg)
{
	Storm *storm = arg;
	for (int i = 0; i < 5000; i++)
		worker_post(storm->worker, on_storm, storm);
	return NULL;
}

static void
test_post_storm(void **state)
{
	(void)state;
	Workers *workers = start(1);
	Storm storm = {.worker = workers_get(workers, 0), .latch = LATCH, .want = 20000};
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, storm_main, &storm), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	latch_await(&storm.latch, 1);
	workers_free(workers);
	assert_int_equal(storm.count, 20000);
}

/* ---- the order within a turn ---- */

typedef struct Turn {
	Worker *worker;
	GString *seen;
	Defer defer;
	Defer again;
	Latch latch;
	bool hop; /* post to itself once more */
} Turn;

static void
turn_freed(void *arg)
{
	g_string_append(((Turn *)arg)->seen, "r");
}

static void
turn_again(void *arg)
{
	g_string_append(((Turn *)arg)->seen, "e");
}

static void turn_posted(void *arg);

static void
turn_deferred(void *arg)
{
	Turn *turn = arg;
	g_string_append(turn->seen, "d");
	defer_queue(worker_defers(turn->worker), &turn->again); /* still this turn */
	if (!turn->hop) {
		turn->hop = true;
		worker_post(turn->worker, turn_posted, turn); /* the next */
	} else {
		latch_add(&turn->latch);
	}
}

static void
turn_posted(void *arg)
{
	Turn *turn = arg;
	g_string_append(turn->seen, "p");
	worker_reap(turn->worker, turn, turn_freed);
	defer_queue(worker_defers(turn->worker), &turn->defer);
	g_string_append(turn->seen, ".");
}

static void
test_turn(void **state)
{
	(void)state;
	Workers *workers = start(1);
	Turn turn = {.worker = workers_get(workers, 0), .seen = g_string_new(NULL), .latch = LATCH};
	defer_init(&turn.defer, turn_deferred, &turn);
	defer_init(&turn.again, turn_again, &turn);
	worker_post(turn.worker, turn_posted, &turn);
	latch_await(&turn.latch, 1);
	workers_stop(workers);
	assert_string_equal(turn.seen->str, "p.derp.der");
	workers_free(workers);
	g_string_free(turn.seen, TRUE);
}

/* A chain of deferred work that never ends does not keep posts out. */
typedef struct Chain {
	Worker *worker;
	Defer defer;
	bool stop;
	Latch latch;
} Chain;

static void
chain_next(void *arg)
{
	Chain *chain = arg;
	if (!chain->stop)
		defer_queue(worker_defers(chain->worker), &chain->defer);
	else
		latch_add(&chain->latch);
}

static void
chain_stop(void *arg)
{
	((Chain *)arg)->stop = true;
}

static void
test_no_starvation(void **state)
{
	(void)state;
	Workers *workers = start(1);
	Chain chain = {.worker = workers_get(workers, 0), .latch = LATCH};
	defer_init(&chain.defer, chain_next, &chain);
	worker_post(chain.worker, chain_next, &chain);
	worker_post(chain.worker, chain_stop, &chain);
	latch_await(&chain.latch, 1);
	workers_free(workers);
}

/* ---- tear-down ---- */

static void
end_freed(void *arg)
{
	(*(int *)arg) += 100;
}

static void
end_posted(void *arg)
{
	Worker *here = worker_current();
	(*(int *)arg)++;
	if (worker_index(here) == 1)
		worker_post(workers_get(worker_set(here), 0), end_posted, arg);
	else
		worker_reap(here, arg, end_freed);
}

static void
test_tear_down(void **state)
{
	(void)state;
	/* Never started, and stopped: what is left runs in workers_free, also what that posts. */
	for (int started = 0; started < 2; started++) {
		int count = 0;
		Workers *workers = workers_new(2, NULL);
		if (started) {
			assert_true(workers_start(workers, NULL));
			workers_stop(workers);
		}
		worker_post(workers_get(workers, 1), end_posted, &count);
		workers_free(workers);
		assert_int_equal(count, 102);
	}
}

static void
test_prepared(void **state)
{
	(void)state;
	/* What was deferred before the start runs after it. */
	Workers *workers = workers_new(1, NULL);
	Chain chain = {.worker = workers_get(workers, 0), .latch = LATCH, .stop = true};
	defer_init(&chain.defer, chain_next, &chain);
	defer_queue(worker_defers(chain.worker), &chain.defer);
	assert_true(workers_start(workers, NULL));
	latch_await(&chain.latch, 1);
	workers_free(workers);
}

/* ---- timers, turn by turn ---- */

typedef struct Clocked {
	Timer timer;
	int fired;
	Deadline at;
	bool clear;
} Clocked;

static void
on_timer(void *arg)
{
	Clocked *clocked = arg;
	clocked->fired++;
	clocked->at = clock_mono();
	if (clocked->clear)
		timer_clear(&clocked->timer);
}

static void
run_for(Worker *worker, Usec span)
{
	Deadline end = clock_after(span);
	while (!clock_passed(end))
		worker_test_turn(worker, 2 * USEC_PER_MS);
}

static void
test_timers(void **state)
{
	(void)state;
	Workers *workers = workers_new(1, NULL);
	Worker *worker = workers_get(workers, 0);
	Clocked clocked = {0};
	timer_init(&clocked.timer, worker, on_timer, &clocked);
	timer_cancel(&clocked.timer); /* never set */
	assert_false(timer_is_set(&clocked.timer));
	static const struct {
		const char *name;
		Usec spans[3]; /* set one after the other; -1 cancels; 0 ends the list */
		Usec want;     /* -1: never */
	} cases[] = {
		{"once", {10 * USEC_PER_MS}, 10 * USEC_PER_MS},
		{"later", {5 * USEC_PER_MS, 20 * USEC_PER_MS}, 20 * USEC_PER_MS},
		{"earlier", {60 * USEC_PER_SEC, 10 * USEC_PER_MS}, 10 * USEC_PER_MS},
		{"cancelled", {5 * USEC_PER_MS, -1}, -1},
		{"cancelled and set later",
		 {5 * USEC_PER_MS, -1, 20 * USEC_PER_MS},
		 20 * USEC_PER_MS},
		{"short", {1}, 1},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		clocked.fired = 0;
		Deadline start_at = clock_mono();
		for (int s = 0; s < 3 && cases[i].spans[s] != 0; s++) {
			if (cases[i].spans[s] > 0)
				timer_set(&clocked.timer, cases[i].spans[s]);
			else
				timer_cancel(&clocked.timer);
			worker_test_turn(worker, 0);
		}
		run_for(worker, 40 * USEC_PER_MS);
		/* A busy machine may be late. */
		for (int late = 0; cases[i].want >= 0 && clocked.fired == 0 && late < 1000; late++)
			worker_test_turn(worker, 5 * USEC_PER_MS);
		assert_int_equal(clocked.fired, cases[i].want < 0 ? 0 : 1);
		assert_true(cases[i].want < 0 || clocked.at - start_at >= cases[i].want);
		assert_false(timer_is_set(&clocked.timer));
	}
	timer_set(&clocked.timer, 0);
	assert_true(timer_is_set(&clocked.timer));
	clocked.fired = 0;
	worker_test_turn(worker, 0);
	assert_int_equal(clocked.fired, 1); /* the next turn */
	clocked.clear = true;
	timer_set_at(&clocked.timer, clock_after(1));
	for (int late = 0; clocked.fired == 1 && late < 1000; late++)
		worker_test_turn(worker, 5 * USEC_PER_MS);
	assert_int_equal(clocked.fired, 2);
	timer_clear(&clocked.timer); /* twice is fine */
	timer_set(&clocked.timer, INT64_MAX);
	run_for(worker, 5 * USEC_PER_MS);
	assert_int_equal(clocked.fired, 2);
	timer_clear(&clocked.timer);
	workers_free(workers);
}

/* ---- pool ---- */

typedef struct Job {
	Pool *pool;
	Worker *worker;
	Latch latch; /* counts ends */
	Latch running;
	atomic_int runs;
	int ran; /* on the worker only */
	int dropped;
	Latch gate; /* jobs wait for it */
	int submitted;
	bool inside;
	bool nested;
} Job;

static void
job_run(void *arg)
{
	Job *job = arg;
	atomic_fetch_add(&job->runs, 1);
	latch_add(&job->running);
	latch_await(&job->gate, 1);
}

static void
job_done(void *arg, bool ran)
{
	Job *job = arg;
	if (job->inside)
		job->nested = true;
	k_assert(worker_is_here(job->worker));
	if (ran)
		job->ran++;
	else
		job->dropped++;
	latch_add(&job->latch);
}

static void
submit_all(void *arg)
{
	Job *job = arg;
	job->inside = true;
	while (pool_submit(job->pool, job->worker, job_run, job_done, job) != NULL)
		job->submitted++;
	job->inside = false;
	latch_add(&job->latch);
}

static void
submit_ten(void *arg)
{
	Job *job = arg;
	for (int i = 0; i < 10; i++)
		assert_non_null(pool_submit(job->pool, job->worker, job_run, job_done, job));
}

static void
test_pool(void **state)
{
	(void)state;
	Workers *workers = start(1);
	Job job = {
		.worker = workers_get(workers, 0), .latch = LATCH, .gate = LATCH, .running = LATCH};
	job.pool = pool_new(3, NULL);
	assert_non_null(job.pool);
	worker_post(job.worker, submit_ten, &job);
	latch_await(&job.running, 3); /* side by side */
	latch_add(&job.gate);
	latch_await(&job.latch, 10);
	assert_int_equal(atomic_load(&job.runs), 10);
	pool_free(job.pool);
	workers_free(workers);
	assert_int_equal(job.ran, 10);
	assert_int_equal(job.dropped, 0);
}

static void *
open_gate(void *arg)
{
	Job *job = arg;
	/* pool_free waits for the job that runs; let it first get there. */
	struct timespec nap = {.tv_nsec = 20000000};
	nanosleep(&nap, NULL);
	latch_add(&job->gate);
	return NULL;
}

static void
test_pool_full(void **state)
{
	(void)state;
	Workers *workers = start(1);
	Job job = {
		.worker = workers_get(workers, 0), .latch = LATCH, .gate = LATCH, .running = LATCH};
	job.pool = pool_new(1, NULL);
	worker_post(job.worker, submit_all, &job);
	latch_await(&job.latch, 1);
	latch_await(&job.running, 1);
	/* The one that runs may have been taken before or after the queue was found full. */
	assert_in_range(job.submitted, POOL_QUEUE_MAX, POOL_QUEUE_MAX + 1);
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, open_gate, &job), 0);
	pool_free(job.pool);
	pthread_join(thread, NULL);
	workers_free(workers);
	assert_int_equal(job.ran, 1);
	assert_int_equal(job.ran + job.dropped, job.submitted);
	assert_false(job.nested);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_count),         cmocka_unit_test(test_post_order),
		cmocka_unit_test(test_post_storm),    cmocka_unit_test(test_turn),
		cmocka_unit_test(test_no_starvation), cmocka_unit_test(test_tear_down),
		cmocka_unit_test(test_prepared),      cmocka_unit_test(test_timers),
		cmocka_unit_test(test_pool),          cmocka_unit_test(test_pool_full),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
