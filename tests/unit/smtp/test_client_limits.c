/* SPDX-License-Identifier: Apache-2.0 */
/* The client against servers that are slow, silent, hostile or full: deadlines of each phase
 * (shortened), caps of replies, connections per destination, source addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

#include "certs.h"
#include "script.h"
#include "smtp/reply_text.h"

#define HI     "S 220 hi\nC EHLO client.example\n"
#define HELLO  HI "S 250 x\n"
#define SENDER "C MAIL\nS 250 s\n"
#define RCPT   "C RCPT\nS 250 r\n"
#define BODY   "C DATA\nS 354 go\nB\n"
#define ALL_OK .mail = "250 s", .rcpt = {"250 r"}, .data = "250 done"
#define LATER  .rcpt = {"4*"}, .data = "4*"
#define UNACK  "(message sent, not acknowledged)"
#define UNSENT "(message not sent)"

static Certs certs;
static TlsContext *tls_any;

/* ---- deadlines: one phase is short, the others are not ---- */

#define SHORT (200 * USEC_PER_MS)

#define SHORTEN(member)                                                                            \
	static void short_##member(Live *live)                                                     \
	{                                                                                          \
		live->output.timeouts.member = SHORT;                                              \
	}
SHORTEN(greeting)
SHORTEN(ehlo)
SHORTEN(mail)
SHORTEN(rcpt)
SHORTEN(data)
SHORTEN(dot)

static void
short_tls(Live *live)
{
	live->output.tls_policy = SMTP_TLS_REQUIRED;
	live->output.tls = tls_any;
	live->output.timeouts.tls = SHORT;
}

static void
short_auth(Live *live)
{
	live->output.auth_user = "u";
	live->output.auth_secret = "p";
	live->output.timeouts.auth = SHORT;
}

static const Case timeouts[] = {
	{"greeting", "E\n", short_greeting,
	 .mail = "450 4.4.2 timeout waiting for the greeting " UNSENT, LATER},
	{"half a greeting", "R 220-hi\\r\\n220\nE\n", short_greeting,
	 .mail = "450 4.4.2 timeout waiting for the greeting " UNSENT, LATER},
	{"one byte at a time",
	 "D 220 hi this takes far too long for a greeting of this kind, "
	 "since bytes come one by one\nE\n",
	 short_greeting, .mail = "450 4.4.2 timeout waiting for the greeting " UNSENT, LATER},
	{"EHLO", HI "E\n", short_ehlo,
	 .mail = "450 4.4.2 timeout waiting for the reply to EHLO " UNSENT, LATER},
	{"HELO", HI "S 500 x\nC HELO\nE\n", short_ehlo,
	 .mail = "450 4.4.2 timeout waiting for the reply to HELO " UNSENT, LATER},
	{"STARTTLS", HI "S 250-x\nS 250 STARTTLS\nC STARTTLS\nE\n", short_tls,
	 .mail = "450 4.4.2 timeout waiting for the reply to STARTTLS " UNSENT, LATER},
	{"handshake", HI "S 250-x\nS 250 STARTTLS\nC STARTTLS\nS 220 go\nE\n", short_tls,
	 .mail = "450 4.7.5 TLS handshake failed: timeout " UNSENT, LATER},
	{"AUTH", HI "S 250-x\nS 250 AUTH PLAIN\nC AUTH\nE\n", short_auth,
	 .mail = "450 4.4.2 timeout waiting for the reply to AUTH " UNSENT, LATER},
	{"MAIL", HELLO "C MAIL\nE\n", short_mail,
	 .mail = "450 4.4.2 timeout waiting for the reply to MAIL " UNSENT, LATER},
	{"RCPT", HELLO SENDER "C RCPT\nE\n", short_rcpt, .mail = "250 s",
	 .rcpt = {"450 4.4.2 timeout waiting for the reply to RCPT " UNSENT}, .data = "450 *"},
	{"DATA", HELLO SENDER RCPT "C DATA\nE\n", short_data, .mail = "250 s", .rcpt = {"250 r"},
	 .data = "450 4.4.2 timeout waiting for the reply to DATA " UNSENT},
	{"dot", HELLO SENDER RCPT BODY "E\n", short_dot, .mail = "250 s", .rcpt = {"250 r"},
	 .data = "450 4.4.2 timeout waiting for the reply to end of data " UNACK},
};

static void
test_timeouts(void **state)
{
	(void)state;
	cases_run(timeouts, G_N_ELEMENTS(timeouts));
}

static void
short_block(Live *live)
{
	live->output.timeouts.block = SHORT;
}

/* A hop that stops reading in the message, by DATA and by BDAT. */
static void
blocked(bool bdat, const char *expected)
{
	Live live;
	Job job;
	uint16_t port;
	size_t len = 16 * 1024 * 1024;
	live_case = bdat ? "BDAT not read" : "message not read";
	Hop *hop = hop_new(&port);
	live_start(&live, short_block);
	live.output.enable_bdat = bdat;
	g_autofree char *body = g_strnfill(len, 'x');
	job_start(&job, &live, port, one_rcpt, body);
	hop_play(hop, HI "S 250-x\nS 250 CHUNKING\n" SENDER RCPT);
	if (!bdat)
		hop_play(hop, "C DATA\nS 354 go\n");
	job_wait(&job);
	want(live_case, "data", job.data, expected);
	job_clear(&job);
	hop_free(hop);
	live_stop(&live);
}

static void
test_blocked(void **state)
{
	(void)state;
	blocked(false, "450 4.4.2 timeout waiting for the message to be taken " UNSENT);
	blocked(true, "450 4.4.2 timeout waiting for the reply to BDAT " UNSENT);
}

static void
short_connect(Live *live)
{
	live->output.timeouts.connect = SHORT;
}

/* A listener whose queue is full drops what comes. */
static void
test_connect_timeout(void **state)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	socklen_t len = sizeof(sin);
	int fillers[3];
	Live live;
	Job job;
	(void)state;
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(listen(listener, 0), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&sin, &len), 0);
	for (unsigned i = 0; i < G_N_ELEMENTS(fillers); i++) {
		fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)connect(fillers[i], (struct sockaddr *)&sin, sizeof(sin));
	}
	live_start(&live, short_connect);
	job_start(&job, &live, ntohs(sin.sin_port), one_rcpt, "x\r\n");
	job_wait(&job);
	want("connect timeout", "mail", job.mail, "400 connect error Connection timed out");
	want("connect timeout", "rcpt", job.rcpt[0], "4*");
	job_clear(&job);
	live_stop(&live);
	for (unsigned i = 0; i < G_N_ELEMENTS(fillers); i++)
		sock_close(fillers[i]);
	sock_close(listener);
}

static void
short_rset(Live *live)
{
	live->output.timeouts.rset = SHORT;
	live->output.timeouts.quit = SHORT;
	live->output.reuse_idle = SHORT;
}

/* RSET and QUIT are nobody's business but the connection's. */
static void
test_rset_and_quit(void **state)
{
	static const char *const ends[] = {HELLO "C MAIL\nS 550 no\nC RSET\nE\n",
					   HELLO "C MAIL\nS 550 no\nC RSET\nS 250 x\nC QUIT\nE\n"};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(ends); i++) {
		Live live;
		Job job;
		uint16_t port;
		live_case = ends[i];
		Hop *hop = hop_new(&port);
		live_start(&live, short_rset);
		job_start(&job, &live, port, one_rcpt, "x\r\n");
		hop_play(hop, ends[i]);
		job_wait(&job);
		want("rset", "mail", job.mail, "550 no");
		job_clear(&job);
		assert_int_equal(live_pool_count(&live), 0);
		live_stop(&live);
		hop_free(hop);
	}
}

/* ---- rubbish ---- */

static const char *
long_text(size_t len)
{
	static char text[100 * 1024 + 64];
	k_assert(len < sizeof(text) - 8);
	memset(text, 'x', len);
	text[len] = '\0';
	return text;
}

static void
test_rubbish(void **state)
{
	static const Case cases[] = {
		{"binary", HELLO "C MAIL\nR \\377\\001\\002\\r\\n\nE\n", NULL,
		 .mail = "450 4.5.0 next hop sent something that is no SMTP reply " UNSENT, LATER},
		{"HTTP", "S HTTP/1.1 400 Bad Request\nE\n", NULL,
		 .mail = "450 4.5.0 next hop sent something that is no SMTP reply " UNSENT, LATER},
		{"10000 lines", HELLO "C MAIL\nL 10000 250-more\nE\n", NULL,
		 .mail = "450 4.5.0 next hop sent something that is no SMTP reply " UNSENT, LATER},
		{"10000 lines for a greeting", "L 10000 220-more\nE\n", NULL,
		 .mail = "450 4.5.0 next hop sent something that is no SMTP reply " UNSENT, LATER},
		{"100 lines", HELLO "C MAIL\nL 99 250-x\nS 250 x\n" RCPT BODY "S 250 done\n", NULL,
		 .mail = "250 x\nx\nx\nx\nx\nx\nx\nx\nx\nx\nx\nx\nx\nx\nx\nx\nx\nx\nx\nx",
		 .rcpt = {"250 r"}, .data = "250 done"},
		{"101 lines", HELLO "C MAIL\nL 100 250-x\nS 250 x\nE\n", NULL,
		 .mail = "450 4.5.0 next hop sent something that is no SMTP reply " UNSENT, LATER},
		{"controls and 8 bit",
		 HELLO "C MAIL\nR 550 a\\tb\\033[31m\\200\\303\\244\\r\\n\n"
		       "C RSET\nS 250 x\n",
		 NULL, .mail = "550 a b [31m?\xc3\xa4", .rcpt = {"503 *"}, .data = "503 *"},
		{"one byte at a time",
		 "D 220 hi\\r\\n\nC EHLO\nD 250-x\\r\\n250 PIPELINING\\r\\n\nC MAIL\nC RCPT\nC DATA\n"
		 "D 250 s\\r\\n250 r\\r\\n354 go\\r\\n\nB\nD 250 done\\r\\n\n",
		 NULL, ALL_OK},
		{"everything at once",
		 "R 220 hi\\r\\n250 x\\r\\n250 s\\r\\n250 r\\r\\n354 go\\r\\n250 done\\r\\n\nE\n",
		 NULL, .mail = "450 4.5.0 next hop sent a reply before it had the command " UNSENT,
		 LATER},
		{"250 to the dot before the dot",
		 HELLO SENDER RCPT "C DATA\nR 354 go\\r\\n250 done\\r\\n\nE\n", NULL,
		 .mail = "250 s", .rcpt = {"250 r"},
		 .data = "450 4.5.0 next hop sent a reply before it had the command " UNSENT},
		{"354 to DATA before DATA", HELLO SENDER "C RCPT\nR 250 r\\r\\n354 go\\r\\n\nE\n",
		 NULL, .mail = "250 s", .rcpt = {"250 r"},
		 .data = "450 4.5.0 next hop sent a reply before it had the command " UNSENT},
		{"250 to MAIL before MAIL", HI "R 250 x\\r\\n250 s\\r\\n\nE\n", NULL,
		 .mail = "450 4.5.0 next hop sent a reply before it had the command " UNSENT,
		 LATER},
		{"250 to MAIL before a group",
		 HI "R 250-x\\r\\n250 PIPELINING\\r\\n250 s\\r\\n\nE\n", NULL,
		 .mail = "450 4.5.0 next hop sent a reply before it had the command " UNSENT,
		 LATER},
		{"250 to RCPT before RCPT", HELLO "C MAIL\nR 250 s\\r\\n250 r\\r\\n\nE\n", NULL,
		 .mail = "250 s",
		 .rcpt = {"450 4.5.0 next hop sent a reply before it had the command " UNSENT},
		 .data = "450 *"},
		{"199", "S 199 hm\nE\n", NULL, .mail = "450 4.5.0 *", LATER},
		{"600", "S 600 hm\nE\n", NULL, .mail = "450 4.5.0 *", LATER},
		{"code alone", "S 220\nC EHLO\nS 250\n" SENDER RCPT BODY "S 250 done\n", NULL,
		 ALL_OK},
	};
	(void)state;
	cases_run(cases, G_N_ELEMENTS(cases));
}

static void
test_long_line(void **state)
{
	(void)state;
	/* 2048 bytes are the connection's limit of a line */
	static const size_t lens[] = {2044, 2045, 100 * 1024};
	for (size_t i = 0; i < G_N_ELEMENTS(lens); i++) {
		g_autofree char *line = g_strconcat("550 ", long_text(lens[i]), NULL);
		g_autofree char *kept = g_strndup(line, 4 + SMTP_REPLY_KEEP_BYTES);
		g_autofree char *steps = g_strdup_printf(HELLO "C MAIL\nS %s\n%s", line,
							 i == 0 ? "C RSET\nS 250 x\n" : "E\n");
		const Case c = {
			"long line",
			steps,
			NULL,
			.mail = i == 0 ? kept
				       : "450 4.5.0 next hop sent a reply line that is too long " UNSENT,
			.rcpt = {NULL},
			.data = NULL};
		cases_run(&c, 1);
	}
}

static void
test_reply_text(void **state)
{
	static const struct {
		const char *in, *want;
	} table[] = {
		{"250 ok", "ok"},
		{"250 a\x7f"
		 "b",
		 "a b"},
		{"250 \xc3\xa4", "\xc3\xa4"},
		{"250 \xc3", "?"},
		{"250 \xff\xfe", "??"},
		{"250 \xc2\x85", "??"},      /* C1 */
		{"250 \xe2\x80\xa8", "???"}, /* line separator */
		{"250 \xed\xa0\x80", "???"}, /* surrogate */
		{"250 \xf0\x9f\x93\xa7", "\xf0\x9f\x93\xa7"},
	};
	(void)state;
	g_autoptr(SmtpReply) reply = smtp_reply_new();
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
		smtp_reply_reset(reply);
		assert_int_equal(smtp_reply_feed(reply, table[i].in, strlen(table[i].in)),
				 SMTP_REPLY_DONE);
		g_autofree char *text = smtp_reply_text(reply);
		assert_string_equal(text, table[i].want);
	}
	/* the caps, and no half character at the end */
	for (size_t extra = 0; extra < 4; extra++) {
		g_autofree char *fill = g_strnfill(SMTP_REPLY_KEEP_BYTES - extra, 'x');
		g_autofree char *line = g_strconcat("250 ", fill, "\xc3\xa4", NULL);
		smtp_reply_reset(reply);
		assert_int_equal(smtp_reply_feed(reply, line, strlen(line)), SMTP_REPLY_DONE);
		g_autofree char *text = smtp_reply_text(reply);
		assert_int_equal(strlen(text), extra < 2 ? strlen(fill) : strlen(fill) + 2);
	}
	for (unsigned lines = SMTP_REPLY_KEEP_LINES - 1; lines <= SMTP_REPLY_KEEP_LINES + 1;
	     lines++) {
		smtp_reply_reset(reply);
		for (unsigned i = 0; i + 1 < lines; i++)
			assert_int_equal(smtp_reply_feed(reply, "250-x", 5), SMTP_REPLY_MORE);
		assert_int_equal(smtp_reply_feed(reply, "250 x", 5), SMTP_REPLY_DONE);
		g_autofree char *text = smtp_reply_text(reply);
		g_auto(GStrv) parts = g_strsplit(text, "\n", -1);
		assert_int_equal(g_strv_length(parts), MIN(lines, (unsigned)SMTP_REPLY_KEEP_LINES));
	}
}

/* ---- source address ---- */

static NetAddr source;

static void
from_source(Live *live)
{
	live->output.source = &source;
}

static void
test_source(void **state)
{
	static const struct {
		const char *source, *mail;
	} table[] = {
		{"127.0.0.9", "250 s"},
		{"::1", "400 connect error the source address is of the other family"},
		{"192.0.2.1", "400 connect error Cannot assign requested address"},
	};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
		Live live;
		Job job;
		uint16_t port;
		struct sockaddr_in peer;
		socklen_t len = sizeof(peer);
		live_case = table[i].source;
		assert_true(net_addr_parse(table[i].source, 0, &source));
		Hop *hop = hop_new(&port);
		live_start(&live, from_source);
		job_start(&job, &live, port, one_rcpt, "x\r\n");
		if (i == 0) {
			hop_play(hop, HELLO SENDER RCPT BODY "S 250 done\n");
			assert_int_equal(getpeername(hop_fd(hop), (struct sockaddr *)&peer, &len),
					 0);
			assert_int_equal(ntohl(peer.sin_addr.s_addr), 0x7f000009);
		}
		job_wait(&job);
		want(live_case, "mail", job.mail, table[i].mail);
		job_clear(&job);
		live_stop(&live);
		hop_free(hop);
	}
}

static int
setup(void **state)
{
	(void)state;
	certs_make(&certs);
	hop_use_cert(certs.good);
	tls_any = tls_client_new(TLS_VERIFY_NONE, NULL, NULL);
	return tls_any != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	tls_context_unref(tls_any);
	certs_clear(&certs);
	return 0;
}

/* ---- limits that the hop announces (RFC 9422) ---- */

static const Case announced[] = {
	{"RCPTMAX", HI "S 250-x\nS 250 LIMITS RCPTMAX=1\n" SENDER RCPT BODY "S 250 done\n",
	 .rcpts = two_rcpts, .mail = "250 s", .data = "250 done",
	 .rcpt = {"250 r", "452 4.5.3 the next hop takes 1 recipients at a time " UNSENT}},
	{"RCPTMAX, as many",
	 HI "S 250-x\nS 250 LIMITS RCPTMAX=2\n" SENDER RCPT RCPT BODY "S 250 done\n",
	 .rcpts = two_rcpts, .mail = "250 s", .rcpt = {"250 r", "250 r"}, .data = "250 done"},
};

static void
test_rcptmax(void **state)
{
	(void)state;
	cases_run(announced, G_N_ELEMENTS(announced));
}

/* The hop has a word on how many messages a connection serves. */
static void
test_mailmax(void **state)
{
	(void)state;
	for (unsigned max = 1; max <= 2; max++) {
		Live live;
		uint16_t port;
		live_start(&live, NULL);
		Hop *hop = hop_new(&port);
		g_autofree char *hello = g_strdup_printf(HI "S 250-x\nS 250 LIMITS MAILMAX=%u\n",
							 max);
		for (unsigned i = 0; i < 3; i++) {
			Job job;
			job_start(&job, &live, port, one_rcpt, "x\r\n");
			if (i > 0 && i % max == 0)
				hop_play(hop, "C QUIT\nS 221 bye\nE\nA\n");
			if (i % max == 0)
				hop_play(hop, hello);
			hop_play(hop, SENDER RCPT BODY "S 250 done\n");
			job_wait(&job);
			want("MAILMAX", "data", job.data, "250 done");
			job_clear(&job);
		}
		live_stop(&live);
		hop_free(hop);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timeouts),        cmocka_unit_test(test_blocked),
		cmocka_unit_test(test_connect_timeout), cmocka_unit_test(test_rset_and_quit),
		cmocka_unit_test(test_rubbish),         cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_reply_text),      cmocka_unit_test(test_source),
		cmocka_unit_test(test_rcptmax),         cmocka_unit_test(test_mailmax),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
