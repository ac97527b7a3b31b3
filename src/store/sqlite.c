/* SPDX-License-Identifier: Apache-2.0 */
/* The one connection to the database: opening, settings, schema, transactions.
 *
 * Exactly this connection writes and checkpoints: SQLite 3.7.0 to 3.51.2 can corrupt the file
 * when two connections do at the same moment.  Hence the lock file, no automatic checkpoints, and
 * a checkpoint only between transactions of the same thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/error.h"
#include "base/text.h"
#include "store/sqlite_int.h"

/* Pages of the write-ahead log from which on it is written back: when idle, and in any case. */
#define WAL_PAGES_IDLE 1000
#define WAL_PAGES_MAX  4000
/* Pages given back to the file system after one collection. */
#define INCREMENTAL_VACUUM "PRAGMA incremental_vacuum(2000)"

/* Leases of a process that died. */
static const char GIVE_BACK[] =
	"BEGIN IMMEDIATE;"
	"INSERT INTO dest (name, due) SELECT destination, min(next_attempt) FROM tx"
	" WHERE " IS_LEASED " GROUP BY destination"
	" ON CONFLICT (name) DO UPDATE SET due=excluded.due WHERE excluded.due<dest.due;"
	"UPDATE tx SET leased=0 WHERE " IS_LEASED ";"
	"DELETE FROM idem WHERE kept=0;"
	"COMMIT;";

static const char *const SQL_TEXT[] = {
#define X(name, sql) sql,
	STATEMENTS(X)
#undef X
};
_Static_assert(G_N_ELEMENTS(SQL_TEXT) == SQL_COUNT, "one text each");

/* ---- errors ---- */

/* Why the write-ahead log could not be written; a full disk has a code of its own, but a quota and
 * a limit on file sizes have not. */
static int
wal_errno(Db *db)
{
	sqlite3_file *wal = NULL;
	int errnum = 0;
	if (sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal) ==
		    SQLITE_OK &&
	    wal != NULL && wal->pMethods != NULL)
		(void)wal->pMethods->xFileControl(wal, SQLITE_FCNTL_LAST_ERRNO, &errnum);
	return errnum;
}

bool
db_error(Db *db, int rc, const char *what, GError **ret_error)
{
	int errnum = rc == SQLITE_IOERR_WRITE ? wal_errno(db) : 0;
	KErrorCode code = K_ERROR_STORE;
	if ((rc & 0xff) == SQLITE_FULL || errnum == ENOSPC || errnum == EDQUOT || errnum == EFBIG)
		code = K_ERROR_FULL;
	else if ((rc & 0xff) == SQLITE_CONSTRAINT)
		code = K_ERROR_CONFLICT;
	return error_set(ret_error, code, "database: %s: %s", what, sqlite3_errmsg(db->handle));
}

bool
db_is_corrupt(const Db *db)
{
	return (sqlite3_errcode(db->handle) & 0xff) == SQLITE_CORRUPT;
}

/* ---- statements ---- */

sqlite3_stmt *
db_stmt(Db *db, DbStmt which)
{
	return db->stmts[which];
}

void
db_done(sqlite3_stmt *stmt)
{
	(void)sqlite3_reset(stmt); /* repeats the error of the last step */
	(void)sqlite3_clear_bindings(stmt);
}

int
db_step(Db *db, sqlite3_stmt *stmt, GError **ret_error)
{
	int rc = sqlite3_step(stmt);
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		db_error(db, rc, "statement", ret_error);
	return rc;
}

bool
db_run(Db *db, sqlite3_stmt *stmt, GError **ret_error)
{
	int rc = db_step(db, stmt, ret_error);
	db_done(stmt);
	return rc == SQLITE_DONE || rc == SQLITE_ROW;
}

void
db_bind_int(sqlite3_stmt *stmt, int index, int64_t value)
{
	k_assert(sqlite3_bind_int64(stmt, index, value) == SQLITE_OK);
}

void
db_bind_text(sqlite3_stmt *stmt, int index, const char *text)
{
	/* Binding fails only for a bad index or without memory, which ends the process anyway. */
	k_assert(sqlite3_bind_text(stmt, index, text, -1, SQLITE_STATIC) == SQLITE_OK);
}

bool
db_exec(Db *db, const char *sql, GError **ret_error)
{
	int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK || db_error(db, rc, "statement", ret_error);
}

char *
db_query_text(Db *db, const char *sql, GError **ret_error)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(db->handle, sql, -1, &stmt, NULL);
	char *text = NULL;
	if (rc == SQLITE_OK)
		rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW)
		text = g_strdup((const char *)sqlite3_column_text(stmt, 0));
	if (text == NULL)
		db_error(db, rc, sql, ret_error);
	sqlite3_finalize(stmt);
	return text;
}

static bool
query_is(Db *db, const char *sql, const char *want, GError **ret_error)
{
	g_autofree char *got = db_query_text(db, sql, ret_error);
	if (got == NULL)
		return false;
	if (text_equal_nocase(got, want))
		return true;
	return error_set(ret_error, K_ERROR_STORE,
			 "database: %s gave %s instead of %s: acknowledged mail would not be safe",
			 sql, got, want);
}

/* ---- the lock file ---- */

static bool
lock_taken(const char *path, int fd, GError **ret_error)
{
	char pid[16] = "";
	ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
	pid[n > 0 ? n : 0] = '\0';
	return error_set(ret_error, K_ERROR_CONFLICT,
			 "database %s is in use by another process (pid %s)", path,
			 pid[0] != '\0' ? pid : "unknown");
}

/* Held while the process lives; the file stays, since removing it would let two in. */
static bool
take_lock(Db *db, const char *path, GError **ret_error)
{
	g_autofree char *name = g_strconcat(path, ".lock", NULL);
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_set_errno(ret_error, K_ERROR_IO, errno, "lock file %s", name);
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		bool taken = errno == EWOULDBLOCK;
		if (taken)
			lock_taken(path, fd, ret_error);
		else
			error_set_errno(ret_error, K_ERROR_IO, errno, "lock file %s", name);
		close(fd);
		return false;
	}
	db->lock_fd = fd;
	g_autofree char *pid = g_strdup_printf("%d", (int)getpid());
	if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, strlen(pid), 0) < 0)
		return error_set_errno(ret_error, K_ERROR_IO, errno, "lock file %s", name);
	return true;
}

/* ---- opening ---- */

static bool
sync_dir_of(const char *path, GError **ret_error)
{
	g_autofree char *dir = g_path_get_dirname(path);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok = fd >= 0 && fsync(fd) == 0;
	int errnum = errno;
	if (fd >= 0)
		close(fd);
	return ok || error_set_errno(ret_error, K_ERROR_IO, errnum, "directory %s", dir);
}

/* A file that only we may read, and whose name survives a power cut.  An existing one is not
 * even opened: closing it would drop the locks that this process may have on it. */
static bool
create_file(const char *path, GError **ret_error)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno == EEXIST ||
		       error_set_errno(ret_error, K_ERROR_IO, errno, "database %s", path);
	close(fd);
	return sync_dir_of(path, ret_error);
}

/* Set, then read back: what is only believed to be set has lost mail elsewhere. */
static bool
set_up(Db *db, GError **ret_error)
{
	return query_is(db, "PRAGMA journal_mode=WAL", "wal", ret_error) &&
	       db_exec(db, "PRAGMA synchronous=FULL", ret_error) &&
	       query_is(db, "PRAGMA synchronous", "2", ret_error) &&
	       db_exec(db, "PRAGMA wal_autocheckpoint=0", ret_error) &&
	       query_is(db, "PRAGMA wal_autocheckpoint", "0", ret_error) &&
	       db_exec(db, "PRAGMA secure_delete=FAST", ret_error) &&
	       db_exec(db, "PRAGMA mmap_size=0", ret_error) &&
	       db_exec(db, "PRAGMA temp_store=MEMORY", ret_error) &&
	       db_exec(db, "PRAGMA journal_size_limit=67108864", ret_error) &&
	       db_exec(db, "PRAGMA cache_size=-8192", ret_error);
}

static bool
prepare_all(Db *db, GError **ret_error)
{
	for (int i = 0; i < SQL_COUNT; i++) {
		int rc = sqlite3_prepare_v3(db->handle, SQL_TEXT[i], -1, SQLITE_PREPARE_PERSISTENT,
					    &db->stmts[i], NULL);
		if (rc != SQLITE_OK)
			return db_error(db, rc, SQL_TEXT[i], ret_error);
	}
	sqlite3_stmt *stmt = db_stmt(db, SQL_MAX_BLOB);
	if (db_step(db, stmt, ret_error) != SQLITE_ROW)
		return false;
	db->next_blob = sqlite3_column_int64(stmt, 0) + 1;
	db_done(stmt);
	return true;
}

static int
on_wal(void *arg, sqlite3 *handle, const char *name, int pages)
{
	(void)handle;
	(void)name;
	((Db *)arg)->wal_pages = pages;
	return SQLITE_OK;
}

static bool
open_handle(Db *db, const char *path, Usec busy_wait, GError **ret_error)
{
	int flags = db->reader ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
	int rc = sqlite3_open_v2(path, &db->handle, flags | SQLITE_OPEN_NOMUTEX, NULL);
	if (db->handle == NULL)
		return error_set(ret_error, K_ERROR_STORE, "database %s: no memory", path);
	if (rc != SQLITE_OK)
		return db_error(db, rc, path, ret_error);
	(void)sqlite3_extended_result_codes(db->handle, 1);
	(void)sqlite3_busy_timeout(db->handle, (int)(busy_wait / USEC_PER_MS));
	return true;
}

static bool
start_writer(Db *db, const char *path, Usec busy_wait, GError **ret_error)
{
	if (!create_file(path, ret_error) || !take_lock(db, path, ret_error) ||
	    !open_handle(db, path, busy_wait, ret_error))
		return false;
	if (sqlite3_db_readonly(db->handle, "main") != 0)
		return error_set(ret_error, K_ERROR_STORE, "database %s is read-only", path);
	if (!db_set_up_schema(db, path, ret_error) || !set_up(db, ret_error)) {
		g_prefix_error(ret_error, "%s: ", path);
		return false;
	}
	(void)sqlite3_wal_hook(db->handle, on_wal, db);
	return prepare_all(db, ret_error) && db_exec(db, GIVE_BACK, ret_error);
}

/* It neither writes nor checkpoints, not even when it is closed. */
static bool
start_reader(Db *db, const char *path, Usec busy_wait, GError **ret_error)
{
	return open_handle(db, path, busy_wait, ret_error) &&
	       sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL) ==
		       SQLITE_OK &&
	       db_exec(db, "PRAGMA mmap_size=0", ret_error) &&
	       db_exec(db, "PRAGMA temp_store=MEMORY", ret_error) &&
	       db_exec(db, "PRAGMA cache_size=-4096", ret_error) && prepare_all(db, ret_error);
}

static void
db_close(Db *db)
{
	for (int i = 0; i < SQL_COUNT; i++)
		sqlite3_finalize(db->stmts[i]);
	/* The last connection writes the log back and removes it. */
	if (db->handle != NULL)
		k_assert(sqlite3_close(db->handle) == SQLITE_OK);
	if (db->lock_fd >= 0)
		close(db->lock_fd);
	blob_ids_clear(&db->ids);
	g_hash_table_unref(db->dues);
	g_free(db->suspect.id);
	g_free(db->buffer);
	g_free(db->spill_dir);
	g_free(db);
}

static const BackendOps OPS;

static Db *
db_new(const StoreConfig *config)
{
	Db *db = g_new0(Db, 1);
	db->backend.ops = &OPS;
	db->lock_fd = -1;
	blob_ids_init(&db->ids);
	db->dues = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	db->buffer = g_malloc(BLOB_CHUNK);
	db->crash_max = config->crash_max > 0 ? config->crash_max : STORE_CRASH_MAX;
	db->spill_dir = g_strdup(config->blobs.spill_dir);
	db->limits = config->blobs;
	db->limits.spill_dir = db->spill_dir;
	db->limits.size_max = 0; /* what was accepted is loaded, whatever the limit is today */
	return db;
}

typedef bool StartFn(Db *db, const char *path, Usec busy_wait, GError **ret_error);

static Db *
open_at(const StoreConfig *config, const char *given, StartFn *start, bool *ret_newer,
	GError **ret_error)
{
	Db *db = db_new(config);
	db->reader = start == start_reader;
	/* Links are followed, so that two names of one file meet at one lock. */
	char *real = realpath(given, NULL);
	Usec busy_wait = config->busy_wait > 0 ? config->busy_wait : STORE_BUSY_WAIT;
	bool ok = start(db, real != NULL ? real : given, busy_wait, ret_error);
	free(real);
	if (ok)
		return db;
	if (ret_newer != NULL)
		*ret_newer = db->is_newer;
	db_close(db);
	return NULL;
}

Backend *
sqlite_open(const StoreConfig *config, GError **ret_error)
{
	g_autofree char *path = store_url_path(config->url, ret_error);
	if (path == NULL)
		return NULL;
	Db *db = open_at(config, path, start_writer, NULL, ret_error);
	return db != NULL ? &db->backend : NULL;
}

bool
sqlite_migrate(const char *path, GError **ret_error)
{
	const StoreConfig config = {.url = path};
	g_autoptr(GError) error = NULL;
	bool newer = false;
	Db *db = open_at(&config, path, start_writer, &newer, &error);
	if (db == NULL) {
		if (newer)
			error->code = K_ERROR_CONFLICT;
		g_propagate_error(ret_error, g_steal_pointer(&error));
		return false;
	}
	db_close(db);
	return true;
}

bool
sqlite_check(const char *path, GString *report, GError **ret_error)
{
	const StoreConfig config = {.url = path};
	Db *db = db_new(&config);
	db->reader = true;
	bool ok = open_handle(db, path, STORE_BUSY_WAIT, ret_error) &&
		  sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL) ==
			  SQLITE_OK &&
		  db_check_all(db, report, ret_error);
	db_close(db);
	return ok;
}

/* ---- transactions ---- */

static Db *
db_of(Backend *backend)
{
	return (Db *)backend; /* its first member */
}

bool
db_in_transaction(const Db *db)
{
	return sqlite3_get_autocommit(db->handle) == 0;
}

static bool
begin(Backend *backend, const Job *jobs, GError **ret_error)
{
	(void)jobs;
	Db *db = db_of(backend);
	return db_run(db, db_stmt(db, db->reader ? SQL_BEGIN_READ : SQL_BEGIN), ret_error);
}

static GroupEnd
commit(Backend *backend, GError **ret_error)
{
	Db *db = db_of(backend);
	if (!db_run(db, db_stmt(db, SQL_COMMIT), ret_error))
		return GROUP_UNDONE;
	blob_ids_publish(&db->ids);
	suspect_settle(&db->suspect, true);
	return GROUP_COMMITTED;
}

static void
rollback(Backend *backend)
{
	Db *db = db_of(backend);
	/* Fails only where SQLite has rolled back by itself. */
	if (db_in_transaction(db) && !db_run(db, db_stmt(db, SQL_ROLLBACK), NULL))
		k_assert(!db_in_transaction(db));
	blob_ids_forget(&db->ids, 0);
	suspect_settle(&db->suspect, false);
	db_forget_dues(db);
}

/* Undoes what the job did.  False: the database threw the whole transaction away. */
static bool
undo_job(Db *db, guint blobs)
{
	blob_ids_forget(&db->ids, blobs);
	suspect_settle(&db->suspect, false);
	db_forget_dues(db);
	return db_in_transaction(db) && db_run(db, db_stmt(db, SQL_ROLLBACK_TO), NULL) &&
	       db_run(db, db_stmt(db, SQL_RELEASE), NULL);
}

static GroupEnd
run_member(Backend *backend, Job *job)
{
	Db *db = db_of(backend);
	guint blobs = blob_ids_count(&db->ids);
	if (!db_run(db, db_stmt(db, SQL_SAVE), &job->error))
		return GROUP_UNDONE;
	bool ok = db_run_job(db, job) ? db_run(db, db_stmt(db, SQL_RELEASE), &job->error)
				      : undo_job(db, blobs);
	return ok ? GROUP_GOES_ON : GROUP_UNDONE;
}

/* Whether the transaction is as good as if the job had never been tried.  A claim keeps notes
 * besides the database's. */
static bool
left_no_trace(const Db *db, const Job *job, sqlite3_int64 changes)
{
	return job->kind != JOB_CLAIM && db_in_transaction(db) &&
	       sqlite3_total_changes64(db->handle) == changes;
}

/* Without savepoints: with them SQLite copies each page that a job touches before it changes it.
 * They are needed for a job that fails after it has written, which hardly happens. */
static GroupEnd
run_all(Backend *backend, Job *jobs, GError **ret_error)
{
	Db *db = db_of(backend);
	if (!begin(backend, jobs, ret_error))
		return GROUP_LOST;
	GroupEnd end = GROUP_GOES_ON;
	for (Job *job = jobs; end == GROUP_GOES_ON && job != NULL; job = job->next) {
		sqlite3_int64 changes = sqlite3_total_changes64(db->handle);
		if (db_run_job(db, job))
			continue;
		if (left_no_trace(db, job, changes))
			job_keep_error(job);
		else
			end = GROUP_UNDONE;
	}
	if (end == GROUP_GOES_ON)
		end = commit(backend, ret_error);
	if (end != GROUP_COMMITTED)
		rollback(backend);
	return end;
}

/* Errors are left alone here: they come back with the next job that writes. */
static void
maintain(Backend *backend, bool idle, bool collected)
{
	Db *db = db_of(backend);
	if (db->reader)
		return;
	if (collected)
		(void)sqlite3_exec(db->handle, INCREMENTAL_VACUUM, NULL, NULL, NULL);
	if (db->wal_pages < (idle ? WAL_PAGES_IDLE : WAL_PAGES_MAX))
		return;
	if (sqlite3_wal_checkpoint_v2(db->handle, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) ==
	    SQLITE_OK)
		db->wal_pages = 0;
}

/* Leases of a process that ends in good order: what they were taken for has not crashed. */
static const char SIGN_OFF[] =
	"BEGIN IMMEDIATE;"
	"INSERT INTO dest (name, due) SELECT destination, min(next_attempt) FROM tx"
	" WHERE " IS_LEASED " GROUP BY destination"
	" ON CONFLICT (name) DO UPDATE SET due=excluded.due WHERE excluded.due<dest.due;"
	"UPDATE tx SET leased=0, crashes=max(crashes-1,0) WHERE " IS_LEASED ";"
	"COMMIT;";

static void
sign_off(Backend *backend, bool orderly)
{
	Db *db = db_of(backend);
	if (orderly && !db->reader && !db_exec(db, SIGN_OFF, NULL))
		rollback(backend); /* then the next start does it */
}

/* One process has the file, and its leases end with it. */
static Deadline
tick(Backend *backend, bool *ret_due)
{
	(void)backend;
	(void)ret_due;
	return 0;
}

static void
close_backend(Backend *backend)
{
	db_close(db_of(backend));
}

static Backend *
open_reader(Backend *backend, const StoreConfig *config, GError **ret_error)
{
	(void)backend;
	g_autofree char *path = store_url_path(config->url, ret_error);
	if (path == NULL)
		return NULL;
	Db *db = open_at(config, path, start_reader, NULL, ret_error);
	return db != NULL ? &db->backend : NULL;
}

static const BackendOps OPS = {
	.close = close_backend,
	.open_reader = open_reader,
	.run_all = run_all,
	.begin = begin,
	.run_member = run_member,
	.commit = commit,
	.rollback = rollback,
	.maintain = maintain,
	.tick = tick,
	.sign_off = sign_off,
};
