/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Structured values of MIME fields (RFC 2045 5.1, RFC 2183, RFC 2231) and encoded words
 * (RFC 2047).  Pure; mime_init must have run. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

#define MIME_PARAMS_MAX 200

typedef struct MimeParam {
	char *name;  /* lower case, without RFC 2231 marks */
	char *value; /* UTF-8 */
} MimeParam;

/* "text/plain; charset=utf-8", "attachment; filename=x" */
typedef struct MimeValue {
	char *value;       /* lower case: "text/plain", "attachment"; "" when unreadable */
	GPtrArray *params; /* MimeParam*, in order, one a name */
	const char *fault; /* static text; NULL: well formed */
} MimeValue;

/* `text`: unfolded.  `slash`: the value must be type/subtype. */
void mime_value_parse(const char *text, bool slash, MimeValue *ret_value);
void mime_value_clear(MimeValue *value);
const char *mime_value_param(const MimeValue *value, const char *name); /* NULL: absent */

/* Decodes encoded words; the result is valid UTF-8 whatever came.  Caller frees. */
char *mime_decode_text(const char *text);
/* The same for a display name. */
char *mime_decode_phrase(const char *text);
/* `len` bytes of `charset` as UTF-8; NULL when the charset is unknown or the bytes are not of it.
 */
char *mime_convert(const char *data, size_t len, const char *charset);
/* A token of RFC 2045. */
bool mime_is_token(const char *text, size_t len);
