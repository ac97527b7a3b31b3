/* SPDX-License-Identifier: Apache-2.0 */
/* What only a server and several processes can do to a store. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "pg_proxy.h"
#include "pg_server.h"

#define QUICK (50 * USEC_PER_MS) /* heartbeats: dead after half a second */

static Store *
open_other(Fixture *f, const char *uri, Usec refresh, const char *url)
{
	g_autoptr(GError) error = NULL;
	StoreConfig config = fixture_config(f);
	config.session_uri = uri;
	config.session_refresh = refresh;
	if (url != NULL)
		config.url = url;
	Store *store = store_open(&config, &error);
	if (store == NULL)
		fail_msg("%s", error->message);
	return store;
}

static int
ask_other(Fixture *f, Store *store, Ask ask)
{
	ask_store(f, store, &ask, 1);
	int code = ask.code;
	ask_clear(&ask);
	return code;
}

static unsigned
claim_of(Fixture *f, Store *store, unsigned limit)
{
	g_auto(Ask) ask = {.kind = JOB_CLAIM, .time = 1000, .limit = limit};
	ask_store(f, store, &ask, 1);
	if (ask.code != OK)
		fail_msg("%s", ask.message);
	return ask.rows->len;
}

static StoreRow *
finished(const char *id)
{
	StoreRow *row = make_row(id, 0);
	row->final_reason = g_strdup("done");
	return row;
}

/* ---- opening ---- */

static void
test_bad_urls(void **state)
{
	Fixture *f = *state;
	static const struct {
		const char *url;
		int code;
	} CASES[] = {
		{"postgresql://user@/db?host=/nonexistent", K_ERROR_STORE},
		{"postgresql://user@/db?nonsense=1", K_ERROR_CONFIG},
		{"postgresql+psycopg://[bad/db", K_ERROR_CONFIG},
		{"postgres://user@/db?host=/nonexistent", K_ERROR_STORE},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autoptr(GError) error = NULL;
		StoreConfig config = fixture_config(f);
		config.url = CASES[i].url;
		Deadline begin = clock_mono();
		assert_null(store_open(&config, &error));
		assert_true(clock_mono() - begin < 10 * USEC_PER_SEC);
		if (error->code != CASES[i].code || error->message[0] == '\0')
			fail_msg("%s: %s", CASES[i].url, error->message);
	}
}

static void
test_schema(void **state)
{
	Fixture *f = *state;
	store_close(f->store);
	f->store = NULL;
	sql(f, "UPDATE meta SET version=9");
	g_autoptr(GError) opened = NULL, migrated = NULL, checked = NULL;
	g_autofree char *report = NULL;
	assert_null(try_open(f, 0, &opened));
	assert_true(g_error_matches(opened, K_ERROR, K_ERROR_CONFIG));
	assert_non_null(strstr(opened->message, "schema version 9, this program needs 3"));
	assert_non_null(strstr(opened->message, "a newer program"));
	assert_false(store_migrate(f->url, &migrated));
	assert_true(g_error_matches(migrated, K_ERROR, K_ERROR_CONFLICT));
	assert_false(store_check(f->url, &report, &checked));
	assert_non_null(strstr(checked->message, "a newer program"));
	sql(f, "DROP SCHEMA koukan CASCADE");
	assert_true(store_migrate(f->url, NULL));
	assert_int_equal(sql(f, "SELECT version FROM meta"), 3);
	open_store(f);
	assert_int_equal(sql(f, "SELECT count(*) FROM pg_attribute WHERE attname='data'"
				" AND attstorage='e' AND attrelid IN"
				" ('koukan.blob'::regclass, 'koukan.chunk'::regclass)"),
			 2);
}

/* A router that runs on while somebody changes the schema does not join it again. */
static void
test_schema_changed(void **state)
{
	Fixture *f = *state;
	insert(f, make_row("before", 1));
	sql(f, "UPDATE meta SET version=9");
	sql(f, "UPDATE session SET live=false");
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_INSERT, .row = make_row("a", 1)}),
			 K_ERROR_STORE);
	sql(f, "UPDATE meta SET version=3");
	Deadline end = clock_after(WAIT_MAX);
	while (ask_code(f, (Ask){.kind = JOB_INSERT, .row = make_row("b", 1)}) != OK)
		assert_false(clock_passed(end));
	assert_int_equal(sql(f, "SELECT count(*) FROM tx WHERE id='a'"), 0);
}

/* ---- older schemas ---- */

/* Makes the schema what it was in version 1; the store is closed. */
static void
to_version_1(Fixture *f)
{
	sql(f, "BEGIN;"
	       "ALTER TABLE tx ALTER COLUMN id TYPE TEXT COLLATE \"default\","
	       " ALTER COLUMN destination TYPE TEXT COLLATE \"default\";"
	       "ALTER TABLE dest ALTER COLUMN name TYPE TEXT COLLATE \"default\";"
	       "DROP TABLE idem;"
	       "UPDATE meta SET version=1;"
	       "COMMIT");
}

static int64_t
collations(Fixture *f, const char *name)
{
	g_autofree char *text = g_strdup_printf(
		"SELECT count(*) FROM pg_attribute a JOIN pg_collation c ON c.oid=a.attcollation"
		" WHERE c.collname='%s' AND ((attrelid='koukan.tx'::regclass AND attname IN"
		" ('id', 'destination')) OR (attrelid='koukan.dest'::regclass AND attname='name'))",
		name);
	return sql(f, text);
}

static void
test_migrate(void **state)
{
	Fixture *f = *state;
	g_autofree char *data = pattern(300000);
	g_autoptr(Blob) blob = blob_new_bytes(data, 300000);
	insert(f, make_mail("due", 900, blob));
	insert(f, make_row("later", 5000));
	store_close(f->store);
	f->store = NULL;
	to_version_1(f);
	assert_int_equal(collations(f, "default"), 3);
	g_autoptr(GError) opened = NULL, checked = NULL;
	g_autofree char *early = NULL, *late = NULL;
	assert_null(try_open(f, 0, &opened));
	assert_true(g_error_matches(opened, K_ERROR, K_ERROR_CONFIG));
	assert_non_null(strstr(opened->message, "schema version 1, this program needs 3"));
	assert_non_null(strstr(opened->message, "koukan store migrate"));
	assert_false(store_check(f->url, &early, &checked));
	assert_int_equal(sql(f, "SELECT version FROM meta"), 1); /* opening changes nothing */

	assert_true(store_migrate(f->url, NULL));
	assert_int_equal(sql(f, "SELECT version FROM meta"), 3);
	assert_int_equal(collations(f, "C"), 3);
	assert_int_equal(sql(f, "SELECT count(*) FROM idem"), 0);
	assert_true(store_migrate(f->url, NULL)); /* nothing left to do */
	assert_true(store_check(f->url, &late, NULL));
	open_store(f);
	assert_claims(f, 1000, "due");
	g_auto(Ask) ask = {.kind = JOB_LOAD, .id = "due", .with_blobs = true};
	ask_all(f, &ask, 1);
	const StoreRow *row = g_ptr_array_index(ask.rows, 0);
	assert_bytes(row_body(row)->blob, data, 300000);
}

/* Not under routers that are at work. */
static void
test_migrate_in_use(void **state)
{
	Fixture *f = *state;
	g_autoptr(GError) error = NULL;
	to_version_1(f); /* our session goes on */
	assert_false(store_migrate(f->url, &error));
	assert_true(g_error_matches(error, K_ERROR, K_ERROR_CONFLICT));
	assert_non_null(strstr(error->message, "1 router(s) use the database"));
	assert_int_equal(sql(f, "SELECT version FROM meta"), 1);
	insert(f, make_row("still", 1)); /* nothing is locked */
	store_test_abandon(f->store);    /* it dies, and its session is taken for dead */
	store_close(f->store);
	f->store = NULL;
	assert_false(store_migrate(f->url, NULL));
	backend_after_crash(f);
	assert_true(store_migrate(f->url, NULL));
	open_store(f);
	assert_claims(f, 1000, "still");
}

static pid_t
fork_migrate(Fixture *f)
{
	pid_t pid = fork();
	if (pid == 0) {
		g_autoptr(GError) error = NULL;
		if (!store_migrate(f->url, &error))
			fprintf(stderr, "%s\n", error->message);
		_exit(error != NULL);
	}
	return pid;
}

static void
test_many_migrate(void **state)
{
	Fixture *f = *state;
	store_close(f->store);
	f->store = NULL;
	to_version_1(f);
	pid_t pids[4];
	for (size_t i = 0; i < G_N_ELEMENTS(pids); i++)
		pids[i] = fork_migrate(f);
	for (size_t i = 0; i < G_N_ELEMENTS(pids); i++) {
		int status;
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	assert_int_equal(sql(f, "SELECT version FROM meta"), 3);
	open_store(f);
}

/* All that start at the same moment find one schema. */
static void
test_many_create(void **state)
{
	Fixture *f = *state;
	store_close(f->store);
	f->store = NULL;
	sql(f, "DROP SCHEMA koukan CASCADE");
	enum { N = 5 };
	pid_t pids[N];
	for (int i = 0; i < N; i++)
		pids[i] = fork_migrate(f);
	for (int i = 0; i < N; i++) {
		int status;
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	assert_int_equal(sql(f, "SELECT count(*) FROM meta"), 1);
	open_store(f);
}

static unsigned
warnings_of(Fixture *f, const char *part)
{
	g_autoptr(GPtrArray) warnings = g_ptr_array_new_with_free_func(g_free);
	StoreConfig config = fixture_config(f);
	config.warnings = warnings;
	Store *store = store_open(&config, NULL);
	assert_non_null(store);
	store_close(store);
	unsigned found = 0;
	for (guint i = 0; i < warnings->len; i++)
		found += strstr(g_ptr_array_index(warnings, i), part) != NULL ? 1 : 0;
	return found;
}

static void
test_warnings(void **state)
{
	Fixture *f = *state;
	static const char *const NAMES[] = {"fsync", "full_page_writes", "synchronous_commit"};
	for (size_t i = 0; i < G_N_ELEMENTS(NAMES); i++) {
		g_autofree char *set = g_strdup_printf("ALTER SYSTEM SET %s=off", NAMES[i]);
		g_autofree char *reset = g_strdup_printf("ALTER SYSTEM RESET %s", NAMES[i]);
		g_autofree char *is = g_strdup_printf(
			"SELECT count(*) FROM pg_settings WHERE name='%s' AND setting='off'",
			NAMES[i]);
		assert_int_equal(warnings_of(f, NAMES[i]), 0);
		sql(f, set);
		sql(f, "SELECT pg_reload_conf()");
		while (sql(f, is) == 0)
			g_usleep(10000);
		assert_int_equal(warnings_of(f, NAMES[i]), 1);
		sql(f, reset);
		sql(f, "SELECT pg_reload_conf()");
		while (sql(f, is) != 0)
			g_usleep(10000);
	}
}

/* ---- several processes ---- */

static void
test_two_sessions(void **state)
{
	Fixture *f = *state;
	Store *other = open_other(f, "http://b", 0, NULL);
	enum { N = 300 };
	Ask *asks = g_new0(Ask, N);
	for (unsigned i = 0; i < N; i++) {
		g_autofree char *id = g_strdup_printf("m%u", i);
		StoreRow *row = make_row(id, i);
		row->rcpt = g_strdup_printf("a@d%u.example", i % 7);
		asks[i] = (Ask){.kind = JOB_INSERT, .row = row};
	}
	ask_all(f, asks, N);
	g_free(asks);
	/* Both at the same time, until nothing is left: each row once. */
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	unsigned got[2] = {0};
	for (int round = 0; round < 100 && got[0] + got[1] < N; round++) {
		Ask claims[2] = {{.kind = JOB_CLAIM, .time = 1000, .limit = 11},
				 {.kind = JOB_CLAIM, .time = 1000, .limit = 7}};
		Batch first = {f->store, &claims[0], 1}, second = {other, &claims[1], 1};
		worker_post(f->worker, start_batch, &first);
		worker_post(f->worker, start_batch, &second);
		while (!claims[0].done || !claims[1].done)
			worker_test_turn(f->worker, USEC_PER_SEC);
		for (int i = 0; i < 2; i++) {
			if (claims[i].code != OK)
				fail_msg("%s", claims[i].message);
			got[i] += claims[i].rows->len;
			for (guint k = 0; k < claims[i].rows->len; k++) {
				const StoreRow *row = g_ptr_array_index(claims[i].rows, k);
				assert_true(g_hash_table_add(seen, g_strdup(row->id)));
			}
			ask_clear(&claims[i]);
		}
	}
	assert_int_equal(got[0] + got[1], N);
	assert_true(got[0] > 0 && got[1] > 0);
	store_close(other);
}

static void
test_owner(void **state)
{
	Fixture *f = *state;
	Store *other = open_other(f, "http://b:8000", 0, NULL);
	assert_int_equal(
		ask_other(f, other, (Ask){.kind = JOB_INSERT, .row = leased(make_row("a", 1))}),
		OK);
	insert(f, leased(make_row("ours", 1)));
	g_autoptr(StoreRow) theirs = load(f, "a");
	g_autoptr(StoreRow) ours = load(f, "ours");
	assert_string_equal(theirs->owner_uri, "http://b:8000");
	assert_true(theirs->leased);
	assert_null(ours->owner_uri);
	/* What is not ours is not touched. */
	assert_int_equal(give_back(f, "a", 5), K_ERROR_CONFLICT);
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_CANCEL, .id = "a", .text = "x"}),
			 K_ERROR_CONFLICT);
	assert_int_equal(claim_of(f, f->store, 10), 0);
	store_close(other); /* in good order: given back at once, and no crash */
	g_autoptr(StoreRow) freed = load(f, "a");
	assert_false(freed->leased);
	assert_null(freed->owner_uri);
	assert_int_equal(freed->crashes, 0);
	assert_int_equal(claim_of(f, f->store, 10), 1);
}

static void
on_hint(void *arg)
{
	(*(unsigned *)arg)++;
}

static void
await(Fixture *f, const unsigned *hints, unsigned more_than)
{
	Deadline end = clock_after(WAIT_MAX);
	while (*hints <= more_than) {
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
test_hint_of_others(void **state)
{
	Fixture *f = *state;
	Store *other = open_other(f, "", 0, NULL);
	unsigned hints = 0;
	store_on_hint(f->store, f->worker, on_hint, &hints);
	turn_for(f, USEC_PER_SEC);
	unsigned before = hints;
	assert_int_equal(ask_other(f, other, (Ask){.kind = JOB_INSERT, .row = make_row("a", 1)}),
			 OK);
	await(f, &hints, before);
	assert_int_equal(claim_of(f, f->store, 10), 1);
	store_on_hint(f->store, NULL, NULL, NULL);
	store_close(other);
}

/* A process that says nothing for long is taken for dead; when it goes on it harms nobody. */
static void
test_lost_lease(void **state)
{
	Fixture *f = *state;
	insert(f, make_row("a", 1));
	insert(f, make_row("b", 2));
	assert_int_equal(claim_of(f, f->store, 10), 2);
	Store *other = open_other(f, "http://b", QUICK, NULL);
	unsigned hints = 0;
	store_on_hint(other, f->worker, on_hint, &hints);
	turn_for(f, USEC_PER_SEC);
	assert_int_equal(claim_of(f, other, 10), 0); /* we live */
	unsigned before = hints;
	sql(f, "UPDATE session SET seen=seen-interval '301 seconds' WHERE refresh=30000000");
	await(f, &hints, before);
	store_on_hint(other, NULL, NULL, NULL);
	assert_int_equal(claim_of(f, other, 1), 1);
	/* "a" is theirs now, "b" is nobody's. */
	assert_int_equal(give_back(f, "a", 0), K_ERROR_CONFLICT);
	assert_int_equal(give_back(f, "b", 0), K_ERROR_CONFLICT);
	assert_int_equal(ask_other(f, other, (Ask){.kind = JOB_UPDATE, .row = finished("a")}), OK);
	g_autoptr(StoreRow) row = load(f, "b");
	assert_false(row->leased);
	assert_int_equal(row->crashes, 1);
	/* We are somebody new, and work again. */
	insert(f, leased(make_row("c", 1)));
	assert_int_equal(give_back(f, "c", 0), OK);
	assert_int_equal(claim_of(f, f->store, 10), 1);
	assert_int_equal(give_back(f, "b", 0), OK);
	assert_true(store_is_leaseholder(f->store));
	assert_int_equal(sql(f, "SELECT count(*) FROM session WHERE live"), 2);
	store_close(other);
}

/* The child: claims, is stopped, goes on, and finds its lease gone. */
static void
frozen_child(Fixture *f, int to_parent, int from_parent)
{
	Store *store = open_other(f, "child", QUICK, NULL);
	char byte = (char)claim_of(f, store, 10);
	(void)!write(to_parent, &byte, 1);
	(void)!read(from_parent, &byte, 1);
	do { /* the server may have ended the connection of who stood still, in a heartbeat */
		byte = (char)ask_other(f, store, (Ask){.kind = JOB_UPDATE, .row = finished("a")});
	} while (byte == K_ERROR_STORE);
	(void)!write(to_parent, &byte, 1);
	store_test_abandon(store);
	store_close(store);
	_exit(0);
}

static void
test_frozen_process(void **state)
{
	Fixture *f = *state;
	insert(f, make_row("a", 1));
	store_close(f->store);
	f->store = NULL;
	int up[2], down[2];
	assert_int_equal(pipe(up), 0);
	assert_int_equal(pipe(down), 0);
	pid_t pid = fork();
	if (pid == 0)
		frozen_child(f, up[1], down[0]);
	char byte = 0;
	assert_int_equal(read(up[0], &byte, 1), 1);
	assert_int_equal(byte, 1);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	f->store = open_other(f, "parent", QUICK, NULL);
	Deadline end = clock_after(WAIT_MAX);
	while (claim_of(f, f->store, 10) == 0)
		assert_false(clock_passed(end));
	assert_int_equal(give_back(f, "a", 900), OK);
	assert_int_equal(kill(pid, SIGCONT), 0);
	assert_int_equal(write(down[1], "", 1), 1);
	assert_int_equal(read(up[0], &byte, 1), 1);
	assert_int_equal(byte, K_ERROR_CONFLICT);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	for (int i = 0; i < 2; i++) {
		close(up[i]);
		close(down[i]);
	}
	g_autoptr(StoreRow) row = load(f, "a");
	assert_int_equal(row->next_attempt, 900);
	assert_null(row->final_reason);
}

/* The database as it is reached through the proxy. */
static char *
proxied_url(const Fixture *f)
{
	return g_strconcat(f->url, "&port=5433", NULL);
}

static PgProxy *
start_proxy(const Fixture *f)
{
	return pg_proxy_start(strstr(f->url, "host=") + strlen("host="));
}

static void
proxy_url(Fixture *f, char **ret_url, PgProxy **ret_proxy)
{
	*ret_proxy = start_proxy(f);
	*ret_url = proxied_url(f);
}

/* A process that stands still in the middle of a claim has locks.  Others do without it all the
 * same: what they have for that destination is stored, and what it had leased is theirs. */
static void
test_frozen_in_claim(void **state)
{
	Fixture *f = *state;
	insert(f, make_row("a", 1));
	store_close(f->store);
	f->store = NULL;
	int go[2];
	assert_int_equal(pipe(go), 0);
	pid_t pid = fork(); /* before there are threads: the child has some of its own */
	if (pid == 0) {
		g_autofree char *url = proxied_url(f);
		char byte;
		(void)!read(go[0], &byte, 1);
		(void)claim_of(f, open_other(f, "child", QUICK, url), 10);
		_exit(0);
	}
	PgProxy *proxy = start_proxy(f);
	pg_proxy_cut(proxy, HOLD_CLAIM, 1);
	assert_int_equal(write(go[1], "", 1), 1);
	Deadline end = clock_after(WAIT_MAX);
	while (pg_proxy_cuts(proxy) == 0)
		assert_false(clock_passed(end));
	assert_int_equal(kill(pid, SIGSTOP), 0);
	f->store = open_other(f, "parent", QUICK, NULL);
	end = clock_after(WAIT_MAX);
	while (ask_code(f, (Ask){.kind = JOB_INSERT, .row = make_row("b", 2)}) != OK)
		assert_false(clock_passed(end));
	unsigned claimed = 0;
	while ((claimed += claim_of(f, f->store, 10)) < 2)
		assert_false(clock_passed(end));
	while (sql(f, "SELECT count(*) FROM session WHERE live") != 1)
		assert_false(clock_passed(end));
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	pg_proxy_stop(proxy);
	close(go[0]);
	close(go[1]);
}

/* A heartbeat that cannot be written is noticed before others act on it. */
static void
test_leaseholder(void **state)
{
	Fixture *f = *state;
	/* Time enough for a new connection within what counts as alive. */
	Store *store = open_other(f, "", 10 * QUICK, NULL);
	/* Longer than it counts without a heartbeat; on a busy machine one may be late. */
	g_usleep(60 * QUICK);
	Deadline end = clock_after(WAIT_MAX);
	while (!store_is_leaseholder(store))
		assert_false(clock_passed(end));
	pg_server_stop(SIGINT);
	end = clock_after(WAIT_MAX);
	while (store_is_leaseholder(store))
		assert_false(clock_passed(end));
	pg_server_start();
	end = clock_after(WAIT_MAX);
	while (!store_is_leaseholder(store))
		assert_false(clock_passed(end));
	store_close(store);
}

/* ---- trouble ---- */

static void
test_server_away(void **state)
{
	Fixture *f = *state;
	open_hasty(f);
	insert(f, leased(make_row("before", 1)));
	pg_server_stop(SIGINT);
	enum { N = 40 };
	Ask asks[N] = {0};
	for (unsigned i = 0; i < N; i++) {
		g_autofree char *id = g_strdup_printf("m%u", i);
		asks[i] = (Ask){.kind = JOB_INSERT, .row = make_row(id, 1)};
	}
	Deadline begin = clock_mono();
	ask_all(f, asks, N);
	assert_true(clock_mono() - begin < BUSY_WAIT + 10 * USEC_PER_SEC);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(asks[i].code, K_ERROR_STORE);
		ask_clear(&asks[i]);
	}
	pg_server_start();
	Deadline end = clock_after(WAIT_MAX);
	int code;
	while ((code = ask_code(f, (Ask){.kind = JOB_INSERT, .row = make_row("after", 1)})) != OK) {
		assert_int_equal(code, K_ERROR_STORE);
		assert_false(clock_passed(end));
	}
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), 2);
	assert_int_equal(give_back(f, "before", 0), OK); /* the session lived on */
	/* The lane of the operators, too. */
	while ((code = ask_code(f, (Ask){.kind = JOB_LIST, .filter = {.limit = 5}})) != OK) {
		assert_int_equal(code, K_ERROR_STORE);
		assert_false(clock_passed(end));
	}
}

/* Somebody holds a lock for long: waits are bounded, for all that wait. */
static void
test_locked_table(void **state)
{
	Fixture *f = *state;
	open_hasty(f);
	insert(f, make_row("a", 1));
	PGconn *conn = pg_server_connect();
	PQclear(PQexec(conn, "BEGIN"));
	PQclear(PQexec(conn, "LOCK TABLE tx IN ACCESS EXCLUSIVE MODE"));
	enum { N = 20 };
	Ask asks[N] = {0};
	for (unsigned i = 0; i < N; i++) {
		g_autofree char *id = g_strdup_printf("m%u", i);
		asks[i] = (Ask){.kind = JOB_INSERT, .row = make_row(id, 1)};
	}
	Deadline begin = clock_mono();
	ask_all(f, asks, N);
	assert_true(clock_mono() - begin < 5 * BUSY_WAIT + 10 * USEC_PER_SEC);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(asks[i].code, K_ERROR_STORE);
		ask_clear(&asks[i]);
	}
	PQclear(PQexec(conn, "ROLLBACK"));
	PQfinish(conn);
	insert(f, make_row("m0", 1));
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), 2);
}

/* A body that somebody else has collected meanwhile is stored again. */
static void
test_blob_gone(void **state)
{
	Fixture *f = *state;
	g_autofree char *data = pattern(300000);
	g_autoptr(Blob) blob = blob_new_bytes(data, 300000);
	insert(f, make_mail("a", 1, blob));
	sql(f, "DELETE FROM tx");
	sql(f, "DELETE FROM chunk");
	sql(f, "DELETE FROM blob");
	Ask asks[] = {{.kind = JOB_INSERT, .row = make_row("x", 1)},
		      {.kind = JOB_INSERT, .row = make_mail("b", 1, blob)},
		      {.kind = JOB_INSERT, .row = make_mail("c", 1, blob)}};
	ask_all(f, asks, G_N_ELEMENTS(asks));
	for (size_t i = 0; i < G_N_ELEMENTS(asks); i++)
		assert_int_equal(asks[i].code, OK);
	g_auto(Ask) ask = {.kind = JOB_LOAD, .id = "c", .with_blobs = true};
	ask_all(f, &ask, 1);
	assert_int_equal(ask.code, OK);
	const StoreRow *row = g_ptr_array_index(ask.rows, 0);
	assert_bytes(((StoreBlob *)g_ptr_array_index(row->blobs, 0))->blob, data, 300000);
	g_autofree char *report = NULL;
	sql(f, "UPDATE blob SET refs=2 WHERE refs=2"); /* two rows, one body */
	assert_true(store_check(f->url, &report, NULL));
}

static const struct {
	const char *name, *sql;
} DAMAGE[] = {
	{"attempts negative", "UPDATE tx SET attempts=-1 WHERE id='attempts negative'"},
	{"creation negative", "UPDATE tx SET creation=-1 WHERE id='creation negative'"},
	{"version negative", "UPDATE tx SET version=-1 WHERE id='version negative'"},
	{"body missing", "UPDATE tx SET body=99999999 WHERE id='body missing'"},
	{"part missing", "UPDATE tx_blob SET blob=99999999 WHERE tx="
			 "(SELECT n FROM tx WHERE id='part missing')"},
#define BODY_OF(id) "(SELECT body FROM tx WHERE id='" id "')"
	{"length negative", "UPDATE blob SET len=-1 WHERE id=" BODY_OF("length negative")},
	{"length huge", "UPDATE blob SET len=9223372036854775807 WHERE id=" BODY_OF("length huge")},
	{"length small", "UPDATE blob SET len=10 WHERE id=" BODY_OF("length small")},
	{"first chunk gone",
	 "DELETE FROM chunk WHERE off=131072 AND blob=" BODY_OF("first chunk gone")},
	{"last chunk gone",
	 "DELETE FROM chunk WHERE off=262144 AND blob=" BODY_OF("last chunk gone")},
	{"chunk cut", "UPDATE chunk SET data='x' WHERE off=262144 AND blob=" BODY_OF("chunk cut")},
};

static void
test_damaged_rows(void **state)
{
	Fixture *f = *state;
	g_autofree char *data = pattern(300000);
	for (size_t i = 0; i < G_N_ELEMENTS(DAMAGE); i++) {
		g_autoptr(Blob) body = blob_new_bytes(data, 300000);
		g_autoptr(Blob) part = blob_new_bytes("part", 4);
		StoreRow *bad = make_mail(DAMAGE[i].name, 100 + (int64_t)i, body);
		store_row_add_blob(bad, "p", part);
		insert(f, bad);
		sql(f, DAMAGE[i].sql);
	}
	insert(f, make_row("good", 200));
	g_auto(Ask) ask = {.kind = JOB_CLAIM, .time = 1000, .limit = 100};
	ask_all(f, &ask, 1);
	assert_int_equal(ask.code, OK);
	assert_int_equal(ask.rows->len, 1);
	assert_int_equal(ask.damaged->len, G_N_ELEMENTS(DAMAGE));
	for (guint i = 0; i < ask.damaged->len; i++)
		assert_true(g_str_has_prefix(g_ptr_array_index(ask.damaged, i), DAMAGE[i].name));
	assert_claims(f, 1000, "");
	g_auto(Ask) list = {.kind = JOB_LIST, .filter = {.state = STORE_HELD, .limit = 100}};
	ask_all(f, &list, 1);
	assert_int_equal(list.rows->len, G_N_ELEMENTS(DAMAGE));
}

/* ---- the end of a commit that nobody heard of ---- */

static void
test_unknown_commit(void **state)
{
	Fixture *f = *state;
	char *url;
	PgProxy *proxy;
	proxy_url(f, &url, &proxy);
	StoreConfig config = fixture_config(f);
	config.url = url;
	config.busy_wait = 5 * USEC_PER_SEC;
	store_close(f->store);
	f->store = store_open(&config, NULL);
	assert_non_null(f->store);
	int64_t inserted = 0;
	for (unsigned i = 0; i < 24; i++) {
		g_autofree char *id = g_strdup_printf("m%u", i);
		g_autofree char *second = g_strdup_printf("n%u", i);
		g_autoptr(Blob) body = blob_new_bytes(id, strlen(id));
		Ask asks[] = {{.kind = JOB_INSERT, .row = leased(make_mail(id, 1, body))},
			      {.kind = JOB_UPDATE, .row = make_row(id, 500)},
			      {.kind = JOB_INSERT, .row = make_mail(second, 5000, body)}};
		pg_proxy_cut(proxy, i % 2 == 0 ? CUT_BEFORE_COMMIT : CUT_AFTER_COMMIT, 1 + i % 3);
		ask_all(f, asks, G_N_ELEMENTS(asks));
		for (size_t k = 0; k < G_N_ELEMENTS(asks); k++) {
			if (asks[k].code != OK)
				fail_msg("%u %zu: %s", i, k, asks[k].message);
			ask_clear(&asks[k]);
		}
		inserted += 2;
		g_auto(Ask) ask = {.kind = JOB_CLAIM, .time = 1000, .limit = 10};
		ask_all(f, &ask, 1);
		assert_int_equal(ask.code, OK);
		assert_int_equal(ask.rows->len, 1);
		assert_string_equal(((StoreRow *)g_ptr_array_index(ask.rows, 0))->id, id);
		assert_int_equal(give_back(f, id, 0), OK);
	}
	assert_true(pg_proxy_cuts(proxy) >= 24);
	pg_proxy_cut(proxy, CUT_NONE, 0);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx"), inserted);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx WHERE final_reason='done'"), inserted / 2);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx WHERE session<>0"), 0);
	g_autofree char *report = NULL;
	if (!store_check(f->url, &report, NULL))
		fail_msg("%s", report);
	store_close(f->store);
	pg_proxy_stop(proxy);
	g_free(url);
	open_store(f);
}

/* The job's commit is taken by the server, which then is away for longer than jobs wait. */
static void
orphan(Fixture *f, PgProxy *proxy, Ask ask)
{
	pg_proxy_cut(proxy, CUT_FOR_LONG, 1);
	assert_int_equal(ask_code(f, ask), K_ERROR_STORE);
	pg_proxy_refuse(proxy, false);
	Deadline end = clock_after(WAIT_MAX);
	while (ask_code(f, (Ask){.kind = JOB_LOAD, .id = "waiting"}) != OK)
		assert_false(clock_passed(end));
}

/* It cannot be found out in time: answered as failed, and undone when the server is back. */
static void
test_orphans(void **state)
{
	Fixture *f = *state;
	char *url;
	PgProxy *proxy;
	proxy_url(f, &url, &proxy);
	store_close(f->store);
	f->store = open_other(f, "", 0, url);
	insert(f, make_row("waiting", 1));
	insert(f, leased(make_row("updated", 1)));
	orphan(f, proxy, (Ask){.kind = JOB_INSERT, .row = leased(make_row("x", 1))});
	orphan(f, proxy, (Ask){.kind = JOB_INSERT, .row = make_row("y", 1)});
	assert_int_equal(sql(f, "SELECT count(*) FROM tx WHERE final_reason='not acknowledged'"
				" AND session=0 AND (id LIKE 'x-%' OR id LIKE 'y-%')"),
			 2);
	/* Who tries again, under the same id, gets a row, not a conflict with what is undone. */
	assert_int_equal(ask_code(f, (Ask){.kind = JOB_LOAD, .id = "x"}), K_ERROR_NOT_FOUND);
	insert(f, leased(make_row("x", 1)));
	assert_int_equal(give_back(f, "x", 0), OK);
	orphan(f, proxy, (Ask){.kind = JOB_CLAIM, .time = 1000, .limit = 10});
	g_autoptr(StoreRow) waiting = load(f, "waiting");
	assert_false(waiting->leased);
	assert_int_equal(waiting->crashes, 0);
	assert_claims(f, 1000, "waiting");
	orphan(f, proxy, (Ask){.kind = JOB_UPDATE, .row = make_row("updated", 700)});
	assert_int_equal(give_back(f, "updated", 800), K_ERROR_CONFLICT);
	g_autoptr(StoreRow) updated = load(f, "updated");
	assert_int_equal(updated->next_attempt, 700);
	assert_true(store_is_leaseholder(f->store));
	store_close(f->store);
	pg_proxy_stop(proxy);
	g_free(url);
	open_store(f);
}

/* ---- accounting, while connections and servers die ---- */

#define CHAOS_BATCH 40

typedef struct Killer {
	pthread_t thread;
	Store *store;
	atomic_bool stop;
	atomic_uint kills;
} Killer;

static uint64_t
answered(const Killer *killer)
{
	StoreStats stats;
	store_stats(killer->store, &stats);
	return stats.jobs;
}

/* Three kills in a row at any moment, then none until something was answered: on a busy machine a
 * connection that is killed each few milliseconds never gets as far as a commit. */
static void *
killer_main(void *arg)
{
	Killer *killer = arg;
	PGconn *conn = pg_server_connect();
	for (unsigned i = 0; !atomic_load(&killer->stop); i++) {
		const uint64_t before = answered(killer);
		PGresult *result = PQexec(
			conn, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
			      " WHERE application_name='koukan'");
		killer->kills += (unsigned)g_ascii_strtoull(PQgetvalue(result, 0, 0), NULL, 10);
		PQclear(result);
		do {
			g_usleep(1000 * (3 + i * 7 % 23));
		} while (i % 3 == 2 && answered(killer) == before && !atomic_load(&killer->stop));
	}
	PQfinish(conn);
	return NULL;
}

typedef struct Books {
	unsigned inserted, refused, updated;
} Books;

/* Inserts, and finishes what was inserted, however often that takes. */
static void
chaos_round(Fixture *f, unsigned round, bool restart, Books *books)
{
	Ask asks[CHAOS_BATCH] = {0};
	char ids[CHAOS_BATCH][32];
	for (unsigned i = 0; i < CHAOS_BATCH; i++) {
		g_snprintf(ids[i], sizeof ids[i], "r%u-%u", round, i);
		g_autoptr(Blob) body = blob_new_bytes(ids[i], strlen(ids[i]));
		asks[i] = (Ask){.kind = JOB_INSERT, .row = leased(make_mail(ids[i], 1, body))};
	}
	Batch batch = {f->store, asks, CHAOS_BATCH};
	worker_post(f->worker, start_batch, &batch);
	worker_test_turn(f->worker, 0);
	if (restart) {
		g_usleep(round * 300);
		pg_server_stop(SIGQUIT);
		pg_server_start();
	}
	while (!all_done(&batch))
		worker_test_turn(f->worker, USEC_PER_SEC);
	for (unsigned i = 0; i < CHAOS_BATCH; i++) {
		int code = asks[i].code;
		if (code != OK && code != K_ERROR_STORE)
			fail_msg("%s", asks[i].message); /* such as: it was there already */
		ask_clear(&asks[i]);
		books->refused += code != OK ? 1 : 0;
		books->inserted += code == OK ? 1 : 0;
		if (code != OK)
			continue;
		do {
			code = ask_code(f, (Ask){.kind = JOB_UPDATE, .row = finished(ids[i])});
		} while (code == K_ERROR_STORE);
		assert_int_equal(code, OK);
		books->updated++;
	}
}

static void
assert_books(Fixture *f, const Books *books)
{
	assert_true(books->inserted > 0);
	assert_int_equal(books->updated, books->inserted);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx WHERE final_reason='done'"),
			 books->inserted);
	assert_int_equal(sql(f, "SELECT count(*) FROM tx WHERE final_reason IS NULL"), 0);
	assert_true(sql(f, "SELECT count(*) FROM tx") <= books->inserted + books->refused);
	g_autofree char *report = NULL;
	if (!store_check(f->url, &report, NULL))
		fail_msg("%s", report);
}

static void
open_patient(Fixture *f)
{
	StoreConfig config = fixture_config(f);
	config.busy_wait = WAIT_MAX / 2; /* a server may start slowly */
	store_close(f->store);
	f->store = store_open(&config, NULL);
	assert_non_null(f->store);
}

static void
test_killed_connections(void **state)
{
	Fixture *f = *state;
	open_patient(f);
	Killer killer = {.store = f->store};
	Books books = {0};
	assert_int_equal(pthread_create(&killer.thread, NULL, killer_main, &killer), 0);
	Deadline end = clock_after(4 * USEC_PER_SEC), last = clock_after(WAIT_MAX);
	for (unsigned round = 0; !clock_passed(end) || (killer.kills <= 20 && !clock_passed(last));
	     round++)
		chaos_round(f, round, false, &books);
	atomic_store(&killer.stop, true);
	pthread_join(killer.thread, NULL);
	assert_true(killer.kills > 20);
	assert_int_equal(books.refused, 0);
	assert_books(f, &books);
}

static void
test_crashing_server(void **state)
{
	Fixture *f = *state;
	open_patient(f);
	Books books = {0};
	for (unsigned round = 0; round < 5; round++)
		chaos_round(f, round, true, &books);
	assert_int_equal(books.refused, 0);
	assert_books(f, &books);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(test_bad_urls),        STORE_TEST(test_schema),
		STORE_TEST(test_schema_changed),  STORE_TEST(test_migrate),
		STORE_TEST(test_migrate_in_use),  STORE_TEST(test_many_migrate),
		STORE_TEST(test_many_create),     STORE_TEST(test_warnings),
		STORE_TEST(test_two_sessions),    STORE_TEST(test_owner),
		STORE_TEST(test_hint_of_others),  STORE_TEST(test_lost_lease),
		STORE_TEST(test_frozen_process),  STORE_TEST(test_frozen_in_claim),
		STORE_TEST(test_leaseholder),     STORE_TEST(test_server_away),
		STORE_TEST(test_locked_table),    STORE_TEST(test_blob_gone),
		STORE_TEST(test_damaged_rows),    STORE_TEST(test_unknown_commit),
		STORE_TEST(test_orphans),         STORE_TEST(test_killed_connections),
		STORE_TEST(test_crashing_server),
	};
	return STORE_RUN(tests);
}
