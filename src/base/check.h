/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Assertions about our own code.  Always on, in release builds too: a process that no longer
 * knows its own state must stop before it acknowledges mail.  Never used for input of a peer,
 * of a file or of the database: those are verdicts (Response) or errors (GError).
 * Any thread. */
#include <stdnoreturn.h>

#define K_MUST_CHECK        __attribute__((warn_unused_result))
#define K_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Prints the failed condition with its place and `detail` (may be NULL), then aborts. */
noreturn void check_failed(const char *condition, const char *file, int line, const char *function,
			   const char *detail);

#define k_assert(cond)                                                                             \
	(__builtin_expect(!!(cond), 1) ? (void)0                                                   \
				       : check_failed(#cond, __FILE__, __LINE__, __func__, NULL))

/* `detail`: a string that says which object it was about, evaluated only on failure. */
#define k_assert_for(cond, detail)                                                                 \
	(__builtin_expect(!!(cond), 1)                                                             \
		 ? (void)0                                                                         \
		 : check_failed(#cond, __FILE__, __LINE__, __func__, (detail)))

#define k_unreachable() check_failed("unreachable", __FILE__, __LINE__, __func__, NULL)
