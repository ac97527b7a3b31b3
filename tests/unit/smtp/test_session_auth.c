/* SPDX-License-Identifier: Apache-2.0 */
/* AUTH in a live session.  In clear, which loopback peers may here; TLS is the business of the
 * end-to-end tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "dialogue.h"
#include "live.h"

/* user bob, password secret; carol the same, slow */
static const char users[] =
	"{\"bob\": \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"}";
static const char slow_users[] =
	"{\"bob\": \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\", "
	"\"user\": \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
	"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
	"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"}";

static void
set_users(Live *live, const char *text)
{
	live->conf.secrets = smtp_secrets_parse("users", text, strlen(text), NULL);
	assert_non_null(live->conf.secrets);
	live->conf.auth_clear_loopback = true;
	live->conf.auth_delay = 0;
	live->conf.limits.error_delay = 0;
	live->conf.limits.error_max = 100;
}

static void
fast_users(Live *live)
{
	set_users(live, users);
}

static void
required(Live *live)
{
	set_users(live, users);
	live->conf.require_auth = true;
}

static void
only_tls(Live *live)
{
	set_users(live, users);
	live->conf.auth_clear_loopback = false;
}

#define GOOD "AHVzZXIAcGVuY2ls"     /* user, pencil */
#define BOB  "AGJvYgBzZWNyZXQ="     /* bob, secret */
#define BAD  "AGJvYgB3cm9uZw=="     /* bob, wrong */
#define NONE "AG5vYm9keQBzZWNyZXQ=" /* nobody, secret */
#define EHLO "EHLO c|250\n"

static const Dialogue dialogues[] = {
	{"plain with a response",
	 EHLO "AUTH PLAIN " BOB "|235\nAUTH PLAIN " BOB "|503\nQUIT|221\n"},
	{"plain asked", EHLO "auth plain|334\n" BOB "|235\nQUIT|221\n"},
	{"login", EHLO "AUTH LOGIN|334\nYm9i|334\nc2VjcmV0|235\nQUIT|221\n"},
	{"login with a name", EHLO "AUTH LOGIN Ym9i|334\nc2VjcmV0|235\nQUIT|221\n"},
	{"cancelled", EHLO "AUTH PLAIN|334\n*|501\nAUTH LOGIN|334\nYm9i|334\n*|501\n"
			   "AUTH PLAIN " BOB "|235\nQUIT|221\n"},
	{"bad base64", EHLO "AUTH PLAIN|334\n%%%|501\nAUTH PLAIN YQ|501\nAUTH PLAIN|334\n|501\n"
			    "AUTH LOGIN|334\nY\x01 ==|501\nNOOP|250\nQUIT|221\n"},
	{"empty response", EHLO "AUTH PLAIN =|501\nAUTH LOGIN =|501\nQUIT|221\n"},
	{"arguments", EHLO "AUTH|501\nAUTH PLAIN a b|501\nAUTH CRAM-MD5|504\n"
			   "AUTH SCRAM-SHA-256|504\nQUIT|221\n"},
	{"before EHLO", "AUTH PLAIN " BOB "|503\nHELO c|250\nAUTH PLAIN " BOB "|503\nQUIT|221\n"},
	{"inside a transaction",
	 EHLO "MAIL FROM:<a@b>|250\nAUTH PLAIN " BOB "|503\nRCPT TO:<x@b>|250\nRSET|250\n"
	      "AUTH PLAIN " BOB "|235\nQUIT|221\n"},
	{"three times wrong", EHLO "AUTH PLAIN " BAD "|535\nAUTH PLAIN " NONE
				   "|535\nAUTH LOGIN|334\nYm9i|334\nYQ==|421\n"},
	{"wrong and right", EHLO "AUTH PLAIN " BAD "|535\nAUTH PLAIN " BAD "|535\nAUTH PLAIN " BOB
				 "|235\nMAIL FROM:<a@b>|250\nQUIT|221\n"},
	{"acting for others", EHLO "AUTH PLAIN ZXZlAGJvYgBzZWNyZXQ=|535\nQUIT|221\n"},
	{"not a command while it lasts", EHLO "AUTH PLAIN|334\nQUIT|501\nQUIT|221\n"},
};

static const Dialogue require_dialogues[] = {
	{"mail needs it", EHLO "MAIL FROM:<a@b>|530\nAUTH PLAIN " BOB
			       "|235\nMAIL FROM:<a@b>|250\nRSET|250\nEHLO c|250\n"
			       "MAIL FROM:<a@b>|250\nQUIT|221\n"},
};

static const Dialogue tls_dialogues[] = {
	{"not in clear", EHLO "AUTH PLAIN " BOB "|538\nMAIL FROM:<a@b>|250\nQUIT|221\n"},
};

static void
run_with(void (*tweak)(Live *live), const Dialogue *list, size_t count)
{
	Live live;
	live_start(&live, tweak);
	dialogue_run(live.port, list, count);
	live_stop(&live);
	smtp_secrets_unref(live.conf.secrets);
}

static void
test_dialogues(void **state)
{
	(void)state;
	run_with(fast_users, dialogues, G_N_ELEMENTS(dialogues));
	run_with(required, require_dialogues, G_N_ELEMENTS(require_dialogues));
	run_with(only_tls, tls_dialogues, G_N_ELEMENTS(tls_dialogues));
}

static void
test_offer(void **state)
{
	static const struct {
		void (*tweak)(Live *live);
		bool offered;
	} cases[] = {{fast_users, true}, {only_tls, false}};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		Live live;
		live_start(&live, cases[i].tweak);
		int fd = sock_connect(live.port);
		g_autofree char *text = NULL, *again = NULL;
		assert_int_equal(sock_reply(fd, NULL), 220);
		sock_send(fd, "EHLO c\r\n");
		assert_int_equal(sock_reply(fd, &text), 250);
		assert_int_equal(strstr(text, "\nAUTH LOGIN PLAIN\n") != NULL, cases[i].offered);
		if (cases[i].offered) {
			sock_send(fd, "AUTH PLAIN " BOB "\r\nEHLO c\r\nMAIL FROM:<a@b>\r\n");
			assert_int_equal(sock_reply(fd, NULL), 235);
			assert_int_equal(sock_reply(fd, &again), 250);
			assert_null(strstr(again, "AUTH"));
			assert_int_equal(sock_reply(fd, NULL), 250);
			assert_string_equal(live.last_meta, "{\"ehlo_host\":\"c\",\"esmtp\":true,"
							    "\"tls\":false,\"auth\":true,"
							    "\"auth_user\":\"bob\"}");
		}
		sock_close(fd);
		live_stop(&live);
		smtp_secrets_unref(live.conf.secrets);
	}
}

/* A response may be 12288 octets long, another command not. */
static void
test_line_length(void **state)
{
	Live live;
	(void)state;
	live_start(&live, fast_users);
	int fd = sock_connect(live.port);
	assert_int_equal(sock_reply(fd, NULL), 220);
	sock_send(fd, "EHLO c\r\n");
	assert_int_equal(sock_reply(fd, NULL), 250);
	g_autofree char *as = g_strnfill(13000, 'A');
	static const struct {
		const char *command;
		size_t len;
		int code;
	} cases[] = {
		{"NOOP ", 2048, 250},
		{"NOOP ", 2049, 500},
		{"AUTH PLAIN ", 12287, 501},
		{"AUTH PLAIN ", 12289, 500},
		{"AUTH PLAIN\r\n", 0, 334},
		{"", 12288, 501},
		{"AUTH PLAIN\r\n", 0, 334},
		{"", 12289, 500},
		{"NOOP", 0, 250},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		size_t used = strlen(cases[i].command);
		sock_send(fd, cases[i].command);
		if (cases[i].len > used)
			sock_send_bytes(fd, as, cases[i].len - used);
		if (!g_str_has_suffix(cases[i].command, "\n"))
			sock_send(fd, "\r\n");
		int code = sock_reply(fd, NULL);
		if (code != cases[i].code)
			fail_msg("%zu: %d", i, code);
	}
	sock_close(fd);
	live_stop(&live);
	smtp_secrets_unref(live.conf.secrets);
}

/* ---- slow comparisons ---- */

static Pool *pool;

static void
with_pool(Live *live)
{
	set_users(live, slow_users);
	live->conf.pool = pool;
	live->conf.auth_delay = 20 * USEC_PER_MS;
}

static const Dialogue slow_dialogues[] = {
	{"good", EHLO "AUTH PLAIN " GOOD "|235\nMAIL FROM:<a@b>|250\nQUIT|221\n"},
	{"wrong", EHLO "AUTH PLAIN " BAD "|535\nAUTH PLAIN " NONE "|535\nAUTH PLAIN " BAD "|421\n"},
};

static void
test_pool(void **state)
{
	Live live;
	(void)state;
	pool = pool_new(1, NULL);
	live_start(&live, with_pool);
	dialogue_run(live.port, slow_dialogues, 2);
	/* pipelined input waits */
	int fd = sock_connect(live.port);
	sock_send(fd, "EHLO c\r\nAUTH PLAIN " GOOD "\r\nMAIL FROM:<a@b>\r\nQUIT\r\n");
	static const int want[] = {220, 250, 235, 250, 221};
	for (size_t i = 0; i < G_N_ELEMENTS(want); i++)
		assert_int_equal(sock_reply(fd, NULL), want[i]);
	sock_close(fd);
	/* clients that go away meanwhile */
	for (unsigned i = 0; i < 20; i++) {
		fd = sock_connect(live.port);
		assert_int_equal(sock_reply(fd, NULL), 220);
		sock_send(fd, "EHLO c\r\nAUTH PLAIN " GOOD "\r\n");
		sock_close(fd);
	}
	pool_free(pool); /* its answers still come to the worker */
	live_stop(&live);
	smtp_secrets_unref(live.conf.secrets);
}

static void
delayed(Live *live)
{
	set_users(live, users);
	live->conf.auth_delay = 50 * USEC_PER_MS;
}

/* A right password is answered at once, a wrong one late, and the next one later. */
static void
test_delay(void **state)
{
	Live live;
	gint64 took[2];
	(void)state;
	live_start(&live, delayed);
	int fd = sock_connect(live.port);
	assert_int_equal(sock_reply(fd, NULL), 220);
	sock_send(fd, "EHLO c\r\n");
	assert_int_equal(sock_reply(fd, NULL), 250);
	for (int i = 0; i < 2; i++) {
		gint64 start = g_get_monotonic_time();
		sock_send(fd, i == 0 ? "AUTH PLAIN " BAD "\r\n" : "AUTH PLAIN " NONE "\r\n");
		assert_int_equal(sock_reply(fd, NULL), 535);
		took[i] = g_get_monotonic_time() - start;
	}
	assert_true(took[0] >= 50000 && took[1] >= 100000);
	sock_send(fd, "AUTH PLAIN " BOB "\r\n");
	assert_int_equal(sock_reply(fd, NULL), 235);
	sock_close(fd);
	live_stop(&live);
	smtp_secrets_unref(live.conf.secrets);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dialogues),   cmocka_unit_test(test_offer),
		cmocka_unit_test(test_line_length), cmocka_unit_test(test_pool),
		cmocka_unit_test(test_delay),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
