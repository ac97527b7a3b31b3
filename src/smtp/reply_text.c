/* SPDX-License-Identifier: Apache-2.0 */
#include "smtp/reply_text.h"

#include <string.h>

/* Printable ASCII and spaces: the usual reply. */
static bool
is_plain(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (line[i] < 0x20 || line[i] > 0x7e)
			return false;
	}
	return true;
}

bool
smtp_reply_is_plain(const SmtpReply *reply)
{
	const GString *text = reply->text;
	return text->len <= SMTP_REPLY_KEEP_BYTES && is_plain(text->str, text->len);
}

/* The bytes of the printable character at `p`, 0 when there is none. */
static size_t
printable(const char *p, size_t len)
{
	gunichar c = g_utf8_get_char_validated(p, (gssize)len);
	if (c == (gunichar)-1 || c == (gunichar)-2 || c < 0x20 || (c >= 0x7f && c < 0xa0) ||
	    c == 0x2028 || c == 0x2029)
		return 0;
	return (size_t)g_unichar_to_utf8(c, NULL);
}

static void
put_line(GString *out, const char *line, size_t len)
{
	size_t room = SMTP_REPLY_KEEP_BYTES;
	if (is_plain(line, len)) {
		g_string_append_len(out, line, (gssize)MIN(len, room));
		return;
	}
	while (len > 0) {
		size_t step = printable(line, len);
		if (MAX(step, 1U) > room)
			return;
		if (step == 0)
			g_string_append_c(out, '?');
		else
			g_string_append_len(out, line, (gssize)step);
		step = MAX(step, 1U);
		room -= step;
		line += step;
		len -= step;
	}
}

char *
smtp_reply_text(const SmtpReply *reply)
{
	GString *out = g_string_sized_new(MIN(reply->text->len, 512U) + 1);
	const char *line = reply->text->str, *end = line + reply->text->len;
	for (unsigned i = 0; i < SMTP_REPLY_KEEP_LINES; i++) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));
		if (i > 0)
			g_string_append_c(out, '\n');
		put_line(out, line, (size_t)((stop != NULL ? stop : end) - line));
		if (stop == NULL)
			break;
		line = stop + 1;
	}
	return g_string_free(out, FALSE);
}
