/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Threads for work that blocks or burns: big MIME, heavy cryptography, file I/O.  A job owns
 * what it carries while it runs.  Owner: main. */
#include <glib.h>
#include <stdbool.h>

#include "loop/worker.h"

typedef struct Pool Pool;
typedef struct PoolJob PoolJob;

#define POOL_QUEUE_MAX 10000 /* waiting jobs; beyond it pool_submit refuses */

K_MUST_CHECK Pool *pool_new(unsigned threads, GError **ret_error);
/* Finishes the jobs that run, drops those that wait (their `done` fires with ran = false). */
void pool_free(Pool *pool);

typedef void PoolRunFn(void *arg);            /* on a pool thread */
typedef void PoolDoneFn(void *arg, bool ran); /* on `reply_to`, exactly once, never inside submit */
/* Own worker only.  NULL when the queue is full (then `done` never fires). */
PoolJob *pool_submit(Pool *pool, Worker *reply_to, PoolRunFn *run, PoolDoneFn *done, void *arg);
