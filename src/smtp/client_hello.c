/* SPDX-License-Identifier: Apache-2.0 */
/* From the connection to the first transaction: the greeting, EHLO or HELO, STARTTLS (RFC 3207),
 * AUTH PLAIN and LOGIN (RFC 4954, RFC 4616). */
#include <string.h>

#include "smtp/client_int.h"
#include "smtp/reply_text.h"

static bool
has_tls_policy(const SmtpClient *client, SmtpTlsPolicy policy)
{
	return client->conf->tls_policy == policy;
}

/* Plain text is no alternative. */
static bool
needs_tls(const SmtpClient *client)
{
	return !has_tls_policy(client, SMTP_TLS_NONE) &&
	       !has_tls_policy(client, SMTP_TLS_OPPORTUNISTIC);
}

static void
tell_trouble(SmtpClient *client, const char *text)
{
	const SmtpOutputConf *conf = client->conf;
	char peer[NET_ADDR_TEXT_MAX];
	net_addr_format(&client->dest->addr, peer);
	if (conf->on_tls_trouble != NULL)
		conf->on_tls_trouble(conf, &(SmtpTlsTrouble){.peer = peer, .text = text});
}

/* ---- commands ---- */

static void
send_command(SmtpClient *client, PipeKind kind)
{
	g_string_append(client->pipeline.text, "\r\n");
	pipeline_push(&client->pipeline, kind, 0);
	client_pump(client);
}

static void
say_hello(SmtpClient *client, PipeKind kind)
{
	const char *verb = kind == PIPE_HELO                              ? "HELO"
			   : client->conf->protocol == SMTP_PROTOCOL_LMTP ? "LHLO"
									  : "EHLO";
	g_string_append_printf(client->pipeline.text, "%s %s", verb, client->conf->ehlo_host);
	send_command(client, kind);
}

static void
begin_handshake(SmtpClient *client)
{
	char address[NET_ADDR_TEXT_MAX];
	const char *name = client->dest->name != NULL ? client->dest->name : client->conf->tls_name;
	net_addr_format(&client->dest->addr, address);
	client_set_state(client, CLIENT_TLS);
	client_offer_ticket(client);
	conn_start_tls(client->conn, client->conf->tls, false, name != NULL ? name : address);
}

/* ---- AUTH ---- */

static bool
is_private(const SmtpClient *client)
{
	char peer[NET_ADDR_TEXT_MAX];
	net_addr_format(&client->dest->addr, peer);
	return conn_is_tls(client->conn) || net_is_loopback(peer);
}

static void
put_base64(GString *out, const void *data, size_t len)
{
	g_autofree char *text = g_base64_encode(data, len);
	g_string_append(out, text);
	explicit_bzero(text, strlen(text));
}

static void
put_plain(GString *out, const SmtpOutputConf *conf)
{
	g_autofree char *secret = g_strconcat("\1", conf->auth_user, "\1", conf->auth_secret, NULL);
	size_t len = strlen(secret);
	secret[0] = '\0';
	secret[1 + strlen(conf->auth_user)] = '\0';
	put_base64(out, secret, len);
	explicit_bzero(secret, len);
}

/* The next step; false when there is none.  PLAIN says all at once, and again to a server that
 * does not read initial responses. */
static bool
say_auth(SmtpClient *client)
{
	const SmtpOutputConf *conf = client->conf;
	GString *out = client->pipeline.text;
	bool plain = client->caps.auth_plain;
	unsigned step = client->auth_step++;
	if (step >= (plain ? 2U : 3U))
		return false;
	if (plain) {
		g_string_append(out, step == 0 ? "AUTH PLAIN " : "");
		put_plain(out, conf);
	} else if (step == 0) {
		g_string_append(out, "AUTH LOGIN");
	} else {
		const char *text = step == 1 ? conf->auth_user : conf->auth_secret;
		put_base64(out, text, strlen(text));
	}
	send_command(client, PIPE_AUTH);
	return true;
}

/* All of EHLO, and of TLS where it is wanted, is done. */
static void
authenticate(SmtpClient *client)
{
	if (client->conf->auth_user == NULL) {
		client_ready(client);
	} else if (!is_private(client)) {
		client_fail(client, 450, "4.7.11 credentials are not sent without TLS");
	} else if (!client->caps.auth_plain && !client->caps.auth_login) {
		client_fail(client, 450, "4.7.4 next hop offers neither AUTH PLAIN nor LOGIN");
	} else {
		client_set_state(client, CLIENT_AUTH);
		(void)say_auth(client);
	}
}

/* Our credentials are wrong, not the message: whoever mends them wants it to be still there. */
void
client_auth_reply(SmtpClient *client)
{
	int code = client->reply->code;
	pipeline_answered(&client->pipeline);
	if (code / 100 == 2) {
		client_ready(client);
	} else if (code == 421) {
		client_fail_reply(client);
	} else if (code == 334) {
		if (!say_auth(client))
			client_fail_junk(client, "a question behind our credentials");
	} else {
		g_autofree char *reply = smtp_reply_text(client->reply);
		g_autofree char *text = g_strdup_printf(
			"4.7.8 next hop refused our credentials: %d %s", code, reply);
		client_fail(client, 450, text);
	}
}

/* ---- TLS ---- */

/* After EHLO or HELO in plain text. */
static void
secure(SmtpClient *client)
{
	const SmtpOutputConf *conf = client->conf;
	bool possible = client->caps.starttls && conf->tls != NULL;
	if (conn_is_tls(client->conn) || has_tls_policy(client, SMTP_TLS_NONE)) {
		authenticate(client);
	} else if (possible && (needs_tls(client) || !client->no_tls)) {
		client_set_state(client, CLIENT_STARTTLS);
		g_string_append(client->pipeline.text, "STARTTLS");
		send_command(client, PIPE_STARTTLS);
	} else if (!needs_tls(client)) {
		authenticate(client);
	} else {
		client_fail(client, 450,
			    conf->tls == NULL ? "4.7.5 TLS is not set up here"
					      : "4.7.4 TLS is required, and next hop does not "
						"offer STARTTLS");
	}
}

void
client_starttls_reply(SmtpClient *client)
{
	int code = client->reply->code;
	pipeline_answered(&client->pipeline);
	if (code / 100 == 2) {
		/* what came behind the reply is forgotten with it (RFC 3207 4.2, 6) */
		begin_handshake(client);
		return;
	}
	if (code == 421) {
		client_fail_reply(client);
		return;
	}
	g_autofree char *reply = smtp_reply_text(client->reply);
	g_autofree char *text = g_strdup_printf("4.7.4 next hop refused STARTTLS: %d %s", code,
						reply);
	if (needs_tls(client)) {
		client_fail(client, 450, text);
		return;
	}
	tell_trouble(client, text + 6);
	authenticate(client);
}

void
client_on_tls_ready(SmtpClient *client)
{
	/* nothing that was said in plain text counts any more */
	smtp_caps_clear(&client->caps);
	smtp_reply_reset(client->reply);
	if (has_tls_policy(client, SMTP_TLS_IMPLICIT)) {
		client_set_state(client, CLIENT_BANNER);
	} else {
		client_set_state(client, CLIENT_EHLO);
		say_hello(client, PIPE_EHLO);
	}
}

void
client_on_tls_failed(SmtpClient *client, const char *text)
{
	const char *reason = g_str_has_prefix(text, "TLS handshake: ") ? text + 15 : text;
	g_autofree char *full = g_strdup_printf("4.7.5 TLS handshake failed: %s", reason);
	if (needs_tls(client)) {
		client_fail(client, 450, full);
		return;
	}
	tell_trouble(client, full + 6);
	client->dest->plain_until = clock_after(SMTP_TLS_PLAIN);
	client_lose_plain(client);
}

/* ---- greeting ---- */

void
client_on_connected(SmtpClient *client)
{
	if (!has_tls_policy(client, SMTP_TLS_IMPLICIT))
		client_set_state(client, CLIENT_BANNER);
	else if (client->conf->tls != NULL)
		begin_handshake(client);
	else
		client_fail(client, 450, "4.7.5 TLS is not set up here");
}

void
client_banner_reply(SmtpClient *client)
{
	if (client->reply->code / 100 != 2) {
		client_fail_reply(client);
		return;
	}
	client_set_state(client, CLIENT_EHLO);
	say_hello(client, PIPE_EHLO);
}

void
client_ehlo_reply(SmtpClient *client)
{
	int code = client->reply->code;
	bool lmtp = client->conf->protocol == SMTP_PROTOCOL_LMTP;
	pipeline_answered(&client->pipeline);
	if (code / 100 == 2) {
		smtp_caps_parse(client->reply->text->str, &client->caps);
		secure(client);
	} else if (code / 100 == 5 && !lmtp && !conn_is_tls(client->conn)) {
		client_set_state(client, CLIENT_HELO);
		say_hello(client, PIPE_HELO);
	} else {
		client_fail_reply(client);
	}
}

void
client_helo_reply(SmtpClient *client)
{
	pipeline_answered(&client->pipeline);
	if (client->reply->code / 100 == 2)
		secure(client);
	else
		client_fail_reply(client);
}
