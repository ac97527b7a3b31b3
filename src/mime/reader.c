/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/reader.h"

#include <string.h>

void
mime_reader_init(MimeReader *reader, const Blob *blob, uint64_t at, uint64_t end)
{
	*reader = (MimeReader){.blob = blob, .at = at, .end = end};
}

void
mime_reader_clear(MimeReader *reader)
{
	g_free(reader->buf);
	g_clear_error(&reader->error);
	*reader = (MimeReader){0};
}

/* Gets bytes at reader->at when the window is empty. */
static bool
peek(MimeReader *r)
{
	if (r->win_len > 0)
		return true;
	if (r->at >= r->end || r->error != NULL)
		return false;
	size_t len = 0;
	r->win = blob_peek(r->blob, r->at, &len);
	r->win_len = (size_t)MIN((uint64_t)len, r->end - r->at);
	if (r->win_len > 0)
		return true;
	if (r->buf == NULL)
		r->buf = g_malloc(MIME_LINE_MAX);
	size_t want = (size_t)MIN((uint64_t)MIME_LINE_MAX, r->end - r->at);
	size_t got;
	if (!blob_read(r->blob, r->at, r->buf, want, &got, &r->error))
		return false;
	r->win = r->buf;
	r->win_len = got;
	return got > 0;
}

/* The window holds a piece of a line only: reads anew from its start. */
static bool
refill(MimeReader *r)
{
	if (r->buf == NULL)
		r->buf = g_malloc(MIME_LINE_MAX);
	size_t want = (size_t)MIN((uint64_t)MIME_LINE_MAX, r->end - r->at);
	size_t got;
	if (!blob_read(r->blob, r->at, r->buf, want, &got, &r->error))
		return false;
	r->win = r->buf;
	r->win_len = got;
	return true;
}

static void
advance(MimeReader *r, size_t len)
{
	r->at += len;
	r->win += len;
	r->win_len -= len;
}

bool
mime_reader_line(MimeReader *r, MimeLine *ret_line)
{
	if (!peek(r))
		return false;
	const char *lf = memchr(r->win, '\n', r->win_len);
	if (lf == NULL && r->win_len < MIME_LINE_MAX && r->at + r->win_len < r->end) {
		if (!refill(r))
			return false;
		lf = memchr(r->win, '\n', r->win_len);
	}
	size_t len = lf != NULL ? (size_t)(lf - r->win) + 1 : r->win_len;
	if (len > MIME_LINE_MAX) {
		len = MIME_LINE_MAX;
		lf = NULL;
	}
	/* A CR that may belong to the next piece's LF stays there. */
	if (lf == NULL && len > 1 && r->win[len - 1] == '\r' && r->at + len < r->end)
		len--;
	ret_line->at = r->at;
	ret_line->data = r->win;
	ret_line->len = len;
	ret_line->text = len;
	if (lf != NULL) {
		ret_line->text = len - 1;
		if (len > 1 && r->win[len - 2] == '\r')
			ret_line->text--;
	}
	ret_line->starts = !r->middle;
	r->middle = lf == NULL;
	advance(r, len);
	return true;
}

bool
mime_reader_piece(MimeReader *r, const char **ret_data, size_t *ret_len)
{
	if (!peek(r))
		return false;
	*ret_data = r->win;
	*ret_len = r->win_len;
	r->middle = true;
	advance(r, r->win_len);
	return true;
}
