/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/new.h"

#define ROOM_MIN  512           /* bytes of the first allocation */
#define ROOM_STEP (1024 * 1024) /* growth beyond twice this is by this much, not by half */

/* Bytes lie in `data` until they pass memory_max, then all of them in `fd`.  A view has its own
 * bytes in `data` and the others in `rest`; a range has `len` bytes of `whole`. */
struct Blob {
	atomic_int refs;
	_Atomic int64_t stored_id;
	bool final;
	int fd;         /* -1: in memory */
	uint64_t len;   /* all bytes held */
	int64_t total;  /* declared, or -1 */
	char *data;     /* NULL when empty or in the file */
	size_t own_len; /* bytes in `data` */
	size_t room;    /* allocated at `data` */
	size_t memory_max;
	uint64_t size_max; /* 0: none */
	char *spill_dir;   /* NULL: default */
	Blob *rest;        /* of a view: then `len`, `total` and `final` are of the own bytes */
	Blob *whole;       /* of a range, which begins at... */
	uint64_t from;     /* ...this byte of it */
};

/* The one that grows: the blob itself or the last of its views. */
static const Blob *
bottom(const Blob *blob)
{
	while (blob->rest != NULL)
		blob = blob->rest;
	return blob;
}

/* ---- life ---- */

static Blob *
blob_alloc(void)
{
	Blob *blob = k_new0(Blob);
	atomic_init(&blob->refs, 1);
	atomic_init(&blob->stored_id, 0);
	blob->fd = -1;
	blob->total = -1;
	return blob;
}

Blob *
blob_new(const BlobLimits *limits)
{
	Blob *blob = blob_alloc();
	blob->memory_max = BLOB_MEMORY_DEFAULT;
	if (limits == NULL)
		return blob;
	if (limits->memory_max > 0)
		blob->memory_max = limits->memory_max;
	blob->size_max = limits->size_max;
	blob->spill_dir = g_strdup(limits->spill_dir);
	return blob;
}

static Blob *
blob_new_final(const void *data, size_t len)
{
	Blob *blob = blob_alloc();
	if (len > 0) {
		blob->data = g_malloc(len);
		memcpy(blob->data, data, len);
	}
	blob->own_len = len;
	blob->room = len;
	blob->len = len;
	blob->final = true;
	return blob;
}

Blob *
blob_new_bytes(const void *data, size_t len)
{
	Blob *blob = blob_new_final(data, len);
	blob->total = (int64_t)len;
	return blob;
}

Blob *
blob_new_prefixed(const void *prefix, size_t len, Blob *rest)
{
	Blob *blob = blob_new_final(prefix, len);
	blob->rest = blob_ref(rest);
	blob->total = (int64_t)blob->len;
	return blob;
}

Blob *
blob_new_range(Blob *whole, uint64_t from, uint64_t len)
{
	k_assert(from <= blob_len(whole) && len <= blob_len(whole) - from);
	Blob *blob = blob_alloc();
	blob->whole = blob_ref(whole);
	blob->from = from;
	blob->len = len;
	blob->total = (int64_t)len;
	blob->final = true;
	return blob;
}

Blob *
blob_ref(Blob *blob)
{
	int before = atomic_fetch_add_explicit(&blob->refs, 1, memory_order_relaxed);
	k_assert(before > 0);
	return blob;
}

void
blob_unref(Blob *blob)
{
	/* A loop, so that a long chain of views does not recurse. */
	while (blob != NULL) {
		int before = atomic_fetch_sub_explicit(&blob->refs, 1, memory_order_acq_rel);
		k_assert(before > 0);
		if (before > 1)
			return;
		Blob *rest = blob->whole != NULL ? blob->whole : blob->rest;
		if (blob->fd >= 0)
			close(blob->fd);
		g_free(blob->data);
		g_free(blob->spill_dir);
		g_free(blob);
		blob = rest;
	}
}

/* ---- the file ---- */

static bool
io_error(GError **ret_error, int errnum, const char *what)
{
	bool full = errnum == ENOSPC || errnum == EDQUOT || errnum == EFBIG;
	return error_set_errno(ret_error, full ? K_ERROR_FULL : K_ERROR_IO, errnum, "%s", what);
}

static const char *
spill_dir(const Blob *blob)
{
	if (blob->spill_dir != NULL)
		return blob->spill_dir;
	const char *dir = secure_getenv("TMPDIR");
	return dir != NULL && dir[0] != '\0' ? dir : "/tmp";
}

/* A file without a name, so that nothing is left behind whatever happens to the process. */
static int
open_unnamed(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
		return fd;
	/* File systems without O_TMPFILE. */
	g_autofree char *path = g_build_filename(dir, "koukan-XXXXXX", NULL);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0 && unlink(path) != 0) {
		int errnum = errno;
		close(fd);
		errno = errnum;
		return -1;
	}
	return fd;
}

static bool
write_at(int fd, uint64_t offset, const char *data, size_t len, GError **ret_error)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, data, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return io_error(ret_error, n < 0 ? errno : EIO,
					"writing a message body to a temporary file");
		data += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return true;
}

static bool
move_to_file(Blob *blob, GError **ret_error)
{
	int fd = open_unnamed(spill_dir(blob));
	if (fd < 0)
		return io_error(ret_error, errno, "creating a temporary file for a message body");
	if (!write_at(fd, 0, blob->data, blob->own_len, ret_error)) {
		close(fd);
		return false;
	}
	blob->fd = fd;
	g_clear_pointer(&blob->data, g_free);
	blob->own_len = 0;
	blob->room = 0;
	return true;
}

/* ---- growing ---- */

/* Doubling suits small bodies; for large ones it would waste as much as it holds. */
static size_t
next_room(const Blob *blob, size_t need)
{
	size_t room = blob->room + MIN(blob->room, (size_t)ROOM_STEP);
	if (blob->total >= 0)
		room = (size_t)MIN((uint64_t)blob->total, (uint64_t)blob->memory_max);
	room = MIN(MAX(room, (size_t)ROOM_MIN), blob->memory_max);
	return MAX(room, need);
}

static void
append_memory(Blob *blob, const void *data, size_t len)
{
	size_t need = blob->own_len + len;
	if (need > blob->room) {
		blob->room = next_room(blob, need);
		blob->data = g_realloc(blob->data, blob->room);
	}
	memcpy(blob->data + blob->own_len, data, len);
	blob->own_len = need;
}

bool
blob_append(Blob *blob, const void *data, size_t len, GError **ret_error)
{
	k_assert(!blob->final);
	if (len == 0)
		return true;
	if (blob->size_max > 0 && len > blob->size_max - blob->len)
		return error_set(ret_error, K_ERROR_FULL,
				 "message body larger than %" G_GUINT64_FORMAT " bytes",
				 blob->size_max);
	if (blob->total >= 0 && len > (uint64_t)blob->total - blob->len)
		return error_set(ret_error, K_ERROR_INPUT,
				 "message body longer than the %" G_GINT64_FORMAT
				 " bytes declared for it",
				 blob->total);
	if (blob->fd < 0 && len <= blob->memory_max - blob->own_len) {
		append_memory(blob, data, len);
	} else {
		if (blob->fd < 0 && !move_to_file(blob, ret_error))
			return false;
		if (!write_at(blob->fd, blob->len, data, len, ret_error))
			return false;
	}
	blob->len += len;
	return true;
}

bool
blob_set_total(Blob *blob, uint64_t total)
{
	uint64_t len = blob_len(blob);
	int64_t known = blob_total(blob);
	if (total > INT64_MAX || total < len)
		return false;
	if (known >= 0)
		return (uint64_t)known == total;
	if (blob_is_final(blob))
		return total == len;
	if (blob->rest != NULL) /* what it is made of decides */
		return false;
	blob->total = (int64_t)total;
	return true;
}

int64_t
blob_total(const Blob *blob)
{
	const Blob *last = bottom(blob);
	return last->total < 0 ? -1 : (int64_t)(blob_len(blob) - last->len) + last->total;
}

void
blob_finalize(Blob *blob)
{
	k_assert(bottom(blob)->final || blob->rest == NULL);
	if (blob->final)
		return;
	k_assert(blob->total < 0 || (uint64_t)blob->total == blob->len);
	blob->total = (int64_t)blob->len;
	blob->final = true;
	if (blob->room > blob->own_len + blob->own_len / 8) {
		blob->data = g_realloc(blob->data, blob->own_len);
		blob->room = blob->own_len;
	}
}

/* ---- reading ---- */

uint64_t
blob_len(const Blob *blob)
{
	uint64_t len = blob->len;
	while (blob->rest != NULL) {
		blob = blob->rest;
		len += blob->len;
	}
	return len;
}

bool
blob_is_final(const Blob *blob)
{
	return bottom(blob)->final;
}

static bool
read_file(const Blob *blob, uint64_t offset, char *buf, size_t len, GError **ret_error)
{
	while (len > 0) {
		ssize_t n = pread(blob->fd, buf, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* the file cannot be shorter than what was written */
			return io_error(ret_error, n < 0 ? errno : EIO,
					"reading a message body from a temporary file");
		buf += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return true;
}

bool
blob_read(const Blob *blob, uint64_t offset, void *buf, size_t len, size_t *ret_got,
	  GError **ret_error)
{
	uint64_t held = blob_len(blob);
	size_t want = offset < held ? (size_t)MIN((uint64_t)len, held - offset) : 0;
	char *out = buf;
	size_t left = want;
	while (left > 0) {
		size_t n;
		const char *bytes = blob_peek(blob, offset, &n);
		if (bytes != NULL) {
			n = MIN(n, left);
			memcpy(out, bytes, n);
			out += n;
			offset += n;
			left -= n;
			continue;
		}
		/* What is left lies in the file of this blob or of the last of its views, or in
		 * that of which it is a range. */
		for (; blob->rest != NULL; blob = blob->rest)
			offset -= blob->own_len;
		if (blob->whole != NULL) {
			if (!blob_read(blob->whole, blob->from + offset, out, left, &n, ret_error))
				return false;
			k_assert(n == left);
			break;
		}
		if (!read_file(blob, offset, out, left, ret_error))
			return false;
		left = 0;
	}
	*ret_got = want;
	return true;
}

const char *
blob_peek(const Blob *blob, uint64_t offset, size_t *ret_len)
{
	*ret_len = 0;
	for (; blob != NULL; blob = blob->rest) {
		if (blob->whole != NULL) {
			const char *bytes = NULL;
			if (offset < blob->len)
				bytes = blob_peek(blob->whole, blob->from + offset, ret_len);
			if (bytes != NULL)
				*ret_len = (size_t)MIN((uint64_t)*ret_len, blob->len - offset);
			return bytes;
		}
		if (offset < blob->own_len) {
			*ret_len = blob->own_len - (size_t)offset;
			return blob->data + offset;
		}
		offset -= blob->own_len;
	}
	return NULL;
}

char *
blob_to_string(const Blob *blob, uint64_t max, size_t *ret_len, GError **ret_error)
{
	uint64_t held = blob_len(blob);
	if (held > max) {
		error_set(ret_error, K_ERROR_FULL,
			  "message body of %" G_GUINT64_FORMAT
			  " bytes is over the limit of %" G_GUINT64_FORMAT,
			  held, max);
		return NULL;
	}
	size_t len = (size_t)held;
	g_autofree char *text = g_malloc(len + 1);
	size_t got;
	if (!blob_read(blob, 0, text, len, &got, ret_error))
		return NULL;
	k_assert(got == len);
	text[len] = '\0';
	*ret_len = len;
	return g_steal_pointer(&text);
}

/* ---- the store's copy ---- */

int64_t
blob_stored_id(const Blob *blob)
{
	return atomic_load_explicit(&blob->stored_id, memory_order_acquire);
}

void
blob_set_stored_id(Blob *blob, int64_t id)
{
	k_assert(id > 0);
	int64_t none = 0;
	bool set = atomic_compare_exchange_strong(&blob->stored_id, &none, id);
	k_assert(set || none == id);
}
