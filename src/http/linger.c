/* SPDX-License-Identifier: Apache-2.0 */
/* A connection that was refused in the middle of its request: closing it while bytes of the client
 * are unread would reset it and could take our answer away from under the client's eyes (RFC 9112
 * 9.6).  So a copy of the descriptor is read and dropped for a while. */
#include <fcntl.h>
#include <unistd.h>

#include "http/server_int.h"

#define LINGER_TIME  (2 * USEC_PER_SEC)
#define LINGER_BYTES (64 * 1024 * 1024)
#define LINGERS_MAX  256 /* of one site */

struct HttpLinger {
	HttpSite *site;
	HttpLinger *next, *prev;
	int fd;
	struct event *event;
	Deadline until;
	size_t dropped;
};

void
http_linger_free(HttpLinger *linger)
{
	HttpSite *site = linger->site;
	if (linger->next != NULL)
		linger->next->prev = linger->prev;
	if (linger->prev != NULL)
		linger->prev->next = linger->next;
	else
		site->lingers = linger->next;
	site->n_lingers--;
	event_free(linger->event);
	close(linger->fd);
	g_free(linger);
}

static void
on_bytes(evutil_socket_t fd, short what, void *arg)
{
	HttpLinger *linger = arg;
	char drop[16384];
	ssize_t got = 1;
	while ((what & EV_READ) != 0 && linger->dropped < LINGER_BYTES &&
	       (got = recv(fd, drop, sizeof(drop), MSG_DONTWAIT)) > 0)
		linger->dropped += (size_t)got;
	if ((what & EV_READ) == 0 || got == 0 || linger->dropped >= LINGER_BYTES ||
	    clock_passed(linger->until)) {
		http_linger_free(linger);
		return;
	}
	const struct timeval rest = {.tv_sec = 0, .tv_usec = 500 * 1000};
	event_add(linger->event, &rest);
}

void
http_linger(HttpSite *site, int fd)
{
	if (site->n_lingers >= LINGERS_MAX)
		return;
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0)
		return;
	HttpLinger *linger = g_new0(HttpLinger, 1);
	linger->site = site;
	linger->fd = copy;
	linger->until = clock_after(LINGER_TIME);
	linger->event = event_new(worker_base(site->worker), copy, EV_READ, on_bytes, linger);
	k_assert(linger->event != NULL);
	linger->next = site->lingers;
	if (linger->next != NULL)
		linger->next->prev = linger;
	site->lingers = linger;
	site->n_lingers++;
	const struct timeval wait = {.tv_sec = LINGER_TIME / USEC_PER_SEC};
	event_add(linger->event, &wait);
}
