/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the REST API (rest/api.h) needs of the one who holds transactions: the router or the
 * gateway.  Implemented in service/.  The API owns HTTP, JSON, etags, long polls and uploads; the
 * host owns admission, durability and where a transaction goes.
 *
 * A live transaction is in the table of its worker (rest_table_*), whose index is in its id.  All
 * host calls are made on the worker that owns the transaction (for `create`: the worker whose
 * table it is going to live in).  Each call is answered exactly once through `done`, never inside
 * the call.  */
#include <stdbool.h>

#include "loop/worker.h"
#include "rest/principal.h"
#include "tx/codec.h"
#include "tx/tx.h"

typedef struct RestHost RestHost;
typedef struct RestTable RestTable;

/* Outcome of a host call: an HTTP status and, if it is no success, a short text. */
typedef struct RestVerdict {
	int status;           /* 200/201: go on; else answer this */
	const char *text;     /* borrowed; NULL: empty body */
	const char *location; /* for 308: base URL of the owner (its session_uri); the request's own
				 path is put behind its scheme and authority */
	const char *sender;   /* for 308 of a load: whose transaction it is; borrowed */
} RestVerdict;
typedef void RestDoneFn(void *arg, const RestVerdict *verdict);
/* `tx` is borrowed; NULL unless status is 200. */
typedef void RestLoadFn(void *arg, const RestVerdict *verdict, Tx *tx);
/* `id` and `hash` (of the request that made it) are borrowed; NULL unless status is 200. */
typedef void RestKeyFn(void *arg, const RestVerdict *verdict, const char *id, const char *hash);
typedef void RestBlobFn(void *arg, const RestVerdict *verdict, Blob *blob);

struct RestHost {
	/* Any worker; thread-safe; immutable facts. */
	TxUris uris;
	unsigned entropy;       /* of ids, bytes */
	BlobLimits blobs;       /* of bodies that arrive */
	bool accepts_body_json; /* inline, reuse_uri, message_builder (router); the gateway: PUT
				   only */
	void *arg;              /* the implementation */
	struct RestApi *api;    /* set by rest_api_new */

	/* May this sender/tag create, and how?  Inside the call, any worker.  status 0: yes, and
	 * *ret_incremental says whether the envelope may grow by PATCH. */
	RestVerdict (*admit)(RestHost *host, const char *sender, const char *tag,
			     bool *ret_incremental);
	/* A fresh transaction with id, sender, requests and possibly a body.  `done` when it may be
	 * acknowledged: responsibility, if it is ours, is on disk.  On success the host has put it
	 * into the worker's table. */
	void (*create)(RestHost *host, Worker *worker, Tx *tx, RestDoneFn *done, void *arg);
	/* The transaction that an idempotency key (tx->idem_key) stands for; 404: none; 308: it is
	 * in the memory of another process.  NULL: no keys are kept here.  When `create` finds that
	 * the key is in use it answers 409. */
	void (*find_key)(RestHost *host, Worker *worker, const char *key, RestKeyFn *done,
			 void *arg);
	Usec key_ttl; /* how long they are kept */
	/* Not in the table: read it from the store.  The tx is inactive: for reading only. */
	void (*load)(RestHost *host, Worker *worker, const char *id, RestLoadFn *done, void *arg);
	/* The last missing byte of the body has arrived (the blob is final, tx_note_body was
	 * called): `done` when that may be acknowledged.  Asked again when the client repeats the
	 * upload. */
	void (*complete)(RestHost *host, Tx *tx, RestDoneFn *done, void *arg);
	/* POST .../cancel; `tx` NULL when it is not in the table. */
	void (*cancel)(RestHost *host, Worker *worker, const char *id, Tx *tx, RestDoneFn *done,
		       void *arg);
	/* A finished blob of another transaction (spec 4.10); name NULL: the body.  Called on any
	 * worker; the host looks in the owner's table and in the store.  What is not theirs is not
	 * there for `who`. */
	void (*reuse)(RestHost *host, Worker *worker, const char *id, const char *name,
		      const RestPrincipal *who, RestBlobFn *done, void *arg);
	/* Inside the call, on the owner: will this tx still change here (spec 4.4 "active")? */
	bool (*is_active)(RestHost *host, Tx *tx);
	bool (*is_incremental)(RestHost *host, Tx *tx);
};

/* ---- the table of live transactions of one worker; owned by the API ---- */

/* The table of a host on a worker. */
RestTable *rest_table(RestHost *host, Worker *worker);
void rest_table_add(RestTable *table, Tx *tx);         /* counted; by tx->id */
void rest_table_remove(RestTable *table, Tx *tx);      /* long polls are answered first */
Tx *rest_table_find(RestTable *table, const char *id); /* borrowed; NULL */
unsigned rest_table_count(const RestTable *table);
