/* SPDX-License-Identifier: Apache-2.0 */
/* The queue over rows: who comes next, leases, crashes, operators. */
#include "store_fixture.h"

#include <stdatomic.h>
#include <string.h>

#include "base/error.h"

/* A waiting row of that destination. */
static StoreRow *
to(const char *id, const char *rcpt, int64_t next_attempt)
{
	StoreRow *row = make_row(id, next_attempt);
	row->rcpt = g_strdup(rcpt);
	row->mail_from = g_strdup("Alice@Example.com");
	return row;
}

static void
insert_many(Fixture *f, const char *prefix, const char *rcpt, int64_t from, unsigned n)
{
	Ask *asks = g_new0(Ask, n);
	for (unsigned i = 0; i < n; i++) {
		g_autofree char *id = g_strdup_printf("%s%u", prefix, i + 1);
		asks[i] = (Ask){.kind = JOB_INSERT, .row = to(id, rcpt, from + i)};
	}
	ask_all(f, asks, n);
	for (unsigned i = 0; i < n; i++) {
		if (asks[i].code != OK)
			fail_msg("%s", asks[i].message);
	}
	g_free(asks);
}

typedef struct ClaimCase {
	unsigned limit, per_destination;
	const char *busy; /* names, or NULL */
	const char *want;
	int64_t next_due;
} ClaimCase;

static void
assert_case(Fixture *f, int64_t now, const ClaimCase *want)
{
	g_autoptr(GPtrArray) busy = g_ptr_array_new();
	g_auto(GStrv) names = g_strsplit(want->busy != NULL ? want->busy : "", " ", -1);
	for (char **name = names; *name != NULL; name++)
		g_ptr_array_add(busy, *name);
	g_auto(Ask) ask = {.kind = JOB_CLAIM,
			   .time = now,
			   .limit = want->limit,
			   .per_destination = want->per_destination,
			   .busy = want->busy != NULL ? busy : NULL};
	ask_all(f, &ask, 1);
	if (ask.code != OK)
		fail_msg("%s", ask.message);
	g_autoptr(GString) ids = g_string_new(NULL);
	for (guint i = 0; i < ask.rows->len; i++)
		g_string_append_printf(ids, "%s%s", i > 0 ? " " : "",
				       ((StoreRow *)g_ptr_array_index(ask.rows, i))->id);
	assert_string_equal(ids->str, want->want);
	assert_int_equal(ask.next_due, want->next_due);
}

static void
test_fair_claim(void **state)
{
	Fixture *f = *state;
	insert_many(f, "a", "x@A.example", 100, 5);
	insert_many(f, "b", "y@b.example", 103, 2);
	insert_many(f, "c", "z@c.example", 90, 1);
	insert_many(f, "late", "z@late.example", 5000, 1);
	static const ClaimCase CASES[] = {
		{3, 10, NULL, "c1 a1 b1", 101},
		{2, 10, "a.example", "b2", 5000},
		{10, 2, "b.example", "a2 a3", 103},
		{0, 10, NULL, "", 103},
		{10, 10, "a.example b.example c.example", "", 5000},
		{1, 10, NULL, "a4", 104},
		{10, 10, NULL, "a5", 5000},
		{10, 10, NULL, "", 5000},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++)
		assert_case(f, 200, &CASES[i]);
	/* A row that is given back stands in its place again. */
	assert_int_equal(give_back(f, "a1", 150), OK);
	assert_int_equal(give_back(f, "a2", 150), OK);
	assert_int_equal(give_back(f, "c1", 149), OK);
	assert_int_equal(give_back(f, "b1", 0), OK);
	assert_case(f, 200, &(ClaimCase){10, 1, NULL, "c1 a1", 150});
	g_autoptr(StoreRow) row = load(f, "a2");
	assert_string_equal(row->destination, "a.example");
	assert_null(row->owner_uri);
}

/* Where it goes is taken from the recipient, or given. */
static void
test_destinations(void **state)
{
	Fixture *f = *state;
	static const struct {
		const char *rcpt, *given, *want;
	} CASES[] = {
		{"b@X.Example", NULL, "x.example"},
		{"\"a@b\"@c.d", NULL, "c.d"},
		{"postmaster", NULL, ""},
		{NULL, NULL, ""},
		{"b@x", "other.example", "other.example"},
		{"b@[127.0.0.1]", NULL, "[127.0.0.1]"},
		{"b@\xc3\xa4.example", NULL, "\xc3\xa4.example"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autofree char *id = g_strdup_printf("m%zu", i);
		StoreRow *row = to(id, CASES[i].rcpt, 100);
		row->destination = g_strdup(CASES[i].given);
		insert(f, row);
		g_autoptr(StoreRow) got = load(f, id);
		assert_string_equal(got->destination, CASES[i].want);
	}
}

/* The effort of a claim does not grow with what is behind one stuck destination: with 40 times as
 * many rows it takes about as long, not 40 times. */
static Usec
time_claims(Fixture *f)
{
	g_autoptr(GPtrArray) busy = g_ptr_array_new();
	g_ptr_array_add(busy, (char *)"stuck.example");
	Usec best = INT64_MAX;
	for (int i = 0; i < 10; i++) {
		g_auto(Ask) ask = {.kind = JOB_CLAIM,
				   .time = 1000000,
				   .limit = 10,
				   .per_destination = 5,
				   .busy = busy};
		Deadline begin = clock_mono();
		ask_all(f, &ask, 1);
		best = MIN(best, clock_mono() - begin);
		assert_int_equal(ask.code, OK);
		assert_int_equal(ask.rows->len, 0);
	}
	return best;
}

static void
test_stuck_destination(void **state)
{
	Fixture *f = *state;
	insert_many(f, "few", "a@stuck.example", 1, 250);
	Usec few = time_claims(f);
	insert_many(f, "many", "a@stuck.example", 1, 9750);
	Usec many = time_claims(f);
	if (many > 10 * few + 2 * USEC_PER_MS)
		fail_msg("%d us with 250 rows, %d us with 10000", (int)few, (int)many);
	insert(f, to("other", "b@other.example", 900000));
	assert_case(f, 1000000, &(ClaimCase){10, 5, "stuck.example", "other", 0});
}

/* ---- leases ---- */

static void
test_leases(void **state)
{
	Fixture *f = *state;
	insert(f, to("waiting", "a@x", 100));
	insert(f, leased(to("ours", "a@x", 100)));
	assert_int_equal(give_back(f, "waiting", 200), K_ERROR_CONFLICT);
	assert_int_equal(give_back(f, "none", 200), K_ERROR_NOT_FOUND);
	g_autoptr(StoreRow) row = load(f, "waiting");
	assert_int_equal(row->next_attempt, 100); /* nothing was written */
	assert_int_equal(row->version, 3);
	assert_int_equal(give_back(f, "ours", 300), OK);
	assert_int_equal(give_back(f, "ours", 300), K_ERROR_CONFLICT);
	assert_claims(f, 100, "waiting");
	assert_int_equal(give_back(f, "waiting", 0), OK);
	assert_int_equal(give_back(f, "waiting", 500), K_ERROR_CONFLICT); /* it is final */
	assert_true(store_is_leaseholder(f->store));
}

static void
assert_crashes(Fixture *f, unsigned want, bool held)
{
	g_autoptr(StoreRow) row = load(f, "poison");
	assert_int_equal(row->crashes, want);
	assert_int_equal(row->held, held);
}

static void
test_crashes(void **state)
{
	Fixture *f = *state;
	insert(f, to("poison", "a@x", 100));
	insert(f, to("good", "a@x", 101));
	for (unsigned i = 0; i < 2; i++) {
		assert_crashes(f, i, false);
		assert_claims(f, 200, "poison good");
		assert_crashes(f, i, false); /* it runs */
		assert_int_equal(give_back(f, "good", 101), OK);
		die(f);
	}
	/* What is written in the middle of an attempt does not help it. */
	assert_claims(f, 200, "poison good");
	StoreRow *row = leased(make_row("poison", 100));
	row->attempts = 3;
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_UPDATE, .row = row}), OK);
	assert_int_equal(give_back(f, "good", 101), OK);
	die(f);
	assert_crashes(f, 3, false);
	assert_claims(f, 200, "good!poison: crashed 3 times");
	assert_crashes(f, 3, true);
	assert_int_equal(give_back(f, "good", 101), OK);
	assert_claims(f, 200, "good");
	assert_int_equal(give_back(f, "good", 0), OK);
	/* An operator may try again; an attempt that ends is a clean record. */
	assert_int_equal(act(f, "poison", STORE_RELEASE, NULL), OK);
	assert_claims(f, 200, "poison");
	die(f);
	assert_crashes(f, 1, false);
	assert_claims(f, 200, "poison");
	/* An end in good order is no crash. */
	reopen(f);
	assert_crashes(f, 1, false);
	assert_claims(f, 200, "poison");
	assert_int_equal(give_back(f, "poison", 100), OK);
	assert_crashes(f, 0, false);
}

/* The first attempt runs before the row was ever claimed. */
static void
test_crash_of_first_attempt(void **state)
{
	Fixture *f = *state;
	store_close(f->store);
	StoreConfig config = fixture_config(f);
	config.crash_max = 1;
	f->store = store_open(&config, NULL);
	insert(f, leased(to("poison", "a@x", 100)));
	die_and_open(f, &config);
	assert_claims(f, 200, "!poison: crashed 1 times");
}

/* When a process dies, all that it had under way has crashed; only one of those that have one
 * crash left runs at a time, so the innocent are not held. */
static void
test_suspects(void **state)
{
	Fixture *f = *state;
	insert_many(f, "m", "a@x", 1, 6);
	insert(f, to("fresh", "b@y", 50));
	for (int i = 0; i < 2; i++) {
		assert_claims(f, 40, "m1 m2 m3 m4 m5 m6");
		die(f);
	}
	assert_claims(f, 60, "m1 fresh");
	assert_claims(f, 62, ""); /* m1 still runs */
	assert_int_equal(give_back(f, "fresh", 0), OK);
	die(f);
	/* m1 is the one, and only it. */
	g_autoptr(GString) all = g_string_new(NULL);
	for (int i = 0; i < 5; i++) {
		g_autofree char *got = claim(f, 1000 + 10 * i, 100, NULL);
		char *held = strstr(got, "!m1: crashed 3 times");
		assert_int_equal(held != NULL, i == 0);
		if (held != NULL)
			*held = '\0';
		assert_int_equal(strlen(got), 2); /* one at a time */
		assert_null(strstr(all->str, got));
		g_string_append(all, got);
		assert_int_equal(give_back(f, got, 0), OK);
	}
	assert_claims(f, 2000, "");
}

/* ---- operators ---- */

static void
test_act(void **state)
{
	Fixture *f = *state;
	insert(f, to("a", "a@x", 100));
	insert(f, leased(to("leased", "a@x", 100)));
	StoreRow *final = to("final", "a@x", 100);
	final->final_reason = g_strdup("done");
	insert(f, final);
	static const struct {
		const char *id;
		StoreAction action;
		int want;
	} CASES[] = {
		{"none", STORE_HOLD, K_ERROR_NOT_FOUND},
		{"none", STORE_RETRY_NOW, K_ERROR_NOT_FOUND},
		{"final", STORE_HOLD, K_ERROR_CONFLICT},
		{"final", STORE_RELEASE, K_ERROR_CONFLICT},
		{"final", STORE_RETRY_NOW, K_ERROR_CONFLICT},
		{"leased", STORE_HOLD, K_ERROR_CONFLICT},
		{"leased", STORE_RELEASE, OK},
		{"leased", STORE_RETRY_NOW, OK},
		{"a", STORE_RELEASE, OK}, /* it is not held */
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		int code = act(f, CASES[i].id, CASES[i].action, "why");
		if (code != CASES[i].want)
			fail_msg("%zu: %d", i, code);
	}
	assert_int_equal(act(f, "a", STORE_HOLD, "looks odd"), OK);
	assert_claims(f, 200, "");
	g_autoptr(StoreRow) row = load(f, "a");
	assert_true(row->held);
	assert_string_equal(row->held_reason, "looks odd");
	reopen(f);
	assert_claims(f, 200, "leased"); /* its lease ended, the hold did not */
	assert_int_equal(act(f, "a", STORE_RELEASE, NULL), OK);
	assert_claims(f, 200, "a");
	int64_t now = clock_wall_sec();
	assert_int_equal(give_back(f, "a", now + 5000), OK);
	assert_claims(f, now + 10, "");
	assert_int_equal(act(f, "a", STORE_RETRY_NOW, NULL), OK);
	assert_claims(f, now + 10, "a");
	assert_int_equal(give_back(f, "a", now + 5000), OK);
	assert_int_equal(act(f, "a", STORE_HOLD, "x"), OK);
	assert_int_equal(act(f, "a", STORE_RETRY_NOW, NULL), OK);
	assert_claims(f, now + 10, "a");
	/* A held one can be cancelled. */
	assert_int_equal(give_back(f, "a", now), OK);
	assert_int_equal(act(f, "a", STORE_HOLD, "x"), OK);
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_CANCEL, .id = "a", .text = "gone"}), OK);
	g_autoptr(StoreRow) cancelled = load(f, "a");
	assert_false(cancelled->held);
	assert_string_equal(cancelled->final_reason, "gone");
}

/* What waits for too long is due at once, in slices; nothing else is touched. */
static void
test_replan(void **state)
{
	Fixture *f = *state;
	const int64_t now = clock_wall_sec();
	insert(f, to("near", "a@x", now + 1000));
	insert(f, to("edge", "a@x", now + 5000));
	insert(f, to("far1", "a@x", now + 5001));
	insert(f, to("far2", "b@y", now + 500000));
	insert(f, to("far3", "c@z", now + 500000));
	insert(f, to("held", "d@z", now + 500000));
	assert_int_equal(act(f, "held", STORE_HOLD, "why"), OK);
	StoreRow *final = to("final", "a@x", now + 500000);
	final->final_reason = g_strdup("done");
	insert(f, final);
	assert_claims(f, now + 10, "");
	const uint64_t counts[] = {2, 1, 0};
	for (size_t i = 0; i < G_N_ELEMENTS(counts); i++) {
		g_auto(Ask) ask = {.kind = JOB_REPLAN, .time = now + 5000, .limit = 2};
		ask_all(f, &ask, 1);
		assert_int_equal(ask.code, OK);
		assert_int_equal(ask.count, counts[i]);
	}
	assert_claims(f, now + 10, "far1 far2 far3");
	assert_claims(f, now + 4999, "near");
	assert_claims(f, now + 5000, "edge");
	assert_int_equal(act(f, "held", STORE_RELEASE, NULL), OK);
	assert_claims(f, now + 499999, "");
}

/* One row of each state, of two destinations. */
static void
insert_states(Fixture *f)
{
	StoreRow *rows[] = {
		to("q1", "Bob@One.example", 100),         to("q2", "eve@two.example", 100),
		leased(to("l1", "bob@one.example", 100)), to("h1", "bob@one.example", 100),
		to("f1", "bob@two.example", 0),           to("q3", "bob@one.example", 900)};
	rows[3]->held = true;
	rows[3]->held_reason = g_strdup("why not");
	rows[4]->final_reason = g_strdup("done");
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		rows[i]->creation = 1700000000 + (int64_t)i;
		if (i == 1) {
			g_free(rows[i]->mail_from);
			rows[i]->mail_from = g_strdup("");
		}
		g_autoptr(Blob) body = blob_new_bytes("body", 4);
		store_row_add_blob(rows[i], NULL, body);
		insert(f, rows[i]);
	}
}

static char *
list(Fixture *f, const StoreFilter *filter)
{
	g_auto(Ask) ask = {.kind = JOB_LIST, .filter = *filter};
	ask_all(f, &ask, 1);
	if (ask.code != OK)
		return g_strdup_printf("error %d", ask.code);
	GString *ids = g_string_new(NULL);
	for (guint i = 0; i < ask.rows->len; i++) {
		const StoreRow *row = g_ptr_array_index(ask.rows, i);
		assert_null(((StoreBlob *)g_ptr_array_index(row->blobs, 0))->blob);
		g_string_append_printf(ids, "%s%s", i > 0 ? " " : "", row->id);
	}
	return g_string_free(ids, FALSE);
}

static void
test_list(void **state)
{
	Fixture *f = *state;
	insert_states(f);
	static const struct {
		StoreFilter filter;
		const char *want;
	} CASES[] = {
		{{.limit = 10}, "q1 q2 l1 h1 f1 q3"},
		{{.limit = 0}, ""},
		{{.limit = 2}, "q1 q2"},
		{{.limit = 2, .after = "q2"}, "l1 h1"},
		{{.limit = 10, .after = "q3"}, ""},
		{{.limit = 10, .after = "none"}, "error 8"},
		{{.limit = 10, .state = STORE_QUEUED}, "q1 q2 q3"},
		{{.limit = 10, .state = STORE_QUEUED, .after = "q1"}, "q2 q3"},
		{{.limit = 10, .state = STORE_LEASED}, "l1"},
		{{.limit = 10, .state = STORE_HELD}, "h1"},
		{{.limit = 10, .state = STORE_FINAL}, "f1"},
		{{.limit = 10, .mail_from = "alice@EXAMPLE.com"}, "q1 l1 h1 f1 q3"},
		{{.limit = 10, .mail_from = "@example.COM"}, "q1 l1 h1 f1 q3"},
		{{.limit = 10, .mail_from = "@ample.com"}, ""},
		{{.limit = 10, .mail_from = "alice"}, ""},
		{{.limit = 10, .mail_from = ""}, "q2"},
		{{.limit = 10, .rcpt = "bob@one.example"}, "q1 l1 h1 q3"},
		{{.limit = 10, .rcpt = "@two.example"}, "q2 f1"},
		{{.limit = 10, .rcpt = "%"}, ""},
		{{.limit = 10, .destination = "One.example"}, "q1 l1 h1 q3"},
		{{.limit = 10, .destination = "'; DROP TABLE tx; --"}, ""},
		{{.limit = 10, .older_than = 1700000002}, "q1 q2"},
		{{.limit = 10,
		  .state = STORE_QUEUED,
		  .rcpt = "@one.example",
		  .older_than = 1700000005},
		 "q1"},
	};
	_Static_assert(K_ERROR_NOT_FOUND == 8, "as in CASES");
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autofree char *got = list(f, &CASES[i].filter);
		if (strcmp(got, CASES[i].want) != 0)
			fail_msg("%zu: %s", i, got);
	}
	g_auto(Ask) ask = {.kind = JOB_LIST, .filter = {.limit = 1, .state = STORE_HELD}};
	ask_all(f, &ask, 1);
	const StoreRow *row = g_ptr_array_index(ask.rows, 0);
	assert_string_equal(row->held_reason, "why not");
	assert_string_equal(row->destination, "one.example");
	assert_string_equal(row->rcpt, "bob@one.example");
	assert_int_equal(row->creation, 1700000003);
}

static void
test_list_limit(void **state)
{
	Fixture *f = *state;
	insert_many(f, "m", "a@x", 1, STORE_LIST_MAX + 1);
	g_auto(Ask) ask = {.kind = JOB_LIST, .filter = {.limit = STORE_LIST_MAX + 1}};
	ask_all(f, &ask, 1);
	assert_int_equal(ask.rows->len, STORE_LIST_MAX);
}

static void
test_count(void **state)
{
	Fixture *f = *state;
	g_auto(Ask) none = {.kind = JOB_COUNT, .limit = 10};
	ask_all(f, &none, 1);
	assert_int_equal(none.counts->len, 1);
	assert_int_equal(((StoreCount *)g_ptr_array_index(none.counts, 0))->queued, 0);
	insert_states(f);
	static const StoreCount WANT[] = {
		{NULL, 3, 1, 1, 1, 1700000000},
		{(char *)"one.example", 2, 1, 1, 0, 1700000000},
		{(char *)"two.example", 1, 0, 0, 1, 1700000001},
	};
	for (unsigned limit = 0; limit < 4; limit++) {
		g_auto(Ask) ask = {.kind = JOB_COUNT, .limit = limit};
		ask_all(f, &ask, 1);
		assert_int_equal(ask.code, OK);
		assert_int_equal(ask.counts->len, 1 + MIN(limit, 2));
		for (guint i = 0; i < ask.counts->len; i++) {
			const StoreCount *got = g_ptr_array_index(ask.counts, i);
			assert_int_equal(g_strcmp0(got->destination, WANT[i].destination), 0);
			assert_int_equal(got->queued, WANT[i].queued);
			assert_int_equal(got->leased, WANT[i].leased);
			assert_int_equal(got->held, WANT[i].held);
			assert_int_equal(got->final, WANT[i].final);
			assert_int_equal(got->oldest, WANT[i].oldest);
		}
	}
}

/* ---- hints ---- */

static void
on_hint(void *arg)
{
	(*(unsigned *)arg)++;
}

/* Waits until there were more than `before`. */
static void
await_hint(Fixture *f, const unsigned *hints, unsigned before)
{
	Deadline end = clock_after(WAIT_MAX);
	while (*hints <= before) {
		worker_test_turn(f->worker, 20 * USEC_PER_MS);
		assert_false(clock_passed(end));
	}
}

static void
turn_for(Fixture *f, Usec span)
{
	Deadline end = clock_after(span);
	while (!clock_passed(end))
		worker_test_turn(f->worker, 20 * USEC_PER_MS);
}

static void
assert_no_hint(Fixture *f, const unsigned *hints, unsigned before)
{
	turn_for(f, 400 * USEC_PER_MS);
	assert_int_equal(*hints, before);
}

static void
test_hints(void **state)
{
	Fixture *f = *state;
	unsigned hints = 0;
	store_on_hint(f->store, f->worker, on_hint, &hints);
	turn_for(f, 700 * USEC_PER_MS); /* one may come at the start */
	unsigned before = hints;
	insert(f, leased(to("ours", "a@x", 100)));
	insert(f, to("later", "a@x", clock_wall_sec() + 3600));
	assert_no_hint(f, &hints, before);
	insert(f, to("now", "a@x", 100));
	await_hint(f, &hints, before);
	assert_no_hint(f, &hints, before + 1);
	insert_many(f, "m", "a@x", 100, 500);
	await_hint(f, &hints, before + 1);
	turn_for(f, 700 * USEC_PER_MS);
	assert_true(hints <= before + 5); /* many are few */
	before = hints;
	assert_int_equal(give_back(f, "ours", 100), OK);
	await_hint(f, &hints, before);
	assert_int_equal(act(f, "later", STORE_HOLD, "x"), OK);
	assert_no_hint(f, &hints, before + 1);
	assert_int_equal(act(f, "later", STORE_RETRY_NOW, NULL), OK);
	await_hint(f, &hints, before + 1);
	store_on_hint(f->store, NULL, NULL, NULL);
	insert(f, to("then", "a@x", 100));
	assert_no_hint(f, &hints, before + 2);
}

/* ---- check ---- */

static void
test_check(void **state)
{
	Fixture *f = *state;
	insert_states(f);
	g_autofree char *live = NULL;
	g_autoptr(GError) error = NULL;
	if (!store_check(f->url, &live, &error)) /* while it runs */
		fail_msg("%s %s", live, error->message);
	assert_non_null(strstr(live, "queued: 3\n"));
	assert_non_null(strstr(live, "held: 1\n"));
	store_close(f->store);
	f->store = NULL;
	assert_true(store_migrate(f->url, NULL)); /* nothing to do */
	static const struct {
		const char *sql, *undo, *want;
	} CASES[] = {
		{"UPDATE tx SET body=body+1000 WHERE id='q1'",
		 "UPDATE tx SET body=body-1000 WHERE id='q1'", "whose body is missing: 1\n"},
		{"UPDATE blob SET refs=refs+1", "UPDATE blob SET refs=refs-1",
		 "wrong count of references: 6\n"},
		{"UPDATE blob SET len=len+1", "UPDATE blob SET len=len-1", "wrong length: 6\n"},
		{"UPDATE dest SET due=500 WHERE name='one.example'",
		 "UPDATE dest SET due=0 WHERE name='one.example'", "no claim would find: 1\n"},
		{"DELETE FROM dest WHERE name='two.example'",
		 "INSERT INTO dest (name, due) VALUES ('two.example', 0)",
		 "no claim would find: 1\n"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autofree char *report = NULL;
		g_autoptr(GError) why = NULL;
		sql(f, CASES[i].sql);
		assert_false(store_check(f->url, &report, &why));
		if (strstr(report, CASES[i].want) == NULL)
			fail_msg("%s: %s", CASES[i].sql, report);
		sql(f, CASES[i].undo);
	}
	g_autofree char *report = NULL;
	assert_true(store_check(f->url, &report, NULL));
	open_store(f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(test_fair_claim),
		STORE_TEST(test_destinations),
		STORE_TEST(test_stuck_destination),
		STORE_TEST(test_leases),
		STORE_TEST(test_crashes),
		STORE_TEST(test_crash_of_first_attempt),
		STORE_TEST(test_suspects),
		STORE_TEST(test_act),
		STORE_TEST(test_replan),
		STORE_TEST(test_list),
		STORE_TEST(test_list_limit),
		STORE_TEST(test_count),
		STORE_TEST(test_hints),
		STORE_TEST(test_check),
	};
	return STORE_RUN(tests);
}
