/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The durable queue: transactions that we are responsible for, and their bodies.
 *
 * Asynchronous: workers hand over jobs, a store thread runs them in groups, one flushed commit
 * for all that came while the former flush ran, and each answer is posted back to the worker
 * that asked, exactly once, never inside the call.  An answer without error means: committed and
 * flushed.  Jobs of one worker run in the order in which they were given.
 *
 * The queue of jobs is bounded: when it is full a job is answered K_ERROR_FULL at once (still not
 * inside the call).  Owner: service/router.  store_* may be called on any worker. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "loop/worker.h"
#include "tx/blob.h"

typedef struct Store Store;

#define STORE_QUEUE_MAX 20000 /* jobs waiting, default */
#define STORE_BUSY_WAIT (5 * USEC_PER_SEC)
#define STORE_REFRESH   (30 * USEC_PER_SEC)
#define STORE_CRASH_MAX 10

/* A body blob of a row.  `name` NULL: the message itself (/body), else a named part. */
typedef struct StoreBlob {
	char *name;
	Blob *blob; /* final; in memory or spilled */
} StoreBlob;

/* One transaction as it lies in the store.  Plain owned values, so that it can cross threads. */
typedef struct StoreRow {
	char *id;
	char *sender, *tag;   /* tag may be NULL */
	char *json;           /* requests, TX_JSON_STORE text */
	char *builder;        /* message-builder spec text, or NULL */
	char *responses;      /* answers of the newest attempt, TX_JSON_ATTEMPT text, or NULL */
	char *mail_from;      /* for operators: envelope sender */
	char *rcpt;           /* for operators: first recipient */
	int64_t creation;     /* unix seconds */
	int64_t last_update;  /* unix seconds; set by the store */
	int64_t next_attempt; /* unix seconds; 0: none planned */
	int attempts;         /* attempts started so far */
	bool leased;          /* a running process works on it */
	uint64_t version;     /* the etag survives a restart */
	char *final_reason;   /* NULL: not final */
	char *destination; /* where it goes, for fairness: the recipient's domain in lower case; set
			      by store_insert from `rcpt` when NULL */
	bool held;         /* not claimed until released */
	char *held_reason; /* NULL, or why */
	unsigned crashes;  /* leases in a row whose process died before it gave the row back */
	char *owner_uri;   /* leased by another live session: its session_uri; else NULL */
	GPtrArray *blobs;  /* StoreBlob*, may be empty */
	/* An idempotency key that stands for this row: by whom and what for, the hash of the
	 * request it came with, and until when it is kept (unix seconds).  NULL: none. */
	char *idem_key, *idem_hash;
	int64_t idem_until;
} StoreRow;

StoreRow *store_row_new(void);
void store_row_free(StoreRow *row);                                   /* NULL is fine */
void store_row_add_blob(StoreRow *row, const char *name, Blob *blob); /* counted */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(StoreRow, store_row_free)

typedef struct StoreConfig {
	const char *url;    /* sqlite:///relative, sqlite:////absolute, sqlite+pysqlite:///..., a
			       bare path; postgresql[+driver]://USER@HOST/DATABASE as libpq reads it,
			       also with ?host=/directory/of/the/socket */
	unsigned queue_max; /* 0: STORE_QUEUE_MAX */
	BlobLimits blobs;   /* for bodies that are loaded */
	Usec busy_wait;     /* how long another program may hold the database, or the server may be
			       away, before a job fails; 0: STORE_BUSY_WAIT */
	const char
		*session_uri; /* of this process, shown to others while it holds leases; NULL: "" */
	Usec session_refresh; /* heartbeat of our session; 0: 30 s.  A session is dead after 10
				 missed ones, and its leases are free again; ours counts itself
				 out after 5 (store_is_leaseholder). */
	unsigned crash_max;  /* attempts that died with their process before a row is held; 0: 10 */
	GPtrArray *warnings; /* store_open adds texts (char*) that an operator should read, such
				as a server that does not flush; NULL: not wanted */
} StoreConfig;

/* Opens or creates the database and its schema, takes the lock against a second process (SQLite) or
 * registers a session beside others (PostgreSQL), checks the settings that durability rests on,
 * gives back the leases of processes that died.  An older schema is brought up to date in SQLite;
 * in PostgreSQL, where others may still run on it, that is an error until store_migrate was called.
 * K_ERROR_CONFIG for an unusable URL or a database of something else, K_ERROR_CONFLICT when
 * another process has it, else K_ERROR_STORE or K_ERROR_IO. */
K_MUST_CHECK Store *store_open(const StoreConfig *config, GError **ret_error);
/* Finishes all jobs given so far (their answers are posted); those that come later are answered
 * K_ERROR_STORE.  By main, also while workers run.  NULL is fine. */
void store_stop(Store *store);
/* Finishes all jobs given so far (their answers are posted), closes.  Not on a worker that runs;
 * before workers_free, which runs the answers.  NULL is fine. */
void store_close(Store *store);

/* ---- jobs ---- */

/* `error` NULL: done.  `error` and `rows` are borrowed for the call; rows may be stolen with
 * g_ptr_array_steal_*.  On store_reuse the one row carries the one blob. */
typedef struct StoreResult {
	const GError *error;
	GPtrArray *rows;    /* StoreRow*; NULL where a job returns none */
	int64_t next_due;   /* store_claim: unix seconds of the earliest row still waiting, those of
			       `busy` destinations left out; 0: none */
	uint64_t count;     /* store_collect: rows deleted; store_replan: rows changed */
	GPtrArray *damaged; /* store_claim: char*, "ID: reason" of rows that could not be read and
			       are set aside now; NULL: none.  They stay in the database. */
} StoreResult;
typedef void StoreFn(void *arg, const StoreResult *result);

/* Errors of jobs: K_ERROR_FULL for a full disk or queue, K_ERROR_STORE when the database fails, and
 * those named below.  `fn` may be NULL.
 *
 * Inserts the row and its blobs (blobs already stored are only referenced) in one transaction.
 * `row` is moved.  K_ERROR_CONFLICT when there is a row of that id, or when its idempotency key
 * stands for another transaction. */
void store_insert(Store *store, StoreRow *row, StoreFn *fn, void *arg);
/* After an attempt, or when it starts: replaces responses, attempts, next_attempt, leased, version,
 * final_reason (those of `row`; its json, blobs and names are ignored); crashes becomes 0 when the
 * row is leased no longer (what is written while an attempt runs does not prove that it survives).
 * K_ERROR_NOT_FOUND when there is no such row, K_ERROR_CONFLICT, with nothing written, when the
 * row is no longer leased by our session (it was taken over while this process stood still).
 * `row` is moved. */
void store_update(Store *store, StoreRow *row, StoreFn *fn, void *arg);
/* Takes up to `limit` rows that are due at `now` and neither final, leased nor held; leases them to
 * our session, counts a crash until the next store_update, loads them with their blobs.  Fair: no
 * destination gets a second row before each that has due rows got its first, in the order of being
 * due; at most `per_destination` rows of one destination; none of those named in `busy` (char*, may
 * be NULL).  Finds them by index, whatever the length of the queue.  A row that has crashed
 * `crash_max` times is held instead ("crashed N times") and told in `damaged`.  A next_attempt of 0
 * is due at once. */
void store_claim(Store *store, int64_t now, unsigned limit, unsigned per_destination,
		 const GPtrArray *busy, StoreFn *fn, void *arg);
/* Reads one row; with_blobs false leaves blobs without content but with their names (blob = NULL).
 * K_ERROR_NOT_FOUND. */
void store_load(Store *store, const char *id, bool with_blobs, StoreFn *fn, void *arg);
/* A finished blob of another transaction, by reference: name NULL is the body.
 * K_ERROR_NOT_FOUND. */
void store_reuse(Store *store, const char *id, const char *name, StoreFn *fn, void *arg);
/* Marks a row that is not leased and not final as final with that reason; K_ERROR_NOT_FOUND,
 * K_ERROR_CONFLICT when it is leased; nothing happens (no error) when it is final. */
void store_cancel(Store *store, const char *id, const char *reason, StoreFn *fn, void *arg);
/* ---- idempotency keys ---- */

/* Keeps the key of a row that is not inserted yet: `id` and the idem_* of `row`, which is moved.
 * It is gone with this process, unless the row is inserted with it.  K_ERROR_CONFLICT when it
 * stands for another transaction.  An idem_until of 0 gives the key back. */
void store_idem_put(Store *store, StoreRow *row, StoreFn *fn, void *arg);
/* The transaction that a key stands for, as the one row of the answer: id, idem_hash; `owner_uri`
 * when another live process holds it and it is not stored.  K_ERROR_NOT_FOUND. */
void store_idem_get(Store *store, const char *key, StoreFn *fn, void *arg);

/* Deletes final rows last updated before `before` (unix seconds) and blobs without references, at
 * most `limit` rows. */
void store_collect(Store *store, int64_t before, unsigned limit, StoreFn *fn, void *arg);

/* Rows that wait for a time after `horizon` (unix seconds) are due now, at most `limit` of them;
 * `count` says how many.  For a wall clock that was ahead when they were planned. */
void store_replan(Store *store, int64_t horizon, unsigned limit, StoreFn *fn, void *arg);

/* ---- for operators ---- */

typedef enum StoreState {
	STORE_ANY,
	STORE_QUEUED,
	STORE_LEASED,
	STORE_HELD,
	STORE_FINAL
} StoreState;

typedef struct StoreFilter {
	StoreState state;
	const char *mail_from; /* exact address, or "@domain"; NULL: any.  So for rcpt. */
	const char *rcpt;
	const char *destination; /* NULL: any */
	int64_t older_than;      /* created before, unix seconds; 0: any */
	const char *after;       /* id of the last row of the former page; NULL: from the start */
	unsigned limit;          /* at most STORE_LIST_MAX */
} StoreFilter;
#define STORE_LIST_MAX 1000

/* Rows in the order of creation, without blobs' contents (blob = NULL).  A damaged one is there,
 * held, with its id and the reason.  K_ERROR_NOT_FOUND when there is no row `after` any more.  This
 * and store_count are not in order with the other jobs: they see what was committed when they run,
 * and however long they take, mail does not wait for them. */
void store_list(Store *store, const StoreFilter *filter, StoreFn *fn, void *arg);
typedef enum StoreAction {
	STORE_RETRY_NOW, /* next_attempt = now; also takes a held row back */
	STORE_HOLD,
	STORE_RELEASE
} StoreAction;
/* K_ERROR_NOT_FOUND; K_ERROR_CONFLICT when it is final or (hold) leased.  Retry and release forget
 * the crashes; for a leased row they do nothing. */
void store_act(Store *store, const char *id, StoreAction action, const char *reason, StoreFn *fn,
	       void *arg);
/* Counts by state and the oldest creation of what is not final, per destination and in all: rows of
 * StoreCount. */
typedef struct StoreCount {
	char *destination; /* NULL: all */
	uint64_t queued, leased, held, final;
	int64_t oldest; /* unix seconds; 0: none */
} StoreCount;
typedef void StoreCountFn(void *arg, const GError *error,
			  GPtrArray *counts); /* StoreCount*, the first is "all" */
void store_count(Store *store, unsigned destinations_max, StoreCountFn *fn, void *arg);

/* Something may have become due (inserted, released, another process's NOTIFY, a dead session's
 * leases): called on `worker`, at most a few times a second.  Polling stays necessary. */
void store_on_hint(Store *store, Worker *worker, WorkerFn *fn, void *arg);
/* False when our session could not refresh itself for 5 intervals: leases may be somebody else's by
 * now, so no new delivery may start.  Any thread. */
bool store_is_leaseholder(Store *store);

/* ---- maintenance without a server: koukan store init|migrate|check URL ---- */

/* Creates the schema, or brings an older one up to date; K_ERROR_CONFLICT when it is newer than
 * this program, or when a router works on an older one that is to be changed (PostgreSQL). */
K_MUST_CHECK bool store_migrate(const char *url, GError **ret_error);
/* Integrity of the database and of our own references; text for the operator in *ret_report (caller
 * frees), false when something is wrong. */
K_MUST_CHECK bool store_check(const char *url, char **ret_report, GError **ret_error);

/* For metrics and tests; any thread. */
typedef struct StoreStats {
	uint64_t jobs;     /* answered */
	uint64_t commits;  /* transactions committed */
	uint64_t failures; /* jobs answered with an error */
	uint64_t damaged;  /* rows set aside */
	unsigned queued;   /* jobs waiting */
} StoreStats;
void store_stats(Store *store, StoreStats *ret_stats);
