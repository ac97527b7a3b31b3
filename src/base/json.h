/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Strict JSON (RFC 8259) on jansson: duplicate keys, bad UTF-8, lone surrogates and too deep
 * nesting are refused with line and column.  json_t values belong to one thread. */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

#define JSON_DEPTH_MAX 64

/* NULL and *ret_error (K_ERROR_INPUT, "line L column C: ...") on failure.  `what` names the
 * source in the message. */
K_MUST_CHECK json_t *json_parse(const char *what, const char *text, size_t len, GError **ret_error);
K_MUST_CHECK json_t *json_parse_file(const char *path, GError **ret_error);
/* Compact text, keys in insertion order, '/' and UTF-8 as they are.  g_free it. */
char *json_print(const json_t *value);
/* String member of an object, else NULL (also when it is no string). */
const char *json_get_str(const json_t *object, const char *key);
/* Frees with json_decref; for g_autoptr. */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(json_t, json_decref)
