/* SPDX-License-Identifier: Apache-2.0 */
/* PATCH /transactions/{id} (behaviour spec 4.5): more of the envelope, a body as JSON, or a sign
 * of life. */
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "rest/api_int.h"

#define BAD_REQUEST "RestHandler.patch_tx bad request"

static void
answer_updated(RestCall *call)
{
	g_autoptr(Tx) tx = g_steal_pointer(&call->tx);
	rest_answer_tx(call, 200, tx);
}

static void
on_complete(void *arg, const RestVerdict *verdict)
{
	RestCall *call = arg;
	if (verdict->status == 200)
		answer_updated(call);
	else
		rest_answer_verdict(call, verdict, NULL);
}

static void
on_resolved(void *arg, const RestVerdict *verdict, TxBody *body)
{
	RestCall *call = arg;
	RestHost *host = rest_call_host(call);
	if (verdict->status != 200) {
		rest_answer_verdict(call, verdict, NULL);
		return;
	}
	/* Looking it up took a while: the transaction may have ended. */
	if (rest_table_find(rest_call_table(call), call->id) != call->tx ||
	    !host->is_active(host, call->tx)) {
		rest_answer_text(call, 400, BAD_REQUEST);
		return;
	}
	bool added = tx_set_body(call->tx, body);
	if (added && tx_body_ready(call->tx))
		host->complete(host, call->tx, on_complete, call);
	else
		answer_updated(call);
}

/* On the live transaction, all checks passed. */
static void
apply(RestCall *call, Tx *tx, const json_t *json)
{
	RestHost *host = rest_call_host(call);
	call->tx = tx_ref(tx);
	if (json == NULL) {
		tx_heartbeat(tx);
		answer_updated(call);
		return;
	}
	TxRequest request = {0};
	bool wants_body = json_object_get(json, "body") != NULL && tx->body == NULL;
	if (wants_body && !host->accepts_body_json) {
		rest_answer_text(call, 400, BAD_REQUEST);
	} else if (!tx_from_json(tx, json, TX_JSON_UPDATE, &request, NULL)) {
		rest_answer_text(call, 400, "invalid request");
	} else if (wants_body && request.form != TX_BODY_NONE) {
		rest_body_resolve(call, &request, on_resolved, call);
	} else {
		answer_updated(call);
	}
	tx_request_clear(&request);
}

/* The update itself, read without a transaction to hold it against. */
static bool
json_is_sound(const json_t *json)
{
	g_autoptr(Tx) scratch = tx_new(NULL);
	return tx_from_json(scratch, json, TX_JSON_UPDATE, NULL, NULL);
}

/* Not live here: nothing can be added any more. */
static void
on_loaded(void *arg, const RestVerdict *verdict, Tx *tx)
{
	RestCall *call = arg;
	RestHost *host = rest_call_host(call);
	bool is_json = call->body_len > 0;
	if (!rest_call_may_see(call, verdict, tx))
		return;
	if (verdict->status != 200)
		rest_answer_verdict(call, verdict, "transaction not found");
	else if (is_json && !host->is_incremental(host, tx))
		rest_answer_text(call, 400, "endpoint does not accept incremental updates");
	else if (!rest_etag_is(call->if_match, tx->version))
		rest_answer_text(call, 412, "update conflict");
	else if (is_json)
		rest_answer_text(call, 400, BAD_REQUEST);
	else
		rest_answer_tx(call, 200, tx);
}

static void
update_live(RestCall *call, Tx *tx, const json_t *json)
{
	RestHost *host = rest_call_host(call);
	g_autoptr(GError) error = NULL;
	if (!rest_call_may(call, tx))
		return;
	bool fits = json == NULL || tx_update_check(tx, json, &error);
	if (!fits && !g_error_matches(error, K_ERROR, K_ERROR_CONFLICT))
		rest_answer_text(call, 400, "invalid request");
	else if (call->if_match == NULL)
		rest_answer_text(call, 400, "etags required for update");
	else if (json != NULL && !host->is_incremental(host, tx))
		rest_answer_text(call, 400, "endpoint does not accept incremental updates");
	else if (!fits)
		rest_answer_text(call, 400, error->message);
	else if (!rest_etag_is(call->if_match, tx->version))
		rest_answer_text(call, 412, "update conflict");
	else if (json != NULL && !host->is_active(host, tx))
		rest_answer_text(call, 400, BAD_REQUEST);
	else
		apply(call, tx, json);
}

void
rest_update(void *arg)
{
	RestCall *call = arg;
	RestHost *host = rest_call_host(call);
	g_autoptr(json_t) json = NULL;
	bool is_json = text_equal_nocase(call->content_type, "application/json");
	if (is_json) {
		json = json_parse("request", call->body, call->body_len, NULL);
		if (json == NULL) {
			rest_answer_text(call, 400, "invalid request");
			return;
		}
	} else if (call->body_len > 0) {
		rest_answer_text(call, 400, NULL);
		return;
	}
	Tx *tx = rest_table_find(rest_call_table(call), call->id);
	if (tx != NULL)
		update_live(call, tx, json);
	else if (json != NULL && !json_is_sound(json))
		rest_answer_text(call, 400, "invalid request");
	else if (call->if_match == NULL)
		rest_answer_text(call, 400, "etags required for update");
	else
		host->load(host, call->owner, call->id, on_loaded, call);
}
