/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "smtp/envelope.h"
#include "smtp/pipeline.h"

/* ---- what a hop offers ---- */

static void
test_caps(void **state)
{
	static const struct {
		const char *text;
		bool pipelining, eightbit, smtputf8, size;
		uint64_t size_max;
	} table[] = {
		{"mx hello", false, false, false, false, 0},
		{"mx PIPELINING", false, false, false, false, 0},
		{"mx\nPIPELINING\n8BITMIME\nSMTPUTF8\nSIZE 1000", true, true, true, true, 1000},
		{"mx\npipelining\nsize", true, false, false, true, 0},
		{"mx\nSIZE x\n8BITMIME", false, true, false, true, 0},
		{"mx\nSIZE 0", false, false, false, true, 0},
		{"mx\nSIZE 99999999999999999999999", false, false, false, true, 0},
		{"mx\n\n\nX8BITMIME\n8BITMIMEX", false, false, false, false, 0},
		{"mx\nAUTH=LOGIN", false, false, false, false, 0},
	};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
		SmtpCaps caps;
		smtp_caps_parse(table[i].text, &caps);
		if (caps.pipelining != table[i].pipelining || caps.eightbit != table[i].eightbit ||
		    caps.smtputf8 != table[i].smtputf8 || caps.size != table[i].size ||
		    caps.size_max != table[i].size_max)
			fail_msg("%s", table[i].text);
		assert_false(smtp_caps_has(&caps, "\n"));
		assert_int_equal(smtp_caps_has(&caps, "auth"),
				 strstr(table[i].text, "AUTH") != NULL);
		smtp_caps_clear(&caps);
	}
}

static void
test_limits(void **state)
{
	static const struct {
		const char *text;
		unsigned mail_max, rcpt_max;
	} table[] = {
		{"mx\nLIMITS RCPTMAX=20 MAILMAX=5", 5, 20},
		{"mx\nlimits mailmax=1 x-other=3 rcptmax=999999", 1, 999999},
		{"mx\nLIMITS", 0, 0},
		{"mx\nLIMITS ", 0, 0},
		{"mx\nLIMITS RCPTMAX=0 MAILMAX=", 0, 0},
		{"mx\nLIMITS RCPTMAX=1000000 MAILMAX=7", 7, 0},
		{"mx\nLIMITS RCPTMAX=-1  MAILMAX=2x RCPTMAX", 0, 0},
		{"mx\nLIMITS RCPTDOMAINMAX=3 =4 ARCPTMAX=5", 0, 0},
		{"mx LIMITS RCPTMAX=20\nXLIMITS RCPTMAX=20\nLIMITSX RCPTMAX=20", 0, 0},
	};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
		SmtpCaps caps;
		smtp_caps_parse(table[i].text, &caps);
		if (caps.mail_max != table[i].mail_max || caps.rcpt_max != table[i].rcpt_max)
			fail_msg("%s: %u %u", table[i].text, caps.mail_max, caps.rcpt_max);
		smtp_caps_clear(&caps);
	}
}

/* ---- commands ---- */

typedef struct Case {
	const char *caps, *addr, *keyword, *value;
	int64_t size;
	bool utf8;
	const char *want; /* the line, or the refusal if it begins with a digit */
} Case;

#define ALL "mx\nPIPELINING\nSIZE 1000\n8BITMIME\nSMTPUTF8\nRET"

static const Case mails[] = {
	{"mx", "a@b", NULL, NULL, -1, false, "MAIL FROM:<a@b>\r\n"},
	{"mx", "", NULL, NULL, -1, false, "MAIL FROM:<>\r\n"},
	{ALL, "a@b", "BODY", "8BITMIME", -1, false, "MAIL FROM:<a@b> BODY=8BITMIME\r\n"},
	{ALL, "a@b", "body", "7bit", -1, false, "MAIL FROM:<a@b> body=7bit\r\n"},
	{"mx", "a@b", "BODY", "7BIT", -1, false, "MAIL FROM:<a@b>\r\n"},
	{"mx", "a@b", "BODY", "8BITMIME", -1, false, "504 body=8BITMIME and not advertised"},
	{ALL, "a@b", "BODY", "BINARYMIME", -1, false, "504 body=BINARYMIME and not advertised"},
	{ALL, "a@b", "SIZE", "1000", -1, false, "MAIL FROM:<a@b> SIZE=1000\r\n"},
	{ALL, "a@b", "SIZE", "1001", -1, false, "504 size=1001 > upstream 1000 "},
	{ALL, "a@b", "SIZE", "10", 1000, false, "MAIL FROM:<a@b> SIZE=1000\r\n"},
	{ALL, "a@b", "SIZE", "10", 1001, false, "504 size=1001 > upstream 1000 "},
	{ALL, "a@b", NULL, NULL, 500, false, "MAIL FROM:<a@b>\r\n"},
	{"mx\nSIZE", "a@b", "SIZE", "99999999", -1, false, "MAIL FROM:<a@b> SIZE=99999999\r\n"},
	{"mx", "a@b", "SIZE", "8388608", -1, false, "MAIL FROM:<a@b>\r\n"},
	{"mx", "a@b", "SIZE", "8388609", -1, false, "504 size=8388609, not advertised upstream "},
	{ALL, "a@b", "SIZE", "x", -1, false, "501 5.5.4 bad SIZE parameter"},
	{ALL, "a@b", "RET", "HDRS", -1, false, "MAIL FROM:<a@b> RET=HDRS\r\n"},
	{"mx", "a@b", "RET", "HDRS", -1, false, "MAIL FROM:<a@b>\r\n"},
	{"mx\nDSN", "a@b", "RET", "HDRS", -1, false, "MAIL FROM:<a@b> RET=HDRS\r\n"},
	{"mx\nBINARYMIME\nCHUNKING", "a@b", "BODY", "BINARYMIME", -1, false,
	 "504 body=BINARYMIME and not advertised"},
	{"mx", "a@b", "SMTPUTF8", NULL, -1, false,
	 "504 smtp_endpoint: MAIL esmtp param not advertised by peer: SMTPUTF8"},
	{ALL, "a@b", "SMTPUTF8", NULL, -1, true, "MAIL FROM:<a@b> SMTPUTF8\r\n"},
	{ALL, "\xc3\xa4@b", NULL, NULL, -1, false, "MAIL FROM:<\xc3\xa4@b> SMTPUTF8\r\n"},
	{ALL, "a@b", NULL, NULL, -1, true, "MAIL FROM:<a@b> SMTPUTF8\r\n"},
	{"mx", "\xc3\xa4@b", NULL, NULL, -1, false,
	 "553 5.6.7 next hop does not take internationalized addresses"},
	{"mx", "a@b", NULL, NULL, -1, true,
	 "553 5.6.7 next hop does not take internationalized addresses"},
	{ALL, "a@b>\r\nRCPT TO:<x@y", NULL, NULL, -1, false,
	 "501 5.1.3 Bad mailbox address syntax"},
	{ALL, "a@b", "RET", "x\r\nDATA", -1, false, "501 5.5.4 bad ESMTP parameter"},
	{ALL, "a@b", "RET X", NULL, -1, false, "501 5.5.4 bad ESMTP parameter"},
};

static const Case rcpts[] = {
	{"mx", "a@b", NULL, NULL, -1, false, "RCPT TO:<a@b>\r\n"},
	{"mx", "", NULL, NULL, -1, false, "501 5.1.3 Bad mailbox address syntax"},
	{"mx\nNOTIFY", "a@b", "NOTIFY", "NEVER", -1, false, "RCPT TO:<a@b> NOTIFY=NEVER\r\n"},
	{"mx", "a@b", "NOTIFY", "NEVER", -1, false, "RCPT TO:<a@b>\r\n"},
	{"mx\nDSN", "a@b", "ORCPT", "rfc822;x", -1, false, "RCPT TO:<a@b> ORCPT=rfc822;x\r\n"},
	{"mx", "a@b", "MT-PRIORITY", "3", -1, false,
	 "504 smtp_endpoint: MAIL esmtp param not advertised by peer: MT-PRIORITY"},
	{ALL, "\xc3\xa4@b", NULL, NULL, -1, true, "RCPT TO:<\xc3\xa4@b>\r\n"},
	{ALL, "\xc3\xa4@b", NULL, NULL, -1, false,
	 "553 5.6.7 next hop does not take internationalized addresses"},
	{ALL, "a@b\n", NULL, NULL, -1, false, "501 5.1.3 Bad mailbox address syntax"},
};

static void
check(const Case *c, bool mail)
{
	SmtpCaps caps;
	EsmtpParam param = {(char *)c->keyword, (char *)c->value};
	g_autoptr(Mailbox) mailbox = mailbox_new(c->addr, &param, c->keyword != NULL ? 1 : 0);
	SmtpMailOptions options = {.size = c->size, .utf8 = c->utf8};
	GString *out = g_string_new("before\r\n");
	smtp_caps_parse(c->caps, &caps);
	g_autoptr(Response) refusal = mail ? smtp_envelope_mail(out, mailbox, &caps, &options)
					   : smtp_envelope_rcpt(out, mailbox, &caps, c->utf8);
	g_autofree char *got = refusal != NULL
				       ? g_strdup_printf("%d %s", refusal->code, refusal->message)
				       : g_strdup(out->str + 8);
	if (strcmp(got, c->want) != 0)
		fail_msg("%s %s: got %s want %s", c->addr, c->keyword != NULL ? c->keyword : "",
			 got, c->want);
	if (refusal != NULL)
		assert_string_equal(out->str, "before\r\n");
	g_string_free(out, TRUE);
	smtp_caps_clear(&caps);
}

static void
test_commands(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(mails); i++)
		check(&mails[i], true);
	for (size_t i = 0; i < G_N_ELEMENTS(rcpts); i++)
		check(&rcpts[i], false);
}

/* ---- the queue of commands ---- */

static void
push(Pipeline *pipeline, PipeKind kind, unsigned index, const char *line)
{
	g_string_append(pipeline->text, line);
	pipeline_push(pipeline, kind, index);
}

static void
want_take(Pipeline *pipeline, bool pipelining, const char *want)
{
	size_t len = 1;
	const char *text = pipeline_take(pipeline, pipelining, &len);
	assert_int_equal(len, want != NULL ? strlen(want) : 0);
	if (want == NULL)
		assert_null(text);
	else
		assert_memory_equal(text, want, len);
}

static void
test_queue(void **state)
{
	Pipeline p;
	(void)state;
	pipeline_init(&p);
	assert_true(pipeline_is_empty(&p));
	want_take(&p, true, NULL);
	push(&p, PIPE_MAIL, 0, "M\r\n");
	push(&p, PIPE_RCPT, 0, "R0\r\n");
	push(&p, PIPE_RCPT, 1, "R1\r\n");
	push(&p, PIPE_DATA, 0, "D\r\n");
	push(&p, PIPE_RSET, 0, "X\r\n");
	assert_null(pipeline_waiting(&p));
	/* all up to the end of the group; nothing behind it before its answer */
	want_take(&p, true, "M\r\nR0\r\nR1\r\nD\r\n");
	want_take(&p, true, NULL);
	for (unsigned i = 0; i < 3; i++) {
		static const PipeKind kinds[] = {PIPE_MAIL, PIPE_RCPT, PIPE_RCPT};
		assert_int_equal(pipeline_waiting(&p)->kind, kinds[i]);
		pipeline_answered(&p);
		want_take(&p, true, NULL);
	}
	assert_int_equal(pipeline_waiting(&p)->kind, PIPE_DATA);
	pipeline_answered(&p);
	want_take(&p, true, "X\r\n");
	pipeline_answered(&p);
	assert_true(pipeline_is_empty(&p));
	assert_int_equal(p.text->len, 0);
	pipeline_clear(&p);
}

static void
test_queue_one_by_one(void **state)
{
	Pipeline p;
	(void)state;
	pipeline_init(&p);
	push(&p, PIPE_MAIL, 0, "M\r\n");
	push(&p, PIPE_RCPT, 0, "R0\r\n");
	push(&p, PIPE_RCPT, 1, "R1\r\n");
	want_take(&p, false, "M\r\n");
	want_take(&p, false, NULL);
	pipeline_answered(&p);
	want_take(&p, false, "R0\r\n");
	/* what was not sent can be withdrawn */
	pipeline_drop_unsent(&p);
	push(&p, PIPE_RSET, 0, "X\r\n");
	assert_int_equal(pipeline_waiting(&p)->index, 0);
	pipeline_answered(&p);
	want_take(&p, false, "X\r\n");
	pipeline_answered(&p);
	push(&p, PIPE_DOT, 0, "");
	want_take(&p, true, NULL); /* no text, but it is waited for */
	assert_int_equal(pipeline_waiting(&p)->kind, PIPE_DOT);
	pipeline_answered(&p);
	assert_true(pipeline_is_empty(&p));
	pipeline_clear(&p);
}

static void
test_queue_window(void **state)
{
	Pipeline p;
	size_t len;
	(void)state;
	pipeline_init(&p);
	for (unsigned i = 0; i < PIPELINE_WINDOW + 2; i++)
		push(&p, PIPE_RCPT, i, "R\r\n");
	(void)pipeline_take(&p, true, &len);
	assert_int_equal(len, PIPELINE_WINDOW * 3);
	(void)pipeline_take(&p, true, &len);
	assert_int_equal(len, 0);
	pipeline_answered(&p);
	(void)pipeline_take(&p, true, &len);
	assert_int_equal(len, 3);
	pipeline_clear(&p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),           cmocka_unit_test(test_caps),
		cmocka_unit_test(test_commands),         cmocka_unit_test(test_queue),
		cmocka_unit_test(test_queue_one_by_one), cmocka_unit_test(test_queue_window),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
