/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Mail addresses (RFC 5321 4.1.2, RFC 5322 3.4.1, RFC 6531) and their ESMTP parameters, as
 * immutable counted values.  The count is not atomic: a Mailbox stays on one worker.  Pure. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

typedef struct EsmtpParam {
	char *keyword; /* as received */
	char *value;   /* NULL when there was none */
} EsmtpParam;

typedef struct Mailbox {
	int refs;
	char *addr;         /* without angle brackets; "" is the null reverse-path */
	EsmtpParam *params; /* n_params of them */
	size_t n_params;
} Mailbox;

/* `params` (may be NULL when n is 0) are copied. */
Mailbox *mailbox_new(const char *addr, const EsmtpParam *params, size_t n);
Mailbox *mailbox_ref(Mailbox *mailbox);
void mailbox_unref(Mailbox *mailbox); /* NULL is fine */
bool mailbox_equal(const Mailbox *a, const Mailbox *b);
/* The parameter of that keyword (case-insensitive), else NULL. */
const EsmtpParam *mailbox_param(const Mailbox *mailbox, const char *keyword);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Mailbox, mailbox_unref)

/* An addr-spec taken apart: "an RFC 5322 addr-spec can be read at the start" (behaviour spec
 * 10.3): quoted local parts and domain literals are fine, text behind the addr-spec is ignored
 * unless it makes a second '@' or a dot run. */
typedef struct AddrParts {
	char *local;  /* as written, quotes kept */
	char *domain; /* as written; a domain literal keeps its brackets */
} AddrParts;

/* False when no address can be read ("alice", "@x", "a@b@c", "a@x..y", "a@x.", "<a@x>", ""). */
K_MUST_CHECK bool address_split(const char *addr, AddrParts *ret_parts);
void address_parts_clear(AddrParts *parts);
/* The domain in lower case, or NULL when there is none.  Caller frees. */
char *address_domain(const char *addr);
/* True when a byte is outside ASCII: needs SMTPUTF8 (RFC 6531). */
bool address_needs_utf8(const char *addr);
