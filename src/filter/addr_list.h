/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Which addresses a rule is about: domains, and local parts with an optional extension
 * (behaviour spec 10.3).  Shared by the routing policy and the matcher.  Pure. */
#include <stdbool.h>

#include "conf/schema.h"

typedef struct AddrList {
	GPtrArray *domains;  /* char*; empty: any */
	GPtrArray *prefixes; /* char*: local parts; empty: any */
	char *delimiter;     /* what an extension begins with, or NULL */
} AddrList;

/* Rows of a key table for the member `member_` of `type_`. */
#define ADDR_LIST_KEYS(type_, member_)                                                             \
	{.name = "domains",                                                                        \
	 .type = CONF_STRINGS,                                                                     \
	 .offset = CONF_KEY(type_, member_.domains),                                               \
	 .doc = "Domains in lower case; none: any."},                                              \
		{.name = "prefixes",                                                               \
		 .type = CONF_STRINGS,                                                             \
		 .offset = CONF_KEY(type_, member_.prefixes),                                      \
		 .doc = "Local parts in lower case; none: any."},                                  \
	{                                                                                          \
		.name = "delimiter", .type = CONF_STRING,                                          \
		.offset = CONF_KEY(type_, member_.delimiter),                                      \
		.doc = "Text behind a prefix that begins an extension, as in bob+lists."           \
	}

/* The address in lower case against the list as written.  False for what is no address. */
bool addr_list_match(const AddrList *list, const char *addr);
