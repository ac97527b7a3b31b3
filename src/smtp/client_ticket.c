/* SPDX-License-Identifier: Apache-2.0 */
/* TLS tickets of next hops, so that the next connection costs less than a full handshake: one for
 * each destination, used once (RFC 8446 C.4), at most SMTP_TICKETS_MAX, the oldest go first.  The
 * key has the output in it, so a verified session is resumed only by who would verify the same. */
#include "smtp/client_int.h"

typedef struct KeptTicket {
	SmtpDestKey key;
	TlsTicket *ticket;
	Deadline until;
	GList link; /* in pool->ticket_ages */
} KeptTicket;

void
client_ticket_free(void *data)
{
	KeptTicket *kept = data;
	tls_ticket_free(kept->ticket);
	g_free(kept);
}

static void
forget(SmtpClientPool *pool, KeptTicket *kept)
{
	g_queue_unlink(&pool->ticket_ages, &kept->link);
	(void)g_hash_table_remove(pool->tickets, &kept->key);
}

void
client_keep_ticket(const SmtpClient *client)
{
	SmtpClientPool *pool = client->dest->pool;
	TlsTicket *ticket = conn_ticket(client->conn);
	if (ticket == NULL)
		return;
	KeptTicket *kept = g_hash_table_lookup(pool->tickets, &client->dest->key);
	if (kept != NULL)
		forget(pool, kept);
	kept = g_new0(KeptTicket, 1);
	kept->key = client->dest->key;
	kept->ticket = ticket;
	kept->until = clock_after(SMTP_TICKET_LIFE);
	kept->link.data = kept;
	g_hash_table_insert(pool->tickets, &kept->key, kept);
	g_queue_push_tail_link(&pool->ticket_ages, &kept->link);
	if (pool->ticket_ages.length > SMTP_TICKETS_MAX)
		forget(pool, pool->ticket_ages.head->data);
}

void
client_offer_ticket(const SmtpClient *client)
{
	SmtpClientPool *pool = client->dest->pool;
	KeptTicket *kept = g_hash_table_lookup(pool->tickets, &client->dest->key);
	if (kept == NULL)
		return;
	if (!clock_passed(kept->until))
		conn_offer_ticket(client->conn, g_steal_pointer(&kept->ticket));
	forget(pool, kept);
}
