/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A transaction as a row of the store and back.  Own worker only; no I/O. */
#include "store/store.h"
#include "tx/tx.h"

/* Requests, body by reference, answers, version.  creation and scheduling are the caller's. */
StoreRow *row_from_tx(const Tx *tx);
/* Only what store_update writes. */
StoreRow *row_update_from_tx(const Tx *tx);
/* Sets id, requests, body, answers, attempt count and version of a fresh tx.  Row blobs without
 * content become placeholders that are final and empty: enough to read, not to deliver. */
K_MUST_CHECK bool row_to_tx(const StoreRow *row, Tx *tx, GError **ret_error);

/* Where the transaction goes, for fairness: the domain of its first recipient in lower case, or ""
 * when that has none.  Caller frees. */
char *row_destination(const Tx *tx);

/* The internal reason of a transaction that had its one attempt (behaviour spec 3.3); readers are
 * never shown it. */
#define ROW_ONESHOT "oneshot"
