/* SPDX-License-Identifier: Apache-2.0 */
/* Connecting, settings. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/error.h"
#include "store/pg_int.h"

#define RAW_WAIT       (60 * USEC_PER_SEC)        /* for one statement of the set-up */
#define SLOW_WAIT      (24 * 3600 * USEC_PER_SEC) /* for one that reads or makes everything */
#define READER_SILENCE (60 * USEC_PER_SEC)

bool
pg_poll(int fd, bool write, Deadline deadline, bool *ret_readable)
{
	struct pollfd item = {.fd = fd, .events = (short)(POLLIN | (write ? POLLOUT : 0))};
	int rc;
	do {
		rc = poll(&item, 1, (int)(clock_left(deadline) / USEC_PER_MS) + 1);
	} while (rc < 0 && errno == EINTR);
	*ret_readable = rc > 0 && (item.revents & (POLLIN | POLLERR | POLLHUP)) != 0;
	return rc > 0;
}

static void
no_notice(void *arg, const PGresult *result)
{
	(void)arg;
	(void)result;
}

static bool
connect_failed(PGconn *conn, GError **ret_error)
{
	const char *text = conn != NULL ? PQerrorMessage(conn) : "";
	error_set(ret_error, K_ERROR_STORE, "database: cannot connect: %.*s",
		  (int)strcspn(text, "\n"), text[0] != '\0' ? text : "no answer in time");
	PQfinish(conn);
	return false;
}

PGconn *
pg_connect_raw(const char *url, Deadline deadline, GError **ret_error)
{
	/* What stands before the address is overridden by it. */
	static const char *const KEYS[] = {
		"target_session_attrs", "keepalives_idle",           "keepalives_interval",
		"keepalives_count",     "tcp_user_timeout",          "dbname",
		"client_encoding",      "fallback_application_name", NULL};
	const char *const values[] = {"read-write", "10",   "5",      "3", "15000",
				      url,          "UTF8", "koukan", NULL};
	PGconn *conn = PQconnectStartParams(KEYS, values, 1);
	if (conn != NULL)
		(void)PQsetNoticeReceiver(conn, no_notice, NULL);
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;
	while (conn != NULL && PQstatus(conn) != CONNECTION_BAD && status != PGRES_POLLING_OK) {
		struct pollfd item = {.fd = PQsocket(conn),
				      .events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT};
		int rc = poll(&item, 1, (int)(clock_left(deadline) / USEC_PER_MS) + 1);
		if (rc == 0 || clock_passed(deadline))
			break;
		status = PQconnectPoll(conn);
		if (status == PGRES_POLLING_FAILED)
			break;
	}
	if (conn != NULL && status == PGRES_POLLING_OK)
		return conn;
	connect_failed(conn, ret_error);
	return NULL;
}

static PGresult *
ask(PGconn *conn, const char *sql, Usec wait, GError **ret_error)
{
	PGresult *last = NULL, *result;
	Deadline end = clock_after(wait);
	bool ok = PQsendQuery(conn, sql) == 1;
	bool readable;
	while (ok) {
		while (ok && PQisBusy(conn) != 0)
			ok = pg_poll(PQsocket(conn), false, end, &readable) &&
			     PQconsumeInput(conn) == 1;
		if (!ok || (result = PQgetResult(conn)) == NULL)
			break;
		PQclear(last);
		last = result;
	}
	ExecStatusType status = PQresultStatus(last);
	if (ok && (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK))
		return last;
	const char *text = PQerrorMessage(conn);
	error_set(ret_error, K_ERROR_STORE, "database: %.*s", (int)strcspn(text, "\n"), text);
	PQclear(last);
	return NULL;
}

PGresult *
pg_ask_raw(PGconn *conn, const char *sql, GError **ret_error)
{
	return ask(conn, sql, RAW_WAIT, ret_error);
}

PGresult *
pg_ask_slow(PGconn *conn, const char *sql, GError **ret_error)
{
	return ask(conn, sql, SLOW_WAIT, ret_error);
}

bool
pg_exec_raw(PGconn *conn, const char *sql, GError **ret_error)
{
	PGresult *result = pg_ask_raw(conn, sql, ret_error);
	PQclear(result);
	return result != NULL;
}

/* ---- settings ---- */

static const struct {
	const char *name, *good, *warning;
} SETTINGS[] = {
	{"fsync", "on",
	 "the server does not flush to disk (fsync=off): a power cut loses acknowledged mail or the "
	 "whole database"},
	{"full_page_writes", "on",
	 "full_page_writes is off: a power cut can damage the database beyond repair"},
	{"synchronous_commit", NULL,
	 "synchronous_commit is off by default here: koukan turns it on for itself, since a crash "
	 "would lose acknowledged mail; do not override it"},
};

void
pg_check_settings(PGconn *conn, GPtrArray *warnings)
{
	static const char QUERY[] = "SELECT name, setting FROM pg_settings WHERE name IN"
				    " ('fsync', 'full_page_writes', 'synchronous_commit')";
	g_autoptr(PGresult) result = pg_ask_raw(conn, QUERY, NULL);
	if (warnings == NULL)
		return;
	if (result == NULL || PQntuples(result) == 0) {
		g_ptr_array_add(warnings, g_strdup("this server does not say whether it flushes "
						   "what it commits: make sure of it"));
		return;
	}
	for (int row = 0; row < PQntuples(result); row++) {
		for (size_t i = 0; i < G_N_ELEMENTS(SETTINGS); i++) {
			const char *value = PQgetvalue(result, row, 1);
			bool bad = SETTINGS[i].good != NULL ? strcmp(value, SETTINGS[i].good) != 0
							    : strcmp(value, "off") == 0;
			if (bad && strcmp(PQgetvalue(result, row, 0), SETTINGS[i].name) == 0)
				g_ptr_array_add(warnings, g_strdup(SETTINGS[i].warning));
		}
	}
}

/* What the server does not know is left out; it is safe without, but for the first ones. */
static bool
set_up(Pg *pg, PGconn *conn, GError **ret_error)
{
	static const char *const NEEDED[] = {
		"SET search_path TO koukan",
		"SET default_transaction_isolation TO 'read committed'",
	};
	/* Statistics lag behind a queue; its indexes are always right. */
	static const char *const WISHED[] = {
		"SET client_min_messages TO error",
		"SET enable_seqscan TO off",
		"SET enable_bitmapscan TO off",
		"SET jit TO off",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(NEEDED); i++) {
		if (!pg_exec_raw(conn, NEEDED[i], ret_error))
			return false;
	}
	/* Only where it is off: remote_apply, for one, is more than on. */
	g_autoptr(PGresult) sync = pg_ask_raw(conn, "SHOW synchronous_commit", NULL);
	if (sync != NULL && PQntuples(sync) == 1 && strcmp(PQgetvalue(sync, 0, 0), "off") == 0 &&
	    !pg_exec_raw(conn, "SET synchronous_commit TO on", ret_error))
		return false;
	for (size_t i = 0; i < G_N_ELEMENTS(WISHED) && !pg->reader; i++)
		(void)pg_exec_raw(conn, WISHED[i], NULL);
	const struct {
		const char *name;
		Usec span;
	} timeouts[] = {
		{"lock_timeout", pg->wait},
		{"statement_timeout", pg->silence - USEC_PER_SEC},
		/* A process that stands still must not keep its locks: others wait for a
		 * destination's, and its session cannot be taken for dead.  Shorter than what the
		 * others wait, so that nothing of theirs fails. */
		{"idle_in_transaction_session_timeout", MAX(3 * pg->wait / 5, USEC_PER_SEC)},
		/* A machine that is gone in the middle of an answer, the same; the server's default
		 * is a quarter of an hour. */
		{"tcp_user_timeout", 15 * USEC_PER_SEC},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(timeouts); i++) {
		g_autofree char *value = g_strdup_printf("%" G_GINT64_FORMAT "ms",
							 timeouts[i].span / USEC_PER_MS);
		const char *const values[] = {timeouts[i].name, value};
		PQclear(PQexecParams(conn, "SELECT set_config($1, $2, false)", 2, NULL, values,
				     NULL, NULL, 0));
	}
	return PQstatus(conn) == CONNECTION_OK ||
	       error_set(ret_error, K_ERROR_STORE, "database: the connection was lost");
}

static const char *const SQL_TEXT[] = {
#define X(name, sql) sql,
	PG_STATEMENTS(X)
#undef X
};
_Static_assert(G_N_ELEMENTS(SQL_TEXT) == PG_COUNT, "one text each");

static bool
prepare_all(Pg *pg, GError **ret_error)
{
	for (int i = 0; i < PG_COUNT; i++) {
		char name[8];
		g_snprintf(name, sizeof name, "s%d", i);
		if (PQsendPrepare(pg->conn, name, SQL_TEXT[i], 0, NULL) != 1)
			return error_set(ret_error, K_ERROR_STORE, "database: %s",
					 PQerrorMessage(pg->conn));
		const PgPending pending = {.stmt = PG_COUNT};
		g_array_append_val(pg->pending, pending);
	}
	return pg_sync(pg, ret_error);
}

bool
pg_connect(Pg *pg, Deadline deadline, GError **ret_error)
{
	k_assert(pg->conn == NULL);
	pg->conn = pg_connect_raw(pg->url, deadline, ret_error);
	if (pg->conn == NULL)
		return false;
	if (set_up(pg, pg->conn, ret_error) && PQenterPipelineMode(pg->conn) == 1 &&
	    PQsetnonblocking(pg->conn, 1) == 0 && prepare_all(pg, ret_error))
		return true;
	if (ret_error != NULL && *ret_error == NULL)
		error_set(ret_error, K_ERROR_STORE, "database: no pipeline mode");
	pg_disconnect(pg);
	return false;
}

/* ---- life ---- */

Pg *
pg_new(const StoreConfig *config)
{
	Pg *pg = g_new0(Pg, 1);
	pg->url = store_url_libpq(config->url);
	pg->wait = config->busy_wait > 0 ? config->busy_wait : STORE_BUSY_WAIT;
	pg->refresh = config->session_refresh > 0 ? config->session_refresh : STORE_REFRESH;
	pg->silence = pg->wait + 3 * USEC_PER_SEC;
	pg->crash_max = config->crash_max > 0 ? config->crash_max : STORE_CRASH_MAX;
	pg->uri = g_strdup(config->session_uri != NULL ? config->session_uri : "");
	pg->spill_dir = g_strdup(config->blobs.spill_dir);
	pg->limits = config->blobs;
	pg->limits.spill_dir = pg->spill_dir;
	pg->limits.size_max = 0; /* what was accepted is loaded, whatever the limit is today */
	pg->buffer = g_malloc(BLOB_CHUNK);
	pg->next_blob = 1; /* none */
	blob_ids_init(&pg->ids);
	pg->pending = g_array_new(FALSE, FALSE, sizeof(PgPending));
	pg->claimed = g_array_new(FALSE, FALSE, sizeof(int64_t));
	pg->waits = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	return pg;
}

Pg *
pg_new_reader(const StoreConfig *config)
{
	Pg *pg = pg_new(config);
	pg->reader = true;
	pg->silence = READER_SILENCE;
	return pg;
}

void
pg_orphans_free(PgOrphans *orphans)
{
	if (orphans == NULL)
		return;
	g_ptr_array_unref(orphans->inserted);
	g_array_unref(orphans->claimed);
	g_free(orphans);
}

void
pg_free(Pg *pg)
{
	pg_hint_stop(pg->hint);
	pg_disconnect(pg);
	pg_orphans_free(pg->orphans);
	blob_ids_clear(&pg->ids);
	g_free(pg->suspect.id);
	g_array_unref(pg->pending);
	g_array_unref(pg->claimed);
	g_hash_table_unref(pg->waits);
	g_free(pg->buffer);
	g_free(pg->spill_dir);
	g_free(pg->uri);
	g_free(pg->url);
	g_free(pg);
}
