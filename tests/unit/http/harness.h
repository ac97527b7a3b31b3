/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the HTTP and REST tests share: work done on a worker while the test waits, a latch, and a
 * raw socket that speaks HTTP badly on purpose.  Included once a test program. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "loop/worker.h"

#define HARNESS_WAIT_SEC 20

/* Opened by any thread, waited for by the test. */
typedef struct Latch {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int count;
} Latch;

#define LATCH_INIT                                                                                 \
	{                                                                                          \
		PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0                             \
	}

static inline void
latch_open(Latch *latch)
{
	pthread_mutex_lock(&latch->lock);
	latch->count++;
	pthread_cond_broadcast(&latch->changed);
	pthread_mutex_unlock(&latch->lock);
}

/* True when it was opened `count` times in all before the time was up. */
static inline bool
latch_wait(Latch *latch, int count)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += HARNESS_WAIT_SEC;
	pthread_mutex_lock(&latch->lock);
	int rc = 0;
	while (latch->count < count && rc == 0)
		rc = pthread_cond_timedwait(&latch->changed, &latch->lock, &until);
	bool open = latch->count >= count;
	pthread_mutex_unlock(&latch->lock);
	return open;
}

static inline int
latch_count(Latch *latch)
{
	pthread_mutex_lock(&latch->lock);
	int count = latch->count;
	pthread_mutex_unlock(&latch->lock);
	return count;
}

typedef struct OnWorker {
	WorkerFn *fn;
	void *arg;
	Latch latch;
} OnWorker;

static inline void
on_worker_run(void *arg)
{
	OnWorker *job = arg;
	job->fn(job->arg);
	latch_open(&job->latch);
}

/* Runs fn(arg) on the worker and waits for its end. */
static inline void
on_worker(Worker *worker, WorkerFn *fn, void *arg)
{
	OnWorker job = {fn, arg, LATCH_INIT};
	worker_post(worker, on_worker_run, &job);
	k_assert(latch_wait(&job.latch, 1));
}

/* ---- raw sockets ---- */

static inline int
raw_connect(uint16_t port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	k_assert(fd >= 0);
	k_assert(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
	return fd;
}

static inline void
raw_send(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);
		if (sent <= 0)
			return; /* the server may close early */
		data += sent;
		len -= (size_t)sent;
	}
}

/* Reads until the peer closes, `want` appears or `ms` pass without a byte; NUL-terminated. */
static inline char *
raw_read(int fd, const char *want, int ms)
{
	GString *text = g_string_new(NULL);
	char buf[4096];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	while (poll(&p, 1, ms) == 1) {
		ssize_t got = recv(fd, buf, sizeof(buf), 0);
		if (got <= 0)
			break;
		g_string_append_len(text, buf, got);
		if (want != NULL && strstr(text->str, want) != NULL)
			break;
	}
	return g_string_free(text, FALSE);
}

/* Until `want`, then until the peer closes, which it does sooner when we send no more. */
static inline char *
raw_read_all(int fd, const char *want, int ms)
{
	g_autofree char *first = raw_read(fd, want, ms);
	shutdown(fd, SHUT_WR);
	g_autofree char *rest = raw_read(fd, NULL, ms);
	return g_strconcat(first, rest, NULL);
}

/* True when the peer closes within `ms`; what comes before is dropped. */
static inline bool
raw_closed(int fd, int ms)
{
	char buf[4096];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	while (poll(&p, 1, ms) == 1) {
		if (recv(fd, buf, sizeof(buf), 0) <= 0)
			return true;
	}
	return false;
}

/* The status of the first answer in `text`; 0 when there is none. */
static inline int
raw_status(const char *text)
{
	return g_str_has_prefix(text, "HTTP/1.1 ") ? (int)g_ascii_strtoll(text + 9, NULL, 10) : 0;
}

/* How many answers there are. */
static inline int
raw_answers(const char *text)
{
	int n = 0;
	while ((text = strstr(text, "HTTP/1.1 ")) != NULL) {
		n++;
		text += 9;
	}
	return n;
}
