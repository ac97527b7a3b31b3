/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/build_int.h"

#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "mime/addr.h"
#include "mime/build.h"
#include "mime/date.h"
#include "mime/fold.h"

#define NAME_MAX_BYTES 70 /* of a field name: "name: " and a word still fit a line */

static bool
bad(GError **ret_error, size_t index, const char *why)
{
	return error_set(ret_error, K_ERROR_INPUT, "headers[%zu]: %s", index, why);
}

static bool
name_ok(const char *name)
{
	size_t len = strlen(name);
	for (size_t i = 0; i < len; i++)
		if (name[i] <= 0x20 || name[i] >= 0x7f || name[i] == ':')
			return false;
	return len > 0 && len <= NAME_MAX_BYTES;
}

/* ---- addresses ---- */

/* The address as it goes into the field, its domain in ASCII; NULL: it is none. */
static char *
address_text(const char *address)
{
	if (mime_has_controls(address, false) || strlen(address) > MIME_WORD_MAX ||
	    !mime_addr_spec_ok(address))
		return NULL;
	const char *at = strrchr(address, '@');
	for (const char *p = address; p < at; p++)
		if ((unsigned char)*p >= 0x80)
			return NULL;
	if (at[1] == '[' || text_is_printable_ascii(at, strlen(at)))
		return g_strdup(address);
	g_autofree char *domain = g_hostname_to_ascii(at + 1);
	if (domain == NULL)
		return NULL;
	return g_strdup_printf("%.*s@%s", (int)(at - address), address, domain);
}

static bool
put_address(MimeFold *fold, const json_t *entry, const char **why)
{
	const json_t *name = json_object_get(entry, "display_name");
	const char *address = json_string_value(json_object_get(entry, "address"));
	if (address == NULL) {
		*why = "an address is missing";
		return false;
	}
	if (name != NULL && !json_is_null(name) && !json_is_string(name)) {
		*why = "display_name is no text";
		return false;
	}
	const char *text = json_string_value(name);
	if (text != NULL && mime_has_controls(text, true)) {
		*why = "control character in display_name";
		return false;
	}
	g_autofree char *spec = address_text(address);
	if (spec == NULL) {
		*why = "bad address (needs local@domain, ASCII left of the @)";
		return false;
	}
	if (text == NULL || *text == '\0') {
		mime_fold_word(fold, spec, strlen(spec));
		return true;
	}
	mime_fold_phrase(fold, text);
	g_autofree char *angle = g_strdup_printf("<%s>", spec);
	mime_fold_word(fold, angle, strlen(angle));
	return true;
}

static bool
put_addresses(GString *out, const char *name, const json_t *value, const char **why)
{
	if (!json_is_array(value)) {
		*why = "not a list of addresses";
		return false;
	}
	size_t n = json_array_size(value);
	if (n == 0)
		return true;
	MimeFold fold;
	mime_fold_start(&fold, out, name);
	for (size_t i = 0; i < n; i++) {
		if (!put_address(&fold, json_array_get(value, i), why))
			return false;
		if (i + 1 < n)
			mime_fold_glue(&fold, ",");
	}
	mime_fold_end(&fold);
	return true;
}

/* ---- date, ids, text ---- */

static bool
put_date(GString *out, const char *name, const json_t *value, const char **why)
{
	const json_t *secs = json_object_get(value, "unix_secs");
	const json_t *offset = json_object_get(value, "tz_offset");
	char text[MIME_DATE_MAX];
	MimeDate date = {.unix_secs = json_integer_value(secs)};
	json_int_t east = json_integer_value(offset);
	*why = "bad date (needs unix_secs, not 0; tz_offset in seconds, whole minutes)";
	if (date.unix_secs == 0 || (offset != NULL && !json_is_integer(offset)) || east < -86400 ||
	    east > 86400)
		return false;
	date.tz_offset = (int)east;
	if (!mime_date_format(&date, text))
		return false;
	MimeFold fold;
	mime_fold_start(&fold, out, name);
	mime_fold_word(&fold, text, strlen(text));
	mime_fold_end(&fold);
	return true;
}

static bool
put_id(MimeFold *fold, const json_t *value)
{
	const char *id = json_string_value(value);
	size_t len = id != NULL ? strlen(id) : 0;
	if (len == 0 || len > MIME_WORD_MAX || !text_is_printable_ascii(id, len) ||
	    strpbrk(id, " <>") != NULL)
		return false;
	g_autofree char *text = g_strdup_printf("<%s>", id);
	mime_fold_word(fold, text, len + 2);
	return true;
}

static bool
put_ids(GString *out, const char *name, const json_t *value, const char **why)
{
	*why = "bad message id (a list of ids without brackets)";
	size_t n = json_is_string(value) ? 1 : json_array_size(value);
	if (n == 0)
		return json_is_array(value);
	MimeFold fold;
	mime_fold_start(&fold, out, name);
	for (size_t i = 0; i < n; i++)
		if (!put_id(&fold, json_is_string(value) ? value : json_array_get(value, i)))
			return false;
	mime_fold_end(&fold);
	return true;
}

static bool
put_text(GString *out, const char *name, const json_t *value, const char **why)
{
	const char *text = json_string_value(value);
	if (text == NULL) {
		*why = "the value is no text";
		return false;
	}
	if (mime_has_controls(text, true)) {
		*why = "control character or line break in the value";
		return false;
	}
	MimeFold fold;
	mime_fold_start(&fold, out, name);
	mime_fold_text(&fold, text);
	mime_fold_end(&fold);
	return true;
}

/* ---- the list ---- */

typedef bool PutFn(GString *out, const char *name, const json_t *value, const char **why);

/* Structured forms go by the exact lower-case name (spec 15.2). */
static PutFn *
put_for(const char *name)
{
	static const struct {
		const char *name;
		PutFn *put;
	} rows[] = {{"from", put_addresses},  {"to", put_addresses},  {"cc", put_addresses},
		    {"bcc", put_addresses},   {"date", put_date},     {"message-id", put_ids},
		    {"in-reply-to", put_ids}, {"references", put_ids}};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
		if (strcmp(rows[i].name, name) == 0)
			return rows[i].put;
	return put_text;
}

/* Bit of a field that may stand once (RFC 5322 3.6), or 0. */
static unsigned
once_bit(const char *name)
{
	static const char *const names[] = {"from",       "to",       "cc",     "bcc",
					    "subject",    "date",     "sender", "reply-to",
					    "message-id", "orig-date"};
	for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
		if (text_equal_nocase(names[i], name))
			return 1u << i;
	return 0;
}

/* Fields that describe the body are ours. */
static bool
is_ours(const char *name)
{
	return text_equal_nocase(name, "mime-version") || text_equal_nocase(name, "content-type") ||
	       text_equal_nocase(name, "content-transfer-encoding");
}

/* Checked like the others, but never written: it is for nobody else to see. */
static bool
is_hidden(const char *name)
{
	return text_equal_nocase(name, "bcc") || text_equal_nocase(name, "resent-bcc");
}

static bool
put_field(const json_t *entry, size_t index, GString *out, unsigned *seen, GError **ret_error)
{
	if (!json_is_array(entry) || json_array_size(entry) != 2)
		return true; /* not a pair: skipped */
	const char *name = json_string_value(json_array_get(entry, 0));
	if (name == NULL || !name_ok(name))
		return bad(ret_error, index, "bad field name");
	if (is_ours(name))
		return true;
	size_t before = out->len;
	const char *why = NULL;
	if (!put_for(name)(out, name, json_array_get(entry, 1), &why))
		return bad(ret_error, index, why);
	unsigned bit = out->len > before ? once_bit(name) : 0;
	if ((*seen & bit) != 0)
		return bad(ret_error, index, "this field may stand only once");
	*seen |= bit;
	if (is_hidden(name))
		g_string_truncate(out, before);
	return true;
}

bool
mime_build_headers(const json_t *headers, GString *out, GError **ret_error)
{
	if (headers == NULL || json_is_null(headers))
		return true;
	if (!json_is_array(headers))
		return error_set(ret_error, K_ERROR_INPUT, "headers: not a list");
	size_t n = json_array_size(headers);
	if (n > MIME_BUILD_HEADERS_MAX)
		return error_set(ret_error, K_ERROR_INPUT, "headers: more than %d",
				 MIME_BUILD_HEADERS_MAX);
	unsigned seen = 0;
	for (size_t i = 0; i < n; i++)
		if (!put_field(json_array_get(headers, i), i, out, &seen, ret_error))
			return false;
	return true;
}
