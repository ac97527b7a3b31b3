/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Content-Range as this API uses it (RFC 9110 14.4; behaviour spec 4.6).  Pure. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"

typedef struct RestRange {
	uint64_t first, last; /* inclusive */
	bool has_total;
	uint64_t total;
} RestRange;

/* "bytes FIRST-LAST/TOTAL" or "bytes FIRST-LAST/""*"; anything else, and ranges that contradict
 * themselves, is false. */
K_MUST_CHECK bool rest_range_parse(const char *text, RestRange *ret_range);
/* "bytes 0-(held-1)/TOTAL", TOTAL "*" for -1; without bytes "bytes *" "/TOTAL".  Caller frees. */
char *rest_range_held(uint64_t held, int64_t total);
/* What a server said in that form: how many bytes it holds.  False when it is something else. */
K_MUST_CHECK bool rest_range_parse_held(const char *text, uint64_t *ret_held);
