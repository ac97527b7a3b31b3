/* SPDX-License-Identifier: Apache-2.0 */
/* Builder specs as JSON: refused with a reason, or made into a message whose lines are whole and
 * bounded, whose header has no field that was not asked for, never a Bcc, and whose text fields
 * read as they were asked for. */
#include "fuzz.h"

#include "base/json.h"
#include "mime/build.h"
#include "mime/header.h"
#include "mime/mime.h"
#include "mime/value.h"

#define MESSAGE_MAX (16 * 1024 * 1024)

static bool
asked_for(const json_t *spec, const char *name)
{
	/* The last two: of a message that is one part. */
	static const char *const ours[] = {"mime-version", "content-type",
					   "content-transfer-encoding", "content-id",
					   "content-disposition"};
	for (size_t i = 0; i < G_N_ELEMENTS(ours); i++)
		if (strcmp(ours[i], name) == 0)
			return true;
	size_t i;
	json_t *entry;
	json_array_foreach(json_object_get(spec, "headers"), i, entry)
	{
		const char *asked = json_string_value(json_array_get(entry, 0));
		if (asked != NULL && g_ascii_strcasecmp(asked, name) == 0)
			return true;
	}
	return false;
}

/* The n-th entry of that name; NULL: there is none. */
static const json_t *
find_asked(const json_t *spec, const char *name, unsigned n)
{
	size_t i;
	json_t *entry;
	json_array_foreach(json_object_get(spec, "headers"), i, entry)
	{
		const char *asked = json_string_value(json_array_get(entry, 0));
		if (json_array_size(entry) == 2 && asked != NULL &&
		    g_ascii_strcasecmp(asked, name) == 0 && n-- == 0)
			return entry;
	}
	return NULL;
}

/* Text, as far as it does not hold encoded words of its own. */
static void
check_text(const json_t *spec, const MimeHeader *header, size_t index, const char *name)
{
	unsigned before = 0;
	for (size_t i = 0; i < index; i++) {
		g_autofree char *other = mime_field_name(&header->fields[i]);
		before += strcmp(other, name) == 0;
	}
	const json_t *entry = find_asked(spec, name, before);
	const char *text = json_string_value(json_array_get(entry, 1));
	const char *asked = json_string_value(json_array_get(entry, 0));
	if (text == NULL || strstr(text, "=?") != NULL || strcmp(asked, "message-id") == 0 ||
	    strcmp(asked, "references") == 0 || strcmp(asked, "in-reply-to") == 0)
		return;
	g_autofree char *value = mime_field_unfold(&header->fields[index]);
	g_autofree char *got = mime_decode_text(value);
	g_autofree char *want = g_strdup(text);
	k_assert(strcmp(g_strstrip(got), g_strstrip(want)) == 0);
}

static void
check_message(const json_t *spec, const char *text, size_t len)
{
	for (size_t at = 0; at < len;) {
		size_t line = strcspn(text + at, "\r\n");
		k_assert(line <= 998 && at + line + 2 <= len);
		k_assert(memcmp(text + at + line, "\r\n", 2) == 0);
		at += line + 2;
	}
	MimeHeader header;
	k_assert(mime_header_scan(text, len, &header) == MIME_HEADER_OK);
	k_assert(!header.controls && !header.eight_bit);
	for (size_t i = 0; i < header.n_fields; i++) {
		g_autofree char *name = mime_field_name(&header.fields[i]);
		k_assert(asked_for(spec, name));
		k_assert(strcmp(name, "bcc") != 0 && strcmp(name, "resent-bcc") != 0);
		if (!g_str_has_prefix(name, "content-") && strcmp(name, "mime-version") != 0)
			check_text(spec, &header, i, name);
	}
	mime_header_clear(&header);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	mime_init();
	g_autoptr(json_t) spec = json_parse("fuzz", (const char *)data, size, NULL);
	if (spec == NULL)
		return 0;
	g_autoptr(GError) error = NULL;
	bool good = mime_build_check(spec, &error);
	k_assert(good == (error == NULL));
	if (!json_is_object(spec))
		return 0;
	g_autoptr(TxBody) body = tx_body_new_builder(spec, NULL);
	g_autoptr(Blob) text = blob_new_bytes("h\xc3\xa9llo\r\n--x--\r\n", 14);
	g_autoptr(Blob) binary = blob_new_bytes("\xff\0\r", 3);
	tx_body_add_part(body, "a", text);
	tx_body_add_part(body, "b", binary);
	g_autoptr(GError) second = NULL;
	g_autoptr(Blob) made = mime_build(body, &second);
	k_assert((made != NULL) == (second == NULL));
	if (made == NULL)
		return 0;
	k_assert(good);
	size_t len;
	g_autofree char *message = blob_to_string(made, MESSAGE_MAX, &len, NULL);
	k_assert(message != NULL);
	check_message(spec, message, len);
	return 0;
}
