/* SPDX-License-Identifier: Apache-2.0 */
/* The engine with made-up filters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness.h"

#define INTERNAL "450 internal error: OutputHandler failed to populate response"

/* ---- made-up filters ---- */

/* Notes each call as a letter and the news. */
static GString *calls;

static void
note(char letter, unsigned news)
{
	g_string_append_c(calls, letter);
	if (news & TX_NEW_MAIL_FROM)
		g_string_append_c(calls, 'm');
	if (news & TX_NEW_RCPT)
		g_string_append_c(calls, 'r');
	if (news & TX_NEW_BODY)
		g_string_append_c(calls, 'b');
	if (news & TX_NEW_BODY_FINAL)
		g_string_append_c(calls, 'f');
	if (news & TX_NEW_CANCEL)
		g_string_append_c(calls, 'c');
	if (news & TX_NEW_HEARTBEAT)
		g_string_append_c(calls, 'h');
	g_string_append_c(calls, ' ');
}

#define assert_calls(want)                                                                         \
	do {                                                                                       \
		assert_string_equal(calls->str, want);                                             \
		g_string_truncate(calls, 0);                                                       \
	} while (0)

static FilterResult
plain_update(Filter *filter, unsigned news)
{
	(void)filter;
	note('p', news);
	return FILTER_CONTINUE;
}
static const FilterKind plain = {.name = "plain", .update = plain_update};
static const FilterKind whole = {
	.name = "whole", .flags = FILTER_WHOLE_BODY, .update = plain_update};

static FilterResult
proxy_update(Filter *filter, unsigned news)
{
	note('x', news);
	filter_pass_body(filter, news);
	return FILTER_CONTINUE;
}
static const FilterKind proxy = {.name = "proxy", .flags = FILTER_PROXY, .update = proxy_update};

/* The end: remembers itself so that the test can answer. */
static Filter *end;

static FilterResult
end_update(Filter *filter, unsigned news)
{
	end = filter;
	note('e', news);
	return FILTER_CONTINUE;
}
static const FilterKind terminal = {.name = "end", .flags = FILTER_TERMINAL, .update = end_update};
static const FilterKind incremental = {
	.name = "end", .flags = FILTER_TERMINAL | FILTER_INCREMENTAL, .update = end_update};

/* Waits once for what `wait_for` says, stops or fails if told so. */
static Filter *waiter;
static unsigned wait_for;
static bool waiter_go, waiter_closed;

static FilterResult
waiter_update(Filter *filter, unsigned news)
{
	waiter = filter;
	note('w', news);
	return (news & wait_for) != 0 && !waiter_go ? FILTER_WAIT : FILTER_CONTINUE;
}
static void
waiter_close(Filter *filter)
{
	(void)filter;
	waiter_closed = true;
}
static const FilterKind waiting = {
	.name = "waiter", .update = waiter_update, .close = waiter_close};
static const FilterKind waiting_proxy = {
	.name = "waiter", .flags = FILTER_PROXY, .update = waiter_update, .close = waiter_close};

/* Rejects recipients that begin with 'x', senders that begin with 'x', bodies if told. */
static bool reject_body;

static FilterResult
picky_update(Filter *filter, unsigned news)
{
	Tx *down = filter->down;
	note('y', news);
	if ((news & TX_NEW_MAIL_FROM) && down->mail_from->addr[0] == 'x')
		tx_answer_mail(down, response_new(550, "bad sender"));
	for (size_t i = 0; (news & TX_NEW_RCPT) && i < tx_rcpt_count(down); i++) {
		if (tx_rcpt(down, i)->to->addr[0] == 'x')
			tx_answer_rcpt(down, i, response_new(551, "bad recipient"));
	}
	if ((news & TX_NEW_BODY_FINAL) && reject_body)
		tx_answer_data(down, response_new(554, "bad message"));
	else
		filter_pass_body(filter, news);
	return FILTER_CONTINUE;
}
static const FilterKind picky = {.name = "picky", .flags = FILTER_PROXY, .update = picky_update};

/* Holds a partial body back and passes a rewritten one. */
static FilterResult
rewrite_update(Filter *filter, unsigned news)
{
	if ((news & TX_NEW_BODY_FINAL) != 0) {
		g_autoptr(Blob) blob = blob_new_prefixed("X: y\r\n", 6, filter->down->body->raw);
		g_autoptr(TxBody) body = tx_body_new_raw(blob);
		tx_set_body(filter->up, body);
	}
	return FILTER_CONTINUE;
}
static const FilterKind rewrite = {
	.name = "rewrite", .flags = FILTER_PROXY, .update = rewrite_update};

static FilterResult
failing_update(Filter *filter, unsigned news)
{
	if ((news & TX_NEW_RCPT) != 0)
		filter_fail(filter, "test");
	return FILTER_CONTINUE;
}
static const FilterKind failing = {.name = "failing", .update = failing_update};

static FilterResult
stopper_update(Filter *filter, unsigned news)
{
	note('s', news);
	return tx_rcpt_count(filter->down) < 2 ? FILTER_STOP : FILTER_CONTINUE;
}
static const FilterKind stopper = {.name = "stopper", .update = stopper_update};

static FilterResult
signal_update(Filter *filter, unsigned news)
{
	if ((news & TX_NEW_MAIL_FROM) != 0)
		filter_set_output(filter, json_pack("{s:i}", "seen", 1));
	return FILTER_CONTINUE;
}
static const FilterKind signalling = {
	.name = "signal", .output_name = "test.Signal", .update = signal_update};

static int
setup(void **state)
{
	calls = g_string_new(NULL);
	end = NULL;
	waiter = NULL;
	wait_for = 0;
	waiter_go = waiter_closed = reject_body = false;
	*state = harness_new();
	return 0;
}

static int
teardown(void **state)
{
	harness_free(*state);
	g_string_free(calls, TRUE);
	return 0;
}

static void
finish(Harness *h)
{
	tx_answer_mail(end->down, response_new(250, "m"));
	for (size_t i = 0; i < tx_rcpt_count(end->down); i++)
		tx_answer_rcpt(end->down, i, response_newf(250 + (int)i, "r"));
	filter_resume(end);
	harness_turn(h);
}

/* ---- down and up ---- */

static void
test_smoke(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &plain, &proxy, &plain, &proxy, &terminal, NULL);
	g_autoptr(HostPort) remote = host_port_new("192.0.2.1", 25);
	g_autoptr(json_t) meta = json_pack("{s:b}", "esmtp", 1);
	tx_set_hosts(h->tx, remote, NULL);
	tx_set_smtp_meta(h->tx, meta);
	harness_mail(h, "alice");
	harness_rcpt(h, "bob");
	harness_turn(h);
	assert_calls("pmr xmr pmr xmr emr ");
	assert_ptr_not_equal(end->down, h->tx);
	assert_true(host_port_equal(end->down->remote_host, remote));
	assert_ptr_equal(end->down->smtp_meta, meta);
	assert_string_equal(end->down->mail_from->addr, "alice");
	assert_string_equal(end->down->sender_name, "submission");
	finish(h);
	/* Only the end has something to do with its own answers. */
	assert_calls("e ");
	assert_response(h->tx->mail_response, "250 m");
	assert_response(tx_rcpt(h->tx, 0)->response, "250 r");
	/* Nothing new: nobody is called, nothing changes. */
	uint64_t version = h->tx->version;
	tx_touch(h->tx);
	harness_turn(h);
	assert_calls("");
	assert_int_equal(h->tx->version, version + 1);
	/* A heartbeat reaches the last filter. */
	tx_heartbeat(h->tx);
	harness_turn(h);
	assert_calls("ph xh ph xh eh ");
	chain_heartbeat(h->chain);
	harness_turn(h);
	assert_calls("ph xh ph xh eh ");
	harness_body(h, "hello");
	harness_turn(h);
	assert_calls("pbf xbf pbf xbf ebf ");
	tx_answer_data(end->down, response_new(250, "d"));
	filter_resume(end);
	harness_turn(h);
	assert_response(h->tx->data_response, "250 d");
}

/* What is there before the chain starts arrives the same way, in one walk. */
static void
test_all_at_once(void **state)
{
	Harness *h = *state;
	harness_mail(h, "alice");
	harness_rcpt(h, "bob");
	harness_body(h, "hello");
	harness_kinds(h, &plain, &proxy, &terminal, NULL);
	assert_calls(""); /* never inside chain_new */
	harness_turn(h);
	assert_calls("pmrbf xmrbf emrbf ");
}

static void
test_retry_is_not_copied(void **state)
{
	Harness *h = *state;
	tx_enable_retry(h->tx, NULL);
	harness_mail(h, "alice");
	harness_kinds(h, &proxy, &terminal, NULL);
	harness_turn(h);
	assert_calls("xm em ");
	assert_null(end->down->retry);
	tx_enable_notification(h->tx, NULL);
	harness_turn(h);
	assert_calls("");
}

/* ---- rejections and the mapping ---- */

static void
test_fail_mail(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &picky, &terminal, NULL);
	harness_mail(h, "xavier");
	harness_rcpt(h, "bob");
	harness_turn(h);
	assert_calls("ymr ");
	assert_response(h->tx->mail_response, "550 bad sender");
	assert_response(tx_rcpt(h->tx, 0)->response, "503 5.5.1 failed precondition: MAIL");
	tx_cancel(h->tx);
	harness_turn(h);
	assert_calls("yc ec ");
	assert_true(end->down->cancelled);
	assert_response(h->tx->mail_response, "550 bad sender");
	assert_null(h->tx->data_response);
}

static void
test_fail_rcpt(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &picky, &terminal, NULL);
	harness_mail(h, "alice");
	harness_rcpt(h, "xavier");
	harness_rcpt(h, "xenia");
	harness_body(h, "hello");
	harness_turn(h);
	assert_calls("ymrbf ");
	assert_response(tx_rcpt(h->tx, 1)->response, "551 bad recipient");
	assert_response(h->tx->data_response, "503 5.5.1 failed precondition: all rcpts failed");
	tx_cancel(h->tx);
	harness_turn(h);
	assert_response(tx_rcpt(h->tx, 1)->response, "551 bad recipient");
}

/* The same with everything in one request, as over REST: MAIL is answered too, so that the attempt
 * can end. */
static void
test_fail_only_rcpt_at_once(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &picky, &terminal, NULL);
	harness_mail(h, "alice");
	harness_rcpt(h, "xavier");
	harness_body(h, "hello");
	harness_turn(h);
	assert_response(h->tx->mail_response, "250 2.1.0 ok");
	assert_response(tx_rcpt(h->tx, 0)->response, "551 bad recipient");
	assert_response(h->tx->data_response, "503 5.5.1 failed precondition: all rcpts failed");
	assert_false(tx_in_flight(h->tx));
}

/* With nobody left, a chain that takes no more recipients does not bother the next node. */
static void
test_nobody_left(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &picky, &terminal, NULL);
	harness_mail(h, "alice");
	harness_rcpt(h, "xavier");
	harness_turn(h);
	assert_calls("ymr ");
	assert_response(h->tx->mail_response, "250 2.1.0 ok");
	assert_response(tx_rcpt(h->tx, 0)->response, "551 bad recipient");
}

static void
test_fail_first_rcpt_sequential(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &picky, &incremental, NULL);
	harness_mail(h, "alice");
	harness_turn(h);
	harness_rcpt(h, "xavier");
	harness_turn(h);
	assert_calls("ym em yr ");
	harness_rcpt(h, "bob");
	harness_turn(h);
	assert_calls("yr er ");
	assert_int_equal(tx_rcpt_count(end->down), 1);
	assert_string_equal(tx_rcpt(end->down, 0)->to->addr, "bob");
	assert_int_equal(filter_base_rcpt(end, 0), 1);
	finish(h);
	assert_response(tx_rcpt(h->tx, 0)->response, "551 bad recipient");
	assert_response(tx_rcpt(h->tx, 1)->response, "250 r");
}

static void
test_fail_first_rcpt_pipelined(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &picky, &proxy, &picky, &terminal, NULL);
	harness_mail(h, "alice");
	harness_rcpt(h, "xavier");
	harness_rcpt(h, "bob");
	harness_rcpt(h, "xenia");
	harness_rcpt(h, "carol");
	harness_turn(h);
	assert_int_equal(tx_rcpt_count(end->down), 2);
	assert_int_equal(filter_base_rcpt(end, 1), 3);
	finish(h);
	assert_response(tx_rcpt(h->tx, 0)->response, "551 bad recipient");
	assert_response(tx_rcpt(h->tx, 1)->response, "250 r");
	assert_response(tx_rcpt(h->tx, 2)->response, "551 bad recipient");
	assert_response(tx_rcpt(h->tx, 3)->response, "251 r");
}

/* A filter's own verdict on the message, behind answers from upstream. */
static void
test_filter_result(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &proxy, &picky, &terminal, NULL);
	harness_mail(h, "alice");
	harness_rcpt(h, "bob");
	harness_turn(h);
	finish(h);
	g_string_truncate(calls, 0);
	reject_body = true;
	harness_body(h, "hello");
	harness_turn(h);
	assert_calls("xbf ybf ");
	assert_response(h->tx->mail_response, "250 m");
	assert_response(h->tx->data_response, "554 bad message");
	assert_null(end->down->body);
}

/* An answer is owed by nobody else: what is missing stays missing. */
static void
test_filter_result_none(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &plain, &terminal, NULL);
	harness_mail(h, "alice");
	harness_turn(h);
	assert_null(h->tx->mail_response);
	assert_false(chain_is_waiting(h->chain));
}

/* ---- bodies ---- */

static void
test_proxy(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &rewrite, &terminal, NULL);
	harness_mail(h, "alice");
	harness_rcpt(h, "bob");
	harness_turn(h);
	g_string_truncate(calls, 0);
	g_autoptr(Blob) blob = blob_new(NULL);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	assert_true(blob_append(blob, "hel", 3, NULL));
	tx_set_body(h->tx, body);
	harness_turn(h);
	assert_calls("");
	assert_null(end->down->body);
	assert_true(blob_append(blob, "lo", 2, NULL));
	blob_finalize(blob);
	tx_note_body(h->tx);
	harness_turn(h);
	assert_calls("ebf ");
	size_t len = 0;
	g_autofree char *text = blob_to_string(end->down->body->raw, 100, &len, NULL);
	assert_string_equal(text, "X: y\r\nhello");
}

/* Behind a filter that judges the whole message nobody sees a part of it. */
static void
test_whole_body(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &plain, &whole, &plain, &terminal, NULL);
	harness_mail(h, "alice");
	harness_turn(h);
	g_string_truncate(calls, 0);
	g_autoptr(Blob) blob = blob_new(NULL);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	assert_true(blob_append(blob, "a", 1, NULL));
	tx_set_body(h->tx, body);
	harness_turn(h);
	assert_calls("pb pb ");
	assert_true(blob_append(blob, "b", 1, NULL));
	tx_note_body(h->tx);
	harness_rcpt(h, "bob");
	harness_turn(h);
	assert_calls("prb prb pr er ");
	blob_finalize(blob);
	tx_note_body(h->tx);
	harness_turn(h);
	assert_calls("pf pf pbf ebf ");
}

/* ---- waiting ---- */

static void
test_wait(void **state)
{
	Harness *h = *state;
	wait_for = TX_NEW_MAIL_FROM;
	harness_kinds(h, &plain, &waiting, &plain, &terminal, NULL);
	harness_mail(h, "alice");
	harness_turn(h);
	assert_calls("pm wm ");
	assert_true(chain_is_waiting(h->chain));
	/* More comes: filters before it see it, it and the others do not. */
	harness_rcpt(h, "bob");
	harness_turn(h);
	assert_calls("pr ");
	/* Heartbeats reach everybody. */
	tx_heartbeat(h->tx);
	harness_turn(h);
	assert_calls("ph wh ph eh ");
	/* A resume that still waits. */
	filter_resume(waiter);
	harness_turn(h);
	assert_calls("wmr ");
	waiter_go = true;
	filter_resume(waiter);
	harness_turn(h);
	assert_calls("wmr pmr emr ");
	assert_false(chain_is_waiting(h->chain));
	harness_rcpt(h, "carol");
	harness_turn(h);
	assert_calls("pr wr pr er ");
}

/* Answers come back while an earlier filter keeps the body. */
static void
test_wait_and_answers(void **state)
{
	Harness *h = *state;
	wait_for = TX_NEW_BODY_FINAL;
	harness_kinds(h, &proxy, &waiting, &terminal, NULL);
	harness_mail(h, "alice");
	harness_rcpt(h, "bob");
	harness_turn(h);
	harness_body(h, "hello");
	harness_turn(h);
	assert_calls("xmr wmr emr xbf wbf ");
	finish(h);
	assert_calls("e ");
	assert_response(tx_rcpt(h->tx, 0)->response, "250 r");
	waiter_go = true;
	filter_resume(waiter);
	harness_turn(h);
	assert_calls("wbf ebf ");
}

static void
test_wait_proxy(void **state)
{
	Harness *h = *state;
	wait_for = TX_NEW_RCPT;
	harness_kinds(h, &waiting_proxy, &terminal, NULL);
	harness_mail(h, "alice");
	harness_turn(h);
	assert_calls("wm em ");
	harness_rcpt(h, "bob");
	harness_turn(h);
	assert_calls("wr ");
	assert_int_equal(tx_rcpt_count(end->down), 0);
	waiter_go = true;
	filter_resume(waiter);
	harness_turn(h);
	assert_calls("wr er ");
}

static void
test_wait_cancel(void **state)
{
	Harness *h = *state;
	wait_for = TX_NEW_MAIL_FROM;
	harness_kinds(h, &waiting_proxy, &picky, &terminal, NULL);
	harness_mail(h, "alice");
	harness_rcpt(h, "bob");
	harness_turn(h);
	tx_cancel(h->tx);
	harness_turn(h);
	assert_calls("wmr wc yc ec ");
	assert_true(end->down->cancelled);
	assert_response(h->tx->mail_response, "550 cancelled");
	/* Nothing starts after it. */
	waiter_go = true;
	filter_resume(waiter);
	harness_rcpt(h, "carol");
	harness_turn(h);
	assert_calls("");
	assert_false(tx_in_flight(h->tx));
}

static void
test_stop(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &stopper, &terminal, NULL);
	harness_mail(h, "alice");
	harness_rcpt(h, "bob");
	harness_turn(h);
	assert_calls("smr ");
	tx_heartbeat(h->tx);
	harness_turn(h);
	assert_calls("sh eh ");
	harness_rcpt(h, "carol");
	harness_turn(h);
	assert_calls("sr emr ");
}

/* ---- the rest ---- */

static void
test_fail(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &proxy, &failing, &terminal, NULL);
	harness_mail(h, "alice");
	harness_turn(h);
	assert_calls("xm em ");
	tx_answer_mail(end->down, response_new(250, "m"));
	filter_resume(end);
	harness_rcpt(h, "bob");
	harness_turn(h);
	assert_response(h->tx->mail_response, "250 m");
	assert_response(tx_rcpt(h->tx, 0)->response, INTERNAL);
	/* What is asked later fails as well. */
	harness_rcpt(h, "carol");
	harness_turn(h);
	assert_response(tx_rcpt(h->tx, 1)->response, INTERNAL);
}

static void
test_output(void **state)
{
	Harness *h = *state;
	/* What a client claims is no signal of ours. */
	tx_set_filter_output(h->tx, "forged.Signal", json_object());
	harness_kinds(h, &proxy, &signalling, &terminal, NULL);
	harness_mail(h, "alice");
	harness_turn(h);
	json_t *output = harness_output(h, "test.Signal");
	assert_int_equal(json_integer_value(json_object_get(output, "seen")), 1);
	assert_ptr_equal(json_object_get(h->tx->filter_output, "test.Signal"), output);
	assert_ptr_equal(filter_get_output(end, "test.Signal"), output);
	assert_null(filter_get_output(end, "forged.Signal"));
}

static void
test_routed_marks(void **state)
{
	Harness *h = *state;
	harness_kinds(h, &picky, &proxy, &terminal, NULL);
	harness_mail(h, "alice");
	harness_rcpt(h, "xavier");
	harness_rcpt(h, "bob");
	harness_rcpt(h, "carol");
	harness_turn(h);
	assert_false(filter_rcpt_routed(end, 1));
	filter_set_rcpt_routed(end, 1);
	assert_true(filter_rcpt_routed(end, 1));
	assert_false(filter_rcpt_routed(end, 0));
}

/* At any moment the chain may go, and is silent then. */
static void
test_free_any_time(void **state)
{
	(void)state;
	for (int turns = 0; turns < 6; turns++) {
		Harness *h = harness_new();
		waiter_go = waiter_closed = false;
		wait_for = turns % 2 != 0 ? TX_NEW_MAIL_FROM : 0;
		harness_mail(h, "alice");
		harness_kinds(h, &proxy, &waiting_proxy, &terminal, NULL);
		for (int i = 0; i < turns; i++)
			(void)defer_run(h->queue, 1);
		if (turns == 4)
			filter_resume(waiter);
		tx_touch(h->tx);
		chain_free(h->chain);
		h->chain = NULL;
		assert_true(waiter_closed);
		harness_rcpt(h, "bob");
		harness_turn(h);
		harness_free(h);
	}
	chain_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_smoke),
		TEST(test_all_at_once),
		TEST(test_retry_is_not_copied),
		TEST(test_fail_mail),
		TEST(test_fail_rcpt),
		TEST(test_fail_only_rcpt_at_once),
		TEST(test_nobody_left),
		TEST(test_fail_first_rcpt_sequential),
		TEST(test_fail_first_rcpt_pipelined),
		TEST(test_filter_result),
		TEST(test_filter_result_none),
		TEST(test_proxy),
		TEST(test_whole_body),
		TEST(test_wait),
		TEST(test_wait_and_answers),
		TEST(test_wait_proxy),
		TEST(test_wait_cancel),
		TEST(test_stop),
		TEST(test_fail),
		TEST(test_output),
		TEST(test_routed_marks),
		TEST(test_free_any_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
