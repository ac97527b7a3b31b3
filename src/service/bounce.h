/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The notification of a failed delivery: when one is owed, and its transaction (behaviour spec
 * 12.5, 17).  Own worker only. */
#include "conf/config.h"
#include "tx/tx.h"

/* A new transaction from the null reverse-path to the sender of `tx`, with the finished
 * notification as its body and sender and tag of the chain's `notification`; NULL when none is
 * owed: not asked for, a notification itself, several recipients, nothing that failed. */
Tx *bounce_new(const Tx *tx, const EndpointConf *endpoint, const char *mailer_daemon,
	       int64_t creation);
