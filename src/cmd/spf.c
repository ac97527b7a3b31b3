/* SPDX-License-Identifier: Apache-2.0 */
/* koukan spf check: what SPF says about a client, and how it got there. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/net.h"
#include "cmd/cmd.h"
#include "cmd/dns_tool.h"
#include "mailauth/spf_run.h"

typedef struct Check {
	const char *server;
	SpfParams params;
	DnsTool *tool;
	SpfRun *run;
	SpfResult result;
} Check;

static void
usage(FILE *out)
{
	(void)fputs(
		"usage: koukan spf check --ip ADDRESS --helo NAME [--from ADDRESS]\n"
		"                       [--domain NAME] [--dns SERVER[@PORT]]\n\n"
		"Evaluates SPF (RFC 7208) and prints each policy and term it came by, then the\n"
		"result.  Exit code 0 for pass, 1 for any other result.\n"
		"  --ip ADDRESS       the client's address\n"
		"  --helo NAME        what it calls itself\n"
		"  --from ADDRESS     the sender (MAIL FROM); without: the null sender\n"
		"  --domain NAME      whose policy instead of the sender's\n"
		"  --dns SERVER       ask this server instead of the system's resolvers\n",
		out);
}

static bool
parse(Check *check, int argc, char **argv)
{
	const struct {
		const char *name;
		const char **value;
	} options[] = {
		{"--ip", &check->params.ip},
		{"--helo", &check->params.helo},
		{"--from", &check->params.mail_from},
		{"--domain", &check->params.domain},
		{"--dns", &check->server},
	};
	if (argc < 2 || strcmp(argv[1], "check") != 0)
		return false;
	for (int i = 2; i < argc; i += 2) {
		size_t at = 0;
		while (at < G_N_ELEMENTS(options) && strcmp(argv[i], options[at].name) != 0)
			at++;
		if (at == G_N_ELEMENTS(options) || i + 1 == argc)
			return false;
		*options[at].value = argv[i + 1];
	}
	return check->params.ip != NULL && check->params.helo != NULL &&
	       net_is_literal(check->params.ip);
}

static void
on_result(void *arg, const Spf *spf)
{
	Check *check = arg;
	const GPtrArray *path = spf_path(spf);
	const char *explanation = spf_explanation(spf);
	check->result = spf_result(spf);
	for (guint i = 0; i < path->len; i++)
		(void)printf("%s\n", (const char *)g_ptr_array_index(path, i));
	if (explanation != NULL)
		(void)printf("explanation: %s\n", explanation);
	dns_tool_done(check->tool);
}

static void
start(DnsTool *tool, Worker *worker, Dns *dns, void *arg)
{
	Check *check = arg;
	check->tool = tool;
	check->run = spf_run_start(worker, dns, &check->params, on_result, check);
}

static void
stop(void *arg)
{
	spf_run_free(((Check *)arg)->run);
}

int
cmd_spf(int argc, char **argv)
{
	static const DnsToolWork work = {.start = start, .stop = stop};
	Check check = {.params = {.now = (int64_t)clock_wall_sec()}};
	g_autoptr(GError) error = NULL;
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		usage(stdout);
		return 0;
	}
	if (!parse(&check, argc, argv)) {
		usage(stderr);
		return 2;
	}
	if (!dns_tool_run(check.server, &work, &check, &error)) {
		(void)fprintf(stderr, "koukan spf: %s\n", error->message);
		return 1;
	}
	return check.result == SPF_PASS ? 0 : 1;
}
