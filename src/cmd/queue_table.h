/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What `koukan queue` prints for people: the JSON of the administration routes as tables.  One
 * thread. */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/check.h"

void queue_table_rows(FILE *out, const json_t *rows); /* array of transactions */
void queue_table_row(FILE *out, const json_t *row);   /* one, with all there is */
void queue_table_stats(FILE *out, const json_t *stats);

/* "90", "90s", "15m", "2h", "3d" in seconds, at most about 100 years. */
K_MUST_CHECK bool queue_parse_age(const char *text, int64_t *ret_seconds);
/* The opposite, short: "90s", "15m", "2h", "3d".  Caller frees. */
char *queue_format_age(int64_t seconds);
