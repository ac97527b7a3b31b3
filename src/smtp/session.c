/* SPDX-License-Identifier: Apache-2.0 */
#include "smtp/session.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/new.h"
#include "smtp/reply.h"
#include "smtp/session_int.h"
#include "smtp/syntax.h"

#define LINGER       (5 * USEC_PER_SEC)  /* for the peer to read the last reply */
#define TURNED_AWAY  (200 * USEC_PER_MS) /* the same for one who has said nothing yet */
#define CLOSED_INPUT (50 * USEC_PER_MS)  /* to look through what a peer sent before it closed */
#define HELD_MAX     (16 * 1024) /* bytes of pipelined input read while an answer is awaited */

typedef enum Input {
	INPUT_LINES, /* commands */
	INPUT_HOLD,  /* kept for later; only the end of the connection is wanted */
	INPUT_BODY,
	INPUT_HEADER, /* of a proxy */
	INPUT_NONE,
} Input;

typedef enum CloseHow { CLOSE_SEND, CLOSE_NOW } CloseHow;

static void command_timeout(SmtpSession *session);
static void body_timeout(SmtpSession *session);
static void mail_timeout(SmtpSession *session);
static void rcpt_timeout(SmtpSession *session);
static void data_timeout(SmtpSession *session);
static void slow_timeout(SmtpSession *session);
static void tls_timeout(SmtpSession *session);
static void proxy_timeout(SmtpSession *session);
static void mail_answer(SmtpSession *session);
static void rcpt_answer(SmtpSession *session);
static void body_answer(SmtpSession *session);
static void bdat_answer(SmtpSession *session);
static void data_answer(SmtpSession *session);

typedef struct StateRow {
	const char *name;
	Input input;
	void (*on_timeout)(SmtpSession *session);
	void (*on_answer)(SmtpSession *session); /* the tx has changed */
	unsigned successors;                     /* CLOSED always may follow */
} StateRow;

#define TO(state) (1U << SESSION_##state)
#define ROW(state, input, timeout, answer, to)                                                     \
	[SESSION_##state] = {#state, INPUT_##input, timeout, answer, to}

static const StateRow states[SESSION_STATES] = {
	ROW(PROXY, HEADER, proxy_timeout, NULL, TO(TLS) | TO(HELLO)),
	ROW(TLS, NONE, tls_timeout, NULL, TO(HELLO)),
	ROW(HELLO, LINES, command_timeout, NULL,
	    TO(PROXY) | TO(HELLO) | TO(TLS) | TO(READY) | TO(CHUNK_DROP) | TO(SLOW)),
	ROW(READY, LINES, command_timeout, NULL,
	    TO(TLS) | TO(HELLO) | TO(READY) | TO(AUTH) | TO(AUTH_WAIT) | TO(MAIL_WAIT) |
		    TO(CHUNK_DROP) | TO(SLOW)),
	ROW(AUTH, LINES, command_timeout, NULL, TO(READY) | TO(AUTH_WAIT)),
	ROW(AUTH_WAIT, HOLD, session_auth_timeout, NULL, TO(READY)),
	ROW(MAIL_WAIT, HOLD, mail_timeout, mail_answer, TO(ENVELOPE) | TO(READY)),
	ROW(ENVELOPE, LINES, command_timeout, NULL,
	    TO(TLS) | TO(READY) | TO(RCPT_WAIT) | TO(BODY) | TO(CHUNK) | TO(CHUNK_DROP) | TO(SLOW)),
	ROW(RCPT_WAIT, HOLD, rcpt_timeout, rcpt_answer, TO(ENVELOPE) | TO(GIVEN_UP)),
	ROW(GIVEN_UP, LINES, command_timeout, NULL,
	    TO(TLS) | TO(READY) | TO(CHUNK_DROP) | TO(SLOW)),
	ROW(BODY, BODY, body_timeout, body_answer, TO(BODY_DROP) | TO(DATA_WAIT)),
	ROW(BODY_DROP, BODY, body_timeout, NULL, TO(READY)),
	ROW(CHUNK, BODY, body_timeout, body_answer, TO(CHUNK_DROP) | TO(BDAT) | TO(DATA_WAIT)),
	ROW(CHUNK_DROP, BODY, body_timeout, NULL,
	    TO(HELLO) | TO(READY) | TO(ENVELOPE) | TO(GIVEN_UP) | TO(BDAT_FAILED)),
	ROW(BDAT, LINES, command_timeout, bdat_answer,
	    TO(TLS) | TO(READY) | TO(CHUNK) | TO(CHUNK_DROP) | TO(SLOW)),
	ROW(BDAT_FAILED, LINES, command_timeout, NULL,
	    TO(TLS) | TO(READY) | TO(CHUNK_DROP) | TO(SLOW)),
	ROW(DATA_WAIT, HOLD, data_timeout, data_answer, TO(READY)),
	ROW(SLOW, HOLD, slow_timeout, NULL,
	    TO(HELLO) | TO(READY) | TO(ENVELOPE) | TO(GIVEN_UP) | TO(BDAT) | TO(BDAT_FAILED)),
	ROW(CLOSED, NONE, NULL, NULL, 0),
};

/* Most places are taken. */
static bool
is_tight(const SmtpSession *session)
{
	uint64_t count = session->sessions->count, max = session->conf->limits.sessions_max;
	return max > 0 && count * 10 >= max * 8;
}

/* How long a peer may do nothing. */
static Usec
patience(const SmtpSession *session, Usec timeout)
{
	return is_tight(session) ? MIN(timeout, session->conf->stress_timeout) : timeout;
}

/* When a message must be here as a whole, however busily it comes. */
static Deadline
message_deadline(const SmtpSession *session)
{
	const SmtpServiceConf *conf = session->conf;
	Usec total = conf->data_total_timeout;
	if (is_tight(session))
		total = MIN(total, conf->stress_total_timeout);
	return session->body_started + total;
}

static Usec
state_timeout(const SmtpSession *session)
{
	const SmtpServiceConf *conf = session->conf;
	switch (session->state) {
	case SESSION_PROXY:
		return conf->proxy_timeout;
	case SESSION_TLS:
		return patience(session, conf->tls_timeout);
	case SESSION_MAIL_WAIT:
		return conf->mail_timeout;
	case SESSION_RCPT_WAIT:
		return conf->rcpt_timeout;
	case SESSION_DATA_WAIT:
		return conf->data_timeout;
	case SESSION_BODY:
	case SESSION_BODY_DROP:
	case SESSION_CHUNK:
	case SESSION_CHUNK_DROP:
		return session->peer_closed ? CLOSED_INPUT
					    : patience(session, conf->data_idle_timeout);
	case SESSION_SLOW:
		return session->slow_delay;
	case SESSION_AUTH_WAIT:
		return conf->auth_timeout;
	default:
		return session->peer_closed ? CLOSED_INPUT
					    : patience(session, conf->command_timeout);
	}
}

void
session_rearm(SmtpSession *session)
{
	Deadline deadline = clock_after(state_timeout(session));
	bool in_message = states[session->state].input == INPUT_BODY ||
			  session->state == SESSION_BDAT;
	if (in_message)
		deadline = MIN(deadline, message_deadline(session));
	conn_set_deadline(session->conn, deadline);
}

void
session_set_state(SmtpSession *session, SessionState state)
{
	const StateRow *old = &states[session->state], *row = &states[state];
	k_assert_for(state == SESSION_CLOSED || (old->successors & (1U << state)) != 0, row->name);
	session->state = state;
	if (state == SESSION_CLOSED)
		return;
	if (row->input != old->input) {
		if (row->input == INPUT_LINES)
			conn_read_lines(session->conn);
		else
			conn_read_data(session->conn);
		conn_resume(session->conn);
	}
	session_rearm(session);
}

/* ---- replies ---- */

static void
format_reply(const SmtpSession *session, GString *out, int code, const char *status,
	     const char *text)
{
	g_string_truncate(out, 0);
	smtp_reply_format(out, code, status, text, session->tx != NULL && session->utf8);
}

void
session_reply(SmtpSession *session, int code, const char *status, const char *text)
{
	GString *out = session->sessions->out;
	format_reply(session, out, code, status, text);
	conn_write(session->conn, out->str, out->len);
}

#define UNUSABLE "internal error: no usable answer"

static bool
is_usable(int code)
{
	return (code >= 200 && code <= 299) || (code >= 400 && code <= 599);
}

/* The status that RFC 2034 wants where upstream gave none. */
static const char *
default_status(int code, const char *ok_status)
{
	return code < 300 ? ok_status : code < 500 ? "4.0.0" : "5.0.0";
}

void
session_reply_response(SmtpSession *session, const Response *response, const char *ok_status)
{
	int code = response->code;
	if (!is_usable(code))
		session_reply(session, 451, "4.3.0", UNUSABLE);
	else if (code >= 500)
		session_error(session, code, default_status(code, ok_status), response->message);
	else
		session_reply(session, code, default_status(code, ok_status), response->message);
}

unsigned
session_message_answers(const SmtpSession *session)
{
	return session->conf->lmtp ? (unsigned)tx_rcpts_accepted(session->tx) : 1;
}

void
session_reply_message(SmtpSession *session, const Response *response, unsigned answers)
{
	/* an error counts once, and what is held back behind it is the last of them */
	for (unsigned i = 1; i < answers; i++) {
		bool usable = is_usable(response->code);
		session_reply(session, usable ? response->code : 451,
			      usable ? default_status(response->code, "2.0.0") : "4.3.0",
			      usable ? response->message : UNUSABLE);
	}
	session_reply_response(session, response, "2.0.0");
}

void
session_error(SmtpSession *session, int code, const char *status, const char *text)
{
	const SmtpSessionLimits *limits = &session->conf->limits;
	session->errors++;
	if (session->errors > limits->error_max) {
		session_reply(session, 421, "4.7.0", "Error: too many errors");
		session_close(session, "too many errors");
	} else {
		bool slow = session->errors > limits->error_slow;
		session_reply_late(session, slow ? limits->error_delay : 0, code, status, text,
				   NULL);
	}
}

void
session_reply_late(SmtpSession *session, Usec delay, int code, const char *status, const char *text,
		   const char *close)
{
	if (delay <= 0) {
		session_reply(session, code, status, text);
		if (close != NULL)
			session_close(session, close);
		return;
	}
	session->held = g_string_new(NULL);
	format_reply(session, session->held, code, status, text);
	session->after_slow = session->state;
	session->slow_delay = delay;
	session->slow_close = close;
	session_set_state(session, SESSION_SLOW);
}

static void
slow_timeout(SmtpSession *session)
{
	conn_write(session->conn, session->held->str, session->held->len);
	g_string_free(session->held, TRUE);
	session->held = NULL;
	session_set_state(session, session->after_slow);
	if (session->slow_close != NULL)
		session_close(session, session->slow_close);
	else
		session_after_reply(session);
}

/* ---- the transaction ---- */

static void
on_tx(void *arg, Tx *tx)
{
	(void)tx;
	session_check_tx(arg);
}

void
session_after_reply(SmtpSession *session)
{
	if (states[session->state].input != INPUT_LINES)
		return;
	if (session->peer_closed && conn_pending(session->conn) == 0)
		session_close(session, "client closed");
	else if (session->sessions->draining && session->tx == NULL) {
		session_reply(session, 421, "4.3.2", "Service closing transmission channel");
		session_close(session, "drained");
	}
}

void
session_check_tx(SmtpSession *session)
{
	const StateRow *row = &states[session->state];
	if (row->on_answer == NULL)
		return;
	row->on_answer(session);
	if (session->state != SESSION_CLOSED)
		session_after_reply(session);
}

void
session_begin_tx(SmtpSession *session, Mailbox *from)
{
	const SmtpServiceConf *conf = session->conf;
	Worker *worker = session->sessions->worker;
	session->tx_started = clock_mono();
	session->transactions++;
	session->tx = tx_new(worker_defers(worker));
	(void)tx_set_hosts(session->tx, session->remote, session->local);
	(void)tx_set_smtp_meta(session->tx, session->meta);
	if (conf->sender != NULL)
		(void)tx_set_sender(session->tx, conf->sender, conf->tag);
	(void)tx_set_mail_from(session->tx, from);
	tx_watch(session->tx, &session->watch, on_tx, session);
	session_set_state(session, SESSION_MAIL_WAIT);
	session->port = conf->take(conf->arg, worker, session->tx);
}

void
session_stop_tx(SmtpSession *session)
{
	tx_unwatch(&session->watch);
	if (session->port != NULL && session->tx->data_response == NULL)
		tx_cancel(session->tx);
	tx_port_stop(session->port);
	session->port = NULL;
	g_clear_pointer(&session->blob, blob_unref);
}

void
session_report(const SmtpSession *session, SmtpServerEvent *event)
{
	if (session->conf->on_event == NULL)
		return;
	if (event->kind != SMTP_SERVER_AUTH_FAILED)
		event->auth_user = session->auth_user;
	event->session = session->id;
	event->peer = session->remote->host;
	event->helo = session->helo;
	TlsFacts facts;
	event->tls = conn_tls_facts(session->conn, &facts) ? &facts : NULL;
	session->conf->on_event(session->conf->arg, event);
}

void
session_drop_tx(SmtpSession *session, const char *reason, const Response *answer)
{
	if (session->tx == NULL)
		return;
	SmtpServerEvent event = {
		.kind = SMTP_SERVER_TRANSACTION,
		.reason = reason,
		.duration = clock_mono() - session->tx_started,
		.tx = session->tx,
		.code = answer != NULL ? answer->code : 0,
		.text = answer != NULL ? answer->message : NULL,
		.bytes = session->reader.bytes,
	};
	session_stop_tx(session);
	session_report(session, &event);
	g_clear_pointer(&session->tx, tx_unref);
	g_clear_pointer(&session->verdict, response_unref);
	session->utf8 = false;
	session->binary = false;
	session->body_started = 0;
	smtp_data_reader_init(&session->reader);
}

static void
mail_answer(SmtpSession *session)
{
	g_autoptr(Response) response = NULL;
	if (session->tx->mail_response == NULL)
		return;
	response = response_ref(session->tx->mail_response);
	if (response_ok(response)) {
		session_set_state(session, SESSION_ENVELOPE);
	} else {
		session_drop_tx(session, "rejected", response);
		session_set_state(session, SESSION_READY);
	}
	session_reply_response(session, response, "2.1.0");
}

static void
rcpt_answer(SmtpSession *session)
{
	const TxRcpt *rcpt = tx_rcpt(session->tx, tx_rcpt_count(session->tx) - 1);
	if (rcpt->response == NULL)
		return;
	session_set_state(session, SESSION_ENVELOPE);
	session_reply_response(session, rcpt->response, "2.1.5");
}

/* Upstream has refused the message before its end. */
static void
body_answer(SmtpSession *session)
{
	if (!response_err(session->tx->data_response))
		return;
	session->verdict = response_ref(session->tx->data_response);
	session_refuse_body(session);
}

/* The same between two chunks: the next one is told. */
static void
bdat_answer(SmtpSession *session)
{
	if (session->verdict != NULL || !response_err(session->tx->data_response))
		return;
	session->verdict = response_ref(session->tx->data_response);
	session_stop_tx(session);
}

static void
data_answer(SmtpSession *session)
{
	g_autoptr(Response) response = NULL;
	if (session->tx->data_response == NULL)
		return;
	response = response_ref(session->tx->data_response);
	bool ok = response_ok(response);
	unsigned answers = session_message_answers(session);
	if (ok) {
		session->accepted++;
		session->errors = 0;
		session->junk = 0;
	}
	session_drop_tx(session, ok ? "accepted" : "rejected", response);
	session_set_state(session, SESSION_READY);
	session_reply_message(session, response, answers);
}

/* ---- deadlines ---- */

static void
command_timeout(SmtpSession *session)
{
	session_reply(session, 421, "4.4.2", "Error: timeout exceeded");
	session_close(session, "timeout");
}

static void
body_timeout(SmtpSession *session)
{
	session_reply(session, 421, "4.4.2", "Error: timeout exceeded while reading the message");
	session_close(session, "timeout in message");
}

static void
mail_timeout(SmtpSession *session)
{
	g_autoptr(Response)
		response = response_new(450, "4.4.2 MAIL upstream timeout/internal err");
	session_drop_tx(session, "upstream timeout", response);
	session_set_state(session, SESSION_READY);
	session_reply_response(session, response, NULL);
	session_after_reply(session);
}

static void
rcpt_timeout(SmtpSession *session)
{
	session_stop_tx(session);
	session_set_state(session, SESSION_GIVEN_UP);
	session_reply(session, 450, "4.4.2", "RCPT upstream timeout/internal err");
	session_after_reply(session);
}

static void
data_timeout(SmtpSession *session)
{
	g_autoptr(Response)
		response = response_new(450, "4.4.2 DATA upstream timeout/internal err");
	unsigned answers = session_message_answers(session);
	session_drop_tx(session, "upstream timeout", response);
	session_set_state(session, SESSION_READY);
	session_reply_message(session, response, answers);
	session_after_reply(session);
}

static void end_session(SmtpSession *session, const char *reason, CloseHow how);

static void
tls_timeout(SmtpSession *session)
{
	session_cut(session, "timeout in TLS handshake");
}

static void
proxy_timeout(SmtpSession *session)
{
	session_cut(session, "no PROXY header in time");
}

void
session_cut(SmtpSession *session, const char *reason)
{
	end_session(session, reason, CLOSE_NOW);
}

/* ---- the connection ---- */

void
session_forget_peer(SmtpSession *session)
{
	session_drop_tx(session, "new session", NULL);
	g_clear_pointer(&session->helo, g_free);
	g_clear_pointer(&session->meta, json_decref);
	g_clear_pointer(&session->auth_user, g_free);
	session_auth_forget(session);
	session->esmtp = false;
}

static void
set_text(json_t *meta, const char *key, const char *text)
{
	json_t *value = text != NULL ? json_string(text) : NULL; /* NULL: not UTF-8 */
	if (value != NULL)
		(void)json_object_set_new(meta, key, value);
}

void
session_make_meta(SmtpSession *session)
{
	json_t *auth = session->auth_user != NULL ? json_true() : json_null();
	json_decref(session->meta);
	session->meta = json_pack("{s:s, s:b, s:b, s:o}", "ehlo_host", session->helo, "esmtp",
				  (int)session->esmtp, "tls", (int)conn_is_tls(session->conn),
				  "auth", auth);
	k_assert(session->meta != NULL);
	TlsFacts facts;
	set_text(session->meta, SMTP_META_AUTH_USER, session->auth_user);
	if (!conn_tls_facts(session->conn, &facts))
		return;
	set_text(session->meta, SMTP_META_TLS_VERSION, facts.version);
	set_text(session->meta, SMTP_META_TLS_CIPHER, facts.cipher);
	set_text(session->meta, SMTP_META_TLS_PEER, facts.peer);
}

void
session_begin_dialogue(SmtpSession *session)
{
	session_set_state(session, SESSION_HELLO);
	if (session->greeted)
		return;
	session->greeted = true;
	g_autofree char *greeting = g_strconcat(session->conf->hostname, " ",
						session->conf->greeting, NULL);
	session_reply(session, 220, NULL, greeting);
}

/* ---- limits by address ---- */

bool
session_gate(const SmtpSession *session, SmtpGate gate)
{
	const SmtpServiceConf *conf = session->conf;
	return conf->admit == NULL || conf->admit(conf->arg, gate, session->remote->host);
}

static void
leave(SmtpSession *session)
{
	g_autofree char *address = g_steal_pointer(&session->admitted);
	if (address != NULL)
		session->conf->leave(session->conf->arg, address);
}

bool
session_admit(SmtpSession *session)
{
	leave(session);
	if (session->conf->admit == NULL)
		return true;
	if (session_gate(session, SMTP_GATE_CONNECTION)) {
		session->admitted = g_strdup(session->remote->host);
		return true;
	}
	/* before a handshake nobody could read it */
	if (!session->conf->tls_implicit || conn_is_tls(session->conn))
		session_reply(session, 421, "4.7.0", "Error: too many connections from you");
	session_close(session, "too many connections");
	return false;
}

void
session_start(SmtpSession *session)
{
	if (!session_admit(session))
		return;
	if (session->conf->tls_implicit && session->sessions->tls != NULL)
		session_enter_tls(session);
	else
		session_begin_dialogue(session);
}

static void
session_free(void *data)
{
	SmtpSession *session = data;
	if (session->held != NULL)
		g_string_free(session->held, TRUE);
	host_port_free(session->remote);
	host_port_free(session->local);
	json_decref(session->meta);
	g_free(session->helo);
	g_free(session->auth_user);
	g_free(session);
}

static void
unlink_session(SmtpSession *session)
{
	SmtpSessions *sessions = session->sessions;
	if (session->prev != NULL)
		session->prev->next = session->next;
	else
		sessions->head = session->next;
	if (session->next != NULL)
		session->next->prev = session->prev;
	sessions->count--;
}

static void
end_session(SmtpSession *session, const char *reason, CloseHow how)
{
	if (session->state == SESSION_CLOSED)
		return;
	SmtpServerEvent event = {
		.kind = SMTP_SERVER_SESSION,
		.reason = reason,
		.duration = clock_mono() - session->started,
	};
	session_drop_tx(session, reason, session->verdict);
	g_clear_pointer(&session->verdict, response_unref);
	session_set_state(session, SESSION_CLOSED);
	event.transactions = session->transactions;
	event.accepted = session->accepted;
	event.errors = session->errors;
	event.junk = session->junk;
	session_report(session, &event);
	session_auth_forget(session);
	leave(session);
	unlink_session(session);
	if (how == CLOSE_SEND)
		conn_finish(session->conn, session->greeted ? LINGER : TURNED_AWAY);
	else
		conn_free(session->conn);
	session->conn = NULL;
	worker_reap(session->sessions->worker, session, session_free);
}

void
session_close(SmtpSession *session, const char *reason)
{
	end_session(session, reason, CLOSE_SEND);
}

/* The peer has closed its side.  Commands that came before it are still answered, but nothing
 * that was not all here is completed. */
static void
on_eof(SmtpSession *session)
{
	bool waiting = states[session->state].input == INPUT_HOLD;
	if (waiting && conn_pending(session->conn) > 0) {
		session->peer_closed = true;
		return;
	}
	session_close(session, "client closed");
}

static size_t
on_data(SmtpSession *session, const char *data, size_t len)
{
	if (session->state == SESSION_PROXY)
		return session_proxy_data(session, data, len);
	if (states[session->state].input == INPUT_BODY) {
		size_t took = session_body(session, data, len);
		if (session->state != SESSION_CLOSED)
			session_after_reply(session);
		return took;
	}
	if (len > HELD_MAX)
		conn_pause(session->conn);
	return 0;
}

static void
on_long_line(SmtpSession *session)
{
	if (session->state == SESSION_AUTH)
		session_auth_long_line(session);
	else
		session_error(session, 500, "5.5.2", "Error: line too long");
}

static void
on_line(SmtpSession *session, const char *line, size_t len)
{
	if (session->state == SESSION_AUTH)
		session_auth_line(session, line, len);
	else if (len > session->conf->limits.command_line_max &&
		 g_ascii_strncasecmp(line, "AUTH ", 5) != 0)
		on_long_line(session); /* only AUTH may be as long as the connection allows */
	else
		session_command(session, line, len);
	if (session->state != SESSION_CLOSED)
		session_after_reply(session);
}

static size_t
on_conn(void *arg, Conn *conn, ConnEvent event, const char *data, size_t len)
{
	SmtpSession *session = arg;
	(void)conn;
	switch (event) {
	case CONN_LINE:
		on_line(session, data, len);
		break;
	case CONN_LONG_LINE:
		on_long_line(session);
		break;
	case CONN_DATA:
		return on_data(session, data, len);
	case CONN_TLS_READY:
		session_begin_dialogue(session);
		session_after_reply(session);
		break;
	case CONN_EOF:
		on_eof(session);
		break;
	case CONN_TIMEOUT:
		states[session->state].on_timeout(session);
		break;
	case CONN_ERROR:
		end_session(session, "connection lost", CLOSE_NOW);
		break;
	default:
		break;
	}
	return 0;
}

/* ---- all sessions of a worker ---- */

void
smtp_service_conf_init(SmtpServiceConf *conf)
{
	*conf = (SmtpServiceConf){
		.hostname = "localhost",
		.greeting = "ESMTP koukan smtp gateway",
		.command_timeout = 300 * USEC_PER_SEC,
		.tls_timeout = 60 * USEC_PER_SEC,
		.stress_timeout = 10 * USEC_PER_SEC,
		.stress_total_timeout = 300 * USEC_PER_SEC,
		.auth_delay = USEC_PER_SEC,
		.auth_timeout = 30 * USEC_PER_SEC,
		.data_idle_timeout = 180 * USEC_PER_SEC,
		.data_total_timeout = 3600 * USEC_PER_SEC,
		.mail_timeout = 10 * USEC_PER_SEC,
		.rcpt_timeout = 40 * USEC_PER_SEC,
		.data_timeout = 310 * USEC_PER_SEC,
		.limits =
			{
				.message_max = 33554432,
				.rcpt_max = TX_RCPTS_MAX,
				.error_slow = 10,
				.error_max = 20,
				.command_line_max = SMTP_COMMAND_MAX,
				.received_max = 100,
				.error_delay = USEC_PER_SEC,
				.junk_max = 100,
				.sessions_max = 5000,
			},
	};
}

SmtpSessions *
smtp_sessions_new(Worker *worker, const SmtpServiceConf *conf)
{
	SmtpSessions *sessions = g_new0(SmtpSessions, 1);
	sessions->worker = worker;
	sessions->conf = conf;
	sessions->out = g_string_new(NULL);
	sessions->tls = conf->tls != NULL ? tls_context_ref(conf->tls) : NULL;
	sessions->secrets = conf->secrets != NULL ? smtp_secrets_ref(conf->secrets) : NULL;
	return sessions;
}

static void
forget_ehlo(SmtpSessions *sessions)
{
	for (size_t i = 0; i < SESSION_EHLO_VARIANTS; i++) {
		if (sessions->ehlo[i] != NULL)
			g_string_free(sessions->ehlo[i], TRUE);
		sessions->ehlo[i] = NULL;
	}
}

void
smtp_sessions_set_tls(SmtpSessions *sessions, TlsContext *context)
{
	k_assert_on(sessions->worker);
	TlsContext *old = sessions->tls;
	sessions->tls = context != NULL ? tls_context_ref(context) : NULL;
	tls_context_unref(old);
}

void
smtp_sessions_set_secrets(SmtpSessions *sessions, SmtpSecrets *secrets)
{
	k_assert_on(sessions->worker);
	SmtpSecrets *old = sessions->secrets;
	sessions->secrets = secrets != NULL ? smtp_secrets_ref(secrets) : NULL;
	smtp_secrets_unref(old);
	forget_ehlo(sessions); /* the mechanisms may be others */
}

/* Going down. */
static void
refuse(SmtpSessions *sessions, SmtpSession *session)
{
	if (!sessions->conf->tls_implicit)
		session_reply(session, 421, "4.3.2", "Service closing transmission channel");
	conn_finish(session->conn, TURNED_AWAY);
	session->state = SESSION_CLOSED;
	session->conn = NULL;
	worker_reap(sessions->worker, session, session_free);
}

/* All places are taken: the descriptor is given back at once, since what is left of them is for the
 * sessions that are there. */
static void
turn_away(SmtpSessions *sessions, int fd)
{
	GString *out = sessions->out;
	g_string_truncate(out, 0);
	smtp_reply_format(out, 421, "4.3.2", "Error: too many connections", false);
	if (!sessions->conf->tls_implicit) /* else nobody could read it */
		(void)send(fd, out->str, out->len, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)close(fd);
}

void
smtp_sessions_accept(SmtpSessions *sessions, int fd)
{
	const SmtpServiceConf *conf = sessions->conf;
	if (conf->limits.sessions_max > 0 && sessions->count >= conf->limits.sessions_max) {
		turn_away(sessions, fd);
		return;
	}
	ConnOptions options = {.line_max = conf->limits.command_line_max};
	SmtpSession *session = k_new0(SmtpSession);
	k_assert_on(sessions->worker);
	session->sessions = sessions;
	session->conf = conf;
	session->state = SESSION_HELLO;
	session->conn = conn_new_accepted(sessions->worker, fd, &options, on_conn, session);
	if (sessions->draining) {
		refuse(sessions, session);
		return;
	}
	session->started = clock_mono();
	session->remote = net_addr_host_port(conn_peer(session->conn));
	session->local = net_addr_host_port(conn_local(session->conn));
	ids_session(session->id);
	smtp_data_reader_init(&session->reader);
	session->next = sessions->head;
	if (sessions->head != NULL)
		sessions->head->prev = session;
	sessions->head = session;
	sessions->count++;
	if (conf->proxy_timeout <= 0)
		session_start(session);
	else if (!session_enter_proxy(session))
		session_cut(session, "PROXY header not believed");
}

void
smtp_sessions_drain(SmtpSessions *sessions)
{
	k_assert_on(sessions->worker);
	sessions->draining = true;
	for (SmtpSession *session = sessions->head, *next; session != NULL; session = next) {
		next = session->next;
		session_after_reply(session);
	}
}

unsigned
smtp_sessions_count(const SmtpSessions *sessions)
{
	return sessions->count;
}

void
smtp_sessions_free(SmtpSessions *sessions)
{
	if (sessions == NULL)
		return;
	while (sessions->head != NULL)
		end_session(sessions->head, "shutdown", CLOSE_NOW);
	g_string_free(sessions->out, TRUE);
	forget_ehlo(sessions);
	tls_context_unref(sessions->tls);
	smtp_secrets_unref(sessions->secrets);
	g_free(sessions);
}
