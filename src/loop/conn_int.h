/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The inside of a connection: conn.c has its life and its calls, conn_in.c hands up what came,
 * conn_out.c sends, conn_tls.c upgrades.  Private to loop/; own worker only.
 *
 * CONNECTING > OPEN > TLS_WAIT > TLS_SHAKE > OPEN      with an owner who gets events
 *              OPEN > SENDING > LINGER > FREED         after conn_finish, without one
 * any with an owner > FAILED > FREED                   any > FREED
 *
 * Rules: events leave only through conn_emit, which is called only by conn_deliver and the
 * timer, which are called only by the loop (socket events, timers, deferred work) and never by
 * a conn_* call.  After each conn_emit look whether the connection still has an owner. */
#include <event2/event.h>
#include <event2/event_struct.h>

#include "base/error.h"
#include "loop/conn.h"
#include "loop/tls_int.h"
#include "loop/worker_int.h"

typedef enum ConnState {
	CONN_STATE_CONNECTING,
	CONN_STATE_OPEN,
	CONN_STATE_TLS_WAIT,  /* what was written before conn_start_tls goes out first */
	CONN_STATE_TLS_SHAKE, /* handshake */
	CONN_STATE_SENDING,   /* conn_finish: output left */
	CONN_STATE_LINGER,    /* conn_finish: all sent, waiting for the peer to close */
	CONN_STATE_FAILED,    /* CONN_ERROR is due or was told */
	CONN_STATE_FREED,
} ConnState;

/* Received and not handed up: `left` bytes at `at`, which lies in `store`, or in the worker's
 * scratch memory while a read is being handed up. */
typedef struct ConnIn {
	char *at;
	size_t left;
	char *store; /* NULL when nothing is kept */
	size_t store_room;
	size_t scanned;   /* of `left`: searched already for the end of the line */
	size_t swallowed; /* bytes of the long line that is being swallowed; 0 = none is */
} ConnIn;

typedef struct ConnOut {
	char *data; /* `len` bytes from `off` are unsent */
	size_t off;
	size_t len;
	size_t room;
} ConnOut;

typedef struct ConnTls {
	TlsSession *session;
	TlsContext *context; /* for the handshake to come */
	char *name;
	TlsTicket *ticket; /* to resume with, until the handshake */
	bool server;
	bool ready;
	bool more;             /* decrypted bytes may be waiting that the kernel knows nothing of */
	bool read_wants_write; /* (the rare crossings of TLS) */
	bool write_wants_read;
} ConnTls;

struct Conn {
	Worker *worker;
	ConnFn *fn; /* NULL: nobody owns it any more */
	void *arg;
	int fd;
	ConnState state;
	unsigned mode_changes; /* counts conn_read_lines and conn_read_data */
	bool data_mode;
	bool paused;
	bool reading;   /* read_event is added */
	bool writing;   /* write_event is added */
	bool eof;       /* the peer closed its sending side */
	bool discarded; /* conn_discard_input was called inside the handler */
	bool want_drained;
	/* events that are due */
	bool connected_due;
	bool tls_ready_due;
	bool eof_due;
	bool drained_due;
	char *error_due;
	ConnIn in;
	ConnOut out;
	ConnTls tls;
	ConnOptions options;
	size_t read_max; /* 0: none */
	Usec linger;
	Orphan orphan; /* after conn_finish */
	Defer work;    /* hands up what is due */
	Defer flush;   /* sends at the end of the turn */
	Timer timer;   /* the deadline; after conn_finish the end of lingering */
	struct event read_event;
	struct event write_event;
	NetAddr peer;
	NetAddr local; /* asked for when first wanted */
};

/* conn.c */
void conn_start_reading(Conn *conn);
void conn_stop_reading(Conn *conn);
void conn_wait_writable(Conn *conn);
/* Ends the connection with CONN_ERROR, later; without an owner it is freed. */
void conn_fail(Conn *conn, const char *format, ...) K_PRINTF(2, 3);
/* Calls the handler; false when the connection lost its owner in there. */
bool conn_emit(Conn *conn, ConnEvent event, const char *data, size_t len, size_t *ret_taken);
/* Hands up all that is due. */
void conn_deliver(Conn *conn);

/* conn_in.c */
void conn_in_forget(Conn *conn);
void conn_in_fill(Conn *conn);    /* reads once */
void conn_in_hand_up(Conn *conn); /* lines or data */
void conn_in_stash(Conn *conn);   /* what is left leaves the scratch memory */
/* Reads and forgets at most some 100 KiB of what the kernel holds; false at the end of input. */
bool conn_in_drop(Conn *conn);

/* conn_out.c */
void conn_out_clear(Conn *conn);
void conn_out_flush(Conn *conn);

/* conn_tls.c */
void conn_tls_clear(Conn *conn);
void conn_tls_begin(Conn *conn); /* TLS_WAIT, and all is sent */
void conn_tls_shake(Conn *conn); /* a step of the handshake */
