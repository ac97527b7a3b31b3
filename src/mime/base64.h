/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Base64 (RFC 2045 6.8) in pieces: a strict check, a decoder that takes what it can, an encoder
 * with lines of 76.  Zeroed structs are ready to use.  Pure. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

/* Strict: only the alphabet, padding at the end only, CR and LF anywhere, a multiple of four. */
typedef struct MimeBase64Check {
	uint64_t digits;
	unsigned padding;
} MimeBase64Check;
K_MUST_CHECK bool mime_base64_check(MimeBase64Check *check, const char *data, size_t len);
K_MUST_CHECK bool mime_base64_check_end(const MimeBase64Check *check);

/* Foreign bytes are passed over; it ends at the padding. */
typedef struct MimeBase64Decode {
	uint32_t bits;
	unsigned n; /* digits in `bits` */
	bool done;
} MimeBase64Decode;
/* Writes at most len / 4 * 3 + 3 bytes to `out`; how many is returned. */
size_t mime_base64_decode(MimeBase64Decode *state, const char *data, size_t len, char *out);

#define MIME_BASE64_LINE 57 /* bytes of one line of 76 digits */
/* Up to MIME_BASE64_LINE bytes as digits with padding; returns how many digits (at most 76). */
size_t mime_base64_line(const void *data, size_t len, char out[80]);
