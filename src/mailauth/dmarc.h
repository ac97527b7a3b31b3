/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* DMARC (RFC 7489): does the domain of From vouch for the message, by SPF or DKIM?  Pure: whoever
 * uses it asks the DNS, first dmarc_name of the domain, then, if there is no record, dmarc_name of
 * its organizational domain (mailauth/psl.h). */
#include <glib.h>
#include <stdbool.h>

#include "loop/dns.h"
#include "mailauth/psl.h"

typedef enum DmarcResult {
	DMARC_NONE, /* the domain has no policy */
	DMARC_PASS,
	DMARC_FAIL,
	DMARC_TEMPERROR,
	DMARC_PERMERROR, /* no domain to ask about: not exactly one From */
	DMARC_RESULTS
} DmarcResult;
extern const char *const dmarc_result_names[]; /* NULL-terminated */

typedef enum DmarcPolicyKind {
	DMARC_P_NONE,
	DMARC_P_QUARANTINE,
	DMARC_P_REJECT,
	DMARC_POLICIES
} DmarcPolicyKind;
extern const char *const dmarc_policy_names[]; /* NULL-terminated */

typedef struct DmarcRecord {
	DmarcPolicyKind policy, subdomains; /* p=, sp= (as p= when absent) */
	bool strict_dkim, strict_spf;       /* adkim=s, aspf=s */
	unsigned percent;                   /* pct= */
} DmarcRecord;

/* "_dmarc.example.com".  Caller frees. */
char *dmarc_name(const char *domain);
/* False: it is none, or does not count (RFC 7489 6.6.3). */
bool dmarc_record_parse(const char *text, DmarcRecord *ret_record);
/* The one record of an answer; false: there is none, or more than one. */
bool dmarc_answer_record(const DnsAnswer *answer, DmarcRecord *ret_record);
/* Whether an identity of that alignment with From counts. */
bool dmarc_is_aligned(PslAlignment alignment, bool strict);
