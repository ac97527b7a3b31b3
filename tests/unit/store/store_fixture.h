/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A store in a directory of its own, and one worker that is turned by hand until its questions
 * are answered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/store_int.h"

#define WAIT_MAX  (60 * USEC_PER_SEC)
#define BUSY_WAIT (200 * USEC_PER_MS)
#define OK        (-1) /* instead of a KErrorCode */

typedef struct Fixture {
	char *dir, *path, *url;
	Workers *workers;
	Worker *worker;
	Store *store;
} Fixture;

int set_up(void **state);
int tear_down(void **state);
#define STORE_TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

Store *try_open(const Fixture *f, unsigned queue_max, GError **ret_error);
void open_store(Fixture *f);
void reopen(Fixture *f);
/* Looks at or changes the file behind the store's back; the store is closed, or only reads are
 * done. */
int64_t sql(const Fixture *f, const char *text);

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
/* Asks everything in one go, waits for all answers. */
void ask_all(Fixture *f, Ask *asks, size_t n);
/* The code of the answer; its other parts are dropped. */
int ask_code(Fixture *f, Ask ask);

StoreRow *make_row(const char *id, int64_t next_attempt);
StoreRow *make_mail(const char *id, int64_t next_attempt, Blob *body);
void insert(Fixture *f, StoreRow *row);
/* "id id id" of what is due; damaged ones behind a '!'. */
char *claim(Fixture *f, int64_t now, unsigned limit, int64_t *ret_next_due);
void assert_claims(Fixture *f, int64_t now, const char *want);
void assert_bytes(const Blob *blob, const char *want, size_t len);
char *pattern(size_t len);
