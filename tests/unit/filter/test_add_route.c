/* SPDX-License-Identifier: Apache-2.0 */
/* add_route in both forms: port 0 is the copy, port 1 the main next node. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness.h"

#define SYNC "- {filter: add_route, sender: sor, tag: t}\n"
#define SF   "- {filter: add_route, sender: sor, store_and_forward: true}\n"
#define END  "- {filter: rest_output, static_endpoint: 'http://main/'}\n"

static Harness *
setup(const char *yaml)
{
	Harness *h = harness_new();
	harness_sender(h, "sor", NULL);
	harness_chain(h, yaml);
	return h;
}

static void
answer(Harness *h, guint port, int mail, int rcpt, int data)
{
	Tx *tx = harness_port(h, port)->tx;
	if (mail != 0)
		tx_answer_mail(tx, response_new(mail, "m"));
	if (rcpt != 0)
		tx_answer_rcpt(tx, 0, response_new(rcpt, "r"));
	if (data != 0)
		tx_answer_data(tx, response_new(data, "d"));
	harness_turn(h);
}

static void
envelope(Harness *h)
{
	harness_mail(h, "alice@example.com");
	harness_rcpt(h, "bob@example.com");
	harness_turn(h);
}

static void
test_success(void **state)
{
	(void)state;
	Harness *h = setup(SYNC END);
	g_autoptr(json_t) meta = json_pack("{s:s}", "ehlo_host", "x");
	tx_set_smtp_meta(h->tx, meta);
	harness_body(h, "hello");
	envelope(h);
	/* The copy goes first. */
	assert_int_equal(h->opened->len, 1);
	const FakePort *side = harness_port(h, 0);
	assert_string_equal(side->sender, "sor");
	assert_string_equal(side->tag, "t");
	assert_ptr_equal(side->tx->body, h->tx->body);
	assert_ptr_equal(side->tx->smtp_meta, meta);
	assert_string_equal(tx_rcpt(side->tx, 0)->to->addr, "bob@example.com");
	answer(h, 0, 201, 202, 0);
	assert_int_equal(h->opened->len, 1); /* its data response is still owed */
	answer(h, 0, 0, 0, 203);
	assert_int_equal(h->opened->len, 2);
	assert_null(h->tx->mail_response);
	answer(h, 1, 204, 205, 206);
	assert_response(h->tx->mail_response, "204 m");
	assert_response(tx_rcpt(h->tx, 0)->response, "205 r");
	assert_response(h->tx->data_response, "206 d");
	harness_free(h);
}

typedef struct ErrCase {
	int mail, rcpt, data;
	const char *want_mail, *want_rcpt, *want_data;
} ErrCase;

#define MARK " (AddRouteFilter upstream)"
#define NOOP "250 ok (AddRouteFilter noop)"

static const ErrCase err_cases[] = {
	{501, 502, 0, "501 m" MARK, "502 r" MARK,
	 "503 5.5.1 failed precondition: all rcpts failed"},
	{450, 503, 0, "450 m" MARK, "450 failed precondition: MAIL",
	 "450 failed precondition: all rcpts failed"},
	{250, 501, 0, NOOP, "501 r" MARK, "503 5.5.1 failed precondition: all rcpts failed"},
	{250, 250, 501, NOOP, NOOP, "501 d" MARK},
	{250, 250, 401, NOOP, NOOP, "401 d" MARK},
};

static void
test_errors(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(err_cases); i++) {
		const ErrCase *c = &err_cases[i];
		Harness *h = setup(SYNC END);
		harness_body(h, "hello");
		envelope(h);
		answer(h, 0, c->mail, c->rcpt, c->data);
		assert_response(h->tx->mail_response, c->want_mail);
		assert_response(tx_rcpt(h->tx, 0)->response, c->want_rcpt);
		assert_response(h->tx->data_response, c->want_data);
		assert_int_equal(h->opened->len, 1);
		harness_free(h);
	}
}

/* The copy is refused at RCPT, no message yet: those answers, and nothing goes on. */
static void
test_rcpt_err_without_body(void **state)
{
	(void)state;
	Harness *h = setup(SYNC END);
	envelope(h);
	answer(h, 0, 250, 550, 0);
	assert_response(h->tx->mail_response, NOOP);
	assert_response(tx_rcpt(h->tx, 0)->response, "550 r" MARK);
	assert_null(h->tx->data_response);
	assert_int_equal(h->opened->len, 1);
	harness_free(h);
}

/* Before the first recipient there is nothing to copy. */
static void
test_mail_alone(void **state)
{
	(void)state;
	Harness *h = setup(SYNC END);
	harness_mail(h, "alice@example.com");
	harness_turn(h);
	assert_int_equal(h->opened->len, 1);
	assert_string_equal(harness_port(h, 0)->url, "http://main/");
	harness_free(h);
}

static void
test_data_err_after_envelope(void **state)
{
	(void)state;
	Harness *h = setup(SYNC END);
	envelope(h);
	answer(h, 0, 250, 250, 0);
	answer(h, 1, 251, 252, 0);
	harness_body(h, "hello");
	harness_turn(h);
	assert_null(harness_port(h, 1)->tx->body); /* the copy first */
	answer(h, 0, 0, 0, 554);
	assert_response(h->tx->mail_response, "251 m");
	assert_response(tx_rcpt(h->tx, 0)->response, "252 r");
	assert_response(h->tx->data_response, "554 d" MARK);
	assert_null(harness_port(h, 1)->tx->body);
	harness_free(h);
}

static void
test_store_and_forward(void **state)
{
	(void)state;
	Harness *h = setup(SF END);
	envelope(h);
	assert_int_equal(h->opened->len, 2);
	/* Errors of the copy do not matter. */
	answer(h, 0, 450, 450, 0);
	answer(h, 1, 250, 250, 0);
	harness_body(h, "hello");
	harness_turn(h);
	assert_true(tx_body_ready(harness_port(h, 0)->tx));
	assert_true(tx_body_ready(harness_port(h, 1)->tx));
	answer(h, 1, 0, 0, 250);
	assert_response(h->tx->data_response, "250 d");
	harness_free(h);
}

/* A sender that retries: the message goes on once the copy is on disk. */
static void
test_store_and_forward_durable(void **state)
{
	(void)state;
	Harness *h = setup(SF END);
	envelope(h);
	tx_enable_retry(harness_port(h, 0)->tx, NULL); /* as that sender's router does */
	answer(h, 1, 250, 250, 0);
	harness_body(h, "hello");
	harness_turn(h);
	assert_true(tx_body_ready(harness_port(h, 0)->tx));
	assert_null(harness_port(h, 1)->tx->body);
	assert_true(chain_is_waiting(h->chain));
	tx_set_durable(harness_port(h, 0)->tx);
	harness_turn(h);
	assert_true(tx_body_ready(harness_port(h, 1)->tx));
	harness_free(h);
}

static void
test_cancel(void **state)
{
	(void)state;
	Harness *h = setup(SYNC END);
	envelope(h);
	tx_cancel(h->tx);
	harness_turn(h);
	assert_true(harness_port(h, 0)->tx->cancelled);
	assert_response(h->tx->mail_response, "550 cancelled");
	harness_free(h);
}

static void
test_cancel_after_data(void **state)
{
	(void)state;
	Harness *h = setup(SYNC END);
	harness_body(h, "hello");
	envelope(h);
	answer(h, 0, 250, 250, 250);
	tx_cancel(h->tx);
	harness_turn(h);
	assert_false(harness_port(h, 0)->tx->cancelled);
	assert_true(harness_port(h, 1)->tx->cancelled);
	harness_free(h);
}

static void
test_busy(void **state)
{
	(void)state;
	Harness *h = setup(SYNC END);
	h->busy = true;
	envelope(h);
	assert_int_equal(tx_rcpt(h->tx, 0)->response->code, 450);
	assert_int_equal(h->tx->mail_response->code, 451);
	assert_int_equal(h->opened->len, 0);
	harness_free(h);
}

static void
test_disabled(void **state)
{
	(void)state;
	Harness *h = setup("- {filter: add_route}\n" END);
	envelope(h);
	assert_int_equal(h->opened->len, 1);
	assert_string_equal(harness_port(h, 0)->url, "http://main/");
	harness_free(h);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_success),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_rcpt_err_without_body),
		cmocka_unit_test(test_mail_alone),
		cmocka_unit_test(test_data_err_after_envelope),
		cmocka_unit_test(test_store_and_forward),
		cmocka_unit_test(test_store_and_forward_durable),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_cancel_after_data),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_disabled),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
