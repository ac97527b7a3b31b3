/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks, errors, ids, capped buffers, deferred work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/defer.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/limbuf.h"

/* ---- check ---- */

/* Runs `fn` in a child; what it wrote on standard error, and that it was aborted. */
static char *
abort_text(void (*fn)(void))
{
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	pid_t child = fork();
	if (child == 0) {
		dup2(fds[1], STDERR_FILENO);
		fn();
		_exit(0);
	}
	close(fds[1]);
	char text[4096] = {0};
	size_t len = 0;
	ssize_t got;
	while ((got = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)got;
	close(fds[0]);
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	return g_strdup(text);
}

static void
fail_plain(void)
{
	k_assert(1 + 1 == 3);
}

static void
fail_for(void)
{
	char detail[3000];
	memset(detail, 'd', sizeof(detail) - 1);
	detail[sizeof(detail) - 1] = '\0';
	k_assert_for(errno == -1, detail);
}

static void
test_check(void **state)
{
	(void)state;
	g_autofree char *plain = abort_text(fail_plain);
	assert_non_null(strstr(plain, "test_values.c:"));
	assert_non_null(strstr(plain, ": fail_plain: assertion failed: 1 + 1 == 3\n"));
	g_autofree char *detailed = abort_text(fail_for);
	assert_non_null(strstr(detailed, "errno == -1: ddd"));
	assert_true(g_str_has_suffix(detailed, "d\n")); /* cut, but a line */
	k_assert(1 + 1 == 2);
}

/* ---- clock ---- */

static void
test_clock_formats(void **state)
{
	(void)state;
	static const struct {
		int64_t sec;
		const char *tz; /* NULL: UTC asked for */
		const char *want;
	} cases[] = {
		{1234567890, NULL, "Fri, 13 Feb 2009 23:31:30 +0000"},
		{1234567890, "UTC0", "Fri, 13 Feb 2009 23:31:30 +0000"},
		{1234567890, "AAA-5:30", "Sat, 14 Feb 2009 05:01:30 +0530"},
		{1234567890, "AAA3:30", "Fri, 13 Feb 2009 20:01:30 -0330"},
		{0, NULL, "Thu, 1 Jan 1970 00:00:00 +0000"},
		{-1, NULL, "Wed, 31 Dec 1969 23:59:59 +0000"},
		{253402300800, NULL, "Sat, 1 Jan 10000 00:00:00 +0000"},
		{INT64_MAX, NULL, "Thu, 1 Jan 1970 00:00:00 +0000"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		if (cases[i].tz != NULL)
			setenv("TZ", cases[i].tz, 1);
		tzset();
		char text[CLOCK_DATE_MAX];
		clock_format_rfc5322(cases[i].sec, cases[i].tz == NULL, text);
		assert_string_equal(text, cases[i].want);
	}
	char text[CLOCK_DATE_MAX];
	clock_format_iso(1234567890 * USEC_PER_SEC + 123456, text);
	assert_string_equal(text, "2009-02-13T23:31:30.123456Z");
	clock_format_iso(1234567890 * USEC_PER_SEC + 7, text); /* the same second */
	assert_string_equal(text, "2009-02-13T23:31:30.000007Z");
	clock_format_iso(-1, text);
	assert_string_equal(text, "1969-12-31T23:59:59.999999Z");
	clock_format_iso(INT64_MIN, text);
	clock_format_iso(INT64_MAX, text);
}

static void
test_clock(void **state)
{
	(void)state;
	Deadline a = clock_mono();
	assert_true(a > 0);
	assert_true(clock_mono() >= a);
	assert_in_range(clock_wall_sec(), time(NULL) - 2, time(NULL) + 2);
	clock_test_begin(1000, 5 * USEC_PER_SEC);
	assert_int_equal(clock_mono(), 1000);
	assert_int_equal(clock_wall_sec(), 5);
	assert_int_equal(clock_after(50), 1050);
	assert_int_equal(clock_after(INT64_MAX), INT64_MAX);
	assert_int_equal(clock_after(-1000), 1); /* 0 would mean "none" */
	assert_int_equal(clock_after(INT64_MIN), 1);
	assert_int_equal(clock_left(1050), 50);
	assert_int_equal(clock_left(999), 0);
	assert_int_equal(clock_left(0), INT64_MAX);
	assert_false(clock_passed(1001));
	assert_true(clock_passed(1000));
	assert_false(clock_passed(0));
	clock_test_advance(1);
	assert_true(clock_passed(1001));
	assert_int_equal(clock_wall(), 5 * USEC_PER_SEC + 1);
	clock_test_end();
	assert_true(clock_mono() >= a);
}

/* ---- error ---- */

static void
test_error(void **state)
{
	(void)state;
	g_autoptr(GError) trouble = NULL;
	assert_false(error_set(&trouble, K_ERROR_DNS, "no %s", "answer"));
	assert_true(g_error_matches(trouble, K_ERROR, K_ERROR_DNS));
	assert_string_equal(trouble->message, "no answer");
	g_clear_error(&trouble);
	assert_false(error_set_errno(&trouble, K_ERROR_IO, ENOENT, "open %s", "f"));
	assert_string_equal(trouble->message, "open f: No such file or directory");
	assert_false(error_set(NULL, K_ERROR_IO, "nobody"));
	assert_false(error_set_errno(NULL, K_ERROR_IO, EIO, "nobody"));
	assert_string_equal(error_code_name(K_ERROR_CONFIG), "config");
	assert_string_equal(error_code_name(K_ERROR_NOT_FOUND), "not_found");
	assert_string_equal(error_code_name(K_ERROR_CODES), "unknown");
}

/* ---- ids ---- */

/* Of one worker, later ids sort behind earlier ones, however long they are apart. */
static void
test_ids_order(void **state)
{
	(void)state;
	static const Usec steps[] = {0,
				     16 * USEC_PER_MS,
				     63 * 16 * USEC_PER_MS,
				     USEC_PER_SEC,
				     3600 * USEC_PER_SEC,
				     86400 * USEC_PER_SEC,
				     300 * 86400 * USEC_PER_SEC};
	clock_test_begin(1, INT64_C(1795373347) * USEC_PER_SEC);
	g_autofree char *last = ids_tx_new(5, 16);
	for (size_t i = 0; i < G_N_ELEMENTS(steps); i++) {
		clock_test_advance(steps[i]);
		char *id = ids_tx_new(5, 16);
		int order = strncmp(last, id, 8);
		if (steps[i] == 0)
			assert_int_equal(order, 0);
		else
			assert_true(order < 0);
		g_free(last);
		last = id;
	}
	clock_test_end();
}

static void
test_ids_tx(void **state)
{
	(void)state;
	static const struct {
		unsigned worker;
		unsigned entropy;
		size_t len;
	} cases[] = {
		{0, 0, 8 + 22},     {1, 16, 8 + 22},    {63, 17, 8 + 23},     {64, 32, 8 + 43},
		{4095, 64, 8 + 86}, {4095, 65, 8 + 86}, {7, 4000000, 8 + 86},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *a = ids_tx_new(cases[i].worker, cases[i].entropy);
		g_autofree char *b = ids_tx_new(cases[i].worker, cases[i].entropy);
		assert_int_equal(strlen(a), cases[i].len);
		assert_string_not_equal(a, b);
		assert_true(ids_tx_is_valid(a));
		assert_int_equal(ids_tx_worker(a, IDS_WORKERS_MAX), cases[i].worker);
		assert_int_equal(ids_tx_worker(a, 3), cases[i].worker % 3);
	}
	g_autofree char *most = ids_tx_new(4095, IDS_ENTROPY_MAX);
	g_autofree char *notice = g_strconcat(most, "-b", NULL);
	assert_true(ids_tx_is_valid(notice));
	static const char *const odd[] = {"", "A", "!", "!!", "A!", "\xff\xff"};
	for (size_t i = 0; i < G_N_ELEMENTS(odd); i++) {
		assert_true(ids_tx_worker(odd[i], 4) < 4);
		assert_false(ids_tx_is_valid(odd[i]));
	}
	assert_true(ids_tx_worker(NULL, 4) < 4);
	assert_false(ids_tx_is_valid(NULL));
	assert_false(ids_tx_is_valid("AAabc/def"));
	assert_false(ids_tx_is_valid("AAabc.def"));
	g_autofree char *longest = g_strnfill(IDS_TX_MAX - 1, 'a');
	g_autofree char *longer = g_strnfill(IDS_TX_MAX, 'a');
	assert_true(ids_tx_is_valid(longest));
	assert_false(ids_tx_is_valid(longer));
}

static void
test_ids_other(void **state)
{
	(void)state;
	char a[IDS_SESSION_MAX];
	char b[IDS_SESSION_MAX];
	ids_session(a);
	ids_session(b);
	assert_string_not_equal(a, b);
	assert_memory_equal(a, b, 7); /* the process */
	unsigned seen[5] = {0};
	for (int i = 0; i < 1000; i++)
		seen[ids_random_below(5)]++;
	for (int i = 0; i < 5; i++)
		assert_in_range(seen[i], 100, 300);
	assert_int_equal(ids_random_below(1), 0);
	uint8_t bytes[64] = {0};
	ids_random(bytes, sizeof(bytes));
	unsigned zeros = 0;
	for (size_t i = 0; i < sizeof(bytes); i++)
		zeros += bytes[i] == 0;
	assert_true(zeros < 10);
	ids_random(bytes, 0);
	/* nothing is given out twice, whatever the sizes */
	static const size_t sizes[] = {16, 500, 512, 513, 1000, 16};
	uint8_t last[16] = {0}, drawn[1000];
	for (size_t i = 0; i < 200; i++) {
		size_t len = sizes[i % G_N_ELEMENTS(sizes)];
		ids_random(drawn, len);
		assert_memory_not_equal(drawn, last, sizeof(last));
		memcpy(last, drawn + len - sizeof(last), sizeof(last));
	}
}

/* ---- limbuf ---- */

static void
test_limbuf(void **state)
{
	(void)state;
	LimBuf buf;
	limbuf_init(&buf, 100);
	assert_string_equal(buf.data, "");
	limbuf_reset(&buf);
	limbuf_drop(&buf, 5);
	assert_true(limbuf_append(&buf, NULL, 0));
	char piece[100];
	memset(piece, 'x', sizeof(piece));
	assert_true(limbuf_append(&buf, piece, 99));
	assert_true(limbuf_append(&buf, "y", 1)); /* at the cap */
	assert_false(limbuf_append(&buf, "z", 1));
	assert_false(limbuf_append(&buf, piece, SIZE_MAX));
	assert_int_equal(buf.len, 100);
	assert_int_equal(buf.data[100], '\0');
	limbuf_drop(&buf, 99);
	assert_string_equal(buf.data, "y");
	assert_true(limbuf_append(&buf, "a\0b", 3));
	assert_memory_equal(buf.data, "ya\0b", 5);
	limbuf_drop(&buf, 4);
	assert_string_equal(buf.data, "");
	assert_true(limbuf_append(&buf, "again", 5));
	limbuf_reset(&buf);
	assert_int_equal(buf.len, 0);
	assert_string_equal(buf.data, "");
	limbuf_clear(&buf);
	limbuf_clear(&buf);
	limbuf_init(&buf, 0);
	assert_false(limbuf_append(&buf, "z", 1));
	limbuf_clear(&buf);
	/* Grown byte by byte. */
	limbuf_init(&buf, 5000);
	for (int i = 0; i < 5000; i++)
		assert_true(limbuf_append(&buf, &"0123456789"[i % 10], 1));
	assert_false(limbuf_append(&buf, "z", 1));
	for (int i = 0; i < 5000; i++)
		assert_int_equal(buf.data[i], "0123456789"[i % 10]);
	limbuf_clear(&buf);
}

/* ---- defer ---- */

typedef struct Task {
	Defer defer;
	DeferQueue *queue;
	GString *seen;
	char name;
	struct Task *queues; /* queued by it */
	struct Task *cancels;
	bool dies;
} Task;

static void
on_task(void *arg)
{
	Task *task = arg;
	g_string_append_c(task->seen, task->name);
	if (task->queues != NULL)
		defer_queue(task->queue, &task->queues->defer);
	if (task->cancels != NULL)
		defer_cancel(&task->cancels->defer);
	if (task->dies)
		g_free(task);
}

static Task *
task_new(DeferQueue *queue, GString *seen, char name)
{
	Task *task = g_new0(Task, 1);
	*task = (Task){.queue = queue, .seen = seen, .name = name};
	defer_init(&task->defer, on_task, task);
	return task;
}

static void
test_defer(void **state)
{
	(void)state;
	DeferQueue queue = {0};
	GString *seen = g_string_new(NULL);
	Task *a = task_new(&queue, seen, 'a');
	Task *b = task_new(&queue, seen, 'b');
	Task *c = task_new(&queue, seen, 'c');
	assert_true(defer_run(&queue, 1));
	assert_true(defer_is_empty(&queue));
	defer_queue(&queue, &a->defer);
	defer_queue(&queue, &b->defer);
	defer_queue(&queue, &a->defer); /* once */
	defer_queue(&queue, &c->defer);
	defer_cancel(&b->defer);
	defer_cancel(&b->defer);
	assert_false(defer_is_empty(&queue));
	assert_true(defer_run(&queue, 1));
	assert_string_equal(seen->str, "ac");
	/* What is queued meanwhile belongs to the next generation; also itself. */
	g_string_truncate(seen, 0);
	a->queues = a;
	defer_queue(&queue, &a->defer);
	defer_queue(&queue, &b->defer);
	assert_false(defer_run(&queue, 3));
	assert_string_equal(seen->str, "abaa");
	a->queues = NULL;
	assert_true(defer_run(&queue, 1));
	/* Cancelled by a neighbour of the same generation: the next, the last, the first. */
	static const struct {
		int canceller;
		int cancelled;
		const char *want;
	} cases[] = {{0, 1, "ac"}, {0, 2, "ab"}, {1, 2, "ab"}, {1, 0, "abc"}, {1, 1, "abc"}};
	Task *tasks[] = {a, b, c};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_string_truncate(seen, 0);
		tasks[cases[i].canceller]->cancels = tasks[cases[i].cancelled];
		for (int t = 0; t < 3; t++)
			defer_queue(&queue, &tasks[t]->defer);
		assert_true(defer_run(&queue, 5));
		assert_string_equal(seen->str, cases[i].want);
		tasks[cases[i].canceller]->cancels = NULL;
	}
	/* Its object may die in it. */
	for (int t = 0; t < 3; t++) {
		tasks[t]->dies = true;
		defer_queue(&queue, &tasks[t]->defer);
	}
	assert_true(defer_run(&queue, 1));
	g_string_free(seen, TRUE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check),     cmocka_unit_test(test_clock_formats),
		cmocka_unit_test(test_clock),     cmocka_unit_test(test_error),
		cmocka_unit_test(test_ids_tx),    cmocka_unit_test(test_ids_order),
		cmocka_unit_test(test_ids_other), cmocka_unit_test(test_limbuf),
		cmocka_unit_test(test_defer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
