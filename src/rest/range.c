/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/range.h"

#include <string.h>

#include "base/text.h"

/* Digits at *text up to one of `ends`; moves behind them. */
static bool
take_number(const char **text, const char *ends, uint64_t *ret_value)
{
	size_t len = strcspn(*text, ends);
	if (!text_parse_u64(*text, len, INT64_MAX - 1, ret_value))
		return false;
	*text += len;
	return true;
}

bool
rest_range_parse(const char *text, RestRange *ret_range)
{
	RestRange range = {0};
	if (!text_has_prefix_nocase(text, "bytes "))
		return false;
	text += strlen("bytes ");
	text += strspn(text, " ");
	if (!take_number(&text, "-", &range.first) || *text++ != '-' ||
	    !take_number(&text, "/", &range.last) || *text++ != '/' || range.last < range.first)
		return false;
	if (strcmp(text, "*") != 0) {
		range.has_total = true;
		if (!take_number(&text, "", &range.total) || range.last >= range.total)
			return false;
	}
	*ret_range = range;
	return true;
}

char *
rest_range_held(uint64_t held, int64_t total)
{
	g_autofree char *all = total >= 0 ? g_strdup_printf("%" G_GINT64_FORMAT, total)
					  : g_strdup("*");
	if (held == 0)
		return g_strdup_printf("bytes */%s", all);
	return g_strdup_printf("bytes 0-%" G_GUINT64_FORMAT "/%s", held - 1, all);
}

bool
rest_range_parse_held(const char *text, uint64_t *ret_held)
{
	RestRange range;
	if (g_str_has_prefix(text, "bytes */")) {
		*ret_held = 0;
		return true;
	}
	if (!rest_range_parse(text, &range) || range.first != 0)
		return false;
	*ret_held = range.last + 1;
	return true;
}
