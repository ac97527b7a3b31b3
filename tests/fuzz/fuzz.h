/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What all fuzzers share.  Each input is judged by itself: no state stays behind. */
#include <glib.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Takes the first byte as a number; 0 when there is none. */
static inline unsigned
fuzz_take_byte(const uint8_t **data, size_t *size)
{
	if (*size == 0)
		return 0;
	(*size)--;
	return *(*data)++;
}

/* The input as a string, NUL-terminated; g_free it. */
static inline char *
fuzz_string(const uint8_t *data, size_t size)
{
	return g_strndup((const char *)data, size);
}
