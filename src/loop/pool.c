/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/pool.h"

#include <pthread.h>
#include <stdio.h>

#include "base/error.h"
#include "loop/thread.h"

#define POOL_THREADS_MAX 256

struct PoolJob {
	PoolJob *next;
	Worker *reply_to;
	PoolRunFn *run;
	PoolDoneFn *done;
	void *arg;
	bool ran;
};

struct Pool {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	PoolJob *head; /* waiting jobs, oldest first; these and what follows under `lock` */
	PoolJob **tail;
	unsigned waiting;
	bool stop;
	unsigned count;     /* threads that run */
	pthread_t *threads; /* `count` */
};

/* On the worker that asked. */
static void
job_done(void *arg)
{
	PoolJob *job = arg;
	PoolDoneFn *done = job->done;
	void *done_arg = job->arg;
	bool ran = job->ran;
	g_free(job);
	done(done_arg, ran);
}

/* The next job, waiting for it; NULL when the pool ends. */
static PoolJob *
take_job(Pool *pool)
{
	(void)pthread_mutex_lock(&pool->lock);
	while (pool->head == NULL && !pool->stop)
		(void)pthread_cond_wait(&pool->wake, &pool->lock);
	PoolJob *job = pool->stop ? NULL : pool->head;
	if (job != NULL) {
		pool->head = job->next;
		if (pool->head == NULL)
			pool->tail = &pool->head;
		pool->waiting--;
	}
	(void)pthread_mutex_unlock(&pool->lock);
	return job;
}

static void *
pool_main(void *arg)
{
	Pool *pool = arg;
	PoolJob *job;
	while ((job = take_job(pool)) != NULL) {
		job->run(job->arg);
		job->ran = true;
		worker_post(job->reply_to, job_done, job);
	}
	return NULL;
}

Pool *
pool_new(unsigned threads, GError **ret_error)
{
	k_assert(threads > 0 && threads <= POOL_THREADS_MAX);
	Pool *pool = g_new0(Pool, 1);
	k_assert(pthread_mutex_init(&pool->lock, NULL) == 0);
	k_assert(pthread_cond_init(&pool->wake, NULL) == 0);
	pool->tail = &pool->head;
	pool->threads = g_new0(pthread_t, threads);
	for (unsigned i = 0; i < threads; i++) {
		char name[16];
		(void)snprintf(name, sizeof(name), "pool-%u", i % POOL_THREADS_MAX);
		int rc = thread_start(&pool->threads[i], name, pool_main, pool);
		if (rc != 0) {
			error_set_errno(ret_error, K_ERROR_IO, rc, "cannot start a pool thread");
			pool_free(pool);
			return NULL;
		}
		pool->count++;
	}
	return pool;
}

void
pool_free(Pool *pool)
{
	if (pool == NULL)
		return;
	(void)pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	(void)pthread_cond_broadcast(&pool->wake);
	(void)pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->count; i++)
		k_assert(pthread_join(pool->threads[i], NULL) == 0);
	for (PoolJob *job = pool->head; job != NULL;) {
		PoolJob *next = job->next;
		worker_post(job->reply_to, job_done, job);
		job = next;
	}
	(void)pthread_cond_destroy(&pool->wake);
	(void)pthread_mutex_destroy(&pool->lock);
	g_free(pool->threads);
	g_free(pool);
}

PoolJob *
pool_submit(Pool *pool, Worker *reply_to, PoolRunFn *run, PoolDoneFn *done, void *arg)
{
	k_assert_on(reply_to);
	PoolJob *job = g_new0(PoolJob, 1);
	*job = (PoolJob){.reply_to = reply_to, .run = run, .done = done, .arg = arg};
	(void)pthread_mutex_lock(&pool->lock);
	bool room = pool->waiting < POOL_QUEUE_MAX && !pool->stop;
	if (room) {
		*pool->tail = job;
		pool->tail = &job->next;
		pool->waiting++;
		(void)pthread_cond_signal(&pool->wake);
	}
	(void)pthread_mutex_unlock(&pool->lock);
	if (!room) {
		g_free(job);
		return NULL;
	}
	return job;
}
