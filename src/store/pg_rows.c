/* SPDX-License-Identifier: Apache-2.0 */
/* Reading rows: by id, for a claim, for operators. */
#include <string.h>

#include "base/error.h"
#include "store/pg_int.h"

/* Places in PG_COLUMNS. */
enum {
	COL_N,
	COL_ID,
	COL_SENDER,
	COL_TAG,
	COL_JSON,
	COL_BUILDER,
	COL_RESPONSES,
	COL_MAIL_FROM,
	COL_RCPT,
	COL_DESTINATION,
	COL_HELD_REASON,
	COL_FINAL_REASON,
	COL_OWNER_URI,
	COL_CREATION,
	COL_LAST_UPDATE,
	COL_NEXT_ATTEMPT,
	COL_ATTEMPTS,
	COL_VERSION,
	COL_CRASHES,
	COL_SESSION,
	COL_HELD,
	COL_BODY
};

static void
read_texts(const PGresult *result, int at, StoreRow *row)
{
	char **const texts[] = {&row->id,          &row->sender,       &row->tag,
				&row->json,        &row->builder,      &row->responses,
				&row->mail_from,   &row->rcpt,         &row->destination,
				&row->held_reason, &row->final_reason, &row->owner_uri};
	_Static_assert(COL_ID + G_N_ELEMENTS(texts) == COL_CREATION, "one each");
	for (int i = 0; i < (int)G_N_ELEMENTS(texts); i++)
		*texts[i] = g_strdup(pg_get_text(result, at, COL_ID + i));
}

/* False: what is there makes no sense. */
static bool
read_row(const PGresult *result, int at, StoreRow *row)
{
	for (int i = COL_CREATION; i <= COL_SESSION; i++) {
		if (PQgetisnull(result, at, i) != 0 || pg_get_int(result, at, i) < 0)
			return false;
	}
	read_texts(result, at, row);
	row->creation = pg_get_int(result, at, COL_CREATION);
	row->last_update = pg_get_int(result, at, COL_LAST_UPDATE);
	row->next_attempt = pg_get_int(result, at, COL_NEXT_ATTEMPT);
	row->attempts = (int)MIN(pg_get_int(result, at, COL_ATTEMPTS), (int64_t)G_MAXINT / 2);
	row->version = (uint64_t)pg_get_int(result, at, COL_VERSION);
	row->leased = pg_get_int(result, at, COL_SESSION) != 0;
	row->held = pg_get_bool(result, at, COL_HELD);
	/* What runs has not crashed yet. */
	row->crashes = (unsigned)CLAMP(pg_get_int(result, at, COL_CRASHES) - (row->leased ? 1 : 0),
				       0, G_MAXINT);
	return row->json != NULL;
}

static bool
add_blob(const PgLoader *loader, StoreRow *row, const char *name, int64_t id, GError **ret_error)
{
	if (!loader->contents) {
		store_row_add_blob(row, name, NULL);
		return true;
	}
	Blob *seen = loader->seen != NULL ? g_hash_table_lookup(loader->seen, &id) : NULL;
	g_autoptr(Blob) blob = seen != NULL ? blob_ref(seen)
					    : pg_get_blob(loader->pg, id, ret_error);
	if (blob == NULL)
		return false;
	store_row_add_blob(row, name, blob);
	if (loader->seen != NULL && seen == NULL)
		g_hash_table_insert(loader->seen, g_memdup2(&id, sizeof id), blob_ref(blob));
	return true;
}

/* The places of those of row `n`, which lie together. */
static bool
add_parts(const PgLoader *loader, StoreRow *row, int64_t n, GError **ret_error)
{
	const PGresult *parts = loader->parts;
	for (int i = 0; i < PQntuples(parts); i++) {
		if (pg_get_int(parts, i, 0) == n && !add_blob(loader, row, pg_get_text(parts, i, 1),
							      pg_get_int(parts, i, 2), ret_error))
			return false;
	}
	return true;
}

static void
add_id(GArray *ids, const PGresult *result, int row, int column)
{
	int64_t id = pg_get_int(result, row, column);
	if (PQgetisnull(result, row, column) == 0)
		g_array_append_val(ids, id);
}

bool
pg_load_parts(PgLoader *loader, const PGresult *result, GError **ret_error)
{
	g_autoptr(GArray) numbers = g_array_new(FALSE, FALSE, sizeof(int64_t));
	g_autoptr(GArray) blobs = g_array_new(FALSE, FALSE, sizeof(int64_t));
	for (int i = 0; i < PQntuples(result); i++) {
		add_id(numbers, result, i, COL_N);
		add_id(blobs, result, i, COL_BODY);
	}
	g_auto(PgParams) params = {0};
	pg_ints(&params, numbers);
	loader->parts = pg_query(loader->pg, PG_PART_SELECT, &params, false, ret_error);
	if (loader->parts == NULL)
		return false;
	for (int i = 0; i < PQntuples(loader->parts); i++)
		add_id(blobs, loader->parts, i, 2);
	return loader->seen == NULL || pg_get_small(loader->pg, blobs, loader->seen, ret_error);
}

void
pg_loader_clear(PgLoader *loader)
{
	PQclear(loader->parts);
}

StoreRow *
pg_load_row(const PgLoader *loader, const PGresult *result, int at, GError **ret_error)
{
	g_autoptr(StoreRow) row = store_row_new();
	if (!read_row(result, at, row)) {
		error_set(ret_error, K_ERROR_INPUT, "a column is missing or makes no sense");
		return NULL;
	}
	if ((PQgetisnull(result, at, COL_BODY) == 0 &&
	     !add_blob(loader, row, NULL, pg_get_int(result, at, COL_BODY), ret_error)) ||
	    !add_parts(loader, row, pg_get_int(result, at, COL_N), ret_error))
		return NULL;
	return g_steal_pointer(&row);
}

/* To who asks for one row, a damaged one is the store's failure. */
static bool
load_failed(Job *job)
{
	if (job->error->code == K_ERROR_INPUT)
		job->error->code = K_ERROR_STORE;
	return false;
}

bool
pg_run_load(Pg *pg, Job *job)
{
	g_auto(PgLoader) loader = {.pg = pg, .contents = job->with_blobs};
	g_auto(PgParams) params = {0};
	pg_int(&params, pg->session);
	pg_text(&params, job->id);
	g_autoptr(PGresult) result = pg_query(pg, PG_TX_SELECT, &params, false, &job->error);
	if (result == NULL)
		return false;
	if (PQntuples(result) == 0)
		return job_not_found(job);
	if (!pg_load_parts(&loader, result, &job->error))
		return false;
	StoreRow *row = pg_load_row(&loader, result, 0, &job->error);
	if (row == NULL)
		return load_failed(job);
	job_answer_row(job, row);
	return true;
}

bool
pg_run_reuse(Pg *pg, Job *job)
{
	g_auto(PgParams) params = {0};
	pg_text(&params, job->id);
	if (job->text != NULL)
		pg_text(&params, job->text);
	PgStmt stmt = job->text == NULL ? PG_REUSE_BODY : PG_REUSE_PART;
	g_autoptr(PGresult) result = pg_query(pg, stmt, &params, false, &job->error);
	if (result == NULL)
		return false;
	if (PQntuples(result) == 0 || PQgetisnull(result, 0, 0) != 0)
		return job_not_found(job);
	g_autoptr(Blob) blob = pg_get_blob(pg, pg_get_int(result, 0, 0), &job->error);
	if (blob == NULL)
		return load_failed(job);
	StoreRow *row = store_row_new();
	row->id = g_strdup(job->id);
	store_row_add_blob(row, job->text, blob);
	job_answer_row(job, row);
	return true;
}

/* ---- for operators ---- */

static bool
find_after(Pg *pg, Job *job, int64_t *ret_n)
{
	*ret_n = 0;
	if (job->id == NULL)
		return true;
	g_auto(PgParams) params = {0};
	pg_text(&params, job->id);
	g_autoptr(PGresult) result = pg_query(pg, PG_ROW_NUMBER, &params, false, &job->error);
	if (result == NULL)
		return false;
	if (PQntuples(result) == 0)
		return job_not_found(job);
	*ret_n = pg_get_int(result, 0, 0);
	return true;
}

/* A row that cannot be read is listed with what can: its id, and why it is shown like this. */
static StoreRow *
damaged_row(const PGresult *result, int at, const GError *why)
{
	StoreRow *row = store_row_new();
	row->id = g_strdup(pg_get_text(result, at, COL_ID));
	row->json = g_strdup("{}");
	row->destination = g_strdup("");
	row->held = true;
	row->held_reason = g_strdup(why->message);
	return row;
}

bool
pg_run_list(Pg *pg, Job *job)
{
	static const PgStmt BY_STATE[] = {[STORE_ANY] = PG_LIST_ANY,
					  [STORE_QUEUED] = PG_LIST_QUEUED,
					  [STORE_LEASED] = PG_LIST_LEASED,
					  [STORE_HELD] = PG_LIST_HELD,
					  [STORE_FINAL] = PG_LIST_FINAL};
	const StoreFilter *filter = &job->filter;
	const char *const addresses[] = {filter->mail_from, filter->rcpt};
	g_auto(PgLoader) loader = {.pg = pg};
	int64_t after;
	if (!find_after(pg, job, &after))
		return false;
	g_auto(PgParams) params = {0};
	pg_int(&params, pg->session);
	pg_int(&params, after);
	for (int i = 0; i < 2; i++) { /* "@domain" has a place of its own */
		bool domain = addresses[i] != NULL && addresses[i][0] == '@';
		pg_text(&params, domain ? NULL : addresses[i]);
		pg_text(&params, domain ? addresses[i] : NULL);
	}
	pg_text(&params, filter->destination);
	pg_int(&params, filter->older_than);
	pg_int(&params, filter->limit);
	g_autoptr(PGresult)
		result = pg_query(pg, BY_STATE[filter->state], &params, false, &job->error);
	if (result == NULL)
		return false;
	job->rows = row_array_new();
	if (!pg_load_parts(&loader, result, &job->error))
		return false;
	for (int i = 0; i < PQntuples(result); i++) {
		g_autoptr(GError) error = NULL;
		StoreRow *row = pg_load_row(&loader, result, i, &error);
		if (row == NULL && error->code != K_ERROR_INPUT) {
			g_propagate_error(&job->error, g_steal_pointer(&error));
			return false;
		}
		g_ptr_array_add(job->rows, row != NULL ? row : damaged_row(result, i, error));
	}
	return true;
}

static void
add_counts(Job *job, const PGresult *result)
{
	for (int row = 0; row < PQntuples(result); row++) {
		StoreCount *count = g_new0(StoreCount, 1);
		uint64_t *const numbers[] = {&count->queued, &count->leased, &count->held,
					     &count->final};
		count->destination = g_strdup(pg_get_text(result, row, 0));
		for (int i = 0; i < 4; i++)
			*numbers[i] = (uint64_t)pg_get_int(result, row, 1 + i);
		count->oldest = pg_get_int(result, row, 5);
		g_ptr_array_add(job->counts, count);
	}
}

bool
pg_run_count(Pg *pg, Job *job)
{
	job->counts = count_array_new();
	g_autoptr(PGresult) all = pg_query(pg, PG_COUNT_ALL, NULL, false, &job->error);
	if (all == NULL)
		return false;
	add_counts(job, all);
	if (job->limit == 0)
		return true;
	g_auto(PgParams) params = {0};
	pg_int(&params, job->limit);
	g_autoptr(PGresult) each = pg_query(pg, PG_COUNT_EACH, &params, false, &job->error);
	if (each == NULL)
		return false;
	add_counts(job, each);
	return true;
}
