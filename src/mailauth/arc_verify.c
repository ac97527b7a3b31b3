/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/arc_int.h"

const char *const arc_status_names[] = {"none", "pass", "fail", "temperror", NULL};
_Static_assert(G_N_ELEMENTS(arc_status_names) == ARC_STATUSES + 1, "a name for each status");

struct ArcVerify {
	char *header;
	DkimHeader fields;
	ArcSets sets;
	DkimSig message; /* the newest AMS */
	DkimSig *seals;  /* one a set; NULL: not worth reading */
	DkimBodies bodies;
	unsigned step; /* 0: the key of `message`; then those of the seals, the newest first */
	ArcResult result;
};

static void
decide(ArcVerify *v, ArcStatus status, unsigned instance, const char *reason)
{
	v->result.status = status;
	v->result.instance = instance;
	v->result.reason = reason;
	v->result.decided = true;
}

/* ---- seals ---- */

void
arc_hash_field(DkimHash *hash, const MimeField *field)
{
	size_t len;
	const char *bytes = dkim_field_bytes(field, &len);
	g_autoptr(GString) text = g_string_new(NULL);
	canon_field(CANON_RELAXED, bytes, len, text);
	dkim_hash_add(hash, text->str, text->len);
}

/* A seal covers all sets up to its own in order, itself without b= (5.1.1).  `before` has run over
 * those in front. */
static void
hash_seal(DkimHash *before, const ArcSet *set, DkimSig *seal)
{
	const MimeField *field = set->seal;
	arc_hash_field(before, set->results);
	arc_hash_field(before, set->message);
	DkimHash *own = dkim_hash_copy(before);
	g_autofree char *name = g_strndup(field->name, field->name_len);
	dkim_hash_signature(own, CANON_RELAXED, name, field->value, field->value_len,
			    tags_find(&seal->result.tags, "b"));
	dkim_hash_end(own, seal->digest);
	dkim_hash_free(own);
	arc_hash_field(before, field);
}

static bool
read_seals(ArcVerify *v, int64_t now)
{
	v->seals = g_new0(DkimSig, v->sets.count);
	for (unsigned i = 0; i < v->sets.count; i++) {
		if (dkim_sig_read(&v->seals[i], DKIM_SIG_ARC_SEAL, v->sets.sets[i].seal, now))
			continue;
		decide(v, ARC_FAIL, i + 1, v->seals[i].result.reason);
		return false;
	}
	DkimHash *hash = dkim_hash_new();
	for (unsigned i = 0; i < v->sets.count; i++)
		hash_seal(hash, &v->sets.sets[i], &v->seals[i]);
	dkim_hash_free(hash);
	return true;
}

/* ---- the message ---- */

static void
read_message(ArcVerify *v, int64_t now)
{
	DkimSig *s = &v->message;
	const MimeField *field = v->sets.sets[v->sets.count - 1].message;
	if (!dkim_sig_read(s, DKIM_SIG_ARC_MESSAGE, field, now)) {
		decide(v, ARC_FAIL, v->sets.count, s->result.reason);
		return;
	}
	dkim_hash_message(s->digest, &v->fields, s->header_form,
			  (const char *const *)s->result.names, field,
			  tags_find(&s->result.tags, "b"));
	dkim_bodies_need(&v->bodies, s->body_form);
}

ArcVerify *
arc_verify_new(const char *header, size_t len, int64_t now)
{
	ArcVerify *v = g_new0(ArcVerify, 1);
	v->header = g_memdup2(header, len > 0 ? len : 1);
	v->result.status = ARC_TEMPERROR;
	v->result.reason = "not verified";
	dkim_header_init(&v->fields, v->header, len);
	arc_sets_collect(&v->fields.header, &v->sets);
	v->result.count = v->sets.count;
	if (v->sets.fault != NULL)
		decide(v, ARC_FAIL, 0, v->sets.fault);
	else if (v->sets.count == 0)
		decide(v, ARC_NONE, 0, NULL);
	else if (!v->fields.ok)
		decide(v, ARC_FAIL, 0, "the header is malformed");
	else if (read_seals(v, now))
		read_message(v, now);
	return v;
}

void
arc_verify_free(ArcVerify *v)
{
	if (v == NULL)
		return;
	dkim_sig_clear(&v->message);
	for (unsigned i = 0; v->seals != NULL && i < v->sets.count; i++)
		dkim_sig_clear(&v->seals[i]);
	g_free(v->seals);
	dkim_bodies_clear(&v->bodies);
	dkim_header_clear(&v->fields);
	g_free(v->header);
	g_free(v);
}

bool
arc_verify_wants_body(const ArcVerify *v)
{
	return !v->result.decided;
}

void
arc_verify_body(void *verify, const char *data, size_t len)
{
	dkim_bodies_feed(&((ArcVerify *)verify)->bodies, data, len);
}

/* What a signature has come to; false: that decides the chain. */
static bool
go_on(ArcVerify *v, const DkimSig *s, unsigned instance)
{
	if (s->result.decided && s->result.status == DKIM_TEMP_ERR)
		decide(v, ARC_TEMPERROR, instance, s->result.reason);
	else if (s->result.decided && s->result.status != DKIM_PASS)
		decide(v, ARC_FAIL, instance, s->result.reason);
	return !v->result.decided;
}

void
arc_verify_body_end(ArcVerify *v)
{
	DkimSig *s = &v->message;
	dkim_bodies_end(&v->bodies);
	if (v->result.decided)
		return;
	dkim_sig_body(s, v->bodies.values[s->body_form], v->bodies.bodies[s->body_form].len);
	(void)go_on(v, s, v->sets.count);
}

/* ---- keys ---- */

static DkimSig *
asked(const ArcVerify *v)
{
	return v->step == 0 ? (DkimSig *)&v->message : &v->seals[v->sets.count - v->step];
}

char *
arc_verify_key_name(const ArcVerify *v)
{
	return v->result.decided ? NULL : dkim_sig_key_name(asked(v));
}

/* The same key often has made the next signature as well. */
void
arc_verify_key(ArcVerify *v, const DnsAnswer *answer)
{
	g_autofree char *name = arc_verify_key_name(v);
	while (!v->result.decided) {
		g_autofree char *next = arc_verify_key_name(v);
		if (g_ascii_strcasecmp(next, name) != 0)
			return;
		dkim_sig_key(asked(v), answer);
		unsigned instance = v->step == 0 ? v->sets.count : v->sets.count - v->step + 1;
		if (!go_on(v, asked(v), instance))
			return;
		if (v->step++ == v->sets.count)
			decide(v, ARC_PASS, 0, NULL);
	}
}

void
arc_verify_give_up(ArcVerify *v)
{
	if (!v->result.decided)
		decide(v, ARC_TEMPERROR, 0, "the look-ups took too long");
}

const ArcResult *
arc_verify_result(const ArcVerify *v)
{
	return &v->result;
}

const char *
arc_verify_sealer(const ArcVerify *v, unsigned index)
{
	k_assert(index < v->sets.count);
	return v->seals != NULL ? v->seals[index].result.domain : NULL;
}
