/* SPDX-License-Identifier: Apache-2.0 */
/* The message: read to its true end whatever is wrong with it, so that nothing inside it can be
 * taken for a command; what is wrong becomes the verdict that is answered there.  The same for the
 * chunks of BDAT (RFC 3030): what was announced is read, then comes the answer. */
#include "base/error.h"
#include "smtp/session_int.h"

static bool
is_wanted(const SmtpSession *session)
{
	return session->state == SESSION_BODY || session->state == SESSION_CHUNK;
}

static void
begin_message(SmtpSession *session)
{
	session->blob = blob_new(&session->conf->body);
	g_autoptr(TxBody) body = tx_body_new_raw(session->blob);
	(void)tx_set_body(session->tx, body);
	smtp_data_reader_init(&session->reader);
	session->newline = (SmtpNewline){0};
	session->body_started = clock_mono();
}

void
session_begin_body(SmtpSession *session)
{
	begin_message(session);
	session_set_state(session, SESSION_BODY);
	session_reply(session, 354, NULL, "End data with <CR><LF>.<CR><LF>");
}

/* From here on the rest of the message, or of the chunk, is dropped.  The body will never be
 * final. */
static void
set_verdict(SmtpSession *session, int code, const char *text)
{
	if (!is_wanted(session))
		return;
	session->verdict = response_new(code, text);
	session_refuse_body(session);
}

void
session_refuse_body(SmtpSession *session)
{
	session_stop_tx(session);
	if (session->state == SESSION_BODY) {
		session_set_state(session, SESSION_BODY_DROP);
	} else if (session->state == SESSION_CHUNK) {
		session->chunk_fails = true;
		session_set_state(session, SESSION_CHUNK_DROP);
	}
}

static void
store(void *arg, const char *data, size_t len)
{
	SmtpSession *session = arg;
	g_autoptr(GError) error = NULL;
	if (!is_wanted(session))
		return;
	if (blob_len(session->blob) + len > session->conf->limits.message_max)
		set_verdict(session, 552, "5.3.4 Error: Too much mail data");
	else if (blob_append(session->blob, data, len, &error))
		return;
	else if (g_error_matches(error, K_ERROR, K_ERROR_FULL))
		set_verdict(session, 452, "4.3.1 Insufficient system storage");
	else
		set_verdict(session, 451, "4.3.0 Message could not be stored");
}

static bool
normalizes(const SmtpSession *session)
{
	return session->conf->normalize && !session->binary;
}

static void
keep(void *arg, const char *data, size_t len)
{
	SmtpSession *session = arg;
	if (normalizes(session))
		smtp_newline_fix(&session->newline, data, len, store, session);
	else
		store(session, data, len);
}

typedef struct Fault {
	int code; /* 0: none */
	const char *text;
} Fault;

/* What is wrong with the content so far. */
static Fault
content_fault(const SmtpSession *session)
{
	const SmtpDataReader *reader = &session->reader;
	const SmtpSessionLimits *limits = &session->conf->limits;
	if ((reader->seen & (SMTP_DATA_BARE_CR | SMTP_DATA_BARE_LF)) != 0 && !session->binary &&
	    !session->conf->normalize)
		return (Fault){550, "5.6.11 Bare CR or LF in message content"};
	if ((reader->seen & SMTP_DATA_NUL) != 0 && !session->binary)
		return (Fault){550, "5.6.0 NUL in message content"};
	if (reader->received > limits->received_max)
		return (Fault){554, "5.4.6 Too many hops"};
	if (limits->data_line_max > 0 && reader->longest + 2 > limits->data_line_max &&
	    !session->binary)
		return (Fault){500, "5.5.2 Line too long (see RFC5321 4.5.3.1.6)"};
	return (Fault){0};
}

/* What is answered to a message that was refused: of several faults the same one is told however
 * the bytes were cut. */
static Response *
final_verdict(const SmtpSession *session)
{
	Fault fault = content_fault(session);
	return fault.code != 0 ? response_new(fault.code, fault.text)
			       : response_ref(session->verdict);
}

/* All of it is here and fine. */
static void
complete(SmtpSession *session)
{
	blob_finalize(session->blob);
	session_set_state(session, SESSION_DATA_WAIT);
	tx_note_body(session->tx);
	session_check_tx(session);
}

static void
refuse_message(SmtpSession *session, SessionState next)
{
	g_autoptr(Response) verdict = final_verdict(session);
	/* to a chunk that is not the last one answer is due also under LMTP */
	unsigned answers = next == SESSION_READY ? session_message_answers(session) : 1;
	session_drop_tx(session, "rejected", verdict);
	session_set_state(session, next);
	session_reply_message(session, verdict, answers);
}

static void
check_content(SmtpSession *session)
{
	Fault fault = content_fault(session);
	if (fault.code != 0)
		set_verdict(session, fault.code, fault.text);
}

static void
finish_newlines(SmtpSession *session)
{
	if (normalizes(session))
		smtp_newline_end(&session->newline, store, session);
}

static void
end_body(SmtpSession *session)
{
	finish_newlines(session);
	if (session->state == SESSION_BODY)
		complete(session);
	else
		refuse_message(session, SESSION_READY);
}

/* ---- BDAT ---- */

static void
end_refused_chunk(SmtpSession *session)
{
	if (session->chunk_fails) {
		session->chunk_fails = false;
		refuse_message(session, session->chunk_last ? SESSION_READY : SESSION_BDAT_FAILED);
		return;
	}
	/* a chunk out of order: nothing has changed */
	g_autoptr(Response) verdict = g_steal_pointer(&session->verdict);
	if (session->tx == NULL || session->blob == NULL)
		session->body_started = 0;
	session_set_state(session, session->after_chunk);
	session_reply_response(session, verdict, NULL);
}

static void
end_chunk(SmtpSession *session)
{
	if (session->state == SESSION_CHUNK && session->chunk_last) {
		smtp_data_reader_finish(&session->reader);
		check_content(session);
		finish_newlines(session);
	}
	if (session->state != SESSION_CHUNK) {
		end_refused_chunk(session);
	} else if (session->chunk_last) {
		complete(session);
	} else {
		tx_note_body(session->tx);
		session_set_state(session, SESSION_BDAT);
		session_reply(session, 250, "2.0.0", "Continue");
	}
}

static size_t
read_chunk(SmtpSession *session, const char *data, size_t len)
{
	size_t take = (size_t)MIN((uint64_t)len, session->chunk_left);
	session->chunk_left -= take;
	/* dots are ordinary bytes here, so all of it is read */
	if (session->state == SESSION_CHUNK || session->chunk_fails) {
		size_t took = smtp_data_read(&session->reader, data, take, keep, session);
		k_assert(took == take);
		check_content(session);
	}
	if (session->chunk_left == 0)
		end_chunk(session);
	else if (session->state == SESSION_CHUNK)
		tx_note_body(session->tx);
	if (session->state == SESSION_CHUNK || session->state == SESSION_CHUNK_DROP)
		session_rearm(session);
	return take;
}

/* Why this chunk is not wanted, or NULL.  *ret_fails: and with it the transaction. */
static Response *
chunk_verdict(SmtpSession *session, uint64_t size, bool *ret_fails)
{
	*ret_fails = false;
	switch (session->state) {
	case SESSION_HELLO:
		return response_new(503, "5.5.1 Error: send HELO first");
	case SESSION_READY:
		return response_new(503, "5.5.1 Error: need MAIL command");
	case SESSION_GIVEN_UP:
		return response_new(450, "4.4.2 RCPT upstream timeout/internal err");
	case SESSION_BDAT_FAILED:
		return response_new(503, "5.5.1 Error: send RSET first");
	case SESSION_BDAT:
		*ret_fails = session->verdict != NULL;
		break;
	default:
		if (tx_rcpt_count(session->tx) == 0)
			return response_new(503, "5.5.1 Error: need RCPT command");
		if (tx_rcpts_accepted(session->tx) == 0)
			return response_new(session->conf->lmtp ? 503 : 554,
					    "5.5.1 Error: no valid recipients");
		break;
	}
	if (*ret_fails)
		return g_steal_pointer(&session->verdict);
	uint64_t max = session->conf->limits.message_max;
	*ret_fails = size > max || session->reader.bytes > max - size;
	return *ret_fails ? response_new(552, "5.3.4 Error: Too much mail data") : NULL;
}

void
session_begin_chunk(SmtpSession *session, uint64_t size, bool last)
{
	bool fails = false;
	Response *verdict = chunk_verdict(session, size, &fails);
	session->chunk_left = size;
	session->chunk_last = last;
	session->chunk_fails = fails;
	session->after_chunk = session->state;
	if (session->state == SESSION_ENVELOPE && verdict == NULL)
		begin_message(session);
	session->reader.literal = session->tx != NULL;
	if (session->body_started == 0)
		session->body_started = clock_mono();
	session->verdict = verdict;
	if (fails)
		session_stop_tx(session);
	session_set_state(session, verdict == NULL ? SESSION_CHUNK : SESSION_CHUNK_DROP);
	if (size == 0)
		end_chunk(session);
}

size_t
session_body(SmtpSession *session, const char *data, size_t len)
{
	if (session->state == SESSION_CHUNK || session->state == SESSION_CHUNK_DROP)
		return read_chunk(session, data, len);
	size_t took = smtp_data_read(&session->reader, data, len, keep, session);
	check_content(session);
	if (smtp_data_ended(&session->reader))
		end_body(session);
	else if (session->state == SESSION_BODY)
		tx_note_body(session->tx);
	if (session->state == SESSION_BODY || session->state == SESSION_BODY_DROP)
		session_rearm(session);
	return took;
}
