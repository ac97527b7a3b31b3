/* SPDX-License-Identifier: Apache-2.0 */
/* The schema, how older ones become it, and the check of what is stored. */
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "store/sqlite_int.h"

#define APPLICATION_ID 0x4b6f754b /* "KouK", in the header of the file */

/* Each state of a row has its index.  With `creation` that of the waiting ones answers what is
 * counted about them, too.  `dest` is explained in sqlite_claim.c. */
#define DESTINATIONS                                                                               \
	"CREATE INDEX tx_waiting ON tx (destination, next_attempt, creation)"                      \
	" WHERE " IS_WAITING ";"                                                                   \
	"CREATE INDEX tx_leased ON tx (leased) WHERE " IS_LEASED ";"                               \
	"CREATE INDEX tx_held ON tx (destination) WHERE " IS_HELD ";"                              \
	"CREATE INDEX tx_old ON tx (last_update, destination) WHERE " IS_FINAL ";"                 \
	"CREATE TABLE dest (name TEXT NOT NULL PRIMARY KEY, due INTEGER NOT NULL) WITHOUT ROWID;"  \
	"CREATE INDEX dest_due ON dest (due, name);"

/* Idempotency keys.  Those that are not `kept` belong to transactions in the memory of a process,
 * and go with it. */
#define IDEMPOTENCY                                                                                \
	"CREATE TABLE idem (key TEXT NOT NULL PRIMARY KEY, hash TEXT NOT NULL, tx TEXT NOT NULL,"  \
	" until INTEGER NOT NULL, kept INTEGER NOT NULL) WITHOUT ROWID;"                           \
	"CREATE INDEX idem_until ON idem (until);"                                                 \
	"CREATE INDEX idem_loose ON idem (kept) WHERE kept=0;"

/* Text that never changes, so nothing is ever put together from parts. */
static const char SCHEMA[] =
	"BEGIN IMMEDIATE;"
	"CREATE TABLE tx ("
	" n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, sender TEXT, tag TEXT, json TEXT,"
	" builder TEXT, responses TEXT, mail_from TEXT, rcpt TEXT, creation INTEGER NOT NULL,"
	" last_update INTEGER NOT NULL, next_attempt INTEGER NOT NULL, attempts INTEGER NOT NULL,"
	" leased INTEGER NOT NULL, version INTEGER NOT NULL, final_reason TEXT,"
	" body INTEGER, held_reason TEXT, destination TEXT NOT NULL DEFAULT '',"
	" held INTEGER NOT NULL DEFAULT 0, crashes INTEGER NOT NULL DEFAULT 0);" DESTINATIONS
	"CREATE TABLE tx_blob ("
	" tx INTEGER NOT NULL, seq INTEGER NOT NULL, name TEXT NOT NULL, blob INTEGER NOT NULL,"
	" PRIMARY KEY (tx, seq)) WITHOUT ROWID;"
	"CREATE TABLE blob ("
	" id INTEGER PRIMARY KEY, len INTEGER NOT NULL, refs INTEGER NOT NULL, data BLOB);"
	"CREATE TABLE chunk (blob INTEGER NOT NULL, off INTEGER NOT NULL, data BLOB NOT NULL);"
	"CREATE UNIQUE INDEX chunk_at ON chunk (blob, off);" IDEMPOTENCY
	"PRAGMA application_id=1265595723;"
	"PRAGMA user_version=3;"
	"COMMIT;";
_Static_assert(APPLICATION_ID == 1265595723 && SQLITE_SCHEMA_VERSION == 3, "as in SCHEMA");

/* 1 had no destinations, and called damaged rows, the only ones it held, parked. */
static const char FROM_1_TO_2[] =
	"BEGIN IMMEDIATE;"
	"DROP INDEX tx_due;"
	"DROP INDEX tx_old;"
	"ALTER TABLE tx RENAME COLUMN parked TO held_reason;"
	"ALTER TABLE tx ADD COLUMN destination TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE tx ADD COLUMN held INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE tx ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;"
	"UPDATE tx SET destination=koukan_destination(rcpt), held=held_reason IS NOT NULL,"
	" leased=leased AND held_reason IS NULL;" DESTINATIONS
	"INSERT INTO dest (name, due) SELECT destination, min(next_attempt) FROM tx"
	" WHERE " IS_WAITING " GROUP BY destination;"
	"PRAGMA user_version=2;"
	"COMMIT;";

/* 2 had no idempotency keys. */
static const char FROM_2_TO_3[] = "BEGIN IMMEDIATE;" IDEMPOTENCY "PRAGMA user_version=3;"
				  "COMMIT;";

static void
destination_function(sqlite3_context *context, int count, sqlite3_value **values)
{
	(void)count;
	bool text = sqlite3_value_type(values[0]) == SQLITE_TEXT;
	const char *rcpt = text ? (const char *)sqlite3_value_text(values[0]) : NULL;
	g_autofree char *destination = row_destination_of(rcpt);
	sqlite3_result_text(context, destination, -1, SQLITE_TRANSIENT);
}

static bool
upgrade(Db *db, uint64_t version, GError **ret_error)
{
	if (version >= 2)
		return db_exec(db, FROM_2_TO_3, ret_error);
	int rc = sqlite3_create_function(db->handle, "koukan_destination", 1,
					 SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL,
					 destination_function, NULL, NULL);
	if (rc != SQLITE_OK)
		return db_error(db, rc, "function", ret_error);
	return db_exec(db, FROM_1_TO_2, ret_error) && db_exec(db, FROM_2_TO_3, ret_error);
}

static bool
query_number(Db *db, const char *sql, uint64_t *ret_number, GError **ret_error)
{
	g_autofree char *text = db_query_text(db, sql, ret_error);
	if (text == NULL)
		return false;
	return text_parse_u64(text, strlen(text), INT64_MAX, ret_number) ||
	       error_set(ret_error, K_ERROR_STORE, "database: %s gave %.40s", sql, text);
}

/* *ret_version is 0 for an empty file. */
static bool
read_version(Db *db, const char *path, uint64_t *ret_version, GError **ret_error)
{
	uint64_t tables, application;
	*ret_version = 0;
	if (!query_number(db, "SELECT count(*) FROM sqlite_schema", &tables, ret_error))
		return false;
	if (tables == 0)
		return true;
	if (!query_number(db, "PRAGMA application_id", &application, ret_error) ||
	    !query_number(db, "PRAGMA user_version", ret_version, ret_error))
		return false;
	if (application == APPLICATION_ID && *ret_version > 0)
		return true;
	return error_set(ret_error, K_ERROR_CONFIG,
			 "database %s belongs to something else: give the queue a file of its own",
			 path);
}

bool
db_set_up_schema(Db *db, const char *path, GError **ret_error)
{
	uint64_t version;
	if (!read_version(db, path, &version, ret_error))
		return false;
	/* The vacuum mode is set before the first table or never. */
	if (version == 0)
		return db_exec(db, "PRAGMA auto_vacuum=INCREMENTAL", ret_error) &&
		       db_exec(db, SCHEMA, ret_error);
	if (version > SQLITE_SCHEMA_VERSION) {
		db->is_newer = true;
		return error_set(ret_error, K_ERROR_CONFIG,
				 "database %s has schema version %d, this program needs %d", path,
				 (int)version, SQLITE_SCHEMA_VERSION);
	}
	return version == SQLITE_SCHEMA_VERSION || upgrade(db, version, ret_error);
}

/* ---- check ---- */

/* What must find nothing. */
static const struct {
	const char *what, *sql;
} FAULTS[] = {
	{"rows whose body is missing",
	 "SELECT count(*) FROM tx WHERE body IS NOT NULL AND body NOT IN (SELECT id FROM blob)"},
	{"parts that are missing",
	 "SELECT count(*) FROM tx_blob WHERE blob NOT IN (SELECT id FROM blob)"},
	{"parts of rows that are gone",
	 "SELECT count(*) FROM tx_blob WHERE tx NOT IN (SELECT n FROM tx)"},
	{"bodies with a wrong count of references",
	 "SELECT count(*) FROM blob LEFT JOIN"
	 " (SELECT b, count(*) AS c FROM (SELECT body AS b FROM tx WHERE body IS NOT NULL"
	 " UNION ALL SELECT blob FROM tx_blob) GROUP BY b) ON b=id WHERE refs<>ifnull(c,0)"},
	{"bodies with a wrong length",
	 "SELECT count(*) FROM blob WHERE len<>ifnull(length(data),0)+"
	 "ifnull((SELECT sum(length(c.data)) FROM chunk c WHERE c.blob=id),0)"},
	{"pieces of bodies that are gone",
	 "SELECT count(*) FROM chunk WHERE blob NOT IN (SELECT id FROM blob)"},
	{"waiting rows that no claim would find",
	 "SELECT count(*) FROM (SELECT destination AS d, min(next_attempt) AS t FROM tx"
	 " WHERE " IS_WAITING " GROUP BY destination) LEFT JOIN dest ON name=d"
	 " WHERE due IS NULL OR due>t"},
};

static const struct {
	const char *what, *sql;
} NUMBERS[] = {
	{"queued", "SELECT count(*) FROM tx WHERE " IS_WAITING},
	{"leased", "SELECT count(*) FROM tx WHERE " IS_LEASED},
	{"held", "SELECT count(*) FROM tx WHERE " IS_HELD},
	{"final", "SELECT count(*) FROM tx WHERE " IS_FINAL},
};

static bool
check_faults(Db *db, GString *report, bool *ret_sound, GError **ret_error)
{
	for (size_t i = 0; i < G_N_ELEMENTS(FAULTS); i++) {
		uint64_t count;
		if (!query_number(db, FAULTS[i].sql, &count, ret_error))
			return false;
		if (count == 0)
			continue;
		*ret_sound = false;
		g_string_append_printf(report, "%s: %" G_GUINT64_FORMAT "\n", FAULTS[i].what,
				       count);
	}
	return true;
}

bool
db_check_all(Db *db, GString *report, GError **ret_error)
{
	uint64_t version;
	if (!read_version(db, sqlite3_db_filename(db->handle, "main"), &version, ret_error))
		return false;
	g_string_append_printf(report, "schema version: %d\n", (int)version);
	if (version != SQLITE_SCHEMA_VERSION)
		return error_set(ret_error, K_ERROR_CONFIG,
				 "schema version %d, this program needs %d: run koukan store "
				 "migrate",
				 (int)version, SQLITE_SCHEMA_VERSION);
	g_autofree char *integrity = db_query_text(db, "PRAGMA integrity_check(1)", ret_error);
	if (integrity == NULL)
		return false;
	g_string_append_printf(report, "integrity: %s\n", integrity);
	bool sound = g_str_equal(integrity, "ok");
	for (size_t i = 0; i < G_N_ELEMENTS(NUMBERS); i++) {
		uint64_t count;
		if (!query_number(db, NUMBERS[i].sql, &count, ret_error))
			return false;
		g_string_append_printf(report, "%s: %" G_GUINT64_FORMAT "\n", NUMBERS[i].what,
				       count);
	}
	if (!check_faults(db, report, &sound, ret_error))
		return false;
	return sound || error_set(ret_error, K_ERROR_STORE, "the database is damaged");
}
