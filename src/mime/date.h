/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Dates of header fields (RFC 5322 3.3 and 4.3).  Reading is generous: weekday optional and not
 * checked, comments anywhere, two-digit years, zone names, zone missing (then UTC).  Pure. */
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"

typedef struct MimeDate {
	int64_t unix_secs;
	int tz_offset; /* seconds east of UTC */
} MimeDate;

#define MIME_DATE_MAX 64

/* False when it cannot be read; `text` is an unfolded value. */
K_MUST_CHECK bool mime_date_parse(const char *text, MimeDate *ret_date);
/* "Wed, 06 Mar 2024 10:42:31 -0800"; false, `out` unchanged, outside the years 1..9999 or for an
 * offset of a day or more or with seconds in it. */
K_MUST_CHECK bool mime_date_format(const MimeDate *date, char out[MIME_DATE_MAX]);
