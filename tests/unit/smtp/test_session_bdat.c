/* SPDX-License-Identifier: Apache-2.0 */
/* BDAT (RFC 3030), DSN parameters (RFC 3461) and LIMITS (RFC 9422) in a live session. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>

#include "dialogue.h"
#include "live.h"

static void
all_on(Live *live)
{
	live->conf.chunking = true;
	live->conf.binarymime = true;
	live->conf.dsn = true;
	live->conf.announce_limits = true;
	live->conf.limits.message_max = 1000;
	live->conf.limits.received_max = 3;
	live->conf.limits.error_delay = 0;
	live->conf.limits.error_max = 1000;
}

#define EHLO "EHLO c|250\n"
#define MAIL "MAIL FROM:<a@b>|250\n"
#define RCPT "RCPT TO:<x@b>|250\n"

static const Dialogue dialogues[] = {
	{"one chunk", EHLO MAIL RCPT "BDAT 6 LAST|-\n^abcd\r\n|250\nQUIT|221\n"},
	{"two chunks", EHLO MAIL RCPT "BDAT 3|-\n^abc|250\nBDAT 3 LAST|-\n^d\r\n|250\nQUIT|221\n"},
	{"0 LAST", EHLO MAIL RCPT "BDAT 3|-\n^a\r\n|250\nBDAT 0 LAST|250\nQUIT|221\n"},
	{"only 0 LAST", EHLO MAIL RCPT "BDAT 0 LAST|250\nQUIT|221\n"},
	{"0 in the middle", EHLO MAIL RCPT "BDAT 0|250\nBDAT 0|250\nBDAT 2 LAST|-\n^\r\n|250\n"
					   "QUIT|221\n"},
	{"after LAST", EHLO MAIL RCPT "BDAT 2 LAST|-\n^\r\n|250\nBDAT 6 LAST|-\n^QUIT\r\n|503\n"
				      "NOOP|250\nBDAT 0|503\n" MAIL "QUIT|221\n"},
	{"out of order",
	 "BDAT 6|-\n^QUIT\r\n|503\n" EHLO "BDAT 6|-\n^QUIT\r\n|503\n" MAIL
	 "BDAT 6 LAST|-\n^QUIT\r\n|503\nRCPT TO:<perm@b>|550\n"
	 "BDAT 6 LAST|-\n^QUIT\r\n|554\n" RCPT "BDAT 2 LAST|-\n^\r\n|250\nQUIT|221\n"},
	{"DATA in between", EHLO MAIL RCPT "BDAT 3|-\n^a\r\n|250\nDATA|503\nBDAT 0 LAST|250\n"
					   "QUIT|221\n"},
	{"others in between", EHLO MAIL RCPT
	 "BDAT 3|-\n^a\r\n|250\nNOOP|250\nRCPT TO:<y@b>|503\nMAIL FROM:<a@b>|503\n"
	 "AUTH PLAIN|502\nBDAT 3|-\n^b\r\n|250\nRSET|250\nBDAT 2 LAST|-\n^\r\n|503\n" MAIL RCPT
	 "BDAT 2 LAST|-\n^\r\n|250\nQUIT|221\n"},
	{"EHLO in between", EHLO MAIL RCPT "BDAT 3|-\n^a\r\n|250\n" EHLO "BDAT 0 LAST|503\n"
					   "QUIT|221\n"},
	{"DATA after all",
	 EHLO MAIL RCPT "BDAT 2 LAST|-\n^\r\n|250\n" MAIL RCPT "DATA|354\nx\r\n.|250\nQUIT|221\n"},
	{"negative", EHLO MAIL RCPT "BDAT -1|501\n"},
	{"no number", EHLO MAIL RCPT "BDAT|501\n"},
	{"not LAST", EHLO MAIL RCPT "BDAT 5 LASTLY|501\n"},
	{"more", EHLO MAIL RCPT "BDAT 5 LAST x|501\n"},
	{"hex", EHLO MAIL RCPT "BDAT 0x5|501\n"},
	{"2^64", EHLO MAIL RCPT "BDAT 18446744073709551616 LAST|501\n"},
	{"over SIZE", EHLO MAIL RCPT "BDAT 1001 LAST|-\n^" /* filled in below */},
	{"upstream refuses",
	 EHLO MAIL "RCPT TO:<dataperm@b>|250\nBDAT 2 LAST|-\n^\r\n|550\n" MAIL "QUIT|221\n"},
	{"upstream refuses early",
	 EHLO MAIL "RCPT TO:<early@b>|250\nBDAT 3|-\n^a\r\n|250\nNOOP|250\nBDAT 3|-\n^a\r\n|550\n"
		   "BDAT 3 LAST|-\n^a\r\n|503\nMAIL FROM:<a@b>|503\nRSET|250\n" MAIL "QUIT|221\n"},
	{"bare LF", EHLO MAIL RCPT "BDAT 4|-\n^a\nb\r|550\nBDAT 1 LAST|-\n^\n|503\nRSET|250\n" MAIL
				   "QUIT|221\n"},
	{"bare LF in the last", EHLO MAIL RCPT "BDAT 3 LAST|-\n^a\nb|550\n" MAIL "QUIT|221\n"},
	{"CR at the end", EHLO MAIL RCPT "BDAT 2 LAST|-\n^a\r|550\n" MAIL "QUIT|221\n"},
	{"CRLF in two chunks", EHLO MAIL RCPT "BDAT 2|-\n^a\r|250\nBDAT 1 LAST|-\n^\n|250\n"
					      "QUIT|221\n"},
	{"dots", EHLO MAIL RCPT "BDAT 8 LAST|-\n^.\r\n.\r\n..|250\nQUIT|221\n"},
	{"hops", EHLO MAIL RCPT "BDAT 48 LAST|-\n^Received: a\r\nReceived: b\r\nReceived: c\r\n"
				"Received:|554\nQUIT|221\n"},
	{"binary",
	 EHLO "MAIL FROM:<a@b> BODY=BINARYMIME|250\n" RCPT "DATA|503\n"
	      "BDAT 5 LAST|-\n^\n\r\r\na|250\n" MAIL RCPT "BDAT 1 LAST|-\n^\n|550\nQUIT|221\n"},
	{"dsn", EHLO "MAIL FROM:<a@b> RET=FULL ENVID=abc+2B|250\n"
		     "RCPT TO:<x@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@b|250\n"
		     "RCPT TO:<x@b> NOTIFY=NEVER,DELAY|501\nRCPT TO:<x@b> RET=FULL|555\n"
		     "RCPT TO:<x@b> ORCPT=x@b|501\nRSET|250\nMAIL FROM:<a@b> RET=HALF|501\n"
		     "MAIL FROM:<a@b> ENVID=a+|501\nMAIL FROM:<a@b> NOTIFY=NEVER|555\n"
		     "QUIT|221\n"},
	{"no parameters behind HELO", "HELO c|250\n" MAIL "RCPT TO:<x@b> NOTIFY=NEVER|555\n"
				      "QUIT|221\n"},
};

static void
test_dialogues(void **state)
{
	Live live;
	Dialogue list[G_N_ELEMENTS(dialogues)];
	g_autofree char *thousand = g_strnfill(1001, 'x');
	g_autofree char *over = NULL;
	(void)state;
	memcpy(list, dialogues, sizeof(list));
	for (size_t i = 0; i < G_N_ELEMENTS(list); i++) {
		if (g_str_has_suffix(list[i].steps, "^")) {
			over = g_strconcat(list[i].steps, thousand, "|552\n" MAIL "QUIT|221\n",
					   NULL);
			list[i].steps = over;
		}
	}
	live_start(&live, all_on);
	dialogue_run(live.port, list, G_N_ELEMENTS(list));
	LiveMessage *message = g_ptr_array_index(live.messages, 0);
	assert_string_equal(message->body->str, "abcd\r\n");
	live_stop(&live);
}

static void
test_offer(void **state)
{
	Live live;
	g_autofree char *text = NULL;
	(void)state;
	live_start(&live, all_on);
	int fd = sock_connect(live.port);
	assert_int_equal(sock_reply(fd, NULL), 220);
	sock_send(fd, "EHLO c\r\n");
	assert_int_equal(sock_reply(fd, &text), 250);
	assert_string_equal(text,
			    "mx.example\nPIPELINING\nSIZE 1000\n8BITMIME\nSMTPUTF8\nCHUNKING\n"
			    "BINARYMIME\nDSN\nLIMITS RCPTMAX=1000\nENHANCEDSTATUSCODES\nHELP");
	sock_close(fd);
	live_stop(&live);
}

/* The whole group at once (RFC 3030 4.2), cut at every place. */
static void
test_pipelined(void **state)
{
	static const char group[] =
		"EHLO c\r\nMAIL FROM:<a@b> RET=HDRS\r\nRCPT TO:<x@b>\r\nBDAT 6\r\nQUIT\r\nBDAT 5 LAST\r\n"
		".\r\n\r\nMAIL FROM:<c@d>\r\nRCPT TO:<perm@b>\r\nBDAT 6 LAST\r\nRSET\r\nQUIT\r\n";
	static const int want[] = {220, 250, 250, 250, 250, 250, 250, 550, 554, 221};
	Live live;
	(void)state;
	live_start(&live, all_on);
	for (size_t cut = 0; cut < sizeof(group) - 1; cut++) {
		int fd = sock_connect(live.port);
		sock_send_bytes(fd, group, cut);
		g_usleep(200);
		sock_send_bytes(fd, group + cut, sizeof(group) - 1 - cut);
		for (size_t i = 0; i < G_N_ELEMENTS(want); i++) {
			int code = sock_reply(fd, NULL);
			if (code != want[i])
				fail_msg("cut at %zu, reply %zu: %d", cut, i, code);
		}
		sock_close(fd);
	}
	assert_int_equal(live.messages->len, sizeof(group) - 1);
	for (size_t i = 0; i < live.messages->len; i++) {
		LiveMessage *message = g_ptr_array_index(live.messages, i);
		assert_string_equal(message->body->str, "QUIT\r\n.\r\n\r\n");
		assert_string_equal(message->params, "RET=HDRS ");
	}
	live_stop(&live);
}

static bool
all_ended(const Live *live)
{
	return live->started == live->stopped && live->sessions_ended == live->expected;
}

/* Cut after byte n, for each n: a message is complete only behind its LAST chunk. */
static void
test_cuts(void **state)
{
	static const char text[] = "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\nBDAT 4\r\nab\r\n"
				   "BDAT 4 LAST\r\nab\r\n";
	Live live;
	(void)state;
	live_start(&live, all_on);
	for (size_t n = 0; n < sizeof(text); n++) {
		int fd = sock_connect(live.port);
		live.expected++;
		sock_send_bytes(fd, text, n);
		assert_int_equal(shutdown(fd, SHUT_WR), 0);
		GString *rest = sock_rest(fd);
		g_string_free(rest, TRUE);
		sock_close(fd);
		live_wait(&live, all_ended, "the end of the session");
		assert_int_equal(live.messages->len, n < sizeof(text) - 1 ? 0 : 1);
	}
	live_stop(&live);
}

static void
large(Live *live)
{
	all_on(live);
	live->conf.limits.message_max = 1000000;
}

static void
test_tiny_chunks(void **state)
{
	enum { CHUNKS = 20000, GROUP = 500 };
	Live live;
	(void)state;
	live_start(&live, large);
	int fd = sock_connect(live.port);
	sock_send(fd, "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\n");
	for (int i = 0; i < 4; i++)
		(void)sock_reply(fd, NULL);
	GString *group = g_string_new(NULL);
	for (int i = 0; i < GROUP; i++)
		g_string_append(group, "BDAT 1\r\nx");
	char replies[sizeof("250 2.0.0 Continue\r\n") * GROUP];
	size_t want = (sizeof("250 2.0.0 Continue\r\n") - 1) * GROUP;
	for (int i = 0; i < CHUNKS / GROUP; i++) {
		sock_send(fd, group->str);
		assert_int_equal(recv(fd, replies, want, MSG_WAITALL), want);
	}
	g_string_free(group, TRUE);
	sock_send(fd, "BDAT 0 LAST\r\n");
	assert_int_equal(sock_reply(fd, NULL), 250);
	LiveMessage *message = g_ptr_array_index(live.messages, 0);
	assert_int_equal(message->body->len, CHUNKS);
	sock_close(fd);
	live_stop(&live);
}

/* ---- bare_newline: normalize ---- */

static void
normalizing(Live *live)
{
	all_on(live);
	live->conf.normalize = true;
}

typedef struct Newlines {
	const char *in, *out; /* NULL: refused */
} Newlines;

static const Newlines newlines[] = {
	{"a\nb\r\n", "a\r\nb\r\n"},         {"a\rb\r\n", "a\r\nb\r\n"},
	{"a\r\r\n", "a\r\n\r\n"},           {"a\n\r\n", "a\r\n\r\n"},
	{"\n\n\r\r\n", "\r\n\r\n\r\n\r\n"}, {"a\n.\nb\r\n", "a\r\n.\r\nb\r\n"},
	{"a\r\nb\r\n", "a\r\nb\r\n"},
};

static void
test_normalize(void **state)
{
	Live live;
	(void)state;
	live_start(&live, normalizing);
	for (size_t i = 0; i < 4 * G_N_ELEMENTS(newlines); i++) {
		const Newlines *c = &newlines[i / 4];
		bool bdat = i % 2 == 1, bytes = i / 2 % 2 == 1;
		g_autofree char *text = bdat ? g_strdup_printf("BDAT %zu LAST\r\n%s", strlen(c->in),
							       c->in)
					     : g_strdup_printf("%s.\r\n", c->in);
		int fd = sock_connect(live.port);
		sock_send(fd, "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\n");
		if (!bdat)
			sock_send(fd, "DATA\r\n");
		for (int j = 0; j < (bdat ? 4 : 5); j++)
			(void)sock_reply(fd, NULL);
		for (size_t at = 0, len = strlen(text); at < len; at += bytes ? 1 : len)
			sock_send_bytes(fd, text + at, bytes ? 1 : len);
		assert_int_equal(sock_reply(fd, NULL), 250);
		LiveMessage *message = g_ptr_array_index(live.messages, i);
		if (strcmp(message->body->str, c->out) != 0)
			fail_msg("%zu: %s", i, message->body->str);
		sock_close(fd);
	}
	live_stop(&live);
}

/* ---- LMTP (RFC 2033): LHLO, and an answer to the message for each recipient taken ---- */

static void
lmtp(Live *live)
{
	all_on(live);
	live->conf.lmtp = true;
}

#define LHLO "LHLO c|250\n"
#define MORE "^|"

static const Dialogue lmtp_dialogues[] = {
	{"greetings", "EHLO c|500\nHELO c|500\nMAIL FROM:<a@b>|503\nLHLO|501\nlhlo c|250\n"
		      "QUIT|221\n"},
	{"one", LHLO MAIL RCPT "DATA|354\nx\r\n.|250\nNOOP|250\nQUIT|221\n"},
	{"three, one of them refused", LHLO MAIL RCPT
	 "RCPT TO:<perm@b>|550\n" RCPT "DATA|354\nx\r\n.|250\n" MORE "250\n" MAIL "QUIT|221\n"},
	{"refused behind the dot",
	 LHLO MAIL "RCPT TO:<dataperm@b>|250\n" RCPT RCPT "DATA|354\nx\r\n.|550\n" MORE "550\n" MORE
		   "550\nNOOP|250\n"
		   "QUIT|221\n"},
	{"later", LHLO MAIL "RCPT TO:<datatemp@b>|250\n" RCPT "DATA|354\nx\r\n.|450\n" MORE
			    "450\nQUIT|221\n"},
	{"nobody", LHLO MAIL "DATA|503\nRCPT TO:<perm@b>|550\nDATA|503\nBDAT 2 LAST|-\n^\r\n|503\n"
			     "QUIT|221\n"},
	{"a fault in it", LHLO MAIL RCPT RCPT "DATA|354\nx\ny\r\n.|550\n" MORE "550\n"
					      "QUIT|221\n"},
	{"chunks", LHLO MAIL RCPT RCPT "BDAT 3|-\n^a\r\n|250\nBDAT 3 LAST|-\n^b\r\n|250\n" MORE
				       "250\nQUIT|221\n"},
	{"a fault in the last",
	 LHLO MAIL RCPT RCPT "BDAT 3 LAST|-\n^a\nb|550\n" MORE "550\nQUIT|221\n"},
	{"a fault in the first", LHLO MAIL RCPT RCPT "BDAT 3|-\n^a\nb|550\nBDAT 0 LAST|503\n"
						     "RSET|250\nQUIT|221\n"},
	{"pipelined",
	 LHLO "MAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\nRCPT TO:<y@b>\r\nDATA|250\n" MORE "250\n" MORE
	      "250\n" MORE "354\nx\r\n.\r\nQUIT|250\n" MORE "250\n" MORE "221\n"},
};

static const Dialogue smtp_dialogues[] = {
	{"no LMTP here", "LHLO c|502\n" EHLO "LHLO c|502\nQUIT|221\n"},
};

static void
lmtp_late(Live *live)
{
	lmtp(live);
	live->conf.data_timeout = 30 * USEC_PER_MS;
	live->conf.limits.error_slow = 0; /* what is held back is the last answer */
	live->conf.limits.error_delay = USEC_PER_MS;
}

static const Dialogue lmtp_late_dialogues[] = {
	{"no answer in time", LHLO MAIL "RCPT TO:<datahang@b>|250\n" RCPT
					"DATA|354\nx\r\n.|450\n" MORE "450\nNOOP|250\nQUIT|221\n"},
	{"slowed", LHLO MAIL "RCPT TO:<dataperm@b>|250\n" RCPT "DATA|354\nx\r\n.|550\n" MORE
			     "550\nNOOP|250\nQUIT|221\n"},
};

static void
test_lmtp(void **state)
{
	static const struct {
		void (*tweak)(Live *live);
		const Dialogue *list;
		size_t count;
	} runs[] = {
		{lmtp, lmtp_dialogues, G_N_ELEMENTS(lmtp_dialogues)},
		{lmtp_late, lmtp_late_dialogues, G_N_ELEMENTS(lmtp_late_dialogues)},
		{all_on, smtp_dialogues, G_N_ELEMENTS(smtp_dialogues)},
	};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Live live;
		live_start(&live, runs[i].tweak);
		dialogue_run(live.port, runs[i].list, runs[i].count);
		live_stop(&live);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dialogues),   cmocka_unit_test(test_offer),
		cmocka_unit_test(test_pipelined),   cmocka_unit_test(test_cuts),
		cmocka_unit_test(test_tiny_chunks), cmocka_unit_test(test_normalize),
		cmocka_unit_test(test_lmtp),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
