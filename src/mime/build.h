/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* From a message builder spec (behaviour spec 15) and its parts to a message: every part base64,
 * CRLF, header lines folded at about 78, nothing added that was not asked for except the MIME
 * fields, everything that was except Bcc.  No value can end a line: CR, LF and other controls are
 * refused.
 *
 * Errors are K_ERROR_INPUT and name the place, e.g. "text_body[1].content: no such part";
 * K_ERROR_IO and K_ERROR_FULL are about our own disk.  One thread at a time (json_t, TxBody). */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

#include "base/check.h"
#include "tx/tx.h"

#define MIME_BUILD_HEADERS_MAX 2000
#define MIME_BUILD_PARTS_MAX   10000

/* `body` has a builder and is final.  A final Blob, or NULL. */
K_MUST_CHECK Blob *mime_build(const TxBody *body, GError **ret_error);
/* Everything that can be checked before the parts have come. */
K_MUST_CHECK bool mime_build_check(const json_t *builder, GError **ret_error);
