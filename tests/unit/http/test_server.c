/* SPDX-License-Identifier: Apache-2.0 */
/* The server against raw sockets and against our own client, over loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "http/client.h"
#include "http/server.h"

#define ECHO_MAX 1000

typedef struct World {
	Workers *workers;
	HttpServer *server;
	HttpServer *tight; /* short deadlines, small limits */
	HttpClient *client;
	uint16_t port, tight_port;
	Latch gone, handled;
	atomic_int echoes;
} World;

static World world = {.gone = LATCH_INIT, .handled = LATCH_INIT};

/* ---- what the server does, by path ---- */

typedef struct Job {
	HttpRequest *request;
	Timer timer;
	uint64_t count;
	bool paused_once;
} Job;

static Job *
job_new(HttpRequest *request)
{
	Job *job = g_new0(Job, 1);
	job->request = request;
	return job;
}

static void
job_free(void *arg)
{
	Job *job = arg;
	timer_clear(&job->timer);
	g_free(job);
}

static void
on_echo(void *arg, HttpRequest *request, HttpBodyEvent event, const char *data, size_t len)
{
	(void)arg;
	if (event == HTTP_BODY_END) {
		atomic_fetch_add(&world.echoes, 1);
		http_respond(request, 200, NULL, 0, "text/plain", g_strndup(data, len), len);
	} else if (event == HTTP_BODY_TOO_BIG) {
		http_respond_text(request, 413, "too big");
	} else {
		http_respond_text(request, 400, NULL);
		latch_open(&world.gone);
	}
}

static void
resume_count(void *arg)
{
	Job *job = arg;
	http_resume(job->request);
}

static void
on_count(void *arg, HttpRequest *request, HttpBodyEvent event, const char *data, size_t len)
{
	(void)data;
	Job *job = arg;
	if (event == HTTP_BODY_DATA) {
		job->count += len;
		if (!job->paused_once) {
			job->paused_once = true;
			http_pause(request);
			timer_init(&job->timer, http_worker(request), resume_count, job);
			timer_set(&job->timer, 20 * USEC_PER_MS);
		}
		return;
	}
	int status = event == HTTP_BODY_END ? 200 : event == HTTP_BODY_TOO_BIG ? 413 : 400;
	g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT, job->count);
	http_respond_text(request, status, text);
	if (event == HTTP_BODY_GONE)
		latch_open(&world.gone);
	job_free(job);
}

static void
answer_later(void *arg)
{
	Job *job = arg;
	http_respond_json(job->request, 200, NULL, 0, g_strdup("{\"late\":true}"));
	job_free(job);
}

static void
on_later(void *arg, HttpRequest *request, HttpBodyEvent event, const char *data, size_t len)
{
	(void)arg;
	(void)event;
	(void)data;
	(void)len;
	Job *job = job_new(request);
	timer_init(&job->timer, http_worker(request), answer_later, job);
	timer_set(&job->timer, 30 * USEC_PER_MS);
}

static void
on_gone(void *arg, HttpRequest *request)
{
	(void)arg;
	http_respond_text(request, 200, "nobody reads this");
	latch_open(&world.gone);
}

static void
on_wait(void *arg, HttpRequest *request, HttpBodyEvent event, const char *data, size_t len)
{
	(void)arg;
	(void)event;
	(void)data;
	(void)len;
	http_on_gone(request, on_gone, NULL);
	latch_open(&world.handled);
}

static void
redirect(HttpRequest *request, int status, const char *where)
{
	const HttpHeader location = {"location", where};
	http_respond(request, status, &location, 1, NULL, NULL, 0);
}

static void
show_header(HttpRequest *request)
{
	const char *value = http_header(request, "X-TEST");
	g_autofree char *text = g_strdup_printf("%s %s %s", http_path(request),
						http_query(request) != NULL ? http_query(request)
									    : "-",
						value != NULL ? value : "-");
	http_respond_text(request, 200, text);
}

static void
handle(void *arg, HttpRequest *request)
{
	(void)arg;
	const char *path = http_path(request);
	if (strcmp(path, "/echo") == 0)
		http_read_body(request, ECHO_MAX, on_echo, NULL);
	else if (strcmp(path, "/count") == 0)
		http_stream_body(request, 50 * 1024 * 1024, on_count, job_new(request));
	else if (strcmp(path, "/later") == 0)
		http_read_body(request, 0, on_later, NULL);
	else if (strcmp(path, "/wait") == 0)
		http_read_body(request, 0, on_wait, NULL);
	else if (strcmp(path, "/moved") == 0)
		redirect(request, 308, "/echo");
	else if (strcmp(path, "/loop") == 0)
		redirect(request, 307, "/loop");
	else if (strcmp(path, "/found") == 0)
		redirect(request, 302, "/echo");
	else if (g_str_has_prefix(path, "/header"))
		show_header(request);
	else
		http_respond_text(request, 404, "no such thing");
}

/* ---- the client, from the test's thread ---- */

typedef struct Fetch {
	HttpCallSpec spec;
	bool cancel; /* at once */
	HttpCall *call;
	Latch done;
	int status;
	char *error, *body, *type;
	size_t len;
} Fetch;

static void
on_fetched(void *arg, const HttpResult *result)
{
	Fetch *fetch = arg;
	fetch->status = result->status;
	fetch->error = g_strdup(result->error);
	fetch->body = g_strdup(result->body);
	fetch->len = result->body_len;
	fetch->type = g_strdup(http_result_header(result, "content-type"));
	latch_open(&fetch->done);
}

static void
start_fetch(void *arg)
{
	Fetch *fetch = arg;
	fetch->call = http_call_start(world.client, &fetch->spec, on_fetched, fetch);
	if (fetch->cancel)
		http_call_cancel(fetch->call);
}

static void
run_fetch(Fetch *fetch)
{
	fetch->done = (Latch)LATCH_INIT;
	on_worker(workers_get(world.workers, 0), start_fetch, fetch);
	assert_true(latch_wait(&fetch->done, 1));
}

static void
fetch_clear(Fetch *fetch)
{
	g_free(fetch->error);
	g_free(fetch->body);
	g_free(fetch->type);
}

static char *
url(const char *path)
{
	return g_strdup_printf("http://127.0.0.1:%u%s", world.port, path);
}

/* ---- set-up ---- */

static void
make_client(void *arg)
{
	(void)arg;
	world.client = http_client_new(workers_get(world.workers, 0), 0);
}

static void
free_client(void *arg)
{
	(void)arg;
	http_client_free(world.client);
}

static int
set_up(void **state)
{
	(void)state;
	http_client_global_init();
	world.workers = workers_new(2, NULL);
	assert_non_null(world.workers);
	const HttpServerOptions options = {.host = "localhost"};
	world.server = http_server_open(world.workers, &options, handle, NULL, NULL);
	assert_non_null(world.server);
	const HttpServerOptions tight = {.host = "127.0.0.1",
					 .connections_max = 4,
					 .head_max = 4096,
					 .uri_max = 2048,
					 .head_timeout = 200 * USEC_PER_MS,
					 .idle_timeout = 200 * USEC_PER_MS,
					 .body_timeout = 200 * USEC_PER_MS,
					 .write_timeout = 200 * USEC_PER_MS};
	world.tight = http_server_open(world.workers, &tight, handle, NULL, NULL);
	assert_non_null(world.tight);
	world.port = http_server_port(world.server);
	world.tight_port = http_server_port(world.tight);
	assert_true(world.port != 0 && world.tight_port != 0);
	assert_true(workers_start(world.workers, NULL));
	on_worker(workers_get(world.workers, 0), make_client, NULL);
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	on_worker(workers_get(world.workers, 0), free_client, NULL);
	http_server_free(world.server);
	http_server_free(world.tight);
	workers_free(world.workers);
	return 0;
}

/* ---- raw requests ---- */

#define H "Host: a\r\n"

static const struct Raw {
	const char *name, *send;
	int want;    /* first status; 0: nothing but the end of the connection */
	bool closes; /* after it */
} RAW[] = {
	{"get", "GET /header HTTP/1.1\r\n" H "\r\n", 200, false},
	{"absolute form", "GET http://b/header HTTP/1.1\r\n" H "\r\n", 200, false},
	{"unknown path", "GET /nothing HTTP/1.1\r\n" H "\r\n", 404, false},
	{"post", "POST /echo HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\nhi", 200, false},
	{"chunked",
	 "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200,
	 false},
	{"HTTP/1.0", "GET /header HTTP/1.0\r\n\r\n", 200, true},
	{"length and chunked",
	 "POST /echo HTTP/1.1\r\n" H
	 "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
	 400, true},
	{"chunked and length",
	 "POST /echo HTTP/1.1\r\n" H
	 "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
	 400, true},
	{"two lengths",
	 "POST /echo HTTP/1.1\r\n" H "Content-Length: 2\r\nContent-Length: 9\r\n\r\nhi", 400, true},
	{"two equal lengths",
	 "POST /echo HTTP/1.1\r\n" H "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", 400, true},
	{"plus length", "POST /echo HTTP/1.1\r\n" H "Content-Length: +2\r\n\r\nhi", 400, true},
	{"hex length", "POST /echo HTTP/1.1\r\n" H "Content-Length: 0x2\r\n\r\nhi", 400, true},
	{"xchunked",
	 "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 400,
	 true},
	{"chunked twice",
	 "POST /echo HTTP/1.1\r\n" H
	 "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	 400, true},
	{"identity, chunked",
	 "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", 400,
	 true},
	{"space before colon", "POST /echo HTTP/1.1\r\n" H "Content-Length : 2\r\n\r\nhi", 400,
	 true},
	{"no host", "GET /header HTTP/1.1\r\n\r\n", 400, true},
	{"two hosts", "GET /header HTTP/1.1\r\n" H "Host: b\r\n\r\n", 400, true},
	{"bad chunk size",
	 "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n",
	 400, true},
	{"chunk without end",
	 "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n2\r\nhiXX0\r\n\r\n", 400,
	 true},
	{"control in value", "GET /header HTTP/1.1\r\n" H "X-Test: a\x01z\r\n\r\n", 400, true},
	{"bad escape", "GET /%zz HTTP/1.1\r\n" H "\r\n", 400, true},
	{"escaped NUL", "GET /%00 HTTP/1.1\r\n" H "\r\n", 400, true},
	{"escaped line end", "GET /a%0d%0ab HTTP/1.1\r\n" H "\r\n", 400, true},
	{"no slash", "GET header HTTP/1.1\r\n" H "\r\n", 400, true},
	{"asterisk", "OPTIONS * HTTP/1.1\r\n" H "\r\n", 400, true},
	{"8-bit path", "GET /\xe9 HTTP/1.1\r\n" H "\r\n", 400, true},
};

static void
test_raw(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(RAW); i++) {
		const struct Raw *c = &RAW[i];
		int fd = raw_connect(world.port);
		raw_send(fd, c->send, strlen(c->send));
		g_autofree char *got = c->closes ? raw_read_all(fd, "\r\n\r\n", 5000)
						 : raw_read(fd, "\r\n\r\n", 5000);
		if (raw_status(got) != c->want)
			fail_msg("%s: %s", c->name, got);
		if (raw_answers(got) > 1)
			fail_msg("%s: smuggled: %s", c->name, got);
		if (!c->closes && raw_closed(fd, 20))
			fail_msg("%s: closed", c->name);
		close(fd);
	}
}

/* What libmicrohttpd would forgive, or not even show us. */
static void
test_first_head(void **state)
{
	(void)state;
	static const char NUL[] = "GET /header HTTP/1.1\r\nHost: a\r\nX-Test: a\0b\r\n\r\n";
	static const char LF[] = "GET /header HTTP/1.1\nHost: a\n\r\n\r\n";
	static const char FOLD[] = "GET /header HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n";
	const struct {
		const char *data;
		size_t len;
	} CASES[] = {{NUL, sizeof(NUL) - 1}, {LF, sizeof(LF) - 1}, {FOLD, sizeof(FOLD) - 1}};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		int fd = raw_connect(world.port);
		raw_send(fd, CASES[i].data, CASES[i].len);
		g_autofree char *got = raw_read(fd, NULL, 5000);
		assert_int_equal(raw_answers(got), 1);
		assert_int_equal(raw_status(got), 400);
		close(fd);
	}
}

/* Behind a sound request, and in two pieces: never more than is asked for is answered. */
static void
test_later_heads(void **state)
{
	(void)state;
	static const char SOUND[] = "GET /header HTTP/1.1\r\nHost: a\r\n\r\n";
	for (size_t i = 0; i < G_N_ELEMENTS(RAW); i++) {
		if (RAW[i].want != 400)
			continue;
		int fd = raw_connect(world.port);
		raw_send(fd, SOUND, strlen(SOUND));
		g_autofree char *first = raw_read(fd, "- -", 5000);
		assert_int_equal(raw_status(first), 200);
		raw_send(fd, RAW[i].send, strlen(RAW[i].send));
		g_autofree char *got = raw_read_all(fd, "\r\n\r\n", 5000);
		if (raw_status(got) != 400 || strstr(got, " 200 ") != NULL)
			fail_msg("%s: %s", RAW[i].name, got);
		close(fd);
		fd = raw_connect(world.port);
		raw_send(fd, RAW[i].send, 9);
		usleep(3000);
		raw_send(fd, RAW[i].send + 9, strlen(RAW[i].send) - 9);
		g_autofree char *split = raw_read_all(fd, "\r\n\r\n", 5000);
		if (raw_status(split) != 400 || strstr(split, " 200 ") != NULL)
			fail_msg("%s, in two: %s", RAW[i].name, split);
		close(fd);
	}
}

static void
test_keep_alive(void **state)
{
	(void)state;
	int fd = raw_connect(world.port);
	/* Pipelined, the first answered late: in order. */
	static const char TWO[] = "GET /later HTTP/1.1\r\nHost: a\r\n\r\n"
				  "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
	raw_send(fd, TWO, strlen(TWO));
	g_autofree char *got = raw_read(fd, "\r\n\r\nabc", 5000);
	const char *late = strstr(got, "{\"late\":true}"), *echo = strstr(got, "\r\n\r\nabc");
	assert_non_null(late);
	assert_non_null(echo);
	assert_true(late < echo);
	assert_non_null(strstr(got, "content-type: application/json\r\n"));
	close(fd);
}

static void
test_body_limits(void **state)
{
	(void)state;
	static const struct {
		size_t len;
		int want;
	} CASES[] = {{ECHO_MAX, 200}, {ECHO_MAX + 1, 413}, {1000000, 413}};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		for (int chunked = 0; chunked < 2; chunked++) {
			g_autofree char *body = g_strnfill(CASES[i].len, 'x');
			g_autofree char *head = g_strdup_printf(
				chunked ? "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: "
					  "chunked\r\n\r\n%zx\r\n"
					: "POST /echo HTTP/1.1\r\n" H "Content-Length: %zu\r\n\r\n",
				CASES[i].len);
			int fd = raw_connect(world.port);
			raw_send(fd, head, strlen(head));
			raw_send(fd, body, CASES[i].len);
			if (chunked)
				raw_send(fd, "\r\n0\r\n\r\n", 7);
			g_autofree char *got = raw_read(fd, "\r\n\r\n", 5000);
			if (raw_status(got) != CASES[i].want)
				fail_msg("%zu %d: %.60s", CASES[i].len, chunked, got);
			close(fd);
		}
	}
}

static int
status_of(const char *text)
{
	int fd = raw_connect(world.tight_port);
	raw_send(fd, text, strlen(text));
	g_autofree char *answer = raw_read(fd, "\r\n\r\n", 5000);
	close(fd);
	return raw_status(answer);
}

/* At the limit, one past it, and so far past it that it does not even fit into memory. */
static void
test_head_limits(void **state)
{
	static const struct {
		size_t field, target;
		int want;
	} rows[] = {{4096, 0, 200}, {4097, 0, 431},  {40000, 0, 431}, {0, 2048, 404},
		    {0, 2049, 414}, {0, 20000, 414}, {0, 60000, 414}, {60000, 0, 431}};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		size_t rest = strlen(H) + strlen("X-Test: \r\n");
		size_t field_len = rows[i].field > 0 ? rows[i].field - rest : 1;
		g_autofree char *field = g_strnfill(field_len, 'x');
		g_autofree char *path = rows[i].target > 0 ? g_strnfill(rows[i].target - 1, 'x')
							   : g_strdup("header");
		g_autofree char *text = g_strdup_printf(
			"GET /%s HTTP/1.1\r\n" H "X-Test: %s\r\n\r\n", path, field);
		int got = status_of(text);
		if (got != rows[i].want)
			fail_msg("field %zu target %zu: %d, want %d", rows[i].field, rows[i].target,
				 got, rows[i].want);
	}
}

/* A client that is slow on purpose, a byte now and then, does not stay. */
static bool
drip(const char *head, const char *drop)
{
	int fd = raw_connect(world.tight_port);
	raw_send(fd, head, strlen(head));
	bool closed = false;
	for (int i = 0; i < 200 && !closed; i++) {
		raw_send(fd, drop, strlen(drop));
		closed = raw_closed(fd, 20);
	}
	close(fd);
	return closed;
}

static void
test_slow(void **state)
{
	(void)state;
	assert_true(drip("", "G"));
	assert_true(drip("GET /header HTTP/1.1\r\n", "X: y\r\n"));
	assert_true(drip("POST /echo HTTP/1.1\r\n" H "Content-Length: 900\r\n\r\n", "x"));
	/* Idle behind an answer. */
	int fd = raw_connect(world.tight_port);
	static const char GET[] = "GET /header HTTP/1.1\r\nHost: a\r\n\r\n";
	raw_send(fd, GET, strlen(GET));
	assert_true(raw_closed(fd, 5000));
	close(fd);
	/* A slow body is told why. */
	fd = raw_connect(world.tight_port);
	static const char POST[] = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx";
	raw_send(fd, POST, strlen(POST));
	g_autofree char *got = raw_read(fd, NULL, 5000);
	assert_int_equal(raw_status(got), 408);
	close(fd);
}

static void
test_connection_limit(void **state)
{
	(void)state;
	int fds[10];
	int refused = 0;
	for (size_t i = 0; i < G_N_ELEMENTS(fds); i++)
		fds[i] = raw_connect(world.tight_port);
	for (size_t i = 0; i < G_N_ELEMENTS(fds); i++) {
		g_autofree char *got = raw_read(fds[i], NULL, 3000);
		refused += raw_status(got) == 503;
		close(fds[i]);
	}
	assert_in_range(refused, 2, 6); /* two workers with four each */
}

static void
test_client_goes(void **state)
{
	(void)state;
	int gone = latch_count(&world.gone), handled = latch_count(&world.handled);
	int fd = raw_connect(world.port);
	static const char WAIT[] = "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
	raw_send(fd, WAIT, strlen(WAIT));
	assert_true(latch_wait(&world.handled, handled + 1));
	close(fd);
	assert_true(latch_wait(&world.gone, gone + 1));
	/* In the middle of a body. */
	fd = raw_connect(world.port);
	static const char PART[] = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc";
	raw_send(fd, PART, strlen(PART));
	usleep(20000);
	close(fd);
	assert_true(latch_wait(&world.gone, gone + 2));
}

static ssize_t
read_pattern(void *arg, uint64_t offset, char *buf, size_t len)
{
	(void)arg;
	for (size_t i = 0; i < len; i++)
		buf[i] = (char)('a' + (offset + i) % 26);
	return (ssize_t)len;
}

static void
count_free(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

static void
test_client(void **state)
{
	(void)state;
	static const struct {
		const char *name, *method, *path, *body;
		int want;
		const char *answer;
	} CASES[] = {
		{"post", "POST", "/echo", "hello", 200, "hello"},
		{"patch", "PATCH", "/echo", "hello", 200, "hello"},
		{"empty put", "PUT", "/echo", NULL, 200, ""},
		{"get", "GET", "/header?q=%20", NULL, 200, "/header q=%20 -"},
		{"get escaped", "GET", "/header%20x", NULL, 200, "/header x - -"},
		{"delete", "DELETE", "/echo", NULL, 200, ""},
		{"late", "GET", "/later", NULL, 200, "{\"late\":true}"},
		{"308", "POST", "/moved", "again", 200, "again"},
		{"loop", "POST", "/loop", "x", 307, ""},
		{"302 stays", "GET", "/found", NULL, 302, ""},
		{"404", "GET", "/none", NULL, 404, "no such thing"},
	};
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
			g_autofree char *target = url(CASES[i].path);
			Fetch fetch = {.spec = {.method = CASES[i].method,
						.url = target,
						.body = g_strdup(CASES[i].body)}};
			if (CASES[i].body != NULL)
				fetch.spec.body_len = strlen(CASES[i].body);
			run_fetch(&fetch);
			if (fetch.status != CASES[i].want ||
			    strcmp(fetch.body, CASES[i].answer) != 0)
				fail_msg("%s: %d %s %s", CASES[i].name, fetch.status, fetch.error,
					 fetch.body);
			fetch_clear(&fetch);
		}
	}
}

static void
nothing(void *arg)
{
	(void)arg;
}

static void
test_client_stream(void **state)
{
	(void)state;
	atomic_int freed = 0;
	static const uint64_t SIZES[] = {1, 65536, 3000000};
	for (size_t i = 0; i < G_N_ELEMENTS(SIZES); i++) {
		g_autofree char *target = url("/count");
		const HttpSource source = {read_pattern, count_free, &freed, SIZES[i]};
		Fetch fetch = {.spec = {.method = "PUT", .url = target, .source = &source}};
		run_fetch(&fetch);
		assert_int_equal(fetch.status, 200);
		assert_int_equal(g_ascii_strtoull(fetch.body, NULL, 10), SIZES[i]);
		fetch_clear(&fetch);
	}
	on_worker(workers_get(world.workers, 0), nothing,
		  NULL); /* calls end after their callback */
	assert_int_equal(atomic_load(&freed), (int)G_N_ELEMENTS(SIZES));
	/* Read again behind a redirect. */
	g_autofree char *target = url("/moved");
	const HttpSource source = {read_pattern, NULL, NULL, 26};
	Fetch fetch = {.spec = {.method = "PUT", .url = target, .source = &source}};
	run_fetch(&fetch);
	assert_int_equal(fetch.status, 200);
	assert_string_equal(fetch.body, "abcdefghijklmnopqrstuvwxyz");
	fetch_clear(&fetch);
}

static void
test_client_headers(void **state)
{
	(void)state;
	g_autofree char *target = url("/header");
	const HttpHeader header = {"x-test", "value"};
	Fetch fetch = {
		.spec = {.method = "GET", .url = target, .headers = &header, .n_headers = 1}};
	run_fetch(&fetch);
	assert_string_equal(fetch.body, "/header - value");
	assert_string_equal(fetch.type, "text/plain; charset=utf-8");
	fetch_clear(&fetch);
}

static void
test_client_fails(void **state)
{
	(void)state;
	/* A port that nobody listens on. */
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in any = {.sin_family = AF_INET};
	any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	socklen_t len = sizeof(any);
	assert_int_equal(bind(fd, (struct sockaddr *)&any, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&any, &len), 0);
	g_autofree char *refused = g_strdup_printf("http://127.0.0.1:%u/", ntohs(any.sin_port));
	g_autofree char *slow = url("/wait");
	g_autofree char *large = url("/echo");
	const struct {
		const char *name, *url, *verify;
		size_t response_max;
		const char *error;
	} CASES[] = {
		{"refused", refused, NULL, 0, "Failed to connect"},
		{"scheme", "ftp://127.0.0.1/", NULL, 0, "Protocol"},
		{"no url", "", NULL, 0, ""},
		{"timeout", slow, NULL, 0, "timeout"},
		{"large", large, NULL, 3, "response too large"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		Fetch fetch = {.spec = {.method = "POST",
					.url = CASES[i].url,
					.body = g_strdup("abcdef"),
					.body_len = 6,
					.timeout = 300 * USEC_PER_MS,
					.response_max = CASES[i].response_max}};
		run_fetch(&fetch);
		if (fetch.status != 0 || strstr(fetch.error, CASES[i].error) == NULL)
			fail_msg("%s: %d %s", CASES[i].name, fetch.status, fetch.error);
		fetch_clear(&fetch);
	}
	close(fd);
	/* A CA file that is not there matters for https alone. */
	g_autofree char *plain = url("/header");
	Fetch fetch = {.spec = {.method = "GET", .url = plain, .verify = "/nowhere/ca.pem"}};
	run_fetch(&fetch);
	assert_int_equal(fetch.status, 200);
	fetch_clear(&fetch);
}

static void
test_client_cancel(void **state)
{
	(void)state;
	g_autofree char *target = url("/later");
	Fetch fetch = {
		.spec = {.method = "GET", .url = target}, .cancel = true, .done = LATCH_INIT};
	on_worker(workers_get(world.workers, 0), start_fetch, &fetch);
	usleep(60000);
	assert_int_equal(latch_count(&fetch.done), 0);
}

/* ---- TLS ---- */

static void
test_tls(void **state)
{
	(void)state;
	g_autofree char *dir = g_dir_make_tmp("koukan-http-XXXXXX", NULL);
	assert_non_null(dir);
	g_autofree char *cert = g_build_filename(dir, "cert.pem", NULL);
	g_autofree char *key = g_build_filename(dir, "key.pem", NULL);
	gchar *argv[] = {"openssl",
			 "req",
			 "-x509",
			 "-newkey",
			 "ec",
			 "-pkeyopt",
			 "ec_paramgen_curve:P-256",
			 "-nodes",
			 "-days",
			 "2",
			 "-subj",
			 "/CN=localhost",
			 "-addext",
			 "subjectAltName=DNS:localhost",
			 "-keyout",
			 key,
			 "-out",
			 cert,
			 NULL};
	gint rc = -1;
	assert_true(g_spawn_sync(NULL, argv, NULL,
				 G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL |
					 G_SPAWN_STDOUT_TO_DEV_NULL,
				 NULL, NULL, NULL, NULL, &rc, NULL));
	assert_int_equal(rc, 0);
	g_autoptr(GError) error = NULL;
	HttpServerOptions options = {.host = "localhost", .cert_path = cert, .key_path = key};
	HttpServer *server = http_server_open(world.workers, &options, handle, NULL, &error);
	assert_non_null(server);
	g_autofree char *target = g_strdup_printf("https://localhost:%u/echo",
						  http_server_port(server));
	const struct {
		const char *verify;
		int want;
	} CASES[] = {{cert, 200}, {"", 200}, {NULL, 0}, {"/nowhere/ca.pem", 0}, {"", 200}};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		Fetch fetch = {.spec = {.method = "POST",
					.url = target,
					.body = g_strdup("secret"),
					.body_len = 6,
					.verify = CASES[i].verify}};
		run_fetch(&fetch);
		if (fetch.status != CASES[i].want)
			fail_msg("%s: %d %s", CASES[i].verify, fetch.status, fetch.error);
		if (fetch.status == 200)
			assert_string_equal(fetch.body, "secret");
		fetch_clear(&fetch);
	}
	http_server_free(server);
	options.key_path = NULL;
	assert_null(http_server_open(world.workers, &options, handle, NULL, &error));
	assert_non_null(error);
	g_clear_error(&error);
	options.key_path = cert;
	assert_null(http_server_open(world.workers, &options, handle, NULL, &error));
	assert_non_null(error);
	unlink(cert);
	unlink(key);
	rmdir(dir);
}

/* A server is freed while requests wait and bodies come in. */
static void
test_free_busy(void **state)
{
	(void)state;
	const HttpServerOptions options = {.host = "127.0.0.1"};
	HttpServer *server = http_server_open(world.workers, &options, handle, NULL, NULL);
	assert_non_null(server);
	uint16_t port = http_server_port(server);
	int gone = latch_count(&world.gone), handled = latch_count(&world.handled);
	int waiting = raw_connect(port), sending = raw_connect(port), idle = raw_connect(port);
	static const char WAIT[] = "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
	static const char PART[] = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc";
	raw_send(waiting, WAIT, strlen(WAIT));
	raw_send(sending, PART, strlen(PART));
	assert_true(latch_wait(&world.handled, handled + 1));
	usleep(20000);
	http_server_free(server);
	assert_true(latch_wait(&world.gone, gone + 2));
	assert_true(raw_closed(waiting, 2000));
	assert_true(raw_closed(sending, 2000));
	assert_true(raw_closed(idle, 2000));
	close(waiting);
	close(sending);
	close(idle);
}

/* Opened and freed without the workers ever running. */
static void
test_never_started(void **state)
{
	(void)state;
	Workers *workers = workers_new(2, NULL);
	const HttpServerOptions options = {.host = "127.0.0.1"};
	HttpServer *server = http_server_open(workers, &options, handle, NULL, NULL);
	assert_non_null(server);
	http_server_free(server);
	workers_free(workers);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_raw),           cmocka_unit_test(test_first_head),
		cmocka_unit_test(test_later_heads),   cmocka_unit_test(test_keep_alive),
		cmocka_unit_test(test_body_limits),   cmocka_unit_test(test_head_limits),
		cmocka_unit_test(test_slow),          cmocka_unit_test(test_connection_limit),
		cmocka_unit_test(test_client_goes),   cmocka_unit_test(test_client),
		cmocka_unit_test(test_client_stream), cmocka_unit_test(test_client_headers),
		cmocka_unit_test(test_client_fails),  cmocka_unit_test(test_client_cancel),
		cmocka_unit_test(test_tls),           cmocka_unit_test(test_free_busy),
		cmocka_unit_test(test_never_started),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
