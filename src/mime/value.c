/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/value.h"

#include <gmime/gmime.h>
#include <string.h>

#include "base/text.h"
#include "mime/addr.h"

static bool
is_token_byte(unsigned char c)
{
	return c > 0x20 && c < 0x7f && strchr("()<>@,;:\\\"/[]?=", (char)c) == NULL;
}

bool
mime_is_token(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!is_token_byte((unsigned char)text[i]))
			return false;
	return len > 0;
}

char *
mime_convert(const char *data, size_t len, const char *charset)
{
	if (text_equal_nocase(charset, "utf-8") || text_equal_nocase(charset, "us-ascii"))
		return g_utf8_validate_len(data, len, NULL) ? g_strndup(data, len) : NULL;
	const char *name = g_mime_charset_iconv_name(charset);
	gsize got = 0;
	char *out = g_convert(data, (gssize)len, "UTF-8", name, NULL, &got, NULL);
	/* A NUL inside would cut the string that callers see. */
	if (out != NULL && memchr(out, '\0', got) != NULL)
		g_clear_pointer(&out, g_free);
	return out;
}

static char *
valid_utf8(char *text)
{
	if (g_utf8_validate(text, -1, NULL))
		return text;
	char *fixed = g_utf8_make_valid(text, -1);
	g_free(text);
	return fixed;
}

char *
mime_decode_text(const char *text)
{
	if (strstr(text, "=?") == NULL)
		return valid_utf8(g_strdup(text));
	return valid_utf8(g_mime_utils_header_decode_text(NULL, text));
}

char *
mime_decode_phrase(const char *text)
{
	if (strstr(text, "=?") == NULL)
		return valid_utf8(g_strdup(text));
	return valid_utf8(g_mime_utils_header_decode_phrase(NULL, text));
}

/* ---- parameters ---- */

/* One piece as written: name*N*=value */
typedef struct Piece {
	char *name;
	char *value;
	unsigned section; /* N, 0 without one */
	bool sectioned, extended;
} Piece;

static void
piece_free(gpointer data)
{
	Piece *p = (Piece *)data;
	g_free(p->name);
	g_free(p->value);
	g_free(p);
}

static void
param_free(gpointer data)
{
	MimeParam *p = (MimeParam *)data;
	g_free(p->name);
	g_free(p->value);
	g_free(p);
}

static const char *
take_value(const char **cursor, char **ret_value)
{
	const char *p = *cursor;
	if (*p != '"') {
		while (*p != '\0' && *p != ';' && *p != ' ' && *p != '\t' && *p != '(')
			p++;
		*ret_value = g_strndup(*cursor, (gsize)(p - *cursor));
		bool clean = p != *cursor && strpbrk(*ret_value, "\"<>@,[]?=\\") == NULL;
		*cursor = p;
		return clean ? NULL : "bad parameter value";
	}
	GString *out = g_string_new(NULL);
	for (p++; *p != '\0' && *p != '"'; p++) {
		if (*p == '\\' && p[1] != '\0')
			p++;
		g_string_append_c(out, *p);
	}
	*ret_value = g_string_free(out, FALSE);
	*cursor = *p == '"' ? p + 1 : p;
	return *p == '"' ? NULL : "quoted string without end";
}

/* Splits "filename*1*" into name, section, extended. */
static bool
set_piece_name(Piece *piece, const char *name, size_t len)
{
	if (len > 0 && name[len - 1] == '*') {
		piece->extended = true;
		len--;
	}
	const char *star = memchr(name, '*', len);
	if (star != NULL) {
		uint64_t section;
		const char *digits = star + 1;
		if (!text_parse_u64(digits, (size_t)(name + len - digits), MIME_PARAMS_MAX,
				    &section))
			return false;
		piece->sectioned = true;
		piece->section = (unsigned)section;
		len = (size_t)(star - name);
	}
	piece->name = g_ascii_strdown(name, (gssize)len);
	return len > 0;
}

/* "; attribute=value" once; false ends the list. */
static bool
take_piece(const char **cursor, GPtrArray *pieces, const char **fault)
{
	const char *p = *cursor;
	const char *start = p;
	while (is_token_byte((unsigned char)*p))
		p++;
	size_t len = (size_t)(p - start);
	if (!mime_skip_cfws(&p) || len == 0 || *p != '=') {
		*fault = "bad parameter";
		return false;
	}
	p++;
	if (!mime_skip_cfws(&p)) {
		*fault = "comment without end";
		return false;
	}
	Piece *piece = g_new0(Piece, 1);
	const char *bad = take_value(&p, &piece->value);
	if (!set_piece_name(piece, start, len) || pieces->len == MIME_PARAMS_MAX) {
		*fault = "bad parameter";
		piece_free(piece);
	} else {
		g_ptr_array_add(pieces, piece);
	}
	if (bad != NULL)
		*fault = bad;
	*cursor = p;
	return true;
}

static void
take_pieces(const char *p, GPtrArray *pieces, const char **fault)
{
	for (;;) {
		if (!mime_skip_cfws(&p))
			*fault = "comment without end";
		if (*p == '\0')
			return;
		if (*p != ';') {
			*fault = "text behind a parameter";
			while (*p != '\0' && *p != ';')
				p++;
			continue;
		}
		p++;
		if (!mime_skip_cfws(&p))
			*fault = "comment without end";
		if (*p == '\0' || *p == ';')
			continue; /* a trailing ';' does no harm */
		if (!take_piece(&p, pieces, fault))
			while (*p != '\0' && *p != ';')
				p++;
	}
}

static void
append_percent(GString *out, const char *text)
{
	for (const char *p = text; *p != '\0'; p++) {
		if (*p == '%' && g_ascii_isxdigit(p[1]) && g_ascii_isxdigit(p[2])) {
			int c = g_ascii_xdigit_value(p[1]) * 16 + g_ascii_xdigit_value(p[2]);
			g_string_append_c(out, (char)c);
			p += 2;
		} else {
			g_string_append_c(out, *p);
		}
	}
}

static Piece *
find_section(GPtrArray *pieces, const char *name, unsigned section)
{
	for (unsigned i = 0; i < pieces->len; i++) {
		Piece *p = (Piece *)g_ptr_array_index(pieces, i);
		if (p->section == section && strcmp(p->name, name) == 0 &&
		    (p->sectioned || section == 0))
			return p;
	}
	return NULL;
}

/* The value of `name` from all its pieces (RFC 2231 3, 4). */
static char *
join_pieces(GPtrArray *pieces, const char *name)
{
	g_autoptr(GString) bytes = g_string_new(NULL);
	g_autofree char *charset = NULL;
	for (unsigned section = 0;; section++) {
		const Piece *p = find_section(pieces, name, section);
		if (p == NULL)
			break;
		const char *text = p->value;
		if (p->extended && section == 0) {
			const char *quote = strchr(text, '\'');
			const char *second = quote != NULL ? strchr(quote + 1, '\'') : NULL;
			if (second != NULL) {
				charset = g_strndup(text, (gsize)(quote - text));
				text = second + 1;
			}
		}
		if (p->extended)
			append_percent(bytes, text);
		else
			g_string_append(bytes, text);
		if (!p->sectioned)
			break;
	}
	/* NULs of "%00" end nothing: they become spaces. */
	for (gsize i = 0; i < bytes->len; i++)
		if (bytes->str[i] == '\0')
			bytes->str[i] = ' ';
	if (charset != NULL && *charset != '\0') {
		char *converted = mime_convert(bytes->str, bytes->len, charset);
		if (converted != NULL)
			return converted;
	}
	return mime_decode_text(bytes->str); /* many write encoded words here */
}

static void
join_params(GPtrArray *pieces, GPtrArray *params, const char **fault)
{
	for (unsigned i = 0; i < pieces->len; i++) {
		const Piece *piece = (const Piece *)g_ptr_array_index(pieces, i);
		bool known = false;
		for (unsigned j = 0; j < params->len && !known; j++) {
			const MimeParam *seen = (const MimeParam *)g_ptr_array_index(params, j);
			known = strcmp(seen->name, piece->name) == 0;
		}
		if (known) {
			if (!piece->sectioned)
				*fault = "parameter given twice";
			continue;
		}
		MimeParam *param = g_new0(MimeParam, 1);
		param->name = mime_decode_text(piece->name);
		param->value = join_pieces(pieces, piece->name);
		g_ptr_array_add(params, param);
	}
}

/* "token" or "token/token", blanks and comments around the slash left out; "" when it is not
 * that. */
static char *
take_head(const char **cursor, bool slash)
{
	const char *p = *cursor;
	GString *out = g_string_new(NULL);
	for (int part = 0; part < 1 + slash; part++) {
		const char *start = p;
		while (is_token_byte((unsigned char)*p))
			p++;
		g_string_append_len(out, start, p - start);
		bool good = p > start;
		if (good && slash && part == 0) {
			good = mime_skip_cfws(&p) && *p == '/';
			p += good;
			good = good && mime_skip_cfws(&p);
			g_string_append_c(out, '/');
		}
		if (!good || (part == slash && *p == '/')) {
			g_string_truncate(out, 0);
			break;
		}
	}
	*cursor = p;
	g_string_ascii_down(out);
	return g_string_free(out, FALSE);
}

void
mime_value_parse(const char *text, bool slash, MimeValue *ret_value)
{
	MimeValue v = {.params = g_ptr_array_new_with_free_func(param_free)};
	const char *p = text;
	if (!mime_skip_cfws(&p))
		v.fault = "comment without end";
	v.value = take_head(&p, slash);
	if (*v.value == '\0')
		v.fault = "bad value";
	g_autoptr(GPtrArray) pieces = g_ptr_array_new_with_free_func(piece_free);
	take_pieces(p, pieces, &v.fault);
	join_params(pieces, v.params, &v.fault);
	*ret_value = v;
}

void
mime_value_clear(MimeValue *value)
{
	g_free(value->value);
	if (value->params != NULL)
		g_ptr_array_unref(value->params);
	*value = (MimeValue){0};
}

const char *
mime_value_param(const MimeValue *value, const char *name)
{
	for (unsigned i = 0; i < value->params->len; i++) {
		const MimeParam *p = (const MimeParam *)g_ptr_array_index(value->params, i);
		if (strcmp(p->name, name) == 0)
			return p->value;
	}
	return NULL;
}
