/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/dkim_sig.h"

#include <string.h>

#define B_START_LEN   8
#define KEY_TEXTS_MAX 4 /* TXT records of one name that are looked at */

static void
decide(DkimSig *s, DkimStatus status, const char *word, const char *reason)
{
	s->result.status = status;
	s->result.word = word;
	s->result.reason = reason;
	s->result.decided = true;
}

bool
dkim_sig_refuse(DkimSig *s, const char *reason)
{
	decide(s, DKIM_FAIL, "permerror", reason);
	return false;
}

/* ---- reading a signature (3.5) ---- */

static bool
read_algorithm(DkimSig *s)
{
	const char *a = s->result.algorithm;
	s->ed25519 = strcmp(a, "ed25519-sha256") == 0;
	if (s->ed25519 || strcmp(a, "rsa-sha256") == 0)
		return true;
	decide(s, DKIM_UNKNOWN_ALGO, "permerror",
	       strcmp(a, "rsa-sha1") == 0 ? "rsa-sha1 counts no more (RFC 8301)"
					  : "unknown algorithm");
	return false;
}

static bool
read_forms(DkimSig *s)
{
	static const char *const forms[] = {"simple", "relaxed"};
	g_autofree char *text = tag_squeezed(tags_find(&s->result.tags, "c"));
	g_auto(GStrv) parts = g_strsplit(text != NULL ? text : "simple", "/", 2);
	CanonForm *outs[2] = {&s->header_form, &s->body_form};
	s->header_form = s->body_form = CANON_SIMPLE;
	for (unsigned i = 0; i < 2 && parts[0] != NULL && (i == 0 || parts[1] != NULL); i++) {
		if (strcmp(parts[i], forms[0]) == 0)
			*outs[i] = CANON_SIMPLE;
		else if (strcmp(parts[i], forms[1]) == 0)
			*outs[i] = CANON_RELAXED;
		else
			return dkim_sig_refuse(s, "unknown canonical form (c=)");
	}
	return parts[0] != NULL || dkim_sig_refuse(s, "unknown canonical form (c=)");
}

/* RFC 8617 4.1.2: they are the seal's to cover. */
static bool
is_arc_field(const char *name)
{
	static const char *const names[] = {"ARC-Authentication-Results", "ARC-Message-Signature",
					    "ARC-Seal"};
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
		if (g_ascii_strcasecmp(name, names[i]) == 0)
			return true;
	return false;
}

static bool
read_names(DkimSig *s, DkimSigKind kind)
{
	g_autofree char *text = tag_squeezed(tags_find(&s->result.tags, "h"));
	g_auto(GStrv) names = g_strsplit(text, ":", DKIM_NAMES_MAX + 1);
	bool from = false;
	if (g_strv_length(names) > DKIM_NAMES_MAX)
		return dkim_sig_refuse(s, "too many names in h=");
	for (char **name = names; *name != NULL; name++) {
		if (**name == '\0')
			return dkim_sig_refuse(s, "an empty name in h=");
		if (kind == DKIM_SIG_ARC_MESSAGE && is_arc_field(*name))
			return dkim_sig_refuse(s, "a field of ARC itself is in h=");
		from |= g_ascii_strcasecmp(*name, "From") == 0;
	}
	s->result.names = g_steal_pointer(&names);
	return from || dkim_sig_refuse(s, "From is not signed");
}

/* Who: d=, s=, i=. */
static bool
read_identity(DkimSig *s, DkimSigKind kind)
{
	DkimResult *r = &s->result;
	g_autofree char *selector = tag_squeezed(tags_find(&r->tags, "s"));
	g_autofree char *identity = tag_text(tags_find(&r->tags, "i"));
	if (r->domain == NULL)
		return dkim_sig_refuse(s, "d= is no domain name");
	if (!dkim_domain_ok(selector, 1))
		return dkim_sig_refuse(s, "s= is no name");
	r->selector = g_steal_pointer(&selector);
	if (identity == NULL || kind != DKIM_SIG_DKIM)
		return true;
	const char *at = strrchr(identity, '@');
	if (at == NULL || !dkim_domain_ok(at + 1, 2) || !dkim_domain_within(at + 1, r->domain))
		return dkim_sig_refuse(s, "i= is not within d=");
	r->identity = g_steal_pointer(&identity);
	return true;
}

static bool
read_times(DkimSig *s, int64_t now)
{
	const Tag *t = tags_find(&s->result.tags, "t"), *x = tags_find(&s->result.tags, "x");
	int64_t signed_at = 0, expires = 0;
	if ((t != NULL && !tag_number(t, &signed_at)) || (x != NULL && !tag_number(x, &expires)))
		return dkim_sig_refuse(s, "t= or x= is no time");
	if (x != NULL && t != NULL && expires < signed_at)
		return dkim_sig_refuse(s, "expires before it was made");
	if (x != NULL && expires < now) {
		decide(s, DKIM_FAIL, "fail", "expired");
		return false;
	}
	return true;
}

static bool
read_body(DkimSig *s)
{
	const TagList *tags = &s->result.tags;
	const Tag *l = tags_find(tags, "l"), *q = tags_find(tags, "q");
	gsize hash_len = 0;
	s->body_hash = tag_base64(tags_find(tags, "bh"), &hash_len);
	if (s->body_hash == NULL || hash_len != DKIM_HASH_LEN)
		return dkim_sig_refuse(s, "bh= is no hash");
	s->body_len = -1;
	if (l != NULL && !tag_number(l, &s->body_len))
		return dkim_sig_refuse(s, "l= is no number");
	return q == NULL || tag_has_word(q, "dns/txt") ||
	       dkim_sig_refuse(s, "no known way to the key (q=)");
}

static bool
has_required(DkimSig *s, DkimSigKind kind)
{
	static const char *const required[DKIM_SIG_KINDS][8] = {
		[DKIM_SIG_DKIM] = {"v", "a", "b", "bh", "d", "h", "s"},
		[DKIM_SIG_ARC_MESSAGE] = {"i", "a", "b", "bh", "d", "h", "s"},
		[DKIM_SIG_ARC_SEAL] = {"i", "a", "b", "cv", "d", "s"},
	};
	const TagList *tags = &s->result.tags;
	for (const char *const *name = required[kind]; *name != NULL; name++)
		if (tags_find(tags, *name) == NULL)
			return dkim_sig_refuse(s, "a required tag is missing");
	const Tag *v = tags_find(tags, "v");
	if (kind == DKIM_SIG_DKIM && (v->value_len != 1 || v->value[0] != '1'))
		return dkim_sig_refuse(s, "unknown version");
	if (kind == DKIM_SIG_ARC_SEAL && tags_find(tags, "h") != NULL)
		return dkim_sig_refuse(s, "a seal has no h=");
	return true;
}

bool
dkim_sig_read(DkimSig *s, DkimSigKind kind, const MimeField *field, int64_t now)
{
	DkimResult *r = &s->result;
	r->word = "temperror";
	r->reason = "not verified";
	if (!tags_parse(field->value, field->value_len, &r->tags))
		return dkim_sig_refuse(s, "no tag list");
	g_autofree char *domain = tag_squeezed(tags_find(&r->tags, "d"));
	if (domain != NULL && dkim_domain_ok(domain, 2))
		r->domain = g_steal_pointer(&domain);
	if (!has_required(s, kind))
		return false;
	g_autofree char *b = tag_squeezed(tags_find(&r->tags, "b"));
	r->b_start = g_strndup(b, B_START_LEN);
	r->algorithm = tag_squeezed(tags_find(&r->tags, "a"));
	s->sig = tag_base64(tags_find(&r->tags, "b"), &s->sig_len);
	if (!read_algorithm(s) || !read_identity(s, kind))
		return false;
	if (s->sig == NULL)
		return dkim_sig_refuse(s, "b= is no signature");
	s->header_form = s->body_form = CANON_RELAXED;
	return kind == DKIM_SIG_ARC_SEAL ||
	       (read_forms(s) && read_names(s, kind) && read_body(s) && read_times(s, now));
}

void
dkim_sig_body(DkimSig *s, const uint8_t hash[DKIM_HASH_LEN], uint64_t len)
{
	if (s->result.decided)
		return;
	if (s->body_len >= 0 && (uint64_t)s->body_len != len)
		decide(s, DKIM_FAIL, "policy", "l= is not the length of the body");
	else if (memcmp(s->body_hash, hash, DKIM_HASH_LEN) != 0)
		decide(s, DKIM_FAIL, "fail", "the body has changed");
}

void
dkim_sig_clear(DkimSig *s)
{
	DkimResult *r = &s->result;
	g_free(r->domain);
	g_free(r->selector);
	g_free(r->identity);
	g_free(r->algorithm);
	g_free(r->b_start);
	g_strfreev(r->names);
	tags_clear(&r->tags);
	g_free(s->sig);
	g_free(s->body_hash);
}

/* ---- keys ---- */

char *
dkim_sig_key_name(const DkimSig *s)
{
	if (s->result.decided)
		return NULL;
	return g_strdup_printf("%s._domainkey.%s", s->result.selector, s->result.domain);
}

static void
check_signature(DkimSig *s, const DkimPublic *pub)
{
	DkimResult *r = &s->result;
	r->testing = pub->testing;
	if (pub->key == NULL) {
		dkim_sig_refuse(s, pub->fault);
		return;
	}
	r->key_bits = dkim_key_bits(pub->key);
	const char *at = r->identity != NULL ? strrchr(r->identity, '@') : NULL;
	if ((dkim_key_type(pub->key) == DKIM_ED25519) != s->ed25519)
		dkim_sig_refuse(s, "the key is of another algorithm");
	else if (pub->strict && at != NULL && g_ascii_strcasecmp(at + 1, r->domain) != 0)
		dkim_sig_refuse(s, "the key does not allow subdomains in i=");
	else if (dkim_key_verify(pub->key, s->digest, s->sig, s->sig_len))
		decide(s, DKIM_PASS, "pass", NULL);
	else
		decide(s, DKIM_FAIL, "fail", "the signature does not match");
}

/* 3.6.2.2: what happens with several records is left open.  The first one that is a key record
 * counts. */
static void
read_keys(DkimSig *s, const DnsAnswer *answer)
{
	for (guint i = 0; i < MIN(answer->records->len, KEY_TEXTS_MAX); i++) {
		const DnsRecord *record = g_ptr_array_index(answer->records, i);
		DkimPublic pub;
		if (!dkim_public_get(record->text, &pub))
			continue;
		check_signature(s, &pub);
		dkim_public_clear(&pub);
		return;
	}
	dkim_sig_refuse(s, "the key record cannot be read");
}

void
dkim_sig_key(DkimSig *s, const DnsAnswer *answer)
{
	if (s->result.decided)
		return;
	switch (answer->status) {
	case DNS_OK:
		read_keys(s, answer);
		break;
	case DNS_NODATA:
	case DNS_NXDOMAIN:
		dkim_sig_refuse(s, "there is no key");
		break;
	default:
		decide(s, DKIM_TEMP_ERR, "temperror", "the key cannot be looked up now");
		break;
	}
}
