/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* PostgreSQL: shared by the files of this backend.
 *
 * Everything is sent in libpq's pipeline mode.  What writes is pushed: its result is read later, by
 * pg_drain, together with others; what answers rows is a query: it reads the results of all that
 * was pushed before it, then its own.  Statements are prepared when the connection is made.
 *
 * A group is one transaction:
 *   BEGIN, GUARD, the statements of each job, the destinations that wait, COMMIT
 * GUARD counts the group in our session's row and fails when the session or the connection is not
 * ours any more: so what a lost connection had under way is either counted, and then all of it is
 * there, or it never will be. */
#include <stdatomic.h>

#include "store/pg_lib.h"
#include "store/store_int.h"

#define PG_SCHEMA_VERSION 3
#define PG_PARAMS_MAX     24

#define PG_WAITING "session=0 AND NOT held AND final_reason IS NULL"
#define PG_LEASED  "session<>0 AND final_reason IS NULL"
#define PG_HELD    "held AND session=0 AND final_reason IS NULL"
#define PG_FINAL   "final_reason IS NOT NULL"

#define PG_COLUMNS                                                                                 \
	"t.n, t.id, t.sender, t.tag, t.json, t.builder, t.responses, t.mail_from, t.rcpt,"         \
	" t.destination, t.held_reason, t.final_reason, s.uri, t.creation, t.last_update,"         \
	" t.next_attempt, t.attempts, t.version, t.crashes, t.session, t.held, t.body"
/* Whose session it is, when that is a live one and not the one in $1. */
#define PG_OWNER " FROM tx t LEFT JOIN session s ON s.id=t.session AND s.live AND s.id<>$1"

#define PG_LIST(state)                                                                             \
	"SELECT " PG_COLUMNS PG_OWNER " WHERE t.n>$2 AND " state                                   \
	" AND ($3::text IS NULL OR lower(t.mail_from)=$3)"                                         \
	" AND ($4::text IS NULL OR right(lower(t.mail_from),length($4))=$4)"                       \
	" AND ($5::text IS NULL OR lower(t.rcpt)=$5)"                                              \
	" AND ($6::text IS NULL OR right(lower(t.rcpt),length($6))=$6)"                            \
	" AND ($7::text IS NULL OR t.destination=$7) AND ($8::bigint=0 OR t.creation<$8)"          \
	" ORDER BY t.n LIMIT $9"

#define PG_COUNTS                                                                                  \
	"WITH c (d, q, l, h, f, o) AS ("                                                           \
	"SELECT destination, count(*), 0, 0, 0, min(creation) FROM tx WHERE " PG_WAITING           \
	" GROUP BY destination UNION ALL "                                                         \
	"SELECT destination, 0, count(*), 0, 0, min(creation) FROM tx WHERE " PG_LEASED            \
	" GROUP BY destination UNION ALL "                                                         \
	"SELECT destination, 0, 0, count(*), 0, min(creation) FROM tx WHERE " PG_HELD              \
	" GROUP BY destination UNION ALL "                                                         \
	"SELECT destination, 0, 0, 0, count(*), NULL FROM tx WHERE " PG_FINAL                      \
	" GROUP BY destination) "

#define PG_INSERT_SQL                                                                              \
	"INSERT INTO tx (id, sender, tag, json, builder, responses, mail_from, rcpt,"              \
	" destination, held_reason, final_reason, creation, last_update, next_attempt, attempts,"  \
	" version, crashes, session, held, body) VALUES"                                           \
	" ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20)"

/* A statement that must change a row, or the transaction fails (division by zero). */
#define PG_MUST(change) "WITH changed AS (" change " RETURNING 1) SELECT 1/count(*) FROM changed"

/* The destinations whose rows wait, in one order for all processes. */
#define PG_DEST_UPSERT                                                                             \
	" ORDER BY 1 ON CONFLICT (name) DO UPDATE SET due=excluded.due WHERE excluded.due<dest.due"

#define PG_STATEMENTS(X)                                                                           \
	X(BEGIN, "BEGIN")                                                                          \
	X(COMMIT, "COMMIT")                                                                        \
	X(ROLLBACK, "ROLLBACK")                                                                    \
	X(SAVE, "SAVEPOINT job")                                                                   \
	X(RELEASE, "RELEASE SAVEPOINT job")                                                        \
	X(ROLLBACK_TO, "ROLLBACK TO SAVEPOINT job")                                                \
	X(GUARD, PG_MUST("UPDATE session SET seen=now(), group_no=$3"                              \
			 " WHERE id=$1 AND epoch=$2 AND live"))                                    \
	X(SESSION_NEW, "INSERT INTO session (uri, live, epoch, group_no, refresh, seen)"           \
		       " SELECT $1,true,0,0,$2,now() FROM meta WHERE version=$3 RETURNING id")     \
	X(SESSION_FENCE, "UPDATE session SET epoch=epoch+1,"                                       \
			 " seen=CASE WHEN live THEN now() ELSE seen END WHERE id=$1"               \
			 " RETURNING epoch, group_no, live")                                       \
	X(SESSION_DEAD, "SELECT id FROM session WHERE live AND id<>$1"                             \
			" AND seen<now()-10*refresh*interval '1 microsecond'"                      \
			" ORDER BY id FOR UPDATE SKIP LOCKED")                                     \
	X(SESSION_END, "UPDATE session SET live=false WHERE id=ANY($1::bigint[])")                 \
	X(SESSION_OLD, "DELETE FROM session WHERE NOT live AND seen<now()-interval '1 day'")       \
	X(FREE_DEST, "INSERT INTO dest (name, due) SELECT destination, min(next_attempt) FROM tx"  \
		     " WHERE session=ANY($1::bigint[]) AND " PG_LEASED                             \
		     " GROUP BY destination" PG_DEST_UPSERT)                                       \
	X(FREE, "UPDATE tx SET session=0, crashes=greatest(crashes-$2::int,0)"                     \
		" WHERE session=ANY($1::bigint[]) AND " PG_LEASED)                                 \
	X(TX_INSERT, PG_INSERT_SQL)                                                                \
	X(TX_INSERT_BODY, "WITH b AS (INSERT INTO blob (id, len, refs, data)"                      \
			  " VALUES ($20,$21,1,$22)) " PG_INSERT_SQL)                               \
	X(TX_UPDATE, "WITH u AS (UPDATE tx SET responses=$2, attempts=$3, next_attempt=$4,"        \
		     " version=$5, final_reason=$6, last_update=$7,"                               \
		     " session=CASE WHEN $8::bigint=1 THEN session ELSE 0 END,"                    \
		     " crashes=CASE WHEN $8::bigint=1 THEN crashes ELSE 0 END"                     \
		     " WHERE id=$1 AND session=$9 RETURNING destination)"                          \
		     " SELECT (SELECT destination FROM u), EXISTS(SELECT 1 FROM tx WHERE id=$1)")  \
	X(TX_SELECT, "SELECT " PG_COLUMNS PG_OWNER " WHERE t.id=$2")                               \
	X(TX_SELECT_N, "SELECT " PG_COLUMNS PG_OWNER " WHERE t.n=ANY($2::bigint[]) ORDER BY t.n")  \
	X(TX_LEASE, "UPDATE tx SET session=$1, crashes=crashes+1, last_update=$2"                  \
		    " WHERE n=ANY($3::bigint[])")                                                  \
	X(TX_PUT_OFF, "UPDATE tx SET next_attempt=$2 WHERE n=$1")                                  \
	X(TX_SET_ASIDE, "UPDATE tx SET held=true, held_reason=$2, last_update=$3 WHERE n=$1")      \
	X(TX_STATE, "SELECT n, session, final_reason IS NOT NULL, destination, next_attempt, held" \
		    " FROM tx WHERE id=$1 FOR UPDATE")                                             \
	X(TX_CANCEL, "UPDATE tx SET final_reason=$2, held=false, held_reason=NULL,"                \
		     " version=version+1, last_update=$3 WHERE n=$1")                              \
	X(TX_HOLD, "UPDATE tx SET held=true, held_reason=$2, last_update=$3 WHERE n=$1")           \
	X(TX_FREE, "UPDATE tx SET held=false, held_reason=NULL, crashes=0, next_attempt=$2,"       \
		   " last_update=$3 WHERE n=$1")                                                   \
	X(TX_REPLAN, "WITH u AS (UPDATE tx SET next_attempt=$1 WHERE n IN (SELECT n FROM tx WHERE" \
		     " " PG_WAITING " AND next_attempt>$2 LIMIT $3 FOR UPDATE SKIP LOCKED)"        \
		     " RETURNING destination)"                                                     \
		     " SELECT destination, count(*) FROM u GROUP BY destination")                  \
	X(TX_OLD, "SELECT n, body FROM tx WHERE " PG_FINAL " AND last_update<$1"                   \
		  " ORDER BY last_update LIMIT $2 FOR UPDATE SKIP LOCKED")                         \
	X(TX_DELETE, "DELETE FROM tx WHERE n=ANY($1::bigint[])")                                   \
	X(TX_DISOWN, "UPDATE tx SET id=id||'-'||n, final_reason='not acknowledged', session=0,"    \
		     " last_update=$3"                                                             \
		     " WHERE id=ANY($1::text[]) AND session IN (0,$2) AND final_reason IS NULL")   \
	X(TX_UNCLAIM_DEST,                                                                         \
	  "INSERT INTO dest (name, due) SELECT destination, min(next_attempt) FROM tx"             \
	  " WHERE n=ANY($1::bigint[]) AND session=$2 AND final_reason IS NULL"                     \
	  " GROUP BY destination" PG_DEST_UPSERT)                                                  \
	X(TX_UNCLAIM, "UPDATE tx SET session=0, crashes=greatest(crashes-1,0)"                     \
		      " WHERE n=ANY($1::bigint[]) AND session=$2 AND final_reason IS NULL")        \
	X(DEST_DUE, "INSERT INTO dest (name, due)"                                                 \
		    " SELECT name COLLATE \"C\", due FROM"                                         \
		    " unnest($1::text[], $2::bigint[]) u (name, due)" PG_DEST_UPSERT)              \
	X(DEST_WALK,                                                                               \
	  "SELECT d.name, d.due, t.n FROM (SELECT name, due FROM dest WHERE due<=$1"               \
	  " AND (due, name)>($2, $3) AND name<>ALL($4::text[]) ORDER BY due, name LIMIT $5) d"     \
	  " LEFT JOIN LATERAL (SELECT n FROM tx WHERE destination=d.name AND " PG_WAITING          \
	  " AND next_attempt<=$1 ORDER BY next_attempt, creation, n LIMIT 1) t ON true"            \
	  " ORDER BY d.due, d.name")                                                               \
	X(DEST_ROWS, "SELECT t.n, t.next_attempt, d.at FROM"                                       \
		     " unnest($1::text[]) WITH ORDINALITY d (name, at) CROSS JOIN LATERAL"         \
		     " (SELECT n, next_attempt FROM tx WHERE destination=d.name AND " PG_WAITING   \
		     " AND next_attempt<=$2 ORDER BY next_attempt, creation, n LIMIT $3"           \
		     " FOR UPDATE SKIP LOCKED) t ORDER BY d.at, t.next_attempt, t.n")              \
	X(DEST_LOCK, "SELECT name FROM dest WHERE name=ANY($1::text[]) ORDER BY name"              \
		     " FOR UPDATE SKIP LOCKED")                                                    \
	X(DEST_SET,                                                                                \
	  "UPDATE dest SET due=m.t FROM (SELECT u.name, (SELECT next_attempt FROM tx"              \
	  " WHERE destination=u.name AND " PG_WAITING                                              \
	  " ORDER BY next_attempt, creation, n LIMIT 1) AS t FROM unnest($1::text[]) u (name)) m"  \
	  " WHERE dest.name=m.name AND m.t IS NOT NULL AND m.t<>dest.due")                         \
	X(DEST_DROP, "DELETE FROM dest WHERE name=ANY($1::text[]) AND NOT EXISTS"                  \
		     " (SELECT 1 FROM tx WHERE destination=dest.name AND " PG_WAITING ")")         \
	X(DEST_NEXT,                                                                               \
	  "SELECT due FROM dest WHERE name<>ALL($1::text[]) ORDER BY due, name LIMIT 1")           \
	X(PART_INSERT, "INSERT INTO tx_blob (tx, seq, name, blob)"                                 \
		       " SELECT n, $2, $3, $4 FROM tx WHERE id=$1")                                \
	X(PART_SELECT, "SELECT tx, name, blob FROM tx_blob WHERE tx=ANY($1::bigint[])"             \
		       " ORDER BY tx, seq")                                                        \
	X(PART_BLOBS, "SELECT blob FROM tx_blob WHERE tx=ANY($1::bigint[])")                       \
	X(PART_DELETE, "DELETE FROM tx_blob WHERE tx=ANY($1::bigint[])")                           \
	X(REUSE_BODY, "SELECT body FROM tx WHERE id=$1")                                           \
	X(REUSE_PART, "SELECT p.blob FROM tx t JOIN tx_blob p ON p.tx=t.n"                         \
		      " WHERE t.id=$1 AND p.name=$2")                                              \
	X(BLOB_INSERT, "INSERT INTO blob (id, len, refs, data) VALUES ($1,$2,1,$3)")               \
	X(BLOB_REF, PG_MUST("UPDATE blob SET refs=refs+1 WHERE id=$1"))                            \
	X(BLOB_UNREF, "UPDATE blob SET refs=refs-u.c FROM (SELECT id, count(*) AS c FROM"          \
		      " unnest($1::bigint[]) x (id) GROUP BY id) u WHERE blob.id=u.id")            \
	X(CHUNK_DELETE, "DELETE FROM chunk WHERE blob IN"                                          \
			" (SELECT id FROM blob WHERE id=ANY($1::bigint[]) AND refs<=0)")           \
	X(BLOB_DELETE, "DELETE FROM blob WHERE id=ANY($1::bigint[]) AND refs<=0")                  \
	X(BLOB_SMALL, "SELECT len, data, id FROM blob WHERE id=ANY($1::bigint[])"                  \
		      " AND len=length(data)")                                                     \
	X(BLOB_SELECT, "SELECT len, data FROM blob WHERE id=$1")                                   \
	X(BLOB_IDS, "SELECT nextval('blob_id')")                                                   \
	X(CHUNK_INSERT, "INSERT INTO chunk (blob, off, data) VALUES ($1,$2,$3)")                   \
	X(CHUNK_SELECT, "SELECT off, data FROM chunk WHERE blob=$1 AND off>=$2"                    \
			" ORDER BY off LIMIT 16")                                                  \
	X(IDEM_GET, "SELECT i.tx, i.hash, s.uri FROM idem i LEFT JOIN session s"                   \
		    " ON s.id=i.session AND s.live AND s.id<>$3 WHERE i.key=$1 AND i.until>$2"     \
		    " AND (i.session IN (0,$3) OR s.id IS NOT NULL)")                              \
	X(IDEM_PUT, "INSERT INTO idem (key, hash, tx, until, session) VALUES ($1,$2,$3,$4,$5)"     \
		    " ON CONFLICT (key) DO UPDATE SET hash=excluded.hash, tx=excluded.tx,"         \
		    " until=excluded.until, session=excluded.session"                              \
		    " WHERE idem.until<=$6 OR idem.tx=excluded.tx OR (idem.session<>0 AND NOT"     \
		    " EXISTS (SELECT 1 FROM session s WHERE s.id=idem.session AND s.live))"        \
		    " RETURNING 1")                                                                \
	X(IDEM_OLD, "DELETE FROM idem WHERE key IN (SELECT key FROM idem WHERE until<=$1"          \
		    " ORDER BY until LIMIT 4 FOR UPDATE SKIP LOCKED)")                             \
	X(IDEM_DISOWN, "DELETE FROM idem WHERE tx IN (SELECT id FROM tx"                           \
		       " WHERE id=ANY($1::text[]) AND final_reason='not acknowledged')")           \
	X(ROW_NUMBER, "SELECT n FROM tx WHERE id=$1")                                              \
	X(LIST_ANY, PG_LIST("true"))                                                               \
	X(LIST_QUEUED, PG_LIST(PG_WAITING))                                                        \
	X(LIST_LEASED, PG_LIST(PG_LEASED))                                                         \
	X(LIST_HELD, PG_LIST(PG_HELD))                                                             \
	X(LIST_FINAL, PG_LIST(PG_FINAL))                                                           \
	X(COUNT_ALL, PG_COUNTS "SELECT NULL, sum(q), sum(l), sum(h), sum(f), min(o) FROM c")       \
	X(COUNT_EACH, PG_COUNTS "SELECT d, sum(q), sum(l), sum(h), sum(f), min(o) FROM c"          \
				" GROUP BY d ORDER BY sum(q)+sum(l)+sum(h) DESC, d LIMIT $1")

typedef enum PgStmt {
#define X(name, sql) PG_##name,
	PG_STATEMENTS(X)
#undef X
		PG_COUNT
} PgStmt;

/* What a pushed statement is about. */
typedef struct PgPending {
	PgStmt stmt;
	Job *job;   /* PG_TX_UPDATE: whose answer the result is */
	Blob *blob; /* PG_BLOB_REF */
} PgPending;

/* A group whose end we do not know, and whose jobs had to be answered: as failed. */
typedef struct PgOrphans {
	int64_t group_no;
	GPtrArray *inserted; /* char*, ids */
	GArray *claimed;     /* int64_t */
} PgOrphans;

typedef struct PgHint PgHint;

typedef struct Pg {
	Backend backend;
	char *url;
	bool reader; /* of the second lane */
	Usec wait, refresh;
	Usec silence; /* of the server, after which it is taken for dead */
	unsigned crash_max;
	char *uri;
	BlobLimits limits;
	char *spill_dir; /* what `limits` names */
	uint8_t *buffer; /* BLOB_CHUNK bytes */
	BlobIds ids;
	Suspect suspect;
	int64_t next_blob, last_blob; /* ids that are ours to give; none: next > last */

	PGconn *conn;          /* NULL: away */
	bool failed;           /* the connection is of no use any more */
	bool aborted;          /* an error: until pg_sync nothing is done */
	bool committing;       /* COMMIT may have been sent... */
	bool committed;        /* ...and was answered so */
	bool binary;           /* how the statement that is pushed now answers */
	size_t unflushed;      /* bytes pushed since the last flush */
	GArray *pending;       /* PgPending, in the order of sending */
	guint answered;        /* of `pending` */
	char sqlstate[6];      /* of the last error */
	const Job *group_jobs; /* those of the group that runs */
	Deadline give_up;      /* when the jobs of this group are answered, come what may */
	unsigned losses;       /* of connections */
	Deadline retry_at;
	Usec backoff;

	/* our session */
	int64_t session, epoch, group_no;
	Deadline beat_at;        /* the next heartbeat */
	_Atomic Deadline holder; /* the same, for any thread; 0: none */
	PgOrphans *orphans;      /* or NULL */
	GArray *claimed;         /* int64_t, by the group that runs */
	GHashTable *waits;       /* char* -> int64_t*: destinations to tell of, in this group */
	bool returned;  /* rows were given back in this group, their places are yet unknown */
	bool reclaimed; /* leases of others became free */

	PgHint *hint;
} Pg;

/* ---- pg_exec.c: the connection's ends ---- */

typedef struct PgParams {
	int n;
	const char *values[PG_PARAMS_MAX];
	int lengths[PG_PARAMS_MAX], formats[PG_PARAMS_MAX];
	char numbers[PG_PARAMS_MAX][24];
	GPtrArray *owned; /* arrays in text form; NULL: none */
} PgParams;

void pg_params_clear(PgParams *params);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PgParams, pg_params_clear)
void pg_text(PgParams *params, const char *text); /* borrowed until it is sent */
void pg_int(PgParams *params, int64_t number);
void pg_bool(PgParams *params, bool value);
void pg_null(PgParams *params);
void pg_bytes(PgParams *params, const void *data, size_t len); /* borrowed, too */
void pg_ints(PgParams *params, const GArray *numbers);         /* int64_t */
void pg_texts(PgParams *params, const GPtrArray *texts);       /* char* */

/* False: the connection is lost, with the error set. */
K_MUST_CHECK bool pg_push(Pg *pg, PgStmt stmt, const PgParams *params, const PgPending *about,
			  GError **ret_error);
/* NULL: an error, of this statement or of one pushed before.  `binary`: so are the answers. */
K_MUST_CHECK PGresult *pg_query(Pg *pg, PgStmt stmt, const PgParams *params, bool binary,
				GError **ret_error);
/* The results of all that was pushed.  False: one failed. */
K_MUST_CHECK bool pg_drain(Pg *pg, GError **ret_error);
/* Ends what was pushed with a synchronisation; statements outside of BEGIN are committed by it.
 * False: one failed. */
K_MUST_CHECK bool pg_sync(Pg *pg, GError **ret_error);
/* After an error: the pipeline works again, the transaction is still to be rolled back.  False:
 * the connection is lost. */
K_MUST_CHECK bool pg_recover(Pg *pg);
/* K_ERROR_* by the SQLSTATE of the last error. */
bool pg_error(Pg *pg, const PGresult *result, GError **ret_error);
bool pg_failed_with(const Pg *pg, const char *sqlstate); /* a prefix of it */
void pg_disconnect(Pg *pg);

int64_t pg_get_int(const PGresult *result, int row, int column);
bool pg_get_bool(const PGresult *result, int row, int column);
const char *pg_get_text(const PGresult *result, int row, int column); /* NULL for NULL */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PGresult, PQclear)

/* ---- pg_conn.c: connecting ---- */

/* One attempt, until `deadline` at the latest.  Prepares everything; nothing of sessions. */
K_MUST_CHECK bool pg_connect(Pg *pg, Deadline deadline, GError **ret_error);
/* A connection without anything set up, for other purposes; NULL on failure. */
PGconn *pg_connect_raw(const char *url, Deadline deadline, GError **ret_error);
/* Whether the socket became ready; false also when `deadline` passed. */
bool pg_poll(int fd, bool write, Deadline deadline, bool *ret_readable);
/* Runs plain SQL without pipeline mode, before pg_connect has turned it on. */
bool pg_exec_raw(PGconn *conn, const char *sql, GError **ret_error);
PGresult *pg_ask_raw(PGconn *conn, const char *sql, GError **ret_error);
PGresult *pg_ask_slow(PGconn *conn, const char *sql, GError **ret_error); /* may take hours */
/* What an operator should know about the server: char* are added. */
void pg_check_settings(PGconn *conn, GPtrArray *warnings);
Pg *pg_new(const StoreConfig *config);
Pg *pg_new_reader(const StoreConfig *config);
void pg_free(Pg *pg);
void pg_orphans_free(PgOrphans *orphans); /* NULL is fine */

/* ---- pg_schema.c ---- */

/* Creates it where there is none.  False when it is another version's, *ret_version says which;
 * 0: unknown. */
K_MUST_CHECK bool pg_set_up_schema(PGconn *conn, int64_t *ret_version, GError **ret_error);

/* ---- pg_session.c ---- */

/* Connected, with a live session; tries until pg->give_up.  When a group was pg->committing,
 * pg->committed says afterwards how it ended. */
K_MUST_CHECK bool pg_ready(Pg *pg, GError **ret_error);
/* The end of the group whose COMMIT was not answered: connects again and looks. */
GroupEnd pg_settle(Pg *pg, const Job *jobs, GError **ret_error);
/* Our session was refreshed; the server did it after `since`. */
void pg_alive(Pg *pg, Deadline since);
K_MUST_CHECK bool pg_push_guard(Pg *pg, GError **ret_error);
/* BEGIN and GUARD, both answered. */
K_MUST_CHECK bool pg_begin(Pg *pg, GError **ret_error);
/* Heartbeat, and the leases of the dead. */
K_MUST_CHECK bool pg_beat(Pg *pg, GError **ret_error);
/* Our own leases are given back. */
void pg_sign_off(Pg *pg);

/* ---- pg_blob.c ---- */

/* An id, and whether its content is still to be stored. */
K_MUST_CHECK bool pg_blob_id(Pg *pg, Blob *blob, int64_t *ret_id, bool *ret_new,
			     GError **ret_error);
/* Up to BLOB_CHUNK bytes at `offset`, valid until the next call. */
const void *pg_chunk_at(Pg *pg, const Blob *blob, uint64_t offset, size_t *ret_len,
			GError **ret_error);
/* Pushes a reference, or the content from `offset` on; 0: with its row. */
K_MUST_CHECK bool pg_put_ref(Pg *pg, Blob *blob, int64_t id, GError **ret_error);
K_MUST_CHECK bool pg_put_content(Pg *pg, Blob *blob, int64_t id, uint64_t offset,
				 GError **ret_error);
K_MUST_CHECK Blob *pg_get_blob(Pg *pg, int64_t id, GError **ret_error);
/* Those of `ids` that have no chunks, into `seen` (int64_t* -> Blob*). */
K_MUST_CHECK bool pg_get_small(Pg *pg, const GArray *ids, GHashTable *seen, GError **ret_error);

/* ---- pg_rows.c ---- */

typedef struct PgLoader {
	Pg *pg;
	bool contents;
	GHashTable *seen; /* int64_t* -> Blob*, or NULL */
	PGresult *parts;  /* by pg_load_parts */
} PgLoader;

void pg_loader_clear(PgLoader *loader);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PgLoader, pg_loader_clear)
/* For all rows of a result with PG_COLUMNS at once: the names of their parts, and with `seen` the
 * bodies that are small. */
K_MUST_CHECK bool pg_load_parts(PgLoader *loader, const PGresult *result, GError **ret_error);
/* The row at `at` of that result.  K_ERROR_INPUT for a damaged one. */
K_MUST_CHECK StoreRow *pg_load_row(const PgLoader *loader, const PGresult *result, int at,
				   GError **ret_error);
K_MUST_CHECK bool pg_run_load(Pg *pg, Job *job);
K_MUST_CHECK bool pg_run_reuse(Pg *pg, Job *job);
K_MUST_CHECK bool pg_run_list(Pg *pg, Job *job);
K_MUST_CHECK bool pg_run_count(Pg *pg, Job *job);

/* ---- pg_claim.c ---- */

/* A row of that destination will wait; told before the transaction ends. */
void pg_add_wait(Pg *pg, const char *destination, int64_t due);
K_MUST_CHECK bool pg_push_waits(Pg *pg, GError **ret_error);
K_MUST_CHECK bool pg_run_claim(Pg *pg, Job *job);

/* ---- pg_idem.c ---- */

/* The key of job->row; `kept`: with the row itself, in the same transaction. */
K_MUST_CHECK bool pg_idem_put(Pg *pg, Job *job, bool kept);
K_MUST_CHECK bool pg_run_idem_put(Pg *pg, Job *job);
K_MUST_CHECK bool pg_run_idem_get(Pg *pg, Job *job);

/* ---- pg_jobs.c ---- */

/* Pushes, or asks.  What was pushed answers by pg_drain. */
K_MUST_CHECK bool pg_run_job(Pg *pg, Job *job);
/* The result of a pushed PG_TX_UPDATE. */
void pg_updated(Pg *pg, Job *job, const PGresult *result);

/* ---- pg_hint.c: LISTEN and NOTIFY, on a connection and a thread of their own ---- */

PgHint *pg_hint_start(const char *url, Store *store); /* NULL: without */
void pg_hint_tell(PgHint *hint);
void pg_hint_stop(PgHint *hint); /* NULL is fine */
