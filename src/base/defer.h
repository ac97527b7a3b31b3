/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Work put off to the end of the loop turn, so that a completion never fires inside the call
 * that started it.  A Defer is embedded in its object and queued at most once at a time; the
 * queue belongs to one worker (or to a test, which runs it by hand).  One thread. */
#include <stdbool.h>
#include <stddef.h>

typedef struct Defer Defer;
typedef void DeferFn(void *arg);

struct Defer {
	Defer *next; /* in the queue */
	Defer *prev;
	struct DeferQueue *queue; /* where it is queued, else NULL */
	DeferFn *fn;
	void *arg;
};

typedef struct DeferQueue {
	Defer *head;
	Defer *tail;
} DeferQueue;

void defer_init(Defer *defer, DeferFn *fn, void *arg);
/* Does nothing when it is queued already. */
void defer_queue(DeferQueue *queue, Defer *defer);
/* Takes it out; nothing happens when it is not queued.  An object's free calls this. */
void defer_cancel(Defer *defer);
/* Runs all that is queued, also what gets queued meanwhile, but at most `rounds` generations so
 * that I/O is not starved.  Returns true when the queue is empty. */
bool defer_run(DeferQueue *queue, unsigned rounds);
static inline bool
defer_is_empty(const DeferQueue *queue)
{
	return queue->head == NULL;
}
