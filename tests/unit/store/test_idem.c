/* SPDX-License-Identifier: Apache-2.0 */
/* Idempotency keys, in each database. */
#include "store_fixture.h"

#include <string.h>

#include "base/clock.h"
#include "base/error.h"

#define LATER (clock_wall_sec() + 1000)

static StoreRow *
with_key(StoreRow *row, const char *key, const char *hash, int64_t until)
{
	row->idem_key = g_strdup(key);
	row->idem_hash = g_strdup(hash);
	row->idem_until = until;
	return row;
}

static int
put(Fixture *f, const char *id, const char *key, int64_t until)
{
	return ask_code(f, (Ask){.kind = JOB_IDEM_PUT,
				 .row = with_key(make_row(id, 0), key, "hash", until)});
}

static int
insert_code(Fixture *f, const char *id, const char *key, int64_t until)
{
	return ask_code(
		f, (Ask){.kind = JOB_INSERT, .row = with_key(make_row(id, 5), key, "hash", until)});
}

/* `want` NULL: it stands for nothing. */
static void
assert_key(Fixture *f, const char *key, const char *want)
{
	g_auto(Ask) ask = {.kind = JOB_IDEM_GET, .id = key};
	ask_all(f, &ask, 1);
	if (want == NULL) {
		assert_int_equal(ask.code, K_ERROR_NOT_FOUND);
		return;
	}
	if (ask.code != OK)
		fail_msg("%s: %s", key, ask.message);
	const StoreRow *row = g_ptr_array_index(ask.rows, 0);
	assert_string_equal(row->id, want);
	assert_string_equal(row->idem_hash, "hash");
}

static void
test_with_the_row(void **state)
{
	Fixture *f = *state;
	const StoreConfig config = fixture_config(f);
	assert_key(f, "k", NULL);
	assert_int_equal(insert_code(f, "a", "k", LATER), OK);
	assert_key(f, "k", "a");
	assert_int_equal(insert_code(f, "b", "k", LATER), K_ERROR_CONFLICT);
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_LOAD, .id = "b"}), K_ERROR_NOT_FOUND);
	assert_key(f, "k", "a");
	assert_int_equal(insert_code(f, "b", "other", LATER), OK);
	assert_key(f, "other", "b");
	reopen(f);
	assert_key(f, "k", "a");
	die_and_open(f, &config);
	assert_key(f, "k", "a");
	assert_int_equal(insert_code(f, "c", "k", LATER), K_ERROR_CONFLICT);
}

/* A row that is refused takes no key. */
static void
test_refused_row(void **state)
{
	Fixture *f = *state;
	assert_int_equal(insert_code(f, "a", "k", LATER), OK);
	assert_int_equal(insert_code(f, "a", "new", LATER), K_ERROR_CONFLICT);
	assert_key(f, "new", NULL);
	assert_key(f, "k", "a");
}

/* Many in one group: of each key the first one gets it, and the others harm nobody. */
static void
test_group(void **state)
{
	Fixture *f = *state;
	enum { N = 12 };
	Ask asks[N] = {0};
	for (int i = 0; i < N; i++) {
		g_autofree char *id = g_strdup_printf("t%d", i);
		g_autofree char *key = g_strdup_printf("k%d", i % 3);
		asks[i] = (Ask){.kind = JOB_INSERT,
				.row = with_key(make_row(id, 5), key, "hash", LATER)};
	}
	ask_all(f, asks, N);
	for (int i = 0; i < N; i++) {
		assert_int_equal(asks[i].code, i < 3 ? OK : (int)K_ERROR_CONFLICT);
		ask_clear(&asks[i]);
	}
	assert_key(f, "k0", "t0");
	assert_key(f, "k2", "t2");
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), 3);
	assert_int_equal(sql(f, "SELECT count(*) FROM idem"), 3);
}

static void
test_reserved(void **state)
{
	Fixture *f = *state;
	const StoreConfig config = fixture_config(f);
	assert_int_equal(put(f, "a", "k", LATER), OK);
	assert_key(f, "k", "a");
	assert_int_equal(put(f, "b", "k", LATER), K_ERROR_CONFLICT);
	assert_int_equal(insert_code(f, "b", "k", LATER), K_ERROR_CONFLICT);
	assert_int_equal(put(f, "a", "k", LATER), OK); /* its own */
	assert_int_equal(put(f, "a", "k", 0), OK);     /* given back */
	assert_key(f, "k", NULL);
	assert_int_equal(put(f, "b", "k", LATER), OK);
	assert_int_equal(put(f, "kept", "kept", LATER), OK);
	assert_int_equal(insert_code(f, "kept", "kept", LATER), OK);
	/* What was in memory has gone with the process. */
	die_and_open(f, &config);
	assert_key(f, "k", NULL);
	assert_key(f, "kept", "kept");
	assert_int_equal(put(f, "c", "k", LATER), OK);
	assert_key(f, "k", "c");
}

static void
test_end(void **state)
{
	Fixture *f = *state;
	int64_t now = clock_wall_sec();
	assert_int_equal(insert_code(f, "a", "k", now - 1), OK);
	assert_key(f, "k", NULL);
	assert_int_equal(insert_code(f, "b", "k", LATER), OK);
	assert_key(f, "k", "b");
	for (int i = 0; i < 10; i++) {
		g_autofree char *name = g_strdup_printf("old%d", i);
		assert_int_equal(insert_code(f, name, name, now - 5), OK);
	}
	for (int i = 0; i < 3; i++) {
		g_autofree char *name = g_strdup_printf("new%d", i);
		assert_int_equal(insert_code(f, name, name, LATER), OK);
	}
	assert_int_equal(sql(f, "SELECT count(*) FROM idem"), 4); /* the new ones and k */
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), 15);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(test_with_the_row), STORE_TEST(test_refused_row), STORE_TEST(test_group),
		STORE_TEST(test_reserved),     STORE_TEST(test_end),
	};
	return STORE_RUN(tests);
}
