/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "mime/build.h"
#include "mime/mime.h"
#include "mime/parse.h"
#include "mime/validate.h"
#include "samples.h"

static json_t *
load(const char *text)
{
	GError *error = NULL;
	json_t *json = json_parse("test", text, strlen(text), &error);
	if (json == NULL)
		print_message("# %s\n", error->message);
	assert_non_null(json);
	return json;
}

/* Parts p0..p9 hold "part N"; "bin" is no UTF-8, "empty" is empty. */
static TxBody *
body_of(json_t *spec)
{
	TxBody *body = tx_body_new_builder(spec, NULL);
	for (int i = 0; i < 10; i++) {
		g_autofree char *id = g_strdup_printf("p%d", i);
		g_autofree char *text = g_strdup_printf("part %d", i);
		g_autoptr(Blob) blob = blob_new_bytes(text, strlen(text));
		tx_body_add_part(body, id, blob);
	}
	g_autoptr(Blob) bin = blob_new_bytes("a\xff", 2);
	tx_body_add_part(body, "bin", bin);
	g_autoptr(Blob) empty = blob_new_bytes("", 0);
	tx_body_add_part(body, "empty", empty);
	return body;
}

static char *
render(const char *spec, GError **ret_error)
{
	g_autoptr(json_t) json = load(spec);
	g_autoptr(TxBody) body = body_of(json);
	g_autoptr(Blob) blob = mime_build(body, ret_error);
	size_t len;
	return blob != NULL ? blob_to_string(blob, 1 << 24, &len, NULL) : NULL;
}

/* No line longer than 998, none that ends in a bare CR or LF. */
static void
check_lines(const char *text)
{
	for (const char *p = text; *p != '\0';) {
		size_t len = strcspn(p, "\r\n");
		assert_true(len <= 998);
		assert_memory_equal(p + len, "\r\n", 2);
		p += len + 2;
	}
}

typedef struct HeaderRow {
	const char *spec; /* of one entry of "headers" */
	const char *want; /* the field, without the last line end */
} HeaderRow;

static const HeaderRow HEADERS[] = {
	{"[\"from\",[{\"display_name\":\"alice a\",\"address\":\"alice@example.com\"}]]",
	 "from: alice a <alice@example.com>"},
	{"[\"to\",[{\"address\":\"a@b\"},{\"display_name\":\"\",\"address\":\"c@d\"}]]",
	 "to: a@b, c@d"},
	{"[\"cc\",[{\"display_name\":\"J. \\\"Q\\\" Doe\",\"address\":\"a@b\"}]]",
	 "cc: \"J. \\\"Q\\\" Doe\" <a@b>"},
	{"[\"cc\",[{\"display_name\":\"\xc3\xa4\",\"address\":\"a@b\"}]]",
	 "cc: =?utf-8?B?w6Q=?= <a@b>"},
	{"[\"cc\",[{\"display_name\":\"=?utf-8?q?x?=\",\"address\":\"a@b\"}]]",
	 "cc: =?utf-8?B?PT91dGYtOD9xP3g/PQ==?= <a@b>"},
	{"[\"cc\",[{\"address\":\"\\\"a b\\\"@c\"}]]", "cc: \"a b\"@c"},
	{"[\"bcc\",[{\"address\":\"a@b\"}]]", ""}, /* for nobody else to see */
	{"[\"Bcc\",\"a@b\"]", ""},
	{"[\"Resent-BCC\",\"a@b\"]", ""},
	{"[\"to\",[{\"address\":\"a@b\xc3\xbc"
	 "cher.example\"}]]",
	 "to: a@xn--bcher-kva.example"},
	{"[\"to\",[]]", ""},
	{"[\"subject\",\"hello\"]", "subject: hello"},
	{"[\"Subject\",\"h\xc3\xa4llo\"]", "Subject: =?utf-8?B?aMOkbGxv?="},
	{"[\"subject\",\"one two h\xc3\xa4 ll\xc3\xb6 three\"]",
	 "subject: one two =?utf-8?B?aMOkIGxsw7Y=?= three"},
	{"[\"subject\",\"\"]", "subject: "},
	{"[\"subject\",\"   \"]", "subject: "},
	{"[\"subject\",\"a  b\\tc\"]", "subject: a  b\tc"},
	/* Blanks in front of an encoded word: one stands there, others are encoded with it. */
	{"[\"subject\",\"one \\t h\xc3\xa4\"]", "subject: one =?utf-8?B?CSBow6Q=?="},
	{"[\"subject\",\"one\\th\xc3\xa4\"]", "subject: one\t=?utf-8?B?aMOk?="},
	/* As many as may stand in front of a word, and one more. */
	{"[\"subject\",\"a                                        b\"]",
	 "subject: a                                        b"},
	{"[\"subject\",\"a                                         b\"]",
	 "subject: a\r\n =?utf-8?B?"
	 "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIGI=?="},
	{"[\"date\",{\"unix_secs\":1709750551,\"tz_offset\":-28800}]",
	 "date: Wed, 06 Mar 2024 10:42:31 -0800"},
	{"[\"date\",{\"unix_secs\":1234567890}]", "date: Fri, 13 Feb 2009 23:31:30 +0000"},
	{"[\"Date\",\"verbatim\"]", "Date: verbatim"},
	{"[\"message-id\",[\"abc@xyz\"]]", "message-id: <abc@xyz>"},
	{"[\"message-id\",\"abc@xyz\"]", "message-id: <abc@xyz>"},
	{"[\"references\",[\"a@b\",\"c@d\"]]", "references: <a@b> <c@d>"},
	{"[\"content-type\",[\"x/y\",{}]]", ""},
	{"[\"just one\"]", ""},
	{"[\"X\",\"a\",\"b\"]", ""},
	{"\"x\"", ""},
	{"[\"X-Long\",\"0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 "
	 "0123456789 0123456789\"]",
	 "X-Long: 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789\r\n"
	 " 0123456789 0123456789"},
};

static void
test_headers(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(HEADERS); i++) {
		g_autofree char *spec = g_strdup_printf("{\"headers\":[%s]}", HEADERS[i].spec);
		GError *error = NULL;
		print_message("# %s\n", spec);
		g_autofree char *got = render(spec, &error);
		assert_non_null(got);
		g_autofree char *want = g_strconcat(
			HEADERS[i].want, *HEADERS[i].want != '\0' ? "\r\n" : "", "\r\n", NULL);
		assert_string_equal(got, want);
	}
}

typedef struct BadRow {
	const char *spec;
	const char *error; /* its beginning */
} BadRow;

static const BadRow BAD[] = {
	{"{\"headers\":[[\"subject\",\"a\\r\\nBcc: x@y\"]]}", "headers[0]: control"},
	{"{\"headers\":[[\"subject\",\"a\\nb\"]]}", "headers[0]: control"},
	{"{\"headers\":[[\"subject\",\"a\\rb\"]]}", "headers[0]: control"},
	{"{\"headers\":[[\"X\",\"ok\"],[\"a: b\\r\\nc\",\"x\"]]}", "headers[1]: bad field name"},
	{"{\"headers\":[[\"a b\",\"x\"]]}", "headers[0]: bad field name"},
	{"{\"headers\":[[\"\",\"x\"]]}", "headers[0]: bad field name"},
	{"{\"headers\":[[\"\xc3\xa4\",\"x\"]]}", "headers[0]: bad field name"},
	{"{\"headers\":[[\"subject\",1]]}", "headers[0]: the value is no text"},
	{"{\"headers\":[[\"subject\",\"a\"],[\"Subject\",\"b\"]]}", "headers[1]: this field"},
	{"{\"headers\":[[\"from\",\"a@b\"]]}", "headers[0]: not a list"},
	{"{\"headers\":[[\"from\",[{\"address\":\"a\"}]]]}", "headers[0]: bad address"},
	{"{\"headers\":[[\"from\",[{\"address\":\"a@b>, <c@d\"}]]]}", "headers[0]: bad address"},
	{"{\"headers\":[[\"from\",[{\"address\":\"a@b\\r\\nX: y\"}]]]}", "headers[0]: bad address"},
	{"{\"headers\":[[\"from\",[{\"address\":\"\xc3\xa4@b\"}]]]}", "headers[0]: bad address"},
	{"{\"headers\":[[\"from\",[{\"display_name\":\"x\"}]]]}", "headers[0]: an address"},
	{"{\"headers\":[[\"from\",[{\"display_name\":\"a\\r\\nb\",\"address\":\"a@b\"}]]]}",
	 "headers[0]: control"},
	{"{\"headers\":[[\"date\",{}]]}", "headers[0]: bad date"},
	{"{\"headers\":[[\"date\",{\"unix_secs\":0}]]}", "headers[0]: bad date"},
	{"{\"headers\":[[\"date\",{\"unix_secs\":1,\"tz_offset\":90000}]]}",
	 "headers[0]: bad date"},
	{"{\"headers\":[[\"date\",\"x\"]]}", "headers[0]: bad date"},
	{"{\"headers\":[[\"message-id\",[\"a> b\"]]]}", "headers[0]: bad message id"},
	{"{\"headers\":[[\"message-id\",[\"a\\r\\nb\"]]]}", "headers[0]: bad message id"},
	{"{\"headers\":[[\"message-id\",[\"\"]]]}", "headers[0]: bad message id"},
	{"{\"headers\":{}}", "headers: not a list"},
	{"{\"text_body\":{}}", "text_body: not a list"},
	{"{\"text_body\":[{\"content\":{\"create_id\":\"p0\"}}]}", "text_body[0].content_type:"},
	{"{\"text_body\":[{\"content_type\":\"text\",\"content\":{\"create_id\":\"p0\"}}]}",
	 "text_body[0].content_type:"},
	{"{\"text_body\":[{\"content_type\":\"text/x\\r\\nA: b\",\"content\":{\"create_id\":\"p0\"}}]}",
	 "text_body[0].content_type:"},
	{"{\"text_body\":[{\"content_type\":\"text/plain\"}]}", "text_body[0].content:"},
	{"{\"text_body\":[{\"content_type\":\"text/plain\",\"content\":{\"create_id\":\"p0\"}},"
	 "{\"content_type\":\"text/plain\",\"content\":{\"create_id\":\"zz\"}}]}",
	 "text_body[1].content: no such part"},
	{"{\"text_body\":[{\"content_type\":\"text/plain\",\"content\":{\"create_id\":\"bin\"}}]}",
	 "text_body[0].content: text that is not UTF-8"},
	{"{\"file_attachments\":[{\"content_type\":\"a/b\",\"filename\":\"x\\r\\ny\",\"content\":{"
	 "\"create_id\":\"p0\"}}]}",
	 "file_attachments[0].filename:"},
	{"{\"related_attachments\":[{\"content_type\":\"a/b\",\"content_id\":\"x\\ny\",\"content\":{"
	 "\"create_id\":\"p0\"}}]}",
	 "related_attachments[0].content_id:"},
};

static void
test_bad(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(BAD); i++) {
		g_autoptr(GError) error = NULL;
		print_message("# %s\n", BAD[i].spec);
		g_autofree char *got = render(BAD[i].spec, &error);
		assert_null(got);
		assert_true(g_error_matches(error, K_ERROR, K_ERROR_INPUT));
		assert_int_equal(strncmp(error->message, BAD[i].error, strlen(BAD[i].error)), 0);
	}
}

#define TEXT(id)  "{\"content_type\":\"text/plain\",\"content\":{\"create_id\":\"" id "\"}}"
#define IMAGE(id) "{\"content_type\":\"image/png\",\"content\":{\"create_id\":\"" id "\"}}"

/* Structure as the parser sees it: types by depth. */
static void
outline(const json_t *part, GString *out)
{
	g_string_append(out, json_string_value(json_object_get(part, "content_type")));
	const json_t *parts = json_object_get(part, "parts");
	if (parts == NULL)
		return;
	g_string_append_c(out, '(');
	for (size_t i = 0; i < json_array_size(parts); i++) {
		if (i > 0)
			g_string_append_c(out, ' ');
		outline(json_array_get(parts, i), out);
	}
	g_string_append_c(out, ')');
}

static void
test_structure(void **state)
{
	(void)state;
	static const struct {
		const char *spec, *want;
	} rows[] = {
		{"{\"text_body\":[" TEXT("p0") "]}", "text/plain"},
		{"{\"text_body\":[" TEXT("empty") "]}", "text/plain"},
		{"{\"text_body\":[" TEXT("p0") "," TEXT("p1") "]}",
		 "multipart/alternative(text/plain text/plain)"},
		{"{\"text_body\":[" TEXT("p0") "],\"related_attachments\":[" IMAGE("bin") "]}",
		 "multipart/related(text/plain image/png)"},
		{"{\"text_body\":[" TEXT("empty") "],\"file_attachments\":[" IMAGE("empty") "]}",
		 "multipart/mixed(text/plain image/png)"},
		{"{\"file_attachments\":[" IMAGE("bin") "]}", "multipart/mixed(image/png)"},
		{"{\"related_attachments\":[" IMAGE("bin") "]}", "multipart/related(image/png)"},
		{"{\"text_body\":[" TEXT("p0") "," TEXT("p1") "," TEXT("p2") "],\"related_attachments\":[" IMAGE(
			 "p3") "," IMAGE("p4") "],\"file_attachments\":[" IMAGE("p5") "," IMAGE("p6") "]}",
		 "multipart/mixed(multipart/alternative(multipart/related(text/plain image/png "
		 "image/png) text/plain text/plain) image/png image/png)"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree char *got = render(rows[i].spec, NULL);
		assert_non_null(got);
		check_lines(got);
		assert_non_null(strstr(got, "MIME-Version: 1.0\r\n"));
		g_autoptr(Blob) blob = blob_new_bytes(got, strlen(got));
		MimeParseOptions options = {.max_inline = 65536};
		g_autoptr(TxBody) parsed = mime_parse(blob, &options, NULL);
		g_autoptr(GString) line = g_string_new(NULL);
		outline(json_object_get(parsed->builder, "parts"), line);
		assert_string_equal(line->str, rows[i].want);
	}
}

static void
test_single(void **state)
{
	(void)state;
	g_autofree char *got = render(
		"{\"headers\":[[\"subject\",\"x\"]],\"text_body\":[" TEXT("p0") "]}", NULL);
	assert_string_equal(got, "subject: x\r\nContent-Transfer-Encoding: base64\r\n"
				 "MIME-Version: 1.0\r\n"
				 "Content-Type: text/plain; charset=\"utf-8\"\r\n\r\n"
				 "cGFydCAw\r\n");
}

static void
test_filenames(void **state)
{
	(void)state;
	static const struct {
		const char *name; /* as JSON writes it */
		const char *want;
	} rows[] = {
		{"a.pdf", "Content-Disposition: attachment; filename=\"a.pdf\"\r\n"},
		{"a \\\"b\\\" \\\\.pdf", "filename=\"a \\\"b\\\" \\\\.pdf\"\r\n"},
		{"\xc3\xa4.pdf", "filename*=utf-8''%C3%A4.pdf\r\n"},
		{"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe6\x97\xa5",
		 "filename*0*=utf-8''%E6%97%A5"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree char *spec = g_strdup_printf(
			"{\"file_attachments\":[{\"content_type\":\"a/b\",\"filename\":\"%s\",\"content\":{"
			"\"create_id\":\"p0\"}}]}",
			rows[i].name);
		g_autofree char *got = render(spec, NULL);
		assert_non_null(got);
		check_lines(got);
		assert_non_null(strstr(got, rows[i].want));
		/* It comes back. */
		g_autoptr(Blob) blob = blob_new_bytes(got, strlen(got));
		MimeParseOptions options = {.max_inline = 65536};
		g_autoptr(TxBody) parsed = mime_parse(blob, &options, NULL);
		json_t *item = json_array_get(json_object_get(parsed->builder, "file_attachments"),
					      0);
		g_autoptr(json_t) asked = load(spec);
		json_t *want = json_array_get(json_object_get(asked, "file_attachments"), 0);
		assert_string_equal(json_get_str(item, "filename"), json_get_str(want, "filename"));
	}
}

/* Long and odd texts come back as they went, in lines of bounded length. */
static void
test_text_round_trip(void **state)
{
	(void)state;
	static const char *const words[] = {"a",
					    "\xc3\xa4",
					    "\xe6\x97\xa5\xe6\x9c\xac",
					    "=?",
					    "longer-word",
					    "\"",
					    "\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80"};
	for (unsigned n = 1; n < 400; n = n * 3 / 2 + 1) {
		g_autoptr(GString) text = g_string_new(NULL);
		for (unsigned i = 0; i < n; i++)
			g_string_append_printf(text, "%s%s", i > 0 ? " " : "",
					       words[i * 5 % G_N_ELEMENTS(words)]);
		g_autoptr(json_t) spec = json_object();
		json_t *headers = json_array();
		json_t *pair = json_array();
		json_array_append_new(pair, json_string("x-text"));
		json_array_append_new(pair, json_string(text->str));
		json_array_append_new(headers, pair);
		json_object_set_new(spec, "headers", headers);
		g_autoptr(TxBody) body = body_of(spec);
		g_autoptr(Blob) blob = mime_build(body, NULL);
		assert_non_null(blob);
		size_t len;
		g_autofree char *got = blob_to_string(blob, 1 << 20, &len, NULL);
		check_lines(got);
		MimeParseOptions options = {0};
		g_autoptr(TxBody) parsed = mime_parse(blob, &options, NULL);
		json_t *parts = json_object_get(parsed->builder, "parts");
		json_t *back = json_array_get(json_object_get(parts, "headers"), 0);
		assert_string_equal(json_string_value(json_array_get(back, 1)), text->str);
	}
}

static void
test_long_word(void **state)
{
	(void)state;
	for (size_t len = 899; len < 903; len++) {
		g_autofree char *word = g_strnfill(len, 'w');
		g_autofree char *spec = g_strdup_printf("{\"headers\":[[\"x\",\"%s\"]]}", word);
		g_autofree char *got = render(spec, NULL);
		check_lines(got);
		assert_int_equal(strstr(got, "=?utf-8?B?") != NULL, len > 900);
	}
}

static void
test_limits(void **state)
{
	(void)state;
	for (unsigned extra = 0; extra < 2; extra++) {
		g_autoptr(GString) headers = g_string_new("{\"headers\":[[\"x\",\"y\"]");
		for (unsigned i = 1; i < MIME_BUILD_HEADERS_MAX + extra; i++)
			g_string_append(headers, ",[\"x\",\"y\"]");
		g_string_append(headers, "]}");
		g_autoptr(json_t) a = load(headers->str);
		assert_int_equal(mime_build_check(a, NULL), extra == 0);
		g_autoptr(GString) parts = g_string_new("{\"text_body\":[" TEXT("p0"));
		for (unsigned i = 1; i < MIME_BUILD_PARTS_MAX + extra; i++)
			g_string_append(parts, "," TEXT("p0"));
		g_string_append(parts, "]}");
		g_autoptr(json_t) b = load(parts->str);
		assert_int_equal(mime_build_check(b, NULL), extra == 0);
	}
}

/* Contents around the lengths where lines and buffers end. */
static void
test_content_sizes(void **state)
{
	(void)state;
	static const size_t sizes[] = {0, 1, 56, 57, 58, 65535, 65536, 65537, 131072, 300000};
	for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
		g_autofree char *data = g_malloc(sizes[i] + 1);
		for (size_t j = 0; j < sizes[i]; j++)
			data[j] = (char)(j * 7);
		g_autoptr(json_t) spec = load("{\"file_attachments\":[" IMAGE("x") "]}");
		g_autoptr(TxBody) body = tx_body_new_builder(spec, NULL);
		/* In two pieces, so that a base64 line crosses the seam. */
		size_t cut = sizes[i] / 3;
		g_autoptr(Blob) rest = blob_new_bytes(data + cut, sizes[i] - cut);
		g_autoptr(Blob) part = blob_new_prefixed(data, cut, rest);
		tx_body_add_part(body, "x", part);
		g_autoptr(Blob) message = mime_build(body, NULL);
		assert_non_null(message);
		MimeParseOptions options = {0};
		g_autoptr(TxBody) parsed = mime_parse(message, &options, NULL);
		size_t len;
		g_autofree char *back = blob_to_string(tx_body_part(parsed, "0")->blob, 1 << 20,
						       &len, NULL);
		assert_int_equal(len, sizes[i]);
		assert_memory_equal(back, data, len);
	}
}

/* A multi-byte character across the pieces of a blob. */
static void
test_utf8_seam(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool ok;
	} rows[] = {{"a\xe6\x97\xa5"
		     "b",
		     true},
		    {"\xf0\x9f\x98\x80", true},
		    {"\xed\xa0\x80", false},
		    {"\xc0\x80", false},
		    {"\xf4\x90\x80\x80", false},
		    {"\xe6\x97", false},
		    {"\xf8\x88\x80\x80\x80", false}};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		size_t len = strlen(rows[i].text);
		for (size_t cut = 0; cut <= len; cut++) {
			g_autoptr(json_t) spec = load("{\"text_body\":[" TEXT("x") "]}");
			g_autoptr(TxBody) body = tx_body_new_builder(spec, NULL);
			g_autoptr(Blob) rest = blob_new_bytes(rows[i].text + cut, len - cut);
			g_autoptr(Blob) part = blob_new_prefixed(rows[i].text, cut, rest);
			tx_body_add_part(body, "x", part);
			g_autoptr(Blob) message = mime_build(body, NULL);
			assert_int_equal(message != NULL, rows[i].ok);
		}
	}
}

/* Inline contents become parts, as the REST API does at creation. */
static TxBody *
normalise(json_t *spec)
{
	static const char *const lists[] = {"text_body", "related_attachments", "file_attachments"};
	TxBody *body = tx_body_new_builder(spec, NULL);
	unsigned n = 0;
	for (size_t l = 0; l < G_N_ELEMENTS(lists); l++) {
		json_t *list = json_object_get(spec, lists[l]);
		for (size_t i = 0; i < json_array_size(list); i++) {
			json_t *content = json_object_get(json_array_get(list, i), "content");
			const char *text = json_get_str(content, "inline");
			g_autofree char *id = g_strdup_printf("inline%u", n++);
			g_autoptr(Blob) blob = blob_new_bytes(text, strlen(text));
			tx_body_add_part(body, id, blob);
			json_object_clear(content);
			json_object_set_new(content, "create_id", json_string(id));
		}
	}
	return body;
}

static void
test_sample(void **state)
{
	(void)state;
	size_t len;
	g_autofree char *text = sample_read("builder-sample.json", &len);
	if (text == NULL)
		skip();
	g_autoptr(json_t) spec = load(text);
	g_autoptr(TxBody) body = normalise(spec);
	g_autoptr(Blob) message = mime_build(body, NULL);
	assert_non_null(message);
	MimeVerdict verdict;
	MimeValidateOptions none = {0};
	assert_true(mime_validate(message, &none, &verdict, NULL));
	assert_int_equal(verdict.status, MIME_VALID_HIGH);
	mime_verdict_clear(&verdict);
	MimeParseOptions options = {.max_inline = 65536};
	g_autoptr(TxBody) parsed = mime_parse(message, &options, NULL);
	/* The first fields come back as they were asked for, but for in-reply-to and references
	 * (text there) and message-id (one id). */
	json_t *asked = json_object_get(spec, "headers");
	json_t *got = json_object_get(json_object_get(parsed->builder, "parts"), "headers");
	g_autofree char *want_from = json_print(json_array_get(asked, 0));
	g_autofree char *got_from = json_print(json_array_get(got, 0));
	assert_string_equal(got_from, want_from);
	g_autofree char *want_date = json_print(json_array_get(asked, 3));
	g_autofree char *got_date = json_print(json_array_get(got, 3));
	assert_string_equal(got_date, want_date);
	json_t *file = json_array_get(json_object_get(parsed->builder, "file_attachments"), 0);
	assert_string_equal(json_get_str(file, "filename"), "hipstercat.png");
	const TxPart *part = tx_body_part(
		parsed, json_get_str(json_object_get(file, "content"), "create_id"));
	g_autofree char *bytes = blob_to_string(part->blob, 1000, &len, NULL);
	assert_string_equal(bytes, "attachment contents");
}

int
main(void)
{
	mime_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_headers),       cmocka_unit_test(test_bad),
		cmocka_unit_test(test_structure),     cmocka_unit_test(test_single),
		cmocka_unit_test(test_filenames),     cmocka_unit_test(test_text_round_trip),
		cmocka_unit_test(test_long_word),     cmocka_unit_test(test_limits),
		cmocka_unit_test(test_content_sizes), cmocka_unit_test(test_utf8_seam),
		cmocka_unit_test(test_sample),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
