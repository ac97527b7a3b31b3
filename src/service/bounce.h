/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The notification of what became of a message: when one is owed, and its transaction (behaviour
 * spec 12.5, 17; RFC 3461).  Of failures and delays where the chain and the transaction have
 * notifications on and NOTIFY does not say otherwise; of a success only where NOTIFY asks for it
 * and the next hop does not speak DSN, so that nobody else tells.  Own worker only. */
#include "conf/config.h"
#include "tx/tx.h"

typedef enum BounceKind {
	BOUNCE_END,   /* of a failure, or of a success that the sender wants to hear of */
	BOUNCE_DELAY, /* it is going to be tried again */
} BounceKind;

/* Does its sender have to hear from us how `tx` ended?  `mailer_daemon` NULL: nobody could say
 * so. */
bool bounce_is_owed(const Tx *tx, const EndpointConf *endpoint, const char *mailer_daemon);
/* A new transaction from the null reverse-path to the sender of `tx`, with the finished
 * notification as its body and sender and tag of the chain's `notification`; NULL when none is
 * owed: not asked for, a notification itself, several recipients, nothing to tell. */
Tx *bounce_new(const Tx *tx, const EndpointConf *endpoint, const char *mailer_daemon,
	       int64_t creation, BounceKind kind);
/* The sender does not want to hear of failures: a null reverse-path, or NOTIFY without FAILURE. */
bool bounce_is_unwanted(const Tx *tx);
/* Does the chain's delay warning fall between two planned attempts?  Each point of time does so
 * exactly once in the life of a transaction.  All in unix seconds. */
bool bounce_delay_is_due(const EndpointConf *endpoint, int64_t creation, int64_t this_attempt,
			 int64_t next_attempt);
