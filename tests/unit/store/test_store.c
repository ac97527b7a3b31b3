/* SPDX-License-Identifier: Apache-2.0 */
#include "store_fixture.h"

#include <stdatomic.h>
#include <string.h>

#include "base/error.h"

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
	insert(f, leased(make_row("a", 100)));
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
	insert(f, leased(make_row("leased", 100)));
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
	insert(f, leased(make_row("leased", 100)));
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
		row->leased = i == 2;
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
		{.kind = JOB_INSERT, .row = leased(make_row("a", 100))},
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

/* Jobs that fail without having written leave what was done before and behind them alone. */
static void
test_harmless_failures(void **state)
{
	Fixture *f = *state;
	g_autofree char *data = pattern(4 * 1024 * 1024);
	g_autoptr(Blob) large = blob_new_bytes(data, 4 * 1024 * 1024);
	g_autoptr(Blob) body = blob_new_bytes("body", 4);
	Ask asks[] = {
		{.kind = JOB_INSERT, .row = make_mail("large", 1000, large)},
		{.kind = JOB_INSERT, .row = make_mail("a", 100, body)},
		{.kind = JOB_LOAD, .id = "none", .with_blobs = true},
		{.kind = JOB_INSERT, .row = leased(make_mail("b", 100, body))},
		{.kind = JOB_UPDATE, .row = make_row("a", 50)}, /* not leased */
		{.kind = JOB_CANCEL, .id = "b", .text = "x"},   /* leased */
		{.kind = JOB_ACT, .id = "none", .action = STORE_HOLD, .text = "x"},
		{.kind = JOB_REUSE, .id = "none"},
		{.kind = JOB_UPDATE, .row = make_row("b", 50)},
		{.kind = JOB_CLAIM, .time = 100, .limit = 10},
		{.kind = JOB_LOAD, .id = "none"},
	};
	static const int WANT[] = {OK,
				   OK,
				   K_ERROR_NOT_FOUND,
				   OK,
				   K_ERROR_CONFLICT,
				   K_ERROR_CONFLICT,
				   K_ERROR_NOT_FOUND,
				   K_ERROR_NOT_FOUND,
				   OK,
				   OK,
				   K_ERROR_NOT_FOUND};
	ask_all(f, asks, G_N_ELEMENTS(asks));
	for (size_t i = 0; i < G_N_ELEMENTS(asks); i++) {
		if (asks[i].code != WANT[i])
			fail_msg("%zu: %d %s", i, asks[i].code, asks[i].message);
		assert_true(asks[i].code == OK || asks[i].rows == NULL);
	}
	assert_int_equal(asks[9].rows->len, 2);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), 3);
	assert_int_equal(sql(f, "SELECT refs FROM blob WHERE len=4"), 2);
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
				     leased(make_mail(id, 100, n % 2 == 0 ? own : load->shared)),
				     on_loaded, load);
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
	g_autoptr(Blob) shared = blob_new_bytes("shared!", 7) /* no other is as long */;
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
	assert_int_equal(sql(f, "SELECT count(*) FROM blob WHERE len=7"), 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(test_insert_and_load), STORE_TEST(test_update),
		STORE_TEST(test_claim),           STORE_TEST(test_cancel),
		STORE_TEST(test_bodies),          STORE_TEST(test_sharing),
		STORE_TEST(test_reuse),           STORE_TEST(test_collect),
		STORE_TEST(test_foreign_ids),     STORE_TEST(test_group_commit),
		STORE_TEST(test_failed_member),   STORE_TEST(test_harmless_failures),
		STORE_TEST(test_queue_full),      STORE_TEST(test_many_workers),
	};
	return STORE_RUN(tests);
}
