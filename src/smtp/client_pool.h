/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Outgoing SMTP: connections to next hops, reused between transactions, and the delivery of one
 * Tx over one of them (RFC 5321, pipelining RFC 2920, STARTTLS RFC 3207, AUTH RFC 4954, CHUNKING
 * RFC 3030, LMTP RFC 2033).  The state table is in client.c, the queue of commands in pipeline.c.
 *
 * A delivery is a TxPort: MAIL goes out when the tx has it, recipients as they come (together in
 * one write where PIPELINING allows), the message when at least one recipient was accepted and
 * enough of the body is there; its end only when the body is final.  The replies become the tx's
 * answers, cleaned and capped (texts of other failures: behaviour spec 19, with the recommended
 * behaviour of its [bug]s: a DATA refusal is reported as it is).  What goes wrong in between is a
 * 450 whose text ends with SMTP_NOT_SENT or SMTP_UNACKNOWLEDGED.
 *
 * LMTP answers the message once per recipient, a tx has one data response.  When the message was
 * complete before the first command, the answers to RCPT of a tx with several recipients are held
 * back until those after the dot have come (at most SMTP_LMTP_HOLD): each recipient then gets its
 * own, and the data response is 2xx if one of them took the message.  Otherwise whoever asks needs
 * the answers to RCPT first; if then some recipients take the message and others do not, the data
 * response is the failure, a temporary one if there is one: a repetition may give the others a
 * second copy, but nobody's is lost.  A reply that does not come is a temporary failure.
 *
 * A transaction whose recipients are answered holds a connection until its message comes, and the
 * message may come only when other transactions have their answers, too: the recipients of one
 * message, a transaction each.  So while others wait for a connection to that destination, one
 * that has stood still for SMTP_QUIET_MAX is taken back (RSET) and lent to them.  Its transaction
 * asks for a connection again when there is something to send, and repeats MAIL and RCPT there; if
 * the hop now refuses what it took before, that is the answer to the message.
 *
 * Connections are kept by address and SmtpOutputConf, so by TLS policy, credentials, source address
 * and EHLO name, too.  TLS sessions are resumed within the same limits.  Own worker only. */
#include <glib.h>
#include <stdbool.h>

#include "loop/conn.h"
#include "tx/port.h"

typedef struct SmtpClientPool SmtpClientPool;

typedef enum SmtpProtocol { SMTP_PROTOCOL_SMTP, SMTP_PROTOCOL_LMTP } SmtpProtocol;

/* What is known about the message: the end of our own texts.  The second one is the window of
 * duplicates (RFC 1047): the hop may have it. */
#define SMTP_NOT_SENT       "(message not sent)"
#define SMTP_UNACKNOWLEDGED "(message sent, not acknowledged)"
bool smtp_response_is_unacknowledged(const Response *response);

/* TLS to the next hop.  Only OPPORTUNISTIC ever speaks plain text: when STARTTLS is not offered or
 * refused, and over a fresh connection after a failed handshake. */
typedef enum SmtpTlsPolicy {
	SMTP_TLS_NONE,
	SMTP_TLS_OPPORTUNISTIC,
	SMTP_TLS_REQUIRED, /* encrypted, whoever the hop is */
	SMTP_TLS_VERIFIED, /* with a certificate for the name */
	SMTP_TLS_IMPLICIT, /* from the first byte (RFC 8314 3.3); verified if the context does */
	SMTP_TLS_POLICIES
} SmtpTlsPolicy;

#define SMTP_LMTP_HOLD   (5 * USEC_PER_SEC)
#define SMTP_WAITING_MAX 1000 /* deliveries that wait for a connection to one destination */
#define SMTP_QUIET_MAX                                                                             \
	(250 * USEC_PER_MS)  /* how long a connection stays with a transaction whose               \
				message is not there while others wait */
#define SMTP_TICKETS_MAX 256 /* TLS tickets kept per worker, one for a destination */
#define SMTP_TICKET_LIFE (3600 * USEC_PER_SEC)
#define SMTP_CHUNK_MIN   4096 /* bytes of a BDAT chunk that is not the last */
#define SMTP_CHUNK_MAX   (1024 * 1024)
#define SMTP_TLS_PLAIN                                                                             \
	(60 * USEC_PER_SEC) /* after a failed opportunistic handshake: so long no                  \
			       STARTTLS to a destination that is in use */

/* Deadlines per phase; 0 takes the default of RFC 5321 4.5.3.2. */
typedef struct SmtpClientTimeouts {
	Usec connect;  /* 30 s */
	Usec greeting; /* 300 s */
	Usec ehlo;     /* 300 s */
	Usec tls;      /* 60 s for the reply to STARTTLS, and again for the handshake */
	Usec auth;     /* 180 s for each step */
	Usec mail;     /* 300 s */
	Usec rcpt;     /* 300 s */
	Usec data;     /* 120 s, for 354 */
	Usec block;    /* 180 s without progress while sending the message */
	Usec dot;      /* 600 s */
	Usec rset;     /* 20 s */
	Usec quit;     /* 5 s */
} SmtpClientTimeouts;

/* Opportunistic TLS did not work out. */
typedef struct SmtpTlsTrouble {
	const char *peer;
	const char *text;
} SmtpTlsTrouble;

/* One output of the configuration (smtp_output.hosts.TAG); immutable, outlives the pool. */
typedef struct SmtpOutputConf SmtpOutputConf;
struct SmtpOutputConf {
	const char *name;      /* TAG, for logs and as part of the reuse key */
	const char *ehlo_host; /* EHLO/LHLO name */
	SmtpProtocol protocol;
	SmtpClientTimeouts timeouts;
	SmtpTlsPolicy tls_policy; /* default opportunistic */
	TlsContext *tls;          /* NULL: no TLS; then a policy that needs it fails for now */
	const char *tls_name;     /* to be verified, and SNI; NULL: the hop's address */
	bool tls_mx_name;         /* the host's own name instead, where routing knows it (MX) */
	const char *auth_user;    /* NULL: no AUTH */
	const char *auth_secret;
	const NetAddr *source;    /* local address; NULL: the kernel chooses */
	bool no_pipelining;       /* also where it is offered */
	bool enable_bdat;         /* where CHUNKING is offered; not with LMTP */
	size_t chunk_size;        /* of BDAT, within SMTP_CHUNK_MIN and _MAX; default 64 KiB */
	unsigned reuse_max;       /* transactions per connection; default 100; 1: no reuse */
	Usec reuse_idle;          /* how long an idle connection is kept; default 2 s */
	unsigned per_destination; /* connections at once to one address per worker; default 20 */
	/* For the log; NULL: nobody wants to know. */
	void (*on_tls_trouble)(const SmtpOutputConf *conf, const SmtpTlsTrouble *trouble);
	void *arg;
};

void smtp_output_conf_init(SmtpOutputConf *conf); /* fills in the defaults */

SmtpClientPool *smtp_client_pool_new(Worker *worker);
/* Ends idle connections with QUIT and the others at once. */
void smtp_client_pool_free(SmtpClientPool *pool);
/* Open connections, for tests and metrics. */
unsigned smtp_client_pool_count(const SmtpClientPool *pool);

/* Starts the delivery of `tx` to tx->remote_host, which must be an address literal:
 * `400 SmtpEndpoint: bad request: ...` in mail_response otherwise. */
TxPort *smtp_delivery_start(SmtpClientPool *pool, const SmtpOutputConf *conf, Tx *tx);
/* For a port made by it: how long the hop took to answer the end of the message; 0: it has not. */
Usec smtp_delivery_dot_took(const TxPort *port);
