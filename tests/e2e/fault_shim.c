/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into a server under test, with a folder in $KOUKAN_TEST_FAULTS:
 *
 * FOLDER/full    while it exists nothing can be written to files in the folder
 * FOLDER/clock   the wall clock is ahead by the seconds in this file, which may be negative
 * FOLDER/stall   while it exists no flush of a file ends; FOLDER/stalled appears when one has begun
 * FOLDER/slow    while it exists each turn of an event loop takes 0.2 s more, as on a machine that
 *                has too much to do
 *
 * Tests only; never part of the product. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

typedef ssize_t Write(int fd, const void *data, size_t len, off64_t at);

static int
is_full(int fd)
{
	const char *folder = getenv("KOUKAN_TEST_FAULTS");
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

int
clock_gettime(clockid_t clock, struct timespec *at)
{
	typedef int Get(clockid_t, struct timespec *);
	static Get *real;
	if (real == NULL)
		real = (Get *)dlsym(RTLD_NEXT, "clock_gettime");
	int rc = real(clock, at);
	const char *folder = getenv("KOUKAN_TEST_FAULTS");
	if (clock != CLOCK_REALTIME || folder == NULL)
		return rc;
	char path[PATH_MAX], text[32];
	snprintf(path, sizeof(path), "%s/clock", folder);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (got > 0) {
		text[got] = '\0';
		at->tv_sec += strtol(text, NULL, 10);
	}
	return rc;
}

ssize_t
pwrite64(int fd, const void *data, size_t len, off64_t at)
{
	return write_at("pwrite64", fd, data, len, at);
}

int
fdatasync(int fd)
{
	const char *folder = getenv("KOUKAN_TEST_FAULTS");
	char path[PATH_MAX];
	while (folder != NULL) {
		snprintf(path, sizeof(path), "%s/stall", folder);
		if (access(path, F_OK) != 0)
			break;
		snprintf(path, sizeof(path), "%s/stalled", folder);
		int mark = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (mark >= 0)
			close(mark);
		usleep(5000);
	}
	return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

int
epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
	typedef int Wait(int, struct epoll_event *, int, int);
	const char *folder = getenv("KOUKAN_TEST_FAULTS");
	char path[PATH_MAX];
	int got = ((Wait *)dlsym(RTLD_NEXT, "epoll_wait"))(fd, events, count, timeout);
	if (folder != NULL) {
		snprintf(path, sizeof(path), "%s/slow", folder);
		if (access(path, F_OK) == 0)
			usleep(200 * 1000);
	}
	return got;
}
