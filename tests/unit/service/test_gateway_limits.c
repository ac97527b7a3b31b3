/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "service/gateway_limits.h"

static void
test_nothing(void **state)
{
	const GatewayLimitsConf conf = {0};
	(void)state;
	assert_null(gateway_limits_new(&conf));
	gateway_limits_free(NULL);
}

static void
test_connections(void **state)
{
	const GatewayLimitsConf conf = {.connections_max = 3, .connections_per_client = 2};
	GatewayLimits *limits = gateway_limits_new(&conf);
	(void)state;
	assert_true(gateway_limits_admit(limits, SMTP_GATE_CONNECTION, "192.0.2.1"));
	assert_true(gateway_limits_admit(limits, SMTP_GATE_CONNECTION, "192.0.2.1"));
	assert_false(gateway_limits_admit(limits, SMTP_GATE_CONNECTION, "192.0.2.1"));
	assert_true(gateway_limits_admit(limits, SMTP_GATE_CONNECTION, "192.0.2.2"));
	assert_false(gateway_limits_admit(limits, SMTP_GATE_CONNECTION, "192.0.2.3"));
	gateway_limits_leave(limits, "192.0.2.1");
	assert_true(gateway_limits_admit(limits, SMTP_GATE_CONNECTION, "192.0.2.1"));
	assert_true(gateway_limits_admit(limits, SMTP_GATE_MESSAGE, "192.0.2.1"));
	gateway_limits_free(limits);
}

/* All of a /64 is one client; the next one is another. */
static void
test_networks(void **state)
{
	const GatewayLimitsConf conf = {.connections_per_client = 1};
	GatewayLimits *limits = gateway_limits_new(&conf);
	(void)state;
	assert_true(gateway_limits_admit(limits, SMTP_GATE_CONNECTION, "2001:db8::1"));
	assert_false(gateway_limits_admit(limits, SMTP_GATE_CONNECTION, "2001:db8::ffff:2"));
	assert_true(gateway_limits_admit(limits, SMTP_GATE_CONNECTION, "2001:db8:0:1::1"));
	gateway_limits_leave(limits, "2001:db8::ffff:2");
	assert_true(gateway_limits_admit(limits, SMTP_GATE_CONNECTION, "2001:db8::3"));
	gateway_limits_free(limits);
}

static void
test_rates(void **state)
{
	GatewayLimitsConf conf = {0};
	(void)state;
	conf.rates[SMTP_GATE_MESSAGE] = (GatewayRate){3, 60 * USEC_PER_SEC};
	clock_test_begin(1000 * USEC_PER_SEC, 0);
	GatewayLimits *limits = gateway_limits_new(&conf);
	for (int i = 0; i < 5; i++)
		assert_int_equal(gateway_limits_admit(limits, SMTP_GATE_MESSAGE, "192.0.2.1"),
				 i < 3);
	assert_true(gateway_limits_admit(limits, SMTP_GATE_RCPT, "192.0.2.1"));
	assert_true(gateway_limits_admit(limits, SMTP_GATE_MESSAGE, "192.0.2.2"));
	clock_test_advance(19 * USEC_PER_SEC);
	assert_false(gateway_limits_admit(limits, SMTP_GATE_MESSAGE, "192.0.2.1"));
	clock_test_advance(1 * USEC_PER_SEC);
	assert_true(gateway_limits_admit(limits, SMTP_GATE_MESSAGE, "192.0.2.1"));
	assert_false(gateway_limits_admit(limits, SMTP_GATE_MESSAGE, "192.0.2.1"));
	clock_test_advance(3600 * USEC_PER_SEC);
	for (int i = 0; i < 5; i++)
		assert_int_equal(gateway_limits_admit(limits, SMTP_GATE_MESSAGE, "192.0.2.1"),
				 i < 3);
	gateway_limits_free(limits);
	clock_test_end();
}

static void
test_auth(void **state)
{
	GatewayLimitsConf conf = {0};
	(void)state;
	conf.rates[SMTP_GATE_AUTH_FAILURE] = (GatewayRate){2, 3600 * USEC_PER_SEC};
	GatewayLimits *limits = gateway_limits_new(&conf);
	for (int i = 0; i < 10; i++)
		assert_true(gateway_limits_admit(limits, SMTP_GATE_AUTH, "192.0.2.1"));
	(void)gateway_limits_admit(limits, SMTP_GATE_AUTH_FAILURE, "192.0.2.1");
	assert_true(gateway_limits_admit(limits, SMTP_GATE_AUTH, "192.0.2.1"));
	(void)gateway_limits_admit(limits, SMTP_GATE_AUTH_FAILURE, "192.0.2.1");
	assert_false(gateway_limits_admit(limits, SMTP_GATE_AUTH, "192.0.2.1"));
	assert_true(gateway_limits_admit(limits, SMTP_GATE_AUTH, "192.0.2.2"));
	gateway_limits_free(limits);
}

/* The table is bounded, and forgets. */
static void
test_memory(void **state)
{
	GatewayLimitsConf conf = {.connections_per_client = 1};
	(void)state;
	clock_test_begin(1000 * USEC_PER_SEC, 0);
	GatewayLimits *limits = gateway_limits_new(&conf);
	for (unsigned i = 0; i < GATEWAY_LIMITS_ADDRESSES + 10; i++) {
		char address[32];
		(void)snprintf(address, sizeof(address), "10.%u.%u.%u", i >> 16, i >> 8 & 255,
			       i & 255);
		assert_true(gateway_limits_admit(limits, SMTP_GATE_MESSAGE, address));
	}
	assert_int_equal(gateway_limits_addresses(limits), GATEWAY_LIMITS_ADDRESSES);
	clock_test_advance(60 * USEC_PER_SEC);
	assert_true(gateway_limits_admit(limits, SMTP_GATE_CONNECTION, "192.0.2.1"));
	assert_int_equal(gateway_limits_addresses(limits), 1);
	gateway_limits_free(limits);
	clock_test_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing),  cmocka_unit_test(test_connections),
		cmocka_unit_test(test_networks), cmocka_unit_test(test_rates),
		cmocka_unit_test(test_auth),     cmocka_unit_test(test_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
