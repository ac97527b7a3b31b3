/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The DKIM signatures of one message (RFC 6376, 8301, 8463), verified as its bytes stream by: the
 * header first, the body in pieces, then the keys.  Pure: whoever uses it asks the DNS
 * (mailauth/dkim_run.h).  One thread at a time.
 *
 *      v = dkim_verify_new(header)          signatures are read
 *      dkim_verify_body(v, piece) ...       each needed hash runs once
 *      dkim_verify_body_end(v)
 *      dkim_verify_key_name(v, i)           NULL: decided without a key
 *      dkim_verify_key(v, i, answer)        decides
 *
 * Never a pass: rsa-sha1, RSA keys under 1024 bits (RFC 8301), a signature without From, expired
 * ones, and a signature over a part of the body only (l=), since what follows it is anybody's. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "loop/dns.h"
#include "mailauth/tags.h"

#define DKIM_SIGNATURES_MAX 10  /* results of one message; the rest is not looked at */
#define DKIM_NAMES_MAX      500 /* of one h= */

/* The numbers are what filter_output says (behaviour spec 9.6). */
typedef enum DkimStatus {
	DKIM_TEMP_ERR,
	DKIM_PASS,
	DKIM_FAIL,
	DKIM_UNKNOWN_ALGO,
	DKIM_STATUSES
} DkimStatus;

typedef struct DkimResult {
	DkimStatus status;  /* DKIM_TEMP_ERR until decided */
	bool decided;       /* no key will change it */
	const char *word;   /* for Authentication-Results (RFC 8601 2.7.1) */
	const char *reason; /* what is wrong; static; NULL for a pass */
	char *domain;       /* d=; NULL: none, or none that can be one */
	char *selector;     /* s= */
	char *identity;     /* i=, or NULL */
	char *algorithm;    /* a= */
	char *b_start;      /* first bytes of b=, to tell signatures apart (RFC 6008) */
	char **names;       /* h=; NULL: none */
	TagList tags;       /* all of them; empty when it is no tag list */
	unsigned key_bits;  /* 0: no key */
	bool testing;       /* the key says t=y */
} DkimResult;

typedef struct DkimVerify DkimVerify;

/* `header`: up to and with the empty line, or all there is; copied.  `now`: seconds since 1970. */
DkimVerify *dkim_verify_new(const char *header, size_t len, int64_t now);
void dkim_verify_free(DkimVerify *verify); /* NULL is fine */
unsigned dkim_verify_count(const DkimVerify *verify);
const DkimResult *dkim_verify_result(const DkimVerify *verify, unsigned index);

/* False: no signature is left that needs the body. */
bool dkim_verify_wants_body(const DkimVerify *verify);
void dkim_verify_body(DkimVerify *verify, const char *data, size_t len);
void dkim_verify_body_end(DkimVerify *verify);

/* Whose TXT record is the key; NULL: decided.  Caller frees. */
char *dkim_verify_key_name(const DkimVerify *verify, unsigned index);
void dkim_verify_key(DkimVerify *verify, unsigned index, const DnsAnswer *answer);
