/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Regular expressions (PCRE2) on bytes from peers, each try bounded in steps, depth and memory, so
 * that no text can keep a worker busy.  Compiled once, immutable, any thread.  PCRE2 is at home
 * here. */
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

#define PATTERN_MAX       1024   /* bytes of an expression */
#define PATTERN_TEXT_MAX  16384  /* bytes of a text that are looked at */
#define PATTERN_STEPS_MAX 200000 /* of one try: some milliseconds */
#define PATTERN_DEPTH_MAX                                                                          \
	40000 /* nested backtracking points: a group repeated all along a text                     \
		 needs two for each byte */
#define PATTERN_HEAP_MAX (8 << 20) /* bytes */

typedef struct Pattern Pattern;

typedef enum PatternResult {
	PATTERN_NO,
	PATTERN_YES,
	PATTERN_LIMIT, /* one of the bounds was reached: nobody knows */
} PatternResult;

/* NULL: it cannot be used; *ret_fault (owned) says why, *ret_offset at which byte. */
K_MUST_CHECK Pattern *pattern_new(const char *text, char **ret_fault, size_t *ret_offset);
void pattern_free(Pattern *pattern); /* NULL is fine */
/* Is there a match anywhere?  What is not UTF-8 never matches a character but does no harm. */
PatternResult pattern_match(const Pattern *pattern, const char *text, size_t len);
