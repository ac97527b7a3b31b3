/* SPDX-License-Identifier: Apache-2.0 */
/* A whole server session in front of a backend in memory, three times: all at once, in pieces, and
 * command by command as a client that waits.  The same bytes cut at any place give the same replies
 * and the same messages; each command gets one reply, the message behind 354 another; a message is
 * complete only behind a true end of data; what leaves are well-formed reply lines of bounded
 * length; what stands in clear behind an accepted STARTTLS has no effect.
 *
 * The first byte: the size of a piece (low six bits), 0x40 repairs line ends, 0x80 is LMTP.  The
 * second one is a set of Modes. */
#include "fuzz.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <unistd.h>

#include "smtp/command.h"
#include "smtp/reply.h"
#include "smtp/session.h"

#define USERS       "{\"bob\": \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"}"
#define QUIET_TURNS 3  /* turns without output after which a session waits for input */
#define SHAKE_TURNS 50 /* turns that a handshake may take */
#define LINE_LONG   512

enum Mode {
	MODE_STARTTLS = 1,
	MODE_TLS = 2,       /* from the first byte */
	MODE_BINARY = 4,    /* BINARYMIME */
	MODE_NEED_AUTH = 8, /* MAIL needs AUTH */
	MODE_INJECT = 16,   /* commands in clear behind STARTTLS */
};

typedef enum Pace { PACE_WHOLE, PACE_PIECES, PACE_COMMANDS } Pace;

typedef struct Run {
	/* what is asked */
	Pace pace;
	size_t piece; /* PACE_PIECES: bytes */
	unsigned mode;
	bool lmtp, normalize;
	/* what came of it */
	GString *replies;
	GString *messages;
	bool cut_off; /* it ended because something was behind a refused DATA: depends on the cuts
		       */
	/* the client under way */
	Worker *worker;
	int fd;
	SSL *tls;       /* NULL: in clear */
	bool closed;    /* by the server */
	size_t counted; /* of `replies`: looked at by last_reply */
	unsigned count; /* of whole replies in there */
	int code;       /* of the last of them */
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
	k_assert(body != NULL);
	k_assert((backend->run->mode & MODE_BINARY) != 0 || memchr(body, '\0', len) == NULL);
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

/* ---- TLS ---- */

static X509 *
make_certificate(EVP_PKEY *key)
{
	X509 *cert = X509_new();
	k_assert(cert != NULL && X509_set_version(cert, 2) == 1);
	k_assert(ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) == 1);
	k_assert(X509_gmtime_adj(X509_getm_notBefore(cert), 0) != NULL);
	k_assert(X509_gmtime_adj(X509_getm_notAfter(cert), 86400) != NULL);
	k_assert(X509_set_pubkey(cert, key) == 1);
	k_assert(X509_sign(cert, key, EVP_sha256()) > 0);
	return cert;
}

/* Made once: it is the same for all inputs. */
static TlsContext *
server_context(void)
{
	static TlsContext *context;
	char path[] = "/tmp/koukan-fuzz-XXXXXX";
	if (context != NULL)
		return context;
	EVP_PKEY *key = EVP_EC_gen("P-256");
	k_assert(key != NULL);
	X509 *cert = make_certificate(key);
	int fd = mkstemp(path);
	FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
	k_assert(file != NULL && PEM_write_X509(file, cert) == 1);
	k_assert(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1);
	k_assert(fclose(file) == 0);
	context = tls_server_new(path, path, NULL);
	k_assert(context != NULL && unlink(path) == 0);
	X509_free(cert);
	EVP_PKEY_free(key);
	return context;
}

static SSL *
client_tls(int fd)
{
	static SSL_CTX *context;
	if (context == NULL) {
		context = SSL_CTX_new(TLS_client_method());
		k_assert(context != NULL);
		(void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	}
	SSL *tls = SSL_new(context);
	k_assert(tls != NULL && SSL_set_fd(tls, fd) == 1);
	return tls;
}

/* ---- the client ---- */

static bool
read_replies(Run *run)
{
	char buf[4096];
	ssize_t got;
	if (run->tls != NULL) {
		got = SSL_read(run->tls, buf, sizeof(buf));
		if (got <= 0 && SSL_get_error(run->tls, (int)got) != SSL_ERROR_WANT_READ)
			run->closed = true;
	} else {
		got = recv(run->fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (got == 0)
			run->closed = true;
	}
	if (got > 0)
		g_string_append_len(run->replies, buf, got);
	return got > 0;
}

static void
settle(Run *run)
{
	for (unsigned quiet = 0; quiet < QUIET_TURNS; quiet++) {
		worker_test_turn(run->worker, 0);
		while (!run->closed && read_replies(run))
			quiet = 0;
	}
}

static void
shake_hands(Run *run)
{
	int done = 0;
	SSL *tls = client_tls(run->fd);
	for (unsigned turn = 0; turn < SHAKE_TURNS && done != 1; turn++) {
		done = SSL_connect(tls);
		worker_test_turn(run->worker, 0);
	}
	k_assert(done == 1);
	run->tls = tls;
	settle(run);
}

/* Looks at the replies that have come; all of them are whole. */
static void
count_replies(Run *run)
{
	const char *line = run->replies->str + run->counted;
	for (; *line != '\0'; line = strstr(line, "\r\n") + 2) {
		k_assert(strlen(line) > 5);
		if (line[3] != ' ')
			continue;
		run->count++;
		run->code = (int)g_ascii_strtoull(line, NULL, 10);
	}
	run->counted = run->replies->len;
}

static void
say(Run *run, const void *data, size_t len)
{
	if (run->closed || len == 0)
		return;
	if (run->tls != NULL)
		run->closed = SSL_write(run->tls, data, (int)len) != (int)len;
	else
		run->closed = send(run->fd, data, len, MSG_NOSIGNAL) != (ssize_t)len;
	settle(run);
}

/* ---- what is said ---- */

/* Bytes up to and with the next line end; all there are when it has none. */
static size_t
line_length(const uint8_t *data, size_t size)
{
	const uint8_t *end = size >= 2 ? memmem(data, size, "\r\n", 2) : NULL;
	return end != NULL ? (size_t)(end - data) + 2 : size;
}

static SmtpVerb
verb_of(const uint8_t *data, size_t len, SmtpCommand *command)
{
	if (len < 2 || len - 2 > LINE_LONG || data[len - 1] != '\n' ||
	    smtp_command_parse((const char *)data, len - 2, command) != SMTP_LINE_OK ||
	    command->row == NULL)
		return SMTP_VERBS;
	return command->row->verb;
}

/* A client that waits sends nothing behind STARTTLS; so far what there is may be sent. */
static size_t
until_starttls(const Run *run, const uint8_t *data, size_t size)
{
	SmtpCommand command;
	if ((run->mode & MODE_STARTTLS) == 0)
		return size;
	for (size_t at = 0; at < size;) {
		size_t len = line_length(data + at, size - at);
		if (verb_of(data + at, len, &command) == SMTP_VERB_STARTTLS)
			return at + len;
		at += len;
	}
	return size;
}

static void
take_up_tls(Run *run)
{
	if (run->tls == NULL && !run->closed && (run->mode & MODE_STARTTLS) != 0 &&
	    g_str_has_suffix(run->replies->str, "220 2.0.0 Ready to start TLS\r\n"))
		shake_hands(run);
}

static void
say_all(Run *run, const uint8_t *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		size_t len = until_starttls(run, data + done, size - done);
		size_t step = run->pace == PACE_WHOLE ? len : run->piece;
		for (size_t at = 0; at < len; at += step)
			say(run, data + done + at, MIN(step, len - at));
		take_up_tls(run);
		done += len;
	}
}

typedef struct Unit {
	size_t len;
	bool whole; /* it deserves a reply */
	bool ends;  /* it may complete a message */
	bool starttls;
} Unit;

/* The message behind 354. */
static Unit
body_unit(const uint8_t *data, size_t size)
{
	if (size >= 3 && memcmp(data, ".\r\n", 3) == 0)
		return (Unit){.len = 3, .whole = true, .ends = true};
	const uint8_t *end = size >= 5 ? memmem(data, size, "\r\n.\r\n", 5) : NULL;
	if (end == NULL)
		return (Unit){.len = size};
	return (Unit){.len = (size_t)(end - data) + 5, .whole = true, .ends = true};
}

static Unit
next_unit(const Run *run, const uint8_t *data, size_t size)
{
	SmtpCommand command;
	uint64_t chunk = 0;
	bool last = false;
	if (run->code == 354)
		return body_unit(data, size);
	size_t len = line_length(data, size);
	Unit unit = {.len = len, .whole = len >= 2 && memcmp(data + len - 2, "\r\n", 2) == 0};
	if (run->code == 334)
		return unit;
	SmtpVerb verb = verb_of(data, len, &command);
	unit.starttls = verb == SMTP_VERB_STARTTLS;
	if (verb != SMTP_VERB_BDAT || !smtp_bdat_parse(command.arg, command.arg_len, &chunk, &last))
		return unit;
	unit.ends = last;
	unit.whole = chunk <= size - len;
	unit.len += unit.whole ? chunk : size - len;
	return unit;
}

/* False: the rest says nothing that could be compared. */
static bool
say_commands(Run *run, const uint8_t *data, size_t size)
{
	static const char evil[] = "NOOP\r\nMAIL FROM:<evil@b>\r\n";
	count_replies(run);
	k_assert(run->count == 1 && (run->code == 220 || run->closed));
	while (size > 0 && !run->closed) {
		Unit unit = next_unit(run, data, size);
		unsigned before = run->count;
		size_t messages = run->messages->len;
		if (unit.starttls && (run->mode & MODE_INJECT) != 0) {
			GString *both = g_string_new_len((const char *)data, (gssize)unit.len);
			g_string_append(both, evil);
			say(run, both->str, both->len);
			g_string_free(both, TRUE);
			if (!g_str_has_suffix(run->replies->str, "Ready to start TLS\r\n"))
				return false;
		} else {
			say(run, data, unit.len);
		}
		count_replies(run);
		/* an endless line gets its reply early */
		unsigned most = run->lmtp && unit.ends ? 5 : 1;
		unsigned least = unit.whole && !run->closed ? 1 : 0;
		k_assert(run->count - before >= least && run->count - before <= most);
		k_assert(run->messages->len == messages || (unit.whole && unit.ends));
		take_up_tls(run);
		data += unit.len;
		size -= unit.len;
	}
	return true;
}

/* ---- a run ---- */

static void
set_conf(Run *run, SmtpServiceConf *conf)
{
	smtp_service_conf_init(conf);
	conf->limits.error_delay = 0;
	conf->limits.message_max = 2000;
	conf->limits.rcpt_max = 5;
	conf->limits.received_max = 3;
	conf->limits.command_line_max = LINE_LONG;
	conf->chunking = true;
	conf->binarymime = (run->mode & MODE_BINARY) != 0;
	conf->lmtp = run->lmtp;
	conf->normalize = run->normalize;
	conf->dsn = true;
	conf->announce_limits = true;
	conf->secrets = smtp_secrets_parse("fuzz", USERS, strlen(USERS), NULL);
	conf->require_auth = (run->mode & MODE_NEED_AUTH) != 0;
	conf->auth_delay = 0;
	conf->tls_implicit = (run->mode & MODE_TLS) != 0;
	if ((run->mode & (MODE_TLS | MODE_STARTTLS)) != 0)
		conf->tls = server_context();
	conf->take = take;
	conf->on_event = on_event;
	conf->arg = run;
}

/* False: not to be compared. */
static bool
run_session(Run *run, Worker *worker, const uint8_t *data, size_t size)
{
	SmtpServiceConf conf;
	int fds[2];
	bool comparable = true;
	run->replies = g_string_new(NULL);
	run->messages = g_string_new(NULL);
	run->worker = worker;
	set_conf(run, &conf);
	k_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
	run->fd = fds[1];
	SmtpSessions *sessions = smtp_sessions_new(worker, &conf);
	smtp_sessions_accept(sessions, fds[0]);
	if ((run->mode & MODE_TLS) != 0)
		shake_hands(run);
	settle(run);
	if (run->pace == PACE_COMMANDS)
		comparable = say_commands(run, data, size);
	else
		say_all(run, data, size);
	smtp_sessions_free(sessions);
	SSL_free(run->tls);
	(void)close(fds[1]);
	worker_test_turn(worker, 0);
	worker_test_turn(worker, 0);
	smtp_secrets_unref(conf.secrets);
	return comparable;
}

static void
run_clear(Run *run)
{
	g_string_free(run->replies, TRUE);
	g_string_free(run->messages, TRUE);
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

static void
compare(const Run *one, const Run *two)
{
	if (one->cut_off || two->cut_off)
		return;
	k_assert(g_string_equal(one->replies, two->replies));
	k_assert(g_string_equal(one->messages, two->messages));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned first = fuzz_take_byte(&data, &size);
	Run whole = {.lmtp = (first & 0x80) != 0, .normalize = (first & 0x40) != 0};
	whole.mode = fuzz_take_byte(&data, &size);
	Run pieces = whole, commands = whole;
	pieces.pace = PACE_PIECES;
	pieces.piece = 1 + first % 64;
	commands.pace = PACE_COMMANDS;
	Workers *workers = workers_new(1, NULL);
	k_assert(workers != NULL);
	Worker *worker = workers_get(workers, 0);
	if (size > 8192)
		size = 8192; /* fits a socket's buffer */
	(void)run_session(&whole, worker, data, size);
	(void)run_session(&pieces, worker, data, size);
	bool comparable = run_session(&commands, worker, data, size);
	check_replies(whole.replies);
	check_replies(pieces.replies);
	check_replies(commands.replies);
	compare(&whole, &pieces);
	if (comparable)
		compare(&whole, &commands);
	run_clear(&whole);
	run_clear(&pieces);
	run_clear(&commands);
	workers_free(workers);
	return 0;
}
