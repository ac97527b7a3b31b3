/* SPDX-License-Identifier: Apache-2.0 */
/* Text, addresses and JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "base/net.h"
#include "base/text.h"

/* ---- text ---- */

static void
test_parse_u64(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		uint64_t max;
		bool fine;
		uint64_t want;
	} cases[] = {
		{"0", 0, true, 0},
		{"1", 0, false, 0},
		{"65535", 65535, true, 65535},
		{"65536", 65535, false, 0},
		{"007", 10, true, 7},
		{"18446744073709551615", UINT64_MAX, true, UINT64_MAX},
		{"18446744073709551616", UINT64_MAX, false, 0},
		{"99999999999999999999", UINT64_MAX, false, 0},
		{"", 10, false, 0},
		{"-1", 10, false, 0},
		{"+1", 10, false, 0},
		{" 1", 10, false, 0},
		{"1 ", 10, false, 0},
		{"0x1", 10, false, 0},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		uint64_t value = 77;
		assert_int_equal(
			text_parse_u64(cases[i].text, strlen(cases[i].text), cases[i].max, &value),
			cases[i].fine);
		assert_int_equal(value, cases[i].fine ? cases[i].want : 77);
	}
	uint64_t value;
	assert_false(text_parse_u64("1\0", 2, 10, &value));
	assert_true(text_parse_u64("12", 1, 10, &value));
	assert_int_equal(value, 1);
}

static void
test_compare(void **state)
{
	(void)state;
	assert_true(text_equal_nocase("MAIL", "mail"));
	assert_false(text_equal_nocase("MAIL", "mails"));
	assert_false(text_equal_nocase("\xc3\x84", "\xc3\xa4")); /* ASCII only */
	assert_true(text_equal_nocase(NULL, NULL));
	assert_false(text_equal_nocase(NULL, ""));
	assert_true(text_has_prefix_nocase("Content-Type", "content-"));
	assert_true(text_has_prefix_nocase("a", ""));
	assert_false(text_has_prefix_nocase("con", "content-"));
	assert_true(text_has_suffix_nocase("a.Example.ORG", ".example.org"));
	assert_true(text_has_suffix_nocase("a", ""));
	assert_false(text_has_suffix_nocase("org", ".example.org"));
	assert_true(text_is_printable_ascii(" ~", 2));
	assert_true(text_is_printable_ascii("", 0));
	assert_false(text_is_printable_ascii("a\x7f", 2));
	assert_false(text_is_printable_ascii("a\0", 2));
	assert_false(text_is_printable_ascii("\xc3\xa4", 2));
}

static void
test_escape(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		size_t len;
		size_t max;
		const char *want;
	} cases[] = {
		{"plain", 5, 100, "plain"},
		{"", 0, 100, ""},
		{"a\r\nb", 4, 100, "a\\x0d\\x0ab"},
		{"a\0b", 3, 100, "a\\x00b"},
		{"\x1b[31m\x7f", 6, 100, "\\x1b[31m\\x7f"},
		{"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9, 100,
		 "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
		{"\xc2\x9b"
		 "31m",
		 5, 100, "\\xc2\\x9b31m"}, /* the 8-bit CSI */
		{"\xff\xfe", 2, 100, "\\xff\\xfe"},
		{"\xc3", 1, 100, "\\xc3"},                   /* cut */
		{"\xc0\xaf", 2, 100, "\\xc0\\xaf"},          /* overlong */
		{"\xed\xa0\x80", 3, 100, "\\xed\\xa0\\x80"}, /* surrogate */
		{"12345", 5, 5, "12345"},
		{"123456", 6, 5, "12345..."},
		{"1\xc3\xa4", 3, 2, "1..."}, /* not inside a character */
		{"12\n", 3, 5, "12..."},
		{"a", 1, 0, "..."},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *in = g_memdup2(cases[i].in, cases[i].len);
		g_autofree char *got = text_escape(in, cases[i].len, cases[i].max);
		assert_string_equal(got, cases[i].want);
	}
}

static void
test_base64url(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		const char *want;
	} cases[] = {
		{"", ""}, {"f", "Zg"}, {"fo", "Zm8"}, {"foo", "Zm9v"}, {"\xfb\xff\xfe", "-__-"}};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *got = text_base64url(cases[i].in, strlen(cases[i].in));
		assert_string_equal(got, cases[i].want);
	}
}

static void
test_distance(void **state)
{
	(void)state;
	static const struct {
		const char *a;
		const char *b;
		unsigned max;
		unsigned want;
	} cases[] = {
		{"", "", 3, 0},
		{"a", "", 3, 1},
		{"abc", "abc", 0, 0},
		{"abc", "abd", 0, 1},
		{"listen", "lsiten", 3, 1},
		{"ca", "abc", 3, 3},
		{"kitten", "sitting", 3, 3},
		{"kitten", "sitting", 2, 3},
		{"a", "bcdefgh", 3, 4},
		{"abcd", "badc", 2, 2},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		assert_int_equal(text_distance(cases[i].a, cases[i].b, cases[i].max),
				 cases[i].want);
		assert_int_equal(text_distance(cases[i].b, cases[i].a, cases[i].max),
				 cases[i].want);
	}
	static const char *const keys[] = {"listener", "timeout", "max_size", "ehlo"};
	static const struct {
		const char *word;
		const char *want;
	} near[] = {
		{"listner", "listener"}, {"timeuot", "timeout"},
		{"maxsize", "max_size"}, {"helo", "ehlo"},
		{"xxxx", NULL},          {"e", NULL},
		{"timeoutxxxx", NULL},   {"", NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(near); i++) {
		const char *got = text_nearest(near[i].word, keys, G_N_ELEMENTS(keys));
		if (near[i].want == NULL)
			assert_null(got);
		else
			assert_string_equal(got, near[i].want);
	}
}

/* ---- net ---- */

static void
test_host_port(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		const char *host; /* NULL: refused */
		unsigned port;
	} cases[] = {
		{"localhost:25", "localhost", 25},
		{"192.0.2.1:65535", "192.0.2.1", 65535},
		{"192.0.2.1:65536", NULL, 0},
		{"[::1]:25", "::1", 25},
		{"[2001:db8::1]:0", "2001:db8::1", 0},
		{":8000", "", 8000},
		{"8000", "", 8000},
		{"*:25", "*", 25},
		{"::1", NULL, 0},
		{"::1:25", NULL, 0},
		{"[::1]", NULL, 0},
		{"[::1]25", NULL, 0},
		{"[]:25", NULL, 0},
		{"[localhost]:25", NULL, 0},
		{"[::1:25", NULL, 0},
		{"::1]:25", NULL, 0},
		{"localhost", NULL, 0},
		{"localhost:", NULL, 0},
		{"localhost:-1", NULL, 0},
		{"localhost:25 ", NULL, 0},
		{"local host:25", NULL, 0},
		{"http://localhost:25", NULL, 0},
		{"", NULL, 0},
		{":", NULL, 0},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(HostPort) hp = NULL;
		bool fine = host_port_parse(cases[i].text, &hp);
		if (fine != (cases[i].host != NULL))
			fail_msg("%s", cases[i].text);
		if (!fine)
			continue;
		assert_string_equal(hp->host, cases[i].host);
		assert_int_equal(hp->port, cases[i].port);
		HostPort *copy = host_port_copy(hp);
		assert_true(host_port_equal(hp, copy));
		host_port_free(copy);
		assert_string_equal(hp->host, cases[i].host); /* still there */
		g_autoptr(HostPort) other = host_port_new(hp->host, (uint16_t)(hp->port + 1));
		assert_false(host_port_equal(hp, other));
	}
	g_autoptr(HostPort) a = host_port_new("MX.example.org", 25);
	g_autoptr(HostPort) b = host_port_new("mx.example.ORG", 25);
	assert_true(host_port_equal(a, b));
	assert_false(host_port_equal(a, NULL));
	assert_true(host_port_equal(NULL, NULL));
	assert_null(host_port_copy(NULL));
	host_port_free(NULL);
}

static void
test_addr(void **state)
{
	(void)state;
	static const struct {
		const char *literal;
		const char *shown; /* NULL: none */
		const char *reverse;
		bool loopback;
	} cases[] = {
		{"192.0.2.1", "192.0.2.1", "1.2.0.192.in-addr.arpa", false},
		{"127.8.9.1", "127.8.9.1", "1.9.8.127.in-addr.arpa", true},
		{"::1", "::1",
		 "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa", true},
		{"2001:DB8:0::a5", "2001:db8::a5",
		 "5.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", false},
		{"::ffff:127.0.0.1", "127.0.0.1", "1.0.0.127.in-addr.arpa", true},
		{"::", "::",
		 "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa", false},
		{"127.1", NULL, NULL, false},
		{"192.0.2.256", NULL, NULL, false},
		{"192.0.2.1.", NULL, NULL, false},
		{"[::1]", NULL, NULL, false},
		{"fe80::1%lo", NULL, NULL, false},
		{"localhost", NULL, NULL, false},
		{"", NULL, NULL, false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		const char *literal = cases[i].literal;
		NetAddr addr;
		bool fine = net_addr_parse(literal, 2525, &addr);
		assert_int_equal(fine, cases[i].shown != NULL);
		assert_int_equal(net_is_literal(literal), fine);
		assert_int_equal(net_is_loopback(literal), cases[i].loopback);
		g_autofree char *reverse = net_reverse_name(literal);
		if (!fine) {
			assert_null(reverse);
			continue;
		}
		assert_string_equal(reverse, cases[i].reverse);
		char text[NET_ADDR_TEXT_MAX];
		net_addr_format(&addr, text);
		assert_string_equal(text, cases[i].shown);
		assert_int_equal(net_addr_port(&addr), 2525);
		NetAddr copy;
		net_addr_from_sockaddr((struct sockaddr *)&addr.storage, addr.len, &copy);
		g_autoptr(HostPort) hp = net_addr_host_port(&copy);
		assert_string_equal(hp->host, cases[i].shown);
		assert_int_equal(hp->port, 2525);
	}
	NetAddr none = {0};
	char text[NET_ADDR_TEXT_MAX];
	net_addr_format(&none, text);
	assert_string_equal(text, "");
	assert_int_equal(net_addr_port(&none), 0);
}

static void
test_cidr(void **state)
{
	(void)state;
	static const struct {
		const char *cidr;
		const char *literal; /* NULL: the cidr does not parse */
		bool inside;
	} cases[] = {
		{"192.0.2.0/24", "192.0.2.255", true},
		{"192.0.2.0/24", "192.0.3.0", false},
		{"192.0.2.77/24", "192.0.2.1", true}, /* host bits do not matter */
		{"192.0.2.0/25", "192.0.2.128", false},
		{"192.0.2.0/31", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1/32", "192.0.2.0", false},
		{"0.0.0.0/0", "255.1.2.3", true},
		{"0.0.0.0/0", "::1", false},
		{"2001:db8::/32", "2001:db8:ffff::1", true},
		{"2001:db8::/33", "2001:db8:8000::1", false},
		{"::1", "::1", true},
		{"::/0", "192.0.2.1", false},
		{"10.0.0.0/8", "::ffff:10.1.2.3", true},
		{"::ffff:10.0.0.0/104", "10.1.2.3", true},
		{"::ffff:10.0.0.0/95", NULL, false},
		{"192.0.2.0/24", "nonsense", false},
		{"192.0.2.0/33", NULL, false},
		{"2001:db8::/129", NULL, false},
		{"192.0.2.0/", NULL, false},
		{"192.0.2.0/-1", NULL, false},
		{"192.0.2.0/8/8", NULL, false},
		{"192.0.2/24", NULL, false},
		{"/24", NULL, false},
		{"", NULL, false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		NetCidr cidr;
		bool fine = net_cidr_parse(cases[i].cidr, &cidr);
		if (fine != (cases[i].literal != NULL))
			fail_msg("%s", cases[i].cidr);
		if (fine && net_cidr_contains(&cidr, cases[i].literal) != cases[i].inside)
			fail_msg("%s in %s", cases[i].literal, cases[i].cidr);
	}
}

/* ---- json ---- */

static void
test_json(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		const char *want; /* printed, or the start of the error after "t: " */
		bool fine;
	} cases[] = {
		{"{\"b\": 1, \"a\": [true, null, 1.5]}", "{\"b\":1,\"a\":[true,null,1.5]}", true},
		{" \"x\" ", "\"x\"", true},
		{"7", "7", true},
		{"{\"u\":\"\\u00e4/\"}", "{\"u\":\"\xc3\xa4/\"}", true},
		{"{\"a\":1,\"a\":2}", "line 1 column ", false},
		{"{\n\"a\":1,\n}", "line 3 column 1: ", false},
		{"", "line 1 column 0: ", false},
		{"{}x", "line 1 column 3: ", false},
		{"{\"a\":NaN}", "line 1 ", false},
		{"{'a':1}", "line 1 ", false},
		{"[01]", "line 1 ", false},
		{"[\"\xff\"]", "line 1 ", false},
		{"[\"\\ud800\"]", "line 1 ", false},
		{"[\"\\u0000\"]", "line 1 ", false},
		{"[\"a\tb\"]", "line 1 ", false},
		{"[99999999999999999999]", "line 1 ", false},
		{"\xef\xbb\xbf{}", "line 1 ", false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) trouble = NULL;
		g_autofree char *in = g_memdup2(cases[i].text, strlen(cases[i].text));
		g_autoptr(json_t) value = json_parse("t", in, strlen(cases[i].text), &trouble);
		if ((value != NULL) != cases[i].fine)
			fail_msg("%s", cases[i].text);
		if (value != NULL) {
			assert_null(trouble);
			g_autofree char *got = json_print(value);
			assert_string_equal(got, cases[i].want);
			continue;
		}
		assert_true(g_error_matches(trouble, K_ERROR, K_ERROR_INPUT));
		g_autofree char *start = g_strdup_printf("t: %s", cases[i].want);
		if (!g_str_has_prefix(trouble->message, start))
			fail_msg("%s: %s", cases[i].text, trouble->message);
	}
	/* A NUL in the text is no end of it. */
	assert_null(json_parse("t", "{}\0", 3, NULL));
}

/* What is printed is what the library would have printed, byte for byte. */
static void
test_json_print(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"{}",
		"[]",
		"[[],{},\"\",0,-0,null,true,false]",
		"{\"\":{\"a b\":[{\"c\\u0001\\\"\":[]}]}}",
		"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f\\u0080\\u2028\\ud83d\\ude00\"",
		"\"plain, then \\n\\n and the end\\u0000\"",
		"[9223372036854775807,-9223372036854775808,-1,10,100,1234567890]",
		"[0.5,-1e300,1e-300,1.0,0.1,123456789.125,5e-324,1.7976931348623157e308]",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
		g_autoptr(json_t) value = json_loads(
			texts[i], JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
		assert_non_null(value);
		g_autofree char *want = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
		g_autofree char *got = json_print(value);
		assert_string_equal(got, want);
	}
	g_autofree char *keys = g_strnfill(5000, 'k');
	g_autoptr(json_t) deep = json_pack("{s:{s:s}}", keys, keys, keys);
	g_autofree char *want = json_dumps(deep, JSON_COMPACT);
	g_autofree char *got = json_print(deep);
	assert_string_equal(got, want);
}

static void
test_json_depth(void **state)
{
	(void)state;
	static const struct {
		size_t depth;
		bool fine;
	} cases[] = {{JSON_DEPTH_MAX, true}, {JSON_DEPTH_MAX + 1, false}, {1000000, false}};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		size_t depth = cases[i].depth;
		g_autofree char *text = g_malloc(2 * depth);
		memset(text, '[', depth);
		memset(text + depth, ']', depth);
		g_autoptr(GError) trouble = NULL;
		g_autoptr(json_t) value = json_parse("t", text, 2 * depth, &trouble);
		assert_int_equal(value != NULL, cases[i].fine);
		if (!cases[i].fine)
			assert_string_equal(trouble->message,
					    "t: line 1 column 65: nested deeper than 64");
	}
	/* Brackets in strings do not count; closed ones neither. */
	GString *text = g_string_new("[\"\\\"");
	for (int i = 0; i < 100; i++)
		g_string_append(text, "[{");
	g_string_append(text, "\\\\\"");
	for (int i = 0; i < 100; i++)
		g_string_append(text, ",[{}]");
	g_string_append(text, "]");
	g_autoptr(json_t) value = json_parse("t", text->str, text->len, NULL);
	assert_non_null(value);
	g_string_free(text, TRUE);
	g_autoptr(GError) trouble = NULL;
	assert_null(json_parse_file("/nonexistent/file", &trouble));
	assert_true(g_error_matches(trouble, K_ERROR, K_ERROR_IO));
}

static void
test_json_get(void **state)
{
	(void)state;
	g_autoptr(json_t) value = json_parse("t", "{\"a\":\"x\",\"n\":1}", 15, NULL);
	assert_string_equal(json_get_str(value, "a"), "x");
	assert_null(json_get_str(value, "n"));
	assert_null(json_get_str(value, "none"));
	assert_null(json_get_str(NULL, "a"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_u64),  cmocka_unit_test(test_compare),
		cmocka_unit_test(test_escape),     cmocka_unit_test(test_base64url),
		cmocka_unit_test(test_distance),   cmocka_unit_test(test_host_port),
		cmocka_unit_test(test_addr),       cmocka_unit_test(test_cidr),
		cmocka_unit_test(test_json),       cmocka_unit_test(test_json_print),
		cmocka_unit_test(test_json_depth), cmocka_unit_test(test_json_get),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
