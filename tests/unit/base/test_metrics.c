/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "base/metrics.h"

#define THREADS 4
#define ROUNDS  20000

static void *
count(void *arg)
{
	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		metric_add(METRIC_RETRIES, 1);
		metric_observe(HISTOGRAM_STORE_BATCH, i % 7);
	}
	return NULL;
}

/* Threads count while another one reads; none of it is lost, and no reading is less than the one
 * before it. */
static void
test_threads(void **state)
{
	(void)state;
	uint64_t before = metric_value(METRIC_RETRIES), last = before;
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
	for (int i = 0; i < 1000; i++) {
		uint64_t now = metric_value(METRIC_RETRIES);
		assert_true(now >= last);
		last = now;
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(metric_value(METRIC_RETRIES) - before, THREADS * ROUNDS);
}

static void
assert_has(const char *text, const char *line)
{
	g_autofree char *whole = g_strconcat("\n", line, "\n", NULL);
	if (strstr(text, whole) == NULL)
		fail_msg("no line '%s' in:\n%s", line, text);
}

static void
test_print(void **state)
{
	(void)state;
	/* On a bound, one past it, beyond all. */
	metric_observe(HISTOGRAM_DNS, 500);
	metric_observe(HISTOGRAM_DNS, 501);
	metric_observe(HISTOGRAM_DNS, 61 * USEC_PER_SEC);
	metric_add(METRIC_DNS_OK, 3);
	GString *out = g_string_new("\n");
	metrics_print(out);
	metrics_print_one(out, "x", "a=\"b\"", "gauge", "help", 0.5);
	assert_has(out->str, "# HELP koukan_dns_answers_total DNS lookups, by their outcome.");
	assert_has(out->str, "# TYPE koukan_dns_answers_total counter");
	assert_has(out->str, "koukan_dns_answers_total{status=\"ok\"} 3");
	assert_has(out->str, "koukan_dns_answers_total{status=\"nodata\"} 0");
	assert_has(out->str, "# TYPE koukan_dns_lookup_seconds histogram");
	assert_has(out->str, "koukan_dns_lookup_seconds_bucket{le=\"0.0005\"} 1");
	assert_has(out->str, "koukan_dns_lookup_seconds_bucket{le=\"0.001\"} 2");
	assert_has(out->str, "koukan_dns_lookup_seconds_bucket{le=\"60\"} 2");
	assert_has(out->str, "koukan_dns_lookup_seconds_bucket{le=\"+Inf\"} 3");
	assert_has(out->str, "koukan_dns_lookup_seconds_sum 61.001001");
	assert_has(out->str, "koukan_dns_lookup_seconds_count 3");
	assert_has(out->str, "koukan_rest_request_seconds_bucket{method=\"PUT\",le=\"+Inf\"} 0");
	assert_has(out->str, "x{a=\"b\"} 0.5");
	g_string_free(out, TRUE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_print),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
