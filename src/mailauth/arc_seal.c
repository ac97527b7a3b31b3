/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/error.h"
#include "mailauth/arc_int.h"
#include "mailauth/authres.h"
#include "mailauth/sig_writer.h"

#define NAMES_MAX 400 /* in h=; fields beyond are not signed */

/* What the next set is made of. */
typedef struct Sealing {
	const ArcSealer *sealer;
	const DkimHeader *header;
	const ArcSets *sets; /* those that are there */
	const uint8_t *body_hash;
	ArcStatus status;
	unsigned instance;
	int64_t now;
} Sealing;

/* ---- which fields the signature of the message covers ---- */

/* What belongs to the message rather than to its way (RFC 6376 5.4.1), and the signatures that are
 * there (RFC 8617 5.1); never Authentication-Results and ARC's own. */
static bool
is_signed(const char *name)
{
	static const char *const names[] = {"from",
					    "reply-to",
					    "subject",
					    "date",
					    "to",
					    "cc",
					    "sender",
					    "message-id",
					    "in-reply-to",
					    "references",
					    "mime-version",
					    "content-type",
					    "content-id",
					    "content-language",
					    "content-transfer-encoding",
					    "content-description",
					    "content-disposition",
					    "resent-from",
					    "resent-sender",
					    "resent-to",
					    "resent-cc",
					    "resent-date",
					    "resent-message-id",
					    "list-id",
					    "list-help",
					    "list-post",
					    "list-owner",
					    "list-archive",
					    "list-subscribe",
					    "list-unsubscribe",
					    "list-unsubscribe-post",
					    "dkim-signature",
					    NULL};
	return g_strv_contains(names, name);
}

/* Those that are there, and From once more, so that nobody can add one.  NULL: there is none. */
static GPtrArray *
names_of(const DkimHeader *header)
{
	GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
	bool from = false;
	for (size_t i = 0; i < header->header.n_fields; i++) {
		g_autofree char *name = mime_field_name(&header->header.fields[i]);
		g_strchomp(name);
		bool is_from = strcmp(name, "from") == 0;
		if (!is_signed(name) || (names->len >= NAMES_MAX && (from || !is_from)))
			continue;
		from |= is_from;
		g_ptr_array_add(names, g_steal_pointer(&name));
	}
	g_ptr_array_add(names, g_strdup("from"));
	g_ptr_array_add(names, NULL);
	if (!from)
		g_clear_pointer(&names, g_ptr_array_unref);
	return names;
}

/* ---- the fields ---- */

/* A field of `text`, "Name: value", without its line end. */
static MimeField
field_of(const GString *text)
{
	const char *colon = strchr(text->str, ':');
	size_t name = (size_t)(colon - text->str);
	return (MimeField){.name = text->str,
			   .name_len = name,
			   .value = colon + 1,
			   .value_len = text->len - name - 1};
}

static void
put_head(SigWriter *w, const Sealing *s, const char *name)
{
	sig_put_tag(w, "%s: ", name);
	sig_put_tag(w, "i=%u; ", s->instance);
	sig_put_tag(w, "a=%s-sha256; ", dkim_type_name(dkim_key_type(s->sealer->key)));
}

static void
put_who(SigWriter *w, const Sealing *s)
{
	sig_put_tag(w, "d=%s; ", s->sealer->domain);
	sig_put_tag(w, "s=%s; ", s->sealer->selector);
	sig_put_tag(w, "t=%" G_GINT64_FORMAT "; ", s->now);
}

static bool
put_signature(SigWriter *w, const Sealing *s, const uint8_t digest[DKIM_HASH_LEN],
	      GError **ret_error)
{
	uint8_t sig[DKIM_SIG_MAX];
	size_t len;
	if (!dkim_key_sign(s->sealer->key, digest, sig, &len))
		return error_set(ret_error, K_ERROR_TLS, "the key does not sign");
	sig_put_base64(w, sig, len);
	return true;
}

/* b= at the end of `text`, empty. */
static Tag
open_b(const GString *text)
{
	return (Tag){.raw = text->str + text->len};
}

static bool
make_message(const Sealing *s, GString *text, GError **ret_error)
{
	uint8_t digest[DKIM_HASH_LEN];
	SigWriter w = {.text = text};
	g_autoptr(GPtrArray) names = names_of(s->header);
	if (names == NULL)
		return error_set(ret_error, K_ERROR_INPUT, "the message has no From");
	put_head(&w, s, ARC_MESSAGE_NAME);
	sig_put(&w, "c=relaxed/relaxed; ");
	put_who(&w, s);
	for (guint i = 0; i + 1 < names->len; i++)
		sig_put_tag(&w, "%s%s", i == 0 ? "h=" : " : ", (char *)g_ptr_array_index(names, i));
	sig_put(&w, "; ");
	sig_put(&w, "bh=");
	sig_put_base64(&w, s->body_hash, DKIM_HASH_LEN);
	sig_put(&w, "; ");
	sig_put(&w, "b=");
	const Tag b = open_b(text);
	const MimeField field = field_of(text);
	dkim_hash_message(digest, s->header, CANON_RELAXED, (const char *const *)names->pdata,
			  &field, &b);
	return put_signature(&w, s, digest, ret_error);
}

/* A chain that has failed is sealed as if this set were the only one (5.1.2). */
static void
hash_sets(DkimHash *hash, const Sealing *s)
{
	for (unsigned i = 0; s->status != ARC_FAIL && i < s->sets->count; i++) {
		arc_hash_field(hash, s->sets->sets[i].results);
		arc_hash_field(hash, s->sets->sets[i].message);
		arc_hash_field(hash, s->sets->sets[i].seal);
	}
}

static bool
make_seal(const Sealing *s, const GString *results, const GString *message, GString *text,
	  GError **ret_error)
{
	uint8_t digest[DKIM_HASH_LEN];
	SigWriter w = {.text = text};
	put_head(&w, s, ARC_SEAL_NAME);
	sig_put_tag(&w, "cv=%s; ", arc_status_names[s->status]);
	put_who(&w, s);
	sig_put(&w, "b=");
	const Tag b = open_b(text);
	const MimeField fields[] = {field_of(results), field_of(message), field_of(text)};
	DkimHash *hash = dkim_hash_new();
	hash_sets(hash, s);
	arc_hash_field(hash, &fields[0]);
	arc_hash_field(hash, &fields[1]);
	dkim_hash_signature(hash, CANON_RELAXED, ARC_SEAL_NAME, fields[2].value,
			    fields[2].value_len, &b);
	dkim_hash_end(hash, digest);
	dkim_hash_free(hash);
	return put_signature(&w, s, digest, ret_error);
}

/* What we found out ourselves (4.1.1): our own Authentication-Results, put together. */
static GString *
make_results(const Sealing *s)
{
	GString *all = g_string_new(NULL);
	const MimeHeader *header = &s->header->header;
	for (size_t i = 0; i < header->n_fields; i++) {
		const MimeField *field = &header->fields[i];
		if (!mime_field_is(field, AUTHRES_FIELD))
			continue;
		g_autofree char *results = authres_results(field->value, field->value_len,
							   s->sealer->authserv_id);
		if (results != NULL)
			g_string_append_printf(all, ";\r\n\t%s", results);
	}
	if (all->len == 0)
		g_string_append(all, "; none");
	g_autofree char *id = authres_value(s->sealer->authserv_id);
	g_autofree char *head = g_strdup_printf(ARC_RESULTS_NAME ": i=%u; %s", s->instance, id);
	return g_string_prepend(all, head);
}

static char *
make_set(const Sealing *s, GError **ret_error)
{
	g_autoptr(GString) results = make_results(s);
	g_autoptr(GString) message = g_string_new(NULL);
	g_autoptr(GString) seal = g_string_new(NULL);
	if (!make_message(s, message, ret_error) ||
	    !make_seal(s, results, message, seal, ret_error))
		return NULL;
	return g_strconcat(seal->str, "\r\n", message->str, "\r\n", results->str, "\r\n", NULL);
}

/* ---- the message ---- */

/* 0: none is to be added. */
static unsigned
next_instance(const ArcSets *sets, ArcStatus status)
{
	if (status == ARC_TEMPERROR || sets->count == ARC_SETS_MAX ||
	    (sets->count > 0 && sets->sets[sets->count - 1].cv == ARC_CV_FAIL))
		return 0;
	return sets->count + 1;
}

static bool
is_verified(const ArcSets *sets, ArcStatus status)
{
	if (status == ARC_FAIL)
		return true;
	return sets->fault == NULL && (status == ARC_PASS) == (sets->count > 0);
}

static char *
seal(Sealing *s, const Blob *message, size_t header_len, GError **ret_error)
{
	DkimBodies bodies = {0};
	dkim_bodies_need(&bodies, CANON_RELAXED);
	char *set = NULL;
	if (dkim_feed_body(message, header_len, dkim_bodies_feed, &bodies, ret_error)) {
		dkim_bodies_end(&bodies);
		s->body_hash = bodies.values[CANON_RELAXED];
		set = make_set(s, ret_error);
	}
	dkim_bodies_clear(&bodies);
	return set;
}

char *
arc_seal(const ArcSealer *sealer, const Blob *message, ArcStatus status, int64_t now,
	 unsigned *ret_instance, GError **ret_error)
{
	size_t len;
	bool cut;
	g_autofree char *data = dkim_read_header(message, &len, &cut, ret_error);
	if (data == NULL)
		return NULL;
	DkimHeader header;
	ArcSets sets;
	dkim_header_init(&header, data, len);
	arc_sets_collect(&header.header, &sets);
	Sealing s = {.sealer = sealer,
		     .header = &header,
		     .sets = &sets,
		     .status = status,
		     .instance = next_instance(&sets, status),
		     .now = now};
	char *set = NULL;
	/* A line that goes on from none would go on from ours. */
	bool dangling = len > 0 && (data[0] == ' ' || data[0] == '\t');
	if (cut || dangling || !header.ok)
		error_set(ret_error, K_ERROR_INPUT, "the header is malformed");
	else if (s.instance == 0)
		set = g_strdup("");
	else if (!is_verified(&sets, status))
		error_set(ret_error, K_ERROR_INPUT, "these sets were not verified");
	else
		set = seal(&s, message, len, ret_error);
	if (set != NULL)
		*ret_instance = s.instance;
	dkim_header_clear(&header);
	return set;
}
