/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the administration routes read and write: filters in query strings, rows and counts as JSON
 * with keys that stay.  Pure but for the clock that is passed in.  One thread (json_t). */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

#include "store/store.h"

#define ADMIN_LIMIT_DEFAULT 100

/* A StoreFilter whose strings are owned. */
typedef struct AdminFilter {
	StoreFilter filter;
	char *mail_from, *rcpt, *destination, *after;
	char *reason; /* of a hold, or NULL */
} AdminFilter;

/* "state=held&from=a%40b.c&older_than=3600": `query` may be NULL.  Keys: state (queued, leased,
 * held, final, any), from, to (an address or "@domain"), destination, older_than (seconds), after
 * (an id), limit (1..STORE_LIST_MAX), reason.  K_ERROR_INPUT names the key.  `now`: unix seconds.
 * The strings of ret_filter->filter point into the rest; admin_filter_clear it. */
K_MUST_CHECK bool admin_filter_parse(const char *query, int64_t now, AdminFilter *ret_filter,
				     GError **ret_error);
void admin_filter_clear(AdminFilter *filter);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(AdminFilter, admin_filter_clear)

const char *admin_state(const StoreRow *row); /* "queued", "leased", "held" or "final" */
/* Times are unix seconds, null for none.  `detail`: with request, answers and parts, too. */
json_t *admin_row(const StoreRow *row, bool detail);
json_t *admin_count(const StoreCount *count, int64_t now);
