/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The REST API (behaviour spec section 4) over a RestHost: routes, strictness, etags, long polls,
 * uploads.  A request may arrive on any worker; it is carried to the worker that owns the
 * transaction and its answer back.  Owner: service/; started and stopped by main. */
#include <glib.h>

#include "http/server.h"
#include "rest/host.h"
#include "rest/principal.h"

typedef struct RestApi RestApi;

#define REST_IDEM_KEY_MAX 255 /* bytes of an Idempotency-Key */

/* Makes the tables of `host`, one per worker. `host` must outlive the API. */
RestApi *rest_api_new(Workers *workers, RestHost *host);
/* After the HTTP server was stopped and, finally, on tear-down of the workers. */
void rest_api_free(RestApi *api);
/* The handler for http_server_*: arg is the RestApi. */
void rest_api_handle(void *arg, HttpRequest *request);
/* The same for somebody: creating as a sender that is not theirs is 403, transactions of others
 * are not there (404).  `who` outlives the request; NULL: may everything. */
void rest_api_handle_as(RestApi *api, HttpRequest *request, const RestPrincipal *who);
/* Shutdown: open long polls are answered (304) now and those that come are not waited for. */
void rest_api_drain(RestApi *api);
