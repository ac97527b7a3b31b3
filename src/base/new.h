/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Zeroed memory for what is made for each message.  glibc's calloc, which is behind g_new0, does
 * not take from the thread's cache of free blocks (until 2.41); malloc does. */
#include <glib.h>
#include <string.h>

static inline void *
k_alloc0(size_t size)
{
	return memset(g_malloc(size), 0, size);
}

/* As g_new0(type, 1). */
#define k_new0(type) ((type *)k_alloc0(sizeof(type)))
