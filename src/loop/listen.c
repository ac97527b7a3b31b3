/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/listen.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/listen_int.h"

#define ACCEPTS_A_TURN 16 /* from a worker's own socket */
#define ACCEPTS_SHARED                                                                             \
	1 /* from one of all workers: each wakes up, and leaves something to the others */
#define PAUSE (100 * USEC_PER_MS) /* after running out of descriptors */

/* One socket on one worker.  Freed on that worker, after the message that started it. */
typedef struct Accepter {
	Listener *listener; /* valid while not closed */
	Worker *worker;
	int fd;
	int turn;  /* connections that it takes at a time */
	int spare; /* a descriptor to give up when there are no more; -1 = gone */
	bool closed;
	struct event *event;
	Timer pause;
} Accepter;

struct Listener {
	Workers *workers;
	uint16_t port;
	ListenerAcceptFn *fn;
	void *arg;
	GPtrArray *accepters; /* Accepter* */
	_Atomic(const char *) farewell;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned open; /* accepters not closed yet; under `lock` */
};

static int
open_spare(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void
accepter_pause(Accepter *accepter)
{
	(void)event_del(accepter->event);
	timer_set(&accepter->pause, PAUSE);
}

static void
on_pause_end(void *arg)
{
	Accepter *accepter = arg;
	if (accepter->spare < 0)
		accepter->spare = open_spare();
	k_assert(event_add(accepter->event, NULL) == 0);
}

/* No descriptors left.  One client is let in and put out, so that it knows; the rest waits in
 * the kernel's queue until the pause ends. */
static void
refuse_one(Accepter *accepter)
{
	if (accepter->spare >= 0) {
		(void)close(accepter->spare);
		int fd = accept4(accepter->fd, NULL, NULL, SOCK_CLOEXEC);
		const char *text = atomic_load(&accepter->listener->farewell);
		if (fd >= 0 && text != NULL)
			(void)send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
		if (fd >= 0)
			(void)close(fd);
		accepter->spare = open_spare();
	}
	accepter_pause(accepter);
}

/* False when there is nobody to accept for now. */
static bool
accept_one(Accepter *accepter)
{
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	int fd = accept4(accepter->fd, (struct sockaddr *)&from, &len,
			 SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0) {
		NetAddr peer;
		net_addr_from_sockaddr((const struct sockaddr *)&from, len, &peer);
		Listener *listener = accepter->listener;
		listener->fn(listener->arg, accepter->worker, fd, &peer);
		return true;
	}
	switch (errno) {
	case EAGAIN:
		return false;
	case EMFILE:
	case ENFILE:
		refuse_one(accepter);
		return false;
	case EINTR:
	case ECONNABORTED:
	case EPROTO:
	case EPERM: /* a firewall */
		return true;
	default: /* memory, or an error of the network on a connection that is gone */
		accepter_pause(accepter);
		return false;
	}
}

static void
on_accept(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	Accepter *accepter = arg;
	for (int i = 0; i < accepter->turn && accept_one(accepter); i++)
		;
}

static void
accepter_start(void *arg)
{
	Accepter *accepter = arg;
	if (accepter->closed)
		return;
	accepter->spare = open_spare();
	accepter->event = event_new(worker_base(accepter->worker), accepter->fd,
				    EV_READ | EV_PERSIST, on_accept, accepter);
	k_assert(accepter->event != NULL && event_add(accepter->event, NULL) == 0);
}

static void
accepter_close(Accepter *accepter)
{
	Listener *listener = accepter->listener;
	accepter->closed = true;
	accepter->listener = NULL;
	timer_clear(&accepter->pause);
	if (accepter->event != NULL)
		event_free(accepter->event);
	(void)close(accepter->fd);
	if (accepter->spare >= 0)
		(void)close(accepter->spare);
	(void)pthread_mutex_lock(&listener->lock);
	listener->open--;
	(void)pthread_cond_signal(&listener->changed);
	(void)pthread_mutex_unlock(&listener->lock);
}

/* Posted after accepter_start, so it comes after it. */
static void
accepter_end(void *arg)
{
	Accepter *accepter = arg;
	if (!accepter->closed)
		accepter_close(accepter);
	g_free(accepter);
}

static void
add_accepter(Listener *listener, Worker *worker, int fd, int turn)
{
	Accepter *accepter = g_new0(Accepter, 1);
	accepter->listener = listener;
	accepter->worker = worker;
	accepter->fd = fd;
	accepter->turn = turn;
	accepter->spare = -1;
	timer_init(&accepter->pause, worker, on_pause_end, accepter);
	g_ptr_array_add(listener->accepters, accepter);
	listener->open++;
}

static Listener *
listener_new(Workers *workers, uint16_t port, ListenerAcceptFn *fn, void *arg)
{
	Listener *listener = g_new0(Listener, 1);
	listener->workers = workers;
	listener->port = port;
	listener->fn = fn;
	listener->arg = arg;
	listener->accepters = g_ptr_array_new();
	k_assert(pthread_mutex_init(&listener->lock, NULL) == 0);
	k_assert(pthread_cond_init(&listener->changed, NULL) == 0);
	return listener;
}

static void
start_accepters(const Listener *listener)
{
	for (guint i = 0; i < listener->accepters->len; i++) {
		Accepter *accepter = listener->accepters->pdata[i];
		worker_post(accepter->worker, accepter_start, accepter);
	}
}

Listener *
listener_open(Workers *workers, const char *host, uint16_t port, ListenerAcceptFn *fn, void *arg,
	      GError **ret_error)
{
	Listener *listener = listener_new(workers, port, fn, arg);
	for (unsigned i = 0; i < workers_count(workers); i++) {
		g_autoptr(GArray) fds = NULL;
		if (!listen_bind(host, &listener->port, i == 0, &fds, ret_error)) {
			listener_free(listener);
			return NULL;
		}
		for (guint j = 0; j < fds->len; j++)
			add_accepter(listener, workers_get(workers, i), g_array_index(fds, int, j),
				     ACCEPTS_A_TURN);
	}
	start_accepters(listener);
	return listener;
}

Listener *
listener_open_fds(Workers *workers, const GArray *fds, ListenerAcceptFn *fn, void *arg)
{
	k_assert(fds->len > 0);
	unsigned count = workers_count(workers);
	Listener *listener = listener_new(workers, listen_port_of(g_array_index(fds, int, 0)), fn,
					  arg);
	for (guint i = 0; i < fds->len; i++) {
		int fd = g_array_index(fds, int, i);
		listen_no_delay(fd);
		for (unsigned j = 1; j < count; j++) {
			int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
			if (own < 0) /* the others serve it too */
				break;
			add_accepter(listener, workers_get(workers, j), own, ACCEPTS_SHARED);
		}
		add_accepter(listener, workers_get(workers, 0), fd,
			     count > 1 ? ACCEPTS_SHARED : ACCEPTS_A_TURN);
	}
	start_accepters(listener);
	return listener;
}

void
listener_set_farewell(Listener *listener, const char *text)
{
	atomic_store(&listener->farewell, text);
}

uint16_t
listener_port(const Listener *listener)
{
	return listener->port;
}

void
listener_free(Listener *listener)
{
	if (listener == NULL)
		return;
	k_assert(worker_current() == NULL);
	for (guint i = 0; i < listener->accepters->len; i++) {
		Accepter *accepter = listener->accepters->pdata[i];
		if (worker_is_here(accepter->worker)) /* its loop does not run */
			accepter_close(accepter);
		worker_post(accepter->worker, accepter_end, accepter);
	}
	(void)pthread_mutex_lock(&listener->lock);
	while (listener->open > 0)
		(void)pthread_cond_wait(&listener->changed, &listener->lock);
	(void)pthread_mutex_unlock(&listener->lock);
	(void)pthread_cond_destroy(&listener->changed);
	(void)pthread_mutex_destroy(&listener->lock);
	(void)g_ptr_array_free(listener->accepters, TRUE);
	g_free(listener);
}
