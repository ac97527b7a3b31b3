/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/dkim_sign.h"

#include <string.h>

#include "base/error.h"
#include "mailauth/dkim_int.h"

#define FIELD_NAME "DKIM-Signature"
#define LINE_MAX_  72 /* where lines of the field are folded */
#define PIECE      (64 * 1024)

/* The field under construction; `column` counts since the last line end. */
typedef struct Writer {
	GString *text;
	size_t column;
} Writer;

/* Appends a piece that stays whole, on a new line when it would not fit. */
static void
put(Writer *w, const char *piece)
{
	size_t len = strlen(piece);
	if (w->column + len > LINE_MAX_ && w->column > 1) {
		if (w->text->str[w->text->len - 1] == ' ')
			g_string_truncate(w->text, w->text->len - 1);
		g_string_append(w->text, "\r\n\t");
		w->column = 1;
		while (*piece == ' ') {
			piece++;
			len--;
		}
	}
	g_string_append_len(w->text, piece, (gssize)len);
	w->column += len;
}

static void put_tag(Writer *w, const char *format, ...) K_PRINTF(2, 3);

static void
put_tag(Writer *w, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	g_autofree char *text = g_strdup_vprintf(format, args);
	va_end(args);
	put(w, text);
}

static void
put_base64(Writer *w, const void *data, size_t len)
{
	g_autofree char *digits = g_base64_encode(data, len);
	for (const char *at = digits; *at != '\0';) {
		if (w->column >= LINE_MAX_) {
			g_string_append(w->text, "\r\n\t");
			w->column = 1;
		}
		size_t n = MIN(strlen(at), LINE_MAX_ - w->column);
		g_string_append_len(w->text, at, (gssize)n);
		w->column += n;
		at += n;
	}
}

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
put_field(Writer *w, const DkimSigner *s, const GPtrArray *names, const uint8_t *body_hash,
	  int64_t now)
{
	put(w, FIELD_NAME ": ");
	put_tag(w, "v=1; ");
	put_tag(w, "a=%s-sha256; ", dkim_type_name(dkim_key_type(s->key)));
	put_tag(w, "c=%s/%s; ", form_name(s->header_form), form_name(s->body_form));
	put_tag(w, "d=%s; ", s->domain);
	put_tag(w, "i=@%s; ", s->domain);
	put_tag(w, "q=dns/txt; ");
	put_tag(w, "s=%s; ", s->selector);
	put_tag(w, "t=%" G_GINT64_FORMAT "; ", now);
	if (s->lifetime > 0)
		put_tag(w, "x=%" G_GINT64_FORMAT "; ", now + s->lifetime);
	for (guint i = 0; i < names->len; i++)
		put_tag(w, "%s%s", i == 0 ? "h=" : " : ", (char *)g_ptr_array_index(names, i));
	put(w, "; ");
	put(w, "bh=");
	put_base64(w, body_hash, DKIM_HASH_LEN);
	put(w, "; ");
	put(w, "b=");
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
	Writer w = {.text = text};
	put_field(&w, s, names, body_hash, now);
	g_ptr_array_add(names, NULL);
	const char *value = text->str + strlen(FIELD_NAME ":");
	const Tag b = {.raw = text->str + text->len, .raw_len = 0};
	DkimHash *hash = dkim_hash_new();
	dkim_hash_fields(hash, header, s->header_form, (const char *const *)names->pdata);
	dkim_hash_signature(hash, s->header_form, FIELD_NAME, value, strlen(value), &b);
	dkim_hash_end(hash, digest);
	dkim_hash_free(hash);
	if (!dkim_key_sign(s->key, digest, sig, &len))
		return error_set(ret_error, K_ERROR_TLS, "the key does not sign");
	put_base64(&w, sig, len);
	g_string_append(text, "\r\n");
	g_string_prepend_len(out, text->str, (gssize)text->len);
	return true;
}

/* ---- the message ---- */

typedef struct Hashes {
	CanonBody bodies[CANON_FORMS];
	DkimHash *hashes[CANON_FORMS]; /* NULL: nobody needs it */
	uint8_t values[CANON_FORMS][DKIM_HASH_LEN];
} Hashes;

static bool
hash_body(Hashes *h, const Blob *message, uint64_t at, GError **ret_error)
{
	g_autofree char *piece = g_malloc(PIECE);
	for (;;) {
		size_t got;
		if (!blob_read(message, at, piece, PIECE, &got, ret_error))
			return false;
		for (unsigned i = 0; i < CANON_FORMS; i++)
			if (h->hashes[i] != NULL)
				canon_body_feed(&h->bodies[i], piece, got);
		if (got == 0)
			break;
		at += got;
	}
	for (unsigned i = 0; i < CANON_FORMS; i++) {
		if (h->hashes[i] == NULL)
			continue;
		canon_body_end(&h->bodies[i]);
		dkim_hash_end(h->hashes[i], h->values[i]);
	}
	return true;
}

static void
hashes_init(Hashes *h, const DkimSigner *signers, size_t n)
{
	*h = (Hashes){0};
	for (size_t i = 0; i < n; i++) {
		CanonForm form = signers[i].body_form;
		if (h->hashes[form] != NULL)
			continue;
		h->hashes[form] = dkim_hash_new();
		canon_body_init(&h->bodies[form], form, dkim_hash_add, h->hashes[form]);
	}
}

static void
hashes_clear(Hashes *h)
{
	for (unsigned i = 0; i < CANON_FORMS; i++)
		dkim_hash_free(h->hashes[i]);
}

char *
dkim_sign(const DkimSigner *signers, size_t n, const Blob *message, int64_t now, GError **ret_error)
{
	size_t room = (size_t)MIN(blob_len(message), (uint64_t)MIME_HEADER_BLOCK_MAX), got;
	g_autofree char *data = g_malloc(room + 1);
	if (!blob_read(message, 0, data, room, &got, ret_error))
		return NULL;
	size_t end = mime_header_end(data, got);
	if (end == 0 && got == MIME_HEADER_BLOCK_MAX) {
		error_set(ret_error, K_ERROR_INPUT, "the header is too long");
		return NULL;
	}
	size_t len = end > 0 ? end : got; /* without an empty line it is all header */
	Hashes hashes;
	DkimHeader header;
	g_autoptr(GString) out = g_string_new(NULL);
	dkim_header_init(&header, data, len);
	hashes_init(&hashes, signers, n);
	bool ok = header.ok || error_set(ret_error, K_ERROR_INPUT, "the header is malformed");
	ok = ok && hash_body(&hashes, message, len, ret_error);
	for (size_t i = 0; ok && i < n; i++)
		ok = sign_one(&signers[i], &header, hashes.values[signers[i].body_form], now, out,
			      ret_error);
	hashes_clear(&hashes);
	dkim_header_clear(&header);
	return ok ? g_string_free(g_steal_pointer(&out), FALSE) : NULL;
}
