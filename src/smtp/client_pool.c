/* SPDX-License-Identifier: Apache-2.0 */
#include "smtp/client_pool.h"

#include <string.h>

#include "smtp/client_int.h"

#define RELIEF_EVERY (50 * USEC_PER_MS) /* a look at the connections while somebody waits */

static void on_relief(void *arg);

void
smtp_output_conf_init(SmtpOutputConf *conf)
{
	*conf = (SmtpOutputConf){
		.name = "",
		.ehlo_host = "localhost",
		.protocol = SMTP_PROTOCOL_SMTP,
		.tls_policy = SMTP_TLS_OPPORTUNISTIC,
		.chunk_size = 64 * 1024,
		.timeouts =
			{
				.connect = 30 * USEC_PER_SEC,
				.greeting = 300 * USEC_PER_SEC,
				.ehlo = 300 * USEC_PER_SEC,
				.tls = 60 * USEC_PER_SEC,
				.auth = 180 * USEC_PER_SEC,
				.mail = 300 * USEC_PER_SEC,
				.rcpt = 300 * USEC_PER_SEC,
				.data = 120 * USEC_PER_SEC,
				.block = 180 * USEC_PER_SEC,
				.dot = 600 * USEC_PER_SEC,
				.rset = 20 * USEC_PER_SEC,
				.quit = 5 * USEC_PER_SEC,
			},
		.reuse_max = 100,
		.reuse_idle = 2 * USEC_PER_SEC,
		.per_destination = 20,
	};
}

/* ---- destinations ---- */

static guint
key_hash(gconstpointer data)
{
	const unsigned char *p = data;
	guint hash = 2166136261U;
	for (size_t i = 0; i < sizeof(SmtpDestKey); i++)
		hash = (hash ^ p[i]) * 16777619U;
	return hash;
}

static gboolean
key_equal(gconstpointer a, gconstpointer b)
{
	return memcmp(a, b, sizeof(SmtpDestKey)) == 0;
}

static void
hash_name(const char *name, uint8_t out[32])
{
	gsize len = 32;
	g_autofree char *lower = g_ascii_strdown(name, -1);
	GChecksum *sum = g_checksum_new(G_CHECKSUM_SHA256);
	g_checksum_update(sum, (const guchar *)lower, -1);
	g_checksum_get_digest(sum, out, &len);
	g_checksum_free(sum);
}

static void
key_make(const SmtpOutputConf *conf, const NetAddr *addr, const char *name, SmtpDestKey *ret_key)
{
	memset(ret_key, 0, sizeof(*ret_key)); /* padding is compared, too */
	ret_key->conf = conf;
	ret_key->family = (uint16_t)addr->storage.ss_family;
	ret_key->port = net_addr_port(addr);
	if (name != NULL)
		hash_name(name, ret_key->name);
	if (addr->storage.ss_family == AF_INET6)
		memcpy(ret_key->addr, &((const struct sockaddr_in6 *)&addr->storage)->sin6_addr,
		       16);
	else
		memcpy(ret_key->addr, &((const struct sockaddr_in *)&addr->storage)->sin_addr, 4);
}

static SmtpDest *
dest_get(SmtpClientPool *pool, const SmtpOutputConf *conf, const NetAddr *addr, const char *name)
{
	SmtpDestKey key;
	key_make(conf, addr, name, &key);
	SmtpDest *dest = g_hash_table_lookup(pool->dests, &key);
	if (dest != NULL)
		return dest;
	dest = g_new0(SmtpDest, 1);
	dest->key = key;
	dest->pool = pool;
	dest->addr = *addr;
	dest->name = g_strdup(name);
	timer_init(&dest->relief, pool->worker, on_relief, dest);
	g_hash_table_insert(pool->dests, &dest->key, dest);
	return dest;
}

static void
dest_free(void *arg)
{
	SmtpDest *dest = arg;
	timer_clear(&dest->relief);
	g_free(dest->name);
	g_free(dest);
}

/* A destination without connections and without anybody waiting is forgotten. */
static void
dest_forget_unused(SmtpDest *dest)
{
	if (dest->clients.length == 0 && dest->waiting.length == 0)
		(void)g_hash_table_remove(dest->pool->dests, &dest->key);
}

static unsigned
dest_limit(const SmtpDest *dest)
{
	return dest->key.conf->per_destination > 0 ? dest->key.conf->per_destination : 1;
}

static SmtpClient *
dest_connect(SmtpDest *dest, SmtpDelivery *delivery)
{
	SmtpClient *client = client_new(dest, delivery);
	g_queue_push_tail_link(&dest->clients, &client->all_link);
	dest->pool->count++;
	return client;
}

/* ---- lending ---- */

static void
take_idle(SmtpDest *dest, SmtpDelivery *delivery)
{
	SmtpClient *client = dest->idle.head->data;
	g_queue_unlink(&dest->idle, &client->idle_link);
	delivery->client = client;
	client_borrow(client, delivery);
	delivery_on_ready(delivery);
}

/* Connections that stand still are taken back for those who wait, as many as are not on their way
 * back already. */
static void
on_relief(void *arg)
{
	SmtpDest *dest = arg;
	g_autoptr(GPtrArray) quiet = g_ptr_array_new();
	unsigned coming = 0;
	for (const GList *at = dest->clients.head; at != NULL; at = at->next) {
		const SmtpClient *client = at->data;
		if (client->delivery == NULL)
			coming++;
		else if (delivery_is_quiet(client->delivery))
			g_ptr_array_add(quiet, client->delivery);
	}
	/* parking may end a connection, and so change the list */
	for (guint i = 0; i < quiet->len && coming < dest->waiting.length; i++, coming++)
		delivery_park(g_ptr_array_index(quiet, i));
	if (dest->waiting.length > 0)
		timer_set(&dest->relief, RELIEF_EVERY);
}

static void
wait_for_one(SmtpDest *dest, SmtpDelivery *delivery)
{
	if (dest->waiting.length >= SMTP_WAITING_MAX) {
		delivery_on_full(delivery);
		return;
	}
	delivery->dest = dest;
	g_queue_push_tail_link(&dest->waiting, &delivery->wait_link);
	timer_set(&delivery->wait, client_wait_timeout(delivery->conf));
	if (!timer_is_set(&dest->relief))
		timer_set(&dest->relief, RELIEF_EVERY);
	/* a free connection is no use to one who needs a fresh one, but it has its place */
	if (dest->idle.length > 0)
		client_leave(dest->idle.tail->data);
}

void
pool_acquire(SmtpDelivery *delivery, PoolWant want)
{
	const char *name = delivery->conf->tls_mx_name ? delivery->tx->remote_host->name : NULL;
	SmtpDest *dest = dest_get(delivery->pool, delivery->conf, &delivery->addr, name);
	if (want == POOL_ANY && dest->idle.length > 0) {
		take_idle(dest, delivery);
	} else if (dest->clients.length < dest_limit(dest)) {
		delivery->client = dest_connect(dest, delivery);
	} else {
		wait_for_one(dest, delivery);
	}
}

void
pool_leave_waiting(SmtpDelivery *delivery)
{
	SmtpDest *dest = g_steal_pointer(&delivery->dest);
	timer_cancel(&delivery->wait);
	if (dest == NULL)
		return;
	g_queue_unlink(&dest->waiting, &delivery->wait_link);
	dest_forget_unused(dest);
}

/* The first in the waiting list, taken off it. */
static SmtpDelivery *
next_waiting(SmtpDest *dest)
{
	GList *link = g_queue_pop_head_link(&dest->waiting);
	if (link == NULL)
		return NULL;
	SmtpDelivery *delivery = link->data;
	delivery->dest = NULL;
	timer_cancel(&delivery->wait);
	return delivery;
}

void
pool_client_idle(SmtpClient *client)
{
	SmtpDest *dest = client->dest;
	g_queue_push_head_link(&dest->idle, &client->idle_link);
	SmtpDelivery *delivery = next_waiting(dest);
	if (delivery != NULL)
		take_idle(dest, delivery);
}

void
pool_client_closed(SmtpClient *client)
{
	SmtpDest *dest = client->dest;
	if (client->idle_link.prev != NULL || client->idle_link.next != NULL ||
	    dest->idle.head == &client->idle_link)
		g_queue_unlink(&dest->idle, &client->idle_link);
	g_queue_unlink(&dest->clients, &client->all_link);
	dest->pool->count--;
	SmtpDelivery *delivery = dest->clients.length < dest_limit(dest) ? next_waiting(dest)
									 : NULL;
	if (delivery != NULL)
		delivery->client = dest_connect(dest, delivery);
	else
		dest_forget_unused(dest);
}

/* ---- life ---- */

SmtpClientPool *
smtp_client_pool_new(Worker *worker)
{
	SmtpClientPool *pool = g_new0(SmtpClientPool, 1);
	pool->worker = worker;
	pool->tickets = g_hash_table_new_full(key_hash, key_equal, NULL, client_ticket_free);
	pool->dests = g_hash_table_new_full(key_hash, key_equal, NULL, dest_free);
	return pool;
}

void
smtp_client_pool_free(SmtpClientPool *pool)
{
	if (pool == NULL)
		return;
	k_assert_on(pool->worker);
	/* first those that wait, lest they get the connections of the others */
	for (GList *at = pool->deliveries.head, *next; at != NULL; at = next) {
		next = at->next;
		delivery_on_pool_free(at->data);
	}
	GHashTableIter iter;
	gpointer value;
	while (g_hash_table_iter_init(&iter, pool->dests),
	       g_hash_table_iter_next(&iter, NULL, &value)) {
		SmtpDest *dest = value;
		client_leave(dest->clients.head->data);
	}
	g_hash_table_unref(pool->dests);
	g_hash_table_unref(pool->tickets);
	g_free(pool);
}

unsigned
smtp_client_pool_count(const SmtpClientPool *pool)
{
	return pool->count;
}
