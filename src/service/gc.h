/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Garbage collection: every storage.gc_interval what has been final for gc_ttl is deleted, in
 * slices with a pause between them, so that mail passes meanwhile.  What waits for a retry is never
 * collected.  Owner: the Router; worker 0 only. */
#include <stdbool.h>

#include "loop/worker.h"

struct Router;

#define GC_SLICE 500                /* rows of one database transaction */
#define GC_PAUSE (50 * USEC_PER_MS) /* between slices */

typedef struct Gc {
	struct Router *router; /* NULL: never started */
	Timer timer;
	bool running; /* a slice is with the store */
} Gc;

/* On worker 0's thread or before the workers run; nothing happens when gc_interval is 0. */
void gc_start(Gc *gc, struct Router *router);
void gc_clear(Gc *gc);
