/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/base64.h"

static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Value of a digit plus 1; 0: no digit. */
static const unsigned char VALUES[256] = {
	['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,
	['H'] = 8,  ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14,
	['O'] = 15, ['P'] = 16, ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21,
	['V'] = 22, ['W'] = 23, ['X'] = 24, ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28,
	['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32, ['g'] = 33, ['h'] = 34, ['i'] = 35,
	['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40, ['o'] = 41, ['p'] = 42,
	['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49,
	['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
	['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63,
	['/'] = 64,
};

bool
mime_base64_check(MimeBase64Check *check, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)data[i];
		if (VALUES[c] != 0 && check->padding == 0)
			check->digits++;
		else if (c == '=' && check->padding < 2)
			check->padding++;
		else if (c != '\r' && c != '\n')
			return false;
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
		if (VALUES[c] != 0) {
			state->bits = state->bits << 6 | (VALUES[c] - 1u);
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
