/* SPDX-License-Identifier: Apache-2.0 */
/* Who is at the other end of a connection: its address and, when it showed a certificate that one
 * of our authorities vouches for, the names in that.  libmicrohttpd does TLS with GnuTLS and asks
 * for the certificate; judging it is left to us. */
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <string.h>

#include "base/net.h"
#include "http/server_int.h"

#define NAMES_MAX  64 /* of one certificate */
#define NAME_BYTES 256

struct HttpConnPeer {
	HttpPeer peer;
	GPtrArray *names; /* char*, ends in NULL */
};

void
http_peer_free(HttpConnPeer *peer)
{
	if (peer == NULL)
		return;
	g_ptr_array_unref(peer->names);
	g_free(peer);
}

static void
read_names(HttpConnPeer *peer, gnutls_x509_crt_t crt)
{
	char name[NAME_BYTES];
	for (unsigned i = 0; i < NAMES_MAX; i++) {
		size_t len = sizeof(name) - 1;
		int kind = gnutls_x509_crt_get_subject_alt_name(crt, i, name, &len, NULL);
		if (kind == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			break;
		if (kind == GNUTLS_SAN_DNSNAME && memchr(name, '\0', len) == NULL)
			g_ptr_array_add(peer->names, g_ascii_strdown(name, (gssize)len));
	}
	size_t len = sizeof(name) - 1;
	if (peer->names->len == 0 &&
	    gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &len) ==
		    GNUTLS_E_SUCCESS &&
	    memchr(name, '\0', len) == NULL)
		g_ptr_array_add(peer->names, g_ascii_strdown(name, (gssize)len));
}

static void
read_certificate(HttpConnPeer *peer, gnutls_session_t session)
{
	unsigned status = 0, count = 0;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);
	gnutls_x509_crt_t crt;
	if (chain == NULL || count == 0 ||
	    gnutls_certificate_verify_peers2(session, &status) != GNUTLS_E_SUCCESS || status != 0 ||
	    gnutls_x509_crt_init(&crt) != GNUTLS_E_SUCCESS)
		return;
	if (gnutls_x509_crt_import(crt, &chain[0], GNUTLS_X509_FMT_DER) == GNUTLS_E_SUCCESS) {
		g_autofree char *hex = g_compute_checksum_for_data(G_CHECKSUM_SHA256, chain[0].data,
								   chain[0].size);
		g_strlcpy(peer->peer.fingerprint, hex, sizeof(peer->peer.fingerprint));
		read_names(peer, crt);
	}
	gnutls_x509_crt_deinit(crt);
}

static HttpConnPeer *
peer_new(struct MHD_Connection *mhd, bool tls)
{
	HttpConnPeer *peer = g_new0(HttpConnPeer, 1);
	peer->names = g_ptr_array_new_with_free_func(g_free);
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
		mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	if (info != NULL && info->client_addr != NULL) {
		NetAddr addr; /* what is there is as long as its family needs */
		bool v6 = info->client_addr->sa_family == AF_INET6;
		net_addr_from_sockaddr(
			info->client_addr,
			v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in), &addr);
		net_addr_format(&addr, peer->peer.address);
	}
	info = tls ? MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION) : NULL;
	if (info != NULL && info->tls_session != NULL)
		read_certificate(peer, (gnutls_session_t)info->tls_session);
	g_ptr_array_add(peer->names, NULL);
	peer->peer.names = (const char *const *)peer->names->pdata;
	return peer;
}

const HttpPeer *
http_peer(HttpRequest *request)
{
	static const char *const none[] = {NULL};
	static const HttpPeer nobody = {.names = none};
	HttpConn *conn = request->conn;
	if (conn == NULL || request->mhd == NULL)
		return &nobody;
	if (conn->peer == NULL)
		conn->peer = peer_new(request->mhd, conn->site->server->client_ca != NULL);
	return &conn->peer->peer;
}
