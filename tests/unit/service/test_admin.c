/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "service/admin_json.h"

#define NOW 1700000000

static void
test_filters(void **state)
{
	(void)state;
	static const struct {
		const char *query;
		StoreState state;
		const char *from, *to, *destination, *after, *reason;
		int64_t older_than;
		unsigned limit;
	} cases[] = {
		{NULL, STORE_ANY, NULL, NULL, NULL, NULL, NULL, 0, ADMIN_LIMIT_DEFAULT},
		{"", STORE_ANY, NULL, NULL, NULL, NULL, NULL, 0, ADMIN_LIMIT_DEFAULT},
		{"&&", STORE_ANY, NULL, NULL, NULL, NULL, NULL, 0, ADMIN_LIMIT_DEFAULT},
		{"state=held&limit=1", STORE_HELD, NULL, NULL, NULL, NULL, NULL, 0, 1},
		{"state=any&limit=1000", STORE_ANY, NULL, NULL, NULL, NULL, NULL, 0,
		 STORE_LIST_MAX},
		{"from=a+b%40x.y&to=%40z", STORE_ANY, "a+b@x.y", "@z", NULL, NULL, NULL, 0,
		 ADMIN_LIMIT_DEFAULT},
		{"destination=example.com&older_than=60", STORE_ANY, NULL, NULL, "example.com",
		 NULL, NULL, NOW - 60, ADMIN_LIMIT_DEFAULT},
		{"older_than=4294967295", STORE_ANY, NULL, NULL, NULL, NULL, NULL, 1,
		 ADMIN_LIMIT_DEFAULT},
		{"after=AAabc&reason=a%20b", STORE_ANY, NULL, NULL, NULL, "AAabc", "a b", 0,
		 ADMIN_LIMIT_DEFAULT},
		{"to=first@x&to=second@x", STORE_ANY, NULL, "second@x", NULL, NULL, NULL, 0,
		 ADMIN_LIMIT_DEFAULT},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_auto(AdminFilter) got = {0};
		g_autoptr(GError) error = NULL;
		if (!admin_filter_parse(cases[i].query, NOW, &got, &error))
			fail_msg("%s: %s", cases[i].query, error->message);
		if (got.filter.state != cases[i].state || got.filter.limit != cases[i].limit ||
		    got.filter.older_than != cases[i].older_than ||
		    g_strcmp0(got.filter.mail_from, cases[i].from) != 0 ||
		    g_strcmp0(got.filter.rcpt, cases[i].to) != 0 ||
		    g_strcmp0(got.filter.destination, cases[i].destination) != 0 ||
		    g_strcmp0(got.filter.after, cases[i].after) != 0 ||
		    g_strcmp0(got.reason, cases[i].reason) != 0)
			fail_msg("%s: read otherwise", cases[i].query);
	}
}

static void
test_bad_filters(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"state=none",   "state=",
		"limit=0",      "limit=1001",
		"limit=-1",     "limit=x",
		"from=",        "older_than=-5",
		"older_than=x", "older_than=4294967296",
		"after=a/b",    "nonsense=1",
		"%zz=1",        "to=%0a",
		"to=%ff",       "state",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_auto(AdminFilter) got = {0};
		g_autoptr(GError) error = NULL;
		if (admin_filter_parse(cases[i], NOW, &got, &error) || error == NULL)
			fail_msg("%s: taken", cases[i]);
	}
}

static void
test_states(void **state)
{
	(void)state;
	static const struct {
		const char *final_reason;
		bool leased, held;
		const char *want;
	} cases[] = {
		{NULL, false, false, "queued"},    {NULL, true, false, "leased"},
		{NULL, false, true, "held"},       {"oneshot", false, false, "final"},
		{"oneshot", false, true, "final"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(StoreRow) row = store_row_new();
		row->final_reason = g_strdup(cases[i].final_reason);
		row->leased = cases[i].leased;
		row->held = cases[i].held;
		assert_string_equal(admin_state(row), cases[i].want);
	}
}

static void
test_row(void **state)
{
	(void)state;
	g_autoptr(StoreRow) row = store_row_new();
	row->id = g_strdup("AAx");
	row->mail_from = g_strdup("a@x");
	row->rcpt = g_strdup("\xff@y"); /* no UTF-8 */
	row->creation = NOW;
	row->attempts = 3;
	row->responses = g_strdup("{\"mail_response\":{\"code\":450}}");
	row->json = g_strdup("{broken");
	g_autoptr(json_t) brief = admin_row(row, false);
	assert_string_equal(json_get_str(brief, "id"), "AAx");
	assert_string_equal(json_get_str(brief, "state"), "queued");
	assert_non_null(json_get_str(brief, "to"));
	assert_int_equal(json_integer_value(json_object_get(brief, "created")), NOW);
	assert_true(json_is_null(json_object_get(brief, "next_attempt")));
	assert_true(json_is_null(json_object_get(brief, "held_reason")));
	assert_null(json_object_get(brief, "responses"));
	g_autoptr(json_t) full = admin_row(row, true);
	const json_t *mail = json_object_get(json_object_get(full, "responses"), "mail_response");
	assert_int_equal(json_integer_value(json_object_get(mail, "code")), 450);
	assert_true(json_is_null(json_object_get(full, "request")));
	assert_string_equal(json_get_str(full, "last_attempt"), "temporary");
	assert_true(json_is_array(json_object_get(full, "parts")));
}

static void
test_count(void **state)
{
	(void)state;
	const StoreCount count = {
		.destination = (char *)"x", .queued = 5, .held = 1, .oldest = NOW - 90};
	g_autoptr(json_t) json = admin_count(&count, NOW);
	assert_string_equal(json_get_str(json, "destination"), "x");
	assert_int_equal(json_integer_value(json_object_get(json, "queued")), 5);
	assert_int_equal(json_integer_value(json_object_get(json, "oldest_age")), 90);
	const StoreCount all = {.oldest = NOW + 5}; /* the clock went back */
	g_autoptr(json_t) total = admin_count(&all, NOW);
	assert_null(json_object_get(total, "destination"));
	assert_int_equal(json_integer_value(json_object_get(total, "oldest_age")), 0);
	const StoreCount none = {0};
	g_autoptr(json_t) empty = admin_count(&none, NOW);
	assert_true(json_is_null(json_object_get(empty, "oldest")));
}

#define OK_OK                                                                                      \
	"{\"mail_response\":{\"code\":250},\"rcpt_response\":[{\"code\":250}],\"data_response\":"

static void
test_last_attempt(void **state)
{
	(void)state;
	static const struct {
		const char *responses, *want;
	} table[] = {
		{NULL, NULL},
		{"[]", NULL},
		{"{}", NULL},
		{"{\"mail_response\":{\"code\":250}}", NULL},
		{"{\"mail_response\":{\"code\":550}}", "permanent"},
		{"{\"mail_response\":{\"code\":250},\"rcpt_response\":[{\"code\":450}],"
		 "\"data_response\":{\"code\":554}}",
		 "temporary"},
		{OK_OK "{\"code\":250}}", "accepted"},
		{OK_OK "{\"code\":554,\"message\":\"no\"}}", "permanent"},
		{OK_OK "{\"code\":450,\"message\":\"4.4.2 x (message not sent)\"}}", "temporary"},
		{OK_OK "{\"code\":450,\"message\":\"4.4.2 next hop closed the connection "
		       "(message sent, not acknowledged)\"}}",
		 "unacknowledged"},
		{OK_OK "{\"code\":554,\"message\":\"(message sent, not acknowledged)\"}}",
		 "permanent"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
		g_autoptr(StoreRow) row = store_row_new();
		row->id = g_strdup("AAx");
		row->responses = g_strdup(table[i].responses);
		g_autoptr(json_t) full = admin_row(row, true);
		const char *got = json_get_str(full, "last_attempt");
		if (g_strcmp0(got, table[i].want) != 0)
			fail_msg("%s: %s", table[i].responses, got != NULL ? got : "(none)");
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_last_attempt), cmocka_unit_test(test_filters),
		cmocka_unit_test(test_bad_filters),  cmocka_unit_test(test_states),
		cmocka_unit_test(test_row),          cmocka_unit_test(test_count),
	};
	return cmocka_run_group_tests_name("service-admin", tests, NULL, NULL);
}
