/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/dkim_sig.h"

#define PIECE ((size_t)64 * 1024)

void
dkim_bodies_need(DkimBodies *bodies, CanonForm form)
{
	if (bodies->hashes[form] != NULL)
		return;
	bodies->hashes[form] = dkim_hash_new();
	canon_body_init(&bodies->bodies[form], form, dkim_hash_add, bodies->hashes[form]);
}

bool
dkim_bodies_needed(const DkimBodies *bodies, CanonForm form)
{
	return bodies->hashes[form] != NULL;
}

void
dkim_bodies_feed(void *arg, const char *data, size_t len)
{
	DkimBodies *bodies = arg;
	for (unsigned i = 0; i < CANON_FORMS; i++)
		if (bodies->hashes[i] != NULL)
			canon_body_feed(&bodies->bodies[i], data, len);
}

void
dkim_bodies_end(DkimBodies *bodies)
{
	for (unsigned i = 0; i < CANON_FORMS; i++) {
		if (bodies->hashes[i] == NULL)
			continue;
		canon_body_end(&bodies->bodies[i]);
		dkim_hash_end(bodies->hashes[i], bodies->values[i]);
	}
}

void
dkim_bodies_clear(DkimBodies *bodies)
{
	for (unsigned i = 0; i < CANON_FORMS; i++)
		dkim_hash_free(bodies->hashes[i]);
}

char *
dkim_read_header(const Blob *message, size_t *ret_len, bool *ret_cut, GError **ret_error)
{
	size_t room = (size_t)MIN(blob_len(message), (uint64_t)MIME_HEADER_BLOCK_MAX), got;
	g_autofree char *data = g_malloc(room + 1);
	if (!blob_read(message, 0, data, room, &got, ret_error))
		return NULL;
	size_t end = mime_header_end(data, got);
	*ret_len = end > 0 ? end : got; /* without an empty line it is all header */
	*ret_cut = end == 0 && got == MIME_HEADER_BLOCK_MAX;
	return g_steal_pointer(&data);
}

bool
dkim_feed_body(const Blob *message, uint64_t at, CanonSink *sink, void *arg, GError **ret_error)
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
		sink(arg, data, got);
		at += got;
	}
	return true;
}
