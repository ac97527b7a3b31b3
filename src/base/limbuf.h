/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A byte buffer with a cap given at creation: what a peer fills.  Always NUL-terminated after
 * its `len` bytes (which may contain NULs).  One thread. */
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

typedef struct LimBuf {
	char *data; /* never NULL after limbuf_init */
	size_t len;
	size_t room; /* allocated, with the terminator */
	size_t cap;  /* largest `len` */
} LimBuf;

void limbuf_init(LimBuf *buf, size_t cap);
void limbuf_clear(LimBuf *buf); /* frees; the object may be initialised again */
void limbuf_reset(LimBuf *buf); /* empties, keeps the memory */
/* False, with nothing appended, when it would pass the cap. */
K_MUST_CHECK bool limbuf_append(LimBuf *buf, const void *data, size_t len);
/* Drops the first `len` bytes (at most all). */
void limbuf_drop(LimBuf *buf, size_t len);
