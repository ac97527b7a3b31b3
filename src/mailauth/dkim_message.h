/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The signatures of a whole message.  Reads the Blob, hence blocks when that is a file; any one
 * thread. */
#include "mailauth/dkim_verify.h"
#include "tx/blob.h"

/* Header and body are taken; keys remain to be asked.  NULL: the blob cannot be read. */
K_MUST_CHECK DkimVerify *dkim_verify_message(const Blob *message, int64_t now, GError **ret_error);
