/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/base64.h"

static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Value of a digit, or -1. */
static int
value_of(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+')
		return 62;
	return c == '/' ? 63 : -1;
}

bool
mime_base64_check(MimeBase64Check *check, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)data[i];
		if (c == '\r' || c == '\n')
			continue;
		if (c == '=') {
			if (++check->padding > 2)
				return false;
		} else if (check->padding > 0 || value_of(c) < 0) {
			return false;
		} else {
			check->digits++;
		}
	}
	return true;
}

bool
mime_base64_check_end(const MimeBase64Check *check)
{
	return (check->digits + check->padding) % 4 == 0;
}

size_t
mime_base64_decode(MimeBase64Decode *state, const char *data, size_t len, char *out)
{
	size_t n = 0;
	for (size_t i = 0; i < len && !state->done; i++) {
		unsigned char c = (unsigned char)data[i];
		int v = value_of(c);
		if (v >= 0) {
			state->bits = state->bits << 6 | (uint32_t)v;
			/* 24 bits make three bytes, written as they become complete. */
			if (++state->n == 2)
				out[n++] = (char)(state->bits >> 4);
			else if (state->n == 3)
				out[n++] = (char)(state->bits >> 2);
			else if (state->n == 4)
				out[n++] = (char)state->bits;
			state->n %= 4;
		} else if (c == '=' && state->n >= 2) {
			state->done = true;
		}
	}
	return n;
}

size_t
mime_base64_line(const void *data, size_t len, char out[80])
{
	const unsigned char *p = (const unsigned char *)data;
	size_t n = 0;
	for (size_t i = 0; i < len; i += 3) {
		uint32_t bits = (uint32_t)p[i] << 16;
		if (i + 1 < len)
			bits |= (uint32_t)p[i + 1] << 8;
		if (i + 2 < len)
			bits |= p[i + 2];
		out[n++] = DIGITS[bits >> 18];
		out[n++] = DIGITS[bits >> 12 & 63];
		out[n++] = i + 1 < len ? DIGITS[bits >> 6 & 63] : '=';
		out[n++] = i + 2 < len ? DIGITS[bits & 63] : '=';
	}
	return n;
}
