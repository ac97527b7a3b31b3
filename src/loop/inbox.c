/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/inbox.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"

bool
inbox_init(Inbox *inbox, GError **ret_error)
{
	*inbox = (Inbox){.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	inbox->tail = &inbox->head;
	if (inbox->wake_fd < 0)
		return error_set_errno(ret_error, K_ERROR_IO, errno, "eventfd");
	k_assert(pthread_mutex_init(&inbox->lock, NULL) == 0);
	return true;
}

static InboxItem *
inbox_take(Inbox *inbox)
{
	(void)pthread_mutex_lock(&inbox->lock);
	InboxItem *items = inbox->head;
	inbox->head = NULL;
	inbox->tail = &inbox->head;
	(void)pthread_mutex_unlock(&inbox->lock);
	return items;
}

void
inbox_clear(Inbox *inbox)
{
	if (inbox->wake_fd < 0)
		return;
	for (InboxItem *item = inbox_take(inbox); item != NULL;) {
		InboxItem *next = item->next;
		g_free(item);
		item = next;
	}
	(void)pthread_mutex_destroy(&inbox->lock);
	(void)close(inbox->wake_fd);
	inbox->wake_fd = -1;
}

void
inbox_wake(Inbox *inbox)
{
	uint64_t one = 1;
	ssize_t put;
	do
		put = write(inbox->wake_fd, &one, sizeof(one));
	while (put < 0 && errno == EINTR);
	/* EAGAIN means the counter is full, so the worker is awake anyway. */
	k_assert(put == sizeof(one) || errno == EAGAIN);
}

void
inbox_put(Inbox *inbox, WorkerFn *fn, void *arg, bool wake)
{
	InboxItem *item = g_new(InboxItem, 1);
	*item = (InboxItem){.fn = fn, .arg = arg};
	(void)pthread_mutex_lock(&inbox->lock);
	bool was_empty = inbox->head == NULL;
	*inbox->tail = item;
	inbox->tail = &item->next;
	(void)pthread_mutex_unlock(&inbox->lock);
	/* When it was not empty, whoever put the first item has woken the worker already, or is
	 * the worker. */
	if (was_empty && wake)
		inbox_wake(inbox);
}

void
inbox_rest(Inbox *inbox)
{
	uint64_t count;
	ssize_t got = read(inbox->wake_fd, &count, sizeof(count));
	(void)got; /* EAGAIN: nothing was there */
}

bool
inbox_run(Inbox *inbox)
{
	InboxItem *items = inbox_take(inbox);
	bool any = items != NULL;
	while (items != NULL) {
		InboxItem *item = items;
		items = item->next;
		WorkerFn *fn = item->fn;
		void *arg = item->arg;
		g_free(item);
		fn(arg);
	}
	return any;
}
