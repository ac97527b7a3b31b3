/* SPDX-License-Identifier: Apache-2.0 */
#include "smtp/sasl.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "base/ids.h"

static const char *const mech_names[] = {"PLAIN", "LOGIN", "SCRAM-SHA-256"};
_Static_assert(G_N_ELEMENTS(mech_names) == SMTP_SASL_MECHS, "a name for each mechanism");

SmtpSaslMech
smtp_sasl_mech(const char *name, size_t len)
{
	for (unsigned i = 0; i < SMTP_SASL_MECHS; i++) {
		if (strlen(mech_names[i]) == len &&
		    g_ascii_strncasecmp(name, mech_names[i], len) == 0)
			return (SmtpSaslMech)i;
	}
	return SMTP_SASL_MECHS;
}

/* ---- base64 ---- */

static int
digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

uint8_t *
smtp_sasl_decode(const char *text, size_t len, size_t *ret_len)
{
	uint8_t *out = g_malloc(len / 4 * 3 + 1);
	size_t pad = 0, at = 0;
	if (len == 1 && text[0] == '=')
		len = 0;
	bool ok = len % 4 == 0;
	while (ok && pad < 2 && len > pad && text[len - 1 - pad] == '=')
		pad++;
	for (size_t i = 0; ok && i < len; i += 4) {
		uint32_t word = 0;
		size_t digits = i + 4 == len ? 4 - pad : 4;
		for (size_t j = 0; j < 4; j++) {
			int value = j < digits ? digit(text[i + j]) : 0;
			ok = ok && value >= 0;
			word = word << 6 | (uint32_t)(value >= 0 ? value : 0);
		}
		/* bits that are cut off must be 0: one text for one value */
		ok = ok && (digits == 4 || (word & (digits == 3 ? 0xffU : 0xffffU)) == 0);
		for (size_t j = 0; j + 1 < digits; j++)
			out[at++] = (uint8_t)(word >> (16 - 8 * j));
	}
	if (!ok) {
		g_free(out);
		return NULL;
	}
	out[at] = 0;
	*ret_len = at;
	return out;
}

/* ---- life ---- */

static char *
make_nonce(void)
{
	uint8_t random[18];
	ids_random(random, sizeof(random));
	return g_base64_encode(random, sizeof(random)); /* has no ',' */
}

void
smtp_sasl_init(SmtpSasl *sasl, SmtpSaslMech mech, const SmtpSecrets *secrets, const char *nonce)
{
	*sasl = (SmtpSasl){.mech = mech, .secrets = secrets};
	sasl->out = g_string_new(NULL);
	sasl->nonce = nonce != NULL ? g_strdup(nonce) : make_nonce();
}

static void
forget_password(SmtpSasl *sasl)
{
	if (sasl->password != NULL)
		OPENSSL_cleanse(sasl->password, sasl->password_len);
	g_clear_pointer(&sasl->password, g_free);
	sasl->password_len = 0;
}

void
smtp_sasl_clear(SmtpSasl *sasl)
{
	forget_password(sasl);
	if (sasl->out != NULL)
		g_string_free(sasl->out, TRUE);
	g_free(sasl->user);
	g_free(sasl->gs2);
	g_free(sasl->first_bare);
	g_free(sasl->server_first);
	g_free(sasl->nonce);
	OPENSSL_cleanse(sasl, sizeof(*sasl));
}

static bool
is_name(const char *text, size_t len)
{
	return len > 0 && len <= SMTP_SASL_USER_MAX && memchr(text, '\0', len) == NULL &&
	       g_utf8_validate(text, (gssize)len, NULL);
}

static SmtpSaslStep
take_password(SmtpSasl *sasl, const char *data, size_t len)
{
	if (len > SMTP_SECRET_MAX)
		return SMTP_SASL_REJECT;
	sasl->password = g_memdup2(data, len + 1);
	sasl->password_len = len;
	return SMTP_SASL_CHECK;
}

/* ---- PLAIN: [authzid] NUL authcid NUL passwd ---- */

static SmtpSaslStep
plain(SmtpSasl *sasl, const char *data, size_t len)
{
	const char *end = data + len;
	const char *user = memchr(data, '\0', len);
	const char *password = user != NULL ? memchr(user + 1, '\0', (size_t)(end - user - 1))
					    : NULL;
	if (password == NULL)
		return SMTP_SASL_MALFORMED;
	size_t as_len = (size_t)(user - data);
	size_t user_len = (size_t)(password - ++user);
	password++;
	if (memchr(password, '\0', (size_t)(end - password)) != NULL || !is_name(user, user_len))
		return SMTP_SASL_MALFORMED;
	/* nobody may act for somebody else */
	if (as_len > 0 && (as_len != user_len || memcmp(data, user, user_len) != 0))
		return SMTP_SASL_REJECT;
	sasl->user = g_strndup(user, user_len);
	return take_password(sasl, password, (size_t)(end - password));
}

/* ---- LOGIN: name, then password ---- */

static SmtpSaslStep
challenge(SmtpSasl *sasl, const char *text)
{
	g_string_assign(sasl->out, text);
	return SMTP_SASL_CHALLENGE;
}

static SmtpSaslStep
login(SmtpSasl *sasl, const char *data, size_t len)
{
	if (sasl->step == 1) {
		if (!is_name(data, len))
			return SMTP_SASL_MALFORMED;
		sasl->user = g_strndup(data, len);
		return challenge(sasl, "Password:");
	}
	return take_password(sasl, data, len);
}

/* ---- SCRAM (RFC 5802 7) ----
 *
 *   client-first = gs2-header "n=" saslname ",r=" c-nonce [extensions]
 *   gs2-header   = ("n" / "y" / "p=" name) "," ["a=" authzid] ","
 *   server-first = "r=" nonce ",s=" salt ",i=" rounds
 *   client-final = "c=" base64(gs2-header) ",r=" nonce [extensions] ",p=" base64(proof)
 *   server-final = "v=" base64(signature)                                               */

/* A saslname: "=2C" is ',' and "=3D" is '='.  NULL: malformed.  Caller frees. */
static char *
saslname(const char *text, size_t len)
{
	GString *name = g_string_new(NULL);
	bool ok = true;
	for (size_t i = 0; ok && i < len; i++) {
		if (text[i] != '=') {
			g_string_append_c(name, text[i]);
			continue;
		}
		bool comma = len - i >= 3 && memcmp(text + i, "=2C", 3) == 0;
		ok = comma || (len - i >= 3 && memcmp(text + i, "=3D", 3) == 0);
		g_string_append_c(name, comma ? ',' : '=');
		i += 2;
	}
	ok = ok && is_name(name->str, name->len);
	return g_string_free(name, !ok);
}

/* The value of "K=value" up to a comma or the end; moves *at behind it.  NULL: not there. */
static const char *
attribute(const char **at, const char *prefix, size_t *ret_len)
{
	if (!g_str_has_prefix(*at, prefix))
		return NULL;
	const char *value = *at + strlen(prefix);
	*ret_len = strcspn(value, ",");
	*at = value + *ret_len;
	return value;
}

/* Nothing, or extensions: those that begin with "m" must be understood. */
static bool
extensions_ok(const char *at)
{
	return *at == '\0' || (*at == ',' && at[1] != '\0' && strstr(at, ",m=") == NULL);
}

static bool
is_nonce(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] < 0x21 || text[i] > 0x7e)
			return false;
	}
	return len > 0 && len <= 256;
}

/* Returns the place behind the header; NULL: malformed. *ret_as is the authzid, or NULL. */
static const char *
gs2_header(const char *text, char **ret_as)
{
	size_t len = 0;
	if ((text[0] != 'n' && text[0] != 'y') || text[1] != ',')
		return NULL;
	const char *at = text + 2;
	const char *as = attribute(&at, "a=", &len);
	if (*at != ',')
		return NULL;
	if (as != NULL) {
		*ret_as = saslname(as, len);
		if (*ret_as == NULL)
			return NULL;
	}
	return at + 1;
}

static SmtpSaslStep
scram_first(SmtpSasl *sasl, const char *data)
{
	g_autofree char *as = NULL;
	size_t name_len = 0, nonce_len = 0;
	const char *bare = gs2_header(data, &as), *at = bare;
	const char *name = at != NULL ? attribute(&at, "n=", &name_len) : NULL;
	const char *nonce = NULL;
	if (name != NULL && *at == ',') {
		at++;
		nonce = attribute(&at, "r=", &nonce_len);
	}
	if (nonce == NULL || !is_nonce(nonce, nonce_len) || !extensions_ok(at))
		return SMTP_SASL_MALFORMED;
	sasl->user = saslname(name, name_len);
	if (sasl->user == NULL)
		return SMTP_SASL_MALFORMED;
	if (as != NULL && strcmp(as, sasl->user) != 0)
		return SMTP_SASL_REJECT;
	smtp_secrets_scram(sasl->secrets, sasl->user, &sasl->keys);
	g_autofree char *salt = g_base64_encode(sasl->keys.salt, sasl->keys.salt_len);
	char *both = g_strdup_printf("%.*s%s", (int)nonce_len, nonce, sasl->nonce);
	g_free(sasl->nonce);
	sasl->nonce = both;
	sasl->gs2 = g_strndup(data, (size_t)(bare - data));
	sasl->first_bare = g_strdup(bare);
	sasl->server_first = g_strdup_printf("r=%s,s=%s,i=%u", both, salt, sasl->keys.rounds);
	return challenge(sasl, sasl->server_first);
}

static void
hmac(const uint8_t key[SMTP_SCRAM_KEY], const char *text, uint8_t out[SMTP_SCRAM_KEY])
{
	unsigned len = 0;
	k_assert(HMAC(EVP_sha256(), key, SMTP_SCRAM_KEY, (const uint8_t *)text, strlen(text), out,
		      &len) != NULL &&
		 len == SMTP_SCRAM_KEY);
}

/* RFC 5802 3: ClientKey := ClientProof XOR HMAC(StoredKey, AuthMessage); H(ClientKey) fits? */
static bool
proof_fits(const SmtpSasl *sasl, const char *message, const uint8_t proof[SMTP_SCRAM_KEY])
{
	uint8_t key[SMTP_SCRAM_KEY], digest[SMTP_SCRAM_KEY];
	hmac(sasl->keys.stored, message, key);
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] ^= proof[i];
	k_assert(EVP_Digest(key, sizeof(key), digest, NULL, EVP_sha256(), NULL) == 1);
	bool fits = CRYPTO_memcmp(digest, sasl->keys.stored, sizeof(digest)) == 0;
	OPENSSL_cleanse(key, sizeof(key));
	return fits && sasl->keys.known;
}

static bool
equals(const char *text, size_t len, const char *want)
{
	return text != NULL && len == strlen(want) && memcmp(text, want, len) == 0;
}

static SmtpSaslStep
scram_final(SmtpSasl *sasl, const char *data)
{
	size_t binding_len = 0, nonce_len = 0, proof_len = 0;
	const char *at = data, *p = g_strrstr(data, ",p=");
	const char *binding = attribute(&at, "c=", &binding_len), *nonce = NULL;
	if (binding != NULL && *at == ',') {
		at++;
		nonce = attribute(&at, "r=", &nonce_len);
	}
	if (nonce == NULL || p == NULL || p < at)
		return SMTP_SASL_MALFORMED;
	g_autofree char *extensions = g_strndup(at, (size_t)(p - at));
	g_autofree uint8_t *proof = smtp_sasl_decode(p + 3, strlen(p + 3), &proof_len);
	g_autofree char *gs2 = g_base64_encode((const uint8_t *)sasl->gs2, strlen(sasl->gs2));
	if (proof == NULL || proof_len != SMTP_SCRAM_KEY || !extensions_ok(extensions))
		return SMTP_SASL_MALFORMED;
	if (!equals(binding, binding_len, gs2) || !equals(nonce, nonce_len, sasl->nonce))
		return SMTP_SASL_REJECT;
	g_autofree char *message = g_strdup_printf("%s,%s,%.*s", sasl->first_bare,
						   sasl->server_first, (int)(p - data), data);
	if (!proof_fits(sasl, message, proof))
		return SMTP_SASL_REJECT;
	uint8_t signature[SMTP_SCRAM_KEY];
	hmac(sasl->keys.server, message, signature);
	g_autofree char *text = g_base64_encode(signature, sizeof(signature));
	g_string_printf(sasl->out, "v=%s", text);
	return SMTP_SASL_CHALLENGE;
}

static SmtpSaslStep
scram(SmtpSasl *sasl, const char *data, size_t len)
{
	/* SMTP has no room for data in the 235, so the last word is a challenge, and the client
	 * answers it with nothing (RFC 4954 4) */
	if (sasl->step == 3)
		return len == 0 ? SMTP_SASL_ACCEPT : SMTP_SASL_MALFORMED;
	if (memchr(data, '\0', len) != NULL || !g_utf8_validate(data, (gssize)len, NULL))
		return SMTP_SASL_MALFORMED;
	return sasl->step == 1 ? scram_first(sasl, data) : scram_final(sasl, data);
}

/* ---- steps ---- */

SmtpSaslStep
smtp_sasl_begin(SmtpSasl *sasl)
{
	return challenge(sasl, sasl->mech == SMTP_SASL_LOGIN ? "Username:" : "");
}

SmtpSaslStep
smtp_sasl_step(SmtpSasl *sasl, const char *data, size_t len)
{
	sasl->step++;
	switch (sasl->mech) {
	case SMTP_SASL_PLAIN:
		return plain(sasl, data, len);
	case SMTP_SASL_LOGIN:
		return login(sasl, data, len);
	case SMTP_SASL_SCRAM_SHA_256:
		return scram(sasl, data, len);
	case SMTP_SASL_MECHS:
		break;
	}
	k_unreachable();
}
