/* SPDX-License-Identifier: Apache-2.0 */
/* A whole server session in front of a backend in memory.  The same bytes cut at any place give
 * the same replies and the same messages; what leaves are well-formed reply lines of bounded
 * length; a message is complete only behind a true end of data. */
#include "fuzz.h"

#include <sys/socket.h>
#include <unistd.h>

#include "smtp/reply.h"
#include "smtp/session.h"

#define USERS       "{\"bob\": \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"}"
#define QUIET_TURNS 3 /* turns without output after which a session waits for input */

typedef struct Run {
	GString *replies;
	GString *messages;
	bool lmtp, normalize;
	bool cut_off; /* it ended because something was behind a refused DATA: depends on the cuts
		       */
} Run;

typedef struct Backend {
	TxPort port; /* first */
	Run *run;
	Tx *tx;
	TxWatch watch;
	size_t rcpts;
} Backend;

static Response *
verdict(const char *addr, const char *prefix)
{
	if (g_str_has_prefix(addr, prefix) && addr[strlen(prefix)] == '5')
		return response_new(550, "5.1.1 no\nsecond line");
	if (g_str_has_prefix(addr, prefix) && addr[strlen(prefix)] == '4')
		return response_new(450, NULL);
	return response_new(250, NULL);
}

static void
take_message(Backend *backend)
{
	const Tx *tx = backend->tx;
	size_t len = 0;
	g_autofree char *body = blob_to_string(tx->body->raw, UINT64_MAX, &len, NULL);
	k_assert(body != NULL && memchr(body, '\0', len) == NULL);
	g_string_append_printf(backend->run->messages, "%s %zu ", tx->mail_from->addr, len);
	g_string_append_len(backend->run->messages, body, (gssize)len);
}

static void
on_tx(void *arg, Tx *tx)
{
	Backend *backend = arg;
	if (tx->cancelled)
		return;
	if (tx->mail_response == NULL)
		(void)tx_answer_mail(tx, verdict(tx->mail_from->addr, ""));
	for (; backend->rcpts < tx_rcpt_count(tx); backend->rcpts++)
		(void)tx_answer_rcpt(tx, backend->rcpts,
				     verdict(tx_rcpt(tx, backend->rcpts)->to->addr, ""));
	if (tx->data_response == NULL && tx_body_ready(tx)) {
		take_message(backend);
		(void)tx_answer_data(tx, verdict(tx->mail_from->addr, "d"));
	}
}

static void
backend_stop(TxPort *port)
{
	Backend *backend = (Backend *)port;
	tx_unwatch(&backend->watch);
	tx_unref(backend->tx);
	g_free(backend);
}

static const TxPortOps backend_ops = {.name = "fuzz", .stop = backend_stop};

static TxPort *
take(void *arg, Worker *worker, Tx *tx)
{
	Backend *backend = g_new0(Backend, 1);
	(void)worker;
	backend->port.ops = &backend_ops;
	backend->run = arg;
	backend->tx = tx_ref(tx);
	tx_watch(tx, &backend->watch, on_tx, backend);
	tx_touch(tx);
	return &backend->port;
}

static void
on_event(void *arg, const SmtpServerEvent *event)
{
	Run *run = arg;
	if (event->kind == SMTP_SERVER_SESSION &&
	    strcmp(event->reason, "input behind a refused DATA") == 0)
		run->cut_off = true;
}

static bool
read_replies(int fd, GString *out)
{
	char buf[4096];
	ssize_t got = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (got > 0)
		g_string_append_len(out, buf, got);
	return got > 0;
}

static void
settle(Worker *worker, int fd, GString *out)
{
	for (unsigned quiet = 0; quiet < QUIET_TURNS; quiet++) {
		worker_test_turn(worker, 0);
		while (read_replies(fd, out))
			quiet = 0;
	}
}

static void
run_session(Worker *worker, Run *run, const uint8_t *data, size_t size, size_t piece)
{
	SmtpServiceConf conf;
	int fds[2];
	run->replies = g_string_new(NULL);
	run->messages = g_string_new(NULL);
	smtp_service_conf_init(&conf);
	conf.limits.error_delay = 0;
	conf.limits.message_max = 2000;
	conf.limits.rcpt_max = 5;
	conf.limits.received_max = 3;
	conf.limits.command_line_max = 512;
	conf.chunking = true;
	conf.lmtp = run->lmtp;
	conf.normalize = run->normalize;
	conf.dsn = true;
	conf.announce_limits = true;
	conf.secrets = smtp_secrets_parse("fuzz", USERS, strlen(USERS), NULL);
	conf.auth_clear_loopback = true;
	conf.auth_delay = 0;
	conf.take = take;
	conf.on_event = on_event;
	conf.arg = run;
	k_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
	SmtpSessions *sessions = smtp_sessions_new(worker, &conf);
	smtp_sessions_accept(sessions, fds[0]);
	settle(worker, fds[1], run->replies);
	for (size_t done = 0; done < size; done += piece) {
		size_t len = MIN(piece, size - done);
		if (send(fds[1], data + done, len, MSG_NOSIGNAL) != (ssize_t)len)
			break; /* it has closed */
		settle(worker, fds[1], run->replies);
	}
	smtp_sessions_free(sessions);
	(void)close(fds[1]);
	worker_test_turn(worker, 0);
	worker_test_turn(worker, 0);
	smtp_secrets_unref(conf.secrets);
}

static void
check_replies(const GString *replies)
{
	g_autoptr(SmtpReply) reply = smtp_reply_new();
	for (const char *line = replies->str; *line != '\0';) {
		const char *end = strstr(line, "\r\n");
		k_assert(end != NULL && end + 2 - line <= SMTP_REPLY_LINE_MAX);
		k_assert(memchr(line, '\n', (size_t)(end - line)) == NULL);
		SmtpReplyFeed got = smtp_reply_feed(reply, line, (size_t)(end - line));
		k_assert(got != SMTP_REPLY_BAD);
		if (got == SMTP_REPLY_DONE)
			smtp_reply_reset(reply);
		line = end + 2;
	}
	k_assert(reply->lines == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned first = fuzz_take_byte(&data, &size);
	size_t piece = 1 + first % 64;
	Workers *workers = workers_new(1, NULL);
	k_assert(workers != NULL);
	Worker *worker = workers_get(workers, 0);
	Run whole = {.lmtp = (first & 0x80) != 0, .normalize = (first & 0x40) != 0};
	Run cut = whole;
	if (size > 8192)
		size = 8192; /* fits a socket's buffer */
	run_session(worker, &whole, data, size, size + 1);
	run_session(worker, &cut, data, size, piece);
	check_replies(whole.replies);
	check_replies(cut.replies);
	if (!whole.cut_off && !cut.cut_off) {
		k_assert(g_string_equal(whole.replies, cut.replies));
		k_assert(g_string_equal(whole.messages, cut.messages));
	}
	g_string_free(whole.replies, TRUE);
	g_string_free(whole.messages, TRUE);
	g_string_free(cut.replies, TRUE);
	g_string_free(cut.messages, TRUE);
	workers_free(workers);
	return 0;
}
