/* SPDX-License-Identifier: Apache-2.0 */
#include "service/rest_limits.h"

#include <arpa/inet.h>
#include <glib.h>
#include <pthread.h>
#include <string.h>

#include "base/check.h"

#define SPAN        (60 * USEC_PER_SEC)
#define SWEEP_EVERY (30 * USEC_PER_SEC)

/* `due` is when a client that asks evenly would ask next; it may be ahead of now by a whole span,
 * which is what may come at once. */
typedef struct Client {
	Deadline due;
	unsigned uploads;
} Client;

struct RestLimits {
	RestLimitsConf conf;
	pthread_mutex_t lock;
	/* under `lock` */
	GHashTable *clients; /* char* -> Client*, both owned */
	Deadline swept;
};

RestLimits *
rest_limits_new(const RestLimitsConf *conf)
{
	if (conf->requests_per_minute == 0 && conf->uploads_max == 0)
		return NULL;
	RestLimits *limits = g_new0(RestLimits, 1);
	limits->conf = *conf;
	k_assert(pthread_mutex_init(&limits->lock, NULL) == 0);
	limits->clients = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	return limits;
}

void
rest_limits_free(RestLimits *limits)
{
	if (limits == NULL)
		return;
	g_hash_table_unref(limits->clients);
	pthread_mutex_destroy(&limits->lock);
	g_free(limits);
}

char *
rest_limits_client(const char *address)
{
	struct in6_addr v6;
	char text[INET6_ADDRSTRLEN];
	if (inet_pton(AF_INET6, address, &v6) != 1)
		return g_strdup(address);
	memset(&v6.s6_addr[8], 0, 8);
	return g_strconcat(inet_ntop(AF_INET6, &v6, text, sizeof(text)), "/64", NULL);
}

/* With the lock: forgets who asked nothing for a while. */
static void
sweep(RestLimits *limits, Deadline now)
{
	GHashTableIter iter;
	gpointer value;
	if (now - limits->swept < SWEEP_EVERY &&
	    g_hash_table_size(limits->clients) < REST_LIMITS_CLIENTS)
		return;
	limits->swept = now;
	g_hash_table_iter_init(&iter, limits->clients);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		const Client *client = value;
		if (client->uploads == 0 && client->due <= now)
			g_hash_table_iter_remove(&iter);
	}
}

/* With the lock; NULL: too many to remember. */
static Client *
find(RestLimits *limits, const char *name, Deadline now)
{
	Client *client = g_hash_table_lookup(limits->clients, name);
	if (client != NULL)
		return client;
	sweep(limits, now);
	if (g_hash_table_size(limits->clients) >= REST_LIMITS_CLIENTS)
		return NULL;
	client = g_new0(Client, 1);
	g_hash_table_insert(limits->clients, g_strdup(name), client);
	return client;
}

static RestLimit
admit(const RestLimitsConf *conf, Client *client, bool upload, Deadline now, unsigned *ret_wait)
{
	*ret_wait = 1;
	if (upload && conf->uploads_max > 0 && client->uploads >= conf->uploads_max)
		return REST_LIMIT_UPLOADS;
	if (conf->requests_per_minute > 0) {
		Usec each = SPAN / conf->requests_per_minute;
		Deadline due = MAX(client->due, now) + each;
		Usec early = due - now - SPAN;
		if (early > 0) {
			*ret_wait = (unsigned)((early + USEC_PER_SEC - 1) / USEC_PER_SEC);
			return REST_LIMIT_RATE;
		}
		client->due = due;
	}
	client->uploads += upload ? 1 : 0;
	return REST_LIMIT_NONE;
}

RestLimit
rest_limits_admit(RestLimits *limits, const char *name, bool upload, Deadline now,
		  unsigned *ret_wait)
{
	pthread_mutex_lock(&limits->lock);
	Client *client = find(limits, name, now);
	RestLimit limit = REST_LIMIT_NONE;
	if (client != NULL)
		limit = admit(&limits->conf, client, upload, now, ret_wait);
	pthread_mutex_unlock(&limits->lock);
	return limit;
}

void
rest_limits_leave(RestLimits *limits, const char *name)
{
	pthread_mutex_lock(&limits->lock);
	Client *client = g_hash_table_lookup(limits->clients, name);
	if (client != NULL && client->uploads > 0)
		client->uploads--;
	pthread_mutex_unlock(&limits->lock);
}

unsigned
rest_limits_clients(RestLimits *limits)
{
	pthread_mutex_lock(&limits->lock);
	unsigned count = g_hash_table_size(limits->clients);
	pthread_mutex_unlock(&limits->lock);
	return count;
}
