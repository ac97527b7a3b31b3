/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/net.h"
#include "loop/tls_int.h"

#define ERROR_TEXT_MAX 160

struct TlsContext {
	atomic_int refs;
	SSL_CTX *ctx;      /* NULL: `lazy` and not needed so far */
	GPtrArray *others; /* SSL_CTX*: further certificates of a server; NULL: none */
	TlsVerify verify;
	bool lazy; /* a client's that verifies nothing: nothing can be wrong with it at start-up,
		      and the cipher tables it needs are large */
	pthread_mutex_t mutex; /* of the first use of a lazy one */
};

struct TlsSession {
	SSL *ssl;
	TlsContext *context;
	char *peer; /* made when first asked for */
	char error[ERROR_TEXT_MAX];
};

/* The oldest of the thread's queued errors, which is the cause; empties the queue. */
static void
take_error(char *out, size_t size)
{
	unsigned long code = ERR_get_error();
	ERR_clear_error();
	const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
	if (code != 0 && ERR_SYSTEM_ERROR(code))
		reason = strerror_r(ERR_GET_REASON(code), out, size);
	if (reason != out)
		(void)snprintf(out, size, "%s", reason != NULL ? reason : "unknown TLS error");
}

static int
refuse_password(char *out, int size, int rwflag, void *arg)
{
	(void)out;
	(void)size;
	(void)rwflag;
	(void)arg;
	return -1; /* never ask on a terminal */
}

static SSL_CTX *
ctx_new(const SSL_METHOD *method, GError **ret_error)
{
	ERR_clear_error();
	SSL_CTX *ctx = SSL_CTX_new(method);
	if (ctx == NULL) {
		char text[ERROR_TEXT_MAX];
		take_error(text, sizeof(text));
		error_set(ret_error, K_ERROR_TLS, "cannot make a TLS context: %s", text);
		return NULL;
	}
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	/* Many mail peers close without close_notify; SMTP has its own end marks. */
	SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
				      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_default_passwd_cb(ctx, refuse_password);
	return ctx;
}

static TlsContext *
context_alloc(TlsVerify verify)
{
	TlsContext *context = g_new0(TlsContext, 1);
	atomic_init(&context->refs, 1);
	pthread_mutex_init(&context->mutex, NULL);
	context->verify = verify;
	return context;
}

static TlsContext *
context_new(const SSL_METHOD *method, TlsVerify verify, GError **ret_error)
{
	SSL_CTX *ctx = ctx_new(method, ret_error);
	if (ctx == NULL)
		return NULL;
	TlsContext *context = context_alloc(verify);
	context->ctx = ctx;
	return context;
}

/* NULL when the one of a lazy context cannot be made. */
static SSL_CTX *
context_ctx(TlsContext *context, GError **ret_error)
{
	if (!context->lazy)
		return context->ctx;
	pthread_mutex_lock(&context->mutex);
	if (context->ctx == NULL) {
		context->ctx = ctx_new(TLS_client_method(), ret_error);
		/* Where plain text is the alternative, a short key is better than none. */
		if (context->ctx != NULL)
			SSL_CTX_set_security_level(context->ctx, 1);
	}
	SSL_CTX *ctx = context->ctx;
	pthread_mutex_unlock(&context->mutex);
	return ctx;
}

static TlsContext *
context_refuse(TlsContext *context, GError **ret_error, const char *what, const char *path)
{
	char text[ERROR_TEXT_MAX];
	take_error(text, sizeof(text));
	error_set(ret_error, K_ERROR_TLS, "%s %s: %s", what, path, text);
	tls_context_unref(context);
	return NULL;
}

/* NULL, or what is wrong. */
static const char *
use_files(SSL_CTX *ctx, const char *cert_path, const char *key_path, const char **ret_path)
{
	*ret_path = cert_path;
	if (SSL_CTX_use_certificate_chain_file(ctx, cert_path) != 1)
		return "certificate";
	*ret_path = key_path;
	if (SSL_CTX_use_PrivateKey_file(ctx, key_path, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(ctx) != 1)
		return "private key";
	return NULL;
}

TlsContext *
tls_server_new(const char *cert_path, const char *key_path, GError **ret_error)
{
	TlsContext *context = context_new(TLS_server_method(), TLS_VERIFY_NONE, ret_error);
	if (context == NULL)
		return NULL;
	/* Mail clients rarely resume; one ticket costs less than the usual two. */
	(void)SSL_CTX_set_num_tickets(context->ctx, 1);
	const char *path;
	const char *wrong = use_files(context->ctx, cert_path, key_path, &path);
	return wrong != NULL ? context_refuse(context, ret_error, wrong, path) : context;
}

/* ---- several certificates ---- */

static bool
serves(const SSL_CTX *ctx, const char *name)
{
	X509 *cert = SSL_CTX_get0_certificate(ctx);
	return X509_check_host(cert, name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1;
}

/* The client has said whom it wants to reach. */
static int
choose_certificate(SSL *ssl, int *alert, void *arg)
{
	const TlsContext *context = arg;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	(void)alert;
	if (name == NULL || serves(context->ctx, name))
		return SSL_TLSEXT_ERR_OK;
	for (guint i = 0; i < context->others->len; i++) {
		SSL_CTX *other = g_ptr_array_index(context->others, i);
		if (serves(other, name)) {
			(void)SSL_set_SSL_CTX(ssl, other);
			return SSL_TLSEXT_ERR_OK;
		}
	}
	return SSL_TLSEXT_ERR_NOACK;
}

static void
free_ctx(void *ctx)
{
	SSL_CTX_free(ctx);
}

bool
tls_server_add(TlsContext *context, const char *cert_path, const char *key_path, GError **ret_error)
{
	SSL_CTX *ctx = ctx_new(TLS_server_method(), ret_error);
	if (ctx == NULL)
		return false;
	const char *path;
	const char *wrong = use_files(ctx, cert_path, key_path, &path);
	if (wrong != NULL) {
		char text[ERROR_TEXT_MAX];
		take_error(text, sizeof(text));
		SSL_CTX_free(ctx);
		return error_set(ret_error, K_ERROR_TLS, "%s %s: %s", wrong, path, text);
	}
	if (context->others == NULL) {
		context->others = g_ptr_array_new_with_free_func(free_ctx);
		(void)SSL_CTX_set_tlsext_servername_callback(context->ctx, choose_certificate);
		(void)SSL_CTX_set_tlsext_servername_arg(context->ctx, context);
	}
	g_ptr_array_add(context->others, ctx);
	return true;
}

/* ---- certificates of clients ---- */

/* Whatever it is, the handshake goes on; SSL_get_verify_result remembers. */
static int
note_verdict(int ok, X509_STORE_CTX *store)
{
	(void)ok;
	(void)store;
	return 1;
}

static void
ask(SSL_CTX *ctx)
{
	static const unsigned char name[] = "koukan";
	/* a session that is resumed carries its verdict */
	(void)SSL_CTX_set_session_id_context(ctx, name, sizeof(name) - 1);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, note_verdict);
}

static bool
load_authorities(SSL_CTX *ctx, const char *ca_path)
{
	if (ca_path == NULL)
		return SSL_CTX_set_default_verify_paths(ctx) == 1;
	struct stat info;
	if (stat(ca_path, &info) == 0 && S_ISDIR(info.st_mode))
		return SSL_CTX_load_verify_dir(ctx, ca_path) == 1;
	return SSL_CTX_load_verify_file(ctx, ca_path) == 1;
}

bool
tls_server_ask(TlsContext *context, const char *ca_path, GError **ret_error)
{
	ERR_clear_error();
	if (!load_authorities(context->ctx, ca_path)) {
		char text[ERROR_TEXT_MAX];
		take_error(text, sizeof(text));
		return error_set(ret_error, K_ERROR_TLS, "authorities %s: %s", ca_path, text);
	}
	ask(context->ctx);
	for (guint i = 0; context->others != NULL && i < context->others->len; i++) {
		SSL_CTX *other = g_ptr_array_index(context->others, i);
		SSL_CTX_set1_cert_store(other, SSL_CTX_get_cert_store(context->ctx));
		ask(other);
	}
	return true;
}

TlsContext *
tls_client_new(TlsVerify verify, const char *ca_path, GError **ret_error)
{
	if (verify == TLS_VERIFY_NONE) {
		TlsContext *lazy = context_alloc(verify);
		lazy->lazy = true;
		return lazy;
	}
	TlsContext *context = context_new(TLS_client_method(), verify, ret_error);
	if (context == NULL)
		return NULL;
	SSL_CTX_set_verify(context->ctx, SSL_VERIFY_PEER, NULL);
	if (!load_authorities(context->ctx, ca_path))
		return context_refuse(context, ret_error, "authorities",
				      ca_path != NULL ? ca_path : "of the system");
	return context;
}

TlsContext *
tls_context_ref(TlsContext *context)
{
	atomic_fetch_add_explicit(&context->refs, 1, memory_order_relaxed);
	return context;
}

void
tls_context_unref(TlsContext *context)
{
	if (context == NULL ||
	    atomic_fetch_sub_explicit(&context->refs, 1, memory_order_acq_rel) > 1)
		return;
	SSL_CTX_free(context->ctx);
	if (context->others != NULL)
		g_ptr_array_unref(context->others);
	pthread_mutex_destroy(&context->mutex);
	g_free(context);
}

/* Client: the name we ask for, and what the certificate has to carry. */
static bool
set_name(TlsSession *session, const char *name)
{
	g_autofree char *host = g_strdup(name);
	size_t len = strlen(host);
	if (len > 1 && host[len - 1] == '.')
		host[len - 1] = '\0';
	if (net_is_literal(host))
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session->ssl), host) == 1;
	return SSL_set_tlsext_host_name(session->ssl, host) == 1 &&
	       SSL_set1_host(session->ssl, host) == 1;
}

TlsSession *
tls_session_new(TlsContext *context, int fd, bool server, const char *name, GError **ret_error)
{
	if (!server && context->verify == TLS_VERIFY_NAME && (name == NULL || name[0] == '\0')) {
		error_set(ret_error, K_ERROR_TLS, "no name to verify");
		return NULL;
	}
	SSL_CTX *ctx = context_ctx(context, ret_error);
	if (ctx == NULL)
		return NULL;
	ERR_clear_error();
	TlsSession *session = g_new0(TlsSession, 1);
	session->context = tls_context_ref(context);
	session->ssl = SSL_new(ctx);
	bool fine = session->ssl != NULL && SSL_set_fd(session->ssl, fd) == 1;
	if (fine && !server && name != NULL && name[0] != '\0')
		fine = set_name(session, name);
	if (!fine) {
		take_error(session->error, sizeof(session->error));
		error_set(ret_error, K_ERROR_TLS, "%s", session->error);
		tls_session_free(session);
		return NULL;
	}
	if (server)
		SSL_set_accept_state(session->ssl);
	else
		SSL_set_connect_state(session->ssl);
	return session;
}

void
tls_session_free(TlsSession *session)
{
	if (session == NULL)
		return;
	if (session->ssl != NULL) {
		/* Else OpenSSL takes the session for broken and it cannot be resumed. */
		SSL_set_shutdown(session->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
		SSL_free(session->ssl);
	}
	tls_context_unref(session->context);
	g_free(session->peer);
	g_free(session);
}

static TlsIo
session_trouble(TlsSession *session, int rc)
{
	switch (SSL_get_error(session->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		return TLS_IO_WANT_READ;
	case SSL_ERROR_WANT_WRITE:
		return TLS_IO_WANT_WRITE;
	case SSL_ERROR_ZERO_RETURN:
		return TLS_IO_EOF;
	case SSL_ERROR_SYSCALL:
		if (ERR_peek_error() == 0) {
			const char *text = errno != 0 ? strerror_r(errno, session->error,
								   sizeof(session->error))
						      : "connection closed";
			if (text != session->error)
				(void)snprintf(session->error, sizeof(session->error), "%s", text);
			return TLS_IO_ERROR;
		}
		break;
	default:
		break;
	}
	long verdict = SSL_get_verify_result(session->ssl);
	take_error(session->error, sizeof(session->error));
	if (verdict != X509_V_OK && session->context->verify != TLS_VERIFY_NONE)
		(void)snprintf(session->error, sizeof(session->error), "certificate: %s",
			       X509_verify_cert_error_string(verdict));
	return TLS_IO_ERROR;
}

struct ssl_st *
tls_session_ssl(const TlsSession *session)
{
	return session->ssl;
}

TlsIo
tls_session_shake(TlsSession *session)
{
	ERR_clear_error();
	errno = 0;
	int rc = SSL_do_handshake(session->ssl);
	return rc == 1 ? TLS_IO_OK : session_trouble(session, rc);
}

TlsIo
tls_session_read(TlsSession *session, void *out, size_t room, size_t *ret_len)
{
	ERR_clear_error();
	errno = 0;
	int rc = SSL_read_ex(session->ssl, out, room, ret_len);
	return rc == 1 ? TLS_IO_OK : session_trouble(session, rc);
}

TlsIo
tls_session_write(TlsSession *session, const void *data, size_t len, size_t *ret_len)
{
	ERR_clear_error();
	errno = 0;
	int rc = SSL_write_ex(session->ssl, data, len, ret_len);
	return rc == 1 ? TLS_IO_OK : session_trouble(session, rc);
}

void
tls_session_close(TlsSession *session)
{
	ERR_clear_error();
	(void)SSL_shutdown(session->ssl);
	ERR_clear_error();
}

/* The subject of a certificate as one line of ASCII (RFC 4514). */
static char *
subject_of(const X509 *cert)
{
	BIO *out = BIO_new(BIO_s_mem());
	char *text = NULL;
	if (out != NULL &&
	    X509_NAME_print_ex(out, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253) >= 0) {
		char *data;
		long len = BIO_get_mem_data(out, &data);
		text = g_strndup(data, len > 0 ? (size_t)len : 0);
	}
	BIO_free(out);
	ERR_clear_error();
	return text;
}

void
tls_session_facts(TlsSession *session, TlsFacts *ret_facts)
{
	X509 *cert = SSL_get0_peer_certificate(session->ssl);
	if (session->peer == NULL && cert != NULL &&
	    SSL_get_verify_result(session->ssl) == X509_V_OK)
		session->peer = subject_of(cert);
	*ret_facts = (TlsFacts){.version = SSL_get_version(session->ssl),
				.cipher = SSL_get_cipher_name(session->ssl),
				.peer = session->peer};
}

const char *
tls_session_error(const TlsSession *session)
{
	return session->error;
}
