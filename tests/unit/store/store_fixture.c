/* SPDX-License-Identifier: Apache-2.0 */
#include "store_fixture.h"

#include <string.h>

#include "base/error.h"

StoreConfig
fixture_config(const Fixture *f)
{
	return (StoreConfig){.url = f->url,
			     .crash_max = 3,
			     .blobs = {.memory_max = 100000, .spill_dir = f->dir}};
}

Store *
try_open(const Fixture *f, unsigned queue_max, GError **ret_error)
{
	StoreConfig config = fixture_config(f);
	config.queue_max = queue_max;
	return store_open(&config, ret_error);
}

void
open_store(Fixture *f)
{
	g_autoptr(GError) error = NULL;
	f->store = try_open(f, 0, &error);
	if (f->store == NULL)
		fail_msg("%s", error->message);
}

void
open_hasty(Fixture *f)
{
	StoreConfig config = fixture_config(f);
	config.busy_wait = BUSY_WAIT;
	store_close(f->store);
	Deadline end = clock_after(WAIT_MAX);
	do { /* a busy machine may need longer for that than for what follows */
		assert_false(clock_passed(end));
		f->store = store_open(&config, NULL);
	} while (f->store == NULL);
}

void
reopen(Fixture *f)
{
	store_close(f->store);
	open_store(f);
}

void
die_and_open(Fixture *f, const StoreConfig *config)
{
	g_autoptr(GError) error = NULL;
	store_test_abandon(f->store);
	store_close(f->store);
	backend_after_crash(f);
	f->store = store_open(config, &error);
	if (f->store == NULL)
		fail_msg("%s", error->message);
}

void
die(Fixture *f)
{
	const StoreConfig config = fixture_config(f);
	die_and_open(f, &config);
}

int
set_up(void **state)
{
	Fixture *f = g_new0(Fixture, 1);
	f->dir = g_dir_make_tmp("koukan-store-XXXXXX", NULL);
	backend_make_url(f);
	f->workers = workers_new(1, NULL);
	f->worker = workers_get(f->workers, 0);
	open_store(f);
	*state = f;
	return 0;
}

int
tear_down(void **state)
{
	Fixture *f = *state;
	store_close(f->store);
	workers_free(f->workers);
	backend_remove(f);
	g_free(f->dir);
	g_free(f->path);
	g_free(f->url);
	g_free(f);
	return 0;
}

void
ask_clear(Ask *ask)
{
	g_free(ask->message);
	if (ask->rows != NULL)
		g_ptr_array_unref(ask->rows);
	if (ask->damaged != NULL)
		g_ptr_array_unref(ask->damaged);
	if (ask->counts != NULL)
		g_ptr_array_unref(ask->counts);
}

static void
on_answer(void *arg, const StoreResult *result)
{
	Ask *ask = arg;
	assert_false(ask->asking);
	assert_false(ask->done); /* exactly once */
	ask->done = true;
	ask->code = OK;
	ask->next_due = result->next_due;
	ask->count = result->count;
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
on_counts(void *arg, const GError *error, GPtrArray *counts)
{
	Ask *ask = arg;
	const StoreResult result = {.error = error};
	on_answer(ask, &result);
	if (counts != NULL)
		ask->counts = g_ptr_array_ref(counts);
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
		store_claim(store, ask->time, ask->limit,
			    ask->per_destination > 0 ? ask->per_destination : ask->limit, ask->busy,
			    on_answer, ask);
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
	case JOB_ACT:
		store_act(store, ask->id, ask->action, ask->text, on_answer, ask);
		break;
	case JOB_REPLAN:
		store_replan(store, ask->time, ask->limit, on_answer, ask);
		break;
	case JOB_IDEM_PUT:
		store_idem_put(store, ask->row, on_answer, ask);
		break;
	case JOB_IDEM_GET:
		store_idem_get(store, ask->id, on_answer, ask);
		break;
	case JOB_LIST:
		store_list(store, &ask->filter, on_answer, ask);
		break;
	case JOB_COUNT:
		store_count(store, ask->limit, on_counts, ask);
		break;
	case JOB_KINDS:
		k_unreachable();
	}
	ask->asking = false;
}

void
start_batch(void *arg)
{
	const Batch *batch = arg;
	for (size_t i = 0; i < batch->n; i++)
		start(batch->store, &batch->asks[i]);
}

bool
all_done(const Batch *batch)
{
	for (size_t i = 0; i < batch->n; i++) {
		if (!batch->asks[i].done)
			return false;
	}
	return true;
}

void
ask_all(Fixture *f, Ask *asks, size_t n)
{
	ask_store(f, f->store, asks, n);
}

void
ask_store(Fixture *f, Store *store, Ask *asks, size_t n)
{
	Batch batch = {.store = store, .asks = asks, .n = n};
	worker_post(f->worker, start_batch, &batch);
	Deadline end = clock_after(WAIT_MAX);
	do {
		worker_test_turn(f->worker, USEC_PER_SEC);
		assert_false(clock_passed(end));
	} while (!all_done(&batch));
}

int
ask_code(Fixture *f, Ask ask)
{
	ask_all(f, &ask, 1);
	int code = ask.code;
	ask_clear(&ask);
	return code;
}

StoreRow *
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

StoreRow *
make_mail(const char *id, int64_t next_attempt, Blob *body)
{
	StoreRow *row = make_row(id, next_attempt);
	store_row_add_blob(row, NULL, body);
	return row;
}

StoreRow *
leased(StoreRow *row)
{
	row->leased = true;
	return row;
}

void
insert(Fixture *f, StoreRow *row)
{
	Ask ask = {.kind = JOB_INSERT, .row = row};
	ask_all(f, &ask, 1);
	if (ask.code != OK)
		fail_msg("%s", ask.message);
	ask_clear(&ask);
}

char *
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

void
assert_claims(Fixture *f, int64_t now, const char *want)
{
	g_autofree char *got = claim(f, now, 100, NULL);
	assert_string_equal(got, want);
}

void
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

char *
pattern(size_t len)
{
	char *bytes = g_malloc(len + 1);
	for (size_t i = 0; i < len; i++)
		bytes[i] = (char)(i * 131 + i / 257 + i / 65539);
	return bytes;
}

StoreRow *
load(Fixture *f, const char *id)
{
	g_auto(Ask) ask = {.kind = JOB_LOAD, .id = id};
	ask_all(f, &ask, 1);
	if (ask.code != OK)
		fail_msg("%s", ask.message);
	return g_ptr_array_steal_index(ask.rows, 0);
}

int
act(Fixture *f, const char *id, StoreAction action, const char *reason)
{
	return ask_code(f, (Ask){.kind = JOB_ACT, .id = id, .action = action, .text = reason});
}

int
give_back(Fixture *f, const char *id, int64_t next_attempt)
{
	StoreRow *row = make_row(id, next_attempt);
	if (next_attempt == 0)
		row->final_reason = g_strdup("done");
	return ask_code(f, (Ask){.kind = JOB_UPDATE, .row = row});
}
