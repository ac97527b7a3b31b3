/* SPDX-License-Identifier: Apache-2.0 */
/* koukan explain: what a chain would do with a message, and why.  Nothing is sent or stored. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "cmd/explain_int.h"
#include "cmd/message_file.h"
#include "cmd/why_text.h"

#define TIMEOUT_DEFAULT "60"

enum { EXIT_ACCEPTED = 0, EXIT_TROUBLE = 1, EXIT_USAGE = 2, EXIT_REJECTED = 3, EXIT_DEFERRED = 4 };
#define EXIT_UNANSWERED 5

static const char help[] =
	"usage: koukan explain ROUTER.yaml {--chain NAME | --sender NAME [--tag TAG]}\n"
	"                      --message FILE --mail_from A --rcpt B [--rcpt C]...\n"
	"                      [--remote IP[:PORT] [--helo NAME] [--tls] [--auth USER]]\n"
	"                      [--dns ANSWERS.yaml] [--timeout SECONDS] [--verbose | --json]\n"
	"\n"
	"Runs a chain of the router's configuration and prints, filter by filter, what it\n"
	"saw, what it decided, by which rule, on which answers of the DNS, and how long\n"
	"that took.  Nothing is sent or stored: other nodes are taken to accept, and what\n"
	"goes to another sender of the router is explained behind it.\n"
	"\n"
	"  --chain NAME        the chain of that endpoint\n"
	"  --sender NAME       the chain of that sender, or of its --tag\n"
	"  --tag TAG           with --sender\n"
	"  --message FILE      the message; - for standard input\n"
	"  --mail_from A       the sender's address; '' for the null sender\n"
	"  --rcpt A            a recipient\n"
	"  --remote IP[:PORT]  the SMTP client; without it the message comes over REST\n"
	"  --helo NAME         what it calls itself; without it the address\n"
	"  --tls               its connection is encrypted\n"
	"  --auth USER         it has proved to be USER\n"
	"  --dns FILE          the answers of the DNS (docs/explain.md); what is not there\n"
	"                      does not exist; without it the configuration's resolver asks\n"
	"  --timeout SECONDS   when to give up, default " TIMEOUT_DEFAULT "\n"
	"  --verbose           chains behind one that fails in full, too\n"
	"  --json              one array, an object for each chain\n"
	"\n"
	"Exit code 0: accepted for everybody; 3: refused, or for somebody; 4: put off, or\n"
	"for somebody; 5: no answer in time; 1: it could not be run; 2: wrong usage.\n";

typedef struct Args {
	const char *config, *chain, *sender, *tag, *message, *mail_from, *remote, *helo, *user,
		*dns, *timeout;
	GPtrArray *rcpts;
	bool tls, as_json, verbose, asked_help;
} Args;

static int
usage_error(const char *what, const char *why)
{
	(void)fprintf(stderr, "koukan explain: %s: %s\n`koukan explain --help` tells more\n", what,
		      why);
	return EXIT_USAGE;
}

static int
trouble(const char *text)
{
	(void)fprintf(stderr, "koukan explain: %s\n", text);
	return EXIT_TROUBLE;
}

/* ---- arguments ---- */

enum {
	OPT_CHAIN = 256,
	OPT_SENDER,
	OPT_TAG,
	OPT_MESSAGE,
	OPT_FROM,
	OPT_RCPT,
	OPT_REMOTE,
	OPT_HELO,
	OPT_TLS,
	OPT_AUTH,
	OPT_DNS,
	OPT_TIMEOUT,
	OPT_VERBOSE,
	OPT_JSON
};

static const struct option options[] = {{"help", no_argument, NULL, 'h'},
					{"chain", required_argument, NULL, OPT_CHAIN},
					{"sender", required_argument, NULL, OPT_SENDER},
					{"tag", required_argument, NULL, OPT_TAG},
					{"message", required_argument, NULL, OPT_MESSAGE},
					{"mail_from", required_argument, NULL, OPT_FROM},
					{"rcpt", required_argument, NULL, OPT_RCPT},
					{"remote", required_argument, NULL, OPT_REMOTE},
					{"helo", required_argument, NULL, OPT_HELO},
					{"tls", no_argument, NULL, OPT_TLS},
					{"auth", required_argument, NULL, OPT_AUTH},
					{"dns", required_argument, NULL, OPT_DNS},
					{"timeout", required_argument, NULL, OPT_TIMEOUT},
					{"verbose", no_argument, NULL, OPT_VERBOSE},
					{"json", no_argument, NULL, OPT_JSON},
					{NULL, 0, NULL, 0}};

/* False: no such option. */
static bool
take_option(Args *args, int option)
{
	const struct {
		int option;
		const char **value;
	} texts[] = {{OPT_CHAIN, &args->chain},    {OPT_SENDER, &args->sender},
		     {OPT_TAG, &args->tag},        {OPT_MESSAGE, &args->message},
		     {OPT_FROM, &args->mail_from}, {OPT_REMOTE, &args->remote},
		     {OPT_HELO, &args->helo},      {OPT_AUTH, &args->user},
		     {OPT_DNS, &args->dns},        {OPT_TIMEOUT, &args->timeout}};
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
		if (texts[i].option == option) {
			*texts[i].value = optarg;
			return true;
		}
	}
	if (option == OPT_RCPT)
		g_ptr_array_add(args->rcpts, optarg);
	args->tls |= option == OPT_TLS;
	args->as_json |= option == OPT_JSON;
	args->verbose |= option == OPT_VERBOSE;
	args->asked_help |= option == 'h';
	return option != '?';
}

static int
check_usage(const Args *args)
{
	if (args->config == NULL)
		return usage_error("ROUTER.yaml", "which configuration?");
	if ((args->chain == NULL) == (args->sender == NULL))
		return usage_error("--chain, --sender", "exactly one is wanted");
	if (args->tag != NULL && args->sender == NULL)
		return usage_error("--tag", "belongs to --sender");
	if (args->message == NULL)
		return usage_error("--message", "a file is wanted");
	if (args->mail_from == NULL)
		return usage_error("--mail_from", "an address is wanted, '' for the null sender");
	if (args->rcpts->len == 0 || args->rcpts->len > TX_RCPTS_MAX)
		return usage_error("--rcpt", "1 to 1000 recipients are wanted");
	if (args->remote == NULL && (args->helo != NULL || args->tls || args->user != NULL))
		return usage_error("--helo, --tls, --auth", "belong to --remote");
	return 0;
}

/* "192.0.2.1", "192.0.2.1:4000", "2001:db8::1", "[2001:db8::1]:4000"; NULL: none. */
static HostPort *
parse_remote(const char *text)
{
	HostPort *remote = NULL;
	if (net_is_literal(text))
		return host_port_new(text, 0);
	if (host_port_parse(text, &remote) && net_is_literal(remote->host))
		return remote;
	host_port_free(remote);
	return NULL;
}

/* ---- the configuration ---- */

/* The first sender whose chain that is: an exploder has to know for whom it works. */
static const SenderConf *
sender_of_chain(const ConfModel *model, const char *chain)
{
	for (guint i = 0; i < model->senders->len; i++) {
		const SenderConf *sender = g_ptr_array_index(model->senders, i);
		if (g_strcmp0(sender->output_chain, chain) == 0)
			return sender;
		for (guint k = 0; k < sender->tags->len; k++) {
			const SenderConf *tag = g_ptr_array_index(sender->tags, k);
			if (g_strcmp0(tag->output_chain, chain) == 0)
				return tag;
		}
	}
	return NULL;
}

static void
no_chain(const RouterConfig *config, const char *name)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	for (guint i = 0; i < config->endpoints->len; i++)
		g_ptr_array_add(names,
				((EndpointConf *)g_ptr_array_index(config->endpoints, i))->name);
	const char *nearest = text_nearest(name, (const char *const *)names->pdata, names->len);
	(void)fprintf(stderr, "koukan explain: %s has no endpoint '%s'%s%s%s\n", config->path, name,
		      nearest != NULL ? ", did you mean '" : "", nearest != NULL ? nearest : "",
		      nearest != NULL ? "'?" : "");
}

/* False after a message. */
static bool
find_chain(const Args *args, const RouterConfig *config, ExplainTask *task)
{
	const char *chain = args->chain;
	if (args->sender != NULL) {
		task->sender = conf_model_sender(config->model, args->sender, args->tag);
		if (task->sender == NULL || task->sender->output_chain == NULL) {
			(void)fprintf(stderr,
				      "koukan explain: %s has no sender '%s'%s%s with a chain\n",
				      config->path, args->sender, args->tag != NULL ? ", tag " : "",
				      args->tag != NULL ? args->tag : "");
			return false;
		}
		chain = task->sender->output_chain;
	} else {
		task->sender = sender_of_chain(config->model, chain);
	}
	task->endpoint = router_config_endpoint(config, chain);
	if (task->endpoint == NULL) {
		no_chain(config, chain);
		return false;
	}
	if (task->endpoint->chain == NULL || task->endpoint->chain->faulty) {
		(void)fprintf(stderr, "koukan explain: there are errors in the chain of '%s'\n",
			      chain);
		return false;
	}
	return true;
}

static void
print_problems(const ConfReport *report)
{
	g_autoptr(GString) text = g_string_new(NULL);
	conf_report_format(report, text);
	(void)fputs(text->str, stderr);
}

/* ---- the run ---- */

static int
exit_code(const json_t *all)
{
	const json_t *first = json_array_get(all, 0);
	const char *outcome = json_get_str(first, "outcome");
	const json_t *decided = json_object_get(first, "decided");
	json_int_t code = json_integer_value(json_object_get(decided, "code"));
	if (g_strcmp0(outcome, "accepted") == 0)
		return EXIT_ACCEPTED;
	if (g_strcmp0(outcome, "unanswered") == 0)
		return EXIT_UNANSWERED;
	if (g_strcmp0(outcome, "rejected") == 0)
		return EXIT_REJECTED;
	if (g_strcmp0(outcome, "deferred") == 0)
		return EXIT_DEFERRED;
	return code / 100 == 4 ? EXIT_DEFERRED : EXIT_REJECTED;
}

/* Behind a chain that fails, what the others had of it until then is of no interest. */
static bool
is_beside(const json_t *all, size_t index)
{
	return index > 0 && json_is_object(json_object_get(json_array_get(all, 0), "decided")) &&
	       json_is_null(json_object_get(json_array_get(all, index), "decided"));
}

static void
print(const json_t *all, const Args *args)
{
	if (args->as_json) {
		g_autofree char *text = json_print(all);
		(void)puts(text);
		return;
	}
	for (size_t i = 0; i < json_array_size(all); i++) {
		if (i > 0)
			(void)putchar('\n');
		if (is_beside(all, i) && !args->verbose)
			why_text_head(stdout, json_array_get(all, i));
		else
			why_text(stdout, json_array_get(all, i));
	}
}

static int
run(const Args *args, ExplainTask *task)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(json_t) all = explain_run(task, &error);
	if (all == NULL)
		return trouble(error->message);
	print(all, args);
	return exit_code(all);
}

static int
prepare(const Args *args, const RouterConfig *config, Usec timeout)
{
	char machine[256] = "localhost";
	g_autoptr(GError) error = NULL;
	g_autoptr(HostPort) remote = args->remote != NULL ? parse_remote(args->remote) : NULL;
	if (args->remote != NULL && remote == NULL)
		return usage_error("--remote", "an address is wanted: IP or IP:PORT");
	(void)gethostname(machine, sizeof(machine) - 1);
	g_autoptr(Blob) message = message_file_read(args->message, &error);
	if (message == NULL)
		return trouble(error->message);
	g_autofree char *literal = remote != NULL ? g_strdup_printf("[%s]", remote->host) : NULL;
	ExplainTask task = {.config = config,
			    .hostname = config->koukan.hostname != NULL ? config->koukan.hostname
									: machine,
			    .mail_from = args->mail_from,
			    .rcpts = args->rcpts,
			    .message = message,
			    .remote = remote,
			    .helo = args->helo != NULL ? args->helo : literal,
			    .user = args->user,
			    .tls = args->tls,
			    .timeout = timeout};
	if (!find_chain(args, config, &task))
		return EXIT_TROUBLE;
	g_autoptr(ConfReport) report = conf_report_new();
	g_autoptr(ExplainDns) dns = args->dns != NULL ? explain_dns_load(args->dns, report) : NULL;
	print_problems(report);
	if (args->dns != NULL && dns == NULL)
		return EXIT_TROUBLE;
	task.dns = dns;
	return run(args, &task);
}

static int
load(const Args *args)
{
	uint64_t seconds = 0;
	const char *text = args->timeout != NULL ? args->timeout : TIMEOUT_DEFAULT;
	if (!text_parse_u64(text, strlen(text), 86400, &seconds) || seconds == 0)
		return usage_error("--timeout", "seconds from 1 to 86400 are wanted");
	g_autoptr(ConfReport) report = conf_report_new();
	RouterConfig *config = router_config_load(args->config, report);
	if (config == NULL) {
		print_problems(report);
		return EXIT_TROUBLE;
	}
	int code = prepare(args, config, (Usec)seconds * USEC_PER_SEC);
	if (code == EXIT_TROUBLE)
		print_problems(report); /* of a chain that no sender leads to they are warnings */
	router_config_unref(config);
	return code;
}

int
cmd_explain(int argc, char **argv)
{
	g_autoptr(GPtrArray) rcpts = g_ptr_array_new();
	Args args = {.rcpts = rcpts};
	optind = 1;
	for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (!take_option(&args, c)) {
			(void)fputs("`koukan explain --help` tells more\n", stderr);
			return EXIT_USAGE;
		}
	}
	if (args.asked_help) {
		(void)fputs(help, stdout);
		return 0;
	}
	args.config = optind < argc ? argv[optind] : NULL;
	if (optind + 1 < argc)
		return usage_error(argv[optind + 1], "one configuration is wanted");
	int code = check_usage(&args);
	return code != 0 ? code : load(&args);
}
