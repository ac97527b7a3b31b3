/* SPDX-License-Identifier: Apache-2.0 */
#include "filter/addr_list.h"

#include <string.h>

#include "tx/address.h"

/* In place where it is ASCII, as nearly all are. */
static void
lower(char **text)
{
	char *in = *text;
	bool ascii = true;
	for (char *p = in; *p != '\0'; p++) {
		ascii = ascii && (unsigned char)*p < 0x80;
		*p = g_ascii_tolower(*p);
	}
	if (ascii || !g_utf8_validate(in, -1, NULL))
		return;
	*text = g_utf8_strdown(in, -1);
	g_free(in);
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

static bool
match_prefixes(const AddrList *list, const char *local)
{
	if (list->prefixes == NULL || list->prefixes->len == 0)
		return true;
	for (guint i = 0; i < list->prefixes->len; i++) {
		if (match_prefix(g_ptr_array_index(list->prefixes, i), list->delimiter, local))
			return true;
	}
	return false;
}

bool
addr_list_match(const AddrList *list, const char *addr)
{
	AddrParts parts = {0};
	if (!address_split(addr, &parts))
		return false;
	lower(&parts.domain);
	lower(&parts.local);
	bool match = match_domain(list->domains, parts.domain) && match_prefixes(list, parts.local);
	address_parts_clear(&parts);
	return match;
}
