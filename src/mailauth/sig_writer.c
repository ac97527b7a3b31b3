/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/sig_writer.h"

#include <string.h>

#define LINE_MAX_ 72 /* where lines of the field are folded */

void
sig_put(SigWriter *w, const char *piece)
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

void
sig_put_tag(SigWriter *w, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	g_autofree char *text = g_strdup_vprintf(format, args);
	va_end(args);
	sig_put(w, text);
}

void
sig_put_base64(SigWriter *w, const void *data, size_t len)
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
