/* SPDX-License-Identifier: Apache-2.0 */
/* The schema, `koukan` in the database that is given, and the check of what is stored. */
#include <string.h>

#include "base/error.h"
#include "store/pg_int.h"

#define CREATE_TRIES 5 /* several processes may start at once */
#define CHECK_WAIT   (30 * USEC_PER_SEC)

/* Bodies are not compressed: most are small, and the large ones are packed already.  What is looked
 * up by its text is ordered by its bytes ("C"): other orders change with the server's C library,
 * and then its indexes do not find all rows any more. */
static const char SCHEMA[] =
	"BEGIN;"
	"CREATE SCHEMA IF NOT EXISTS koukan;"
	"SET LOCAL search_path TO koukan;"
	"CREATE TABLE meta (version INTEGER NOT NULL);"
	"CREATE TABLE session ("
	" id BIGSERIAL PRIMARY KEY, uri TEXT NOT NULL, live BOOLEAN NOT NULL,"
	" epoch BIGINT NOT NULL, group_no BIGINT NOT NULL, refresh BIGINT NOT NULL,"
	" seen TIMESTAMPTZ NOT NULL);"
	"CREATE TABLE tx ("
	" n BIGSERIAL PRIMARY KEY, id TEXT COLLATE \"C\" NOT NULL UNIQUE, sender TEXT, tag TEXT,"
	" json TEXT NOT NULL, builder TEXT, responses TEXT, mail_from TEXT, rcpt TEXT,"
	" destination TEXT COLLATE \"C\" NOT NULL, creation BIGINT NOT NULL,"
	" last_update BIGINT NOT NULL,"
	" next_attempt BIGINT NOT NULL, attempts BIGINT NOT NULL, version BIGINT NOT NULL,"
	" session BIGINT NOT NULL, held BOOLEAN NOT NULL, held_reason TEXT,"
	" crashes BIGINT NOT NULL, final_reason TEXT, body BIGINT);"
	"CREATE INDEX tx_waiting ON tx (destination, next_attempt, creation, n)"
	" WHERE " PG_WAITING ";"
	"CREATE INDEX tx_leased ON tx (session, destination) WHERE " PG_LEASED ";"
	"CREATE INDEX tx_held ON tx (destination) WHERE " PG_HELD ";"
	"CREATE INDEX tx_old ON tx (last_update, destination) WHERE " PG_FINAL ";"
	"CREATE TABLE dest (name TEXT COLLATE \"C\" PRIMARY KEY, due BIGINT NOT NULL);"
	"CREATE INDEX dest_due ON dest (due, name);"
	"CREATE TABLE tx_blob ("
	" tx BIGINT NOT NULL, seq INTEGER NOT NULL, name TEXT NOT NULL, blob BIGINT NOT NULL,"
	" PRIMARY KEY (tx, seq));"
	"CREATE SEQUENCE blob_id;"
	"CREATE TABLE blob ("
	" id BIGINT PRIMARY KEY, len BIGINT NOT NULL, refs BIGINT NOT NULL, data BYTEA NOT NULL);"
	"CREATE TABLE chunk ("
	" blob BIGINT NOT NULL, off BIGINT NOT NULL, data BYTEA NOT NULL, PRIMARY KEY (blob, off));"
	"ALTER TABLE blob ALTER COLUMN data SET STORAGE EXTERNAL;"
	"ALTER TABLE chunk ALTER COLUMN data SET STORAGE EXTERNAL;"
	"INSERT INTO meta VALUES (2);"
	"COMMIT;";
_Static_assert(PG_SCHEMA_VERSION == 2, "as in SCHEMA");

/* The first makes 2 of 1, and so on; inside a transaction that holds all locks.  Columns whose
 * order changes have their indexes made anew, the rows stay as they are. */
static const char *const STEPS[] = {
	"ALTER TABLE tx ALTER COLUMN id TYPE TEXT COLLATE \"C\","
	" ALTER COLUMN destination TYPE TEXT COLLATE \"C\";"
	"ALTER TABLE dest ALTER COLUMN name TYPE TEXT COLLATE \"C\";"
	"UPDATE meta SET version=2;",
};
_Static_assert(G_N_ELEMENTS(STEPS) == PG_SCHEMA_VERSION - 1, "one step for each version");

/* Takes the answer, NULL for an error. */
static bool
take_number(PGresult *answer, int64_t *ret_number)
{
	g_autoptr(PGresult) result = answer;
	if (result == NULL)
		return false;
	*ret_number = PQntuples(result) > 0 ? pg_get_int(result, 0, 0) : 0;
	return true;
}

static bool
query_number(PGconn *conn, const char *sql, int64_t *ret_number, GError **ret_error)
{
	return take_number(pg_ask_raw(conn, sql, ret_error), ret_number);
}

/* *ret_version is 0 when there is no schema. */
static bool
read_version(PGconn *conn, int64_t *ret_version, GError **ret_error)
{
	int64_t tables;
	*ret_version = 0;
	return query_number(conn,
			    "SELECT count(*) FROM information_schema.tables"
			    " WHERE table_schema='koukan' AND table_name='meta'",
			    &tables, ret_error) &&
	       (tables == 0 ||
		query_number(conn, "SELECT version FROM koukan.meta", ret_version, ret_error));
}

/* Two that create it at the same time get in each other's way; the second one finds it then. */
static bool
create(PGconn *conn, int64_t *ret_version, GError **ret_error)
{
	for (int i = 0; i < CREATE_TRIES; i++) {
		g_clear_error(ret_error);
		if (pg_exec_raw(conn, SCHEMA, ret_error)) {
			*ret_version = PG_SCHEMA_VERSION;
			return true;
		}
		g_autoptr(GError) error = NULL;
		if (!pg_exec_raw(conn, "ROLLBACK", &error) ||
		    !read_version(conn, ret_version, &error))
			return false;
		if (*ret_version > 0) {
			g_clear_error(ret_error);
			return true;
		}
	}
	return false;
}

static bool
wrong_version(int64_t version, KErrorCode code, GError **ret_error)
{
	return error_set(ret_error, code,
			 "the database has schema version %d, this program needs %d: %s",
			 (int)version, PG_SCHEMA_VERSION,
			 version > PG_SCHEMA_VERSION
				 ? "a newer program made it"
				 : "stop the routers that use it, then run koukan store migrate");
}

bool
pg_set_up_schema(PGconn *conn, int64_t *ret_version, GError **ret_error)
{
	g_autoptr(GError) error = NULL;
	if (!read_version(conn, ret_version, ret_error))
		return false;
	if (*ret_version == 0 && !create(conn, ret_version, &error)) {
		g_propagate_prefixed_error(ret_error, g_steal_pointer(&error),
					   "creating the schema koukan: ");
		return false;
	}
	return *ret_version == PG_SCHEMA_VERSION ||
	       wrong_version(*ret_version, K_ERROR_CONFIG, ret_error);
}

/* ---- migrating ---- */

/* A router that is at work has prepared its statements for the old schema. */
static bool
nobody_works(PGconn *conn, GError **ret_error)
{
	int64_t routers;
	if (!query_number(conn,
			  "SELECT count(*) FROM session WHERE live"
			  " AND seen>=now()-10*refresh*interval '1 microsecond'",
			  &routers, ret_error))
		return false;
	return routers == 0 ||
	       error_set(ret_error, K_ERROR_CONFLICT,
			 "%d router(s) use the database: stop them first (one that crashed counts "
			 "for ten of its session_refresh_interval)",
			 (int)routers);
}

/* With the locks: nobody can join, and nobody else migrates. */
static bool
run_steps(PGconn *conn, GError **ret_error)
{
	int64_t version;
	if (!query_number(conn, "SELECT version FROM meta", &version, ret_error))
		return false;
	if (version == PG_SCHEMA_VERSION) /* somebody else was first */
		return true;
	if (version < 1 || version > PG_SCHEMA_VERSION)
		return wrong_version(version, K_ERROR_CONFLICT, ret_error);
	if (!nobody_works(conn, ret_error))
		return false;
	for (; version < PG_SCHEMA_VERSION; version++) {
		g_autoptr(PGresult) result = pg_ask_slow(conn, STEPS[version - 1], ret_error);
		if (result == NULL)
			return false;
	}
	return true;
}

static bool
migrate(PGconn *conn, GError **ret_error)
{
	static const char *const BEFORE[] = {
		"SET search_path TO koukan",
		"SET lock_timeout TO '10s'",
		"SET statement_timeout TO 0",
		"BEGIN",
		"LOCK TABLE meta, session, dest, tx IN ACCESS EXCLUSIVE MODE",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(BEFORE); i++) {
		if (!pg_exec_raw(conn, BEFORE[i], ret_error))
			return false;
	}
	return run_steps(conn, ret_error) && pg_exec_raw(conn, "COMMIT", ret_error);
}

static PGconn *
connect_to(const char *url, GError **ret_error)
{
	g_autofree char *address = store_url_libpq(url);
	return pg_connect_raw(address, clock_after(CHECK_WAIT), ret_error);
}

bool
pg_migrate(const char *url, GError **ret_error)
{
	if (!pg_lib_load(ret_error))
		return false;
	PGconn *conn = connect_to(url, ret_error);
	if (conn == NULL)
		return false;
	g_autoptr(GError) error = NULL;
	int64_t version = 0;
	bool ok = pg_set_up_schema(conn, &version, &error);
	if (!ok && version > PG_SCHEMA_VERSION)
		wrong_version(version, K_ERROR_CONFLICT, ret_error);
	else if (!ok && version > 0)
		ok = migrate(conn, ret_error);
	else if (!ok)
		g_propagate_error(ret_error, g_steal_pointer(&error));
	PQfinish(conn);
	return ok;
}

/* ---- check ---- */

/* What must find nothing. */
static const struct {
	const char *what, *sql;
} FAULTS[] = {
	{"rows whose body is missing", "SELECT count(*) FROM tx LEFT JOIN blob b ON b.id=body"
				       " WHERE body IS NOT NULL AND b.id IS NULL"},
	{"parts that are missing",
	 "SELECT count(*) FROM tx_blob p LEFT JOIN blob b ON b.id=p.blob WHERE b.id IS NULL"},
	{"parts of rows that are gone",
	 "SELECT count(*) FROM tx_blob p LEFT JOIN tx t ON t.n=p.tx WHERE t.n IS NULL"},
	{"bodies with a wrong count of references",
	 "SELECT count(*) FROM blob LEFT JOIN (SELECT b, count(*) AS c FROM"
	 " (SELECT body AS b FROM tx WHERE body IS NOT NULL UNION ALL SELECT blob FROM tx_blob) x"
	 " GROUP BY b) y ON b=id WHERE refs<>coalesce(c,0)"},
	{"bodies with a wrong length",
	 "SELECT count(*) FROM blob LEFT JOIN"
	 " (SELECT blob AS b, sum(length(data)) AS s FROM chunk GROUP BY blob) c ON b=id"
	 " WHERE len<>length(data)+coalesce(s,0)"},
	{"pieces of bodies that are gone",
	 "SELECT count(*) FROM chunk c LEFT JOIN blob b ON b.id=c.blob WHERE b.id IS NULL"},
	{"waiting rows that no claim would find",
	 "SELECT count(*) FROM (SELECT destination AS d, min(next_attempt) AS t FROM tx"
	 " WHERE " PG_WAITING " GROUP BY destination) x LEFT JOIN dest ON name=d"
	 " WHERE due IS NULL OR due>t"},
	{"rows leased by sessions that do not exist",
	 "SELECT count(*) FROM tx LEFT JOIN session s ON s.id=session"
	 " WHERE " PG_LEASED " AND s.id IS NULL"},
};

static const struct {
	const char *what, *sql;
} NUMBERS[] = {
	{"queued", "SELECT count(*) FROM tx WHERE " PG_WAITING},
	{"leased", "SELECT count(*) FROM tx WHERE " PG_LEASED},
	{"held", "SELECT count(*) FROM tx WHERE " PG_HELD},
	{"final", "SELECT count(*) FROM tx WHERE " PG_FINAL},
	{"live sessions", "SELECT count(*) FROM session WHERE live"},
};

static bool
check_content(PGconn *conn, GString *report, bool *ret_sound, GError **ret_error)
{
	int64_t count;
	for (size_t i = 0; i < G_N_ELEMENTS(NUMBERS); i++) {
		if (!take_number(pg_ask_slow(conn, NUMBERS[i].sql, ret_error), &count))
			return false;
		g_string_append_printf(report, "%s: %" G_GINT64_FORMAT "\n", NUMBERS[i].what,
				       count);
	}
	for (size_t i = 0; i < G_N_ELEMENTS(FAULTS); i++) {
		if (!take_number(pg_ask_slow(conn, FAULTS[i].sql, ret_error), &count))
			return false;
		if (count == 0)
			continue;
		*ret_sound = false;
		g_string_append_printf(report, "%s: %" G_GINT64_FORMAT "\n", FAULTS[i].what, count);
	}
	return true;
}

static bool
check_all(PGconn *conn, GString *report, GError **ret_error)
{
	int64_t version;
	bool sound = true;
	g_autoptr(GPtrArray) warnings = g_ptr_array_new_with_free_func(g_free);
	if (!read_version(conn, &version, ret_error))
		return false;
	g_string_append_printf(report, "schema version: %d\n", (int)version);
	if (version == 0)
		return error_set(ret_error, K_ERROR_CONFIG,
				 "there is no schema koukan: run koukan store init");
	if (version != PG_SCHEMA_VERSION)
		return wrong_version(version, K_ERROR_CONFIG, ret_error);
	pg_check_settings(conn, warnings);
	for (guint i = 0; i < warnings->len; i++)
		g_string_append_printf(report, "warning: %s\n",
				       (char *)g_ptr_array_index(warnings, i));
	/* One moment for all questions. */
	if (!pg_exec_raw(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ", ret_error) ||
	    !pg_exec_raw(conn, "SET LOCAL search_path TO koukan", ret_error) ||
	    !check_content(conn, report, &sound, ret_error))
		return false;
	return sound || error_set(ret_error, K_ERROR_STORE, "the database is damaged");
}

bool
pg_check(const char *url, GString *report, GError **ret_error)
{
	if (!pg_lib_load(ret_error))
		return false;
	PGconn *conn = connect_to(url, ret_error);
	if (conn == NULL)
		return false;
	bool ok = check_all(conn, report, ret_error);
	PQfinish(conn);
	return ok;
}
