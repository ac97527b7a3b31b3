/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>

#include "live.h"

/* ---- dialogues from a table: each input line and the reply code it must get ---- */

typedef struct Dialogue {
	const char *name;
	const char *steps; /* "input|code\n"...; input may hold \r\n itself; '-' no reply */
} Dialogue;

#define EHLO "EHLO client.example|250\n"
#define MAIL "MAIL FROM:<a@b.example>|250\n"
#define RCPT "RCPT TO:<ok@b.example>|250\n"

static const Dialogue dialogues[] = {
	{"order",
	 "MAIL FROM:<a@b>|503\nRCPT TO:<a@b>|503\nDATA|503\nRSET|250\nNOOP|250\nVRFY x|252\nVRFY|501\n"
	 "HELP|250\n" EHLO "RCPT TO:<a@b>|503\nDATA|503\n" MAIL
	 "MAIL FROM:<a@b>|503\nDATA|503\n" RCPT "RSET|250\nRCPT TO:<a@b>|503\nQUIT|221\n"},
	{"helo",
	 "HELO|501\nHELO a b|501\nHELO client.example|250\nMAIL FROM:<a@b> SIZE=1|555\n" MAIL RCPT
	 "DATA|354\nx\r\n.|250\nQUIT|221\n"},
	{"ehlo again drops the transaction", EHLO MAIL RCPT EHLO "DATA|503\nQUIT|221\n"},
	{"mail parameters",
	 EHLO "MAIL FROM:<a@b> SIZE=33554432|250\nRSET|250\nMAIL FROM:<a@b> SIZE=33554433|552\n"
	      "MAIL FROM:<a@b> SIZE=18446744073709551616|552\n"
	      "MAIL FROM:<a@b> SIZE=184467440737095516161|501\nMAIL FROM:<a@b> SIZE=x|501\n"
	      "MAIL FROM:<a@b> SIZE|501\nMAIL FROM:<a@b> BODY=7BIT|250\nRSET|250\nMAIL FROM:<a@b> "
	      "BODY=8BITMIME SMTPUTF8|250\nRSET|250\nMAIL FROM:<a@b> BODY=BINARYMIME|501\n"
	      "MAIL FROM:<a@b> SMTPUTF8=1|501\nMAIL FROM:<a@b> RET=FULL|555\nQUIT|221\n"},
	{"rcpt parameters",
	 EHLO MAIL "RCPT TO:<a@b> NOTIFY=NEVER|555\nRCPT TO:<>|501\nRCPT TO:<a|501\n"
		   "RCPT|501\nQUIT|221\n"},
	{"smtputf8",
	 EHLO "MAIL FROM:<\xc3\xa4@b>|553\n" MAIL "RCPT TO:<\xc3\xa4@b>|553\nRSET|250\n"
	      "MAIL FROM:<\xc3\xa4@b> SMTPUTF8|250\nRCPT TO:<\xc3\xa4@b>|250\nQUIT|221\n"},
	{"answers of the backend",
	 EHLO "MAIL FROM:<perm@b>|550\nMAIL FROM:<temp@b>|450\n" MAIL
	      "RCPT TO:<perm@b>|550\nRCPT TO:<temp@b>|450\nDATA|554\n" RCPT "DATA|354\n.|250\n"
	      "QUIT|221\n"},
	{"answers that are none",
	 EHLO "MAIL FROM:<odd@b>|451\n" MAIL "RCPT TO:<odd@b>|451\n"
	      "RSET|250\n" MAIL "RCPT TO:<dataodd@b>|250\nDATA|354\n.|451\nQUIT|221\n"},
	{"message refused", EHLO MAIL "RCPT TO:<dataperm@b>|250\nDATA|354\n.|550\n" MAIL
				      "RCPT TO:<datatemp@b>|250\nDATA|354\nx\r\n.|450\nQUIT|221\n"},
	{"message refused early",
	 EHLO MAIL "RCPT TO:<early@b>|250\nDATA|354\nx|-\ny\r\n.|550\n" MAIL "QUIT|221\n"},
	{"not offered", EHLO "STARTTLS|454\nAUTH PLAIN x|502\nEXPN x|502\nLHLO x|502\nQUIT|221\n"},
	{"bdat closes", EHLO "BDAT 6 LAST|502\n"},
	{"http closes", "GET / HTTP/1.1|502\n"},
	{"quit with argument", "QUIT now|501\nQUIT|221\n"},
	{"unknown", EHLO "XYZZY|500\n|500\nQUIT|221\n"},
	{"two messages",
	 EHLO MAIL RCPT "DATA|354\na\r\n.|250\n" MAIL RCPT "DATA|354\nb\r\n.|250\nQUIT|221\n"},
	{"null sender", EHLO "MAIL FROM:<>|250\n" RCPT "DATA|354\n.|250\nQUIT|221\n"},
};

static void
run_dialogue(uint16_t port, const Dialogue *dialogue, bool byte_by_byte)
{
	int fd = sock_connect(port);
	g_auto(GStrv) steps = g_strsplit(dialogue->steps, "|", -1);
	assert_int_equal(sock_reply(fd, NULL), 220);
	/* "in|code\nin|code\n" split at '|': code and the next input are joined by the '\n' */
	g_autofree char *input = g_strdup(steps[0]);
	for (unsigned i = 1; steps[i] != NULL; i++) {
		const char *want = steps[i];
		g_autofree char *line = g_strconcat(input, "\r\n", NULL);
		for (size_t at = 0, len = strlen(line); at < len;) {
			size_t n = byte_by_byte ? 1 : len - at;
			sock_send_bytes(fd, line + at, n);
			at += n;
		}
		if (want[0] != '-') {
			g_autofree char *text = NULL;
			int code = sock_reply(fd, &text);
			if (code != (int)g_ascii_strtoll(want, NULL, 10))
				fail_msg("%s: %s: got %d %s, want %.3s", dialogue->name, input,
					 code, text, want);
		}
		g_free(input);
		input = g_strdup(strchr(want, '\n') + 1);
	}
	/* every dialogue ends with the server closing */
	GString *rest = sock_rest(fd);
	if (rest->len > 0)
		fail_msg("%s: left: %s", dialogue->name, rest->str);
	g_string_free(rest, TRUE);
	sock_close(fd);
}

static void
fast_errors(Live *live)
{
	live->conf.limits.error_delay = 0;
}

static void
test_dialogues(void **state)
{
	Live live;
	(void)state;
	live_start(&live, fast_errors);
	for (size_t i = 0; i < G_N_ELEMENTS(dialogues); i++)
		run_dialogue(live.port, &dialogues[i], false);
	for (size_t i = 0; i < G_N_ELEMENTS(dialogues); i++)
		run_dialogue(live.port, &dialogues[i], true);
	live_stop(&live);
}

/* ---- texts ---- */

static void
expect(int fd, const char *line, int code, const char *text)
{
	g_autofree char *got = NULL;
	if (line != NULL) {
		sock_send(fd, line);
		sock_send(fd, "\r\n");
	}
	int got_code = sock_reply(fd, &got);
	if (got_code != code || (text != NULL && strcmp(got, text) != 0))
		fail_msg("%s: got %d %s, want %d %s", line != NULL ? line : "", got_code, got, code,
			 text != NULL ? text : "");
}

static void
test_texts(void **state)
{
	Live live;
	(void)state;
	live_start(&live, NULL);
	int fd = sock_connect(live.port);
	expect(fd, NULL, 220, "mx.example ESMTP koukan smtp gateway");
	expect(fd, "EHLO c.example", 250,
	       "mx.example\nPIPELINING\nSIZE 33554432\n8BITMIME\nSMTPUTF8\nENHANCEDSTATUSCODES\nHELP");
	expect(fd, "NOOP", 250, "2.0.0 OK");
	expect(fd, "FOO\"\xff bar", 500, NULL);
	expect(fd, "FOO bar", 500, "5.5.2 Error: command \"FOO\" not recognized");
	expect(fd, "MAIL FROM:x", 501, "5.1.3 Bad mailbox address syntax");
	expect(fd, "MAIL", 501, "5.5.4 Syntax: MAIL FROM: <address> [SP <mail-parameters>]");
	expect(fd, "RCPT TO:<a@b>", 503, "5.5.1 Error: need MAIL command");
	expect(fd, "MAIL FROM:<temp@b>", 450, "4.0.0 temp\n4.0.0 second line");
	expect(fd, "MAIL FROM:<a@b> SIZE=276 BODY=8BITMIME", 250, "2.1.0 ok");
	assert_string_equal(live.last_meta, "{\"ehlo_host\":\"c.example\",\"esmtp\":true,"
					    "\"tls\":false,\"auth\":null}");
	expect(fd, "RCPT TO:<perm@b>", 550, "5.1.1 perm");
	expect(fd, "RCPT TO:<bob@b>", 250, "2.1.5 ok");
	expect(fd, "RCPT TO:<eve@b>", 250, "2.1.5 ok");
	expect(fd, "DATA", 354, "End data with <CR><LF>.<CR><LF>");
	expect(fd, "Subject: x\r\n\r\n..dot\r\n.", 250, "2.0.0 ok");
	expect(fd, "QUIT", 221, "2.0.0 ok");
	sock_close(fd);
	assert_int_equal(live.messages->len, 1);
	LiveMessage *message = g_ptr_array_index(live.messages, 0);
	assert_string_equal(message->from, "a@b");
	assert_string_equal(message->params, "SIZE=276 BODY=8BITMIME ");
	assert_string_equal(message->rcpts, "bob@b eve@b ");
	assert_string_equal(message->body->str, "Subject: x\r\n\r\n.dot\r\n");
	live_stop(&live);
}

/* ---- pipelining ---- */

static void
test_pipelining(void **state)
{
	Live live;
	(void)state;
	live_start(&live, NULL);
	for (unsigned cut = 0; cut < 2; cut++) {
		int fd = sock_connect(live.port);
		sock_send(
			fd,
			"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\nRCPT TO:<perm@b>\r\nDATA\r\n"
			"QUIT\r\n.\r\nMAIL FROM:<c@d>\r\nRCPT TO:<y@b>\r\nDATA\r\nz\r\n.\r\nQUIT\r\n");
		/* a peer that has said everything may close its side and still gets its answers */
		if (cut == 1)
			assert_int_equal(shutdown(fd, SHUT_WR), 0);
		static const int want[] = {220, 250, 250, 250, 550, 354, 250,
					   250, 250, 354, 250, 221, 0};
		for (size_t i = 0; i < G_N_ELEMENTS(want) - 1; i++)
			assert_int_equal(sock_reply(fd, NULL), want[i]);
		GString *rest = sock_rest(fd);
		assert_int_equal(rest->len, 0);
		g_string_free(rest, TRUE);
		sock_close(fd);
	}
	assert_int_equal(live.messages->len, 4);
	LiveMessage *message = g_ptr_array_index(live.messages, 0);
	assert_string_equal(message->body->str, "QUIT\r\n");
	live_stop(&live);
}

/* What follows a refused DATA in the same group is not executed. */
static void
test_refused_data_pipelined(void **state)
{
	static const char *const groups[] = {
		"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<perm@b>\r\nDATA\r\nRSET\r\nMAIL FROM:<evil@b>\r\n",
		"EHLO c\r\nDATA\r\nMAIL FROM:<evil@b>\r\n",
		"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\nDATA x\r\nMAIL FROM:<evil@b>\r\n",
		"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\nBDAT 20 LAST\r\nMAIL FROM:<evil@b>\r\n",
	};
	static const char *const last[] = {"554 ", "503 ", "501 ", "502 "};
	Live live;
	(void)state;
	live_start(&live, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(groups); i++) {
		int fd = sock_connect(live.port);
		sock_send(fd, groups[i]);
		GString *rest = sock_rest(fd);
		/* the last line is the refusal */
		g_auto(GStrv) lines = g_strsplit(rest->str, "\r\n", -1);
		unsigned n = g_strv_length(lines);
		assert_true(n >= 2);
		if (!g_str_has_prefix(lines[n - 2], last[i]))
			fail_msg("%zu: %s", i, rest->str);
		g_string_free(rest, TRUE);
		sock_close(fd);
	}
	live_stop(&live);
}

static void
test_rcpt_limit(void **state)
{
	Live live;
	(void)state;
	live_start(&live, NULL);
	int fd = sock_connect(live.port);
	expect(fd, NULL, 220, NULL);
	expect(fd, "EHLO c", 250, NULL);
	expect(fd, "MAIL FROM:<a@b>", 250, NULL);
	for (unsigned i = 0; i < TX_RCPTS_MAX + 2; i += 200) {
		GString *group = g_string_new(NULL);
		unsigned end = MIN(i + 200, TX_RCPTS_MAX + 2);
		for (unsigned j = i; j < end; j++)
			g_string_append_printf(group, "RCPT TO:<user%u@%060u.example>\r\n", j, j);
		sock_send(fd, group->str);
		g_string_free(group, TRUE);
		for (unsigned j = i; j < end; j++)
			assert_int_equal(sock_reply(fd, NULL), j < TX_RCPTS_MAX ? 250 : 452);
	}
	sock_send(fd, "DATA\r\n");
	assert_int_equal(sock_reply(fd, NULL), 354);
	expect(fd, ".", 250, NULL);
	sock_close(fd);
	live_stop(&live);
}

/* ---- message content ---- */

typedef struct Content {
	const char *data;
	size_t len;
	int code;
	const char *text;
} Content;

#define C(data, code, text)                                                                        \
	{                                                                                          \
		data, sizeof(data) - 1, code, text                                                 \
	}
#define BARE "5.6.11 Bare CR or LF in message content"

static const Content contents[] = {
	C("a\r\n.\r\n", 250, NULL),
	C(".\r\n", 250, NULL),
	C("\xc3\xa4\r\n.\r\n", 250, NULL),
	C("a\n.\nMAIL FROM:<evil@b>\n\r\n.\r\n", 550, BARE),
	C("a\n.\r\nMAIL FROM:<evil@b>\r\n.\r\n", 550, BARE),
	C("a\r\n.\nMAIL FROM:<evil@b>\r\n.\r\n", 550, BARE),
	C("a\r.\rMAIL FROM:<evil@b>\r\n.\r\n", 550, BARE),
	C("a\r\n.\rMAIL FROM:<evil@b>\r\n.\r\n", 550, BARE),
	C("a\r.\r\nMAIL FROM:<evil@b>\r\n.\r\n", 550, BARE),
	C("a\0b\r\n.\r\n", 550, "5.6.0 NUL in message content"),
	C("a\r\n\0.\r\nb\r\n.\r\n", 550, "5.6.0 NUL in message content"),
};

static void
test_contents(void **state)
{
	Live live;
	(void)state;
	live_start(&live, fast_errors);
	unsigned ok = 0;
	for (unsigned round = 0; round < 2; round++) {
		for (size_t i = 0; i < G_N_ELEMENTS(contents); i++) {
			const Content *c = &contents[i];
			int fd = sock_connect(live.port);
			expect(fd, NULL, 220, NULL);
			expect(fd, "EHLO c", 250, NULL);
			expect(fd, "MAIL FROM:<a@b>", 250, NULL);
			expect(fd, "RCPT TO:<x@b>", 250, NULL);
			expect(fd, "DATA", 354, NULL);
			for (size_t at = 0; at < c->len; at += round == 0 ? c->len : 1)
				sock_send_bytes(fd, c->data + at, round == 0 ? c->len : 1);
			expect(fd, NULL, c->code, c->text);
			/* the session lives on and has executed nothing of it */
			expect(fd, "MAIL FROM:<a@b>", 250, NULL);
			expect(fd, "QUIT", 221, NULL);
			sock_close(fd);
			ok += c->code == 250;
		}
	}
	assert_int_equal(live.messages->len, ok);
	live_stop(&live);
}

static void
small_limits(Live *live)
{
	live->conf.limits.message_max = 1000;
	live->conf.limits.data_line_max = 100;
	live->conf.limits.received_max = 3;
	live->conf.limits.error_delay = 0;
	live->conf.limits.error_max = 50;
}

static int
send_message(int fd, const char *body)
{
	expect(fd, "MAIL FROM:<a@b>", 250, NULL);
	expect(fd, "RCPT TO:<x@b>", 250, NULL);
	expect(fd, "DATA", 354, NULL);
	sock_send(fd, body);
	sock_send(fd, ".\r\n");
	return sock_reply(fd, NULL);
}

static int
send_lines(int fd, const char *line, unsigned count)
{
	GString *body = g_string_new(NULL);
	for (unsigned i = 0; i < count; i++)
		g_string_append_printf(body, "%s\r\n", line);
	int code = send_message(fd, body->str);
	g_string_free(body, TRUE);
	return code;
}

static int
send_line_of(int fd, unsigned len)
{
	g_autofree char *line = g_strnfill(len, 'x');
	return send_lines(fd, line, 1);
}

static void
test_limits(void **state)
{
	Live live;
	(void)state;
	live_start(&live, small_limits);
	int fd = sock_connect(live.port);
	expect(fd, NULL, 220, NULL);
	expect(fd, "EHLO c", 250, NULL);
	/* message size: 10 octets a line */
	assert_int_equal(send_lines(fd, "12345678", 100), 250);
	assert_int_equal(send_lines(fd, "12345678", 101), 552);
	assert_int_equal(send_lines(fd, "12345678", 1100), 552);
	/* line length with CRLF */
	assert_int_equal(send_line_of(fd, 98), 250);
	assert_int_equal(send_line_of(fd, 99), 500);
	/* hops */
	assert_int_equal(send_lines(fd, "Received: x", 3), 250);
	assert_int_equal(send_lines(fd, "Received: x", 4), 554);
	/* command line */
	for (size_t len = 2048; len <= 2049; len++) {
		g_autofree char *line = g_strnfill(len, 'x');
		memcpy(line, "NOOP ", 5);
		expect(fd, line, len <= 2048 ? 250 : 500, NULL);
	}
	g_autofree char *long_line = g_strnfill(20000, 'x');
	expect(fd, long_line, 500, NULL);
	expect(fd, "NOOP", 250, NULL);
	sock_close(fd);
	live_stop(&live);
}

/* ---- errors ---- */

static void
short_delay(Live *live)
{
	live->conf.limits.error_delay = 30 * USEC_PER_MS;
}

static void
test_error_limit(void **state)
{
	Live live;
	(void)state;
	live_start(&live, short_delay);
	int fd = sock_connect(live.port);
	expect(fd, NULL, 220, NULL);
	gint64 start = g_get_monotonic_time();
	for (unsigned i = 0; i < 10; i++)
		expect(fd, "XYZZY", 500, NULL);
	gint64 fast = g_get_monotonic_time() - start;
	start = g_get_monotonic_time();
	for (unsigned i = 0; i < 10; i++)
		expect(fd, "XYZZY", 500, NULL);
	gint64 slow = g_get_monotonic_time() - start;
	assert_true(slow >= 10 * 30 * 1000);
	assert_true(fast < slow);
	expect(fd, "XYZZY", 421, "4.7.0 Error: too many errors");
	g_autofree char *line = sock_line(fd);
	assert_null(line);
	sock_close(fd);
	live_stop(&live);
}

static void
test_junk_limit(void **state)
{
	Live live;
	(void)state;
	live_start(&live, fast_errors);
	int fd = sock_connect(live.port);
	expect(fd, NULL, 220, NULL);
	for (unsigned i = 0; i < 100; i++)
		expect(fd, "NOOP", 250, NULL);
	for (unsigned i = 0; i < 20; i++)
		expect(fd, "NOOP", 502, NULL);
	expect(fd, "NOOP", 421, NULL);
	sock_close(fd);
	live_stop(&live);
}

static void
one_session(Live *live)
{
	live->conf.limits.sessions_max = 1;
}

static void
test_session_limit(void **state)
{
	Live live;
	(void)state;
	live_start(&live, one_session);
	int first = sock_connect(live.port);
	expect(first, NULL, 220, NULL);
	int second = sock_connect(live.port);
	expect(second, NULL, 421, NULL);
	sock_close(second);
	expect(first, "QUIT", 221, NULL);
	sock_close(first);
	live_stop(&live);
}

/* ---- deadlines ---- */

static void
short_timeouts(Live *live)
{
	live->conf.command_timeout = 100 * USEC_PER_MS;
	live->conf.data_idle_timeout = 100 * USEC_PER_MS;
	live->conf.mail_timeout = 50 * USEC_PER_MS;
	live->conf.rcpt_timeout = 50 * USEC_PER_MS;
	live->conf.data_timeout = 50 * USEC_PER_MS;
}

static void
test_timeouts(void **state)
{
	Live live;
	(void)state;
	live_start(&live, short_timeouts);
	int fd = sock_connect(live.port);
	expect(fd, NULL, 220, NULL);
	expect(fd, "EHLO c", 250, NULL);
	expect(fd, "MAIL FROM:<hang@b>", 450, "4.4.2 MAIL upstream timeout/internal err");
	expect(fd, "MAIL FROM:<a@b>", 250, NULL);
	expect(fd, "RCPT TO:<x@b>", 250, NULL);
	expect(fd, "RCPT TO:<hang@b>", 450, "4.4.2 RCPT upstream timeout/internal err");
	/* the transaction is given up: the late recipient must not get the message */
	expect(fd, "RCPT TO:<y@b>", 450, NULL);
	expect(fd, "DATA", 450, NULL);
	expect(fd, "RSET", 250, NULL);
	expect(fd, "MAIL FROM:<a@b>", 250, NULL);
	expect(fd, "RCPT TO:<datahang@b>", 250, NULL);
	expect(fd, "DATA", 354, NULL);
	expect(fd, ".", 450, "4.4.2 DATA upstream timeout/internal err");
	expect(fd, NULL, 421, NULL); /* silence */
	sock_close(fd);

	fd = sock_connect(live.port);
	expect(fd, NULL, 220, NULL);
	expect(fd, "EHLO c", 250, NULL);
	expect(fd, "MAIL FROM:<a@b>", 250, NULL);
	expect(fd, "RCPT TO:<x@b>", 250, NULL);
	expect(fd, "DATA", 354, NULL);
	sock_send(fd, "half a mess");
	expect(fd, NULL, 421, NULL);
	sock_close(fd);
	assert_int_equal(live.messages->len, 0);
	live_stop(&live);
}

/* A peer that sends one byte now and then does not push the deadline of a command line away. */
static void
test_dripping(void **state)
{
	Live live;
	(void)state;
	live_start(&live, short_timeouts);
	int fd = sock_connect(live.port);
	expect(fd, NULL, 220, NULL);
	gint64 start = g_get_monotonic_time();
	struct timeval wait = {.tv_usec = 20000};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	char c = 0;
	while (recv(fd, &c, 1, 0) != 1 && g_get_monotonic_time() - start < 2000000)
		sock_send(fd, "x");
	assert_int_equal(c, '4');
	assert_true(g_get_monotonic_time() - start < 1000000);
	sock_close(fd);
	live_stop(&live);
}

/* ---- clients that vanish ---- */

static bool
all_stopped(const Live *live)
{
	return live->started == live->stopped && live->sessions_ended == live->expected;
}

/* The connection is cut after byte n of a dialogue, for each n: nothing but a whole message ever
 * reaches the backend as complete. */
static void
cut_dialogue(Live *live, const char *text, size_t len, size_t n, bool reset)
{
	int fd = sock_connect(live->port);
	unsigned before = live->messages->len;
	live->expected++;
	sock_send_bytes(fd, text, n);
	if (reset) {
		struct linger linger = {.l_onoff = 1, .l_linger = 0};
		/* the server has to have seen the bytes: a reset may overtake them */
		if (n == len)
			assert_int_equal(sock_reply(fd, NULL), 220);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	}
	sock_close(fd);
	live_wait(live, all_stopped, "the end of the session");
	const char *dot = strstr(text, "\r\n.\r\n");
	size_t complete = (size_t)(dot - text) + 5;
	if (n < complete)
		assert_int_equal(live->messages->len, before);
	else
		assert_true(live->messages->len <= before + 1);
}

static void
test_cuts(void **state)
{
	static const char text[] =
		"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\nDATA\r\nSubject: x\r\n\r\nbody\r\n.\r\n"
		"QUIT\r\n";
	Live live;
	(void)state;
	live_start(&live, NULL);
	for (size_t n = 0; n < sizeof(text); n++) {
		cut_dialogue(&live, text, sizeof(text) - 1, n, false);
		cut_dialogue(&live, text, sizeof(text) - 1, n, true);
	}
	assert_int_equal(live_sessions(&live), 0);
	live_stop(&live);
}

static bool
one_cancelled(const Live *live)
{
	return live->cancelled == 1 && live->sessions_ended == 1;
}

/* Also while an answer is awaited the end of the connection is noticed. */
static void
test_vanish_while_waiting(void **state)
{
	static const char *const texts[] = {
		"EHLO c\r\nMAIL FROM:<hang@b>\r\n",
		"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<hang@b>\r\n",
		"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<datahang@b>\r\nDATA\r\nx\r\n.\r\n",
	};
	static const unsigned replies[] = {2, 3, 5};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
		Live live;
		live_start(&live, NULL);
		int fd = sock_connect(live.port);
		sock_send(fd, texts[i]);
		for (unsigned j = 0; j < replies[i]; j++)
			(void)sock_reply(fd, NULL);
		sock_close(fd);
		live_wait(&live, one_cancelled, "cancellation");
		live_stop(&live);
	}
}

static bool
bytes_seen(const Live *live)
{
	return live->seen_early >= 100000;
}

/* The body is there for the upstream side before it is complete, and is never completed when the
 * client goes away. */
static void
test_streaming(void **state)
{
	Live live;
	(void)state;
	live_start(&live, NULL);
	int fd = sock_connect(live.port);
	expect(fd, NULL, 220, NULL);
	expect(fd, "EHLO c", 250, NULL);
	expect(fd, "MAIL FROM:<a@b>", 250, NULL);
	expect(fd, "RCPT TO:<x@b>", 250, NULL);
	expect(fd, "DATA", 354, NULL);
	g_autofree char *line = g_strnfill(998, 'x');
	for (unsigned i = 0; i < 101; i++) {
		sock_send(fd, line);
		sock_send(fd, "\r\n");
	}
	live_wait(&live, bytes_seen, "the first bytes of the message");
	sock_close(fd);
	live_wait(&live, one_cancelled, "cancellation");
	assert_int_equal(live.messages->len, 0);
	live_stop(&live);
}

/* ---- drain ---- */

static void
drain(void *arg)
{
	smtp_sessions_drain(((Live *)arg)->sessions);
}

static void
test_drain(void **state)
{
	Live live;
	(void)state;
	live_start(&live, NULL);
	int idle = sock_connect(live.port), busy = sock_connect(live.port);
	expect(idle, NULL, 220, NULL);
	expect(busy, NULL, 220, NULL);
	expect(busy, "EHLO c", 250, NULL);
	expect(busy, "MAIL FROM:<a@b>", 250, NULL);
	live_run(&live, drain, &live);
	expect(idle, NULL, 421, "4.3.2 Service closing transmission channel");
	expect(busy, "RCPT TO:<x@b>", 250, NULL);
	expect(busy, "DATA", 354, NULL);
	expect(busy, "x\r\n.", 250, NULL);
	expect(busy, NULL, 421, NULL);
	int late = sock_connect(live.port);
	expect(late, NULL, 421, NULL);
	sock_close(idle);
	sock_close(busy);
	sock_close(late);
	assert_int_equal(live.messages->len, 1);
	live_stop(&live);
}

static void
tiny_body(Live *live)
{
	live->conf.body.size_max = 100;
	live->conf.limits.error_delay = 0;
}

static void
test_no_space(void **state)
{
	Live live;
	(void)state;
	live_start(&live, tiny_body);
	int fd = sock_connect(live.port);
	expect(fd, NULL, 220, NULL);
	expect(fd, "EHLO c", 250, NULL);
	assert_int_equal(send_lines(fd, "12345678", 10), 250);
	assert_int_equal(send_lines(fd, "12345678", 11), 452);
	assert_int_equal(send_lines(fd, "12345678", 10), 250);
	sock_close(fd);
	live_stop(&live);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dialogues),  cmocka_unit_test(test_texts),
		cmocka_unit_test(test_pipelining), cmocka_unit_test(test_refused_data_pipelined),
		cmocka_unit_test(test_rcpt_limit), cmocka_unit_test(test_contents),
		cmocka_unit_test(test_limits),     cmocka_unit_test(test_error_limit),
		cmocka_unit_test(test_junk_limit), cmocka_unit_test(test_session_limit),
		cmocka_unit_test(test_timeouts),   cmocka_unit_test(test_dripping),
		cmocka_unit_test(test_cuts),       cmocka_unit_test(test_vanish_while_waiting),
		cmocka_unit_test(test_streaming),  cmocka_unit_test(test_drain),
		cmocka_unit_test(test_no_space),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
