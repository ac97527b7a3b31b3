/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/dkim_verify.h"

#include <string.h>

#include "mailauth/dkim_int.h"

#define FIELD_NAME    "DKIM-Signature"
#define B_START_LEN   8
#define KEY_TEXTS_MAX 4 /* TXT records of one name that are looked at */

typedef struct Signature {
	DkimResult result;
	CanonForm header_form, body_form;
	bool ed25519;
	guchar *sig, *body_hash;
	gsize sig_len;
	int64_t body_len;              /* l=; -1: none */
	uint8_t digest[DKIM_HASH_LEN]; /* of the header fields */
} Signature;

struct DkimVerify {
	char *header;
	DkimHeader fields;
	Signature signatures[DKIM_SIGNATURES_MAX];
	unsigned count;
	CanonBody bodies[CANON_FORMS];
	DkimHash *hashes[CANON_FORMS]; /* NULL: nobody needs it */
};

static void
decide(Signature *s, DkimStatus status, const char *word, const char *reason)
{
	s->result.status = status;
	s->result.word = word;
	s->result.reason = reason;
	s->result.decided = true;
}

/* Not usable as it stands.  Returns false. */
static bool
refuse(Signature *s, const char *reason)
{
	decide(s, DKIM_FAIL, "permerror", reason);
	return false;
}

/* ---- reading a signature (3.5) ---- */

static bool
read_algorithm(Signature *s)
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
read_forms(Signature *s)
{
	static const char *const forms[] = {"simple", "relaxed"};
	g_autofree char *text = tag_squeezed(tags_find(&s->result.tags, "c"));
	g_auto(GStrv) parts = g_strsplit(text != NULL ? text : "simple", "/", 2);
	CanonForm *outs[2] = {&s->header_form, &s->body_form};
	for (unsigned i = 0; i < 2 && parts[0] != NULL && (i == 0 || parts[1] != NULL); i++) {
		if (strcmp(parts[i], forms[0]) == 0)
			*outs[i] = CANON_SIMPLE;
		else if (strcmp(parts[i], forms[1]) == 0)
			*outs[i] = CANON_RELAXED;
		else
			return refuse(s, "unknown canonical form (c=)");
	}
	return parts[0] != NULL || refuse(s, "unknown canonical form (c=)");
}

static bool
read_names(Signature *s)
{
	g_autofree char *text = tag_squeezed(tags_find(&s->result.tags, "h"));
	g_auto(GStrv) names = g_strsplit(text, ":", DKIM_NAMES_MAX + 1);
	bool from = false;
	if (g_strv_length(names) > DKIM_NAMES_MAX)
		return refuse(s, "too many names in h=");
	for (char **name = names; *name != NULL; name++) {
		if (**name == '\0')
			return refuse(s, "an empty name in h=");
		from |= g_ascii_strcasecmp(*name, "From") == 0;
	}
	s->result.names = g_steal_pointer(&names);
	return from || refuse(s, "From is not signed");
}

/* Who: d=, s=, i=. */
static bool
read_identity(Signature *s)
{
	DkimResult *r = &s->result;
	g_autofree char *selector = tag_squeezed(tags_find(&r->tags, "s"));
	g_autofree char *identity = tag_text(tags_find(&r->tags, "i"));
	if (r->domain == NULL)
		return refuse(s, "d= is no domain name");
	if (!dkim_domain_ok(selector, 1))
		return refuse(s, "s= is no name");
	r->selector = g_steal_pointer(&selector);
	if (identity == NULL)
		return true;
	const char *at = strrchr(identity, '@');
	if (at == NULL || !dkim_domain_ok(at + 1, 2) || !dkim_domain_within(at + 1, r->domain))
		return refuse(s, "i= is not within d=");
	r->identity = g_steal_pointer(&identity);
	return true;
}

static bool
read_times(Signature *s, int64_t now)
{
	const Tag *t = tags_find(&s->result.tags, "t"), *x = tags_find(&s->result.tags, "x");
	int64_t signed_at = 0, expires = 0;
	if ((t != NULL && !tag_number(t, &signed_at)) || (x != NULL && !tag_number(x, &expires)))
		return refuse(s, "t= or x= is no time");
	if (x != NULL && t != NULL && expires < signed_at)
		return refuse(s, "expires before it was made");
	if (x != NULL && expires < now) {
		decide(s, DKIM_FAIL, "fail", "expired");
		return false;
	}
	return true;
}

static bool
read_data(Signature *s)
{
	const TagList *tags = &s->result.tags;
	const Tag *l = tags_find(tags, "l"), *q = tags_find(tags, "q");
	gsize hash_len = 0;
	s->sig = tag_base64(tags_find(tags, "b"), &s->sig_len);
	s->body_hash = tag_base64(tags_find(tags, "bh"), &hash_len);
	if (s->sig == NULL || s->body_hash == NULL || hash_len != DKIM_HASH_LEN)
		return refuse(s, "b= or bh= is no signature");
	s->body_len = -1;
	if (l != NULL && !tag_number(l, &s->body_len))
		return refuse(s, "l= is no number");
	return q == NULL || tag_has_word(q, "dns/txt") || refuse(s, "no known way to the key (q=)");
}

static bool
read_signature(Signature *s, const MimeField *field, int64_t now)
{
	static const char *const required[] = {"v", "a", "b", "bh", "d", "h", "s"};
	DkimResult *r = &s->result;
	if (!tags_parse(field->value, field->value_len, &r->tags))
		return refuse(s, "no tag list");
	g_autofree char *domain = tag_squeezed(tags_find(&r->tags, "d"));
	if (domain != NULL && dkim_domain_ok(domain, 2))
		r->domain = g_steal_pointer(&domain);
	for (size_t i = 0; i < G_N_ELEMENTS(required); i++)
		if (tags_find(&r->tags, required[i]) == NULL)
			return refuse(s, "a required tag is missing");
	const Tag *v = tags_find(&r->tags, "v");
	if (v->value_len != 1 || v->value[0] != '1')
		return refuse(s, "unknown version");
	g_autofree char *b = tag_squeezed(tags_find(&r->tags, "b"));
	r->b_start = g_strndup(b, B_START_LEN);
	r->algorithm = tag_squeezed(tags_find(&r->tags, "a"));
	return read_algorithm(s) && read_forms(s) && read_names(s) && read_identity(s) &&
	       read_data(s) && read_times(s, now);
}

static void
hash_header(const DkimVerify *v, Signature *s, const MimeField *field)
{
	DkimHash *hash = dkim_hash_new();
	g_autofree char *name = g_strndup(field->name, field->name_len);
	dkim_hash_fields(hash, &v->fields, s->header_form, (const char *const *)s->result.names);
	dkim_hash_signature(hash, s->header_form, name, field->value, field->value_len,
			    tags_find(&s->result.tags, "b"));
	dkim_hash_end(hash, s->digest);
	dkim_hash_free(hash);
}

static void
add_signature(DkimVerify *v, const MimeField *field, int64_t now)
{
	Signature *s = &v->signatures[v->count++];
	s->result.word = "temperror";
	s->result.reason = "not verified";
	if (!v->fields.ok) {
		refuse(s, "the header is malformed");
		return;
	}
	if (!read_signature(s, field, now))
		return;
	hash_header(v, s, field);
	CanonForm form = s->body_form;
	if (v->hashes[form] == NULL) {
		v->hashes[form] = dkim_hash_new();
		canon_body_init(&v->bodies[form], form, dkim_hash_add, v->hashes[form]);
	}
}

DkimVerify *
dkim_verify_new(const char *header, size_t len, int64_t now)
{
	DkimVerify *v = g_new0(DkimVerify, 1);
	v->header = g_memdup2(header, len > 0 ? len : 1);
	dkim_header_init(&v->fields, v->header, len);
	for (size_t i = 0; i < v->fields.header.n_fields && v->count < DKIM_SIGNATURES_MAX; i++) {
		const MimeField *field = &v->fields.header.fields[i];
		if (mime_field_is(field, FIELD_NAME))
			add_signature(v, field, now);
	}
	return v;
}

static void
signature_clear(Signature *s)
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

void
dkim_verify_free(DkimVerify *v)
{
	if (v == NULL)
		return;
	for (unsigned i = 0; i < v->count; i++)
		signature_clear(&v->signatures[i]);
	for (unsigned i = 0; i < CANON_FORMS; i++)
		dkim_hash_free(v->hashes[i]);
	dkim_header_clear(&v->fields);
	g_free(v->header);
	g_free(v);
}

unsigned
dkim_verify_count(const DkimVerify *v)
{
	return v->count;
}

const DkimResult *
dkim_verify_result(const DkimVerify *v, unsigned index)
{
	k_assert(index < v->count);
	return &v->signatures[index].result;
}

/* ---- the body ---- */

bool
dkim_verify_wants_body(const DkimVerify *v)
{
	return v->hashes[CANON_SIMPLE] != NULL || v->hashes[CANON_RELAXED] != NULL;
}

void
dkim_verify_body(DkimVerify *v, const char *data, size_t len)
{
	for (unsigned i = 0; i < CANON_FORMS; i++)
		if (v->hashes[i] != NULL)
			canon_body_feed(&v->bodies[i], data, len);
}

static void
compare_body(Signature *s, const uint8_t hash[DKIM_HASH_LEN], uint64_t len)
{
	if (s->result.decided)
		return;
	if (s->body_len >= 0 && (uint64_t)s->body_len != len)
		decide(s, DKIM_FAIL, "policy", "l= is not the length of the body");
	else if (memcmp(s->body_hash, hash, DKIM_HASH_LEN) != 0)
		decide(s, DKIM_FAIL, "fail", "the body has changed");
}

void
dkim_verify_body_end(DkimVerify *v)
{
	for (unsigned i = 0; i < CANON_FORMS; i++) {
		uint8_t hash[DKIM_HASH_LEN];
		if (v->hashes[i] == NULL)
			continue;
		canon_body_end(&v->bodies[i]);
		dkim_hash_end(v->hashes[i], hash);
		for (unsigned j = 0; j < v->count; j++)
			if (v->signatures[j].body_form == i)
				compare_body(&v->signatures[j], hash, v->bodies[i].len);
	}
}

/* ---- keys ---- */

char *
dkim_verify_key_name(const DkimVerify *v, unsigned index)
{
	const DkimResult *r = dkim_verify_result(v, index);
	if (r->decided)
		return NULL;
	return g_strdup_printf("%s._domainkey.%s", r->selector, r->domain);
}

static void
check_signature(Signature *s, const DkimPublic *pub)
{
	DkimResult *r = &s->result;
	r->testing = pub->testing;
	if (pub->key == NULL) {
		refuse(s, pub->fault);
		return;
	}
	r->key_bits = dkim_key_bits(pub->key);
	const char *at = r->identity != NULL ? strrchr(r->identity, '@') : NULL;
	if ((dkim_key_type(pub->key) == DKIM_ED25519) != s->ed25519)
		refuse(s, "the key is of another algorithm");
	else if (pub->strict && at != NULL && g_ascii_strcasecmp(at + 1, r->domain) != 0)
		refuse(s, "the key does not allow subdomains in i=");
	else if (dkim_key_verify(pub->key, s->digest, s->sig, s->sig_len))
		decide(s, DKIM_PASS, "pass", NULL);
	else
		decide(s, DKIM_FAIL, "fail", "the signature does not match");
}

/* 3.6.2.2: what happens with several records is left open.  The first one that is a key record
 * counts. */
static void
read_keys(Signature *s, const DnsAnswer *answer)
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
	refuse(s, "the key record cannot be read");
}

void
dkim_verify_key(DkimVerify *v, unsigned index, const DnsAnswer *answer)
{
	k_assert(index < v->count);
	Signature *s = &v->signatures[index];
	if (s->result.decided)
		return;
	switch (answer->status) {
	case DNS_OK:
		read_keys(s, answer);
		break;
	case DNS_NODATA:
	case DNS_NXDOMAIN:
		refuse(s, "there is no key");
		break;
	default:
		decide(s, DKIM_TEMP_ERR, "temperror", "the key cannot be looked up now");
		break;
	}
}
