/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* From a message to JSON (behaviour spec 16): the tree under "parts", flattened lists for simple
 * consumers, and blobs "0", "1", ... in tree order.  Never refuses a message: dates, charsets and
 * structures that make no sense stay raw text or opaque leaves.  mime_init must have run; any
 * one thread. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "tx/tx.h"

#define MIME_PARSE_DEPTH_MAX 10 /* multiparts nested deeper are one leaf */

typedef struct MimeParseOptions {
	int64_t max_inline; /* text goes inline while all of it is below; 0: never */
} MimeParseOptions;

/* `raw` is final.  The result holds builder, parts and `raw`; it may be moved to another thread.
 * NULL only when bytes cannot be read or written. */
K_MUST_CHECK TxBody *mime_parse(Blob *raw, const MimeParseOptions *options, GError **ret_error);
