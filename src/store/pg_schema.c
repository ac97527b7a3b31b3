/* SPDX-License-Identifier: Apache-2.0 */
/* The schema, `koukan` in the database that is given, and the check of what is stored. */
#include <string.h>

#include "base/error.h"
#include "store/pg_int.h"

#define CREATE_TRIES 5 /* several processes may start at once */
#define CHECK_WAIT   (30 * USEC_PER_SEC)

/* Idempotency keys: session 0: with a stored row; else while that session lives. */
#define IDEMPOTENCY                                                                                \
	"CREATE TABLE idem ("                                                                      \
	" key TEXT PRIMARY KEY, hash TEXT NOT NULL, tx TEXT NOT NULL, until BIGINT NOT NULL,"      \
	" session BIGINT NOT NULL);"                                                               \
	"CREATE INDEX idem_until ON idem (until);"

/* Bodies are not compressed: most are small, and the large ones are packed already. */
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
	" n BIGSERIAL PRIMARY KEY, id TEXT NOT NULL UNIQUE, sender TEXT, tag TEXT,"
	" json TEXT NOT NULL, builder TEXT, responses TEXT, mail_from TEXT, rcpt TEXT,"
	" destination TEXT NOT NULL, creation BIGINT NOT NULL, last_update BIGINT NOT NULL,"
	" next_attempt BIGINT NOT NULL, attempts BIGINT NOT NULL, version BIGINT NOT NULL,"
	" session BIGINT NOT NULL, held BOOLEAN NOT NULL, held_reason TEXT,"
	" crashes BIGINT NOT NULL, final_reason TEXT, body BIGINT);"
	"CREATE INDEX tx_waiting ON tx (destination, next_attempt, creation, n)"
	" WHERE " PG_WAITING ";"
	"CREATE INDEX tx_leased ON tx (session, destination) WHERE " PG_LEASED ";"
	"CREATE INDEX tx_held ON tx (destination) WHERE " PG_HELD ";"
	"CREATE INDEX tx_old ON tx (last_update, destination) WHERE " PG_FINAL ";"
	"CREATE TABLE dest (name TEXT PRIMARY KEY, due BIGINT NOT NULL);"
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
	"ALTER TABLE chunk ALTER COLUMN data SET STORAGE EXTERNAL;" IDEMPOTENCY
	"INSERT INTO meta VALUES (2);"
	"COMMIT;";
_Static_assert(PG_SCHEMA_VERSION == 2, "as in SCHEMA");

/* 1 had no idempotency keys.  Of two that do it at once one finds the table there, and fails. */
static const char FROM_1_TO_2[] = "BEGIN;"
				  "SET LOCAL search_path TO koukan;" IDEMPOTENCY
				  "UPDATE meta SET version=2;"
				  "COMMIT;";

static bool
query_number(PGconn *conn, const char *sql, int64_t *ret_number, GError **ret_error)
{
	g_autoptr(PGresult) result = pg_ask_raw(conn, sql, ret_error);
	if (result == NULL)
		return false;
	*ret_number = PQntuples(result) > 0 ? pg_get_int(result, 0, 0) : 0;
	return true;
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

bool
pg_set_up_schema(PGconn *conn, bool migrate, GError **ret_error)
{
	int64_t version;
	g_autoptr(GError) error = NULL;
	if (!read_version(conn, &version, ret_error))
		return false;
	if (version == 0 && !create(conn, &version, &error)) {
		g_propagate_prefixed_error(ret_error, g_steal_pointer(&error),
					   "creating the schema koukan: ");
		return false;
	}
	if (version == 1 && migrate) {
		if (!pg_exec_raw(conn, FROM_1_TO_2, ret_error))
			return false;
		version = 2;
	}
	if (version == PG_SCHEMA_VERSION)
		return true;
	if (version < PG_SCHEMA_VERSION)
		return error_set(ret_error, K_ERROR_CONFIG,
				 "the database has schema version %d, this program needs %d: run "
				 "koukan store migrate",
				 (int)version, PG_SCHEMA_VERSION);
	return error_set(ret_error, migrate ? K_ERROR_CONFLICT : K_ERROR_CONFIG,
			 "the database has schema version %d, this program needs %d", (int)version,
			 PG_SCHEMA_VERSION);
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
	bool ok = pg_set_up_schema(conn, true, ret_error);
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
		if (!query_number(conn, NUMBERS[i].sql, &count, ret_error))
			return false;
		g_string_append_printf(report, "%s: %" G_GINT64_FORMAT "\n", NUMBERS[i].what,
				       count);
	}
	for (size_t i = 0; i < G_N_ELEMENTS(FAULTS); i++) {
		if (!query_number(conn, FAULTS[i].sql, &count, ret_error))
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
	if (version != PG_SCHEMA_VERSION)
		return error_set(ret_error, K_ERROR_CONFIG,
				 "schema version %d, this program needs %d: run koukan store "
				 "migrate",
				 (int)version, PG_SCHEMA_VERSION);
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
