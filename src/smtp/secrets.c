/* SPDX-License-Identifier: Apache-2.0 */
#include "smtp/secrets.h"

#include <crypt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/text.h"
#include "smtp/sasl.h"

#define SCRAM_PREFIX "SCRAM-SHA-256$"
#define HEX          "0123456789abcdef"
#define SALT         16 /* bytes of a new one, and of an invented one */

typedef enum Kind { KIND_SHA256, KIND_CRYPT, KIND_SCRAM } Kind;

typedef struct Entry {
	Kind kind;
	char *text;          /* SHA256, CRYPT: the hash as in the file */
	SmtpScramKeys scram; /* SCRAM */
} Entry;

struct SmtpSecrets {
	atomic_int refs;
	GHashTable *users;  /* char* -> Entry*, both owned */
	GPtrArray *entries; /* Entry*, borrowed, in the order of the file */
	bool slow, scram;
	unsigned rounds;             /* of invented SCRAM keys */
	uint8_t key[SMTP_SCRAM_KEY]; /* of the file: what is invented stays the same */
};

/* ---- hashes ---- */

static void
hmac(const uint8_t *key, size_t key_len, const void *data, size_t len, uint8_t out[SMTP_SCRAM_KEY])
{
	unsigned out_len = 0;
	k_assert(HMAC(EVP_sha256(), key, (int)key_len, data, len, out, &out_len) != NULL);
	k_assert(out_len == SMTP_SCRAM_KEY);
}

static void
sha256(const void *data, size_t len, uint8_t out[SMTP_SCRAM_KEY])
{
	k_assert(EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL) == 1);
}

static char *
sha256_hex(const void *data, size_t len)
{
	uint8_t digest[SMTP_SCRAM_KEY];
	sha256(data, len, digest);
	char *hex = g_malloc(2 * sizeof(digest) + 1);
	for (size_t i = 0; i < sizeof(digest); i++) {
		hex[2 * i] = HEX[digest[i] >> 4];
		hex[2 * i + 1] = HEX[digest[i] & 15];
	}
	hex[2 * sizeof(digest)] = '\0';
	OPENSSL_cleanse(digest, sizeof(digest));
	return hex;
}

/* RFC 5802 3 wants SASLprep of the password; NFKC is what matters of it.  NULL: no UTF-8. */
static char *
prepare(const char *password, size_t len)
{
	if (memchr(password, '\0', len) != NULL || !g_utf8_validate(password, (gssize)len, NULL))
		return NULL;
	return g_utf8_normalize(password, (gssize)len, G_NORMALIZE_NFKC);
}

/* RFC 5802 3: the two keys of a password.  False when it cannot be one. */
static bool
scram_derive(const char *password, size_t len, SmtpScramKeys *keys)
{
	uint8_t salted[SMTP_SCRAM_KEY], client[SMTP_SCRAM_KEY];
	char *text = prepare(password, len);
	bool ok = text != NULL &&
		  PKCS5_PBKDF2_HMAC(text, (int)strlen(text), keys->salt, (int)keys->salt_len,
				    (int)keys->rounds, EVP_sha256(), sizeof(salted), salted) == 1;
	if (ok) {
		hmac(salted, sizeof(salted), "Client Key", 10, client);
		sha256(client, sizeof(client), keys->stored);
		hmac(salted, sizeof(salted), "Server Key", 10, keys->server);
	}
	if (text != NULL)
		OPENSSL_cleanse(text, strlen(text));
	g_free(text);
	OPENSSL_cleanse(salted, sizeof(salted));
	OPENSSL_cleanse(client, sizeof(client));
	return ok;
}

/* ---- the file ---- */

static void
entry_free(void *data)
{
	Entry *entry = data;
	if (entry->text != NULL)
		OPENSSL_cleanse(entry->text, strlen(entry->text));
	g_free(entry->text);
	OPENSSL_cleanse(entry, sizeof(*entry));
	g_free(entry);
}

static bool
take_base64(const char *text, size_t len, uint8_t *out, size_t max, size_t *ret_len)
{
	size_t got = 0;
	g_autofree uint8_t *bytes = smtp_sasl_decode(text, len, &got);
	if (bytes == NULL || got == 0 || got > max)
		return false;
	memcpy(out, bytes, got);
	OPENSSL_cleanse(bytes, got);
	*ret_len = got;
	return true;
}

/* "N:SALT$STORED:SERVER" */
static bool
parse_scram(const char *text, SmtpScramKeys *keys)
{
	uint64_t rounds = 0;
	size_t stored = 0, server = 0;
	const char *salt = strchr(text, ':');
	const char *dollar = salt != NULL ? strchr(salt, '$') : NULL;
	const char *colon = dollar != NULL ? strchr(dollar, ':') : NULL;
	if (colon == NULL ||
	    !text_parse_u64(text, (size_t)(salt - text), SMTP_SCRAM_ROUNDS_MAX, &rounds) ||
	    rounds < SMTP_SCRAM_ROUNDS_MIN)
		return false;
	keys->known = true;
	keys->rounds = (unsigned)rounds;
	return take_base64(salt + 1, (size_t)(dollar - salt - 1), keys->salt, sizeof(keys->salt),
			   &keys->salt_len) &&
	       take_base64(dollar + 1, (size_t)(colon - dollar - 1), keys->stored,
			   sizeof(keys->stored), &stored) &&
	       take_base64(colon + 1, strlen(colon + 1), keys->server, sizeof(keys->server),
			   &server) &&
	       stored == SMTP_SCRAM_KEY && server == SMTP_SCRAM_KEY;
}

static Entry *
parse_entry(const char *text)
{
	Entry *entry = g_new0(Entry, 1);
	bool ok = false;
	if (g_str_has_prefix(text, SCRAM_PREFIX)) {
		entry->kind = KIND_SCRAM;
		ok = parse_scram(text + strlen(SCRAM_PREFIX), &entry->scram);
	} else if (text[0] == '$') {
		int salt = crypt_checksalt(text);
		entry->kind = KIND_CRYPT;
		entry->text = g_strdup(text);
		/* the older methods are the operator's choice; DES and the like have no '$' */
		ok = salt == CRYPT_SALT_OK || salt == CRYPT_SALT_METHOD_LEGACY ||
		     salt == CRYPT_SALT_TOO_CHEAP;
	} else {
		entry->kind = KIND_SHA256;
		entry->text = g_strdup(text);
		ok = strlen(text) == 64 && strspn(text, HEX) == 64;
	}
	if (ok)
		return entry;
	entry_free(entry);
	return NULL;
}

static bool
add_user(SmtpSecrets *secrets, const char *what, const char *user, const json_t *value,
	 GError **ret_error)
{
	const char *text = json_string_value(value);
	Entry *entry = text != NULL ? parse_entry(text) : NULL;
	if (user[0] == '\0' || strlen(user) > SMTP_SECRET_MAX)
		error_set(ret_error, K_ERROR_INPUT, "%s: a user's name is empty or too long", what);
	else if (entry == NULL)
		error_set(ret_error, K_ERROR_INPUT,
			  "%s: user \"%s\": neither 64 lower-case hex digits nor $... nor "
			  "SCRAM-SHA-256$...",
			  what, user);
	else if (g_hash_table_size(secrets->users) >= SMTP_SECRETS_USERS_MAX)
		error_set(ret_error, K_ERROR_FULL, "%s: more than %d users", what,
			  SMTP_SECRETS_USERS_MAX);
	else {
		g_hash_table_insert(secrets->users, g_strdup(user), entry);
		g_ptr_array_add(secrets->entries, entry);
		secrets->slow = secrets->slow || entry->kind != KIND_SHA256;
		if (entry->kind == KIND_SCRAM && !secrets->scram) {
			secrets->scram = true;
			secrets->rounds = entry->scram.rounds;
		}
		return true;
	}
	if (entry != NULL)
		entry_free(entry);
	return false;
}

SmtpSecrets *
smtp_secrets_parse(const char *what, const char *text, size_t len, GError **ret_error)
{
	g_autoptr(json_t) json = json_parse(what, text, len, ret_error);
	if (json == NULL)
		return NULL;
	if (!json_is_object(json)) {
		error_set(ret_error, K_ERROR_INPUT, "%s: not an object of users", what);
		return NULL;
	}
	g_autoptr(SmtpSecrets) secrets = g_new0(SmtpSecrets, 1);
	atomic_init(&secrets->refs, 1);
	secrets->users = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, entry_free);
	secrets->entries = g_ptr_array_new();
	secrets->rounds = SMTP_SCRAM_ROUNDS_MIN;
	sha256(text, len, secrets->key);
	const char *user;
	json_t *value;
	json_object_foreach(json, user, value)
	{
		if (!add_user(secrets, what, user, value, ret_error))
			return NULL;
	}
	return g_steal_pointer(&secrets);
}

SmtpSecrets *
smtp_secrets_load(const char *path, GError **ret_error)
{
	g_autoptr(GError) error = NULL;
	char *text = NULL;
	gsize len = 0;
	if (!g_file_get_contents(path, &text, &len, &error)) {
		error_set(ret_error, K_ERROR_IO, "%s", error->message);
		return NULL;
	}
	SmtpSecrets *secrets = smtp_secrets_parse(path, text, len, ret_error);
	OPENSSL_cleanse(text, len);
	g_free(text);
	return secrets;
}

SmtpSecrets *
smtp_secrets_ref(SmtpSecrets *secrets)
{
	atomic_fetch_add_explicit(&secrets->refs, 1, memory_order_relaxed);
	return secrets;
}

void
smtp_secrets_unref(SmtpSecrets *secrets)
{
	if (secrets == NULL ||
	    atomic_fetch_sub_explicit(&secrets->refs, 1, memory_order_acq_rel) > 1)
		return;
	g_hash_table_unref(secrets->users);
	g_ptr_array_unref(secrets->entries);
	OPENSSL_cleanse(secrets->key, sizeof(secrets->key));
	g_free(secrets);
}

/* ---- checking ---- */

static bool
check_sha256(const Entry *entry, const char *password, size_t len)
{
	char *hex = sha256_hex(password, len);
	bool ok = CRYPTO_memcmp(hex, entry->text, 64) == 0;
	OPENSSL_cleanse(hex, 64);
	g_free(hex);
	return ok;
}

static bool
check_crypt(const Entry *entry, const char *password, size_t len)
{
	struct crypt_data *data = g_new0(struct crypt_data, 1);
	char *phrase = g_strndup(password, len); /* crypt wants a string */
	const char *hash = crypt_r(phrase, entry->text, data);
	bool ok = hash != NULL && hash[0] != '*' && strlen(hash) == strlen(entry->text) &&
		  CRYPTO_memcmp(hash, entry->text, strlen(hash)) == 0 && strlen(phrase) == len;
	OPENSSL_cleanse(phrase, strlen(phrase));
	g_free(phrase);
	OPENSSL_cleanse(data, sizeof(*data));
	g_free(data);
	return ok;
}

static bool
check_scram(const Entry *entry, const char *password, size_t len)
{
	SmtpScramKeys keys = entry->scram;
	bool ok = scram_derive(password, len, &keys) &&
		  CRYPTO_memcmp(keys.stored, entry->scram.stored, SMTP_SCRAM_KEY) == 0;
	OPENSSL_cleanse(&keys, sizeof(keys));
	return ok;
}

static bool
check_entry(const Entry *entry, const char *password, size_t len)
{
	switch (entry->kind) {
	case KIND_SHA256:
		return check_sha256(entry, password, len);
	case KIND_CRYPT:
		return check_crypt(entry, password, len);
	case KIND_SCRAM:
		return check_scram(entry, password, len);
	}
	k_unreachable();
}

/* Whose hash an unknown user's password is compared with. */
static const Entry *
stand_in(const SmtpSecrets *secrets, const char *user)
{
	uint8_t mac[SMTP_SCRAM_KEY];
	uint32_t number;
	hmac(secrets->key, sizeof(secrets->key), user, strlen(user), mac);
	memcpy(&number, mac, sizeof(number));
	return g_ptr_array_index(secrets->entries, number % secrets->entries->len);
}

bool
smtp_secrets_check(const SmtpSecrets *secrets, const char *user, const char *password, size_t len)
{
	if (secrets->entries->len == 0)
		return false;
	/* looked up in any case, so that both ways do the same */
	const Entry *other = stand_in(secrets, user);
	const Entry *entry = g_hash_table_lookup(secrets->users, user);
	bool fits = check_entry(entry != NULL ? entry : other, password, len);
	return fits && entry != NULL;
}

bool
smtp_secrets_are_slow(const SmtpSecrets *secrets)
{
	return secrets->slow;
}

bool
smtp_secrets_have_scram(const SmtpSecrets *secrets)
{
	return secrets->scram;
}

void
smtp_secrets_scram(const SmtpSecrets *secrets, const char *user, SmtpScramKeys *ret_keys)
{
	uint8_t mac[SMTP_SCRAM_KEY];
	const Entry *entry = g_hash_table_lookup(secrets->users, user);
	hmac(secrets->key, sizeof(secrets->key), user, strlen(user), mac);
	if (entry != NULL && entry->kind == KIND_SCRAM) {
		*ret_keys = entry->scram;
		return;
	}
	*ret_keys = (SmtpScramKeys){.rounds = secrets->rounds, .salt_len = SALT};
	memcpy(ret_keys->salt, mac, SALT);
}

/* ---- new entries ---- */

char *
smtp_secret_sha256(const char *password)
{
	return sha256_hex(password, strlen(password));
}

char *
smtp_secret_crypt(const char *password, GError **ret_error)
{
	uint8_t random[SALT];
	char setting[CRYPT_GENSALT_OUTPUT_SIZE];
	ids_random(random, sizeof(random));
	if (crypt_gensalt_rn("$y$", 0, (const char *)random, sizeof(random), setting,
			     sizeof(setting)) == NULL) {
		error_set(ret_error, K_ERROR_IO, "the system's crypt has no yescrypt");
		return NULL;
	}
	struct crypt_data *data = g_new0(struct crypt_data, 1);
	const char *hash = crypt_r(password, setting, data);
	char *copy = hash != NULL && hash[0] == '$' ? g_strdup(hash) : NULL;
	OPENSSL_cleanse(data, sizeof(*data));
	g_free(data);
	if (copy == NULL)
		error_set(ret_error, K_ERROR_IO, "the system's crypt has failed");
	return copy;
}

char *
smtp_secret_scram(const char *password, unsigned rounds, GError **ret_error)
{
	SmtpScramKeys keys = {.rounds = rounds, .salt_len = SALT};
	k_assert(rounds >= SMTP_SCRAM_ROUNDS_MIN && rounds <= SMTP_SCRAM_ROUNDS_MAX);
	ids_random(keys.salt, SALT);
	if (!scram_derive(password, strlen(password), &keys)) {
		error_set(ret_error, K_ERROR_INPUT, "the password is not UTF-8");
		return NULL;
	}
	g_autofree char *salt = g_base64_encode(keys.salt, SALT);
	g_autofree char *stored = g_base64_encode(keys.stored, SMTP_SCRAM_KEY);
	g_autofree char *server = g_base64_encode(keys.server, SMTP_SCRAM_KEY);
	return g_strdup_printf(SCRAM_PREFIX "%u:%s$%s:%s", rounds, salt, stored, server);
}
