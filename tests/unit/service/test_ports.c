/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "service/ports.h"

static void
test_sender_of_url(void **state)
{
	(void)state;
	static const struct {
		const char *name, *url, *want;
	} cases[] = {
		{"by name", "http://localhost:8000/senders/ingress/transactions", "ingress"},
		{"by IPv4 address", "http://127.0.0.1:8000/senders/a-b/transactions", "a-b"},
		{"by IPv6 address", "http://[::1]:8000/senders/x/transactions", "x"},
		{"by session_uri", "http://router-0.example/senders/x/transactions", "x"},
		{"other port", "http://localhost:8001/senders/x/transactions", NULL},
		{"longer port", "http://localhost:80001/senders/x/transactions", NULL},
		{"other scheme", "https://localhost:8000/senders/x/transactions", NULL},
		{"no name", "http://localhost:8000/senders//transactions", NULL},
		{"more path", "http://localhost:8000/senders/x/transactions/1", NULL},
		{"other path", "http://localhost:8000/transactions", NULL},
		{"nothing", "", NULL},
	};
	LocalUrls urls;
	local_urls_init(&urls);
	local_urls_add_listener(urls.router, false, "localhost", 8000);
	local_urls_add(urls.router, "http://router-0.example/some/path");
	local_urls_add(urls.router, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *got = local_urls_sender(urls.router, cases[i].url);
		if (g_strcmp0(got, cases[i].want) != 0)
			fail_msg("%s: got %s", cases[i].name, got != NULL ? got : "(none)");
		g_autofree char *other = local_urls_sender(urls.gateway, cases[i].url);
		assert_null(other);
	}
	local_urls_clear(&urls);
}

static void
test_literal_listener(void **state)
{
	(void)state;
	LocalUrls urls;
	local_urls_init(&urls);
	local_urls_add_listener(urls.gateway, true, "::1", 8443);
	g_autofree char *got = local_urls_sender(urls.gateway,
						 "https://[::1]:8443/senders/r/transactions");
	assert_string_equal(got, "r");
	g_autofree char *other = local_urls_sender(urls.gateway,
						   "https://localhost:8443/senders/r/transactions");
	assert_null(other);
	local_urls_clear(&urls);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sender_of_url),
		cmocka_unit_test(test_literal_listener),
	};
	return cmocka_run_group_tests_name("service-ports", tests, NULL, NULL);
}
