/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Making DKIM signatures (RFC 6376, 8463).  Pure, apart from the file of a key; any thread. */
#include "mailauth/canon.h"
#include "mailauth/dkim_key.h"
#include "tx/blob.h"

#define DKIM_SIGN_NAMES_MAX 400 /* in h=; fields beyond are not signed */

typedef struct DkimSigner {
	DkimKey *key;
	const char *domain, *selector; /* d=, s= */
	CanonForm header_form, body_form;
	const char *const *oversign; /* names listed once more than there are fields, so that none
					can be added; NULL-terminated; may be NULL */
	int64_t lifetime;            /* seconds until x=; 0: none */
} DkimSigner;

/* Signs a message (final, lines ended by CRLF) for each signer in turn.  Returns the fields, each
 * with its line end, the last signer's first: to be put in front.  NULL and *ret_error: the header
 * cannot be read, it has no From, or the message cannot be read.  Caller frees. */
K_MUST_CHECK char *dkim_sign(const DkimSigner *signers, size_t n, const Blob *message, int64_t now,
			     GError **ret_error);

/* ---- the file of a private key, read again when it changes ---- */

typedef struct DkimKeyFile DkimKeyFile;
K_MUST_CHECK DkimKeyFile *dkim_key_file_new(const char *path, GError **ret_error);
void dkim_key_file_free(DkimKeyFile *file); /* NULL is fine */
/* The key as it is now; looks at the file at most once a second.  A file that has become useless
 * leaves the key that was.  Any thread; caller unrefs. */
DkimKey *dkim_key_file_get(DkimKeyFile *file);
