/* SPDX-License-Identifier: Apache-2.0 */
/*      tag-list  = tag-spec *( ";" tag-spec ) [ ";" ]
 *      tag-spec  = [FWS] tag-name [FWS] "=" [FWS] tag-value [FWS]
 *      tag-name  = ALPHA *( ALPHA / DIGIT / "_" )
 *      tag-value = [ tval *( 1*(WSP / FWS) tval ) ],  tval = 1*VALCHAR (visible, not ";")
 *
 * Values may be UTF-8 (RFC 8616). */
#include "mailauth/tags.h"

#include <string.h>

#include "base/text.h"

#define NUMBER_MAX ((uint64_t)1 << 40)

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void
trim(const char **text, size_t *len)
{
	while (*len > 0 && is_space((*text)[0])) {
		(*text)++;
		(*len)--;
	}
	while (*len > 0 && is_space((*text)[*len - 1]))
		(*len)--;
}

static bool
read_tag(const char *text, size_t len, Tag *ret_tag)
{
	const char *equals = memchr(text, '=', len);
	if (equals == NULL)
		return false;
	Tag tag = {.name = text, .name_len = (size_t)(equals - text)};
	tag.raw = tag.value = equals + 1;
	tag.raw_len = tag.value_len = len - tag.name_len - 1;
	trim(&tag.name, &tag.name_len);
	trim(&tag.value, &tag.value_len);
	if (tag.name_len == 0 || !g_ascii_isalpha(tag.name[0]))
		return false;
	for (size_t i = 0; i < tag.name_len; i++)
		if (!g_ascii_isalnum(tag.name[i]) && tag.name[i] != '_')
			return false;
	for (size_t i = 0; i < tag.value_len; i++) {
		unsigned char c = (unsigned char)tag.value[i];
		if ((c < 0x20 && !is_space((char)c)) || c == 0x7f)
			return false;
	}
	*ret_tag = tag;
	return true;
}

static bool
is_double(const TagList *list, const Tag *tag)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->tags[i].name_len == tag->name_len &&
		    memcmp(list->tags[i].name, tag->name, tag->name_len) == 0)
			return true;
	return false;
}

bool
tags_parse(const char *text, size_t len, TagList *ret_list)
{
	TagList list = {.tags = g_new0(Tag, TAGS_MAX)};
	bool ok = true;
	for (size_t at = 0; ok && at < len;) {
		const char *end = memchr(text + at, ';', len - at);
		size_t piece = end != NULL ? (size_t)(end - text) - at : len - at;
		const char *rest = text + at;
		size_t rest_len = piece;
		trim(&rest, &rest_len);
		Tag tag;
		if (rest_len == 0 && end == NULL)
			break; /* behind the last semicolon */
		ok = list.n < TAGS_MAX && read_tag(text + at, piece, &tag) &&
		     !is_double(&list, &tag);
		if (ok)
			list.tags[list.n++] = tag;
		at += piece + 1;
	}
	if (!ok || list.n == 0) {
		tags_clear(&list);
		return false;
	}
	*ret_list = list;
	return true;
}

void
tags_clear(TagList *list)
{
	g_free(list->tags);
	*list = (TagList){0};
}

const Tag *
tags_find(const TagList *list, const char *name)
{
	size_t len = strlen(name);
	for (size_t i = 0; i < list->n; i++)
		if (list->tags[i].name_len == len && memcmp(list->tags[i].name, name, len) == 0)
			return &list->tags[i];
	return NULL;
}

static char *
without(const Tag *tag, const char *bytes)
{
	if (tag == NULL)
		return NULL;
	char *out = g_malloc(tag->value_len + 1);
	size_t n = 0;
	for (size_t i = 0; i < tag->value_len; i++)
		if (strchr(bytes, tag->value[i]) == NULL)
			out[n++] = tag->value[i];
	out[n] = '\0';
	return out;
}

char *
tag_squeezed(const Tag *tag)
{
	return without(tag, " \t\r\n");
}

char *
tag_text(const Tag *tag)
{
	return without(tag, "\r\n");
}

bool
tag_number(const Tag *tag, int64_t *ret_value)
{
	uint64_t value;
	if (tag == NULL || !text_parse_u64(tag->value, tag->value_len, NUMBER_MAX, &value))
		return false;
	*ret_value = (int64_t)value;
	return true;
}

guchar *
tag_base64(const Tag *tag, gsize *ret_len)
{
	g_autofree char *text = tag_squeezed(tag);
	if (text == NULL || *text == '\0')
		return NULL;
	size_t len = strlen(text), data = 0;
	while (data < len &&
	       (g_ascii_isalnum(text[data]) || text[data] == '+' || text[data] == '/'))
		data++;
	size_t pad = strspn(text + data, "=");
	if (data + pad != len || pad > 2 || len % 4 != 0)
		return NULL;
	return g_base64_decode(text, ret_len);
}

bool
tag_has_word(const Tag *tag, const char *word)
{
	g_autofree char *text = tag_squeezed(tag);
	if (text == NULL)
		return false;
	g_auto(GStrv) words = g_strsplit(text, ":", 50);
	return g_strv_contains((const char *const *)words, word);
}
