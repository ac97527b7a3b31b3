/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A byte string that only grows until it is final: a message or a part of one.  In memory up to
 * a limit, beyond it in an unlinked temporary file.  Counted atomically.  While it grows it
 * belongs to one worker; once final it is immutable and any thread may read it.  A blob may
 * also be a view: some bytes of its own in front of another blob (added header fields), so
 * that fan-out and prepending copy nothing; or a range of another one. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/check.h"

typedef struct Blob Blob;

#define BLOB_MEMORY_DEFAULT (256 * 1024) /* bytes held in memory before the file */

typedef struct BlobLimits {
	size_t memory_max;     /* bytes in memory; 0: BLOB_MEMORY_DEFAULT */
	uint64_t size_max;     /* largest size; 0: no limit of its own */
	const char *spill_dir; /* NULL: $TMPDIR or /tmp; copied */
} BlobLimits;

Blob *blob_new(const BlobLimits *limits); /* NULL: defaults */
/* Final from the start; the bytes are copied. */
Blob *blob_new_bytes(const void *data, size_t len);
/* A view: `prefix` (copied), then `rest` (counted), which may still grow: the view grows and
 * becomes final with it, and nobody appends to the view itself. */
Blob *blob_new_prefixed(const void *prefix, size_t len, Blob *rest);
/* `len` bytes of `whole` (counted, not a range itself) from `from` on, which are there already;
 * final from the start, even when `whole` still grows: then both belong to its worker. */
Blob *blob_new_range(Blob *whole, uint64_t from, uint64_t len);
Blob *blob_ref(Blob *blob);
void blob_unref(Blob *blob); /* NULL is fine; any thread */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Blob, blob_unref)

/* K_ERROR_FULL past size_max or when the disk is full, K_ERROR_INPUT past a declared total,
 * K_ERROR_IO otherwise; nothing of the call
 * is kept then.  The blob must not be final. */
K_MUST_CHECK bool blob_append(Blob *blob, const void *data, size_t len, GError **ret_error);
/* Declares the total length before or while bytes come; false when it contradicts an earlier one
 * or is below what is held.  Reaching it does not finalize by itself. */
K_MUST_CHECK bool blob_set_total(Blob *blob, uint64_t total);
/* The declared total, or -1. */
int64_t blob_total(const Blob *blob);
/* From now on immutable.  k_asserts that a declared total is reached. */
void blob_finalize(Blob *blob);

uint64_t blob_len(const Blob *blob); /* bytes held */
bool blob_is_final(const Blob *blob);
/* Reads up to `len` bytes at `offset`; *ret_got is less only at the end of what is held. */
K_MUST_CHECK bool blob_read(const Blob *blob, uint64_t offset, void *buf, size_t len,
			    size_t *ret_got, GError **ret_error);
/* Bytes at `offset` without a copy: pointer and how many follow contiguously; NULL (and 0) when
 * they are not in memory (use blob_read) or `offset` is at the end.  Valid until the blob is
 * appended to or freed. */
const char *blob_peek(const Blob *blob, uint64_t offset, size_t *ret_len);
/* Everything as one string, NUL-terminated; refuses (K_ERROR_FULL) past `max`.  Caller frees. */
K_MUST_CHECK char *blob_to_string(const Blob *blob, uint64_t max, size_t *ret_len,
				  GError **ret_error);

/* Row id under which a store holds these bytes; 0 = not stored.  Set once, by the store, when
 * they are committed; lets many transactions share one stored copy.  Any thread. */
int64_t blob_stored_id(const Blob *blob);
void blob_set_stored_id(Blob *blob, int64_t id);
