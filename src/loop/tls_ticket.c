/* SPDX-License-Identifier: Apache-2.0 */
#include <openssl/ssl.h>

#include "loop/conn_int.h"

struct TlsTicket {
	SSL_SESSION *session;
};

TlsTicket *
tls_session_ticket(const TlsSession *session)
{
	SSL_SESSION *ssl_session = SSL_get1_session(tls_session_ssl(session));
	if (ssl_session == NULL || SSL_SESSION_is_resumable(ssl_session) != 1) {
		SSL_SESSION_free(ssl_session);
		return NULL;
	}
	TlsTicket *ticket = g_new0(TlsTicket, 1);
	ticket->session = ssl_session;
	return ticket;
}

void
tls_session_offer(TlsSession *session, const TlsTicket *ticket)
{
	/* one that does not fit is not offered, and the handshake is a full one */
	(void)SSL_set_session(tls_session_ssl(session), ticket->session);
}

bool
tls_session_is_resumed(const TlsSession *session)
{
	return SSL_session_reused(tls_session_ssl(session)) == 1;
}

void
tls_ticket_free(TlsTicket *ticket)
{
	if (ticket == NULL)
		return;
	SSL_SESSION_free(ticket->session);
	g_free(ticket);
}

void
conn_offer_ticket(Conn *conn, TlsTicket *ticket)
{
	k_assert(conn->tls.session == NULL);
	tls_ticket_free(conn->tls.ticket);
	conn->tls.ticket = ticket;
}

TlsTicket *
conn_ticket(const Conn *conn)
{
	return conn->tls.ready && !conn->tls.server ? tls_session_ticket(conn->tls.session) : NULL;
}

bool
conn_tls_is_resumed(const Conn *conn)
{
	return conn->tls.ready && tls_session_is_resumed(conn->tls.session);
}
