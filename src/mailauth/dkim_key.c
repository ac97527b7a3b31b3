/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/dkim_key.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "mailauth/tags.h"

#define ED25519_LEN       32
#define EXPONENT_BITS_MAX 64 /* a long one only costs us time */
#define SEED_BASE64_LEN   44

struct DkimKey {
	atomic_int refs;
	EVP_PKEY *pkey;
	DkimType type;
};

static const char *const type_names[] = {"rsa", "ed25519"};
_Static_assert(G_N_ELEMENTS(type_names) == DKIM_TYPES, "a name for each type");

const char *
dkim_type_name(DkimType type)
{
	return type_names[type];
}

static DkimKey *
key_new(EVP_PKEY *pkey) /* moved */
{
	DkimKey *key = g_new0(DkimKey, 1);
	atomic_init(&key->refs, 1);
	key->pkey = pkey;
	key->type = EVP_PKEY_get_base_id(pkey) == EVP_PKEY_RSA ? DKIM_RSA : DKIM_ED25519;
	return key;
}

DkimKey *
dkim_key_ref(DkimKey *key)
{
	atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
	return key;
}

void
dkim_key_unref(DkimKey *key)
{
	if (key == NULL || atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) != 1)
		return;
	EVP_PKEY_free(key->pkey);
	g_free(key);
}

DkimType
dkim_key_type(const DkimKey *key)
{
	return key->type;
}

unsigned
dkim_key_bits(const DkimKey *key)
{
	return (unsigned)EVP_PKEY_get_bits(key->pkey);
}

/* NULL: good to use. */
static const char *
pkey_fault(EVP_PKEY *pkey)
{
	int id = EVP_PKEY_get_base_id(pkey);
	if (id == EVP_PKEY_ED25519)
		return NULL;
	if (id != EVP_PKEY_RSA)
		return "neither an RSA nor an Ed25519 key";
	int bits = EVP_PKEY_get_bits(pkey);
	if (bits < DKIM_RSA_BITS_MIN)
		return "the RSA key is too short";
	if (bits > DKIM_RSA_BITS_MAX)
		return "the RSA key is too long";
	BIGNUM *exponent = NULL;
	bool ok = EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_E, &exponent) == 1 &&
		  BN_num_bits(exponent) <= EXPONENT_BITS_MAX;
	BN_free(exponent);
	return ok ? NULL : "the RSA key's exponent is too long";
}

/* ---- public keys ---- */

/* SubjectPublicKeyInfo, as everybody publishes it, or the bare RSAPublicKey of the RFC. */
static EVP_PKEY *
read_rsa(const guchar *data, gsize len)
{
	const unsigned char *at = data;
	EVP_PKEY *pkey = d2i_PUBKEY(NULL, &at, (long)len);
	if (pkey == NULL) {
		at = data;
		pkey = d2i_PublicKey(EVP_PKEY_RSA, NULL, &at, (long)len);
	}
	ERR_clear_error();
	if (pkey != NULL && EVP_PKEY_get_base_id(pkey) != EVP_PKEY_RSA)
		g_clear_pointer(&pkey, EVP_PKEY_free);
	return pkey;
}

static const char *
read_public(const TagList *tags, DkimPublic *pub)
{
	const Tag *type = tags_find(tags, "k");
	const Tag *hashes = tags_find(tags, "h");
	const Tag *services = tags_find(tags, "s");
	g_autofree char *name = type != NULL ? tag_squeezed(type) : g_strdup("rsa");
	gsize len = 0;
	if (hashes != NULL && !tag_has_word(hashes, "sha256"))
		return "the key is not for sha256";
	if (services != NULL && !tag_has_word(services, "*") && !tag_has_word(services, "email"))
		return "the key is not for mail";
	if (tags_find(tags, "p")->value_len == 0)
		return "the key is revoked";
	g_autofree guchar *data = tag_base64(tags_find(tags, "p"), &len);
	if (data == NULL)
		return "the key is not base64";
	EVP_PKEY *pkey = NULL;
	if (strcmp(name, "rsa") == 0)
		pkey = read_rsa(data, len);
	else if (strcmp(name, "ed25519") != 0)
		return "the key is of an unknown type";
	else if (len == ED25519_LEN)
		pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, data, len);
	if (pkey == NULL)
		return "the key cannot be read";
	const char *fault = pkey_fault(pkey);
	if (fault != NULL)
		EVP_PKEY_free(pkey);
	else
		pub->key = key_new(pkey);
	return fault;
}

bool
dkim_public_parse(const char *record, DkimPublic *ret_public)
{
	TagList tags;
	if (!tags_parse(record, strlen(record), &tags))
		return false;
	const Tag *version = tags_find(&tags, "v");
	bool ok = tags_find(&tags, "p") != NULL;
	/* 3.6.1: optional, but then first and exact. */
	if (version != NULL)
		ok = ok && version == &tags.tags[0] && version->value_len == 5 &&
		     memcmp(version->value, "DKIM1", 5) == 0;
	if (ok) {
		DkimPublic pub = {.strict = tag_has_word(tags_find(&tags, "t"), "s"),
				  .testing = tag_has_word(tags_find(&tags, "t"), "y")};
		pub.fault = read_public(&tags, &pub);
		*ret_public = pub;
	}
	tags_clear(&tags);
	return ok;
}

void
dkim_public_clear(DkimPublic *pub)
{
	dkim_key_unref(pub->key);
	*pub = (DkimPublic){0};
}

static EVP_PKEY_CTX *
rsa_context(EVP_PKEY *pkey, int (*init)(EVP_PKEY_CTX *))
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pkey, NULL);
	if (ctx == NULL || init(ctx) != 1 ||
	    EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) != 1 ||
	    EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) != 1) {
		EVP_PKEY_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

bool
dkim_key_verify(const DkimKey *key, const uint8_t hash[DKIM_HASH_LEN], const void *sig,
		size_t sig_len)
{
	bool ok = false;
	if (key->type == DKIM_RSA) {
		EVP_PKEY_CTX *ctx = rsa_context(key->pkey, EVP_PKEY_verify_init);
		ok = ctx != NULL && EVP_PKEY_verify(ctx, sig, sig_len, hash, DKIM_HASH_LEN) == 1;
		EVP_PKEY_CTX_free(ctx);
	} else { /* RFC 8463 3: the hash is what is signed */
		EVP_MD_CTX *ctx = EVP_MD_CTX_new();
		ok = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key->pkey) == 1 &&
		     EVP_DigestVerify(ctx, sig, sig_len, hash, DKIM_HASH_LEN) == 1;
		EVP_MD_CTX_free(ctx);
	}
	ERR_clear_error();
	return ok;
}

/* ---- private keys ---- */

static EVP_PKEY *
read_private(const char *text)
{
	size_t len = strlen(text);
	EVP_PKEY *pkey = NULL;
	if (strstr(text, "-----BEGIN") != NULL) {
		BIO *bio = BIO_new_mem_buf(text, (int)MIN(len, 1 << 20));
		/* No callback would ask the terminal for a passphrase. */
		pkey = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"") : NULL;
		BIO_free(bio);
		return pkey;
	}
	g_autofree char *seed = g_strstrip(g_strdup(text));
	if (strlen(seed) == SEED_BASE64_LEN) {
		gsize n = 0;
		guchar *raw = g_base64_decode(seed, &n);
		if (n == ED25519_LEN)
			pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, raw, n);
		explicit_bzero(raw, n);
		g_free(raw);
	}
	explicit_bzero(seed, strlen(seed));
	return pkey;
}

DkimKey *
dkim_private_parse(const char *text, const char *what, GError **ret_error)
{
	EVP_PKEY *pkey = read_private(text);
	ERR_clear_error();
	if (pkey == NULL) {
		error_set(ret_error, K_ERROR_CONFIG, "%s: no private key in PEM without passphrase",
			  what);
		return NULL;
	}
	const char *fault = pkey_fault(pkey);
	if (fault == NULL)
		return key_new(pkey);
	EVP_PKEY_free(pkey);
	error_set(ret_error, K_ERROR_CONFIG, "%s: %s", what, fault);
	return NULL;
}

DkimKey *
dkim_private_new(DkimType type, unsigned bits, GError **ret_error)
{
	EVP_PKEY *pkey = type == DKIM_RSA ? EVP_RSA_gen(bits)
					  : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	ERR_clear_error();
	if (pkey != NULL)
		return key_new(pkey);
	error_set(ret_error, K_ERROR_TLS, "the key cannot be made");
	return NULL;
}

char *
dkim_private_pem(const DkimKey *key)
{
	BIO *bio = BIO_new(BIO_s_secmem());
	char *data = NULL;
	k_assert(bio != NULL &&
		 PEM_write_bio_PrivateKey(bio, key->pkey, NULL, NULL, 0, NULL, NULL) == 1);
	long len = BIO_get_mem_data(bio, &data);
	char *pem = g_strndup(data, (gsize)len);
	BIO_free(bio);
	return pem;
}

char *
dkim_key_record(const DkimKey *key)
{
	unsigned char *der = NULL;
	unsigned char raw[ED25519_LEN];
	size_t len = sizeof(raw);
	g_autofree char *base64 = NULL;
	if (key->type == DKIM_RSA) {
		int der_len = i2d_PUBKEY(key->pkey, &der);
		k_assert(der_len > 0);
		base64 = g_base64_encode(der, (gsize)der_len);
		OPENSSL_free(der);
	} else {
		k_assert(EVP_PKEY_get_raw_public_key(key->pkey, raw, &len) == 1);
		base64 = g_base64_encode(raw, len);
	}
	return g_strdup_printf("v=DKIM1; k=%s; p=%s", type_names[key->type], base64);
}

bool
dkim_key_sign(const DkimKey *key, const uint8_t hash[DKIM_HASH_LEN], uint8_t sig[DKIM_SIG_MAX],
	      size_t *ret_len)
{
	size_t len = DKIM_SIG_MAX;
	bool ok;
	if (key->type == DKIM_RSA) {
		EVP_PKEY_CTX *ctx = rsa_context(key->pkey, EVP_PKEY_sign_init);
		ok = ctx != NULL && EVP_PKEY_sign(ctx, sig, &len, hash, DKIM_HASH_LEN) == 1;
		EVP_PKEY_CTX_free(ctx);
	} else {
		EVP_MD_CTX *ctx = EVP_MD_CTX_new();
		ok = ctx != NULL && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key->pkey) == 1 &&
		     EVP_DigestSign(ctx, sig, &len, hash, DKIM_HASH_LEN) == 1;
		EVP_MD_CTX_free(ctx);
	}
	ERR_clear_error();
	if (ok)
		*ret_len = len;
	return ok;
}

/* ---- hashes ---- */

struct DkimHash {
	EVP_MD_CTX *ctx;
};

DkimHash *
dkim_hash_new(void)
{
	DkimHash *hash = g_new0(DkimHash, 1);
	hash->ctx = EVP_MD_CTX_new();
	k_assert(hash->ctx != NULL && EVP_DigestInit_ex(hash->ctx, EVP_sha256(), NULL) == 1);
	return hash;
}

DkimHash *
dkim_hash_copy(const DkimHash *hash)
{
	DkimHash *copy = g_new0(DkimHash, 1);
	copy->ctx = EVP_MD_CTX_new();
	k_assert(copy->ctx != NULL && EVP_MD_CTX_copy_ex(copy->ctx, hash->ctx) == 1);
	return copy;
}

void
dkim_hash_free(DkimHash *hash)
{
	if (hash == NULL)
		return;
	EVP_MD_CTX_free(hash->ctx);
	g_free(hash);
}

void
dkim_hash_add(void *hash, const char *data, size_t len)
{
	k_assert(EVP_DigestUpdate(((DkimHash *)hash)->ctx, data, len) == 1);
}

void
dkim_hash_end(DkimHash *hash, uint8_t ret_hash[DKIM_HASH_LEN])
{
	k_assert(EVP_DigestFinal_ex(hash->ctx, ret_hash, NULL) == 1);
}
