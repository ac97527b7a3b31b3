/* SPDX-License-Identifier: Apache-2.0 */
#include "service/bounce.h"

#include "base/clock.h"
#include "base/ids.h"
#include "base/json.h"
#include "mime/build.h"
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

static char *
blob_header(const Blob *blob, size_t *ret_len)
{
	g_autofree char *start = g_malloc(DSN_HEADERS_MAX);
	size_t got = 0;
	if (!blob_read(blob, 0, start, DSN_HEADERS_MAX, &got, NULL))
		return NULL;
	*ret_len = dsn_header_len(start, got);
	return *ret_len > 0 ? g_steal_pointer(&start) : NULL;
}

/* A message that was submitted as JSON: its header fields rendered, without its parts. */
static Blob *
render_headers(const json_t *builder)
{
	g_autoptr(json_t) spec = json_object();
	json_object_set(spec, "headers", json_object_get(builder, "headers"));
	g_autoptr(TxBody) body = tx_body_new_builder(spec, NULL);
	return mime_build(body, NULL);
}

/* The header block of the message that failed; its rest is not returned (RFC 3464 2: enough to
 * recognise it). */
static char *
original_header(const Tx *tx, size_t *ret_len)
{
	if (tx->body == NULL)
		return NULL;
	if (tx->body->raw != NULL)
		return blob_header(tx->body->raw, ret_len);
	g_autoptr(Blob) rendered = render_headers(tx->body->builder);
	return rendered != NULL ? blob_header(rendered, ret_len) : NULL;
}

bool
bounce_is_owed(const Tx *tx, const EndpointConf *endpoint, const char *mailer_daemon)
{
	return tx->notification != NULL && endpoint->notification_sender != NULL &&
	       mailer_daemon != NULL && !tx->cancelled && tx->mail_from != NULL &&
	       tx->mail_from->addr[0] != '\0' && tx_rcpt_count(tx) == 1 && failure_of(tx) != NULL;
}

Tx *
bounce_new(const Tx *tx, const EndpointConf *endpoint, const char *mailer_daemon, int64_t creation,
	   BounceKind kind)
{
	if (!bounce_is_owed(tx, endpoint, mailer_daemon))
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
			  .now = clock_wall_sec(),
			  .delayed = kind == BOUNCE_DELAY,
			  .retry_until = endpoint->has_retry && endpoint->retry.deadline >= 0
						 ? creation + endpoint->retry.deadline
						 : 0};
	g_autofree char *header = original_header(tx, &input.header_len);
	input.header = header;
	GString *message = dsn_build(&input);
	g_autoptr(Blob) blob = blob_new_bytes(message->str, message->len);
	g_string_free(message, TRUE);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	/* To an address outside ASCII the notification itself is not ASCII (mime/dsn.h). */
	static const EsmtpParam eight_bit[] = {{(char *)"BODY", (char *)"8BITMIME"},
					       {(char *)"SMTPUTF8", NULL}};
	const bool utf8 = address_needs_utf8(tx->mail_from->addr);
	g_autoptr(Mailbox) from = mailbox_new("", eight_bit, utf8 ? G_N_ELEMENTS(eight_bit) : 0);
	g_autoptr(Mailbox) to = mailbox_new(tx->mail_from->addr, NULL, 0);
	Tx *bounce = tx_new(tx->queue);
	tx_set_sender(bounce, endpoint->notification_sender, endpoint->notification_tag);
	tx_set_mail_from(bounce, from);
	tx_add_rcpt(bounce, to);
	tx_set_body(bounce, body);
	return bounce;
}

bool
bounce_delay_is_due(const EndpointConf *endpoint, int64_t creation, int64_t this_attempt,
		    int64_t next_attempt)
{
	int64_t delay = endpoint->delay_warning / USEC_PER_SEC;
	return delay > 0 && MAX(this_attempt, creation) < creation + delay &&
	       next_attempt >= creation + delay;
}
