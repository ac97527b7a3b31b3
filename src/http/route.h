/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Which handler a path belongs to.  Pure, any thread. */
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

#define HTTP_ROUTE_PARTS_MAX 4

/* Segments of `pattern` between slashes: literal text; "*" for exactly one segment that is not
 * empty; "**", only at the end, for the rest, slashes included, not empty. */
typedef struct HttpRoute {
	const char *method;
	const char *pattern;
	int id;
} HttpRoute;

typedef struct HttpPart {
	const char *text; /* into the path; not terminated */
	size_t len;
} HttpPart;

typedef enum HttpRouteResult {
	HTTP_ROUTE_FOUND,
	HTTP_ROUTE_NO_PATH,   /* 404 */
	HTTP_ROUTE_NO_METHOD, /* 405; `allow` says which methods there are */
} HttpRouteResult;

#define HTTP_ROUTE_ALLOW_MAX 64

typedef struct HttpMatch {
	int id;
	HttpPart parts[HTTP_ROUTE_PARTS_MAX]; /* what the stars stand for */
	size_t n_parts;
	char allow[HTTP_ROUTE_ALLOW_MAX]; /* "GET, PATCH" */
} HttpMatch;

HttpRouteResult http_route_find(const HttpRoute *routes, size_t n, const char *method,
				const char *path, HttpMatch *ret_match);
/* %XX decoded, strictly: false for a broken escape, a control character, bytes that are no UTF-8.
 * Caller frees. */
K_MUST_CHECK bool http_percent_decode(const char *text, size_t len, char **ret_text);
/* "scheme://authority" of `base` followed by `path` (absolute, RFC 3986 5.2); when base has no
 * scheme the path alone.  Caller frees. */
char *http_join(const char *base, const char *path);
