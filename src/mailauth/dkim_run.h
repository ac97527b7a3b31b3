/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The keys of one message's signatures, asked of the worker's resolver; all at once, each name
 * once.  Own worker only.  The callback comes once, never inside dkim_run_start, and not after
 * dkim_run_free. */
#include "loop/worker.h"
#include "mailauth/dkim_verify.h"

typedef struct DkimRun DkimRun;
typedef void DkimRunFn(void *arg);

#define DKIM_RUN_TIMEOUT (20 * USEC_PER_SEC) /* then what is open is a temporary error */

/* `verify` (borrowed) has seen the whole body.  `dns` NULL: temporary errors. */
DkimRun *dkim_run_start(Worker *worker, Dns *dns, DkimVerify *verify, DkimRunFn *done, void *arg);
void dkim_run_free(DkimRun *run); /* NULL is fine; also inside the callback */
