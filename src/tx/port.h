/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The one seam: whoever takes a transaction onward.  Implementations: the local router
 * (service/router.c), a remote node over HTTP (rest/remote.c), the SMTP client
 * (service/smtp_port.c).  Users: the SMTP session, the REST API, the exploder, the end of a
 * filter chain.
 *
 * A port is started on a Tx and watches it.  The user writes requests into the tx (tx_set_*,
 * tx_add_rcpt, tx_note_body, tx_cancel, tx_heartbeat); the port writes answers (tx_answer_*) and
 * nothing else; both learn of it as watchers.  Starting never fails: what goes wrong becomes a
 * 4xx or 5xx answer in the tx.  Nothing is answered inside the starting call.
 *
 * Owner: the user, who calls tx_port_stop when it no longer cares.  Stopping a port whose tx has
 * no data response cancels what is under way (as far as the one behind has not become
 * responsible); after it the port writes nothing into the tx.  Own worker only. */
#include <stdbool.h>
#include <stddef.h>

#include "base/clock.h"
#include "tx/tx.h"

typedef struct TxPort TxPort;

typedef struct TxPortOps {
	const char *name;           /* for logs and dumps: "router", "remote", "smtp" */
	void (*stop)(TxPort *port); /* frees */
} TxPortOps;

/* Embedded first in each implementation. */
struct TxPort {
	const TxPortOps *ops;
};

static inline void
tx_port_stop(TxPort *port) /* NULL is fine */
{
	if (port != NULL)
		port->ops->stop(port);
}

/* What an HTTP next hop needs to know; other ports ignore it. */
typedef struct TxPortOptions {
	Usec rcpt_timeout;   /* budget of one update (spec 5.1); 0: 30 s */
	Usec data_timeout;   /* of one upload; 0: 60 s */
	size_t chunk_size;   /* bytes of one PUT; 0: whole */
	const char *verify;  /* NULL: verify with the system's CAs; "": do not; else a CA file */
	const char *api_key; /* shown as a bearer token, or NULL */
	const char *client_cert, *client_key; /* PEM files, or NULL */
	bool send_filter_output;
	bool receive_parsing; /* post the parsed form to the receiver (spec 5.7) */
} TxPortOptions;

/* How to reach others, by worker: one per worker, owned by service/. */
typedef struct TxPorts TxPorts;
struct TxPorts {
	/* By creation URL: one of our own listeners becomes a direct call, anything else HTTP.
	 * tx->sender_name and sender_tag say as whom. `options` is copied. */
	TxPort *(*open_url)(TxPorts *ports, const char *url, Tx *tx, const TxPortOptions *options);
	/* By sender of our own router (exploder, add_route).  The tx needs no id; its sender is set
	 * by this call. */
	TxPort *(*open_sender)(TxPorts *ports, const char *sender, const char *tag, Tx *tx);
};
