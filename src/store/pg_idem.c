/* SPDX-License-Identifier: Apache-2.0 */
/* Idempotency keys: which transaction one stands for. */
#include "base/clock.h"
#include "base/error.h"
#include "store/pg_int.h"

/* Each new one takes a few of the old ones with it, so that nobody else has to. */
static bool
drop_old(Pg *pg, int64_t now, GError **ret_error)
{
	g_auto(PgParams) params = {0};
	pg_int(&params, now);
	return pg_push(pg, PG_IDEM_OLD, &params, NULL, ret_error);
}

/* Asked, not pushed: whoever has the same key in another process is waited for here. */
bool
pg_idem_put(Pg *pg, Job *job, bool kept)
{
	const StoreRow *row = job->row;
	int64_t now = clock_wall_sec();
	g_auto(PgParams) params = {0};
	if (!drop_old(pg, now, &job->error))
		return false;
	pg_text(&params, row->idem_key);
	pg_text(&params, row->idem_hash);
	pg_text(&params, row->id);
	pg_int(&params, row->idem_until);
	pg_int(&params, kept ? 0 : pg->session);
	pg_int(&params, now);
	g_autoptr(PGresult) result = pg_query(pg, PG_IDEM_PUT, &params, false, &job->error);
	if (result == NULL)
		return false;
	return PQntuples(result) > 0 || job_key_taken(job);
}

bool
pg_run_idem_put(Pg *pg, Job *job)
{
	return pg_idem_put(pg, job, false);
}

bool
pg_run_idem_get(Pg *pg, Job *job)
{
	g_auto(PgParams) params = {0};
	pg_text(&params, job->id);
	pg_int(&params, clock_wall_sec());
	pg_int(&params, pg->session);
	g_autoptr(PGresult) result = pg_query(pg, PG_IDEM_GET, &params, false, &job->error);
	if (result == NULL)
		return false;
	if (PQntuples(result) == 0)
		return job_not_found(job);
	StoreRow *row = store_row_new();
	row->id = g_strdup(pg_get_text(result, 0, 0));
	row->idem_hash = g_strdup(pg_get_text(result, 0, 1));
	row->owner_uri = g_strdup(pg_get_text(result, 0, 2));
	job_answer_row(job, row);
	return true;
}
