/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One signature field as it is verified: a DKIM-Signature, or one of ARC's two, which are made
 * like it (RFC 8617 4.1.2, 4.1.3).  And the hashes of the body that signatures of one message
 * share.  Inside mailauth/ only; pure. */
#include "mailauth/dkim_int.h"
#include "mailauth/dkim_verify.h"
#include "tx/blob.h"

typedef enum DkimSigKind {
	DKIM_SIG_DKIM,
	DKIM_SIG_ARC_MESSAGE, /* i= is an instance; no v=; covers none of ARC's own fields */
	DKIM_SIG_ARC_SEAL,    /* covers fields by their place, hence no h=, c=, bh= */
	DKIM_SIG_KINDS
} DkimSigKind;

typedef struct DkimSig {
	DkimResult result;
	CanonForm header_form, body_form;
	bool ed25519;
	guchar *sig, *body_hash;
	gsize sig_len;
	int64_t body_len;              /* l=; -1: none */
	uint8_t digest[DKIM_HASH_LEN]; /* of the header fields; the caller's to fill */
} DkimSig;

/* False: decided, it is not usable.  `sig` is zeroed; `field` outlives it. */
bool dkim_sig_read(DkimSig *sig, DkimSigKind kind, const MimeField *field, int64_t now);
void dkim_sig_clear(DkimSig *sig);
/* Not usable as it stands.  Returns false. */
bool dkim_sig_refuse(DkimSig *sig, const char *reason);
/* The body has that hash in the signature's form, and that many canonical bytes. */
void dkim_sig_body(DkimSig *sig, const uint8_t hash[DKIM_HASH_LEN], uint64_t len);
char *dkim_sig_key_name(const DkimSig *sig); /* NULL: decided.  Caller frees. */
void dkim_sig_key(DkimSig *sig, const DnsAnswer *answer);

/* ---- the body ---- */

/* Each form that somebody needs is hashed once. */
typedef struct DkimBodies {
	CanonBody bodies[CANON_FORMS];
	DkimHash *hashes[CANON_FORMS]; /* NULL: nobody needs it */
	uint8_t values[CANON_FORMS][DKIM_HASH_LEN];
} DkimBodies;

void dkim_bodies_need(DkimBodies *bodies, CanonForm form);
bool dkim_bodies_needed(const DkimBodies *bodies, CanonForm form);
void dkim_bodies_feed(void *bodies, const char *data, size_t len); /* a CanonSink */
void dkim_bodies_end(DkimBodies *bodies);                          /* fills `values` */
void dkim_bodies_clear(DkimBodies *bodies);

/* ---- messages in blobs: may block when that is a file ---- */

/* The header with the empty line, or all there is; *ret_cut: the end was not within reach.  NULL:
 * it cannot be read.  Caller frees. */
char *dkim_read_header(const Blob *message, size_t *ret_len, bool *ret_cut, GError **ret_error);
K_MUST_CHECK bool dkim_feed_body(const Blob *message, uint64_t at, CanonSink *sink, void *arg,
				 GError **ret_error);
