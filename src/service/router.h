/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The durable side: senders and their chains, the transactions under way on each worker, the
 * queue in the store, retries.  It is a RestHost (REST clients create transactions) and a TxPort
 * maker (SMTP sessions, exploders and next hops within the process hand theirs over directly).
 *
 * Owner: service/node.  Made and freed by main; router_* that take a Worker on that worker. */
#include <glib.h>
#include <stdbool.h>

#include "conf/config.h"
#include "filter/filter.h"
#include "rest/host.h"
#include "store/store.h"
#include "tx/port.h"

typedef struct Router Router;

typedef struct RouterOptions {
	RouterConfig *config; /* counted */
	Workers *workers;
	Store *store;          /* borrowed; outlives the router */
	const FilterEnv *envs; /* one per worker, borrowed; outlive the router */
	TxUris uris;           /* strings copied; may be set later with router_set_uris */
	BlobLimits blobs;
} RouterOptions;

Router *router_new(const RouterOptions *options);
/* Base URLs that are only known once the listener is open (port 0); before the first request. */
void router_set_uris(Router *router, const char *session_uri, const char *service_uri);
/* From now on due transactions are taken from the store; called once on worker 0's thread or
 * before the workers run. */
void router_start(Router *router);
/* No new transactions are admitted or taken from the store.  Any thread. */
void router_drain(Router *router);
/* Transactions that still run on any worker.  Any thread. */
unsigned router_active(Router *router);
/* Transactions of which something is to be written yet, such as a delivery while the database is
 * full or away.  Any thread. */
unsigned router_unwritten(Router *router);
/* On tear-down, after workers_stop and before the store is closed. NULL is fine. */
void router_free(Router *router);

RestHost *router_rest_host(Router *router);
const RouterConfig *router_config(const Router *router);

/* Hands `tx` to our own chains as that sender and tag; sets both in the tx. */
TxPort *router_port_start(Router *router, Worker *worker, const char *sender, const char *tag,
			  Tx *tx);
