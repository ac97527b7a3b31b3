/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* TLS contexts, counted atomically and immutable, so shared between workers; a reload makes a
 * new one.  TLS 1.2 and later.  OpenSSL types stay inside loop/. */
#include <glib.h>
#include <stdbool.h>

#include "base/check.h"

typedef struct TlsContext TlsContext;

typedef enum TlsVerify {
	TLS_VERIFY_NONE, /* encrypt only (opportunistic SMTP) */
	TLS_VERIFY_NAME, /* chain and host name */
} TlsVerify;

/* What is known of a connection behind its handshake; the texts live as long as it. */
typedef struct TlsFacts {
	const char *version, *cipher; /* as OpenSSL names them */
	const char *peer; /* subject of the peer's certificate (RFC 4514), when it was verified */
} TlsFacts;

K_MUST_CHECK TlsContext *tls_server_new(const char *cert_path, const char *key_path,
					GError **ret_error);
/* One more certificate, for clients that name it (SNI, RFC 6066 3); the first one serves all
 * others. Before the context is shared. */
K_MUST_CHECK bool tls_server_add(TlsContext *context, const char *cert_path, const char *key_path,
				 GError **ret_error);
/* Asks clients for a certificate of these authorities (PEM file or folder); without one, or with
 * one of others, they are served as well (conn_tls_facts).  Behind the last tls_server_add, before
 * the context is shared. */
K_MUST_CHECK bool tls_server_ask(TlsContext *context, const char *ca_path, GError **ret_error);
/* `ca_path` NULL: the system's authorities. */
K_MUST_CHECK TlsContext *tls_client_new(TlsVerify verify, const char *ca_path, GError **ret_error);
TlsContext *tls_context_ref(TlsContext *context);
void tls_context_unref(TlsContext *context); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TlsContext, tls_context_unref)

/* With what a client resumes a session (RFC 8446 2.2, RFC 5077).  The name in the certificate was
 * verified when it was made and is not again: only for the same name.  Not shared by threads. */
typedef struct TlsTicket TlsTicket;
void tls_ticket_free(TlsTicket *ticket); /* NULL is fine */
