/* SPDX-License-Identifier: Apache-2.0 */
/* The remote port: against our own API with a host that answers, and against a server that follows
 * a script, mostly a bad one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/ids.h"
#include "rest/remote.h"
#include "world.h"

/* ---- one transaction on worker 0 ---- */

typedef struct Run {
	const char *url;
	TxPortOptions options;
	void (*set_up)(struct Run *run);
	void (*on_change)(struct Run *run);
	bool (*is_done)(const struct Run *run);
	Tx *tx;
	TxPort *port;
	TxWatch watch;
	Blob *blob;
	Timer timer;
	int step;
	bool cancel_at_once; /* before the first answer can come */
	bool stop_at_once;
	bool stopped;
	Latch done;
} Run;

static bool
has_data(const Run *run)
{
	return run->tx->data_response != NULL;
}

static bool
has_mail(const Run *run)
{
	return run->tx->mail_response != NULL;
}

static bool
has_rcpts(const Run *run)
{
	return run->tx->rcpt_answers == tx_rcpt_count(run->tx) && run->tx->rcpt_answers > 0;
}

static void
check_done(Run *run)
{
	if (run->stopped || !run->is_done(run))
		return;
	run->stopped = true;
	tx_unwatch(&run->watch);
	timer_cancel(&run->timer);
	tx_port_stop(run->port);
	latch_open(&run->done);
}

static void
on_change(void *arg, Tx *tx)
{
	(void)tx;
	Run *run = arg;
	if (run->on_change != NULL && !run->stopped)
		run->on_change(run);
	check_done(run);
}

static void
begin_run(void *arg)
{
	Run *run = arg;
	Worker *worker = worker_current();
	run->tx = tx_new(worker_defers(worker));
	timer_init(&run->timer, worker, NULL, run);
	run->set_up(run);
	run->port = remote_port_start(world.client, worker, run->url, run->tx, &run->options);
	k_assert(run->tx->mail_response == NULL);
	tx_watch(run->tx, &run->watch, on_change, run);
	if (run->cancel_at_once)
		tx_cancel(run->tx);
	if (run->stop_at_once) {
		run->stopped = true;
		tx_unwatch(&run->watch);
		tx_port_stop(run->port);
	}
}

static void
end_run(void *arg)
{
	Run *run = arg;
	if (!run->stopped) {
		tx_unwatch(&run->watch);
		tx_port_stop(run->port);
	}
	timer_clear(&run->timer);
	blob_unref(run->blob);
	tx_unref(run->tx);
}

static void
start_run(Run *run)
{
	run->done = (Latch)LATCH_INIT;
	run->stopped = false;
	on_worker(workers_get(world.workers, 0), begin_run, run);
}

static void
finish_run(Run *run)
{
	on_worker(workers_get(world.workers, 0), end_run, run);
}

static void
do_run(Run *run)
{
	start_run(run);
	if (!latch_wait(&run->done, 1))
		fail_msg("no answer at %s", run->url);
}

static void
add_mail(Tx *tx, const char *addr)
{
	g_autoptr(Mailbox) mailbox = mailbox_new(addr, NULL, 0);
	tx_set_mail_from(tx, mailbox);
}

static void
add_rcpt(Tx *tx, const char *addr)
{
	g_autoptr(Mailbox) mailbox = mailbox_new(addr, NULL, 0);
	tx_add_rcpt(tx, mailbox);
}

static void
add_body(Tx *tx, Blob *blob)
{
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	tx_set_body(tx, body);
}

static void
assert_response(const Response *response, int code, const char *text)
{
	assert_non_null(response);
	if (response->code != code || strcmp(response->message, text) != 0)
		fail_msg("%d %s instead of %d %s", response->code, response->message, code, text);
}

/* ---- against our own API ---- */

static char *
auto_url(void)
{
	return g_strdup_printf("%s/senders/auto/transactions", world.base);
}

static void
set_up_whole(Run *run)
{
	add_mail(run->tx, "a@x");
	add_rcpt(run->tx, "b@y");
	g_autoptr(Blob) blob = blob_new_bytes("hello", 5);
	add_body(run->tx, blob);
}

static void
test_whole(void **state)
{
	(void)state;
	g_autofree char *url = auto_url();
	for (int i = 0; i < 5; i++) {
		Run run = {.url = url, .set_up = set_up_whole, .is_done = has_data};
		do_run(&run);
		assert_response(run.tx->mail_response, 250, "mail ok");
		assert_response(tx_rcpt(run.tx, 0)->response, 250, "rcpt ok");
		assert_response(run.tx->data_response, 250, "data ok 5");
		finish_run(&run);
	}
}

/* As an SMTP session does it: each step after the answer to the former. */
static void
next_smtp_step(Run *run)
{
	Tx *tx = run->tx;
	if (tx->mail_response == NULL || tx->rcpt_answers < tx_rcpt_count(tx))
		return;
	static const char *const RCPTS[] = {"perm@y", "b@y", "temp@y", "c@y"};
	if (run->step < (int)G_N_ELEMENTS(RCPTS)) {
		add_rcpt(tx, RCPTS[run->step++]);
	} else if (run->step == (int)G_N_ELEMENTS(RCPTS)) {
		run->step++;
		run->blob = blob_new(NULL);
		assert_true(blob_append(run->blob, "0123456789", 10, NULL));
		add_body(tx, run->blob);
	} else if (run->step == (int)G_N_ELEMENTS(RCPTS) + 1) {
		run->step++;
		assert_true(blob_append(run->blob, "0123456789abcdef", 16, NULL));
		tx_note_body(tx);
		blob_finalize(run->blob);
		tx_note_body(tx);
	}
}

static void
set_up_mail(Run *run)
{
	add_mail(run->tx, "a@x");
}

static void
test_smtp_like(void **state)
{
	(void)state;
	g_autofree char *url = auto_url();
	static const size_t CHUNKS[] = {0, 1, 4, 10, 13, 26, 27, 65536};
	for (size_t i = 0; i < G_N_ELEMENTS(CHUNKS); i++) {
		Run run = {.url = url,
			   .set_up = set_up_mail,
			   .on_change = next_smtp_step,
			   .is_done = has_data,
			   .options = {.chunk_size = CHUNKS[i]}};
		do_run(&run);
		assert_response(run.tx->data_response, 250, "data ok 26");
		assert_int_equal(tx_rcpt(run.tx, 0)->response->code, 550);
		assert_int_equal(tx_rcpt(run.tx, 1)->response->code, 250);
		assert_int_equal(tx_rcpt(run.tx, 2)->response->code, 450);
		assert_int_equal(tx_rcpt(run.tx, 3)->response->code, 250);
		finish_run(&run);
	}
}

/* Everything at once into the transaction, while the first request is under way. */
static void
set_up_rush(Run *run)
{
	add_mail(run->tx, "a@x");
}

static void
rush(Run *run)
{
	if (run->step++ > 0)
		return;
	for (int i = 0; i < 20; i++) {
		g_autofree char *addr = g_strdup_printf("r%d@y", i);
		add_rcpt(run->tx, addr);
	}
	tx_heartbeat(run->tx);
	g_autofree char *text = g_strnfill(300000, 'x');
	g_autoptr(Blob) blob = blob_new_bytes(text, 300000);
	add_body(run->tx, blob);
}

static void
rush_job(void *arg)
{
	rush(arg);
}

static void
test_rush(void **state)
{
	(void)state;
	g_autofree char *url = auto_url();
	Run run = {.url = url,
		   .set_up = set_up_rush,
		   .on_change = rush,
		   .is_done = has_data,
		   .options = {.chunk_size = 65536}};
	start_run(&run);
	on_worker(workers_get(world.workers, 0), rush_job, &run);
	assert_true(latch_wait(&run.done, 1));
	assert_response(run.tx->data_response, 250, "data ok 300000");
	assert_int_equal(run.tx->rcpt_answers, 20);
	finish_run(&run);
}

static void
set_up_refused(Run *run)
{
	add_mail(run->tx, "perm@x");
	add_rcpt(run->tx, "b@y");
	g_autoptr(Blob) blob = blob_new_bytes("hello", 5);
	add_body(run->tx, blob);
}

static void
set_up_no_rcpt(Run *run)
{
	add_mail(run->tx, "a@x");
	add_rcpt(run->tx, "temp@y");
	add_rcpt(run->tx, "perm@y");
	g_autoptr(Blob) blob = blob_new_bytes("hello", 5);
	add_body(run->tx, blob);
}

static void
wait_for_cancels(int want)
{
	for (int i = 0; i < 5000 && atomic_load(&world.cancels) < want; i++)
		usleep(1000);
	assert_int_equal(atomic_load(&world.cancels), want);
}

static void
test_refused(void **state)
{
	(void)state;
	g_autofree char *url = auto_url();
	int cancels = atomic_load(&world.cancels);
	Run run = {.url = url, .set_up = set_up_refused, .is_done = has_data};
	do_run(&run);
	assert_response(run.tx->mail_response, 550, "not you");
	assert_int_equal(run.tx->data_response->code / 100, 5);
	finish_run(&run);
	wait_for_cancels(cancels + 1); /* nothing was delivered: it is told to forget it */
	run.set_up = set_up_no_rcpt;
	run.is_done = has_data;
	do_run(&run);
	assert_int_equal(run.tx->data_response->code / 100, 4);
	finish_run(&run);
	wait_for_cancels(cancels + 2);
}

static void
cancel_after_rcpt(Run *run)
{
	if (run->tx->rcpt_answers > 0)
		tx_cancel(run->tx);
}

static void
set_up_envelope(Run *run)
{
	add_mail(run->tx, "a@x");
	add_rcpt(run->tx, "b@y");
	run->blob = blob_new(NULL);
	add_body(run->tx, run->blob);
}

static bool
never(const Run *run)
{
	(void)run;
	return false;
}

static void
test_cancelled(void **state)
{
	(void)state;
	g_autofree char *url = auto_url();
	int cancels = atomic_load(&world.cancels);
	Run run = {.url = url, .set_up = set_up_envelope, .on_change = cancel_after_rcpt};
	run.is_done = has_rcpts;
	start_run(&run);
	assert_true(latch_wait(&run.done, 1)); /* stopped without an answer to data */
	finish_run(&run);
	wait_for_cancels(cancels + 1);
	/* Cancelled at the very start: the answer to the POST says what to cancel. */
	Run early = {.url = url, .set_up = set_up_envelope, .is_done = never, .stop_at_once = true};
	start_run(&early);
	finish_run(&early);
	wait_for_cancels(cancels + 2);
	Run told = {
		.url = url, .set_up = set_up_envelope, .is_done = has_mail, .cancel_at_once = true};
	do_run(&told);
	assert_response(told.tx->mail_response, 550, "cancelled");
	finish_run(&told);
	wait_for_cancels(cancels + 3);
}

/* ---- against a script ---- */

typedef struct Line {
	const char *want; /* "METHOD /path" */
	int status;
	const char *headers[7];
	const char *body;    /* JSON, unless a content type is among the headers */
	const char *body_in; /* what the request must hold; NULL: not looked at */
} Line;

static struct {
	HttpServer *server;
	char *base;
	const Line *lines;
	size_t n;
	atomic_uint next;
	pthread_mutex_t lock;
	GString *wrong; /* what did not go by the script */
	atomic_int cancels;
} script = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void
note(const char *what, const char *detail)
{
	pthread_mutex_lock(&script.lock);
	g_string_append_printf(script.wrong, "%s: %s\n", what, detail);
	pthread_mutex_unlock(&script.lock);
}

static void
play(HttpRequest *request, const Line *line)
{
	HttpHeader headers[3];
	size_t n = 0;
	const char *type = line->body != NULL ? "application/json" : NULL;
	for (size_t i = 0; i + 1 < G_N_ELEMENTS(line->headers) && line->headers[i] != NULL;
	     i += 2) {
		if (strcmp(line->headers[i], "content-type") == 0)
			type = line->headers[i + 1];
		else
			headers[n++] = (HttpHeader){line->headers[i], line->headers[i + 1]};
	}
	size_t len = line->body != NULL ? strlen(line->body) : 0;
	http_respond(request, line->status, headers, n, type, g_strdup(line->body), len);
}

static void
on_script_body(void *arg, HttpRequest *request, HttpBodyEvent event, const char *data, size_t len)
{
	(void)arg;
	(void)len;
	g_autofree char *got = g_strdup_printf("%s %s", http_method(request), http_path(request));
	if (g_str_has_suffix(got, "/cancel")) {
		atomic_fetch_add(&script.cancels, 1);
		http_respond_text(request, 200, NULL);
		return;
	}
	unsigned next = atomic_fetch_add(&script.next, 1);
	if (event != HTTP_BODY_END) {
		http_respond_text(request, 400, NULL);
	} else if (next >= script.n) {
		note("too many", got);
		http_respond_text(request, 500, NULL);
	} else {
		const Line *line = &script.lines[next];
		const char *range = http_header(request, "content-range");
		const char *finalize = http_header(request, "x-finalize-blob-length");
		g_autofree char *full = g_strconcat(
			got, range != NULL ? " " : "", range != NULL ? range : "",
			finalize != NULL ? " =" : "", finalize != NULL ? finalize : "", NULL);
		if (strcmp(full, line->want) != 0)
			note(line->want, full);
		if (line->body_in != NULL && strcmp(line->body_in, data) != 0)
			note(line->body_in, data);
		play(request, line);
	}
}

static void
handle_script(void *arg, HttpRequest *request)
{
	(void)arg;
	http_read_body(request, 1000000, on_script_body, NULL);
}

#define CREATED "location", "/transactions/7", "etag", "e1"
#define SENT    "{\"mail_from\":{},\"rcpt_to\":[{}]"
#define OK_ENV                                                                                       \
	SENT ",\"mail_response\":{\"code\":250,\"message\":\"m\"},\"rcpt_response\":[{\"code\":250," \
	     "\"message\":\"r\"}]"
#define OK_DATA ",\"data_response\":{\"code\":250,\"message\":\"d\"}}"
#define POST_OK                                                                                    \
	{                                                                                          \
		"POST /", 201, {CREATED}, OK_ENV "}", NULL                                         \
	}

static void
run_script(const Line *lines, size_t n, Run *run)
{
	script.lines = lines;
	script.n = n;
	atomic_store(&script.next, 0);
	g_string_truncate(script.wrong, 0);
	run->url = script.base;
	do_run(run);
	finish_run(run);
	if (script.wrong->len > 0)
		fail_msg("%s", script.wrong->str);
	assert_int_equal(atomic_load(&script.next), n);
}

#define RUN_SCRIPT(lines, run) run_script(lines, G_N_ELEMENTS(lines), run)

typedef struct Failure {
	const char *name;
	size_t n;
	Line lines[5];
	int code; /* of the first answer that is no success */
	const char *text;
} Failure;

static void
keep_tx(Run *run, Tx **ret_tx)
{
	*ret_tx = tx_ref(run->tx);
}

static const Failure FAILURES[] = {
	{"post 500",
	 1,
	 {{"POST /", 500, {0}, NULL, NULL}},
	 450,
	 "RestEndpoint._start_upstream_tx http error 500"},
	{"post 200",
	 1,
	 {{"POST /", 200, {CREATED}, OK_ENV "}", NULL}},
	 450,
	 "RestEndpoint._start_upstream_tx http error 200"},
	{"post without location",
	 1,
	 {{"POST /", 201, {"etag", "1"}, OK_ENV "}", NULL}},
	 450,
	 "RestEndpoint._start_upstream_tx http error 201"},
	{"post without etag",
	 1,
	 {{"POST /", 201, {"location", "/transactions/7"}, OK_ENV "}", NULL}},
	 450,
	 "RestEndpoint._start_upstream_tx bad response no etag"},
	{"post, bad JSON",
	 1,
	 {{"POST /", 201, {CREATED}, "{", NULL}},
	 450,
	 "RestEndpoint._start_upstream_tx bad resp json"},
	{"post, text",
	 1,
	 {{"POST /", 201, {CREATED, "content-type", "text/plain"}, "{}", NULL}},
	 450,
	 "RestEndpoint._start_upstream_tx bad resp json"},
	{"post, unknown key",
	 1,
	 {{"POST /", 201, {CREATED}, SENT ",\"queue_id\":\"x\"}", NULL}},
	 450,
	 "RestEndpoint._start_upstream_tx bad upstream delta"},
	{"post, not what was sent",
	 1,
	 {{"POST /", 201, {CREATED}, "{\"rcpt_to\":[{},{}]}", NULL}},
	 450,
	 "RestEndpoint._start_upstream_tx bad upstream delta"},
	{"get 500",
	 2,
	 {{"POST /", 201, {CREATED}, SENT "}", NULL},
	  {"GET /transactions/7", 500, {0}, NULL, NULL}},
	 450,
	 "RestEndpoint._start_upstream_tx GET err"},
	{"get without etag",
	 2,
	 {{"POST /", 201, {CREATED}, SENT "}", NULL},
	  {"GET /transactions/7", 200, {0}, OK_ENV "}", NULL}},
	 450,
	 "RestEndpoint._start_upstream_tx GET err"},
	{"304 with another etag",
	 2,
	 {{"POST /", 201, {CREATED}, SENT "}", NULL},
	  {"GET /transactions/7", 304, {"etag", "e2"}, NULL, NULL}},
	 450,
	 "RestEndpoint._start_upstream_tx GET err"},
	{"upstream gives up",
	 2,
	 {{"POST /", 201, {CREATED}, SENT "}", NULL},
	  {"GET /transactions/7",
	   200,
	   {"etag", "e2"},
	   SENT ",\"final_attempt_reason\":\"x\"}",
	   NULL}},
	 450,
	 "RestEndpoint._start_upstream_tx upstream gave up"},
	{"put 500",
	 2,
	 {POST_OK, {"PUT /transactions/7/body", 500, {0}, NULL, "hello"}},
	 450,
	 "RestEndpoint._put_blob_chunk PUT err"},
	{"put 404",
	 2,
	 {POST_OK, {"PUT /transactions/7/body", 404, {0}, NULL, "hello"}},
	 450,
	 "RestEndpoint._put_blob_chunk PUT err"},
	{"put 413",
	 2,
	 {POST_OK, {"PUT /transactions/7/body", 413, {0}, NULL, "hello"}},
	 552,
	 "5.3.4 message too large for the next hop"},
	{"put, bad range",
	 2,
	 {POST_OK, {"PUT /transactions/7/body", 200, {"content-range", "x"}, NULL, "hello"}},
	 450,
	 "RestEndpoint._put_blob_chunk bad range"},
	{"put, range from the middle",
	 2,
	 {POST_OK,
	  {"PUT /transactions/7/body", 200, {"content-range", "bytes 1-4/5"}, NULL, "hello"}},
	 450,
	 "RestEndpoint._put_blob_chunk bad range"},
	{"put, more than sent",
	 2,
	 {POST_OK,
	  {"PUT /transactions/7/body", 200, {"content-range", "bytes 0-5/6"}, NULL, "hello"}},
	 450,
	 "invalid resp content-range"},
	{"put 416 without range",
	 2,
	 {POST_OK, {"PUT /transactions/7/body", 416, {0}, NULL, "hello"}},
	 450,
	 "RestEndpoint._put_blob_chunk PUT err"},
	{"put 416 for ever",
	 5,
	 {POST_OK,
	  {"PUT /transactions/7/body", 416, {"content-range", "bytes */5"}, NULL, "hello"},
	  {"PUT /transactions/7/body", 416, {"content-range", "bytes */5"}, NULL, "hello"},
	  {"PUT /transactions/7/body", 416, {"content-range", "bytes */5"}, NULL, "hello"},
	  {"PUT /transactions/7/body", 416, {"content-range", "bytes */5"}, NULL, "hello"}},
	 450,
	 "RestEndpoint._put_blob_chunk PUT err"},
	{"get for data 500",
	 3,
	 {POST_OK,
	  {"PUT /transactions/7/body", 200, {0}, NULL, "hello"},
	  {"GET /transactions/7", 500, {0}, NULL, NULL}},
	 450,
	 "RestEndpoint upstream invalid resp/delta get"},
	{"an answer changes",
	 3,
	 {POST_OK,
	  {"PUT /transactions/7/body", 200, {0}, NULL, "hello"},
	  {"GET /transactions/7",
	   200,
	   {"etag", "e2"},
	   SENT ",\"mail_response\":{\"code\":251,\"message\":\"m\"}}",
	   NULL}},
	 450,
	 "RestEndpoint upstream invalid resp/delta get"},
};

static Tx *kept;

static void
keep_in_change(Run *run)
{
	if (kept == NULL)
		keep_tx(run, &kept);
}

static void
drop_kept(void *arg)
{
	(void)arg;
	g_clear_pointer(&kept, tx_unref);
}

static void
test_failures(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(FAILURES); i++) {
		const Failure *f = &FAILURES[i];
		Run run = {
			.set_up = set_up_whole, .on_change = keep_in_change, .is_done = has_data};
		run_script(f->lines, f->n, &run);
		const Response *first = kept->mail_response;
		if (response_ok(first))
			first = tx_rcpt(kept, 0)->response;
		if (response_ok(first))
			first = kept->data_response;
		if (first->code != f->code || strcmp(first->message, f->text) != 0)
			fail_msg("%s: %d %s", f->name, first->code, first->message);
		on_worker(workers_get(world.workers, 0), drop_kept, NULL);
	}
}

static void
test_network(void **state)
{
	(void)state;
	Run run = {.url = "http://127.0.0.1:1/", .set_up = set_up_whole, .is_done = has_data};
	do_run(&run);
	assert_response(run.tx->mail_response, 450,
			"RestEndpoint._start_upstream_tx http exception");
	/* A temporary failure stays one all the way. */
	assert_int_equal(tx_rcpt(run.tx, 0)->response->code, 450);
	assert_int_equal(run.tx->data_response->code, 450);
	finish_run(&run);
}

/* A server that never changes and does not wait either: polled at a walking pace, then given up. */
static void
test_unchanged(void **state)
{
	(void)state;
	Line lines[64] = {{"POST /", 201, {CREATED}, SENT "}", NULL}};
	for (size_t i = 1; i < G_N_ELEMENTS(lines); i++)
		lines[i] = (Line){"GET /transactions/7", 304, {"etag", "e1"}, NULL, NULL};
	script.lines = lines;
	script.n = G_N_ELEMENTS(lines);
	atomic_store(&script.next, 0);
	int cancels = atomic_load(&script.cancels);
	Run run = {.url = script.base,
		   .set_up = set_up_whole,
		   .is_done = has_data,
		   .options = {.rcpt_timeout = 2 * USEC_PER_SEC}};
	do_run(&run);
	assert_response(run.tx->mail_response, 450,
			"RestEndpoint._start_upstream_tx GET mail_response timeout");
	finish_run(&run);
	assert_in_range(atomic_load(&script.next), 4, 12);
	for (int i = 0; i < 2000 && atomic_load(&script.cancels) == cancels; i++)
		usleep(1000);
	assert_int_equal(atomic_load(&script.cancels), cancels + 1);
}

/* Another version than ours at PATCH: read again, then the same PATCH. */
static void
one_more(Run *run)
{
	if (run->tx->rcpt_answers == 1 && tx_rcpt_count(run->tx) == 1)
		add_rcpt(run->tx, "c@y");
}

static bool
has_two(const Run *run)
{
	return run->tx->rcpt_answers == 2;
}

static void
set_up_two(Run *run)
{
	add_mail(run->tx, "a@x");
	add_rcpt(run->tx, "b@y");
}

static void
test_conflict(void **state)
{
	(void)state;
#define PATCH_JSON "{\"rcpt_to_list_offset\":1,\"rcpt_to\":[{\"m\":\"c@y\"}]}"
	static const Line LINES[] = {
		POST_OK,
		{"PATCH /transactions/7", 412, {0}, NULL, PATCH_JSON},
		{"GET /transactions/7", 200, {"etag", "e5"}, OK_ENV "}", ""},
		{"PATCH /transactions/7",
		 200,
		 {"etag", "e6"},
		 "{\"mail_from\":{},\"rcpt_to\":[{},{}],\"mail_response\":{\"code\":250,\"message\":\"m\"},"
		 "\"rcpt_response\":[{\"code\":250,\"message\":\"r\"},{\"code\":250,\"message\":\"s\"}]}",
		 PATCH_JSON},
	};
	Run run = {.set_up = set_up_two, .on_change = one_more, .is_done = has_two};
	RUN_SCRIPT(LINES, &run);
}

static void
test_resume(void **state)
{
	(void)state;
	/* 416 says what is there; what is missing goes on from there. */
	static const Line LINES[] = {
		POST_OK,
		{"PUT /transactions/7/body bytes 0-1/*",
		 200,
		 {"content-range", "bytes 0-1/*"},
		 "{}",
		 "he"},
		{"PUT /transactions/7/body bytes 2-3/*",
		 416,
		 {"content-range", "bytes 0-0/*"},
		 NULL,
		 "ll"},
		{"PUT /transactions/7/body bytes 1-2/*",
		 200,
		 {"content-range", "bytes 0-2/*"},
		 "{}",
		 "el"},
		{"PUT /transactions/7/body bytes 3-4/5",
		 200,
		 {"content-range", "bytes 0-4/5"},
		 "{}",
		 "lo"},
		{"GET /transactions/7", 304, {"etag", "e1"}, NULL, NULL},
		{"GET /transactions/7", 200, {"etag", "e2"}, OK_ENV OK_DATA, NULL},
	};
	Run run = {.set_up = set_up_whole, .is_done = has_data, .options = {.chunk_size = 2}};
	RUN_SCRIPT(LINES, &run);
	/* Whole, in one: half of it got through. */
	static const Line WHOLE[] = {
		POST_OK,
		{"PUT /transactions/7/body", 416, {"content-range", "bytes 0-2/*"}, NULL, "hello"},
		{"PUT /transactions/7/body bytes 3-4/5",
		 200,
		 {"content-range", "bytes 0-4/5"},
		 "{}",
		 "lo"},
		{"GET /transactions/7", 200, {"etag", "e2"}, OK_ENV OK_DATA, NULL},
	};
	run = (Run){.set_up = set_up_whole, .is_done = has_data};
	RUN_SCRIPT(WHOLE, &run);
}

/* A parsed message for a receiver: spec, parts, original, each whole. */
static void
set_up_parsed(Run *run)
{
	add_mail(run->tx, "a@x");
	add_rcpt(run->tx, "b@y");
	static const char SPEC[] = "{\"text_body\":[{\"content\":{\"create_id\":\"0\"}}]}";
	g_autoptr(json_t) spec = json_parse("spec", SPEC, strlen(SPEC), NULL);
	g_autoptr(Blob) raw = blob_new_bytes("raw message", 11);
	g_autoptr(Blob) part = blob_new_bytes("part", 4);
	g_autoptr(TxBody) body = tx_body_new_builder(spec, raw);
	tx_body_add_part(body, "0", part);
	tx_set_body(run->tx, body);
}

#define SLOTS                                                                                      \
	",\"body\":{\"blob_status\":{\"uri\":\"/app/7/raw\",\"finalized\":false},"                 \
	"\"message_builder\":{\"uri\":\"/app/7/builder\"}}"
#define FILLED                                                                                     \
	",\"body\":{\"blob_status\":{\"uri\":\"/app/7/raw\",\"finalized\":false},"                 \
	"\"message_builder\":{\"blob_status\":{\"0\":{\"uri\":\"/app/7/part0\"}}}}"

static void
test_receiver(void **state)
{
	(void)state;
	static const Line PARSED[] = {
		{"POST /", 201, {CREATED}, OK_ENV SLOTS "}", NULL},
		{"POST /app/7/builder",
		 200,
		 {"etag", "e2"},
		 OK_ENV FILLED "}",
		 "{\"text_body\":[{\"content\":{\"create_id\":\"0\"}}]}"},
		{"PUT /app/7/part0", 200, {0}, NULL, "part"},
		{"PUT /app/7/raw", 200, {0}, NULL, "raw message"},
		{"GET /transactions/7", 200, {"etag", "e3"}, OK_ENV OK_DATA, NULL},
	};
	Run run = {.set_up = set_up_parsed,
		   .is_done = has_data,
		   .options = {.chunk_size = 3, .receive_parsing = true}};
	RUN_SCRIPT(PARSED, &run);
	/* The destination does not want it parsed: the message alone, whole all the same. */
	static const Line RAW[] = {
		{"POST /", 201, {CREATED}, OK_ENV SLOTS "}", NULL},
		{"PUT /app/7/raw", 200, {0}, NULL, "raw message"},
		{"GET /transactions/7", 200, {"etag", "e3"}, OK_ENV OK_DATA, NULL},
	};
	run = (Run){.set_up = set_up_parsed, .is_done = has_data, .options = {.chunk_size = 3}};
	RUN_SCRIPT(RAW, &run);
	/* It refuses the spec. */
	static const Line REFUSED[] = {
		{"POST /", 201, {CREATED}, OK_ENV SLOTS "}", NULL},
		{"POST /app/7/builder", 400, {0}, NULL, NULL},
	};
	run = (Run){.set_up = set_up_parsed,
		    .is_done = has_data,
		    .on_change = keep_in_change,
		    .options = {.receive_parsing = true}};
	RUN_SCRIPT(REFUSED, &run);
	assert_response(kept->data_response, 400, "RestEndpoint update_message_builder http err");
	on_worker(workers_get(world.workers, 0), drop_kept, NULL);
}

/* ---- life ---- */

static int
set_up(void **state)
{
	(void)state;
	world.service = NULL; /* uploads come to the server itself */
	world_open();
	script.wrong = g_string_new(NULL);
	const HttpServerOptions options = {.host = "127.0.0.1"};
	script.server = http_server_open(world.workers, &options, handle_script, NULL, NULL);
	assert_non_null(script.server);
	script.base = g_strdup_printf("http://127.0.0.1:%u/", http_server_port(script.server));
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	http_server_free(script.server);
	world_close();
	g_string_free(script.wrong, TRUE);
	g_free(script.base);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),     cmocka_unit_test(test_smtp_like),
		cmocka_unit_test(test_rush),      cmocka_unit_test(test_refused),
		cmocka_unit_test(test_cancelled), cmocka_unit_test(test_failures),
		cmocka_unit_test(test_network),   cmocka_unit_test(test_unchanged),
		cmocka_unit_test(test_conflict),  cmocka_unit_test(test_resume),
		cmocka_unit_test(test_receiver),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
