/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A message in a file, with the line ends that mail has. */
#include "base/check.h"
#include "tx/blob.h"

/* "-": standard input.  A file without any CRLF has the line ends of its system: they become CRLF.
 * Final; NULL when it cannot be read. */
K_MUST_CHECK Blob *message_file_read(const char *path, GError **ret_error);
