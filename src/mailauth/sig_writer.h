/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Writing the field of a signature, folded between its pieces.  Pure. */
#include <glib.h>
#include <stddef.h>

#include "base/check.h"

/* The field under construction; `column` counts since the last line end. */
typedef struct SigWriter {
	GString *text;
	size_t column;
} SigWriter;

/* Appends a piece that stays whole, on a new line when it would not fit. */
void sig_put(SigWriter *writer, const char *piece);
void sig_put_tag(SigWriter *writer, const char *format, ...) K_PRINTF(2, 3);
/* Broken wherever a line is full. */
void sig_put_base64(SigWriter *writer, const void *data, size_t len);
