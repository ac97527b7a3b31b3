/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a configuration file: a clean report or a configuration, never both missing, the
 * same one each time, each problem with a place in the file, in order.  The first byte chooses the
 * program; the rest is the file. */
#include <glib.h>
#include <string.h>

#include "base/check.h"
#include "conf/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_report(const ConfReport *report, bool loaded)
{
	k_assert(loaded == (report->errors == 0));
	unsigned errors = 0, line = 0;
	for (unsigned i = 0; i < report->problems->len; i++) {
		const ConfProblem *problem = report->problems->pdata[i];
		k_assert_for(g_str_has_prefix(problem->where, "t"), problem->where);
		k_assert_for(problem->text[0] != '\0', problem->where);
		k_assert_for(problem->line >= line, problem->where);
		k_assert_for(g_utf8_validate(problem->text, -1, NULL), problem->where);
		line = problem->line;
		errors += problem->severity == CONF_ERROR;
	}
	k_assert(errors == report->errors);
}

static char *
load(bool gateway, const char *text)
{
	g_autoptr(ConfReport) report = conf_report_new();
	GString *out = g_string_new(NULL);
	if (gateway) {
		GatewayConfig *config = gateway_config_load_text("t", text, report);
		check_report(report, config != NULL);
		gateway_config_unref(config);
	} else {
		RouterConfig *config = router_config_load_text("t", text, report);
		check_report(report, config != NULL);
		router_config_unref(config);
	}
	conf_report_format(report, out);
	return g_string_free(out, FALSE);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	g_autofree char *text = g_strndup((const char *)data + 1, size - 1);
	bool gateway = (data[0] & 1) != 0;
	g_autofree char *first = load(gateway, text);
	g_autofree char *second = load(gateway, text);
	k_assert(strcmp(first, second) == 0);
	return 0;
}
