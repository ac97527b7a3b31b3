/* SPDX-License-Identifier: Apache-2.0 */
#include "rest/api.h"

#include <string.h>

#include "base/ids.h"
#include "base/json.h"
#include "http/route.h"
#include "rest/api_int.h"
#include "rest/handover.h"

static const HttpRoute ROUTES[] = {
	{"POST", "/senders/*/transactions", REST_CREATE},
	{"GET", "/transactions/*", REST_READ},
	{"PATCH", "/transactions/*", REST_UPDATE},
	{"PUT", "/transactions/*/body", REST_PUT_BODY},
	{"PUT", "/transactions/*/blob/**", REST_PUT_BLOB},
	{"POST", "/transactions/*/cancel", REST_CANCEL},
};

/* ---- the tables ---- */

RestTable *
rest_table(RestHost *host, Worker *worker)
{
	k_assert(host->api != NULL);
	return &host->api->tables[worker_index(worker)];
}

static void
entry_free(void *data)
{
	RestEntry *entry = data;
	rest_wait_end_all(entry);
	tx_unref(entry->tx);
	g_free(entry);
}

void
rest_table_add(RestTable *table, Tx *tx)
{
	k_assert_on(table->worker);
	k_assert(tx->id != NULL);
	k_assert_for(!g_hash_table_contains(table->entries, tx->id), tx->id);
	RestEntry *entry = g_new0(RestEntry, 1);
	entry->tx = tx_ref(tx);
	g_hash_table_insert(table->entries, tx->id, entry);
}

void
rest_table_remove(RestTable *table, Tx *tx)
{
	k_assert_on(table->worker);
	RestEntry *entry = rest_table_entry(table, tx->id);
	if (entry != NULL && entry->tx == tx)
		g_hash_table_remove(table->entries, tx->id);
}

RestEntry *
rest_table_entry(RestTable *table, const char *id)
{
	k_assert_on(table->worker);
	return g_hash_table_lookup(table->entries, id);
}

Tx *
rest_table_find(RestTable *table, const char *id)
{
	RestEntry *entry = rest_table_entry(table, id);
	return entry != NULL ? entry->tx : NULL;
}

unsigned
rest_table_count(const RestTable *table)
{
	return g_hash_table_size(table->entries);
}

/* ---- calls ---- */

RestCall *
rest_call_new(RestApi *api, HttpRequest *request, RestRoute route)
{
	RestCall *call = g_new0(RestCall, 1);
	atomic_init(&call->refs, 1);
	call->api = api;
	call->request = request;
	call->home = http_worker(request);
	call->owner = call->home;
	call->route = route;
	return call;
}

void
rest_call_unref(RestCall *call)
{
	if (atomic_fetch_sub(&call->refs, 1) > 1)
		return;
	k_assert(call->tx == NULL && !call->waiting);
	g_free(call->id);
	g_free(call->blob);
	g_free(call->sender);
	g_free(call->idem);
	g_free(call->idem_key);
	g_free(call->idem_hash);
	g_free(call->if_match);
	g_free(call->if_none_match);
	g_free(call->request_timeout);
	g_free(call->content_type);
	g_free(call->body);
	g_free(call->etag);
	g_free(call->host_name);
	g_free(call->location);
	g_free(call->content_range);
	g_free(call->text);
	g_free(call->content_range_in);
	g_free(call->finalize_in);
	if (call->piece != NULL)
		g_string_free(call->piece, TRUE);
	g_free(call);
}

RestHost *
rest_call_host(const RestCall *call)
{
	return call->api->host;
}

RestTable *
rest_call_table(const RestCall *call)
{
	return &call->api->tables[worker_index(call->owner)];
}

void
rest_call_to_owner(RestCall *call, WorkerFn *fn)
{
	if (call->owner == call->home)
		fn(call);
	else
		worker_post(call->owner, fn, call);
}

/* ---- answers ---- */

static void
send_answer(void *arg)
{
	RestCall *call = arg;
	HttpHeader headers[5];
	size_t n = 0;
	if (call->etag != NULL)
		headers[n++] = (HttpHeader){"etag", call->etag};
	if (call->location != NULL)
		headers[n++] = (HttpHeader){"location", call->location};
	if (call->content_range != NULL)
		headers[n++] = (HttpHeader){"content-range", call->content_range};
	if (call->handover != NULL)
		headers[n++] = (HttpHeader){REST_HANDOVER_HEADER, call->handover};
	if (call->host_refused)
		headers[n++] = (HttpHeader){REST_REFUSED_HEADER, "yes"};
	const char *type = call->text == NULL ? NULL
			   : call->is_json    ? "application/json"
					      : "text/plain; charset=utf-8";
	size_t len = call->text != NULL ? strlen(call->text) : 0;
	http_respond(g_steal_pointer(&call->request), call->status, headers, n, type,
		     g_steal_pointer(&call->text), len);
	rest_call_unref(call);
}

/* Whatever belongs to the owner is given back there, before the call goes home. */
static void
call_answer(RestCall *call, int status)
{
	k_assert(!call->answered);
	call->answered = true;
	call->status = status;
	g_clear_pointer(&call->tx, tx_unref);
	g_clear_pointer(&call->target, blob_unref);
	if (worker_is_here(call->home))
		send_answer(call);
	else
		worker_post(call->home, send_answer, call);
}

void
rest_answer_text(RestCall *call, int status, const char *text)
{
	if (text != NULL && *text != '\0')
		call->text = g_strdup(text);
	call_answer(call, status);
}

void
rest_answer_json(RestCall *call, int status, char *json)
{
	call->text = json;
	call->is_json = true;
	call_answer(call, status);
}

void
rest_answer_etag(RestCall *call, int status, const char *etag)
{
	call->etag = g_strdup(etag);
	call_answer(call, status);
}

void
rest_answer_tx(RestCall *call, int status, const Tx *tx)
{
	const RestHost *host = call->api->host;
	g_autoptr(json_t) json = tx_to_json(tx, TX_JSON_READ, NULL, &host->uris);
	call->etag = g_strdup_printf("%" G_GUINT64_FORMAT, tx->version);
	if (!tx->notifies)
		call->handover = rest_handover_name(tx->handover);
	call->host_refused = tx->host_refused && !tx->notifies;
	rest_answer_json(call, status, json_print(json));
}

void
rest_answer_verdict(RestCall *call, const RestVerdict *verdict, const char *not_found)
{
	if (verdict->status == 308 && verdict->location != NULL) {
		g_autofree char *path = NULL;
		static const char *const TAILS[] = {[REST_CANCEL] = "/cancel",
						    [REST_PUT_BODY] = "/body",
						    [REST_PUT_BLOB] = "/blob/"};
		const char *tail = call->route >= REST_CANCEL ? TAILS[call->route] : "";
		if (call->route == REST_CREATE) {
			g_autofree char *own = g_uri_escape_string(call->sender, NULL, FALSE);
			path = g_strconcat("/senders/", own, "/transactions", NULL);
		}
		g_autofree char *blob = call->blob != NULL
						? g_uri_escape_string(call->blob, "/", FALSE)
						: NULL;
		if (path == NULL)
			path = g_strconcat("/transactions/", call->id, tail, blob, NULL);
		call->location = http_join(verdict->location, path);
	}
	const char *text = verdict->text;
	if (verdict->status == 404 && not_found != NULL)
		text = not_found;
	rest_answer_text(call, verdict->status, text);
}

/* ---- requests ---- */

static void
answer_detail(HttpRequest *request, int status, const char *detail, const char *allow)
{
	const HttpHeader header = {"allow", allow};
	g_autofree char *json = g_strdup_printf("{\"detail\":\"%s\"}", detail);
	http_respond_json(request, status, &header, allow != NULL ? 1 : 0, g_steal_pointer(&json));
}

static const char *
not_found_text(RestRoute route)
{
	switch (route) {
	case REST_READ:
		return "unknown tx";
	case REST_PUT_BODY:
	case REST_PUT_BLOB:
		return "unknown transaction";
	default:
		return "transaction not found";
	}
}

bool
rest_call_may(RestCall *call, const Tx *tx)
{
	if (rest_principal_may(call->who, tx->sender_name))
		return true;
	rest_answer_text(call, 404, not_found_text(call->route));
	return false;
}

bool
rest_call_may_see(RestCall *call, const RestVerdict *verdict, const Tx *tx)
{
	if (tx != NULL)
		return rest_call_may(call, tx);
	if (verdict->status != 308 || rest_principal_may(call->who, verdict->sender))
		return true;
	rest_answer_text(call, 404, not_found_text(call->route));
	return false;
}

static void
on_cancelled(void *arg, const RestVerdict *verdict)
{
	RestCall *call = arg;
	if (verdict->status == 200)
		rest_answer_text(call, 200, NULL);
	else
		rest_answer_verdict(call, verdict, "transaction not found");
}

static void
cancel_stored(void *arg, const RestVerdict *verdict, Tx *tx)
{
	RestCall *call = arg;
	RestHost *host = rest_call_host(call);
	if (verdict->status == 404)
		on_cancelled(call, &(RestVerdict){.status = host->accepts_body_json ? 200 : 404});
	else if (verdict->status != 200 && verdict->status != 308)
		on_cancelled(call, verdict);
	else if (rest_call_may_see(call, verdict, tx))
		host->cancel(host, call->owner, call->id,
			     rest_table_find(rest_call_table(call), call->id), on_cancelled, call);
}

static void
cancel(void *arg)
{
	RestCall *call = arg;
	RestHost *host = rest_call_host(call);
	Tx *tx = rest_table_find(rest_call_table(call), call->id);
	if (tx == NULL && call->who != NULL && !call->who->all_senders)
		host->load(host, call->owner, call->id, cancel_stored, call);
	else if (tx == NULL || rest_call_may(call, tx))
		host->cancel(host, call->owner, call->id, tx, on_cancelled, call);
}

static void
gone_on_owner(void *arg)
{
	RestCall *call = arg;
	if (call->waiting)
		rest_wait_end(call);
	rest_call_unref(call);
}

static void
on_gone(void *arg, HttpRequest *request)
{
	(void)request;
	RestCall *call = arg;
	atomic_fetch_add(&call->refs, 1);
	rest_call_to_owner(call, gone_on_owner);
}

static void
on_body(void *arg, HttpRequest *request, HttpBodyEvent event, const char *data, size_t len)
{
	RestCall *call = arg;
	if (event == HTTP_BODY_GONE) {
		rest_answer_text(call, 400, NULL);
		return;
	}
	if (event == HTTP_BODY_TOO_BIG) {
		rest_answer_text(call, 413, "request too large");
		return;
	}
	call->body = g_strndup(data, len);
	call->body_len = len;
	switch (call->route) {
	case REST_READ:
		http_on_gone(request, on_gone, call);
		rest_call_to_owner(call, rest_read);
		break;
	case REST_UPDATE:
		rest_call_to_owner(call, rest_update);
		break;
	default:
		rest_call_to_owner(call, cancel);
		break;
	}
}

/* The headers are read while the connection is there for sure. */
static void
take_headers(RestCall *call)
{
	const HttpRequest *request = call->request;
	bool put = call->route >= REST_PUT_BODY;
	call->if_match = g_strdup(http_header(request, put ? REST_VERSION_HEADER : "if-match"));
	if (call->route == REST_READ) {
		call->if_none_match = g_strdup(http_header(request, "if-none-match"));
		call->request_timeout = g_strdup(http_header(request, "request-timeout"));
	} else if (call->route == REST_UPDATE) {
		call->content_type = g_strdup(http_header(request, "content-type"));
	} else if (call->route >= REST_PUT_BODY) {
		call->content_range_in = g_strdup(http_header(request, "content-range"));
		call->finalize_in = g_strdup(http_header(request, "x-finalize-blob-length"));
		call->content_length = http_content_length(request);
	}
}

void
rest_api_handle(void *arg, HttpRequest *request)
{
	rest_api_handle_as(arg, request, NULL);
}

void
rest_api_handle_as(RestApi *api, HttpRequest *request, const RestPrincipal *who)
{
	HttpMatch match;
	switch (http_route_find(ROUTES, G_N_ELEMENTS(ROUTES), http_method(request),
				http_path(request), &match)) {
	case HTTP_ROUTE_NO_PATH:
		answer_detail(request, 404, "Not Found", NULL);
		return;
	case HTTP_ROUTE_NO_METHOD:
		answer_detail(request, 405, "Method Not Allowed", match.allow);
		return;
	case HTTP_ROUTE_FOUND:
		break;
	}
	g_autofree char *first = g_strndup(match.parts[0].text, match.parts[0].len);
	if (match.id == REST_CREATE) {
		rest_create(api, request, who, first);
		return;
	}
	if (!ids_tx_is_valid(first)) {
		http_respond_text(request, match.id == REST_CANCEL ? 200 : 404,
				  match.id == REST_CANCEL ? NULL
							  : not_found_text((RestRoute)match.id));
		return;
	}
	RestCall *call = rest_call_new(api, request, (RestRoute)match.id);
	call->who = who;
	call->id = g_steal_pointer(&first);
	call->owner = workers_get(api->workers,
				  ids_tx_worker(call->id, workers_count(api->workers)));
	take_headers(call);
	if (match.n_parts > 1)
		call->blob = g_strndup(match.parts[1].text, match.parts[1].len);
	if (call->route >= REST_PUT_BODY)
		rest_upload(call);
	else
		http_read_body(request,
			       call->route == REST_UPDATE ? rest_json_max(api->host) : 4096,
			       on_body, call);
}

/* ---- life ---- */

RestApi *
rest_api_new(Workers *workers, RestHost *host)
{
	k_assert(host->api == NULL);
	RestApi *api = g_new0(RestApi, 1);
	api->workers = workers;
	api->host = host;
	api->tables = g_new0(RestTable, workers_count(workers));
	for (unsigned i = 0; i < workers_count(workers); i++) {
		RestTable *table = &api->tables[i];
		table->api = api;
		table->worker = workers_get(workers, i);
		table->entries = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, entry_free);
	}
	host->api = api;
	return api;
}

void
rest_api_free(RestApi *api)
{
	if (api == NULL)
		return;
	for (unsigned i = 0; i < workers_count(api->workers); i++)
		g_hash_table_destroy(api->tables[i].entries);
	api->host->api = NULL;
	g_free(api->tables);
	g_free(api);
}

static void
drain_table(void *arg)
{
	RestTable *table = arg;
	GHashTableIter iter;
	gpointer entry;
	g_hash_table_iter_init(&iter, table->entries);
	while (g_hash_table_iter_next(&iter, NULL, &entry))
		rest_wait_end_all(entry);
}

void
rest_api_drain(RestApi *api)
{
	atomic_store(&api->draining, true);
	for (unsigned i = 0; i < workers_count(api->workers); i++)
		worker_post(workers_get(api->workers, i), drain_table, &api->tables[i]);
}
