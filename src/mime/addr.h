/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Address lists and message ids of header fields (RFC 5322 3.4, 3.6.4; RFC 6532 for UTF-8).
 * Strict: what only the obsolete grammar allows (a '.' in an unquoted phrase, routes, empty list
 * elements, white space around dots) is reported.  Pure. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

#define MIME_ADDRS_MAX 10000 /* of one field; more is a fault */

typedef struct MimeAddr {
	char *name;   /* display name as written, quotes and escapes removed; "" when none */
	char *addr;   /* local@domain, quotes kept, comments cut */
	bool no_name; /* there was no phrase at all */
} MimeAddr;

typedef struct MimeAddrs {
	GPtrArray *list;   /* MimeAddr*; groups flattened */
	const char *fault; /* first thing that is wrong, static text; NULL: all is well */
} MimeAddrs;

/* `text`: an unfolded value.  What could be read before a fault is in the list. */
void mime_addrs_parse(const char *text, MimeAddrs *ret_addrs);
void mime_addrs_clear(MimeAddrs *addrs);

/* Exactly one addr-spec and nothing around it. */
bool mime_addr_spec_ok(const char *text);
/* NULL when `text` is `<left@right>`, else what is wrong (static text). */
const char *mime_msg_id_fault(const char *text);

/* Skips white space and comments; false for a comment that does not end.  For other parsers of
 * structured values. */
K_MUST_CHECK bool mime_skip_cfws(const char **cursor);
bool mime_is_atext(unsigned char c); /* RFC 5322 3.2.3, and any byte above 0x7f */
