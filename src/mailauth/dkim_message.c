/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/dkim_message.h"

#include "mime/header.h"

#define PIECE ((size_t)64 * 1024)

static bool
feed_body(DkimVerify *verify, const Blob *message, uint64_t at, GError **ret_error)
{
	g_autofree char *piece = NULL;
	while (at < blob_len(message)) {
		size_t got;
		const char *data = blob_peek(message, at, &got);
		if (data == NULL) {
			if (piece == NULL)
				piece = g_malloc(PIECE);
			if (!blob_read(message, at, piece, PIECE, &got, ret_error))
				return false;
			data = piece;
		}
		if (got == 0)
			break;
		dkim_verify_body(verify, data, got);
		at += got;
	}
	return true;
}

DkimVerify *
dkim_verify_message(const Blob *message, int64_t now, GError **ret_error)
{
	size_t room = (size_t)MIN(blob_len(message), (uint64_t)MIME_HEADER_BLOCK_MAX), got;
	g_autofree char *data = g_malloc(room + 1);
	if (!blob_read(message, 0, data, room, &got, ret_error))
		return NULL;
	size_t end = mime_header_end(data, got);
	size_t len = end > 0 ? end : got; /* without an empty line it is all header */
	DkimVerify *verify = dkim_verify_new(data, len, now);
	if (dkim_verify_wants_body(verify) && !feed_body(verify, message, len, ret_error)) {
		dkim_verify_free(verify);
		return NULL;
	}
	dkim_verify_body_end(verify);
	return verify;
}
