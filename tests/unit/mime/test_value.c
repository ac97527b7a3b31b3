/* SPDX-License-Identifier: Apache-2.0 */
/* Dates, addresses, message ids, parameters, base64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "mime/addr.h"
#include "mime/base64.h"
#include "mime/date.h"
#include "mime/mime.h"
#include "mime/value.h"

static void
test_date_parse(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		bool ok;
		int64_t secs;
		int offset;
	} rows[] = {
		{"Wed, 06 Mar 2024 10:42:31 -0800", true, 1709750551, -28800},
		{"Wed, 6 Mar 2024 10:42:31 -0800 (PST)", true, 1709750551, -28800},
		{"(a (b)) Wed , 6 (c) Mar 2024 10:42:31 (d) -0800", true, 1709750551, -28800},
		{"6 Mar 2024 10:42:31 PST", true, 1709750551, -28800},
		{"Mon, 06 Mar 2024 10:42:31 -0800", true, 1709750551, -28800}, /* wrong day */
		{"Fri, 13 Feb 2009 23:31:30 +0000", true, 1234567890, 0},
		{"13 Feb 2009 23:31:30", true, 1234567890, 0},
		{"13 Feb 09 23:31:30 GMT", true, 1234567890, 0},
		{"13 Feb 109 23:31:30 Z", true, 1234567890, 0},
		{"13 Feb 99 00:00 UT", true, 918864000, 0},
		{"13-Feb-2009 23:31:30 XYZ", true, 1234567890, 0},
		{"Fri Feb 13 23:31:30 2009", true, 1234567890, 0},
		{"Feb 13 2009 23:31:30 +0000", true, 1234567890, 0},
		{"13 February 2009 23.31.30 +0000", true, 1234567890, 0},
		{"13 Feb 2009 23:31:30.5 +0000", true, 1234567890, 0},
		{"14 Feb 2009 00:31:30 +0100", true, 1234567890, 3600},
		{"29 Feb 2024 00:00:00 +0000", true, 1709164800, 0},
		{"31 Dec 2016 23:59:60 +0000", true, 1483228800, 0},
		{"1 Jan 1960 00:00:00 +0000", true, -315619200, 0},
		{"29 Feb 2023 00:00:00 +0000", false, 0, 0},
		{"31 Apr 2024 00:00:00 +0000", false, 0, 0},
		{"0 Mar 2024 00:00:00 +0000", false, 0, 0},
		{"6 Mar 2024 24:00:00 +0000", false, 0, 0},
		{"6 Mar 2024 10:60:00 +0000", false, 0, 0},
		{"6 Mar 2024 10:00:61 +0000", false, 0, 0},
		{"6 Mar 2024 10:00:00 +9900", false, 0, 0},
		{"6 Mar 2024", false, 0, 0},
		{"6 Mrz 2024 10:00:00", false, 0, 0},
		{"today", false, 0, 0},
		{"", false, 0, 0},
		{"(", false, 0, 0},
		{"6 Mar 99999 10:00:00", false, 0, 0},
		{"-6 Mar 2024 10:00:00", false, 0, 0},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		MimeDate d = {0};
		print_message("# %s\n", rows[i].in);
		assert_int_equal(mime_date_parse(rows[i].in, &d), rows[i].ok);
		assert_int_equal(d.unix_secs, rows[i].secs);
		assert_int_equal(d.tz_offset, rows[i].offset);
	}
}

static void
test_date_format(void **state)
{
	(void)state;
	static const struct {
		MimeDate in;
		const char *want; /* NULL: refused */
	} rows[] = {
		{{1709750551, -28800}, "Wed, 06 Mar 2024 10:42:31 -0800"},
		{{1234567890, 0}, "Fri, 13 Feb 2009 23:31:30 +0000"},
		{{1234567890, 20700}, "Sat, 14 Feb 2009 05:16:30 +0545"},
		{{0, 0}, "Thu, 01 Jan 1970 00:00:00 +0000"},
		{{-1, 0}, "Wed, 31 Dec 1969 23:59:59 +0000"},
		{{1709164799, 0}, "Wed, 28 Feb 2024 23:59:59 +0000"},
		{{1709164800, 0}, "Thu, 29 Feb 2024 00:00:00 +0000"},
		{{253402214399, 0}, "Thu, 30 Dec 9999 23:59:59 +0000"},
		{{253402214400, 0}, NULL},
		{{INT64_MAX, 0}, NULL},
		{{INT64_MIN, 0}, NULL},
		{{0, 86400}, NULL},
		{{0, 86340}, "Thu, 01 Jan 1970 23:59:00 +2359"},
		{{0, 30}, NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		char out[MIME_DATE_MAX];
		bool ok = mime_date_format(&rows[i].in, out);
		assert_int_equal(ok, rows[i].want != NULL);
		if (!ok)
			continue;
		assert_string_equal(out, rows[i].want);
		MimeDate back;
		assert_true(mime_date_parse(out, &back));
		assert_int_equal(back.unix_secs, rows[i].in.unix_secs);
		assert_int_equal(back.tz_offset, rows[i].in.tz_offset);
	}
}

static void
test_addrs(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		bool ok;
		const char *want; /* name|addr;name|addr */
	} rows[] = {
		{"a@b", true, "|a@b;"},
		{"<a@b>", true, "|a@b;"},
		{"\"alice a\" <alice@example.com>", true, "alice a|alice@example.com;"},
		{"alice a <alice@example.com> (c)", true, "alice a|alice@example.com;"},
		{"\"a \\\"q\\\" b\" <a@b>", true, "a \"q\" b|a@b;"},
		{"a@b, c <d@e>", true, "|a@b;c|d@e;"},
		{"\"x y\"@b", true, "|\"x y\"@b;"},
		{"a@[192.0.2.1]", true, "|a@[192.0.2.1];"},
		{"g: a@b, c@d;", true, "|a@b;|c@d;"},
		{"undisclosed-recipients:;", true, ""},
		{"g:; , a@b", true, "|a@b;"},
		{"", true, ""},
		{"(just a comment)", true, ""},
		{"=?utf-8?q?x?= <a@b>", true, "=?utf-8?q?x?=|a@b;"},
		{"\xc3\xa4@b", true, "|\xc3\xa4@b;"},
		{"a", false, ""},
		{"<>", false, ""},
		{"<a>", false, ""},
		{"<a@b", false, ""},
		{"\"bob b\" <bob@ex", false, ""},
		{"j. doe <a@b>", false, "j. doe|a@b;"},
		{"<@r:a@b>", false, ""},
		{"a@b c@d", false, "|a@b;"},
		{"a@b,,c@d", false, "|a@b;|c@d;"},
		{"a@b,", true, "|a@b;"},
		{"a (x) @ b", true, "|a@b;"},
		{"c <a @ b>", true, "c|a@b;"},
		{",a@b", false, "|a@b;"},
		{"a..b@c", false, ""},
		{"a@b.", false, ""},
		{"a@b@c", false, "|a@b;"},
		{"a@b; c@d", false, "|a@b;|c@d;"},
		{"g: a@b", false, "|a@b;"},
		{"g: h: a@b;;", false, "|a@b;"},
		{"\"x", false, ""},
		{"(x", false, ""},
		{"<<a@b>>", false, ""},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		MimeAddrs a;
		print_message("# %s\n", rows[i].in);
		mime_addrs_parse(rows[i].in, &a);
		g_autoptr(GString) got = g_string_new(NULL);
		for (guint j = 0; j < a.list->len; j++) {
			const MimeAddr *m = g_ptr_array_index(a.list, j);
			g_string_append_printf(got, "%s|%s;", m->name, m->addr);
		}
		assert_string_equal(got->str, rows[i].want);
		assert_int_equal(a.fault == NULL, rows[i].ok);
		mime_addrs_clear(&a);
	}
}

static void
test_addrs_limit(void **state)
{
	(void)state;
	for (unsigned extra = 0; extra < 2; extra++) {
		g_autoptr(GString) s = g_string_new("a@b");
		for (unsigned i = 1; i < MIME_ADDRS_MAX + extra; i++)
			g_string_append(s, ",a@b");
		MimeAddrs a;
		mime_addrs_parse(s->str, &a);
		assert_int_equal(a.list->len, MIME_ADDRS_MAX);
		assert_int_equal(a.fault == NULL, extra == 0);
		mime_addrs_clear(&a);
	}
}

static void
test_msg_id(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		bool ok;
	} rows[] = {
		{"<a@b>", true},    {" <a.b+c@d.e> ", true},
		{"<a@[x]>", true},  {"(c)<a@b>(d)", true},
		{"a@b", false},     {"<a>", false},
		{"<@b>", false},    {"<a@>", false},
		{"<a@b> c", false}, {"<a@b", false},
		{"", false},        {"<a@b><c@d>", false},
		{"<a@b@c>", false}, {"<a b@c>", false},
		{"<a.@b>", false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
		assert_int_equal(mime_msg_id_fault(rows[i].in) == NULL, rows[i].ok);
}

static void
test_value(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		bool slash, ok;
		const char *want; /* value;name=value */
	} rows[] = {
		{"text/plain", true, true, "text/plain"},
		{"TEXT/Plain; Charset=UTF-8", true, true, "text/plain;charset=UTF-8"},
		{"text/plain (c) ; (d) a = (e) b (f)", true, true, "text/plain;a=b"},
		{"a/b; c=\"x \\\"y\\\"; z\"", true, true, "a/b;c=x \"y\"; z"},
		{"a/b;", true, true, "a/b"},
		{"a/b; f*=utf-8''%c3%a4%20x", true, true, "a/b;f=\xc3\xa4 x"},
		{"a/b; f*0=\"x \"; f*1=y; g=1", true, true, "a/b;f=x y;g=1"},
		{"a/b; f*1=y; f*0=x", true, true, "a/b;f=xy"},
		{"a/b; f*0*=utf-8''%c3; f*1*=%a4", true, true, "a/b;f=\xc3\xa4"},
		{"a/b; f*=iso-8859-1''%e4", true, true, "a/b;f=\xc3\xa4"},
		{"a/b; f=\"=?utf-8?q?=C3=A4?=\"", true, true, "a/b;f=\xc3\xa4"},
		{"a/b; f*=utf-8''a%00b", true, true, "a/b;f=a b"},
		{"text / plain; a=b", true, true, "text/plain;a=b"},
		{"a/b; x=1; x=2", true, false, "a/b;x=1"},
		{"a/ b/c; x=1", true, false, ";x=1"},
		{"attachment; filename=x", false, true, "attachment;filename=x"},
		{"a", true, false, ""},
		{"a/", true, false, ""},
		{"/b", true, false, ""},
		{"a/b/c", true, false, ""},
		{"", false, false, ""},
		{"a/b c", true, false, "a/b"},
		{"a/b; c", true, false, "a/b"},
		{"a/b; =d; e=f", true, false, "a/b;e=f"},
		{"a/b; c=", true, false, "a/b;c="},
		{"a/b; c=\"d", true, false, "a/b;c=d"},
		{"a/b; c=d@e", true, false, "a/b;c=d@e"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		MimeValue v;
		print_message("# %s\n", rows[i].in);
		mime_value_parse(rows[i].in, rows[i].slash, &v);
		g_autoptr(GString) got = g_string_new(v.value);
		for (guint j = 0; j < v.params->len; j++) {
			const MimeParam *p = g_ptr_array_index(v.params, j);
			g_string_append_printf(got, ";%s=%s", p->name, p->value);
		}
		assert_string_equal(got->str, rows[i].want);
		assert_int_equal(v.fault == NULL, rows[i].ok);
		mime_value_clear(&v);
	}
}

static void
test_params_limit(void **state)
{
	(void)state;
	for (unsigned extra = 0; extra < 2; extra++) {
		g_autoptr(GString) s = g_string_new("a/b");
		for (unsigned i = 0; i < MIME_PARAMS_MAX + extra; i++)
			g_string_append_printf(s, "; p%u=1", i);
		MimeValue v;
		mime_value_parse(s->str, true, &v);
		assert_int_equal(v.params->len, MIME_PARAMS_MAX);
		assert_int_equal(v.fault == NULL, extra == 0);
		mime_value_clear(&v);
	}
}

static void
test_decode_text(void **state)
{
	(void)state;
	static const struct {
		const char *in, *want;
	} rows[] = {
		{"hello", "hello"},
		{"=?utf-8?B?w6Q=?= x", "\xc3\xa4 x"},
		{"=?utf-8?q?a?= =?utf-8?q?b?=", "ab"},
		{"=?iso-8859-1?q?=E4?=", "\xc3\xa4"},
		{"=?broken", "=?broken"},
		{"\xc3\xa4", "\xc3\xa4"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree char *got = mime_decode_text(rows[i].in);
		assert_string_equal(got, rows[i].want);
	}
	g_autofree char *fixed = mime_decode_text("a\xff"
						  "b");
	assert_true(g_utf8_validate(fixed, -1, NULL));
}

static void
test_base64(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		bool ok;
		const char *want;
	} rows[] = {
		{"", true, ""},
		{"aGVsbG8=", true, "hello"},
		{"aGVs\r\nbG8=\r\n", true, "hello"},
		{"aGVsbG8h", true, "hello!"},
		{"aGVsbA==", true, "hell"},
		{"aGVsbA=", false, "hell"},
		{"aGVsbA", false, "hell"},
		{"aGVs bG8=", false, "hello"},
		{"aGVsbG8=x", false, "hello"},
		{"aGVsbG8===", false, "hello"},
		{"aGV$sbG8=", false, "hello"},
		{"a", false, ""},
		{"aGVsbA==--xxx", false, "hell"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		/* In one go and byte by byte. */
		for (size_t step = 1; step <= 64; step *= 64) {
			MimeBase64Check check = {0};
			MimeBase64Decode decode = {0};
			char out[64];
			size_t n = 0;
			size_t len = strlen(rows[i].in);
			bool ok = true;
			for (size_t at = 0; at < len; at += step) {
				size_t take = MIN(step, len - at);
				ok = ok && mime_base64_check(&check, rows[i].in + at, take);
				n += mime_base64_decode(&decode, rows[i].in + at, take, out + n);
			}
			assert_int_equal(ok && mime_base64_check_end(&check), rows[i].ok);
			assert_int_equal(n, strlen(rows[i].want));
			assert_memory_equal(out, rows[i].want, n);
		}
	}
	char line[80];
	assert_int_equal(mime_base64_line("hello", 5, line), 8);
	assert_memory_equal(line, "aGVsbG8=", 8);
}

int
main(void)
{
	mime_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_date_parse),   cmocka_unit_test(test_date_format),
		cmocka_unit_test(test_addrs),        cmocka_unit_test(test_addrs_limit),
		cmocka_unit_test(test_msg_id),       cmocka_unit_test(test_value),
		cmocka_unit_test(test_params_limit), cmocka_unit_test(test_decode_text),
		cmocka_unit_test(test_base64),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
