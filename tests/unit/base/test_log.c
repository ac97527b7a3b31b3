/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines, read back from a pipe in place of standard error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

#define TIME "2009-02-13T23:31:30.123456Z"

static int log_fd; /* our end of the pipe */
static int saved_stderr;

static int
setup(void **state)
{
	(void)state;
	int fds[2];
	if (pipe(fds) != 0)
		return -1;
	log_fd = fds[0];
	fcntl(log_fd, F_SETFL, O_NONBLOCK);
	fcntl(log_fd, F_SETPIPE_SZ, 1 << 20);
	saved_stderr = dup(STDERR_FILENO);
	fflush(stderr);
	dup2(fds[1], STDERR_FILENO);
	close(fds[1]);
	clock_test_begin(1, 1234567890 * USEC_PER_SEC + 123456);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(log_fd);
	clock_test_end();
	log_set(LOG_INFO, LOG_LOGFMT);
	return 0;
}

static char *
take_log(void)
{
	GString *text = g_string_new(NULL);
	char piece[65536];
	ssize_t got;
	while ((got = read(log_fd, piece, sizeof(piece))) > 0)
		g_string_append_len(text, piece, got);
	return g_string_free(text, FALSE);
}

static void
assert_log(const char *want)
{
	g_autofree char *got = take_log();
	assert_string_equal(got, want);
}

static void
test_levels(void **state)
{
	(void)state;
	static const char *const names[] = {"debug", "info", "warn", "error"};
	for (int least = 0; least < LOG_LEVELS; least++) {
		LogLevel level;
		assert_true(log_parse_level(names[least], &level));
		assert_int_equal(level, least);
		log_set(level, LOG_LOGFMT);
		log_debug(NULL, "event");
		log_info(NULL, "event");
		log_warn(NULL, "event");
		log_error(NULL, "event");
		GString *want = g_string_new(NULL);
		for (int i = least; i < LOG_LEVELS; i++)
			g_string_append_printf(want, TIME " %s event\n", names[i]);
		assert_log(want->str);
		g_string_free(want, TRUE);
	}
	LogLevel level;
	assert_true(log_parse_level("WARNING", &level));
	assert_int_equal(level, LOG_WARN);
	assert_false(log_parse_level("loud", &level));
}

static const struct {
	const char *value;
	const char *logfmt;
	const char *json;
} value_cases[] = {
	{"plain", "plain", "\"plain\""},
	{"", "\"\"", "\"\""},
	{NULL, "\"\"", "\"\""},
	{"a b", "\"a b\"", "\"a b\""},
	{"a=b", "\"a=b\"", "\"a=b\""},
	{"say \"x\"", "\"say \\\"x\\\"\"", "\"say \\\"x\\\"\""},
	{"back\\slash", "\"back\\\\slash\"", "\"back\\\\slash\""},
	{"x\r\n2009 info fake", "\"x\\\\x0d\\\\x0a2009 info fake\"",
	 "\"x\\\\x0d\\\\x0a2009 info fake\""},
	{"\x1b[2J", "\"\\\\x1b[2J\"", "\"\\\\x1b[2J\""},
	{"\xff", "\"\\\\xff\"", "\"\\\\xff\""},
	{"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f", "\"gr\xc3\xbc\xc3\x9f\""},
	{"\xc3\xbc b", "\"\xc3\xbc b\"", "\"\xc3\xbc b\""},
	{"\xc3\xbc=\x7f", "\"\xc3\xbc=\\\\x7f\"", "\"\xc3\xbc=\\\\x7f\""},
};

static void
test_values(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(value_cases); i++) {
		log_set(LOG_INFO, LOG_LOGFMT);
		log_info(NULL, "e", LOG_S("k", value_cases[i].value));
		g_autofree char *logfmt = g_strdup_printf(TIME " info e k=%s\n",
							  value_cases[i].logfmt);
		assert_log(logfmt);
		log_set(LOG_INFO, LOG_JSON);
		log_info(NULL, "e", LOG_S("k", value_cases[i].value));
		g_autofree char *json = g_strdup_printf(
			"{\"time\":\"" TIME "\",\"level\":\"info\",\"event\":\"e\",\"k\":%s}\n",
			value_cases[i].json);
		assert_log(json);
		g_autoptr(json_t) parsed = json_parse("log", json, strlen(json), NULL);
		assert_non_null(parsed);
	}
}

static void
test_fields(void **state)
{
	(void)state;
	LogCtx both = {.session = "s1", .tx = "t1"};
	LogCtx one = {.tx = "t1"};
	log_set(LOG_INFO, LOG_LOGFMT);
	log_warn(&both, "tx done", LOG_I("n", -5), LOG_T("took", 1500000), LOG_T("less", -1),
		 LOG_B("tls", true), LOG_I("max", INT64_MAX));
	assert_log(TIME " warn \"tx done\" session=s1 tx=t1 n=-5 took=1.500000 less=-0.000001 "
			"tls=true max=9223372036854775807\n");
	log_set(LOG_INFO, LOG_JSON);
	log_error(&one, "e", LOG_I("n", 5), LOG_T("took", 0), LOG_B("tls", false));
	assert_log("{\"time\":\"" TIME "\",\"level\":\"error\",\"event\":\"e\",\"tx\":\"t1\","
		   "\"n\":5,\"took\":0.000000,\"tls\":false}\n");
}

static void
test_caps(void **state)
{
	(void)state;
	static const size_t lens[] = {LOG_VALUE_MAX, LOG_VALUE_MAX + 1, 1000000};
	for (size_t i = 0; i < G_N_ELEMENTS(lens); i++) {
		log_set(LOG_INFO, LOG_LOGFMT);
		g_autofree char *value = g_strnfill(lens[i], 'v');
		log_info(NULL, "e", LOG_S("k", value));
		g_autofree char *want = g_strdup_printf(TIME " info e k=%.*s%s\n", LOG_VALUE_MAX,
							value,
							lens[i] > LOG_VALUE_MAX ? "..." : "");
		assert_log(want);
	}
	/* Many long fields: the line ends at a whole field and says so. */
	for (int format = 0; format < LOG_FORMATS; format++) {
		log_set(LOG_INFO, (LogFormat)format);
		g_autofree char *value = g_strnfill(LOG_VALUE_MAX, 'v');
		LogField fields[100] = {{0}};
		for (int i = 0; i < 99; i++)
			fields[i] = LOG_S("key", value);
		log_emit(LOG_INFO, NULL, "e", fields);
		g_autofree char *got = take_log();
		assert_true(strlen(got) <= 16384);
		assert_true(strlen(got) > 15000);
		assert_true(g_str_has_suffix(got, format == LOG_JSON ? "v\",\"truncated\":true}\n"
								     : "v truncated=true\n"));
	}
}

/* In a thread of its own, since holding ends with the thread. */
static void *
hold_some(void *arg)
{
	(void)arg;
	log_hold();
	log_info(NULL, "kept", LOG_I("n", 1));
	log_info(NULL, "kept", LOG_I("n", 2));
	assert_log("");
	log_flush();
	assert_log(TIME " info kept n=1\n" TIME " info kept n=2\n");
	log_flush();
	assert_log("");
	/* what is wrong is told at once, and behind what came before it */
	log_info(NULL, "kept");
	log_warn(NULL, "told");
	assert_log(TIME " info kept\n" TIME " warn told\n");
	/* at most a pipe's piece is kept, and no line is cut */
	g_autofree char *value = g_strnfill(500, 'v');
	for (int i = 0; i < 20; i++)
		log_info(NULL, "e", LOG_S("k", value));
	g_autofree char *early = take_log();
	assert_true(strlen(early) > 20 * 500 - 4096);
	assert_true(g_str_has_suffix(early, "v\n"));
	LogField fields[20] = {{0}};
	for (int i = 0; i < 19; i++)
		fields[i] = LOG_S("key", value);
	log_emit(LOG_INFO, NULL, "long", fields); /* too long to be kept */
	g_autofree char *late = take_log();
	assert_true(strlen(late) > 19 * 500);
	g_autofree char *all = g_strconcat(early, late, NULL);
	g_auto(GStrv) lines = g_strsplit(all, "\n", -1);
	assert_int_equal(g_strv_length(lines), 22);
	assert_non_null(strstr(lines[20], " info long "));
	return NULL;
}

static void
test_hold(void **state)
{
	(void)state;
	pthread_t thread;
	log_set(LOG_INFO, LOG_LOGFMT);
	assert_int_equal(pthread_create(&thread, NULL, hold_some, NULL), 0);
	pthread_join(thread, NULL);
}

static void *
write_many(void *arg)
{
	g_autofree char *value = g_strnfill(300, *(char *)arg);
	for (int i = 0; i < 200; i++)
		log_info(NULL, "e", LOG_S("k", value));
	return NULL;
}

static void
test_threads(void **state)
{
	(void)state;
	log_set(LOG_INFO, LOG_LOGFMT);
	pthread_t threads[4];
	char names[] = "abcd";
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_many, &names[i]), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	g_autofree char *got = take_log();
	g_auto(GStrv) lines = g_strsplit(got, "\n", -1);
	assert_int_equal(g_strv_length(lines), 801);
	for (int i = 0; i < 800; i++) {
		const char *value = strstr(lines[i], " k=");
		assert_non_null(value);
		assert_int_equal(strlen(value), 303);
		assert_int_equal(strspn(value + 3, (char[]){value[3], '\0'}), 300);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_levels, setup, teardown),
		cmocka_unit_test_setup_teardown(test_values, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fields, setup, teardown),
		cmocka_unit_test_setup_teardown(test_caps, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hold, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
