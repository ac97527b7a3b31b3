/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What other threads post to a worker: a mutex, a list that is taken as a whole, an eventfd.
 * Private to loop/.  inbox_put from any thread, the rest from the worker (or its tear-down). */
#include <pthread.h>
#include <stdbool.h>

#include "loop/worker.h"

typedef struct InboxItem {
	struct InboxItem *next;
	WorkerFn *fn;
	void *arg;
} InboxItem;

typedef struct Inbox {
	pthread_mutex_t lock;
	InboxItem *head; /* under `lock`, oldest first */
	InboxItem **tail;
	int wake_fd; /* readable while there may be something new */
} Inbox;

K_MUST_CHECK bool inbox_init(Inbox *inbox, GError **ret_error);
void inbox_clear(Inbox *inbox); /* drops what is left */
/* `wake` false: the caller is the worker itself and will look before it sleeps. */
void inbox_put(Inbox *inbox, WorkerFn *fn, void *arg, bool wake);
void inbox_wake(Inbox *inbox);
void inbox_rest(Inbox *inbox); /* resets the eventfd */
/* Runs what was posted up to now; true when there was something. */
bool inbox_run(Inbox *inbox);
