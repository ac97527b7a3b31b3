/* SPDX-License-Identifier: Apache-2.0 */
/* The message on its way: dot-stuffed behind 354, or in chunks (BDAT, RFC 3030).  It flows as it
 * comes and as the hop reads; memory holds one piece and what the connection buffers.  The final
 * dot or BDAT LAST is written only when the body is final. */
#include <string.h>

#include "base/text.h"
#include "smtp/client_int.h"

#define FEED_UNSENT (128 * 1024) /* bytes in the connection above which the message waits */
#define FEED_PIECE  (32 * 1024)
#define CHUNKS_SENT 8 /* chunks without a reply, with PIPELINING */

bool
delivery_may_bdat(const SmtpDelivery *delivery)
{
	const SmtpOutputConf *conf = delivery->conf;
	return conf->enable_bdat && conf->protocol == SMTP_PROTOCOL_SMTP &&
	       delivery->client->caps.chunking;
}

static bool
is_binary(const SmtpDelivery *delivery)
{
	const EsmtpParam *body = mailbox_param(delivery->tx->mail_from, "BODY");
	return body != NULL && text_equal_nocase(body->value, "BINARYMIME");
}

static void
fail_read(SmtpDelivery *delivery)
{
	delivery_give_back(delivery, CLIENT_BROKEN);
	delivery_die(delivery, response_new(451, "4.3.0 message could not be read " SMTP_NOT_SENT));
}

/* The next bytes of the body, at most `max` (and FEED_PIECE when they are in a file: then they are
 * read into `buf`).  NULL at the end of what is there; *ret_ok is false when they cannot be read.
 */
static const char *
next_piece(SmtpDelivery *delivery, size_t max, char *buf, size_t *ret_len, bool *ret_ok)
{
	Blob *raw = delivery_raw(delivery);
	size_t len = 0;
	const char *data = blob_peek(raw, delivery->offset, &len);
	*ret_ok = true;
	if (data == NULL) {
		if (delivery->offset >= blob_len(raw))
			return NULL;
		*ret_ok = blob_read(raw, delivery->offset, buf, MIN(max, (size_t)FEED_PIECE), &len,
				    NULL) &&
			  len > 0;
		data = buf;
	}
	*ret_len = MIN(len, max);
	delivery->offset += *ret_ok ? *ret_len : 0;
	return *ret_ok ? data : NULL;
}

/* ---- DATA ---- */

static void
put(void *arg, const char *data, size_t len)
{
	conn_write(arg, data, len);
}

static void
feed_data(SmtpDelivery *delivery)
{
	SmtpClient *client = delivery->client;
	char buf[FEED_PIECE];
	bool ok = true;
	if (delivery->offset == 0)
		smtp_data_writer_init(&delivery->writer);
	while (conn_unsent(client->conn) < FEED_UNSENT) {
		size_t len;
		const char *data = next_piece(delivery, FEED_PIECE, buf, &len, &ok);
		if (!ok) {
			fail_read(delivery);
			return;
		}
		if (data == NULL)
			break;
		smtp_data_write(&delivery->writer, data, len, put, client->conn);
	}
	Blob *raw = delivery_raw(delivery);
	if (delivery->offset < blob_len(raw)) {
		conn_want_drained(client->conn);
	} else if (blob_is_final(raw)) {
		smtp_data_write_end(&delivery->writer, put, client->conn);
		delivery_set_state(delivery, DELIVERY_DOT);
		delivery_push_dots(delivery);
		client_end_body(client);
		return;
	}
	client_body_progress(client);
}

/* ---- BDAT ---- */

static size_t
chunk_size(const SmtpDelivery *delivery)
{
	return CLAMP(delivery->conf->chunk_size, SMTP_CHUNK_MIN, SMTP_CHUNK_MAX);
}

/* Collects a chunk in `out`; false when it cannot be read. */
static bool
read_chunk(SmtpDelivery *delivery, GString *out)
{
	char buf[FEED_PIECE];
	size_t left = chunk_size(delivery);
	bool ok = true;
	while (left > 0) {
		size_t len;
		const char *data = next_piece(delivery, left, buf, &len, &ok);
		if (data == NULL)
			break;
		smtp_text_write(&delivery->text, data, len, out);
		left -= len;
	}
	return ok;
}

/* One chunk; false when the rest has to wait or there is none. */
static bool
feed_chunk(SmtpDelivery *delivery)
{
	SmtpClient *client = delivery->client;
	Blob *raw = delivery_raw(delivery);
	uint64_t left = blob_len(raw) - delivery->offset;
	bool pipelining = client->caps.pipelining && !delivery->conf->no_pipelining;
	char head[48];
	/* a trickle does not become a flood of small chunks */
	if (!blob_is_final(raw) && left < chunk_size(delivery))
		return false;
	if (pipeline_outstanding(&client->pipeline) >= (pipelining ? CHUNKS_SENT : 1))
		return false;
	if (conn_unsent(client->conn) >= FEED_UNSENT) {
		conn_want_drained(client->conn);
		return false;
	}
	g_autoptr(GString) chunk = g_string_sized_new(MIN(left, chunk_size(delivery)) + 64);
	if (!read_chunk(delivery, chunk)) {
		fail_read(delivery);
		return false;
	}
	bool last = blob_is_final(raw) && delivery->offset == blob_len(raw);
	if (last)
		smtp_text_write_end(&delivery->text, chunk);
	int len = g_snprintf(head, sizeof(head), "BDAT %" G_GSIZE_FORMAT "%s\r\n", chunk->len,
			     last ? " LAST" : "");
	conn_write(client->conn, head, (size_t)len);
	conn_write(client->conn, chunk->str, chunk->len);
	pipeline_push(&client->pipeline, last ? PIPE_DOT : PIPE_BDAT, 0);
	if (last)
		delivery_set_state(delivery, DELIVERY_DOT);
	client_end_body(client); /* counts as sent */
	return !last;
}

static void
feed_bdat(SmtpDelivery *delivery)
{
	if (delivery->offset == 0)
		smtp_text_writer_init(&delivery->text, is_binary(delivery));
	while (delivery->state == DELIVERY_BODY && feed_chunk(delivery))
		;
}

void
delivery_feed(SmtpDelivery *delivery)
{
	if (delivery->bdat)
		feed_bdat(delivery);
	else
		feed_data(delivery);
}
