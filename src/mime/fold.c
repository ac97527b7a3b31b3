/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/fold.h"

#include <string.h>

#include "mime/addr.h"
#include "mime/base64.h"

#define ENCODED_RAW 45 /* bytes in one encoded word: 60 digits, 72 characters of at most 75 */
#define SPACE_MAX   40 /* blanks in front of a word */
#define QUOTED_MAX  60 /* longer names become encoded words, which can be folded */
#define PARAM_MAX   60 /* of one section of a parameter, percent encoding included */

bool
mime_has_controls(const char *text, bool allow_tab)
{
	for (const char *p = text; *p != '\0'; p++) {
		unsigned char c = (unsigned char)*p;
		if ((c < 0x20 && !(allow_tab && c == '\t')) || c == 0x7f)
			return true;
	}
	return !g_utf8_validate(text, -1, NULL);
}

void
mime_fold_start(MimeFold *fold, GString *out, const char *name)
{
	g_string_append(out, name);
	g_string_append_c(out, ':');
	*fold = (MimeFold){.out = out, .column = strlen(name) + 1, .first = true};
}

/* White space as given, then the word; a fold goes in front of the white space. */
static void
put_chunk(MimeFold *fold, const char *space, size_t space_len, const char *word, size_t len)
{
	if (!fold->first && fold->column + space_len + len > MIME_FOLD_AT) {
		g_string_append(fold->out, "\r\n");
		fold->column = 0;
	}
	g_string_append_len(fold->out, space, (gssize)space_len);
	g_string_append_len(fold->out, word, (gssize)len);
	fold->column += space_len + len;
	fold->first = false;
}

void
mime_fold_word(MimeFold *fold, const char *word, size_t len)
{
	put_chunk(fold, " ", 1, word, len);
}

void
mime_fold_glue(MimeFold *fold, const char *text)
{
	g_string_append(fold->out, text);
	fold->column += strlen(text);
}

void
mime_fold_end(MimeFold *fold)
{
	g_string_append(fold->out, fold->first ? " \r\n" : "\r\n");
}

/* `space`: in front of it, a blank or a tab. */
static void
put_encoded(MimeFold *fold, char space, const char *text, size_t len)
{
	for (; len > 0; space = ' ') {
		size_t take = MIN(len, (size_t)ENCODED_RAW);
		while (take < len && take > 1 && ((unsigned char)text[take] & 0xc0) == 0x80)
			take--; /* characters are not split */
		char word[96] = "=?utf-8?B?";
		size_t at = strlen(word);
		at += mime_base64_line(text, take, word + at);
		memcpy(word + at, "?=", 2);
		put_chunk(fold, &space, 1, word, at + 2);
		text += take;
		len -= take;
	}
}

static bool
word_needs_encoding(const char *word, size_t len)
{
	if (len > MIME_WORD_MAX)
		return true;
	/* Half an encoded word would swallow the real one behind it; whole ones stay as given. */
	if (len >= 2 && memcmp(word, "=?", 2) == 0 &&
	    (len < 6 || memcmp(word + len - 2, "?=", 2) != 0))
		return true;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)word[i] >= 0x80)
			return true;
	return false;
}

static size_t
space_span(const char *text)
{
	return strspn(text, " \t");
}

static size_t
word_span(const char *text)
{
	return strcspn(text, " \t");
}

/* From the first to behind the last word that needs encoding, with all blanks between them and in
 * front.  A decoded word does not keep more than one blank in front of it apart from the text, and
 * a fold no more than fit into a line: others are encoded with what follows. */
static bool
encoded_range(const char *text, const char **ret_from, const char **ret_to)
{
	*ret_from = NULL;
	for (const char *p = text; *p != '\0';) {
		size_t space = space_span(p);
		size_t len = word_span(p + space);
		if (word_needs_encoding(p + space, len) ||
		    (p > text && len > 0 && space > SPACE_MAX)) {
			if (*ret_from == NULL)
				*ret_from = p > text ? p : p + space;
			*ret_to = p + space + len;
		}
		p += space + len;
	}
	return *ret_from != NULL;
}

/* Blanks at the ends are left out; the others are kept. */
static void
put_words(MimeFold *fold, const char *text, const char *end)
{
	const char *p = text;
	while (p < end) {
		size_t space = space_span(p);
		size_t len = word_span(p + space);
		if (p + space >= end || len == 0)
			return;
		if (space == 0 || fold->first)
			put_chunk(fold, " ", 1, p + space, len);
		else
			put_chunk(fold, p, MIN(space, (size_t)SPACE_MAX), p + space, len);
		p += space + len;
	}
}

void
mime_fold_text(MimeFold *fold, const char *text)
{
	const char *from;
	const char *to;
	const char *end = text + strlen(text);
	if (!encoded_range(text, &from, &to)) {
		put_words(fold, text, end);
		return;
	}
	put_words(fold, text, from);
	char space = ' ';
	if (!fold->first)
		space = *from++;
	put_encoded(fold, space, from, (size_t)(to - from));
	put_words(fold, to, end);
}

static bool
is_atoms(const char *text)
{
	if (*text == '\0' || *text == ' ')
		return false;
	for (const char *p = text; *p != '\0'; p++) {
		if (*p == ' ' && (p[1] == ' ' || p[1] == '\0'))
			return false;
		if (*p != ' ' && ((unsigned char)*p >= 0x80 || !mime_is_atext((unsigned char)*p)))
			return false;
	}
	return true;
}

void
mime_fold_phrase(MimeFold *fold, const char *text)
{
	size_t len = strlen(text);
	bool encode = strstr(text, "=?") != NULL || strchr(text, '\t') != NULL;
	for (size_t i = 0; i < len && !encode; i++)
		encode = (unsigned char)text[i] >= 0x80;
	if (!encode && len <= MIME_WORD_MAX && is_atoms(text)) {
		put_words(fold, text, text + len);
		return;
	}
	if (encode || len > QUOTED_MAX) {
		put_encoded(fold, ' ', text, len);
		return;
	}
	g_autoptr(GString) quoted = g_string_new("\"");
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '"' || text[i] == '\\')
			g_string_append_c(quoted, '\\');
		g_string_append_c(quoted, text[i]);
	}
	g_string_append_c(quoted, '"');
	mime_fold_word(fold, quoted->str, quoted->len);
}

/* ---- parameters ---- */

static bool
needs_percent(unsigned char c)
{
	return !g_ascii_isalnum((char)c) && strchr("!#$&+-.^_`{}~", (char)c) == NULL;
}

/* The next section of percent encoding; returns how many bytes of `value` it takes. */
static size_t
percent_section(const char *value, GString *out)
{
	size_t n = 0;
	size_t start = out->len;
	while (value[n] != '\0' && out->len - start < PARAM_MAX) {
		unsigned char c = (unsigned char)value[n++];
		if (c == '\0' || needs_percent(c))
			g_string_append_printf(out, "%%%02X", c);
		else
			g_string_append_c(out, (char)c);
	}
	return n;
}

static void
put_extended(MimeFold *fold, const char *name, const char *value)
{
	for (unsigned section = 0; *value != '\0'; section++) {
		g_autoptr(GString) text = g_string_new(NULL);
		g_autoptr(GString) encoded = g_string_new(NULL);
		value += percent_section(value, encoded);
		if (section == 0 && *value == '\0')
			g_string_append_printf(text, "%s*=utf-8''%s", name, encoded->str);
		else
			g_string_append_printf(text, "%s*%u*=%s%s", name, section,
					       section == 0 ? "utf-8''" : "", encoded->str);
		if (*value != '\0')
			g_string_append_c(text, ';');
		mime_fold_word(fold, text->str, text->len);
	}
}

void
mime_fold_param(MimeFold *fold, const char *name, const char *value)
{
	bool plain = strlen(value) <= PARAM_MAX;
	for (const char *p = value; *p != '\0' && plain; p++)
		plain = *p >= 0x20 && *p < 0x7f;
	/* Encoded words in quotes are decoded by many readers although they must not be. */
	if (!plain || strstr(value, "=?") != NULL) {
		put_extended(fold, name, value);
		return;
	}
	g_autoptr(GString) text = g_string_new(name);
	g_string_append(text, "=\"");
	for (const char *p = value; *p != '\0'; p++) {
		if (*p == '"' || *p == '\\')
			g_string_append_c(text, '\\');
		g_string_append_c(text, *p);
	}
	g_string_append_c(text, '"');
	mime_fold_word(fold, text->str, text->len);
}
