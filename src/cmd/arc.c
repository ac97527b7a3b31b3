/* SPDX-License-Identifier: Apache-2.0 */
/* koukan arc: verify the chain of a message, add a set to it. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cmd/cmd.h"
#include "cmd/dns_tool.h"
#include "cmd/message_file.h"
#include "mailauth/arc_run.h"
#include "mailauth/dkim_name.h"
#include "mailauth/dkim_sign.h"

typedef struct Options {
	const char *server, *file;
	const char *key, *domain, *selector, *id; /* seal */
} Options;

static void
usage(FILE *out)
{
	(void)fputs(
		"usage: koukan arc verify [--dns SERVER[@PORT]] FILE\n"
		"       koukan arc seal --key FILE --domain NAME --selector NAME --id NAME\n"
		"                       [--dns SERVER[@PORT]] FILE\n\n"
		"verify  verifies the Authenticated Received Chain (RFC 8617) of a message and says\n"
		"        what is wrong with it.  Exit code 0 when it passes.\n"
		"seal    verifies it, and prints the message with one more set in front; the set takes\n"
		"        in what the Authentication-Results fields by NAME (--id) say.\n"
		"FILE may be - for standard input; lines may end in LF alone.\n",
		out);
}

static bool
parse(Options *options, int argc, char **argv)
{
	const struct {
		const char *name;
		const char **value;
	} known[] = {
		{"--dns", &options->server},    {"--key", &options->key},
		{"--domain", &options->domain}, {"--selector", &options->selector},
		{"--id", &options->id},
	};
	for (int i = 2; i < argc; i++) {
		size_t at = 0;
		while (at < G_N_ELEMENTS(known) && strcmp(argv[i], known[at].name) != 0)
			at++;
		if (at < G_N_ELEMENTS(known) && i + 1 < argc)
			*known[at].value = argv[++i];
		else if ((argv[i][0] == '-' && argv[i][1] != '\0') || options->file != NULL)
			return false;
		else
			options->file = argv[i];
	}
	return options->file != NULL;
}

/* ---- verifying ---- */

typedef struct Verifying {
	DnsTool *tool;
	ArcVerify *verify;
	ArcRun *run;
} Verifying;

static void
on_keys(void *arg)
{
	dns_tool_done(((Verifying *)arg)->tool);
}

static void
start(DnsTool *tool, Worker *worker, Dns *dns, void *arg)
{
	Verifying *verifying = arg;
	verifying->tool = tool;
	verifying->run = arc_run_start(worker, dns, verifying->verify, on_keys, verifying);
}

static void
stop(void *arg)
{
	arc_run_free(((Verifying *)arg)->run);
}

/* NULL: it cannot be done.  Caller frees. */
static ArcVerify *
verify_message(const Options *options, const Blob *message, GError **ret_error)
{
	static const DnsToolWork work = {.start = start, .stop = stop};
	Verifying verifying = {0};
	verifying.verify = arc_verify_message(message, clock_wall_sec(), ret_error);
	if (verifying.verify != NULL &&
	    !dns_tool_run(options->server, &work, &verifying, ret_error))
		g_clear_pointer(&verifying.verify, arc_verify_free);
	return verifying.verify;
}

static void
print_result(const ArcVerify *verify)
{
	const ArcResult *result = arc_verify_result(verify);
	for (unsigned i = 0; i < result->count; i++) {
		const char *sealer = arc_verify_sealer(verify, i);
		(void)printf("%u: sealed by %s\n", i + 1, sealer != NULL ? sealer : "?");
	}
	(void)printf("result: %s", arc_status_names[result->status]);
	if (result->reason != NULL && result->instance > 0)
		(void)printf(" (set %u: %s)", result->instance, result->reason);
	else if (result->reason != NULL)
		(void)printf(" (%s)", result->reason);
	(void)printf("\n");
}

static bool
verify(const Options *options, const Blob *message, GError **ret_error)
{
	ArcVerify *verified = verify_message(options, message, ret_error);
	if (verified == NULL)
		return false;
	print_result(verified);
	bool pass = arc_verify_result(verified)->status == ARC_PASS;
	arc_verify_free(verified);
	return pass || error_set(ret_error, K_ERROR_INPUT, "the chain does not pass");
}

/* ---- sealing ---- */

static bool
seal_with(const Options *options, DkimKey *key, const Blob *message, GError **ret_error)
{
	const ArcSealer sealer = {.key = key,
				  .domain = options->domain,
				  .selector = options->selector,
				  .authserv_id = options->id};
	ArcVerify *verified = verify_message(options, message, ret_error);
	if (verified == NULL)
		return false;
	ArcStatus status = arc_verify_result(verified)->status;
	arc_verify_free(verified);
	unsigned instance = 0;
	g_autofree char *set = arc_seal(&sealer, message, status, clock_wall_sec(), &instance,
					ret_error);
	if (set == NULL)
		return false;
	if (instance == 0)
		return error_set(ret_error, K_ERROR_INPUT, "the chain (%s) takes no further set",
				 arc_status_names[status]);
	return message_file_print(set, message, ret_error);
}

static bool
seal(const Options *options, const Blob *message, GError **ret_error)
{
	if (!dkim_domain_ok(options->domain, 2) || !dkim_domain_ok(options->selector, 1))
		return error_set(ret_error, K_ERROR_CONFIG, "no domain or no selector");
	DkimKeyFile *file = dkim_key_file_new(options->key, ret_error);
	if (file == NULL)
		return false;
	g_autoptr(DkimKey) key = dkim_key_file_get(file);
	bool ok = seal_with(options, key, message, ret_error);
	dkim_key_file_free(file);
	return ok;
}

int
cmd_arc(int argc, char **argv)
{
	Options options = {0};
	g_autoptr(GError) error = NULL;
	const char *what = argc > 1 ? argv[1] : "";
	if (strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0) {
		usage(stdout);
		return 0;
	}
	bool known = parse(&options, argc, argv);
	bool (*run)(const Options *, const Blob *, GError **) = NULL;
	if (known && strcmp(what, "verify") == 0)
		run = verify;
	else if (known && strcmp(what, "seal") == 0 && options.key != NULL &&
		 options.domain != NULL && options.selector != NULL && options.id != NULL)
		run = seal;
	if (run == NULL) {
		usage(stderr);
		return 2;
	}
	g_autoptr(Blob) message = message_file_read(options.file, &error);
	if (message != NULL && run(&options, message, &error))
		return 0;
	(void)fprintf(stderr, "koukan arc: %s\n", error->message);
	return 1;
}
