/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "mime/header.h"
#include "mime/mime.h"
#include "mime/tree.h"
#include "mime/validate.h"
#include "samples.h"

#define NONE   MIME_VALID_NONE
#define BASIC  MIME_VALID_BASIC
#define MEDIUM MIME_VALID_MEDIUM
#define HIGH   MIME_VALID_HIGH

#define FROM "From: a <a@b.c>\r\n"
#define DATE "Date: Wed, 06 Mar 2024 10:42:31 -0800\r\n"
#define ID   "Message-ID: <x@y>\r\n"
#define ALL  FROM DATE ID

/* As bytes in memory, and behind a prefix so that the header lies in two pieces. */
static MimeVerdict
judge(const char *text, size_t len, const MimeValidateOptions *options)
{
	MimeVerdict v, split;
	g_autoptr(Blob) blob = blob_new_bytes(text, len);
	assert_true(mime_validate(blob, options, &v, NULL));
	size_t cut = len / 2;
	g_autoptr(Blob) rest = blob_new_bytes(text + cut, len - cut);
	g_autoptr(Blob) view = blob_new_prefixed(text, cut, rest);
	assert_true(mime_validate(view, options, &split, NULL));
	assert_int_equal(v.status, split.status);
	assert_int_equal(v.received, split.received);
	mime_verdict_clear(&split);
	return v;
}

typedef struct Row {
	const char *in;
	bool utf8;
	MimeValidity want;
	const char *err; /* its beginning */
} Row;

static const Row ROWS[] = {
	{ALL "\r\nhi", false, HIGH, NULL},
	{ALL "\r\n", false, HIGH, NULL},
	/* NONE */
	{ALL, false, NONE, "couldn't find end of rfc822 headers in 1048576"},
	{"", false, NONE, "couldn't find end of rfc822 headers in 1048576"},
	{"From: a@b\nDate: x\n\nhi", false, NONE, "couldn't find end"},
	{ALL "nonsense\r\n\r\n", false, NONE, "MissingHeaderBodySeparatorDefect"},
	{ALL "X : y\r\n\r\n", false, NONE, "MissingHeaderBodySeparatorDefect"},
	{ALL "X: y\rz\r\n\r\n", false, NONE, "MissingHeaderBodySeparatorDefect"},
	{ALL "X: y\nZ: a\r\n\r\n", false, NONE, "MissingHeaderBodySeparatorDefect"},
	/* encoding */
	{ALL "X: \xe4\r\n\r\n", false, BASIC, "invalid text encoding in headers"},
	{ALL "X: \xe4\r\n\r\n", true, BASIC, "invalid text encoding in headers"},
	{ALL "X: \xc3\xa4\r\n\r\n", false, BASIC, "invalid text encoding in headers"},
	{ALL "X: \xc3\xa4\r\n\r\n", true, HIGH, NULL},
	{ALL "X: \x01\r\n\r\n", true, BASIC, "invalid text encoding in headers"},
	{ALL "X: \t\v\f\x7f\r\n\r\n", false, HIGH, NULL},
	{ALL "\r\n\xe4\x01\r\n", false, HIGH, NULL},
	/* required fields */
	{"\r\n\r\n", false, BASIC, "missing/multiple from"},
	{DATE ID "\r\n", false, BASIC, "missing/multiple from"},
	{FROM ALL "\r\n", false, BASIC, "missing/multiple from"},
	{FROM ID "\r\n", false, BASIC, "missing/multiple date"},
	{ALL DATE "\r\n", false, BASIC, "missing/multiple date"},
	{FROM DATE "\r\n", false, BASIC, "missing/multiple message-id"},
	{ALL ID "\r\n", false, BASIC, "missing/multiple message-id"},
	{DATE ID "From: a\r\n\r\n", false, BASIC, "invalid from("},
	{DATE ID "From: <>\r\n\r\n", false, BASIC, "invalid from("},
	{DATE ID "From: J. Doe <a@b>\r\n\r\n", false, BASIC, "invalid from("},
	{DATE ID "From: \"J. Doe\" <a@b>\r\n\r\n", false, HIGH, NULL},
	{DATE ID "From: a@b, c@d\r\n\r\n", false, HIGH, NULL},
	{DATE ID "From: g: a@b;\r\n\r\n", false, HIGH, NULL},
	{DATE ID "From: a@b\r\n\r\n", false, HIGH, NULL},
	{DATE ID "From:\r\n\r\n", false, HIGH, NULL},
	{DATE ID "From: \xc3\xa4@b\r\n\r\n", true, HIGH, NULL},
	{FROM ID "Date: today\r\n\r\n", false, BASIC, "invalid date("},
	{FROM ID "Date: Mon, 6 Mar 2024 10:42:31\r\n\r\n", false, HIGH, NULL},
	{FROM DATE "Message-ID: x@y\r\n\r\n", false, BASIC, "invalid message-id("},
	{FROM DATE "Message-ID: <xy>\r\n\r\n", false, BASIC, "invalid message-id("},
	/* tree */
	{ALL "To: bob\r\n\r\n", false, MEDIUM, "mime tree"},
	{ALL "Cc: <a@b\r\n\r\n", false, MEDIUM, "mime tree"},
	{ALL "Sender: x y\r\n\r\n", false, MEDIUM, "mime tree"},
	{ALL "To: undisclosed-recipients:;\r\n\r\n", false, HIGH, NULL},
	{ALL ": x\r\n\r\n", false, MEDIUM, "mime tree"},
	{ALL "Content-Type: text\r\n\r\n", false, MEDIUM, "mime tree"},
	{ALL "Content-Type: text/plain; =x\r\n\r\n", false, MEDIUM, "mime tree"},
	{ALL "Content-Type: text/plain; charset=x-none\r\n\r\n\xff\xfe", false, HIGH, NULL},
	{ALL "Content-Type: some/thing\r\n\r\n", false, HIGH, NULL},
	{ALL "Content-Transfer-Encoding: zip\r\n\r\nx", false, HIGH, NULL},
	{ALL "Content-Transfer-Encoding: quoted-printable\r\n\r\n=", false, HIGH, NULL},
	{ALL "Content-Transfer-Encoding: base64\r\n\r\naGk=\r\n", false, HIGH, NULL},
	{ALL "Content-Transfer-Encoding: base64\r\n\r\n", false, HIGH, NULL},
	{ALL "Content-Transfer-Encoding: base64\r\n\r\naGk\r\n", false, MEDIUM, "mime tree"},
	{ALL "Content-Transfer-Encoding: base64\r\n\r\naGk=?\r\n", false, MEDIUM, "mime tree"},
	{ALL "Content-Transfer-Encoding: base64\r\n\r\na\r\n", false, MEDIUM, "mime tree"},
	{ALL "Subject: =?utf-8?q?=ZZ?=\r\n\r\n", false, HIGH, NULL},
	{ALL "\r\n\0nul", false, HIGH, NULL},
	{ALL "Content-Type: multipart/mixed\r\n\r\nx", false, MEDIUM, "mime tree"},
	{ALL "Content-Type: multipart/mixed; boundary=b\r\n\r\nx", false, MEDIUM, "mime tree"},
	{ALL "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx", false, MEDIUM,
	 "mime tree"},
	{ALL "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n", false,
	 HIGH, NULL},
	{ALL "Content-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--b\r\n\r\nx\r\n--b \r\n\r\ny"
	     "\r\n--b--\r\npost",
	 false, HIGH, NULL},
	{ALL "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64\r\n"
	     "\r\n--b\r\n\r\nx\r\n--b--\r\n",
	 false, MEDIUM, "mime tree"},
	{ALL "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nno header\r\n\r\nx\r\n--b--",
	 false, MEDIUM, "mime tree"},
	{ALL "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
	     "Content-Transfer-Encoding: base64\r\n\r\naGk\r\n--b--",
	 false, MEDIUM, "mime tree"},
	{ALL "Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nhi", false, HIGH, NULL},
	{ALL "Content-Type: message/rfc822\r\n\r\nnothing\r\n\r\nhi", false, MEDIUM, "mime tree"},
	{ALL "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
	     "U3ViamVjdDogeA0KDQo=",
	 false, MEDIUM, "mime tree"},
	{ALL "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: x\r\n\r\nhi\r\n"
	     "--b--",
	 false, HIGH, NULL},
};

static void
test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(ROWS); i++) {
		const Row *r = &ROWS[i];
		MimeValidateOptions options = {.smtputf8 = r->utf8};
		print_message("# %zu %s\n", i, r->in);
		MimeVerdict v = judge(r->in, strlen(r->in), &options);
		assert_int_equal(v.status, r->want);
		assert_int_equal(v.counted, r->want != NONE);
		assert_int_equal(v.err == NULL, r->err == NULL);
		if (r->err != NULL)
			assert_int_equal(strncmp(v.err, r->err, strlen(r->err)), 0);
		mime_verdict_clear(&v);
	}
}

static void
test_limits(void **state)
{
	(void)state;
	MimeValidateOptions options = {0};
	for (unsigned extra = 0; extra < 2; extra++) {
		g_autoptr(GString) fields = g_string_new(ALL);
		for (unsigned i = 3; i < MIME_HEADER_FIELDS_MAX + extra; i++)
			g_string_append(fields, "Received: x\r\n");
		g_string_append(fields, "\r\n");
		MimeVerdict v = judge(fields->str, fields->len, &options);
		assert_int_equal(v.status, extra == 0 ? HIGH : NONE);
		if (extra == 0)
			assert_int_equal(v.received, MIME_HEADER_FIELDS_MAX - 3);
		else
			assert_string_equal(v.err, "too many header fields");
		mime_verdict_clear(&v);

		/* The block: its last byte at the cap, or behind it. */
		g_autoptr(GString) block = g_string_new(ALL);
		size_t want = MIME_HEADER_BLOCK_MAX + extra;
		while (block->len + 60000 + 4 < want) {
			g_string_append(block, "X:");
			for (unsigned i = 0; i < 50000; i++)
				g_string_append_c(block, 'y');
			g_string_append(block, "\r\n");
		}
		g_string_append(block, "Y:");
		while (block->len < want - 4)
			g_string_append_c(block, 'z');
		g_string_append(block, "\r\n\r\n");
		v = judge(block->str, block->len, &options);
		assert_int_equal(v.status, extra == 0 ? HIGH : NONE);
		mime_verdict_clear(&v);
	}
}

/* `levels` multiparts, each inside the other, around a text. */
static GString *
nested(unsigned levels)
{
	GString *s = g_string_new(ALL);
	for (unsigned i = 0; i < levels; i++)
		g_string_append_printf(
			s, "Content-Type: multipart/mixed; boundary=b%ux\r\n\r\n--b%ux\r\n", i, i);
	g_string_append(s, "\r\nhi");
	for (unsigned i = levels; i > 0; i--)
		g_string_append_printf(s, "\r\n--b%ux--", i - 1);
	g_string_append(s, "\r\n");
	return s;
}

static void
test_nesting(void **state)
{
	(void)state;
	for (unsigned max = 1; max <= MIME_NESTING_MAX; max += MIME_NESTING_MAX - 1) {
		for (unsigned extra = 0; extra < 2; extra++) {
			/* The root is at depth 0. */
			g_autoptr(GString) s = nested(max + 1 + extra);
			MimeValidateOptions options = {.nesting_max = max};
			MimeVerdict v = judge(s->str, s->len, &options);
			assert_int_equal(v.status, extra == 0 ? HIGH : MEDIUM);
			mime_verdict_clear(&v);
		}
	}
	g_autoptr(GString) bomb = nested(20000);
	MimeValidateOptions options = {0};
	MimeVerdict v = judge(bomb->str, bomb->len, &options);
	assert_int_equal(v.status, MEDIUM);
	mime_verdict_clear(&v);
}

static void
test_parts_limit(void **state)
{
	(void)state;
	for (unsigned extra = 0; extra < 2; extra++) {
		g_autoptr(GString)
			s = g_string_new(ALL "Content-Type: multipart/mixed; boundary=b\r\n\r\n");
		/* The root counts. */
		for (unsigned i = 1; i < MIME_PARTS_MAX + extra; i++)
			g_string_append(s, "--b\r\n\r\nx\r\n");
		g_string_append(s, "--b--\r\n");
		MimeValidateOptions options = {0};
		MimeVerdict v = judge(s->str, s->len, &options);
		assert_int_equal(v.status, extra == 0 ? HIGH : MEDIUM);
		mime_verdict_clear(&v);
	}
}

static void
test_boundary_limit(void **state)
{
	(void)state;
	for (unsigned extra = 0; extra < 2; extra++) {
		g_autofree char *b = g_strnfill(MIME_BOUNDARY_MAX + extra, 'b');
		g_autofree char *s = g_strdup_printf(
			ALL
			"Content-Type: multipart/mixed; boundary=%s\r\n\r\n--%s\r\n\r\nx\r\n--%s--",
			b, b, b);
		MimeValidateOptions options = {0};
		MimeVerdict v = judge(s, strlen(s), &options);
		assert_int_equal(v.status, extra == 0 ? HIGH : MEDIUM);
		mime_verdict_clear(&v);
	}
}

static void
test_from(void **state)
{
	(void)state;
	static const struct {
		const char *in, *want;
	} rows[] = {
		{ALL "\r\n", "a@b.c"},
		{"From: x@y.z\r\n\r\n", "x@y.z"},
		{"From: x@y.z, a@b\r\n\r\n", NULL},
		{"From: x@y\r\nFrom: x@y\r\n\r\n", NULL},
		{"To: x@y\r\n\r\n", NULL},
		{"no header", NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autoptr(Blob) blob = blob_new_bytes(rows[i].in, strlen(rows[i].in));
		g_autofree char *got = mime_from_address(blob);
		assert_int_equal(got == NULL, rows[i].want == NULL);
		if (got != NULL)
			assert_string_equal(got, rows[i].want);
	}
	MimeValidateOptions options = {0};
	MimeVerdict v = judge(ALL "\r\n", strlen(ALL) + 2, &options);
	assert_string_equal(v.from, "a@b.c");
	mime_verdict_clear(&v);
}

/* A body in a file, so that the reader works with its own window. */
static void
test_spilled(void **state)
{
	(void)state;
	BlobLimits limits = {.memory_max = 100};
	g_autoptr(Blob) blob = blob_new(&limits);
	const char *head = ALL "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n";
	assert_true(blob_append(blob, head, strlen(head), NULL));
	g_autofree char *line = g_strnfill(200001, 'x'); /* longer than the window */
	assert_true(blob_append(blob, line, 200001, NULL));
	assert_true(blob_append(blob, "\r\n--b--\r\n", 9, NULL));
	blob_finalize(blob);
	assert_null(blob_peek(blob, 0, &(size_t){0}));
	MimeVerdict v;
	MimeValidateOptions options = {0};
	assert_true(mime_validate(blob, &options, &v, NULL));
	assert_int_equal(v.status, HIGH);
	mime_verdict_clear(&v);
}

static void
test_samples(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		MimeValidity plain, utf8;
		unsigned received;
	} rows[] = {
		{"8bit_headers.msg", BASIC, BASIC, 1},
		{"ascii_ctl_headers.msg", BASIC, BASIC, 1},
		{"bad_cc.msg", MEDIUM, MEDIUM, 1},
		{"bad_date.msg", BASIC, BASIC, 0},
		{"bad_from.msg", BASIC, BASIC, 1},
		{"bad_headers.msg", NONE, NONE, 0},
		{"bad_multipart.msg", MEDIUM, MEDIUM, 0},
		{"dsn.msg", HIGH, HIGH, 3},
		{"dsn-text-rfc822-headers.msg", HIGH, HIGH, 3},
		{"missing_headers.msg", BASIC, BASIC, 1},
		{"multipart.msg", HIGH, HIGH, 0},
		{"multipart2.msg", MEDIUM, MEDIUM, 0},
		{"nested.msg", HIGH, HIGH, 0},
		{"related.msg", MEDIUM, MEDIUM, 0},
		{"trivial.msg", HIGH, HIGH, 1},
		{"unknown_content_type.msg", HIGH, HIGH, 0},
		{"utf8_headers.msg", BASIC, HIGH, 1},
		{"utf8_local_part.msg", BASIC, HIGH, 1},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		size_t len;
		g_autofree char *text = sample_read(rows[i].name, &len);
		if (text == NULL)
			skip();
		print_message("# %s\n", rows[i].name);
		for (int utf8 = 0; utf8 < 2; utf8++) {
			MimeValidateOptions options = {.smtputf8 = utf8 != 0};
			MimeVerdict v = judge(text, len, &options);
			assert_int_equal(v.status, utf8 ? rows[i].utf8 : rows[i].plain);
			assert_int_equal(v.received, rows[i].received);
			mime_verdict_clear(&v);
		}
	}
}

int
main(void)
{
	mime_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),           cmocka_unit_test(test_limits),
		cmocka_unit_test(test_nesting),        cmocka_unit_test(test_parts_limit),
		cmocka_unit_test(test_boundary_limit), cmocka_unit_test(test_from),
		cmocka_unit_test(test_spilled),        cmocka_unit_test(test_samples),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
