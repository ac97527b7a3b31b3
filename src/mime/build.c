/* SPDX-License-Identifier: Apache-2.0 */
/* multipart/mixed( multipart/alternative( multipart/related( T, R... ), T'... ), F... ), each
 * wrapper only where it is needed (spec 15.3). */
#include "mime/build.h"

#include <string.h>

#include "base/error.h"
#include "base/ids.h"
#include "base/text.h"
#include "mime/base64.h"
#include "mime/build_int.h"
#include "mime/fold.h"
#include "mime/reader.h"
#include "mime/value.h"

#define FLUSH_AT      (64 * 1024)
#define TYPE_MAX      200 /* bytes of a content type */
#define BOUNDARY_ROOM 40

typedef struct Build {
	const TxBody *body; /* NULL: only a check */
	const json_t *text, *related, *files;
	size_t n_text, n_related, n_files;
	Blob *blob; /* NULL: only a check */
	GString *buf;
	GError **error;
} Build;

static bool
flush(Build *b)
{
	bool ok = b->blob == NULL || blob_append(b->blob, b->buf->str, b->buf->len, b->error);
	g_string_truncate(b->buf, 0);
	return ok;
}

static bool
put(Build *b, const char *text)
{
	g_string_append(b->buf, text);
	return b->buf->len < FLUSH_AT || flush(b);
}

/* ---- content ---- */

/* UTF-8 in pieces (RFC 3629): `need` bytes are still to come, the next within low..high. */
typedef struct Utf8 {
	unsigned need;
	unsigned char low, high;
} Utf8;

static bool
utf8_start(Utf8 *u, unsigned char c)
{
	u->low = 0x80;
	u->high = 0xbf;
	if (c < 0x80)
		u->need = 0;
	else if (c >= 0xc2 && c <= 0xdf)
		u->need = 1;
	else if (c >= 0xe0 && c <= 0xef)
		u->need = 2;
	else if (c >= 0xf0 && c <= 0xf4)
		u->need = 3;
	else
		return false;
	if (c == 0xe0)
		u->low = 0xa0;
	else if (c == 0xed)
		u->high = 0x9f;
	else if (c == 0xf0)
		u->low = 0x90;
	else if (c == 0xf4)
		u->high = 0x8f;
	return true;
}

static bool
utf8_feed(Utf8 *u, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)data[i];
		if (u->need == 0) {
			if (!utf8_start(u, c))
				return false;
			continue;
		}
		if (c < u->low || c > u->high)
			return false;
		u->need--;
		u->low = 0x80;
		u->high = 0xbf;
	}
	return true;
}

static bool
put_line(Build *b, const char *raw, size_t len)
{
	char line[84];
	size_t n = mime_base64_line(raw, len, line);
	memcpy(line + n, "\r\n", 3);
	return put(b, line);
}

/* Base64 lines of the whole blob.  `utf8` may be NULL; *ret_bad: it is no UTF-8. */
static bool
put_base64(Build *b, const Blob *blob, Utf8 *utf8, bool *ret_bad)
{
	char carry[MIME_BASE64_LINE];
	size_t held = 0;
	const char *data;
	size_t len;
	bool ok = true;
	MimeReader reader;
	mime_reader_init(&reader, blob, 0, blob_len(blob));
	while (ok && !*ret_bad && mime_reader_piece(&reader, &data, &len)) {
		*ret_bad = utf8 != NULL && !utf8_feed(utf8, data, len);
		while (ok && len > 0) {
			if (held == 0 && len >= MIME_BASE64_LINE) {
				ok = put_line(b, data, MIME_BASE64_LINE);
				data += MIME_BASE64_LINE;
				len -= MIME_BASE64_LINE;
				continue;
			}
			size_t take = MIN(len, MIME_BASE64_LINE - held);
			memcpy(carry + held, data, take);
			held += take;
			data += take;
			len -= take;
			if (held == MIME_BASE64_LINE) {
				ok = put_line(b, carry, held);
				held = 0;
			}
		}
	}
	if (reader.error != NULL) {
		g_propagate_error(b->error, g_steal_pointer(&reader.error));
		ok = false;
	}
	mime_reader_clear(&reader);
	*ret_bad |= utf8 != NULL && utf8->need > 0;
	return ok && (held == 0 || put_line(b, carry, held));
}

/* ---- parts ---- */

/* "text_body[1]" */
typedef struct Part {
	const json_t *spec;
	const char *list;
	size_t index;
	const char *type, *id;
	const char *filename, *content_id; /* NULL: none */
	bool is_text, inline_disposition;
} Part;

static bool
bad(const Build *b, const Part *part, const char *member, const char *why)
{
	return error_set(b->error, K_ERROR_INPUT, "%s[%zu]%s: %s", part->list, part->index, member,
			 why);
}

static bool
type_is_ok(const char *type)
{
	const char *slash = type != NULL ? strchr(type, '/') : NULL;
	return slash != NULL && strlen(type) <= TYPE_MAX &&
	       mime_is_token(type, (size_t)(slash - type)) &&
	       mime_is_token(slash + 1, strlen(slash + 1));
}

/* An optional text member without controls. */
static bool
optional_text(const Build *b, const Part *part, const char *key, const char **ret_text)
{
	const json_t *value = json_object_get(part->spec, key);
	g_autofree char *member = g_strconcat(".", key, NULL);
	*ret_text = NULL;
	if (value == NULL || json_is_null(value))
		return true;
	if (!json_is_string(value))
		return bad(b, part, member, "not text");
	const char *text = json_string_value(value);
	if (mime_has_controls(text, false))
		return bad(b, part, member, "control character or line break");
	if (strlen(text) > MIME_WORD_MAX)
		return bad(b, part, member, "too long");
	*ret_text = *text != '\0' ? text : NULL;
	return true;
}

static bool
read_part(const Build *b, const json_t *list, const char *name, size_t index, Part *ret_part)
{
	Part part = {.spec = json_array_get(list, index), .list = name, .index = index};
	part.type = json_string_value(json_object_get(part.spec, "content_type"));
	if (!type_is_ok(part.type))
		return bad(b, &part, ".content_type", "not a type/subtype");
	part.is_text = text_has_prefix_nocase(part.type, "text/");
	part.id = json_string_value(
		json_object_get(json_object_get(part.spec, "content"), "create_id"));
	if (part.id == NULL)
		return bad(b, &part, ".content", "no create_id");
	if (b->body != NULL && tx_body_part(b->body, part.id) == NULL)
		return bad(b, &part, ".content", "no such part");
	if (!optional_text(b, &part, "filename", &part.filename) ||
	    !optional_text(b, &part, "content_id", &part.content_id))
		return false;
	if (part.content_id != NULL &&
	    !text_is_printable_ascii(part.content_id, strlen(part.content_id)))
		return bad(b, &part, ".content_id", "not ASCII");
	part.inline_disposition = list == b->related;
	*ret_part = part;
	return true;
}

static bool
put_part_fields(Build *b, const Part *part, bool top)
{
	MimeFold fold;
	if (top)
		g_string_append(b->buf,
				"Content-Transfer-Encoding: base64\r\nMIME-Version: 1.0\r\n");
	mime_fold_start(&fold, b->buf, "Content-Type");
	mime_fold_word(&fold, part->type, strlen(part->type));
	if (part->is_text) {
		mime_fold_glue(&fold, ";");
		mime_fold_param(&fold, "charset", "utf-8");
	}
	mime_fold_end(&fold);
	if (!top)
		g_string_append(b->buf, "Content-Transfer-Encoding: base64\r\n");
	if (part->inline_disposition) {
		g_string_append(b->buf, "Content-Disposition: inline\r\n");
	} else if (part->filename != NULL) {
		mime_fold_start(&fold, b->buf, "Content-Disposition");
		mime_fold_word(&fold, "attachment;", strlen("attachment;"));
		mime_fold_param(&fold, "filename", part->filename);
		mime_fold_end(&fold);
	}
	if (part->content_id != NULL) {
		mime_fold_start(&fold, b->buf, "Content-ID");
		mime_fold_text(&fold, part->content_id);
		mime_fold_end(&fold);
	}
	return put(b, "\r\n");
}

static bool
put_part(Build *b, const json_t *list, const char *name, size_t index, bool top)
{
	Part part = {0};
	if (!read_part(b, list, name, index, &part) || !put_part_fields(b, &part, top))
		return false;
	if (b->body == NULL)
		return true;
	const Blob *blob = tx_body_part(b->body, part.id)->blob;
	Utf8 utf8 = {0};
	bool not_utf8 = false;
	if (!put_base64(b, blob, part.is_text ? &utf8 : NULL, &not_utf8))
		return false;
	if (not_utf8)
		return bad(b, &part, ".content", "text that is not UTF-8");
	/* The boundary needs a line end of its own behind the empty line. */
	return top || blob_len(blob) > 0 || put(b, "\r\n");
}

/* ---- containers ---- */

static bool
open_multipart(Build *b, const char *subtype, char boundary[BOUNDARY_ROOM])
{
	uint64_t random[2];
	ids_random(random, sizeof random);
	/* "=_" occurs neither in base64 nor in quoted-printable. */
	(void)g_snprintf(boundary, BOUNDARY_ROOM,
			 "=_%016" G_GINT64_MODIFIER "x%016" G_GINT64_MODIFIER "x", random[0],
			 random[1]);
	g_string_append_printf(b->buf, "Content-Type: multipart/%s;\r\n boundary=\"%s\"\r\n\r\n",
			       subtype, boundary);
	return true;
}

static bool
next_part(Build *b, const char *boundary, bool last)
{
	g_string_append_printf(b->buf, last ? "--%s--\r\n" : "--%s\r\n", boundary);
	return true;
}

static bool
put_list(Build *b, const char *boundary, const json_t *list, const char *name, size_t from)
{
	for (size_t i = from; i < json_array_size(list); i++)
		if (!next_part(b, boundary, false) || !put_part(b, list, name, i, false))
			return false;
	return true;
}

static bool
put_related(Build *b)
{
	char boundary[BOUNDARY_ROOM];
	if (b->n_related == 0)
		return put_part(b, b->text, "text_body", 0, false);
	if (!open_multipart(b, "related", boundary))
		return false;
	if (b->n_text > 0 &&
	    (!next_part(b, boundary, false) || !put_part(b, b->text, "text_body", 0, false)))
		return false;
	return put_list(b, boundary, b->related, "related_attachments", 0) &&
	       next_part(b, boundary, true);
}

static bool
put_alternative(Build *b)
{
	char boundary[BOUNDARY_ROOM];
	if (b->n_text < 2)
		return put_related(b);
	return open_multipart(b, "alternative", boundary) && next_part(b, boundary, false) &&
	       put_related(b) && put_list(b, boundary, b->text, "text_body", 1) &&
	       next_part(b, boundary, true);
}

static bool
put_mixed(Build *b)
{
	char boundary[BOUNDARY_ROOM];
	if (b->n_files == 0)
		return put_alternative(b);
	if (!open_multipart(b, "mixed", boundary))
		return false;
	if (b->n_text + b->n_related > 0 && (!next_part(b, boundary, false) || !put_alternative(b)))
		return false;
	return put_list(b, boundary, b->files, "file_attachments", 0) &&
	       next_part(b, boundary, true);
}

/* ---- the message ---- */

static bool
read_list(const Build *b, const json_t *spec, const char *name, const json_t **ret_list,
	  size_t *ret_n)
{
	const json_t *list = json_object_get(spec, name);
	if (json_is_null(list))
		list = NULL;
	if (list != NULL && !json_is_array(list))
		return error_set(b->error, K_ERROR_INPUT, "%s: not a list", name);
	*ret_list = list;
	*ret_n = json_array_size(list);
	return true;
}

static bool
build(Build *b, const json_t *spec)
{
	if (!json_is_object(spec))
		return error_set(b->error, K_ERROR_INPUT, "message_builder: not an object");
	if (!read_list(b, spec, "text_body", &b->text, &b->n_text) ||
	    !read_list(b, spec, "related_attachments", &b->related, &b->n_related) ||
	    !read_list(b, spec, "file_attachments", &b->files, &b->n_files))
		return false;
	size_t parts = b->n_text + b->n_related + b->n_files;
	if (parts > MIME_BUILD_PARTS_MAX)
		return error_set(b->error, K_ERROR_INPUT, "more than %d parts",
				 MIME_BUILD_PARTS_MAX);
	if (!mime_build_headers(json_object_get(spec, "headers"), b->buf, b->error))
		return false;
	if (parts == 0)
		return put(b, "\r\n") && flush(b);
	if (parts == 1 && b->n_text == 1)
		return put_part(b, b->text, "text_body", 0, true) && flush(b);
	return put(b, "MIME-Version: 1.0\r\n") && put_mixed(b) && flush(b);
}

Blob *
mime_build(const TxBody *body, GError **ret_error)
{
	g_autoptr(GString) buf = g_string_new(NULL);
	g_autoptr(Blob) blob = blob_new(NULL);
	Build b = {.body = body, .blob = blob, .buf = buf, .error = ret_error};
	if (!build(&b, body->builder))
		return NULL;
	blob_finalize(blob);
	return g_steal_pointer(&blob);
}

bool
mime_build_check(const json_t *builder, GError **ret_error)
{
	g_autoptr(GString) buf = g_string_new(NULL);
	Build b = {.buf = buf, .error = ret_error};
	return build(&b, builder);
}
