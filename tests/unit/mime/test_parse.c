/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "mime/mime.h"
#include "mime/parse.h"
#include "mime/tree.h"
#include "samples.h"

static TxBody *
parse_blob(Blob *blob, int64_t max_inline)
{
	MimeParseOptions options = {.max_inline = max_inline};
	TxBody *body = mime_parse(blob, &options, NULL);
	assert_non_null(body);
	assert_ptr_equal(body->raw, blob);
	return body;
}

static TxBody *
parse(const char *text, int64_t max_inline)
{
	g_autoptr(Blob) blob = blob_new_bytes(text, strlen(text));
	return parse_blob(blob, max_inline);
}

typedef struct Row {
	const char *name, *in, *want; /* the tree as compact JSON */
} Row;

static const Row ROWS[] = {
	{"plain", "Subject: a\r\n b\r\n\r\nhi\r\nyou\r\n",
	 "{\"headers\":[[\"subject\",\"a b\"]],\"content_type\":\"text/plain\","
	 "\"content\":{\"inline\":\"hi\\nyou\\n\"}}"},
	{"no header", "\r\nhi",
	 "{\"headers\":[],\"content_type\":\"text/plain\",\"content\":{\"inline\":\"hi\"}}"},
	{"empty", "",
	 "{\"headers\":[],\"content_type\":\"text/plain\",\"content\":{\"inline\":\"\"}}"},
	{"header broken off", "A: b\r\nnonsense\r\n",
	 "{\"headers\":[[\"a\",\"b\"]],\"content_type\":\"text/plain\",\"content\":{\"inline\":\"nonsense\\n\"}}"},
	{"bad date", "Date: today\r\n\r\n",
	 "{\"headers\":[[\"date\",\"today\"]],\"content_type\":\"text/plain\",\"content\":{\"inline\":\"\"}}"},
	{"repeated", "A: 1\r\nA: 2\r\n\r\n",
	 "{\"headers\":[[\"a\",\"1\"],[\"a\",\"2\"]],\"content_type\":\"text/plain\",\"content\":{\"inline\":\"\"}}"},
	{"addresses", "To: g: a@b, \"c\" <d@e>;, =?utf-8?q?=C3=A4?= <f@g>\r\n\r\n",
	 "{\"headers\":[[\"to\",[{\"display_name\":\"\",\"address\":\"a@b\"},{\"display_name\":\"c\","
	 "\"address\":\"d@e\"},{\"display_name\":\"\xc3\xa4\",\"address\":\"f@g\"}]]],"
	 "\"content_type\":\"text/plain\",\"content\":{\"inline\":\"\"}}"},
	{"message id", "Message-ID: <a@b>\r\nReferences: <c@d> <e@f>\r\n\r\n",
	 "{\"headers\":[[\"message-id\",\"a@b\"],[\"references\",\"<c@d> <e@f>\"]],"
	 "\"content_type\":\"text/plain\",\"content\":{\"inline\":\"\"}}"},
	{"base64 text",
	 "Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: BASE64\r\n\r\n5A0K\r\n",
	 "{\"headers\":[[\"content-type\",[\"text/html\",{\"charset\":\"iso-8859-1\"}]],"
	 "[\"content-transfer-encoding\",\"BASE64\"]],\"content_type\":\"text/html\","
	 "\"content\":{\"inline\":\"\xc3\xa4\\n\"}}"},
	{"quoted-printable", "Content-Transfer-Encoding: quoted-printable\r\n\r\na=C3=A4=\r\nb\r\n",
	 "{\"headers\":[[\"content-transfer-encoding\",\"quoted-printable\"]],"
	 "\"content_type\":\"text/plain\",\"content\":{\"inline\":\"a\xc3\xa4"
	 "b\\n\"}}"},
	{"unknown charset", "Content-Type: text/plain; charset=x-none\r\n\r\na\xff",
	 "{\"headers\":[[\"content-type\",[\"text/plain\",{\"charset\":\"x-none\"}]]],"
	 "\"content_type\":\"text/plain\",\"content\":{\"inline\":\"a\xef\xbf\xbd\"}}"},
	{"wrong charset", "Content-Type: text/plain; charset=us-ascii\r\n\r\na\xc3\xa4\xe6\x97",
	 "{\"headers\":[[\"content-type\",[\"text/plain\",{\"charset\":\"us-ascii\"}]]],"
	 "\"content_type\":\"text/plain\",\"content\":{\"inline\":\"a\xc3\xa4\xef\xbf\xbd\xef\xbf\xbd\"}}"},
	{"empty multipart", "Content-Type: multipart/mixed; boundary=b\r\n\r\n",
	 "{\"headers\":[[\"content-type\",[\"multipart/mixed\",{\"boundary\":\"b\"}]]],"
	 "\"content_type\":\"multipart/mixed\",\"content\":{\"create_id\":\"0\"}}"},
	{"multipart that only ends", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b--\r\n",
	 "{\"headers\":[[\"content-type\",[\"multipart/mixed\",{\"boundary\":\"b\"}]]],"
	 "\"content_type\":\"multipart/mixed\",\"content\":{\"create_id\":\"0\"}}"},
	{"no boundary", "Content-Type: multipart/mixed\r\n\r\nx",
	 "{\"headers\":[[\"content-type\",[\"multipart/mixed\",{}]]],"
	 "\"content_type\":\"multipart/mixed\",\"content\":{\"create_id\":\"0\"}}"},
	{"bad type", "Content-Type: nonsense; a=b\r\n\r\nx",
	 "{\"headers\":[[\"content-type\",[\"nonsense; a=b\",{\"a\":\"b\"}]]],"
	 "\"content_type\":\"text/plain\",\"content\":{\"inline\":\"x\"}}"},
	{"boundary repeated",
	 "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n--b\r\n\r\nx\r\n--b--\r\n",
	 "{\"headers\":[[\"content-type\",[\"multipart/mixed\",{\"boundary\":\"b\"}]]],"
	 "\"content_type\":\"multipart/mixed\",\"parts\":[{\"headers\":[],\"content_type\":\"text/plain\","
	 "\"content\":{\"inline\":\"x\"}}]}"},
	{"boundary right behind the header",
	 "Content-Type: multipart/mixed; boundary=b\r\n--b\r\n\r\nx\r\n--b--\r\n",
	 "{\"headers\":[[\"content-type\",[\"multipart/mixed\",{\"boundary\":\"b\"}]]],"
	 "\"content_type\":\"multipart/mixed\",\"parts\":[{\"headers\":[],\"content_type\":\"text/plain\","
	 "\"content\":{\"inline\":\"x\"}}]}"},
	{"header cut by boundary",
	 "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nA: b\r\n--b--\r\n",
	 "{\"headers\":[[\"content-type\",[\"multipart/mixed\",{\"boundary\":\"b\"}]]],"
	 "\"content_type\":\"multipart/mixed\",\"parts\":[{\"headers\":[[\"a\",\"b\"]],"
	 "\"content_type\":\"text/plain\",\"content\":{\"inline\":\"\"}}]}"},
	{"nested message cut by boundary",
	 "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n--b--\r\n",
	 "{\"headers\":[[\"content-type\",[\"multipart/mixed\",{\"boundary\":\"b\"}]]],"
	 "\"content_type\":\"multipart/mixed\",\"parts\":[{\"headers\":[[\"content-type\",[\"message/rfc822\",{}]]],"
	 "\"content_type\":\"message/rfc822\",\"parts\":[{\"headers\":[],\"content_type\":\"text/plain\","
	 "\"content\":{\"inline\":\"\"}}]}]}"},
	{"status", "Content-Type: message/delivery-status\r\n\r\nA: 1\r\n\r\nB: 2\r\nC: 3\r\n\r\n",
	 "{\"headers\":[[\"content-type\",[\"message/delivery-status\",{}]]],"
	 "\"content_type\":\"message/delivery-status\",\"parts\":[{\"headers\":[[\"a\",\"1\"]]},"
	 "{\"headers\":[[\"b\",\"2\"],[\"c\",\"3\"]]}]}"},
	{"headers", "Content-Type: text/rfc822-headers\r\n\r\nA: 1\r\nB: 2\r\n\r\nC: 3\r\n",
	 "{\"headers\":[[\"content-type\",[\"text/rfc822-headers\",{}]]],"
	 "\"content_type\":\"text/rfc822-headers\",\"parts\":[{\"headers\":[[\"a\",\"1\"],[\"b\",\"2\"]]}]}"},
	{"encoded message",
	 "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\neA==",
	 "{\"headers\":[[\"content-type\",[\"message/rfc822\",{}]],[\"content-transfer-encoding\",\"base64\"]],"
	 "\"content_type\":\"message/rfc822\",\"content\":{\"create_id\":\"0\"}}"},
};

static void
test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(ROWS); i++) {
		print_message("# %s\n", ROWS[i].name);
		g_autoptr(TxBody) body = parse(ROWS[i].in, 65536);
		g_autofree char *got = json_print(json_object_get(body->builder, "parts"));
		assert_string_equal(got, ROWS[i].want);
	}
}

static void
test_inline_limit(void **state)
{
	(void)state;
	const char *in =
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n12345\r\n--b\r\n\r\n"
		"67890\r\n--b--\r\n";
	static const struct {
		int64_t max;
		unsigned parts;
	} rows[] = {{0, 2}, {5, 2}, {6, 1}, {10, 1}, {11, 0}, {-1, 2}};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autoptr(TxBody) body = parse(in, rows[i].max);
		assert_int_equal(body->parts->len, rows[i].parts);
	}
	/* NUL cannot go into JSON. */
	g_autoptr(Blob) nul = blob_new_bytes("\r\na\0b", 5);
	g_autoptr(TxBody) body = parse_blob(nul, 65536);
	assert_int_equal(body->parts->len, 1);
	size_t len;
	g_autofree char *text = blob_to_string(tx_body_part(body, "0")->blob, 100, &len, NULL);
	assert_int_equal(len, 3);
	assert_memory_equal(text, "a\0b", 3);
}

static void
test_flat(void **state)
{
	(void)state;
	static const struct {
		const char *in, *text, *related, *files;
	} rows[] = {
		{"\r\nhi", "[{\"content_type\":\"text/plain\",\"content\":{\"inline\":\"hi\"}}]",
		 NULL, NULL},
		{"Content-Type: image/png\r\n\r\nx", NULL, NULL, NULL},
		{"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\n"
		 "Content-Type: a/b\r\nContent-ID: <c>\r\nContent-Disposition: attachment; filename=f\r\n\r\nx"
		 "\r\n--b--",
		 "[{\"content_type\":\"text/plain\",\"content\":{\"inline\":\"hi\"}}]", NULL,
		 "[{\"content_type\":\"a/b\",\"content_id\":\"<c>\",\"content\":{\"create_id\":\"0\"}}]"},
		{"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: a/b\r\n"
		 "Content-Disposition: inline; filename=f\r\n\r\nx\r\n--b--",
		 NULL, NULL, "[{\"content_type\":\"a/b\",\"content\":{\"create_id\":\"0\"}}]"},
		{"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n"
		 "\r\nh\r\n--b\r\n\r\nt\r\n--b--",
		 "[{\"content_type\":\"text/plain\",\"content\":{\"inline\":\"t\"}},"
		 "{\"content_type\":\"text/html\",\"content\":{\"inline\":\"h\"}}]",
		 NULL, NULL},
		{"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nt\r\n--b\r\n"
		 "Content-Type: application/pgp-signature\r\n\r\ns\r\n--b--",
		 "[{\"content_type\":\"text/plain\",\"content\":{\"inline\":\"t\"}}]", NULL, NULL},
		{"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nt\r\n--b\r\n"
		 "Content-Type: message/rfc822\r\n\r\n\r\nx\r\n--b--",
		 "[{\"content_type\":\"text/plain\",\"content\":{\"inline\":\"t\"}}]", NULL,
		 "[{\"content_type\":\"message/rfc822\"}]"},
		{"Content-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\nh\r\n"
		 "--b\r\nContent-Type: a/b\r\nContent-ID: c\r\n\r\nx\r\n--b--",
		 "[{\"content_type\":\"text/html\",\"content\":{\"inline\":\"h\"}}]",
		 "[{\"content_type\":\"a/b\",\"content_id\":\"c\",\"content\":{\"create_id\":\"0\"}}]",
		 NULL},
	};
	static const char *const lists[] = {"text_body", "related_attachments", "file_attachments"};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autoptr(TxBody) body = parse(rows[i].in, 65536);
		const char *want[] = {rows[i].text, rows[i].related, rows[i].files};
		for (size_t l = 0; l < G_N_ELEMENTS(lists); l++) {
			json_t *list = json_object_get(body->builder, lists[l]);
			assert_int_equal(list == NULL, want[l] == NULL);
			if (list == NULL)
				continue;
			g_autofree char *got = json_print(list);
			assert_string_equal(got, want[l]);
		}
	}
}

static unsigned
depth_of(const json_t *part)
{
	const json_t *parts = json_object_get(part, "parts");
	return json_array_size(parts) > 0 ? 1 + depth_of(json_array_get(parts, 0)) : 0;
}

static void
test_depth(void **state)
{
	(void)state;
	static const unsigned levels[] = {MIME_PARSE_DEPTH_MAX + 1, MIME_PARSE_DEPTH_MAX + 2,
					  50000};
	for (size_t l = 0; l < G_N_ELEMENTS(levels); l++) {
		for (int message = 0; message < 2; message++) {
			g_autoptr(GString) s = g_string_new(NULL);
			for (unsigned i = 0; i < levels[l]; i++)
				if (message)
					g_string_append(s, "Content-Type: message/rfc822\r\n\r\n");
				else
					g_string_append_printf(
						s,
						"Content-Type: multipart/mixed; boundary=b%u\r\n\r\n--b%u\r\n",
						i, i);
			g_string_append(s, "\r\nx");
			g_autoptr(TxBody) body = parse(s->str, 65536);
			unsigned depth = depth_of(json_object_get(body->builder, "parts"));
			assert_int_equal(depth, MIME_PARSE_DEPTH_MAX + 1);
			/* The text itself, or the opaque rest. */
			assert_int_equal(body->parts->len, l == 0 ? 0 : 1);
		}
	}
}

static void
test_parts_limit(void **state)
{
	(void)state;
	for (unsigned extra = 0; extra < 2; extra++) {
		g_autoptr(GString)
			s = g_string_new("Content-Type: multipart/mixed; boundary=b\r\n\r\n");
		for (unsigned i = 1; i < MIME_PARTS_MAX + extra; i++)
			g_string_append(s, "--b\r\n\r\nx\r\n");
		g_autoptr(TxBody) body = parse(s->str, 1 << 20);
		json_t *parts = json_object_get(json_object_get(body->builder, "parts"), "parts");
		assert_int_equal(json_array_size(parts), MIME_PARTS_MAX - 1);
	}
}

/* Big parts in a spilled message: text converted in pieces, base64 across windows. */
static void
test_big(void **state)
{
	(void)state;
	BlobLimits limits = {.memory_max = 1000};
	g_autoptr(Blob) raw = blob_new(&limits);
	const char *head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
			   "Content-Type: text/plain; charset=utf-8\r\n\r\n";
	assert_true(blob_append(raw, head, strlen(head), NULL));
	for (unsigned i = 0; i < 100000; i++)
		assert_true(blob_append(raw, "\xe6\x97\xa5\r\n", 5, NULL));
	const char *mid =
		"\r\n--b\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n";
	assert_true(blob_append(raw, mid, strlen(mid), NULL));
	for (unsigned i = 0; i < 100000; i++)
		assert_true(blob_append(raw, "YWJj\r\n", 6, NULL));
	assert_true(blob_append(raw, "--b--\r\n", 7, NULL));
	blob_finalize(raw);
	g_autoptr(TxBody) body = parse_blob(raw, 65536);
	assert_int_equal(body->parts->len, 2);
	size_t len;
	g_autofree char *text = blob_to_string(tx_body_part(body, "0")->blob, 1 << 20, &len, NULL);
	assert_int_equal(len, 400000);
	for (size_t i = 0; i < len; i += 4)
		assert_memory_equal(text + i, "\xe6\x97\xa5\n", 4);
	g_autofree char *bin = blob_to_string(tx_body_part(body, "1")->blob, 1 << 20, &len, NULL);
	assert_int_equal(len, 300000);
	for (size_t i = 0; i < len; i += 3)
		assert_memory_equal(bin + i, "abc", 3);
}

/* Many small parts, of which only some stay in memory: each is what it was, wherever it lies. */
static void
test_many_parts(void **state)
{
	(void)state;
	enum { PARTS = 3000, SIZE = 900 };
	g_autoptr(GString) s = g_string_new("Content-Type: multipart/mixed; boundary=b\r\n\r\n");
	for (unsigned i = 0; i < PARTS; i++) {
		g_autofree char *filler = g_strnfill(SIZE, (char)('a' + i % 26));
		g_string_append_printf(s, "--b\r\nContent-Type: a/b\r\n\r\n%u %s\r\n", i, filler);
	}
	g_string_append(s, "--b--\r\n");
	g_autoptr(TxBody) body = parse(s->str, 65536);
	assert_int_equal(body->parts->len, PARTS);
	assert_true(tx_body_is_final(body));
	unsigned in_memory = 0;
	for (unsigned i = 0; i < PARTS; i++) {
		g_autofree char *id = g_strdup_printf("%u", i);
		const Blob *blob = tx_body_part(body, id)->blob;
		g_autofree char *filler = g_strnfill(SIZE, (char)('a' + i % 26));
		g_autofree char *want = g_strdup_printf("%u %s", i, filler);
		size_t len;
		g_autofree char *got = blob_to_string(blob, 2 * SIZE, &len, NULL);
		assert_string_equal(got, want);
		in_memory += blob_peek(blob, 0, &len) != NULL;
	}
	assert_in_range(in_memory, 1024 * 1024 / (SIZE + 5), 1024 * 1024 / SIZE);
}

/* ---- the samples ---- */

/* The expected files count blob ids on from file to file: renumber by order of appearance. */
static void
renumber(json_t *value, json_t *seen)
{
	size_t i;
	json_t *item;
	if (json_is_array(value)) {
		json_array_foreach(value, i, item) renumber(item, seen);
		return;
	}
	const char *id = json_get_str(value, "create_id");
	if (id != NULL) {
		if (json_object_get(seen, id) == NULL)
			json_object_set_new(seen, id,
					    json_integer((json_int_t)json_object_size(seen)));
		g_autofree char *now = g_strdup_printf(
			"%d", (int)json_integer_value(json_object_get(seen, id)));
		json_object_set_new(value, "create_id", json_string(now));
		return;
	}
	const char *key;
	json_object_foreach(value, key, item) renumber(item, seen);
}

static void
test_samples(void **state)
{
	(void)state;
	static const struct {
		const char *msg, *json;
	} names[] = {{"multipart.msg", "multipart.json"},
		     {"multipart2.msg", "multipart2.json"},
		     {"related.msg", "related.json"}};
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		size_t len;
		g_autofree char *text = sample_read(names[i].json, &len);
		if (text == NULL)
			skip(); /* leaves by longjmp: nothing may be held yet */
		g_autoptr(Blob) raw = sample_blob(names[i].msg);
		assert_non_null(raw);
		g_autoptr(json_t) want = json_parse(names[i].json, text, len, NULL);
		g_autoptr(json_t) seen = json_object();
		renumber(want, seen);
		g_autoptr(TxBody) body = parse_blob(raw, 65536);
		g_autofree char *a = json_print(body->builder);
		g_autofree char *b = json_print(want);
		print_message("# %s\n", names[i].msg);
		assert_string_equal(a, b);
		g_autofree char *first = blob_to_string(tx_body_part(body, "0")->blob, 100, &len,
							NULL);
		assert_string_equal(first, "yolocat");
	}
}

static void
test_sample_dsn(void **state)
{
	(void)state;
	static const char *const names[] = {"dsn.msg", "dsn-text-rfc822-headers.msg"};
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		g_autoptr(Blob) raw = sample_blob(names[i]);
		if (raw == NULL)
			skip();
		g_autoptr(TxBody) body = parse_blob(raw, 65536);
		json_t *parts = json_object_get(json_object_get(body->builder, "parts"), "parts");
		assert_int_equal(json_array_size(parts), 3);
		json_t *status = json_array_get(parts, 1);
		assert_string_equal(json_get_str(status, "content_type"),
				    "message/delivery-status");
		assert_int_equal(json_array_size(json_object_get(status, "parts")), 2);
		json_t *third = json_array_get(parts, 2);
		assert_int_equal(json_array_size(json_object_get(third, "parts")), 1);
		json_t *inner = json_array_get(json_object_get(third, "parts"), 0);
		assert_true(json_array_size(json_object_get(inner, "headers")) > 0);
	}
}

int
main(void)
{
	mime_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),        cmocka_unit_test(test_inline_limit),
		cmocka_unit_test(test_flat),        cmocka_unit_test(test_depth),
		cmocka_unit_test(test_parts_limit), cmocka_unit_test(test_big),
		cmocka_unit_test(test_samples),     cmocka_unit_test(test_sample_dsn),
		cmocka_unit_test(test_many_parts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
