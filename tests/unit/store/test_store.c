/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "store/store_int.h"

#define WAIT_MAX (60 * USEC_PER_SEC)
#define OK       (-1) /* instead of a KErrorCode */

/* ---- fixture: a store in a directory of its own, one worker turned by hand ---- */

typedef struct Fixture {
	char *dir, *path, *url;
	Workers *workers;
	Worker *worker;
	Store *store;
} Fixture;

#define BUSY_WAIT (200 * USEC_PER_MS)

static Store *
try_open(const Fixture *f, unsigned queue_max, GError **ret_error)
{
	const StoreConfig config = {.url = f->url,
				    .queue_max = queue_max,
				    .busy_wait = BUSY_WAIT,
				    .blobs = {.memory_max = 100000, .spill_dir = f->dir}};
	return store_open(&config, ret_error);
}

static void
open_store(Fixture *f)
{
	g_autoptr(GError) error = NULL;
	f->store = try_open(f, 0, &error);
	if (f->store == NULL)
		fail_msg("%s", error->message);
}

static void
reopen(Fixture *f)
{
	store_close(f->store);
	open_store(f);
}

static int
set_up(void **state)
{
	Fixture *f = g_new0(Fixture, 1);
	f->dir = g_dir_make_tmp("koukan-store-XXXXXX", NULL);
	f->path = g_build_filename(f->dir, "queue.db", NULL);
	f->url = g_strconcat("sqlite:///", f->path, NULL);
	f->workers = workers_new(1, NULL);
	f->worker = workers_get(f->workers, 0);
	open_store(f);
	*state = f;
	return 0;
}

static void
remove_files(const char *dir)
{
	g_autoptr(GDir) handle = g_dir_open(dir, 0, NULL);
	const char *name;
	while ((name = g_dir_read_name(handle)) != NULL) {
		g_autofree char *path = g_build_filename(dir, name, NULL);
		assert_int_equal(g_unlink(path), 0);
	}
	assert_int_equal(g_rmdir(dir), 0);
}

static int
tear_down(void **state)
{
	Fixture *f = *state;
	store_close(f->store);
	workers_free(f->workers);
	remove_files(f->dir);
	g_free(f->dir);
	g_free(f->path);
	g_free(f->url);
	g_free(f);
	return 0;
}

/* Looks at or changes the file behind the store's back; the store is closed, or only reads are
 * done. */
static int64_t
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

/* ---- asking ---- */

typedef struct Ask {
	/* the question */
	JobKind kind;
	StoreRow *row;
	const char *id, *text;
	int64_t time;
	unsigned limit;
	bool with_blobs;
	/* the answer */
	bool asking; /* inside the call */
	bool done;
	int code; /* OK or a KErrorCode */
	char *message;
	GPtrArray *rows;
	int64_t next_due;
	GPtrArray *damaged;
} Ask;

static void
ask_clear(Ask *ask)
{
	g_free(ask->message);
	if (ask->rows != NULL)
		g_ptr_array_unref(ask->rows);
	if (ask->damaged != NULL)
		g_ptr_array_unref(ask->damaged);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Ask, ask_clear)

static void
on_answer(void *arg, const StoreResult *result)
{
	Ask *ask = arg;
	assert_false(ask->asking);
	assert_false(ask->done); /* exactly once */
	ask->done = true;
	ask->code = OK;
	ask->next_due = result->next_due;
	if (result->error != NULL) {
		assert_true(result->error->domain == K_ERROR);
		ask->code = result->error->code;
		ask->message = g_strdup(result->error->message);
	}
	if (result->rows != NULL)
		ask->rows = g_ptr_array_ref(result->rows);
	if (result->damaged != NULL)
		ask->damaged = g_ptr_array_ref(result->damaged);
}

static void
start(Store *store, Ask *ask)
{
	ask->asking = true;
	switch (ask->kind) {
	case JOB_INSERT:
		store_insert(store, ask->row, on_answer, ask);
		break;
	case JOB_UPDATE:
		store_update(store, ask->row, on_answer, ask);
		break;
	case JOB_CLAIM:
		store_claim(store, ask->time, ask->limit, on_answer, ask);
		break;
	case JOB_LOAD:
		store_load(store, ask->id, ask->with_blobs, on_answer, ask);
		break;
	case JOB_REUSE:
		store_reuse(store, ask->id, ask->text, on_answer, ask);
		break;
	case JOB_CANCEL:
		store_cancel(store, ask->id, ask->text, on_answer, ask);
		break;
	case JOB_COLLECT:
		store_collect(store, ask->time, ask->limit, on_answer, ask);
		break;
	case JOB_KINDS:
		k_unreachable();
	}
	ask->asking = false;
}

typedef struct Batch {
	Store *store;
	Ask *asks;
	size_t n;
} Batch;

static void
start_batch(void *arg)
{
	const Batch *batch = arg;
	for (size_t i = 0; i < batch->n; i++)
		start(batch->store, &batch->asks[i]);
}

static bool
all_done(const Batch *batch)
{
	for (size_t i = 0; i < batch->n; i++) {
		if (!batch->asks[i].done)
			return false;
	}
	return true;
}

/* Asks everything in one go, waits for all answers. */
static void
ask_all(Fixture *f, Ask *asks, size_t n)
{
	Batch batch = {.store = f->store, .asks = asks, .n = n};
	worker_post(f->worker, start_batch, &batch);
	Deadline end = clock_after(WAIT_MAX);
	do {
		worker_test_turn(f->worker, USEC_PER_SEC);
		assert_false(clock_passed(end));
	} while (!all_done(&batch));
}

/* The code of the answer; its other parts are dropped. */
static int
ask_code(Fixture *f, Ask ask)
{
	ask_all(f, &ask, 1);
	int code = ask.code;
	ask_clear(&ask);
	return code;
}

static StoreRow *
make_row(const char *id, int64_t next_attempt)
{
	StoreRow *row = store_row_new();
	row->id = g_strdup(id);
	row->sender = g_strdup("submission");
	row->json = g_strdup("{}");
	row->creation = 1700000000;
	row->next_attempt = next_attempt;
	row->version = 3;
	return row;
}

static StoreRow *
make_mail(const char *id, int64_t next_attempt, Blob *body)
{
	StoreRow *row = make_row(id, next_attempt);
	store_row_add_blob(row, NULL, body);
	return row;
}

static void
insert(Fixture *f, StoreRow *row)
{
	Ask ask = {.kind = JOB_INSERT, .row = row};
	ask_all(f, &ask, 1);
	if (ask.code != OK)
		fail_msg("%s", ask.message);
	ask_clear(&ask);
}

/* "id id id" of what is due; damaged ones behind a '!'. */
static char *
claim(Fixture *f, int64_t now, unsigned limit, int64_t *ret_next_due)
{
	g_auto(Ask) ask = {.kind = JOB_CLAIM, .time = now, .limit = limit};
	ask_all(f, &ask, 1);
	if (ask.code != OK)
		fail_msg("%s", ask.message);
	GString *ids = g_string_new(NULL);
	for (guint i = 0; i < ask.rows->len; i++) {
		const StoreRow *row = g_ptr_array_index(ask.rows, i);
		assert_true(row->leased);
		g_string_append_printf(ids, "%s%s", i > 0 ? " " : "", row->id);
	}
	for (guint i = 0; ask.damaged != NULL && i < ask.damaged->len; i++)
		g_string_append_printf(ids, "!%s", (char *)g_ptr_array_index(ask.damaged, i));
	if (ret_next_due != NULL)
		*ret_next_due = ask.next_due;
	return g_string_free(ids, FALSE);
}

static void
assert_claims(Fixture *f, int64_t now, const char *want)
{
	g_autofree char *got = claim(f, now, 100, NULL);
	assert_string_equal(got, want);
}

static void
assert_bytes(const Blob *blob, const char *want, size_t len)
{
	assert_true(blob_is_final(blob));
	size_t got;
	g_autofree char *text = blob_to_string(blob, UINT64_MAX, &got, NULL);
	assert_non_null(text);
	assert_int_equal(got, len);
	if (memcmp(text, want, len) != 0)
		fail_msg("bytes differ");
}

static char *
pattern(size_t len)
{
	char *bytes = g_malloc(len + 1);
	for (size_t i = 0; i < len; i++)
		bytes[i] = (char)(i * 131 + i / 257 + i / 65539);
	return bytes;
}

/* ---- rows ---- */

static void
test_insert_and_load(void **state)
{
	Fixture *f = *state;
	StoreRow *row = make_row("full", 1700000100);
	row->tag = g_strdup("t");
	row->builder = g_strdup("{\"text_body\":[]}");
	row->responses = g_strdup("{\"mail_response\":{\"code\":250}}");
	row->mail_from = g_strdup("j\xc3\xb6rg@x");
	row->rcpt = g_strdup("b@x");
	row->attempts = 4;
	g_autoptr(Blob) body = blob_new_bytes("Subject: x\r\n\r\n", 14);
	g_autoptr(Blob) part = blob_new_bytes("part", 4);
	g_autoptr(Blob) empty = blob_new_bytes("", 0);
	store_row_add_blob(row, "b1", part);
	store_row_add_blob(row, NULL, body);
	store_row_add_blob(row, "b 2", empty);
	insert(f, row);
	insert(f, make_row("bare", 0));

	g_auto(Ask) ask = {.kind = JOB_LOAD, .id = "full", .with_blobs = true};
	ask_all(f, &ask, 1);
	assert_int_equal(ask.code, OK);
	assert_int_equal(ask.rows->len, 1);
	const StoreRow *got = g_ptr_array_index(ask.rows, 0);
	assert_string_equal(got->id, "full");
	assert_string_equal(got->sender, "submission");
	assert_string_equal(got->tag, "t");
	assert_string_equal(got->json, "{}");
	assert_string_equal(got->builder, "{\"text_body\":[]}");
	assert_string_equal(got->responses, "{\"mail_response\":{\"code\":250}}");
	assert_string_equal(got->mail_from, "j\xc3\xb6rg@x");
	assert_string_equal(got->rcpt, "b@x");
	assert_int_equal(got->creation, 1700000000);
	assert_int_equal(got->next_attempt, 1700000100);
	assert_true(got->last_update > 1700000000);
	assert_int_equal(got->attempts, 4);
	assert_int_equal(got->version, 3);
	assert_false(got->leased);
	assert_null(got->final_reason);
	assert_int_equal(got->blobs->len, 3);
	static const struct {
		const char *name, *bytes;
	} WANT[] = {{NULL, "Subject: x\r\n\r\n"}, {"b1", "part"}, {"b 2", ""}};
	for (guint i = 0; i < 3; i++) {
		const StoreBlob *blob = g_ptr_array_index(got->blobs, i);
		assert_int_equal(g_strcmp0(blob->name, WANT[i].name), 0);
		assert_bytes(blob->blob, WANT[i].bytes, strlen(WANT[i].bytes));
	}

	g_auto(Ask) names = {.kind = JOB_LOAD, .id = "full"};
	ask_all(f, &names, 1);
	got = g_ptr_array_index(names.rows, 0);
	assert_int_equal(got->blobs->len, 3);
	for (guint i = 0; i < 3; i++) {
		const StoreBlob *blob = g_ptr_array_index(got->blobs, i);
		assert_null(blob->blob);
		assert_int_equal(g_strcmp0(blob->name, WANT[i].name), 0);
	}
	g_auto(Ask) bare = {.kind = JOB_LOAD, .id = "bare", .with_blobs = true};
	ask_all(f, &bare, 1);
	got = g_ptr_array_index(bare.rows, 0);
	assert_int_equal(got->blobs->len, 0);
	assert_null(got->tag);
	assert_null(got->builder);
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_LOAD, .id = "none"}), K_ERROR_NOT_FOUND);
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_INSERT, .row = make_row("bare", 0)}),
			 K_ERROR_CONFLICT);
}

static void
test_update(void **state)
{
	Fixture *f = *state;
	insert(f, make_row("a", 100));
	StoreRow *row = make_row("a", 200);
	row->responses = g_strdup("{}");
	row->attempts = 7;
	row->leased = true;
	row->version = 12;
	row->final_reason = g_strdup("upstream response success");
	g_free(row->json);
	row->json = g_strdup("ignored");
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_UPDATE, .row = row}), OK);
	g_auto(Ask) ask = {.kind = JOB_LOAD, .id = "a"};
	ask_all(f, &ask, 1);
	const StoreRow *got = g_ptr_array_index(ask.rows, 0);
	assert_string_equal(got->json, "{}");
	assert_string_equal(got->responses, "{}");
	assert_int_equal(got->next_attempt, 200);
	assert_int_equal(got->attempts, 7);
	assert_true(got->leased);
	assert_int_equal(got->version, 12);
	assert_string_equal(got->final_reason, "upstream response success");
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_UPDATE, .row = make_row("b", 0)}),
			 K_ERROR_NOT_FOUND);
}

static void
test_claim(void **state)
{
	Fixture *f = *state;
	int64_t next = -1;
	g_autofree char *none = claim(f, 1000, 10, &next);
	assert_string_equal(none, "");
	assert_int_equal(next, 0);
	insert(f, make_row("c", 300));
	insert(f, make_row("a", 100));
	insert(f, make_row("b", 200));
	insert(f, make_row("d", 400));
	insert(f, make_row("z", 0)); /* its attempt died: due at once */
	StoreRow *leased = make_row("leased", 100);
	leased->leased = true;
	insert(f, leased);
	StoreRow *final = make_row("final", 100);
	final->final_reason = g_strdup("x");
	insert(f, final);

	g_autofree char *first = claim(f, 300, 3, &next);
	assert_string_equal(first, "z a b");
	assert_int_equal(next, 300);
	g_autofree char *second = claim(f, 300, 3, &next);
	assert_string_equal(second, "c");
	assert_int_equal(next, 400);
	g_autofree char *third = claim(f, 399, 3, &next);
	assert_string_equal(third, "");
	assert_int_equal(next, 400);
	/* Given back with a new time. */
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_UPDATE, .row = make_row("a", 350)}), OK);
	g_autofree char *fourth = claim(f, 400, 3, &next);
	assert_string_equal(fourth, "a d");
	assert_int_equal(next, 0);
}

static void
test_cancel(void **state)
{
	Fixture *f = *state;
	insert(f, make_row("a", 100));
	StoreRow *leased = make_row("leased", 100);
	leased->leased = true;
	insert(f, leased);
	const char *why = "downstream cancelled";
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_CANCEL, .id = "a", .text = why}), OK);
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_CANCEL, .id = "a", .text = "again"}), OK);
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_CANCEL, .id = "leased", .text = why}),
			 K_ERROR_CONFLICT);
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_CANCEL, .id = "none", .text = why}),
			 K_ERROR_NOT_FOUND);
	g_auto(Ask) ask = {.kind = JOB_LOAD, .id = "a"};
	ask_all(f, &ask, 1);
	const StoreRow *got = g_ptr_array_index(ask.rows, 0);
	assert_string_equal(got->final_reason, why);
	assert_int_equal(got->version, 4);
	assert_claims(f, 1000, "");
}

/* ---- bodies ---- */

static void
test_bodies(void **state)
{
	Fixture *f = *state;
	static const size_t SIZES[] = {
		0,
		1,
		BLOB_CHUNK - 1,
		BLOB_CHUNK,
		BLOB_CHUNK + 1,
		2 * BLOB_CHUNK,
		(1024 * 1024) + 17,
		5 * 1024 * 1024,
	};
	g_autofree char *data = pattern(5 * 1024 * 1024);
	for (size_t i = 0; i < G_N_ELEMENTS(SIZES); i++) {
		for (int form = 0; form < 3; form++) { /* bytes, spilled, view */
			const BlobLimits limits = {.memory_max = 1000, .spill_dir = f->dir};
			g_autoptr(Blob) blob = NULL;
			if (form == 1) {
				blob = blob_new(&limits);
				assert_true(blob_append(blob, data, SIZES[i], NULL));
				blob_finalize(blob);
			} else if (form == 2) {
				size_t cut = MIN(SIZES[i], (size_t)50);
				g_autoptr(Blob) rest = blob_new_bytes(data + cut, SIZES[i] - cut);
				blob = blob_new_prefixed(data, cut, rest);
			} else {
				blob = blob_new_bytes(data, SIZES[i]);
			}
			g_autofree char *id = g_strdup_printf("m%zu-%d", i, form);
			insert(f, make_mail(id, 100, blob));
			assert_true(blob_stored_id(blob) > 0);
			g_auto(Ask) ask = {.kind = JOB_LOAD, .id = id, .with_blobs = true};
			ask_all(f, &ask, 1);
			const StoreRow *got = g_ptr_array_index(ask.rows, 0);
			const StoreBlob *body = g_ptr_array_index(got->blobs, 0);
			assert_bytes(body->blob, data, SIZES[i]);
			assert_int_equal(blob_stored_id(body->blob), blob_stored_id(blob));
		}
	}
	reopen(f);
	g_auto(Ask) ask = {.kind = JOB_CLAIM, .time = 100, .limit = 100};
	ask_all(f, &ask, 1);
	assert_int_equal(ask.rows->len, G_N_ELEMENTS(SIZES) * 3);
	for (guint i = 0; i < ask.rows->len; i++) {
		const StoreRow *row = g_ptr_array_index(ask.rows, i);
		const StoreBlob *body = g_ptr_array_index(row->blobs, 0);
		assert_bytes(body->blob, data, SIZES[i / 3]);
	}
}

/* Rows of one message share its bytes: in one group, later, loaded again. */
static void
test_sharing(void **state)
{
	Fixture *f = *state;
	g_autofree char *data = pattern(300000);
	g_autoptr(Blob) blob = blob_new_bytes(data, 300000);
	Ask asks[5] = {0};
	static const char *const IDS[] = {"a", "b", "c", "d", "e"};
	for (size_t i = 0; i < 5; i++)
		asks[i] = (Ask){.kind = JOB_INSERT, .row = make_mail(IDS[i], 100, blob)};
	ask_all(f, asks, 5);
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(asks[i].code, OK);
	insert(f, make_mail("later", 100, blob));
	assert_int_equal(sql(f, "SELECT count(*) FROM blob"), 1);
	assert_int_equal(sql(f, "SELECT refs FROM blob"), 6);
	assert_int_equal(sql(f, "SELECT count(*) FROM chunk"), 2);

	/* A claim loads them once; what was loaded is known, too. */
	g_auto(Ask) ask = {.kind = JOB_CLAIM, .time = 100, .limit = 100};
	ask_all(f, &ask, 1);
	assert_int_equal(ask.rows->len, 6);
	Blob *seen = NULL;
	for (guint i = 0; i < 6; i++) {
		const StoreRow *row = g_ptr_array_index(ask.rows, i);
		const StoreBlob *body = g_ptr_array_index(row->blobs, 0);
		assert_true(seen == NULL || seen == body->blob);
		seen = body->blob;
	}
	assert_bytes(seen, data, 300000);
	insert(f, make_mail("from loaded", 100, seen));
	assert_int_equal(sql(f, "SELECT count(*) FROM blob"), 1);
	assert_int_equal(sql(f, "SELECT refs FROM blob"), 7);
}

static void
test_reuse(void **state)
{
	Fixture *f = *state;
	g_autofree char *data = pattern(200000);
	g_autoptr(Blob) body = blob_new_bytes(data, 200000);
	g_autoptr(Blob) part = blob_new_bytes("part", 4);
	StoreRow *row = make_mail("a", 100, body);
	store_row_add_blob(row, "p", part);
	insert(f, row);
	insert(f, make_row("bare", 100));
	g_auto(Ask) ask = {.kind = JOB_REUSE, .id = "a"};
	g_auto(Ask) named = {.kind = JOB_REUSE, .id = "a", .text = "p"};
	ask_all(f, &ask, 1);
	ask_all(f, &named, 1);
	assert_int_equal(ask.code, OK);
	assert_int_equal(named.code, OK);
	const StoreRow *got = g_ptr_array_index(ask.rows, 0);
	assert_int_equal(got->blobs->len, 1);
	const StoreBlob *blob = g_ptr_array_index(got->blobs, 0);
	assert_null(blob->name);
	assert_bytes(blob->blob, data, 200000);
	insert(f, make_mail("copy", 100, blob->blob));
	got = g_ptr_array_index(named.rows, 0);
	blob = g_ptr_array_index(got->blobs, 0);
	assert_string_equal(blob->name, "p");
	assert_bytes(blob->blob, "part", 4);
	assert_int_equal(sql(f, "SELECT count(*) FROM blob"), 2);
	assert_int_equal(sql(f, "SELECT max(refs) FROM blob"), 2);

	static const struct {
		const char *id, *name;
	} MISSING[] = {{"none", NULL}, {"none", "p"}, {"a", "q"}, {"bare", NULL}, {"bare", "p"}};
	for (size_t i = 0; i < G_N_ELEMENTS(MISSING); i++)
		assert_int_equal(ask_code(f, (Ask){.kind = JOB_REUSE,
						   .id = MISSING[i].id,
						   .text = MISSING[i].name}),
				 K_ERROR_NOT_FOUND);
}

static void
test_collect(void **state)
{
	Fixture *f = *state;
	g_autofree char *data = pattern(600000);
	g_autoptr(Blob) shared = blob_new_bytes(data, 600000);
	g_autoptr(Blob) own = blob_new_bytes(data, 300000);
	static const char *const IDS[] = {"a", "b", "live"};
	for (size_t i = 0; i < 3; i++) {
		StoreRow *row = make_mail(IDS[i], 100, shared);
		if (i == 0)
			store_row_add_blob(row, "own", own);
		if (i < 2)
			row->final_reason = g_strdup("done");
		insert(f, row);
	}
	int64_t now = clock_wall_sec();
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_COLLECT, .time = now - 10, .limit = 10}),
			 OK);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), 3); /* too young */
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_COLLECT, .time = now + 10, .limit = 1}), OK);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), 2);
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_COLLECT, .time = now + 10, .limit = 10}),
			 OK);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), 1); /* "live" is not final */
	assert_int_equal(sql(f, "SELECT count(*) FROM tx_blob"), 0);
	assert_int_equal(sql(f, "SELECT count(*) FROM blob"), 1);
	assert_int_equal(sql(f, "SELECT refs FROM blob"), 1);
	assert_int_equal(sql(f, "SELECT count(*) FROM chunk"), 4);

	StoreRow *update = make_row("live", 0);
	update->final_reason = g_strdup("done");
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_UPDATE, .row = update}), OK);
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_COLLECT, .time = now + 10, .limit = 10}),
			 OK);
	assert_int_equal(sql(f, "SELECT count(*) FROM blob"), 0);
	assert_int_equal(sql(f, "SELECT count(*) FROM chunk"), 0);

	/* The Blob still believes that it is stored; it is stored again. */
	insert(f, make_mail("again", 100, shared));
	g_auto(Ask) ask = {.kind = JOB_LOAD, .id = "again", .with_blobs = true};
	ask_all(f, &ask, 1);
	const StoreRow *got = g_ptr_array_index(ask.rows, 0);
	const StoreBlob *body = g_ptr_array_index(got->blobs, 0);
	assert_bytes(body->blob, data, 600000);
}

/* A stored id of one store means nothing to another, nor to the same file opened again. */
static void
test_foreign_ids(void **state)
{
	Fixture *f = *state;
	g_autoptr(Blob) first = blob_new_bytes("first", 5);
	insert(f, make_mail("a", 100, first));
	store_close(f->store);
	assert_int_equal(sql(f, "DELETE FROM tx"), 0);
	assert_int_equal(sql(f, "DELETE FROM blob"), 0);
	open_store(f);
	g_autoptr(Blob) other = blob_new_bytes("other", 5);
	insert(f, make_mail("b", 100, other)); /* gets the number that `first` had */
	insert(f, make_mail("c", 100, first));
	g_auto(Ask) ask = {.kind = JOB_LOAD, .id = "c", .with_blobs = true};
	ask_all(f, &ask, 1);
	const StoreRow *got = g_ptr_array_index(ask.rows, 0);
	const StoreBlob *body = g_ptr_array_index(got->blobs, 0);
	assert_bytes(body->blob, "first", 5);
}

/* ---- groups ---- */

#define GROUP 400

static void
test_group_commit(void **state)
{
	Fixture *f = *state;
	StoreStats before, after;
	store_stats(f->store, &before);
	Ask *asks = g_new0(Ask, GROUP);
	for (size_t i = 0; i < GROUP; i++) {
		g_autofree char *id = g_strdup_printf("m%zu", i);
		g_autoptr(Blob) body = blob_new_bytes(id, strlen(id));
		asks[i] = (Ask){.kind = JOB_INSERT, .row = make_mail(id, 100, body)};
	}
	ask_all(f, asks, GROUP);
	for (size_t i = 0; i < GROUP; i++)
		assert_int_equal(asks[i].code, OK);
	g_free(asks);
	store_stats(f->store, &after);
	assert_int_equal(after.jobs - before.jobs, GROUP);
	assert_int_equal(after.failures, before.failures);
	assert_int_equal(after.queued, 0);
	assert_true(after.commits > before.commits);
	assert_true(after.commits - before.commits < GROUP / 4);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), GROUP);
}

/* A job that fails is answered alone; a large one in front keeps the thread busy, so that the
 * others are one group. */
static void
test_failed_member(void **state)
{
	Fixture *f = *state;
	g_autofree char *data = pattern(4 * 1024 * 1024);
	g_autoptr(Blob) large = blob_new_bytes(data, 4 * 1024 * 1024);
	g_autoptr(Blob) body = blob_new_bytes("body", 4);
	Ask asks[] = {
		{.kind = JOB_INSERT, .row = make_mail("large", 1, large)},
		{.kind = JOB_INSERT, .row = make_row("a", 100)},
		{.kind = JOB_INSERT, .row = make_mail("a", 100, body)}, /* there already */
		{.kind = JOB_UPDATE, .row = make_row("none", 100)},
		{.kind = JOB_INSERT, .row = make_mail("b", 100, body)},
		{.kind = JOB_LOAD, .id = "b", .with_blobs = true},
		{.kind = JOB_CANCEL, .id = "none", .text = "x"},
		{.kind = JOB_UPDATE, .row = make_row("a", 50)},
		{.kind = JOB_CLAIM, .time = 60, .limit = 10},
	};
	static const int WANT[] = {
		OK, OK, K_ERROR_CONFLICT, K_ERROR_NOT_FOUND, OK, OK, K_ERROR_NOT_FOUND, OK, OK};
	ask_all(f, asks, G_N_ELEMENTS(asks));
	for (size_t i = 0; i < G_N_ELEMENTS(asks); i++) {
		if (asks[i].code != WANT[i])
			fail_msg("%zu: %s", i, asks[i].message);
	}
	assert_int_equal(asks[8].rows->len, 2); /* "large" and "a", not "b" */
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), 3);
	/* The blob of the job that was undone was stored by the next one that needed it. */
	assert_int_equal(sql(f, "SELECT refs FROM blob WHERE len=4"), 1);
	const StoreRow *got = g_ptr_array_index(asks[5].rows, 0);
	const StoreBlob *stored = g_ptr_array_index(got->blobs, 0);
	assert_bytes(stored->blob, "body", 4);
	for (size_t i = 0; i < G_N_ELEMENTS(asks); i++)
		ask_clear(&asks[i]);
}

static void
test_queue_full(void **state)
{
	Fixture *f = *state;
	store_close(f->store);
	f->store = try_open(f, 3, NULL);
	assert_non_null(f->store);
	enum { N = 60 };
	Ask asks[N] = {0};
	g_autofree char *data = pattern(4 * 1024 * 1024);
	g_autoptr(Blob) large = blob_new_bytes(data, 4 * 1024 * 1024);
	for (size_t i = 0; i < N; i++) {
		g_autofree char *id = g_strdup_printf("m%zu", i);
		asks[i] = (Ask){.kind = JOB_INSERT,
				.row = i == 0 ? make_mail(id, 1, large) : make_row(id, 1)};
	}
	ask_all(f, asks, N);
	int64_t done = 0, full = 0;
	for (size_t i = 0; i < N; i++) {
		done += asks[i].code == OK;
		full += asks[i].code == K_ERROR_FULL;
		ask_clear(&asks[i]);
	}
	assert_int_equal(done + full, N);
	assert_true(done >= 3);
	assert_true(full > 0);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), done);
	insert(f, make_row("later", 1)); /* and it recovers */
}

/* ---- many workers ---- */

#define LOAD_WORKERS 3
#define LOAD_EACH    300
#define LOAD_FLIGHT  30

typedef struct LoadWorker {
	Store *store;
	unsigned index, sent, answered;
	unsigned errors, misplaced;
	Worker *worker;
	Blob *shared;
	atomic_uint *finished;
} LoadWorker;

static void load_more(LoadWorker *load);

static void
on_loaded(void *arg, const StoreResult *result)
{
	LoadWorker *load = arg;
	load->errors += result->error != NULL ? 1 : 0;
	load->misplaced += worker_current() != load->worker ? 1 : 0;
	if (++load->answered == LOAD_EACH)
		atomic_fetch_add(load->finished, 1);
	else
		load_more(load);
}

static void
load_more(LoadWorker *load)
{
	while (load->sent < LOAD_EACH && load->sent - load->answered < LOAD_FLIGHT) {
		unsigned n = load->sent++;
		g_autofree char *id = g_strdup_printf("w%u-%u", load->index, n - n % 3);
		g_autoptr(Blob) own = blob_new_bytes(id, strlen(id));
		if (n % 3 == 0)
			store_insert(load->store,
				     make_mail(id, 100, n % 2 == 0 ? own : load->shared), on_loaded,
				     load);
		else if (n % 3 == 1) /* in the order of asking: the row is there */
			store_update(load->store, make_row(id, 200), on_loaded, load);
		else
			store_load(load->store, id, true, on_loaded, load);
	}
}

static void
load_start(void *arg)
{
	load_more(arg);
}

static void
test_many_workers(void **state)
{
	Fixture *f = *state;
	g_autoptr(Blob) shared = blob_new_bytes("shared", 6);
	atomic_uint finished = 0;
	Workers *workers = workers_new(LOAD_WORKERS, NULL);
	LoadWorker loads[LOAD_WORKERS];
	for (unsigned i = 0; i < LOAD_WORKERS; i++) {
		loads[i] = (LoadWorker){.store = f->store,
					.index = i,
					.worker = workers_get(workers, i),
					.shared = shared,
					.finished = &finished};
		worker_post(loads[i].worker, load_start, &loads[i]);
	}
	assert_true(workers_start(workers, NULL));
	Deadline end = clock_after(WAIT_MAX);
	while (atomic_load(&finished) < LOAD_WORKERS && !clock_passed(end))
		g_usleep(1000);
	workers_stop(workers);
	assert_int_equal(atomic_load(&finished), LOAD_WORKERS);
	for (unsigned i = 0; i < LOAD_WORKERS; i++) {
		assert_int_equal(loads[i].errors, 0);
		assert_int_equal(loads[i].misplaced, 0);
	}
	workers_free(workers);
	StoreStats stats;
	store_stats(f->store, &stats);
	assert_true(stats.commits < stats.jobs / 2);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), LOAD_WORKERS * LOAD_EACH / 3);
	assert_int_equal(sql(f, "SELECT count(*) FROM blob WHERE len=6 AND data='shared'"), 0);
	assert_int_equal(sql(f, "SELECT count(*) FROM blob WHERE data=CAST('shared' AS BLOB)"), 1);
}

/* ---- restart ---- */

static void
test_restart(void **state)
{
	Fixture *f = *state;
	insert(f, make_row("waiting", 500));
	StoreRow *leased = make_row("leased", 0);
	leased->leased = true;
	leased->attempts = 1;
	insert(f, leased);
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
	assert_int_equal(sql(f, "PRAGMA user_version"), 1);
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
	sql(f, "PRAGMA user_version=2");
	assert_refused(f, K_ERROR_CONFIG, "schema version 2, this program needs 1");
	sql(f, "PRAGMA user_version=1");
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
	insert(f, make_mail("before", 100, small));

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
	assert_int_equal(sql(f, "SELECT count(*) FROM tx WHERE parked IS NOT NULL"), n);
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
#define STORE_TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_urls),     STORE_TEST(test_insert_and_load),
		STORE_TEST(test_update),         STORE_TEST(test_claim),
		STORE_TEST(test_cancel),         STORE_TEST(test_bodies),
		STORE_TEST(test_sharing),        STORE_TEST(test_reuse),
		STORE_TEST(test_collect),        STORE_TEST(test_foreign_ids),
		STORE_TEST(test_group_commit),   STORE_TEST(test_failed_member),
		STORE_TEST(test_queue_full),     STORE_TEST(test_many_workers),
		STORE_TEST(test_restart),        STORE_TEST(test_crash),
		STORE_TEST(test_close_finishes), STORE_TEST(test_second_opener),
		STORE_TEST(test_file_mode),      STORE_TEST(test_foreign_files),
		STORE_TEST(test_disk_full),      STORE_TEST(test_locked),
		STORE_TEST(test_damaged_rows),   STORE_TEST(test_no_room_to_load),
		STORE_TEST(test_space),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
