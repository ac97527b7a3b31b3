/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Work on a whole body for a filter: at once when it is small, on the pool when it is big.  The
 * job owns what it carries, so that it may outlive the filter.  Owner: the filter's state, until
 * body_job_free.  Own worker only, except for `run`. */
#include "filter/filter.h"

#define BODY_JOB_INLINE_MAX (256 * 1024) /* bytes that are handled on the worker */

typedef struct BodyJob {
	Filter *filter; /* NULL: nobody waits any more */
	void (*run)(void *arg);
	void (*free_arg)(void *arg);
	void *arg;
	bool finished; /* `arg` belongs to the filter again */
	bool ran;
} BodyJob;

/* Takes over `arg`.  When the result is not `finished`, the filter returns FILTER_WAIT and is
 * resumed.  NULL, `arg` freed: the pool's queue is full. */
BodyJob *body_job_start(Filter *filter, uint64_t bytes, void (*run)(void *arg),
			void (*free_arg)(void *arg), void *arg);
/* Frees, or leaves it to the pool to finish unheard.  NULL is fine. */
void body_job_free(BodyJob *job);
