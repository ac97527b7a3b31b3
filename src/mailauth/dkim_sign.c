/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/dkim_sign.h"

#include <string.h>

#include "base/error.h"
#include "mailauth/dkim_sig.h"
#include "mailauth/sig_writer.h"

#define FIELD_NAME "DKIM-Signature"

/* ---- which fields ---- */

static bool
is_left_out(const char *name)
{
	/* They change on the way, or say nothing (behaviour spec 9.5). */
	static const char *const names[] = {"return-path", "received",       "comments",
					    "keywords",    "dkim-signature", NULL};
	return g_strv_contains(names, name);
}

/* All fields in order, then the oversigned names.  NULL: there is no From. */
static GPtrArray *
names_of(const DkimHeader *header, const DkimSigner *signer)
{
	GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
	bool from = false;
	for (size_t i = 0; i < header->header.n_fields; i++) {
		g_autofree char *name = mime_field_name(&header->header.fields[i]);
		g_strchomp(name);
		bool is_from = strcmp(name, "from") == 0;
		if (*name == '\0' || strpbrk(name, ";:") != NULL || is_left_out(name))
			continue;
		if (names->len >= DKIM_SIGN_NAMES_MAX && (from || !is_from))
			continue;
		from |= is_from;
		g_ptr_array_add(names, g_steal_pointer(&name));
	}
	for (unsigned i = 0; signer->oversign != NULL && signer->oversign[i] != NULL; i++)
		g_ptr_array_add(names, g_ascii_strdown(signer->oversign[i], -1));
	if (!from)
		g_clear_pointer(&names, g_ptr_array_unref);
	return names;
}

/* ---- the field ---- */

static const char *
form_name(CanonForm form)
{
	return form == CANON_RELAXED ? "relaxed" : "simple";
}

/* All of it up to "b=". */
static void
put_field(SigWriter *w, const DkimSigner *s, const GPtrArray *names, const uint8_t *body_hash,
	  int64_t now)
{
	sig_put(w, FIELD_NAME ": ");
	sig_put_tag(w, "v=1; ");
	sig_put_tag(w, "a=%s-sha256; ", dkim_type_name(dkim_key_type(s->key)));
	sig_put_tag(w, "c=%s/%s; ", form_name(s->header_form), form_name(s->body_form));
	sig_put_tag(w, "d=%s; ", s->domain);
	sig_put_tag(w, "i=@%s; ", s->domain);
	sig_put_tag(w, "q=dns/txt; ");
	sig_put_tag(w, "s=%s; ", s->selector);
	sig_put_tag(w, "t=%" G_GINT64_FORMAT "; ", now);
	if (s->lifetime > 0)
		sig_put_tag(w, "x=%" G_GINT64_FORMAT "; ", now + s->lifetime);
	for (guint i = 0; i < names->len; i++)
		sig_put_tag(w, "%s%s", i == 0 ? "h=" : " : ", (char *)g_ptr_array_index(names, i));
	sig_put(w, "; ");
	sig_put(w, "bh=");
	sig_put_base64(w, body_hash, DKIM_HASH_LEN);
	sig_put(w, "; ");
	sig_put(w, "b=");
}

static bool
sign_one(const DkimSigner *s, const DkimHeader *header, const uint8_t *body_hash, int64_t now,
	 GString *out, GError **ret_error)
{
	uint8_t digest[DKIM_HASH_LEN], sig[DKIM_SIG_MAX];
	size_t len;
	g_autoptr(GPtrArray) names = names_of(header, s);
	if (names == NULL)
		return error_set(ret_error, K_ERROR_INPUT, "the message has no From");
	g_autoptr(GString) text = g_string_new(NULL);
	SigWriter w = {.text = text};
	put_field(&w, s, names, body_hash, now);
	g_ptr_array_add(names, NULL);
	const char *value = text->str + strlen(FIELD_NAME ":");
	const Tag b = {.raw = text->str + text->len, .raw_len = 0};
	const MimeField field = {.name = FIELD_NAME,
				 .name_len = strlen(FIELD_NAME),
				 .value = value,
				 .value_len = strlen(value)};
	dkim_hash_message(digest, header, s->header_form, (const char *const *)names->pdata, &field,
			  &b);
	if (!dkim_key_sign(s->key, digest, sig, &len))
		return error_set(ret_error, K_ERROR_TLS, "the key does not sign");
	sig_put_base64(&w, sig, len);
	g_string_append(text, "\r\n");
	g_string_prepend_len(out, text->str, (gssize)text->len);
	return true;
}

/* ---- the message ---- */

char *
dkim_sign(const DkimSigner *signers, size_t n, const Blob *message, int64_t now, GError **ret_error)
{
	size_t len;
	bool cut;
	g_autofree char *data = dkim_read_header(message, &len, &cut, ret_error);
	if (data == NULL)
		return NULL;
	if (cut) {
		error_set(ret_error, K_ERROR_INPUT, "the header is too long");
		return NULL;
	}
	DkimBodies bodies = {0};
	DkimHeader header;
	g_autoptr(GString) out = g_string_new(NULL);
	dkim_header_init(&header, data, len);
	for (size_t i = 0; i < n; i++)
		dkim_bodies_need(&bodies, signers[i].body_form);
	bool ok = header.ok || error_set(ret_error, K_ERROR_INPUT, "the header is malformed");
	ok = ok && dkim_feed_body(message, len, dkim_bodies_feed, &bodies, ret_error);
	if (ok)
		dkim_bodies_end(&bodies);
	for (size_t i = 0; ok && i < n; i++)
		ok = sign_one(&signers[i], &header, bodies.values[signers[i].body_form], now, out,
			      ret_error);
	dkim_bodies_clear(&bodies);
	dkim_header_clear(&header);
	return ok ? g_string_free(g_steal_pointer(&out), FALSE) : NULL;
}
