/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/header.h"

#include <string.h>

size_t
mime_header_end(const char *data, size_t len)
{
	if (len > MIME_HEADER_BLOCK_MAX)
		len = MIME_HEADER_BLOCK_MAX;
	if (len == 0) /* then data may be NULL */
		return 0;
	const char *end = memmem(data, len, "\r\n\r\n", 4);
	return end != NULL ? (size_t)(end - data) + 4 : 0;
}

static bool
is_name_byte(unsigned char c)
{
	return c > 0x20 && c < 0x7f && c != ':';
}

bool
mime_header_line_ok(const char *line, size_t len)
{
	if (len == 0)
		return false;
	if (line[0] == ' ' || line[0] == '\t')
		return true;
	if (len >= 5 && memcmp(line, "From ", 5) == 0)
		return true;
	size_t i = 0;
	while (i < len && is_name_byte((unsigned char)line[i]))
		i++;
	return i < len && line[i] == ':';
}

bool
mime_field_is(const MimeField *field, const char *name)
{
	return g_ascii_strncasecmp(field->name, name, field->name_len) == 0 &&
	       name[field->name_len] == '\0';
}

static void
note_bytes(MimeHeader *h, const char *data, size_t len)
{
	/* TAB, LF, VT, FF, CR are the controls that text may hold. */
	const unsigned allowed = 1u << 9 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13;
	unsigned char high = 0;
	bool controls = false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)data[i];
		high |= c;
		controls |= c < 0x20 && (allowed >> c & 1u) == 0;
	}
	h->eight_bit |= (high & 0x80) != 0;
	h->controls |= controls;
}

/* Length of the line at `data` with its end; *ret_text: without it.  A bare CR or LF inside a
 * strict line makes *ret_bare true. */
static size_t
cut_line(const char *data, size_t len, bool lenient, size_t *ret_text, bool *ret_bare)
{
	const char *lf = memchr(data, '\n', len);
	size_t line = lf != NULL ? (size_t)(lf - data) + 1 : len;
	const char *cr = memchr(data, '\r', line);
	*ret_bare = false;
	if (cr != NULL) {
		size_t at = (size_t)(cr - data);
		if (at + 2 == line && lf != NULL) {
			*ret_text = at;
			return line;
		}
		*ret_bare = !lenient;
		*ret_text = at;
		return lenient ? at + 1 : line;
	}
	*ret_text = lf != NULL ? line - 1 : line;
	*ret_bare = lf != NULL && !lenient;
	return line;
}

static void
add_field(MimeHeader *h, const char *line, size_t text)
{
	if (h->n_fields == h->room) {
		h->room = h->room == 0 ? 16 : h->room * 2;
		h->fields = g_renew(MimeField, h->fields, h->room);
	}
	const char *colon = memchr(line, ':', text);
	MimeField *f = &h->fields[h->n_fields++];
	f->name = line;
	f->name_len = (size_t)(colon - line);
	f->value = colon + 1;
	f->value_len = text - f->name_len - 1;
	if (mime_field_is(f, "received"))
		h->received++;
	h->misplaced |= f->name_len == 0;
}

static MimeHeaderFault
take_line(MimeHeader *h, const char *line, size_t text, bool first)
{
	if (!mime_header_line_ok(line, text))
		return MIME_HEADER_BAD_LINE;
	if (line[0] == ' ' || line[0] == '\t') {
		if (h->n_fields == 0) {
			h->misplaced = true;
			return MIME_HEADER_OK;
		}
		MimeField *f = &h->fields[h->n_fields - 1];
		f->value_len = (size_t)(line + text - f->value);
		size_t whole = (size_t)(line + text - f->name);
		return whole > MIME_HEADER_FIELD_MAX - 2 ? MIME_HEADER_FIELD_TOO_LONG
							 : MIME_HEADER_OK;
	}
	if (memcmp(line, "From ", MIN(text, 5)) == 0 && text >= 5) {
		h->misplaced |= !first; /* an mbox line is fine in front */
		return MIME_HEADER_OK;
	}
	if (h->n_fields == MIME_HEADER_FIELDS_MAX)
		return MIME_HEADER_TOO_MANY;
	if (text > MIME_HEADER_FIELD_MAX - 2)
		return MIME_HEADER_FIELD_TOO_LONG;
	add_field(h, line, text);
	return MIME_HEADER_OK;
}

static MimeHeaderFault
scan(const char *data, size_t len, bool lenient, MimeHeader *ret_header)
{
	MimeHeader h = {0};
	MimeHeaderFault fault = MIME_HEADER_OK;
	size_t at = 0;
	while (at < len && fault == MIME_HEADER_OK) {
		size_t text;
		bool bare;
		size_t line = cut_line(data + at, len - at, lenient, &text, &bare);
		if (text == 0 && !bare)
			break; /* the empty line */
		fault = bare ? MIME_HEADER_BAD_LINE : take_line(&h, data + at, text, at == 0);
		if (fault == MIME_HEADER_OK)
			at += line;
	}
	h.len = at;
	note_bytes(&h, data, at);
	*ret_header = h;
	return fault;
}

MimeHeaderFault
mime_header_scan(const char *data, size_t len, MimeHeader *ret_header)
{
	return scan(data, len, false, ret_header);
}

MimeHeaderFault
mime_header_scan_lenient(const char *data, size_t len, MimeHeader *ret_header)
{
	return scan(data, len, true, ret_header);
}

void
mime_header_clear(MimeHeader *header)
{
	g_free(header->fields);
	*header = (MimeHeader){0};
}

const MimeField *
mime_header_find(const MimeHeader *header, const char *name, unsigned *ret_count)
{
	const MimeField *found = NULL;
	unsigned count = 0;
	for (size_t i = 0; i < header->n_fields; i++) {
		if (!mime_field_is(&header->fields[i], name))
			continue;
		if (found == NULL)
			found = &header->fields[i];
		count++;
	}
	if (ret_count != NULL)
		*ret_count = count;
	return found;
}

char *
mime_field_unfold(const MimeField *field)
{
	const char *v = field->value;
	size_t len = field->value_len;
	char *out = g_malloc(len + 1);
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		char c = v[i];
		if (c == '\r' || c == '\n')
			continue;
		if (n == 0 && (c == ' ' || c == '\t'))
			continue;
		out[n++] = c == '\0' ? ' ' : c;
	}
	while (n > 0 && (out[n - 1] == ' ' || out[n - 1] == '\t'))
		n--;
	out[n] = '\0';
	return out;
}

char *
mime_field_name(const MimeField *field)
{
	return g_ascii_strdown(field->name, (gssize)field->name_len);
}
