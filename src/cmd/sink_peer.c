/* SPDX-License-Identifier: Apache-2.0 */
/* A server for tests of clients: SMTP or LMTP, without limits and patience, and wrong wherever it
 * was told to be.  It takes any credentials.
 *
 * Replies go through a queue, because some are late or slow; while one is, nothing is read. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cmd/sink_int.h"
#include "smtp/command.h"
#include "smtp/data.h"
#include "smtp/syntax.h"

#define LONG_LINE  100000
#define MANY_LINES 10000
#define WRITE_MAX  (4 * 1024 * 1024)
#define LINGER     (2 * USEC_PER_SEC)

static const char junk[] = "\xff\xfe\x01\x02 this is no SMTP \x80\x00\r\n\x7f{}\r\n";

typedef enum Then { THEN_GO_ON, THEN_TLS, THEN_CLOSE } Then;

/* Something to be said. */
typedef struct Late {
	GString *text;
	Usec before, per_byte;
	Then then;
} Late;

typedef enum PeerState { PEER_COMMANDS, PEER_AUTH, PEER_DATA, PEER_CHUNK } PeerState;

typedef struct Peer {
	SinkPeers *peers;
	Conn *conn;
	PeerState state;
	GQueue late; /* Late* */
	Timer timer;
	bool waits; /* the head of `late` is under way */
	bool hangs; /* no reply will come any more */
	unsigned auth_left;
	bool hello;
	char *helo;
	Tx *tx; /* from MAIL on */
	Blob *blob;
	SmtpDataReader reader;
	uint64_t chunk; /* bytes of it that are to come */
	bool last, skipped;
	GList link;
} Peer;

struct SinkPeers {
	Sink *sink;
	Worker *worker;
	GQueue peers;
};

/* ---- saying things ---- */

static void
late_free(void *data)
{
	Late *late = data;
	g_string_free(late->text, TRUE);
	g_free(late);
}

static void
forget_mail(Peer *peer)
{
	g_clear_pointer(&peer->tx, tx_unref);
	g_clear_pointer(&peer->blob, blob_unref);
}

static void
peer_free(void *data)
{
	Peer *peer = data;
	g_queue_clear_full(&peer->late, late_free);
	timer_clear(&peer->timer);
	forget_mail(peer);
	g_free(peer->helo);
	g_free(peer);
}

/* `polite`: what was written is sent first. */
static void
peer_end(Peer *peer, bool polite)
{
	Conn *conn = g_steal_pointer(&peer->conn);
	if (conn == NULL)
		return;
	if (polite)
		conn_finish(conn, LINGER);
	else
		conn_free(conn);
	timer_cancel(&peer->timer);
	g_queue_unlink(&peer->peers->peers, &peer->link);
	worker_reap(peer->peers->worker, peer, peer_free);
}

static void
finish_late(Peer *peer)
{
	Late *late = g_queue_pop_head(&peer->late);
	Then then = late->then;
	late_free(late);
	peer->waits = false;
	if (then == THEN_CLOSE)
		peer_end(peer, true);
	else if (then == THEN_TLS)
		conn_start_tls(peer->conn, peer->peers->sink->conf.tls, true, NULL);
}

/* Says what can be said now. */
static void
flush_late(Peer *peer)
{
	while (peer->conn != NULL && !peer->waits && !g_queue_is_empty(&peer->late)) {
		Late *late = g_queue_peek_head(&peer->late);
		if (late->before > 0 || late->per_byte > 0) {
			peer->waits = true;
			conn_pause(peer->conn);
			timer_set(&peer->timer, late->before + late->per_byte);
			return;
		}
		conn_write(peer->conn, late->text->str, late->text->len);
		finish_late(peer);
	}
}

static void
on_timer(void *arg)
{
	Peer *peer = arg;
	Late *late = g_queue_peek_head(&peer->late);
	gsize n = late->per_byte > 0 ? MIN(late->text->len, 1U) : late->text->len;
	conn_write(peer->conn, late->text->str, n);
	g_string_erase(late->text, 0, (gssize)n);
	if (late->text->len > 0) {
		timer_set(&peer->timer, late->per_byte);
		return;
	}
	finish_late(peer);
	flush_late(peer);
	if (peer->conn != NULL && !peer->waits)
		conn_resume(peer->conn);
}

static SinkFault *
fault_at(const Peer *peer, SinkPoint point)
{
	GArray *faults = peer->peers->sink->faults;
	SinkFault *found = NULL;
	for (guint i = 0; i < faults->len; i++) {
		SinkFault *fault = &g_array_index(faults, SinkFault, i);
		if (fault->point == point && ++fault->seen % fault->every == 0 && found == NULL)
			found = fault;
	}
	return found;
}

static void
spoil(Late *late, const SinkFault *fault)
{
	g_autofree char *once = g_strdup(late->text->str);
	switch (fault->action) {
	case SINK_HALF:
		g_string_truncate(late->text, late->text->len / 2);
		late->then = THEN_CLOSE;
		break;
	case SINK_DELAY:
		late->before = fault->pause;
		break;
	case SINK_SLOW:
		late->per_byte = fault->pause;
		break;
	case SINK_JUNK:
		g_string_truncate(late->text, 0);
		g_string_append_len(late->text, junk, sizeof(junk) - 1);
		break;
	case SINK_LONG:
		g_string_truncate(late->text, 4);
		while (late->text->len < LONG_LINE)
			g_string_append_c(late->text, 'x');
		g_string_append(late->text, "\r\n");
		break;
	case SINK_MANY:
		g_string_truncate(late->text, 0);
		for (unsigned i = 0; i < MANY_LINES; i++)
			g_string_append(late->text, "250-more\r\n");
		g_string_append(late->text, once);
		break;
	case SINK_TWICE:
		g_string_append(late->text, once);
		break;
	default:
		break;
	}
}

/* Replies at `point`, or does what was asked for there.  What the client gets to hear as the code;
 * 0: nothing, for the connection ends or hangs. */
static int
reply(Peer *peer, SinkPoint point, int code, const char *text, Then then)
{
	const SinkFault *fault = fault_at(peer, point);
	if (peer->conn == NULL)
		return 0;
	if (fault != NULL && (fault->action == SINK_DROP || fault->action == SINK_HANG)) {
		peer->hangs = true;
		if (fault->action == SINK_DROP)
			peer_end(peer, true);
		return 0;
	}
	if (fault != NULL && fault->action == SINK_REPLY) {
		code = fault->code;
		text = fault->text;
		then = code == 421 ? THEN_CLOSE : code >= 300 ? THEN_GO_ON : then;
	}
	Late *late = g_new0(Late, 1);
	late->text = g_string_new(NULL);
	late->then = then;
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	for (unsigned i = 0; lines[i] != NULL; i++)
		g_string_append_printf(late->text, "%d%c%s\r\n", code,
				       lines[i + 1] != NULL ? '-' : ' ', lines[i]);
	if (fault != NULL)
		spoil(late, fault);
	g_queue_push_tail(&peer->late, late);
	flush_late(peer);
	return fault != NULL && fault->action == SINK_HALF ? 0 : code;
}

/* ---- commands ---- */

static void
on_hello(Peer *peer, const SmtpCommand *command)
{
	const Sink *sink = peer->peers->sink;
	g_autoptr(GString) text = g_string_new(sink->conf.hostname);
	if (command->row->verb != SMTP_VERB_HELO) {
		g_string_append(text, "\nPIPELINING\n8BITMIME\nSMTPUTF8\nSIZE 268435456");
		if (sink->conf.tls != NULL && !conn_is_tls(peer->conn))
			g_string_append(text, "\nSTARTTLS");
		if (sink->auth != NULL)
			g_string_append(text, "\nAUTH PLAIN LOGIN");
		if (sink->conf.chunking)
			g_string_append(text, "\nCHUNKING\nBINARYMIME");
		if (sink->conf.dsn)
			g_string_append(text, "\nDSN");
	}
	forget_mail(peer);
	g_free(peer->helo);
	peer->helo = g_strndup(command->arg, command->arg_len);
	peer->hello = reply(peer, SINK_EHLO, 250, text->str, THEN_GO_ON) == 250;
}

static void
on_starttls(Peer *peer)
{
	const SinkFault *fault;
	if (peer->peers->sink->conf.tls == NULL || conn_is_tls(peer->conn)) {
		(void)reply(peer, SINK_STARTTLS, 454, "4.7.0 no TLS here", THEN_GO_ON);
		return;
	}
	fault = fault_at(peer, SINK_TLS);
	bool fine = fault == NULL;
	int code = reply(peer, SINK_STARTTLS, 220, "2.0.0 go ahead", fine ? THEN_TLS : THEN_GO_ON);
	if (fine || code != 220)
		return;
	peer->hangs = true;
	if (fault->action == SINK_DROP) {
		peer_end(peer, true);
	} else if (fault->action != SINK_HANG) {
		conn_write(peer->conn, junk, sizeof(junk) - 1);
		peer_end(peer, true);
	}
}

/* Any credentials will do. */
static void
on_auth(Peer *peer, const SmtpCommand *command)
{
	bool login = command->arg_len >= 5 && g_ascii_strncasecmp(command->arg, "LOGIN", 5) == 0;
	bool initial = memchr(command->arg, ' ', command->arg_len) != NULL;
	peer->auth_left = (login ? 2U : 1U) - (initial ? 1U : 0U);
	peer->state = peer->auth_left > 0 ? PEER_AUTH : PEER_COMMANDS;
	if (peer->auth_left == 0)
		(void)reply(peer, SINK_AUTH, 235, "2.7.0 welcome", THEN_GO_ON);
	else if (reply(peer, SINK_AUTH, 334, login ? "VXNlcm5hbWU6" : "", THEN_GO_ON) != 334)
		peer->state = PEER_COMMANDS;
}

static void
on_auth_line(Peer *peer)
{
	peer->state = --peer->auth_left > 0 ? PEER_AUTH : PEER_COMMANDS;
	if (peer->auth_left > 0)
		conn_write(peer->conn, "334 UGFzc3dvcmQ6\r\n", 18);
	else
		(void)reply(peer, SINK_AUTH, 235, "2.7.0 welcome", THEN_GO_ON);
}

static void
on_mail(Peer *peer, const SmtpCommand *command)
{
	g_autoptr(Mailbox) from = NULL;
	if (!peer->hello || peer->tx != NULL ||
	    smtp_parse_path(command->arg, command->arg_len, SMTP_PATH_MAIL, true, &from) !=
		    SMTP_PATH_OK) {
		(void)reply(peer, SINK_MAIL, 503, "5.5.1 not like this", THEN_GO_ON);
		return;
	}
	if (reply(peer, SINK_MAIL, 250, "2.1.0 sender", THEN_GO_ON) / 100 != 2)
		return;
	g_autoptr(HostPort) from_host = net_addr_host_port(conn_peer(peer->conn));
	g_autoptr(json_t) meta = json_pack("{s:s}", "ehlo_host", peer->helo);
	peer->tx = tx_new(NULL);
	(void)tx_set_hosts(peer->tx, from_host, NULL);
	if (meta != NULL)
		(void)tx_set_smtp_meta(peer->tx, meta);
	(void)tx_set_mail_from(peer->tx, from);
}

static void
on_rcpt(Peer *peer, const SmtpCommand *command)
{
	g_autoptr(Mailbox) to = NULL;
	if (peer->tx == NULL || smtp_parse_path(command->arg, command->arg_len, SMTP_PATH_RCPT,
						true, &to) != SMTP_PATH_OK) {
		(void)reply(peer, SINK_RCPT, 503, "5.5.1 not like this", THEN_GO_ON);
		return;
	}
	if (reply(peer, SINK_RCPT, 250, "2.1.5 recipient", THEN_GO_ON) / 100 != 2)
		return;
	size_t index = tx_add_rcpt(peer->tx, to);
	(void)tx_answer_rcpt(peer->tx, index, response_new(250, NULL));
}

static bool
wants_message(Peer *peer, SinkPoint point)
{
	if (peer->tx != NULL && tx_rcpt_count(peer->tx) > 0)
		return true;
	(void)reply(peer, point, 503, "5.5.1 no recipients", THEN_GO_ON);
	return false;
}

static void
begin_message(Peer *peer, bool literal)
{
	if (peer->blob != NULL)
		return;
	peer->blob = blob_new(NULL);
	smtp_data_reader_init(&peer->reader);
	peer->reader.literal = literal;
}

static void
on_data(Peer *peer)
{
	if (!wants_message(peer, SINK_DATA) ||
	    reply(peer, SINK_DATA, 354, "go ahead", THEN_GO_ON) != 354)
		return;
	begin_message(peer, false);
	peer->state = PEER_DATA;
	conn_read_data(peer->conn);
}

static void
end_message(Peer *peer)
{
	Sink *sink = peer->peers->sink;
	blob_finalize(peer->blob);
	g_autoptr(TxBody) body = tx_body_new_raw(peer->blob);
	(void)tx_set_body(peer->tx, body);
	g_autoptr(Response) response = sink_take_message(sink, peer->tx);
	size_t replies = sink->lmtp ? tx_rcpt_count(peer->tx) : 1;
	forget_mail(peer);
	peer->state = PEER_COMMANDS;
	conn_read_lines(peer->conn);
	for (size_t i = 0; i < replies && peer->conn != NULL; i++)
		(void)reply(peer, SINK_MESSAGE, response->code, response->message, THEN_GO_ON);
}

static void
end_chunk(Peer *peer)
{
	if (peer->last && !peer->skipped) {
		end_message(peer);
		return;
	}
	peer->state = PEER_COMMANDS;
	conn_read_lines(peer->conn);
	if (peer->skipped)
		(void)reply(peer, SINK_CHUNK, 503, "5.5.1 no recipients", THEN_GO_ON);
	else if (reply(peer, SINK_CHUNK, 250, "2.0.0 chunk", THEN_GO_ON) / 100 != 2)
		forget_mail(peer);
}

static void
on_bdat(Peer *peer, const SmtpCommand *command)
{
	if (!smtp_bdat_parse(command->arg, command->arg_len, &peer->chunk, &peer->last)) {
		(void)reply(peer, SINK_CHUNK, 501, "5.5.4 not like this", THEN_CLOSE);
		return;
	}
	peer->skipped = peer->tx == NULL || tx_rcpt_count(peer->tx) == 0;
	if (!peer->skipped)
		begin_message(peer, true);
	peer->state = PEER_CHUNK;
	conn_read_data(peer->conn);
	if (peer->chunk == 0)
		end_chunk(peer);
}

static void
on_command(Peer *peer, const char *line, size_t len)
{
	SmtpCommand command;
	if (smtp_command_parse(line, len, &command) != SMTP_LINE_OK || command.row == NULL) {
		conn_write(peer->conn, "500 5.5.2 what\r\n", 16);
		return;
	}
	switch (command.row->verb) {
	case SMTP_VERB_HELO:
	case SMTP_VERB_EHLO:
	case SMTP_VERB_LHLO:
		on_hello(peer, &command);
		break;
	case SMTP_VERB_STARTTLS:
		on_starttls(peer);
		break;
	case SMTP_VERB_AUTH:
		on_auth(peer, &command);
		break;
	case SMTP_VERB_MAIL:
		on_mail(peer, &command);
		break;
	case SMTP_VERB_RCPT:
		on_rcpt(peer, &command);
		break;
	case SMTP_VERB_DATA:
		on_data(peer);
		break;
	case SMTP_VERB_BDAT:
		on_bdat(peer, &command);
		break;
	case SMTP_VERB_RSET:
		forget_mail(peer);
		(void)reply(peer, SINK_RSET, 250, "2.0.0 forgotten", THEN_GO_ON);
		break;
	case SMTP_VERB_NOOP:
		conn_write(peer->conn, "250 2.0.0 ok\r\n", 14);
		break;
	case SMTP_VERB_QUIT:
		(void)reply(peer, SINK_QUIT, 221, "2.0.0 bye", THEN_CLOSE);
		break;
	default:
		conn_write(peer->conn, "502 5.5.1 not here\r\n", 20);
	}
}

/* ---- the connection ---- */

static void
put(void *arg, const char *data, size_t len)
{
	Peer *peer = arg;
	g_autoptr(GError) error = NULL;
	if (!blob_append(peer->blob, data, len, &error)) {
		(void)fprintf(stderr, "koukan sink: %s\n", error->message);
		peer->skipped = true;
	}
}

static size_t
on_bytes(Peer *peer, const char *data, size_t len)
{
	size_t took;
	if (peer->state == PEER_DATA) {
		took = smtp_data_read(&peer->reader, data, len, put, peer);
		if (smtp_data_ended(&peer->reader))
			end_message(peer);
		return took;
	}
	took = (size_t)MIN((uint64_t)len, peer->chunk);
	if (!peer->skipped)
		put(peer, data, took);
	peer->chunk -= took;
	if (peer->chunk == 0)
		end_chunk(peer);
	return took;
}

static void
greet(Peer *peer)
{
	const Sink *sink = peer->peers->sink;
	g_autofree char *text = g_strdup_printf("%s %s koukan test peer", sink->conf.hostname,
						sink->lmtp ? "LMTP" : "ESMTP");
	(void)reply(peer, SINK_GREETING, 220, text, THEN_GO_ON);
}

static size_t
on_conn(void *arg, Conn *conn, ConnEvent event, const char *data, size_t len)
{
	Peer *peer = arg;
	(void)conn;
	switch (event) {
	case CONN_TLS_READY:
		peer->hello = false;
		if (peer->peers->sink->smtps)
			greet(peer);
		break;
	case CONN_LINE:
		if (!peer->hangs && peer->state == PEER_AUTH)
			on_auth_line(peer);
		else if (!peer->hangs)
			on_command(peer, data, len);
		break;
	case CONN_DATA:
		return peer->hangs ? len : on_bytes(peer, data, len);
	case CONN_EOF:
	case CONN_ERROR:
		peer_end(peer, false);
		break;
	default:
		break;
	}
	return 0;
}

SinkPeers *
sink_peers_new(Sink *sink, Worker *worker)
{
	SinkPeers *peers = g_new0(SinkPeers, 1);
	peers->sink = sink;
	peers->worker = worker;
	return peers;
}

void
sink_peers_accept(SinkPeers *peers, int fd)
{
	static const ConnOptions options = {.line_max = 16384, .write_max = WRITE_MAX};
	Peer *peer = g_new0(Peer, 1);
	peer->peers = peers;
	peer->link.data = peer;
	g_queue_push_tail_link(&peers->peers, &peer->link);
	timer_init(&peer->timer, peers->worker, on_timer, peer);
	peer->conn = conn_new_accepted(peers->worker, fd, &options, on_conn, peer);
	if (peers->sink->smtps)
		conn_start_tls(peer->conn, peers->sink->conf.tls, true, NULL);
	else
		greet(peer);
}

void
sink_peers_free(SinkPeers *peers)
{
	if (peers == NULL)
		return;
	while (!g_queue_is_empty(&peers->peers))
		peer_end(g_queue_peek_head(&peers->peers), false);
	g_free(peers);
}
