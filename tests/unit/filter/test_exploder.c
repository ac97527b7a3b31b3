/* SPDX-License-Identifier: Apache-2.0 */
/* The exploder against fake recipient transactions: the table of behaviour spec 13.3 and the cases
 * of 13.1, 13.2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness.h"

#define MX  "- {filter: exploder, msa: false, rcpt_timeout: 0.03, data_timeout: 0.03}"
#define MSA "- {filter: exploder, msa: true, rcpt_timeout: 0.03, data_timeout: 0.03}"

#define MAIL_OK  "250 MAIL ok (exploder noop)"
#define RCPT_SF  "250 RCPT ok (AsyncFilterWrapper store&forward)"
#define DATA_SF  "250 DATA ok (AsyncFilterWrapper store&forward)"
#define MIXED_SF "250 DATA ok (Exploder store&forward)"
#define TIMEOUT  "450 upstream timeout (AsyncFilterWrapper)"

static Harness *
setup(const char *yaml)
{
	Harness *h = harness_new();
	harness_sender(h, "submission", "upstream");
	harness_chain(h, yaml);
	return h;
}

/* What the next hop of one recipient answers; 0: nothing. */
typedef struct Hop {
	int mail, rcpt, data;
} Hop;

static void
answer(FakePort *port, int mail, int rcpt)
{
	if (mail != 0)
		tx_answer_mail(port->tx, response_newf(mail, "mail %d", mail));
	if (rcpt != 0)
		tx_answer_rcpt(port->tx, 0, response_newf(rcpt, "rcpt %d", rcpt));
}

/* The router on the other side: takes what it is asked to take. */
static void
store_all(Harness *h)
{
	for (guint i = 0; i < h->opened->len; i++) {
		FakePort *port = harness_port(h, i);
		if (!port->stopped && port->tx->retry != NULL)
			tx_set_durable(port->tx);
	}
	harness_turn(h);
}

static bool
has_rcpts(Harness *h)
{
	return h->tx->rcpt_answers == tx_rcpt_count(h->tx);
}

static bool
has_data(Harness *h)
{
	return h->tx->data_response != NULL;
}

static bool
wants_store(Harness *h)
{
	for (guint i = 0; i < h->opened->len; i++) {
		if (harness_port(h, i)->tx->retry != NULL)
			return true;
	}
	return false;
}

typedef struct Case {
	const char *name;
	const char *chain;
	Hop hops[2];
	const char *rcpts[2]; /* what our client gets; [1] NULL: one recipient */
	const char *data;
	bool stored[2]; /* retry and notification were enabled */
} Case;

static const Case cases[] = {
	{"mx_single_rcpt_mail_perm", MX, {{501, 502, 0}}, {"502 rcpt 502"}, NULL, {0}},
	/* The next hop, or the chain before it, refuses at MAIL: its reason, not "bad sequence". */
	{"mx_single_rcpt_mail_perm_rcpt_503", MX, {{550, 503, 0}}, {"550 mail 550"}, NULL, {0}},
	{"mx_single_rcpt_mail_perm_alone",
	 MX,
	 {{501, 0, 0}},
	 {"501 RCPT failed precondition MAIL (AsyncFilterWrapper)"},
	 NULL,
	 {0}},
	{"mx_single_rcpt_mail_temp",
	 MX,
	 {{401, 0, 0}},
	 {"401 RCPT failed precondition MAIL (AsyncFilterWrapper)"},
	 NULL,
	 {0}},
	/* The next hop is down: temporary, whatever stands behind the failed MAIL. */
	{"mx_single_rcpt_mail_temp_rcpt_503",
	 MX,
	 {{450, 503, 0}},
	 {"450 RCPT failed precondition MAIL (AsyncFilterWrapper)"},
	 NULL,
	 {0}},
	{"mx_single_rcpt_rcpt_perm", MX, {{250, 501, 0}}, {"501 rcpt 501"}, NULL, {0}},
	{"mx_single_rcpt_rcpt_temp", MX, {{250, 401, 0}}, {"401 rcpt 401"}, NULL, {0}},
	{"mx_single_rcpt_rcpt_timeout", MX, {{0, 0, 0}}, {TIMEOUT}, NULL, {0}},
	{"mx_single_rcpt_data_last_perm",
	 MX,
	 {{201, 202, 501}},
	 {"202 rcpt 202"},
	 "501 data 501",
	 {0}},
	{"mx_single_rcpt_data_last_temp",
	 MX,
	 {{201, 202, 401}},
	 {"202 rcpt 202"},
	 "401 data 401",
	 {0}},
	{"mx_single_rcpt_data_timeout", MX, {{201, 202, 0}}, {"202 rcpt 202"}, TIMEOUT, {0}},
	{"mx_single_rcpt_success", MX, {{201, 202, 203}}, {"202 rcpt 202"}, "203 data 203", {0}},
	{"mx_multi_rcpt_success_cutthrough",
	 MX,
	 {{201, 202, 203}, {204, 205, 206}},
	 {"202 rcpt 202", "205 rcpt 205"},
	 "203 data 203 (Exploder same response)",
	 {0}},
	{"mx_multi_rcpt_rcpt_temp",
	 MX,
	 {{201, 202, 203}, {204, 405, 0}},
	 {"202 rcpt 202", "405 rcpt 405"},
	 "203 data 203 (Exploder same response)",
	 {0}},
	{"mx_multi_rcpt_all_data_temp",
	 MX,
	 {{201, 202, 401}, {201, 202, 402}},
	 {"202 rcpt 202", "202 rcpt 202"},
	 "401 data 401 (Exploder same response)",
	 {0}},
	{"mx_multi_rcpt_mixed",
	 MX,
	 {{201, 202, 203}, {201, 202, 401}},
	 {"202 rcpt 202", "202 rcpt 202"},
	 MIXED_SF,
	 {false, true}},
	{"mx_multi_rcpt_mixed_timeout",
	 MX,
	 {{201, 202, 0}, {201, 202, 203}},
	 {"202 rcpt 202", "202 rcpt 202"},
	 MIXED_SF,
	 {true, false}},
	{"mx_multi_rcpt_mixed_temp_perm",
	 MX,
	 {{201, 202, 401}, {201, 202, 501}},
	 {"202 rcpt 202", "202 rcpt 202"},
	 MIXED_SF,
	 {true, true}},

	{"msa_single_rcpt_mail_perm",
	 MSA,
	 {{501, 0, 0}},
	 {"501 RCPT failed precondition MAIL (AsyncFilterWrapper)"},
	 NULL,
	 {0}},
	{"msa_single_rcpt_mail_temp", MSA, {{401, 0, 0}}, {RCPT_SF}, DATA_SF, {true}},
	{"msa_single_rcpt_mail_temp_rcpt_503", MSA, {{450, 503, 0}}, {RCPT_SF}, DATA_SF, {true}},
	{"msa_single_rcpt_rcpt_perm", MSA, {{250, 501, 0}}, {"501 rcpt 501"}, NULL, {0}},
	{"msa_single_rcpt_rcpt_temp", MSA, {{250, 401, 0}}, {RCPT_SF}, DATA_SF, {true}},
	{"msa_single_rcpt_rcpt_timeout", MSA, {{0, 0, 0}}, {RCPT_SF}, DATA_SF, {true}},
	{"msa_single_rcpt_data_last_perm",
	 MSA,
	 {{201, 202, 501}},
	 {"202 rcpt 202"},
	 "501 data 501",
	 {0}},
	{"msa_single_rcpt_data_last_temp",
	 MSA,
	 {{201, 202, 401}},
	 {"202 rcpt 202"},
	 DATA_SF,
	 {true}},
	{"msa_single_rcpt_data_timeout", MSA, {{201, 202, 0}}, {"202 rcpt 202"}, DATA_SF, {true}},
	{"msa_single_rcpt_success", MSA, {{201, 202, 203}}, {"202 rcpt 202"}, "203 data 203", {0}},
	{"msa_multi_rcpt_mail_perm",
	 MSA,
	 {{201, 202, 203}, {501, 502, 0}},
	 {"202 rcpt 202", "502 rcpt 502"},
	 "203 data 203 (Exploder same response)",
	 {0}},
	{"msa_multi_rcpt_rcpt_perm",
	 MSA,
	 {{201, 202, 203}, {201, 502, 0}},
	 {"202 rcpt 202", "502 rcpt 502"},
	 "203 data 203 (Exploder same response)",
	 {0}},
	{"msa_multi_rcpt_data_last_perm",
	 MSA,
	 {{201, 202, 203}, {201, 202, 501}},
	 {"202 rcpt 202", "202 rcpt 202"},
	 MIXED_SF,
	 {false, true}},
	{"msa_multi_rcpt_data_last_temp",
	 MSA,
	 {{201, 202, 401}, {201, 202, 402}},
	 {"202 rcpt 202", "202 rcpt 202"},
	 "250 DATA ok (AsyncFilterWrapper store&forward) (Exploder same response)",
	 {true, true}},
};

static void
run_case(const Case *c)
{
	Harness *h = setup(c->chain);
	guint n = c->rcpts[1] != NULL ? 2 : 1;
	harness_mail(h, "alice@example.com");
	harness_turn(h);
	assert_response(h->tx->mail_response, MAIL_OK);
	for (guint i = 0; i < n; i++) {
		harness_rcpt(h, i == 0 ? "bob@example.org" : "carol@example.org");
		harness_turn(h);
		assert_int_equal(h->opened->len, i + 1);
		answer(harness_port(h, i), c->hops[i].mail, c->hops[i].rcpt);
		harness_wait(h, has_rcpts);
		assert_response(tx_rcpt(h->tx, i)->response, c->rcpts[i]);
	}
	if (c->data != NULL) {
		harness_body(h, "message");
		harness_turn(h);
		for (guint i = 0; i < n; i++) {
			FakePort *port = harness_port(h, i);
			if (port->stopped)
				continue;
			assert_true(tx_body_ready(port->tx));
			if (c->hops[i].data != 0)
				tx_answer_data(port->tx, response_newf(c->hops[i].data, "data %d",
								       c->hops[i].data));
		}
		if (c->stored[0] || c->stored[1]) {
			harness_wait(h, wants_store);
			/* The client hears nothing before the message is on disk. */
			assert_null(h->tx->data_response);
			store_all(h);
		}
		harness_wait(h, has_data);
		assert_response(h->tx->data_response, c->data);
	}
	for (guint i = 0; i < n; i++) {
		const Tx *tx = harness_port(h, i)->tx;
		assert_int_equal(tx->retry != NULL, c->stored[i]);
		assert_int_equal(tx->notification != NULL, c->stored[i]);
		assert_false(tx->cancelled);
	}
	harness_free(h);
}

static void
test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		print_message("# %s\n", cases[i].name);
		run_case(&cases[i]);
	}
}

/* What the recipient's transaction looks like. */
static void
test_copies(void **state)
{
	(void)state;
	Harness *h = setup(MX);
	g_autoptr(HostPort) remote = host_port_new("192.0.2.1", 1234);
	g_autoptr(HostPort) local = host_port_new("192.0.2.2", 25);
	g_autoptr(json_t) meta = json_pack("{s:s}", "ehlo_host", "client");
	tx_set_hosts(h->tx, remote, local);
	tx_set_smtp_meta(h->tx, meta);
	harness_mail(h, "");
	harness_rcpt(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_turn(h);
	assert_int_equal(h->opened->len, 2);
	const FakePort *port = harness_port(h, 1);
	assert_string_equal(port->sender, "submission");
	assert_string_equal(port->tag, "upstream");
	assert_true(host_port_equal(port->tx->remote_host, remote));
	assert_true(host_port_equal(port->tx->local_host, local));
	assert_ptr_equal(port->tx->smtp_meta, meta);
	assert_string_equal(port->tx->mail_from->addr, "");
	assert_int_equal(tx_rcpt_count(port->tx), 1);
	assert_string_equal(tx_rcpt(port->tx, 0)->to->addr, "b@x");
	assert_null(port->tx->retry);
	harness_free(h);
}

/* Without an upstream tag the transaction's own is used. */
static void
test_same_tag(void **state)
{
	(void)state;
	Harness *h = harness_new();
	harness_sender(h, "submission", NULL);
	harness_chain(h, MX);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_turn(h);
	assert_string_equal(harness_port(h, 0)->tag, "msa");
	harness_free(h);
}

static void
test_unknown_sender(void **state)
{
	(void)state;
	Harness *h = harness_new();
	harness_chain(h, MX);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_turn(h);
	assert_response(tx_rcpt(h->tx, 0)->response,
			"450 internal error: OutputHandler failed to populate response");
	harness_free(h);
}

static void
test_upstream_busy(void **state)
{
	(void)state;
	Harness *h = setup(MX);
	h->busy = true;
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_turn(h);
	assert_response(h->tx->mail_response, MAIL_OK);
	assert_response(tx_rcpt(h->tx, 0)->response, "451 4.5.3 too many recipients");
	harness_free(h);
}

/* The body goes on by reference while it grows; no answer before it is complete. */
static void
test_partial_body(void **state)
{
	(void)state;
	Harness *h = setup(MX);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_turn(h);
	FakePort *port = harness_port(h, 0);
	answer(port, 250, 250);
	harness_turn(h);
	g_autoptr(Blob) blob = blob_new(NULL);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	assert_true(blob_append(blob, "hello ", 6, NULL));
	tx_set_body(h->tx, body);
	harness_turn(h);
	assert_ptr_equal(port->tx->body, body);
	TxMark mark;
	tx_mark(port->tx, &mark);
	assert_true(blob_append(blob, "world", 5, NULL));
	tx_note_body(h->tx);
	harness_turn(h);
	assert_int_equal(tx_since(port->tx, &mark), TX_NEW_BODY);
	assert_null(h->tx->data_response);
	blob_finalize(blob);
	tx_note_body(h->tx);
	harness_turn(h);
	assert_true(tx_since(port->tx, &mark) & TX_NEW_BODY_FINAL);
	assert_null(h->tx->data_response);
	tx_answer_data(port->tx, response_new(250, "done"));
	harness_turn(h);
	assert_response(h->tx->data_response, "250 done");
	harness_free(h);
}

static void
test_cancel_mail(void **state)
{
	(void)state;
	Harness *h = setup(MX);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_turn(h);
	answer(harness_port(h, 0), 550, 550);
	harness_turn(h);
	tx_cancel(h->tx);
	harness_turn(h);
	assert_response(h->tx->mail_response, MAIL_OK);
	assert_response(tx_rcpt(h->tx, 0)->response, "550 rcpt 550");
	harness_free(h);
}

static void
test_cancel_data(void **state)
{
	(void)state;
	Harness *h = setup(MX);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_turn(h);
	answer(harness_port(h, 0), 250, 250);
	harness_body(h, "message");
	harness_turn(h);
	tx_cancel(h->tx);
	harness_turn(h);
	assert_true(harness_port(h, 0)->tx->cancelled);
	assert_response(h->tx->data_response, "550 cancelled");
	harness_free(h);
}

static void
test_cancel_noop(void **state)
{
	(void)state;
	Harness *h = setup(MX);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_turn(h);
	answer(harness_port(h, 0), 250, 250);
	harness_body(h, "message");
	harness_turn(h);
	tx_answer_data(harness_port(h, 0)->tx, response_new(250, "done"));
	harness_turn(h);
	tx_cancel(h->tx);
	harness_turn(h);
	assert_false(harness_port(h, 0)->tx->cancelled);
	assert_response(h->tx->data_response, "250 done");
	harness_free(h);
}

static void
test_heartbeat(void **state)
{
	(void)state;
	Harness *h = setup(MX);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_turn(h);
	tx_heartbeat(h->tx);
	harness_turn(h);
	assert_int_equal(harness_port(h, 0)->tx->heartbeats, 1);
	uint64_t version = h->tx->version;
	chain_heartbeat(h->chain);
	harness_turn(h);
	assert_int_equal(harness_port(h, 0)->tx->heartbeats, 2);
	assert_int_equal(h->tx->version, version);
	harness_free(h);
}

/* The answer after a synthetic one does not replace it, and the next hop does not get the
 * message that the client was refused. */
static void
test_late_answer(void **state)
{
	(void)state;
	Harness *h = setup(MX);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_wait(h, has_rcpts);
	assert_response(tx_rcpt(h->tx, 0)->response, TIMEOUT);
	assert_true(harness_port(h, 0)->stopped);
	answer(harness_port(h, 0), 250, 250);
	harness_body(h, "message");
	harness_turn(h);
	assert_response(tx_rcpt(h->tx, 0)->response, TIMEOUT);
	assert_null(harness_port(h, 0)->tx->body);
	assert_response(h->tx->data_response, "450 failed precondition: all rcpts failed");
	harness_free(h);
}

/* Accepted on our own account, refused for good before the message came. */
static void
test_upgraded_then_perm(void **state)
{
	(void)state;
	Harness *h = setup(MSA);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_wait(h, has_rcpts);
	assert_response(tx_rcpt(h->tx, 0)->response, RCPT_SF);
	answer(harness_port(h, 0), 550, 550);
	harness_turn(h);
	harness_body(h, "message");
	harness_turn(h);
	assert_response(h->tx->data_response,
			"550 DATA failed precondition RCPT (AsyncFilterWrapper)");
	harness_free(h);
}

/* The router has no room, or is ending: that recipient is refused before any message comes. */
static void
test_store_refused_at_rcpt(void **state)
{
	(void)state;
	Harness *h = setup(MSA);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_rcpt(h, "c@x");
	harness_turn(h);
	tx_answer_mail(harness_port(h, 0)->tx, response_new(451, "4.3.2 try again later"));
	tx_refuse_durable(harness_port(h, 0)->tx);
	answer(harness_port(h, 1), 250, 450);
	harness_wait(h, has_rcpts);
	assert_response(tx_rcpt(h->tx, 0)->response, "451 4.3.2 try again later");
	assert_response(tx_rcpt(h->tx, 1)->response, RCPT_SF);
	harness_free(h);
}

/* The router cannot store it: temporary, and no 250. */
static void
test_store_refused(void **state)
{
	(void)state;
	Harness *h = setup(MSA);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_turn(h);
	answer(harness_port(h, 0), 250, 450);
	harness_turn(h);
	harness_body(h, "message");
	harness_turn(h);
	assert_null(h->tx->data_response);
	tx_refuse_durable(harness_port(h, 0)->tx);
	harness_turn(h);
	assert_response(h->tx->data_response,
			"452 4.3.1 message cannot be stored for later delivery");
	harness_free(h);
}

/* Mixed, and the failed one cannot be stored: the client hears of the failure. */
static void
test_mixed_refused(void **state)
{
	(void)state;
	Harness *h = setup(MX);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_rcpt(h, "c@x");
	harness_turn(h);
	answer(harness_port(h, 0), 250, 250);
	answer(harness_port(h, 1), 250, 250);
	harness_body(h, "message");
	harness_turn(h);
	tx_answer_data(harness_port(h, 0)->tx, response_new(250, "done"));
	tx_answer_data(harness_port(h, 1)->tx, response_new(451, "later"));
	harness_turn(h);
	assert_null(h->tx->data_response);
	tx_refuse_durable(harness_port(h, 1)->tx);
	harness_turn(h);
	assert_response(h->tx->data_response, "451 later");
	harness_free(h);
}

/* Mixed, and one that is being stored fails for good meanwhile: the 250 waits for its row, from
 * which the notification follows. */
static void
test_mixed_perm_while_storing(void **state)
{
	(void)state;
	Harness *h = setup(MSA);
	harness_mail(h, "a@x");
	harness_rcpt(h, "b@x");
	harness_rcpt(h, "c@x");
	harness_turn(h);
	answer(harness_port(h, 0), 250, 250);
	answer(harness_port(h, 1), 250, 450);
	harness_turn(h);
	harness_body(h, "message");
	harness_turn(h);
	assert_non_null(harness_port(h, 1)->tx->retry);
	tx_answer_data(harness_port(h, 0)->tx, response_new(250, "done"));
	tx_answer_data(harness_port(h, 1)->tx, response_new(554, "not this"));
	harness_turn(h);
	assert_null(h->tx->data_response);
	tx_set_durable(harness_port(h, 1)->tx);
	harness_turn(h);
	assert_response(h->tx->data_response, "250 DATA ok (Exploder store&forward)");
	harness_free(h);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_copies),
		cmocka_unit_test(test_same_tag),
		cmocka_unit_test(test_unknown_sender),
		cmocka_unit_test(test_upstream_busy),
		cmocka_unit_test(test_partial_body),
		cmocka_unit_test(test_cancel_mail),
		cmocka_unit_test(test_cancel_data),
		cmocka_unit_test(test_cancel_noop),
		cmocka_unit_test(test_heartbeat),
		cmocka_unit_test(test_late_answer),
		cmocka_unit_test(test_upgraded_then_perm),
		cmocka_unit_test(test_store_refused),
		cmocka_unit_test(test_mixed_refused),
		cmocka_unit_test(test_store_refused_at_rcpt),
		cmocka_unit_test(test_mixed_perm_while_storing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
