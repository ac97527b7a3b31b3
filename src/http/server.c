/* SPDX-License-Identifier: Apache-2.0 */
#include "http/server.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"
#include "base/metrics.h"
#include "http/server_int.h"
#include "loop/listen.h"

#define RUNS_PER_TURN 8
#define POOL_SPARE    (16 * 1024)  /* of a connection's memory: what the daemon itself needs */
#define GONE_AFTER    USEC_PER_SEC /* a request that waits this long has its client watched */
#define SLOWEST_RATE  1024         /* bytes a second that buy another second */

/* ---- connections ---- */

void
http_conn_phase(HttpConn *conn, HttpPhase phase)
{
	conn->phase = phase;
	conn->since = clock_mono();
	if (conn->closed_event != NULL && phase != HTTP_PHASE_WAIT) {
		event_free(conn->closed_event);
		conn->closed_event = NULL;
	}
}

static HttpConn *
conn_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
		mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	return info->socket_context;
}

static void
conn_open(HttpSite *site, struct MHD_Connection *mhd, void **context)
{
	HttpConn *conn = g_new0(HttpConn, 1);
	conn->site = site;
	conn->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	conn->next = site->conns;
	if (conn->next != NULL)
		conn->next->prev = conn;
	site->conns = conn;
	site->n_conns++;
	metric_add(METRIC_HTTP_ACCEPTED, 1);
	http_conn_phase(conn, HTTP_PHASE_HEAD);
	conn->deadline = conn->since + site->server->options.head_timeout;
	if (!timer_is_set(&site->sweep))
		timer_set(&site->sweep, site->sweep_every);
	*context = conn;
}

static void
conn_close(HttpConn *conn)
{
	HttpSite *site = conn->site;
	if (conn->next != NULL)
		conn->next->prev = conn->prev;
	if (conn->prev != NULL)
		conn->prev->next = conn->next;
	else
		site->conns = conn->next;
	site->n_conns--;
	metric_add(METRIC_HTTP_CLOSED, 1);
	if (conn->linger && !site->closing)
		http_linger(site, conn->fd);
	if (conn->closed_event != NULL)
		event_free(conn->closed_event);
	http_peer_free(conn->peer);
	g_free(conn);
}

static void
on_connection(void *cls, struct MHD_Connection *mhd, void **context,
	      enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		conn_open(cls, mhd, context);
	else if (*context != NULL)
		conn_close(g_steal_pointer(context));
}

/* ---- requests, as the daemon reports them ---- */

static void *
on_target(void *cls, const char *uri, struct MHD_Connection *mhd)
{
	HttpSite *site = cls;
	HttpConn *conn = conn_of(mhd);
	conn->deadline = MIN(conn->deadline, clock_mono() + site->server->options.head_timeout);
	conn->request = http_request_new(conn, uri);
	return conn->request;
}

static size_t
on_unescape(void *cls, struct MHD_Connection *mhd, char *text)
{
	(void)cls;
	(void)mhd;
	return strlen(text); /* escapes are decoded strictly, and only in the path, by us */
}

static enum MHD_Result
on_access(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
	  const char *version, const char *data, size_t *size, void **context)
{
	(void)cls;
	(void)url;
	HttpRequest *request = *context;
	k_assert(request != NULL);
	if (request->mhd == NULL)
		return http_request_begin(request, mhd, method, version);
	if (*size > 0)
		return http_request_data(request, data, size);
	return http_request_end(request);
}

static void
on_completed(void *cls, struct MHD_Connection *mhd, void **context,
	     enum MHD_RequestTerminationCode code)
{
	(void)mhd;
	(void)code;
	const HttpSite *site = cls;
	HttpRequest *request = g_steal_pointer(context);
	if (request == NULL)
		return;
	HttpConn *conn = request->conn;
	conn->request = NULL;
	http_conn_phase(conn, HTTP_PHASE_HEAD);
	conn->deadline = conn->since + site->server->options.idle_timeout;
	http_request_detach(request);
}

/* ---- running the daemon ---- */

static void
site_run(HttpSite *site)
{
	MHD_UNSIGNED_LONG_LONG ms = 0;
	for (int i = 0; i < RUNS_PER_TURN; i++) {
		(void)MHD_run(site->daemon);
		if (MHD_get_timeout(site->daemon, &ms) != MHD_YES)
			return;
		if (ms > 0)
			break;
	}
	struct timeval tv = {.tv_sec = (time_t)(ms / 1000),
			     .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
	event_add(site->again, &tv);
}

static void
on_run(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	site_run(arg);
}

void
http_site_kick(HttpSite *site)
{
	if (!site->closing && site->run != NULL)
		event_active(site->run, EV_READ, 0);
}

void
http_send_plain(int fd, const char *status, const char *why)
{
	char text[512];
	int len = g_snprintf(text, sizeof(text),
			     "HTTP/1.1 %s\r\n%scontent-length: %zu\r\nconnection: close\r\n\r\n%s",
			     status,
			     why != NULL ? "content-type: text/plain; charset=utf-8\r\n" : "",
			     why != NULL ? strlen(why) : 0, why != NULL ? why : "");
	ssize_t sent = send(fd, text, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)sent;
}

/* ---- deadlines ---- */

static Usec
span_for(uint64_t bytes)
{
	return (Usec)(bytes / SLOWEST_RATE) * USEC_PER_SEC;
}

static void
on_client_closed(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	HttpConn *conn = arg;
	event_free(g_steal_pointer(&conn->closed_event));
	if (conn->request != NULL)
		http_request_gone(conn->request);
}

static void
watch_client(HttpConn *conn)
{
	if (conn->request == NULL || conn->request->gone_fn == NULL)
		return;
	conn->closed_event = event_new(worker_base(conn->site->worker), conn->fd, EV_CLOSED,
				       on_client_closed, conn);
	k_assert(conn->closed_event != NULL);
	event_add(conn->closed_event, NULL);
}

/* Ends a connection whose client is too slow; the daemon sees the end of the stream. */
static void
conn_cut(HttpConn *conn)
{
	if (!conn->site->server->tls && conn->request != NULL && conn->phase < HTTP_PHASE_REPLY)
		http_send_plain(conn->fd, "408 Request Timeout", NULL);
	(void)shutdown(conn->fd, SHUT_RDWR);
	http_site_kick(conn->site);
}

static void
conn_sweep(HttpConn *conn, Deadline now)
{
	const HttpServerOptions *options = &conn->site->server->options;
	const HttpRequest *request = conn->request;
	switch (conn->phase) {
	case HTTP_PHASE_HEAD:
		if (now >= conn->deadline)
			conn_cut(conn);
		break;
	case HTTP_PHASE_BODY:
		if (!request->paused && now >= conn->since + options->body_timeout +
							request->paused_for +
							span_for(request->received))
			conn_cut(conn);
		break;
	case HTTP_PHASE_WAIT:
		if (conn->closed_event == NULL && now >= conn->since + GONE_AFTER)
			watch_client(conn);
		break;
	case HTTP_PHASE_REPLY:
		if (now >= conn->since + options->write_timeout +
				   span_for(request != NULL ? request->response_len : 0))
			conn_cut(conn);
		break;
	}
}

static void
site_sweep(void *arg)
{
	HttpSite *site = arg;
	Deadline now = clock_mono();
	for (HttpConn *conn = site->conns; conn != NULL; conn = conn->next)
		conn_sweep(conn, now);
	if (site->accept_paused) {
		site->accept_paused = false;
		for (guint i = 0; i < site->accepts->len; i++)
			event_add(g_ptr_array_index(site->accepts, i), NULL);
	}
	if (site->conns != NULL)
		timer_set(&site->sweep, site->sweep_every);
}

/* ---- sites ---- */

static bool
site_start_daemon(HttpSite *site, GError **ret_error)
{
	const HttpServer *server = site->server;
	unsigned flags = MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME |
			 MHD_USE_TURBO;
	struct MHD_OptionItem tls[] = {
		{MHD_OPTION_HTTPS_MEM_KEY, 0, server->key},
		{MHD_OPTION_HTTPS_MEM_CERT, 0, server->cert},
		{server->client_ca != NULL ? MHD_OPTION_HTTPS_MEM_TRUST : MHD_OPTION_END, 0,
		 server->client_ca},
		{MHD_OPTION_END, 0, NULL},
	};
	if (server->tls)
		flags |= MHD_USE_TLS;
	else
		tls[0].option = MHD_OPTION_END;
	site->daemon = MHD_start_daemon(
		flags, 0, NULL, NULL, on_access, site, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
		site, MHD_OPTION_NOTIFY_COMPLETED, on_completed, site, MHD_OPTION_URI_LOG_CALLBACK,
		on_target, site, MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, site,
		MHD_OPTION_STRICT_FOR_CLIENT, 0, MHD_OPTION_CONNECTION_LIMIT,
		server->options.connections_max, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		server->options.head_max + server->options.uri_max + POOL_SPARE, MHD_OPTION_ARRAY,
		tls, MHD_OPTION_END);
	if (site->daemon == NULL)
		return error_set(ret_error, server->tls ? K_ERROR_TLS : K_ERROR_IO,
				 "HTTP server does not start%s",
				 server->tls ? " (are certificate and key a pair?)" : "");
	return true;
}

static HttpSite *
site_new(HttpServer *server, Worker *worker)
{
	HttpSite *site = g_new0(HttpSite, 1);
	site->server = server;
	site->worker = worker;
	site->accepts = g_ptr_array_new();
	timer_init(&site->sweep, worker, site_sweep, site);
	const HttpServerOptions *o = &server->options;
	Usec least = MIN(MIN(o->head_timeout, o->idle_timeout),
			 MIN(o->body_timeout, o->write_timeout));
	site->sweep_every = CLAMP(least / 4, 10 * USEC_PER_MS, USEC_PER_SEC);
	return site;
}

static void
site_destroy(HttpSite *site)
{
	for (guint i = 0; site->fds != NULL && i < site->fds->len; i++)
		close(g_array_index(site->fds, int, i));
	if (site->fds != NULL)
		g_array_free(site->fds, TRUE);
	g_ptr_array_free(site->accepts, TRUE);
	g_free(site);
}

/* On its worker: begins to accept. */
static void
site_attach(void *arg)
{
	HttpSite *site = arg;
	site->posted = false;
	if (site->closing) {
		site_destroy(site); /* the server was freed before the workers ran */
		return;
	}
	struct event_base *base = worker_base(site->worker);
	int epoll = MHD_get_daemon_info(site->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
	site->run = event_new(base, epoll, EV_READ | EV_PERSIST, on_run, site);
	site->again = event_new(base, -1, 0, on_run, site);
	k_assert(site->run != NULL && site->again != NULL);
	event_add(site->run, NULL);
	for (guint i = 0; i < site->fds->len; i++) {
		int fd = g_array_index(site->fds, int, i);
		struct event *event = event_new(base, fd, EV_READ | EV_PERSIST, http_on_accept,
						site);
		k_assert(event != NULL);
		event_add(event, NULL);
		g_ptr_array_add(site->accepts, event);
	}
}

/* On its worker: ends all connections. */
static void
site_detach(void *arg)
{
	HttpSite *site = arg;
	site->closing = true;
	timer_clear(&site->sweep);
	for (guint i = 0; i < site->accepts->len; i++)
		event_free(g_ptr_array_index(site->accepts, i));
	g_ptr_array_set_size(site->accepts, 0);
	for (HttpConn *conn = site->conns; conn != NULL; conn = conn->next) {
		if (conn->request != NULL && conn->request->begun)
			http_request_abandon(conn->request);
	}
	for (int i = 0; i < RUNS_PER_TURN && site->conns != NULL; i++)
		(void)MHD_run(site->daemon);
	while (site->fronts != NULL)
		http_front_close(site->fronts);
	while (site->lingers != NULL)
		http_linger_free(site->lingers);
	MHD_stop_daemon(site->daemon);
	site->daemon = NULL;
	g_clear_pointer(&site->run, event_free);
	g_clear_pointer(&site->again, event_free);
}

/* A call carried out on a worker while the caller waits. */
typedef struct Call {
	HttpSite *site;
	int done_fd;
} Call;

static void
call_run(void *arg)
{
	const Call *call = arg;
	site_detach(call->site);
	uint64_t one = 1;
	ssize_t rc;
	do
		rc = write(call->done_fd, &one, sizeof(one));
	while (rc < 0 && errno == EINTR);
	k_assert(rc == (ssize_t)sizeof(one));
}

static void
site_detach_and_wait(HttpSite *site)
{
	if (worker_is_here(site->worker)) {
		site_detach(site);
		return;
	}
	Call call = {.site = site, .done_fd = eventfd(0, EFD_CLOEXEC)};
	k_assert(call.done_fd >= 0);
	worker_post(site->worker, call_run, &call);
	uint64_t count = 0;
	ssize_t rc;
	do
		rc = read(call.done_fd, &count, sizeof(count));
	while (rc < 0 && errno == EINTR);
	k_assert(rc == (ssize_t)sizeof(count));
	close(call.done_fd);
}

static void
site_free(HttpSite *site)
{
	if (site->daemon != NULL)
		site_detach_and_wait(site);
	if (!site->posted)
		site_destroy(site);
}

/* ---- the server ---- */

static void
options_fill(HttpServerOptions *o)
{
	o->connections_max = o->connections_max != 0 ? o->connections_max : 4096;
	o->head_max = o->head_max != 0 ? o->head_max : 32 * 1024;
	o->uri_max = o->uri_max != 0 ? o->uri_max : 8 * 1024;
	o->head_timeout = o->head_timeout != 0 ? o->head_timeout : 30 * USEC_PER_SEC;
	o->idle_timeout = o->idle_timeout != 0 ? o->idle_timeout : 60 * USEC_PER_SEC;
	o->body_timeout = o->body_timeout != 0 ? o->body_timeout : 60 * USEC_PER_SEC;
	o->write_timeout = o->write_timeout != 0 ? o->write_timeout : 60 * USEC_PER_SEC;
}

static bool
load_tls(HttpServer *server, const HttpServerOptions *options, GError **ret_error)
{
	if (options->cert_path == NULL && options->key_path == NULL)
		return true;
	if (options->cert_path == NULL || options->key_path == NULL)
		return error_set(ret_error, K_ERROR_CONFIG,
				 "TLS needs both a certificate and a key");
	server->tls = true;
	if (options->client_ca_path != NULL &&
	    !g_file_get_contents(options->client_ca_path, &server->client_ca, NULL, ret_error))
		return false;
	return g_file_get_contents(options->cert_path, &server->cert, NULL, ret_error) &&
	       g_file_get_contents(options->key_path, &server->key, NULL, ret_error);
}

static bool
server_bind(HttpServer *server, Workers *workers, GError **ret_error)
{
	server->port = server->options.port;
	for (unsigned i = 0; i < workers_count(workers); i++) {
		HttpSite *site = site_new(server, workers_get(workers, i));
		g_ptr_array_add(server->sites, site);
		if (!listener_bind_all(server->options.host, &server->port, &site->fds, ret_error))
			return false;
	}
	for (unsigned i = 0; i < server->sites->len; i++) {
		if (!site_start_daemon(g_ptr_array_index(server->sites, i), ret_error))
			return false;
	}
	return true;
}

HttpServer *
http_server_open(Workers *workers, const HttpServerOptions *options, HttpHandlerFn *handler,
		 void *arg, GError **ret_error)
{
	HttpServer *server = g_new0(HttpServer, 1);
	server->options = *options;
	options_fill(&server->options);
	server->handler = handler;
	server->arg = arg;
	server->sites = g_ptr_array_new();
	server->layout = http_layout_is_known();
	bool ok = load_tls(server, options, ret_error) && server_bind(server, workers, ret_error);
	server->options.host = server->options.cert_path = server->options.key_path = NULL;
	server->options.client_ca_path = NULL;
	if (!ok) {
		http_server_free(server);
		return NULL;
	}
	for (unsigned i = 0; i < server->sites->len; i++) {
		HttpSite *site = g_ptr_array_index(server->sites, i);
		site->posted = true;
		worker_post(site->worker, site_attach, site);
	}
	return server;
}

unsigned
http_connections(void)
{
	uint64_t closed = metric_value(METRIC_HTTP_CLOSED); /* first, so that it is not more */
	return (unsigned)(metric_value(METRIC_HTTP_ACCEPTED) - closed);
}

uint16_t
http_server_port(const HttpServer *server)
{
	return server->port;
}

bool
http_server_is_tls(const HttpServer *server)
{
	return server->tls;
}

void
http_server_free(HttpServer *server)
{
	if (server == NULL)
		return;
	for (unsigned i = 0; i < server->sites->len; i++)
		site_free(g_ptr_array_index(server->sites, i));
	g_ptr_array_free(server->sites, TRUE);
	g_free(server->cert);
	g_free(server->key);
	g_free(server->client_ca);
	g_free(server);
}
