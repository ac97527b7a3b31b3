/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into a server under test: replaces its flushes.
 *
 * FSYNC_SHIM=off      they do nothing: the control of the power-cut experiment
 * FSYNC_SHIM=USEC     each one takes this many microseconds more: a disk with a real cache flush
 *
 * Tests only; never part of the product. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int Flush(int fd);

/* Is the real one to be called?  Waits first when it is to be slow. */
static int
before(void)
{
	const char *text = getenv("FSYNC_SHIM");
	if (text == NULL)
		return 1;
	if (strcmp(text, "off") == 0)
		return 0;
	const long usec = strtol(text, NULL, 10);
	struct timespec left = {usec / 1000000, usec % 1000000 * 1000};
	while (nanosleep(&left, &left) != 0)
		;
	return 1;
}

static int
flush(const char *name, int fd)
{
	Flush *real = (Flush *)dlsym(RTLD_NEXT, name);
	return before() && real != NULL ? real(fd) : 0;
}

int
fsync(int fd)
{
	return flush("fsync", fd);
}

int
fdatasync(int fd)
{
	return flush("fdatasync", fd);
}
