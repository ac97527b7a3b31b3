/* SPDX-License-Identifier: Apache-2.0 */
/* A delivery against a server that answers with the fuzzer's bytes.  Success comes only from a
 * 2xx reply to the very command: what the client says is read along, and each reply belongs to the
 * command of its number.  Every delivery gets its answers once the connection has ended; nothing is
 * left behind.
 *
 * The first byte says how much is sent at a time: 1 to 128 bytes; with 0x80 set a second byte is a
 * set of Modes.  What comes next is sent when the client has said something, or seems to wait. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "smtp/client_pool.h"
#include "smtp/command.h"
#include "smtp/reply.h"

#define TURNS      400
#define IDLE_TURNS 2 /* without a word of the client: it waits for more */

enum Mode {
	MODE_LINES = 1, /* a reply line at a time, whatever its length */
	MODE_LMTP = 2,
	MODE_BDAT = 4,
	MODE_AUTH = 8,
	MODE_TLS = 16,   /* opportunistic: what follows STARTTLS is no handshake */
	MODE_LARGE = 32, /* a message of several chunks */
	MODE_NO_PIPELINING = 64,
};

#define RCPTS        2
#define COMMANDS_MAX 256

typedef enum Said { SAID_OTHER, SAID_MAIL, SAID_RCPT, SAID_DATA, SAID_END } Said;

/* The dialogue of one connection, seen from outside. */
typedef struct Dialogue {
	Said said[COMMANDS_MAX]; /* what wants a reply, in order; the first is the connection */
	int codes[COMMANDS_MAX]; /* the replies, in order */
	unsigned n_said, n_codes;
	GString *in, *out; /* not looked at yet: of the client, of the server */
	SmtpReply *reply;
	bool in_message; /* behind 354: 3xx is all that counts (RFC 5321 4.2.1) */
	bool lost;       /* TLS: not read any more */
	bool reset;      /* the client's last words may not have come */
	size_t chunk;    /* bytes of BDAT to come */
} Dialogue;

typedef struct World {
	Workers *workers;
	Worker *worker;
	SmtpClientPool *pool;
	SmtpOutputConf conf;
	int listener;
	uint16_t port;
	unsigned mode;
	size_t piece;
	int fd; /* of the client's connection; -1: none */
	unsigned idle;
	Dialogue dialogue; /* over `fd`, or the last one */
} World;

/* ---- what is said ---- */

static void
dialogue_clear(Dialogue *dialogue)
{
	if (dialogue->in != NULL) {
		g_string_free(dialogue->in, TRUE);
		g_string_free(dialogue->out, TRUE);
	}
	smtp_reply_free(dialogue->reply);
	*dialogue = (Dialogue){0};
}

static void
dialogue_start(Dialogue *dialogue)
{
	dialogue_clear(dialogue);
	dialogue->in = g_string_new(NULL);
	dialogue->out = g_string_new(NULL);
	dialogue->reply = smtp_reply_new();
	dialogue->n_said = 1;
}

static void
expect_reply(Dialogue *dialogue, Said said)
{
	k_assert(dialogue->n_said < COMMANDS_MAX);
	dialogue->said[dialogue->n_said++] = said;
}

/* How many commands of a kind got a 2xx reply. */
static unsigned
count_granted(const Dialogue *dialogue, Said said)
{
	unsigned count = 0;
	for (unsigned i = 0; i < MIN(dialogue->n_said, dialogue->n_codes); i++) {
		if (dialogue->said[i] == said && dialogue->codes[i] / 100 == 2)
			count++;
	}
	return count;
}

static bool
was_granted(const Dialogue *dialogue, Said said, unsigned number)
{
	for (unsigned i = 0; i < MIN(dialogue->n_said, dialogue->n_codes); i++) {
		if (dialogue->said[i] == said && number-- == 0)
			return dialogue->codes[i] / 100 == 2;
	}
	return false;
}

/* The reply to the last command; 0: none yet. */
static int
last_code(const Dialogue *dialogue)
{
	return dialogue->n_codes >= dialogue->n_said ? dialogue->codes[dialogue->n_said - 1] : 0;
}

static void
take_command(Dialogue *dialogue, const char *line, size_t len)
{
	SmtpCommand command;
	uint64_t chunk = 0;
	bool last = false;
	SmtpVerb verb = SMTP_VERBS;
	if (smtp_command_parse(line, len, &command) == SMTP_LINE_OK && command.row != NULL)
		verb = command.row->verb;
	if (verb == SMTP_VERB_BDAT) {
		k_assert(smtp_bdat_parse(command.arg, command.arg_len, &chunk, &last));
		dialogue->chunk = chunk;
	}
	expect_reply(dialogue, verb == SMTP_VERB_MAIL   ? SAID_MAIL
			       : verb == SMTP_VERB_RCPT ? SAID_RCPT
			       : verb == SMTP_VERB_DATA ? SAID_DATA
			       : last                   ? SAID_END
							: SAID_OTHER);
	if (verb == SMTP_VERB_STARTTLS)
		dialogue->lost = true; /* until another connection */
}

/* A part of what the client has said; false when it is not whole. */
static bool
take_part(Dialogue *dialogue, bool lmtp)
{
	GString *in = dialogue->in;
	if (dialogue->chunk > 0) {
		size_t len = MIN(dialogue->chunk, in->len);
		dialogue->chunk -= len;
		g_string_erase(in, 0, (gssize)len);
		return len > 0;
	}
	if (!dialogue->in_message && dialogue->said[dialogue->n_said - 1] == SAID_DATA &&
	    last_code(dialogue) / 100 == 3)
		dialogue->in_message = true;
	const char *mark = !dialogue->in_message || g_str_has_prefix(in->str, ".\r\n")
				   ? "\r\n"
				   : "\r\n.\r\n";
	const char *end = memmem(in->str, in->len, mark, strlen(mark));
	if (end == NULL)
		return false;
	size_t len = (size_t)(end - in->str);
	if (!dialogue->in_message) {
		take_command(dialogue, in->str, len);
	} else {
		unsigned answers = lmtp ? count_granted(dialogue, SAID_RCPT) : 1;
		for (unsigned i = 0; i < MAX(answers, 1); i++)
			expect_reply(dialogue, SAID_END);
		dialogue->in_message = false;
	}
	g_string_erase(in, 0, (gssize)(len + strlen(mark)));
	return true;
}

static void
take_words(Dialogue *dialogue, bool lmtp, const char *data, size_t len)
{
	g_string_append_len(dialogue->in, data, (gssize)len);
	while (!dialogue->lost && take_part(dialogue, lmtp))
		;
}

static void
take_replies(Dialogue *dialogue, const uint8_t *data, size_t len)
{
	GString *out = dialogue->out;
	g_string_append_len(out, (const char *)data, (gssize)len);
	const char *end;
	while ((end = memmem(out->str, out->len, "\r\n", 2)) != NULL &&
	       dialogue->n_codes < COMMANDS_MAX) {
		SmtpReplyFeed fed = smtp_reply_feed(dialogue->reply, out->str,
						    (size_t)(end - out->str));
		if (fed == SMTP_REPLY_BAD)
			return; /* it is fed no more */
		if (fed == SMTP_REPLY_DONE) {
			dialogue->codes[dialogue->n_codes++] = dialogue->reply->code;
			smtp_reply_reset(dialogue->reply);
		}
		g_string_erase(out, 0, end + 2 - out->str);
	}
}

/* ---- the world ---- */

static void
world_set_mode(World *world)
{
	static TlsContext *tls;
	SmtpOutputConf *conf = &world->conf;
	if (tls == NULL)
		tls = tls_client_new(TLS_VERIFY_NONE, NULL, NULL);
	k_assert(tls != NULL);
	smtp_output_conf_init(conf);
	conf->chunk_size = SMTP_CHUNK_MIN;
	conf->enable_bdat = (world->mode & MODE_BDAT) != 0;
	conf->no_pipelining = (world->mode & MODE_NO_PIPELINING) != 0;
	if ((world->mode & MODE_LMTP) != 0)
		conf->protocol = SMTP_PROTOCOL_LMTP;
	if ((world->mode & MODE_TLS) != 0)
		conf->tls = tls;
	if ((world->mode & MODE_AUTH) != 0) {
		conf->auth_user = "user";
		conf->auth_secret = "secret";
	}
}

static void
world_open(World *world)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	socklen_t len = sizeof(sin);
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	world->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	k_assert(world->listener >= 0);
	k_assert(bind(world->listener, (struct sockaddr *)&sin, sizeof(sin)) == 0);
	k_assert(listen(world->listener, 4) == 0);
	k_assert(getsockname(world->listener, (struct sockaddr *)&sin, &len) == 0);
	world->port = ntohs(sin.sin_port);
	world->workers = workers_new(1, NULL);
	k_assert(world->workers != NULL);
	world->worker = workers_get(world->workers, 0);
	world->pool = smtp_client_pool_new(world->worker);
	world_set_mode(world);
	world->fd = -1;
}

static void
world_close(World *world)
{
	smtp_client_pool_free(world->pool);
	worker_test_turn(world->worker, 0);
	workers_free(world->workers);
	(void)close(world->listener);
}

static Tx *
make_tx(World *world)
{
	Tx *tx = tx_new(worker_defers(world->worker));
	g_autoptr(HostPort) to = host_port_new("127.0.0.1", world->port);
	g_autoptr(Mailbox) from = mailbox_new("a@b", NULL, 0);
	static char large[3 * SMTP_CHUNK_MIN + 1];
	memset(large, 'x', sizeof(large));
	g_autoptr(Blob) blob = (world->mode & MODE_LARGE) != 0
				       ? blob_new_bytes(large, sizeof(large))
				       : blob_new_bytes("x\r\n.y\r\n", 7);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	(void)tx_set_hosts(tx, to, NULL);
	(void)tx_set_mail_from(tx, from);
	for (unsigned i = 0; i < RCPTS; i++) {
		g_autoptr(Mailbox) rcpt = mailbox_new("c@d", NULL, 0);
		(void)tx_add_rcpt(tx, rcpt);
	}
	(void)tx_set_body(tx, body);
	return tx;
}

/* How much of the rest is sent now. */
static size_t
next_len(const World *world, const uint8_t *data, size_t size)
{
	if ((world->mode & MODE_LINES) == 0)
		return MIN(world->piece, size);
	const uint8_t *lf = memchr(data, '\n', size);
	return lf != NULL ? (size_t)(lf - data) + 1 : size;
}

/* It ends with a reset: thousands of ports in TIME_WAIT a second would stop the whole machine. */
static bool
take_connection(World *world)
{
	static const struct linger reset = {.l_onoff = 1};
	world->fd = accept4(world->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (world->fd < 0)
		return false;
	(void)setsockopt(world->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	dialogue_start(&world->dialogue);
	return true;
}

/* What recv said at last; *ret_said: something was said. */
static ssize_t
hear(World *world, bool *ret_said)
{
	char words[4096];
	ssize_t got;
	while ((got = recv(world->fd, words, sizeof(words), 0)) > 0) {
		take_words(&world->dialogue, (world->mode & MODE_LMTP) != 0, words, (size_t)got);
		*ret_said = true;
	}
	if (got < 0 && errno != EAGAIN)
		world->dialogue.reset = true;
	return got;
}

static void
check_answers(const World *world, const Tx *tx)
{
	const Dialogue *dialogue = &world->dialogue;
	if (dialogue->reset && dialogue->n_codes > dialogue->n_said)
		return;
	if (response_ok(tx->mail_response))
		k_assert(was_granted(dialogue, SAID_MAIL, 0));
	for (unsigned i = 0; i < RCPTS; i++) {
		if (response_ok(tx_rcpt(tx, i)->response))
			k_assert(was_granted(dialogue, SAID_RCPT, i));
	}
	if (response_ok(tx->data_response))
		k_assert(count_granted(dialogue, SAID_END) > 0);
}

/* Takes what the client says; true when it is the server's turn. */
static bool
listen_to_client(World *world)
{
	bool said = false;
	if (world->fd < 0 && !take_connection(world))
		return false;
	if (hear(world, &said) == 0) {
		(void)close(world->fd);
		world->fd = -1; /* it may come again: without TLS */
		return false;
	}
	world->idle = said ? 0 : world->idle + 1;
	if (!said && world->idle < IDLE_TURNS)
		return false;
	world->idle = 0;
	return true;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	World world = {0};
	unsigned first = fuzz_take_byte(&data, &size);
	size_t done = 0;
	world.piece = 1 + first % 128;
	world.mode = first >= 128 ? fuzz_take_byte(&data, &size) : 0;
	if (size > 16384)
		size = 16384;
	world_open(&world);
	Tx *tx = make_tx(&world);
	TxPort *port = smtp_delivery_start(world.pool, &world.conf, tx);
	for (unsigned i = 0; i < TURNS && tx->data_response == NULL; i++) {
		worker_test_turn(world.worker, 0);
		if (!listen_to_client(&world))
			continue;
		size_t len = next_len(&world, data + done, size - done);
		if (len == 0)
			break;
		(void)send(world.fd, data + done, len, MSG_NOSIGNAL);
		take_replies(&world.dialogue, data + done, len);
		done += len;
	}
	if (world.fd >= 0) {
		bool ignored;
		(void)hear(&world, &ignored);
		(void)close(world.fd);
	}
	/* with the connection gone everything gets an answer; a listener that is gone refuses */
	(void)shutdown(world.listener, SHUT_RDWR);
	for (unsigned i = 0; i < TURNS && tx->data_response == NULL; i++)
		worker_test_turn(world.worker, USEC_PER_MS);
	k_assert(tx->mail_response != NULL && tx->data_response != NULL);
	k_assert(tx->rcpt_answers == tx_rcpt_count(tx));
	check_answers(&world, tx);
	tx_port_stop(port);
	tx_unref(tx);
	dialogue_clear(&world.dialogue);
	world_close(&world);
	return 0;
}
