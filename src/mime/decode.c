/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/decode.h"

#include <errno.h>
#include <gmime/gmime.h>
#include <iconv.h>
#include <string.h>

#include "base/error.h"
#include "mime/base64.h"
#include "mime/reader.h"

#define PIECE       8192 /* bytes decoded at a time */
#define REPLACEMENT "\xef\xbf\xbd"

/* Converts to UTF-8 and CRLF to LF. */
typedef struct Text {
	iconv_t cd;
	char carry[16]; /* the beginning of a character */
	size_t held;
	bool cr; /* a CR waits for its LF */
} Text;

typedef struct Decode {
	MimeEncoding encoding;
	MimeBase64Decode base64;
	GMimeEncoding qp;
	bool is_text;
	Text text;
	Blob *out;
	GError **error;
} Decode;

static bool
text_put(Decode *d, const char *data, size_t len)
{
	char buf[PIECE * 2];
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		if (n + 2 > sizeof buf) {
			if (!blob_append(d->out, buf, n, d->error))
				return false;
			n = 0;
		}
		if (d->text.cr && data[i] != '\n')
			buf[n++] = '\r';
		d->text.cr = data[i] == '\r';
		if (!d->text.cr)
			buf[n++] = data[i];
	}
	return blob_append(d->out, buf, n, d->error);
}

/* Converts what it can of `in`; returns how much is left as the beginning of a character. */
static bool
text_convert(Decode *d, char *in, size_t len, bool end, size_t *ret_left)
{
	char out[PIECE];
	while (len > 0) {
		char *to = out;
		size_t room = sizeof out;
		size_t rc = iconv(d->text.cd, &in, &len, &to, &room);
		int why = rc == (size_t)-1 ? errno : 0;
		if (!text_put(d, out, sizeof out - room))
			return false;
		if (why == EINVAL && !end && len < sizeof d->text.carry)
			break;
		if (why == EILSEQ || why == EINVAL) {
			if (!text_put(d, REPLACEMENT, strlen(REPLACEMENT)))
				return false;
			in++;
			len--;
		}
	}
	*ret_left = len;
	return true;
}

static bool
text_feed(Decode *d, const char *data, size_t len, bool end)
{
	char in[PIECE + 64];
	k_assert(len <= PIECE);
	memcpy(in, d->text.carry, d->text.held);
	memcpy(in + d->text.held, data, len);
	len += d->text.held;
	size_t left;
	if (!text_convert(d, in, len, end, &left))
		return false;
	memcpy(d->text.carry, in + len - left, left);
	d->text.held = left;
	if (!end || !d->text.cr)
		return true;
	d->text.cr = false;
	return blob_append(d->out, "\r", 1, d->error);
}

/* At most PIECE encoded bytes. */
static bool
feed(Decode *d, const char *data, size_t len)
{
	char buf[PIECE * 2 + 64];
	const char *plain = data;
	size_t n = len;
	if (d->encoding == MIME_BASE64) {
		n = mime_base64_decode(&d->base64, data, len, buf);
		plain = buf;
	} else if (d->encoding == MIME_QUOTED_PRINTABLE) {
		n = g_mime_encoding_step(&d->qp, data, len, buf);
		plain = buf;
	}
	if (!d->is_text)
		return blob_append(d->out, plain, n, d->error);
	for (size_t at = 0; at < n; at += PIECE)
		if (!text_feed(d, plain + at, MIN(n - at, (size_t)PIECE), false))
			return false;
	return true;
}

static bool
open_text(Decode *d, const char *charset)
{
	d->text.cd = iconv_open("UTF-8", g_mime_charset_iconv_name(charset));
	if (d->text.cd == (iconv_t)-1)
		d->text.cd = iconv_open("UTF-8", "UTF-8");
	if (d->text.cd != (iconv_t)-1)
		return true;
	return error_set_errno(d->error, K_ERROR_IO, errno, "iconv_open");
}

static bool
decode_all(Decode *d, const Blob *raw, const MimeNode *leaf)
{
	MimeReader reader;
	const char *data;
	size_t len;
	bool ok = true;
	mime_reader_init(&reader, raw, leaf->body_at, leaf->body_at + leaf->body_len);
	while (ok && mime_reader_piece(&reader, &data, &len))
		for (size_t at = 0; at < len && ok; at += PIECE)
			ok = feed(d, data + at, MIN(len - at, (size_t)PIECE));
	if (reader.error != NULL) {
		g_propagate_error(d->error, g_steal_pointer(&reader.error));
		ok = false;
	}
	mime_reader_clear(&reader);
	return ok && (!d->is_text || text_feed(d, "", 0, true));
}

Blob *
mime_decode_leaf(const Blob *raw, const MimeNode *leaf, const char *charset, GError **ret_error)
{
	Decode d = {.encoding = leaf->encoding, .is_text = charset != NULL, .error = ret_error};
	if (d.is_text && !open_text(&d, charset))
		return NULL;
	g_mime_encoding_init_decode(&d.qp, GMIME_CONTENT_ENCODING_QUOTEDPRINTABLE);
	d.out = blob_new(NULL);
	bool ok = decode_all(&d, raw, leaf);
	if (d.is_text)
		iconv_close(d.text.cd);
	if (ok)
		blob_finalize(d.out);
	else
		g_clear_pointer(&d.out, blob_unref);
	return d.out;
}
