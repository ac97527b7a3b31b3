/* SPDX-License-Identifier: Apache-2.0 */
#include "base/limbuf.h"

#include <glib.h>
#include <stdint.h>
#include <string.h>

#define ROOM_MIN 64

/* What an empty buffer points to; shared between threads, so never written. */
static const char nothing[1];

void
limbuf_init(LimBuf *buf, size_t cap)
{
	k_assert(cap < SIZE_MAX / 4);
	*buf = (LimBuf){.data = (char *)nothing, .cap = cap};
}

void
limbuf_clear(LimBuf *buf)
{
	if (buf->room > 0)
		g_free(buf->data);
	*buf = (LimBuf){.data = (char *)nothing};
}

void
limbuf_reset(LimBuf *buf)
{
	buf->len = 0;
	if (buf->room > 0)
		buf->data[0] = '\0';
}

static void
limbuf_grow(LimBuf *buf, size_t want)
{
	size_t room = MAX(buf->room * 2, (size_t)ROOM_MIN);
	room = MIN(MAX(room, want), buf->cap + 1);
	buf->data = g_realloc(buf->room > 0 ? buf->data : NULL, room);
	buf->room = room;
}

bool
limbuf_append(LimBuf *buf, const void *data, size_t len)
{
	if (len > buf->cap - buf->len)
		return false;
	if (len == 0)
		return true;
	if (buf->len + len + 1 > buf->room)
		limbuf_grow(buf, buf->len + len + 1);
	memcpy(buf->data + buf->len, data, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
	return true;
}

void
limbuf_drop(LimBuf *buf, size_t len)
{
	if (len >= buf->len) {
		limbuf_reset(buf);
		return;
	}
	buf->len -= len;
	memmove(buf->data, buf->data + len, buf->len + 1);
}
