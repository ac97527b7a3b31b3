/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What server.c (sites, connections, deadlines) and request.c (one request) share.  Everything
 * here belongs to one worker. */
#include <event2/event.h>
#include <microhttpd.h>

#include "base/limbuf.h"
#include "http/framing.h"
#include "http/server.h"

typedef struct HttpSite HttpSite;
typedef struct HttpConn HttpConn;

/* HEAD > BODY > WAIT > REPLY > HEAD ...  What the client, or we, owe next. */
typedef enum HttpPhase {
	HTTP_PHASE_HEAD,
	HTTP_PHASE_BODY,
	HTTP_PHASE_WAIT,
	HTTP_PHASE_REPLY
} HttpPhase;

/* One TCP connection; owned by its site, freed when the daemon says it is closed. */
struct HttpConn {
	HttpSite *site;
	HttpConn *next, *prev;
	int fd;
	HttpPhase phase;
	Deadline since;    /* when the phase began */
	Deadline deadline; /* of HEAD; the others are computed from `since` */
	HttpRequest *request;
	struct event *closed_event; /* watches for the client's leaving in WAIT */
	struct HttpConnPeer *peer;  /* NULL: nobody has asked yet */
	bool linger;                /* answered before its request was read */
};

typedef struct HttpLinger HttpLinger;
typedef struct HttpFront HttpFront;

/* The part of a server that lives on one worker. */
struct HttpSite {
	HttpServer *server;
	Worker *worker;
	struct MHD_Daemon *daemon;
	GArray *fds;         /* listening sockets, int */
	GPtrArray *accepts;  /* struct event * */
	struct event *run;   /* the daemon's epoll descriptor is readable */
	struct event *again; /* the daemon wants to run without waiting */
	HttpConn *conns;
	unsigned n_conns;
	HttpFront *fronts; /* accepted, silent so far */
	unsigned n_fronts;
	HttpLinger *lingers;
	unsigned n_lingers;
	Timer sweep;
	Usec sweep_every;
	bool accept_paused; /* out of descriptors */
	bool posted;        /* site_attach is on its way */
	bool closing;
};

struct HttpServer {
	HttpServerOptions options; /* strings are not kept */
	HttpHandlerFn *handler;
	void *arg;
	uint16_t port;
	bool tls;
	bool layout;                  /* heads can be looked at by http_layout_* */
	char *cert, *key, *client_ca; /* PEM text */
	GPtrArray *sites;             /* HttpSite *, by worker */
};

typedef enum HttpReader {
	HTTP_READER_NONE, /* nobody asked for the body: it is dropped */
	HTTP_READER_COLLECT,
	HTTP_READER_STREAM,
} HttpReader;

/* Two references: the connection's, until the daemon has completed the request, and the handler's,
 * until the answer. */
struct HttpRequest {
	int refs;
	HttpConn *conn; /* NULL: the client has gone */
	Worker *worker;
	struct MHD_Connection *mhd;
	char *target; /* as received */
	char *method;
	char *path;
	const char *query; /* into target, or NULL */
	HttpFraming framing;

	bool begun;     /* the handler was called */
	bool ended;     /* the whole body has been read */
	bool suspended; /* in the daemon */
	bool paused;    /* by the reader */
	bool answered;  /* http_respond was called */
	bool queued;    /* its response was given to the daemon */

	HttpReader reader;
	HttpBodyFn *body_fn; /* NULL after its last event */
	void *body_arg;
	uint64_t cap, received;
	LimBuf buf;
	Usec paused_for;
	Deadline paused_at;

	HttpGoneFn *gone_fn;
	void *gone_arg;
	HttpEndFn *end_fn;
	void *end_arg;

	struct MHD_Response *response;
	int status;
	size_t response_len;
};

/* server.c */
void http_conn_phase(HttpConn *conn, HttpPhase phase);
/* Lets the daemon run soon. */
void http_site_kick(HttpSite *site);

/* An answer without the daemon, as far as the socket takes it at once; `why` NULL: no body. */
void http_send_plain(int fd, const char *status, const char *why);

/* peer.c */
typedef struct HttpConnPeer HttpConnPeer;
void http_peer_free(HttpConnPeer *peer); /* NULL is fine */

/* layout.c */
typedef struct HttpLayout {
	const char *end; /* of the last thing seen */
	bool sound;
} HttpLayout;

/* Whether the daemon's memory can be read this way; else nothing here may be called. */
bool http_layout_is_known(void);
/* Pointers as the daemon gives them: the version of the request line, then each field in order. */
void http_layout_begin(HttpLayout *layout, const char *version);
void http_layout_add(HttpLayout *layout, const char *name, const char *value, size_t value_len);
/* False: a line did not end in CRLF, continued another, or held a NUL. */
bool http_layout_end(const HttpLayout *layout);

/* front.c */
void http_on_accept(evutil_socket_t listener, short what, void *arg);
void http_front_close(HttpFront *front);

/* linger.c: keeps the socket behind `fd` open until the client has stopped sending, for a while. */
void http_linger(HttpSite *site, int fd);
void http_linger_free(HttpLinger *linger);

/* request.c: called by the daemon's callbacks */
HttpRequest *http_request_new(HttpConn *conn, const char *target);
enum MHD_Result http_request_begin(HttpRequest *request, struct MHD_Connection *mhd,
				   const char *method, const char *version);
enum MHD_Result http_request_data(HttpRequest *request, const char *data, size_t *size);
enum MHD_Result http_request_end(HttpRequest *request);
/* The daemon is done with it, or is going to be: nothing can be sent any more.  Gives up the
 * connection's reference. */
void http_request_detach(HttpRequest *request);
/* Tells a waiting handler that its client has left; once. */
void http_request_gone(HttpRequest *request);
/* Shutdown: answers a request that waits, behind its handler's back. */
void http_request_abandon(HttpRequest *request);
