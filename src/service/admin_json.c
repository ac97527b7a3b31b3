/* SPDX-License-Identifier: Apache-2.0 */
#include "service/admin_json.h"

#include <string.h>

#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/text.h"
#include "http/route.h"
#include "service/row.h"
#include "smtp/client_pool.h"

/* ---- filters ---- */

static bool
set_number(const char *key, const char *text, uint64_t min, uint64_t max, uint64_t *ret_value,
	   GError **ret_error)
{
	uint64_t value = 0;
	if (!text_parse_u64(text, strlen(text), max, &value) || value < min)
		return error_set(ret_error, K_ERROR_INPUT,
				 "%s: a number from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
				 " is wanted",
				 key, min, max);
	*ret_value = value;
	return true;
}

static bool
set_state(const char *text, StoreState *ret_state, GError **ret_error)
{
	static const char *const names[] = {"any", "queued", "leased", "held", "final"};
	_Static_assert(STORE_ANY == 0 && STORE_FINAL + 1 == G_N_ELEMENTS(names),
		       "a name for each state");
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		if (g_str_equal(names[i], text)) {
			*ret_state = (StoreState)i;
			return true;
		}
	}
	return error_set(ret_error, K_ERROR_INPUT,
			 "state: any, queued, leased, held or final is wanted");
}

static bool
set_text(const char *key, char *value, char **member, GError **ret_error)
{
	if (*value == '\0')
		return error_set(ret_error, K_ERROR_INPUT, "%s: empty", key);
	g_free(*member);
	*member = g_strdup(value);
	return true;
}

static bool
set_key(AdminFilter *out, const char *key, char *value, int64_t now, GError **ret_error)
{
	uint64_t number = 0;
	if (g_str_equal(key, "state"))
		return set_state(value, &out->filter.state, ret_error);
	if (g_str_equal(key, "from"))
		return set_text(key, value, &out->mail_from, ret_error);
	if (g_str_equal(key, "to"))
		return set_text(key, value, &out->rcpt, ret_error);
	if (g_str_equal(key, "destination"))
		return set_text(key, value, &out->destination, ret_error);
	if (g_str_equal(key, "reason"))
		return set_text(key, value, &out->reason, ret_error);
	if (g_str_equal(key, "after"))
		return (ids_tx_is_valid(value) ||
			error_set(ret_error, K_ERROR_INPUT, "after: not an id")) &&
		       set_text(key, value, &out->after, ret_error);
	if (g_str_equal(key, "limit")) {
		if (!set_number(key, value, 1, STORE_LIST_MAX, &number, ret_error))
			return false;
		out->filter.limit = (unsigned)number;
		return true;
	}
	if (g_str_equal(key, "older_than")) {
		if (!set_number(key, value, 0, UINT32_MAX, &number, ret_error))
			return false;
		out->filter.older_than = MAX(now - (int64_t)number, 1);
		return true;
	}
	g_autofree char *shown = text_escape(key, strlen(key), 40);
	return error_set(ret_error, K_ERROR_INPUT, "unknown filter '%s'", shown);
}

static bool
read_pairs(AdminFilter *out, const char *query, int64_t now, GError **ret_error)
{
	g_auto(GStrv) pairs = g_strsplit(query, "&", 32);
	for (char **pair = pairs; *pair != NULL; pair++) {
		if (**pair == '\0')
			continue;
		char *equals = strchr(*pair, '=');
		size_t len = equals != NULL ? (size_t)(equals - *pair) : strlen(*pair);
		const char *raw = equals != NULL ? equals + 1 : "";
		g_autofree char *key = NULL;
		g_autofree char *value = NULL;
		if (!http_percent_decode(*pair, len, &key) ||
		    !http_percent_decode(raw, strlen(raw), &value))
			return error_set(ret_error, K_ERROR_INPUT, "broken percent-encoding");
		if (!set_key(out, key, value, now, ret_error))
			return false;
	}
	return true;
}

bool
admin_filter_parse(const char *query, int64_t now, AdminFilter *ret_filter, GError **ret_error)
{
	g_auto(AdminFilter) out = {.filter = {.limit = ADMIN_LIMIT_DEFAULT}};
	if (query != NULL && !read_pairs(&out, query, now, ret_error))
		return false;
	out.filter.mail_from = out.mail_from;
	out.filter.rcpt = out.rcpt;
	out.filter.destination = out.destination;
	out.filter.after = out.after;
	*ret_filter = out;
	out = (AdminFilter){0};
	return true;
}

void
admin_filter_clear(AdminFilter *filter)
{
	g_free(filter->mail_from);
	g_free(filter->rcpt);
	g_free(filter->destination);
	g_free(filter->after);
	g_free(filter->reason);
	*filter = (AdminFilter){0};
}

/* ---- rows ---- */

const char *
admin_state(const StoreRow *row)
{
	if (row->final_reason != NULL)
		return "final";
	return row->leased ? "leased" : row->held ? "held" : "queued";
}

/* Rows are old as the database is: what is no UTF-8 there must not break the answer. */
static json_t *
text_or_null(const char *text)
{
	if (text == NULL)
		return json_null();
	json_t *json = json_string(text);
	if (json != NULL)
		return json;
	g_autofree char *valid = g_utf8_make_valid(text, -1);
	return json_string(valid);
}

static json_t *
time_or_null(int64_t unix_sec)
{
	return unix_sec != 0 ? json_integer(unix_sec) : json_null();
}

/* JSON in a column: as it is, or null when it cannot be read. */
static json_t *
parsed_or_null(const char *text)
{
	json_t *json = text != NULL ? json_parse("row", text, strlen(text), NULL) : NULL;
	return json != NULL ? json : json_null();
}

static json_t *
part_names(const StoreRow *row)
{
	json_t *names = json_array();
	for (guint i = 0; i < row->blobs->len; i++) {
		const StoreBlob *blob = g_ptr_array_index(row->blobs, i);
		if (blob->name != NULL)
			json_array_append_new(names, text_or_null(blob->name));
	}
	return names;
}

/* The code of an answer; 0: there is none. */
static json_int_t
code_of(const json_t *answer)
{
	return json_integer_value(json_object_get(answer, "code"));
}

/* How the newest attempt ended.  "unacknowledged": the end of the message was sent and no answer
 * came, so the next hop may have it; what follows may be a second copy (RFC 1047). */
static const char *
last_attempt(const json_t *responses)
{
	const json_t *mail = json_object_get(responses, "mail_response");
	const json_t *rcpt = json_array_get(json_object_get(responses, "rcpt_response"), 0);
	const json_t *data = json_object_get(responses, "data_response");
	const char *text = json_get_str(data, "message");
	json_int_t code = code_of(mail) >= 300   ? code_of(mail)
			  : code_of(rcpt) >= 300 ? code_of(rcpt)
						 : code_of(data);
	if (code == code_of(data) && code / 100 == 4 && text != NULL &&
	    strstr(text, SMTP_UNACKNOWLEDGED) != NULL)
		return "unacknowledged";
	return code == 0 ? NULL : code < 300 ? "accepted" : code < 500 ? "temporary" : "permanent";
}

json_t *
admin_row(const StoreRow *row, bool detail)
{
	json_t *out = json_object();
	json_object_set_new(out, "id", text_or_null(row->id));
	json_object_set_new(out, "state", json_string(admin_state(row)));
	json_object_set_new(out, "from", text_or_null(row->mail_from));
	json_object_set_new(out, "to", text_or_null(row->rcpt));
	json_object_set_new(out, "destination", text_or_null(row->destination));
	json_object_set_new(out, "sender", text_or_null(row->sender));
	json_object_set_new(out, "tag", text_or_null(row->tag));
	json_object_set_new(out, "created", time_or_null(row->creation));
	json_object_set_new(out, "updated", time_or_null(row->last_update));
	json_object_set_new(out, "next_attempt", time_or_null(row->next_attempt));
	json_object_set_new(out, "attempts", json_integer(row->attempts));
	json_object_set_new(out, "crashes", json_integer(row->crashes));
	json_object_set_new(out, "held_reason", text_or_null(row->held ? row->held_reason : NULL));
	json_object_set_new(out, "final_reason", text_or_null(row->final_reason));
	json_object_set_new(out, "owner", text_or_null(row->owner_uri));
	if (!detail)
		return out;
	json_object_set_new(out, "request", parsed_or_null(row->json));
	json_t *responses = parsed_or_null(row->responses);
	json_object_set_new(out, "last_attempt", text_or_null(last_attempt(responses)));
	json_t *former = json_incref(json_object_get(responses, ROW_FORMER_KEY));
	if (former != NULL)
		(void)json_object_del(responses, ROW_FORMER_KEY);
	(void)json_object_del(responses, ROW_WHY_KEY); /* a route of its own */
	json_object_set_new(out, "responses", responses);
	json_object_set_new(out, "former_attempts", former != NULL ? former : json_array());
	json_object_set_new(out, "message_builder", json_boolean(row->builder != NULL));
	json_object_set_new(out, "parts", part_names(row));
	return out;
}

json_t *
admin_count(const StoreCount *count, int64_t now)
{
	json_t *out = json_object();
	if (count->destination != NULL)
		json_object_set_new(out, "destination", text_or_null(count->destination));
	json_object_set_new(out, "queued", json_integer((json_int_t)count->queued));
	json_object_set_new(out, "leased", json_integer((json_int_t)count->leased));
	json_object_set_new(out, "held", json_integer((json_int_t)count->held));
	json_object_set_new(out, "final", json_integer((json_int_t)count->final));
	json_object_set_new(out, "oldest", time_or_null(count->oldest));
	json_object_set_new(out, "oldest_age",
			    count->oldest != 0 ? json_integer(MAX(now - count->oldest, 0))
					       : json_null());
	return out;
}
