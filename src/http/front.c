/* SPDX-License-Identifier: Apache-2.0 */
/* Accepting.  The first head of a plain connection is looked at raw, before libmicrohttpd gets the
 * connection: it forgives things that we do not (bare line feeds, continued lines, NULs), and of
 * some others it complains in a garbled way (0.9.75 sends the head of such an answer twice).  What
 * has not come in one piece, and all that follows on the connection, is judged by framing.c alone.
 */
#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

#include "base/metrics.h"
#include "http/server_int.h"

#define ACCEPTS_PER_TURN 64
#define PEEK_MAX         8192

struct HttpFront {
	HttpSite *site;
	HttpFront *next, *prev;
	int fd;
	struct sockaddr_storage peer;
	socklen_t peer_len;
	struct event *event; /* NULL: not waited for */
};

/* Gives up the descriptor. */
static void
front_free(HttpFront *front)
{
	HttpSite *site = front->site;
	if (front->next != NULL)
		front->next->prev = front->prev;
	if (front->prev != NULL)
		front->prev->next = front->next;
	else
		site->fronts = front->next;
	site->n_fronts--;
	if (front->event != NULL)
		event_free(front->event);
	g_free(front);
}

void
http_front_close(HttpFront *front)
{
	close(front->fd);
	front_free(front);
}

static void
refuse(HttpFront *front, const char *bad)
{
	http_send_plain(front->fd, "400 Bad Request", bad);
	(void)shutdown(front->fd, SHUT_WR);
	http_linger(front->site, front->fd);
	http_front_close(front);
}

/* Something has come, or the client has gone: either is for the daemon, unless it is wrong. */
static void
front_judge(HttpFront *front)
{
	char head[PEEK_MAX];
	HttpSite *site = front->site;
	ssize_t got = recv(front->fd, head, sizeof(head), MSG_PEEK | MSG_DONTWAIT);
	bool complete = false;
	const char *bad = got > 0 ? http_head_check(head, (size_t)got, &complete) : NULL;
	if (bad != NULL) {
		refuse(front, bad);
		return;
	}
	(void)MHD_add_connection(site->daemon, front->fd, (struct sockaddr *)&front->peer,
				 front->peer_len);
	front_free(front);
	http_site_kick(site);
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	if ((what & EV_READ) != 0)
		front_judge(arg);
	else
		http_front_close(arg); /* silent for too long */
}

/* Clients mostly speak at once; those that do not are waited for. */
static void
front_begin(HttpFront *front)
{
	HttpSite *site = front->site;
	char byte;
	ssize_t got = recv(front->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (got >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
		front_judge(front);
		return;
	}
	Usec span = site->server->options.head_timeout;
	struct timeval tv = {.tv_sec = span / USEC_PER_SEC, .tv_usec = span % USEC_PER_SEC};
	front->event = event_new(worker_base(site->worker), front->fd, EV_READ, on_readable, front);
	k_assert(front->event != NULL);
	event_add(front->event, &tv);
}

static HttpFront *
front_new(HttpSite *site, int fd, const struct sockaddr_storage *peer, socklen_t len)
{
	HttpFront *front = g_new0(HttpFront, 1);
	front->site = site;
	front->fd = fd;
	front->peer = *peer;
	front->peer_len = len;
	front->next = site->fronts;
	if (front->next != NULL)
		front->next->prev = front;
	site->fronts = front;
	site->n_fronts++;
	return front;
}

/* Out of descriptors: the sweep lets us go on. */
static void
pause_accepting(HttpSite *site)
{
	for (guint i = 0; i < site->accepts->len; i++)
		event_del(g_ptr_array_index(site->accepts, i));
	site->accept_paused = true;
	timer_set(&site->sweep, site->sweep_every);
}

void
http_on_accept(evutil_socket_t listener, short what, void *arg)
{
	(void)what;
	HttpSite *site = arg;
	bool tls = site->server->tls;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		struct sockaddr_storage peer;
		socklen_t len = sizeof(peer);
		int fd = accept4(listener, (struct sockaddr *)&peer, &len,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
			    errno == ENOBUFS)
				pause_accepting(site);
			break;
		}
		if (site->n_conns + site->n_fronts >= site->server->options.connections_max) {
			metric_add(METRIC_HTTP_REFUSED, 1);
			if (!tls)
				http_send_plain(fd, "503 Service Unavailable", NULL);
			close(fd);
		} else if (tls) {
			(void)MHD_add_connection(site->daemon, fd, (struct sockaddr *)&peer, len);
		} else {
			front_begin(front_new(site, fd, &peer, len));
		}
	}
	http_site_kick(site);
}
