/* SPDX-License-Identifier: Apache-2.0 */
/* Who the client really is, when somebody speaks for it: the PROXY header in front of everything,
 * and XCLIENT.  Both are believed only from listed addresses; the address of the connection
 * decides, never one that was told. */
#include "smtp/proxy.h"
#include "smtp/session_int.h"

static bool
is_listed(const SmtpSession *session, const NetCidr *list, size_t count)
{
	char host[NET_ADDR_TEXT_MAX];
	net_addr_format(conn_peer(session->conn), host);
	for (size_t i = 0; i < count; i++) {
		if (net_cidr_contains(&list[i], host))
			return true;
	}
	return false;
}

static bool
is_proxy(const SmtpSession *session)
{
	const SmtpServiceConf *conf = session->conf;
	char host[NET_ADDR_TEXT_MAX];
	if (conf->n_proxies > 0)
		return is_listed(session, conf->proxies, conf->n_proxies);
	net_addr_format(conn_peer(session->conn), host);
	return net_is_loopback(host);
}

bool
session_enter_proxy(SmtpSession *session)
{
	if (!is_proxy(session))
		return false;
	/* not a byte more than the header: what follows may be for TLS, which reads for itself */
	conn_set_read_max(session->conn, SMTP_PROXY_FIRST);
	session_set_state(session, SESSION_PROXY);
	return true;
}

size_t
session_proxy_data(SmtpSession *session, const char *data, size_t len)
{
	SmtpProxy proxy = {0};
	size_t want = 0;
	switch (smtp_proxy_parse(data, len, &proxy, &want)) {
	case SMTP_PROXY_MORE:
		conn_set_read_max(session->conn, want);
		return 0;
	case SMTP_PROXY_BAD:
		session_cut(session, "no PROXY header");
		return len;
	case SMTP_PROXY_DONE:
		break;
	}
	conn_set_read_max(session->conn, 0);
	if (proxy.has_addresses) {
		host_port_free(session->remote);
		host_port_free(session->local);
		session->remote = net_addr_host_port(&proxy.source);
		session->local = net_addr_host_port(&proxy.destination);
	}
	session_start(session);
	return proxy.len;
}

/* ---- XCLIENT ---- */

bool
session_offers_xclient(const SmtpSession *session)
{
	return session->conf->n_xclients > 0 &&
	       is_listed(session, session->conf->xclients, session->conf->n_xclients);
}

static void
replace(HostPort **at, const char *host, int port)
{
	HostPort *old = *at;
	if (host == NULL && port < 0)
		return;
	*at = host_port_new(host != NULL ? host : old->host, port >= 0      ? (uint16_t)port
							     : host != NULL ? 0
									    : old->port);
	host_port_free(old);
}

void
session_xclient(SmtpSession *session, const char *arg, size_t len)
{
	SmtpXclient xclient;
	if (session->conf->n_xclients == 0) {
		session_error(session, 502, "5.5.1", "XCLIENT not available");
	} else if (!session_offers_xclient(session)) {
		session_error(session, 550, "5.7.0", "Error: insufficient authorization");
	} else if (session->state != SESSION_READY && session->state != SESSION_HELLO) {
		session_error(session, 503, "5.5.1", "Error: XCLIENT inside a mail transaction");
	} else if (!smtp_xclient_parse(arg, len, &xclient)) {
		session_error(session, 501, "5.5.4", "Syntax: XCLIENT attribute=value...");
	} else {
		bool login_said = xclient.login_said;
		g_autofree char *login = login_said ? g_steal_pointer(&xclient.login)
						    : g_strdup(session->auth_user);
		session_forget_peer(session);
		replace(&session->remote, xclient.addr, xclient.port);
		replace(&session->local, xclient.dest_addr, xclient.dest_port);
		smtp_xclient_clear(&xclient);
		session->auth_user = g_steal_pointer(&login);
		session->greeted = false;
		if (session_admit(session))
			session_begin_dialogue(session);
	}
}
