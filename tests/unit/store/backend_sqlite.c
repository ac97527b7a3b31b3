/* SPDX-License-Identifier: Apache-2.0 */
#include <glib/gstdio.h>
#include <sqlite3.h>

#include "store_fixture.h"

const char *
backend_missing(void)
{
	return NULL;
}

int
backend_group_set_up(void **state)
{
	(void)state;
	return 0;
}

int
backend_group_tear_down(void **state)
{
	(void)state;
	return 0;
}

void
backend_make_url(Fixture *f)
{
	f->path = g_build_filename(f->dir, "queue.db", NULL);
	f->url = g_strconcat("sqlite:///", f->path, NULL);
}

int64_t
sql(const Fixture *f, const char *text)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *stmt = NULL;
	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	if (sqlite3_prepare_v2(db, text, -1, &stmt, NULL) != SQLITE_OK)
		fail_msg("%s: %s", text, sqlite3_errmsg(db));
	int rc = sqlite3_step(stmt);
	int64_t value = rc == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : 0;
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		fail_msg("%s: %s", text, sqlite3_errmsg(db));
	sqlite3_finalize(stmt);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return value;
}

/* Its lock ended with it. */
void
backend_after_crash(const Fixture *f)
{
	(void)f;
}

void
backend_remove(Fixture *f)
{
	const char *dir = f->dir;
	g_autoptr(GDir) handle = g_dir_open(dir, 0, NULL);
	const char *name;
	while ((name = g_dir_read_name(handle)) != NULL) {
		g_autofree char *path = g_build_filename(dir, name, NULL);
		assert_int_equal(g_unlink(path), 0);
	}
	assert_int_equal(g_rmdir(dir), 0);
}
