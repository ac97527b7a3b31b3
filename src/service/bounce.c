/* SPDX-License-Identifier: Apache-2.0 */
#include "service/bounce.h"

#include "base/clock.h"
#include "base/ids.h"
#include "mime/dsn.h"

static const Response *
failure_of(const Tx *tx)
{
	if (response_err(tx->mail_response))
		return tx->mail_response;
	if (response_err(tx_rcpt(tx, 0)->response))
		return tx_rcpt(tx, 0)->response;
	return response_err(tx->data_response) ? tx->data_response : NULL;
}

/* The header block of the message that failed; its rest is not returned (RFC 3464 2: enough to
 * recognise it). */
static char *
original_header(const Tx *tx, size_t *ret_len)
{
	if (tx->body == NULL || tx->body->raw == NULL)
		return NULL;
	g_autofree char *start = g_malloc(DSN_HEADERS_MAX);
	size_t got = 0;
	if (!blob_read(tx->body->raw, 0, start, DSN_HEADERS_MAX, &got, NULL))
		return NULL;
	*ret_len = dsn_header_len(start, got);
	return *ret_len > 0 ? g_steal_pointer(&start) : NULL;
}

static bool
is_owed(const Tx *tx, const EndpointConf *endpoint, const char *mailer_daemon)
{
	return tx->notification != NULL && endpoint->notification_sender != NULL &&
	       mailer_daemon != NULL && !tx->cancelled && tx->mail_from != NULL &&
	       tx->mail_from->addr[0] != '\0' && tx_rcpt_count(tx) == 1 && failure_of(tx) != NULL;
}

Tx *
bounce_new(const Tx *tx, const EndpointConf *endpoint, const char *mailer_daemon, int64_t creation)
{
	if (!is_owed(tx, endpoint, mailer_daemon))
		return NULL;
	const Response *failure = failure_of(tx);
	uint64_t random[2];
	ids_random(random, sizeof(random));
	g_autofree char *unique = g_strdup_printf(
		"%016" G_GINT64_MODIFIER "x%016" G_GINT64_MODIFIER "x", random[0], random[1]);
	DsnInput input = {.mailer_daemon = mailer_daemon,
			  .to = tx->mail_from->addr,
			  .rcpt = tx_rcpt(tx, 0)->to->addr,
			  .code = failure->code,
			  .text = failure->message,
			  .unique = unique,
			  .arrival = creation,
			  .now = clock_wall_sec()};
	g_autofree char *header = original_header(tx, &input.header_len);
	input.header = header;
	GString *message = dsn_build(&input);
	g_autoptr(Blob) blob = blob_new_bytes(message->str, message->len);
	g_string_free(message, TRUE);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	g_autoptr(Mailbox) from = mailbox_new("", NULL, 0);
	g_autoptr(Mailbox) to = mailbox_new(tx->mail_from->addr, NULL, 0);
	Tx *bounce = tx_new(tx->queue);
	tx_set_sender(bounce, endpoint->notification_sender, endpoint->notification_tag);
	tx_set_mail_from(bounce, from);
	tx_add_rcpt(bounce, to);
	tx_set_body(bounce, body);
	return bounce;
}
