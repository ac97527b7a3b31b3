/* SPDX-License-Identifier: Apache-2.0 */
/* koukan send: submits a message by REST, for each recipient one transaction, and waits for the
 * outcome (behaviour spec 20; options of older programs: 21). */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "cmd/send_int.h"
#include "http/route.h"

#define DEFAULT_PATH    "/senders/submission/transactions"
#define DEFAULT_URL     "http://localhost:8000" DEFAULT_PATH
#define DEFAULT_TIMEOUT 30
#define ROUNDS_MAX      1000000
#define POLL_SEC        25                 /* one long poll; servers wait 30 at most */
#define FINAL_WAIT      (2 * USEC_PER_SEC) /* from the next hop's answer to the final reason */
#define EXIT_NOT_YET    75                 /* EX_TEMPFAIL of sysexits.h */

static const char help[] =
	"usage: koukan send --mail_from A MESSAGE [OPTIONS] TO...\n"
	"\n"
	"Submits a message by REST and waits for the outcome; a line for each recipient.  Exit code 0\n"
	"when all were delivered, 1 when one was refused for good or could not be submitted, 75 when\n"
	"none was, but one is not decided yet (the server may still be at it).\n"
	"\n"
	"MESSAGE is one of\n"
	"  --rfc822_filename F           the whole message, - for standard input; bare LF line ends\n"
	"                                become CRLF; uploaded, or with --inline in the request\n"
	"  --message_builder_filename F  a JSON description of which the server makes the message;\n"
	"                                \"filename\" beside a \"create_id\" names a file to upload,\n"
	"                                looked up beside F; Date and Message-ID are added if missing\n"
	"  --subject S, --text F, --html F, --attach F ...\n"
	"                                a message composed of these files (UTF-8); - for standard\n"
	"                                input; From and To are sender and recipients\n"
	"\n"
	"  --mail_from A                 envelope sender\n"
	"  --url URL, --base_url URL     default " DEFAULT_URL "\n"
	"                                without a path: that of the default\n"
	"  --tag T                       the sender's tag\n"
	"  --timeout SECONDS             how long to wait for each outcome, default 30\n"
	"  --wait, --no-wait             for the outcome (the default); or only until the server has\n"
	"                                the message: then 0 says that\n"
	"  --iters N                     the whole of it N times\n"
	"  --progress                    of uploads over 1 MB, on standard error; on a terminal it is\n"
	"                                shown without being asked for\n"
	"  --ca FILE                     authorities for https; default: the system's\n"
	"  --insecure                    do not verify the server's certificate\n"
	"  --api-key-file FILE           its first line is the API key to show\n"
	"  --client-cert FILE, --client-key FILE\n"
	"                                PEM files of the certificate to show, over https\n"
	"  --json                        print a JSON object for each recipient\n"
	"\n"
	"For commands of older versions: --router_url is --url, --rcpt_to A is one more TO; --host,\n"
	"--notification_host and --threads are taken and mean nothing.\n";

static void
outcome_clear(SendOutcome *outcome)
{
	g_free(outcome->url);
	g_free(outcome->etag);
	g_free(outcome->error);
	json_decref(outcome->tx);
}

bool
send_fail(SendOutcome *outcome, const char *what, const SendReply *reply)
{
	g_autofree char *text = text_escape(reply->text, strlen(reply->text), 300);
	if (reply->status == 0)
		outcome->error = g_strdup_printf("%s: %s", what, text);
	else
		outcome->error = g_strdup_printf("%s: HTTP %d%s%s", what, reply->status,
						 *text != '\0' ? ": " : "", text);
	return false;
}

/* ---- the transaction ---- */

static char *
make_request(const Send *send, const char *to)
{
	g_autoptr(json_t) json = json_object();
	json_object_set_new(json, "mail_from", json_pack("{s:s}", "m", send->mail_from));
	json_object_set_new(json, "rcpt_to", json_pack("[{s:s}]", "m", to));
	if (send->tag != NULL)
		json_object_set_new(json, "sender", json_pack("{s:s}", "tag", send->tag));
	json_t *body = send_message_body(send);
	if (body != NULL)
		json_object_set_new(json, "body", body);
	return json_print(json);
}

static bool
create(Send *send, const char *to, SendOutcome *outcome)
{
	g_auto(SendReply) reply = {0};
	const HttpHeader type = {"content-type", "application/json"};
	HttpCallSpec spec = {.method = "POST",
			     .url = send->url,
			     .headers = &type,
			     .n_headers = 1,
			     .body = make_request(send, to),
			     .timeout = 60 * USEC_PER_SEC,
			     .verify = send->verify};
	spec.body_len = strlen(spec.body);
	send_http_ask(send->http, &spec, &reply);
	if (reply.status != 201 || reply.location == NULL || reply.json == NULL)
		return send_fail(outcome, "submission", &reply);
	outcome->url = strstr(reply.location, "://") != NULL ? g_steal_pointer(&reply.location)
							     : http_join(send->url, reply.location);
	outcome->etag = g_steal_pointer(&reply.etag);
	outcome->tx = g_steal_pointer(&reply.json);
	return send_upload_all(send, outcome);
}

/* ---- the outcome ---- */

static int
code_of(const json_t *response)
{
	return (int)json_integer_value(json_object_get(response, "code"));
}

/* The answer that decides: the first that is no success, else the last. */
static const json_t *
deciding(const json_t *tx)
{
	const json_t *found = json_object_get(tx, "mail_response");
	if (code_of(found) >= 300)
		return found;
	const json_t *rcpt = json_array_get(json_object_get(tx, "rcpt_response"), 0);
	if (rcpt != NULL)
		found = rcpt;
	if (code_of(found) >= 300)
		return found;
	const json_t *data = json_object_get(tx, "data_response");
	return data != NULL ? data : found;
}

static bool
is_delivered(const json_t *tx)
{
	int code = code_of(json_object_get(tx, "data_response"));
	return code >= 200 && code < 300 && code_of(deciding(tx)) < 300;
}

/* The next hop has answered for good, whatever the server makes of it. */
static bool
is_decided(const json_t *tx)
{
	return is_delivered(tx) || code_of(deciding(tx)) >= 500;
}

/* One look, waiting for news for at most `wait`.  False: failed. */
static bool
look(Send *send, SendOutcome *outcome, Usec wait)
{
	g_auto(SendReply) reply = {0};
	char seconds[16];
	g_snprintf(seconds, sizeof(seconds), "%d", (int)CLAMP(wait / USEC_PER_SEC, 1, POLL_SEC));
	HttpHeader headers[2] = {{"request-timeout", seconds}};
	size_t n = 1;
	if (outcome->etag != NULL)
		headers[n++] = (HttpHeader){"if-none-match", outcome->etag};
	const HttpCallSpec spec = {.method = "GET",
				   .url = outcome->url,
				   .headers = headers,
				   .n_headers = n,
				   .timeout = (POLL_SEC + 10) * USEC_PER_SEC,
				   .verify = send->verify};
	Deadline begin = clock_mono();
	send_http_ask(send->http, &spec, &reply);
	if (reply.status == 304) {
		/* Some servers do not wait. */
		if (clock_mono() - begin < USEC_PER_SEC / 2)
			g_usleep(USEC_PER_SEC / 2);
		return true;
	}
	if (reply.status != 200 || reply.json == NULL)
		return send_fail(outcome, "reading the transaction", &reply);
	if (g_strcmp0(outcome->etag, reply.etag) == 0)
		g_usleep(USEC_PER_SEC / 10);
	g_free(outcome->etag);
	outcome->etag = g_steal_pointer(&reply.etag);
	json_decref(outcome->tx);
	outcome->tx = g_steal_pointer(&reply.json);
	return true;
}

static void
wait_for_outcome(Send *send, SendOutcome *outcome)
{
	Deadline until = clock_after(send->timeout * USEC_PER_SEC);
	bool decided = false;
	while (json_get_str(outcome->tx, "final_attempt_reason") == NULL) {
		if (!decided && is_decided(outcome->tx)) {
			decided = true;
			until = MIN(until, clock_after(FINAL_WAIT));
		}
		Usec left = clock_left(until);
		if (left == 0 || !look(send, outcome, left))
			return;
	}
}

/* The exit code of one recipient. */
static int
verdict_of(const Send *send, const SendOutcome *outcome)
{
	if (outcome->error != NULL)
		return 1;
	if (send->no_wait || is_delivered(outcome->tx))
		return 0;
	bool final = json_get_str(outcome->tx, "final_attempt_reason") != NULL;
	return final || is_decided(outcome->tx) ? 1 : EXIT_NOT_YET;
}

static const char *
verdict_text(const Send *send, const SendOutcome *outcome)
{
	if (outcome->error != NULL)
		return "error";
	if (is_delivered(outcome->tx))
		return "delivered";
	return send->no_wait ? "submitted" : "not delivered";
}

static int
print_outcome(const Send *send, const char *to, const SendOutcome *outcome)
{
	const char *reason = json_get_str(outcome->tx, "final_attempt_reason");
	const json_t *answer = deciding(outcome->tx);
	bool ok = outcome->error == NULL && is_delivered(outcome->tx);
	if (send->as_json) {
		g_autoptr(json_t) json = json_pack("{s:s, s:b, s:s*, s:s*, s:s*, s:O*}", "rcpt_to",
						   to, "delivered", ok, "url", outcome->url,
						   "error", outcome->error, "final_attempt_reason",
						   reason, "transaction", outcome->tx);
		g_autofree char *text = json_print(json);
		puts(text);
		return verdict_of(send, outcome);
	}
	const char *message = json_get_str(answer, "message");
	g_autofree char *text = message != NULL ? text_escape(message, strlen(message), 500)
						: g_strdup("");
	printf("%s: %s", to, verdict_text(send, outcome));
	if (outcome->error != NULL)
		printf(": %s", outcome->error);
	else if (reason != NULL || (!is_decided(outcome->tx) && !send->no_wait))
		printf(": %s", reason != NULL ? reason : "still in flight");
	if (answer != NULL)
		printf(": %d %s", code_of(answer), text);
	if (outcome->url != NULL)
		printf(" (%s)", outcome->url);
	putchar('\n');
	return verdict_of(send, outcome);
}

/* The worse of two exit codes: what was refused says more than what is not decided. */
static int
worse(int a, int b)
{
	return a == 1 || b == 1 ? 1 : MAX(a, b);
}

static int
send_all(Send *send)
{
	int code = 0;
	SendOutcome *outcomes = g_new0(SendOutcome, (gsize)send->n_to);
	for (int i = 0; i < send->n_to; i++)
		(void)create(send, send->to[i], &outcomes[i]);
	for (int i = 0; i < send->n_to; i++) {
		if (outcomes[i].error == NULL && !send->no_wait)
			wait_for_outcome(send, &outcomes[i]);
		code = worse(code, print_outcome(send, send->to[i], &outcomes[i]));
		(void)fflush(stdout);
		outcome_clear(&outcomes[i]);
	}
	g_free(outcomes);
	return code;
}

/* ---- the verb ---- */

static int
run(Send *send)
{
	g_autoptr(GError) error = NULL;
	int code = 0;
	bool ok = send_message_load(send, &error);
	if (ok) {
		send->http = send_http_new(&error);
		ok = send->http != NULL &&
		     send_http_identify(send->http, send->api_key_file, send->client_cert,
					send->client_key, &error);
	}
	if (!ok)
		fprintf(stderr, "koukan send: %s\n", error->message);
	for (unsigned i = 0; ok && i < send->rounds; i++)
		code = worse(code, send_all(send));
	send_http_free(send->http);
	send_message_clear(send);
	return ok ? code : 1;
}

enum {
	OPT_FROM = 1,
	OPT_RFC822,
	OPT_BUILDER,
	OPT_SUBJECT,
	OPT_TEXT,
	OPT_HTML,
	OPT_ATTACH,
	OPT_INLINE,
	OPT_URL,
	OPT_TAG,
	OPT_TIMEOUT,
	OPT_WAIT,
	OPT_NO_WAIT,
	OPT_ITERS,
	OPT_PROGRESS,
	OPT_CA,
	OPT_INSECURE,
	OPT_JSON,
	OPT_API_KEY,
	OPT_CERT,
	OPT_KEY,
	OPT_RCPT,
	OPT_IGNORED
};

static const struct option options[] = {
	{"help", no_argument, NULL, 'h'},
	{"mail_from", required_argument, NULL, OPT_FROM},
	{"rfc822_filename", required_argument, NULL, OPT_RFC822},
	{"message_builder_filename", required_argument, NULL, OPT_BUILDER},
	{"subject", required_argument, NULL, OPT_SUBJECT},
	{"text", required_argument, NULL, OPT_TEXT},
	{"html", required_argument, NULL, OPT_HTML},
	{"attach", required_argument, NULL, OPT_ATTACH},
	{"inline", no_argument, NULL, OPT_INLINE},
	{"url", required_argument, NULL, OPT_URL},
	{"base_url", required_argument, NULL, OPT_URL},
	{"router_url", required_argument, NULL, OPT_URL},
	{"tag", required_argument, NULL, OPT_TAG},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"wait", no_argument, NULL, OPT_WAIT},
	{"no-wait", no_argument, NULL, OPT_NO_WAIT},
	{"iters", required_argument, NULL, OPT_ITERS},
	{"progress", no_argument, NULL, OPT_PROGRESS},
	{"ca", required_argument, NULL, OPT_CA},
	{"insecure", no_argument, NULL, OPT_INSECURE},
	{"json", no_argument, NULL, OPT_JSON},
	{"api-key-file", required_argument, NULL, OPT_API_KEY},
	{"client-cert", required_argument, NULL, OPT_CERT},
	{"client-key", required_argument, NULL, OPT_KEY},
	{"rcpt_to", required_argument, NULL, OPT_RCPT},
	{"host", required_argument, NULL, OPT_IGNORED},
	{"notification_host", required_argument, NULL, OPT_IGNORED},
	{"threads", required_argument, NULL, OPT_IGNORED},
	{NULL, 0, NULL, 0}};

/* Options whose value is kept as it is; NULL: another one. */
static const char **
text_option(Send *send, int option)
{
	switch (option) {
	case OPT_FROM:
		return &send->mail_from;
	case OPT_RFC822:
		return &send->rfc822;
	case OPT_BUILDER:
		return &send->builder_file;
	case OPT_SUBJECT:
		return &send->subject;
	case OPT_TEXT:
		return &send->text;
	case OPT_HTML:
		return &send->html;
	case OPT_URL:
		return &send->url;
	case OPT_TAG:
		return &send->tag;
	case OPT_CA:
		return &send->verify;
	case OPT_API_KEY:
		return &send->api_key_file;
	case OPT_CERT:
		return &send->client_cert;
	case OPT_KEY:
		return &send->client_key;
	default:
		return NULL;
	}
}

static bool
take_option(Send *send, GPtrArray *to, int option, char *value)
{
	uint64_t number = 0;
	switch (option) {
	case OPT_ATTACH:
		g_ptr_array_add(send->attach, value);
		return true;
	case OPT_RCPT:
		g_ptr_array_add(to, value);
		return true;
	case OPT_TIMEOUT:
		if (!text_parse_u64(value, strlen(value), 1000000, &number))
			return false;
		send->timeout = (int64_t)number;
		return true;
	case OPT_ITERS:
		if (!text_parse_u64(value, strlen(value), ROUNDS_MAX, &number))
			return false;
		send->rounds = (unsigned)number;
		return true;
	case OPT_WAIT:
	case OPT_NO_WAIT:
		send->no_wait = option == OPT_NO_WAIT;
		return true;
	case OPT_INLINE:
		send->is_inline = true;
		return true;
	case OPT_PROGRESS:
		send->progress = true;
		return true;
	case OPT_INSECURE:
		send->verify = "";
		return true;
	case OPT_JSON:
		send->as_json = true;
		return true;
	default:
		return option == OPT_IGNORED;
	}
}

/* Exactly one message, and --inline with the one form that has it. */
static bool
is_complete(const Send *send)
{
	bool composed = send->subject != NULL || send->text != NULL || send->html != NULL ||
			send->attach->len > 0;
	int messages = (send->rfc822 != NULL) + (send->builder_file != NULL) + composed;
	return send->mail_from != NULL && send->n_to > 0 && messages == 1 &&
	       (!send->is_inline || send->rfc822 != NULL);
}

/* "http://host:port[/]" stands for the whole default path. */
static char *
whole_url(const char *url)
{
	const char *host = strstr(url, "://");
	const char *path = host != NULL ? strchr(host + 3, '/') : NULL;
	if (host == NULL || (path != NULL && path[1] != '\0'))
		return g_strdup(url);
	size_t len = path != NULL ? (size_t)(path - url) : strlen(url);
	return g_strdup_printf("%.*s" DEFAULT_PATH, (int)len, url);
}

int
cmd_send(int argc, char **argv)
{
	g_autoptr(GPtrArray) attach = g_ptr_array_new();
	g_autoptr(GPtrArray) to = g_ptr_array_new();
	Send send = {.url = DEFAULT_URL, .timeout = DEFAULT_TIMEOUT, .rounds = 1, .attach = attach};
	send.progress = isatty(STDERR_FILENO) != 0;
	optind = 1;
	for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (c == 'h') {
			fputs(help, stdout);
			return 0;
		}
		const char **kept = text_option(&send, c);
		if (kept != NULL) {
			*kept = optarg;
		} else if (!take_option(&send, to, c, optarg)) {
			fputs(help, stderr);
			return 2;
		}
	}
	for (int i = optind; i < argc; i++)
		g_ptr_array_add(to, argv[i]);
	send.to = (char **)to->pdata;
	send.n_to = (int)to->len;
	if (!is_complete(&send)) {
		fputs(help, stderr);
		return 2;
	}
	g_autofree char *url = whole_url(send.url);
	send.url = url;
	return run(&send);
}
