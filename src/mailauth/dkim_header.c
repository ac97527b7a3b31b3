/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "mailauth/dkim_int.h"

#define NAME_MAX_BYTES 253

static guint
name_hash(const char *name, size_t len)
{
	guint hash = 5381;
	for (size_t i = 0; i < len; i++)
		hash = hash * 33 + (guchar)g_ascii_tolower(name[i]);
	return hash;
}

/* RFC 6376 does not allow white space before the colon, RFC 5322 4.5 does: it is no part of the
 * name. */
static size_t
name_len(const MimeField *field)
{
	size_t len = field->name_len;
	while (len > 0 && (field->name[len - 1] == ' ' || field->name[len - 1] == '\t'))
		len--;
	return len;
}

void
dkim_header_init(DkimHeader *header, const char *data, size_t len)
{
	*header = (DkimHeader){0};
	header->ok = mime_header_scan_lenient(data, len, &header->header) == MIME_HEADER_OK;
	header->hashes = g_new0(guint, header->header.n_fields + 1);
	for (size_t i = 0; i < header->header.n_fields; i++) {
		const MimeField *field = &header->header.fields[i];
		header->hashes[i] = name_hash(field->name, name_len(field));
	}
}

void
dkim_header_clear(DkimHeader *header)
{
	mime_header_clear(&header->header);
	g_clear_pointer(&header->hashes, g_free);
}

const char *
dkim_field_bytes(const MimeField *field, size_t *ret_len)
{
	*ret_len = (size_t)(field->value - field->name) + field->value_len;
	return field->name;
}

void
dkim_hash_fields(DkimHash *hash, const DkimHeader *header, CanonForm form, const char *const *names)
{
	g_autoptr(GString) text = g_string_new(NULL);
	size_t n = header->header.n_fields;
	g_autofree bool *used = g_new0(bool, n + 1);
	for (const char *const *name = names; *name != NULL; name++) {
		size_t len = strlen(*name), bytes_len;
		guint want = name_hash(*name, len);
		for (size_t i = n; i-- > 0;) {
			const MimeField *field = &header->header.fields[i];
			if (header->hashes[i] != want || used[i] || name_len(field) != len ||
			    g_ascii_strncasecmp(field->name, *name, len) != 0)
				continue;
			const char *bytes = dkim_field_bytes(field, &bytes_len);
			g_string_truncate(text, 0);
			canon_field(form, bytes, bytes_len, text);
			dkim_hash_add(hash, text->str, text->len);
			used[i] = true;
			break;
		}
	}
}

void
dkim_hash_signature(DkimHash *hash, CanonForm form, const char *name, const char *value,
		    size_t value_len, const Tag *b)
{
	g_autoptr(GString) field = g_string_new(name);
	g_autoptr(GString) text = g_string_new(NULL);
	size_t before = (size_t)(b->raw - value), after = before + b->raw_len;
	g_string_append_c(field, ':');
	g_string_append_len(field, value, (gssize)before);
	g_string_append_len(field, value + after, (gssize)(value_len - after));
	canon_field(form, field->str, field->len, text);
	dkim_hash_add(hash, text->str, text->len - strlen("\r\n"));
}

void
dkim_hash_message(uint8_t ret_hash[DKIM_HASH_LEN], const DkimHeader *header, CanonForm form,
		  const char *const *names, const MimeField *field, const Tag *b)
{
	DkimHash *hash = dkim_hash_new();
	g_autofree char *name = g_strndup(field->name, field->name_len);
	dkim_hash_fields(hash, header, form, names);
	dkim_hash_signature(hash, form, name, field->value, field->value_len, b);
	dkim_hash_end(hash, ret_hash);
	dkim_hash_free(hash);
}

bool
dkim_domain_ok(const char *name, unsigned labels)
{
	size_t len = strlen(name), label = 0;
	unsigned count = 1;
	if (len == 0 || len > NAME_MAX_BYTES || !g_utf8_validate(name, (gssize)len, NULL))
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)name[i];
		if (c == '.') {
			if (label == 0)
				return false;
			label = 0;
			count++;
		} else if (c < 0x80 && !g_ascii_isalnum((char)c) && c != '-' && c != '_') {
			return false;
		} else if (++label > 63) {
			return false;
		}
	}
	return label > 0 && count >= labels;
}

bool
dkim_domain_within(const char *name, const char *domain)
{
	size_t len = strlen(name), want = strlen(domain);
	if (len < want || g_ascii_strcasecmp(name + len - want, domain) != 0)
		return false;
	return len == want || name[len - want - 1] == '.';
}

bool
dkim_field_name_ok(const char *name)
{
	if (*name == '\0')
		return false;
	for (; *name != '\0'; name++)
		if (*name <= 0x20 || *name >= 0x7f || *name == ':' || *name == ';')
			return false;
	return true;
}
