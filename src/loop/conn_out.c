/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "loop/conn_int.h"

#define ROOM_MIN  256         /* first piece of memory; small replies fit */
#define ROOM_KEEP 512         /* kept while idle */
#define SEND_NOW  (64 * 1024) /* so much does not wait for the end of the turn */

void
conn_out_clear(Conn *conn)
{
	g_free(conn->out.data);
	conn->out = (ConnOut){0};
}

static void
out_append(ConnOut *out, const void *data, size_t len)
{
	if (out->off > 0 && out->off + out->len + len > out->room) {
		memmove(out->data, out->data + out->off, out->len);
		out->off = 0;
	}
	if (out->len + len > out->room) {
		out->room = MAX(MAX(out->room * 2, out->len + len), (size_t)ROOM_MIN);
		out->data = g_realloc(out->data, out->room);
	}
	memcpy(out->data + out->off + out->len, data, len);
	out->len += len;
}

static void
out_sent(ConnOut *out, size_t len)
{
	out->off += len;
	out->len -= len;
	if (out->len > 0)
		return;
	out->off = 0;
	if (out->room > ROOM_KEEP) {
		g_free(out->data);
		*out = (ConnOut){0};
	}
}

/* What the socket took; 0 when it is full or failed. */
static size_t
send_plain(Conn *conn)
{
	ssize_t put = send(conn->fd, conn->out.data + conn->out.off, conn->out.len, MSG_NOSIGNAL);
	if (put >= 0)
		return (size_t)put;
	if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS) {
		conn_wait_writable(conn);
	} else {
		char text[128];
		conn_fail(conn, "write: %s", strerror_r(errno, text, sizeof(text)));
	}
	return 0;
}

static size_t
send_tls(Conn *conn)
{
	size_t put = 0;
	conn->tls.write_wants_read = false;
	switch (tls_session_write(conn->tls.session, conn->out.data + conn->out.off, conn->out.len,
				  &put)) {
	case TLS_IO_OK:
		return put;
	case TLS_IO_WANT_WRITE:
		conn_wait_writable(conn);
		return 0;
	case TLS_IO_WANT_READ:
		conn->tls.write_wants_read = true;
		conn_start_reading(conn);
		return 0;
	case TLS_IO_EOF:
		conn_fail(conn, "write: the peer has closed");
		return 0;
	case TLS_IO_ERROR:
		conn_fail(conn, "TLS: %s", tls_session_error(conn->tls.session));
		return 0;
	}
	k_unreachable();
}

/* conn_finish, and all is sent. */
static void
begin_linger(Conn *conn)
{
	conn->state = CONN_STATE_LINGER;
	if (conn->tls.ready)
		tls_session_close(conn->tls.session);
	if (conn->eof || shutdown(conn->fd, SHUT_WR) != 0) {
		conn_free(conn);
		return;
	}
	conn_start_reading(conn);
	timer_set(&conn->timer, conn->linger);
}

void
conn_out_flush(Conn *conn)
{
	/* What the peer sent before it could have read our answer to STARTTLS was sent by
	 * someone who wants it to look as if it had come inside TLS. */
	if (conn->state == CONN_STATE_TLS_WAIT && conn->tls.server && conn->out.len > 0)
		(void)conn_in_drop(conn);
	while (conn->out.len > 0) {
		size_t put = conn->tls.ready ? send_tls(conn) : send_plain(conn);
		if (put == 0)
			break;
		out_sent(&conn->out, put);
	}
	if (conn->want_drained && conn->out.len <= conn->options.write_low) {
		conn->want_drained = false;
		conn->drained_due = true;
	}
	if (conn->out.len > 0)
		return;
	if (conn->state == CONN_STATE_TLS_WAIT)
		conn_tls_begin(conn);
	else if (conn->state == CONN_STATE_SENDING)
		begin_linger(conn);
}

void
conn_write(Conn *conn, const void *data, size_t len)
{
	k_assert_on(conn->worker);
	/* During a handshake there is nothing to say: it must leave neither in clear nor later. */
	if (len == 0 || (conn->state != CONN_STATE_OPEN && conn->state != CONN_STATE_CONNECTING))
		return;
	if (conn->out.len > conn->options.write_max && conn->state == CONN_STATE_OPEN)
		conn_out_flush(conn);
	if (conn->out.len > conn->options.write_max) {
		conn_fail(conn, "peer does not read");
		return;
	}
	out_append(&conn->out, data, len);
	if (conn->state != CONN_STATE_OPEN || conn->writing)
		return; /* goes out when the socket is ready */
	if (conn->out.len >= SEND_NOW) {
		conn_out_flush(conn);
		if (conn->drained_due)
			defer_queue(worker_defers(conn->worker), &conn->work);
	} else {
		defer_queue(worker_flushes(conn->worker), &conn->flush);
	}
}

size_t
conn_unsent(const Conn *conn)
{
	return conn->out.len;
}

void
conn_want_drained(Conn *conn)
{
	k_assert_on(conn->worker);
	if (conn->fn == NULL || conn->state == CONN_STATE_FAILED)
		return;
	conn->want_drained = true;
	if (!conn->writing)
		defer_queue(worker_flushes(conn->worker), &conn->flush);
}
