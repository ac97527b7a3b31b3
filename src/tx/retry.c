/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/retry.h"

#include <stddef.h>

#include "base/check.h"

#define JITTER_SHARE 0.1
#define SPAN_MAX     ((double)(INT64_C(1) << 53)) /* seconds; exact in a double */

/* Seconds to wait: the age of the transaction times the factor, between the limits.  A clock that
 * went back counts as age 0. */
static double
delay_after(const RetryParams *params, int64_t creation, int64_t now)
{
	double age = now > creation ? (double)now - (double)creation : 0;
	double delay = age * params->backoff_factor;
	if (!(delay >= 0)) /* also not a number */
		delay = 0;
	if (delay > (double)params->max_attempt_time)
		delay = (double)params->max_attempt_time;
	if (delay < (double)params->min_attempt_time)
		delay = (double)params->min_attempt_time;
	if (delay < 0)
		delay = 0;
	return delay < SPAN_MAX ? delay : SPAN_MAX;
}

RetryVerdict
retry_next(const RetryParams *params, int64_t creation, int64_t now, int attempt, double jitter,
	   int64_t *ret_next)
{
	if (params->max_attempts >= 0 && attempt >= params->max_attempts)
		return RETRY_MAX_ATTEMPTS;
	double delay = delay_after(params, creation, now);
	int64_t next = now + (int64_t)delay;
	bool limited = params->deadline >= 0;
	if (limited && next - creation > params->deadline)
		return RETRY_DEADLINE;
	if (jitter > 0) {
		next = now + (int64_t)(delay + delay * JITTER_SHARE * (jitter < 1 ? jitter : 1));
		/* Chance decides when, never whether. */
		if (limited && next - creation > params->deadline)
			next = creation + params->deadline;
	}
	*ret_next = next;
	return RETRY_AT;
}

const char *
retry_reason(RetryVerdict verdict)
{
	switch (verdict) {
	case RETRY_AT:
		return NULL;
	case RETRY_MAX_ATTEMPTS:
		return "retry policy max attempts";
	case RETRY_DEADLINE:
		return "retry policy deadline";
	}
	k_unreachable();
}
