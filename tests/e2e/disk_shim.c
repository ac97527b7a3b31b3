/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into a server under test: while the file $KOUKAN_TEST_DISK/full exists, nothing can be
 * written to files in the folder $KOUKAN_TEST_DISK.
 *
 * Tests only; never part of the product. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

typedef ssize_t Write(int fd, const void *data, size_t len, off64_t at);

static int
is_full(int fd)
{
	const char *folder = getenv("KOUKAN_TEST_DISK");
	char link[64], path[PATH_MAX + 8];
	if (folder == NULL)
		return 0;
	snprintf(path, sizeof(path), "%s/full", folder);
	if (access(path, F_OK) != 0)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t got = readlink(link, path, sizeof(path) - 1);
	size_t len = strlen(folder);
	return got > (ssize_t)len && memcmp(path, folder, len) == 0 && path[len] == '/';
}

static ssize_t
write_at(const char *name, int fd, const void *data, size_t len, off64_t at)
{
	if (is_full(fd)) {
		errno = ENOSPC;
		return -1;
	}
	return ((Write *)dlsym(RTLD_NEXT, name))(fd, data, len, at);
}

ssize_t
pwrite(int fd, const void *data, size_t len, off_t at)
{
	return write_at("pwrite", fd, data, len, at);
}

ssize_t
pwrite64(int fd, const void *data, size_t len, off64_t at)
{
	return write_at("pwrite64", fd, data, len, at);
}
