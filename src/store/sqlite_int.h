/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* SQLite: shared by the files of this backend. */
#include <sqlite3.h>

#include "store/store_int.h"

#define SQLITE_SCHEMA_VERSION 3

/* A row is in exactly one of these states.  The texts are those of the partial indexes, so that
 * they are used. */
#define IS_WAITING "leased=0 AND held=0 AND final_reason IS NULL"
#define IS_LEASED  "leased=1 AND final_reason IS NULL"
#define IS_HELD    "held=1 AND leased=0 AND final_reason IS NULL"
#define IS_FINAL   "final_reason IS NOT NULL"

#define TX_COLUMNS                                                                                 \
	"n, id, sender, tag, json, builder, responses, mail_from, rcpt, creation, last_update,"    \
	" next_attempt, attempts, leased, version, final_reason, body, destination, held,"         \
	" held_reason, crashes"

#define LIST_SQL(state)                                                                            \
	"SELECT " TX_COLUMNS " FROM tx WHERE n>?1 AND " state                                      \
	" AND (?2 IS NULL OR lower(mail_from)=?2)"                                                 \
	" AND (?3 IS NULL OR substr(lower(mail_from),-length(?3))=?3)"                             \
	" AND (?4 IS NULL OR lower(rcpt)=?4)"                                                      \
	" AND (?5 IS NULL OR substr(lower(rcpt),-length(?5))=?5)"                                  \
	" AND (?6 IS NULL OR destination=?6) AND (?7=0 OR creation<?7) ORDER BY n LIMIT ?8"

#define UPDATE_SQL                                                                                 \
	"UPDATE tx SET responses=?2, attempts=?3, next_attempt=?4, leased=?5, version=?6,"         \
	" final_reason=?7, last_update=?8, crashes=CASE ?5 WHEN 0 THEN 0 ELSE crashes END"         \
	" WHERE id=?1 AND leased=1"

#define COUNTS                                                                                     \
	"WITH c (d, q, l, h, f, o) AS ("                                                           \
	"SELECT destination, count(*), 0, 0, 0, min(creation) FROM tx WHERE " IS_WAITING           \
	" GROUP BY destination UNION ALL "                                                         \
	"SELECT destination, 0, count(*), 0, 0, min(creation) FROM tx WHERE " IS_LEASED            \
	" GROUP BY destination UNION ALL "                                                         \
	"SELECT destination, 0, 0, count(*), 0, min(creation) FROM tx WHERE " IS_HELD              \
	" GROUP BY destination UNION ALL "                                                         \
	"SELECT destination, 0, 0, 0, count(*), NULL FROM tx WHERE " IS_FINAL                      \
	" GROUP BY destination) "

#define STATEMENTS(X)                                                                              \
	X(BEGIN, "BEGIN IMMEDIATE")                                                                \
	X(BEGIN_READ, "BEGIN")                                                                     \
	X(COMMIT, "COMMIT")                                                                        \
	X(ROLLBACK, "ROLLBACK")                                                                    \
	X(SAVE, "SAVEPOINT job")                                                                   \
	X(RELEASE, "RELEASE job")                                                                  \
	X(ROLLBACK_TO, "ROLLBACK TO job")                                                          \
	X(TX_INSERT, "INSERT INTO tx (id, sender, tag, json, builder, responses, mail_from, rcpt," \
		     " destination, held_reason, final_reason, creation, last_update,"             \
		     " next_attempt, attempts, leased, version, held, crashes, body) VALUES"       \
		     " (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20)")  \
	X(TX_UPDATE, UPDATE_SQL)                                                                   \
	X(TX_GIVE_BACK, UPDATE_SQL " RETURNING destination")                                       \
	X(TX_PUT_OFF, "UPDATE tx SET next_attempt=?2 WHERE n=?1")                                  \
	X(TX_SELECT, "SELECT " TX_COLUMNS " FROM tx WHERE id=?1")                                  \
	X(TX_SELECT_N, "SELECT " TX_COLUMNS " FROM tx WHERE n=?1")                                 \
	X(TX_LEASE, "UPDATE tx SET leased=1, crashes=crashes+1, last_update=?2 WHERE n=?1")        \
	X(TX_SET_ASIDE, "UPDATE tx SET held=1, held_reason=?2, last_update=?3 WHERE n=?1")         \
	X(TX_STATE, "SELECT n, leased, final_reason IS NOT NULL, destination, next_attempt, held"  \
		    " FROM tx WHERE id=?1")                                                        \
	X(TX_CANCEL, "UPDATE tx SET final_reason=?2, held=0, held_reason=NULL,"                    \
		     " version=version+1, last_update=?3 WHERE n=?1")                              \
	X(TX_HOLD, "UPDATE tx SET held=1, held_reason=?2, last_update=?3 WHERE n=?1")              \
	X(TX_FREE, "UPDATE tx SET held=0, held_reason=NULL, crashes=0, next_attempt=?2,"           \
		   " last_update=?3 WHERE n=?1")                                                   \
	X(TX_REPLAN, "UPDATE tx SET next_attempt=?1 WHERE n IN (SELECT n FROM dest CROSS JOIN"     \
		     " tx INDEXED BY tx_waiting WHERE destination=name AND " IS_WAITING            \
		     " AND next_attempt>?2 LIMIT ?3)")                                             \
	X(TX_OLD, "SELECT n, body FROM tx WHERE " IS_FINAL " AND last_update<?1"                   \
		  " ORDER BY last_update LIMIT ?2")                                                \
	X(TX_DELETE, "DELETE FROM tx WHERE n=?1")                                                  \
	X(DEST_DUE, "INSERT INTO dest (name, due) VALUES (?1,?2)"                                  \
		    " ON CONFLICT (name) DO UPDATE SET due=excluded.due"                           \
		    " WHERE excluded.due<dest.due")                                                \
	X(DEST_WALK, "SELECT name, due FROM dest WHERE (due, name)>(?1, ?2)"                       \
		     " ORDER BY due, name LIMIT ?3")                                               \
	X(DEST_ROWS, "SELECT n, next_attempt FROM tx WHERE destination=?1 AND " IS_WAITING         \
		     " ORDER BY next_attempt, creation, n LIMIT ?2")                               \
	X(DEST_SET, "UPDATE dest SET due=?2 WHERE name=?1")                                        \
	X(DEST_DROP, "DELETE FROM dest WHERE name=?1")                                             \
	X(DEST_REPLAN, "UPDATE dest SET due=?1 WHERE due>?1 AND name IN (SELECT destination FROM"  \
		       " tx INDEXED BY tx_waiting WHERE " IS_WAITING " AND next_attempt=?1)")      \
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
	X(IDEM_GET, "SELECT tx, hash FROM idem WHERE key=?1 AND until>?2")                         \
	X(IDEM_PUT, "INSERT INTO idem (key, hash, tx, until, kept) VALUES (?1,?2,?3,?4,?5)"        \
		    " ON CONFLICT (key) DO UPDATE SET hash=excluded.hash, tx=excluded.tx,"         \
		    " until=excluded.until, kept=excluded.kept"                                    \
		    " WHERE idem.until<=?6 OR idem.tx=excluded.tx")                                \
	X(IDEM_OLD, "DELETE FROM idem WHERE key IN"                                                \
		    " (SELECT key FROM idem WHERE until<=?1 ORDER BY until LIMIT 4)")              \
	X(MAX_BLOB, "SELECT max((SELECT ifnull(max(id),0) FROM blob),"                             \
		    " (SELECT ifnull(max(blob),0) FROM chunk))")                                   \
	X(LIST_ANY, LIST_SQL("1"))                                                                 \
	X(LIST_QUEUED, LIST_SQL(IS_WAITING))                                                       \
	X(LIST_LEASED, LIST_SQL(IS_LEASED))                                                        \
	X(LIST_HELD, LIST_SQL(IS_HELD))                                                            \
	X(LIST_FINAL, LIST_SQL(IS_FINAL))                                                          \
	X(COUNT_ALL, COUNTS "SELECT NULL, sum(q), sum(l), sum(h), sum(f), min(o) FROM c")          \
	X(COUNT_EACH, COUNTS "SELECT d, sum(q), sum(l), sum(h), sum(f), min(o) FROM c GROUP BY d"  \
			     " ORDER BY sum(q)+sum(l)+sum(h) DESC, d LIMIT ?1")

typedef enum DbStmt {
#define X(name, sql) SQL_##name,
	STATEMENTS(X)
#undef X
		SQL_COUNT
} DbStmt;

typedef struct Db {
	Backend backend;
	sqlite3 *handle;
	sqlite3_stmt *stmts[SQL_COUNT];
	int lock_fd;
	int wal_pages; /* in the write-ahead log after the last commit */
	bool reader;   /* of the second lane */
	bool is_newer; /* than this program */
	unsigned crash_max;
	BlobLimits limits;
	char *spill_dir;   /* what `limits` names */
	int64_t next_blob; /* next free id */
	BlobIds ids;
	Suspect suspect;
	GHashTable *dues; /* char* -> int64_t*: what `dest` is known to say, at the latest */
	uint8_t *buffer;  /* BLOB_CHUNK bytes */
} Db;

/* ---- sqlite.c ---- */

bool db_in_transaction(const Db *db);

/* A statement to bind to and step; always goes back through db_done. */
sqlite3_stmt *db_stmt(Db *db, DbStmt which);
void db_done(sqlite3_stmt *stmt);
/* Steps once: SQLITE_ROW or SQLITE_DONE; anything else sets the error and gives the code. */
int db_step(Db *db, sqlite3_stmt *stmt, GError **ret_error);
/* Runs a statement whose rows do not matter, and is done with it. */
K_MUST_CHECK bool db_run(Db *db, sqlite3_stmt *stmt, GError **ret_error);
void db_bind_text(sqlite3_stmt *stmt, int index, const char *text); /* borrowed until db_done */
void db_bind_int(sqlite3_stmt *stmt, int index, int64_t value);
/* K_ERROR_FULL, K_ERROR_CONFLICT or K_ERROR_STORE by what the database said last. */
bool db_error(Db *db, int rc, const char *what, GError **ret_error);
bool db_exec(Db *db, const char *sql, GError **ret_error);
/* The first column of the first row as text, or NULL.  Caller frees. */
char *db_query_text(Db *db, const char *sql, GError **ret_error);
/* What the last statement met was a damaged page. */
bool db_is_corrupt(const Db *db);

/* ---- sqlite_schema.c ---- */

/* Creates the schema in an empty file, brings an older one up to date. */
K_MUST_CHECK bool db_set_up_schema(Db *db, const char *path, GError **ret_error);
K_MUST_CHECK bool db_check_all(Db *db, GString *report, GError **ret_error);

/* ---- sqlite_blob.c ---- */

/* Stores the bytes, or one more reference to those that are stored. */
K_MUST_CHECK bool db_put_blob(Db *db, Blob *blob, int64_t *ret_id, GError **ret_error);
/* K_ERROR_INPUT when what is stored makes no sense. */
K_MUST_CHECK Blob *db_get_blob(Db *db, int64_t id, GError **ret_error);
K_MUST_CHECK bool db_unref_blob(Db *db, int64_t id, GError **ret_error);
/* ---- sqlite_rows.c ---- */

/* Where the parts of a row come from.  `seen` lets the rows of one claim share their bodies. */
typedef struct Loader {
	Db *db;
	bool contents;
	GHashTable *seen; /* int64_t* -> Blob*, or NULL */
} Loader;

/* Loads the row that `stmt` finds, and is done with it.  NULL with K_ERROR_INPUT for a damaged
 * one, K_ERROR_NOT_FOUND for none. */
K_MUST_CHECK StoreRow *db_load_row(const Loader *loader, sqlite3_stmt *stmt, GError **ret_error);
/* The text of TX_COLUMNS' id, or NULL.  Caller frees. */
char *db_row_id(Db *db, int64_t n);
K_MUST_CHECK bool db_run_load(Db *db, Job *job);
K_MUST_CHECK bool db_run_reuse(Db *db, Job *job);
K_MUST_CHECK bool db_run_list(Db *db, Job *job);
K_MUST_CHECK bool db_run_count(Db *db, Job *job);

/* ---- sqlite_claim.c ---- */

/* A row of that destination waits for that time. */
K_MUST_CHECK bool db_destination_due(Db *db, const char *name, int64_t due, GError **ret_error);
/* Something was undone: what is known about them may be wrong. */
void db_forget_dues(Db *db);
K_MUST_CHECK bool db_run_claim(Db *db, Job *job);
K_MUST_CHECK bool db_run_replan(Db *db, Job *job);

/* ---- sqlite_idem.c ---- */

/* The key of job->row; `kept`: with the row itself, in the same transaction. */
K_MUST_CHECK bool db_idem_put(Db *db, Job *job, bool kept);
K_MUST_CHECK bool db_run_idem_put(Db *db, Job *job);
K_MUST_CHECK bool db_run_idem_get(Db *db, Job *job);

/* ---- sqlite_jobs.c ---- */

/* Inside a transaction.  False with job->error set; what was done is for the caller to undo. */
K_MUST_CHECK bool db_run_job(Db *db, Job *job);
