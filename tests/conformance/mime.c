/* SPDX-License-Identifier: Apache-2.0 */
/* Shows what our readers make of messages and of field values, for test_conformance.py, which
 * compares it with others.
 *
 *   conformance-mime messages FILE...   a JSON object a line: what the parser makes of it, and what
 *                                       it makes of the message that the builder makes of that
 *   conformance-mime fields             reads {"kind": ..., "text": ...} lines from standard input
 *
 * Line ends of messages become CRLF first, as SMTP has them. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "mime/addr.h"
#include "mime/build.h"
#include "mime/date.h"
#include "mime/mime.h"
#include "mime/parse.h"
#include "mime/tree.h"
#include "mime/validate.h"
#include "mime/value.h"
#include "smtp/syntax.h"

#define LINE_MAX_BYTES (1024 * 1024)
#define BLOB_MAX       (64 * 1024 * 1024)
#define INLINE_MAX     (16 * 1024 * 1024)

static const char *const LISTS[] = {"text_body", "related_attachments", "file_attachments"};

/* ---- messages ---- */

static Blob *
read_message(const char *path)
{
	g_autofree char *text = NULL;
	gsize len = 0;
	if (!g_file_get_contents(path, &text, &len, NULL))
		return NULL;
	g_autoptr(GString) out = g_string_sized_new(len);
	for (gsize i = 0; i < len; i++) {
		if (text[i] == '\n' && (i == 0 || text[i - 1] != '\r'))
			g_string_append_c(out, '\r');
		g_string_append_c(out, text[i]);
	}
	return blob_new_bytes(out->str, out->len);
}

/* {"0": base64, ...} */
static json_t *
show_blobs(const TxBody *body)
{
	json_t *all = json_object();
	for (guint i = 0; body->parts != NULL && i < body->parts->len; i++) {
		const TxPart *part = g_ptr_array_index(body->parts, i);
		size_t len = 0;
		g_autofree char *data = blob_to_string(part->blob, BLOB_MAX, &len, NULL);
		g_autofree char *text = g_base64_encode((const guchar *)data, len);
		json_object_set_new(all, part->id, json_string(text));
	}
	return all;
}

/* Fields that the builder would take: once each, none of MIME's own, no date that is text. */
static json_t *
fields_to_build(const json_t *headers)
{
	json_t *out = json_array();
	g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
	size_t i;
	json_t *pair;
	json_array_foreach((json_t *)(uintptr_t)headers, i, pair)
	{
		const char *name = json_string_value(json_array_get(pair, 0));
		json_t *value = json_array_get(pair, 1);
		if (!g_hash_table_add(seen, (gpointer)(uintptr_t)name) ||
		    g_str_has_prefix(name, "content-") || strcmp(name, "mime-version") == 0 ||
		    (strcmp(name, "date") == 0 && !json_is_object(value)))
			continue;
		if (strcmp(name, "message-id") == 0)
			json_array_append_new(out, json_pack("[s, [O]]", name, value));
		else if (strcmp(name, "references") != 0 && strcmp(name, "in-reply-to") != 0)
			json_array_append(out, pair);
	}
	return out;
}

/* Text that is inline becomes a part, as at the creation of a transaction; containers, which have
 * no content, are left out. */
static void
add_list(json_t *spec, TxBody *body, const char *name, const json_t *list)
{
	json_t *out = json_array();
	size_t i;
	json_t *item;
	json_array_foreach((json_t *)(uintptr_t)list, i, item)
	{
		const json_t *content = json_object_get(item, "content");
		const char *text = json_get_str(content, "inline");
		if (content == NULL)
			continue;
		json_t *copy = json_deep_copy(item);
		json_array_append_new(out, copy);
		if (text == NULL)
			continue;
		g_autofree char *id = g_strdup_printf("%s%zu", name, i);
		g_autoptr(Blob) blob = blob_new_bytes(text, strlen(text));
		json_object_set_new(copy, "content", json_pack("{s:s}", "create_id", id));
		tx_body_add_part(body, id, blob);
	}
	json_object_set_new(spec, name, out);
}

/* The message that the builder makes of what was parsed, parsed again. */
static void
build_again(const TxBody *parsed, json_t *out)
{
	g_autoptr(json_t) spec = json_object();
	json_object_set_new(spec, "headers",
			    fields_to_build(json_object_get(
				    json_object_get(parsed->builder, "parts"), "headers")));
	g_autoptr(TxBody) body = tx_body_new_builder(spec, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(LISTS); i++)
		add_list(spec, body, LISTS[i], json_object_get(parsed->builder, LISTS[i]));
	for (guint i = 0; parsed->parts != NULL && i < parsed->parts->len; i++) {
		const TxPart *part = g_ptr_array_index(parsed->parts, i);
		tx_body_add_part(body, part->id, part->blob);
	}
	g_autoptr(GError) error = NULL;
	g_autoptr(Blob) made = mime_build(body, &error);
	if (made == NULL) {
		json_object_set_new(out, "refused", json_string(error->message));
		return;
	}
	const MimeParseOptions options = {.max_inline = INLINE_MAX};
	g_autoptr(TxBody) again = mime_parse(made, &options, NULL);
	json_object_set(out, "asked", spec);
	json_object_set(out, "again", again->builder);
	json_object_set_new(out, "again_blobs", show_blobs(again));
}

static int
show_message(const char *path)
{
	static const char *const levels[MIME_VALIDITIES] = {"NONE", "BASIC", "MEDIUM", "HIGH"};
	g_autoptr(Blob) raw = read_message(path);
	if (raw == NULL) {
		(void)fprintf(stderr, "%s: cannot be read\n", path);
		return 1;
	}
	const MimeParseOptions options = {.max_inline = INLINE_MAX};
	g_autoptr(TxBody) body = mime_parse(raw, &options, NULL);
	MimeVerdict verdict;
	const MimeValidateOptions how = {0};
	if (body == NULL || !mime_validate(raw, &how, &verdict, NULL))
		return 1;
	g_autoptr(json_t) out = json_object();
	json_object_set_new(out, "file", json_string(path));
	json_object_set(out, "parsed", body->builder);
	json_object_set_new(out, "blobs", show_blobs(body));
	json_object_set_new(out, "validity", json_string(levels[verdict.status]));
	build_again(body, out);
	g_autofree char *text = json_print(out);
	puts(text);
	mime_verdict_clear(&verdict);
	return 0;
}

/* ---- field values ---- */

static json_t *
show_addresses(const char *text)
{
	MimeAddrs addrs;
	mime_addrs_parse(text, &addrs);
	json_t *list = json_array();
	for (guint i = 0; i < addrs.list->len; i++) {
		const MimeAddr *addr = g_ptr_array_index(addrs.list, i);
		g_autofree char *name = mime_decode_phrase(addr->name);
		json_array_append_new(list, json_pack("[s?, s?]", name, addr->addr));
	}
	json_t *out = json_pack("{s:o, s:s?}", "list", list, "fault", addrs.fault);
	mime_addrs_clear(&addrs);
	return out;
}

static json_t *
show_value(const char *text, bool slash)
{
	MimeValue value;
	mime_value_parse(text, slash, &value);
	json_t *params = json_object();
	for (guint i = 0; i < value.params->len; i++) {
		const MimeParam *param = g_ptr_array_index(value.params, i);
		json_object_set_new(params, param->name, json_string(param->value));
	}
	json_t *out = json_pack("{s:s, s:o, s:s?}", "value", value.value, "params", params, "fault",
				value.fault);
	mime_value_clear(&value);
	return out;
}

/* As an addr-spec of a header field, and as the path of a RCPT command. */
static json_t *
show_path(const char *text)
{
	g_autofree char *arg = g_strdup_printf("TO:<%s>", text);
	Mailbox *rcpt = NULL;
	SmtpPathResult result = smtp_parse_path(arg, strlen(arg), SMTP_PATH_RCPT, true, &rcpt);
	bool same = result == SMTP_PATH_OK && strcmp(rcpt->addr, text) == 0;
	if (result == SMTP_PATH_OK)
		mailbox_unref(rcpt);
	return json_pack("{s:b, s:b}", "header", mime_addr_spec_ok(text), "envelope", same);
}

static json_t *
show_field(const json_t *question)
{
	const char *kind = json_get_str(question, "kind");
	const char *text = json_get_str(question, "text");
	if (g_strcmp0(kind, "addresses") == 0)
		return show_addresses(text);
	if (g_strcmp0(kind, "type") == 0)
		return show_value(text, true);
	if (g_strcmp0(kind, "disposition") == 0)
		return show_value(text, false);
	if (g_strcmp0(kind, "address") == 0)
		return show_path(text);
	if (g_strcmp0(kind, "id") == 0)
		return json_pack("{s:s?}", "fault", mime_msg_id_fault(text));
	return NULL;
}

static int
show_fields(void)
{
	g_autofree char *line = g_malloc(LINE_MAX_BYTES);
	while (fgets(line, LINE_MAX_BYTES, stdin) != NULL) {
		g_autoptr(json_t) question = json_parse("question", line, strlen(line), NULL);
		g_autoptr(json_t) out = question != NULL ? show_field(question) : NULL;
		if (out == NULL) {
			(void)fprintf(stderr, "what is %s", line);
			return 1;
		}
		g_autofree char *text = json_print(out);
		puts(text);
	}
	return 0;
}

int
main(int argc, char **argv)
{
	mime_init();
	if (argc == 2 && strcmp(argv[1], "fields") == 0)
		return show_fields();
	if (argc < 3 || strcmp(argv[1], "messages") != 0) {
		(void)fputs("conformance-mime messages FILE... | fields\n", stderr);
		return 2;
	}
	for (int i = 2; i < argc; i++)
		if (show_message(argv[i]) != 0)
			return 1;
	return 0;
}
