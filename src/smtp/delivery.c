/* SPDX-License-Identifier: Apache-2.0 */
/* NEW > WAITING > RUNNING > BODY > DOT > DONE      RUNNING > EMPTY > DONE
 *                 RUNNING > FAILED (MAIL refused)  any > DEAD, DONE
 *                 RUNNING > PARKED > WAITING (others need the connection more)
 * WAITING also follows RUNNING once, when a reused connection turns out to be dead. */
#include <string.h>

#include "base/new.h"
#include "smtp/client_int.h"
#include "smtp/reply_text.h"

/* A message that is not complete yet is begun when so much of it is there: it is worth it, and
 * small ones do not hold a connection in DATA while their client dawdles. */
#define STREAM_MIN (64 * 1024)

#define NO_RECIPIENTS "no valid recipients (SmtpEndpoint)"

#define TO(state) (1U << DELIVERY_##state)

static const unsigned successors[DELIVERY_STATES] = {
	[DELIVERY_NEW] = TO(WAITING) | TO(DEAD) | TO(DONE),
	[DELIVERY_WAITING] = TO(RUNNING) | TO(DEAD) | TO(DONE),
	[DELIVERY_PARKED] = TO(WAITING) | TO(DEAD) | TO(DONE),
	[DELIVERY_RUNNING] = TO(WAITING) | TO(PARKED) | TO(BODY) | TO(EMPTY) | TO(FAILED) |
			     TO(DEAD) | TO(DONE),
	[DELIVERY_BODY] = TO(DOT) | TO(DEAD) | TO(DONE),
	[DELIVERY_EMPTY] = TO(DEAD) | TO(DONE),
	[DELIVERY_DOT] = TO(DEAD) | TO(DONE),
	[DELIVERY_FAILED] = TO(DONE),
	[DELIVERY_DEAD] = TO(DONE),
	[DELIVERY_DONE] = 0,
};

void
delivery_set_state(SmtpDelivery *delivery, DeliveryState state)
{
	k_assert((successors[delivery->state] & (1U << state)) != 0);
	delivery->state = state;
	if (state == DELIVERY_DOT)
		delivery->dot_sent = clock_mono();
}

void
delivery_give_back(SmtpDelivery *delivery, ClientAfter after)
{
	SmtpClient *client = g_steal_pointer(&delivery->client);
	if (client != NULL)
		client_release(client, after);
}

void
delivery_die(SmtpDelivery *delivery, Response *response)
{
	bool sent = delivery->state == DELIVERY_DOT;
	delivery_set_state(delivery, DELIVERY_DEAD);
	pool_leave_waiting(delivery);
	delivery->dead = response;
	if (delivery->lmtp != NULL && sent)
		(void)tx_answer_data(delivery->tx, delivery_lmtp_conclude(delivery, response));
	else if (delivery->lmtp != NULL)
		delivery_lmtp_drop(delivery);
	tx_fill_in_flight(delivery->tx, delivery->dead);
}

/* The message has its answer; `response` is moved. */
static void
finish(SmtpDelivery *delivery, Response *response, ClientAfter after)
{
	delivery_set_state(delivery, DELIVERY_DONE);
	if (delivery->lmtp != NULL)
		delivery_lmtp_tell(delivery);
	if (response_ok(response) && delivery->client != NULL && !delivery->client->caps.dsn)
		tx_set_handover(delivery->tx, delivery->conf->protocol == SMTP_PROTOCOL_LMTP
						      ? TX_HANDOVER_DELIVERED
						      : TX_HANDOVER_RELAYED);
	(void)tx_answer_data(delivery->tx, response);
	delivery_give_back(delivery, after);
}

static Response *
reply_response(const SmtpReply *reply)
{
	if (smtp_reply_is_plain(reply))
		return response_new(reply->code, reply->text->str);
	g_autofree char *text = smtp_reply_text(reply);
	return response_new(reply->code, text);
}

/* ---- envelope ---- */

Blob *
delivery_raw(const SmtpDelivery *delivery)
{
	return delivery->tx->body != NULL ? delivery->tx->body->raw : NULL;
}

static void
mail_failed(SmtpDelivery *delivery, Response *response, ClientAfter after)
{
	delivery_set_state(delivery, DELIVERY_FAILED);
	(void)tx_answer_mail(delivery->tx, response);
	(void)tx_check_preconditions(delivery->tx);
	delivery_give_back(delivery, after);
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
	Blob *raw = delivery_raw(delivery);
	delivery->utf8 = wants_utf8(delivery);
	SmtpMailOptions options = {
		.size = raw != NULL && blob_is_final(raw) ? (int64_t)blob_len(raw) : -1,
		.bdat = delivery_may_bdat(delivery),
		.utf8 = delivery->utf8,
	};
	Response *refusal = smtp_envelope_mail(client->pipeline.text, delivery->tx->mail_from,
					       &client->caps, &options);
	if (refusal != NULL && delivery->again)
		finish(delivery, refusal, CLIENT_CLEAN);
	else if (refusal != NULL)
		mail_failed(delivery, refusal, CLIENT_CLEAN);
	if (refusal != NULL)
		return false;
	pipeline_push(&client->pipeline, PIPE_MAIL, 0);
	delivery->mail_pushed = true;
	return true;
}

/* It is asked for a second time, after PARKED. */
static bool
is_again(const SmtpDelivery *delivery, unsigned index)
{
	return delivery->again && response_ok(tx_rcpt(delivery->tx, index)->response);
}

/* The hop refuses now what it took before.  The whole is sent again later when others would have
 * to go without the message. */
static void
again_refused(SmtpDelivery *delivery, Response *response)
{
	Response *verdict = response;
	if (tx_rcpts_accepted(delivery->tx) > 1) {
		verdict = response_newf(450,
					"4.5.1 a recipient is refused now: %d %s " SMTP_NOT_SENT,
					response->code, response->message);
		response_unref(response);
	}
	finish(delivery, verdict, CLIENT_RESET);
}

/* The command, or the answer when there is to be none. */
static Response *
write_rcpt(SmtpDelivery *delivery, unsigned i)
{
	SmtpClient *client = delivery->client;
	unsigned max = client->caps.rcpt_max;
	if (delivery->data_pushed)
		return response_new(503, "5.5.1 recipient after the message");
	if (max > 0 && i >= max)
		return response_newf(
			452, "4.5.3 the next hop takes %u recipients at a time " SMTP_NOT_SENT,
			max);
	return smtp_envelope_rcpt(client->pipeline.text, tx_rcpt(delivery->tx, i)->to,
				  &client->caps, delivery->utf8);
}

static void
push_rcpts(SmtpDelivery *delivery)
{
	Tx *tx = delivery->tx;
	SmtpClient *client = delivery->client;
	for (; delivery->rcpts_pushed < tx_rcpt_count(tx); delivery->rcpts_pushed++) {
		unsigned i = delivery->rcpts_pushed;
		bool again = is_again(delivery, i);
		if (tx_rcpt(tx, i)->response != NULL && !again)
			continue; /* somebody else knew already */
		Response *refusal = write_rcpt(delivery, i);
		if (refusal != NULL && again) {
			again_refused(delivery, refusal);
			return;
		}
		if (refusal != NULL)
			(void)tx_answer_rcpt(tx, i, refusal);
		else
			pipeline_push(&client->pipeline, PIPE_RCPT, i);
		delivery->again_left += again ? 1 : 0;
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

/* The message, or enough of it to begin, is there. */
static bool
has_message(const SmtpDelivery *delivery)
{
	const Blob *raw = delivery_raw(delivery);
	return tx_body_ready(delivery->tx) || (raw != NULL && blob_len(raw) >= STREAM_MIN);
}

/* The hop takes nobody: as finish, when all that were held back are told. */
static void
finish_empty(SmtpDelivery *delivery, ClientAfter after)
{
	if (delivery->lmtp != NULL)
		delivery_lmtp_tell(delivery);
	finish(delivery, no_recipients(delivery->tx), after);
}

static void
push_data(SmtpDelivery *delivery)
{
	const Tx *tx = delivery->tx;
	SmtpClient *client = delivery->client;
	Blob *raw = delivery_raw(delivery);
	bool all_answered = delivery_answered(delivery) == tx_rcpt_count(tx);

	if (tx->body == NULL || delivery->data_pushed || delivery->again_left > 0 || client == NULL)
		return;
	bool final = tx_body_is_final(tx->body);
	if (all_answered && delivery_accepted(delivery) == 0) {
		if (final && tx->mail_response != NULL)
			finish_empty(delivery, CLIENT_RESET);
		return;
	}
	if (raw == NULL) {
		if (final)
			finish(delivery, response_new(554, "5.6.0 message has no raw form"),
			       CLIENT_RESET);
		return;
	}
	/* DATA joins the group when nothing more can come in front of it. */
	bool bdat = delivery_may_bdat(delivery);
	bool now = all_answered ? final || blob_len(raw) >= STREAM_MIN
				: final && client->caps.pipelining && !bdat;
	if (!now)
		return;
	if (bdat) {
		delivery->data_pushed = delivery->bdat = true;
		delivery_set_state(delivery, DELIVERY_BODY);
		delivery_feed(delivery);
		return;
	}
	g_string_append(client->pipeline.text, "DATA\r\n");
	pipeline_push(&client->pipeline, PIPE_DATA, 0);
	delivery->data_pushed = true;
}

static void
run(SmtpDelivery *delivery)
{
	if (!delivery->mail_pushed && !push_mail(delivery))
		return;
	delivery_lmtp_begin(delivery);
	push_rcpts(delivery);
	push_data(delivery);
	if (delivery->client != NULL)
		client_pump(delivery->client);
}

/* ---- others need the connection ---- */

bool
delivery_is_quiet(const SmtpDelivery *delivery)
{
	const Tx *tx = delivery->tx;
	return delivery->state == DELIVERY_RUNNING && delivery->mail_pushed &&
	       !delivery->data_pushed && delivery->again_left == 0 &&
	       delivery->rcpts_pushed == tx_rcpt_count(tx) &&
	       pipeline_is_empty(&delivery->client->pipeline) &&
	       delivery_answered(delivery) == tx_rcpt_count(tx) && !has_message(delivery) &&
	       clock_passed(delivery->quiet_since + SMTP_QUIET_MAX);
}

void
delivery_park(SmtpDelivery *delivery)
{
	delivery_set_state(delivery, DELIVERY_PARKED);
	delivery->again = true;
	delivery->replied = delivery->mail_pushed = false;
	delivery_give_back(delivery, CLIENT_RESET);
}

/* There is something to send. */
static void
come_back(SmtpDelivery *delivery)
{
	const Tx *tx = delivery->tx;
	bool same = delivery->rcpts_pushed == tx_rcpt_count(tx);
	if (same && !has_message(delivery))
		return;
	if (same && tx_rcpts_accepted(tx) == 0) {
		if (tx_body_ready(tx))
			finish_empty(delivery, CLIENT_CLEAN);
		return;
	}
	delivery->rcpts_pushed = 0;
	delivery_set_state(delivery, DELIVERY_WAITING);
	pool_acquire(delivery, POOL_ANY);
}

/* ---- what happens ---- */

static void
cancel(SmtpDelivery *delivery)
{
	bool open = delivery->state == DELIVERY_DOT || delivery->data_pushed;
	pool_leave_waiting(delivery);
	delivery_give_back(delivery, open                    ? CLIENT_BROKEN
				     : delivery->mail_pushed ? CLIENT_RESET
							     : CLIENT_CLEAN);
	delivery_lmtp_free(delivery);
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
	case DELIVERY_PARKED:
		come_back(delivery);
		break;
	case DELIVERY_RUNNING:
		run(delivery);
		break;
	case DELIVERY_BODY:
		push_rcpts(delivery);
		delivery_feed(delivery);
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
	bool any = delivery_accepted(delivery) > 0;
	if (reply->code / 100 != 3 && any) {
		finish(delivery, reply_response(reply), CLIENT_RESET);
	} else if (reply->code / 100 != 3) {
		finish_empty(delivery, CLIENT_RESET);
	} else if (any) {
		delivery_set_state(delivery, DELIVERY_BODY);
		client_begin_body(delivery->client);
		delivery_feed(delivery);
	} else if (delivery->conf->protocol == SMTP_PROTOCOL_LMTP) {
		finish_empty(delivery, CLIENT_BROKEN); /* no reply would follow the dot */
	} else {
		/* RFC 2920 3.1: the server wants a message for nobody; it gets an empty one */
		delivery_set_state(delivery, DELIVERY_EMPTY);
		client_begin_body(delivery->client);
		conn_write(delivery->client->conn, ".\r\n", 3);
		pipeline_push(&delivery->client->pipeline, PIPE_DOT, 0);
		client_end_body(delivery->client);
	}
}

/* After the dot, or BDAT LAST. */
static void
dot_reply(SmtpDelivery *delivery, unsigned index, const SmtpReply *reply)
{
	ClientAfter after = reply->code / 100 == 2 ? CLIENT_CLEAN : CLIENT_RESET;
	if (delivery->dot_sent > 0)
		delivery->dot_took = clock_mono() - delivery->dot_sent;
	if (delivery->state == DELIVERY_EMPTY)
		finish_empty(delivery, CLIENT_RESET);
	else if (delivery->lmtp == NULL)
		finish(delivery, reply_response(reply), after);
	else if (delivery_lmtp_take_dot(delivery, index, reply))
		finish(delivery, delivery_lmtp_conclude(delivery, NULL), after);
}

/* To a chunk: refused, the rest need not be sent; what was sent already is answered behind RSET. */
static void
chunk_reply(SmtpDelivery *delivery, const SmtpReply *reply)
{
	if (reply->code / 100 != 2)
		finish(delivery, reply_response(reply), CLIENT_RESET);
	else if (delivery->state == DELIVERY_BODY)
		delivery_feed(delivery);
}

void
delivery_on_reply(SmtpDelivery *delivery, PipeKind kind, unsigned index, const SmtpReply *reply)
{
	delivery->replied = true;
	switch (kind) {
	case PIPE_MAIL:
		if (reply->code / 100 != 2 && delivery->again) {
			finish(delivery, reply_response(reply), CLIENT_RESET);
			return;
		}
		if (reply->code / 100 != 2) {
			mail_failed(delivery, reply_response(reply), CLIENT_RESET);
			return;
		}
		(void)tx_answer_mail(delivery->tx, reply_response(reply));
		break;
	case PIPE_RCPT:
		if (delivery->again_left > 0 && is_again(delivery, index)) {
			delivery->again_left--;
			if (reply->code / 100 != 2) {
				again_refused(delivery, reply_response(reply));
				return;
			}
		} else if (!delivery_lmtp_take_rcpt(delivery, index, reply))
			(void)tx_answer_rcpt(delivery->tx, index, reply_response(reply));
		break;
	case PIPE_DATA:
		data_reply(delivery, reply);
		return;
	case PIPE_BDAT:
		chunk_reply(delivery, reply);
		return;
	case PIPE_DOT:
		dot_reply(delivery, index, reply);
		return;
	default:
		k_unreachable();
	}
	delivery->quiet_since = clock_mono();
	/* the last answer may be what the message waits for */
	if (delivery->state == DELIVERY_RUNNING &&
	    delivery_answered(delivery) == tx_rcpt_count(delivery->tx))
		run(delivery);
}

void
delivery_on_drained(SmtpDelivery *delivery)
{
	if (delivery->state == DELIVERY_BODY)
		delivery_feed(delivery);
}

bool
smtp_response_is_unacknowledged(const Response *response)
{
	return response_temp(response) && strstr(response->message, SMTP_UNACKNOWLEDGED) != NULL;
}

/* Our own texts say what became of the message, those of the hop are left as they are. */
static Response *
loss_response(const SmtpDelivery *delivery, const ClientLoss *loss)
{
	bool sent = delivery->state == DELIVERY_DOT && !loss->unsent;
	if (loss->is_reply || loss->code != 450)
		return response_new(loss->code, loss->text);
	return response_newf(loss->code, "%s %s", loss->text,
			     sent ? SMTP_UNACKNOWLEDGED : SMTP_NOT_SENT);
}

void
delivery_on_lost(SmtpDelivery *delivery, const ClientLoss *loss)
{
	bool temporary = loss->code / 100 == 4;
	bool dead = loss->reused && !delivery->replied && !delivery->retried && temporary;
	bool plain = loss->plain && !delivery->plain;
	delivery->client = NULL;
	if ((dead || plain) && !delivery->tx->cancelled && delivery->state <= DELIVERY_RUNNING) {
		delivery->retried = delivery->retried || dead;
		delivery->plain = delivery->plain || plain;
		delivery->mail_pushed = delivery->data_pushed = false;
		delivery->rcpts_pushed = delivery->again_left = 0;
		if (delivery->state != DELIVERY_WAITING)
			delivery_set_state(delivery, DELIVERY_WAITING);
		pool_acquire(delivery, POOL_FRESH);
		return;
	}
	if (loss->is_reply && delivery->state == DELIVERY_WAITING)
		tx_set_host_refused(delivery->tx);
	delivery_die(delivery, loss_response(delivery, loss));
}

void
delivery_on_pool_free(SmtpDelivery *delivery)
{
	g_queue_unlink(&delivery->pool->deliveries, &delivery->pool_link);
	pool_leave_waiting(delivery);
	defer_cancel(&delivery->start);
	delivery_give_back(delivery, CLIENT_BROKEN);
	delivery->pool = NULL;
	if (delivery->state < DELIVERY_FAILED)
		delivery_die(delivery,
			     response_newf(450, "4.3.2 shutting down %s",
					   delivery->state == DELIVERY_DOT ? SMTP_UNACKNOWLEDGED
									   : SMTP_NOT_SENT));
}

void
delivery_on_full(SmtpDelivery *delivery)
{
	timer_set(&delivery->wait, 0); /* not within the call that asked */
}

static void
on_wait_timeout(void *arg)
{
	SmtpDelivery *delivery = arg;
	delivery_die(
		delivery,
		response_new(450, "4.4.5 too many connections to the next hop " SMTP_NOT_SENT));
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
	const NetAddr *source = delivery->conf->source;
	const char *wrong = NULL;
	if (to == NULL)
		wrong = "SmtpEndpoint: bad request: no remote_host";
	else if (!net_addr_parse(to->host, to->port, &delivery->addr))
		wrong = "SmtpEndpoint: bad request: remote_host.host is not a valid IP address";
	else if (source != NULL && source->storage.ss_family != delivery->addr.storage.ss_family)
		wrong = "connect error the source address is of the other family";
	if (wrong != NULL)
		delivery_die(delivery, response_new(400, wrong));
	else
		look(delivery);
	/* not before: a change must not be looked at without an address */
	tx_watch(delivery->tx, &delivery->watch, on_tx, delivery);
}

TxPort *
smtp_delivery_start(SmtpClientPool *pool, const SmtpOutputConf *conf, Tx *tx)
{
	SmtpDelivery *delivery = k_new0(SmtpDelivery);
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

Usec
smtp_delivery_dot_took(const TxPort *port)
{
	return ((const SmtpDelivery *)port)->dot_took;
}
