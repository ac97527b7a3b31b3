/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One SMTP server session (RFC 5321) on a connection.  It turns commands into a growing Tx and
 * answers of that Tx into replies; it knows no routing and no storage.  One state table
 * (session.c); each command is a row (session_cmd.c).
 *
 * MAIL makes a Tx and gives it to `take`; RCPT adds a recipient; DATA fills the body; RSET, QUIT, a
 * new EHLO or the end of the connection before the final answer cancel.  Commands are executed one
 * after the other, each when the answer of the former is known; pipelined input waits.
 *
 * Message content with a bare CR or LF is refused with 550 5.6.11 after its true end, one with a
 * NUL with 550 5.6.0; nothing is repaired unless `normalize` is set.  Chunks of BDAT (RFC 3030)
 * are looked at in the same way; after a failed one only RSET or a new EHLO helps.
 *  Bytes that a client sends behind DATA without waiting
 * for 354 are message data when DATA is taken; when it is refused the session ends, because they
 * cannot be told from commands (RFC 2920 3.1).  A recipient whose answer does not come in time
 * gives up the whole transaction (450 to it and to all that follows), since it cannot be taken
 * back.
 *
 * LMTP is the same dialogue with LHLO, and one answer to the message for each recipient that was
 * taken.  The answers are equal: what becomes of the recipients one by one is decided upstream,
 * where the message is either taken over for all of them or for none.
 *
 * TLS: by STARTTLS (RFC 3207) or from the first byte (RFC 8314 3.3), with the same code behind it.
 * Bytes that came in clear behind STARTTLS are dropped and what the session knew is forgotten.
 * AUTH (RFC 4954) is offered under TLS when there are secrets.
 * Own worker only. */
#include <glib.h>
#include <stdbool.h>

#include "base/log.h"
#include "loop/conn.h"
#include "loop/pool.h"
#include "smtp/secrets.h"
#include "tx/port.h"

typedef struct SmtpSession SmtpSession;

typedef struct SmtpSessionLimits {
	uint64_t message_max;      /* bytes, announced in SIZE; default 33554432 */
	unsigned rcpt_max;         /* per transaction, 452 beyond; default 1000 */
	unsigned error_slow;       /* errors before answers are delayed; default 10 */
	unsigned error_max;        /* and before 421; default 20 */
	unsigned command_line_max; /* bytes without CRLF; default 2048 */
	unsigned data_line_max;    /* octets with CRLF before 500; 0: no limit; default 0 */
	unsigned received_max;     /* Received fields, 554 5.4.6 beyond; default 100 */
	Usec error_delay;          /* of an answer past error_slow; default 1 s */
	unsigned junk_max;     /* commands that move no mail, each an error beyond; default 100 */
	unsigned sessions_max; /* per worker, 421 beyond; 0: no limit; default 5000 */
} SmtpSessionLimits;

/* What the layer above logs: a line at the end of each transaction and of each session.  All
 * pointers are borrowed for the call. */
typedef enum SmtpServerEventKind {
	SMTP_SERVER_TRANSACTION,
	SMTP_SERVER_SESSION,
	SMTP_SERVER_AUTH_FAILED
} SmtpServerEventKind;

typedef struct SmtpServerEvent {
	SmtpServerEventKind kind;
	const char *session; /* short id of the session */
	const char *peer;    /* address of the client */
	const char *helo;    /* NULL before EHLO */
	const char *reason;  /* TRANSACTION: "accepted", "rejected", "reset", "new EHLO", or why the
				session ended; SESSION: why it ended; AUTH_FAILED: why */
	const char *auth_user; /* who has proved it; AUTH_FAILED: who was claimed; NULL: nobody */
	const TlsFacts *tls;   /* NULL: in clear */
	Usec duration;
	/* TRANSACTION */
	const Tx *tx;
	int code;         /* the answer to MAIL or to the message that the client got; 0: none */
	const char *text; /* and its text; NULL: none */
	uint64_t bytes;   /* of the message, as received so far */
	/* SESSION */
	unsigned transactions, accepted, errors, junk;
} SmtpServerEvent;

/* What a service may limit by the client's address. */
typedef enum SmtpGate {
	SMTP_GATE_CONNECTION,   /* one more; `leave` when it ends */
	SMTP_GATE_MESSAGE,      /* MAIL */
	SMTP_GATE_RCPT,         /* RCPT */
	SMTP_GATE_AUTH,         /* AUTH may be tried */
	SMTP_GATE_AUTH_FAILURE, /* a wrong password; the answer does not matter */
	SMTP_GATES
} SmtpGate;

/* Immutable, shared by all sessions of a listening port; outlives them. */
typedef struct SmtpServiceConf {
	const char *hostname;     /* in the greeting and EHLO */
	const char *greeting;     /* behind it; default "ESMTP koukan smtp gateway" */
	const char *sender, *tag; /* who the transactions are from (tx->sender_*) */
	Usec command_timeout;     /* default 300 s */
	Usec data_idle_timeout;   /* default 180 s between reads in DATA */
	Usec data_total_timeout;  /* default 3600 s from 354 to the final dot */
	Usec mail_timeout;        /* wait for the MAIL answer; default 10 s, then 450 */
	Usec rcpt_timeout;        /* default 40 s */
	Usec data_timeout;        /* default 310 s */
	SmtpSessionLimits limits;
	BlobLimits body;
	Usec tls_timeout;       /* of a handshake; default 60 s */
	TlsContext *tls;        /* STARTTLS; NULL: none.  smtp_sessions_set_tls replaces it */
	bool tls_implicit;      /* the handshake comes first, and there is no STARTTLS */
	bool lmtp;              /* LMTP (RFC 2033) instead of SMTP */
	bool chunking;          /* CHUNKING (RFC 3030) */
	bool binarymime;        /* and BINARYMIME: the next hop must take it, too */
	bool normalize;         /* bare CR and LF become CRLF instead of a refusal */
	bool dsn;               /* DSN (RFC 3461): parameters are checked and carried on */
	bool announce_limits;   /* LIMITS (RFC 9422) */
	Usec proxy_timeout;     /* for the PROXY header that must come first; 0: none comes */
	const NetCidr *proxies; /* who may send it; none: loopback */
	size_t n_proxies;
	const NetCidr *xclients; /* who may use XCLIENT */
	size_t n_xclients;
	Usec stress_timeout; /* most that a peer may be idle when 8 of 10 sessions_max are there;
				default 10 s */
	Usec stress_total_timeout; /* and in place of data_total_timeout then; default 300 s */
	SmtpSecrets *secrets;      /* AUTH; NULL: none.  smtp_sessions_set_secrets replaces it */
	Pool *pool; /* for slow passwords; NULL: compared at once; outlives the sessions */
	bool auth_clear_loopback; /* AUTH without TLS for peers on this machine */
	bool require_auth;        /* MAIL needs it */
	Usec auth_delay;          /* of the answer to a first failure, twice for the second; 1 s */
	Usec auth_timeout;        /* for the comparison; default 30 s */
	/* Any worker's thread: whether one more is within the limits, and counts it.  NULL: no
	 * limits. */
	bool (*admit)(void *arg, SmtpGate gate, const char *address);
	void (*leave)(void *arg, const char *address); /* an admitted connection has ended */
	/* Takes the transaction onward: starts a port on it. */
	TxPort *(*take)(void *arg, Worker *worker, Tx *tx);
	/* NULL: nothing is reported.  Must not touch the session. */
	void (*on_event)(void *arg, const SmtpServerEvent *event);
	void *arg;
} SmtpServiceConf;

/* Fills in the defaults above. */
void smtp_service_conf_init(SmtpServiceConf *conf);

typedef struct SmtpSessions SmtpSessions; /* those of one worker and service */
SmtpSessions *smtp_sessions_new(Worker *worker, const SmtpServiceConf *conf);
/* From now on for new handshakes; sessions under way keep theirs.  `context` (counted; NULL: no TLS
 * any more) may be shared with other workers. */
void smtp_sessions_set_tls(SmtpSessions *sessions, TlsContext *context);
/* The same for AUTH. */
void smtp_sessions_set_secrets(SmtpSessions *sessions, SmtpSecrets *secrets);
/* Takes an accepted descriptor and greets. */
void smtp_sessions_accept(SmtpSessions *sessions, int fd);
/* No new mail transactions: idle sessions get 421 and end, busy ones after their transaction. */
void smtp_sessions_drain(SmtpSessions *sessions);
unsigned smtp_sessions_count(const SmtpSessions *sessions);
void smtp_sessions_free(SmtpSessions *sessions); /* ends all at once; NULL is fine */
