/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What one SMTP service allows each client address (an IPv6 address counts with its whole /64):
 * connections at a time, and connections, messages, recipients and wrong passwords in a span of
 * time.  Shared by all workers.  Owner: the service. */
#include <stdbool.h>

#include "base/clock.h"
#include "smtp/session.h"

typedef struct GatewayLimits GatewayLimits;

#define GATEWAY_LIMITS_ADDRESSES 65536 /* remembered at a time; others are not limited */

typedef struct GatewayRate {
	unsigned count; /* so many at once, and so many in each `span`; 0: no limit */
	Usec span;
} GatewayRate;

typedef struct GatewayLimitsConf {
	unsigned connections_max;        /* of all clients; 0: no limit */
	unsigned connections_per_client; /* 0: no limit */
	GatewayRate rates[SMTP_GATES];   /* by what is asked for; SMTP_GATE_AUTH: unused */
} GatewayLimitsConf;

/* NULL when `conf` limits nothing. */
GatewayLimits *gateway_limits_new(const GatewayLimitsConf *conf);
void gateway_limits_free(GatewayLimits *limits); /* NULL is fine */
/* As in SmtpServiceConf; any thread. */
bool gateway_limits_admit(GatewayLimits *limits, SmtpGate gate, const char *address);
void gateway_limits_leave(GatewayLimits *limits, const char *address);
unsigned gateway_limits_addresses(GatewayLimits *limits); /* remembered now */
