/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tx/response.h"

static void
test_text(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		int code;
		const char *message, *want;
	} CASES[] = {
		{"given", 250, "2.0.0 queued", "2.0.0 queued"},
		{"empty stays empty", 250, "", ""},
		{"usual 2xx", 250, NULL, "ok"},
		{"usual 4xx", 451, NULL, "temporary error"},
		{"usual 5xx", 550, NULL, "permanent error"},
		{"usual others", 354, NULL, "internal error"},
		{"lines", 250, "a\nb", "a\nb"},
		{"carriage return", 250, "a\r\nb", "a \nb"},
		{"controls", 550, "a\x01\x1f\x7f\tb", "a    b"},
		{"UTF-8", 550,
		 "Gr\xc3\xbc\xc3\x9f"
		 "e",
		 "Gr\xc3\xbc\xc3\x9f"
		 "e"},
		{"no UTF-8", 550,
		 "a\xff"
		 "b",
		 "a\xef\xbf\xbd"
		 "b"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autoptr(Response) response = response_new(CASES[i].code, CASES[i].message);
		assert_int_equal(response->code, CASES[i].code);
		if (strcmp(response->message, CASES[i].want) != 0)
			fail_msg("%s: %s", CASES[i].name, response->message);
	}
}

static void
test_cap(void **state)
{
	(void)state;
	g_autofree char *at = g_strnfill(RESPONSE_TEXT_MAX, 'x');
	g_autofree char *over = g_strnfill(RESPONSE_TEXT_MAX + 1, 'x');
	g_autofree char *far = g_strnfill(RESPONSE_TEXT_MAX + 1000, 'x');
	const char *const texts[] = {at, over, far};
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
		g_autoptr(Response) response = response_new(550, texts[i]);
		assert_int_equal(strlen(response->message), RESPONSE_TEXT_MAX);
	}
	/* A character that would be cut is left out whole. */
	memcpy(over + RESPONSE_TEXT_MAX - 1, "\xc3\xbc", 2);
	g_autoptr(Response) whole = response_new(550, over);
	assert_int_equal(strlen(whole->message), RESPONSE_TEXT_MAX - 1);
	/* Repairing makes it longer; the cap holds still. */
	memset(at, 0xff, RESPONSE_TEXT_MAX);
	g_autoptr(Response) repaired = response_new(550, at);
	assert_true(strlen(repaired->message) <= RESPONSE_TEXT_MAX);
	assert_true(g_utf8_validate(repaired->message, -1, NULL));
	assert_true(strlen(repaired->message) > RESPONSE_TEXT_MAX - 3);
}

static void
test_format(void **state)
{
	(void)state;
	g_autoptr(Response) response = response_newf(550, "5.1.1 no %s (%d)", "bob", 7);
	assert_string_equal(response->message, "5.1.1 no bob (7)");
}

static void
test_classes(void **state)
{
	(void)state;
	static const struct {
		int code;
		bool ok, temp, perm;
	} CASES[] = {
		{100, false, false, false}, {199, false, false, false}, {200, true, false, false},
		{299, true, false, false},  {300, false, false, false}, {399, false, false, false},
		{400, false, true, false},  {499, false, true, false},  {500, false, false, true},
		{599, false, false, true},  {600, false, false, false}, {999, false, false, false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autoptr(Response) r = response_new(CASES[i].code, NULL);
		assert_int_equal(response_ok(r), CASES[i].ok);
		assert_int_equal(response_temp(r), CASES[i].temp);
		assert_int_equal(response_perm(r), CASES[i].perm);
		assert_int_equal(response_err(r), !CASES[i].ok);
	}
	assert_false(response_ok(NULL));
	assert_false(response_temp(NULL));
	assert_false(response_perm(NULL));
	assert_false(response_err(NULL));
}

static void
test_equal(void **state)
{
	(void)state;
	g_autoptr(Response) a = response_new(250, "ok");
	g_autoptr(Response) same = response_new(250, NULL);
	g_autoptr(Response) code = response_new(251, "ok");
	g_autoptr(Response) text = response_new(250, "OK");
	assert_true(response_equal(a, same));
	assert_false(response_equal(a, code));
	assert_false(response_equal(a, text));
	assert_false(response_equal(a, NULL));
	assert_false(response_equal(NULL, a));
	assert_true(response_equal(NULL, NULL));
	g_autoptr(Response) again = response_ref(a);
	assert_int_equal(again->refs, 2);
	response_unref(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),   cmocka_unit_test(test_cap),
		cmocka_unit_test(test_format), cmocka_unit_test(test_classes),
		cmocka_unit_test(test_equal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
