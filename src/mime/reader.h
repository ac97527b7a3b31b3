/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Reads a range of a final Blob: line by line or in pieces, without copying what is in memory.
 * Any one thread; the blob is borrowed. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tx/blob.h"

#define MIME_LINE_MAX (64 * 1024) /* longer lines come in pieces */

typedef struct MimeReader {
	const Blob *blob;
	uint64_t at, end;
	const char *win; /* bytes at `at`, `win_len` of them */
	size_t win_len;
	char *buf;   /* MIME_LINE_MAX bytes once it is needed */
	bool middle; /* `at` is not at the start of a line */
	GError *error;
} MimeReader;

typedef struct MimeLine {
	uint64_t at;
	const char *data; /* with its line end; valid until the next call */
	size_t len;
	size_t text; /* without CRLF, LF */
	bool starts; /* at the start of a line (not a later piece of a long one) */
} MimeLine;

void mime_reader_init(MimeReader *reader, const Blob *blob, uint64_t at, uint64_t end);
void mime_reader_clear(MimeReader *reader);
/* False at the end or on an error (reader->error). */
bool mime_reader_line(MimeReader *reader, MimeLine *ret_line);
/* The next bytes, as many as are at hand; false like above. */
bool mime_reader_piece(MimeReader *reader, const char **ret_data, size_t *ret_len);
