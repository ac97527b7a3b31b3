/* SPDX-License-Identifier: Apache-2.0 */
#include "service/destinations.h"

#include <pthread.h>

#include "base/check.h"

struct Destinations {
	pthread_mutex_t lock;
	GHashTable *counts; /* name -> Count*; those that are not zero */
	unsigned limit, slice;
};

typedef struct Count {
	unsigned of[DESTINATION_KINDS];
} Count;

Destinations *
destinations_new(unsigned limit)
{
	Destinations *all = g_new0(Destinations, 1);
	pthread_mutex_init(&all->lock, NULL);
	all->counts = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	all->limit = MAX(limit, 1);
	all->slice = all->limit - all->limit / 2;
	return all;
}

void
destinations_free(Destinations *all)
{
	if (all == NULL)
		return;
	g_hash_table_unref(all->counts);
	pthread_mutex_destroy(&all->lock);
	g_free(all);
}

static bool
is_busy(const Destinations *all, const Count *count)
{
	return count->of[DESTINATION_QUEUED] + all->slice > all->limit;
}

void
destinations_enter(Destinations *all, const char *name, DestinationKind kind)
{
	const char *key = name != NULL ? name : "";
	pthread_mutex_lock(&all->lock);
	Count *count = g_hash_table_lookup(all->counts, key);
	if (count == NULL) {
		count = g_new0(Count, 1);
		g_hash_table_insert(all->counts, g_strdup(key), count);
	}
	count->of[kind]++;
	pthread_mutex_unlock(&all->lock);
}

bool
destinations_leave(Destinations *all, const char *name, DestinationKind kind)
{
	const char *key = name != NULL ? name : "";
	pthread_mutex_lock(&all->lock);
	Count *count = g_hash_table_lookup(all->counts, key);
	k_assert_for(count != NULL && count->of[kind] > 0, key);
	bool was_busy = is_busy(all, count);
	count->of[kind]--;
	bool freed = was_busy && !is_busy(all, count);
	if (count->of[DESTINATION_QUEUED] == 0 && count->of[DESTINATION_FRESH] == 0)
		g_hash_table_remove(all->counts, key);
	pthread_mutex_unlock(&all->lock);
	return freed;
}

unsigned
destinations_count(Destinations *all, const char *name, DestinationKind kind)
{
	pthread_mutex_lock(&all->lock);
	const Count *count = g_hash_table_lookup(all->counts, name != NULL ? name : "");
	unsigned found = count != NULL ? count->of[kind] : 0;
	pthread_mutex_unlock(&all->lock);
	return found;
}

unsigned
destinations_slice(const Destinations *all)
{
	return all->slice;
}

GPtrArray *
destinations_busy(Destinations *all)
{
	GPtrArray *busy = NULL;
	GHashTableIter iter;
	gpointer name, count;
	pthread_mutex_lock(&all->lock);
	g_hash_table_iter_init(&iter, all->counts);
	while (g_hash_table_iter_next(&iter, &name, &count)) {
		if (!is_busy(all, count))
			continue;
		if (busy == NULL)
			busy = g_ptr_array_new_with_free_func(g_free);
		g_ptr_array_add(busy, g_strdup(name));
	}
	pthread_mutex_unlock(&all->lock);
	return busy;
}
