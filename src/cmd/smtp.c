/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "cmd/smtp_int.h"

/* ---- on the worker ---- */

void
smtp_signal_idle(Sending *sending)
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
	smtp_signal_idle(sending);
}

Tx *
smtp_make_tx(const Sending *sending)
{
	const SmtpArgs *args = sending->args;
	char size[32];
	g_snprintf(size, sizeof(size), "%" G_GUINT64_FORMAT, blob_len(sending->message));
	EsmtpParam param = {(char *)"SIZE", size};
	g_autoptr(Mailbox) from = mailbox_new(args->mail_from, &param, 1);
	g_autoptr(TxBody) body = tx_body_new_raw(sending->message);
	Tx *tx = tx_new(worker_defers(sending->worker));
	(void)tx_set_hosts(tx, sending->to, NULL);
	(void)tx_set_mail_from(tx, from);
	for (int i = 0; i < args->n_rcpts; i++) {
		g_autoptr(Mailbox) to = mailbox_new(args->rcpts[i], NULL, 0);
		(void)tx_add_rcpt(tx, to);
	}
	(void)tx_set_body(tx, body);
	return tx;
}

static void
start_sending(void *arg)
{
	Sending *sending = arg;
	sending->tx = smtp_make_tx(sending);
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
	smtp_signal_idle(sending);
}

static void
free_pool(void *arg)
{
	Sending *sending = arg;
	smtp_client_pool_free(sending->pool);
	smtp_signal_idle(sending);
}

bool
smtp_wait_idle(Sending *sending, int timeout)
{
	struct pollfd pfd = {.fd = sending->idle, .events = POLLIN};
	uint64_t count = 0;
	if (poll(&pfd, 1, timeout) != 1)
		return false;
	return read(sending->idle, &count, sizeof(count)) == sizeof(count);
}

void
smtp_on_worker(Sending *sending, WorkerFn *fn)
{
	worker_post(sending->worker, fn, sending);
	while (!smtp_wait_idle(sending, -1))
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
all_ok(const Tx *tx)
{
	return response_ok(tx->mail_response) && response_ok(tx->data_response) &&
	       tx_rcpts_accepted(tx) == tx_rcpt_count(tx);
}

static bool
print_replies(const Tx *tx)
{
	g_autofree char *from = g_strdup_printf(" FROM:<%s>", tx->mail_from->addr);
	print_reply("MAIL", from, tx->mail_response);
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		const TxRcpt *rcpt = tx_rcpt(tx, i);
		g_autofree char *to = g_strdup_printf(" TO:<%s>", rcpt->to->addr);
		if (rcpt->response == NULL)
			continue;
		print_reply("RCPT", to, rcpt->response);
	}
	print_reply("DATA", "", tx->data_response);
	(void)fflush(stdout);
	return all_ok(tx);
}

static bool
could_not_connect(const Tx *tx)
{
	return tx->mail_response != NULL && tx->mail_response->code == 400 &&
	       g_str_has_prefix(tx->mail_response->message, "connect error");
}

/* One message; the addresses of the host in turn until one can be connected to, which becomes the
 * one and only address in load mode. */
static bool
send_message(Sending *sending, const struct addrinfo *addrs)
{
	bool ok = false;
	for (const struct addrinfo *at = addrs; at != NULL; at = at->ai_next) {
		char text[NET_ADDR_TEXT_MAX];
		NetAddr addr;
		net_addr_from_sockaddr(at->ai_addr, at->ai_addrlen, &addr);
		net_addr_format(&addr, text);
		g_clear_pointer(&sending->to, host_port_free);
		sending->to = net_addr_host_port(&addr);
		smtp_on_worker(sending, start_sending);
		/* nothing is going on any more: the tx may be read here */
		bool next = could_not_connect(sending->tx) && at->ai_next != NULL;
		if (next)
			(void)fprintf(stderr, "koukan smtp: %s port %s: %s\n", text,
				      sending->args->port, sending->tx->mail_response->message);
		else
			ok = sending->args->load ? all_ok(sending->tx) : print_replies(sending->tx);
		if (!next && !ok && sending->args->load)
			(void)print_replies(sending->tx);
		smtp_on_worker(sending, stop_sending);
		if (!next)
			break;
	}
	return ok;
}

static bool
send_all(Sending *sending, const struct addrinfo *addrs)
{
	const SmtpArgs *args = sending->args;
	SmtpLoadResult result;
	bool ok = true;
	if (!args->load) {
		for (uint64_t i = 0; i < args->count; i++)
			ok = send_message(sending, addrs) && ok;
		return ok;
	}
	/* the first one alone, and not counted in the rates: it finds the address */
	if (!send_message(sending, addrs))
		return false;
	smtp_load(sending, args->count - 1, &result);
	return result.accepted == args->count - 1;
}

static bool
set_output(Sending *sending, GError **ret_error)
{
	const SmtpArgs *args = sending->args;
	SmtpOutputConf *output = &sending->output;
	bool verify = args->tls_ca != NULL || args->tls_name != NULL;
	smtp_output_conf_init(output);
	output->ehlo_host = args->ehlo;
	output->protocol = args->lmtp ? SMTP_PROTOCOL_LMTP : SMTP_PROTOCOL_SMTP;
	output->tls_policy = args->tls;
	output->tls_name = args->tls_name;
	output->auth_user = args->auth_user;
	output->auth_secret = args->auth_secret;
	output->enable_bdat = args->bdat;
	output->no_pipelining = args->no_pipelining;
	output->per_destination = (unsigned)MIN(args->connections, 100000U);
	if (args->load)
		output->reuse_max = UINT_MAX;
	output->tls = tls_client_new(verify ? TLS_VERIFY_NAME : TLS_VERIFY_NONE, args->tls_ca,
				     ret_error);
	return output->tls != NULL;
}

static bool
run(const SmtpArgs *args, Blob *message, const struct addrinfo *addrs, GError **ret_error)
{
	Sending sending = {.args = args, .message = message};
	bool ok = false;
	if (!set_output(&sending, ret_error))
		return false;
	Workers *workers = workers_new(1, ret_error);
	if (workers == NULL) {
		tls_context_unref(sending.output.tls);
		return false;
	}
	sending.worker = workers_get(workers, 0);
	sending.pool = smtp_client_pool_new(sending.worker);
	sending.idle = eventfd(0, EFD_CLOEXEC);
	if (sending.idle < 0)
		(void)error_set_errno(ret_error, K_ERROR_IO, errno, "eventfd");
	if (sending.idle < 0 || !workers_start(workers, ret_error)) {
		smtp_client_pool_free(sending.pool);
		workers_free(workers);
		tls_context_unref(sending.output.tls);
		return false;
	}
	ok = send_all(&sending, addrs);
	g_clear_pointer(&sending.to, host_port_free);
	smtp_on_worker(&sending, free_pool);
	workers_stop(workers);
	workers_free(workers);
	tls_context_unref(sending.output.tls);
	(void)close(sending.idle);
	if (!ok)
		error_set(ret_error, K_ERROR_INPUT, "not everything was accepted");
	return ok;
}

static int
fail(const char *what, const char *text)
{
	(void)fprintf(stderr, "koukan smtp: %s%s%s\n", what, what[0] != '\0' ? ": " : "", text);
	return 1;
}

int
cmd_smtp(int argc, char **argv)
{
	SmtpArgs args;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *addrs = NULL;
	g_autoptr(GError) error = NULL;
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		smtp_usage(stdout);
		return 0;
	}
	if (!smtp_args_parse(&args, argc, argv)) {
		smtp_usage(stderr);
		return 2;
	}
	g_autoptr(Blob) message = smtp_args_read(&args, &error);
	int rc = message != NULL ? getaddrinfo(args.host, args.port, &hints, &addrs) : 0;
	bool ok = message != NULL && rc == 0 && run(&args, message, addrs, &error);
	if (addrs != NULL)
		freeaddrinfo(addrs);
	g_free(args.auth_secret);
	if (rc != 0)
		return fail(args.host, gai_strerror(rc));
	return ok ? 0 : fail("", error->message);
}
