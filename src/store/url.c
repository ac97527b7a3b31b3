/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "store/store_int.h"

bool
store_url_is_postgres(const char *url)
{
	g_autofree char *dialect = g_strndup(url, strcspn(url, "+:"));
	return strstr(url, "://") != NULL &&
	       (text_equal_nocase(dialect, "postgresql") || text_equal_nocase(dialect, "postgres"));
}

/* The spellings of SQLAlchemy: three slashes and a relative path, four and an absolute one;
 * "+driver" names a Python module and means nothing here. */
char *
store_url_path(const char *url, GError **ret_error)
{
	const char *mark = strstr(url, "://");
	if (mark == NULL) {
		if (url[0] != '\0' && strcmp(url, ":memory:") != 0)
			return g_strdup(url);
		error_set(ret_error, K_ERROR_CONFIG, "storage: no file is named");
		return NULL;
	}
	size_t dialect = strcspn(url, "+:");
	if (dialect != strlen("sqlite") || g_ascii_strncasecmp(url, "sqlite", dialect) != 0) {
		error_set(ret_error, K_ERROR_CONFIG,
			  "storage: %.*s is no database known here; use sqlite:///FILE or "
			  "postgresql://...",
			  (int)MIN(dialect, 32), url);
		return NULL;
	}
	const char *path = mark + strlen("://");
	if (path[0] != '/') {
		error_set(ret_error, K_ERROR_CONFIG,
			  "storage: sqlite:// takes no host: sqlite:///relative or "
			  "sqlite:////absolute");
		return NULL;
	}
	g_autofree char *file = g_strndup(path + 1, strcspn(path + 1, "?"));
	if (file[0] == '\0' || strcmp(file, ":memory:") == 0) {
		error_set(ret_error, K_ERROR_CONFIG,
			  "storage: a database in memory would lose mail; name a file");
		return NULL;
	}
	return g_steal_pointer(&file);
}

char *
store_url_libpq(const char *url)
{
	const char *mark = strstr(url, "://");
	k_assert(mark != NULL);
	size_t scheme = MIN(strcspn(url, "+"), (size_t)(mark - url));
	/* libpq wants it in lower case. */
	g_autofree char *name = g_ascii_strdown(url, (gssize)scheme);
	return g_strconcat(name, mark, NULL);
}
