/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the other files of loop/ need of a worker.  Own worker only. */
#include "loop/worker.h"

/* Run once a turn, after all deferred work: output of a turn leaves in one write. */
DeferQueue *worker_flushes(Worker *worker);

/* Memory that all connections of a worker read into, one after the other; nobody keeps a
 * pointer into it past his own loop callback. */
#define WORKER_SCRATCH (64 * 1024)
char *worker_scratch(Worker *worker);
