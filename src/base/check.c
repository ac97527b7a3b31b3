/* SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"

noreturn void
check_failed(const char *condition, const char *file, int line, const char *function,
	     const char *detail)
{
	char text[1024];
	log_flush();
	/* No stdio stream and no heap: the state of both is unknown here. */
	int len = snprintf(text, sizeof(text), "koukan: %s:%d: %s: assertion failed: %s%s%s\n",
			   file, line, function, condition, detail != NULL ? ": " : "",
			   detail != NULL ? detail : "");
	if (len >= (int)sizeof(text)) {
		len = (int)sizeof(text) - 1;
		text[len - 1] = '\n';
	}
	if (len > 0) {
		ssize_t done = write(STDERR_FILENO, text, (size_t)len);
		(void)done; /* nobody left to tell */
	}
	abort();
}
