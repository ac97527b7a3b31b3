/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "mime/header.h"

typedef struct Row {
	const char *name;
	const char *in;
	MimeHeaderFault want;
	size_t fields;
	const char *first_name, *first_value;
	bool misplaced;
} Row;

static const Row ROWS[] = {
	{"one", "A: b\r\n\r\n", MIME_HEADER_OK, 1, "a", "b", false},
	{"fold", "A: b\r\n\tc\r\nD:e\r\n\r\n", MIME_HEADER_OK, 2, "a", "b\tc", false},
	{"blank fold", "A: b\r\n  \r\n c\r\n\r\n", MIME_HEADER_OK, 1, "a", "b   c", false},
	{"empty value", "A:\r\n\r\n", MIME_HEADER_OK, 1, "a", "", false},
	{"odd name", "a!#$%b: x\r\n", MIME_HEADER_OK, 1, "a!#$%b", "x", false},
	{"no line end", "A: b", MIME_HEADER_OK, 1, "a", "b", false},
	{"empty block", "\r\nA: b\r\n", MIME_HEADER_OK, 0, NULL, NULL, false},
	{"no colon", "A: b\r\nC d\r\n", MIME_HEADER_BAD_LINE, 1, "a", "b", false},
	{"space before colon", "A : b\r\n", MIME_HEADER_BAD_LINE, 0, NULL, NULL, false},
	{"8-bit name", "\xc3\xa4: b\r\n", MIME_HEADER_BAD_LINE, 0, NULL, NULL, false},
	{"bare LF", "A: b\nC: d\r\n", MIME_HEADER_BAD_LINE, 0, NULL, NULL, false},
	{"bare CR", "A: b\rC: d\r\n", MIME_HEADER_BAD_LINE, 0, NULL, NULL, false},
	{"CR CR LF", "A: b\r\r\n", MIME_HEADER_BAD_LINE, 0, NULL, NULL, false},
	{"LF first", "\nA: b\r\n", MIME_HEADER_BAD_LINE, 0, NULL, NULL, false},
	{"no name", ": b\r\n", MIME_HEADER_OK, 1, "", "b", true},
	{"fold first", " x\r\nA: b\r\n", MIME_HEADER_OK, 1, "a", "b", true},
	{"mbox line", "From x y\r\nA: b\r\n", MIME_HEADER_OK, 1, "a", "b", false},
	{"mbox line inside", "A: b\r\nFrom x y\r\n", MIME_HEADER_OK, 1, "a", "b", true},
};

static void
test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(ROWS); i++) {
		const Row *r = &ROWS[i];
		MimeHeader h;
		MimeHeaderFault got = mime_header_scan(r->in, strlen(r->in), &h);
		print_message("# %s\n", r->name);
		assert_int_equal(got, r->want);
		assert_int_equal(h.n_fields, r->fields);
		assert_int_equal(h.misplaced, r->misplaced);
		if (r->first_name != NULL) {
			g_autofree char *name = mime_field_name(&h.fields[0]);
			g_autofree char *value = mime_field_unfold(&h.fields[0]);
			assert_string_equal(name, r->first_name);
			assert_string_equal(value, r->first_value);
		}
		mime_header_clear(&h);
	}
}

static void
test_lenient(void **state)
{
	(void)state;
	MimeHeader h;
	const char *in = "A: b\nC: d\rE: f\r\n\nbody";
	assert_int_equal(mime_header_scan_lenient(in, strlen(in), &h), MIME_HEADER_OK);
	assert_int_equal(h.n_fields, 3);
	assert_int_equal(h.len, strlen(in) - strlen("\nbody"));
	mime_header_clear(&h);
}

static void
test_facts(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		size_t len;
		unsigned received;
		bool eight_bit, controls;
	} rows[] = {
		{"Received: a\r\nRECEIVED: b\r\nReceived-SPF: c\r\n", 0, 2, false, false},
		{"A: \t\v\f\x7f x\r\n", 0, 0, false, false},
		{"A: \x80\r\n", 0, 0, true, false},
		{"A: \x07\r\n", 0, 0, false, true},
		{"A: \0\r\n", 6, 0, false, true},
		{"A: \x1f\r\n", 0, 0, false, true},
		{"A: b\r\n\r\n\x07\x80", 0, 0, false, false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		MimeHeader h;
		size_t len = rows[i].len != 0 ? rows[i].len : strlen(rows[i].in);
		assert_int_equal(mime_header_scan(rows[i].in, len, &h), MIME_HEADER_OK);
		assert_int_equal(h.received, rows[i].received);
		assert_int_equal(h.eight_bit, rows[i].eight_bit);
		assert_int_equal(h.controls, rows[i].controls);
		mime_header_clear(&h);
	}
}

static void
test_end(void **state)
{
	(void)state;
	assert_int_equal(mime_header_end("A: b\r\n\r\nx", 9), 8);
	assert_int_equal(mime_header_end("\r\n\r\n", 4), 4);
	assert_int_equal(mime_header_end("A: b\r\n\r", 7), 0);
	assert_int_equal(mime_header_end("A: b\n\nx", 7), 0);
	/* At the cap and one byte beyond. */
	g_autofree char *big = g_malloc(MIME_HEADER_BLOCK_MAX + 1);
	memset(big, 'x', MIME_HEADER_BLOCK_MAX + 1);
	memcpy(big + MIME_HEADER_BLOCK_MAX - 4, "\r\n\r\n", 4);
	assert_int_equal(mime_header_end(big, MIME_HEADER_BLOCK_MAX + 1), MIME_HEADER_BLOCK_MAX);
	memset(big, 'x', MIME_HEADER_BLOCK_MAX + 1);
	memcpy(big + MIME_HEADER_BLOCK_MAX - 3, "\r\n\r\n", 4);
	assert_int_equal(mime_header_end(big, MIME_HEADER_BLOCK_MAX + 1), 0);
}

static MimeHeaderFault
scan_fields(unsigned count)
{
	g_autoptr(GString) s = g_string_new(NULL);
	for (unsigned i = 0; i < count; i++)
		g_string_append(s, "A: b\r\n");
	MimeHeader h;
	MimeHeaderFault fault = mime_header_scan(s->str, s->len, &h);
	mime_header_clear(&h);
	return fault;
}

/* A field of `len` bytes, its line end included, in lines of `line`. */
static MimeHeaderFault
scan_length(size_t len, size_t line)
{
	g_autoptr(GString) s = g_string_new("A:");
	while (s->len < len - 2)
		g_string_append(s, s->len % line == 0 && s->len + 5 < len ? "\r\n x" : "x");
	g_string_append(s, "\r\n");
	assert_int_equal(s->len, len);
	MimeHeader h;
	MimeHeaderFault fault = mime_header_scan(s->str, s->len, &h);
	mime_header_clear(&h);
	return fault;
}

static void
test_limits(void **state)
{
	(void)state;
	assert_int_equal(scan_fields(MIME_HEADER_FIELDS_MAX), MIME_HEADER_OK);
	assert_int_equal(scan_fields(MIME_HEADER_FIELDS_MAX + 1), MIME_HEADER_TOO_MANY);
	assert_int_equal(scan_length(MIME_HEADER_FIELD_MAX, SIZE_MAX), MIME_HEADER_OK);
	assert_int_equal(scan_length(MIME_HEADER_FIELD_MAX + 1, SIZE_MAX),
			 MIME_HEADER_FIELD_TOO_LONG);
	assert_int_equal(scan_length(MIME_HEADER_FIELD_MAX, 500), MIME_HEADER_OK);
	assert_int_equal(scan_length(MIME_HEADER_FIELD_MAX + 1, 500), MIME_HEADER_FIELD_TOO_LONG);
}

static void
test_find(void **state)
{
	(void)state;
	const char *in = "To: a\r\nTOM: b\r\nto: c\r\n";
	MimeHeader h;
	unsigned count;
	assert_int_equal(mime_header_scan(in, strlen(in), &h), MIME_HEADER_OK);
	const MimeField *f = mime_header_find(&h, "to", &count);
	assert_ptr_equal(f, &h.fields[0]);
	assert_int_equal(count, 2);
	assert_null(mime_header_find(&h, "tom2", &count));
	assert_int_equal(count, 0);
	assert_null(mime_header_find(&h, "t", NULL));
	mime_header_clear(&h);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),   cmocka_unit_test(test_lenient),
		cmocka_unit_test(test_facts),  cmocka_unit_test(test_end),
		cmocka_unit_test(test_limits), cmocka_unit_test(test_find),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
