/* SPDX-License-Identifier: Apache-2.0 */
/* Who may use a REST listener, and how much of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "service/access.h"
#include "service/rest_limits.h"

#define NOW (1000 * USEC_PER_SEC)

static void
test_no_limits(void **state)
{
	(void)state;
	assert_null(rest_limits_new(&(RestLimitsConf){0}));
	rest_limits_free(NULL);
}

static void
test_rate(void **state)
{
	(void)state;
	unsigned wait = 0;
	RestLimits *limits = rest_limits_new(&(RestLimitsConf){.requests_per_minute = 3});
	for (int i = 0; i < 3; i++)
		assert_int_equal(rest_limits_admit(limits, "a", false, NOW, &wait),
				 REST_LIMIT_NONE);
	assert_int_equal(rest_limits_admit(limits, "a", false, NOW, &wait), REST_LIMIT_RATE);
	assert_int_equal(wait, 20);
	assert_int_equal(rest_limits_admit(limits, "b", false, NOW, &wait), REST_LIMIT_NONE);
	/* Just before, and when it was said. */
	assert_int_equal(rest_limits_admit(limits, "a", false, NOW + 20 * USEC_PER_SEC - 1, &wait),
			 REST_LIMIT_RATE);
	assert_int_equal(wait, 1);
	assert_int_equal(rest_limits_admit(limits, "a", false, NOW + 20 * USEC_PER_SEC, &wait),
			 REST_LIMIT_NONE);
	assert_int_equal(rest_limits_admit(limits, "a", false, NOW + 20 * USEC_PER_SEC, &wait),
			 REST_LIMIT_RATE);
	rest_limits_free(limits);
}

static void
test_uploads(void **state)
{
	(void)state;
	unsigned wait = 0;
	RestLimits *limits = rest_limits_new(&(RestLimitsConf){.uploads_max = 2});
	assert_int_equal(rest_limits_admit(limits, "a", true, NOW, &wait), REST_LIMIT_NONE);
	assert_int_equal(rest_limits_admit(limits, "a", true, NOW, &wait), REST_LIMIT_NONE);
	assert_int_equal(rest_limits_admit(limits, "a", true, NOW, &wait), REST_LIMIT_UPLOADS);
	assert_int_equal(wait, 1);
	assert_int_equal(rest_limits_admit(limits, "a", false, NOW, &wait), REST_LIMIT_NONE);
	assert_int_equal(rest_limits_admit(limits, "b", true, NOW, &wait), REST_LIMIT_NONE);
	rest_limits_leave(limits, "a");
	assert_int_equal(rest_limits_admit(limits, "a", true, NOW, &wait), REST_LIMIT_NONE);
	assert_int_equal(rest_limits_admit(limits, "a", true, NOW, &wait), REST_LIMIT_UPLOADS);
	rest_limits_free(limits);
}

/* Who is forgotten owes nothing; who owes something is remembered. */
static void
test_memory(void **state)
{
	(void)state;
	unsigned wait = 0;
	RestLimits *limits = rest_limits_new(&(RestLimitsConf){1, 10});
	assert_int_equal(rest_limits_admit(limits, "up", true, NOW, &wait), REST_LIMIT_NONE);
	for (unsigned i = 0; i < REST_LIMITS_CLIENTS + 5; i++) {
		char name[32];
		(void)snprintf(name, sizeof(name), "c%u", i);
		assert_int_equal(rest_limits_admit(limits, name, false, NOW, &wait),
				 REST_LIMIT_NONE);
	}
	assert_int_equal(rest_limits_clients(limits), REST_LIMITS_CLIENTS);
	assert_int_equal(rest_limits_admit(limits, "new", false, NOW + 61 * USEC_PER_SEC, &wait),
			 REST_LIMIT_NONE);
	assert_int_equal(rest_limits_clients(limits), 2); /* "up" and "new" */
	rest_limits_free(limits);
}

static void
test_addresses(void **state)
{
	static const struct {
		const char *address, *client;
	} rows[] = {{"192.0.2.1", "192.0.2.1"},
		    {"", ""},
		    {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		    {"2001:db8:1:2::9", "2001:db8:1:2::/64"},
		    {"2001:db8:1:3::9", "2001:db8:1:3::/64"},
		    {"::1", "::/64"}};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree char *client = rest_limits_client(rows[i].address);
		assert_string_equal(client, rows[i].client);
	}
}

/* ---- access ---- */

#define CONFIG                                                                                       \
	"koukan:\n  rest:\n    client_ca: ca.pem\n    access:\n"                                     \
	"    - name: a\n      senders: [s, t]\n      api_keys: ['sha256:2C26B46B68FFC68FF99B453C1D3" \
	"0413413422D706483BFA0F98A5E886266E7AE']\n"                                                  \
	"    - name: b\n      senders: ['*']\n      certificates: [App.example.com]\n"               \
	"rest_listener: {cert: c, key: k}\n"

static void
test_access(void **state)
{
	(void)state;
	g_autoptr(ConfReport) report = conf_report_new();
	RouterConfig *config = router_config_load_text("t", CONFIG, report);
	assert_non_null(config);
	Access *access = access_new(&config->koukan.rest);
	static const char *const none[] = {NULL}, *const app[] = {"x.example", "app.example.com",
								  NULL};
	const HttpPeer plain = {.names = none}, cert = {.fingerprint = "00", .names = app};
	const HttpPeer unproved = {.names = app};
	const RestPrincipal *a = access_match(access, "Bearer foo", &plain);
	assert_non_null(a);
	assert_string_equal(a->name, "a");
	assert_true(rest_principal_may(a, "s"));
	assert_true(rest_principal_may(a, "t"));
	assert_false(rest_principal_may(a, "u"));
	assert_false(rest_principal_may(a, NULL));
	assert_false(a->admin);
	assert_null(access_match(access, "Bearer fo", &plain));
	assert_null(access_match(access, "Bearer foo bar", &plain));
	assert_null(access_match(access, "Basic foo", &plain));
	assert_null(access_match(access, NULL, &plain));
	assert_null(access_match(access, NULL, &unproved));
	const RestPrincipal *b = access_match(access, NULL, &cert);
	assert_non_null(b);
	assert_string_equal(b->name, "b");
	assert_true(rest_principal_may(b, "whatever"));
	assert_true(rest_principal_may(NULL, "whatever"));
	/* A wrong key is not helped by a certificate. */
	assert_null(access_match(access, "Bearer fo", &cert));
	access_free(access);
	router_config_unref(config);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_limits), cmocka_unit_test(test_rate),
		cmocka_unit_test(test_uploads),   cmocka_unit_test(test_memory),
		cmocka_unit_test(test_addresses), cmocka_unit_test(test_access),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
