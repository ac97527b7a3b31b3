/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Messages in files, for verbs that look at one. */
#include "base/check.h"
#include "tx/blob.h"

/* "-": standard input.  A file whose lines end in LF alone gets CRLF.  NULL: it cannot be read. */
K_MUST_CHECK Blob *message_file_read(const char *path, GError **ret_error);
/* The message on standard output with `fields`, each with its line end, in front. */
K_MUST_CHECK bool message_file_print(const char *fields, const Blob *message, GError **ret_error);
