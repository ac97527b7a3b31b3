/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The content of a leaf: transfer encoding undone; text also as UTF-8 with LF line ends.
 * Streaming: memory does not depend on the size.  mime_init must have run; any one thread. */
#include "base/check.h"
#include "mime/tree.h"

/* A final Blob of the decoded bytes.  `charset` NULL: not text.  Bytes that are not of the
 * charset become U+FFFD; an unknown charset is read as UTF-8.  NULL: reading or writing failed. */
K_MUST_CHECK Blob *mime_decode_leaf(const Blob *raw, const MimeNode *leaf, const char *charset,
				    GError **ret_error);
