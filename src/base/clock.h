/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Time.  Two clocks that are never mixed: monotonic for waits and deadlines, wall for what is
 * written into messages, rows and logs.  A test may replace both.  Any thread. */
#include <stdbool.h>
#include <stdint.h>

typedef int64_t Usec;     /* a span, in microseconds */
typedef int64_t Deadline; /* a point on the monotonic clock, in microseconds; 0 = none */
typedef int64_t WallUsec; /* microseconds since 1970-01-01 UTC */

#define USEC_PER_MS  INT64_C(1000)
#define USEC_PER_SEC INT64_C(1000000)

Deadline clock_mono(void);
WallUsec clock_wall(void);
static inline int64_t
clock_wall_sec(void)
{
	return clock_wall() / USEC_PER_SEC;
}

/* `span` from now; saturates instead of overflowing. */
Deadline clock_after(Usec span);
/* Time left, never below 0; INT64_MAX for "none". */
Usec clock_left(Deadline deadline);
bool clock_passed(Deadline deadline); /* false for "none" */

/* "Fri, 13 Feb 2009 23:31:30 +0000" (RFC 5322 3.3) in local time or UTC; at least 64 bytes. */
#define CLOCK_DATE_MAX 64
void clock_format_rfc5322(int64_t unix_sec, bool utc, char out[CLOCK_DATE_MAX]);
/* "2009-02-13T23:31:30.123456Z" */
void clock_format_iso(WallUsec wall, char out[CLOCK_DATE_MAX]);

/* Tests only: from now on both clocks stand still at these values until moved; returns to the
 * real clocks with clock_test_end. */
void clock_test_begin(Deadline mono, WallUsec wall);
void clock_test_advance(Usec span);
void clock_test_end(void);
