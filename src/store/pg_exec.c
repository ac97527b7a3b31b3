/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters, pushing, reading results. */
#include <string.h>

#include "base/error.h"
#include "store/pg_int.h"

#define FLUSH_AT (256 * 1024) /* bytes pushed before they must have left */

/* ---- parameters ---- */

static int
add(PgParams *params, const char *value, int len, int format)
{
	int at = params->n++;
	k_assert(at < PG_PARAMS_MAX);
	params->values[at] = value;
	params->lengths[at] = len;
	params->formats[at] = format;
	return at;
}

void
pg_params_clear(PgParams *params)
{
	g_clear_pointer(&params->owned, g_ptr_array_unref);
	params->n = 0;
}

void
pg_text(PgParams *params, const char *text)
{
	add(params, text, 0, 0);
}

void
pg_null(PgParams *params)
{
	add(params, NULL, 0, 0);
}

void
pg_int(PgParams *params, int64_t number)
{
	int at = add(params, NULL, 0, 0);
	g_snprintf(params->numbers[at], sizeof params->numbers[at], "%" G_GINT64_FORMAT, number);
	params->values[at] = params->numbers[at];
}

void
pg_bool(PgParams *params, bool value)
{
	add(params, value ? "t" : "f", 0, 0);
}

void
pg_bytes(PgParams *params, const void *data, size_t len)
{
	add(params, len > 0 ? data : "", (int)len, 1);
}

static void
add_owned(PgParams *params, GString *text)
{
	if (params->owned == NULL)
		params->owned = g_ptr_array_new_with_free_func(g_free);
	char *value = g_string_free(text, FALSE);
	g_ptr_array_add(params->owned, value);
	add(params, value, 0, 0);
}

void
pg_ints(PgParams *params, const GArray *numbers)
{
	GString *text = g_string_new("{");
	for (guint i = 0; i < numbers->len; i++)
		g_string_append_printf(text, "%s%" G_GINT64_FORMAT, i > 0 ? "," : "",
				       g_array_index(numbers, int64_t, i));
	add_owned(params, g_string_append_c(text, '}'));
}

void
pg_texts(PgParams *params, const GPtrArray *texts)
{
	GString *text = g_string_new("{");
	for (guint i = 0; i < texts->len; i++) {
		g_string_append(text, i > 0 ? ",\"" : "\"");
		for (const char *c = g_ptr_array_index(texts, i); *c != '\0'; c++) {
			if (*c == '"' || *c == '\\')
				g_string_append_c(text, '\\');
			g_string_append_c(text, *c);
		}
		g_string_append_c(text, '"');
	}
	add_owned(params, g_string_append_c(text, '}'));
}

/* ---- errors ---- */

/* One line, without the final newline. */
static char *
first_line(const char *text)
{
	return g_strndup(text, strcspn(text, "\n"));
}

static bool
lost(Pg *pg, GError **ret_error)
{
	g_autofree char *text = first_line(pg->conn != NULL ? PQerrorMessage(pg->conn) : "");
	pg->losses++;
	pg->failed = true;
	return error_set(ret_error, K_ERROR_STORE, "database: the connection is lost: %s",
			 text[0] != '\0' ? text : "the server does not answer");
}

bool
pg_failed_with(const Pg *pg, const char *sqlstate)
{
	return g_str_has_prefix(pg->sqlstate, sqlstate);
}

bool
pg_error(Pg *pg, const PGresult *result, GError **ret_error)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	if (PQstatus(pg->conn) == CONNECTION_BAD || sqlstate == NULL)
		return lost(pg, ret_error);
	g_strlcpy(pg->sqlstate, sqlstate, sizeof pg->sqlstate);
	/* The server says that it goes away, or that our connection was ended, for one because we
	 * stood still in a transaction. */
	if (g_str_has_prefix(sqlstate, "57P") || g_str_equal(sqlstate, "25P03"))
		return lost(pg, ret_error);
	KErrorCode code = K_ERROR_STORE;
	if (g_str_has_prefix(sqlstate, "23"))
		code = K_ERROR_CONFLICT;
	else if (g_str_equal(sqlstate, "53100"))
		code = K_ERROR_FULL;
	return error_set(ret_error, code, "database: %s", message != NULL ? message : sqlstate);
}

/* ---- the socket ---- */

static Deadline
silence_end(const Pg *pg)
{
	return clock_after(pg->silence);
}

static bool
flush(Pg *pg, GError **ret_error)
{
	int rc;
	while ((rc = PQflush(pg->conn)) > 0) {
		bool readable = false;
		if (!pg_poll(PQsocket(pg->conn), true, silence_end(pg), &readable) ||
		    (readable && PQconsumeInput(pg->conn) == 0))
			return lost(pg, ret_error);
	}
	pg->unflushed = 0;
	return rc == 0 || lost(pg, ret_error);
}

/* The next result, or NULL between two statements.  False: the connection is lost. */
static bool
next_result(Pg *pg, PGresult **ret_result, GError **ret_error)
{
	while (PQisBusy(pg->conn) != 0) {
		bool readable = false;
		if (!pg_poll(PQsocket(pg->conn), false, silence_end(pg), &readable) ||
		    PQconsumeInput(pg->conn) == 0)
			return lost(pg, ret_error);
	}
	*ret_result = PQgetResult(pg->conn);
	return true;
}

/* ---- pushing and reading ---- */

bool
pg_push(Pg *pg, PgStmt stmt, const PgParams *params, const PgPending *about, GError **ret_error)
{
	char name[8];
	g_snprintf(name, sizeof name, "s%d", (int)stmt);
	static const PgParams NONE;
	if (params == NULL)
		params = &NONE;
	if (pg->failed || PQsendQueryPrepared(pg->conn, name, params->n, params->values,
					      params->lengths, params->formats, pg->binary) == 0)
		return lost(pg, ret_error);
	PgPending pending = about != NULL ? *about : (PgPending){0};
	pending.stmt = stmt;
	g_array_append_val(pg->pending, pending);
	for (int i = 0; i < params->n; i++)
		pg->unflushed += (size_t)params->lengths[i] + 32;
	return pg->unflushed < FLUSH_AT || flush(pg, ret_error);
}

/* The result of one statement; NULL when it or one before it failed. */
static PGresult *
read_statement(Pg *pg, GError **ret_error)
{
	g_autoptr(PGresult) result = NULL;
	PGresult *end = NULL;
	if (!next_result(pg, &result, ret_error) || result == NULL ||
	    !next_result(pg, &end, ret_error)) {
		if (!pg->failed)
			lost(pg, ret_error);
		return NULL;
	}
	if (end != NULL) { /* a statement answers once */
		PQclear(end);
		lost(pg, ret_error);
		return NULL;
	}
	ExecStatusType status = PQresultStatus(result);
	if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
		return g_steal_pointer(&result);
	/* The first error is the one that counts: behind it the transaction refuses everything. */
	if (status != PGRES_PIPELINE_ABORTED && !pg->aborted)
		pg_error(pg, result, ret_error);
	pg->aborted = true;
	return NULL;
}

/* Reads what was pushed, but for the last `keep`.  The first error is the one to tell. */
static bool
read_pending(Pg *pg, guint keep, GError **ret_error)
{
	g_autoptr(GError) first = NULL;
	bool ok = !pg->aborted;
	while (!pg->failed && pg->answered + keep < pg->pending->len) {
		const PgPending about = g_array_index(pg->pending, PgPending, pg->answered);
		pg->answered++;
		bool before = pg->aborted;
		g_autoptr(PGresult) result = read_statement(pg, first == NULL ? &first : NULL);
		ok &= result != NULL;
		if (result != NULL && about.stmt == PG_TX_UPDATE)
			pg_updated(pg, about.job, result);
		if (result != NULL && about.stmt == PG_COMMIT)
			pg->committed = strcmp(PQcmdStatus(result), "COMMIT") == 0;
		if (result == NULL && !before && about.stmt == PG_BLOB_REF &&
		    pg_failed_with(pg, "22012"))
			blob_ids_set_gone(&pg->ids, about.blob);
	}
	if (first != NULL)
		g_propagate_error(ret_error, g_steal_pointer(&first));
	else if (!ok)
		error_set(ret_error, K_ERROR_STORE, "database: the transaction was lost");
	return ok && !pg->failed;
}

/* Each wait for answers is behind a synchronisation, never a mere flush: only then does the server
 * know that it waits for us, and frees the locks of a process that stands still
 * (idle_in_transaction_session_timeout). */
static bool
request(Pg *pg, GError **ret_error)
{
	return !pg->failed && PQpipelineSync(pg->conn) == 1 ? flush(pg, ret_error)
							    : lost(pg, ret_error);
}

/* The answer to it. */
static bool
read_sync(Pg *pg, GError **ret_error)
{
	PGresult *result = NULL;
	if (pg->failed || !next_result(pg, &result, ret_error))
		return false;
	bool synced = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
	PQclear(result);
	return synced || lost(pg, ret_error);
}

static void
forget_pending(Pg *pg)
{
	g_array_set_size(pg->pending, 0);
	pg->answered = 0;
}

bool
pg_drain(Pg *pg, GError **ret_error)
{
	bool ok = true;
	if (pg->pending->len > 0 && (ok = request(pg, ret_error))) {
		ok = read_pending(pg, 0, ret_error);
		ok &= read_sync(pg, ok ? ret_error : NULL);
	}
	forget_pending(pg);
	return ok;
}

PGresult *
pg_query(Pg *pg, PgStmt stmt, const PgParams *params, bool binary, GError **ret_error)
{
	pg->binary = binary;
	bool ok = pg_push(pg, stmt, params, NULL, ret_error);
	pg->binary = false;
	g_autoptr(PGresult) result = NULL;
	if (ok && request(pg, ret_error)) {
		ok = read_pending(pg, 1, ret_error);
		if (!pg->failed)
			result = read_statement(pg, ok ? ret_error : NULL);
		ok = read_sync(pg, result != NULL ? ret_error : NULL);
	}
	forget_pending(pg);
	return ok ? g_steal_pointer(&result) : NULL;
}

bool
pg_sync(Pg *pg, GError **ret_error)
{
	if (!request(pg, ret_error))
		return false;
	bool ok = read_pending(pg, 0, ret_error);
	forget_pending(pg);
	if (!read_sync(pg, ok ? ret_error : NULL))
		return false;
	pg->aborted = false;
	return ok;
}

bool
pg_recover(Pg *pg)
{
	/* The synchronisation repeats the error. */
	return (pg->aborted && !pg->failed && pg_sync(pg, NULL)) || !pg->failed;
}

void
pg_disconnect(Pg *pg)
{
	forget_pending(pg);
	if (pg->conn != NULL)
		PQfinish(pg->conn);
	pg->conn = NULL;
	pg->failed = pg->aborted = false;
	pg->unflushed = 0;
}

/* ---- values ---- */

const char *
pg_get_text(const PGresult *result, int row, int column)
{
	return PQgetisnull(result, row, column) != 0 ? NULL : PQgetvalue(result, row, column);
}

int64_t
pg_get_int(const PGresult *result, int row, int column)
{
	return g_ascii_strtoll(PQgetvalue(result, row, column), NULL, 10);
}

bool
pg_get_bool(const PGresult *result, int row, int column)
{
	return PQgetvalue(result, row, column)[0] == 't';
}
