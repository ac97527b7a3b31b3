/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The message between 354 and the final dot (RFC 5321 4.1.1.4, 4.5.2), both directions, in pieces
 * of any size.  Only CRLF "." CRLF ends it; a dot behind a bare CR or LF is an ordinary byte, so
 * that nobody can smuggle a second message in.  The reader changes no byte but the stuffed dots
 * and tells what it has seen, so that the caller can refuse (RFC 5321 2.3.8); the writer sends no
 * bare CR or LF: each becomes CRLF.  Pure, one thread. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

/* Takes one piece of output; pieces of one call follow each other. */
typedef void SmtpDataFn(void *arg, const char *data, size_t len);

typedef enum SmtpDataSeen {
	SMTP_DATA_BARE_CR = 1 << 0,
	SMTP_DATA_BARE_LF = 1 << 1,
	SMTP_DATA_NUL = 1 << 2,
	SMTP_DATA_8BIT = 1 << 3,
} SmtpDataSeen;

typedef enum SmtpDataState {
	SMTP_DATA_BOL,    /* at the start, or behind CRLF */
	SMTP_DATA_LINE,   /* inside a line */
	SMTP_DATA_CR,     /* CR seen, handed up already */
	SMTP_DATA_DOT,    /* a dot at the start of a line, held back */
	SMTP_DATA_DOT_CR, /* and a CR behind it, held back */
	SMTP_DATA_END,    /* the final dot was seen */
} SmtpDataState;

typedef struct SmtpDataReader {
	SmtpDataState state;
	unsigned seen;       /* SmtpDataSeen bits */
	uint64_t bytes;      /* handed up */
	uint64_t line;       /* octets of the line under way, without CRLF */
	uint64_t longest;    /* of all lines, without CRLF */
	bool literal;        /* BDAT: dots are ordinary bytes, and nothing in the bytes is an end */
	bool in_header;      /* no empty line yet */
	uint64_t header_len; /* with the empty line; 0 while in_header */
	unsigned received;   /* Received fields in the header */
	char field[9];       /* first bytes of the header line under way */
	unsigned field_len;
} SmtpDataReader;

void smtp_data_reader_init(SmtpDataReader *reader);
/* Reads from `data`, hands the message's bytes up in slices of it (and sometimes a "\r" that was
 * held back), and returns how many bytes were read: all, unless the end was reached. */
K_MUST_CHECK size_t smtp_data_read(SmtpDataReader *reader, const char *data, size_t len,
				   SmtpDataFn *fn, void *arg);
static inline bool
smtp_data_ended(const SmtpDataReader *reader)
{
	return reader->state == SMTP_DATA_END;
}

/* Literal: no more will come.  A CR at the very end is a bare one. */
void smtp_data_reader_finish(SmtpDataReader *reader);

/* Makes CRLF of each bare CR and bare LF. */
typedef struct SmtpNewline {
	bool cr_held; /* a CR at the end of the last piece, not handed up yet */
} SmtpNewline;

void smtp_newline_fix(SmtpNewline *newline, const char *data, size_t len, SmtpDataFn *fn,
		      void *arg);
void smtp_newline_end(SmtpNewline *newline, SmtpDataFn *fn, void *arg);

typedef struct SmtpDataWriter {
	bool bol;     /* at the start of a line */
	bool cr_held; /* a CR at the end of the last piece, not written yet */
} SmtpDataWriter;

void smtp_data_writer_init(SmtpDataWriter *writer);
void smtp_data_write(SmtpDataWriter *writer, const char *data, size_t len, SmtpDataFn *fn,
		     void *arg);
/* Ends the last line if it is open, and writes the final dot. */
void smtp_data_write_end(SmtpDataWriter *writer, SmtpDataFn *fn, void *arg);
