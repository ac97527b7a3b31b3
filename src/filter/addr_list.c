/* SPDX-License-Identifier: Apache-2.0 */
#include "filter/addr_list.h"

#include <string.h>

#include "tx/address.h"

static char *
lower(const char *text)
{
	if (g_utf8_validate(text, -1, NULL))
		return g_utf8_strdown(text, -1);
	return g_ascii_strdown(text, -1);
}

static bool
match_domain(const GPtrArray *domains, const char *domain)
{
	if (domains == NULL || domains->len == 0)
		return true;
	for (guint i = 0; i < domains->len; i++) {
		if (strcmp(g_ptr_array_index(domains, i), domain) == 0)
			return true;
	}
	return false;
}

static bool
match_prefix(const char *prefix, const char *delimiter, const char *local)
{
	size_t len = strlen(prefix);
	if (strncmp(local, prefix, len) != 0)
		return false;
	if (local[len] == '\0')
		return true;
	return delimiter != NULL && delimiter[0] != '\0' &&
	       g_str_has_prefix(local + len, delimiter);
}

bool
addr_list_match(const AddrList *list, const char *addr)
{
	AddrParts parts = {0};
	if (!address_split(addr, &parts))
		return false;
	g_autofree char *domain = lower(parts.domain);
	g_autofree char *local = lower(parts.local);
	address_parts_clear(&parts);
	if (!match_domain(list->domains, domain))
		return false;
	if (list->prefixes == NULL || list->prefixes->len == 0)
		return true;
	for (guint i = 0; i < list->prefixes->len; i++) {
		if (match_prefix(g_ptr_array_index(list->prefixes, i), list->delimiter, local))
			return true;
	}
	return false;
}
