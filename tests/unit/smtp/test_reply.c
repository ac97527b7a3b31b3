/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "smtp/reply.h"

typedef struct FeedCase {
	const char *lines; /* each ended by '\n' */
	SmtpReplyFeed want;
	int code;
	const char *text;
} FeedCase;

static const FeedCase feed_cases[] = {
	{"250 ok\n", SMTP_REPLY_DONE, 250, "ok"},
	{"250\n", SMTP_REPLY_DONE, 250, ""},
	{"250 \n", SMTP_REPLY_DONE, 250, ""},
	{"250-a\n250-b\n250 c\n", SMTP_REPLY_DONE, 250, "a\nb\nc"},
	{"250-a\n250\n", SMTP_REPLY_DONE, 250, "a\n"},
	{"250-\n250-\n250 x\n", SMTP_REPLY_DONE, 250, "\n\nx"},
	{"550 5.1.1 <a@b>: no\tsuch\x01 user\n", SMTP_REPLY_DONE, 550,
	 "5.1.1 <a@b>: no such  user"},
	{"354 go\n", SMTP_REPLY_DONE, 354, "go"},
	{"200 \n", SMTP_REPLY_DONE, 200, ""},
	{"599 x\n", SMTP_REPLY_DONE, 599, "x"},
	{"250-a\n", SMTP_REPLY_MORE, 250, "a"},
	{"250-a\n251 b\n", SMTP_REPLY_BAD, 250, "a"},
	{"\n", SMTP_REPLY_BAD, 0, ""},
	{"25\n", SMTP_REPLY_BAD, 0, ""},
	{"2500 x\n", SMTP_REPLY_BAD, 0, ""},
	{"250x\n", SMTP_REPLY_BAD, 0, ""},
	{"199 x\n", SMTP_REPLY_BAD, 0, ""},
	{"600 x\n", SMTP_REPLY_BAD, 0, ""},
	{" 250 x\n", SMTP_REPLY_BAD, 0, ""},
	{"HTTP/1.1 200 OK\n", SMTP_REPLY_BAD, 0, ""},
	{"2\xb2"
	 "0 x\n",
	 SMTP_REPLY_BAD, 0, ""},
};

static void
test_feed(void **state)
{
	(void)state;
	g_autoptr(SmtpReply) reply = smtp_reply_new();
	for (size_t i = 0; i < G_N_ELEMENTS(feed_cases); i++) {
		const FeedCase *c = &feed_cases[i];
		SmtpReplyFeed got = SMTP_REPLY_MORE;
		smtp_reply_reset(reply);
		for (const char *line = c->lines; *line != '\0' && got == SMTP_REPLY_MORE;) {
			const char *end = strchr(line, '\n');
			g_autofree char *copy = g_memdup2(line, (size_t)(end - line));
			got = smtp_reply_feed(reply, copy, (size_t)(end - line));
			line = end + 1;
		}
		if (got != c->want || reply->code != c->code ||
		    strcmp(reply->text->str, c->text) != 0)
			fail_msg("%s: got %d %d %s", c->lines, got, reply->code, reply->text->str);
		assert_int_equal(reply->done, c->want == SMTP_REPLY_DONE);
	}
}

static void
test_feed_limits(void **state)
{
	(void)state;
	g_autoptr(SmtpReply) reply = smtp_reply_new();
	for (unsigned i = 0; i < SMTP_REPLY_LINES_MAX; i++)
		assert_int_equal(smtp_reply_feed(reply, "250-x", 5), SMTP_REPLY_MORE);
	assert_int_equal(smtp_reply_feed(reply, "250 x", 5), SMTP_REPLY_BAD);

	g_autofree char *line = g_strnfill(SMTP_REPLY_TEXT_MAX + 5, 'x');
	memcpy(line, "250 ", 4);
	smtp_reply_reset(reply);
	assert_int_equal(smtp_reply_feed(reply, line, SMTP_REPLY_TEXT_MAX + 4), SMTP_REPLY_DONE);
	assert_int_equal(reply->text->len, SMTP_REPLY_TEXT_MAX);
	smtp_reply_reset(reply);
	assert_int_equal(smtp_reply_feed(reply, line, SMTP_REPLY_TEXT_MAX + 5), SMTP_REPLY_BAD);
}

typedef struct FormatCase {
	int code;
	const char *status, *text;
	bool utf8;
	const char *want;
} FormatCase;

static const FormatCase format_cases[] = {
	{250, NULL, "ok", false, "250 ok\r\n"},
	{250, "2.0.0", "ok", false, "250 2.0.0 ok\r\n"},
	{250, "2.0.0", "2.1.5 ok", false, "250 2.1.5 ok\r\n"},
	{550, "5.0.0", "2.1.5 ok", false, "550 5.0.0 2.1.5 ok\r\n"},
	{550, "5.0.0", "5.1.1", false, "550 5.1.1\r\n"},
	{550, "5.0.0", "5.1.1x y", false, "550 5.0.0 5.1.1x y\r\n"},
	{250, "2.0.0", "", false, "250 2.0.0\r\n"},
	{354, NULL, "", false, "354 \r\n"},
	{250, NULL, "a\nb\nc", false, "250-a\r\n250-b\r\n250 c\r\n"},
	{250, NULL, "a\nb\n", false, "250-a\r\n250 b\r\n"},
	{250, "2.0.0", "a\n\nb", false, "250-2.0.0 a\r\n250-2.0.0\r\n250 2.0.0 b\r\n"},
	{550, "5.0.0", "5.7.1 a\n5.7.1 b", false, "550-5.7.1 a\r\n550 5.7.1 b\r\n"},
	{550, "5.0.0", "5.7.1 a\nb", false, "550-5.7.1 a\r\n550 5.7.1 b\r\n"},
	{550, "5.0.0", "5.7.1 a\n5.7.10 b", false, "550-5.7.1 a\r\n550 5.7.1 5.7.10 b\r\n"},
	{250, NULL, "a\r\n221 bye", false, "250-a \r\n250 221 bye\r\n"},
	{250, NULL,
	 "a\rb\tc\x7f"
	 "d",
	 false, "250 a b c d\r\n"},
	{250, NULL, "\xc3\xa4\xff", false, "250 ???\r\n"},
	{250, NULL, "\xc3\xa4\xff", true, "250 \xc3\xa4?\r\n"},
	{250, NULL, "\xc2\x85", true, "250 ??\r\n"},
	{250, NULL, "\xe2\x82", true, "250 ??\r\n"},
};

static void
test_format(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(format_cases); i++) {
		const FormatCase *c = &format_cases[i];
		GString *out = g_string_new("");
		smtp_reply_format(out, c->code, c->status, c->text, c->utf8);
		if (strcmp(out->str, c->want) != 0)
			fail_msg("case %zu: got %s want %s", i, out->str, c->want);
		g_string_free(out, TRUE);
	}
}

/* Whatever goes in comes out as lines of at most 512 octets that our own parser reads. */
static void
check_lines(const char *text, size_t total)
{
	GString *out = g_string_new("");
	g_autoptr(SmtpReply) reply = smtp_reply_new();
	smtp_reply_format(out, 550, "5.1.1", text, true);
	SmtpReplyFeed got = SMTP_REPLY_MORE;
	size_t seen = 0;
	for (char *line = out->str; line < out->str + out->len;) {
		char *end = strstr(line, "\r\n");
		assert_non_null(end);
		assert_true(end + 2 - line <= SMTP_REPLY_LINE_MAX);
		assert_true(g_utf8_validate(line, end - line, NULL));
		assert_int_equal(got, SMTP_REPLY_MORE);
		assert_memory_equal(line + 4, "5.1.1", 5);
		seen += (size_t)(end - line) - 9;
		got = smtp_reply_feed(reply, line, (size_t)(end - line));
		line = end + 2;
	}
	assert_int_equal(got, SMTP_REPLY_DONE);
	assert_true(seen >= total);
	g_string_free(out, TRUE);
}

static void
test_fold(void **state)
{
	(void)state;
	for (size_t len = 480; len < 520; len++) {
		g_autofree char *solid = g_strnfill(len, 'x');
		g_autofree char *spaced = g_strnfill(len, 'x');
		spaced[len / 2] = ' ';
		spaced[len - 3] = ' ';
		check_lines(solid, len);
		check_lines(spaced, len - 2);
	}
	GString *wide = g_string_new("");
	for (unsigned i = 0; i < 700; i++)
		g_string_append(wide, i % 3 == 0 ? "\xf0\x9f\x93\xa7" : "\xe2\x82\xac");
	check_lines(wide->str, wide->len);
	g_string_free(wide, TRUE);
}

static void
test_format_line_limit(void **state)
{
	(void)state;
	for (unsigned n = SMTP_REPLY_LINES_MAX; n <= SMTP_REPLY_LINES_MAX + 1; n++) {
		GString *text = g_string_new("x"), *out = g_string_new("");
		for (unsigned i = 1; i < n; i++)
			g_string_append(text, "\nx");
		smtp_reply_format(out, 250, NULL, text->str, false);
		assert_int_equal(out->len, SMTP_REPLY_LINES_MAX * 7);
		assert_string_equal(out->str + out->len - 7, "250 x\r\n");
		g_string_free(text, TRUE);
		g_string_free(out, TRUE);
	}
}

static void
test_status_len(void **state)
{
	(void)state;
	static const struct {
		int code;
		const char *text;
		size_t want;
	} table[] = {
		{250, "2.0.0", 5},      {250, "2.0.0 ok", 5}, {550, "5.123.123 x", 9},
		{550, "5.1234.1 x", 0}, {550, "5.1 x", 0},    {550, "5..1 x", 0},
		{550, "5.1.", 0},       {550, "4.1.1 x", 0},  {550, "", 0},
		{354, "3.0.0", 0},      {450, "4.4.2\nx", 5}, {550, "5.1.1.1 x", 0},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++)
		assert_int_equal(smtp_reply_status_len(table[i].code, table[i].text),
				 table[i].want);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_feed),
		cmocka_unit_test(test_feed_limits),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_fold),
		cmocka_unit_test(test_format_line_limit),
		cmocka_unit_test(test_status_len),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
