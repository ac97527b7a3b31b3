/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How transactions leave a worker: by URL or by sender name to whoever takes them onward.  A URL
 * that names one of our own listeners becomes a direct call, without HTTP and JSON (design D2).
 * Owner: service/node. */
#include "http/client.h"
#include "service/gateway.h"
#include "service/router.h"
#include "tx/port.h"

/* Which URLs are our own; immutable once the listeners are open. */
typedef struct LocalUrls {
	GPtrArray *router;  /* char*: "http://localhost:8000", without a slash at the end */
	GPtrArray *gateway; /* likewise */
} LocalUrls;

/* "http://host:port", brackets around an IPv6 literal.  Caller frees. */
char *url_of_listener(bool tls, const char *host, uint16_t port);

void local_urls_init(LocalUrls *urls);
void local_urls_clear(LocalUrls *urls);
/* Adds base (its path is cut; NULL is fine). */
void local_urls_add(GPtrArray *bases, const char *base);
/* Adds scheme://host:port, and the loopback addresses for "localhost". */
void local_urls_add_listener(GPtrArray *bases, bool tls, const char *host, uint16_t port);
/* The NAME of BASE/senders/NAME/transactions when BASE is in `bases`; else NULL.  Caller frees. */
char *local_urls_sender(const GPtrArray *bases, const char *url);

typedef struct WorkerPorts {
	TxPorts ports; /* first */
	Worker *worker;
	HttpClient *http;
	const LocalUrls *urls;
	Router *router;   /* NULL: not in this process */
	Gateway *gateway; /* NULL: not in this process */
} WorkerPorts;

/* Sets the functions; the members are the caller's. */
void worker_ports_init(WorkerPorts *ports);
