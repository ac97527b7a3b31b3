/* SPDX-License-Identifier: Apache-2.0 */
#include "http/route.h"

#include <glib.h>
#include <string.h>

static size_t
segment_len(const char *text)
{
	return strcspn(text, "/");
}

/* True when the whole of `path` matches; fills the parts. */
static bool
route_match(const char *pattern, const char *path, HttpMatch *match)
{
	match->n_parts = 0;
	while (*pattern == '/' && *path == '/') {
		pattern++;
		path++;
		size_t want = segment_len(pattern), got = segment_len(path);
		bool rest = want == 2 && memcmp(pattern, "**", 2) == 0;
		if (rest || (want == 1 && *pattern == '*')) {
			if (rest)
				got = strlen(path);
			if (got == 0)
				return false;
			k_assert(match->n_parts < HTTP_ROUTE_PARTS_MAX);
			match->parts[match->n_parts++] = (HttpPart){path, got};
		} else if (want != got || memcmp(pattern, path, want) != 0) {
			return false;
		}
		pattern += want;
		path += got;
	}
	return *pattern == '\0' && *path == '\0';
}

HttpRouteResult
http_route_find(const HttpRoute *routes, size_t n, const char *method, const char *path,
		HttpMatch *ret_match)
{
	bool path_found = false;
	ret_match->allow[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		if (!route_match(routes[i].pattern, path, ret_match))
			continue;
		if (strcmp(routes[i].method, method) == 0) {
			ret_match->id = routes[i].id;
			return HTTP_ROUTE_FOUND;
		}
		if (path_found)
			g_strlcat(ret_match->allow, ", ", sizeof(ret_match->allow));
		g_strlcat(ret_match->allow, routes[i].method, sizeof(ret_match->allow));
		path_found = true;
	}
	ret_match->n_parts = 0;
	return path_found ? HTTP_ROUTE_NO_METHOD : HTTP_ROUTE_NO_PATH;
}

bool
http_percent_decode(const char *text, size_t len, char **ret_text)
{
	g_autofree char *out = g_malloc(len + 1);
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c == '%') {
			if (i + 2 >= len || !g_ascii_isxdigit(text[i + 1]) ||
			    !g_ascii_isxdigit(text[i + 2]))
				return false;
			c = (unsigned char)(g_ascii_xdigit_value(text[i + 1]) * 16 +
					    g_ascii_xdigit_value(text[i + 2]));
			i += 2;
		}
		if (c < 0x20 || c == 0x7f)
			return false;
		out[n++] = (char)c;
	}
	out[n] = '\0';
	if (!g_utf8_validate_len(out, n, NULL))
		return false;
	*ret_text = g_steal_pointer(&out);
	return true;
}

char *
http_join(const char *base, const char *path)
{
	const char *scheme = base != NULL ? strstr(base, "://") : NULL;
	if (scheme == NULL)
		return g_strdup(path);
	const char *authority = scheme + 3;
	size_t len = (size_t)(authority - base) + strcspn(authority, "/?#");
	return g_strdup_printf("%.*s%s", (int)len, base, path);
}
