/* SPDX-License-Identifier: Apache-2.0 */
/* Writing JSON.  jansson's own printer remembers each container under its address, printed and
 * hashed, to find values that contain themselves; here there are none, since values are parsed or
 * built once, and a row of the queue is printed for each message. */
#include <string.h>

#include "base/json.h"

/* Deeper than anything that is parsed or built. */
#define PRINT_DEPTH_MAX (4 * JSON_DEPTH_MAX)

/* ---- strings ---- */

/* string = %x22 *( unescaped / "\" ( %x22 / "\" / b / f / n / r / t / u 4HEXDIG ) ) %x22
 * (RFC 8259 7) */
static bool
is_plain(unsigned char c)
{
	return c >= 0x20 && c != '"' && c != '\\';
}

static char
short_escape(unsigned char c)
{
	switch (c) {
	case '"':
	case '\\':
		return (char)c;
	case '\b':
		return 'b';
	case '\f':
		return 'f';
	case '\n':
		return 'n';
	case '\r':
		return 'r';
	case '\t':
		return 't';
	default:
		return '\0';
	}
}

static void
print_escape(GString *out, unsigned char c)
{
	char letter = short_escape(c);
	if (letter == '\0') {
		g_string_append_printf(out, "\\u%04X", c);
		return;
	}
	g_string_append_c(out, '\\');
	g_string_append_c(out, letter);
}

static void
print_string(GString *out, const char *text, size_t len)
{
	g_string_append_c(out, '"');
	for (size_t i = 0; i < len;) {
		size_t start = i;
		while (i < len && is_plain((unsigned char)text[i]))
			i++;
		g_string_append_len(out, text + start, (gssize)(i - start));
		if (i < len)
			print_escape(out, (unsigned char)text[i++]);
	}
	g_string_append_c(out, '"');
}

/* ---- numbers ---- */

static void
print_integer(GString *out, json_int_t value)
{
	char digits[24];
	char *at = digits + sizeof digits;
	/* Downwards, so that the smallest number has its digits, too. */
	json_int_t rest = value < 0 ? value : -value;
	do {
		*--at = (char)('0' - rest % 10);
		rest /= 10;
	} while (rest != 0);
	if (value < 0)
		*--at = '-';
	g_string_append_len(out, at, digits + sizeof digits - at);
}

/* Rare, and easily wrong: left to the library. */
static void
print_real(GString *out, const json_t *value)
{
	char digits[64];
	size_t len = json_dumpb(value, digits, sizeof digits, JSON_ENCODE_ANY);
	k_assert(len > 0 && len <= sizeof digits);
	g_string_append_len(out, digits, (gssize)len);
}

/* ---- values ---- */

static void print_value(GString *out, const json_t *value, unsigned depth);

static void
print_object(GString *out, json_t *object, unsigned depth)
{
	bool first = true;
	g_string_append_c(out, '{');
	for (void *iter = json_object_iter(object); iter != NULL;
	     iter = json_object_iter_next(object, iter)) {
		if (!first)
			g_string_append_c(out, ',');
		first = false;
		print_string(out, json_object_iter_key(iter), json_object_iter_key_len(iter));
		g_string_append_c(out, ':');
		print_value(out, json_object_iter_value(iter), depth + 1);
	}
	g_string_append_c(out, '}');
}

static void
print_array(GString *out, const json_t *array, unsigned depth)
{
	size_t count = json_array_size(array);
	g_string_append_c(out, '[');
	for (size_t i = 0; i < count; i++) {
		if (i > 0)
			g_string_append_c(out, ',');
		print_value(out, json_array_get(array, i), depth + 1);
	}
	g_string_append_c(out, ']');
}

static void
print_value(GString *out, const json_t *value, unsigned depth)
{
	k_assert(value != NULL && depth < PRINT_DEPTH_MAX);
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		print_object(out, (json_t *)value, depth);
		break;
	case JSON_ARRAY:
		print_array(out, value, depth);
		break;
	case JSON_STRING:
		print_string(out, json_string_value(value), json_string_length(value));
		break;
	case JSON_INTEGER:
		print_integer(out, json_integer_value(value));
		break;
	case JSON_REAL:
		print_real(out, value);
		break;
	case JSON_TRUE:
		g_string_append(out, "true");
		break;
	case JSON_FALSE:
		g_string_append(out, "false");
		break;
	case JSON_NULL:
		g_string_append(out, "null");
		break;
	}
}

char *
json_print(const json_t *value)
{
	GString *out = g_string_sized_new(512);
	print_value(out, value, 0);
	return g_string_free(out, FALSE);
}
