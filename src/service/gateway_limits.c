/* SPDX-License-Identifier: Apache-2.0 */
#include "service/gateway_limits.h"

#include <glib.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/net.h"

#define SWEEP_EVERY (30 * USEC_PER_SEC)

/* Tokens come back evenly; one costs `span`, and a full bucket holds `count` of them. */
typedef struct Bucket {
	int64_t used; /* tokens in use, times span */
	Deadline at;  /* when that was so */
} Bucket;

typedef struct Client {
	unsigned connections;
	Bucket buckets[SMTP_GATES];
} Client;

struct GatewayLimits {
	GatewayLimitsConf conf;
	pthread_mutex_t lock;
	/* under `lock` */
	GHashTable *clients; /* char* -> Client*, both owned */
	unsigned connections;
	Deadline swept;
};

static bool
limits_anything(const GatewayLimitsConf *conf)
{
	bool any = conf->connections_max > 0 || conf->connections_per_client > 0;
	for (int i = 0; i < SMTP_GATES; i++)
		any = any || conf->rates[i].count > 0;
	return any;
}

GatewayLimits *
gateway_limits_new(const GatewayLimitsConf *conf)
{
	if (!limits_anything(conf))
		return NULL;
	GatewayLimits *limits = g_new0(GatewayLimits, 1);
	limits->conf = *conf;
	k_assert(pthread_mutex_init(&limits->lock, NULL) == 0);
	limits->clients = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	limits->swept = clock_mono();
	return limits;
}

void
gateway_limits_free(GatewayLimits *limits)
{
	if (limits == NULL)
		return;
	g_hash_table_unref(limits->clients);
	(void)pthread_mutex_destroy(&limits->lock);
	g_free(limits);
}

/* ---- buckets ---- */

static void
settle(Bucket *bucket, const GatewayRate *rate, Deadline now)
{
	Usec passed = now - bucket->at;
	bool full = passed >= rate->span; /* and the product below cannot overflow */
	int64_t back = full ? bucket->used : passed * (int64_t)rate->count;
	bucket->used = back >= bucket->used ? 0 : bucket->used - back;
	bucket->at = now;
}

static bool
take_token(Bucket *bucket, const GatewayRate *rate, Deadline now)
{
	if (rate->count == 0)
		return true;
	settle(bucket, rate, now);
	/* a bucket that began full gives `count` at once */
	if (bucket->used + rate->span > rate->span * (int64_t)rate->count)
		return false;
	bucket->used += rate->span;
	return true;
}

static bool
has_token(Bucket *bucket, const GatewayRate *rate, Deadline now)
{
	if (rate->count == 0)
		return true;
	settle(bucket, rate, now);
	return bucket->used + rate->span <= rate->span * (int64_t)rate->count;
}

/* ---- clients ---- */

static void
make_key(const char *address, char out[NET_ADDR_TEXT_MAX])
{
	NetAddr addr;
	if (strchr(address, ':') == NULL || !net_addr_parse(address, 0, &addr) ||
	    addr.storage.ss_family != AF_INET6) {
		(void)g_strlcpy(out, address, NET_ADDR_TEXT_MAX);
		return;
	}
	struct sockaddr_in6 sin6;
	memcpy(&sin6, &addr.storage, sizeof(sin6));
	memset(sin6.sin6_addr.s6_addr + 8, 0, 8);
	net_addr_from_sockaddr((const struct sockaddr *)&sin6, sizeof(sin6), &addr);
	net_addr_format(&addr, out);
}

/* Nothing would change if it were forgotten. */
static gboolean
is_idle(gpointer key, gpointer value, gpointer data)
{
	const GatewayLimits *limits = data;
	Client *client = value;
	Deadline now = clock_mono();
	(void)key;
	for (int i = 0; i < SMTP_GATES; i++) {
		if (limits->conf.rates[i].count == 0)
			continue;
		settle(&client->buckets[i], &limits->conf.rates[i], now);
		if (client->buckets[i].used > 0)
			return FALSE;
	}
	return client->connections == 0;
}

static void
sweep(GatewayLimits *limits, Deadline now)
{
	if (now - limits->swept < SWEEP_EVERY)
		return;
	limits->swept = now;
	(void)g_hash_table_foreach_remove(limits->clients, is_idle, limits);
}

/* NULL: too many are remembered. */
static Client *
find(GatewayLimits *limits, const char *key, Deadline now)
{
	sweep(limits, now);
	Client *client = g_hash_table_lookup(limits->clients, key);
	if (client != NULL || g_hash_table_size(limits->clients) >= GATEWAY_LIMITS_ADDRESSES)
		return client;
	client = g_new0(Client, 1);
	g_hash_table_insert(limits->clients, g_strdup(key), client);
	return client;
}

static bool
admit_connection(GatewayLimits *limits, Client *client, Deadline now)
{
	const GatewayLimitsConf *conf = &limits->conf;
	if (conf->connections_max > 0 && limits->connections >= conf->connections_max)
		return false;
	if (client != NULL) {
		if (conf->connections_per_client > 0 &&
		    client->connections >= conf->connections_per_client)
			return false;
		if (!take_token(&client->buckets[SMTP_GATE_CONNECTION],
				&conf->rates[SMTP_GATE_CONNECTION], now))
			return false;
		client->connections++;
	}
	limits->connections++;
	return true;
}

static bool
admit(GatewayLimits *limits, SmtpGate gate, const char *key)
{
	Deadline now = clock_mono();
	Client *client = find(limits, key, now);
	if (gate == SMTP_GATE_CONNECTION)
		return admit_connection(limits, client, now);
	if (client == NULL)
		return true;
	if (gate == SMTP_GATE_AUTH)
		return has_token(&client->buckets[SMTP_GATE_AUTH_FAILURE],
				 &limits->conf.rates[SMTP_GATE_AUTH_FAILURE], now);
	return take_token(&client->buckets[gate], &limits->conf.rates[gate], now);
}

bool
gateway_limits_admit(GatewayLimits *limits, SmtpGate gate, const char *address)
{
	char key[NET_ADDR_TEXT_MAX];
	make_key(address, key);
	(void)pthread_mutex_lock(&limits->lock);
	bool ok = admit(limits, gate, key);
	(void)pthread_mutex_unlock(&limits->lock);
	return ok;
}

void
gateway_limits_leave(GatewayLimits *limits, const char *address)
{
	char key[NET_ADDR_TEXT_MAX];
	make_key(address, key);
	(void)pthread_mutex_lock(&limits->lock);
	Client *client = g_hash_table_lookup(limits->clients, key);
	if (client != NULL && client->connections > 0)
		client->connections--;
	limits->connections--;
	(void)pthread_mutex_unlock(&limits->lock);
}

unsigned
gateway_limits_addresses(GatewayLimits *limits)
{
	(void)pthread_mutex_lock(&limits->lock);
	unsigned count = g_hash_table_size(limits->clients);
	(void)pthread_mutex_unlock(&limits->lock);
	return count;
}
