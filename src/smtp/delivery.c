/* SPDX-License-Identifier: Apache-2.0 */
/* NEW > WAITING > RUNNING > BODY > DOT > DONE      RUNNING > EMPTY > DONE
 *                 RUNNING > FAILED (MAIL refused)  any > DEAD, DONE
 * WAITING also follows RUNNING once, when a reused connection turns out to be dead. */
#include <string.h>

#include "smtp/client_int.h"

#define FEED_UNSENT (128 * 1024) /* bytes in the connection above which the message waits */
#define FEED_PIECE  (32 * 1024)
/* A message that is not complete yet is begun when so much of it is there: it is worth it, and
 * small ones do not hold a connection in DATA while their client dawdles. */
#define STREAM_MIN (64 * 1024)

#define NO_RECIPIENTS "no valid recipients (SmtpEndpoint)"

#define TO(state) (1U << DELIVERY_##state)

static const unsigned successors[DELIVERY_STATES] = {
	[DELIVERY_NEW] = TO(WAITING) | TO(DEAD) | TO(DONE),
	[DELIVERY_WAITING] = TO(RUNNING) | TO(DEAD) | TO(DONE),
	[DELIVERY_RUNNING] = TO(WAITING) | TO(BODY) | TO(EMPTY) | TO(FAILED) | TO(DEAD) | TO(DONE),
	[DELIVERY_BODY] = TO(DOT) | TO(DEAD) | TO(DONE),
	[DELIVERY_EMPTY] = TO(DEAD) | TO(DONE),
	[DELIVERY_DOT] = TO(DEAD) | TO(DONE),
	[DELIVERY_FAILED] = TO(DONE),
	[DELIVERY_DEAD] = TO(DONE),
	[DELIVERY_DONE] = 0,
};

static void
delivery_set_state(SmtpDelivery *delivery, DeliveryState state)
{
	k_assert((successors[delivery->state] & (1U << state)) != 0);
	delivery->state = state;
}

static void
give_back(SmtpDelivery *delivery, ClientAfter after)
{
	SmtpClient *client = g_steal_pointer(&delivery->client);
	if (client != NULL)
		client_release(client, after);
}

/* Whatever is asked for from now on gets this answer; `response` is moved. */
static void
die(SmtpDelivery *delivery, Response *response)
{
	delivery_set_state(delivery, DELIVERY_DEAD);
	pool_leave_waiting(delivery);
	delivery->dead = response;
	tx_fill_in_flight(delivery->tx, delivery->dead);
}

/* The message has its answer; `response` is moved. */
static void
finish(SmtpDelivery *delivery, Response *response, ClientAfter after)
{
	delivery_set_state(delivery, DELIVERY_DONE);
	(void)tx_answer_data(delivery->tx, response);
	give_back(delivery, after);
}

static Response *
reply_response(const SmtpReply *reply)
{
	return response_new(reply->code, reply->text->str);
}

/* ---- envelope ---- */

static Blob *
raw_body(const SmtpDelivery *delivery)
{
	return delivery->tx->body != NULL ? delivery->tx->body->raw : NULL;
}

static void
mail_failed(SmtpDelivery *delivery, Response *response, ClientAfter after)
{
	delivery_set_state(delivery, DELIVERY_FAILED);
	(void)tx_answer_mail(delivery->tx, response);
	(void)tx_check_preconditions(delivery->tx);
	give_back(delivery, after);
}

static bool
wants_utf8(const SmtpDelivery *delivery)
{
	const Tx *tx = delivery->tx;
	if (mailbox_param(tx->mail_from, "SMTPUTF8") != NULL ||
	    address_needs_utf8(tx->mail_from->addr))
		return true;
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		if (address_needs_utf8(tx_rcpt(tx, i)->to->addr))
			return true;
	}
	return false;
}

/* False when the delivery is over. */
static bool
push_mail(SmtpDelivery *delivery)
{
	SmtpClient *client = delivery->client;
	Blob *raw = raw_body(delivery);
	delivery->utf8 = wants_utf8(delivery);
	SmtpMailOptions options = {
		.size = raw != NULL && blob_is_final(raw) ? (int64_t)blob_len(raw) : -1,
		.utf8 = delivery->utf8,
	};
	Response *refusal = smtp_envelope_mail(client->pipeline.text, delivery->tx->mail_from,
					       &client->caps, &options);
	if (refusal != NULL) {
		mail_failed(delivery, refusal, CLIENT_CLEAN);
		return false;
	}
	pipeline_push(&client->pipeline, PIPE_MAIL, 0);
	delivery->mail_pushed = true;
	return true;
}

static void
push_rcpts(SmtpDelivery *delivery)
{
	Tx *tx = delivery->tx;
	SmtpClient *client = delivery->client;
	for (; delivery->rcpts_pushed < tx_rcpt_count(tx); delivery->rcpts_pushed++) {
		unsigned i = delivery->rcpts_pushed;
		Response *refusal;
		if (tx_rcpt(tx, i)->response != NULL)
			continue; /* somebody else knew already */
		if (delivery->data_pushed)
			refusal = response_new(503, "5.5.1 recipient after the message");
		else if (i > 0 && delivery->conf->protocol == SMTP_PROTOCOL_LMTP)
			refusal = response_new(450, "lmtp multi-rcpt unimplemented");
		else
			refusal = smtp_envelope_rcpt(client->pipeline.text, tx_rcpt(tx, i)->to,
						     &client->caps, delivery->utf8);
		if (refusal != NULL)
			(void)tx_answer_rcpt(tx, i, refusal);
		else
			pipeline_push(&client->pipeline, PIPE_RCPT, i);
	}
}

/* All recipients failed: temporary if one of them may do better later. */
static Response *
no_recipients(const Tx *tx)
{
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		if (response_temp(tx_rcpt(tx, i)->response))
			return response_new(450, NO_RECIPIENTS);
	}
	return response_new(554, NO_RECIPIENTS);
}

static void
push_data(SmtpDelivery *delivery)
{
	const Tx *tx = delivery->tx;
	SmtpClient *client = delivery->client;
	Blob *raw = raw_body(delivery);
	bool all_answered = tx->rcpt_answers == tx_rcpt_count(tx);

	if (tx->body == NULL || delivery->data_pushed)
		return;
	bool final = tx_body_is_final(tx->body);
	if (all_answered && tx_rcpts_accepted(tx) == 0) {
		if (final && tx->mail_response != NULL)
			finish(delivery, no_recipients(tx), CLIENT_RESET);
		return;
	}
	if (raw == NULL) {
		if (final)
			finish(delivery, response_new(554, "5.6.0 message has no raw form"),
			       CLIENT_RESET);
		return;
	}
	/* DATA joins the group when nothing more can come in front of it. */
	bool now = all_answered ? final || blob_len(raw) >= STREAM_MIN
				: final && client->caps.pipelining;
	if (!now)
		return;
	g_string_append(client->pipeline.text, "DATA\r\n");
	pipeline_push(&client->pipeline, PIPE_DATA, 0);
	delivery->data_pushed = true;
}

static void
run(SmtpDelivery *delivery)
{
	if (!delivery->mail_pushed && !push_mail(delivery))
		return;
	push_rcpts(delivery);
	push_data(delivery);
	if (delivery->client != NULL)
		client_pump(delivery->client);
}

/* ---- message ---- */

static void
put(void *arg, const char *data, size_t len)
{
	conn_write(arg, data, len);
}

/* One piece of the message; false at the end of what is there, or with *ret_error. */
static bool
feed_piece(SmtpDelivery *delivery, Blob *raw, GError **ret_error)
{
	Conn *conn = delivery->client->conn;
	char buf[FEED_PIECE];
	size_t len = 0;
	const char *data = blob_peek(raw, delivery->offset, &len);
	if (data == NULL) {
		if (delivery->offset >= blob_len(raw))
			return false;
		if (!blob_read(raw, delivery->offset, buf, sizeof(buf), &len, ret_error) ||
		    len == 0)
			return false;
		data = buf;
	}
	if (len > FEED_PIECE)
		len = FEED_PIECE;
	smtp_data_write(&delivery->writer, data, len, put, conn);
	delivery->offset += len;
	return true;
}

static void
feed(SmtpDelivery *delivery)
{
	SmtpClient *client = delivery->client;
	Blob *raw = raw_body(delivery);
	g_autoptr(GError) error = NULL;
	bool more = true;
	while (more && conn_unsent(client->conn) < FEED_UNSENT)
		more = feed_piece(delivery, raw, &error);
	if (more) {
		conn_want_drained(client->conn);
	} else if (delivery->offset < blob_len(raw)) {
		give_back(delivery, CLIENT_BROKEN);
		die(delivery, response_new(451, "4.3.0 message could not be read; not sent"));
		return;
	} else if (blob_is_final(raw)) {
		smtp_data_write_end(&delivery->writer, put, client->conn);
		delivery_set_state(delivery, DELIVERY_DOT);
		client_end_body(client);
		return;
	}
	client_body_progress(client);
}

/* ---- what happens ---- */

static void
cancel(SmtpDelivery *delivery)
{
	bool open = delivery->state == DELIVERY_DOT || delivery->data_pushed;
	pool_leave_waiting(delivery);
	give_back(delivery, open                    ? CLIENT_BROKEN
			    : delivery->mail_pushed ? CLIENT_RESET
						    : CLIENT_CLEAN);
	if (delivery->state != DELIVERY_DONE)
		delivery_set_state(delivery, DELIVERY_DONE);
}

static void
look(SmtpDelivery *delivery)
{
	Tx *tx = delivery->tx;
	if (tx->cancelled && delivery->state != DELIVERY_DONE) {
		cancel(delivery);
		return;
	}
	switch (delivery->state) {
	case DELIVERY_NEW:
		if (tx->mail_from != NULL) {
			delivery_set_state(delivery, DELIVERY_WAITING);
			pool_acquire(delivery, POOL_ANY);
		}
		break;
	case DELIVERY_RUNNING:
		run(delivery);
		break;
	case DELIVERY_BODY:
		push_rcpts(delivery);
		feed(delivery);
		break;
	case DELIVERY_FAILED:
		(void)tx_check_preconditions(tx);
		break;
	case DELIVERY_DEAD:
		tx_fill_in_flight(tx, delivery->dead);
		break;
	case DELIVERY_EMPTY:
	case DELIVERY_DOT:
		push_rcpts(delivery);
		break;
	default:
		break;
	}
}

static void
on_tx(void *arg, Tx *tx)
{
	(void)tx;
	look(arg);
}

void
delivery_on_ready(SmtpDelivery *delivery)
{
	delivery_set_state(delivery, DELIVERY_RUNNING);
	look(delivery);
}

static void
data_reply(SmtpDelivery *delivery, const SmtpReply *reply)
{
	bool any = tx_rcpts_accepted(delivery->tx) > 0;
	if (reply->code / 100 != 3) {
		finish(delivery, any ? reply_response(reply) : no_recipients(delivery->tx),
		       CLIENT_RESET);
	} else if (any) {
		delivery_set_state(delivery, DELIVERY_BODY);
		smtp_data_writer_init(&delivery->writer);
		client_begin_body(delivery->client);
		feed(delivery);
	} else {
		/* RFC 2920 3.1: the server wants a message for nobody; it gets an empty one */
		delivery_set_state(delivery, DELIVERY_EMPTY);
		client_begin_body(delivery->client);
		conn_write(delivery->client->conn, ".\r\n", 3);
		client_end_body(delivery->client);
	}
}

void
delivery_on_reply(SmtpDelivery *delivery, PipeKind kind, unsigned index, const SmtpReply *reply)
{
	bool ok = reply->code / 100 == 2;
	delivery->replied = true;
	switch (kind) {
	case PIPE_MAIL:
		if (!ok) {
			mail_failed(delivery, reply_response(reply), CLIENT_RESET);
			return;
		}
		(void)tx_answer_mail(delivery->tx, reply_response(reply));
		break;
	case PIPE_RCPT:
		(void)tx_answer_rcpt(delivery->tx, index, reply_response(reply));
		break;
	case PIPE_DATA:
		data_reply(delivery, reply);
		return;
	case PIPE_DOT:
		if (delivery->state == DELIVERY_EMPTY)
			finish(delivery, no_recipients(delivery->tx), CLIENT_RESET);
		else
			finish(delivery, reply_response(reply), ok ? CLIENT_CLEAN : CLIENT_RESET);
		return;
	default:
		k_unreachable();
	}
	/* the last answer may be what the message waits for */
	if (delivery->state == DELIVERY_RUNNING &&
	    delivery->tx->rcpt_answers == tx_rcpt_count(delivery->tx))
		run(delivery);
}

void
delivery_on_drained(SmtpDelivery *delivery)
{
	if (delivery->state == DELIVERY_BODY)
		feed(delivery);
}

static const char *
what_is_known(const SmtpDelivery *delivery)
{
	return delivery->state == DELIVERY_DOT ? "message sent but not acknowledged"
					       : "message not sent";
}

void
delivery_on_lost(SmtpDelivery *delivery, const ClientLoss *loss)
{
	bool temporary = loss->code / 100 == 4;
	delivery->client = NULL;
	if (loss->reused && !delivery->replied && !delivery->retried && temporary &&
	    !delivery->tx->cancelled) {
		delivery->retried = true;
		delivery->mail_pushed = delivery->data_pushed = false;
		delivery->rcpts_pushed = 0;
		delivery_set_state(delivery, DELIVERY_WAITING);
		pool_acquire(delivery, POOL_FRESH);
		return;
	}
	/* Our own texts say what became of the message, those of the hop are left as they are. */
	die(delivery,
	    loss->is_reply || loss->code != 450
		    ? response_new(loss->code, loss->text)
		    : response_newf(loss->code, "%s (%s)", loss->text, what_is_known(delivery)));
}

void
delivery_on_pool_free(SmtpDelivery *delivery)
{
	g_queue_unlink(&delivery->pool->deliveries, &delivery->pool_link);
	pool_leave_waiting(delivery);
	defer_cancel(&delivery->start);
	give_back(delivery, CLIENT_BROKEN);
	delivery->pool = NULL;
	if (delivery->state < DELIVERY_FAILED)
		die(delivery, response_new(450, "4.3.2 shutting down; message not acknowledged"));
}

static void
on_wait_timeout(void *arg)
{
	SmtpDelivery *delivery = arg;
	die(delivery, response_new(450, "4.4.5 too many connections to the next hop"));
}

/* ---- the port ---- */

static void
delivery_stop(TxPort *port)
{
	SmtpDelivery *delivery = (SmtpDelivery *)port;
	tx_unwatch(&delivery->watch);
	cancel(delivery);
	if (delivery->pool != NULL)
		g_queue_unlink(&delivery->pool->deliveries, &delivery->pool_link);
	defer_cancel(&delivery->start);
	timer_clear(&delivery->wait);
	tx_unref(delivery->tx);
	response_unref(delivery->dead);
	g_free(delivery);
}

static const TxPortOps delivery_ops = {.name = "smtp", .stop = delivery_stop};

static void
on_start(void *arg)
{
	SmtpDelivery *delivery = arg;
	const HostPort *to = delivery->tx->remote_host;
	const char *wrong = NULL;
	if (to == NULL)
		wrong = "SmtpEndpoint: bad request: no remote_host";
	else if (!net_addr_parse(to->host, to->port, &delivery->addr))
		wrong = "SmtpEndpoint: bad request: remote_host.host is not a valid IP address";
	if (wrong != NULL)
		die(delivery, response_new(400, wrong));
	else
		look(delivery);
	/* not before: a change must not be looked at without an address */
	tx_watch(delivery->tx, &delivery->watch, on_tx, delivery);
}

TxPort *
smtp_delivery_start(SmtpClientPool *pool, const SmtpOutputConf *conf, Tx *tx)
{
	SmtpDelivery *delivery = g_new0(SmtpDelivery, 1);
	k_assert_on(pool->worker);
	delivery->port.ops = &delivery_ops;
	delivery->pool = pool;
	delivery->conf = conf;
	delivery->tx = tx_ref(tx);
	delivery->pool_link.data = delivery->wait_link.data = delivery;
	g_queue_push_tail_link(&pool->deliveries, &delivery->pool_link);
	timer_init(&delivery->wait, pool->worker, on_wait_timeout, delivery);
	defer_init(&delivery->start, on_start, delivery);
	defer_queue(worker_defers(pool->worker), &delivery->start);
	return &delivery->port;
}
