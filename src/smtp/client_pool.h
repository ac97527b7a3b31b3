/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Outgoing SMTP: connections to next hops, reused between transactions, and the delivery of one
 * Tx over one of them (RFC 5321, pipelining RFC 2920).  The state table is in client.c, the queue
 * of commands in pipeline.c.
 *
 * A delivery is a TxPort: MAIL goes out when the tx has it, recipients as they come (together in
 * one write where PIPELINING allows), the message when at least one recipient was accepted and
 * the body is final.  The replies become the tx's answers, verbatim (texts of other failures:
 * behaviour spec 19, with the recommended behaviour of its [bug]s: a DATA refusal is reported as it
 * is; a connection lost or junk is 450 with a text that says whether the message was not sent, or
 * sent but not acknowledged).  Own worker only. */
#include <glib.h>
#include <stdbool.h>

#include "loop/conn.h"
#include "tx/port.h"

typedef struct SmtpClientPool SmtpClientPool;

typedef enum SmtpProtocol { SMTP_PROTOCOL_SMTP, SMTP_PROTOCOL_LMTP } SmtpProtocol;

/* Deadlines per phase; 0 takes the default of RFC 5321 4.5.3.2. */
typedef struct SmtpClientTimeouts {
	Usec connect;  /* 30 s */
	Usec greeting; /* 300 s */
	Usec ehlo;     /* 300 s */
	Usec mail;     /* 300 s */
	Usec rcpt;     /* 300 s */
	Usec data;     /* 120 s, for 354 */
	Usec block;    /* 180 s without progress while sending the message */
	Usec dot;      /* 600 s */
	Usec rset;     /* 20 s */
	Usec quit;     /* 5 s */
} SmtpClientTimeouts;

/* One output of the configuration (smtp_output.hosts.TAG); immutable, outlives the pool. */
typedef struct SmtpOutputConf {
	const char *name;      /* TAG, for logs and as part of the reuse key */
	const char *ehlo_host; /* EHLO/LHLO name */
	SmtpProtocol protocol;
	SmtpClientTimeouts timeouts;
	bool enable_bdat;         /* with CHUNKING (SMTP issue) */
	unsigned reuse_max;       /* transactions per connection; default 100; 1: no reuse */
	Usec reuse_idle;          /* how long an idle connection is kept; default 2 s */
	unsigned per_destination; /* connections at once to one address per worker; default 20 */
} SmtpOutputConf;

void smtp_output_conf_init(SmtpOutputConf *conf); /* fills in the defaults */

SmtpClientPool *smtp_client_pool_new(Worker *worker);
/* Ends idle connections with QUIT and the others at once. */
void smtp_client_pool_free(SmtpClientPool *pool);
/* Open connections, for tests and metrics. */
unsigned smtp_client_pool_count(const SmtpClientPool *pool);

/* Starts the delivery of `tx` to tx->remote_host, which must be an address literal:
 * `400 SmtpEndpoint: bad request: ...` in mail_response otherwise. */
TxPort *smtp_delivery_start(SmtpClientPool *pool, const SmtpOutputConf *conf, Tx *tx);
