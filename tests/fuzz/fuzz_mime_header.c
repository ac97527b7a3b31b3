/* SPDX-License-Identifier: Apache-2.0 */
/* Header blocks: fields lie inside the block, in order and without overlap; unfolding leaves no
 * line break. */
#include "fuzz.h"

#include "mime/header.h"

static void
check_fields(const MimeHeader *header, const char *start, size_t size)
{
	const char *last = start;
	k_assert(header->n_fields <= MIME_HEADER_FIELDS_MAX && header->len <= size);
	for (size_t i = 0; i < header->n_fields; i++) {
		const MimeField *field = &header->fields[i];
		k_assert(field->name >= last && field->value >= field->name + field->name_len);
		last = field->value + field->value_len;
		k_assert(last <= start + size);
		g_autofree char *value = mime_field_unfold(field);
		k_assert(strpbrk(value, "\r\n") == NULL);
		g_autofree char *name = mime_field_name(field);
		k_assert(name != NULL);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	size_t end = mime_header_end(text, size);
	k_assert(end <= size);
	if (end > 0)
		k_assert(end >= 4 && memcmp(text + end - 4, "\r\n\r\n", 4) == 0);
	MimeHeader header = {0};
	(void)!mime_header_scan(text, size, &header);
	check_fields(&header, text, size);
	mime_header_clear(&header);
	MimeHeader lenient = {0};
	(void)!mime_header_scan_lenient(text, size, &lenient);
	check_fields(&lenient, text, size);
	mime_header_clear(&lenient);
	return 0;
}
