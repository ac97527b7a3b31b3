/* SPDX-License-Identifier: Apache-2.0 */
#include "live.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"

const char *live_case = "";

/* ---- the backend ---- */

/* Answers by local part: "perm..." 550, "temp..." 450, "hang..." never, "odd..." 354, else 250; a
 * MAIL FROM the same; the message by the first recipient's local part: "dataperm", "datatemp",
 * "datahang", "early" (550 as soon as three bytes of the body are there). */
typedef struct BackendPort {
	TxPort port; /* first */
	Live *live;
	Tx *tx;
	TxWatch watch;
	size_t answered;
	bool done;
} BackendPort;

static Response *
verdict(const char *addr, const char *prefix)
{
	if (!g_str_has_prefix(addr, prefix))
		return response_new(250, NULL);
	addr += strlen(prefix);
	if (g_str_has_prefix(addr, "perm"))
		return response_new(550, "5.1.1 perm");
	if (g_str_has_prefix(addr, "temp"))
		return response_new(450, "temp\nsecond line");
	if (g_str_has_prefix(addr, "odd"))
		return response_new(354, "no answer to anything");
	if (g_str_has_prefix(addr, "hang"))
		return NULL;
	return response_new(250, NULL);
}

static void
keep_message(BackendPort *backend)
{
	Live *live = backend->live;
	Tx *tx = backend->tx;
	LiveMessage *message = g_new0(LiveMessage, 1);
	GString *rcpts = g_string_new(NULL), *params = g_string_new(NULL);
	size_t len = 0;
	char *body = blob_to_string(tx->body->raw, UINT64_MAX, &len, NULL);
	k_assert(body != NULL);
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		if (response_ok(tx_rcpt(tx, i)->response))
			g_string_append_printf(rcpts, "%s ", tx_rcpt(tx, i)->to->addr);
	}
	for (size_t i = 0; i < tx->mail_from->n_params; i++) {
		const EsmtpParam *param = &tx->mail_from->params[i];
		g_string_append_printf(params, "%s=%s ", param->keyword,
				       param->value != NULL ? param->value : "");
	}
	message->from = g_strdup(tx->mail_from->addr);
	message->rcpts = g_string_free(rcpts, FALSE);
	message->params = g_string_free(params, FALSE);
	message->body = g_string_new_len(body, (gssize)len);
	g_free(body);
	pthread_mutex_lock(&live->lock);
	g_ptr_array_add(live->messages, message);
	pthread_cond_broadcast(&live->changed);
	pthread_mutex_unlock(&live->lock);
}

static void
backend_body(BackendPort *backend)
{
	Live *live = backend->live;
	Tx *tx = backend->tx;
	if (tx->body == NULL || backend->done)
		return;
	const char *first = tx_rcpt(tx, 0)->to->addr;
	if (!tx_body_is_final(tx->body)) {
		pthread_mutex_lock(&live->lock);
		live->seen_early = tx_body_len(tx->body);
		pthread_cond_broadcast(&live->changed);
		pthread_mutex_unlock(&live->lock);
		if (g_str_has_prefix(first, "early") && tx_body_len(tx->body) >= 3)
			(void)tx_answer_data(tx, response_new(550, "5.7.0 early"));
		return;
	}
	Response *response = g_str_has_prefix(first, "early") ? response_new(550, "5.7.0 early")
							      : verdict(first, "data");
	backend->done = true;
	if (response == NULL)
		return;
	if (response_ok(response))
		keep_message(backend);
	(void)tx_answer_data(tx, response);
}

static void
backend_look(void *arg, Tx *tx)
{
	BackendPort *backend = arg;
	if (tx->cancelled)
		return;
	if (tx->mail_response == NULL) {
		Response *response = verdict(tx->mail_from->addr, "");
		if (response != NULL)
			(void)tx_answer_mail(tx, response);
	}
	for (; backend->answered < tx_rcpt_count(tx); backend->answered++) {
		Response *response = verdict(tx_rcpt(tx, backend->answered)->to->addr, "");
		if (response != NULL)
			(void)tx_answer_rcpt(tx, backend->answered, response);
	}
	backend_body(backend);
}

static void
backend_stop(TxPort *port)
{
	BackendPort *backend = (BackendPort *)port;
	Live *live = backend->live;
	tx_unwatch(&backend->watch);
	pthread_mutex_lock(&live->lock);
	live->stopped++;
	if (backend->tx->cancelled)
		live->cancelled++;
	pthread_cond_broadcast(&live->changed);
	pthread_mutex_unlock(&live->lock);
	tx_unref(backend->tx);
	g_free(backend);
}

static const TxPortOps backend_ops = {.name = "test", .stop = backend_stop};

static TxPort *
backend_take(void *arg, Worker *worker, Tx *tx)
{
	Live *live = arg;
	BackendPort *backend = g_new0(BackendPort, 1);
	(void)worker;
	backend->port.ops = &backend_ops;
	backend->live = live;
	backend->tx = tx_ref(tx);
	tx_watch(tx, &backend->watch, backend_look, backend);
	tx_touch(tx);
	pthread_mutex_lock(&live->lock);
	live->started++;
	g_free(live->last_meta);
	live->last_meta = json_print(tx->smtp_meta);
	pthread_mutex_unlock(&live->lock);
	return &backend->port;
}

static void
message_free(void *data)
{
	LiveMessage *message = data;
	g_free(message->from);
	g_free(message->rcpts);
	g_free(message->params);
	g_string_free(message->body, TRUE);
	g_free(message);
}

/* ---- the server ---- */

static void
on_event(void *arg, const SmtpServerEvent *event)
{
	Live *live = arg;
	/* no assertion of cmocka's here: this is not its thread */
	k_assert(event->peer != NULL && event->session != NULL && event->reason != NULL);
	if (event->kind != SMTP_SERVER_SESSION)
		return;
	pthread_mutex_lock(&live->lock);
	live->sessions_ended++;
	g_free(live->last_reason);
	live->last_reason = g_strdup(event->reason);
	pthread_cond_broadcast(&live->changed);
	pthread_mutex_unlock(&live->lock);
}

static void
on_accept(void *arg, Worker *worker, int fd, const NetAddr *peer)
{
	Live *live = arg;
	(void)worker;
	(void)peer;
	pthread_mutex_lock(&live->lock);
	live->accepts++;
	pthread_mutex_unlock(&live->lock);
	smtp_sessions_accept(live->sessions, fd);
}

void
live_start(Live *live, void (*tweak)(Live *live))
{
	GError *error = NULL;
	*live = (Live){0};
	pthread_mutex_init(&live->lock, NULL);
	pthread_cond_init(&live->changed, NULL);
	live->messages = g_ptr_array_new_with_free_func(message_free);
	live->workers = workers_new(1, &error);
	assert_non_null(live->workers);
	live->worker = workers_get(live->workers, 0);
	smtp_service_conf_init(&live->conf);
	live->conf.hostname = "mx.example";
	live->conf.take = backend_take;
	live->conf.on_event = on_event;
	live->conf.arg = live;
	smtp_output_conf_init(&live->output);
	live->output.name = "test";
	live->output.ehlo_host = "client.example";
	if (tweak != NULL)
		tweak(live);
	live->sessions = smtp_sessions_new(live->worker, &live->conf);
	live->pool = smtp_client_pool_new(live->worker);
	assert_true(workers_start(live->workers, &error));
	live->listener = listener_open(live->workers, "127.0.0.1", 0, on_accept, live, &error);
	if (live->listener == NULL)
		fail_msg("%s", error->message);
	live->port = listener_port(live->listener);
}

static void
free_all(void *arg)
{
	Live *live = arg;
	smtp_client_pool_free(live->pool);
	smtp_sessions_free(live->sessions);
}

void
live_stop(Live *live)
{
	listener_free(live->listener);
	live_run(live, free_all, live);
	workers_stop(live->workers);
	workers_free(live->workers);
	assert_int_equal(live->started, live->stopped);
	g_ptr_array_free(live->messages, TRUE);
	g_free(live->last_reason);
	g_free(live->last_meta);
	pthread_mutex_destroy(&live->lock);
	pthread_cond_destroy(&live->changed);
}

typedef struct RunJob {
	Live *live;
	void (*fn)(void *arg);
	void *arg;
	bool done;
} RunJob;

static void
run_job(void *arg)
{
	RunJob *job = arg;
	job->fn(job->arg);
	pthread_mutex_lock(&job->live->lock);
	job->done = true;
	pthread_cond_broadcast(&job->live->changed);
	pthread_mutex_unlock(&job->live->lock);
}

void
live_run(Live *live, void (*fn)(void *arg), void *arg)
{
	RunJob job = {live, fn, arg, false};
	worker_post(live->worker, run_job, &job);
	pthread_mutex_lock(&live->lock);
	while (!job.done)
		pthread_cond_wait(&live->changed, &live->lock);
	pthread_mutex_unlock(&live->lock);
}

void
live_wait(Live *live, bool (*check)(const Live *live), const char *what)
{
	struct timespec until;
	bool ok;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += LIVE_WAIT_MS / 1000;
	pthread_mutex_lock(&live->lock);
	int rc = 0;
	while (!(ok = check(live)) && rc == 0)
		rc = pthread_cond_timedwait(&live->changed, &live->lock, &until);
	pthread_mutex_unlock(&live->lock);
	if (!ok)
		fail_msg("waited in vain: %s", what);
}

static void
count_sessions(void *arg)
{
	Live *live = arg;
	live->open = smtp_sessions_count(live->sessions);
}

unsigned
live_sessions(Live *live)
{
	live_run(live, count_sessions, live);
	return live->open;
}

static void
count_pool(void *arg)
{
	Live *live = arg;
	live->open = smtp_client_pool_count(live->pool);
}

unsigned
live_pool_count(Live *live)
{
	live_run(live, count_pool, live);
	return live->open;
}

/* ---- blocking sockets ---- */

static struct sockaddr_in
loopback(uint16_t port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return sin;
}

int
sock_connect(uint16_t port)
{
	struct sockaddr_in sin = loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	int on = 1;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

int
sock_listen(uint16_t *ret_port)
{
	struct sockaddr_in sin = loopback(0);
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	*ret_port = ntohs(sin.sin_port);
	return fd;
}

static void
wait_readable(int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	if (poll(&pfd, 1, LIVE_WAIT_MS) != 1)
		fail_msg("%s: nothing came within %d ms", live_case, LIVE_WAIT_MS);
}

int
sock_accept(int listener)
{
	wait_readable(listener);
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

void
sock_send_bytes(int fd, const void *data, size_t len)
{
	const char *p = data;
	while (len > 0) {
		ssize_t put = send(fd, p, len, MSG_NOSIGNAL);
		if (put < 0)
			return; /* the peer has closed; what it said shows why */
		p += put;
		len -= (size_t)put;
	}
}

void
sock_send(int fd, const char *text)
{
	sock_send_bytes(fd, text, strlen(text));
}

char *
sock_line(int fd)
{
	GString *line = g_string_new(NULL);
	for (;;) {
		char c;
		wait_readable(fd);
		ssize_t got = recv(fd, &c, 1, 0);
		if (got <= 0) {
			g_string_free(line, TRUE);
			return NULL;
		}
		g_string_append_c(line, c);
		if (line->len >= 2 && memcmp(line->str + line->len - 2, "\r\n", 2) == 0) {
			g_string_truncate(line, line->len - 2);
			return g_string_free(line, FALSE);
		}
	}
}

int
sock_reply(int fd, char **ret_text)
{
	GString *text = g_string_new(NULL);
	int code = 0;
	for (bool more = true; more;) {
		g_autofree char *line = sock_line(fd);
		if (line == NULL) {
			code = 0;
			break;
		}
		assert_true(strlen(line) >= 4);
		code = (int)g_ascii_strtoll(line, NULL, 10);
		more = line[3] == '-';
		if (text->len > 0)
			g_string_append_c(text, '\n');
		g_string_append(text, line + 4);
	}
	if (ret_text != NULL)
		*ret_text = g_string_free(text, FALSE);
	else
		g_string_free(text, TRUE);
	return code;
}

GString *
sock_rest(int fd)
{
	GString *all = g_string_new(NULL);
	char buf[4096];
	ssize_t got = 0;
	do {
		wait_readable(fd);
		got = recv(fd, buf, sizeof(buf), 0);
		if (got > 0)
			g_string_append_len(all, buf, got);
	} while (got > 0);
	return all;
}

void
sock_close(int fd)
{
	(void)close(fd);
}

void
script_expect(int fd, const char *line_prefix)
{
	g_autofree char *line = sock_line(fd);
	if (line == NULL || !g_str_has_prefix(line, line_prefix))
		fail_msg("%s: got %s, want %s", live_case, line != NULL ? line : "(end)",
			 line_prefix);
}
