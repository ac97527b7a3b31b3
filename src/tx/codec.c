/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/codec.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "tx/codec_int.h"

/* ---- the fields (spec 3.1) ---- */

/* What one call of tx_to_json writes from and into. */
typedef struct Writer {
	const Tx *tx;
	TxCodec codec;
	const TxMark *mark; /* TX_JSON_UPDATE only */
	const TxUris *uris; /* TX_JSON_READ only */
	json_t *out;
} Writer;

static bool
is_read(const Writer *w)
{
	return w->codec == TX_JSON_READ;
}

static void
put_response(const Writer *w, const char *key, const Response *response)
{
	if (response != NULL)
		codec_put(w->out, key, response_to_json(response));
}

/* The value itself is shared by count: nobody changes it once it is in the transaction. */
static void
put_value(const Writer *w, const char *key, json_t *value)
{
	if (value != NULL)
		codec_put(w->out, key, json_incref(value));
}

static void
put_remote_host(const Writer *w)
{
	if (w->tx->remote_host != NULL)
		codec_put(w->out, "remote_host", codec_host_port(w->tx->remote_host));
}

static void
put_local_host(const Writer *w)
{
	if (w->tx->local_host != NULL)
		codec_put(w->out, "local_host", codec_host_port(w->tx->local_host));
}

static void
put_mail_from(const Writer *w)
{
	const Mailbox *from = w->tx->mail_from;
	if (from == NULL)
		return;
	if (w->mark != NULL && (w->mark->seen & TX_NEW_MAIL_FROM) != 0)
		return;
	codec_put(w->out, "mail_from", is_read(w) ? json_object() : mailbox_to_json(from));
}

static void
put_mail_response(const Writer *w)
{
	put_response(w, "mail_response", w->tx->mail_response);
}

static void
put_rcpt_to(const Writer *w)
{
	size_t first = w->mark != NULL ? w->mark->rcpts : 0;
	size_t count = tx_rcpt_count(w->tx);
	if (first >= count)
		return;
	if (first > 0)
		codec_put(w->out, "rcpt_to_list_offset", json_integer((json_int_t)first));
	json_t *list = json_array();
	for (size_t i = first; i < count; i++)
		json_array_append_new(list, is_read(w) ? json_object()
						       : mailbox_to_json(tx_rcpt(w->tx, i)->to));
	codec_put(w->out, "rcpt_to", list);
}

/* Readers get the answered beginning of the list; the store keeps every answer, null for those
 * that are missing in between. */
static void
put_rcpt_response(const Writer *w)
{
	if (w->tx->rcpt_answers == 0)
		return;
	json_t *list = json_array();
	size_t answers = 0;
	for (size_t i = 0; i < tx_rcpt_count(w->tx) && answers < w->tx->rcpt_answers; i++) {
		const Response *response = tx_rcpt(w->tx, i)->response;
		if (response == NULL && is_read(w))
			break;
		answers += response != NULL ? 1 : 0;
		json_array_append_new(list,
				      response != NULL ? response_to_json(response) : json_null());
	}
	if (json_array_size(list) > 0)
		codec_put(w->out, "rcpt_response", list);
	else
		json_decref(list);
}

static void
put_data_response(const Writer *w)
{
	put_response(w, "data_response", w->tx->data_response);
}

static void
put_attempt_count(const Writer *w)
{
	if (w->tx->attempt_count > 0)
		codec_put(w->out, "attempt_count", json_integer(w->tx->attempt_count));
}

static void
put_body(const Writer *w)
{
	json_t *status = w->uris != NULL ? codec_body_status(w->tx, w->uris) : NULL;
	if (status != NULL)
		codec_put(w->out, "body", status);
}

static void
put_notification(const Writer *w)
{
	put_value(w, "notification", w->tx->notification);
}

static void
put_retry(const Writer *w)
{
	put_value(w, "retry", w->tx->retry);
}

static void
put_smtp_meta(const Writer *w)
{
	put_value(w, "smtp_meta", w->tx->smtp_meta);
}

static void
put_cancelled(const Writer *w)
{
	if (w->tx->cancelled)
		codec_put(w->out, "cancelled", json_true());
}

static void
put_final_reason(const Writer *w)
{
	if (w->tx->final_attempt_reason != NULL)
		codec_put(w->out, "final_attempt_reason", codec_text(w->tx->final_attempt_reason));
}

static void
put_sender(const Writer *w)
{
	if (w->tx->sender_name == NULL && w->tx->sender_tag == NULL)
		return;
	json_t *sender = json_object();
	if (!is_read(w) && w->tx->sender_name != NULL)
		codec_put(sender, "name", codec_text(w->tx->sender_name));
	if (!is_read(w) && w->tx->sender_tag != NULL)
		codec_put(sender, "tag", codec_text(w->tx->sender_tag));
	codec_put(w->out, "sender", sender);
}

static void
put_filter_output(const Writer *w)
{
	if (w->mark != NULL && (tx_since(w->tx, w->mark) & TX_NEW_FILTER_OUTPUT) == 0)
		return;
	/* A copy: the transaction's own object gets further filters. */
	if (w->tx->filter_output != NULL)
		codec_put(w->out, "filter_output", json_copy(w->tx->filter_output));
}

#define C (1U << TX_JSON_CREATE)
#define U (1U << TX_JSON_UPDATE)
#define R (1U << TX_JSON_READ)
#define S (1U << TX_JSON_STORE)
#define A (1U << TX_JSON_ATTEMPT)

/* Order of emission.  `reads` are the audiences from which a key is accepted, `writes` those to
 * which it is given: bodies go up by other requests than the one that creates, and readers
 * accept the placeholder of filter_output that receivers send but the router does not. */
static const struct Field {
	const char *name;
	unsigned reads;
	unsigned writes;
	void (*put)(const Writer *w);
} FIELDS[] = {
	{"remote_host", C | R | S, C | R | S, put_remote_host},
	{"local_host", C | R | S, C | R | S, put_local_host},
	{"mail_from", C | U | R | S, C | U | R | S, put_mail_from},
	{"mail_response", R | A, R | A, put_mail_response},
	{"rcpt_to", C | U | R | S, C | U | R | S, put_rcpt_to},
	{"rcpt_response", R | A, R | A, put_rcpt_response},
	{"data_response", R | A, R | A, put_data_response},
	{"attempt_count", R, R, put_attempt_count},
	{"body", C | U | R, R, put_body},
	{"notification", R | S, R | S, put_notification},
	{"retry", R | S, R | S, put_retry},
	{"smtp_meta", C | S, C | S, put_smtp_meta},
	{"cancelled", R | S, R | S, put_cancelled},
	{"final_attempt_reason", R, R, put_final_reason},
	{"sender", C | R | S, C | R | S, put_sender},
	{"filter_output", C | U | R | A, C | U | A, put_filter_output},
};

json_t *
tx_to_json(const Tx *tx, TxCodec codec, const TxMark *mark, const TxUris *uris)
{
	k_assert(codec < TX_JSON_CODECS);
	k_assert((codec == TX_JSON_UPDATE) == (mark != NULL));
	Writer w = {.tx = tx, .codec = codec, .mark = mark, .uris = uris, .out = json_object()};
	for (size_t i = 0; i < G_N_ELEMENTS(FIELDS); i++) {
		if ((FIELDS[i].writes & (1U << codec)) != 0)
			FIELDS[i].put(&w);
	}
	return w.out;
}

/* ---- reading: keys ---- */

static bool
key_is_valid(const char *key, TxCodec codec)
{
	for (size_t i = 0; i < G_N_ELEMENTS(FIELDS); i++) {
		if (strcmp(FIELDS[i].name, key) == 0)
			return (FIELDS[i].reads & (1U << codec)) != 0;
	}
	return codec == TX_JSON_UPDATE && g_str_has_suffix(key, "_list_offset");
}

static bool
check_keys(const json_t *json, TxCodec codec, GError **ret_error)
{
	if (!json_is_object(json))
		return error_set(ret_error, K_ERROR_INPUT, "transaction is no JSON object");
	const char *key;
	json_t *value;
	/* jansson iterates over constant objects only by a cast. */
	json_object_foreach((json_t *)(uintptr_t)json, key, value)
	{
		if (!key_is_valid(key, codec))
			return error_set(ret_error, K_ERROR_INPUT, "%.64s: not valid here", key);
		if (json_is_null(value))
			return error_set(ret_error, K_ERROR_INPUT, "%s: null", key);
		if (json_is_array(value) && json_array_size(value) == 0)
			return error_set(ret_error, K_ERROR_INPUT, "%s: empty array", key);
	}
	return true;
}

/* ---- reading: requests ---- */

/* A request, parsed and checked but not applied.  json_t members are borrowed. */
typedef struct Parsed {
	HostPort *remote_host, *local_host;
	Mailbox *mail_from;
	GPtrArray *rcpts; /* Mailbox*, or NULL */
	json_t *smtp_meta, *retry, *notification, *body;
	bool has_sender;
	const char *sender_name, *sender_tag;
	bool cancelled;
	bool has_offset;
	int64_t offset;
} Parsed;

static void
parsed_clear(Parsed *parsed)
{
	host_port_free(parsed->remote_host);
	host_port_free(parsed->local_host);
	mailbox_unref(parsed->mail_from);
	if (parsed->rcpts != NULL)
		g_ptr_array_unref(parsed->rcpts);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Parsed, parsed_clear)

static void
mailbox_destroy(void *data)
{
	mailbox_unref(data);
}

static bool
parse_rcpts(Parsed *parsed, const json_t *list, TxCodec codec, GError **ret_error)
{
	if (!json_is_array(list))
		return error_set(ret_error, K_ERROR_INPUT, "rcpt_to: no array");
	size_t n = json_array_size(list);
	/* What is in the store has been accepted under the limit of its day. */
	if (codec != TX_JSON_STORE && n > TX_RCPTS_MAX)
		return error_set(ret_error, K_ERROR_INPUT, "rcpt_to: more than %d", TX_RCPTS_MAX);
	parsed->rcpts = g_ptr_array_new_full((guint)n, mailbox_destroy);
	for (size_t i = 0; i < n; i++) {
		Mailbox *to = mailbox_from_json(json_array_get(list, i), ret_error);
		if (to == NULL) {
			g_prefix_error(ret_error, "rcpt_to: ");
			return false;
		}
		g_ptr_array_add(parsed->rcpts, to);
	}
	return true;
}

static bool
parse_sender(Parsed *parsed, const json_t *sender, GError **ret_error)
{
	if (!json_is_object(sender))
		return error_set(ret_error, K_ERROR_INPUT, "sender: no object");
	const json_t *name = json_object_get(sender, "name");
	const json_t *tag = json_object_get(sender, "tag");
	size_t known = (name != NULL ? 1U : 0U) + (tag != NULL ? 1U : 0U);
	if (json_object_size(sender) != known)
		return error_set(ret_error, K_ERROR_INPUT,
				 "tx json sender may only contain name,tag");
	if ((name != NULL && !json_is_string(name)) || (tag != NULL && !json_is_string(tag)))
		return error_set(ret_error, K_ERROR_INPUT, "sender: name or tag is no string");
	parsed->has_sender = true;
	parsed->sender_name = json_string_value(name);
	parsed->sender_tag = json_string_value(tag);
	return true;
}

static bool
parse_offset(Parsed *parsed, const json_t *json, GError **ret_error)
{
	const json_t *offset = json_object_get(json, "rcpt_to_list_offset");
	if (offset == NULL)
		return true;
	if (!json_is_integer(offset) || json_integer_value(offset) < 0)
		return error_set(ret_error, K_ERROR_INPUT, "rcpt_to_list_offset: no offset");
	parsed->has_offset = true;
	parsed->offset = json_integer_value(offset);
	return true;
}

static bool
parse_object(const json_t *json, const char *key, json_t **ret_value, GError **ret_error)
{
	json_t *value = json_object_get(json, key);
	if (value != NULL && !json_is_object(value))
		return error_set(ret_error, K_ERROR_INPUT, "%s: no object", key);
	*ret_value = value;
	return true;
}

static bool
parse_envelope(Parsed *parsed, const json_t *json, TxCodec codec, GError **ret_error)
{
	json_t *value;
	if ((value = json_object_get(json, "remote_host")) != NULL &&
	    (parsed->remote_host = codec_read_host_port("remote_host", value, ret_error)) == NULL)
		return false;
	if ((value = json_object_get(json, "local_host")) != NULL &&
	    (parsed->local_host = codec_read_host_port("local_host", value, ret_error)) == NULL)
		return false;
	if ((value = json_object_get(json, "mail_from")) != NULL &&
	    (parsed->mail_from = mailbox_from_json(value, ret_error)) == NULL) {
		g_prefix_error(ret_error, "mail_from: ");
		return false;
	}
	if ((value = json_object_get(json, "rcpt_to")) != NULL &&
	    !parse_rcpts(parsed, value, codec, ret_error))
		return false;
	if ((value = json_object_get(json, "sender")) != NULL &&
	    !parse_sender(parsed, value, ret_error))
		return false;
	return parse_offset(parsed, json, ret_error);
}

/* `parsed` starts zeroed and is cleared by the caller, also on failure. */
static bool
parse_request(Parsed *parsed, const json_t *json, TxCodec codec, GError **ret_error)
{
	json_t *output; /* accepted, checked and dropped (spec 3.7) */
	if (!check_keys(json, codec, ret_error) ||
	    !parse_envelope(parsed, json, codec, ret_error) ||
	    !parse_object(json, "smtp_meta", &parsed->smtp_meta, ret_error) ||
	    !parse_object(json, "retry", &parsed->retry, ret_error) ||
	    !parse_object(json, "notification", &parsed->notification, ret_error) ||
	    !parse_object(json, "filter_output", &output, ret_error))
		return false;
	const json_t *cancelled = json_object_get(json, "cancelled");
	if (cancelled != NULL && !json_is_boolean(cancelled))
		return error_set(ret_error, K_ERROR_INPUT, "cancelled: no boolean");
	parsed->cancelled = json_is_true(cancelled);
	parsed->body = json_object_get(json, "body");
	return true;
}

static void
apply_request(Tx *tx, const Parsed *parsed)
{
	/* What is set already stays: an update that repeats it is accepted and ignored. */
	if (parsed->remote_host != NULL)
		tx_set_hosts(tx, parsed->remote_host, NULL);
	if (parsed->local_host != NULL)
		tx_set_hosts(tx, NULL, parsed->local_host);
	if (parsed->mail_from != NULL)
		tx_set_mail_from(tx, parsed->mail_from);
	for (guint i = 0; parsed->rcpts != NULL && i < parsed->rcpts->len; i++)
		tx_add_rcpt(tx, g_ptr_array_index(parsed->rcpts, i));
	if (parsed->smtp_meta != NULL)
		tx_set_smtp_meta(tx, parsed->smtp_meta);
	if (parsed->retry != NULL)
		tx_enable_retry(tx, parsed->retry);
	if (parsed->notification != NULL)
		tx_enable_notification(tx, parsed->notification);
	if (parsed->has_sender)
		tx_set_sender(tx, parsed->sender_name, parsed->sender_tag);
	if (parsed->cancelled)
		tx_cancel(tx);
}

static TxBodyForm
body_form(const json_t *body)
{
	if (json_is_string(json_object_get(body, "inline")))
		return TX_BODY_INLINE;
	if (json_is_string(json_object_get(body, "reuse_uri")))
		return TX_BODY_REUSE;
	if (json_is_object(json_object_get(body, "message_builder")))
		return TX_BODY_BUILDER;
	return TX_BODY_NONE;
}

bool
tx_from_json(Tx *tx, const json_t *json, TxCodec codec, TxRequest *ret_request, GError **ret_error)
{
	k_assert(codec == TX_JSON_CREATE || codec == TX_JSON_UPDATE || codec == TX_JSON_STORE);
	g_auto(Parsed) parsed = {0};
	if (!parse_request(&parsed, json, codec, ret_error))
		return false;
	apply_request(tx, &parsed);
	if (ret_request != NULL)
		*ret_request = (TxRequest){.form = body_form(parsed.body),
					   .body = json_incref(parsed.body),
					   .has_offset = parsed.has_offset,
					   .rcpt_offset = parsed.offset};
	return true;
}

void
tx_request_clear(TxRequest *request)
{
	json_decref(request->body);
	*request = (TxRequest){0};
}

bool
tx_update_check(const Tx *tx, const json_t *json, GError **ret_error)
{
	g_auto(Parsed) parsed = {0};
	if (!parse_request(&parsed, json, TX_JSON_UPDATE, ret_error))
		return false;
	if (parsed.rcpts == NULL)
		return true;
	size_t present = tx_rcpt_count(tx);
	if ((uint64_t)parsed.offset != present)
		return error_set(ret_error, K_ERROR_CONFLICT,
				 "rcpt_to_list_offset: %" G_GINT64_FORMAT " with %zu present",
				 parsed.offset, present);
	if (present + parsed.rcpts->len > TX_RCPTS_MAX)
		return error_set(ret_error, K_ERROR_INPUT, "rcpt_to: more than %d", TX_RCPTS_MAX);
	return true;
}

/* ---- reading: answers ---- */

/* Answers of an ATTEMPT or READ object, parsed but not applied. */
typedef struct Answers {
	Response *mail, *data;
	GPtrArray *rcpts; /* Response* or NULL; NULL array when the key is missing */
} Answers;

static void
answers_clear(Answers *answers)
{
	response_unref(answers->mail);
	response_unref(answers->data);
	if (answers->rcpts != NULL)
		g_ptr_array_unref(answers->rcpts);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Answers, answers_clear)

static void
response_destroy(void *data)
{
	response_unref(data);
}

static bool
parse_response(const json_t *json, const char *key, Response **ret_response, GError **ret_error)
{
	const json_t *value = json_object_get(json, key);
	if (value == NULL)
		return true;
	*ret_response = response_from_json(value);
	if (*ret_response == NULL)
		return error_set(ret_error, K_ERROR_INPUT, "%s: no response", key);
	return true;
}

static bool
parse_answers(Answers *answers, const Tx *tx, const json_t *json, GError **ret_error)
{
	if (!parse_response(json, "mail_response", &answers->mail, ret_error) ||
	    !parse_response(json, "data_response", &answers->data, ret_error))
		return false;
	const json_t *list = json_object_get(json, "rcpt_response");
	if (list == NULL)
		return true;
	size_t n = json_array_size(list);
	if (!json_is_array(list) || n > tx_rcpt_count(tx))
		return error_set(ret_error, K_ERROR_INPUT,
				 "rcpt_response: no array, or longer than rcpt_to");
	answers->rcpts = g_ptr_array_new_full((guint)n, response_destroy);
	for (size_t i = 0; i < n; i++) {
		const json_t *value = json_array_get(list, i);
		Response *response = json_is_null(value) ? NULL : response_from_json(value);
		if (response == NULL && !json_is_null(value))
			return error_set(ret_error, K_ERROR_INPUT, "rcpt_response: no response");
		g_ptr_array_add(answers->rcpts, response);
	}
	return true;
}

static void
apply_answers(Tx *tx, Answers *answers)
{
	if (answers->mail != NULL)
		tx_answer_mail(tx, g_steal_pointer(&answers->mail));
	for (guint i = 0; answers->rcpts != NULL && i < answers->rcpts->len; i++) {
		Response *response = g_ptr_array_index(answers->rcpts, i);
		if (response != NULL && tx_rcpt(tx, i)->response == NULL)
			tx_answer_rcpt(tx, i, response_ref(response));
	}
	if (answers->data != NULL)
		tx_answer_data(tx, g_steal_pointer(&answers->data));
}

bool
tx_attempt_from_json(Tx *tx, const json_t *json, GError **ret_error)
{
	g_auto(Answers) answers = {0};
	json_t *output;
	if (!check_keys(json, TX_JSON_ATTEMPT, ret_error) ||
	    !parse_answers(&answers, tx, json, ret_error) ||
	    !parse_object(json, "filter_output", &output, ret_error))
		return false;
	apply_answers(tx, &answers);
	const char *filter;
	json_t *value;
	json_object_foreach(output, filter, value)
		tx_set_filter_output(tx, filter, json_incref(value));
	return true;
}

/* ---- reading: what a server shows ---- */

static bool
is_placeholder(const json_t *json)
{
	return json_is_object(json) && json_object_size(json) == 0;
}

/* `{}` stands for what was sent, and only for what was sent. */
static bool
check_placeholders(const Tx *tx, const json_t *json, GError **ret_error)
{
	const json_t *value = json_object_get(json, "mail_from");
	if (value != NULL && (!is_placeholder(value) || tx->mail_from == NULL))
		return error_set(ret_error, K_ERROR_INPUT, "mail_from: not what was sent");
	value = json_object_get(json, "sender");
	if (value != NULL && !is_placeholder(value))
		return error_set(ret_error, K_ERROR_INPUT, "sender: no placeholder");
	value = json_object_get(json, "filter_output");
	if (value != NULL && !is_placeholder(value))
		return error_set(ret_error, K_ERROR_INPUT, "filter_output: no placeholder");
	value = json_object_get(json, "rcpt_to");
	size_t n = json_array_size(value);
	if (value != NULL && (!json_is_array(value) || n > tx_rcpt_count(tx)))
		return error_set(ret_error, K_ERROR_INPUT, "rcpt_to: not what was sent");
	for (size_t i = 0; i < n; i++) {
		if (!is_placeholder(json_array_get(value, i)))
			return error_set(ret_error, K_ERROR_INPUT, "rcpt_to: no placeholder");
	}
	return true;
}

static bool
check_shapes(const json_t *json, GError **ret_error)
{
	static const char *const HOSTS[] = {"remote_host", "local_host"};
	for (size_t i = 0; i < G_N_ELEMENTS(HOSTS); i++) {
		const json_t *value = json_object_get(json, HOSTS[i]);
		if (value == NULL)
			continue;
		g_autoptr(HostPort) hp = codec_read_host_port(HOSTS[i], value, ret_error);
		if (hp == NULL)
			return false;
	}
	json_t *body;
	return parse_object(json, "body", &body, ret_error);
}

static bool
same_or_new(const char *key, const Response *held, const Response *shown, GError **ret_error)
{
	if (held == NULL || response_equal(held, shown))
		return true;
	return error_set(ret_error, K_ERROR_INPUT, "%s: %s", key,
			 shown != NULL ? "changed" : "disappeared");
}

/* An answer stays what it was (spec 3.6).  What was answered here behind a failed precondition
 * may read otherwise at the server, or be missing there. */
static bool
check_growth(const Tx *tx, const Answers *answers, GError **ret_error)
{
	if (!same_or_new("mail_response", tx->mail_response, answers->mail, ret_error))
		return false;
	if (response_err(tx->mail_response))
		return true;
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		const Response *shown = answers->rcpts != NULL && i < answers->rcpts->len
						? g_ptr_array_index(answers->rcpts, i)
						: NULL;
		if (!same_or_new("rcpt_response", tx_rcpt(tx, i)->response, shown, ret_error))
			return false;
	}
	return tx_rcpts_accepted(tx) == 0 ||
	       same_or_new("data_response", tx->data_response, answers->data, ret_error);
}

bool
tx_merge_read(Tx *tx, const json_t *json, GError **ret_error)
{
	g_auto(Answers) answers = {0};
	if (!check_keys(json, TX_JSON_READ, ret_error) || !check_shapes(json, ret_error) ||
	    !check_placeholders(tx, json, ret_error) ||
	    !parse_answers(&answers, tx, json, ret_error) || !check_growth(tx, &answers, ret_error))
		return false;
	apply_answers(tx, &answers);
	return true;
}
