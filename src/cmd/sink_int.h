/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* koukan sink: sink.c has the command line and what is done with messages, and serves them by the
 * product's own SMTP session; sink_peer.c is a server that misbehaves where it is told to, and
 * speaks LMTP; sink_fault.c reads what it is told.  One worker. */
#include <glib.h>
#include <stdbool.h>

#include "smtp/session.h"

/* Where a fault can be asked for: the replies of a dialogue in their order. */
typedef enum SinkPoint {
	SINK_GREETING,
	SINK_EHLO, /* also HELO and LHLO */
	SINK_STARTTLS,
	SINK_TLS, /* the handshake */
	SINK_AUTH,
	SINK_MAIL,
	SINK_RCPT,
	SINK_DATA,
	SINK_CHUNK,   /* BDAT without LAST */
	SINK_MESSAGE, /* behind the dot or BDAT LAST */
	SINK_RSET,
	SINK_QUIT,
	SINK_POINTS
} SinkPoint;

typedef enum SinkAction {
	SINK_REPLY, /* with `code` and `text` */
	SINK_DROP,  /* the connection ends instead */
	SINK_HALF,  /* it ends behind half of the reply */
	SINK_HANG,  /* nothing */
	SINK_DELAY, /* the reply comes `pause` later */
	SINK_SLOW,  /* one byte each `pause` */
	SINK_JUNK,  /* bytes that are no SMTP */
	SINK_LONG,  /* a line of 100,000 bytes */
	SINK_MANY,  /* 10,000 lines */
	SINK_TWICE, /* the reply, and again */
	SINK_ACTIONS
} SinkAction;

typedef struct SinkFault {
	SinkPoint point;
	SinkAction action;
	uint64_t every; /* 1: each time; N: each Nth time */
	uint64_t seen;
	int code;
	char *text; /* owned */
	Usec pause;
} SinkFault;

/* "POINT[/N]:ACTION"; false when it is none.  g_free ret_fault->text. */
bool sink_fault_parse(const char *text, SinkFault *ret_fault);
/* The help on them. */
extern const char sink_fault_help[];

typedef struct SinkPeers SinkPeers;

typedef struct Sink {
	const char *host, *dir;
	uint16_t port;
	bool json, quiet, smtps, lmtp;
	const char *cert, *key, *auth; /* files */
	int codes[3];                  /* answers to MAIL, RCPT, message; 0: as the address says */
	uint64_t delay;                /* milliseconds before each answer */
	GArray *faults;                /* SinkFault */
	Workers *workers;
	SmtpServiceConf conf;
	SmtpSessions *sessions; /* or */
	SinkPeers *peers;
	uint64_t count; /* messages so far; the worker's */
} Sink;

/* sink.c: prints or stores the message of `tx`; the answer to it. */
Response *sink_take_message(Sink *sink, const Tx *tx);

/* sink_peer.c; on the worker. */
SinkPeers *sink_peers_new(Sink *sink, Worker *worker);
void sink_peers_accept(SinkPeers *peers, int fd);
void sink_peers_free(SinkPeers *peers); /* ends all; NULL is fine */
