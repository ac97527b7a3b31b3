/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/conn_int.h"

void
conn_tls_clear(Conn *conn)
{
	tls_session_free(conn->tls.session);
	tls_context_unref(conn->tls.context);
	tls_ticket_free(conn->tls.ticket);
	g_free(conn->tls.name);
	conn->tls = (ConnTls){0};
}

void
conn_start_tls(Conn *conn, TlsContext *context, bool server, const char *name)
{
	k_assert_on(conn->worker);
	k_assert(conn->tls.session == NULL && conn->tls.context == NULL);
	if (conn->state != CONN_STATE_OPEN)
		return; /* it failed in this turn, and that will be told */
	(void)conn_discard_input(conn);
	conn->in.swallowed = 0;
	conn->tls.context = tls_context_ref(context);
	conn->tls.server = server;
	conn->tls.name = g_strdup(name);
	conn->state = CONN_STATE_TLS_WAIT;
	if (!conn->writing)
		defer_queue(worker_flushes(conn->worker), &conn->flush);
}

void
conn_tls_begin(Conn *conn)
{
	/* A server says nothing before our hello, so what is there was put in by somebody. */
	if (!conn->tls.server)
		(void)conn_in_drop(conn);
	g_autoptr(GError) trouble = NULL;
	conn->tls.session = tls_session_new(conn->tls.context, conn->fd, conn->tls.server,
					    conn->tls.name, &trouble);
	if (conn->tls.session == NULL) {
		conn_fail(conn, "TLS: %s", trouble->message);
		return;
	}
	if (conn->tls.ticket != NULL)
		tls_session_offer(conn->tls.session, conn->tls.ticket);
	g_clear_pointer(&conn->tls.ticket, tls_ticket_free);
	conn->state = CONN_STATE_TLS_SHAKE;
	conn_tls_shake(conn);
}

void
conn_tls_shake(Conn *conn)
{
	switch (tls_session_shake(conn->tls.session)) {
	case TLS_IO_OK:
		conn->state = CONN_STATE_OPEN;
		conn->tls.ready = true;
		conn->tls.more = true; /* may have come together with the handshake */
		conn->tls_ready_due = true;
		conn_start_reading(conn);
		break;
	case TLS_IO_WANT_READ:
		conn_start_reading(conn);
		break;
	case TLS_IO_WANT_WRITE:
		conn_wait_writable(conn);
		break;
	case TLS_IO_EOF:
		conn_fail(conn, "TLS handshake: the peer has closed");
		break;
	case TLS_IO_ERROR:
		conn_fail(conn, "TLS handshake: %s", tls_session_error(conn->tls.session));
		break;
	}
}

bool
conn_is_tls(const Conn *conn)
{
	return conn->tls.ready;
}

bool
conn_tls_facts(const Conn *conn, TlsFacts *ret_facts)
{
	*ret_facts = (TlsFacts){0};
	if (!conn->tls.ready)
		return false;
	tls_session_facts(conn->tls.session, ret_facts);
	return true;
}
