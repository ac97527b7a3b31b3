/* SPDX-License-Identifier: Apache-2.0 */
/* rest_output against fake next nodes: hosts in order, deadlines, presentation, answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness.h"

#define HOSTS                                                                                      \
	"- filter: router\n"                                                                       \
	"  destination:\n"                                                                         \
	"    endpoint: gateway\n"                                                                  \
	"    host_list: [{host: 192.0.2.1, port: 25}, {host: 192.0.2.2, port: 26}]\n"
#define NO_HOSTS                                                                                   \
	"- filter: router\n"                                                                       \
	"  destination: {endpoint: gateway}\n"
#define OUT  "- {filter: rest_output}\n"
#define FAST "- {filter: rest_output, rcpt_timeout: 0.03, data_timeout: 0.03}\n"

#define URL "http://gw/senders/router/transactions"

static int
setup(void **state)
{
	Harness *h = harness_new();
	RestEndpointConf *gateway = harness_endpoint(h, "gateway", URL, "router");
	gateway->tag = g_strdup("outbound");
	harness_sender(h, "submission", NULL);
	*state = h;
	return 0;
}

static int
teardown(void **state)
{
	harness_free(*state);
	return 0;
}

static void
envelope(Harness *h)
{
	harness_mail(h, "alice@example.com");
	harness_rcpt(h, "bob@example.org");
	harness_turn(h);
}

static void
answer(Harness *h, guint port, int mail, int rcpt)
{
	if (mail != 0)
		tx_answer_mail(harness_port(h, port)->tx, response_newf(mail, "mail"));
	if (rcpt != 0)
		tx_answer_rcpt(harness_port(h, port)->tx, 0, response_newf(rcpt, "rcpt"));
	harness_turn(h);
}

static void
test_smoke(void **state)
{
	Harness *h = *state;
	harness_chain(h, HOSTS OUT);
	g_autoptr(HostPort) remote = host_port_new("198.51.100.1", 4000);
	g_autoptr(json_t) meta = json_pack("{s:s}", "ehlo_host", "client");
	tx_set_hosts(h->tx, remote, remote);
	tx_set_smtp_meta(h->tx, meta);
	envelope(h);
	assert_int_equal(h->opened->len, 1);
	const FakePort *port = harness_port(h, 0);
	assert_string_equal(port->url, URL);
	assert_string_equal(port->tx->sender_name, "router");
	assert_string_equal(port->tx->sender_tag, "outbound");
	assert_string_equal(port->tx->remote_host->host, "192.0.2.1");
	assert_string_equal(port->tx->local_host->host, "198.51.100.1");
	assert_ptr_equal(port->tx->smtp_meta, meta); /* nothing in it is for us alone */
	assert_string_equal(port->tx->mail_from->addr, "alice@example.com");
	assert_int_equal(tx_rcpt_count(port->tx), 1);
	assert_true(port->options.rcpt_timeout > 29 * USEC_PER_SEC);
	assert_int_equal(port->options.data_timeout, 300 * USEC_PER_SEC);
	assert_null(port->options.verify);
	answer(h, 0, 250, 251);
	assert_response(h->tx->mail_response, "250 mail");
	assert_response(tx_rcpt(h->tx, 0)->response, "251 rcpt");
	harness_body(h, "hello");
	harness_turn(h);
	assert_true(tx_body_ready(port->tx));
	assert_null(h->tx->data_response);
	tx_answer_data(port->tx, response_new(252, "data"));
	harness_turn(h);
	assert_response(h->tx->data_response, "252 data");
}

/* A temporary MAIL response sends us to the next host, which is kept. */
/* What the SMTP session says beyond the contract stays here. */
static void
test_own_meta(void **state)
{
	Harness *h = *state;
	g_autoptr(json_t) meta = json_pack(
		"{s:s, s:b, s:b, s:b, s:s, s:s, s:s, s:s}", "ehlo_host", "c", "esmtp", 1, "tls", 1,
		"auth", 1, SMTP_META_AUTH_USER, "bob", SMTP_META_TLS_VERSION, "TLSv1.3",
		SMTP_META_TLS_CIPHER, "X", SMTP_META_TLS_PEER, "CN=bob");
	harness_chain(h, HOSTS OUT);
	tx_set_smtp_meta(h->tx, meta);
	envelope(h);
	g_autofree char *sent = json_print(harness_port(h, 0)->tx->smtp_meta);
	assert_string_equal(sent, "{\"ehlo_host\":\"c\",\"esmtp\":true,\"tls\":true,"
				  "\"auth\":true}");
	assert_int_equal(json_object_size(h->tx->smtp_meta), 8);
}

static void
test_discovery(void **state)
{
	Harness *h = *state;
	harness_chain(h, HOSTS OUT);
	harness_body(h, "hello");
	envelope(h);
	answer(h, 0, 450, 450);
	assert_null(h->tx->mail_response);
	assert_int_equal(h->opened->len, 2);
	assert_true(harness_port(h, 0)->stopped);
	const Tx *second = harness_port(h, 1)->tx;
	assert_string_equal(second->remote_host->host, "192.0.2.2");
	assert_int_equal(second->remote_host->port, 26);
	assert_int_equal(tx_rcpt_count(second), 1);
	assert_true(tx_body_ready(second));
	answer(h, 1, 250, 450);
	assert_response(h->tx->mail_response, "250 mail");
	assert_response(tx_rcpt(h->tx, 0)->response, "450 rcpt");
	assert_int_equal(h->opened->len, 2);
}

static void
test_all_hosts_fail(void **state)
{
	Harness *h = *state;
	harness_chain(h, HOSTS OUT);
	envelope(h);
	answer(h, 0, 450, 0);
	/* Some nodes say 503 behind a MAIL that failed for now. */
	tx_answer_rcpt(harness_port(h, 1)->tx, 0, response_new(503, "5.5.1 MAIL"));
	answer(h, 1, 451, 0);
	assert_response(h->tx->mail_response, "451 mail");
	assert_response(tx_rcpt(h->tx, 0)->response, "450 failed precondition: MAIL");
	assert_int_equal(h->opened->len, 2);
}

static void
test_permanent_stops(void **state)
{
	Harness *h = *state;
	harness_chain(h, HOSTS OUT);
	envelope(h);
	answer(h, 0, 550, 551);
	assert_response(h->tx->mail_response, "550 mail");
	assert_response(tx_rcpt(h->tx, 0)->response, "551 rcpt");
	assert_int_equal(h->opened->len, 1);
}

static void
test_no_endpoint(void **state)
{
	Harness *h = *state;
	harness_chain(h, OUT);
	envelope(h);
	assert_response(h->tx->mail_response, "550 RestEndpoint no endpoint!");
	assert_response(tx_rcpt(h->tx, 0)->response, "503 5.5.1 failed precondition: MAIL");
	assert_int_equal(h->opened->len, 0);
}

static void
test_static_endpoint(void **state)
{
	Harness *h = *state;
	harness_chain(h, "- {filter: rest_output, static_endpoint: 'http://app/', verify: no, "
			 "chunk_size: 64k}\n");
	g_autoptr(HostPort) remote = host_port_new("198.51.100.1", 4000);
	tx_set_hosts(h->tx, remote, NULL);
	envelope(h);
	const FakePort *port = harness_port(h, 0);
	assert_string_equal(port->url, "http://app/");
	assert_null(port->tx->sender_name);
	assert_string_equal(port->tx->remote_host->host, "198.51.100.1");
	assert_string_equal(port->options.verify, "");
	assert_int_equal(port->options.chunk_size, 65536);
}

/* A destination that is one of our own senders presents itself. */
static void
test_short_circuit(void **state)
{
	Harness *h = *state;
	SenderConf *sender = harness_sender(h, "router", NULL);
	sender->remote_host = g_strdup("127.0.0.9");
	sender->smtp_meta = g_strdup("{\"ehlo_host\": \"self\"}");
	harness_chain(h, HOSTS OUT);
	g_autoptr(json_t) meta = json_pack("{s:s}", "ehlo_host", "client");
	tx_set_smtp_meta(h->tx, meta);
	envelope(h);
	const Tx *up = harness_port(h, 0)->tx;
	assert_string_equal(up->remote_host->host, "127.0.0.9");
	assert_int_equal(up->remote_host->port, 8000);
	assert_string_equal(json_get_str(up->smtp_meta, "ehlo_host"), "self");
}

static bool
mail_known(Harness *h)
{
	return h->tx->mail_response != NULL;
}

static bool
rcpt_known(Harness *h)
{
	return tx_rcpt(h->tx, 0)->response != NULL;
}

static bool
data_known(Harness *h)
{
	return h->tx->data_response != NULL;
}

static void
test_mail_timeout(void **state)
{
	Harness *h = *state;
	harness_chain(h, NO_HOSTS FAST);
	envelope(h);
	harness_wait(h, mail_known);
	assert_response(h->tx->mail_response,
			"450 RestEndpoint._start_upstream_tx GET mail_response timeout");
	assert_response(tx_rcpt(h->tx, 0)->response, "450 failed precondition: MAIL");
	assert_true(harness_port(h, 0)->stopped);
}

static void
test_rcpt_timeout(void **state)
{
	Harness *h = *state;
	harness_chain(h, NO_HOSTS FAST);
	envelope(h);
	answer(h, 0, 250, 0);
	harness_wait(h, rcpt_known);
	assert_response(h->tx->mail_response, "250 mail");
	assert_response(tx_rcpt(h->tx, 0)->response,
			"450 RestEndpoint._maybe_update upstream timeout");
	assert_true(harness_port(h, 0)->stopped);
}

static void
test_data_timeout(void **state)
{
	Harness *h = *state;
	harness_chain(h, NO_HOSTS FAST);
	envelope(h);
	answer(h, 0, 250, 250);
	harness_body(h, "hello");
	harness_wait(h, data_known);
	assert_response(h->tx->data_response, "450 RestEndpoint upstream timeout");
}

/* The last host's time is up before it is asked: no third chance. */
static void
test_deadline_is_shared(void **state)
{
	Harness *h = *state;
	harness_chain(h, HOSTS FAST);
	envelope(h);
	answer(h, 0, 450, 0);
	assert_int_equal(h->opened->len, 2);
	harness_wait(h, mail_known);
	assert_response(h->tx->mail_response,
			"450 RestEndpoint._start_upstream_tx GET mail_response timeout");
}

static void
test_cancel(void **state)
{
	Harness *h = *state;
	harness_chain(h, HOSTS OUT);
	envelope(h);
	tx_heartbeat(h->tx);
	harness_turn(h);
	assert_int_equal(harness_port(h, 0)->tx->heartbeats, 1);
	tx_cancel(h->tx);
	harness_turn(h);
	assert_true(harness_port(h, 0)->tx->cancelled);
	assert_response(h->tx->mail_response, "550 cancelled");
}

static void
test_cancel_after_data(void **state)
{
	Harness *h = *state;
	harness_chain(h, NO_HOSTS OUT);
	harness_body(h, "hello");
	envelope(h);
	answer(h, 0, 250, 250);
	tx_answer_data(harness_port(h, 0)->tx, response_new(250, "data"));
	harness_turn(h);
	tx_cancel(h->tx);
	harness_turn(h);
	assert_false(harness_port(h, 0)->tx->cancelled);
}

/* Signals go along when the destination wants them. */
static void
test_filter_output(void **state)
{
	Harness *h = *state;
	harness_chain(h, "- {filter: policy_action, tag: t}\n"
			 "- filter: router\n"
			 "  destination:\n"
			 "    endpoint: gateway\n"
			 "    options: {send_filter_output: true, receive_parsing: }\n"
			 "- {filter: rest_output, chunk_size: 100}\n");
	envelope(h);
	const FakePort *port = harness_port(h, 0);
	assert_true(port->options.send_filter_output);
	assert_true(port->options.receive_parsing);
	/* Receivers take whole blobs only. */
	assert_int_equal(port->options.chunk_size, 0);
	assert_non_null(json_object_get(port->tx->filter_output,
					"koukan.policy_action_filter.PolicyActionFilter"));
}

static void
test_no_filter_output(void **state)
{
	Harness *h = *state;
	harness_chain(h, "- {filter: policy_action, tag: t}\n" NO_HOSTS OUT);
	envelope(h);
	assert_null(harness_port(h, 0)->tx->filter_output);
}

static void
test_later_rcpts(void **state)
{
	Harness *h = *state;
	harness_chain(h, NO_HOSTS OUT);
	envelope(h);
	answer(h, 0, 250, 250);
	harness_rcpt(h, "carol@example.org");
	harness_turn(h);
	const FakePort *port = harness_port(h, 0);
	assert_int_equal(tx_rcpt_count(port->tx), 2);
	tx_answer_rcpt(port->tx, 1, response_new(251, "carol"));
	harness_turn(h);
	assert_response(tx_rcpt(h->tx, 1)->response, "251 carol");
	assert_int_equal(h->opened->len, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_smoke),           TEST(test_own_meta),
		TEST(test_discovery),       TEST(test_all_hosts_fail),
		TEST(test_permanent_stops), TEST(test_no_endpoint),
		TEST(test_static_endpoint), TEST(test_short_circuit),
		TEST(test_mail_timeout),    TEST(test_rcpt_timeout),
		TEST(test_data_timeout),    TEST(test_deadline_is_shared),
		TEST(test_cancel),          TEST(test_cancel_after_data),
		TEST(test_filter_output),   TEST(test_no_filter_output),
		TEST(test_later_rcpts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
