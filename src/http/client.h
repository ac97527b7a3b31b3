/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* An HTTP client on libcurl's multi interface, one per worker, in the worker's event loop.
 * Connections are kept and reused.  Owner: service/ or a verb of cmd/.  Own worker only.
 *
 * A completion never fires inside a call; after http_call_cancel there is silence.  307 and 308
 * are followed with method and body, at most HTTP_REDIRECTS_MAX times; other redirects are
 * answers like any other. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "base/clock.h"
#include "http/server.h" /* HttpHeader */
#include "loop/worker.h"

typedef struct HttpClient HttpClient;
typedef struct HttpCall HttpCall;

#define HTTP_REDIRECTS_MAX 5

/* Once before the first client and before any thread. */
void http_client_global_init(void);
/* `connections_max`: kept open for reuse; 0: 256. */
HttpClient *http_client_new(Worker *worker, unsigned connections_max);
/* Calls that are open end at once: their callbacks get status 0 inside this call.  NULL is fine. */
void http_client_free(HttpClient *client);

/* A request body that is read in pieces, from any offset (again, after a redirect). */
typedef struct HttpSource {
	/* Up to `len` bytes at `offset` into `buf`; how many, or -1. */
	ssize_t (*read)(void *arg, uint64_t offset, char *buf, size_t len);
	void (*free)(void *arg); /* NULL is fine */
	void *arg;
	uint64_t len;
} HttpSource;

typedef struct HttpCallSpec {
	const char *method;
	const char *url; /* http or https */
	const HttpHeader *headers;
	size_t n_headers;
	/* At most one of the two; neither: an empty body, with content-length 0 unless GET. */
	char *body; /* g_malloc'ed, moved; NULL for none */
	size_t body_len;
	const HttpSource *source; /* copied; its `arg` is moved */
	Usec timeout;             /* of everything; 0: 60 s */
	Usec connect_timeout;     /* 0: 10 s */
	const char *verify;  /* NULL: the system's CAs; "": do not; else a CA file.  https only */
	size_t response_max; /* bytes of the answer's body; 0: 1 MiB */
	/* Who we are.  The key goes along with a redirect, but never from https to http. */
	const char *api_key;                  /* a bearer token (RFC 6750 2.1); NULL: none */
	const char *client_cert, *client_key; /* PEM files for https; NULL: none */
} HttpCallSpec;

typedef struct HttpResult {
	int status;        /* 0: no answer */
	const char *error; /* what went wrong when status is 0, else "" */
	const char *body;  /* NUL-terminated, never NULL */
	size_t body_len;
	const HttpCall *call; /* for http_result_header */
} HttpResult;

/* `result` is valid during the call. */
typedef void HttpCallFn(void *arg, const HttpResult *result);

/* `done` NULL: nobody waits for the answer, and the handle must not be used. */
HttpCall *http_call_start(HttpClient *client, const HttpCallSpec *spec, HttpCallFn *done,
			  void *arg);
void http_call_cancel(HttpCall *call); /* NULL is fine; not after its callback */
/* The last header field of that name (case-insensitive), or NULL. */
const char *http_result_header(const HttpResult *result, const char *name);
