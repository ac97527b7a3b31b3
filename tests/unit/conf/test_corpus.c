/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration files of the existing system load unchanged.  They are no part of this
 * repository: $KOUKAN_CORPUS/koukan, or ../shared/testdata/koukan beside it; skipped elsewhere. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <glib.h>

#include "conf/config.h"

/* The path of a corpus file, or NULL after saying so.  Caller frees. */
static char *
corpus_file(const char *name)
{
	const char *corpus = g_getenv("KOUKAN_CORPUS");
	g_autofree char *path = corpus != NULL
					? g_build_filename(corpus, "koukan", name, NULL)
					: g_build_filename(KOUKAN_SOURCE_ROOT, "..", "shared",
							   "testdata", "koukan", name, NULL);
	if (g_file_test(path, G_FILE_TEST_IS_REGULAR))
		return g_steal_pointer(&path);
	print_message("skipped: no %s (KOUKAN_CORPUS names the folder above koukan/)\n", path);
	return NULL;
}

static void
assert_no_errors(const ConfReport *report)
{
	g_autoptr(GString) text = g_string_new(NULL);
	conf_report_format(report, text);
	if (report->errors > 0)
		fail_msg("%s", text->str);
}

static RouterConfig *
load_router(const char *path, ConfReport *report)
{
	RouterConfig *config = router_config_load(path, report);
	assert_no_errors(report);
	assert_non_null(config);
	return config;
}

static void
test_router(void **state)
{
	(void)state;
	g_autofree char *path = corpus_file("router.yaml");
	if (path == NULL)
		skip(); /* leaves by longjmp: nothing may be held yet */
	g_autoptr(ConfReport) report = conf_report_new();
	RouterConfig *config = load_router(path, report);
	assert_int_equal(config->endpoints->len, 5);
	assert_int_equal(config->model->senders->len, 3);
	assert_int_equal(config->model->rest_endpoints->len, 4);
	assert_null(config->storage_url);
	const EndpointConf *submission = router_config_endpoint(config, "submission");
	assert_int_equal(submission->retry.max_attempts, 3);
	assert_int_equal(submission->downstream_timeout, 5 * USEC_PER_SEC);
	assert_string_equal(submission->notification_tag, "notification");
	assert_true(router_config_endpoint(config, "ingress_exploder")->chain->incremental);
	const SenderConf *circuit = conf_model_sender(config->model, "ingress", "short_circuit");
	assert_string_equal(circuit->remote_host, "127.0.0.1");
	assert_string_equal(circuit->smtp_meta, "{\"ehlo_host\":\"localhost\"}");
	router_config_unref(config);
}

static void
test_router_of_the_tests(void **state)
{
	(void)state;
	g_autofree char *path = corpus_file("router_service_test-router.yaml");
	if (path == NULL)
		skip(); /* leaves by longjmp: nothing may be held yet */
	g_autoptr(ConfReport) report = conf_report_new();
	RouterConfig *config = load_router(path, report);
	assert_false(config->dequeue);
	assert_int_equal(config->gc_interval, 0);
	assert_int_equal(config->gc_ttl, 0);
	const EndpointConf *ingress = router_config_endpoint(config, "ingress");
	assert_true(ingress->has_retry); /* retry_params: {} */
	assert_int_equal(ingress->retry.max_attempts, 30);
	assert_true(router_config_endpoint(config, "submission")->retry.backoff_factor == 0);
	router_config_unref(config);
}

static void
test_gateway(void **state)
{
	(void)state;
	g_autofree char *path = corpus_file("gateway.yaml");
	if (path == NULL)
		skip();
	g_autoptr(ConfReport) report = conf_report_new();
	GatewayConfig *config = gateway_config_load(path, report);
	assert_no_errors(report);
	assert_int_equal(report->problems->len, 1); /* smtps without a certificate */
	assert_int_equal(config->services->len, 3);
	assert_true(((SmtpServiceYaml *)config->services->pdata[2])->smtps);
	assert_string_equal(gateway_config_output(config, "msa")->verify, "localhost.crt");
	assert_true(gateway_config_host(config, "outbound")->enable_bdat);
	gateway_config_unref(config);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_router),
		cmocka_unit_test(test_router_of_the_tests),
		cmocka_unit_test(test_gateway),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
