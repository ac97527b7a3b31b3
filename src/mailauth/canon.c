/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/canon.h"

#include <string.h>

/* ---- fields ---- */

static bool
is_wsp(char c)
{
	return c == ' ' || c == '\t';
}

/* 3.4.2: name in lower case, unfolded, runs of white space as one space, none around the colon and
 * at the end. */
static void
relaxed_field(const char *field, size_t len, GString *out)
{
	const char *colon = memchr(field, ':', len);
	size_t name = colon != NULL ? (size_t)(colon - field) : len;
	size_t at = MIN(name + 1, len);
	bool space = false, begun = false;
	while (name > 0 && is_wsp(field[name - 1]))
		name--;
	for (size_t i = 0; i < name; i++)
		g_string_append_c(out, g_ascii_tolower(field[i]));
	g_string_append_c(out, ':');
	for (; at < len; at++) {
		char c = field[at];
		if (c == '\r' || c == '\n')
			continue;
		if (is_wsp(c)) {
			space = begun;
			continue;
		}
		if (space)
			g_string_append_c(out, ' ');
		g_string_append_c(out, c);
		space = false;
		begun = true;
	}
	g_string_append(out, "\r\n");
}

void
canon_field(CanonForm form, const char *field, size_t len, GString *out)
{
	if (form == CANON_RELAXED) {
		relaxed_field(field, len, out);
		return;
	}
	g_string_append_len(out, field, (gssize)len);
	g_string_append(out, "\r\n");
}

/* ---- bodies ---- */

void
canon_body_init(CanonBody *body, CanonForm form, CanonSink *sink, void *arg)
{
	body->form = form;
	body->sink = sink;
	body->arg = arg;
	body->len = body->breaks = 0;
	body->space = body->cr = body->any = false;
	body->used = 0;
}

static void
flush(CanonBody *body)
{
	if (body->used > 0)
		body->sink(body->arg, body->buffer, body->used);
	body->used = 0;
}

static void
put(CanonBody *body, const char *data, size_t len)
{
	body->len += len;
	body->any = true;
	if (len > CANON_BUFFER - body->used)
		flush(body);
	if (len > CANON_BUFFER) {
		body->sink(body->arg, data, len);
		return;
	}
	memcpy(body->buffer + body->used, data, len);
	body->used += len;
}

/* What was held back, since something follows. */
static void
put_held(CanonBody *body)
{
	for (; body->breaks > 0; body->breaks--)
		put(body, "\r\n", 2);
	if (body->space)
		put(body, " ", 1);
	body->space = false;
}

static void
text(CanonBody *body, const char *data, size_t len)
{
	put_held(body);
	put(body, data, len);
}

/* How far `data` is plain text: no CR, in the relaxed form no white space. */
static size_t
plain(const CanonBody *body, const char *data, size_t len)
{
	size_t n = 0;
	if (body->form == CANON_SIMPLE) {
		const char *cr = memchr(data, '\r', len);
		return cr != NULL ? (size_t)(cr - data) : len;
	}
	while (n < len && data[n] != '\r' && !is_wsp(data[n]))
		n++;
	return n;
}

void
canon_body_feed(CanonBody *body, const char *data, size_t len)
{
	for (size_t i = 0; i < len;) {
		char c = data[i];
		if (body->cr) {
			body->cr = false;
			if (c == '\n') {
				body->space = false;
				body->breaks++;
				i++;
				continue;
			}
			text(body, "\r", 1); /* a bare one is text */
		}
		if (c == '\r') {
			body->cr = true;
			i++;
			continue;
		}
		if (body->form == CANON_RELAXED && is_wsp(c)) {
			body->space = true;
			i++;
			continue;
		}
		size_t run = plain(body, data + i, len - i);
		text(body, data + i, run);
		i += run;
	}
}

void
canon_body_end(CanonBody *body)
{
	if (body->cr)
		text(body, "\r", 1);
	body->cr = body->space = false;
	/* Empty lines at the end go; one line end stays, or is added, except that an empty relaxed
	 * body is empty (3.4.3, 3.4.4). */
	if (body->any || body->form == CANON_SIMPLE)
		put(body, "\r\n", 2);
	body->breaks = 0;
	flush(body);
}
