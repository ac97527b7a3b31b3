/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Sample messages that are not part of this repository: from $KOUKAN_CORPUS/koukan, or from
 * shared/testdata/koukan beside the source tree.  Tests that want them skip when they are away. */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>

#include "tx/blob.h"

static inline char *
sample_dir(void)
{
	const char *corpus = getenv("KOUKAN_CORPUS");
	if (corpus != NULL)
		return g_build_filename(corpus, "koukan", NULL);
	g_autofree char *here = g_path_get_dirname(__FILE__);
	return g_build_filename(here, "..", "..", "..", "..", "shared", "testdata", "koukan", NULL);
}

/* NULL, with a message, when it is not there. */
static inline char *
sample_read(const char *name, size_t *ret_len)
{
	g_autofree char *dir = sample_dir();
	g_autofree char *path = g_build_filename(dir, name, NULL);
	char *text = NULL;
	gsize len = 0;
	if (!g_file_get_contents(path, &text, &len, NULL))
		printf("# skipped: no sample %s (set KOUKAN_CORPUS)\n", name);
	*ret_len = len;
	return text;
}

static inline Blob *
sample_blob(const char *name)
{
	size_t len;
	g_autofree char *text = sample_read(name, &len);
	return text != NULL ? blob_new_bytes(text, len) : NULL;
}
