/* SPDX-License-Identifier: Apache-2.0 */
/* koukan config check FILE... | koukan config doc */
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "conf/config.h"

static const char usage[] =
	"usage: koukan config check FILE...\n"
	"       koukan config doc\n"
	"\n"
	"check   reads router and gateway files (which one a file is, its sections say) and prints\n"
	"        each problem as FILE:LINE:COLUMN: error|warning: text.  Exit code 0: no errors,\n"
	"        1: errors.\n"
	"doc     prints the reference of all keys and filters as Markdown.\n";

static unsigned
count_warnings(const ConfReport *report)
{
	return report->problems->len - report->errors;
}

/* Into `report`: what is wrong with the file. */
static void
check_file(const char *path, ConfReport *report)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(YamlDoc) doc = yaml_load_file(path, &error);
	report->fallback = g_strdup(path);
	if (doc == NULL) {
		conf_error_placed(report, path, error->message);
		return;
	}
	switch (config_kind(yaml_root(doc))) {
	case CONFIG_ROUTER:
		router_config_unref(router_config_load(path, report));
		break;
	case CONFIG_GATEWAY:
		gateway_config_unref(gateway_config_load(path, report));
		break;
	case CONFIG_UNKNOWN:
		conf_error(report, yaml_root(doc),
			   "this is no configuration: a router's has 'sender' and 'endpoint', a "
			   "gateway's 'smtp_listener' or 'smtp_output'");
		break;
	}
}

static int
check_files(int count, char **paths)
{
	unsigned errors = 0, warnings = 0;
	g_autoptr(GString) out = g_string_new(NULL);
	for (int i = 0; i < count; i++) {
		g_autoptr(ConfReport) report = conf_report_new();
		check_file(paths[i], report);
		conf_report_format(report, out);
		errors += report->errors;
		warnings += count_warnings(report);
	}
	g_string_append_printf(out, "%d file%s: %u error%s, %u warning%s\n", count,
			       count == 1 ? "" : "s", errors, errors == 1 ? "" : "s", warnings,
			       warnings == 1 ? "" : "s");
	fputs(out->str, stdout);
	return errors > 0 ? 1 : 0;
}

int
cmd_config(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			fputs(usage, stdout);
			return 0;
		}
	}
	if (strcmp(verb, "check") == 0 && argc > 2 && argv[2][0] != '-')
		return check_files(argc - 2, argv + 2);
	if (strcmp(verb, "doc") == 0 && argc == 2) {
		g_autoptr(GString) out = g_string_new(NULL);
		config_doc(out);
		fputs(out->str, stdout);
		return 0;
	}
	fputs(usage, stderr);
	return 2;
}
