/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "mailauth/dkim_sign.h"

#define LOOK_EVERY   USEC_PER_SEC
#define FILE_MAX_LEN (64 * 1024)

struct DkimKeyFile {
	char *path;
	pthread_mutex_t mutex; /* guards what follows */
	DkimKey *key;
	struct stat seen;
	Deadline next_look;
};

static bool
is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static DkimKey *
load(const char *path, const struct stat *info, GError **ret_error)
{
	gsize len = 0;
	char *text = NULL;
	if (info->st_size > FILE_MAX_LEN) {
		error_set(ret_error, K_ERROR_CONFIG, "%s: too big for a key", path);
		return NULL;
	}
	if (!g_file_get_contents(path, &text, &len, ret_error))
		return NULL;
	DkimKey *key = dkim_private_parse(text, path, ret_error);
	explicit_bzero(text, len);
	g_free(text);
	return key;
}

DkimKeyFile *
dkim_key_file_new(const char *path, GError **ret_error)
{
	struct stat info;
	if (stat(path, &info) != 0) {
		error_set_errno(ret_error, K_ERROR_CONFIG, errno, "%s", path);
		return NULL;
	}
	DkimKey *key = load(path, &info, ret_error);
	if (key == NULL)
		return NULL;
	DkimKeyFile *file = g_new0(DkimKeyFile, 1);
	file->path = g_strdup(path);
	file->key = key;
	file->seen = info;
	file->next_look = clock_after(LOOK_EVERY);
	k_assert(pthread_mutex_init(&file->mutex, NULL) == 0);
	return file;
}

void
dkim_key_file_free(DkimKeyFile *file)
{
	if (file == NULL)
		return;
	dkim_key_unref(file->key);
	pthread_mutex_destroy(&file->mutex);
	g_free(file->path);
	g_free(file);
}

/* A small local file, and only after it has changed: no reason to leave the thread for it. */
static void
look_again(DkimKeyFile *file)
{
	struct stat info;
	file->next_look = clock_after(LOOK_EVERY);
	if (stat(file->path, &info) != 0 || is_same(&info, &file->seen))
		return;
	DkimKey *key = load(file->path, &info, NULL);
	if (key == NULL)
		return; /* perhaps half written: the next look tells */
	dkim_key_unref(file->key);
	file->key = key;
	file->seen = info;
}

DkimKey *
dkim_key_file_get(DkimKeyFile *file)
{
	pthread_mutex_lock(&file->mutex);
	if (clock_passed(file->next_look))
		look_again(file);
	DkimKey *key = dkim_key_ref(file->key);
	pthread_mutex_unlock(&file->mutex);
	return key;
}
