/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What a chain has done with one transaction, and why: filter by filter what it was shown, what it
 * decided, by which rule, on which answers of the DNS, and how long that took.
 *
 * Taking it down is cheap: what exists anyway is counted or borrowed, and words are made only when
 * somebody reads it (why_json).  It is bounded whatever peers do: entries by filter, texts by entry
 * and in all; beyond that entries are counted only.  Decisions (answers that fail, rules that
 * match) have places of their own, so that a flood of others does not hide them.
 *
 * Owner: the chain.  The engine writes it, and filters through filter_note and filter_rule_*
 * (filter/filter.h).  Own worker only. */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

#include "base/clock.h"
#include "conf/yaml.h"
#include "loop/dns.h"
#include "tx/tx.h"

#define WHY_ENTRIES_MAX   32          /* of one filter, */
#define WHY_DECISIONS_MAX 16          /* beside these: rules that match, with their matchers, */
#define WHY_FAILURES_MAX  16          /* and answers to recipients that fail */
#define WHY_TEXT_MAX      300         /* bytes of one text, and of the records of one DNS answer */
#define WHY_RECORDS_MAX   8           /* of one DNS answer */
#define WHY_BYTES_MAX     (64 * 1024) /* of all texts */
#define WHY_RCPTS_MAX     10          /* recipients that are named */

typedef struct Why Why;

/* A rule as its configuration has it; lives as long as that. */
typedef struct WhyRule {
	const char *tag, *name;
	const YamlNode *node; /* where it stands; may be NULL */
} WhyRule;

/* The three values, and the fault (filter/match.h). */
typedef enum WhyResult { WHY_NO, WHY_YES, WHY_UNMET, WHY_FAULT, WHY_RESULTS } WhyResult;

/* How a filter leaves (filter/filter.h). */
typedef enum WhyLeft { WHY_CONTINUED, WHY_WAITS, WHY_STOPPED, WHY_LEFTS } WhyLeft;

#define WHY_EVERYBODY UINT32_MAX /* in place of a recipient */

Why *why_new(guint filters);
void why_free(Why *why); /* NULL is fine */

/* ---- the engine ---- */

/* What it remembers of `down` while a filter runs. */
typedef struct WhyTurn {
	guint filter;
	const Tx *down;
	const Response *mail, *data;
	uint32_t rcpts;
	Deadline began;
} WhyTurn;

/* Around one call of a filter; `news`: TxNew bits. */
WhyTurn why_enter(Why *why, guint filter, const Tx *down, unsigned news);
/* `base`: the index of a recipient of `down` in the chain's own transaction. */
typedef uint32_t WhyBaseFn(const void *arg, uint32_t index);
void why_leave(Why *why, const WhyTurn *turn, WhyLeft left, WhyBaseFn *base, const void *arg);
void why_output(Why *why, guint filter, json_t *output); /* counted; the last one is kept */
void why_dns(Why *why, guint filter, const char *name, DnsType type, const DnsAnswer *answer,
	     Usec took);

/* ---- filters ---- */

void why_note(Why *why, guint filter, char *text); /* moved */
/* The matchers that were asked, then what the rule came to. */
void why_rule_begin(Why *why, guint filter);
/* `matcher` is borrowed as the rule is.  `output` (counted) or `seen` (moved): what it looked at;
 * either may be NULL. */
void why_matcher(Why *why, guint filter, const void *matcher, WhyResult result, json_t *output,
		 char *seen);
/* `action`: static.  What is the same as the last time, for the same recipient and by the same
 * matchers, is not noted again. */
void why_rule_end(Why *why, guint filter, const WhyRule *rule, WhyResult result, const char *action,
		  uint32_t rcpt);

/* ---- reading ---- */

typedef enum WhyDetail {
	WHY_ALL,
	WHY_DECISIONS, /* only decisions, and what led to them */
	WHY_VERDICT,   /* only the outcome and who decided */
} WhyDetail;

/* Names of the filters, and a matcher in words: its name, what it wants, what it saw. */
typedef struct WhyNames {
	const char *chain;
	const char *(*filter)(const void *arg, guint index);
	json_t *(*matcher)(const void *matcher, const json_t *output);
	const void *arg;
} WhyNames;

/* An object (docs/explain.md); caller frees.  `tx` is the chain's own. */
json_t *why_json(const Why *why, const WhyNames *names, const Tx *tx, WhyDetail detail);
bool why_is_problem(const Tx *tx); /* something was refused or put off */
