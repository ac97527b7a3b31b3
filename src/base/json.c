/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <string.h>

#include "base/error.h"
#include "base/text.h"

#define ERROR_TEXT_MAX 200

/* Before main, so before there are threads: the seed and the allocator are global to jansson.
 * GLib's allocator makes g_free right for what json_dumps returns. */
__attribute__((constructor)) static void
json_setup(void)
{
	json_set_alloc_funcs(g_malloc, g_free);
	json_object_seed(0);
}

/* jansson recurses as deep as its own limit of 2048; ours is checked before it starts.  Returns
 * the offset of the bracket that goes too deep, or `len`. */
static size_t
find_too_deep(const char *text, size_t len)
{
	size_t depth = 0;
	bool in_string = false;
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '[' || c == '{') {
			if (++depth > JSON_DEPTH_MAX)
				return i;
		} else if ((c == ']' || c == '}') && depth > 0) {
			depth--;
		}
	}
	return len;
}

static void
report_too_deep(const char *what, const char *text, size_t at, GError **ret_error)
{
	int line = 1;
	size_t start = 0;
	for (size_t i = 0; i < at; i++) {
		if (text[i] == '\n') {
			line++;
			start = i + 1;
		}
	}
	error_set(ret_error, K_ERROR_INPUT, "%s: line %d column %zu: nested deeper than %d", what,
		  line, at - start + 1, JSON_DEPTH_MAX);
}

json_t *
json_parse(const char *what, const char *text, size_t len, GError **ret_error)
{
	size_t deep = find_too_deep(text, len);
	if (deep < len) {
		report_too_deep(what, text, deep, ret_error);
		return NULL;
	}
	json_error_t trouble;
	json_t *value = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &trouble);
	if (value == NULL) {
		g_autofree char *shown = text_escape(trouble.text, strlen(trouble.text),
						     ERROR_TEXT_MAX);
		error_set(ret_error, K_ERROR_INPUT, "%s: line %d column %d: %s", what,
			  MAX(trouble.line, 1), MAX(trouble.column, 0), shown);
	}
	return value;
}

json_t *
json_parse_file(const char *path, GError **ret_error)
{
	g_autofree char *text = NULL;
	gsize len;
	g_autoptr(GError) trouble = NULL;
	if (!g_file_get_contents(path, &text, &len, &trouble)) {
		error_set(ret_error, K_ERROR_IO, "%s", trouble->message);
		return NULL;
	}
	return json_parse(path, text, len, ret_error);
}

const char *
json_get_str(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}
