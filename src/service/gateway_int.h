/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What gateway.c (SMTP in) and gateway_rest.c (REST in, SMTP out) share. */
#include <stdatomic.h>

#include "loop/listen.h"
#include "service/gateway.h"
#include "service/gateway_limits.h"
#include "smtp/client_pool.h"
#include "smtp/session.h"

/* One SMTP listening port. */
typedef struct GatewayService {
	Gateway *gateway;
	const SmtpServiceYaml *yaml;
	const RestOutputConf *output;
	SmtpServiceConf conf;
	Listener *listener;
	SmtpSessions **sessions;     /* one per worker */
	NetCidr *proxies, *xclients; /* of yaml's lists; owned */
	GatewayLimits *limits;       /* NULL: none */
} GatewayService;

/* One SMTP output with what it was made of; immutable. */
typedef struct GatewayOutput {
	SmtpOutputConf conf;
	TlsContext *tls;
	char *secret;
	NetAddr source;
} GatewayOutput;

/* The gateway's part of one worker. */
typedef struct GatewayHome {
	Gateway *gateway;
	Worker *worker;
	SmtpClientPool *pool;
	GHashTable *deliveries; /* Tx* -> GatewayTx* of REST clients; owned */
	atomic_uint active;     /* REST transactions without a final answer */
	atomic_uint sessions;   /* open, as of the last count */
} GatewayHome;

struct Gateway {
	RestHost host; /* first: RestHost* is Gateway* */
	GatewayConfig *config;
	Workers *workers;
	TxPorts *const *ports;
	Pool *pool;
	Activation *activation;
	char *hostname, *session_uri;
	GatewayHome *homes;       /* one per worker */
	GatewayOutput *outputs;   /* one per config->hosts */
	GError *outputs_error;    /* told by gateway_listen */
	GatewayService *services; /* config->services->len */
	atomic_bool draining;
};

static inline GatewayHome *
gateway_home(Gateway *gateway, const Worker *worker)
{
	return &gateway->homes[worker_index(worker)];
}
/* gateway_output.c */
void gateway_outputs_init(Gateway *gateway);
void gateway_outputs_clear(Gateway *gateway);
/* NULL: no such tag. */
const SmtpOutputConf *gateway_output(const Gateway *gateway, const char *tag);

/* gateway_smtp.c */
void gateway_service_init(Gateway *gateway, GatewayService *service, const SmtpServiceYaml *yaml);
/* At start: errors are for the operator. */
K_MUST_CHECK bool gateway_service_load(GatewayService *service, GError **ret_error);
void gateway_service_clear(GatewayService *service);

/* gateway_rest.c */
void gateway_rest_init(Gateway *gateway);
void gateway_rest_clear(GatewayHome *home);
/* keepalive.c: heartbeats for a transaction whose taker is elsewhere.  Takes over `port`. */
TxPort *keepalive_start(Worker *worker, Tx *tx, TxPort *port, Usec interval);
