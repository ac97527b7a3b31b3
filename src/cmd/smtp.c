/* SPDX-License-Identifier: Apache-2.0 */
/* koukan smtp: sends one message by SMTP and prints each reply.  The dialogue is that of the
 * product's own client, on one worker; the main thread waits for it. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"
#include "base/ids.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "smtp/client_pool.h"
#include "smtp/syntax.h"

#define STDIN_MAX (256 * 1024 * 1024) /* bytes of a message from standard input */

typedef struct Args {
	const char *host, *port, *ehlo, *mail_from;
	uint64_t iters;
	char **rcpts;
	int n_rcpts;
} Args;

typedef struct Sending {
	Worker *worker;
	SmtpClientPool *pool;
	SmtpOutputConf output;
	const Args *args;
	Blob *message;
	HostPort *to;
	Tx *tx;
	TxPort *port;
	TxWatch watch;
	int idle; /* eventfd: the worker has done what it was told to */
} Sending;

/* ---- the message ---- */

static char *
read_stdin(GError **ret_error)
{
	GString *text = g_string_new(NULL);
	char buf[65536];
	size_t got;
	while ((got = fread(buf, 1, sizeof(buf), stdin)) > 0) {
		if (text->len + got > STDIN_MAX) {
			error_set(ret_error, K_ERROR_FULL, "message on standard input is too long");
			g_string_free(text, TRUE);
			return NULL;
		}
		g_string_append_len(text, buf, (gssize)got);
	}
	if (memchr(text->str, '\0', text->len) != NULL) {
		error_set(ret_error, K_ERROR_INPUT, "message on standard input contains a NUL");
		g_string_free(text, TRUE);
		return NULL;
	}
	return g_string_free(text, FALSE);
}

/* Whether the text begins with a header field ("Name: value"); otherwise it is the body only. */
static bool
has_header(const char *text)
{
	size_t name = 0;
	while (text[name] > ' ' && text[name] < 0x7f && text[name] != ':')
		name++;
	return name > 0 && text[name] == ':';
}

static void
put_header(GString *out, const Args *args, bool subject)
{
	char date[CLOCK_DATE_MAX];
	uint8_t random[16];
	clock_format_rfc5322(clock_wall_sec(), false, date);
	ids_random(random, sizeof(random));
	g_string_append_printf(out, "From: <%s>\r\nTo: ", args->mail_from);
	for (int i = 0; i < args->n_rcpts; i++)
		g_string_append_printf(out, "%s<%s>", i > 0 ? ",\r\n\t" : "", args->rcpts[i]);
	g_string_append_printf(out, "\r\nDate: %s\r\nMessage-ID: <", date);
	for (size_t i = 0; i < sizeof(random); i++)
		g_string_append_printf(out, "%02x", random[i]);
	g_string_append_printf(out, "@%s>\r\n", args->ehlo);
	if (subject)
		g_string_append(out, "Subject: test message\r\n");
	g_string_append(out, "\r\n");
}

/* Lines end with CRLF on the wire, whatever they end with here. */
static void
put_lines(GString *out, const char *text)
{
	while (*text != '\0') {
		size_t len = strcspn(text, "\r\n");
		g_string_append_len(out, text, (gssize)len);
		g_string_append(out, "\r\n");
		text += len;
		if (*text == '\r')
			text++;
		if (*text == '\n')
			text++;
	}
}

static Blob *
make_message(const Args *args, const char *text)
{
	GString *out = g_string_new(NULL);
	bool given = text != NULL && text[0] != '\0';
	if (!given || !has_header(text))
		put_header(out, args, !given);
	put_lines(out, given ? text : "This is a test message.\n");
	Blob *blob = blob_new_bytes(out->str, out->len);
	g_string_free(out, TRUE);
	return blob;
}

/* ---- on the worker ---- */

static void
signal_idle(Sending *sending)
{
	uint64_t one = 1;
	k_assert(write(sending->idle, &one, sizeof(one)) == sizeof(one));
}

static void
on_tx(void *arg, Tx *tx)
{
	Sending *sending = arg;
	if (tx->data_response == NULL)
		return;
	tx_unwatch(&sending->watch); /* once */
	signal_idle(sending);
}

static void
start_sending(void *arg)
{
	Sending *sending = arg;
	const Args *args = sending->args;
	char size[32];
	g_snprintf(size, sizeof(size), "%" G_GUINT64_FORMAT, blob_len(sending->message));
	EsmtpParam param = {(char *)"SIZE", size};
	g_autoptr(Mailbox) from = mailbox_new(args->mail_from, &param, 1);
	g_autoptr(TxBody) body = tx_body_new_raw(sending->message);
	sending->tx = tx_new(worker_defers(sending->worker));
	(void)tx_set_hosts(sending->tx, sending->to, NULL);
	(void)tx_set_mail_from(sending->tx, from);
	for (int i = 0; i < args->n_rcpts; i++) {
		g_autoptr(Mailbox) to = mailbox_new(args->rcpts[i], NULL, 0);
		(void)tx_add_rcpt(sending->tx, to);
	}
	(void)tx_set_body(sending->tx, body);
	tx_watch(sending->tx, &sending->watch, on_tx, sending);
	sending->port = smtp_delivery_start(sending->pool, &sending->output, sending->tx);
}

static void
stop_sending(void *arg)
{
	Sending *sending = arg;
	tx_unwatch(&sending->watch);
	tx_port_stop(sending->port);
	g_clear_pointer(&sending->tx, tx_unref);
	signal_idle(sending);
}

static void
free_pool(void *arg)
{
	Sending *sending = arg;
	smtp_client_pool_free(sending->pool);
	signal_idle(sending);
}

/* Runs fn on the worker and waits until signal_idle. */
static void
on_worker(Sending *sending, WorkerFn *fn)
{
	uint64_t count = 0;
	worker_post(sending->worker, fn, sending);
	while (read(sending->idle, &count, sizeof(count)) != sizeof(count))
		k_assert(errno == EINTR);
}

/* ---- the dialogue ---- */

static void
print_reply(const char *command, const char *what, const Response *response)
{
	g_auto(GStrv) lines = g_strsplit(response->message, "\n", -1);
	for (unsigned i = 0; lines[i] != NULL; i++) {
		g_autofree char *text = text_escape(lines[i], strlen(lines[i]), 1000);
		(void)printf("%s%s: %d%c%s\n", command, what, response->code,
			     lines[i + 1] != NULL ? '-' : ' ', text);
	}
}

static bool
print_replies(const Tx *tx)
{
	bool ok = response_ok(tx->mail_response) && response_ok(tx->data_response);
	g_autofree char *from = g_strdup_printf(" FROM:<%s>", tx->mail_from->addr);
	print_reply("MAIL", from, tx->mail_response);
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		const TxRcpt *rcpt = tx_rcpt(tx, i);
		g_autofree char *to = g_strdup_printf(" TO:<%s>", rcpt->to->addr);
		if (rcpt->response == NULL)
			continue;
		print_reply("RCPT", to, rcpt->response);
		ok = ok && response_ok(rcpt->response);
	}
	print_reply("DATA", "", tx->data_response);
	(void)fflush(stdout);
	return ok;
}

static bool
could_not_connect(const Tx *tx)
{
	return tx->mail_response != NULL && tx->mail_response->code == 400 &&
	       g_str_has_prefix(tx->mail_response->message, "connect error");
}

/* One message; the addresses of the host in turn until one can be connected to. */
static bool
send_message(Sending *sending, const struct addrinfo *addrs)
{
	bool ok = false;
	for (const struct addrinfo *at = addrs; at != NULL; at = at->ai_next) {
		char text[NET_ADDR_TEXT_MAX];
		NetAddr addr;
		net_addr_from_sockaddr(at->ai_addr, at->ai_addrlen, &addr);
		net_addr_format(&addr, text);
		sending->to = net_addr_host_port(&addr);
		on_worker(sending, start_sending);
		/* nothing is going on any more: the tx may be read here */
		bool next = could_not_connect(sending->tx) && at->ai_next != NULL;
		if (next)
			(void)fprintf(stderr, "koukan smtp: %s port %s: %s\n", text,
				      sending->args->port, sending->tx->mail_response->message);
		else
			ok = print_replies(sending->tx);
		on_worker(sending, stop_sending);
		g_clear_pointer(&sending->to, host_port_free);
		if (!next)
			break;
	}
	return ok;
}

static bool
run(const Args *args, Blob *message, const struct addrinfo *addrs, GError **ret_error)
{
	Sending sending = {.args = args, .message = message};
	Workers *workers = workers_new(1, ret_error);
	bool ok = true;
	if (workers == NULL)
		return false;
	sending.worker = workers_get(workers, 0);
	smtp_output_conf_init(&sending.output);
	sending.output.ehlo_host = args->ehlo;
	sending.pool = smtp_client_pool_new(sending.worker);
	sending.idle = eventfd(0, EFD_CLOEXEC);
	if (sending.idle < 0)
		(void)error_set_errno(ret_error, K_ERROR_IO, errno, "eventfd");
	if (sending.idle < 0 || !workers_start(workers, ret_error)) {
		smtp_client_pool_free(sending.pool);
		workers_free(workers);
		return false;
	}
	for (uint64_t i = 0; i < args->iters; i++)
		ok = send_message(&sending, addrs) && ok;
	on_worker(&sending, free_pool);
	workers_stop(workers);
	workers_free(workers);
	(void)close(sending.idle);
	if (!ok)
		error_set(ret_error, K_ERROR_INPUT, "not everything was accepted");
	return ok;
}

/* ---- arguments ---- */

static void
usage(FILE *out)
{
	(void)fputs(
		"usage: koukan smtp HOST PORT EHLO FROM TO...\n"
		"       koukan smtp --mail_from A [--host localhost] [--port 1025]\n"
		"                   [--ehlo localhost] [--iters 1] TO...\n\n"
		"Sends a message by SMTP and prints each reply.  The message comes from standard\n"
		"input (a text without header fields gets some); without one a test message is\n"
		"sent.  FROM may be empty (\"\").  Exit code 0: every recipient and the message\n"
		"were accepted.\n",
		out);
}

static bool
parse_flags(Args *args, int argc, char **argv)
{
	int i = 1;
	for (; i + 1 < argc && g_str_has_prefix(argv[i], "--"); i += 2) {
		const char *value = argv[i + 1];
		if (strcmp(argv[i], "--host") == 0)
			args->host = value;
		else if (strcmp(argv[i], "--port") == 0)
			args->port = value;
		else if (strcmp(argv[i], "--ehlo") == 0)
			args->ehlo = value;
		else if (strcmp(argv[i], "--mail_from") == 0)
			args->mail_from = value;
		else if (strcmp(argv[i], "--iters") != 0 ||
			 !text_parse_u64(value, strlen(value), 1000000, &args->iters))
			return false;
	}
	args->rcpts = argv + i;
	args->n_rcpts = argc - i;
	return args->mail_from != NULL;
}

static bool
parse(Args *args, int argc, char **argv)
{
	uint64_t port = 0;
	*args = (Args){.host = "localhost", .port = "1025", .ehlo = "localhost", .iters = 1};
	if (argc > 1 && g_str_has_prefix(argv[1], "--")) {
		if (!parse_flags(args, argc, argv))
			return false;
	} else if (argc > 5) {
		args->host = argv[1];
		args->port = argv[2];
		args->ehlo = argv[3];
		args->mail_from = argv[4];
		args->rcpts = argv + 5;
		args->n_rcpts = argc - 5;
	}
	if (args->n_rcpts < 1 || !text_parse_u64(args->port, strlen(args->port), 65535, &port) ||
	    port == 0)
		return false;
	for (int i = 0; i < args->n_rcpts; i++) {
		if (args->rcpts[i][0] == '-' || !smtp_address_is_sendable(args->rcpts[i]))
			return false;
	}
	return smtp_address_is_sendable(args->mail_from) &&
	       smtp_hello_name_is_valid(args->ehlo, strlen(args->ehlo));
}

int
cmd_smtp(int argc, char **argv)
{
	Args args;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *addrs = NULL;
	g_autoptr(GError) error = NULL;
	g_autofree char *text = NULL;
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		usage(stdout);
		return 0;
	}
	if (!parse(&args, argc, argv)) {
		usage(stderr);
		return 2;
	}
	if (isatty(STDIN_FILENO) == 0) {
		text = read_stdin(&error);
		if (text == NULL) {
			(void)fprintf(stderr, "koukan smtp: %s\n", error->message);
			return 1;
		}
	}
	int rc = getaddrinfo(args.host, args.port, &hints, &addrs);
	if (rc != 0) {
		(void)fprintf(stderr, "koukan smtp: %s: %s\n", args.host, gai_strerror(rc));
		return 1;
	}
	g_autoptr(Blob) message = make_message(&args, text);
	bool ok = run(&args, message, addrs, &error);
	freeaddrinfo(addrs);
	if (!ok)
		(void)fprintf(stderr, "koukan smtp: %s\n", error->message);
	return ok ? 0 : 1;
}
