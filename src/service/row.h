/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A transaction as a row of the store and back.  Own worker only; no I/O. */
#include <jansson.h>

#include "store/store.h"
#include "tx/tx.h"

/* Requests, body by reference, answers, version.  creation and scheduling are the caller's. */
StoreRow *row_from_tx(const Tx *tx, const char *why); /* `why` as below */
/* Only what store_update writes.  `former` (may be NULL): row_former of the row that `tx` came
 * from.  `why` (may be NULL): JSON text, what the chain of the newest attempt did and why; it
 * stands beside the answers. */
StoreRow *row_update_from_tx(const Tx *tx, const json_t *former, const char *why);
/* That `why`, or NULL.  Caller frees. */
json_t *row_why(const StoreRow *row);
#define ROW_WHY_KEY "why"
/* What became of the attempts so far, oldest first, for a new one forgets their answers; NULL when
 * there was none: [{"attempt": 1, "ended": unix seconds, "code": 451, "message": "..."}...], the
 * answer that decided, code 0 when there was none.  The newest ROW_FORMER_MAX are kept, beside the
 * answers in the row.  Caller frees. */
json_t *row_former(const StoreRow *row);
#define ROW_FORMER_MAX      20
#define ROW_FORMER_TEXT_MAX 200 /* bytes of an answer's text */
#define ROW_FORMER_KEY      "former"
/* Sets id, requests, body, answers, attempt count and version of a fresh tx.  Row blobs without
 * content become placeholders that are final and empty: enough to read, not to deliver. */
K_MUST_CHECK bool row_to_tx(const StoreRow *row, Tx *tx, GError **ret_error);

/* Where the transaction goes, for fairness: the domain of its first recipient in lower case, or ""
 * when that has none.  Caller frees. */
char *row_destination(const Tx *tx);

/* The internal reason of a transaction that had its one attempt (behaviour spec 3.3); readers are
 * never shown it. */
#define ROW_ONESHOT "oneshot"
