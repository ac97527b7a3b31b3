/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/dkim_verify.h"

#include <string.h>

#include "mailauth/dkim_sig.h"

#define FIELD_NAME "DKIM-Signature"

struct DkimVerify {
	char *header;
	DkimHeader fields;
	DkimSig signatures[DKIM_SIGNATURES_MAX];
	unsigned count;
	DkimBodies bodies;
};

static void
add_signature(DkimVerify *v, const MimeField *field, int64_t now)
{
	DkimSig *s = &v->signatures[v->count++];
	if (!v->fields.ok) {
		dkim_sig_refuse(s, "the header is malformed");
		return;
	}
	if (!dkim_sig_read(s, DKIM_SIG_DKIM, field, now))
		return;
	dkim_hash_message(s->digest, &v->fields, s->header_form,
			  (const char *const *)s->result.names, field,
			  tags_find(&s->result.tags, "b"));
	dkim_bodies_need(&v->bodies, s->body_form);
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

void
dkim_verify_free(DkimVerify *v)
{
	if (v == NULL)
		return;
	for (unsigned i = 0; i < v->count; i++)
		dkim_sig_clear(&v->signatures[i]);
	dkim_bodies_clear(&v->bodies);
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
	return dkim_bodies_needed(&v->bodies, CANON_SIMPLE) ||
	       dkim_bodies_needed(&v->bodies, CANON_RELAXED);
}

void
dkim_verify_body(DkimVerify *v, const char *data, size_t len)
{
	dkim_bodies_feed(&v->bodies, data, len);
}

void
dkim_verify_body_end(DkimVerify *v)
{
	dkim_bodies_end(&v->bodies);
	for (unsigned i = 0; i < v->count; i++) {
		CanonForm form = v->signatures[i].body_form;
		if (dkim_bodies_needed(&v->bodies, form))
			dkim_sig_body(&v->signatures[i], v->bodies.values[form],
				      v->bodies.bodies[form].len);
	}
}

/* ---- keys ---- */

char *
dkim_verify_key_name(const DkimVerify *v, unsigned index)
{
	k_assert(index < v->count);
	return dkim_sig_key_name(&v->signatures[index]);
}

void
dkim_verify_key(DkimVerify *v, unsigned index, const DnsAnswer *answer)
{
	k_assert(index < v->count);
	dkim_sig_key(&v->signatures[index], answer);
}
