/* SPDX-License-Identifier: Apache-2.0 */
/* Telling other processes that something is due, and hearing it from them.  Only a hint: what the
 * server does not know, or what is lost while it is away, is found by polling. */
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "loop/thread.h"
#include "store/pg_int.h"

#define AGAIN_MIN   (1 * USEC_PER_SEC)
#define AGAIN_MAX   (60 * USEC_PER_SEC)
#define CONNECT_MAX (2 * USEC_PER_SEC)

struct PgHint {
	char *url;
	Store *store;
	pthread_t thread;
	int wake; /* eventfd */
	atomic_bool stop, tell;
	/* the thread's: */
	PGconn *conn;
	Usec again; /* until the next attempt to connect */
};

static void
wake_up(const PgHint *hint)
{
	const uint64_t one = 1;
	k_assert(write(hint->wake, &one, sizeof one) == (ssize_t)sizeof one);
}

/* True: woken, or the server spoke. */
static bool
sleep_for(const PgHint *hint, Usec span)
{
	struct pollfd items[] = {
		{.fd = hint->wake, .events = POLLIN},
		{.fd = hint->conn != NULL ? PQsocket(hint->conn) : -1, .events = POLLIN}};
	if (poll(items, 2, span < 0 ? -1 : (int)(span / USEC_PER_MS)) <= 0)
		return false;
	uint64_t count;
	if ((items[0].revents & POLLIN) != 0)
		(void)!read(hint->wake, &count, sizeof count);
	return true;
}

static void
leave(PgHint *hint)
{
	PQfinish(hint->conn);
	hint->conn = NULL;
}

static void
listen_up(PgHint *hint)
{
	hint->conn = pg_connect_raw(hint->url, clock_after(CONNECT_MAX), NULL);
	if (hint->conn != NULL && pg_exec_raw(hint->conn, "LISTEN koukan", NULL)) {
		hint->again = 0;
		store_hint(hint->store); /* what was said meanwhile was not heard */
		return;
	}
	leave(hint);
	hint->again = CLAMP(2 * hint->again, AGAIN_MIN, AGAIN_MAX);
}

static void
hear(PgHint *hint)
{
	bool heard = false;
	if (PQconsumeInput(hint->conn) == 0) {
		leave(hint);
		hint->again = AGAIN_MIN;
		return;
	}
	PGnotify *notify;
	while ((notify = PQnotifies(hint->conn)) != NULL) {
		heard |= notify->be_pid != PQbackendPID(hint->conn);
		PQfreemem(notify);
	}
	if (heard)
		store_hint(hint->store);
}

static void *
hint_main(void *arg)
{
	PgHint *hint = arg;
	while (!atomic_load(&hint->stop)) {
		if (hint->conn == NULL)
			listen_up(hint);
		if (hint->conn != NULL && atomic_exchange(&hint->tell, false) &&
		    !pg_exec_raw(hint->conn, "NOTIFY koukan", NULL)) {
			leave(hint);
			hint->again = AGAIN_MIN;
		}
		if (hint->conn != NULL)
			hear(hint);
		if (!atomic_load(&hint->stop) && (hint->conn == NULL || !atomic_load(&hint->tell)))
			(void)sleep_for(hint, hint->conn != NULL ? -1 : hint->again);
	}
	leave(hint);
	return NULL;
}

PgHint *
pg_hint_start(const char *url, Store *store)
{
	PgHint *hint = g_new0(PgHint, 1);
	hint->url = g_strdup(url);
	hint->store = store;
	hint->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (hint->wake >= 0 && thread_start(&hint->thread, "store-hint", hint_main, hint) == 0)
		return hint;
	if (hint->wake >= 0)
		close(hint->wake);
	g_free(hint->url);
	g_free(hint);
	return NULL;
}

void
pg_hint_tell(PgHint *hint)
{
	if (hint != NULL && !atomic_exchange(&hint->tell, true))
		wake_up(hint);
}

void
pg_hint_stop(PgHint *hint)
{
	if (hint == NULL)
		return;
	atomic_store(&hint->stop, true);
	wake_up(hint);
	k_assert(pthread_join(hint->thread, NULL) == 0);
	close(hint->wake);
	g_free(hint->url);
	g_free(hint);
}
