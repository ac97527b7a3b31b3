/* SPDX-License-Identifier: Apache-2.0 */
/* The message: read to its true end whatever is wrong with it, so that nothing inside it can be
 * taken for a command; what is wrong becomes the verdict that is answered there. */
#include "base/error.h"
#include "smtp/session_int.h"

void
session_begin_body(SmtpSession *session)
{
	session->blob = blob_new(&session->conf->body);
	g_autoptr(TxBody) body = tx_body_new_raw(session->blob);
	(void)tx_set_body(session->tx, body);
	smtp_data_reader_init(&session->reader);
	session->body_end = clock_after(session->conf->data_total_timeout);
	session_set_state(session, SESSION_BODY);
	session_reply(session, 354, NULL, "End data with <CR><LF>.<CR><LF>");
}

/* From here on the rest of the message is dropped.  The body will never be final. */
static void
set_verdict(SmtpSession *session, int code, const char *text)
{
	if (session->state != SESSION_BODY)
		return;
	session->verdict = response_new(code, text);
	session_stop_tx(session);
	session_set_state(session, SESSION_BODY_DROP);
}

static void
keep(void *arg, const char *data, size_t len)
{
	SmtpSession *session = arg;
	g_autoptr(GError) error = NULL;
	if (session->state != SESSION_BODY)
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
	if ((reader->seen & (SMTP_DATA_BARE_CR | SMTP_DATA_BARE_LF)) != 0)
		return (Fault){550, "5.6.11 Bare CR or LF in message content"};
	if ((reader->seen & SMTP_DATA_NUL) != 0)
		return (Fault){550, "5.6.0 NUL in message content"};
	if (reader->received > limits->received_max)
		return (Fault){554, "5.4.6 Too many hops"};
	if (limits->data_line_max > 0 && reader->longest + 2 > limits->data_line_max)
		return (Fault){500, "5.5.2 Line too long (see RFC5321 4.5.3.1.6)"};
	return (Fault){0};
}

static void
end_body(SmtpSession *session)
{
	if (session->state == SESSION_BODY) {
		blob_finalize(session->blob);
		session_set_state(session, SESSION_DATA_WAIT);
		tx_note_body(session->tx);
		session_check_tx(session);
		return;
	}
	/* of several faults the same one is told however the bytes were cut */
	Fault fault = content_fault(session);
	g_autoptr(Response) verdict = fault.code != 0 ? response_new(fault.code, fault.text)
						      : response_ref(session->verdict);
	session_drop_tx(session, "rejected", verdict);
	session_set_state(session, SESSION_READY);
	session_reply_response(session, verdict, "2.0.0");
}

size_t
session_body(SmtpSession *session, const char *data, size_t len)
{
	size_t took = smtp_data_read(&session->reader, data, len, keep, session);
	Fault fault = content_fault(session);
	if (fault.code != 0)
		set_verdict(session, fault.code, fault.text);
	if (smtp_data_ended(&session->reader))
		end_body(session);
	else if (session->state == SESSION_BODY)
		tx_note_body(session->tx);
	if (session->state == SESSION_BODY || session->state == SESSION_BODY_DROP)
		session_rearm(session);
	return took;
}
