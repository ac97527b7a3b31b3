/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Files with code of others: where they are, and whether only those who may could have written
 * them.  Load time and reload; any thread. */
#include <glib.h>
#include <stdbool.h>

#include "base/check.h"

/* `path` as a configuration says it: relative ones belong to the folder of the file named in
 * `where` ("FILE:LINE:COLUMN").  Caller frees. */
char *plugin_file_path(const char *path, const char *where);
/* A regular file of root's or our own that nobody else may write, in a folder in which nobody else
 * may replace it. */
K_MUST_CHECK bool plugin_file_check(const char *path, GError **ret_error);
