/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Shared by the files of the codec only. */
#include "tx/codec.h"

/* A string value; bytes that are not UTF-8 are replaced, so that the answer is never NULL. */
json_t *codec_text(const char *text);
void codec_put(json_t *object, const char *key, json_t *value); /* moved */
json_t *codec_host_port(const HostPort *hp);
K_MUST_CHECK HostPort *codec_read_host_port(const char *key, const json_t *json,
					    GError **ret_error);
/* The "body" member of a READ object (spec 3.5); NULL when there is nothing to show. */
json_t *codec_body_status(const Tx *tx, const TxUris *uris);
