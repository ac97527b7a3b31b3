/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The message as text for BDAT (RFC 3030), where nothing is stuffed: each bare CR or LF becomes
 * CRLF, so that no hop behind can take it for the end of a line we did not mean.  A message that is
 * declared BINARYMIME passes as it is.  In pieces of any size.  Pure, one thread. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct SmtpTextWriter {
	bool binary;
	bool cr_held; /* a CR at the end of the last piece, not written yet */
	bool open;    /* inside a line */
} SmtpTextWriter;

void smtp_text_writer_init(SmtpTextWriter *writer, bool binary);
/* Appends to `out`. */
void smtp_text_write(SmtpTextWriter *writer, const char *data, size_t len, GString *out);
/* Ends the last line if it is open. */
void smtp_text_write_end(SmtpTextWriter *writer, GString *out);
