/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <math.h>

#include "tx/retry.h"

#define T0 1700000000

static const RetryParams DEFAULTS = {30, 60, 3600, 1.5, 86400, 3600};

typedef struct RetryCase {
	const char *name;
	int64_t max_attempts, min_time, max_time;
	double factor;
	int64_t deadline;
	int64_t age;
	int attempt;
	double jitter;
	RetryVerdict want;
	int64_t want_delay; /* after now */
} RetryCase;

static const RetryCase CASES[] = {
	{"floor", 30, 60, 3600, 1.5, 86400, 0, 1, 0, RETRY_AT, 60},
	{"floor, still", 30, 60, 3600, 1.5, 86400, 40, 2, 0, RETRY_AT, 60},
	{"factor", 30, 60, 3600, 1.5, 86400, 100, 2, 0, RETRY_AT, 150},
	{"fractions are cut", 30, 60, 3600, 1.5, 86400, 101, 2, 0, RETRY_AT, 151},
	{"ceiling", 30, 60, 3600, 1.5, 86400, 2400, 2, 0, RETRY_AT, 3600},
	{"ceiling, beyond", 30, 60, 3600, 1.5, 86400, 50000, 2, 0, RETRY_AT, 3600},
	{"floor above the ceiling wins", 30, 600, 300, 1.5, 86400, 10000, 2, 0, RETRY_AT, 600},
	{"last attempt but one", 30, 60, 3600, 1.5, 86400, 100, 29, 0, RETRY_AT, 150},
	{"last attempt", 30, 60, 3600, 1.5, 86400, 100, 30, 0, RETRY_MAX_ATTEMPTS, 0},
	{"past the last attempt", 30, 60, 3600, 1.5, 86400, 100, 31, 0, RETRY_MAX_ATTEMPTS, 0},
	{"no attempts at all", 0, 60, 3600, 1.5, 86400, 100, 1, 0, RETRY_MAX_ATTEMPTS, 0},
	{"attempts without limit", -1, 60, 3600, 1.5, 86400, 100, 1000000, 0, RETRY_AT, 150},
	{"at the deadline", 30, 60, 3600, 1.5, 86400, 82800, 2, 0, RETRY_AT, 3600},
	{"past the deadline", 30, 60, 3600, 1.5, 86400, 82801, 2, 0, RETRY_DEADLINE, 0},
	{"no deadline", 30, 60, 3600, 1.5, -1, 8640000, 2, 0, RETRY_AT, 3600},
	{"deadline 0", 30, 60, 3600, 1.5, 0, 0, 1, 0, RETRY_DEADLINE, 0},
	{"attempts before deadline", 3, 60, 3600, 1.5, 0, 100, 3, 0, RETRY_MAX_ATTEMPTS, 0},
	{"clock went back", 30, 60, 3600, 1.5, 86400, -7200, 2, 0, RETRY_AT, 60},
	{"jitter", 30, 60, 3600, 1.5, 86400, 1000, 2, 0.5, RETRY_AT, 1575},
	{"full jitter", 30, 60, 3600, 1.5, 86400, 1000, 2, 1, RETRY_AT, 1650},
	{"jitter out of range", 30, 60, 3600, 1.5, 86400, 1000, 2, 7, RETRY_AT, 1650},
	{"negative jitter", 30, 60, 3600, 1.5, 86400, 1000, 2, -1, RETRY_AT, 1500},
	{"jitter stays within the deadline", 30, 60, 3600, 1.5, 86400, 82800, 2, 1, RETRY_AT, 3600},
	{"no factor", 30, 60, 3600, 0, 86400, 1000, 2, 0, RETRY_AT, 60},
	{"huge factor", 30, 60, 3600, 1e300, 86400, 1000, 2, 0, RETRY_AT, 3600},
	{"negative factor", 30, 60, 3600, -5, 86400, 1000, 2, 0, RETRY_AT, 60},
	{"factor is no number", 30, 60, 3600, NAN, 86400, 1000, 2, 0, RETRY_AT, 60},
	{"negative times", -1, -60, -1, 1.5, -1, 1000, 2, 0, RETRY_AT, 0},
};

static void
test_next(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		const RetryCase *c = &CASES[i];
		RetryParams params = {c->max_attempts, c->min_time, c->max_time,
				      c->factor,       c->deadline, 3600};
		int64_t next = -1;
		int64_t now = T0 + c->age;
		RetryVerdict verdict = retry_next(&params, T0, now, c->attempt, c->jitter, &next);
		if (verdict != c->want)
			fail_msg("%s: verdict %d", c->name, (int)verdict);
		int64_t want = c->want == RETRY_AT ? now + c->want_delay : -1;
		if (next != want)
			fail_msg("%s: after %" G_GINT64_FORMAT, c->name, next - now);
	}
}

/* Attempts of the default policy: the first ones, the spacing, the end. */
static void
test_schedule(void **state)
{
	(void)state;
	int64_t now = T0;
	int attempt = 1;
	int64_t next;
	RetryVerdict verdict;
	while ((verdict = retry_next(&DEFAULTS, T0, now, attempt, 0, &next)) == RETRY_AT) {
		assert_true(next - now >= DEFAULTS.min_attempt_time);
		assert_true(next - now <= DEFAULTS.max_attempt_time);
		now = next;
		attempt++;
		assert_true(attempt < 100);
	}
	assert_int_equal(verdict, RETRY_DEADLINE);
	assert_true(now - T0 <= DEFAULTS.deadline);
	assert_true(now - T0 > DEFAULTS.deadline - DEFAULTS.max_attempt_time);
}

static void
test_reason(void **state)
{
	(void)state;
	assert_null(retry_reason(RETRY_AT));
	assert_string_equal(retry_reason(RETRY_MAX_ATTEMPTS), "retry policy max attempts");
	assert_string_equal(retry_reason(RETRY_DEADLINE), "retry policy deadline");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_next),
		cmocka_unit_test(test_schedule),
		cmocka_unit_test(test_reason),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
