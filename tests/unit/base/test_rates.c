/* SPDX-License-Identifier: Apache-2.0 */
/* Counting by key: the limit and one past it, the sliding window, keys apart, a full table, many
 * threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/rates.h"

#define MINUTE (60 * USEC_PER_SEC)
#define START  (INT64_C(1000) * MINUTE) /* a window begins here */

/* How many of `n` events get through. */
static unsigned
pass(Rates *rates, const char *limit, const char *key, uint32_t max, Deadline now, unsigned n)
{
	unsigned passed = 0;
	for (unsigned i = 0; i < n; i++)
		passed += !rates_over(rates, limit, key, MINUTE, max, now);
	return passed;
}

static void
test_limit(void **state)
{
	(void)state;
	Rates *rates = rates_new(64);
	assert_int_equal(pass(rates, "a", "k", 3, START, 3), 3);
	assert_int_equal(pass(rates, "a", "k", 3, START, 1), 0);
	/* other keys and other limits have counts of their own */
	assert_int_equal(pass(rates, "a", "l", 3, START, 5), 3);
	assert_int_equal(pass(rates, "b", "k", 3, START, 5), 3);
	assert_int_equal(pass(rates, "a", "", 3, START, 5), 3);
	/* "a" + "bc" is not "ab" + "c" */
	assert_int_equal(pass(rates, "x", "yz", 3, START, 5), 3);
	assert_int_equal(pass(rates, "xy", "z", 3, START, 5), 3);
	assert_int_equal(pass(rates, "a", "k", 0, START, 5), 0);
	rates_free(rates);
}

static void
test_window_slides(void **state)
{
	(void)state;
	Rates *rates = rates_new(64);
	assert_int_equal(pass(rates, "a", "k", 10, START, 20), 10);
	/* half a window on nothing has left it */
	assert_int_equal(pass(rates, "a", "k", 10, START + MINUTE / 2, 20), 0);
	/* of the window before, half is in reach; what did not pass was not counted */
	assert_int_equal(pass(rates, "a", "k", 10, START + MINUTE, 20), 0);
	assert_int_equal(pass(rates, "a", "k", 10, START + MINUTE + MINUTE / 2, 20), 5);
	assert_int_equal(pass(rates, "a", "k", 10, START + 2 * MINUTE, 20), 5);
	/* a whole window without events forgets all */
	assert_int_equal(pass(rates, "a", "k", 10, START + 4 * MINUTE, 20), 10);
	rates_free(rates);
}

/* A full table forgets who was quiet for longest, never who is busy. */
static void
test_eviction(void **state)
{
	(void)state;
	Rates *rates = rates_new(8); /* one set */
	Deadline now = START;
	char key[16];
	for (int i = 0; i < 8; i++) {
		g_snprintf(key, sizeof(key), "%d", i);
		assert_int_equal(pass(rates, "a", key, 1, ++now, 1), 1);
	}
	assert_int_equal(pass(rates, "a", "0", 1, ++now, 1), 0); /* all eight are remembered */
	assert_int_equal(pass(rates, "a", "new", 1, ++now, 1), 1);
	assert_int_equal(pass(rates, "a", "0", 1, ++now, 1), 0); /* busy: kept */
	assert_int_equal(pass(rates, "a", "1", 1, ++now, 1), 1); /* quiet: forgotten */
	for (int i = 0; i < 100000; i++) {
		g_snprintf(key, sizeof(key), "%d", i);
		(void)rates_over(rates, "b", key, MINUTE, 1, ++now);
	}
	rates_free(rates);
}

#define THREADS 8
#define EVENTS  2000

static Rates *shared;
static atomic_uint passed;

static void *
knock(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < EVENTS; i++) {
		char key[16];
		g_snprintf(key, sizeof(key), "%u", i % 100);
		if (!rates_over(shared, "a", key, MINUTE, 50, START))
			atomic_fetch_add(&passed, 1);
	}
	return NULL;
}

/* Whoever asks, together they get what the limit says. */
static void
test_threads(void **state)
{
	(void)state;
	pthread_t threads[THREADS];
	shared = rates_new(RATES_KEYS_DEFAULT);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, knock, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(atomic_load(&passed), 100 * 50);
	rates_free(shared);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_window_slides),
		cmocka_unit_test(test_eviction),
		cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
