/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "cmd/queue_table.h"

static void
test_ages(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int64_t want; /* -1: refused */
	} cases[] = {
		{"0", 0},       {"90", 90},
		{"90s", 90},    {"15m", 900},
		{"2h", 7200},   {"3d", 259200},
		{"", -1},       {"s", -1},
		{"-1", -1},     {"1w", -1},
		{"1.5h", -1},   {"1 h", -1},
		{"hh", -1},     {"36525d", INT64_C(3155760000)},
		{"36526d", -1}, {"99999999999999999999", -1},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		int64_t got = -1;
		if (!queue_parse_age(cases[i].text, &got))
			got = -1;
		if (got != cases[i].want)
			fail_msg("%s: %lld", cases[i].text, (long long)got);
	}
}

static void
test_short_ages(void **state)
{
	(void)state;
	static const struct {
		int64_t seconds;
		const char *want;
	} cases[] = {
		{-5, "0s"},     {0, "0s"},    {119, "119s"},  {120, "2m"},
		{7199, "119m"}, {7200, "2h"}, {172800, "2d"}, {8640000, "100d"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *got = queue_format_age(cases[i].seconds);
		assert_string_equal(got, cases[i].want);
	}
}

/* What a peer called itself does not reach the terminal as it is, and columns line up. */
static void
test_rows(void **state)
{
	(void)state;
	static const char text[] =
		"[{\"id\":\"AAx\",\"state\":\"queued\",\"created\":1,\"attempts\":2,"
		"\"next_attempt\":1,\"from\":\"evil\\u001b[2J@x\",\"to\":\"b@y\","
		"\"held_reason\":null,\"final_reason\":null},"
		"{\"id\":\"AAlonger\",\"state\":\"held\",\"from\":\"a@x\",\"to\":\"b@y\","
		"\"held_reason\":\"crashed 3 times\"}]";
	g_autoptr(json_t) rows = json_parse("rows", text, strlen(text), NULL);
	char *out = NULL;
	size_t len = 0;
	FILE *file = open_memstream(&out, &len);
	queue_table_rows(file, rows);
	fclose(file);
	g_auto(GStrv) lines = g_strsplit(out, "\n", -1);
	assert_int_equal(g_strv_length(lines), 4); /* and the end */
	assert_null(strchr(out, 0x1b));
	assert_non_null(strstr(lines[2], "crashed 3 times"));
	assert_non_null(strstr(lines[1], " now "));
	assert_ptr_equal(strstr(lines[0], "STATE") - lines[0], strstr(lines[2], "held") - lines[2]);
	free(out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ages),
		cmocka_unit_test(test_short_ages),
		cmocka_unit_test(test_rows),
	};
	return cmocka_run_group_tests_name("cmd-queue-table", tests, NULL, NULL);
}
