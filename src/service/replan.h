/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Retries that were planned by a wall clock that was ahead: at the start, and whenever the clock
 * has gone back, what waits for longer than any retry may is due at once instead.  Owner: the
 * Router; worker 0 only. */
#include <stdbool.h>
#include <stdint.h>

struct Router;

#define REPLAN_SLICE 10000 /* rows of one database transaction */
#define REPLAN_SLACK 60    /* seconds that a row may wait for longer than the settings say */

typedef struct Replan {
	bool started, running;
	int64_t ahead; /* of the wall clock before the monotonic one, microseconds */
} Replan;

/* About once a second. */
void replan_watch(Replan *replan, struct Router *router);
