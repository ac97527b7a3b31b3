/* SPDX-License-Identifier: Apache-2.0 */
#include "service/row.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "tx/codec.h"

static char *
print_and_free(json_t *json)
{
	if (json == NULL)
		return NULL;
	char *text = json_print(json);
	json_decref(json);
	return text;
}

static void
row_add_body(StoreRow *row, const TxBody *body)
{
	if (body == NULL)
		return;
	if (body->builder != NULL)
		row->builder = json_print(body->builder);
	if (body->raw != NULL)
		store_row_add_blob(row, NULL, body->raw);
	for (guint i = 0; i < body->parts->len; i++) {
		const TxPart *part = g_ptr_array_index(body->parts, i);
		store_row_add_blob(row, part->id, part->blob);
	}
}

StoreRow *
row_update_from_tx(const Tx *tx, const json_t *former, const char *why)
{
	StoreRow *row = store_row_new();
	row->id = g_strdup(tx->id);
	json_t *responses = tx_to_json(tx, TX_JSON_ATTEMPT, NULL, NULL);
	if (responses == NULL && (former != NULL || why != NULL))
		responses = json_object();
	if (former != NULL)
		json_object_set(responses, ROW_FORMER_KEY, (json_t *)(uintptr_t)former);
	if (why != NULL)
		json_object_set_new(responses, ROW_WHY_KEY, json_loads(why, 0, NULL));
	row->responses = print_and_free(responses);
	row->attempts = tx->attempt_count;
	row->version = tx->version;
	row->final_reason = g_strdup(tx->final_attempt_reason);
	return row;
}

StoreRow *
row_from_tx(const Tx *tx, const char *why)
{
	StoreRow *row = row_update_from_tx(tx, NULL, why);
	row->sender = g_strdup(tx->sender_name);
	row->tag = g_strdup(tx->sender_tag);
	row->json = print_and_free(tx_to_json(tx, TX_JSON_STORE, NULL, NULL));
	row->mail_from = g_strdup(tx->mail_from != NULL ? tx->mail_from->addr : "");
	if (tx_rcpt_count(tx) > 0)
		row->rcpt = g_strdup(tx_rcpt(tx, 0)->to->addr);
	row->destination = row_destination(tx);
	row->idem_key = g_strdup(tx->idem_key);
	row->idem_hash = g_strdup(tx->idem_hash);
	row->idem_until = tx->idem_until;
	row_add_body(row, tx->body);
	return row;
}

char *
row_destination(const Tx *tx)
{
	char *domain = tx_rcpt_count(tx) > 0 ? address_domain(tx_rcpt(tx, 0)->to->addr) : NULL;
	return domain != NULL ? domain : g_strdup("");
}

static json_t *
parse(const char *what, const char *text, GError **ret_error)
{
	return json_parse(what, text, strlen(text), ret_error);
}

static bool
answer_failed(const json_t *answer)
{
	return json_is_object(answer) &&
	       json_integer_value(json_object_get(answer, "code")) / 100 != 2;
}

/* The answer that decided an attempt: a failed MAIL, else a failed recipient, else that to the
 * message. */
static const json_t *
deciding_answer(const json_t *responses)
{
	const json_t *mail = json_object_get(responses, "mail_response");
	const json_t *rcpt = json_array_get(json_object_get(responses, "rcpt_response"), 0);
	if (answer_failed(mail))
		return mail;
	return answer_failed(rcpt) ? rcpt : json_object_get(responses, "data_response");
}

static json_t *
attempt_entry(const StoreRow *row, const json_t *responses)
{
	const json_t *answer = deciding_answer(responses);
	const char *message = json_get_str(answer, "message");
	g_autofree char *cut = g_strndup(message != NULL ? message : "", ROW_FORMER_TEXT_MAX);
	const char *end = cut;
	(void)g_utf8_validate(cut, -1, &end); /* not in the middle of a character */
	return json_pack("{s:i, s:I, s:I, s:s%}", "attempt", row->attempts, "ended",
			 (json_int_t)row->last_update, "code",
			 json_integer_value(json_object_get(answer, "code")), "message", cut,
			 (size_t)(end - cut));
}

json_t *
row_former(const StoreRow *row)
{
	if (row->attempts == 0 || row->responses == NULL)
		return NULL;
	g_autoptr(json_t)
		responses = json_parse("responses", row->responses, strlen(row->responses), NULL);
	if (!json_is_object(responses))
		return NULL;
	const json_t *before = json_object_get(responses, ROW_FORMER_KEY);
	json_t *former = json_array();
	size_t count = json_array_size(before);
	size_t first = count >= ROW_FORMER_MAX ? count - (ROW_FORMER_MAX - 1) : 0;
	for (size_t i = first; i < count; i++)
		json_array_append(former, json_array_get(before, i));
	json_array_append_new(former, attempt_entry(row, responses));
	return former;
}

json_t *
row_why(const StoreRow *row)
{
	if (row->responses == NULL)
		return NULL;
	g_autoptr(json_t)
		responses = json_parse("responses", row->responses, strlen(row->responses), NULL);
	return json_incref(json_object_get(responses, ROW_WHY_KEY));
}

/* A row read without contents names its blobs only. */
static Blob *
row_blob(const StoreBlob *stored)
{
	return stored->blob != NULL ? blob_ref(stored->blob) : blob_new_bytes("", 0);
}

static bool
row_body(const StoreRow *row, Tx *tx, GError **ret_error)
{
	g_autoptr(Blob) raw = NULL;
	for (guint i = 0; i < row->blobs->len; i++) {
		const StoreBlob *stored = g_ptr_array_index(row->blobs, i);
		if (stored->name == NULL && raw == NULL)
			raw = row_blob(stored);
	}
	g_autoptr(TxBody) body = NULL;
	if (row->builder != NULL) {
		g_autoptr(json_t) builder = parse("message_builder", row->builder, ret_error);
		if (builder == NULL)
			return false;
		if (!json_is_object(builder))
			return error_set(ret_error, K_ERROR_STORE,
					 "row %s: its message_builder is no object", row->id);
		body = tx_body_new_builder(builder, raw);
		for (guint i = 0; i < row->blobs->len; i++) {
			const StoreBlob *stored = g_ptr_array_index(row->blobs, i);
			if (stored->name == NULL || tx_body_part(body, stored->name) != NULL)
				continue;
			g_autoptr(Blob) blob = row_blob(stored);
			tx_body_add_part(body, stored->name, blob);
		}
	} else if (raw != NULL) {
		body = tx_body_new_raw(raw);
	}
	if (body != NULL)
		tx_set_body(tx, body);
	return true;
}

bool
row_to_tx(const StoreRow *row, Tx *tx, GError **ret_error)
{
	if (row->json == NULL)
		return error_set(ret_error, K_ERROR_STORE, "row %s has no requests", row->id);
	g_autoptr(json_t) json = parse("json", row->json, ret_error);
	if (json == NULL)
		return false;
	TxRequest request = {0};
	bool ok = tx_from_json(tx, json, TX_JSON_STORE, &request, ret_error);
	tx_request_clear(&request);
	if (!ok || !row_body(row, tx, ret_error))
		return false;
	tx_set_sender(tx, row->sender, row->tag);
	tx_set_attempt_count(tx, row->attempts);
	if (row->responses != NULL) {
		g_autoptr(json_t) responses = parse("responses", row->responses, ret_error);
		if (json_is_object(responses))
			(void)json_object_del(responses, ROW_FORMER_KEY);
		if (json_is_object(responses))
			(void)json_object_del(responses, ROW_WHY_KEY);
		if (responses == NULL || !tx_attempt_from_json(tx, responses, ret_error))
			return false;
	}
	if (row->final_reason != NULL && !g_str_equal(row->final_reason, ROW_ONESHOT))
		tx_finish(tx, row->final_reason);
	tx_set_id(tx, row->id);
	tx_set_version(tx, row->version);
	return true;
}
