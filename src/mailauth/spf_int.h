/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Grammar and macros of SPF (RFC 7208 sections 4.6.1, 5, 6, 7), shared by the files of SPF.  Pure.
 */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum SpfTermKind {
	SPF_TERM_ALL,
	SPF_TERM_INCLUDE,
	SPF_TERM_A,
	SPF_TERM_MX,
	SPF_TERM_PTR,
	SPF_TERM_IP4,
	SPF_TERM_IP6,
	SPF_TERM_EXISTS,
	SPF_TERM_REDIRECT,
	SPF_TERM_EXP,
	SPF_TERM_OTHER /* unknown modifier */
} SpfTermKind;

typedef struct SpfTerm {
	SpfTermKind kind;
	char qualifier;   /* + - ~ ? */
	const char *text; /* the term itself; all point into the record */
	size_t len;
	const char *spec; /* domain-spec; NULL: none, the current domain */
	size_t spec_len;
	unsigned bits4, bits6; /* prefix lengths of a and mx; of ip4 and ip6 */
	uint8_t addr[16];      /* ip4, ip6 */
} SpfTerm;

typedef enum SpfRead { SPF_READ_TERM, SPF_READ_END, SPF_READ_BAD } SpfRead;

/* Is it an SPF record at all (4.5)? */
bool spf_record_is(const char *text);
/* The next term from *cursor on (behind the version at first), and moves it; on BAD only `text`
 * and `len` are set. */
SpfRead spf_term_next(const char **cursor, SpfTerm *ret_term);

/* What macros stand for. */
typedef struct SpfMacros {
	const char *sender, *local, *sender_domain; /* s l o */
	const char *domain;                         /* d */
	const char *helo, *receiver;                /* h r */
	const char *client_name;                    /* p */
	const uint8_t *ip;
	bool v6;
	int64_t now;
} SpfMacros;

/* A macro-string, or with `explain` an explain-string (spaces; macros c, r, t). */
bool spf_macro_ok(const char *text, size_t len, bool explain);
/* A domain-spec (7.1): a macro-string that ends in a macro or in a top label. */
bool spf_domain_spec_ok(const char *text, size_t len);
/* Does it ask for the client's name, %{p}? */
bool spf_macro_needs_name(const char *text, size_t len);
/* The domain of a domain-spec that is ok: labels cut from the left to fit a name, no trailing dot.
 * Caller frees. */
char *spf_macro_domain(const char *text, size_t len, const SpfMacros *macros);
/* An explanation; NULL when it is no explain-string or too long.  Caller frees. */
char *spf_macro_explain(const char *text, const SpfMacros *macros);
