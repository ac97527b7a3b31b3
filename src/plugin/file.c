/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/file.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

char *
plugin_file_path(const char *path, const char *where)
{
	if (g_path_is_absolute(path) || where == NULL)
		return g_strdup(path);
	g_autofree char *file = g_strdup(where);
	for (int i = 0; i < 2; i++) { /* the column, the line */
		char *colon = strrchr(file, ':');
		if (colon != NULL)
			*colon = '\0';
	}
	g_autofree char *folder = g_path_get_dirname(file);
	return g_build_filename(folder, path, NULL);
}

static bool
is_ours(const struct stat *st)
{
	return st->st_uid == 0 || st->st_uid == geteuid();
}

bool
plugin_file_check(const char *path, GError **ret_error)
{
	struct stat st;
	if (stat(path, &st) != 0)
		return error_set_errno(ret_error, K_ERROR_CONFIG, errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(ret_error, K_ERROR_CONFIG, "%s: no regular file", path);
	if (!is_ours(&st))
		return error_set(ret_error, K_ERROR_CONFIG,
				 "%s: belongs to user %u, neither to root nor to the user that "
				 "runs this",
				 path, (unsigned)st.st_uid);
	if ((st.st_mode & S_IWOTH) != 0)
		return error_set(ret_error, K_ERROR_CONFIG,
				 "%s: everybody may write it (mode %04o); chmod o-w", path,
				 (unsigned)(st.st_mode & 07777));
	g_autofree char *folder = g_path_get_dirname(path);
	if (stat(folder, &st) != 0)
		return error_set_errno(ret_error, K_ERROR_CONFIG, errno, "%s", folder);
	/* In a sticky folder others cannot replace a file of ours. */
	if ((st.st_mode & S_IWOTH) != 0 && (st.st_mode & S_ISVTX) == 0)
		return error_set(ret_error, K_ERROR_CONFIG,
				 "%s: everybody may write its folder (mode %04o)", path,
				 (unsigned)(st.st_mode & 07777));
	return true;
}
