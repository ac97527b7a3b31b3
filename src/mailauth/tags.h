/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Tag lists, "a=b; c=d" (RFC 6376 3.2), as DKIM signatures and keys, ARC and DMARC records use
 * them.  Tags point into the text.  Pure. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#define TAGS_MAX 100 /* of one list; more is a fault */

typedef struct Tag {
	const char *name;
	size_t name_len;
	const char *value; /* without white space around it */
	size_t value_len;
	const char *raw; /* all between '=' and ';' */
	size_t raw_len;
} Tag;

typedef struct TagList {
	Tag *tags; /* owned */
	size_t n;
} TagList;

/* False, and nothing to clear: no tag list (a malformed tag, one that stands there twice, too
 * many). */
bool tags_parse(const char *text, size_t len, TagList *ret_list);
void tags_clear(TagList *list);
const Tag *tags_find(const TagList *list, const char *name); /* case matters; NULL: absent */
/* The value without any white space; NULL for NULL.  Caller frees. */
char *tag_squeezed(const Tag *tag);
/* The value with folds removed; NULL for NULL.  Caller frees. */
char *tag_text(const Tag *tag);
/* Digits only; false for anything else and past 2^40. */
bool tag_number(const Tag *tag, int64_t *ret_value);
/* Base64 with white space in it; NULL when it is none.  Caller frees. */
guchar *tag_base64(const Tag *tag, gsize *ret_len);
/* Is `word` one of the values between the colons? */
bool tag_has_word(const Tag *tag, const char *word);
