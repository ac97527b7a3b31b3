/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/json.h"
#include "tx/tx.h"

static void
add_rcpt(Tx *tx, const char *addr)
{
	g_autoptr(Mailbox) to = mailbox_new(addr, NULL, 0);
	tx_add_rcpt(tx, to);
}

static void
set_from(Tx *tx, const char *addr)
{
	g_autoptr(Mailbox) from = mailbox_new(addr, NULL, 0);
	assert_true(tx_set_mail_from(tx, from));
}

/* A body of no bytes yet; the blob is borrowed. */
static Blob *
set_open_body(Tx *tx)
{
	g_autoptr(Blob) blob = blob_new(NULL);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	assert_true(tx_set_body(tx, body));
	return blob;
}

static void
set_final_body(Tx *tx)
{
	g_autoptr(Blob) blob = blob_new_bytes("x", 1);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	assert_true(tx_set_body(tx, body));
}

/* ---- write once ---- */

static void
test_write_once(void **state)
{
	(void)state;
	g_autoptr(Tx) tx = tx_new(NULL);
	assert_int_equal(tx->version, 1);
	set_from(tx, "a@x");
	assert_int_equal(tx->version, 2);
	g_autoptr(Mailbox) other = mailbox_new("b@x", NULL, 0);
	assert_false(tx_set_mail_from(tx, other));
	assert_string_equal(tx->mail_from->addr, "a@x");
	assert_int_equal(other->refs, 1);

	g_autoptr(HostPort) host = host_port_new("192.0.2.1", 25);
	assert_true(tx_set_hosts(tx, host, NULL));
	assert_false(tx_set_hosts(tx, host, host));
	assert_null(tx->local_host);
	assert_true(tx_set_hosts(tx, NULL, host));
	assert_false(tx_set_hosts(tx, NULL, host));

	g_autoptr(json_t) meta = json_object();
	assert_true(tx_set_smtp_meta(tx, meta));
	assert_false(tx_set_smtp_meta(tx, meta));
	assert_true(tx_enable_retry(tx, NULL));
	assert_false(tx_enable_retry(tx, NULL));
	assert_true(json_is_object(tx->retry));
	assert_true(tx_enable_notification(tx, meta));
	assert_false(tx_enable_notification(tx, NULL));
	assert_ptr_equal(tx->notification, meta);

	assert_true(tx_set_sender(tx, "submission", NULL));
	assert_false(tx_set_sender(tx, "other", "tag"));
	assert_string_equal(tx->sender_name, "submission");
	assert_null(tx->sender_tag);

	set_final_body(tx);
	g_autoptr(Blob) blob = blob_new_bytes("y", 1);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	assert_false(tx_set_body(tx, body));

	assert_true(tx_set_route(tx, tx_route_new()));
	TxRoute *route = tx_route_new();
	route->url = g_strdup("http://x");
	g_ptr_array_add(route->hosts, host_port_new("x", 1));
	assert_false(tx_set_route(tx, route)); /* frees it */

	assert_true(tx_finish(tx, "upstream response success"));
	assert_false(tx_finish(tx, "downstream timeout"));
	assert_string_equal(tx->final_attempt_reason, "upstream response success");

	uint64_t version = tx->version;
	tx_cancel(tx);
	tx_cancel(tx);
	assert_int_equal(tx->version, version + 1);
	tx_set_version(tx, version); /* not downwards */
	assert_int_equal(tx->version, version + 1);
	tx_set_version(tx, version + 50);
	assert_int_equal(tx->version, version + 50);
}

static void
test_answers_once(void **state)
{
	(void)state;
	g_autoptr(Tx) tx = tx_new(NULL);
	add_rcpt(tx, "a@x");
	g_autoptr(Response) ok = response_new(250, NULL);
	g_autoptr(Response) bad = response_new(550, NULL);
	assert_true(tx_answer_mail(tx, response_ref(ok)));
	assert_false(tx_answer_mail(tx, response_ref(bad)));
	assert_true(tx_answer_rcpt(tx, 0, response_ref(ok)));
	assert_false(tx_answer_rcpt(tx, 0, response_ref(bad)));
	assert_int_equal(tx->rcpt_answers, 1);
	assert_true(tx_answer_data(tx, response_ref(ok)));
	assert_false(tx_answer_data(tx, response_ref(bad)));
	assert_int_equal(tx->data_response->code, 250);
	assert_int_equal(bad->refs, 1); /* dropped */
	assert_int_equal(ok->refs, 4);
}

/* ---- bodies ---- */

static void
test_body(void **state)
{
	(void)state;
	assert_false(tx_body_is_final(NULL));
	tx_body_unref(NULL);
	g_autoptr(json_t) spec = json_object();
	g_autoptr(TxBody) body = tx_body_new_builder(spec, NULL);
	assert_true(tx_body_is_final(body)); /* a skeleton has nothing to wait for */
	g_autoptr(Blob) one = blob_new(NULL);
	g_autoptr(Blob) two = blob_new_bytes("22", 2);
	tx_body_add_part(body, "b1", one);
	tx_body_add_part(body, "b2", two);
	assert_false(tx_body_is_final(body));
	assert_ptr_equal(tx_body_part(body, "b2")->blob, two);
	assert_null(tx_body_part(body, "b"));
	assert_true(blob_append(one, "abc", 3, NULL));
	assert_int_equal(tx_body_len(body), 5);
	blob_finalize(one);
	assert_true(tx_body_is_final(body));

	g_autoptr(Blob) raw = blob_new(NULL);
	g_autoptr(TxBody) parsed = tx_body_new_builder(spec, raw);
	assert_false(tx_body_is_final(parsed));
	assert_true(blob_append(raw, "abcd", 4, NULL));
	assert_int_equal(tx_body_len(parsed), 4);
	blob_finalize(raw);
	assert_true(tx_body_is_final(parsed));
}

/* ---- marks ---- */

#define EXPECT(bits)                                                                               \
	do {                                                                                       \
		assert_int_equal(tx_since(tx, &mark), (unsigned)(bits));                           \
		tx_mark(tx, &mark);                                                                \
		assert_int_equal(tx_since(tx, &mark), 0);                                          \
	} while (0)

static void
test_marks_requests(void **state)
{
	(void)state;
	g_autoptr(Tx) tx = tx_new(NULL);
	TxMark mark = {0};
	EXPECT(0);
	set_from(tx, "a@x");
	EXPECT(TX_NEW_MAIL_FROM);
	add_rcpt(tx, "b@x");
	add_rcpt(tx, "c@x");
	EXPECT(TX_NEW_RCPT);
	assert_int_equal(mark.rcpts, 2);
	add_rcpt(tx, "d@x");
	EXPECT(TX_NEW_RCPT);
	tx_heartbeat(tx);
	EXPECT(TX_NEW_HEARTBEAT);
	tx_heartbeat(tx);
	EXPECT(TX_NEW_HEARTBEAT);
	tx_enable_retry(tx, NULL);
	EXPECT(TX_NEW_RETRY);
	tx_enable_notification(tx, NULL);
	EXPECT(TX_NEW_RETRY);
	tx_set_sender(tx, "s", NULL); /* no bit of its own */
	EXPECT(0);
	Blob *blob = set_open_body(tx);
	EXPECT(TX_NEW_BODY);
	assert_true(blob_append(blob, "abc", 3, NULL));
	tx_note_body(tx);
	EXPECT(TX_NEW_BODY);
	assert_int_equal(mark.body_len, 3);
	tx_note_body(tx); /* nothing happened */
	EXPECT(0);
	assert_true(blob_append(blob, "d", 1, NULL));
	blob_finalize(blob);
	tx_note_body(tx);
	EXPECT(TX_NEW_BODY | TX_NEW_BODY_FINAL);
	tx_cancel(tx);
	EXPECT(TX_NEW_CANCEL);
	tx_touch(tx);
	EXPECT(0);

	TxMark zero = {0};
	assert_int_equal(tx_since(tx, &zero), TX_NEW_MAIL_FROM | TX_NEW_RCPT | TX_NEW_BODY |
						      TX_NEW_BODY_FINAL | TX_NEW_CANCEL |
						      TX_NEW_HEARTBEAT | TX_NEW_RETRY);
	assert_int_equal(tx_since(tx, &zero) & TX_NEW_ANSWERS, 0);
}

static void
test_marks_answers(void **state)
{
	(void)state;
	g_autoptr(Tx) tx = tx_new(NULL);
	TxMark mark = {0};
	set_from(tx, "a@x");
	add_rcpt(tx, "b@x");
	add_rcpt(tx, "c@x");
	EXPECT(TX_NEW_MAIL_FROM | TX_NEW_RCPT);
	tx_begin_attempt(tx);
	EXPECT(TX_NEW_ATTEMPT);
	tx_answer_mail(tx, response_new(250, NULL));
	EXPECT(TX_NEW_MAIL_RESPONSE);
	tx_answer_rcpt(tx, 1, response_new(450, NULL)); /* any order */
	EXPECT(TX_NEW_RCPT_RESPONSE);
	tx_answer_rcpt(tx, 0, response_new(250, NULL));
	EXPECT(TX_NEW_RCPT_RESPONSE);
	tx_set_filter_output(tx, "f", json_object());
	EXPECT(TX_NEW_FILTER_OUTPUT);
	tx_set_filter_output(tx, "f", json_integer(1)); /* replaced */
	EXPECT(TX_NEW_FILTER_OUTPUT);
	assert_int_equal(json_object_size(tx->filter_output), 1);
	tx_answer_data(tx, response_new(451, NULL));
	EXPECT(TX_NEW_DATA_RESPONSE);
	tx_finish(tx, "x");
	EXPECT(TX_NEW_FINAL);
}

/* A new attempt forgets the answers; an observer sees the new ones though the old ones were seen,
 * also when both happen between two looks. */
static void
test_marks_attempt(void **state)
{
	(void)state;
	g_autoptr(Tx) tx = tx_new(NULL);
	TxMark mark = {0};
	set_from(tx, "a@x");
	add_rcpt(tx, "b@x");
	tx_begin_attempt(tx);
	tx_answer_mail(tx, response_new(250, NULL));
	tx_answer_rcpt(tx, 0, response_new(450, NULL));
	tx_answer_data(tx, response_new(450, NULL));
	tx_set_filter_output(tx, "f", json_object());
	tx_mark(tx, &mark);
	tx_begin_attempt(tx);
	assert_int_equal(tx->attempt_count, 2);
	assert_null(tx->mail_response);
	assert_null(tx_rcpt(tx, 0)->response);
	assert_null(tx->data_response);
	assert_null(tx->filter_output);
	assert_int_equal(tx->rcpt_answers, 0);
	TxMark between = mark;
	EXPECT(TX_NEW_ATTEMPT);
	tx_answer_mail(tx, response_new(250, NULL));
	tx_answer_rcpt(tx, 0, response_new(250, NULL));
	EXPECT(TX_NEW_MAIL_RESPONSE | TX_NEW_RCPT_RESPONSE);
	tx_set_filter_output(tx, "f", json_object());
	EXPECT(TX_NEW_FILTER_OUTPUT);
	tx_answer_data(tx, response_new(250, NULL));
	EXPECT(TX_NEW_DATA_RESPONSE);
	assert_int_equal(tx_since(tx, &between),
			 TX_NEW_ATTEMPT | TX_NEW_MAIL_RESPONSE | TX_NEW_RCPT_RESPONSE |
				 TX_NEW_FILTER_OUTPUT | TX_NEW_DATA_RESPONSE);
	tx_set_attempt_count(tx, 7);
	assert_true((tx_since(tx, &mark) & TX_NEW_ATTEMPT) != 0);
}

/* Bodies that grow do not move the etag; their end does, once. */
static void
test_body_versions(void **state)
{
	(void)state;
	g_autoptr(Tx) tx = tx_new(NULL);
	Blob *blob = set_open_body(tx);
	uint64_t version = tx->version;
	assert_true(blob_append(blob, "abc", 3, NULL));
	tx_note_body(tx);
	assert_int_equal(tx->version, version);
	blob_finalize(blob);
	tx_note_body(tx);
	assert_int_equal(tx->version, version + 1);
	tx_note_body(tx);
	assert_int_equal(tx->version, version + 1);

	g_autoptr(Tx) whole = tx_new(NULL);
	set_final_body(whole);
	version = whole->version;
	tx_note_body(whole);
	assert_int_equal(whole->version, version);
}

/* ---- in flight ---- */

static void
test_in_flight(void **state)
{
	(void)state;
	g_autoptr(Tx) tx = tx_new(NULL);
	assert_false(tx_in_flight(tx));
	set_from(tx, "a@x");
	assert_true(tx_in_flight(tx));
	tx_answer_mail(tx, response_new(250, NULL));
	assert_false(tx_in_flight(tx));
	add_rcpt(tx, "b@x");
	assert_true(tx_in_flight(tx));
	tx_answer_rcpt(tx, 0, response_new(250, NULL));
	assert_false(tx_in_flight(tx));
	add_rcpt(tx, "c@x");
	assert_true(tx_in_flight(tx));
	tx_answer_rcpt(tx, 1, response_new(550, NULL));
	assert_false(tx_in_flight(tx));
	Blob *blob = set_open_body(tx);
	assert_false(tx_in_flight(tx));
	assert_false(tx_body_ready(tx));
	blob_finalize(blob);
	tx_note_body(tx);
	assert_true(tx_body_ready(tx));
	assert_true(tx_in_flight(tx));
	assert_int_equal(tx_rcpts_accepted(tx), 1);
	tx_answer_data(tx, response_new(250, NULL));
	assert_false(tx_in_flight(tx));
}

static void
test_in_flight_failures(void **state)
{
	(void)state;
	g_autoptr(Tx) tx = tx_new(NULL);
	set_from(tx, "a@x");
	add_rcpt(tx, "b@x");
	set_final_body(tx);
	tx_answer_mail(tx, response_new(550, NULL));
	assert_false(tx_in_flight(tx)); /* nothing more is expected */

	g_autoptr(Tx) refused = tx_new(NULL);
	set_from(refused, "a@x");
	add_rcpt(refused, "b@x");
	set_final_body(refused);
	tx_answer_mail(refused, response_new(250, NULL));
	tx_answer_rcpt(refused, 0, response_new(550, NULL));
	assert_false(tx_in_flight(refused));

	g_autoptr(Tx) no_from = tx_new(NULL);
	add_rcpt(no_from, "b@x");
	assert_true(tx_in_flight(no_from));
}

/* ---- fill and preconditions ---- */

#define MAIL_450  "450 failed precondition: MAIL"
#define MAIL_503  "503 5.5.1 failed precondition: MAIL"
#define RCPTS_450 "450 failed precondition: all rcpts failed"
#define RCPTS_503 "503 5.5.1 failed precondition: all rcpts failed"

typedef enum BodyKind { NO_BODY, OPEN_BODY, FINAL_BODY } BodyKind;

/* Codes: 0 = no answer yet, -1 = not even asked. */
typedef struct StateCase {
	const char *name;
	int mail, rcpt0, rcpt1, data;
	BodyKind body;
	int fill;         /* code of the response that is filled in; 0: tx_check_preconditions */
	const char *want; /* answers joined by " | ", "-" for none */
	bool live;        /* of tx_check_preconditions */
} StateCase;

static const StateCase FILL[] = {
	{"nothing asked", -1, -1, -1, 0, NO_BODY, 450, "- | - | - | -", false},
	{"MAIL", 0, -1, -1, 0, NO_BODY, 450, "450 R | - | - | -", false},
	{"MAIL and RCPT, temporary", 0, 0, 0, 0, NO_BODY, 450,
	 "450 R | " MAIL_450 " | " MAIL_450 " | -", false},
	{"MAIL and RCPT, permanent", 0, 0, -1, 0, NO_BODY, 550, "550 R | " MAIL_503 " | - | -",
	 false},
	{"everything, temporary", 0, 0, -1, 0, FINAL_BODY, 450,
	 "450 R | " MAIL_450 " | - | " RCPTS_450, false},
	{"everything, permanent", 0, 0, -1, 0, FINAL_BODY, 550,
	 "550 R | " MAIL_503 " | - | " RCPTS_503, false},
	{"everything, success", 0, 0, 0, 0, FINAL_BODY, 250, "250 R | 250 R | 250 R | 250 R",
	 false},
	{"RCPT", 250, 0, -1, 0, NO_BODY, 450, "250 ok | 450 R | - | -", false},
	{"second RCPT", 250, 250, 0, 0, OPEN_BODY, 450, "250 ok | 250 ok | 450 R | -", false},
	{"DATA", 250, 250, 550, 0, FINAL_BODY, 450, "250 ok | 250 ok | 550 permanent error | 450 R",
	 false},
	{"DATA not complete", 250, 250, -1, 0, OPEN_BODY, 450, "250 ok | 250 ok | - | -", false},
	{"DATA without recipients", 250, -1, -1, 0, FINAL_BODY, 450, "250 ok | - | - | " RCPTS_503,
	 false},
	{"DATA behind failed recipients", 250, 550, 451, 0, OPEN_BODY, 450,
	 "250 ok | 550 permanent error | 451 temporary error | " RCPTS_450, false},
	{"DATA behind refused recipients", 250, 550, -1, 0, OPEN_BODY, 450,
	 "250 ok | 550 permanent error | - | " RCPTS_503, false},
	{"answered", 250, 250, -1, 250, FINAL_BODY, 450, "250 ok | 250 ok | - | 250 ok", false},
	{"MAIL answered 5xx", 550, 0, -1, 0, FINAL_BODY, 450,
	 "550 permanent error | " MAIL_503 " | - | " RCPTS_503, false},
	{"MAIL answered 4xx, filled with 5xx", 451, 0, -1, 0, FINAL_BODY, 550,
	 "451 temporary error | " MAIL_450 " | - | " RCPTS_450, false},

	{"check: fresh", -1, -1, -1, 0, NO_BODY, 0, "- | - | - | -", true},
	{"check: in flight", 0, 0, -1, 0, FINAL_BODY, 0, "- | - | - | -", true},
	{"check: MAIL 4xx", 450, 0, 0, 0, NO_BODY, 0,
	 "450 temporary error | " MAIL_450 " | " MAIL_450 " | -", false},
	{"check: MAIL 5xx", 550, 0, 0, 0, NO_BODY, 0,
	 "550 permanent error | " MAIL_503 " | " MAIL_503 " | -", false},
	{"check: MAIL 5xx, early answer kept", 550, 250, 0, 0, NO_BODY, 0,
	 "550 permanent error | 250 ok | " MAIL_503 " | -", false},
	{"check: MAIL 4xx and body", 450, 0, -1, 0, OPEN_BODY, 0,
	 "450 temporary error | " MAIL_450 " | - | " RCPTS_450, false},
	{"check: MAIL 5xx and body", 550, 0, -1, 0, FINAL_BODY, 0,
	 "550 permanent error | " MAIL_503 " | - | " RCPTS_503, false},
	{"check: MAIL 354 counts as failure", 354, 0, -1, 0, NO_BODY, 0,
	 "354 internal error | " MAIL_503 " | - | -", false},
	{"check: all refused, no body", 250, 550, -1, 0, NO_BODY, 0,
	 "250 ok | 550 permanent error | - | -", true},
	{"check: all refused", 250, 550, 554, 0, OPEN_BODY, 0,
	 "250 ok | 550 permanent error | 554 permanent error | " RCPTS_503, false},
	{"check: one temporary", 250, 550, 450, 0, OPEN_BODY, 0,
	 "250 ok | 550 permanent error | 450 temporary error | " RCPTS_450, false},
	{"check: one missing", 250, 550, 0, 0, FINAL_BODY, 0,
	 "250 ok | 550 permanent error | - | -", true},
	{"check: one accepted", 250, 550, 250, 0, FINAL_BODY, 0,
	 "250 ok | 550 permanent error | 250 ok | -", true},
	{"check: body before recipients", 250, -1, -1, 0, FINAL_BODY, 0, "250 ok | - | - | -",
	 true},
	{"check: data answered", 250, 250, -1, 451, FINAL_BODY, 0,
	 "250 ok | 250 ok | - | 451 temporary error", false},
};

static void
show(GString *out, const Response *response)
{
	g_string_append(out, out->len > 0 ? " | " : "");
	if (response == NULL)
		g_string_append_c(out, '-');
	else
		g_string_append_printf(out, "%d %s", response->code, response->message);
}

static Tx *
make_state(const StateCase *c)
{
	Tx *tx = tx_new(NULL);
	const int rcpts[] = {c->rcpt0, c->rcpt1};
	if (c->mail >= 0)
		set_from(tx, "a@x");
	if (c->mail > 0)
		tx_answer_mail(tx, response_new(c->mail, NULL));
	for (size_t i = 0; i < 2 && rcpts[i] >= 0; i++) {
		add_rcpt(tx, "b@x");
		if (rcpts[i] > 0)
			tx_answer_rcpt(tx, i, response_new(rcpts[i], NULL));
	}
	if (c->body == OPEN_BODY)
		set_open_body(tx);
	if (c->body == FINAL_BODY)
		set_final_body(tx);
	if (c->data > 0)
		tx_answer_data(tx, response_new(c->data, NULL));
	return tx;
}

static void
test_fill_and_check(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(FILL); i++) {
		const StateCase *c = &FILL[i];
		g_autoptr(Tx) tx = make_state(c);
		if (c->fill > 0) {
			g_autoptr(Response) response = response_new(c->fill, "R");
			tx_fill_in_flight(tx, response);
			if (tx_in_flight(tx))
				fail_msg("%s: still in flight", c->name);
		} else if (tx_check_preconditions(tx) != c->live) {
			fail_msg("%s: live %d", c->name, !c->live);
		}
		g_autoptr(GString) got = g_string_new(NULL);
		show(got, tx->mail_response);
		for (size_t k = 0; k < 2; k++)
			show(got, k < tx_rcpt_count(tx) ? tx_rcpt(tx, k)->response : NULL);
		show(got, tx->data_response);
		if (strcmp(got->str, c->want) != 0)
			fail_msg("%s: %s", c->name, got->str);
		uint64_t version = tx->version; /* both are idempotent */
		if (c->fill == 0 &&
		    (tx_check_preconditions(tx) != c->live || tx->version != version))
			fail_msg("%s: not idempotent", c->name);
	}
}

/* ---- watching ---- */

typedef struct Watcher {
	TxWatch watch;
	int calls;
	char name;
	Tx *tx;
	struct Watcher *remove; /* unwatch this one when called */
	struct Watcher *add;    /* watch this one when called, once */
	bool free_self;
	bool touch; /* once */
	GString *log;
} Watcher;

static void
on_change(void *arg, Tx *tx)
{
	Watcher *w = arg;
	w->calls++;
	if (w->log != NULL)
		g_string_append_c(w->log, w->name);
	if (w->remove != NULL)
		tx_unwatch(&w->remove->watch);
	if (w->add != NULL) {
		tx_watch(tx, &w->add->watch, on_change, w->add);
		w->add = NULL;
	}
	if (w->touch) {
		w->touch = false;
		tx_touch(tx);
	}
	if (w->free_self) {
		tx_unwatch(&w->watch);
		g_free(w);
	}
}

static void
test_watch(void **state)
{
	(void)state;
	DeferQueue queue = {0};
	g_autoptr(Tx) tx = tx_new(&queue);
	Watcher w = {0};
	tx_watch(tx, &w.watch, on_change, &w);
	assert_int_equal(tx->refs, 2);
	assert_true(defer_run(&queue, 10));
	assert_int_equal(w.calls, 0);
	set_from(tx, "a@x");
	add_rcpt(tx, "b@x");
	assert_int_equal(w.calls, 0); /* not inside the setter */
	assert_true(defer_run(&queue, 10));
	assert_int_equal(w.calls, 1);        /* several changes at once */
	tx_set_mail_from(tx, tx->mail_from); /* refused: no change */
	assert_true(defer_run(&queue, 10));
	assert_int_equal(w.calls, 1);
	set_open_body(tx);
	assert_true(defer_run(&queue, 10));
	tx_note_body(tx); /* no new version, still a change */
	assert_true(defer_run(&queue, 10));
	assert_int_equal(w.calls, 3);
	tx_unwatch(&w.watch);
	tx_unwatch(&w.watch);
	assert_null(w.watch.tx);
	tx_touch(tx);
	assert_true(defer_run(&queue, 10));
	assert_int_equal(w.calls, 3);

	/* A change before the watch, in the same turn, is told too. */
	tx_touch(tx);
	tx_watch(tx, &w.watch, on_change, &w);
	assert_true(defer_run(&queue, 10));
	assert_int_equal(w.calls, 4);
	tx_unwatch(&w.watch);
}

static void
test_watch_order(void **state)
{
	(void)state;
	DeferQueue queue = {0};
	g_autoptr(Tx) tx = tx_new(&queue);
	g_autoptr(GString) log = g_string_new(NULL);
	Watcher w[4];
	for (size_t i = 0; i < 4; i++) {
		w[i] = (Watcher){.name = (char)('a' + i), .log = log};
		tx_watch(tx, &w[i].watch, on_change, &w[i]);
	}
	tx_touch(tx);
	assert_true(defer_run(&queue, 10));
	assert_string_equal(log->str, "abcd");
	/* Out of the middle, the front, the end; then again at the end. */
	static const struct {
		size_t remove;
		const char *want;
	} STEPS[] = {{1, "acd"}, {0, "cd"}, {3, "c"}, {2, ""}};
	for (size_t i = 0; i < G_N_ELEMENTS(STEPS); i++) {
		g_string_truncate(log, 0);
		tx_unwatch(&w[STEPS[i].remove].watch);
		tx_touch(tx);
		assert_true(defer_run(&queue, 10));
		assert_string_equal(log->str, STEPS[i].want);
	}
	tx_watch(tx, &w[3].watch, on_change, &w[3]);
	tx_watch(tx, &w[0].watch, on_change, &w[0]);
	tx_touch(tx);
	assert_true(defer_run(&queue, 10));
	assert_string_equal(log->str, "da");
	tx_unwatch(&w[0].watch);
	tx_unwatch(&w[3].watch);
}

/* For each pair: one watcher removes another (or itself) inside its callback. */
static void
test_remove_inside(void **state)
{
	(void)state;
	for (size_t by = 0; by < 3; by++) {
		for (size_t gone = 0; gone < 3; gone++) {
			DeferQueue queue = {0};
			g_autoptr(Tx) tx = tx_new(&queue);
			Watcher w[3] = {0};
			for (size_t i = 0; i < 3; i++)
				tx_watch(tx, &w[i].watch, on_change, &w[i]);
			w[by].remove = &w[gone];
			tx_touch(tx);
			assert_true(defer_run(&queue, 10));
			for (size_t i = 0; i < 3; i++)
				assert_int_equal(w[i].calls, i == gone && gone > by ? 0 : 1);
			for (size_t i = 0; i < 3; i++)
				tx_unwatch(&w[i].watch);
			assert_int_equal(tx->refs, 1);
		}
	}
}

static void
test_remove_two_inside(void **state)
{
	(void)state;
	DeferQueue queue = {0};
	g_autoptr(Tx) tx = tx_new(&queue);
	Watcher w[3] = {0};
	for (size_t i = 0; i < 3; i++)
		tx_watch(tx, &w[i].watch, on_change, &w[i]);
	w[0].remove = &w[1];
	w[2].remove = &w[2];
	tx_touch(tx);
	assert_true(defer_run(&queue, 10));
	assert_int_equal(w[1].calls, 0);
	assert_int_equal(w[2].calls, 1);
	tx_unwatch(&w[0].watch);
}

static void
test_add_inside(void **state)
{
	(void)state;
	for (size_t by = 0; by < 2; by++) { /* by the first or the last watcher */
		DeferQueue queue = {0};
		g_autoptr(Tx) tx = tx_new(&queue);
		Watcher w[2] = {0}, added = {0};
		for (size_t i = 0; i < 2; i++)
			tx_watch(tx, &w[i].watch, on_change, &w[i]);
		w[by].add = &added;
		tx_touch(tx);
		assert_true(defer_run(&queue, 10));
		assert_int_equal(added.calls, 0); /* only for what comes later */
		tx_touch(tx);
		assert_true(defer_run(&queue, 10));
		assert_int_equal(added.calls, 1);
		/* Added while a further change is noted: called for that one. */
		tx_unwatch(&added.watch);
		w[by].add = &added;
		w[by].touch = true;
		tx_touch(tx);
		assert_true(defer_run(&queue, 10));
		assert_int_equal(added.calls, 2);
		tx_unwatch(&added.watch);
		for (size_t i = 0; i < 2; i++)
			tx_unwatch(&w[i].watch);
	}
}

/* Watchers free themselves; the last reference goes inside the round. */
static void
test_free_inside(void **state)
{
	(void)state;
	DeferQueue queue = {0};
	Tx *tx = tx_new(&queue);
	for (int i = 0; i < 3; i++) {
		Watcher *w = g_new0(Watcher, 1);
		w->free_self = true;
		tx_watch(tx, &w->watch, on_change, w);
	}
	tx_touch(tx);
	tx_unref(tx); /* the watches hold it */
	assert_true(defer_run(&queue, 10));
}

static void
test_free_while_queued(void **state)
{
	(void)state;
	DeferQueue queue = {0};
	Tx *tx = tx_new(&queue);
	tx_touch(tx);
	assert_false(defer_is_empty(&queue));
	tx_unref(tx);
	assert_true(defer_is_empty(&queue));
}

/* A watcher that changes the tx each time does not starve the loop. */
static void
test_touch_inside(void **state)
{
	(void)state;
	DeferQueue queue = {0};
	g_autoptr(Tx) tx = tx_new(&queue);
	Watcher w = {.touch = true};
	tx_watch(tx, &w.watch, on_change, &w);
	tx_touch(tx);
	assert_false(defer_run(&queue, 1));
	assert_int_equal(w.calls, 1);
	assert_true(defer_run(&queue, 1));
	assert_int_equal(w.calls, 2);
	tx_unwatch(&w.watch);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write_once),
		cmocka_unit_test(test_answers_once),
		cmocka_unit_test(test_body),
		cmocka_unit_test(test_marks_requests),
		cmocka_unit_test(test_marks_answers),
		cmocka_unit_test(test_marks_attempt),
		cmocka_unit_test(test_body_versions),
		cmocka_unit_test(test_in_flight),
		cmocka_unit_test(test_in_flight_failures),
		cmocka_unit_test(test_fill_and_check),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_watch_order),
		cmocka_unit_test(test_remove_inside),
		cmocka_unit_test(test_remove_two_inside),
		cmocka_unit_test(test_add_inside),
		cmocka_unit_test(test_free_inside),
		cmocka_unit_test(test_free_while_queued),
		cmocka_unit_test(test_touch_inside),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
