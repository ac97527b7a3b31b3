/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The stateless SMTP side.  Inward: SMTP listeners whose transactions go to a router (over HTTP, or
 * directly when it is in this process).  Outward: a RestHost and a TxPort maker that deliver by
 * SMTP to tx->remote_host.  Nothing here is on disk.
 *
 * Owner: service/node.  Made and freed by main; gateway_port_start on the worker. */
#include <glib.h>
#include <stdbool.h>

#include "base/activation.h"
#include "conf/config.h"
#include "loop/pool.h"
#include "rest/host.h"
#include "tx/port.h"

typedef struct Gateway Gateway;

typedef struct GatewayOptions {
	GatewayConfig *config; /* counted */
	Workers *workers;
	TxPorts *const *ports;  /* one per worker, borrowed; outlive the gateway */
	Pool *pool;             /* for slow password hashes; borrowed */
	Activation *activation; /* sockets handed over; borrowed, used by gateway_listen */
	const char *hostname;   /* in greetings; copied */
	BlobLimits blobs;
	TxUris uris; /* copied; gateway_set_uris */
} GatewayOptions;

Gateway *gateway_new(const GatewayOptions *options);
void gateway_set_uris(Gateway *gateway, const char *session_uri);
/* Opens the SMTP listeners.  Errors name the service. */
K_MUST_CHECK bool gateway_listen(Gateway *gateway, GError **ret_error);
/* Reads certificates and secrets again (SIGHUP); what cannot be read stays as it was, with a line
 * in the log.  Sessions go on.  By main. */
void gateway_reload(Gateway *gateway);
/* How many SMTP services there are, and where the i-th really listens. */
unsigned gateway_services(const Gateway *gateway);
uint16_t gateway_service_port(const Gateway *gateway, unsigned index);
const SmtpServiceYaml *gateway_service_conf(const Gateway *gateway, unsigned index);
/* Stops accepting; sessions end after what they are doing.  By main, while the workers run. */
void gateway_drain(Gateway *gateway);
/* Sessions still open, on any worker, and deliveries under way.  Any thread. */
unsigned gateway_active(Gateway *gateway);
/* On tear-down, after workers_stop.  NULL is fine. */
void gateway_free(Gateway *gateway);

RestHost *gateway_rest_host(Gateway *gateway);
/* Delivers `tx` through the SMTP output `tag`. */
TxPort *gateway_port_start(Gateway *gateway, Worker *worker, const char *tag, Tx *tx);
