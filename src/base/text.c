/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <string.h>

bool
text_parse_u64(const char *text, size_t len, uint64_t max, uint64_t *ret_value)
{
	if (len == 0)
		return false;
	uint64_t value = 0;
	for (size_t i = 0; i < len; i++) {
		if (!g_ascii_isdigit(text[i]))
			return false;
		uint64_t digit = (uint64_t)(text[i] - '0');
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, digit, &value) || value > max)
			return false;
	}
	*ret_value = value;
	return true;
}

bool
text_equal_nocase(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return g_ascii_strcasecmp(a, b) == 0;
}

bool
text_has_prefix_nocase(const char *text, const char *prefix)
{
	return g_ascii_strncasecmp(text, prefix, strlen(prefix)) == 0;
}

bool
text_has_suffix_nocase(const char *text, const char *suffix)
{
	size_t text_len = strlen(text);
	size_t suffix_len = strlen(suffix);
	return suffix_len <= text_len &&
	       g_ascii_strcasecmp(text + text_len - suffix_len, suffix) == 0;
}

/* Bytes of the character at `at` that may be printed as they are: 0 when the byte there has to
 * be escaped (control, C1 control, or not UTF-8). */
static size_t
printable_len(const uint8_t *at, size_t left)
{
	if (*at < 0x80)
		return *at >= 0x20 && *at != 0x7f ? 1 : 0;
	gunichar c = g_utf8_get_char_validated((const char *)at, (gssize)MIN(left, (size_t)4));
	if (c == (gunichar)-1 || c == (gunichar)-2 || c < 0xa0)
		return 0;
	return (size_t)g_unichar_to_utf8(c, NULL);
}

char *
text_escape(const void *data, size_t len, size_t max)
{
	static const char hex[] = "0123456789abcdef";
	const uint8_t *at = data;
	size_t room = len < max / 4 ? 4 * len : max;
	/* Not a GString: its slices wander between threads, which ThreadSanitizer cannot follow,
	 * and every log line comes through here. */
	char *out = g_malloc(room + sizeof("..."));
	size_t put = 0;
	for (size_t i = 0; i < len;) {
		size_t step = printable_len(at + i, len - i);
		if (put + (step > 0 ? step : 4) > max) {
			memcpy(out + put, "...", 3);
			put += 3;
			break;
		}
		if (step > 0) {
			memcpy(out + put, at + i, step);
			put += step;
			i += step;
		} else {
			char escape[4] = {'\\', 'x', hex[at[i] >> 4], hex[at[i] & 15]};
			memcpy(out + put, escape, sizeof(escape));
			put += sizeof(escape);
			i++;
		}
	}
	out[put] = '\0';
	return out;
}

bool
text_is_printable_ascii(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] < 0x20 || text[i] > 0x7e)
			return false;
	return true;
}

char *
text_base64url(const void *data, size_t len)
{
	char *out = g_base64_encode(data, len);
	char *end = out;
	for (; *end != '\0' && *end != '='; end++) {
		if (*end == '+')
			*end = '-';
		else if (*end == '/')
			*end = '_';
	}
	*end = '\0';
	return out;
}

/* One more row of the distance table; `prev` belongs to i - 1, `prev2` to i - 2.  Returns the
 * least value of the row. */
static unsigned
distance_row(const char *a, const char *b, size_t i, const unsigned *prev2, const unsigned *prev,
	     unsigned *row)
{
	row[0] = (unsigned)i;
	unsigned least = row[0];
	for (size_t j = 1; b[j - 1] != '\0'; j++) {
		unsigned cost = a[i - 1] != b[j - 1];
		unsigned value = MIN(MIN(prev[j] + 1, row[j - 1] + 1), prev[j - 1] + cost);
		if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
			value = MIN(value, prev2[j - 2] + 1);
		row[j] = value;
		least = MIN(least, value);
	}
	return least;
}

unsigned
text_distance(const char *a, const char *b, unsigned max)
{
	size_t a_len = strlen(a);
	size_t b_len = strlen(b);
	if ((a_len > b_len ? a_len - b_len : b_len - a_len) > max)
		return max + 1;
	g_autofree unsigned *rows = g_new(unsigned, 3 * (b_len + 1));
	unsigned *prev2 = rows;
	unsigned *prev = prev2 + b_len + 1;
	unsigned *row = prev + b_len + 1;
	for (size_t j = 0; j <= b_len; j++)
		prev[j] = (unsigned)j;
	unsigned prev_least = 0;
	for (size_t i = 1; i <= a_len; i++) {
		unsigned least = distance_row(a, b, i, prev2, prev, row);
		/* A transposition reaches back two rows, so both have to be past it. */
		if (least > max && prev_least > max)
			return max + 1;
		prev_least = least;
		unsigned *oldest = prev2;
		prev2 = prev;
		prev = row;
		row = oldest;
	}
	return MIN(prev[b_len], max + 1);
}

const char *
text_nearest(const char *word, const char *const *candidates, size_t count)
{
	size_t len = strlen(word);
	const char *best = NULL;
	unsigned best_distance = 4;
	for (size_t i = 0; i < count; i++) {
		unsigned distance = text_distance(word, candidates[i], 3);
		if (distance < best_distance && 2 * (size_t)distance < len) {
			best = candidates[i];
			best_distance = distance;
		}
	}
	return best;
}
