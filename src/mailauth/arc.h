/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The Authenticated Received Chain (RFC 8617): each host that handles a message adds a set of three
 * fields, what it found out (AAR), a signature of the message (AMS), and a seal over the sets so
 * far (AS).  Sets are collected here, chains verified as bytes stream by, sets made.  Pure: whoever
 * verifies asks the DNS (mailauth/arc_run.h).  One thread at a time.
 *
 *      v = arc_verify_new(header)         sets are read and checked (5.2, steps 1 to 3)
 *      arc_verify_body(v, piece) ...      the newest signature of the message
 *      arc_verify_body_end(v)
 *      arc_verify_key_name(v)             NULL: decided
 *      arc_verify_key(v, answer) ...      decides, or goes on to the next key: first that of the
 *                                         newest AMS, then those of the seals from the newest down
 *
 * So at most 51 keys are asked for, one after the other, and nothing more once one fails. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "loop/dns.h"
#include "mailauth/dkim_key.h"
#include "mime/header.h"
#include "tx/blob.h"

#define ARC_SETS_MAX 50 /* RFC 8617 4.2.1 */

/* ---- sets ---- */

typedef enum ArcCv { ARC_CV_BAD, ARC_CV_NONE, ARC_CV_PASS, ARC_CV_FAIL } ArcCv;

typedef struct ArcSet {
	const MimeField *results, *message, *seal; /* NULL: missing; of the caller's header */
	ArcCv cv;                                  /* of the seal */
} ArcSet;

typedef struct ArcSets {
	ArcSet sets[ARC_SETS_MAX]; /* instance i is sets[i - 1] */
	unsigned count;            /* the highest instance, at most ARC_SETS_MAX; 0: none */
	const char *fault;         /* what is wrong with them (4.2.2, 5.2); static; NULL: nothing */
} ArcSets;

void arc_sets_collect(const MimeHeader *header, ArcSets *ret_sets);

/* ---- verifying ---- */

typedef enum ArcStatus {
	ARC_NONE, /* there are no sets */
	ARC_PASS,
	ARC_FAIL,
	ARC_TEMPERROR, /* a key could not be looked up: nobody knows */
	ARC_STATUSES
} ArcStatus;
extern const char *const arc_status_names[]; /* NULL-terminated */

typedef struct ArcResult {
	ArcStatus status; /* ARC_TEMPERROR until decided */
	bool decided;
	unsigned count;     /* the highest instance; 0: no sets, or none that can be read */
	unsigned instance;  /* whose set is wrong; 0: not one alone */
	const char *reason; /* what is wrong; static; NULL: nothing */
} ArcResult;

typedef struct ArcVerify ArcVerify;

/* `header`: up to and with the empty line, or all there is; copied.  `now`: seconds since 1970. */
ArcVerify *arc_verify_new(const char *header, size_t len, int64_t now);
void arc_verify_free(ArcVerify *verify); /* NULL is fine */
bool arc_verify_wants_body(const ArcVerify *verify);
void arc_verify_body(void *verify, const char *data, size_t len); /* a CanonSink */
void arc_verify_body_end(ArcVerify *verify);
char *arc_verify_key_name(const ArcVerify *verify); /* caller frees */
void arc_verify_key(ArcVerify *verify, const DnsAnswer *answer);
void arc_verify_give_up(ArcVerify *verify); /* what is open stays unknown */
const ArcResult *arc_verify_result(const ArcVerify *verify);
/* d= of the seal of set `index` (from 0 to count - 1), as its owner wrote it; NULL: it cannot be
 * read, or the sets were not worth reading. */
const char *arc_verify_sealer(const ArcVerify *verify, unsigned index);

/* Header and body of a message are taken; keys remain to be asked.  Reads the Blob, hence blocks
 * when that is a file.  NULL: it cannot be read. */
K_MUST_CHECK ArcVerify *arc_verify_message(const Blob *message, int64_t now, GError **ret_error);

/* ---- sealing ---- */

typedef struct ArcSealer {
	DkimKey *key;
	const char *domain, *selector; /* d=, s= */
	const char *authserv_id;       /* whose Authentication-Results go into the set */
} ArcSealer;

/* Makes the next set of a message (final, lines ended by CRLF), to be put in front of it.  `status`
 * is what its verification gave.  *ret_instance 0 and "": no set is to be added (5.1: the newest
 * seal says that the chain has failed; 50 sets; nobody knows).  NULL and *ret_error: the header
 * cannot be read, it has no From, the sets are not those that were verified, or the message cannot
 * be read.  Caller frees. */
K_MUST_CHECK char *arc_seal(const ArcSealer *sealer, const Blob *message, ArcStatus status,
			    int64_t now, unsigned *ret_instance, GError **ret_error);
