/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP values: framing of a head, routes, percent escapes, ranges. */
#include "fuzz.h"

#include "http/framing.h"
#include "http/route.h"
#include "rest/range.h"

static void
check_head(const char *text)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", 100);
	HttpFraming framing;
	http_framing_init(&framing);
	for (char **line = lines; *line != NULL; line++) {
		char *colon = strchr(*line, ':');
		if (colon != NULL)
			http_framing_add(&framing, *line, (size_t)(colon - *line), colon + 1,
					 strlen(colon + 1));
	}
	const char *bad = http_framing_end(&framing, "HTTP/1.1");
	if (bad == NULL)
		k_assert(framing.hosts == 1 && framing.lengths <= 1 && framing.length >= -1);
}

static void
check_route(const char *text)
{
	static const HttpRoute routes[] = {{"POST", "/senders/*/transactions", 1},
					   {"GET", "/transactions/*", 2},
					   {"PUT", "/transactions/*/blob/**", 3}};
	HttpMatch match = {0};
	if (http_route_find(routes, G_N_ELEMENTS(routes), "PUT", text, &match) == HTTP_ROUTE_FOUND)
		for (size_t i = 0; i < match.n_parts; i++)
			k_assert(match.parts[i].len > 0 && match.parts[i].text > text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	g_autofree char *text = fuzz_string(data, size);
	check_head(text);
	check_route(text);
	char *decoded = NULL;
	if (http_percent_decode((const char *)data, size, &decoded)) {
		k_assert(g_utf8_validate(decoded, -1, NULL));
		g_free(decoded);
	}
	RestRange range;
	if (rest_range_parse(text, &range))
		k_assert(range.first <= range.last &&
			 (!range.has_total || range.last < range.total));
	uint64_t held;
	(void)!rest_range_parse_held(text, &held);
	return 0;
}
