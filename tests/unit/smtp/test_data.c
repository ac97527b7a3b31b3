/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <string.h>

#include "smtp/data.h"

typedef struct Case {
	const char *wire;
	const char *message; /* what is handed up; NULL: as far as it goes, not compared */
	int rest;            /* bytes behind the end; -1: no end */
	unsigned seen;
	unsigned received;
	uint64_t longest;
	uint64_t header_len;
} Case;

#define CR SMTP_DATA_BARE_CR
#define LF SMTP_DATA_BARE_LF

static const Case cases[] = {
	{".\r\n", "", 0, 0, 0, 0, 0},
	{"\r\n.\r\n", "\r\n", 0, 0, 0, 0, 2},
	{"a\r\n.\r\nQUIT\r\n", "a\r\n", 6, 0, 0, 1, 0},
	{"a: b\r\n\r\nbody\r\n.\r\n", "a: b\r\n\r\nbody\r\n", 0, 0, 0, 4, 8},
	{"..\r\n.\r\n", ".\r\n", 0, 0, 0, 1, 0},
	{"...\r\n..a\r\nx.\r\n.\r\n", "..\r\n.a\r\nx.\r\n", 0, 0, 0, 2, 0},
	{".a\r\n.\r\n", "a\r\n", 0, 0, 0, 1, 0},
	{"Received: x\r\n y\r\nRECEIVED:z\r\nReceive: n\r\nX-Received: n\r\n\r\nReceived: body\r\n.\r\n",
	 NULL, 0, 0, 2, 14, 58},
	{"a\r\n", "a\r\n", -1, 0, 0, 1, 0},
	{"a\r\n.", "a\r\n", -1, 0, 0, 1, 0},
	{"a\r\n.\r", "a\r\n", -1, 0, 0, 1, 0},
	/* what must not end a message */
	{"a\n.\n\r\n.\r\n", "a\n.\n\r\n", 0, LF, 0, 4, 0},
	{"a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n", 0, LF, 0, 3, 0},
	{"a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n", 0, LF, 0, 2, 0},
	{"a\r.\rb\r\n.\r\n", "a\r.\rb\r\n", 0, CR, 0, 5, 0},
	{"a\r\n.\rb\r\n.\r\n", "a\r\n\rb\r\n", 0, CR, 0, 2, 0},
	{"a\r.\r\nb\r\n.\r\n", "a\r.\r\nb\r\n", 0, CR, 0, 3, 0},
	{"a\r\r\n.\r\n", "a\r\r\n", 0, CR, 0, 2, 0},
	{"a\r\n.\r\r\n.\r\n", "a\r\n\r\r\n", 0, CR, 0, 1, 0},
	{"\n.\r\n.\r\n", "\n.\r\n", 0, LF, 0, 2, 0},
	{"a\n\r\n.\r\n", "a\n\r\n", 0, LF, 0, 2, 0},
	{"a\r\n. \r\n.\r\n", "a\r\n \r\n", 0, 0, 0, 1, 0},
	{"\xc3\xa4\r\n.\r\n", "\xc3\xa4\r\n", 0, SMTP_DATA_8BIT, 0, 2, 0},
};

static void
collect(void *arg, const char *data, size_t len)
{
	g_string_append_len(arg, data, (gssize)len);
}

/* Feeds `wire` cut at `first` and then every `step` bytes; returns bytes read. */
static size_t
feed(SmtpDataReader *reader, const char *wire, size_t len, size_t first, size_t step, GString *out)
{
	size_t at = 0;
	smtp_data_reader_init(reader);
	while (at < len && !smtp_data_ended(reader)) {
		size_t n = at == 0 && first > 0 ? first : step;
		if (n > len - at)
			n = len - at;
		/* a copy of its own: neither reads past the piece nor keeps pointers into it */
		g_autofree char *piece = g_memdup2(wire + at, n);
		size_t took = smtp_data_read(reader, piece, n, collect, out);
		at += took;
		if (took < n)
			assert_true(smtp_data_ended(reader));
	}
	return at;
}

static void
check(const Case *c, size_t len, size_t first, size_t step)
{
	SmtpDataReader reader;
	GString *out = g_string_new("");
	size_t at = feed(&reader, c->wire, len, first, step, out);
	if (smtp_data_ended(&reader) != (c->rest >= 0) ||
	    (c->rest >= 0 && at != len - (size_t)c->rest) || reader.seen != c->seen ||
	    reader.received != c->received || reader.longest != c->longest ||
	    reader.header_len != c->header_len || reader.bytes != out->len)
		fail_msg("%s cut %zu/%zu: at %zu seen %x received %u longest %lu header %lu",
			 c->wire, first, step, at, reader.seen, reader.received,
			 (unsigned long)reader.longest, (unsigned long)reader.header_len);
	/* a piece that ends in the middle may hold back a dot, never more */
	if (c->message != NULL && strcmp(out->str, c->message) != 0)
		fail_msg("%s cut %zu/%zu: %s", c->wire, first, step, out->str);
	g_string_free(out, TRUE);
}

static void
test_reader(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		size_t len = strlen(cases[i].wire);
		for (size_t first = 0; first <= len; first++) {
			check(&cases[i], len, first, len);
			check(&cases[i], len, first, 1);
			check(&cases[i], len, first, 3);
		}
	}
}

static void
test_reader_nul(void **state)
{
	(void)state;
	static const char wire[] = "a\0b\r\n.\0\r\n.\r\n";
	for (size_t step = 1; step < sizeof(wire); step++) {
		SmtpDataReader reader;
		GString *out = g_string_new("");
		assert_int_equal(feed(&reader, wire, sizeof(wire) - 1, 0, step, out),
				 sizeof(wire) - 1);
		assert_true(smtp_data_ended(&reader));
		assert_int_equal(reader.seen, SMTP_DATA_NUL);
		assert_int_equal(out->len, 8);
		assert_memory_equal(out->str, "a\0b\r\n\0\r\n", 8);
		g_string_free(out, TRUE);
	}
}

typedef struct WriteCase {
	const char *message;
	const char *wire;
} WriteCase;

static const WriteCase write_cases[] = {
	{"", ".\r\n"},
	{"a\r\n", "a\r\n.\r\n"},
	{"a", "a\r\n.\r\n"},
	{"a\r", "a\r\n.\r\n"},
	{"a\n", "a\r\n.\r\n"},
	{".", "..\r\n.\r\n"},
	{".\r\n", "..\r\n.\r\n"},
	{"a\r\n.b\r\n..\r\n", "a\r\n..b\r\n...\r\n.\r\n"},
	{"a.\r\n", "a.\r\n.\r\n"},
	{"a\n.\nb", "a\r\n..\r\nb\r\n.\r\n"},
	{"a\r.\rb", "a\r\n..\r\nb\r\n.\r\n"},
	{"a\r\n.\r\nMAIL FROM:<x@y>\r\n", "a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"},
	{"\n.\r\nx", "\r\n..\r\nx\r\n.\r\n"},
	{"a\r\r\nb", "a\r\n\r\nb\r\n.\r\n"},
	{"\r\n\r\n", "\r\n\r\n.\r\n"},
	{"a\n\r.b", "a\r\n\r\n..b\r\n.\r\n"},
};

static char *
write_cut(const char *message, size_t len, size_t first, size_t step)
{
	SmtpDataWriter writer;
	GString *out = g_string_new("");
	smtp_data_writer_init(&writer);
	for (size_t at = 0; at < len;) {
		size_t n = at == 0 && first > 0 ? first : step;
		if (n > len - at)
			n = len - at;
		g_autofree char *piece = g_memdup2(message + at, n);
		smtp_data_write(&writer, piece, n, collect, out);
		at += n;
	}
	smtp_data_write_end(&writer, collect, out);
	return g_string_free(out, FALSE);
}

static void
test_writer(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(write_cases); i++) {
		const WriteCase *c = &write_cases[i];
		size_t len = strlen(c->message);
		for (size_t first = 0; first <= len; first++) {
			for (size_t step = 1; step <= len + 1; step++) {
				g_autofree char *wire = write_cut(c->message, len, first, step);
				if (strcmp(wire, c->wire) != 0)
					fail_msg("case %zu cut %zu/%zu: %s", i, first, step, wire);
			}
		}
	}
}

/* reader(writer(x)) = x when x has CRLF line ends only. */
static void
test_round_trip(void **state)
{
	(void)state;
	GString *message = g_string_new("");
	uint32_t seed = 1;
	for (unsigned i = 0; i < 3000; i++) {
		seed = seed * 1664525 + 1013904223;
		static const char *const bits[] = {".",   "..",    "\r\n", "a",
						   "bcd", "\r\n.", " ",    "x.y"};
		g_string_append(message, bits[(seed >> 16) % G_N_ELEMENTS(bits)]);
	}
	g_string_append(message, "\r\n");
	for (size_t step = 1; step < 64; step += 7) {
		g_autofree char *wire = write_cut(message->str, message->len, 0, step);
		SmtpDataReader reader;
		GString *out = g_string_new("");
		assert_int_equal(feed(&reader, wire, strlen(wire), 0, step + 3, out), strlen(wire));
		assert_true(smtp_data_ended(&reader));
		assert_int_equal(reader.seen, 0);
		assert_string_equal(out->str, message->str);
		g_string_free(out, TRUE);
	}
	g_string_free(message, TRUE);
}

/* Time must not grow with the square of a body that has only one kind of line end. */
static void
test_writer_linear(void **state)
{
	(void)state;
	size_t len = 8 * 1024 * 1024;
	for (unsigned i = 0; i < 2; i++) {
		g_autofree char *message = g_strnfill(len, i == 0 ? '\n' : '\r');
		message[len - 1] = 'x';
		SmtpDataWriter writer;
		GString *out = g_string_sized_new(2 * len + 16);
		smtp_data_writer_init(&writer);
		smtp_data_write(&writer, message, len, collect, out);
		smtp_data_write_end(&writer, collect, out);
		assert_int_equal(out->len, 2 * (len - 1) + 1 + 5);
		g_string_free(out, TRUE);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reader),        cmocka_unit_test(test_reader_nul),
		cmocka_unit_test(test_writer),        cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_writer_linear),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
