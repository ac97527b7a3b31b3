/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* An HTTP/1.1 server (RFC 9112), one libmicrohttpd daemon per worker inside the worker's event
 * loop.  Owner: service/ or a verb of cmd/.  http_server_* is called by main (also before the
 * workers run); everything about a request happens on the worker whose connection brought it.
 *
 * A request is handed to the handler when its head is complete and well-formed.  The handler then
 * answers at once, or asks for the body with http_read_body or http_stream_body and answers in or
 * after that callback.  Each request that the handler was given is ended by exactly one
 * http_respond, also when its client has gone (the answer is dropped then); after it the pointer
 * is dead.  Callbacks never fire inside http_* calls.
 *
 * Framing is strict whatever libmicrohttpd tolerates: one Host, one Content-Length of digits or
 * Transfer-Encoding exactly "chunked" and never both, token names, no control bytes in values;
 * else 400 and the connection is closed. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "base/clock.h"
#include "loop/worker.h"

typedef struct HttpServer HttpServer;
typedef struct HttpRequest HttpRequest;

typedef struct HttpHeader {
	const char *name; /* lower case */
	const char *value;
} HttpHeader;

/* On the worker that got the request. */
typedef void HttpHandlerFn(void *arg, HttpRequest *request);

typedef struct HttpServerOptions {
	const char *host;                 /* as for listener_bind_all */
	uint16_t port;                    /* 0: the kernel chooses */
	const char *cert_path, *key_path; /* PEM; both: TLS; both NULL: plain */
	const char *client_ca_path; /* PEM; with TLS: clients are asked for certificates; NULL: not
				     */
	unsigned connections_max;   /* of one worker; 0: 4096; beyond it 503 and close */
	size_t head_max;            /* bytes of the header fields; 0: 32 KiB; beyond it 431 */
	size_t uri_max;             /* bytes of the request target; 0: 8 KiB; beyond it 414 */
	Usec head_timeout;  /* from accept or from the request line to the end of the head; 0: 30 s
			     */
	Usec idle_timeout;  /* between requests; 0: 60 s */
	Usec body_timeout;  /* for a body, plus one second per KiB received; 0: 60 s; then 408 */
	Usec write_timeout; /* for the client to take an answer, plus the same; 0: 60 s */
} HttpServerOptions;

/* Binds on every worker and starts to serve when the workers run. */
K_MUST_CHECK HttpServer *http_server_open(Workers *workers, const HttpServerOptions *options,
					  HttpHandlerFn *handler, void *arg, GError **ret_error);
uint16_t http_server_port(const HttpServer *server); /* the real one */
bool http_server_is_tls(const HttpServer *server);
/* Closes listeners and connections; open requests become "gone".  Waits for the workers, so not
 * on a worker while they run.  NULL is fine. */
void http_server_free(HttpServer *server);

/* Connections that are open, of all servers of the process.  Any thread. */
unsigned http_connections(void);

/* ---- the request ---- */

const char *http_method(const HttpRequest *request);
/* Percent-decoded, without the query; starts with '/', holds no control characters. */
const char *http_path(const HttpRequest *request);
/* As received, behind '?'; NULL when there is none. */
const char *http_query(const HttpRequest *request);
/* The first header field of that name (case-insensitive) or NULL; borrowed until the answer.  NULL
 * for everything once the client has gone. */
const char *http_header(const HttpRequest *request, const char *name);
/* The value of Content-Length, -1 without one. */
int64_t http_content_length(const HttpRequest *request);
Worker *http_worker(const HttpRequest *request);

/* The client: who is at the other end of the connection.  Borrowed until the answer; after the
 * client has gone it is empty. */
typedef struct HttpPeer {
	char address[64];     /* without a port; "" unknown */
	char fingerprint[65]; /* SHA-256 of its certificate, which is verified; "" without one */
	const char *const *names; /* in that certificate: DNS names, else the common name; may be
				     empty, never NULL */
} HttpPeer;
const HttpPeer *http_peer(HttpRequest *request);

/* ---- its body: at most one of the two, once ---- */

typedef enum HttpBodyEvent {
	HTTP_BODY_DATA,    /* stream only: the next bytes */
	HTTP_BODY_END,     /* all is there (http_read_body: data, len are the whole body) */
	HTTP_BODY_TOO_BIG, /* it passed `cap`: answer 413 */
	HTTP_BODY_GONE,    /* the client went away or broke the framing; answer all the same */
} HttpBodyEvent;

/* `data` is valid during the call; read bodies end in a NUL behind `len`.  Exactly one of END,
 * TOO_BIG and GONE comes, as the last event. */
typedef void HttpBodyFn(void *arg, HttpRequest *request, HttpBodyEvent event, const char *data,
			size_t len);
void http_read_body(HttpRequest *request, size_t cap, HttpBodyFn *fn, void *arg);
void http_stream_body(HttpRequest *request, uint64_t cap, HttpBodyFn *fn, void *arg);
/* Back-pressure on a stream: after http_pause no event comes until http_resume.  A client that
 * goes away meanwhile is noticed at the resume. */
void http_pause(HttpRequest *request);
void http_resume(HttpRequest *request);

/* ---- its answer ---- */

/* Calls fn once if the client goes away before the answer and after the body was read.  The
 * request is still to be answered. */
typedef void HttpGoneFn(void *arg, HttpRequest *request);
void http_on_gone(HttpRequest *request, HttpGoneFn *fn, void *arg);

/* Calls fn once, inside the http_respond that ends the request, with its status; also for a client
 * that has gone.  One for each request. */
typedef void HttpEndFn(void *arg, int status);
void http_on_end(HttpRequest *request, HttpEndFn *fn, void *arg);

/* `body` is g_malloc'ed and moved, NULL for none; `content_type` NULL: no such header.  An answer
 * before the body was read discards the rest of the body, or closes when it is long. */
void http_respond(HttpRequest *request, int status, const HttpHeader *headers, size_t n_headers,
		  const char *content_type, char *body, size_t len);
/* text/plain; charset=utf-8; `text` NULL or "": an empty body. */
void http_respond_text(HttpRequest *request, int status, const char *text);
/* application/json, exactly; `json` is moved. */
void http_respond_json(HttpRequest *request, int status, const HttpHeader *headers,
		       size_t n_headers, char *json);
