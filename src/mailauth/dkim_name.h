/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Names that may stand in signatures.  Pure. */
#include <stdbool.h>

/* Labels of letters, digits, '-' and '_', or UTF-8; at least `labels` of them. */
bool dkim_domain_ok(const char *name, unsigned labels);
bool dkim_domain_within(const char *name, const char *domain); /* the same or below */
/* A header field's name: visible ASCII without ':' and ';'. */
bool dkim_field_name_ok(const char *name);
