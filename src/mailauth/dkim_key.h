/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Keys of DKIM (RFC 6376 3.6.1, RFC 8463) and hashes, on OpenSSL, whose types stay inside
 * mailauth/.  Immutable once made; counted atomically, any thread. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"

#define DKIM_HASH_LEN        32 /* SHA-256 */
#define DKIM_RSA_BITS_MIN    1024
#define DKIM_RSA_BITS_MAX    4096
#define DKIM_RECORD_KEPT_MAX 2048 /* bytes of a key record that is remembered */
#define DKIM_SIG_MAX         512  /* bytes of a signature: RSA with 4096 bits */

typedef enum DkimType { DKIM_RSA, DKIM_ED25519, DKIM_TYPES } DkimType;
const char *dkim_type_name(DkimType type); /* "rsa", "ed25519": the tag k= */

typedef struct DkimKey DkimKey;

DkimKey *dkim_key_ref(DkimKey *key);
void dkim_key_unref(DkimKey *key); /* NULL is fine */
DkimType dkim_key_type(const DkimKey *key);
unsigned dkim_key_bits(const DkimKey *key);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DkimKey, dkim_key_unref)

/* ---- public keys ---- */

typedef struct DkimPublic {
	DkimKey *key;      /* NULL: not usable, `fault` says why */
	const char *fault; /* static */
	bool strict;       /* t=s: i= must be in d= itself */
	bool testing;      /* t=y */
} DkimPublic;

/* False: the text is no DKIM key record at all. */
bool dkim_public_parse(const char *record, DkimPublic *ret_public);
/* The same, from this thread's memory when it has read that text before. */
bool dkim_public_get(const char *record, DkimPublic *ret_public);
void dkim_public_clear(DkimPublic *pub);
bool dkim_key_verify(const DkimKey *key, const uint8_t hash[DKIM_HASH_LEN], const void *sig,
		     size_t sig_len);

/* ---- private keys ---- */

/* PEM, RSA or Ed25519; or an Ed25519 seed in base64, as dkimpy keeps it.  `what` names it in
 * messages. */
K_MUST_CHECK DkimKey *dkim_private_parse(const char *text, const char *what, GError **ret_error);
K_MUST_CHECK DkimKey *dkim_private_new(DkimType type, unsigned bits, GError **ret_error);
char *dkim_private_pem(const DkimKey *key); /* caller frees, wiping it */
char *dkim_key_record(const DkimKey *key);  /* "v=DKIM1; k=...; p=..." */
K_MUST_CHECK bool dkim_key_sign(const DkimKey *key, const uint8_t hash[DKIM_HASH_LEN],
				uint8_t sig[DKIM_SIG_MAX], size_t *ret_len);

/* ---- hashes ---- */

typedef struct DkimHash DkimHash;
DkimHash *dkim_hash_new(void);
DkimHash *dkim_hash_copy(const DkimHash *hash); /* goes on from where that one is */
void dkim_hash_free(DkimHash *hash);
void dkim_hash_add(void *hash, const char *data, size_t len); /* a CanonSink */
void dkim_hash_end(DkimHash *hash, uint8_t ret_hash[DKIM_HASH_LEN]);
