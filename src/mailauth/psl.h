/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Organizational domains by the public suffix list (libpsl).  Any thread. */
#include <stdbool.h>

/* The registrable domain of `domain` in lower case ("mail.example.co.uk": "example.co.uk"); the
 * domain itself when it is a public suffix or has none.  Caller frees. */
char *psl_org_domain(const char *domain);

/* How near two domains are; the numbers are what filter_output says (behaviour spec 9.6). */
typedef enum PslAlignment { PSL_SAME, PSL_SAME_ORG, PSL_OTHER } PslAlignment;
PslAlignment psl_alignment(const char *a, const char *b); /* NULL: PSL_OTHER */
