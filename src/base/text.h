/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Small helpers on text and bytes; no locale anywhere.  Pure, any thread. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

/* Digits only, no sign or space, at least one; false on anything else or past `max`. */
K_MUST_CHECK bool text_parse_u64(const char *text, size_t len, uint64_t max, uint64_t *ret_value);
/* ASCII case-insensitive equality of two NUL-terminated strings; NULL equals only NULL. */
bool text_equal_nocase(const char *a, const char *b);
bool text_has_prefix_nocase(const char *text, const char *prefix);
bool text_has_suffix_nocase(const char *text, const char *suffix);
/* Printable form of peers' bytes: control and non-UTF-8 bytes as \xHH, at most `max` bytes of
 * output and then "...".  Caller frees. */
char *text_escape(const void *data, size_t len, size_t max);
/* True when every byte is 0x20..0x7e. */
bool text_is_printable_ascii(const char *text, size_t len);
/* base64url without padding (RFC 4648 5). Caller frees. */
char *text_base64url(const void *data, size_t len);
/* Optimal string alignment distance, for "did you mean"; gives up at `max` + 1. */
unsigned text_distance(const char *a, const char *b, unsigned max);
/* The candidate nearest to `word` (distance at most 3 and under half its length), else NULL. */
const char *text_nearest(const char *word, const char *const *candidates, size_t count);
