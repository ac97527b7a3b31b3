/* SPDX-License-Identifier: Apache-2.0 */
/* argv[1] is a row of this table. */
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
} verbs[] = {
	{"serve", cmd_serve,
	 "gateway and router in one process; without files the local test set-up"},
	{"gateway", cmd_gateway, "the SMTP side alone"},
	{"router", cmd_router, "the REST side with queue and filter chains alone"},
	{"smtp", cmd_smtp, "send a message by SMTP and print the dialogue"},
	{"sink", cmd_sink, "an SMTP server that prints what it gets"},
	{"send", cmd_send, "submit a message by REST and wait for the outcome"},
	{"receiver", cmd_receiver, "an example of an application that takes mail by REST"},
	{"config", cmd_config, "check configuration files; print the reference"},
	{"explain", cmd_explain, "run a chain without sending; what each filter decides, and why"},
	{"queue", cmd_queue, "look into the queue of a running router, and act on it"},
	{"store", cmd_store, "create, migrate or check the database"},
	{"secret", cmd_secret, "make a password and its hash for SMTP AUTH"},
	{"resolve", cmd_resolve, "look up where mail for a domain would go, and why"},
	{"dkim", cmd_dkim, "make a DKIM key and its DNS record; verify or sign a message"},
	{"arc", cmd_arc, "verify the ARC chain of a message, or add a set to it"},
	{"spf", cmd_spf, "evaluate SPF for a client and show how the result came about"},
};

static void
print_usage(FILE *out)
{
	fputs("usage: koukan VERB [ARGUMENTS]\n\n", out);
	for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++)
		fprintf(out, "  %-9s %s\n", verbs[i].name, verbs[i].summary);
	fputs("\n`koukan VERB --help` tells more; `koukan --version` the version.\n", out);
}

int
main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	if (strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0) {
		print_usage(stdout);
		return 0;
	}
	if (strcmp(verb, "--version") == 0) {
		puts("koukan " KOUKAN_VERSION);
		return 0;
	}
	for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++) {
		if (strcmp(verb, verbs[i].name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	}
	print_usage(stderr);
	return 2;
}
