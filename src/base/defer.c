/* SPDX-License-Identifier: Apache-2.0 */
#include "base/defer.h"

#include "base/check.h"

void
defer_init(Defer *defer, DeferFn *fn, void *arg)
{
	*defer = (Defer){.fn = fn, .arg = arg};
}

void
defer_queue(DeferQueue *queue, Defer *defer)
{
	k_assert(defer->fn != NULL);
	if (defer->queue != NULL)
		return;
	defer->queue = queue;
	defer->next = NULL;
	defer->prev = queue->tail;
	if (queue->tail != NULL)
		queue->tail->next = defer;
	else
		queue->head = defer;
	queue->tail = defer;
}

void
defer_cancel(Defer *defer)
{
	DeferQueue *queue = defer->queue;
	if (queue == NULL)
		return;
	if (defer->prev != NULL)
		defer->prev->next = defer->next;
	else
		queue->head = defer->next;
	if (defer->next != NULL)
		defer->next->prev = defer->prev;
	else
		queue->tail = defer->prev;
	defer->next = NULL;
	defer->prev = NULL;
	defer->queue = NULL;
}

bool
defer_run(DeferQueue *queue, unsigned rounds)
{
	for (; rounds > 0 && queue->head != NULL; rounds--) {
		/* A generation is a queue of its own, so that cancelling works inside it and what
		 * is queued meanwhile lands in the next one. */
		DeferQueue batch = *queue;
		*queue = (DeferQueue){0};
		for (Defer *defer = batch.head; defer != NULL; defer = defer->next)
			defer->queue = &batch;
		while (batch.head != NULL) {
			Defer *defer = batch.head;
			defer_cancel(defer);
			defer->fn(defer->arg); /* may free the object that holds `defer` */
		}
	}
	return queue->head == NULL;
}
