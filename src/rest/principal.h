/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Who makes a request, as far as the API has to know: which senders' transactions are theirs.
 * Immutable, shared by all threads; owned by the table of service/access.c. */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef struct RestPrincipal {
	const char *name;
	const char *const *senders; /* ends in NULL */
	bool all_senders;
	bool admin, metrics;
} RestPrincipal;

/* NULL: there is no authentication, and everybody may everything. */
static inline bool
rest_principal_may(const RestPrincipal *who, const char *sender)
{
	if (who == NULL || who->all_senders)
		return true;
	for (const char *const *at = who->senders; sender != NULL && *at != NULL; at++) {
		if (strcmp(*at, sender) == 0)
			return true;
	}
	return false;
}
