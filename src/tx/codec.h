/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The transaction as JSON, by audience (behaviour spec 3.1-3.5).  Strict: a key that is not valid
 * for the direction, a top-level null or an empty array makes the whole object invalid.
 * One thread (json_t).  Pure. */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

#include "tx/tx.h"

typedef enum TxCodec {
	TX_JSON_CREATE,  /* POST bodies (column C) */
	TX_JSON_UPDATE,  /* PATCH bodies (column U) */
	TX_JSON_READ,    /* answers to REST clients (column R) */
	TX_JSON_STORE,   /* the row: requests that survive (column DB), without body and answers */
	TX_JSON_ATTEMPT, /* answers of one attempt (column ATT) */
	TX_JSON_CODECS
} TxCodec;

/* The base URLs that absolute blob URIs are made of; used by TX_JSON_READ. */
typedef struct TxUris {
	const char *session_uri; /* un-finalized blobs */
	const char *service_uri; /* finalized ones */
} TxUris;

/* Writes what belongs to the audience, in the order of spec 3.1.  For TX_JSON_UPDATE only what is
 * new since `mark` (with rcpt_to_list_offset when it is not 0); `mark` is NULL otherwise.  CREATE
 * and UPDATE carry no body, and filter_output whenever there is one: a sender that shall not pass
 * it on deletes the key.  Without `uris` or tx->id a READ has no body.  New reference; the values
 * inside are partly shared with the tx, so they are not to be changed. */
json_t *tx_to_json(const Tx *tx, TxCodec codec, const TxMark *mark, const TxUris *uris);

/* What a request's "body" member asks for; resolving reuse is the caller's business. */
typedef enum TxBodyForm {
	TX_BODY_NONE, /* absent, or not recognised */
	TX_BODY_INLINE,
	TX_BODY_REUSE,
	TX_BODY_BUILDER
} TxBodyForm;

typedef struct TxRequest {
	TxBodyForm form; /* of several forms the first in the order above */
	json_t *body;    /* the "body" member, counted; NULL when absent */
	bool has_offset; /* rcpt_to_list_offset was there */
	int64_t rcpt_offset;
} TxRequest;
void tx_request_clear(TxRequest *request);

/* Reads a CREATE, UPDATE or STORE object into a fresh or growing tx; on failure (K_ERROR_INPUT,
 * text names key and reason) the tx is unchanged.  UPDATE: recipients are appended after the caller
 * has compared rcpt_offset, so call tx_update_check first.  What the tx has already is kept: a
 * caller that knows the sender (from the URL) sets it before.  filter_output is checked and
 * dropped. `ret_request` may be NULL. */
K_MUST_CHECK bool tx_from_json(Tx *tx, const json_t *json, TxCodec codec, TxRequest *ret_request,
			       GError **ret_error);
/* Validates an UPDATE object against the tx: keys, values, TX_RCPTS_MAX and offset; K_ERROR_INPUT,
 * or K_ERROR_CONFLICT for an offset that does not equal the recipients present. */
K_MUST_CHECK bool tx_update_check(const Tx *tx, const json_t *json, GError **ret_error);
/* Loads answers written as TX_JSON_ATTEMPT. */
K_MUST_CHECK bool tx_attempt_from_json(Tx *tx, const json_t *json, GError **ret_error);

/* A client's view of a server's READ object: checks keys and placeholders against what was sent
 * (spec 3.2, 3.6), that no answer changed or vanished, and takes over new answers.  Blob URIs,
 * attempt_count and final_attempt_reason are left to the caller.  False (K_ERROR_INPUT, the tx
 * unchanged) when the server broke the rules. */
K_MUST_CHECK bool tx_merge_read(Tx *tx, const json_t *json, GError **ret_error);

/* ---- small shared forms ---- */
json_t *response_to_json(const Response *response);
Response *response_from_json(const json_t *json); /* NULL when it is none */
json_t *mailbox_to_json(const Mailbox *mailbox);
K_MUST_CHECK Mailbox *mailbox_from_json(const json_t *json, GError **ret_error);

/* "/transactions/ID/body" or ".../blob/BLOB" with or without scheme and host (spec 4.10); a query
 * is cut, BLOB is percent-decoded.  For the body *ret_blob is NULL.  Caller frees both. */
K_MUST_CHECK bool tx_parse_blob_uri(const char *uri, char **ret_id, char **ret_blob);
/* A message-builder spec (spec 15.1) into a body: contents become {"create_id": id}; inline text
 * becomes final blobs "inlineN"; create_id gives an empty growing blob; `reuse` resolves
 * reuse_uri to a reference that is given away (NULL answer: unknown or unfinished,
 * K_ERROR_NOT_FOUND).  Else K_ERROR_INPUT.  `spec` is not changed. */
typedef Blob *TxReuseFn(void *arg, const char *tx_id, const char *blob_id);
K_MUST_CHECK TxBody *tx_body_from_builder(const json_t *spec, TxReuseFn *reuse, void *arg,
					  const BlobLimits *limits, GError **ret_error);
/* The reuse_uris of a builder spec in order, so that they can be looked up beforehand: array of
 * borrowed strings. */
GPtrArray *tx_builder_reuse_uris(const json_t *spec);
