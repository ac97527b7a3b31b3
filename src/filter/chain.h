/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The chain engine (behaviour spec section 8): walks news of a transaction down the filters and
 * answers back up.  It watches the transaction; whoever owns the chain watches it too and sees the
 * answers.  Owner: one delivery attempt (service/output.c).  Own worker only. */
#include "filter/filter.h"

/* Starts on `tx`: what it already holds is handed down at the end of the turn.  `conf`, `env` are
 * borrowed and outlive the chain. */
Chain *chain_new(const ChainConf *conf, Tx *tx, const FilterEnv *env);
/* Ends the attempt: upstream transactions without a final answer are cancelled.  NULL is fine;
 * not inside a filter callback. */
void chain_free(Chain *chain);
/* At the end of the turn a heartbeat reaches every filter and, through the last one, the next node,
 * without a trace in the chain's own transaction. */
void chain_heartbeat(Chain *chain);
/* Some filter waits for something of its own (DNS, crypto): for dumps and tests. */
bool chain_is_waiting(const Chain *chain);
/* Signals of the filters so far: object or NULL; borrowed. */
json_t *chain_outputs(const Chain *chain);
/* What it has done so far, and why (docs/explain.md); NULL when env->explain is not set.  Caller
 * frees. */
json_t *chain_why(const Chain *chain, WhyDetail detail);
