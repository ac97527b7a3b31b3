/* SPDX-License-Identifier: Apache-2.0 */
#include "store_fixture.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

/* ---- restart ---- */

static void
test_restart(void **state)
{
	Fixture *f = *state;
	insert(f, make_row("waiting", 500));
	StoreRow *dying = leased(make_row("leased", 0));
	dying->attempts = 1;
	insert(f, dying);
	StoreRow *final = make_row("final", 0);
	final->leased = true;
	final->final_reason = g_strdup("x");
	insert(f, final);
	assert_claims(f, 400, "");
	reopen(f);
	g_auto(Ask) ask = {.kind = JOB_CLAIM, .time = 400, .limit = 10};
	ask_all(f, &ask, 1);
	assert_int_equal(ask.rows->len, 1);
	const StoreRow *row = g_ptr_array_index(ask.rows, 0);
	assert_string_equal(row->id, "leased");
	assert_int_equal(row->attempts, 1); /* attempts that died are counted */
	assert_int_equal(ask.next_due, 500);
	reopen(f);
	assert_claims(f, 500, "leased waiting");
}

/* A process that is gone without a word: what was answered is there, its lock is not. */
static void
test_crash(void **state)
{
	Fixture *f = *state;
	store_close(f->store);
	f->store = NULL;
	pid_t pid = fork();
	if (pid == 0) {
		open_store(f);
		g_autofree char *data = pattern(400000);
		g_autoptr(Blob) body = blob_new_bytes(data, 400000);
		StoreRow *row = make_mail("a", 0, body);
		row->leased = true;
		insert(f, row);
		kill(getpid(), SIGKILL);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	open_store(f);
	g_auto(Ask) ask = {.kind = JOB_CLAIM, .time = 1, .limit = 10};
	ask_all(f, &ask, 1);
	assert_int_equal(ask.rows->len, 1);
	const StoreRow *row = g_ptr_array_index(ask.rows, 0);
	const StoreBlob *stored = g_ptr_array_index(row->blobs, 0);
	g_autofree char *data = pattern(400000);
	assert_bytes(stored->blob, data, 400000);
}

/* Jobs given before the end are done and answered. */
static void
test_close_finishes(void **state)
{
	Fixture *f = *state;
	enum { N = 50 };
	Ask asks[N] = {0};
	for (size_t i = 0; i < N; i++) {
		g_autofree char *id = g_strdup_printf("m%zu", i);
		asks[i] = (Ask){.kind = JOB_INSERT, .row = make_row(id, 1)};
	}
	Batch batch = {.store = f->store, .asks = asks, .n = N};
	worker_post(f->worker, start_batch, &batch);
	worker_test_turn(f->worker, 0);
	store_close(f->store);
	f->store = NULL;
	Deadline end = clock_after(WAIT_MAX);
	while (!all_done(&batch) && !clock_passed(end))
		worker_test_turn(f->worker, 0);
	for (size_t i = 0; i < N; i++)
		assert_int_equal(asks[i].code, OK);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), N);
}

/* ---- opening ---- */

static void
assert_refused(Fixture *f, int code, const char *part)
{
	g_autoptr(GError) error = NULL;
	Store *store = try_open(f, 0, &error);
	assert_null(store);
	assert_true(error->domain == K_ERROR);
	if (error->code != code || strstr(error->message, part) == NULL)
		fail_msg("%s", error->message);
}

static void
test_second_opener(void **state)
{
	Fixture *f = *state;
	g_autofree char *want = g_strdup_printf("in use by another process (pid %d)",
						(int)getpid());
	assert_refused(f, K_ERROR_CONFLICT, want);
	/* By another name of the same file. */
	g_autofree char *link = g_build_filename(f->dir, "link.db", NULL);
	assert_int_equal(symlink(f->path, link), 0);
	char *url = f->url;
	f->url = link;
	assert_refused(f, K_ERROR_CONFLICT, want);
	f->url = url;
	insert(f, make_row("a", 1)); /* the first is none the worse */
	reopen(f);
}

static void
test_file_mode(void **state)
{
	Fixture *f = *state;
	struct stat info;
	assert_int_equal(stat(f->path, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0600);
	assert_int_equal(sql(f, "PRAGMA auto_vacuum"), 2);
	assert_int_equal(sql(f, "PRAGMA user_version"), 3);
	assert_int_equal(sql(f, "SELECT count(*) FROM pragma_journal_mode"
				" WHERE journal_mode='wal'"),
			 1);
}

static void
test_foreign_files(void **state)
{
	Fixture *f = *state;
	store_close(f->store);
	f->store = NULL;
	sql(f, "PRAGMA user_version=4");
	assert_refused(f, K_ERROR_CONFIG, "schema version 4, this program needs 3");
	sql(f, "PRAGMA user_version=3");
	sql(f, "PRAGMA application_id=7");
	assert_refused(f, K_ERROR_CONFIG, "belongs to something else");
	assert_int_equal(g_unlink(f->path), 0);
	assert_true(g_file_set_contents(f->path, "this is no database at all", -1, NULL));
	assert_refused(f, K_ERROR_STORE, "not a database");
	assert_true(g_file_set_contents(f->path, "", 0, NULL));
	open_store(f); /* empty is as good as new */
	insert(f, make_row("a", 1));
	store_close(f->store);
	f->store = NULL;
	char *url = f->url;
	f->url = g_strconcat("sqlite:///", f->dir, "/none/queue.db", NULL);
	assert_refused(f, K_ERROR_IO, "none/queue.db");
	g_free(f->url);
	f->url = g_strdup(f->dir);
	assert_refused(f, K_ERROR_STORE, f->dir);
	g_free(f->url);
	f->url = url;
	g_autofree char *lock = g_strconcat(f->dir, ".lock", NULL);
	(void)g_unlink(lock);
}

/* A file as version 1 left it, killed at work. */
static const char VERSION_1[] =
	"PRAGMA auto_vacuum=INCREMENTAL;"
	"BEGIN IMMEDIATE;"
	"CREATE TABLE tx ("
	" n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, sender TEXT, tag TEXT, json TEXT,"
	" builder TEXT, responses TEXT, mail_from TEXT, rcpt TEXT, creation INTEGER NOT NULL,"
	" last_update INTEGER NOT NULL, next_attempt INTEGER NOT NULL, attempts INTEGER NOT NULL,"
	" leased INTEGER NOT NULL, version INTEGER NOT NULL, final_reason TEXT,"
	" body INTEGER, parked TEXT);"
	"CREATE INDEX tx_due ON tx (leased, next_attempt)"
	" WHERE final_reason IS NULL AND parked IS NULL;"
	"CREATE INDEX tx_old ON tx (last_update) WHERE final_reason IS NOT NULL;"
	"CREATE TABLE tx_blob ("
	" tx INTEGER NOT NULL, seq INTEGER NOT NULL, name TEXT NOT NULL, blob INTEGER NOT NULL,"
	" PRIMARY KEY (tx, seq)) WITHOUT ROWID;"
	"CREATE TABLE blob ("
	" id INTEGER PRIMARY KEY, len INTEGER NOT NULL, refs INTEGER NOT NULL, data BLOB);"
	"CREATE TABLE chunk (blob INTEGER NOT NULL, off INTEGER NOT NULL, data BLOB NOT NULL);"
	"CREATE UNIQUE INDEX chunk_at ON chunk (blob, off);"
	"INSERT INTO blob VALUES (1, 4, 4, x'626f6479');"
	"INSERT INTO tx VALUES"
	" (1,'waiting','s',NULL,'{}',NULL,NULL,'a@b','X@One.example',10,11,100,2,0,7,NULL,1,NULL),"
	" (2,'leased','s',NULL,'{}',NULL,NULL,'a@b','x@two.example',10,11,0,1,1,7,NULL,1,NULL),"
	" (3,'parked','s',NULL,'{}',NULL,NULL,'a@b','x@two.example',10,11,50,1,0,7,NULL,1,'odd'),"
	" (4,'final','s',NULL,'{}',NULL,'{}','a@b',NULL,10,11,0,1,0,7,'done',1,NULL);"
	"PRAGMA application_id=1265595723;"
	"PRAGMA user_version=1;"
	"COMMIT;";

static void
write_version_1(const Fixture *f)
{
	sqlite3 *db = NULL;
	assert_int_equal(g_unlink(f->path), 0);
	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, VERSION_1, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void
test_migrate(void **state)
{
	Fixture *f = *state;
	for (int by_hand = 0; by_hand < 2; by_hand++) {
		g_autoptr(GError) error = NULL;
		store_close(f->store);
		f->store = NULL;
		write_version_1(f);
		g_autofree char *before = NULL, *report = NULL;
		assert_false(store_check(f->url, &before, NULL));
		if (by_hand == 1 && !store_migrate(f->url, &error))
			fail_msg("%s", error->message);
		open_store(f); /* or by itself */
		if (!store_check(f->url, &report, &error))
			fail_msg("%s %s", report, error->message);
		g_auto(Ask) ask = {.kind = JOB_CLAIM, .time = 100, .limit = 10};
		ask_all(f, &ask, 1);
		assert_int_equal(ask.rows->len, 2);
		const StoreRow *first = g_ptr_array_index(ask.rows, 0);
		const StoreRow *second = g_ptr_array_index(ask.rows, 1);
		assert_string_equal(first->id, "leased");
		assert_string_equal(second->id, "waiting");
		assert_string_equal(second->destination, "one.example");
		assert_int_equal(second->attempts, 2);
		assert_int_equal(second->version, 7);
		assert_bytes(((StoreBlob *)g_ptr_array_index(second->blobs, 0))->blob, "body", 4);
		g_autoptr(StoreRow) parked = load(f, "parked");
		assert_true(parked->held);
		assert_string_equal(parked->held_reason, "odd");
		g_autoptr(StoreRow) final = load(f, "final");
		assert_string_equal(final->final_reason, "done");
		assert_string_equal(final->destination, "");
		assert_int_equal(act(f, "parked", STORE_RELEASE, NULL), OK);
		assert_claims(f, 100, "parked");
		assert_int_equal(sql(f, "SELECT count(*) FROM idem"), 0);
		assert_int_equal(sql(f, "PRAGMA user_version"), 3);
	}
	store_close(f->store);
	f->store = NULL;
	sql(f, "PRAGMA user_version=4");
	g_autoptr(GError) newer = NULL;
	assert_false(store_migrate(f->url, &newer));
	assert_true(g_error_matches(newer, K_ERROR, K_ERROR_CONFLICT));
}

static void
test_urls(void **state)
{
	(void)state;
	static const struct {
		const char *url, *path; /* NULL: refused */
	} CASES[] = {
		{"queue.db", "queue.db"},
		{"/var/lib/koukan/queue.db", "/var/lib/koukan/queue.db"},
		{"./a:b", "./a:b"},
		{"sqlite:///queue.db", "queue.db"},
		{"sqlite:///dir/queue.db", "dir/queue.db"},
		{"sqlite:////var/lib/queue.db", "/var/lib/queue.db"},
		{"sqlite+pysqlite:///queue.db", "queue.db"},
		{"sqlite+pysqlite:////a/queue.db", "/a/queue.db"},
		{"SQLite:///queue.db", "queue.db"},
		{"sqlite:///queue.db?timeout=5", "queue.db"},
		{"", NULL},
		{":memory:", NULL},
		{"sqlite://", NULL},
		{"sqlite:///", NULL},
		{"sqlite:///?x=1", NULL},
		{"sqlite:///:memory:", NULL},
		{"sqlite://host/queue.db", NULL},
		{"sqlite3:///queue.db", NULL},
		{"mysql:///queue.db", NULL},
		{"://x", NULL},
		{"postgresql://user@/db?host=/run/pg", NULL},
		{"postgresql+psycopg://user@host/db", NULL},
		{"postgres://host/db", NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autoptr(GError) error = NULL;
		g_autofree char *path = store_url_path(CASES[i].url, &error);
		if (g_strcmp0(path, CASES[i].path) != 0)
			fail_msg("%s: %s", CASES[i].url, path);
		if (path == NULL)
			assert_true(g_error_matches(error, K_ERROR, K_ERROR_CONFIG));
	}
}

/* ---- trouble ---- */

/* The write-ahead log may grow by `room` bytes from here. */
static void
limit_files(const Fixture *f, off_t room)
{
	g_autofree char *wal = g_strconcat(f->path, "-wal", NULL);
	struct stat info = {0};
	assert_int_equal(stat(wal, &info), 0);
	struct rlimit limit;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = room >= 0 ? (rlim_t)(info.st_size + room) : limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void
test_disk_full(void **state)
{
	Fixture *f = *state;
	struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
	sigaction(SIGXFSZ, &ignore, &before);
	g_autofree char *data = pattern(2 * 1024 * 1024);
	g_autoptr(Blob) large = blob_new_bytes(data, 2 * 1024 * 1024);
	g_autoptr(Blob) small = blob_new_bytes(data, 1000);
	insert(f, leased(make_mail("before", 100, small)));

	/* The large one does not fit; those around it are stored, whatever group they were in. */
	Ask asks[] = {
		{.kind = JOB_INSERT, .row = make_mail("s1", 100, small)},
		{.kind = JOB_INSERT, .row = make_mail("l1", 100, large)},
		{.kind = JOB_INSERT, .row = make_mail("s2", 100, small)},
		{.kind = JOB_INSERT, .row = make_mail("l2", 100, large)},
		{.kind = JOB_UPDATE, .row = make_row("before", 200)},
		{.kind = JOB_LOAD, .id = "s2", .with_blobs = true},
	};
	limit_files(f, 500000);
	ask_all(f, asks, G_N_ELEMENTS(asks));
	limit_files(f, -1);
	static const int WANT[] = {OK, K_ERROR_FULL, OK, K_ERROR_FULL, OK, OK};
	for (size_t i = 0; i < G_N_ELEMENTS(asks); i++) {
		if (asks[i].code != WANT[i])
			fail_msg("%zu: %d %s", i, asks[i].code, asks[i].message);
		ask_clear(&asks[i]);
	}
	assert_int_equal(blob_stored_id(large), 0);

	/* No room at all: every write is refused, reading goes on. */
	limit_files(f, 0);
	int refused = 0;
	for (int i = 0; i < 40; i++) {
		g_autofree char *id = g_strdup_printf("none%d", i);
		refused += ask_code(f, (Ask){.kind = JOB_INSERT,
					     .row = make_mail(id, 100, small)}) == K_ERROR_FULL;
	}
	int load = ask_code(f, (Ask){.kind = JOB_LOAD, .id = "s1", .with_blobs = true});
	limit_files(f, -1);
	sigaction(SIGXFSZ, &before, NULL);
	assert_true(refused > 0);
	assert_int_equal(load, OK);

	/* And it works again, with nothing lost. */
	insert(f, make_mail("l1", 100, large));
	reopen(f);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx WHERE id IN"
				" ('before','s1','s2','l1')"),
			 4);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), 4 + 40 - refused);
	g_auto(Ask) ask = {.kind = JOB_LOAD, .id = "l1", .with_blobs = true};
	ask_all(f, &ask, 1);
	const StoreRow *got = g_ptr_array_index(ask.rows, 0);
	const StoreBlob *body = g_ptr_array_index(got->blobs, 0);
	assert_bytes(body->blob, data, 2 * 1024 * 1024);
}

/* Somebody else holds the file: waits are bounded, then it works again. */
static void
test_locked(void **state)
{
	Fixture *f = *state;
	sqlite3 *db = NULL;
	open_hasty(f);
	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	Ask asks[] = {
		{.kind = JOB_INSERT, .row = make_row("a", 100)},
		{.kind = JOB_INSERT, .row = make_row("b", 100)},
	};
	Deadline begin = clock_mono();
	ask_all(f, asks, 2);
	assert_true(clock_mono() - begin >= BUSY_WAIT / 2);
	assert_int_equal(asks[0].code, K_ERROR_STORE);
	assert_int_equal(asks[1].code, K_ERROR_STORE);
	ask_clear(&asks[0]);
	ask_clear(&asks[1]);
	assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	insert(f, make_row("a", 100));
	assert_claims(f, 100, "a");
}

/* ?1: the row's id; ?2: its number; ?3: its body's. */
static const struct {
	const char *name, *sql;
} DAMAGE[] = {
	{"no requests", "UPDATE tx SET json=NULL WHERE id=?1"},
	{"requests no text", "UPDATE tx SET json=x'7b7d' WHERE id=?1"},
	{"NUL in a text", "UPDATE tx SET sender=CAST(x'610062' AS TEXT) WHERE id=?1"},
	{"attempts no number", "UPDATE tx SET attempts='many' WHERE id=?1"},
	{"attempts negative", "UPDATE tx SET attempts=-1 WHERE id=?1"},
	{"creation negative", "UPDATE tx SET creation=-1 WHERE id=?1"},
	{"version negative", "UPDATE tx SET version=-1 WHERE id=?1"},
	{"body missing", "UPDATE tx SET body=999 WHERE id=?1"},
	{"body no number", "UPDATE tx SET body='x' WHERE id=?1"},
	{"body gone", "DELETE FROM blob WHERE id=?3"},
	{"part missing", "UPDATE tx_blob SET blob=999 WHERE tx=?2"},
	{"part without a name", "UPDATE tx_blob SET name=x'ff' WHERE tx=?2"},
	{"length negative", "UPDATE blob SET len=-1 WHERE id=?3"},
	{"length no number", "UPDATE blob SET len='x' WHERE id=?3"},
	{"length huge", "UPDATE blob SET len=9223372036854775807 WHERE id=?3"},
	{"length too large", "UPDATE blob SET len=300001 WHERE id=?3"},
	{"length too small", "UPDATE blob SET len=299999 WHERE id=?3"},
	{"length far too small", "UPDATE blob SET len=10 WHERE id=?3"},
	{"content is text", "UPDATE blob SET data='x' WHERE id=?3"},
	{"content is gone", "UPDATE blob SET data=NULL WHERE id=?3"},
	{"first chunk gone", "DELETE FROM chunk WHERE blob=?3 AND off=131072"},
	{"last chunk gone", "DELETE FROM chunk WHERE blob=?3 AND off=262144"},
	{"chunk moved", "UPDATE chunk SET off=131073 WHERE blob=?3 AND off=131072"},
	{"chunk cut", "UPDATE chunk SET data=x'00' WHERE blob=?3 AND off=262144"},
	{"chunk no blob", "UPDATE chunk SET data='text' WHERE blob=?3 AND off=262144"},
};

static void
damage_rows(const Fixture *f)
{
	sqlite3 *db = NULL;
	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	for (size_t i = 0; i < G_N_ELEMENTS(DAMAGE); i++) {
		sqlite3_stmt *stmt = NULL;
		if (sqlite3_prepare_v2(db, DAMAGE[i].sql, -1, &stmt, NULL) != SQLITE_OK)
			fail_msg("%s: %s", DAMAGE[i].name, sqlite3_errmsg(db));
		/* Rows and bodies are numbered as they came. */
		sqlite3_bind_text(stmt, 1, DAMAGE[i].name, -1, SQLITE_STATIC);
		sqlite3_bind_int64(stmt, 2, (int64_t)i + 1);
		sqlite3_bind_int64(stmt, 3, (int64_t)(2 * i) + 1);
		assert_int_equal(sqlite3_step(stmt), SQLITE_DONE);
		if (sqlite3_changes(db) != 1)
			fail_msg("%s: no damage", DAMAGE[i].name);
		sqlite3_finalize(stmt);
	}
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void
test_damaged_rows(void **state)
{
	Fixture *f = *state;
	const guint n = G_N_ELEMENTS(DAMAGE);
	g_autofree char *data = pattern(300000);
	for (size_t i = 0; i < n; i++) {
		g_autoptr(Blob) body = blob_new_bytes(data, 300000);
		g_autoptr(Blob) part = blob_new_bytes("part", 4);
		StoreRow *bad = make_mail(DAMAGE[i].name, 100 + (int64_t)i, body);
		store_row_add_blob(bad, "p", part);
		insert(f, bad);
	}
	insert(f, make_row("good", 200));
	store_close(f->store);
	damage_rows(f);
	open_store(f);

	/* The good one flows, the others are named and do not come again. */
	g_auto(Ask) ask = {.kind = JOB_CLAIM, .time = 1000, .limit = 100};
	ask_all(f, &ask, 1);
	assert_int_equal(ask.code, OK);
	assert_int_equal(ask.rows->len, 1);
	assert_string_equal(((StoreRow *)g_ptr_array_index(ask.rows, 0))->id, "good");
	assert_int_equal(ask.damaged->len, n);
	for (guint i = 0; i < n; i++) {
		const char *text = g_ptr_array_index(ask.damaged, i);
		g_autofree char *want = g_strconcat(DAMAGE[i].name, ": ", NULL);
		if (!g_str_has_prefix(text, want) || strlen(text) == strlen(want))
			fail_msg("%s: %s", DAMAGE[i].name, text);
		int code = ask_code(
			f, (Ask){.kind = JOB_LOAD, .id = DAMAGE[i].name, .with_blobs = true});
		if (code != K_ERROR_STORE)
			fail_msg("%s: %d", DAMAGE[i].name, code);
	}
	assert_claims(f, 1000, "");
	StoreStats stats;
	store_stats(f->store, &stats);
	assert_int_equal(stats.damaged, n);
	/* They are still there for whoever repairs them, also after collections. */
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_COLLECT, .time = INT64_MAX, .limit = 100}),
			 OK);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx WHERE held=1 AND held_reason IS NOT NULL"),
			 n);
}

/* Bodies that cannot be spilled now are no damage: the others flow, they stay due. */
static void
test_no_room_to_load(void **state)
{
	Fixture *f = *state;
	g_autofree char *data = pattern(300000);
	g_autoptr(Blob) large = blob_new_bytes(data, 300000);
	insert(f, make_mail("large", 100, large));
	insert(f, make_row("small", 200));
	store_close(f->store);
	const StoreConfig config = {.url = f->url,
				    .blobs = {.memory_max = 1000, .spill_dir = "/nonexistent"}};
	f->store = store_open(&config, NULL);
	assert_non_null(f->store);
	assert_claims(f, 1000, "small");
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_CLAIM, .time = 1000, .limit = 10}),
			 K_ERROR_IO);
	reopen(f);
	assert_claims(f, 1000, "large small"); /* the lease of "small" died with the process */
}

/* The files stay small: the log is written back, space of deleted mail is given back. */
static void
test_space(void **state)
{
	Fixture *f = *state;
	g_autofree char *data = pattern(1024 * 1024);
	g_autofree char *wal = g_strconcat(f->path, "-wal", NULL);
	struct stat info;
	for (int i = 0; i < 24; i++) {
		g_autofree char *id = g_strdup_printf("m%d", i);
		g_autoptr(Blob) body = blob_new_bytes(data, 1024 * 1024);
		StoreRow *row = make_mail(id, 100, body);
		row->final_reason = g_strdup("done");
		insert(f, row);
	}
	assert_int_equal(stat(wal, &info), 0);
	assert_true(info.st_size < 16 * 1024 * 1024);
	assert_int_equal(stat(f->path, &info), 0);
	off_t full = info.st_size;
	assert_true(full > 12 * 1024 * 1024);
	for (int i = 0; i < 12; i++)
		assert_int_equal(
			ask_code(f, (Ask){.kind = JOB_COLLECT, .time = INT64_MAX, .limit = 2}), OK);
	reopen(f);
	assert_int_equal(sql(f, "SELECT count(*) FROM chunk"), 0);
	assert_int_equal(stat(f->path, &info), 0);
	assert_true(info.st_size < full / 4);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(test_restart),         STORE_TEST(test_crash),
		STORE_TEST(test_close_finishes),  STORE_TEST(test_second_opener),
		STORE_TEST(test_file_mode),       STORE_TEST(test_foreign_files),
		cmocka_unit_test(test_urls),      STORE_TEST(test_disk_full),
		STORE_TEST(test_locked),          STORE_TEST(test_damaged_rows),
		STORE_TEST(test_no_room_to_load), STORE_TEST(test_space),
		STORE_TEST(test_migrate),
	};
	return STORE_RUN(tests);
}
