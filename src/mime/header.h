/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Header block of a message or of a MIME part (RFC 5322 2.2): strict scan of bytes into fields,
 * and what is cheap to learn on the way.  Fields point into the caller's bytes.  Pure. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

#define MIME_HEADER_BLOCK_MAX  (1024 * 1024) /* bytes, with the empty line */
#define MIME_HEADER_FIELDS_MAX 2000
#define MIME_HEADER_FIELD_MAX  (100 * 1024) /* bytes of one field, folds and line end included */

typedef enum MimeHeaderFault {
	MIME_HEADER_OK,
	MIME_HEADER_NO_END,         /* no CRLF CRLF within MIME_HEADER_BLOCK_MAX */
	MIME_HEADER_BAD_LINE,       /* a line that is no field and no continuation; bare CR or LF */
	MIME_HEADER_TOO_MANY,       /* fields */
	MIME_HEADER_FIELD_TOO_LONG, /* one field */
	MIME_HEADER_FAULTS
} MimeHeaderFault;

typedef struct MimeField {
	const char *name; /* not NUL-terminated; may be empty (": x") */
	size_t name_len;
	const char *value; /* behind the colon, folds as they are, without the last line end */
	size_t value_len;
} MimeField;

typedef struct MimeHeader {
	MimeField *fields; /* owned; they point into the scanned bytes */
	size_t n_fields;
	size_t room;
	size_t len;        /* bytes scanned as header lines (without the empty line) */
	unsigned received; /* Received fields */
	bool eight_bit;    /* a byte above 0x7e except DEL */
	bool controls;     /* below 0x20 other than TAB, LF, VT, FF, CR */
	bool misplaced;    /* empty field name, continuation first, "From " line inside */
} MimeHeader;

/* Where the block ends: offset behind the first CRLF CRLF, or 0 when it is not within the first
 * MIME_HEADER_BLOCK_MAX bytes. */
size_t mime_header_end(const char *data, size_t len);
/* Scans exactly `len` bytes of header lines, each ending in CRLF (the last may lack it), up to an
 * empty line if there is one.  On a fault the fields before it are kept. */
K_MUST_CHECK MimeHeaderFault mime_header_scan(const char *data, size_t len, MimeHeader *ret_header);
/* The same for parts of a message that is accepted anyway: bare CR and LF end lines as well. */
K_MUST_CHECK MimeHeaderFault mime_header_scan_lenient(const char *data, size_t len,
						      MimeHeader *ret_header);
void mime_header_clear(MimeHeader *header);

/* Can a line start like this in a header: field name and colon, white space, or "From "? */
bool mime_header_line_ok(const char *line, size_t len);
bool mime_field_is(const MimeField *field, const char *name); /* ASCII case-insensitive */
/* The first field of that name, or NULL; *ret_count (may be NULL): how many there are. */
const MimeField *mime_header_find(const MimeHeader *header, const char *name, unsigned *ret_count);
/* The value without CR and LF and without white space at both ends, NUL-terminated (NULs of the
 * value become spaces).  Caller frees. */
char *mime_field_unfold(const MimeField *field);
/* The name in lower case.  Caller frees. */
char *mime_field_name(const MimeField *field);
