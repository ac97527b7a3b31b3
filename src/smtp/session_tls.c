/* SPDX-License-Identifier: Apache-2.0 */
/* The way into TLS.  STARTTLS and TLS from the first byte differ only in what was said before the
 * handshake; behind it both begin a dialogue with nothing known (RFC 3207 4.2). */
#include "smtp/session_int.h"

bool
session_offers_tls(const SmtpSession *session)
{
	return session->sessions->tls != NULL && !session->conf->tls_implicit &&
	       !conn_is_tls(session->conn);
}

void
session_enter_tls(SmtpSession *session)
{
	session_forget_peer(session);
	session_set_state(session, SESSION_TLS);
	conn_start_tls(session->conn, session->sessions->tls, true, NULL);
}

void
session_starttls(SmtpSession *session)
{
	if (conn_is_tls(session->conn)) {
		session_error(session, 503, "5.5.1", "Error: TLS is active already");
	} else if (!session_offers_tls(session)) {
		session_error(session, 454, "4.7.0", "TLS not available");
	} else if (session->state == SESSION_HELLO) {
		session_error(session, 503, "5.5.1", "Error: send EHLO first");
	} else {
		session_reply(session, 220, "2.0.0", "Ready to start TLS");
		/* a client that waits for 220 has sent nothing behind the command: what there is
		 * was put in on the way, and goes with conn_start_tls */
		session_enter_tls(session);
	}
}
