/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One SPF check on the worker's resolver, with RFC 7208's limit of time.  Own worker only.  The
 * callback comes once, never inside spf_run_start, and not after spf_run_free. */
#include "loop/worker.h"
#include "mailauth/spf.h"

typedef struct SpfRun SpfRun;
typedef void SpfRunFn(void *arg, const Spf *spf); /* `spf` lives as long as the run */

/* `dns` NULL: temperror. */
SpfRun *spf_run_start(Worker *worker, Dns *dns, const SpfParams *params, SpfRunFn *done, void *arg);
void spf_run_free(SpfRun *run); /* NULL is fine; also inside the callback */
const Spf *spf_run_spf(const SpfRun *run);
