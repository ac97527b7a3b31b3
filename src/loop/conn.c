/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/conn.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/new.h"
#include "loop/conn_int.h"

static const ConnOptions default_options = {
	.line_max = 2048,
	.discard_max = 64 * 1024,
	.write_max = 256 * 1024,
	.write_low = 32 * 1024,
};

/* Where the scratch memory has to hold an unfinished line and what follows. */
#define LINE_MAX_LIMIT (WORKER_SCRATCH / 4)

/* ---- waiting for the socket ---- */

void
conn_start_reading(Conn *conn)
{
	if (conn->reading || conn->eof)
		return;
	if (event_add(&conn->read_event, NULL) != 0) {
		conn_fail(conn, "cannot wait for input");
		return;
	}
	conn->reading = true;
}

void
conn_stop_reading(Conn *conn)
{
	if (!conn->reading)
		return;
	(void)event_del(&conn->read_event);
	conn->reading = false;
}

void
conn_wait_writable(Conn *conn)
{
	if (conn->writing)
		return;
	if (event_add(&conn->write_event, NULL) != 0) {
		conn_fail(conn, "cannot wait for output");
		return;
	}
	conn->writing = true;
}

static void
stop_io(Conn *conn)
{
	conn_stop_reading(conn);
	if (conn->writing)
		(void)event_del(&conn->write_event);
	conn->writing = false;
	defer_cancel(&conn->flush);
}

/* ---- events ---- */

bool
conn_emit(Conn *conn, ConnEvent event, const char *data, size_t len, size_t *ret_taken)
{
	size_t taken = conn->fn(conn->arg, conn, event, data, len);
	if (ret_taken != NULL)
		*ret_taken = taken;
	return conn->fn != NULL;
}

void
conn_fail(Conn *conn, const char *format, ...)
{
	if (conn->state == CONN_STATE_FREED || conn->state == CONN_STATE_FAILED)
		return;
	if (conn->fn == NULL) {
		conn_free(conn);
		return;
	}
	va_list args;
	va_start(args, format);
	conn->error_due = g_strdup_vprintf(format, args);
	va_end(args);
	conn->state = CONN_STATE_FAILED;
	stop_io(conn);
	timer_cancel(&conn->timer);
	conn_in_forget(conn);
	conn_out_clear(conn);
	defer_queue(worker_defers(conn->worker), &conn->work);
}

/* CONN_ERROR; nothing follows it. */
static void
deliver_error(Conn *conn)
{
	g_autofree char *text = g_steal_pointer(&conn->error_due);
	if (text != NULL)
		(void)conn_emit(conn, CONN_ERROR, text, strlen(text), NULL);
}

/* Takes a mark and tells its event; false when the rest has to wait or is void. */
static bool
deliver_mark(Conn *conn, bool *due, ConnEvent event)
{
	if (!*due)
		return true;
	*due = false;
	return conn_emit(conn, event, NULL, 0, NULL) && conn->state != CONN_STATE_FAILED;
}

static bool
may_hand_up(const Conn *conn)
{
	return conn->fn != NULL && conn->state == CONN_STATE_OPEN && !conn->paused;
}

static void
deliver_input(Conn *conn)
{
	conn_in_hand_up(conn);
	if (conn->tls.more && may_hand_up(conn)) {
		conn_in_fill(conn);
		conn_in_hand_up(conn);
		/* One helping a turn: others want to be served too. */
		if (conn->tls.more && conn->fn != NULL)
			defer_queue(worker_defers(conn->worker), &conn->work);
	}
	if (conn->eof_due && !conn->tls.more && may_hand_up(conn)) {
		conn->eof_due = false;
		(void)conn_emit(conn, CONN_EOF, NULL, 0, NULL);
	}
}

void
conn_deliver(Conn *conn)
{
	if (conn->fn != NULL && conn->state != CONN_STATE_FAILED &&
	    deliver_mark(conn, &conn->connected_due, CONN_CONNECTED) &&
	    deliver_mark(conn, &conn->tls_ready_due, CONN_TLS_READY) &&
	    deliver_mark(conn, &conn->drained_due, CONN_DRAINED))
		deliver_input(conn);
	if (conn->state == CONN_STATE_FREED)
		return;
	conn_in_stash(conn);
	if (conn->fn != NULL && conn->state == CONN_STATE_FAILED)
		deliver_error(conn);
}

static void
on_work(void *arg)
{
	conn_deliver(arg);
}

static void
on_flush(void *arg)
{
	Conn *conn = arg;
	if (conn->state == CONN_STATE_CONNECTING)
		return; /* the connect flushes */
	conn_out_flush(conn);
	if (conn->drained_due || conn->tls_ready_due)
		conn_deliver(conn);
}

static void
on_timer(void *arg)
{
	Conn *conn = arg;
	if (conn->fn == NULL)
		conn_free(conn);
	else
		(void)conn_emit(conn, CONN_TIMEOUT, NULL, 0, NULL);
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	Conn *conn = arg;
	switch (conn->state) {
	case CONN_STATE_SENDING:
	case CONN_STATE_LINGER:
		if (!conn_in_drop(conn)) {
			conn->eof = true;
			conn_stop_reading(conn);
			if (conn->state == CONN_STATE_LINGER)
				conn_free(conn);
		}
		return;
	case CONN_STATE_TLS_SHAKE:
		conn_tls_shake(conn);
		break;
	case CONN_STATE_OPEN:
		if (conn->tls.write_wants_read)
			conn_out_flush(conn);
		if (conn->paused) {
			conn_stop_reading(conn); /* not at once in conn_pause: most are short */
			return;
		}
		if (conn->state == CONN_STATE_OPEN)
			conn_in_fill(conn);
		break;
	default:
		conn_stop_reading(conn);
		return;
	}
	conn_deliver(conn);
}

static void
finish_connect(Conn *conn)
{
	int errnum = 0;
	socklen_t len = sizeof(errnum);
	if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &errnum, &len) != 0)
		errnum = errno;
	if (errnum != 0) {
		char text[128];
		conn_fail(conn, "connect: %s", strerror_r(errnum, text, sizeof(text)));
		return;
	}
	conn->state = CONN_STATE_OPEN;
	conn->connected_due = true;
	conn_start_reading(conn);
	conn_out_flush(conn);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	Conn *conn = arg;
	conn->writing = false;
	switch (conn->state) {
	case CONN_STATE_CONNECTING:
		finish_connect(conn);
		break;
	case CONN_STATE_TLS_SHAKE:
		conn_tls_shake(conn);
		break;
	default:
		conn_out_flush(conn);
		if (conn->state == CONN_STATE_OPEN && conn->tls.read_wants_write && !conn->paused)
			conn_in_fill(conn);
		break;
	}
	if (conn->fn != NULL)
		conn_deliver(conn);
}

/* ---- life ---- */

static Conn *
conn_new(Worker *worker, const ConnOptions *options, ConnFn *fn, void *arg)
{
	k_assert_on(worker);
	k_assert(fn != NULL);
	Conn *conn = k_new0(Conn);
	conn->worker = worker;
	conn->fn = fn;
	conn->arg = arg;
	conn->fd = -1;
	conn->options = default_options;
	if (options != NULL) {
		/* 0 keeps the default. */
		if (options->line_max > 0)
			conn_set_line_max(conn, options->line_max);
		if (options->discard_max > 0)
			conn->options.discard_max = options->discard_max;
		if (options->write_max > 0)
			conn->options.write_max = options->write_max;
		if (options->write_low > 0)
			conn->options.write_low = options->write_low;
	}
	defer_init(&conn->work, on_work, conn);
	defer_init(&conn->flush, on_flush, conn);
	timer_init(&conn->timer, worker, on_timer, conn);
	return conn;
}

static void
assign_events(Conn *conn)
{
	struct event_base *base = worker_base(conn->worker);
	k_assert(event_assign(&conn->read_event, base, conn->fd, EV_READ | EV_PERSIST, on_readable,
			      conn) == 0);
	k_assert(event_assign(&conn->write_event, base, conn->fd, EV_WRITE, on_writable, conn) ==
		 0);
}

Conn *
conn_new_accepted(Worker *worker, int fd, const ConnOptions *options, ConnFn *fn, void *arg)
{
	Conn *conn = conn_new(worker, options, fn, arg);
	conn->fd = fd;
	conn->state = CONN_STATE_OPEN;
	/* Now: once the peer has gone the kernel does not know any more who it was. */
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0)
		net_addr_from_sockaddr((const struct sockaddr *)&peer, len, &conn->peer);
	assign_events(conn);
	conn_start_reading(conn);
	return conn;
}

/* Returns 0 (connected or on the way) or an errno value. */
static int
begin_connect(Conn *conn, const NetAddr *source)
{
	conn->fd = socket(conn->peer.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
			  0);
	if (conn->fd < 0)
		return errno;
	assign_events(conn);
	int on = 1;
	(void)setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (source != NULL) {
		/* The port is chosen at connect, when it only has to be free for this peer. */
		if (net_addr_port(source) == 0)
			(void)setsockopt(conn->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on,
					 sizeof(on));
		if (bind(conn->fd, (const struct sockaddr *)&source->storage, source->len) != 0)
			return errno;
	}
	int rc = connect(conn->fd, (const struct sockaddr *)&conn->peer.storage, conn->peer.len);
	if (rc != 0 && errno != EINPROGRESS && errno != EINTR)
		return errno;
	conn_wait_writable(conn);
	return 0;
}

Conn *
conn_connect(Worker *worker, const NetAddr *to, const NetAddr *source, const ConnOptions *options,
	     ConnFn *fn, void *arg)
{
	Conn *conn = conn_new(worker, options, fn, arg);
	conn->state = CONN_STATE_CONNECTING;
	conn->peer = *to;
	int errnum = begin_connect(conn, source);
	if (errnum != 0) {
		char text[128];
		conn_fail(conn, "connect: %s", strerror_r(errnum, text, sizeof(text)));
	}
	return conn;
}

/* The last of it, when no handler is on the stack any more. */
static void
destroy(void *arg)
{
	Conn *conn = arg;
	g_free(conn->in.store);
	g_free(conn);
}

void
conn_free(Conn *conn)
{
	if (conn == NULL)
		return;
	k_assert_on(conn->worker);
	k_assert(conn->state != CONN_STATE_FREED);
	conn->state = CONN_STATE_FREED;
	conn->fn = NULL;
	worker_release(&conn->orphan);
	stop_io(conn);
	defer_cancel(&conn->work);
	timer_clear(&conn->timer);
	conn_in_forget(conn);
	conn_out_clear(conn);
	conn_tls_clear(conn);
	g_clear_pointer(&conn->error_due, g_free);
	if (conn->fd >= 0)
		(void)close(conn->fd);
	conn->fd = -1;
	worker_reap(conn->worker, conn, destroy);
}

static void
end_orphan(void *arg)
{
	conn_free(arg);
}

void
conn_finish(Conn *conn, Usec linger)
{
	k_assert_on(conn->worker);
	if (conn->state != CONN_STATE_OPEN) {
		conn_free(conn); /* not yet or no more able to talk */
		return;
	}
	worker_adopt(conn->worker, &conn->orphan, end_orphan, conn);
	conn->fn = NULL;
	conn->state = CONN_STATE_SENDING;
	conn->linger = linger;
	conn->want_drained = false;
	conn->drained_due = false;
	defer_cancel(&conn->work);
	conn_in_forget(conn);
	timer_set(&conn->timer, linger);
	/* A peer that is stuck in sending would not read our last reply. */
	conn_start_reading(conn);
	if (conn->state == CONN_STATE_SENDING && !conn->writing)
		defer_queue(worker_flushes(conn->worker), &conn->flush);
}

/* ---- settings ---- */

void
conn_set_handler(Conn *conn, ConnFn *fn, void *arg)
{
	k_assert_on(conn->worker);
	k_assert(fn != NULL && conn->fn != NULL);
	conn->fn = fn;
	conn->arg = arg;
}

/* There may be something to hand up that was held back. */
static void
look_again(Conn *conn)
{
	if (may_hand_up(conn) && (conn->in.left > 0 || conn->tls.more || conn->eof_due))
		defer_queue(worker_defers(conn->worker), &conn->work);
}

static void
set_mode(Conn *conn, bool data_mode)
{
	k_assert_on(conn->worker);
	conn->mode_changes++;
	if (conn->data_mode == data_mode)
		return;
	conn->data_mode = data_mode;
	conn->in.scanned = 0;
	conn->in.swallowed = 0;
	look_again(conn);
}

void
conn_read_lines(Conn *conn)
{
	set_mode(conn, false);
}

void
conn_read_data(Conn *conn)
{
	set_mode(conn, true);
}

void
conn_set_line_max(Conn *conn, size_t max)
{
	k_assert(max > 0 && max <= LINE_MAX_LIMIT);
	conn->options.line_max = max;
}

void
conn_set_read_max(Conn *conn, size_t total)
{
	k_assert_on(conn->worker);
	conn->read_max = total;
}

void
conn_pause(Conn *conn)
{
	k_assert_on(conn->worker);
	conn->paused = true;
}

void
conn_resume(Conn *conn)
{
	k_assert_on(conn->worker);
	if (!conn->paused)
		return;
	conn->paused = false;
	if (conn->state != CONN_STATE_OPEN)
		return;
	conn_start_reading(conn);
	look_again(conn);
}

size_t
conn_pending(const Conn *conn)
{
	return conn->in.left;
}

size_t
conn_discard_input(Conn *conn)
{
	k_assert_on(conn->worker);
	size_t len = conn->in.left;
	conn->in.left = 0; /* the memory goes when the handler has returned */
	conn->in.scanned = 0;
	conn->discarded = true;
	return len;
}

void
conn_set_deadline(Conn *conn, Deadline deadline)
{
	if (conn->fn == NULL || conn->state == CONN_STATE_FAILED)
		return;
	timer_set_at(&conn->timer, deadline);
}

const NetAddr *
conn_peer(const Conn *conn)
{
	return &conn->peer;
}

const NetAddr *
conn_local(const Conn *conn)
{
	if (conn->local.len == 0 && conn->fd >= 0) {
		struct sockaddr_storage local;
		socklen_t len = sizeof(local);
		/* A cache: the object as seen from outside does not change. */
		if (getsockname(conn->fd, (struct sockaddr *)&local, &len) == 0)
			net_addr_from_sockaddr((const struct sockaddr *)&local, len,
					       (NetAddr *)&conn->local);
	}
	return &conn->local;
}

Worker *
conn_worker(const Conn *conn)
{
	return conn->worker;
}

int
conn_fd(const Conn *conn)
{
	return conn->fd;
}
