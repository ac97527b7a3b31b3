/* SPDX-License-Identifier: Apache-2.0 */
/* Tag lists and canonical forms of DKIM, key and DMARC records, results fields: tags lie inside the
 * text and do not overlap; a body in pieces hashes as in one piece; relaxed twice is relaxed. */
#include "fuzz.h"

#include "mailauth/authres.h"
#include "mailauth/canon.h"
#include "mailauth/dkim_key.h"
#include "mailauth/dmarc.h"
#include "mailauth/tags.h"

static void
collect(void *arg, const char *data, size_t len)
{
	g_string_append_len(arg, data, (gssize)len);
}

static GString *
canon(CanonForm form, const char *data, size_t len, size_t piece)
{
	GString *out = g_string_new(NULL);
	CanonBody body;
	canon_body_init(&body, form, collect, out);
	for (size_t at = 0; at < len; at += piece)
		canon_body_feed(&body, data + at, MIN(piece, len - at));
	canon_body_end(&body);
	k_assert(body.len == out->len);
	return out;
}

static void
check_body(const char *data, size_t len, size_t piece)
{
	for (CanonForm form = 0; form < CANON_FORMS; form++) {
		g_autoptr(GString) whole = canon(form, data, len, len + 1);
		g_autoptr(GString) pieces = canon(form, data, len, piece);
		g_autoptr(GString) twice = canon(form, whole->str, whole->len, piece);
		k_assert(g_string_equal(whole, pieces));
		k_assert(g_string_equal(whole, twice));
	}
}

static void
check_field(const char *data, size_t len)
{
	g_autoptr(GString) once = g_string_new(NULL);
	g_autoptr(GString) twice = g_string_new(NULL);
	canon_field(CANON_RELAXED, data, len, once);
	k_assert(once->len >= 3);
	canon_field(CANON_RELAXED, once->str, once->len - 2, twice);
	k_assert(g_string_equal(once, twice));
}

static void
check_tags(const char *data, size_t len)
{
	TagList list;
	if (!tags_parse(data, len, &list))
		return;
	const char *last = data;
	k_assert(list.n > 0 && list.n <= TAGS_MAX);
	for (size_t i = 0; i < list.n; i++) {
		const Tag *tag = &list.tags[i];
		k_assert(tag->name >= last && tag->raw > tag->name);
		k_assert(tag->value >= tag->raw &&
			 tag->value + tag->value_len <= tag->raw + tag->raw_len);
		last = tag->raw + tag->raw_len;
		k_assert(last <= data + len);
		g_autofree char *text = tag_text(tag);
		k_assert(strpbrk(text, ";\r\n") == NULL);
		gsize decoded = 0;
		g_autofree guchar *bytes = tag_base64(tag, &decoded);
		k_assert(bytes == NULL || decoded <= tag->value_len);
	}
	tags_clear(&list);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t piece = fuzz_take_byte(&data, &size) + 1;
	const char *bytes = size > 0 ? (const char *)data : "";
	g_autofree char *text = size > 0 ? fuzz_string(data, size) : g_strdup("");
	check_body(bytes, size, piece);
	check_field(bytes, size);
	check_tags(bytes, size);
	DkimPublic pub;
	if (dkim_public_parse(text, &pub)) {
		k_assert((pub.key == NULL) == (pub.fault != NULL));
		k_assert(pub.key == NULL || dkim_key_type(pub.key) == DKIM_ED25519 ||
			 (dkim_key_bits(pub.key) >= DKIM_RSA_BITS_MIN &&
			  dkim_key_bits(pub.key) <= DKIM_RSA_BITS_MAX));
		dkim_public_clear(&pub);
	}
	DmarcRecord record;
	if (dmarc_record_parse(text, &record))
		k_assert(record.percent <= 100 && record.policy < DMARC_POLICIES);
	(void)authres_is_of(bytes, size, "mx.example.com");
	return 0;
}
