/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* When to try again (behaviour spec 12.3).  Pure arithmetic: no clock, no randomness but what is
 * passed in.  Any thread. */
#include <stdbool.h>
#include <stdint.h>

typedef struct RetryParams {
	int64_t max_attempts;     /* -1: unlimited; default 30 */
	int64_t min_attempt_time; /* seconds; default 60 */
	int64_t max_attempt_time; /* seconds; default 3600 */
	double backoff_factor;    /* default 1.5 */
	int64_t deadline;         /* seconds after creation; -1: none; default 86400 */
	int64_t bug_retry;        /* seconds; default 3600 */
} RetryParams;

typedef enum RetryVerdict { RETRY_AT, RETRY_MAX_ATTEMPTS, RETRY_DEADLINE } RetryVerdict;

/* Times are unix seconds; `attempt` is the 1-based number of the attempt that just failed. `jitter`
 * 0..1 adds up to a tenth of the delay (0: none).  *ret_next is set for RETRY_AT only. */
RetryVerdict retry_next(const RetryParams *params, int64_t creation, int64_t now, int attempt,
			double jitter, int64_t *ret_next);
/* The final_attempt_reason of a verdict other than RETRY_AT. */
const char *retry_reason(RetryVerdict verdict);
