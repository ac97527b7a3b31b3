/* SPDX-License-Identifier: Apache-2.0 */
/* What hops leave in a header: Received, Date, Authentication-Results.  Values of peers' choice in
 * a results field of ours say no more than they are, whose field it is does not depend on case or
 * folds, and the count of Received fields is that of the fields there are. */
#include "fuzz.h"

#include "mailauth/authres.h"
#include "mime/date.h"
#include "mime/header.h"
#include "mime/validate.h"

#define ID "mx.example.com"

static void
check_date(const char *text)
{
	MimeDate date, again;
	char printed[MIME_DATE_MAX];
	if (!mime_date_parse(text, &date) || !mime_date_format(&date, printed))
		return;
	k_assert(mime_date_parse(printed, &again));
	k_assert(again.unix_secs == date.unix_secs && again.tz_offset == date.tz_offset);
}

static void
check_identity(const char *value, size_t len)
{
	bool ours = authres_is_of(value, len, ID);
	g_autoptr(GString) other = g_string_new("\r\n ");
	g_string_append_len(other, value, (gssize)len);
	g_string_append(other, "\r\n");
	for (size_t i = 0; i < other->len; i++)
		other->str[i] = g_ascii_toupper(other->str[i]);
	k_assert(authres_is_of(other->str, other->len, ID) == ours);
}

/* Semicolons that are no part of a quoted string. */
static unsigned
count_methods(const char *text)
{
	unsigned count = 0;
	for (bool quoted = false; *text != '\0'; text++) {
		if (quoted && *text == '\\' && text[1] != '\0')
			text++;
		else if (*text == '"')
			quoted = !quoted;
		else if (!quoted && *text == ';')
			count++;
	}
	return count;
}

/* A field of ours whose values are the lines of the input. */
static void
check_own(char **lines)
{
	unsigned methods = 0;
	AuthRes *res = authres_new(ID);
	for (; *lines != NULL && methods < 20; lines++, methods++) {
		authres_add(res, "spf", "fail");
		authres_prop(res, "smtp.mailfrom", *lines);
	}
	g_autofree char *text = authres_end(res);
	MimeHeader header = {0};
	k_assert(mime_header_scan(text, strlen(text), &header) == MIME_HEADER_OK);
	k_assert(header.n_fields == 1 && !header.controls);
	const MimeField *field = &header.fields[0];
	k_assert(mime_field_is(field, AUTHRES_FIELD));
	k_assert(authres_is_of(field->value, field->value_len, ID));
	k_assert(!authres_is_of(field->value, field->value_len, "other.example.com"));
	g_autofree char *value = mime_field_unfold(field);
	k_assert(count_methods(value) == MAX(methods, 1u));
	mime_header_clear(&header);
	g_auto(GStrv) parts = g_strsplit(text, "\r\n", 0);
	for (char **part = parts; *part != NULL; part++)
		k_assert(strlen(*part) <= 998 && strpbrk(*part, "\r\n") == NULL);
}

static void
check_count(const char *text, size_t len)
{
	MimeHeader header = {0};
	(void)!mime_header_scan_lenient(text, len, &header);
	unsigned count = 0;
	for (size_t i = 0; i < header.n_fields; i++)
		count += mime_field_is(&header.fields[i], "Received") ? 1 : 0;
	k_assert(header.received == count);
	mime_header_clear(&header);
	g_autoptr(Blob) blob = blob_new_bytes(text, len);
	const MimeValidateOptions options = {0};
	MimeVerdict verdict = {0};
	k_assert(mime_validate(blob, &options, &verdict, NULL));
	k_assert(verdict.status < MIME_VALIDITIES);
	k_assert(!verdict.counted || verdict.received <= len / strlen("Received:"));
	mime_verdict_clear(&verdict);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *bytes = size > 0 ? (const char *)data : "";
	g_autofree char *text = size > 0 ? fuzz_string(data, size) : g_strdup("");
	g_auto(GStrv) lines = g_strsplit(text, "\n", 30);
	check_date(text);
	check_identity(bytes, size);
	check_own(lines);
	check_count(bytes, size);
	return 0;
}
