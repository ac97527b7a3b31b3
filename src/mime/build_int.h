/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Between build.c (structure and parts) and build_header.c (the message's own fields). */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

#include "base/check.h"

/* Appends the fields of `headers` (NULL: none). */
K_MUST_CHECK bool mime_build_headers(const json_t *headers, GString *out, GError **ret_error);
