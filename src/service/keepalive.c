/* SPDX-License-Identifier: Apache-2.0 */
/* A client may think for minutes between two commands; a router elsewhere would take the silence
 * for a dead gateway.  This port wraps the one to that router and pings now and then. */
#include "service/gateway_int.h"

typedef struct Keepalive {
	TxPort port; /* first */
	TxPort *inner;
	Tx *tx;
	Timer timer;
	Usec interval;
} Keepalive;

static void
beat(void *arg)
{
	Keepalive *keepalive = arg;
	if (keepalive->tx->data_response != NULL || keepalive->tx->cancelled)
		return;
	tx_heartbeat(keepalive->tx);
	timer_set(&keepalive->timer, keepalive->interval);
}

static void
stop(TxPort *port)
{
	Keepalive *keepalive = (Keepalive *)port;
	timer_clear(&keepalive->timer);
	tx_port_stop(keepalive->inner);
	tx_unref(keepalive->tx);
	g_free(keepalive);
}

TxPort *
keepalive_start(Worker *worker, Tx *tx, TxPort *inner, Usec interval)
{
	static const TxPortOps ops = {.name = "keepalive", .stop = stop};
	Keepalive *keepalive = g_new0(Keepalive, 1);
	keepalive->port.ops = &ops;
	keepalive->inner = inner;
	keepalive->tx = tx_ref(tx);
	keepalive->interval = interval;
	timer_init(&keepalive->timer, worker, beat, keepalive);
	timer_set(&keepalive->timer, interval);
	return &keepalive->port;
}
