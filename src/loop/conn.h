/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One TCP connection (later: with TLS on the same descriptor), seen as semantic events.  It
 * knows nothing of SMTP.  Owner: the session or client that made it.  Own worker only.  Events
 * never fire inside conn_* calls; after conn_free there is silence, and it may be called inside
 * an event (the memory goes with the reap list).
 *
 * Reading.  In LINE mode whole lines ended by CRLF are handed up one by one, the CRLF cut; a bare
 * LF or CR is an ordinary byte of the line, so that the user of the line can refuse it
 * (RFC 5321 2.3.8).  In DATA mode whatever has arrived is handed up and the handler says how much
 * it took.  The mode may be changed inside the handler and holds for the very next byte.  While
 * paused nothing is read and nothing is handed up; the kernel's window then stops the peer.
 *
 * Writing.  conn_write copies and never fails; output is capped at `write_max`: past it the
 * connection ends with CONN_ERROR ("peer does not read").  Output of one turn leaves in one
 * write.  CONN_DRAINED comes when the output has shrunk below the low watermark after
 * conn_want_drained. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/net.h"
#include "loop/tls.h"
#include "loop/worker.h"

typedef struct Conn Conn;

typedef enum ConnEvent {
	CONN_CONNECTED, /* conn_connect succeeded */
	CONN_TLS_READY, /* the handshake of conn_start_tls is done */
	CONN_LINE,      /* data, len: one line without CRLF; NUL-terminated behind len */
	CONN_LONG_LINE, /* a line passed line_max; once per line, the rest is swallowed */
	CONN_DATA,    /* data, len: bytes in DATA mode; return what was taken through conn_taken */
	CONN_DRAINED, /* output fell below the low watermark */
	CONN_EOF,     /* the peer closed its sending side; no more input */
	CONN_TIMEOUT, /* the deadline of conn_set_deadline passed; it is cleared */
	CONN_ERROR,   /* data, len: a text; nothing more will come, nothing can be sent */
	CONN_EVENTS
} ConnEvent;

/* In CONN_DATA returns how many of the `len` bytes were taken (the rest is handed up again with
 * what follows, or as lines after a change of mode); ignored for other events. */
typedef size_t ConnFn(void *arg, Conn *conn, ConnEvent event, const char *data, size_t len);

typedef struct ConnOptions { /* 0 keeps the default */
	size_t line_max;     /* longest line without CRLF, bytes; default 2048 */
	size_t discard_max; /* bytes swallowed of one long line before CONN_ERROR; default 64 KiB */
	size_t write_max;   /* default 256 KiB above what one conn_write brings */
	size_t write_low;   /* low watermark; default 32 KiB */
} ConnOptions;

/* Takes an accepted descriptor.  `options` NULL: defaults. */
Conn *conn_new_accepted(Worker *worker, int fd, const ConnOptions *options, ConnFn *fn, void *arg);
/* Connects to an address; answers CONN_CONNECTED, CONN_ERROR or CONN_TIMEOUT.  `source` (may be
 * NULL) binds the local side. */
Conn *conn_connect(Worker *worker, const NetAddr *to, const NetAddr *source,
		   const ConnOptions *options, ConnFn *fn, void *arg);
/* Closes at once; what was not sent is lost. NULL is fine. */
void conn_free(Conn *conn);
/* Sends what is queued, then closes the sending side, reads and drops for at most `linger`, and
 * frees itself; no event comes any more.  The peer thus gets the last reply even when it still
 * sends. */
void conn_finish(Conn *conn, Usec linger);

void conn_set_handler(Conn *conn, ConnFn *fn, void *arg);
void conn_read_lines(Conn *conn);               /* LINE mode, the mode at the start */
void conn_read_data(Conn *conn);                /* DATA mode */
void conn_set_line_max(Conn *conn, size_t max); /* for AUTH lines */
/* From now on no more than `total` bytes lie here unread, so that what follows a header stays in
 * the kernel for conn_start_tls; it must grow until something is taken.  0: no limit. */
void conn_set_read_max(Conn *conn, size_t total);
void conn_pause(Conn *conn);
void conn_resume(Conn *conn); /* what is buffered is handed up soon, not inside the call */
/* Bytes received and not handed up yet (more commands are waiting). */
size_t conn_pending(const Conn *conn);
/* Forgets all received bytes that were not handed up (STARTTLS); returns how many. */
size_t conn_discard_input(Conn *conn);

void conn_write(Conn *conn, const void *data, size_t len);
size_t conn_unsent(const Conn *conn);
void conn_want_drained(Conn *conn);

/* One absolute deadline; replaces the former; 0 clears. */
void conn_set_deadline(Conn *conn, Deadline deadline);

/* Server or client handshake on the same descriptor after what is queued has been sent; input so
 * far is discarded; what is written before CONN_TLS_READY is dropped.  `name`: SNI and, if the
 * context verifies, the name to check (client). */
void conn_start_tls(Conn *conn, TlsContext *context, bool server, const char *name);
bool conn_is_tls(const Conn *conn);
/* False without TLS. */
bool conn_tls_facts(const Conn *conn, TlsFacts *ret_facts);
/* Client: before conn_start_tls, a ticket to resume with (moved); later, the newest that the peer
 * gave (the caller's), NULL: none. */
void conn_offer_ticket(Conn *conn, TlsTicket *ticket);
TlsTicket *conn_ticket(const Conn *conn);
bool conn_tls_is_resumed(const Conn *conn);

const NetAddr *conn_peer(const Conn *conn);
const NetAddr *conn_local(const Conn *conn);
Worker *conn_worker(const Conn *conn);
int conn_fd(const Conn *conn);
