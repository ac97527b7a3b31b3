/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/error.h"
#include "store/store_int.h"

bool
store_url_is_postgres(const char *url)
{
	return g_ascii_strncasecmp(url, "postgres", strlen("postgres")) == 0 &&
	       strstr(url, "://") != NULL;
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
	if (store_url_is_postgres(url)) {
		error_set(ret_error, K_ERROR_CONFIG,
			  "storage: PostgreSQL is not supported yet; use sqlite:///FILE");
		return NULL;
	}
	if (dialect != strlen("sqlite") || g_ascii_strncasecmp(url, "sqlite", dialect) != 0) {
		error_set(ret_error, K_ERROR_CONFIG,
			  "storage: %.*s is no database known here; use sqlite:///FILE",
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
