/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "loop/conn_int.h"

/* What a handler in DATA mode may leave untaken; more means it will never take it. */
#define UNTAKEN_MAX (WORKER_SCRATCH / 2)

void
conn_in_forget(Conn *conn)
{
	/* The memory stays: a handler may still look at what it was given. */
	conn->in.left = 0;
	conn->in.scanned = 0;
	conn->in.swallowed = 0;
}

static void
reached_eof(Conn *conn)
{
	conn->eof = true;
	conn->eof_due = true;
	conn->tls.more = false;
	conn_stop_reading(conn); /* else the loop would report it again and again */
}

static size_t
recv_plain(Conn *conn, char *out, size_t room)
{
	ssize_t got = recv(conn->fd, out, room, 0);
	if (got > 0)
		return (size_t)got;
	if (got == 0) {
		reached_eof(conn);
	} else if (errno != EAGAIN && errno != EINTR) {
		char text[128];
		conn_fail(conn, "read: %s", strerror_r(errno, text, sizeof(text)));
	}
	return 0;
}

/* Reads until nothing is left or `room` is full; in the latter case only we know of the rest. */
static size_t
recv_tls(Conn *conn, char *out, size_t room)
{
	size_t len = 0;
	TlsIo io = TLS_IO_OK;
	conn->tls.read_wants_write = false;
	while (len < room && io == TLS_IO_OK) {
		size_t got = 0;
		io = tls_session_read(conn->tls.session, out + len, room - len, &got);
		if (io == TLS_IO_OK)
			len += got;
	}
	conn->tls.more = io == TLS_IO_OK;
	switch (io) {
	case TLS_IO_OK:
	case TLS_IO_WANT_READ:
		break;
	case TLS_IO_WANT_WRITE:
		conn->tls.read_wants_write = true;
		conn_wait_writable(conn);
		break;
	case TLS_IO_EOF:
		reached_eof(conn);
		break;
	case TLS_IO_ERROR:
		/* What came before the error is still good; asked again, the error comes again. */
		if (len > 0)
			conn->tls.more = true;
		else
			conn_fail(conn, "TLS: %s", tls_session_error(conn->tls.session));
		break;
	}
	return len;
}

void
conn_in_fill(Conn *conn)
{
	ConnIn *in = &conn->in;
	if (in->left > UNTAKEN_MAX) {
		/* Lines that were held back by a pause are handed up first. */
		if (conn->data_mode)
			conn_fail(conn, "input was not taken");
		return;
	}
	char *scratch = worker_scratch(conn->worker);
	if (in->left > 0)
		memmove(scratch, in->at, in->left); /* may lie in it already */
	g_free(in->store);
	in->store = NULL;
	in->store_room = 0;
	in->at = scratch;
	size_t room = WORKER_SCRATCH - in->left;
	size_t got = conn->tls.ready ? recv_tls(conn, scratch + in->left, room)
				     : recv_plain(conn, scratch + in->left, room);
	if (conn->state == CONN_STATE_OPEN)
		in->left += got;
}

void
conn_in_stash(Conn *conn)
{
	ConnIn *in = &conn->in;
	if (in->left == 0) {
		g_free(in->store);
		in->store = NULL;
		in->store_room = 0;
		in->at = NULL;
		in->scanned = 0;
		return;
	}
	/* A few bytes do not hold on to a large piece of memory. */
	if (in->store != NULL && in->left >= in->store_room / 4)
		return;
	char *copy = g_malloc(in->left);
	memcpy(copy, in->at, in->left);
	g_free(in->store);
	in->store = copy;
	in->store_room = in->left;
	in->at = copy;
}

bool
conn_in_drop(Conn *conn)
{
	for (int i = 0; i < 2; i++) {
		ssize_t got = recv(conn->fd, worker_scratch(conn->worker), WORKER_SCRATCH, 0);
		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		if (got < WORKER_SCRATCH)
			break;
	}
	return true;
}

static void
consume(ConnIn *in, size_t len)
{
	in->at += len;
	in->left -= len;
	in->scanned = 0;
}

/* Finds CRLF; true with the length of the line before it. */
static bool
find_line(ConnIn *in, size_t *ret_len)
{
	size_t from = in->scanned;
	while (from < in->left) {
		const char *lf = memchr(in->at + from, '\n', in->left - from);
		if (lf == NULL)
			break;
		size_t at = (size_t)(lf - in->at);
		if (at > 0 && in->at[at - 1] == '\r') {
			*ret_len = at - 1;
			return true;
		}
		from = at + 1; /* a bare LF belongs to the line */
	}
	in->scanned = in->left;
	return false;
}

/* The unfinished line is too long: swallow what is there of it but a CR that may belong to its
 * end. */
static void
swallow(Conn *conn)
{
	ConnIn *in = &conn->in;
	size_t keep = in->at[in->left - 1] == '\r' ? 1 : 0;
	in->swallowed += in->left - keep;
	consume(in, in->left - keep);
	in->scanned = in->left;
	if (in->swallowed > conn->options.discard_max)
		conn_fail(conn, "line too long");
}

/* Whether `left` bytes without CRLF can no longer become a line within the limit. */
static bool
is_too_long(const Conn *conn)
{
	size_t max = conn->options.line_max;
	const ConnIn *in = &conn->in;
	return in->left > max + 1 || (in->left == max + 1 && in->at[max] != '\r');
}

/* False when more input is needed. */
static bool
give_line(Conn *conn)
{
	ConnIn *in = &conn->in;
	size_t len;
	bool was_long = in->swallowed > 0;
	if (!find_line(in, &len)) {
		if (!was_long && !is_too_long(conn))
			return false;
		swallow(conn);
		if (!was_long && conn->state == CONN_STATE_OPEN)
			(void)conn_emit(conn, CONN_LONG_LINE, NULL, 0, NULL);
		return false;
	}
	char *line = in->at;
	consume(in, len + 2);
	if (was_long || len > conn->options.line_max) {
		size_t total = in->swallowed + len;
		in->swallowed = 0;
		if (total > conn->options.discard_max)
			conn_fail(conn, "line too long");
		else if (!was_long)
			(void)conn_emit(conn, CONN_LONG_LINE, NULL, 0, NULL);
		return true;
	}
	line[len] = '\0'; /* over the CR */
	(void)conn_emit(conn, CONN_LINE, line, len, NULL);
	return true;
}

/* False when the rest has to wait for more input. */
static bool
give_data(Conn *conn)
{
	ConnIn *in = &conn->in;
	const char *data = in->at;
	size_t len = in->left;
	unsigned mode_changes = conn->mode_changes;
	ConnFn *fn = conn->fn;
	size_t taken = 0;
	conn->discarded = false;
	if (!conn_emit(conn, CONN_DATA, data, len, &taken) || conn->discarded)
		return true;
	k_assert(taken <= len);
	consume(in, taken);
	/* The same question would get the same answer. */
	return taken == len || conn->mode_changes != mode_changes || conn->fn != fn;
}

void
conn_in_hand_up(Conn *conn)
{
	bool more = true;
	while (more && conn->state == CONN_STATE_OPEN && !conn->paused && conn->in.left > 0)
		more = conn->data_mode ? give_data(conn) : give_line(conn);
}
