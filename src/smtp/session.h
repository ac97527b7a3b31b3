/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One SMTP server session (RFC 5321) on a connection.  It turns commands into a growing Tx and
 * answers of that Tx into replies; it knows no routing and no storage.  One state table
 * (session.c); each command is a row (session_cmd.c).
 *
 * MAIL makes a Tx and gives it to `take`; RCPT adds a recipient; DATA fills the body; RSET, QUIT, a
 * new EHLO or the end of the connection before the final answer cancel.  Commands are executed one
 * after the other, each when the answer of the former is known; pipelined input waits.
 * Own worker only. */
#include <glib.h>
#include <stdbool.h>

#include "base/log.h"
#include "loop/conn.h"
#include "tx/port.h"

typedef struct SmtpSession SmtpSession;

typedef struct SmtpSessionLimits {
	uint64_t message_max; /* bytes, announced in SIZE; default 33554432 */
	unsigned rcpt_max;    /* per transaction, 452 beyond; default 1000 */
	unsigned error_slow, error_max; /* errors before answers are delayed / 421; default 10, 20 */
	unsigned command_line_max;	/* bytes without CRLF; default 2048 */
	unsigned data_line_max;		/* octets with CRLF before 500; 0: no limit; default 0 */
	unsigned received_max;		/* Received fields, 554 5.4.6 beyond; default 100 */
} SmtpSessionLimits;

/* Immutable, shared by all sessions of a listening port; outlives them. */
typedef struct SmtpServiceConf {
	const char *hostname;	/* in the greeting and EHLO */
	const char *sender, *tag; /* who the transactions are from (tx->sender_*) */
	Usec command_timeout;	/* default 300 s */
	Usec data_idle_timeout; /* default 180 s between reads in DATA */
	Usec mail_timeout;	/* wait for the MAIL answer; default 10 s, then 450 */
	Usec rcpt_timeout;	/* default 40 s */
	Usec data_timeout;	/* default 310 s */
	SmtpSessionLimits limits;
	BlobLimits body;
	TlsContext *tls;	/* STARTTLS; NULL: none (row ready) */
	/* Takes the transaction onward: starts a port on it. */
	TxPort *(*take)(void *arg, Worker *worker, Tx *tx);
	void *arg;
} SmtpServiceConf;

/* Fills in the defaults above. */
void smtp_service_conf_init(SmtpServiceConf *conf);

typedef struct SmtpSessions SmtpSessions; /* those of one worker and service */
SmtpSessions *smtp_sessions_new(Worker *worker, const SmtpServiceConf *conf);
/* Takes an accepted descriptor and greets. */
void smtp_sessions_accept(SmtpSessions *sessions, int fd);
/* No new mail transactions: idle sessions get 421 and end, busy ones after their transaction. */
void smtp_sessions_drain(SmtpSessions *sessions);
unsigned smtp_sessions_count(const SmtpSessions *sessions);
void smtp_sessions_free(SmtpSessions *sessions); /* ends all at once */
