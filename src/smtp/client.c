/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "smtp/client_int.h"
#include "smtp/reply_text.h"

#define BUSY_MAX (3600 * USEC_PER_SEC) /* without a command: the user has not gone on */

static void busy_reply(SmtpClient *client);
static void body_reply(SmtpClient *client);
static void rset_reply(SmtpClient *client);
static void idle_reply(SmtpClient *client);
static void client_rearm(SmtpClient *client);

typedef struct StateRow {
	const char *name;
	const char *waits_for; /* in texts about timeouts */
	void (*on_reply)(SmtpClient *client);
	unsigned successors; /* CLOSED always may follow */
} StateRow;

#define TO(state)                        (1U << CLIENT_##state)
#define ROW(state, waits_for, reply, to) [CLIENT_##state] = {#state, waits_for, reply, to}

static const StateRow states[CLIENT_STATES] = {
	ROW(CONNECT, "the connection", NULL, TO(BANNER) | TO(TLS)),
	ROW(BANNER, "the greeting", client_banner_reply, TO(EHLO)),
	ROW(EHLO, "the reply to EHLO", client_ehlo_reply,
	    TO(HELO) | TO(STARTTLS) | TO(AUTH) | TO(BUSY) | TO(IDLE)),
	ROW(HELO, "the reply to HELO", client_helo_reply, TO(BUSY) | TO(IDLE)),
	ROW(STARTTLS, "the reply to STARTTLS", client_starttls_reply,
	    TO(TLS) | TO(AUTH) | TO(BUSY) | TO(IDLE)),
	ROW(TLS, "the TLS handshake", NULL, TO(BANNER) | TO(EHLO)),
	ROW(AUTH, "the reply to AUTH", client_auth_reply, TO(BUSY) | TO(IDLE)),
	ROW(BUSY, "a reply", busy_reply, TO(BODY) | TO(RSET) | TO(IDLE)),
	ROW(BODY, "the message to be taken", body_reply, TO(BUSY)),
	ROW(RSET, "the reply to RSET", rset_reply, TO(IDLE)),
	ROW(IDLE, NULL, idle_reply, TO(BUSY)),
	ROW(CLOSED, NULL, NULL, 0),
};

void
client_set_state(SmtpClient *client, ClientState state)
{
	const StateRow *row = &states[state];
	k_assert_for(state == CLIENT_CLOSED ||
			     (states[client->state].successors & (1U << state)) != 0,
		     row->name);
	client->state = state;
	if (state != CLIENT_CLOSED)
		client_rearm(client);
}

/* ---- deadlines ---- */

static Usec
or_default(Usec set, Usec seconds)
{
	return set > 0 ? set : seconds * USEC_PER_SEC;
}

static Usec
command_timeout(const SmtpClient *client)
{
	const SmtpClientTimeouts *t = &client->conf->timeouts;
	const PipeCommand *command = pipeline_waiting(&client->pipeline);
	if (command == NULL)
		return BUSY_MAX;
	switch (command->kind) {
	case PIPE_EHLO:
	case PIPE_HELO:
		return or_default(t->ehlo, 300);
	case PIPE_STARTTLS:
		return or_default(t->tls, 60);
	case PIPE_AUTH:
		return or_default(t->auth, 180);
	case PIPE_MAIL:
		return or_default(t->mail, 300);
	case PIPE_RCPT:
		return or_default(t->rcpt, 300);
	case PIPE_DATA:
		return or_default(t->data, 120);
	case PIPE_BDAT:
		return or_default(t->block, 180);
	case PIPE_DOT:
		return or_default(t->dot, 600);
	case PIPE_RSET:
		return or_default(t->rset, 20);
	case PIPE_KINDS:
		break;
	}
	k_unreachable();
}

static Usec
state_timeout(const SmtpClient *client)
{
	const SmtpClientTimeouts *t = &client->conf->timeouts;
	switch (client->state) {
	case CLIENT_CONNECT:
		return or_default(t->connect, 30);
	case CLIENT_BANNER:
		return or_default(t->greeting, 300);
	case CLIENT_TLS:
		return or_default(t->tls, 60);
	case CLIENT_BODY:
		return conn_unsent(client->conn) > 0 ? or_default(t->block, 180) : BUSY_MAX;
	case CLIENT_IDLE:
		return client->conf->reuse_idle;
	default:
		return command_timeout(client);
	}
}

Usec
client_wait_timeout(const SmtpOutputConf *conf)
{
	return or_default(conf->timeouts.mail, 300);
}

static void
client_rearm(SmtpClient *client)
{
	conn_set_deadline(client->conn, clock_after(state_timeout(client)));
}

/* ---- the end ---- */

static void
client_free(void *data)
{
	SmtpClient *client = data;
	pipeline_clear(&client->pipeline);
	smtp_reply_free(client->reply);
	smtp_caps_clear(&client->caps);
	g_free(client);
}

static void
client_end(SmtpClient *client)
{
	Worker *worker = client->dest->pool->worker;
	client->delivery = NULL;
	client->conn = NULL;
	client_set_state(client, CLIENT_CLOSED);
	pool_client_closed(client);
	worker_reap(worker, client, client_free);
}

void
client_close(SmtpClient *client)
{
	conn_free(client->conn);
	client_end(client);
}

/* Says good-bye; nobody waits for the answer. */
static void
client_quit(SmtpClient *client)
{
	conn_write(client->conn, "QUIT\r\n", 6);
	conn_finish(client->conn, or_default(client->conf->timeouts.quit, 5));
	client_end(client);
}

void
client_leave(SmtpClient *client)
{
	if (client->state == CLIENT_IDLE)
		client_quit(client);
	else
		client_close(client);
}

/* The connection is of no more use. */
static void
client_lose(SmtpClient *client, ClientLoss loss)
{
	SmtpDelivery *delivery = g_steal_pointer(&client->delivery);
	loss.reused = client->uses > 1;
	loss.unsent = conn_unsent(client->conn) > 0;
	client_close(client);
	if (delivery != NULL)
		delivery_on_lost(delivery, &loss);
}

void
client_fail(SmtpClient *client, int code, const char *text)
{
	client_lose(client, (ClientLoss){.code = code, .text = text});
}

void
client_fail_reply(SmtpClient *client)
{
	g_autofree char *text = smtp_reply_text(client->reply);
	client_lose(client,
		    (ClientLoss){.code = client->reply->code, .text = text, .is_reply = true});
}

void
client_lose_plain(SmtpClient *client)
{
	client_lose(client,
		    (ClientLoss){.code = 450, .text = "4.7.5 TLS handshake failed", .plain = true});
}

void
client_fail_junk(SmtpClient *client, const char *what)
{
	g_autofree char *text = g_strdup_printf("4.5.0 next hop sent %s", what);
	client_fail(client, 450, text);
}

static void
client_fail_timeout(SmtpClient *client)
{
	const PipeCommand *command = pipeline_waiting(&client->pipeline);
	g_autofree char *text = NULL;
	if (client->state == CLIENT_CONNECT) {
		client_fail(client, 400, "connect error Connection timed out");
		return;
	}
	if (command != NULL)
		text = g_strdup_printf("4.4.2 timeout waiting for the reply to %s",
				       pipe_kind_name(command->kind));
	else
		text = g_strdup_printf("4.4.2 timeout waiting for %s",
				       states[client->state].waits_for);
	client_fail(client, 450, text);
}

/* ---- sending ---- */

void
client_pump(SmtpClient *client)
{
	size_t len;
	bool pipelining = client->caps.pipelining && !client->conf->no_pipelining;
	const char *text = pipeline_take(&client->pipeline, pipelining, &len);
	if (text != NULL)
		conn_write(client->conn, text, len);
	client_rearm(client);
}

void
client_begin_body(SmtpClient *client)
{
	client_set_state(client, CLIENT_BODY);
}

void
client_body_progress(SmtpClient *client)
{
	client_rearm(client);
}

void
client_end_body(SmtpClient *client)
{
	if (client->state == CLIENT_BODY)
		client_set_state(client, CLIENT_BUSY);
	client_pump(client);
}

/* ---- lending ---- */

void
client_borrow(SmtpClient *client, SmtpDelivery *delivery)
{
	k_assert(client->delivery == NULL);
	client->delivery = delivery;
	if (client->state == CLIENT_IDLE) {
		client->uses++;
		client_set_state(client, CLIENT_BUSY);
	}
}

void
client_ready(SmtpClient *client)
{
	client->uses++; /* also without a borrower: the next one finds it waiting */
	client_keep_ticket(client);
	if (client->delivery == NULL) {
		client_set_state(client, CLIENT_IDLE);
		pool_client_idle(client);
		return;
	}
	client_set_state(client, CLIENT_BUSY);
	delivery_on_ready(client->delivery);
}

/* It has served as often as we or the hop (RFC 9422) want. */
static bool
is_used_up(const SmtpClient *client)
{
	unsigned told = client->caps.mail_max;
	return client->uses >= client->conf->reuse_max || (told > 0 && client->uses >= told);
}

static void
client_to_idle(SmtpClient *client)
{
	if (is_used_up(client) || client->conf->reuse_idle <= 0) {
		client_quit(client);
		return;
	}
	client_set_state(client, CLIENT_IDLE);
	pool_client_idle(client);
}

void
client_release(SmtpClient *client, ClientAfter after)
{
	client->delivery = NULL;
	if (client->state < CLIENT_BUSY)
		return; /* still on the way up: becomes idle when it gets there */
	if (after == CLIENT_BROKEN || client->state == CLIENT_BODY) {
		client_close(client);
	} else if (after == CLIENT_CLEAN && pipeline_is_empty(&client->pipeline)) {
		client_to_idle(client);
	} else if (is_used_up(client)) {
		client_quit(client);
	} else {
		pipeline_drop_unsent(&client->pipeline);
		g_string_append(client->pipeline.text, "RSET\r\n");
		pipeline_push(&client->pipeline, PIPE_RSET, 0);
		client_set_state(client, CLIENT_RSET);
		client_pump(client);
	}
}

/* ---- replies ---- */

static void
busy_reply(SmtpClient *client)
{
	const PipeCommand *command = pipeline_waiting(&client->pipeline);
	if (client->reply->code == 421) {
		client_fail_reply(client);
		return;
	}
	if (command == NULL) {
		client_fail_junk(client, "a reply that nobody asked for");
		return;
	}
	PipeKind kind = command->kind;
	unsigned index = command->index;
	bool odd = client->reply->code / 100 == 3 && kind != PIPE_DATA;
	if (odd || (kind == PIPE_DATA && client->reply->code / 100 == 2)) {
		client_fail_junk(client, "a reply that does not fit the command");
		return;
	}
	pipeline_answered(&client->pipeline);
	/* first the delivery: it may want that what is queued is not sent */
	delivery_on_reply(client->delivery, kind, index, client->reply);
	if (client->state == CLIENT_BUSY)
		client_pump(client);
}

/* The hop does not wait for the end of the message: it will not take it. */
static void
body_reply(SmtpClient *client)
{
	if (client->reply->code / 100 == 4 || client->reply->code / 100 == 5)
		client_fail_reply(client);
	else
		client_fail_junk(client, "a reply that nobody asked for");
}

static void
rset_reply(SmtpClient *client)
{
	const PipeCommand *command = pipeline_waiting(&client->pipeline);
	bool go = client->reply->code / 100 == 3; /* 354: a message would have to follow */
	bool refused = command != NULL && command->kind == PIPE_RSET &&
		       client->reply->code / 100 != 2;
	if (command == NULL || go || refused || client->reply->code == 421) {
		client_close(client);
		return;
	}
	pipeline_answered(&client->pipeline);
	if (pipeline_is_empty(&client->pipeline))
		client_to_idle(client);
	else
		client_pump(client);
}

static void
idle_reply(SmtpClient *client)
{
	client_close(client);
}

/* The command it would answer has not left yet: somebody says what we want to hear.  A refusal is
 * good enough, once it comes to the message. */
static bool
is_early(const SmtpClient *client)
{
	const PipeCommand *command = pipeline_waiting(&client->pipeline);
	if (command == NULL || client->reply->code / 100 >= 4 || command->kind == PIPE_BDAT)
		return false; /* of a chunk nobody knows how much has left; LAST is PIPE_DOT */
	return conn_unsent(client->conn) > pipeline_behind(&client->pipeline);
}

static void
on_line(SmtpClient *client, const char *line, size_t len)
{
	switch (smtp_reply_feed(client->reply, line, len)) {
	case SMTP_REPLY_MORE:
		break;
	case SMTP_REPLY_BAD:
		client_fail_junk(client, "something that is no SMTP reply");
		break;
	case SMTP_REPLY_DONE:
		if (is_early(client))
			client_fail_junk(client, "a reply before it had the command");
		else
			states[client->state].on_reply(client);
		/* a closed client lives until the end of the turn */
		smtp_reply_reset(client->reply);
		break;
	}
}

static void
on_timeout(SmtpClient *client)
{
	if (client->state == CLIENT_IDLE)
		client_quit(client);
	else if (client->state == CLIENT_TLS)
		client_on_tls_failed(client, "timeout");
	else
		client_fail_timeout(client);
}

static void
on_error(SmtpClient *client, const char *text)
{
	const char *reason = g_str_has_prefix(text, "connect: ") ? text + 9 : text;
	bool connecting = client->state == CLIENT_CONNECT;
	if (client->state == CLIENT_TLS) {
		client_on_tls_failed(client, text);
		return;
	}
	g_autofree char *full = g_strdup_printf(
		connecting ? "connect error %s" : "4.4.2 connection to next hop lost: %s", reason);
	client_fail(client, connecting ? 400 : 450, full);
}

static size_t
on_conn(void *arg, Conn *conn, ConnEvent event, const char *data, size_t len)
{
	SmtpClient *client = arg;
	(void)conn;
	switch (event) {
	case CONN_CONNECTED:
		client_on_connected(client);
		break;
	case CONN_TLS_READY:
		client_on_tls_ready(client);
		break;
	case CONN_LINE:
		on_line(client, data, len);
		break;
	case CONN_LONG_LINE:
		client_fail_junk(client, "a reply line that is too long");
		break;
	case CONN_DRAINED:
		if (client->delivery != NULL)
			delivery_on_drained(client->delivery);
		break;
	case CONN_EOF:
		if (client->state == CLIENT_TLS)
			client_on_tls_failed(client, "the peer has closed");
		else
			client_fail(client, 450, "4.4.2 next hop closed the connection");
		break;
	case CONN_TIMEOUT:
		on_timeout(client);
		break;
	case CONN_ERROR:
		on_error(client, data);
		break;
	default:
		break;
	}
	return 0;
}

SmtpClient *
client_new(SmtpDest *dest, SmtpDelivery *delivery)
{
	SmtpClient *client = g_new0(SmtpClient, 1);
	client->dest = dest;
	client->conf = dest->key.conf;
	client->delivery = delivery;
	client->all_link.data = client->idle_link.data = client;
	pipeline_init(&client->pipeline);
	client->reply = smtp_reply_new();
	client->no_tls = delivery->plain ||
			 (dest->plain_until > 0 && !clock_passed(dest->plain_until));
	client->conn = conn_connect(dest->pool->worker, &dest->addr, client->conf->source, NULL,
				    on_conn, client);
	client_rearm(client);
	return client;
}
