/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The keys of one message's chain, asked of the worker's resolver one after the other, since a
 * failure spares the rest.  Own worker only.  The callback comes once, never inside arc_run_start,
 * and not after arc_run_free. */
#include "loop/worker.h"
#include "mailauth/arc.h"

typedef struct ArcRun ArcRun;
typedef void ArcRunFn(void *arg);

#define ARC_RUN_TIMEOUT (20 * USEC_PER_SEC) /* for all of them; then it is a temporary error */

/* `verify` (borrowed) has seen the whole body.  `dns` NULL: a temporary error. */
ArcRun *arc_run_start(Worker *worker, Dns *dns, ArcVerify *verify, ArcRunFn *done, void *arg);
void arc_run_free(ArcRun *run); /* NULL is fine; also inside the callback */
