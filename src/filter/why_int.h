/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The inside of a Why: why.c writes it, why_json.c reads it. */
#include "filter/why.h"

typedef enum WhyKind { WHY_NOTE, WHY_DNS, WHY_MATCHER, WHY_RULE, WHY_ANSWER } WhyKind;
typedef enum WhyVerb { WHY_MAIL, WHY_RCPT, WHY_DATA, WHY_VERBS } WhyVerb;

/* What an entry takes: of each there is a limited number for each filter. */
typedef enum WhyPlace {
	WHY_PLAIN,
	WHY_DECISION, /* of a rule that matches, and its matchers */
	WHY_FAILURE,  /* of an answer to a recipient that fails */
	WHY_WHOLE,    /* the same to MAIL or DATA: one each */
	WHY_PLACES
} WhyPlace;

typedef struct WhyEntry {
	uint8_t kind;   /* WhyKind */
	uint8_t result; /* WhyResult; of an answer WhyVerb; of DNS DnsStatus */
	uint16_t filter;
	uint16_t type;  /* DnsType */
	uint8_t place;  /* WhyPlace */
	uint32_t rcpt;  /* index, or WHY_EVERYBODY */
	uint32_t lost;  /* records of a DNS answer that are not here */
	Usec took;      /* of a DNS answer */
	const void *of; /* matcher or rule */
	const char *action;
	char *text;       /* a note; a name in the DNS; what a matcher saw */
	GString *records; /* of a DNS answer, each with its NUL */
	json_t *output;
	Response *response;
} WhyEntry;

typedef struct WhyFilter {
	unsigned saw;                /* TxNew bits */
	uint16_t places[WHY_PLACES]; /* taken */
	uint32_t lost;               /* entries that had no place */
	uint32_t calls;
	uint32_t looked; /* recipients before this one had their answers when it was called last */
	WhyLeft left;
	Usec busy, waited;
	Deadline waits_since; /* 0: it does not */
	json_t *output;       /* the newest, or NULL */
} WhyFilter;

struct Why {
	GArray *entries; /* WhyEntry */
	WhyFilter *filters;
	guint n_filters;
	size_t bytes; /* of all texts */
	Deadline began;
	/* Before the matchers of the rule that is asked now: entries, bytes, its filter's counters.
	 */
	guint rule_at;
	size_t rule_bytes;
	uint16_t rule_places[WHY_PLACES];
	uint32_t rule_lost;
};
