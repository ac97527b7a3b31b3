/* SPDX-License-Identifier: Apache-2.0 */
/* AUTH (RFC 4954): under TLS, or in clear for peers on this machine where that is allowed.  A
 * failure is answered late, the third one with 421.  Passwords are compared on the pool when that
 * takes long. */
#include <string.h>

#include <openssl/crypto.h>

#include "smtp/sasl.h"
#include "smtp/session_int.h"

#define ATTEMPTS_MAX 3

/* One comparison, on a pool thread.  Outlives the session when need be. */
typedef struct Check {
	SmtpSession *session; /* NULL: it does not care any more */
	SmtpSecrets *secrets;
	char *user, *password;
	size_t password_len;
	bool ok;
} Check;

struct SessionAuth {
	SmtpSasl sasl;
	SmtpSecrets *secrets; /* counted: a reload does not change an exchange */
	Check *check;         /* under way, or NULL */
};

/* ---- what is allowed ---- */

/* The way from the client to us cannot be listened to. */
static bool
is_private(const SmtpSession *session)
{
	char host[NET_ADDR_TEXT_MAX];
	if (conn_is_tls(session->conn))
		return true;
	if (!session->conf->auth_clear_loopback)
		return false;
	/* both: a proxy on this machine speaks for clients elsewhere */
	net_addr_format(conn_peer(session->conn), host);
	return net_is_loopback(host) && net_is_loopback(session->remote->host);
}

bool
session_offers_auth(const SmtpSession *session)
{
	return session->sessions->secrets != NULL && session->auth_user == NULL &&
	       is_private(session);
}

size_t
session_line_max(const SmtpSession *session)
{
	size_t max = session->conf->limits.command_line_max;
	return session_offers_auth(session) ? MAX(max, (size_t)SMTP_SASL_LINE_MAX) : max;
}

void
session_auth_forget(SmtpSession *session)
{
	SessionAuth *auth = g_steal_pointer(&session->auth);
	if (auth == NULL)
		return;
	if (auth->check != NULL)
		auth->check->session = NULL;
	smtp_sasl_clear(&auth->sasl);
	smtp_secrets_unref(auth->secrets);
	g_free(auth);
}

/* ---- the end of an exchange ---- */

static void
fail(SmtpSession *session, int code, const char *status, const char *text)
{
	session_auth_forget(session);
	session_set_state(session, SESSION_READY);
	session_error(session, code, status, text);
}

static void
accept_user(SmtpSession *session)
{
	session->auth_user = g_strdup(session->auth->sasl.user);
	session_auth_forget(session);
	conn_set_line_max(session->conn, session_line_max(session));
	session_make_meta(session);
	session_set_state(session, SESSION_READY);
	session_reply(session, 235, "2.7.0", "Authentication successful");
}

static void
reject_user(SmtpSession *session)
{
	const SmtpServiceConf *conf = session->conf;
	SmtpServerEvent event = {.kind = SMTP_SERVER_AUTH_FAILED,
				 .reason = "wrong user or password",
				 .auth_user = session->auth->sasl.user};
	session_report(session, &event);
	(void)session_gate(session, SMTP_GATE_AUTH_FAILURE);
	session_auth_forget(session);
	session_set_state(session, SESSION_READY);
	session->errors++;
	session->auth_failures++;
	Usec delay = conf->auth_delay * session->auth_failures;
	if (session->auth_failures < ATTEMPTS_MAX)
		session_reply_late(session, delay, 535, "5.7.8",
				   "Authentication credentials invalid", NULL);
	else
		session_reply_late(session, delay, 421, "4.7.0",
				   "Error: too many failed authentications",
				   "too many failed authentications");
}

/* ---- comparing passwords ---- */

static void
run_check(void *arg)
{
	Check *check = arg;
	check->ok = smtp_secrets_check(check->secrets, check->user, check->password,
				       check->password_len);
}

static void
check_done(void *arg, bool ran)
{
	Check *check = arg;
	SmtpSession *session = check->session;
	bool ok = check->ok;
	OPENSSL_cleanse(check->password, check->password_len);
	g_free(check->password);
	g_free(check->user);
	smtp_secrets_unref(check->secrets);
	g_free(check);
	if (session == NULL)
		return;
	session->auth->check = NULL;
	if (!ran)
		fail(session, 454, "4.7.0", "Temporary authentication failure");
	else if (ok)
		accept_user(session);
	else
		reject_user(session);
	session_after_reply(session);
}

void
session_auth_timeout(SmtpSession *session)
{
	fail(session, 454, "4.7.0", "Temporary authentication failure");
	session_after_reply(session);
}

static void
start_check(SmtpSession *session)
{
	SessionAuth *auth = session->auth;
	Pool *pool = session->conf->pool;
	if (pool == NULL || !smtp_secrets_are_slow(auth->secrets)) {
		if (smtp_secrets_check(auth->secrets, auth->sasl.user, auth->sasl.password,
				       auth->sasl.password_len))
			accept_user(session);
		else
			reject_user(session);
		return;
	}
	Check *check = g_new0(Check, 1);
	check->session = session;
	check->secrets = smtp_secrets_ref(auth->secrets);
	check->user = g_strdup(auth->sasl.user);
	check->password = g_steal_pointer(&auth->sasl.password);
	check->password_len = auth->sasl.password_len;
	auth->check = check;
	session_set_state(session, SESSION_AUTH_WAIT);
	if (pool_submit(pool, session->sessions->worker, run_check, check_done, check) == NULL)
		check_done(check, false);
}

/* ---- the dialogue ---- */

static void
send_challenge(SmtpSession *session)
{
	const GString *out = session->auth->sasl.out;
	g_autofree char *text = g_base64_encode((const uint8_t *)out->str, out->len);
	g_autofree char *line = g_strconcat("334 ", text, "\r\n", NULL);
	if (session->state != SESSION_AUTH)
		session_set_state(session, SESSION_AUTH);
	conn_write(session->conn, line, strlen(line));
}

static void
take_step(SmtpSession *session, SmtpSaslStep step)
{
	switch (step) {
	case SMTP_SASL_CHALLENGE:
		send_challenge(session);
		return;
	case SMTP_SASL_CHECK:
		start_check(session);
		return;
	case SMTP_SASL_ACCEPT:
		accept_user(session);
		return;
	case SMTP_SASL_REJECT:
		reject_user(session);
		return;
	case SMTP_SASL_MALFORMED:
		fail(session, 501, "5.5.2", "Error: not what the mechanism wants");
		return;
	}
	k_unreachable();
}

static void
take_response(SmtpSession *session, const char *text, size_t text_len)
{
	size_t len = 0;
	char *data = (char *)smtp_sasl_decode(text, text_len, &len);
	if (data == NULL) {
		fail(session, 501, "5.5.2", "Can't decode base64");
		return;
	}
	SmtpSaslStep step = smtp_sasl_step(&session->auth->sasl, data, len);
	OPENSSL_cleanse(data, len);
	g_free(data);
	take_step(session, step);
}

void
session_auth_line(SmtpSession *session, const char *line, size_t len)
{
	if (len == 1 && line[0] == '*')
		fail(session, 501, "5.7.0", "Authentication cancelled");
	else
		take_response(session, line, len);
	if (session->state == SESSION_AUTH)
		session_rearm(session);
}

void
session_auth_long_line(SmtpSession *session)
{
	fail(session, 500, "5.5.6", "Error: authentication exchange line is too long");
}

static void
begin(SmtpSession *session, SmtpSaslMech mech)
{
	session->auth = g_new0(SessionAuth, 1);
	session->auth->secrets = smtp_secrets_ref(session->sessions->secrets);
	smtp_sasl_init(&session->auth->sasl, mech, session->auth->secrets, NULL);
}

/* The reasons not to begin; true when there was one, and it was told. */
static bool
is_refused(SmtpSession *session)
{
	if (session->sessions->secrets == NULL)
		session_error(session, 502, "5.5.1", "AUTH not available");
	else if (session->state == SESSION_HELLO || !session->esmtp)
		session_error(session, 503, "5.5.1", "Error: send EHLO first");
	else if (session->auth_user != NULL)
		session_error(session, 503, "5.5.1", "Already authenticated");
	else if (session->state != SESSION_READY)
		session_error(session, 503, "5.5.1", "Error: AUTH inside a mail transaction");
	else if (!is_private(session))
		session_error(session, 538, "5.7.11",
			      "Encryption required for requested authentication mechanism");
	else if (!session_gate(session, SMTP_GATE_AUTH)) {
		session_reply(session, 421, "4.7.0", "Error: too many failed authentications");
		session_close(session, "too many failed authentications");
	} else
		return false;
	return true;
}

void
session_auth(SmtpSession *session, const char *arg, size_t len)
{
	if (is_refused(session))
		return;
	const char *space = memchr(arg, ' ', len);
	size_t name_len = space != NULL ? (size_t)(space - arg) : len;
	const char *initial = space;
	while (initial != NULL && *initial == ' ')
		initial++;
	size_t initial_len = initial != NULL ? (size_t)(arg + len - initial) : 0;
	SmtpSaslMech mech = smtp_sasl_mech(arg, name_len);
	if (len == 0 || (initial != NULL && memchr(initial, ' ', initial_len) != NULL)) {
		session_error(session, 501, "5.5.4", "Syntax: AUTH mechanism [initial-response]");
	} else if (mech == SMTP_SASL_MECHS ||
		   (mech == SMTP_SASL_SCRAM_SHA_256 &&
		    !smtp_secrets_have_scram(session->sessions->secrets))) {
		session_error(session, 504, "5.5.4", "Unrecognized authentication type");
	} else {
		begin(session, mech);
		if (initial != NULL)
			take_response(session, initial, initial_len);
		else
			take_step(session, smtp_sasl_begin(&session->auth->sasl));
	}
}
