/* SPDX-License-Identifier: Apache-2.0 */
/* koukan resolve: where mail for a domain would be sent, and why. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/dns_tool.h"
#include "filter/mx.h"

#define TIMEOUT (20 * USEC_PER_SEC)

typedef struct Resolve {
	const char *domain, *server;
	MxGuard guard;
	DnsTool *tool;
	Mx *mx;
	Timer timer;
	MxStatus status;
} Resolve;

static void
usage(FILE *out)
{
	(void)fputs("usage: koukan resolve [--dns SERVER[@PORT]] [--own-name NAME]\n"
		    "                      [--allow-private] DOMAIN\n\n"
		    "Looks up where mail for DOMAIN is taken (MX, A, AAAA), as the filter\n"
		    "dns_resolution does, and prints what was found, what was refused, the result\n"
		    "(OK, NX, TEMP) and the addresses in the order in which they would be tried.\n"
		    "Exit code 0 for OK.\n"
		    "  --dns SERVER       ask this server instead of the system's resolvers\n"
		    "  --own-name NAME    our name as an MX (default: this machine's)\n"
		    "  --allow-private    as the filter's key of that name\n",
		    out);
}

static bool
parse(Resolve *resolve, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--allow-private") == 0)
			resolve->guard.allow_private = true;
		else if (strcmp(argv[i], "--dns") == 0 && i + 1 < argc)
			resolve->server = argv[++i];
		else if (strcmp(argv[i], "--own-name") == 0 && i + 1 < argc)
			resolve->guard.own_name = argv[++i];
		else if (argv[i][0] == '-' || resolve->domain != NULL)
			return false;
		else
			resolve->domain = argv[i];
	}
	return resolve->domain != NULL && resolve->domain[0] != '\0';
}

static void
report(Resolve *resolve)
{
	static const char *const names[] = {"OK", "NX", "TEMP"};
	g_autoptr(GString) text = g_string_new(NULL);
	g_autoptr(GPtrArray) targets = mx_targets_new();
	resolve->status = mx_targets(resolve->mx, &resolve->guard, targets);
	mx_describe(resolve->mx, &resolve->guard, text);
	g_string_append_printf(text, "result: %s\n", names[resolve->status]);
	for (guint i = 0; i < targets->len; i++) {
		const MxTarget *target = g_ptr_array_index(targets, i);
		g_string_append_printf(text, "%s\n", target->addr);
	}
	(void)fputs(text->str, stdout);
	dns_tool_done(resolve->tool);
}

static void
on_mx(void *arg)
{
	Resolve *resolve = arg;
	timer_cancel(&resolve->timer);
	report(resolve);
}

static void
on_timeout(void *arg)
{
	Resolve *resolve = arg;
	mx_give_up(resolve->mx);
	report(resolve);
}

static void
start(DnsTool *tool, Worker *worker, Dns *dns, void *arg)
{
	Resolve *resolve = arg;
	resolve->tool = tool;
	timer_init(&resolve->timer, worker, on_timeout, resolve);
	timer_set(&resolve->timer, TIMEOUT);
	resolve->mx = mx_start(dns, resolve->domain, on_mx, resolve);
}

static void
stop(void *arg)
{
	Resolve *resolve = arg;
	timer_clear(&resolve->timer);
	mx_free(resolve->mx);
}

int
cmd_resolve(int argc, char **argv)
{
	static const DnsToolWork work = {.start = start, .stop = stop};
	char hostname[256] = "";
	Resolve resolve = {0};
	g_autoptr(GError) error = NULL;
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		usage(stdout);
		return 0;
	}
	if (gethostname(hostname, sizeof(hostname) - 1) == 0)
		resolve.guard.own_name = hostname;
	if (!parse(&resolve, argc, argv)) {
		usage(stderr);
		return 2;
	}
	g_autoptr(GPtrArray) own = mx_own_addresses();
	resolve.guard.own_addresses = own;
	if (!dns_tool_run(resolve.server, &work, &resolve, &error)) {
		(void)fprintf(stderr, "koukan resolve: %s\n", error->message);
		return 1;
	}
	return resolve.status == MX_OK ? 0 : 1;
}
