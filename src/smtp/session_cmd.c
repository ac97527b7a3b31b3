/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of a server session, one function each; which states they are allowed in stands
 * at their beginning (RFC 5321 4.1.4). */
#include <string.h>

#include "base/text.h"
#include "smtp/dsn_param.h"
#include "smtp/reply.h"
#include "smtp/session_int.h"
#include "smtp/syntax.h"

#define UNKNOWN_SHOWN 64 /* bytes of an unknown verb that are shown */

static GString *
ehlo_text(const SmtpSessions *sessions, unsigned variant)
{
	const SmtpServiceConf *conf = sessions->conf;
	GString *out = g_string_new(NULL), *text = g_string_new(conf->hostname);
	g_string_append_printf(text, "\nPIPELINING\nSIZE %" G_GUINT64_FORMAT "\n8BITMIME\nSMTPUTF8",
			       conf->limits.message_max);
	if (conf->chunking)
		g_string_append(text, conf->binarymime ? "\nCHUNKING\nBINARYMIME" : "\nCHUNKING");
	if (conf->dsn)
		g_string_append(text, "\nDSN");
	if (conf->announce_limits)
		g_string_append_printf(text, "\nLIMITS RCPTMAX=%u", conf->limits.rcpt_max);
	if ((variant & SESSION_EHLO_STARTTLS) != 0)
		g_string_append(text, "\nSTARTTLS");
	if ((variant & SESSION_EHLO_AUTH) != 0)
		g_string_append_printf(text, "\nAUTH LOGIN PLAIN%s",
				       smtp_secrets_have_scram(sessions->secrets) ? " SCRAM-SHA-256"
										  : "");
	if ((variant & SESSION_EHLO_XCLIENT) != 0)
		g_string_append(text,
				"\nXCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT");
	g_string_append(text, "\nENHANCEDSTATUSCODES\nHELP");
	smtp_reply_format(out, 250, NULL, text->str, false);
	g_string_free(text, TRUE);
	return out;
}

static void
reply_ehlo(SmtpSession *session)
{
	SmtpSessions *sessions = session->sessions;
	unsigned variant = (session_offers_tls(session) ? SESSION_EHLO_STARTTLS : 0) |
			   (session_offers_auth(session) ? SESSION_EHLO_AUTH : 0) |
			   (session_offers_xclient(session) ? SESSION_EHLO_XCLIENT : 0);
	if (sessions->ehlo[variant] == NULL)
		sessions->ehlo[variant] = ehlo_text(sessions, variant);
	conn_write(session->conn, sessions->ehlo[variant]->str, sessions->ehlo[variant]->len);
}

static bool
is_greeted(SmtpSession *session)
{
	if (session->state != SESSION_HELLO)
		return true;
	session_error(session, 503, "5.5.1", "Error: send HELO first");
	return false;
}

static bool
has_transaction(const SmtpSession *session)
{
	return session->state == SESSION_ENVELOPE || session->state == SESSION_GIVEN_UP;
}

static void
greet(SmtpSession *session, const SmtpCommand *command, bool esmtp)
{
	if (session->conf->lmtp != (command->row->verb == SMTP_VERB_LHLO)) {
		session_error(session, session->conf->lmtp ? 500 : 502, "5.5.1",
			      session->conf->lmtp ? "Error: this is LMTP, send LHLO"
						  : "LHLO not implemented");
		return;
	}
	if (!smtp_hello_name_is_valid(command->arg, command->arg_len)) {
		session_error(session, 501, "5.5.4", command->row->syntax);
		return;
	}
	session_drop_tx(session, "new EHLO", NULL);
	g_free(session->helo);
	session->helo = g_strndup(command->arg, command->arg_len);
	session->esmtp = esmtp;
	session_make_meta(session);
	conn_set_line_max(session->conn, session_line_max(session));
	session_set_state(session, SESSION_READY);
	if (esmtp)
		reply_ehlo(session);
	else
		session_reply(session, 250, NULL, session->conf->hostname);
}

static void
cmd_helo(SmtpSession *session, const SmtpCommand *command)
{
	greet(session, command, false);
}

static void
cmd_ehlo(SmtpSession *session, const SmtpCommand *command)
{
	greet(session, command, true);
}

/* ---- MAIL and RCPT ---- */

typedef struct Verdict {
	int code; /* 0: fine */
	const char *status, *text;
} Verdict;

static Verdict
path_verdict(SmtpPathResult result, SmtpVerb verb)
{
	switch (result) {
	case SMTP_PATH_OK:
		return (Verdict){0};
	case SMTP_PATH_SYNTAX:
		return (Verdict){501, "5.5.4", smtp_command_row(verb)->syntax};
	case SMTP_PATH_ADDRESS:
		return (Verdict){501, "5.1.3", "Bad mailbox address syntax"};
	case SMTP_PATH_LOCAL_LONG:
		return (Verdict){501, "5.1.3", "Bad mailbox address syntax: local part too long"};
	case SMTP_PATH_DOMAIN_LONG:
		return (Verdict){501, "5.1.2", "Bad mailbox address syntax: domain too long"};
	case SMTP_PATH_PARAMS:
		return (Verdict){501, "5.5.4", "Syntax: bad parameter"};
	case SMTP_PATH_UTF8:
		return (Verdict){553, "5.6.7", "Address needs SMTPUTF8"};
	case SMTP_PATH_RESULTS:
		break;
	}
	k_unreachable();
}

static Verdict
size_verdict(const SmtpSession *session, const char *value)
{
	uint64_t size = 0, max = session->conf->limits.message_max;
	size_t len = value != NULL ? strlen(value) : 0;
	/* 20 digits (RFC 1870 4): a number past 2^64 is a large number, not nonsense */
	bool digits = len > 0 && len <= 20 && strspn(value, "0123456789") == len;
	if (!digits)
		return (Verdict){501, "5.5.4", "Syntax: SIZE=number"};
	if (!text_parse_u64(value, len, UINT64_MAX, &size) || size > max)
		return (Verdict){552, "5.3.4",
				 "Error: message size exceeds fixed maximum message size"};
	return (Verdict){0};
}

static bool
body_is_known(const SmtpSession *session, const char *value)
{
	const SmtpServiceConf *conf = session->conf;
	return text_equal_nocase(value, "7BIT") || text_equal_nocase(value, "8BITMIME") ||
	       (conf->chunking && conf->binarymime && text_equal_nocase(value, "BINARYMIME"));
}

/* 0, 501 or 555 */
static int
dsn_code(const SmtpSession *session, SmtpDsnParam result)
{
	if (!session->conf->dsn || result == SMTP_DSN_OTHER)
		return 555;
	return result == SMTP_DSN_OK ? 0 : 501;
}

static Verdict
rcpt_params_verdict(const SmtpSession *session, const Mailbox *to)
{
	for (size_t i = 0; i < to->n_params; i++) {
		const EsmtpParam *param = &to->params[i];
		int code = session->esmtp ? dsn_code(session, smtp_dsn_rcpt_param(param->keyword,
										  param->value))
					  : 555;
		if (code == 501)
			return (Verdict){501, "5.5.4", "Syntax: bad parameter value"};
		if (code != 0)
			return (Verdict){555, "5.5.4",
					 "RCPT TO parameters not recognized or not implemented"};
	}
	return (Verdict){0};
}

static Verdict
mail_params_verdict(const SmtpSession *session, const Mailbox *from)
{
	for (size_t i = 0; i < from->n_params; i++) {
		const EsmtpParam *param = &from->params[i];
		Verdict verdict = {0};
		if (!session->esmtp)
			verdict.code = 555;
		else if (text_equal_nocase(param->keyword, "SIZE"))
			verdict = size_verdict(session, param->value);
		else if (text_equal_nocase(param->keyword, "BODY"))
			verdict.code = body_is_known(session, param->value) ? 0 : 501;
		else if (text_equal_nocase(param->keyword, "SMTPUTF8"))
			verdict.code = param->value == NULL ? 0 : 501;
		else
			verdict.code = dsn_code(session,
						smtp_dsn_mail_param(param->keyword, param->value));
		if (verdict.code == 501 && verdict.text == NULL)
			return (Verdict){501, "5.5.4", "Syntax: bad parameter value"};
		if (verdict.code == 555)
			return (Verdict){555, "5.5.4",
					 "MAIL FROM parameters not recognized or not implemented"};
		if (verdict.code != 0)
			return verdict;
	}
	return (Verdict){0};
}

static void
cmd_mail(SmtpSession *session, const SmtpCommand *command)
{
	g_autoptr(Mailbox) from = NULL;
	if (!is_greeted(session))
		return;
	if (session->state != SESSION_READY) {
		session_error(session, 503, "5.5.1", "Error: nested MAIL command");
		return;
	}
	if (session->conf->require_auth && session->auth_user == NULL) {
		session_error(session, 530, "5.7.0", "Authentication required");
		return;
	}
	SmtpPathResult result = smtp_parse_path(command->arg, command->arg_len, SMTP_PATH_MAIL,
						session->esmtp, &from);
	Verdict verdict = path_verdict(result, SMTP_VERB_MAIL);
	if (verdict.code == 0)
		verdict = mail_params_verdict(session, from);
	if (verdict.code != 0) {
		session_error(session, verdict.code, verdict.status, verdict.text);
		return;
	}
	if (!session_gate(session, SMTP_GATE_MESSAGE)) {
		session_reply(session, 450, "4.7.1", "Error: too many messages from your address");
		return;
	}
	const EsmtpParam *body = mailbox_param(from, "BODY");
	session->binary = body != NULL && text_equal_nocase(body->value, "BINARYMIME");
	session->utf8 = mailbox_param(from, "SMTPUTF8") != NULL;
	session_begin_tx(session, from);
}

static void
cmd_rcpt(SmtpSession *session, const SmtpCommand *command)
{
	g_autoptr(Mailbox) to = NULL;
	if (!is_greeted(session))
		return;
	if (!has_transaction(session)) {
		session_error(session, 503, "5.5.1", "Error: need MAIL command");
		return;
	}
	SmtpPathResult result = smtp_parse_path(command->arg, command->arg_len, SMTP_PATH_RCPT,
						session->utf8, &to);
	Verdict verdict = path_verdict(result, SMTP_VERB_RCPT);
	if (verdict.code == 0)
		verdict = rcpt_params_verdict(session, to);
	if (verdict.code != 0) {
		session_error(session, verdict.code, verdict.status, verdict.text);
	} else if (session->state == SESSION_GIVEN_UP) {
		session_reply(session, 450, "4.4.2", "RCPT upstream timeout/internal err");
	} else if (tx_rcpt_count(session->tx) >= session->conf->limits.rcpt_max) {
		session_reply(session, 452, "4.5.3", "Error: too many recipients");
	} else if (!session_gate(session, SMTP_GATE_RCPT)) {
		session_reply(session, 450, "4.7.1",
			      "Error: too many recipients from your address");
	} else {
		(void)tx_add_rcpt(session->tx, to);
		session_set_state(session, SESSION_RCPT_WAIT);
	}
}

/* ---- DATA ---- */

static Verdict
data_verdict(SmtpSession *session)
{
	if (session->state == SESSION_HELLO)
		return (Verdict){503, "5.5.1", "Error: send HELO first"};
	if (session->state == SESSION_READY)
		return (Verdict){503, "5.5.1", "Error: need MAIL command"};
	if (session->state == SESSION_GIVEN_UP)
		return (Verdict){450, "4.4.2", "RCPT upstream timeout/internal err"};
	if (session->state == SESSION_BDAT || session->state == SESSION_BDAT_FAILED)
		return (Verdict){503, "5.5.1", "Error: the message comes by BDAT"};
	if (tx_rcpt_count(session->tx) == 0)
		return (Verdict){503, "5.5.1", "Error: need RCPT command"};
	if (tx_rcpts_accepted(session->tx) == 0)
		return (Verdict){session->conf->lmtp ? 503 : 554, "5.5.1",
				 "Error: no valid recipients"};
	if (session->binary)
		return (Verdict){503, "5.5.1", "Error: BINARYMIME needs BDAT"};
	return (Verdict){0};
}

static void
cmd_data(SmtpSession *session, const SmtpCommand *command)
{
	Verdict verdict = data_verdict(session);
	(void)command;
	if (verdict.code == 0) {
		session_begin_body(session);
	} else if (conn_pending(session->conn) > 0) {
		/* a message may follow that was sent without waiting: none of it is a command */
		session_reply(session, verdict.code, verdict.status, verdict.text);
		session_close(session, "input behind a refused DATA");
	} else if (verdict.code < 500) {
		session_reply(session, verdict.code, verdict.status, verdict.text);
	} else {
		session_error(session, verdict.code, verdict.status, verdict.text);
	}
}

static void
cmd_bdat(SmtpSession *session, const SmtpCommand *command)
{
	uint64_t size = 0;
	bool last = false;
	if (session->conf->chunking &&
	    smtp_bdat_parse(command->arg, command->arg_len, &size, &last)) {
		session_begin_chunk(session, size, last);
		return;
	}
	/* The chunk that may follow cannot be told from commands: nothing behind it may be
	 * executed. */
	session->errors++;
	if (session->conf->chunking)
		session_reply(session, 501, "5.5.4", command->row->syntax);
	else
		session_reply(session, 502, "5.5.1", "BDAT not implemented");
	session_close(session, "BDAT not understood");
}

/* ---- the others ---- */

static void
cmd_rset(SmtpSession *session, const SmtpCommand *command)
{
	(void)command;
	session_drop_tx(session, "reset", NULL);
	if (session->state != SESSION_HELLO)
		session_set_state(session, SESSION_READY);
	session_reply(session, 250, "2.0.0", "ok");
}

static void
cmd_noop(SmtpSession *session, const SmtpCommand *command)
{
	(void)command;
	session_reply(session, 250, "2.0.0", "OK");
}

static void
cmd_vrfy(SmtpSession *session, const SmtpCommand *command)
{
	(void)command;
	session_reply(session, 252, "2.0.0",
		      "Cannot VRFY user, but will accept message and attempt delivery");
}

static void
cmd_help(SmtpSession *session, const SmtpCommand *command)
{
	(void)command;
	session_reply(
		session, 250, "2.0.0",
		"Supported commands: AUTH BDAT DATA EHLO HELO HELP MAIL NOOP QUIT RCPT RSET STARTTLS "
		"VRFY");
}

static void
cmd_auth(SmtpSession *session, const SmtpCommand *command)
{
	session_auth(session, command->arg, command->arg_len);
}

static void
cmd_xclient(SmtpSession *session, const SmtpCommand *command)
{
	session_xclient(session, command->arg, command->arg_len);
}

static void
cmd_starttls(SmtpSession *session, const SmtpCommand *command)
{
	(void)command;
	session_starttls(session);
}

static void
cmd_quit(SmtpSession *session, const SmtpCommand *command)
{
	(void)command;
	session_reply(session, 221, "2.0.0", "ok");
	session_close(session, "quit");
}

static void (*const handlers[SMTP_VERBS])(SmtpSession *, const SmtpCommand *) = {
	[SMTP_VERB_HELO] = cmd_helo,       [SMTP_VERB_EHLO] = cmd_ehlo,
	[SMTP_VERB_LHLO] = cmd_ehlo,       [SMTP_VERB_MAIL] = cmd_mail,
	[SMTP_VERB_RCPT] = cmd_rcpt,       [SMTP_VERB_DATA] = cmd_data,
	[SMTP_VERB_RSET] = cmd_rset,       [SMTP_VERB_NOOP] = cmd_noop,
	[SMTP_VERB_VRFY] = cmd_vrfy,       [SMTP_VERB_HELP] = cmd_help,
	[SMTP_VERB_QUIT] = cmd_quit,       [SMTP_VERB_STARTTLS] = cmd_starttls,
	[SMTP_VERB_AUTH] = cmd_auth,       [SMTP_VERB_BDAT] = cmd_bdat,
	[SMTP_VERB_XCLIENT] = cmd_xclient,
};

static void
unknown_command(SmtpSession *session, const char *line, const SmtpCommand *command)
{
	g_autofree char *word = text_escape(line, command->verb_len, UNKNOWN_SHOWN);
	g_autofree char *text = g_strdup_printf("Error: command \"%s\" not recognized", word);
	session_error(session, 500, "5.5.2", text);
}

static void
refused_command(SmtpSession *session, const SmtpCommandRow *row)
{
	if (!row->refuse_closes) {
		session_error(session, row->refuse_code, row->refuse_status, row->refuse_text);
		return;
	}
	session->errors++;
	session_reply(session, row->refuse_code, row->refuse_status, row->refuse_text);
	session_close(session, row->refuse_text);
}

static void
syntax_error(SmtpSession *session, const SmtpCommand *command)
{
	/* DATA with an argument is DATA to a client that does not wait for the answer */
	if (command->row->verb == SMTP_VERB_DATA && conn_pending(session->conn) > 0) {
		session_reply(session, 501, "5.5.4", command->row->syntax);
		session_close(session, "input behind a refused DATA");
		return;
	}
	session_error(session, 501, "5.5.4", command->row->syntax);
}

void
session_command(SmtpSession *session, const char *line, size_t len)
{
	SmtpCommand command;
	SessionState state = session->state;
	if (smtp_command_parse(line, len, &command) != SMTP_LINE_OK) {
		session_error(session, 501, "5.5.2", "Syntax: control character in command");
	} else if (command.row == NULL) {
		unknown_command(session, line, &command);
	} else if (command.row->junk && ++session->junk > session->conf->limits.junk_max) {
		session_error(session, 502, "5.5.1", "Error: too many commands without a message");
	} else if (command.row->refuse_code != 0) {
		refused_command(session, command.row);
	} else if (!smtp_command_argument_ok(&command)) {
		syntax_error(session, &command);
	} else {
		k_assert(handlers[command.row->verb] != NULL);
		handlers[command.row->verb](session, &command);
	}
	if (session->state == state)
		session_rearm(session);
}
