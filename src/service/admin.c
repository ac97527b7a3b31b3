/* SPDX-License-Identifier: Apache-2.0 */
#include "service/admin.h"

#include <string.h>

#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "http/route.h"
#include "service/admin_json.h"
#include "service/router_int.h"
#include "service/row.h"
#include "service/why_book.h"

#define HOLD_REASON "held by an operator"

typedef enum AdminRoute {
	ADMIN_HEALTH,
	ADMIN_READY,
	ADMIN_LIST,
	ADMIN_SHOW,
	ADMIN_WHY,
	ADMIN_RETRY,
	ADMIN_CANCEL,
	ADMIN_HOLD,
	ADMIN_RELEASE,
	ADMIN_QUEUE,
} AdminRoute;

static const HttpRoute ROUTES[] = {
	{"GET", "/healthz", ADMIN_HEALTH},
	{"GET", "/readyz", ADMIN_READY},
	{"GET", "/admin/v1/transactions", ADMIN_LIST},
	{"GET", "/admin/v1/transactions/*", ADMIN_SHOW},
	{"GET", "/admin/v1/transactions/*/why", ADMIN_WHY},
	{"POST", "/admin/v1/transactions/*/retry", ADMIN_RETRY},
	{"POST", "/admin/v1/transactions/*/cancel", ADMIN_CANCEL},
	{"POST", "/admin/v1/transactions/*/hold", ADMIN_HOLD},
	{"POST", "/admin/v1/transactions/*/release", ADMIN_RELEASE},
	{"GET", "/admin/v1/queue", ADMIN_QUEUE},
};

/* One request that waits for the store; answered on the worker that got it. */
typedef struct AdminCall {
	Router *router;
	HttpRequest *request;
	AdminRoute route;
	char *id;
	unsigned limit; /* of a list */

	/* cancelling: home -> owner -> home */
	Worker *home, *owner;
	int status;
	char *text;
} AdminCall;

static AdminCall *
call_new(Router *router, HttpRequest *request, const HttpMatch *match)
{
	AdminCall *call = g_new0(AdminCall, 1);
	call->router = router;
	call->request = request;
	call->route = (AdminRoute)match->id;
	call->home = http_worker(request);
	if (match->n_parts > 0)
		call->id = g_strndup(match->parts[0].text, match->parts[0].len);
	return call;
}

static void
call_free(AdminCall *call)
{
	g_free(call->id);
	g_free(call->text);
	g_free(call);
}

/* Each of these ends the call. */
static void
answer_text(AdminCall *call, int status, const char *text)
{
	g_autofree char *line = g_strdup_printf("%s\n", text);
	http_respond_text(call->request, status, line);
	call_free(call);
}

static void
answer_json(AdminCall *call, json_t *json)
{
	http_respond_json(call->request, 200, NULL, 0, json_print(json));
	json_decref(json);
	call_free(call);
}

static void
answer_error(AdminCall *call, const GError *error)
{
	if (g_error_matches(error, K_ERROR, K_ERROR_NOT_FOUND)) {
		answer_text(call, 404, "no such transaction");
	} else if (g_error_matches(error, K_ERROR, K_ERROR_CONFLICT)) {
		answer_text(call, 409, error->message);
	} else {
		log_error(NULL, "admin.store_failed", LOG_S("error", error->message));
		answer_text(call, 503, "the store does not answer");
	}
}

/* ---- reading ---- */

static void
on_listed(void *arg, const StoreResult *result)
{
	AdminCall *call = arg;
	if (result->error != NULL) {
		answer_error(call, result->error);
		return;
	}
	json_t *rows = json_array();
	const char *last = NULL;
	unsigned count = result->rows != NULL ? result->rows->len : 0;
	for (unsigned i = 0; i < count; i++) {
		const StoreRow *row = g_ptr_array_index(result->rows, i);
		json_array_append_new(rows, admin_row(row, false));
		last = row->id;
	}
	json_t *json = json_object();
	json_object_set_new(json, "transactions", rows);
	json_object_set_new(json, "after", count == call->limit ? json_string(last) : json_null());
	answer_json(call, json);
}

static void
on_shown(void *arg, const StoreResult *result)
{
	AdminCall *call = arg;
	if (result->error != NULL)
		answer_error(call, result->error);
	else
		answer_json(call, admin_row(g_ptr_array_index(result->rows, 0), true));
}

/* The row of a transaction that this process has not worked on lately. */
static void
on_why(void *arg, const StoreResult *result)
{
	AdminCall *call = arg;
	if (result->error != NULL && !g_error_matches(result->error, K_ERROR, K_ERROR_NOT_FOUND)) {
		answer_error(call, result->error);
		return;
	}
	json_t *why = result->error == NULL ? row_why(g_ptr_array_index(result->rows, 0)) : NULL;
	if (why != NULL)
		answer_json(call, why);
	else
		answer_text(call, 404, "nothing is kept of that transaction");
}

static void
show_why(AdminCall *call)
{
	char *text = why_book_get(call->router->why, call->id);
	if (text == NULL) {
		store_load(call->router->store, call->id, false, on_why, call);
		return;
	}
	http_respond_json(call->request, 200, NULL, 0, text);
	call_free(call);
}

static json_t *
destination_json(Router *router, const StoreCount *count, int64_t now)
{
	json_t *json = admin_count(count, now);
	unsigned active = 0;
	for (int kind = 0; kind < DESTINATION_KINDS; kind++)
		active += destinations_count(router->destinations, count->destination,
					     (DestinationKind)kind);
	json_object_set_new(json, "active", json_integer(active));
	return json;
}

static void
on_counted(void *arg, const GError *error, GPtrArray *counts)
{
	AdminCall *call = arg;
	if (error != NULL) {
		answer_error(call, error);
		return;
	}
	static const StoreCount nothing = {0};
	int64_t now = clock_wall_sec();
	json_t *json = admin_count(counts->len > 0 ? g_ptr_array_index(counts, 0) : &nothing, now);
	json_object_set_new(json, "active", json_integer(router_active(call->router)));
	json_t *destinations = json_array();
	for (guint i = 1; i < counts->len; i++)
		json_array_append_new(
			destinations,
			destination_json(call->router, g_ptr_array_index(counts, i), now));
	json_object_set_new(json, "destinations", destinations);
	answer_json(call, json);
}

/* ---- acting ---- */

static void
answer_done(AdminCall *call, const char *action)
{
	answer_json(call, json_pack("{s:s, s:s}", "id", call->id, "done", action));
}

static void
on_acted(void *arg, const StoreResult *result)
{
	static const char *const names[] = {
		[ADMIN_RETRY] = "retry", [ADMIN_HOLD] = "hold", [ADMIN_RELEASE] = "release"};
	AdminCall *call = arg;
	if (result->error != NULL) {
		answer_error(call, result->error);
		return;
	}
	log_info(&((LogCtx){.tx = call->id}), "queue.operator",
		 LOG_S("action", names[call->route]));
	answer_done(call, names[call->route]);
}

/* Home again. */
static void
cancel_home(void *arg)
{
	AdminCall *call = arg;
	if (call->status != 200) {
		answer_text(call, call->status, call->text != NULL ? call->text : "failed");
		return;
	}
	log_info(&((LogCtx){.tx = call->id}), "queue.operator", LOG_S("action", "cancel"));
	answer_done(call, "cancel");
}

static void
cancel_end(AdminCall *call, int status, const char *text)
{
	call->status = status;
	call->text = g_strdup(text);
	worker_post(call->home, cancel_home, call);
}

static void
on_cancelled(void *arg, const RestVerdict *verdict)
{
	AdminCall *call = arg;
	if (verdict->status != 308) {
		cancel_end(call, verdict->status, verdict->text);
		return;
	}
	g_autofree char *text = g_strdup_printf("another process works on it: %s",
						verdict->location);
	cancel_end(call, 409, text);
}

static void
cancel_now(AdminCall *call)
{
	RestHost *host = &call->router->host;
	Tx *tx = rest_table_find(rest_table(host, call->owner), call->id);
	host->cancel(host, call->owner, call->id, tx, on_cancelled, call);
}

static void
on_known(void *arg, const StoreResult *result)
{
	AdminCall *call = arg;
	const StoreRow *row = result->error == NULL ? g_ptr_array_index(result->rows, 0) : NULL;
	if (g_error_matches(result->error, K_ERROR, K_ERROR_NOT_FOUND))
		cancel_end(call, 404, "no such transaction");
	else if (row == NULL)
		cancel_end(call, 503, "the store does not answer");
	else if (row->final_reason != NULL)
		cancel_end(call, 409, "it is final already");
	else
		cancel_now(call);
}

static void
cancel_on_owner(void *arg)
{
	AdminCall *call = arg;
	const Tx *tx = rest_table_find(rest_table(&call->router->host, call->owner), call->id);
	if (tx == NULL)
		store_load(call->router->store, call->id, false, on_known, call);
	else if (tx->final_attempt_reason != NULL)
		cancel_end(call, 409, "it is final already");
	else
		cancel_now(call);
}

static void
cancel(AdminCall *call)
{
	Workers *workers = call->router->workers;
	call->owner = workers_get(workers, ids_tx_worker(call->id, workers_count(workers)));
	worker_post(call->owner, cancel_on_owner, call);
}

/* ---- requests ---- */

static void
answer_ready(const Admin *admin, HttpRequest *request)
{
	if (atomic_load(admin->draining))
		http_respond_text(request, 503, "shutting down\n");
	else if (admin->router != NULL && !store_is_leaseholder(admin->router->store))
		http_respond_text(request, 503, "the store does not answer\n");
	else
		http_respond_text(request, 200, "ready\n");
}

static void
run(AdminCall *call, const AdminFilter *filter)
{
	Store *store = call->router->store;
	call->limit = filter->filter.limit;
	switch (call->route) {
	case ADMIN_LIST:
		store_list(store, &filter->filter, on_listed, call);
		break;
	case ADMIN_SHOW:
		store_load(store, call->id, false, on_shown, call);
		break;
	case ADMIN_WHY:
		show_why(call);
		break;
	case ADMIN_RETRY:
		store_act(store, call->id, STORE_RETRY_NOW, NULL, on_acted, call);
		break;
	case ADMIN_HOLD:
		store_act(store, call->id, STORE_HOLD,
			  filter->reason != NULL ? filter->reason : HOLD_REASON, on_acted, call);
		break;
	case ADMIN_RELEASE:
		store_act(store, call->id, STORE_RELEASE, NULL, on_acted, call);
		break;
	case ADMIN_CANCEL:
		cancel(call);
		break;
	case ADMIN_QUEUE:
		store_count(store, call->limit, on_counted, call);
		break;
	case ADMIN_HEALTH:
	case ADMIN_READY:
		k_unreachable();
	}
}

static void
handle(const Admin *admin, HttpRequest *request, const HttpMatch *match)
{
	g_autoptr(GError) error = NULL;
	g_auto(AdminFilter) filter = {0};
	AdminCall *call = call_new(admin->router, request, match);
	if (http_header(request, "origin") != NULL)
		answer_text(call, 403, "not for web pages");
	else if (call->id != NULL && !ids_tx_is_valid(call->id))
		answer_text(call, 404, "no such transaction");
	else if (!admin_filter_parse(http_query(request), clock_wall_sec(), &filter, &error))
		answer_text(call, 400, error->message);
	else
		run(call, &filter);
}

static void
answer_probe(const Admin *admin, HttpRequest *request, AdminRoute route)
{
	if (route == ADMIN_HEALTH)
		http_respond_text(request, 200, "ok\n");
	else
		answer_ready(admin, request);
}

bool
admin_handle_probe(const Admin *admin, HttpRequest *request)
{
	HttpMatch match;
	if (http_path(request)[1] != 'h' && http_path(request)[1] != 'r')
		return false; /* most are none */
	if (http_route_find(ROUTES, G_N_ELEMENTS(ROUTES), http_method(request), http_path(request),
			    &match) != HTTP_ROUTE_FOUND ||
	    (match.id != ADMIN_HEALTH && match.id != ADMIN_READY))
		return false;
	answer_probe(admin, request, (AdminRoute)match.id);
	return true;
}

bool
admin_handle(const Admin *admin, HttpRequest *request, bool may)
{
	HttpMatch match;
	HttpRouteResult found = http_route_find(ROUTES, G_N_ELEMENTS(ROUTES), http_method(request),
						http_path(request), &match);
	const bool probe = found == HTTP_ROUTE_FOUND &&
			   (match.id == ADMIN_HEALTH || match.id == ADMIN_READY);
	if (found == HTTP_ROUTE_NO_PATH || (!probe && !may) || (!probe && admin->router == NULL))
		return false;
	if (found == HTTP_ROUTE_NO_METHOD) {
		const HttpHeader allow = {"allow", match.allow};
		http_respond_json(request, 405, &allow, 1,
				  g_strdup("{\"detail\":\"Method Not Allowed\"}"));
	} else if (probe) {
		answer_probe(admin, request, (AdminRoute)match.id);
	} else {
		handle(admin, request, &match);
	}
	return true;
}
