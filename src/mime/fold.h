/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Writes header fields: words, folded before white space at about 78 bytes (RFC 5322 2.1.1),
 * encoded words where text is not ASCII (RFC 2047).  No line it makes is longer than 998 bytes
 * as long as words passed as they are stay within MIME_WORD_MAX.  Pure. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

#define MIME_FOLD_AT  78
#define MIME_WORD_MAX 900 /* bytes of one word on a line of its own */

typedef struct MimeFold {
	GString *out;
	size_t column;
	bool first; /* nothing behind the colon yet */
} MimeFold;

/* "Name:" */
void mime_fold_start(MimeFold *fold, GString *out, const char *name);
/* A space, folded if need be, and the word. */
void mime_fold_word(MimeFold *fold, const char *word, size_t len);
/* Text glued to the last word (',' ';'). */
void mime_fold_glue(MimeFold *fold, const char *text);
/* Unstructured text: UTF-8, no controls but TAB. */
void mime_fold_text(MimeFold *fold, const char *text);
/* A display name. */
void mime_fold_phrase(MimeFold *fold, const char *text);
void mime_fold_end(MimeFold *fold);

/* `name="value"`, or name*=utf-8''... in as many sections as needed (RFC 2231). */
void mime_fold_param(MimeFold *fold, const char *name, const char *value);

/* A control byte (TAB may be allowed), CR and LF among them, or bytes that are no UTF-8. */
bool mime_has_controls(const char *text, bool allow_tab);
