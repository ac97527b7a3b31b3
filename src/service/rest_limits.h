/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How much of a REST listener one client may use: requests in a minute, and writing requests at a
 * time.  A client is an entry of `koukan.rest.access`, or an address (an IPv6 address counts with
 * its whole /64).  Shared by all workers, any thread.  Owner: service/node. */
#include <stdbool.h>

#include "base/clock.h"

typedef struct RestLimits RestLimits;

#define REST_LIMITS_CLIENTS 65536 /* remembered at a time; others are not limited */

typedef struct RestLimitsConf {
	unsigned requests_per_minute; /* 0: no limit; so many may also come at once */
	unsigned uploads_max;         /* 0: no limit */
} RestLimitsConf;

/* NULL when `conf` limits nothing. */
RestLimits *rest_limits_new(const RestLimitsConf *conf);
void rest_limits_free(RestLimits *limits); /* NULL is fine */

typedef enum RestLimit { REST_LIMIT_NONE, REST_LIMIT_RATE, REST_LIMIT_UPLOADS } RestLimit;

/* The name under which an address counts.  Caller frees. */
char *rest_limits_client(const char *address);
/* NONE: it may go on; with `upload`, rest_limits_leave follows.  Else *ret_wait says how many
 * seconds from `now` it should wait, at least 1. */
RestLimit rest_limits_admit(RestLimits *limits, const char *client, bool upload, Deadline now,
			    unsigned *ret_wait);
void rest_limits_leave(RestLimits *limits, const char *client);
unsigned rest_limits_clients(RestLimits *limits); /* remembered now */
