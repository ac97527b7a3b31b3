/* SPDX-License-Identifier: Apache-2.0 */
#include "pg_proxy.h"

#include <glib.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "store/pg_int.h"

#define LINES_MAX 32

typedef struct Line {
	int client, server; /* -1: free */
	bool held;
} Line;

struct PgProxy {
	char *path, *target;
	int listener;
	pthread_t thread;
	atomic_bool stop, refuse;
	atomic_int mode;
	atomic_uint times, cuts;
	Line lines[LINES_MAX];
};

static int
socket_at(const char *path, bool listening)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	g_strlcpy(address.sun_path, path, sizeof address.sun_path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int rc = listening ? bind(fd, (struct sockaddr *)&address, sizeof address)
			   : connect(fd, (struct sockaddr *)&address, sizeof address);
	if (rc == 0 && (!listening || listen(fd, 16) == 0))
		return fd;
	close(fd);
	return -1;
}

static void
cut(Line *line)
{
	if (line->client >= 0)
		close(line->client);
	if (line->server >= 0)
		close(line->server);
	line->client = line->server = -1;
}

static void
take_line(PgProxy *proxy)
{
	int client = accept(proxy->listener, NULL, NULL);
	int server = atomic_load(&proxy->refuse) ? -1 : socket_at(proxy->target, false);
	for (int i = 0; server >= 0 && i < LINES_MAX; i++) {
		Line *line = &proxy->lines[i];
		if (line->client >= 0)
			continue;
		*line = (Line){client, server, false};
		return;
	}
	if (server >= 0)
		close(server);
	close(client);
}

static void
write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
		if (n <= 0)
			return;
		data += n;
		len -= (size_t)n;
	}
}

/* A Bind message for the statement. */
static bool
binds(const char *data, size_t len, PgStmt stmt)
{
	char name[16];
	int n = g_snprintf(name, sizeof name, "%cs%d%c", 0, (int)stmt, 0);
	return memmem(data, len, name, (size_t)n) != NULL;
}

static void
forward(PgProxy *proxy, Line *line, bool from_client)
{
	char data[65536];
	ssize_t n = recv(from_client ? line->client : line->server, data, sizeof data, 0);
	if (n <= 0) {
		cut(line);
		return;
	}
	CutMode mode = (CutMode)atomic_load(&proxy->mode);
	bool hit = from_client && atomic_load(&proxy->times) > 0 &&
		   binds(data, (size_t)n, mode == HOLD_CLAIM ? PG_TX_LEASE : PG_COMMIT);
	if (!hit)
		mode = CUT_NONE;
	if (mode == HOLD_CLAIM) {
		line->held = true;
		atomic_fetch_sub(&proxy->times, 1);
		atomic_fetch_add(&proxy->cuts, 1);
		return;
	}
	if (mode != CUT_BEFORE_COMMIT)
		write_all(from_client ? line->server : line->client, data, (size_t)n);
	if (mode == CUT_NONE)
		return;
	if (mode == CUT_FOR_LONG)
		atomic_store(&proxy->refuse, true);
	atomic_fetch_sub(&proxy->times, 1);
	atomic_fetch_add(&proxy->cuts, 1);
	cut(line);
}

static void *
proxy_main(void *arg)
{
	PgProxy *proxy = arg;
	while (!atomic_load(&proxy->stop)) {
		struct pollfd items[1 + 2 * LINES_MAX] = {
			{.fd = proxy->listener, .events = POLLIN}};
		for (int i = 0; i < LINES_MAX; i++) {
			if (atomic_load(&proxy->refuse))
				cut(&proxy->lines[i]);
			const Line *line = &proxy->lines[i];
			items[1 + 2 * i] = (struct pollfd){line->held ? -1 : line->client, POLLIN,
							   0};
			items[2 + 2 * i] = (struct pollfd){line->held ? -1 : line->server, POLLIN,
							   0};
		}
		if (poll(items, G_N_ELEMENTS(items), 5) <= 0)
			continue;
		for (int i = 0; i < 2 * LINES_MAX; i++) {
			Line *line = &proxy->lines[i / 2];
			if (items[1 + i].revents != 0 && line->client >= 0)
				forward(proxy, line, i % 2 == 0);
		}
		if (items[0].revents != 0)
			take_line(proxy);
	}
	return NULL;
}

PgProxy *
pg_proxy_start(const char *dir)
{
	PgProxy *proxy = g_new0(PgProxy, 1);
	proxy->path = g_build_filename(dir, ".s.PGSQL.5433", NULL);
	proxy->target = g_build_filename(dir, ".s.PGSQL.5432", NULL);
	for (int i = 0; i < LINES_MAX; i++)
		proxy->lines[i] = (Line){-1, -1, false};
	proxy->listener = socket_at(proxy->path, true);
	g_assert(proxy->listener >= 0);
	g_assert(pthread_create(&proxy->thread, NULL, proxy_main, proxy) == 0);
	return proxy;
}

void
pg_proxy_cut(PgProxy *proxy, CutMode mode, unsigned times)
{
	atomic_store(&proxy->mode, mode);
	atomic_store(&proxy->times, times);
}

unsigned
pg_proxy_cuts(PgProxy *proxy)
{
	return atomic_load(&proxy->cuts);
}

void
pg_proxy_refuse(PgProxy *proxy, bool refuse)
{
	atomic_store(&proxy->refuse, refuse);
}

void
pg_proxy_stop(PgProxy *proxy)
{
	atomic_store(&proxy->stop, true);
	pthread_join(proxy->thread, NULL);
	for (int i = 0; i < LINES_MAX; i++)
		cut(&proxy->lines[i]);
	close(proxy->listener);
	(void)g_unlink(proxy->path);
	g_free(proxy->path);
	g_free(proxy->target);
	g_free(proxy);
}
