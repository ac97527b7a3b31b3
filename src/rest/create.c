/* SPDX-License-Identifier: Apache-2.0 */
/* POST /senders/{sender}/transactions (behaviour spec 4.3).  The worker whose connection brought
 * the request becomes the owner. */
#include <string.h>

#include "base/clock.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/metrics.h"
#include "base/text.h"
#include "http/route.h"
#include "rest/api_int.h"

#define HOST_NAME_LEN_MAX 255 /* octets (RFC 1035 2.3.4) */

static void find_again(RestCall *call);

static void
on_created(void *arg, const RestVerdict *verdict)
{
	RestCall *call = arg;
	if (verdict->status == 409 && call->idem_key != NULL) {
		g_clear_pointer(&call->tx, tx_unref);
		find_again(call);
		return;
	}
	if (verdict->status != 200 && verdict->status != 201) {
		rest_answer_verdict(call, verdict, NULL);
		return;
	}
	g_autofree char *path = g_strconcat("/transactions/", call->tx->id, NULL);
	call->location = http_join(rest_call_host(call)->uris.session_uri, path);
	rest_answer_tx(call, 201, call->tx);
}

/* ---- the same request again (Idempotency-Key) ---- */

static void
answer_again(RestCall *call, const Tx *tx)
{
	g_autofree char *path = g_strconcat("/transactions/", tx->id, NULL);
	metric_add(METRIC_REST_REPEATED, 1);
	call->location = http_join(rest_call_host(call)->uris.session_uri, path);
	rest_answer_tx(call, 201, tx);
}

static void
on_loaded_again(void *arg, const RestVerdict *verdict, Tx *tx)
{
	RestCall *call = arg;
	if (verdict->status == 200)
		answer_again(call, tx);
	else if (verdict->status == 404)
		rest_answer_text(call, 410,
				 "the transaction of this idempotency key is not kept any more");
	else
		rest_answer_verdict(call, verdict, NULL);
}

static void
again_on_owner(void *arg)
{
	RestCall *call = arg;
	RestHost *host = rest_call_host(call);
	const Tx *tx = rest_table_find(rest_call_table(call), call->id);
	if (tx != NULL)
		answer_again(call, tx);
	else
		host->load(host, call->owner, call->id, on_loaded_again, call);
}

static void
on_key_found(void *arg, const RestVerdict *verdict, const char *id, const char *hash)
{
	RestCall *call = arg;
	Workers *workers = call->api->workers;
	if (verdict->status == 404) {
		rest_answer_text(call, 409, "the idempotency key was in use, try again");
	} else if (verdict->status != 200) {
		rest_answer_verdict(call, verdict, NULL);
	} else if (strcmp(hash, call->idem_hash) != 0) {
		rest_answer_text(call, 409, "the idempotency key was used for another request");
	} else {
		call->id = g_strdup(id);
		call->owner = workers_get(workers, ids_tx_worker(id, workers_count(workers)));
		rest_call_to_owner(call, again_on_owner);
	}
}

/* The key is in use: what is made with it is the answer, if it is the same request. */
static void
find_again(RestCall *call)
{
	RestHost *host = rest_call_host(call);
	host->find_key(host, call->owner, call->idem_key, on_key_found, call);
}

/* Keys of different senders, and of different clients, have nothing to do with each other. */
static void
hash_key(RestCall *call, const char *text, size_t len)
{
	if (call->idem == NULL)
		return;
	const char *who = call->who != NULL ? call->who->name : "";
	g_autofree char *scope = g_strdup_printf("%s\n%s\n%s", who, call->sender, call->idem);
	call->idem_key = g_compute_checksum_for_string(G_CHECKSUM_SHA256, scope, -1);
	call->idem_hash = g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)text, len);
}

/* 1 to 255 visible ASCII characters. */
static bool
key_is_sound(const char *key)
{
	size_t len = strlen(key);
	return len > 0 && len <= REST_IDEM_KEY_MAX && text_is_printable_ascii(key, len);
}

/* ---- creation ---- */

static void
hand_over(RestCall *call)
{
	RestHost *host = rest_call_host(call);
	if (call->idem_key != NULL)
		tx_set_idem(call->tx, call->idem_key, call->idem_hash,
			    clock_wall_sec() + host->key_ttl / USEC_PER_SEC);
	host->create(host, call->owner, call->tx, on_created, call);
}

static void
on_resolved(void *arg, const RestVerdict *verdict, TxBody *body)
{
	RestCall *call = arg;
	if (verdict->status != 200) {
		rest_answer_verdict(call, verdict, NULL);
		return;
	}
	tx_set_body(call->tx, body);
	hand_over(call);
}

/* True when the sender object names more than we let clients say. */
static bool
sender_has_more(const json_t *sender)
{
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)(uintptr_t)sender, key, value)
	{
		if (strcmp(key, "name") != 0 && strcmp(key, "tag") != 0)
			return true;
	}
	return false;
}

static void
set_body(RestCall *call, bool incremental, TxRequest *request)
{
	RestHost *host = rest_call_host(call);
	if (request->form == TX_BODY_NONE) {
		if (!incremental) {
			g_autoptr(Blob) blob = blob_new(&host->blobs);
			g_autoptr(TxBody) body = tx_body_new_raw(blob);
			tx_set_body(call->tx, body);
		}
		hand_over(call);
	} else if (!host->accepts_body_json) {
		rest_answer_text(call, 400, "the body must be uploaded with PUT");
	} else {
		rest_body_resolve(call, request, on_resolved, call);
	}
}

/* What is no host name is as good as none. */
static void
set_host_name(const RestCall *call)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
	const char *name = call->host_name;
	HostPort **host = &call->tx->remote_host;
	size_t len = name != NULL ? strspn(name, allowed) : 0;
	if (*host == NULL || len == 0 || len > HOST_NAME_LEN_MAX || name[len] != '\0')
		return;
	HostPort *named = host_port_new_named((*host)->host, (*host)->port, name);
	host_port_free(*host);
	*host = named;
}

/* `tag` is borrowed from `json`, and may be NULL. */
static void
create_tx(RestCall *call, json_t *json, const char *tag, bool incremental)
{
	const RestHost *host = rest_call_host(call);
	TxRequest request = {0};
	json_t *sender = json_object_get(json, "sender");
	bool more = json_is_object(sender) && sender_has_more(sender);
	g_autofree char *tag_copy = g_strdup(tag);
	call->tx = tx_new(worker_defers(call->owner));
	tx_set_sender(call->tx, call->sender, tag_copy);
	if (more) /* is reported after the other faults */
		(void)json_object_del(json, "sender");
	if (!tx_from_json(call->tx, json, TX_JSON_CREATE, &request, NULL)) {
		rest_answer_text(call, 400, "invalid tx json");
	} else if (more) {
		rest_answer_text(call, 400, "tx json sender may only contain name,tag");
	} else if (!incremental && (call->tx->mail_from == NULL || tx_rcpt_count(call->tx) != 1)) {
		rest_answer_text(call, 400,
				 "transaction creation to non-incremental endpoint must contain "
				 "mail_from and exactly 1 rcpt_to");
	} else {
		set_host_name(call);
		call->tx->id = ids_tx_new(worker_index(call->owner), host->entropy);
		set_body(call, incremental, &request);
	}
	tx_request_clear(&request);
}

static void
create(RestCall *call, const char *text, size_t len)
{
	RestHost *host = rest_call_host(call);
	g_autoptr(GError) error = NULL;
	hash_key(call, text, len);
	g_autoptr(json_t) json = json_parse("request", text, len, &error);
	if (json == NULL || !json_is_object(json)) {
		rest_answer_text(call, 400, json == NULL ? error->message : "no JSON object");
		return;
	}
	const json_t *tag = json_object_get(json_object_get(json, "sender"), "tag");
	bool incremental = false;
	RestVerdict verdict = host->admit(host, call->sender, json_string_value(tag), &incremental);
	if (verdict.status != 0)
		rest_answer_verdict(call, &verdict, NULL);
	else
		create_tx(call, json, json_string_value(tag), incremental);
}

static void
on_body(void *arg, HttpRequest *request, HttpBodyEvent event, const char *data, size_t len)
{
	(void)request;
	RestCall *call = arg;
	if (event == HTTP_BODY_END)
		create(call, data, len);
	else if (event == HTTP_BODY_TOO_BIG)
		rest_answer_text(call, 413, "request too large");
	else
		rest_answer_text(call, 400, NULL);
}

void
rest_create(RestApi *api, HttpRequest *request, const RestPrincipal *who, const char *sender)
{
	if (!rest_principal_may(who, sender)) { /* whether or not there is one of that name */
		http_respond_text(request, 403, "not permitted to send as this sender");
		return;
	}
	const char *key = http_header(request, "idempotency-key");
	if (key != NULL && api->host->find_key == NULL) {
		http_respond_text(request, 400, "idempotency keys are not kept here");
		return;
	}
	if (key != NULL && !key_is_sound(key)) {
		http_respond_text(request, 400, "bad idempotency-key");
		return;
	}
	RestCall *call = rest_call_new(api, request, REST_CREATE);
	call->idem = g_strdup(key);
	call->who = who;
	call->sender = g_strdup(sender);
	call->host_name = g_strdup(http_header(request, REST_HOST_NAME_HEADER));
	http_read_body(request, rest_json_max(api->host), on_body, call);
}
