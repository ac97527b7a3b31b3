/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A store in a database of its own, and one worker that is turned by hand until its questions
 * are answered.  What kind of database it is depends on the backend_*.c that is linked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "store/store_int.h"

#define WAIT_MAX  (60 * USEC_PER_SEC)
#define BUSY_WAIT (1 * USEC_PER_SEC) /* of open_hasty; the others have the product's */
#define OK        (-1)               /* instead of a KErrorCode */

typedef struct Fixture {
	char *dir, *path, *url; /* `path`: SQLite only */
	Workers *workers;
	Worker *worker;
	Store *store;
} Fixture;

int set_up(void **state);
int tear_down(void **state);
#define STORE_TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

/* ---- the backend ---- */

/* Why it cannot be tested here, or NULL. */
const char *backend_missing(void);
int backend_group_set_up(void **state); /* before and after all tests of a program */
int backend_group_tear_down(void **state);
void backend_make_url(Fixture *f);
/* Looks at or changes the database behind the store's back; the store is closed, or only reads are
 * done.  The first value of the first row, 0 when there is none. */
int64_t sql(const Fixture *f, const char *text);
/* The process that had the store is gone, its leases are not: so that the next opener sees it. */
void backend_after_crash(const Fixture *f);
/* Every file in `dir` is gone after it. */
void backend_remove(Fixture *f);

/* Runs the tests, or says that they are skipped. */
#define STORE_RUN(tests)                                                                           \
	(backend_missing() != NULL                                                                 \
		 ? (printf("1..0 # SKIP %s\n", backend_missing()), 0)                              \
		 : cmocka_run_group_tests(tests, backend_group_set_up, backend_group_tear_down))

/* ---- opening ---- */

StoreConfig fixture_config(const Fixture *f);
Store *try_open(const Fixture *f, unsigned queue_max, GError **ret_error);
void open_store(Fixture *f);
void reopen(Fixture *f);
void open_hasty(Fixture *f); /* for tests that wait until the store gives up */
/* As if the process had died without a word, and another one starts. */
void die_and_open(Fixture *f, const StoreConfig *config);
void die(Fixture *f);

/* ---- asking ---- */

typedef struct Ask {
	/* the question */
	JobKind kind;
	StoreRow *row;
	const char *id, *text;
	int64_t time;
	unsigned limit, per_destination; /* 0: as many as `limit` */
	const GPtrArray *busy;
	StoreFilter filter;
	StoreAction action;
	bool with_blobs;
	/* the answer */
	bool asking; /* inside the call */
	bool done;
	int code; /* OK or a KErrorCode */
	char *message;
	GPtrArray *rows;
	int64_t next_due;
	uint64_t count;
	GPtrArray *damaged;
	GPtrArray *counts;
} Ask;

void ask_clear(Ask *ask);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Ask, ask_clear)

typedef struct Batch {
	Store *store;
	Ask *asks;
	size_t n;
} Batch;

/* A WorkerFn for a Batch: asks everything in one go. */
void start_batch(void *arg);
bool all_done(const Batch *batch);
/* Asks everything in one go of another store, waits for all answers. */
void ask_store(Fixture *f, Store *store, Ask *asks, size_t n);
/* Asks everything in one go, waits for all answers. */
void ask_all(Fixture *f, Ask *asks, size_t n);
/* The code of the answer; its other parts are dropped. */
int ask_code(Fixture *f, Ask ask);

StoreRow *make_row(const char *id, int64_t next_attempt);
StoreRow *make_mail(const char *id, int64_t next_attempt, Blob *body);
StoreRow *leased(StoreRow *row);
void insert(Fixture *f, StoreRow *row);
/* "id id id" of what is due; damaged ones behind a '!'. */
char *claim(Fixture *f, int64_t now, unsigned limit, int64_t *ret_next_due);
void assert_claims(Fixture *f, int64_t now, const char *want);
void assert_bytes(const Blob *blob, const char *want, size_t len);
char *pattern(size_t len);
/* Reads the row; the caller frees. */
StoreRow *load(Fixture *f, const char *id);
int act(Fixture *f, const char *id, StoreAction action, const char *reason);
/* The code of giving it back with that time; 0: final. */
int give_back(Fixture *f, const char *id, int64_t next_attempt);
