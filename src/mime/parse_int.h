/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Between parse.c (tree and contents), parse_header.c (fields) and parse_flat.c (the lists). */
#include <jansson.h>

#include "mime/tree.h"

/* [[name, value], ...]; new reference. */
json_t *mime_parse_headers(const MimeHeader *header);
/* Adds text_body, related_attachments, file_attachments to `out`; `json` is the tree's. */
void mime_parse_flatten(const MimeNode *root, const json_t *json, json_t *out);
