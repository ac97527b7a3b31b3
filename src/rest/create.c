/* SPDX-License-Identifier: Apache-2.0 */
/* POST /senders/{sender}/transactions (behaviour spec 4.3).  The worker whose connection brought
 * the request becomes the owner. */
#include <string.h>

#include "base/ids.h"
#include "base/json.h"
#include "http/route.h"
#include "rest/api_int.h"

#define HOST_NAME_LEN_MAX 255 /* octets (RFC 1035 2.3.4) */

static void
on_created(void *arg, const RestVerdict *verdict)
{
	RestCall *call = arg;
	if (verdict->status != 200 && verdict->status != 201) {
		rest_answer_verdict(call, verdict, NULL);
		return;
	}
	g_autofree char *path = g_strconcat("/transactions/", call->tx->id, NULL);
	call->location = http_join(rest_call_host(call)->uris.session_uri, path);
	rest_answer_tx(call, 201, call->tx);
}

static void
hand_over(RestCall *call)
{
	RestHost *host = rest_call_host(call);
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
		rest_body_resolve(host, call->owner, request, on_resolved, call);
	}
}

/* What is no host name is as good as none. */
static void
set_host_name(const RestCall *call)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
	const char *name = call->host_name;
	HostPort *host = call->tx->remote_host;
	size_t len = name != NULL ? strspn(name, allowed) : 0;
	if (host != NULL && len > 0 && len <= HOST_NAME_LEN_MAX && name[len] == '\0')
		host->name = g_strdup(name);
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
rest_create(RestApi *api, HttpRequest *request, const char *sender)
{
	RestCall *call = rest_call_new(api, request, REST_CREATE);
	call->sender = g_strdup(sender);
	call->host_name = g_strdup(http_header(request, REST_HOST_NAME_HEADER));
	http_read_body(request, rest_json_max(api->host), on_body, call);
}
