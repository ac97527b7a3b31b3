/* SPDX-License-Identifier: Apache-2.0 */
#include "smtp/text_writer.h"

#include <string.h>

void
smtp_text_writer_init(SmtpTextWriter *writer, bool binary)
{
	*writer = (SmtpTextWriter){.binary = binary};
}

/* The first CR or LF, or `end`. */
static const char *
line_end(const char *p, const char *end)
{
	const char *lf = memchr(p, '\n', (size_t)(end - p));
	const char *stop = lf != NULL ? lf : end;
	const char *cr = memchr(p, '\r', (size_t)(stop - p));
	return cr != NULL ? cr : stop;
}

void
smtp_text_write(SmtpTextWriter *writer, const char *data, size_t len, GString *out)
{
	const char *p = data, *end = data + len;
	if (writer->binary) {
		g_string_append_len(out, data, (gssize)len);
		return;
	}
	if (len > 0 && writer->cr_held) {
		g_string_append_len(out, "\r\n", 2);
		writer->cr_held = false;
		writer->open = false;
		if (*p == '\n')
			p++;
	}
	while (p < end) {
		const char *stop = line_end(p, end);
		g_string_append_len(out, p, stop - p);
		writer->open = writer->open || stop > p;
		if (stop == end)
			return;
		if (*stop == '\r' && stop + 1 == end) {
			writer->cr_held = true;
			return;
		}
		g_string_append_len(out, "\r\n", 2);
		writer->open = false;
		p = stop + (stop[0] == '\r' && stop[1] == '\n' ? 2 : 1);
	}
}

void
smtp_text_write_end(SmtpTextWriter *writer, GString *out)
{
	if (!writer->binary && (writer->open || writer->cr_held))
		g_string_append_len(out, "\r\n", 2);
	writer->open = writer->cr_held = false;
}
