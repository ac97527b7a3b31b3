/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How often something happened lately, by key: for limits such as "20 messages an hour from one
 * sender".  A table of fixed size, set up at once; when a corner of it is full, the key that was
 * quiet for longest is forgotten.  Keys are kept as keyed hashes, so that nobody outside can aim at
 * a corner.  Any thread. */
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

#define RATES_KEYS_DEFAULT 65536

typedef struct Rates Rates;

/* Room for `keys` of them, rounded up to a power of two. */
Rates *rates_new(unsigned keys);
void rates_free(Rates *rates); /* NULL is fine */

/* One more event of `key` under the limit of that name.  True: `max` have been counted within the
 * last `window` already; this one is not counted then, so that whoever goes on knocking gets `max`
 * through in each window all the same.  The window slides: events of the one before count by the
 * part of it that still is within reach.  `now`: clock_mono. */
bool rates_over(Rates *rates, const char *limit, const char *key, Usec window, uint32_t max,
		Deadline now);
