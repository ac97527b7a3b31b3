/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* TLS on a non-blocking descriptor, for conn.c.  Private to loop/; own worker only.  Used
 * directly on the descriptor and not through a bufferevent, so that a connection has one path
 * for lines, caps, pausing and deadlines, with TLS or without. */
#include <stddef.h>

#include "loop/tls.h"

typedef struct TlsSession TlsSession;

typedef enum TlsIo {
	TLS_IO_OK,
	TLS_IO_WANT_READ,  /* again when the descriptor is readable */
	TLS_IO_WANT_WRITE, /* again when it is writable */
	TLS_IO_EOF,        /* the peer has closed */
	TLS_IO_ERROR,      /* tls_session_error says why */
} TlsIo;

/* NULL and *ret_error when the parameters do not fit. */
TlsSession *tls_session_new(TlsContext *context, int fd, bool server, const char *name,
			    GError **ret_error);
void tls_session_free(TlsSession *session); /* NULL is fine; sends nothing */
TlsIo tls_session_shake(TlsSession *session);
TlsIo tls_session_read(TlsSession *session, void *out, size_t room, size_t *ret_len);
TlsIo tls_session_write(TlsSession *session, const void *data, size_t len, size_t *ret_len);
/* Says goodbye to the peer as far as that is possible at once. */
void tls_session_close(TlsSession *session);
/* Behind the handshake. */
void tls_session_facts(TlsSession *session, TlsFacts *ret_facts);
/* Client: the newest ticket, or NULL; and, before the handshake, one to resume with (borrowed for
 * the call). */
TlsTicket *tls_session_ticket(const TlsSession *session);
void tls_session_offer(TlsSession *session, const TlsTicket *ticket);
bool tls_session_is_resumed(const TlsSession *session);
/* For tls_ticket.c. */
struct ssl_st *tls_session_ssl(const TlsSession *session);
const char *tls_session_error(const TlsSession *session);
