/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One SPF check (RFC 7208 check_host) as a machine that asks for DNS answers: no I/O, no clock, so
 * that it is the same on the resolver (mailauth/spf_run.h), in tests and under a fuzzer.  Owner:
 * whoever made it; one thread.
 *
 *      while (spf_next(spf, &name, &type))      a question is open
 *              spf_answer(spf, answer)          of that name and type
 *      spf_result(spf)
 *
 * Bounded by RFC 7208 4.6.4: terms that look up, void look-ups, names of one MX or PTR; beside
 * that by the length of a record and of what macros expand to.  Time is the caller's business. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "loop/dns.h"

#define SPF_LOOKUPS_MAX   10          /* terms that look up */
#define SPF_VOIDS_MAX     2           /* terms whose look-up found nothing */
#define SPF_MX_MAX        10          /* hosts of one mx; more is a permerror */
#define SPF_PTR_MAX       10          /* names of the client; the rest is not looked at */
#define SPF_RECORD_MAX    (16 * 1024) /* bytes of a record; longer is a permerror */
#define SPF_EXPLAIN_MAX   1024        /* bytes of an expanded explanation; longer: none */
#define SPF_IDENTITY_MAX  1024        /* bytes of sender or HELO; longer is refused */
#define SPF_PATH_LINES    200         /* of the account of a check */
#define SPF_TIMEOUT       (20 * USEC_PER_SEC)
#define SPF_NAME_TEXT_MAX 253 /* bytes of a domain name */

/* The numbers are what filter_output says (behaviour spec 9.7). */
typedef enum SpfResult {
	SPF_TEMPERROR,
	SPF_PASS,
	SPF_PERMERROR,
	SPF_FAIL,
	SPF_SOFTFAIL,
	SPF_NONE,
	SPF_NEUTRAL,
	SPF_RESULTS
} SpfResult;
const char *spf_result_name(SpfResult result);

typedef struct SpfParams {
	const char *ip;        /* address literal of the client */
	const char *helo;      /* NULL: not known */
	const char *mail_from; /* address; "" or NULL: the null sender, then HELO counts */
	const char *domain;    /* whose policy; NULL: the sender's */
	const char *receiver;  /* our name, for %{r}; NULL: "unknown" */
	int64_t now;           /* seconds since 1970, for %{t} */
} SpfParams;

typedef struct Spf Spf;

Spf *spf_new(const SpfParams *params); /* everything is copied */
void spf_free(Spf *spf);               /* NULL is fine */
/* False: it is done.  The name is borrowed until the next call. */
bool spf_next(Spf *spf, const char **ret_name, DnsType *ret_type);
/* The answer to what spf_next asked. */
void spf_answer(Spf *spf, const DnsAnswer *answer);
/* Ends it here: temperror. */
void spf_give_up(Spf *spf, const char *why);

bool spf_is_done(const Spf *spf);
SpfResult spf_result(const Spf *spf);        /* SPF_TEMPERROR until done */
const char *spf_domain(const Spf *spf);      /* whose policy was asked; "" when there is none */
const char *spf_explanation(const Spf *spf); /* of a fail, ASCII; NULL: none */
const char *spf_reason(const Spf *spf);      /* what decided: a term or what is wrong; never NULL */
unsigned spf_lookups(const Spf *spf);        /* terms that looked up */
/* An account line by line, for people: records, terms, answers. */
const GPtrArray *spf_path(const Spf *spf); /* char* */
