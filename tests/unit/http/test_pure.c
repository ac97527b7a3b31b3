/* SPDX-License-Identifier: Apache-2.0 */
/* Routes, percent-decoding, joined URLs and the look at request heads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <string.h>

#include "http/framing.h"
#include "http/route.h"

enum { CREATE = 1, READ, UPDATE, BODY, BLOB };

static const HttpRoute ROUTES[] = {
	{"POST", "/senders/*/transactions", CREATE}, {"GET", "/transactions/*", READ},
	{"PATCH", "/transactions/*", UPDATE},        {"PUT", "/transactions/*/body", BODY},
	{"PUT", "/transactions/*/blob/**", BLOB},
};

static void
test_routes(void **state)
{
	(void)state;
	static const struct {
		const char *method, *path;
		HttpRouteResult want;
		int id;
		const char *first, *second, *allow;
	} CASES[] = {
		{"POST", "/senders/in/transactions", HTTP_ROUTE_FOUND, CREATE, "in", NULL, NULL},
		{"GET", "/transactions/abc", HTTP_ROUTE_FOUND, READ, "abc", NULL, NULL},
		{"PATCH", "/transactions/abc", HTTP_ROUTE_FOUND, UPDATE, "abc", NULL, NULL},
		{"PUT", "/transactions/abc/body", HTTP_ROUTE_FOUND, BODY, "abc", NULL, NULL},
		{"PUT", "/transactions/abc/blob/x", HTTP_ROUTE_FOUND, BLOB, "abc", "x", NULL},
		{"PUT", "/transactions/abc/blob/x/y", HTTP_ROUTE_FOUND, BLOB, "abc", "x/y", NULL},
		{"DELETE", "/transactions/abc", HTTP_ROUTE_NO_METHOD, 0, NULL, NULL, "GET, PATCH"},
		{"get", "/transactions/abc", HTTP_ROUTE_NO_METHOD, 0, NULL, NULL, "GET, PATCH"},
		{"GET", "/transactions/abc/body", HTTP_ROUTE_NO_METHOD, 0, NULL, NULL, "PUT"},
		{"PUT", "/transactions/abc/blob/", HTTP_ROUTE_NO_PATH, 0, NULL, NULL, NULL},
		{"PUT", "/transactions/abc/blob", HTTP_ROUTE_NO_PATH, 0, NULL, NULL, NULL},
		{"GET", "/transactions/", HTTP_ROUTE_NO_PATH, 0, NULL, NULL, NULL},
		{"GET", "/transactions", HTTP_ROUTE_NO_PATH, 0, NULL, NULL, NULL},
		{"GET", "/transactions/abc/", HTTP_ROUTE_NO_PATH, 0, NULL, NULL, NULL},
		{"GET", "//transactions/abc", HTTP_ROUTE_NO_PATH, 0, NULL, NULL, NULL},
		{"GET", "/", HTTP_ROUTE_NO_PATH, 0, NULL, NULL, NULL},
		{"GET", "/Transactions/abc", HTTP_ROUTE_NO_PATH, 0, NULL, NULL, NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		HttpMatch match;
		HttpRouteResult got = http_route_find(ROUTES, G_N_ELEMENTS(ROUTES), CASES[i].method,
						      CASES[i].path, &match);
		if (got != CASES[i].want)
			fail_msg("%s %s: %d", CASES[i].method, CASES[i].path, (int)got);
		if (CASES[i].allow != NULL)
			assert_string_equal(match.allow, CASES[i].allow);
		if (got != HTTP_ROUTE_FOUND)
			continue;
		assert_int_equal(match.id, CASES[i].id);
		g_autofree char *first = g_strndup(match.parts[0].text, match.parts[0].len);
		assert_string_equal(first, CASES[i].first);
		assert_int_equal(match.n_parts, CASES[i].second != NULL ? 2 : 1);
		if (CASES[i].second != NULL)
			assert_string_equal(match.parts[1].text, CASES[i].second);
	}
}

static void
test_percent(void **state)
{
	(void)state;
	static const struct {
		const char *in, *want; /* NULL: refused */
	} CASES[] = {
		{"/a", "/a"},
		{"/a%20b", "/a b"},
		{"/%41%7a", "/Az"},
		{"/%2F", "//"},
		{"/%c3%a9", "/\xc3\xa9"},
		{"/%", NULL},
		{"/%4", NULL},
		{"/%zz", NULL},
		{"/%00", NULL},
		{"/%0a", NULL},
		{"/%7f", NULL},
		{"/%c3", NULL},
		{"/%25%34", "/%4"},
		{"", ""},
		{"/a+b", "/a+b"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autofree char *got = NULL;
		bool ok = http_percent_decode(CASES[i].in, strlen(CASES[i].in), &got);
		if (ok != (CASES[i].want != NULL))
			fail_msg("%s: %d", CASES[i].in, ok);
		if (ok)
			assert_string_equal(got, CASES[i].want);
	}
}

static void
test_join(void **state)
{
	(void)state;
	static const char *const CASES[][2] = {
		{"http://h:8000", "http://h:8000/t/1"},
		{"http://h:8000/", "http://h:8000/t/1"},
		{"https://h/base/path", "https://h/t/1"},
		{"http://[::1]:80?x", "http://[::1]:80/t/1"},
		{"h", "/t/1"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autofree char *got = http_join(CASES[i][0], "/t/1");
		assert_string_equal(got, CASES[i][1]);
	}
	g_autofree char *none = http_join(NULL, "/t/1");
	assert_string_equal(none, "/t/1");
}

static const struct Head {
	const char *name, *version;
	const char *fields[6]; /* name, value, ... */
	const char *want;      /* NULL: sound */
} HEADS[] = {
	{"host", "HTTP/1.1", {"Host", "a"}, NULL},
	{"host and port", "HTTP/1.1", {"host", "[::1]:80"}, NULL},
	{"empty host", "HTTP/1.1", {"host", ""}, NULL},
	{"no host", "HTTP/1.1", {"x", "y"}, "no host"},
	{"no host 1.0", "HTTP/1.0", {"x", "y"}, NULL},
	{"two hosts", "HTTP/1.1", {"host", "a", "Host", "a"}, "more than one host"},
	{"host with user", "HTTP/1.1", {"host", "u@a"}, "bad host"},
	{"host with space", "HTTP/1.1", {"host", "a b"}, "bad host"},
	{"host with path", "HTTP/1.1", {"host", "a/b"}, "bad host"},
	{"length", "HTTP/1.1", {"host", "a", "Content-Length", "5"}, NULL},
	{"length, space behind", "HTTP/1.1", {"host", "a", "content-length", "5 "}, NULL},
	{"two lengths",
	 "HTTP/1.1",
	 {"host", "a", "content-length", "5", "Content-length", "5"},
	 "more than one content-length"},
	{"length plus", "HTTP/1.1", {"host", "a", "content-length", "+5"}, "bad content-length"},
	{"length minus", "HTTP/1.1", {"host", "a", "content-length", "-5"}, "bad content-length"},
	{"length list", "HTTP/1.1", {"host", "a", "content-length", "5,5"}, "bad content-length"},
	{"length hex", "HTTP/1.1", {"host", "a", "content-length", "0x5"}, "bad content-length"},
	{"no length", "HTTP/1.1", {"host", "a", "content-length", ""}, "bad content-length"},
	{"18 digits", "HTTP/1.1", {"host", "a", "content-length", "000000000000000005"}, NULL},
	{"19 digits",
	 "HTTP/1.1",
	 {"host", "a", "content-length", "0000000000000000005"},
	 "bad content-length"},
	{"chunked", "HTTP/1.1", {"host", "a", "Transfer-Encoding", "Chunked"}, NULL},
	{"xchunked",
	 "HTTP/1.1",
	 {"host", "a", "transfer-encoding", "xchunked"},
	 "bad transfer-encoding"},
	{"gzip, chunked",
	 "HTTP/1.1",
	 {"host", "a", "transfer-encoding", "gzip, chunked"},
	 "bad transfer-encoding"},
	{"identity",
	 "HTTP/1.1",
	 {"host", "a", "transfer-encoding", "identity"},
	 "bad transfer-encoding"},
	{"two encodings",
	 "HTTP/1.1",
	 {"host", "a", "transfer-encoding", "chunked", "transfer-encoding", "chunked"},
	 "bad transfer-encoding"},
	{"both",
	 "HTTP/1.1",
	 {"host", "a", "content-length", "5", "transfer-encoding", "chunked"},
	 "content-length with transfer-encoding"},
	{"chunked 1.0",
	 "HTTP/1.0",
	 {"transfer-encoding", "chunked"},
	 "transfer-encoding in HTTP/1.0"},
	{"space in name", "HTTP/1.1", {"host", "a", "content-length ", "5"}, "bad header name"},
	{"empty name", "HTTP/1.1", {"host", "a", "", "5"}, "bad header name"},
	{"8-bit name", "HTTP/1.1", {"host", "a", "x\xe9", "5"}, "bad header name"},
	{"control", "HTTP/1.1", {"host", "a", "x", "a\rb"}, "control character in header"},
	{"tab", "HTTP/1.1", {"host", "a", "x", "a\tb"}, NULL},
	{"delete", "HTTP/1.1", {"host", "a", "x", "\x7f"}, "control character in header"},
	{"version", "HTTP/9.9", {"host", "a"}, "unsupported version"},
	{"version 2", "HTTP/2.0", {"host", "a"}, "unsupported version"},
};

static void
test_framing(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(HEADS); i++) {
		HttpFraming framing;
		http_framing_init(&framing);
		for (size_t k = 0; k + 1 < G_N_ELEMENTS(HEADS[i].fields); k += 2) {
			const char *name = HEADS[i].fields[k], *value = HEADS[i].fields[k + 1];
			if (name != NULL)
				http_framing_add(&framing, name, strlen(name), value,
						 strlen(value));
		}
		const char *got = http_framing_end(&framing, HEADS[i].version);
		if (g_strcmp0(got, HEADS[i].want) != 0)
			fail_msg("%s: %s", HEADS[i].name, got);
	}
	/* A NUL that strlen would not see. */
	HttpFraming framing;
	http_framing_init(&framing);
	http_framing_add(&framing, "host", 4, "a", 1);
	http_framing_add(&framing, "x", 1, "a\0b", 3);
	assert_string_equal(http_framing_end(&framing, "HTTP/1.1"), "control character in header");
}

static void
test_head_check(void **state)
{
	(void)state;
	static const struct {
		const char *head;
		const char *want; /* NULL: sound; "...": not complete */
	} CASES[] = {
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", NULL},
		{"GET / HTTP/1.1\r\nHost:a\r\nX: \t y \r\n\r\nbody\nanything\r\n\r\n", NULL},
		{"GET / HTTP/1.0\r\n\r\n", NULL},
		{"", "..."},
		{"GET / HTTP/1.1\r\nHost: a\r\n", "..."},
		{"GET / HTTP/1.1\r\nHost: a\r\n\r", "..."},
		{"GET / HTTP/1.1\nHost: a\n\n", "..."},
		{"GET / HTTP/1.1\nHost: a\r\n\r\n", "bare line end in head"},
		{"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "bare line end in head"},
		{"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", "bare line end in head"},
		{"GET / HTTP/1.1\r\nHost: a\r\n X: y\r\n\r\n", "bad header name"},
		{"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", "bad header name"},
		{"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "header line without colon"},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "bad content-length"},
		{"GET / HTTP/1.1\r\n\r\n", "no host"},
		{"GET /\r\n\r\n", "bad request line"},
		{"GET\r\n\r\n", "bad request line"},
		{"GET  HTTP/1.1\r\n\r\n", "bad request line"},
		{"GET / x HTTP/1.1\r\n\r\n", "bad request line"},
		{"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "bad request line"},
		{" GET / HTTP/1.1\r\nHost: a\r\n\r\n", "bad request line"},
		{"\r\n\r\n", "bad request line"},
		{"GET / HTTP/3.0\r\nHost: a\r\n\r\n", "unsupported version"},
		{"GET / HTTP/1.1xxxxxxxxxxxxxxxx\r\nHost: a\r\n\r\n", "bad request line"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		bool complete = false;
		const char *got = http_head_check(CASES[i].head, strlen(CASES[i].head), &complete);
		const char *want = CASES[i].want;
		bool open = want != NULL && strcmp(want, "...") == 0;
		if (complete == open || g_strcmp0(got, open ? NULL : want) != 0)
			fail_msg("%s: %d %s", CASES[i].head, complete, got);
	}
	static const char NUL[] = "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n";
	bool complete = false;
	assert_string_equal(http_head_check(NUL, sizeof(NUL) - 1, &complete), "NUL in head");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes),     cmocka_unit_test(test_percent),
		cmocka_unit_test(test_join),       cmocka_unit_test(test_framing),
		cmocka_unit_test(test_head_check),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
