/* SPDX-License-Identifier: Apache-2.0 */
/* koukan sink: an SMTP server that takes and prints (or stores) every message, and refuses or
 * hangs where the address says so.  One worker; the main thread waits for a signal. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "cmd/sink_int.h"
#include "loop/listen.h"

#define SHOWN_MAX   10000                 /* bytes of a message that is printed line by line */
#define MESSAGE_MAX (256 * 1024 * 1024)   /* bytes */
#define HANG        (3600 * USEC_PER_SEC) /* what "timeout" addresses wait */

typedef enum Step { STEP_MAIL, STEP_RCPT, STEP_DATA, STEPS } Step;

/* ---- output ---- */

static json_t *
envelope_json(const Sink *sink, const Tx *tx)
{
	json_t *rcpts = json_array(), *params = json_array();
	const char *helo = json_get_str(tx->smtp_meta, "ehlo_host");
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		if (response_ok(tx_rcpt(tx, i)->response))
			json_array_append_new(rcpts, json_string(tx_rcpt(tx, i)->to->addr));
	}
	for (size_t i = 0; i < tx->mail_from->n_params; i++) {
		const EsmtpParam *param = &tx->mail_from->params[i];
		json_array_append_new(params,
				      json_sprintf("%s%s%s", param->keyword,
						   param->value != NULL ? "=" : "",
						   param->value != NULL ? param->value : ""));
	}
	return json_pack("{s:I, s:s, s:o, s:o, s:I, s:s, s:s}", "number", (json_int_t)sink->count,
			 "mail_from", tx->mail_from->addr, "mail_params", params, "rcpt_to", rcpts,
			 "bytes", (json_int_t)blob_len(tx->body->raw), "helo",
			 helo != NULL ? helo : "", "peer", tx->remote_host->host);
}

static bool
write_file(const char *dir, const char *name, const void *data, size_t len, GError **ret_error)
{
	g_autofree char *path = g_build_filename(dir, name, NULL);
	g_autofree char *tmp = g_strdup_printf("%s/.%s.tmp", dir, name);
	FILE *file = fopen(tmp, "we");
	if (file == NULL)
		return error_set_errno(ret_error, K_ERROR_IO, errno, "%s", tmp);
	bool ok = fwrite(data, 1, len, file) == len;
	int errnum = errno;
	if (fclose(file) != 0 && ok) {
		ok = false;
		errnum = errno;
	}
	if (ok && rename(tmp, path) == 0)
		return true;
	if (ok)
		errnum = errno;
	(void)unlink(tmp);
	return error_set_errno(ret_error, K_ERROR_IO, errnum, "%s", path);
}

static bool
store(const Sink *sink, const json_t *envelope, const char *body, size_t len, GError **ret_error)
{
	g_autofree char *eml = g_strdup_printf("%06" G_GUINT64_FORMAT ".eml", sink->count);
	g_autofree char *json = g_strdup_printf("%06" G_GUINT64_FORMAT ".json", sink->count);
	g_autofree char *text = json_print(envelope);
	/* the envelope last: who sees it finds the message, too */
	return write_file(sink->dir, eml, body, len, ret_error) &&
	       write_file(sink->dir, json, text, strlen(text), ret_error);
}

static void
print_body(GString *out, const char *body, size_t len)
{
	const char *end = body + len;
	while (body < end) {
		const char *stop = memchr(body, '\n', (size_t)(end - body));
		size_t line = stop != NULL ? (size_t)(stop - body) : (size_t)(end - body);
		size_t shown = line > 0 && body[line - 1] == '\r' ? line - 1 : line;
		g_autofree char *text = text_escape(body, shown, SHOWN_MAX);
		g_string_append_printf(out, "> %s\n", text);
		body += line + (stop != NULL ? 1 : 0);
	}
}

static void
print_text(const Sink *sink, const Tx *tx, const char *body, size_t len)
{
	GString *out = g_string_new(NULL);
	const char *helo = json_get_str(tx->smtp_meta, "ehlo_host");
	g_string_append_printf(out, "message %" G_GUINT64_FORMAT " from %s helo %s\n", sink->count,
			       tx->remote_host->host, helo != NULL ? helo : "");
	g_string_append_printf(out, "mail_from %s\n", tx->mail_from->addr);
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		if (response_ok(tx_rcpt(tx, i)->response))
			g_string_append_printf(out, "rcpt_to %s\n", tx_rcpt(tx, i)->to->addr);
	}
	if (len < SHOWN_MAX)
		print_body(out, body, len);
	g_string_append_printf(out, "%zu bytes\n", len);
	(void)fwrite(out->str, 1, out->len, stdout);
	(void)fflush(stdout);
	g_string_free(out, TRUE);
}

static void
print_json(json_t *envelope, const char *body, size_t len)
{
	if (g_utf8_validate(body, (gssize)len, NULL))
		(void)json_object_set_new(envelope, "body", json_stringn(body, len));
	g_autofree char *text = json_print(envelope);
	(void)printf("%s\n", text);
	(void)fflush(stdout);
}

Response *
sink_take_message(Sink *sink, const Tx *tx)
{
	g_autoptr(GError) error = NULL;
	size_t len = 0;
	if (sink->quiet && sink->dir == NULL && !sink->json) {
		sink->count++;
		return response_new(250, "Message accepted for delivery");
	}
	g_autofree char *body = blob_to_string(tx->body->raw, MESSAGE_MAX, &len, &error);
	if (body == NULL) {
		(void)fprintf(stderr, "koukan sink: %s\n", error->message);
		return response_new(451, "4.3.0 could not read the message back");
	}
	sink->count++;
	g_autoptr(json_t) envelope = envelope_json(sink, tx);
	if (sink->dir != NULL && !store(sink, envelope, body, len, &error)) {
		(void)fprintf(stderr, "koukan sink: %s\n", error->message);
		return response_new(452, "4.3.1 could not store the message");
	}
	if (sink->json)
		print_json(envelope, body, len);
	else if (!sink->quiet)
		print_text(sink, tx, body, len);
	return response_new(250, "Message accepted for delivery");
}

/* ---- the port: answers by the recipient's address ---- */

typedef struct SinkPort {
	TxPort port; /* first */
	Sink *sink;
	Tx *tx;
	TxWatch watch;
	size_t rcpts; /* answered, or left to hang */
	bool body;    /* the same */
	Timer delay;
} SinkPort;

/* The answer that was asked for on the command line; NULL: none. */
static Response *
wanted(const Sink *sink, Step step)
{
	int code = sink->codes[step];
	return code != 0 ? response_newf(code, "as asked for") : NULL;
}

static void
answer_rcpts(SinkPort *port)
{
	Tx *tx = port->tx;
	for (; port->rcpts < tx_rcpt_count(tx); port->rcpts++) {
		const char *addr = tx_rcpt(tx, port->rcpts)->to->addr;
		if (g_str_has_prefix(addr, "rcpttimeout"))
			continue;
		Response *response = wanted(port->sink, STEP_RCPT);
		if (response == NULL)
			response = g_str_has_prefix(addr, "rcpttemp")
					   ? response_new(450, "rcpt temp")
				   : g_str_has_prefix(addr, "rcptperm")
					   ? response_new(550, "rcpt perm")
					   : response_new(250, "OK");
		(void)tx_answer_rcpt(tx, port->rcpts, response);
	}
}

static void
answer_data(SinkPort *port)
{
	Tx *tx = port->tx;
	const char *addr = tx_rcpt_count(tx) == 1 ? tx_rcpt(tx, 0)->to->addr : "";
	Response *response = wanted(port->sink, STEP_DATA);
	port->body = true;
	if (response == NULL && g_str_has_prefix(addr, "datatimeout"))
		return;
	if (response != NULL)
		(void)tx_answer_data(tx, response);
	else if (g_str_has_prefix(addr, "datatemp"))
		(void)tx_answer_data(tx, response_new(450, "data temp"));
	else if (g_str_has_prefix(addr, "dataperm"))
		(void)tx_answer_data(tx, response_new(550, "data perm"));
	else
		(void)tx_answer_data(tx, sink_take_message(port->sink, tx));
}

static void
answer_all(void *arg)
{
	SinkPort *port = arg;
	Tx *tx = port->tx;
	if (tx->cancelled)
		return;
	if (tx->mail_response == NULL) {
		Response *response = wanted(port->sink, STEP_MAIL);
		(void)tx_answer_mail(tx, response != NULL ? response : response_new(250, "ok"));
	}
	answer_rcpts(port);
	if (!port->body && tx_body_ready(tx))
		answer_data(port);
}

/* Something is to be answered that was not there before. */
static bool
is_owed(const SinkPort *port)
{
	const Tx *tx = port->tx;
	return tx->mail_response == NULL || port->rcpts < tx_rcpt_count(tx) ||
	       (!port->body && tx_body_ready(tx));
}

static void
on_tx(void *arg, Tx *tx)
{
	SinkPort *port = arg;
	(void)tx;
	if (port->sink->delay == 0)
		answer_all(port);
	else if (is_owed(port) && !timer_is_set(&port->delay))
		timer_set(&port->delay, (Usec)port->sink->delay * USEC_PER_MS);
}

static void
sink_port_stop(TxPort *base)
{
	SinkPort *port = (SinkPort *)base;
	timer_clear(&port->delay);
	tx_unwatch(&port->watch);
	tx_unref(port->tx);
	g_free(port);
}

static const TxPortOps sink_port_ops = {.name = "sink", .stop = sink_port_stop};

static TxPort *
take(void *arg, Worker *worker, Tx *tx)
{
	SinkPort *port = g_new0(SinkPort, 1);
	timer_init(&port->delay, worker, answer_all, port);
	port->port.ops = &sink_port_ops;
	port->sink = arg;
	port->tx = tx_ref(tx);
	tx_watch(tx, &port->watch, on_tx, port);
	tx_touch(tx); /* what is there already */
	return &port->port;
}

/* ---- the program ---- */

static void
on_accept(void *arg, Worker *worker, int fd, const NetAddr *peer)
{
	Sink *sink = arg;
	(void)worker;
	(void)peer;
	if (sink->peers != NULL)
		sink_peers_accept(sink->peers, fd);
	else
		smtp_sessions_accept(sink->sessions, fd);
}

/* Numbers go on behind what is in the folder already. */
static bool
open_dir(Sink *sink, GError **ret_error)
{
	if (g_mkdir_with_parents(sink->dir, 0755) != 0)
		return error_set_errno(ret_error, K_ERROR_IO, errno, "%s", sink->dir);
	DIR *dir = opendir(sink->dir);
	if (dir == NULL)
		return error_set_errno(ret_error, K_ERROR_IO, errno, "%s", sink->dir);
	for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
		uint64_t number = 0;
		size_t digits = strspn(entry->d_name, "0123456789");
		if (text_parse_u64(entry->d_name, digits, UINT32_MAX, &number) &&
		    number > sink->count)
			sink->count = number;
	}
	(void)closedir(dir);
	return true;
}

static void
free_sessions(void *arg)
{
	Sink *sink = arg;
	smtp_sessions_free(sink->sessions);
	sink_peers_free(sink->peers);
	sink->sessions = NULL;
	sink->peers = NULL;
}

/* What the files of the command line say. */
static bool
load_files(Sink *sink, GError **ret_error)
{
	if (sink->cert != NULL) {
		sink->conf.tls = tls_server_new(sink->cert, sink->key, ret_error);
		if (sink->conf.tls == NULL)
			return false;
		sink->conf.tls_implicit = sink->smtps;
	}
	if (sink->auth != NULL && !sink->lmtp && sink->faults->len == 0) {
		sink->conf.secrets = smtp_secrets_load(sink->auth, ret_error);
		if (sink->conf.secrets == NULL)
			return false;
		sink->conf.auth_clear_loopback = true;
	}
	return true;
}

static bool
run(Sink *sink, const sigset_t *until, GError **ret_error)
{
	int got = 0;
	if ((sink->dir != NULL && !open_dir(sink, ret_error)) || !load_files(sink, ret_error))
		return false;
	sink->workers = workers_new(1, ret_error);
	if (sink->workers == NULL)
		return false;
	Worker *worker = workers_get(sink->workers, 0);
	/* the product's session does not misbehave, and is no LMTP server */
	if (sink->lmtp || sink->faults->len > 0)
		sink->peers = sink_peers_new(sink, worker);
	else
		sink->sessions = smtp_sessions_new(worker, &sink->conf);
	Listener *listener = NULL;
	if (workers_start(sink->workers, ret_error))
		listener = listener_open(sink->workers, sink->host, sink->port, on_accept, sink,
					 ret_error);
	if (listener != NULL) {
		bool v6 = strchr(sink->host, ':') != NULL;
		(void)printf("listening on %s%s%s:%u\n", v6 ? "[" : "", sink->host, v6 ? "]" : "",
			     (unsigned)listener_port(listener));
		(void)fflush(stdout);
		while (sigwait(until, &got) != 0)
			;
		listener_free(listener);
	}
	worker_post(workers_get(sink->workers, 0), free_sessions, sink);
	workers_stop(sink->workers);
	workers_free(sink->workers);
	return listener != NULL;
}

static void
usage(FILE *out)
{
	(void)fputs(
		"usage: koukan sink PORT [--host H] [--json] [--dir D] [--quiet] [OPTIONS]\n\n"
		"Takes every message sent to PORT (0: any free port) and prints it.\n"
		"  --host H   address to listen on (127.0.0.1)\n"
		"  --json     one JSON object a line instead of text\n"
		"  --dir D    stores each message as D/NNNNNN.eml and its envelope as D/NNNNNN.json\n"
		"  --quiet    prints no messages (nothing but the address)\n"
		"  --tls CERT KEY   offers STARTTLS; with --smtps: TLS from the first byte\n"
		"  --auth FILE      offers AUTH, with secrets as `koukan secret` prints them\n"
		"  --require-auth   and refuses MAIL without it\n"
		"  --bdat, --dsn    offers CHUNKING and BINARYMIME; DSN\n"
		"  --mail CODE, --rcpt CODE, --data CODE   answers so (data: to the message)\n"
		"  --delay MS       waits before each of these answers\n"
		"  --lmtp           speaks LMTP: an answer for each recipient\n",
		out);
	(void)fputs(sink_fault_help, out);
	(void)fputs(
		"\nWith --lmtp or --fault it is a simpler server, which takes any credentials and\n"
		"knows no special addresses and none of the options --mail to --delay.  Otherwise:\n"
		"Recipients that begin with rcpttemp, rcptperm or rcpttimeout are refused or never\n"
		"answered at RCPT; a single recipient that begins with datatemp, dataperm or\n"
		"datatimeout likewise behind the message.\n\n"
		"Examples:\n"
		"  koukan sink 2525 --dir mail\n"
		"  koukan sink 2525 --quiet --fault message/10:drop --fault rcpt:slow=100\n"
		"  koukan sink 2424 --lmtp --fault 'message/2:452 4.2.2 full'\n"
		"  koukan sink 2525 --tls cert.pem key.pem --fault tls:junk\n",
		out);
}

static bool
parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number)
{
	return text_parse_u64(text, strlen(text), max, ret_number) && *ret_number >= min;
}

/* The options about what the server offers and answers; moves *at over what it took. */
static bool
parse_server(Sink *sink, char **argv, int argc, int *at)
{
	static const char *const steps[STEPS] = {"--mail", "--rcpt", "--data"};
	const char *arg = argv[*at];
	int left = argc - *at - 1;
	uint64_t number = 0;
	for (int i = 0; i < STEPS; i++) {
		if (strcmp(arg, steps[i]) != 0)
			continue;
		if (left < 1 || !parse_number(argv[++*at], 200, 599, &number))
			return false;
		sink->codes[i] = (int)number;
		return true;
	}
	if (strcmp(arg, "--smtps") == 0) {
		sink->smtps = true;
	} else if (strcmp(arg, "--require-auth") == 0) {
		sink->conf.require_auth = true;
	} else if (strcmp(arg, "--bdat") == 0) {
		sink->conf.chunking = sink->conf.binarymime = true;
	} else if (strcmp(arg, "--dsn") == 0) {
		sink->conf.dsn = true;
	} else if (strcmp(arg, "--lmtp") == 0) {
		sink->lmtp = true;
	} else if (strcmp(arg, "--fault") == 0 && left >= 1) {
		SinkFault fault;
		if (!sink_fault_parse(argv[++*at], &fault))
			return false;
		g_array_append_val(sink->faults, fault);
	} else if (strcmp(arg, "--auth") == 0 && left >= 1) {
		sink->auth = argv[++*at];
	} else if (strcmp(arg, "--delay") == 0 && left >= 1) {
		return parse_number(argv[++*at], 0, 3600000, &sink->delay);
	} else if (strcmp(arg, "--tls") == 0 && left >= 2) {
		sink->cert = argv[++*at];
		sink->key = argv[++*at];
	} else {
		return false;
	}
	return true;
}

static bool
parse(Sink *sink, int argc, char **argv)
{
	const char *port = NULL;
	uint64_t number = 0;
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];
		bool more = i + 1 < argc;
		if (strcmp(arg, "--json") == 0)
			sink->json = true;
		else if (strcmp(arg, "--quiet") == 0)
			sink->quiet = true;
		else if (strcmp(arg, "--dir") == 0 && more)
			sink->dir = argv[++i];
		else if (strcmp(arg, "--host") == 0 && more)
			sink->host = argv[++i];
		else if (parse_server(sink, argv, argc, &i))
			continue;
		else if (arg[0] != '-' && port == NULL)
			port = arg;
		else
			return false;
	}
	if (port == NULL || !text_parse_u64(port, strlen(port), UINT16_MAX, &number))
		return false;
	sink->port = (uint16_t)number;
	return true;
}

static void
fault_clear(void *data)
{
	g_free(((SinkFault *)data)->text);
}

int
cmd_sink(int argc, char **argv)
{
	Sink sink = {.host = "127.0.0.1"};
	g_autoptr(GError) error = NULL;
	char hostname[256] = "localhost";
	sigset_t until;
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		usage(stdout);
		return 0;
	}
	smtp_service_conf_init(&sink.conf);
	sink.faults = g_array_new(FALSE, FALSE, sizeof(SinkFault));
	g_array_set_clear_func(sink.faults, fault_clear);
	if (!parse(&sink, argc, argv) || (sink.smtps && sink.cert == NULL)) {
		usage(stderr);
		g_array_unref(sink.faults);
		return 2;
	}
	/* OpenSSL writes without MSG_NOSIGNAL */
	const struct sigaction ignore = {.sa_handler = SIG_IGN};
	(void)sigaction(SIGPIPE, &ignore, NULL);
	/* before there are threads, so that only sigwait gets them */
	(void)sigemptyset(&until);
	(void)sigaddset(&until, SIGINT);
	(void)sigaddset(&until, SIGTERM);
	(void)pthread_sigmask(SIG_BLOCK, &until, NULL);
	(void)gethostname(hostname, sizeof(hostname) - 1);

	sink.conf.hostname = hostname;
	sink.conf.greeting = "ESMTP koukan fake smtpd";
	sink.conf.mail_timeout = sink.conf.rcpt_timeout = sink.conf.data_timeout = HANG;
	sink.conf.limits.message_max = MESSAGE_MAX;
	sink.conf.take = take;
	sink.conf.arg = &sink;
	bool ok = run(&sink, &until, &error);
	if (!ok)
		(void)fprintf(stderr, "koukan sink: %s\n", error->message);
	tls_context_unref(sink.conf.tls);
	smtp_secrets_unref(sink.conf.secrets);
	g_array_unref(sink.faults);
	return ok ? 0 : 1;
}
