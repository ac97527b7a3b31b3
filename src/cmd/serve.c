/* SPDX-License-Identifier: Apache-2.0 */
/* koukan serve, gateway, router: the servers. */
#include <getopt.h>
#include <glib.h>
#include <stdio.h>

#include "cmd/cmd.h"
#include "conf/local_test.h"
#include "service/node.h"

static const char serve_help[] =
	"usage: koukan serve [--listen-info FILE] [GATEWAY.yaml ROUTER.yaml]\n"
	"\n"
	"Runs gateway and router in one process; mail passes between them by direct calls.\n"
	"Without files: the local test set-up (SMTP on localhost 1025 and 1587, REST on 8000 and\n"
	"8001, delivery to a sink on 3025 and a receiver on 8002).\n"
	"\n"
	"  --listen-info FILE  write the real addresses and ports there, as JSON, when ready\n";
static const char gateway_help[] =
	"usage: koukan gateway [--listen-info FILE] GATEWAY.yaml\n"
	"\n"
	"Runs the stateless SMTP side: SMTP in, REST to a router; REST in, SMTP out.\n";
static const char router_help[] =
	"usage: koukan router [--listen-info FILE] ROUTER.yaml\n"
	"\n"
	"Runs the durable side: REST API, filter chains, queue, retries.\n";

typedef struct ServeArgs {
	const char *listen_info;
	char **files;
	int n_files;
} ServeArgs;

/* -1: go on; else the exit code. */
static int
parse_args(int argc, char **argv, const char *help, ServeArgs *ret_args)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						{"listen-info", required_argument, NULL, 'l'},
						{NULL, 0, NULL, 0}};
	*ret_args = (ServeArgs){0};
	optind = 1;
	for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (c == 'h') {
			fputs(help, stdout);
			return 0;
		}
		if (c != 'l') {
			fputs(help, stderr);
			return 2;
		}
		ret_args->listen_info = optarg;
	}
	ret_args->files = argv + optind;
	ret_args->n_files = argc - optind;
	return -1;
}

/* Prints what is wrong with the files; true when they can be used. */
static bool
print_report(const ConfReport *report)
{
	for (guint i = 0; i < report->problems->len; i++) {
		const ConfProblem *problem = g_ptr_array_index(report->problems, i);
		fprintf(stderr, "%s: %s: %s\n", problem->where != NULL ? problem->where : "koukan",
			problem->severity == CONF_ERROR ? "error" : "warning", problem->text);
	}
	return report->errors == 0;
}

static int
run(RouterConfig *router, GatewayConfig *gateway, const char *listen_info)
{
	g_autoptr(GError) error = NULL;
	const NodeOptions options = {
		.router = router, .gateway = gateway, .listen_info = listen_info};
	Node *node = node_start(&options, &error);
	if (node == NULL) {
		fprintf(stderr, "koukan: cannot start: %s\n", error->message);
		return 1;
	}
	node_run(node);
	node_free(node);
	return 0;
}

static int
load_and_run(bool with_router, const char *router_file, bool with_gateway, const char *gateway_file,
	     const char *listen_info)
{
	g_autoptr(ConfReport) report = conf_report_new();
	RouterConfig *router = NULL;
	GatewayConfig *gateway = NULL;
	if (with_gateway)
		gateway = gateway_file != NULL
				  ? gateway_config_load(gateway_file, report)
				  : gateway_config_load_text("local-test gateway.yaml",
							     local_test_gateway_yaml, report);
	if (with_router)
		router = router_file != NULL
				 ? router_config_load(router_file, report)
				 : router_config_load_text("local-test router.yaml",
							   local_test_router_yaml, report);
	bool usable = print_report(report) && (!with_gateway || gateway != NULL) &&
		      (!with_router || router != NULL);
	int code = usable ? run(router, gateway, listen_info) : 1;
	if (router != NULL)
		router_config_unref(router);
	if (gateway != NULL)
		gateway_config_unref(gateway);
	return code;
}

int
cmd_serve(int argc, char **argv)
{
	ServeArgs args;
	int code = parse_args(argc, argv, serve_help, &args);
	if (code >= 0)
		return code;
	if (args.n_files != 0 && args.n_files != 2) {
		fputs(serve_help, stderr);
		return 2;
	}
	bool files = args.n_files == 2;
	return load_and_run(true, files ? args.files[1] : NULL, true, files ? args.files[0] : NULL,
			    args.listen_info);
}

int
cmd_gateway(int argc, char **argv)
{
	ServeArgs args;
	int code = parse_args(argc, argv, gateway_help, &args);
	if (code >= 0)
		return code;
	if (args.n_files != 1) {
		fputs(gateway_help, stderr);
		return 2;
	}
	return load_and_run(false, NULL, true, args.files[0], args.listen_info);
}

int
cmd_router(int argc, char **argv)
{
	ServeArgs args;
	int code = parse_args(argc, argv, router_help, &args);
	if (code >= 0)
		return code;
	if (args.n_files != 1) {
		fputs(router_help, stderr);
		return 2;
	}
	return load_and_run(true, args.files[0], false, NULL, args.listen_info);
}
