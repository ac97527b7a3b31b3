/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Match expressions of policies (behaviour spec 11.3, 11.4): three-valued, compiled when the
 * configuration is loaded, immutable afterwards. */
#include "filter/filter.h"

typedef enum MatchResult {
	MATCH_NO,
	MATCH_YES,
	MATCH_UNMET, /* what it asks about is not known yet */
	MATCH_FAULT, /* it never will be: the chain is not made for such a transaction */
} MatchResult;

typedef struct MatchCtx {
	const Filter *filter;
	bool per_rcpt;
	size_t rcpt;       /* of filter->down; only with per_rcpt */
	bool body_final;   /* the message may be looked at */
	const char *fault; /* set with MATCH_FAULT; static */
	GHashTable **memo; /* matcher's arguments -> MatchResult + 1: what was decided once for
			      this transaction, made when needed; NULL: each evaluation is the only
			      one */
} MatchCtx;

typedef struct Match Match;

/* NULL after an error has been reported. */
Match *match_new(const YamlNode *node, bool per_rcpt, const FilterModules *modules,
		 ConfReport *report);
void match_free(Match *match); /* NULL is fine */
MatchResult match_eval(const Match *match, MatchCtx *ctx);

/* ---- the matchers ---- */

typedef struct MatcherKind {
	const char *name;
	const char *doc;
	const char *example; /* YAML, entries of a chain that use it; as FilterKind's */
	size_t args_size;
	const ConfKey *keys;
	/* Completes `args`; may be NULL. */
	void (*check)(void *args, const YamlNode *node, bool per_rcpt, ConfReport *report);
	/* Either about the transaction, or about the output of the filter of that name. */
	MatchResult (*eval)(const void *args, MatchCtx *ctx);
	MatchResult (*eval_output)(const void *args, const json_t *output, MatchCtx *ctx);
	bool needs_rcpt;           /* only with mode PER_RCPT */
	void (*clear)(void *args); /* what `check` has made; may be NULL */
	/* Offset in the arguments of a `const FilterModules *` that is set before `check` and
	 * cleared after it; 0: not wanted (so it is never the first member). */
	size_t modules_offset;
	bool open_keys; /* `check` reads the keys itself: no table knows them */
} MatcherKind;

/* NULL-terminated: about the transaction, about filter outputs. */
extern const MatcherKind *const matchers_tx[];
extern const MatcherKind *const matchers_output[];
/* ...of which these have files of their own: */
extern const MatcherKind matcher_mail_from_domain_kind, matcher_rcpt_domain_kind;
extern const MatcherKind matcher_authenticated_user_kind, matcher_size_kind;
extern const MatcherKind matcher_header_kind, matcher_rate_kind;
extern const MatcherKind matcher_dmarc_kind, matcher_dnsbl_kind, matcher_arc_kind;

extern const MatcherKind matcher_plugin_kind; /* for names from `modules`; in no table */

/* ---- for matchers ---- */

static inline MatchResult
match_bool(bool yes)
{
	return yes ? MATCH_YES : MATCH_NO;
}
/* A fact about the client that comes with MAIL or never.  Never is no reason to skip a rule that
 * may protect something, so the chain fails. */
MatchResult match_missing_fact(MatchCtx *ctx, const char *fault);
#define MATCH_NO_REMOTE_HOST "a policy asks for remote_host, which this transaction does not have"
#define MATCH_NO_SMTP_META   "a policy asks for smtp_meta, which this transaction does not have"
