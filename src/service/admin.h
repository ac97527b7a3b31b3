/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The administration routes, beside the Koukan dialect on the same listener:
 *
 *   GET  /admin/v1/transactions       ?state= from= to= destination= older_than= after= limit=
 *   GET  /admin/v1/transactions/ID
 *   GET  /admin/v1/transactions/ID/why   what its chain did in the newest attempt (docs/explain.md)
 *   POST /admin/v1/transactions/ID/retry | cancel | hold (?reason=) | release
 *   GET  /admin/v1/queue              ?limit= (destinations)
 *   GET  /healthz                     the process runs
 *   GET  /readyz                      it takes work: 200, else 503
 * (GET /metrics is service/metrics.h)
 *
 * The probes are for everybody.  Without authentication the rest is served on loopback only, unless
 * the configuration says otherwise; and never to a web page (requests with Origin).  Any worker. */
#include <stdatomic.h>
#include <stdbool.h>

#include "http/server.h"
#include "service/router.h"

typedef struct Admin {
	Router *router;              /* NULL: probes only */
	bool open;                   /* all routes, for who is not authenticated */
	const atomic_bool *draining; /* the process stops */
} Admin;

/* False when the path is none of the above, or all but the probes when it `may` not; then nothing
 * has happened. */
bool admin_handle(const Admin *admin, HttpRequest *request, bool may);
/* GET /healthz or /readyz: answered. */
bool admin_handle_probe(const Admin *admin, HttpRequest *request);
