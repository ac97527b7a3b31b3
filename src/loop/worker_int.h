/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the other files of loop/ need of a worker.  Own worker only. */
#include "loop/worker.h"

/* Run once a turn, after all deferred work: output of a turn leaves in one write. */
DeferQueue *worker_flushes(Worker *worker);

/* What its owner has let go to end by itself (connections that linger) belongs to the worker:
 * workers_free ends those that are left.  Embedded in the object. */
typedef struct Orphan {
	struct Orphan *next;
	struct Orphan *prev; /* a ring through the worker's head; NULL = in none */
	WorkerFn *free_fn;
	void *object;
} Orphan;
void worker_adopt(Worker *worker, Orphan *orphan, WorkerFn *free_fn, void *object);
void worker_release(Orphan *orphan); /* does nothing when it was never adopted */

/* Memory that all connections of a worker read into, one after the other; nobody keeps a
 * pointer into it past his own loop callback. */
#define WORKER_SCRATCH (64 * 1024)
char *worker_scratch(Worker *worker);
