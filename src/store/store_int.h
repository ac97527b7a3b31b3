/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Shared by the files of the store.
 *
 *   worker:  store_*() -> queue              (mutex)
 *   thread:  take the whole queue -> BEGIN -> each job in its SAVEPOINT -> COMMIT -> worker_post
 *   worker:  callback
 *
 * A Job is written by the worker until it is queued, by the store's thread until its answer is
 * posted, then by the worker again.  A Db is touched by one thread at a time: by the opener, then
 * by the store's thread. */
#include <sqlite3.h>

#include "store/store.h"

/* ---- jobs ---- */

typedef enum JobKind {
	JOB_INSERT,
	JOB_UPDATE,
	JOB_CLAIM,
	JOB_LOAD,
	JOB_REUSE,
	JOB_CANCEL,
	JOB_COLLECT,
	JOB_KINDS
} JobKind;

typedef struct Job {
	struct Job *next; /* in the queue */
	JobKind kind;
	Worker *asker;
	StoreFn *fn;
	void *arg;

	/* the request */
	StoreRow *row;
	char *id, *text; /* `text`: a blob's name or a reason */
	int64_t time;
	unsigned limit;
	bool with_blobs;

	/* the answer */
	GError *error;
	GPtrArray *rows;
	int64_t next_due;
	GPtrArray *damaged;
} Job;

/* ---- the database: sqlite.c ---- */

#define STATEMENTS(X)                                                                              \
	X(BEGIN, "BEGIN IMMEDIATE")                                                                \
	X(COMMIT, "COMMIT")                                                                        \
	X(ROLLBACK, "ROLLBACK")                                                                    \
	X(SAVE, "SAVEPOINT job")                                                                   \
	X(RELEASE, "RELEASE job")                                                                  \
	X(ROLLBACK_TO, "ROLLBACK TO job")                                                          \
	X(TX_INSERT, "INSERT INTO tx (id, sender, tag, json, builder, responses, mail_from, rcpt," \
		     " creation, last_update, next_attempt, attempts, leased, version,"            \
		     " final_reason, body)"                                                        \
		     " VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)")           \
	X(TX_UPDATE, "UPDATE tx SET responses=?2, attempts=?3, next_attempt=?4, leased=?5,"        \
		     " version=?6, final_reason=?7, last_update=?8 WHERE id=?1")                   \
	X(TX_SELECT, "SELECT n, id, sender, tag, json, builder, responses, mail_from, rcpt,"       \
		     " creation, last_update, next_attempt, attempts, leased, version,"            \
		     " final_reason, body FROM tx WHERE id=?1")                                    \
	X(TX_SELECT_N, "SELECT n, id, sender, tag, json, builder, responses, mail_from, rcpt,"     \
		       " creation, last_update, next_attempt, attempts, leased, version,"          \
		       " final_reason, body FROM tx WHERE n=?1")                                   \
	X(TX_DUE, "SELECT n FROM tx WHERE final_reason IS NULL AND parked IS NULL AND leased=0"    \
		  " AND next_attempt<=?1 ORDER BY next_attempt, n LIMIT ?2")                       \
	X(TX_NEXT, "SELECT min(next_attempt) FROM tx WHERE final_reason IS NULL"                   \
		   " AND parked IS NULL AND leased=0")                                             \
	X(TX_LEASE, "UPDATE tx SET leased=1, last_update=?2 WHERE n=?1")                           \
	X(TX_PARK, "UPDATE tx SET parked=?2, last_update=?3 WHERE n=?1")                           \
	X(TX_STATE, "SELECT leased, final_reason IS NOT NULL FROM tx WHERE id=?1")                 \
	X(TX_CANCEL, "UPDATE tx SET final_reason=?2, version=version+1, last_update=?3"            \
		     " WHERE id=?1")                                                               \
	X(TX_OLD, "SELECT n, body FROM tx WHERE final_reason IS NOT NULL AND last_update<?1"       \
		  " ORDER BY last_update LIMIT ?2")                                                \
	X(TX_DELETE, "DELETE FROM tx WHERE n=?1")                                                  \
	X(PART_INSERT, "INSERT INTO tx_blob (tx, seq, name, blob) VALUES (?1,?2,?3,?4)")           \
	X(PART_SELECT, "SELECT name, blob FROM tx_blob WHERE tx=?1 ORDER BY seq")                  \
	X(PART_DELETE, "DELETE FROM tx_blob WHERE tx=?1")                                          \
	X(REUSE_BODY, "SELECT body FROM tx WHERE id=?1")                                           \
	X(REUSE_PART, "SELECT p.blob FROM tx t JOIN tx_blob p ON p.tx=t.n"                         \
		      " WHERE t.id=?1 AND p.name=?2")                                              \
	X(BLOB_INSERT, "INSERT INTO blob (id, len, refs, data) VALUES (?1,?2,1,?3)")               \
	X(BLOB_REF, "UPDATE blob SET refs=refs+1 WHERE id=?1")                                     \
	X(BLOB_UNREF, "UPDATE blob SET refs=refs-1 WHERE id=?1")                                   \
	X(BLOB_DELETE, "DELETE FROM blob WHERE id=?1 AND refs<=0")                                 \
	X(BLOB_SELECT, "SELECT len, data FROM blob WHERE id=?1")                                   \
	X(CHUNK_INSERT, "INSERT INTO chunk (blob, off, data) VALUES (?1,?2,?3)")                   \
	X(CHUNK_SELECT, "SELECT off, data FROM chunk WHERE blob=?1 ORDER BY off")                  \
	X(CHUNK_DELETE, "DELETE FROM chunk WHERE blob=?1")                                         \
	X(MAX_BLOB, "SELECT max((SELECT ifnull(max(id),0) FROM blob),"                             \
		    " (SELECT ifnull(max(blob),0) FROM chunk))")

typedef enum DbStmt {
#define X(name, sql) SQL_##name,
	STATEMENTS(X)
#undef X
		SQL_COUNT
} DbStmt;

typedef struct Db {
	sqlite3 *handle;
	sqlite3_stmt *stmts[SQL_COUNT];
	int lock_fd;
	int wal_pages; /* in the write-ahead log after the last commit */
	BlobLimits limits;
	char *spill_dir;      /* what `limits` names */
	int64_t next_blob;    /* next free id */
	int64_t instance;     /* tells the stored ids of this Db from those of others */
	GPtrArray *new_blobs; /* Blob*, borrowed: stored in the current transaction, in order */
	GHashTable *new_ids;  /* Blob* -> int64_t* of those */
	uint8_t *buffer;      /* BLOB_CHUNK bytes */
} Db;

K_MUST_CHECK Db *db_open(const StoreConfig *config, GError **ret_error);
void db_close(Db *db); /* NULL is fine */

K_MUST_CHECK bool db_begin(Db *db, GError **ret_error);
K_MUST_CHECK bool db_commit(Db *db, GError **ret_error);
void db_rollback(Db *db);
bool db_in_transaction(const Db *db);
/* Between transactions: what keeps the files small. */
void db_maintain(Db *db, bool idle, bool collected);

/* A statement to bind to and step; always goes back through db_done. */
sqlite3_stmt *db_stmt(Db *db, DbStmt which);
void db_done(sqlite3_stmt *stmt);
/* Steps once: SQLITE_ROW or SQLITE_DONE; anything else sets the error and gives the code. */
int db_step(Db *db, sqlite3_stmt *stmt, GError **ret_error);
/* Runs a statement that answers no rows, and is done with it. */
K_MUST_CHECK bool db_run(Db *db, sqlite3_stmt *stmt, GError **ret_error);
void db_bind_text(sqlite3_stmt *stmt, int index, const char *text); /* borrowed until db_done */
/* K_ERROR_FULL, K_ERROR_CONFLICT or K_ERROR_STORE by what the database said last. */
bool db_error(Db *db, int rc, const char *what, GError **ret_error);

/* What the last statement met was a damaged page. */
bool db_is_corrupt(const Db *db);

/* The file that a URL names; K_ERROR_CONFIG.  Caller frees. */
K_MUST_CHECK char *store_url_path(const char *url, GError **ret_error);

/* ---- blobs: sqlite_blob.c ---- */

#define BLOB_CHUNK (128 * 1024) /* bytes of a blob in one row */

/* Stores the bytes, or one more reference to those that are stored. */
K_MUST_CHECK bool db_put_blob(Db *db, Blob *blob, int64_t *ret_id, GError **ret_error);
/* K_ERROR_INPUT when what is stored makes no sense. */
K_MUST_CHECK Blob *db_get_blob(Db *db, int64_t id, GError **ret_error);
K_MUST_CHECK bool db_unref_blob(Db *db, int64_t id, GError **ret_error);
/* The blobs of the transaction are on disk: they learn their ids. */
void db_publish_blobs(Db *db);
/* Forgets those that came after the first `keep`: their job was undone. */
void db_forget_blobs(Db *db, guint keep);

/* ---- jobs in the database: sqlite_jobs.c ---- */

/* Inside a transaction.  False with job->error set; what was done is for the caller to undo. */
K_MUST_CHECK bool db_run_job(Db *db, Job *job);
