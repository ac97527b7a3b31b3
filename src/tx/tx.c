/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/tx.h"

#include <string.h>

#include "base/json.h"
#include "base/new.h"

#define MAIL_FAILED  "failed precondition: MAIL"
#define RCPTS_FAILED "failed precondition: all rcpts failed"

/* Bit of TxMark.seen beside TX_NEW_RETRY, because either may come after the other. */
#define SEEN_NOTIFICATION (1U << 7)

/* ---- parts ---- */

static void
part_free(void *data)
{
	TxPart *part = data;
	g_free(part->id);
	blob_unref(part->blob);
	g_free(part);
}

static TxBody *
body_new(json_t *builder, Blob *raw)
{
	TxBody *body = k_new0(TxBody);
	body->refs = 1;
	body->raw = raw != NULL ? blob_ref(raw) : NULL;
	body->builder = json_incref(builder);
	body->parts = g_ptr_array_new_with_free_func(part_free);
	return body;
}

TxBody *
tx_body_new_raw(Blob *raw)
{
	k_assert(raw != NULL);
	return body_new(NULL, raw);
}

TxBody *
tx_body_new_builder(json_t *builder, Blob *raw)
{
	k_assert(json_is_object(builder));
	return body_new(builder, raw);
}

void
tx_body_add_part(TxBody *body, const char *id, Blob *blob)
{
	k_assert(body->builder != NULL);
	k_assert_for(tx_body_part(body, id) == NULL, id);
	TxPart *part = g_new0(TxPart, 1);
	part->id = g_strdup(id);
	part->blob = blob_ref(blob);
	g_ptr_array_add(body->parts, part);
}

TxPart *
tx_body_part(const TxBody *body, const char *id)
{
	for (guint i = 0; i < body->parts->len; i++) {
		TxPart *part = g_ptr_array_index(body->parts, i);
		if (strcmp(part->id, id) == 0)
			return part;
	}
	return NULL;
}

TxBody *
tx_body_ref(TxBody *body)
{
	body->refs++;
	return body;
}

void
tx_body_unref(TxBody *body)
{
	if (body == NULL || --body->refs > 0)
		return;
	blob_unref(body->raw);
	json_decref(body->builder);
	g_ptr_array_unref(body->parts);
	g_free(body);
}

bool
tx_body_is_final(const TxBody *body)
{
	if (body == NULL || (body->raw != NULL && !blob_is_final(body->raw)))
		return false;
	for (guint i = 0; i < body->parts->len; i++) {
		const TxPart *part = g_ptr_array_index(body->parts, i);
		if (!blob_is_final(part->blob))
			return false;
	}
	return true;
}

uint64_t
tx_body_len(const TxBody *body)
{
	uint64_t len = body->raw != NULL ? blob_len(body->raw) : 0;
	for (guint i = 0; i < body->parts->len; i++) {
		const TxPart *part = g_ptr_array_index(body->parts, i);
		len += blob_len(part->blob);
	}
	return len;
}

static void
host_port_destroy(void *data)
{
	host_port_free(data);
}

TxRoute *
tx_route_new(void)
{
	TxRoute *route = k_new0(TxRoute);
	route->hosts = g_ptr_array_new_with_free_func(host_port_destroy);
	return route;
}

void
tx_route_free(TxRoute *route)
{
	if (route == NULL)
		return;
	g_free(route->url);
	g_free(route->sender);
	g_free(route->tag);
	g_ptr_array_unref(route->hosts);
	g_free(route);
}

/* ---- life ---- */

static void
rcpt_free(void *data)
{
	TxRcpt *rcpt = data;
	mailbox_unref(rcpt->to);
	response_unref(rcpt->response);
	g_free(rcpt);
}

static void
tx_notify(void *arg)
{
	Tx *tx = tx_ref(arg);
	tx->round++;
	TxWatch *watch = tx->watches;
	while (watch != NULL) {
		tx->walking = watch->next;
		if (watch->since != tx->round)
			watch->fn(watch->arg, tx); /* may free `watch` */
		watch = tx->walking;
	}
	tx_unref(tx);
}

Tx *
tx_new(DeferQueue *queue)
{
	Tx *tx = k_new0(Tx);
	tx->refs = 1;
	tx->version = 1;
	tx->rcpts = g_ptr_array_new_with_free_func(rcpt_free);
	tx->queue = queue;
	defer_init(&tx->defer, tx_notify, tx);
	return tx;
}

Tx *
tx_ref(Tx *tx)
{
	tx->refs++;
	return tx;
}

static void
forget_answers(Tx *tx)
{
	g_clear_pointer(&tx->mail_response, response_unref);
	g_clear_pointer(&tx->data_response, response_unref);
	g_clear_pointer(&tx->filter_output, json_decref);
	for (size_t i = 0; i < tx_rcpt_count(tx); i++)
		g_clear_pointer(&tx_rcpt(tx, i)->response, response_unref);
	tx->rcpt_answers = 0;
	tx->handover = TX_HANDOVER_NONE;
	tx->host_refused = false;
}

void
tx_unref(Tx *tx)
{
	if (tx == NULL)
		return;
	k_assert_for(tx->refs > 0, tx->id);
	if (--tx->refs > 0)
		return;
	k_assert_for(tx->watches == NULL, tx->id);
	defer_cancel(&tx->defer);
	forget_answers(tx);
	g_free(tx->id);
	g_free(tx->idem_key);
	g_free(tx->idem_hash);
	host_port_free(tx->remote_host);
	host_port_free(tx->local_host);
	mailbox_unref(tx->mail_from);
	g_ptr_array_unref(tx->rcpts);
	tx_body_unref(tx->body);
	json_decref(tx->smtp_meta);
	json_decref(tx->retry);
	json_decref(tx->notification);
	g_free(tx->sender_name);
	g_free(tx->sender_tag);
	g_free(tx->final_attempt_reason);
	tx_route_free(tx->route);
	g_free(tx);
}

static void
wake(Tx *tx)
{
	if (tx->queue != NULL)
		defer_queue(tx->queue, &tx->defer);
}

void
tx_touch(Tx *tx)
{
	tx->version++;
	wake(tx);
}

/* ---- requests ---- */

bool
tx_set_mail_from(Tx *tx, Mailbox *from)
{
	k_assert(from != NULL);
	if (tx->mail_from != NULL)
		return false;
	tx->mail_from = mailbox_ref(from);
	tx_touch(tx);
	return true;
}

bool
tx_set_hosts(Tx *tx, const HostPort *remote, const HostPort *local)
{
	if ((remote != NULL && tx->remote_host != NULL) ||
	    (local != NULL && tx->local_host != NULL))
		return false;
	if (remote != NULL)
		tx->remote_host = host_port_copy(remote);
	if (local != NULL)
		tx->local_host = host_port_copy(local);
	tx_touch(tx);
	return true;
}

/* `value` NULL stands for {}. */
static bool
set_json(Tx *tx, json_t **member, json_t *value)
{
	if (*member != NULL)
		return false;
	*member = value != NULL ? json_incref(value) : json_object();
	tx_touch(tx);
	return true;
}

bool
tx_set_smtp_meta(Tx *tx, json_t *meta)
{
	return set_json(tx, &tx->smtp_meta, meta);
}

bool
tx_enable_retry(Tx *tx, json_t *value)
{
	return set_json(tx, &tx->retry, value);
}

bool
tx_enable_notification(Tx *tx, json_t *value)
{
	return set_json(tx, &tx->notification, value);
}

void
tx_set_idem(Tx *tx, const char *key, const char *hash, int64_t until)
{
	k_assert(tx->idem_key == NULL);
	tx->idem_key = g_strdup(key);
	tx->idem_hash = g_strdup(hash);
	tx->idem_until = until;
}

bool
tx_set_sender(Tx *tx, const char *name, const char *tag)
{
	if (tx->sender_name != NULL || tx->sender_tag != NULL)
		return false;
	tx->sender_name = g_strdup(name);
	tx->sender_tag = g_strdup(tag);
	tx_touch(tx);
	return true;
}

bool
tx_set_body(Tx *tx, TxBody *body)
{
	k_assert(body != NULL);
	if (tx->body != NULL)
		return false;
	tx->body = tx_body_ref(body);
	tx->body_final = tx_body_is_final(body);
	tx_touch(tx);
	return true;
}

bool
tx_set_route(Tx *tx, TxRoute *route)
{
	if (tx->route != NULL) {
		tx_route_free(route);
		return false;
	}
	tx->route = route;
	tx_touch(tx);
	return true;
}

size_t
tx_add_rcpt(Tx *tx, Mailbox *to)
{
	k_assert(to != NULL);
	TxRcpt *rcpt = k_new0(TxRcpt);
	rcpt->to = mailbox_ref(to);
	g_ptr_array_add(tx->rcpts, rcpt);
	tx_touch(tx);
	return tx->rcpts->len - 1;
}

void
tx_note_body(Tx *tx)
{
	k_assert_for(tx->body != NULL, tx->id);
	tx->body_notes++;
	if (!tx->body_final && tx_body_is_final(tx->body)) {
		tx->body_final = true;
		tx->version++;
	}
	wake(tx);
}

void
tx_cancel(Tx *tx)
{
	if (tx->cancelled)
		return;
	tx->cancelled = true;
	tx_touch(tx);
}

void
tx_heartbeat(Tx *tx)
{
	tx->heartbeats++;
	tx_touch(tx);
}

/* ---- answers ---- */

static bool
answer(Tx *tx, Response **member, Response *response)
{
	k_assert(response != NULL);
	if (*member != NULL) {
		response_unref(response);
		return false;
	}
	*member = response;
	tx_touch(tx);
	return true;
}

bool
tx_answer_mail(Tx *tx, Response *response)
{
	return answer(tx, &tx->mail_response, response);
}

bool
tx_answer_rcpt(Tx *tx, size_t index, Response *response)
{
	k_assert_for(index < tx_rcpt_count(tx), tx->id);
	if (!answer(tx, &tx_rcpt(tx, index)->response, response))
		return false;
	tx->rcpt_answers++;
	return true;
}

bool
tx_answer_data(Tx *tx, Response *response)
{
	return answer(tx, &tx->data_response, response);
}

void
tx_set_filter_output(Tx *tx, const char *filter, json_t *output)
{
	k_assert_for(output != NULL, filter);
	if (tx->filter_output == NULL)
		tx->filter_output = json_object();
	int rc = json_object_set_new(tx->filter_output, filter, output);
	k_assert_for(rc == 0, filter);
	tx->outputs++;
	tx_touch(tx);
}

void
tx_begin_attempt(Tx *tx)
{
	forget_answers(tx);
	tx->attempt_count++;
	tx_touch(tx);
}

void
tx_set_host_refused(Tx *tx)
{
	tx->host_refused = true;
}

void
tx_set_handover(Tx *tx, TxHandover handover)
{
	tx->handover = handover;
}

void
tx_set_attempt_count(Tx *tx, int count)
{
	k_assert_for(count >= 0, tx->id);
	tx->attempt_count = count;
	tx_touch(tx);
}

bool
tx_finish(Tx *tx, const char *final_attempt_reason)
{
	k_assert(final_attempt_reason != NULL);
	if (tx->final_attempt_reason != NULL)
		return false;
	tx->final_attempt_reason = g_strdup(final_attempt_reason);
	tx_touch(tx);
	return true;
}

void
tx_set_durable(Tx *tx)
{
	tx->durable = true;
	tx->durable_refused = false;
	tx_touch(tx);
}

void
tx_refuse_durable(Tx *tx)
{
	if (tx->durable || tx->durable_refused)
		return;
	tx->durable_refused = true;
	tx_touch(tx);
}

void
tx_retry_durable(Tx *tx)
{
	tx->durable_refused = false;
}

void
tx_set_id(Tx *tx, const char *id)
{
	k_assert_for(tx->id == NULL, tx->id);
	tx->id = g_strdup(id);
}

void
tx_set_version(Tx *tx, uint64_t version)
{
	if (version > tx->version)
		tx->version = version;
}

void
tx_created(Tx *tx)
{
	tx->version = 1;
}

/* ---- reading ---- */

size_t
tx_rcpts_accepted(const Tx *tx)
{
	size_t accepted = 0;
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		if (response_ok(tx_rcpt(tx, i)->response))
			accepted++;
	}
	return accepted;
}

bool
tx_body_ready(const Tx *tx)
{
	return tx_body_is_final(tx->body);
}

bool
tx_in_flight(const Tx *tx)
{
	if (tx->mail_from != NULL && tx->mail_response == NULL)
		return true;
	if (response_err(tx->mail_response))
		return false;
	if (tx->rcpt_answers < tx_rcpt_count(tx))
		return true;
	if (tx->data_response != NULL || !tx_body_ready(tx))
		return false;
	return tx_rcpts_accepted(tx) > 0;
}

/* What is answered behind a failure keeps the class of the failure, so that a sender whose MAIL
 * failed for now does not bounce its recipients. */
static Response *
precondition(bool temporary, const char *text)
{
	return temporary ? response_new(450, text) : response_newf(503, "5.5.1 %s", text);
}

static void
fail_rcpts(Tx *tx)
{
	if (tx->rcpt_answers == tx_rcpt_count(tx))
		return;
	Response *response = precondition(response_temp(tx->mail_response), MAIL_FAILED);
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		if (tx_rcpt(tx, i)->response == NULL)
			tx_answer_rcpt(tx, i, response_ref(response));
	}
	response_unref(response);
}

static void
fail_data(Tx *tx)
{
	if (tx->data_response != NULL)
		return;
	bool temporary = response_temp(tx->mail_response);
	for (size_t i = 0; i < tx_rcpt_count(tx) && !temporary; i++)
		temporary = response_temp(tx_rcpt(tx, i)->response);
	tx_answer_data(tx, precondition(temporary, RCPTS_FAILED));
}

void
tx_fill_in_flight(Tx *tx, Response *response)
{
	k_assert(response != NULL);
	if (tx->mail_from != NULL && tx->mail_response == NULL)
		tx_answer_mail(tx, response_ref(response));
	if (response_err(tx->mail_response))
		fail_rcpts(tx);
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		if (tx_rcpt(tx, i)->response == NULL)
			tx_answer_rcpt(tx, i, response_ref(response));
	}
	if (tx->body == NULL)
		return;
	if (tx_rcpts_accepted(tx) == 0)
		fail_data(tx);
	else if (tx_body_ready(tx) && tx->data_response == NULL)
		tx_answer_data(tx, response_ref(response));
}

bool
tx_check_preconditions(Tx *tx)
{
	bool live = tx->data_response == NULL;
	if (response_err(tx->mail_response)) {
		live = false;
		fail_rcpts(tx);
	}
	size_t rcpts = tx_rcpt_count(tx);
	if (tx->body != NULL && rcpts > 0 && tx->rcpt_answers == rcpts &&
	    tx_rcpts_accepted(tx) == 0) {
		live = false;
		fail_data(tx);
	}
	return live;
}

/* ---- marks ---- */

/* The bits of everything that is there, apart from what is counted. */
static unsigned
present(const Tx *tx)
{
	unsigned bits = 0;
	bits |= tx->mail_from != NULL ? TX_NEW_MAIL_FROM : 0U;
	bits |= tx->body != NULL ? TX_NEW_BODY : 0U;
	bits |= tx_body_ready(tx) ? TX_NEW_BODY_FINAL : 0U;
	bits |= tx->cancelled ? TX_NEW_CANCEL : 0U;
	bits |= tx->retry != NULL ? TX_NEW_RETRY : 0U;
	bits |= tx->notification != NULL ? SEEN_NOTIFICATION : 0U;
	bits |= tx->mail_response != NULL ? TX_NEW_MAIL_RESPONSE : 0U;
	bits |= tx->data_response != NULL ? TX_NEW_DATA_RESPONSE : 0U;
	bits |= tx->filter_output != NULL ? TX_NEW_FILTER_OUTPUT : 0U;
	bits |= tx->final_attempt_reason != NULL ? TX_NEW_FINAL : 0U;
	return bits;
}

unsigned
tx_since(const Tx *tx, const TxMark *mark)
{
	if (mark->version == tx->version && mark->body_notes == tx->body_notes)
		return 0;
	bool same_attempt = mark->attempt == tx->attempt_count;
	unsigned seen = mark->seen;
	if (!same_attempt)
		seen &= ~(unsigned)(TX_NEW_MAIL_RESPONSE | TX_NEW_DATA_RESPONSE |
				    TX_NEW_FILTER_OUTPUT);
	unsigned bits = present(tx);
	unsigned fresh = bits & ~seen;
	if ((fresh & SEEN_NOTIFICATION) != 0)
		fresh = (fresh & ~SEEN_NOTIFICATION) | TX_NEW_RETRY;
	if (tx_rcpt_count(tx) > mark->rcpts)
		fresh |= TX_NEW_RCPT;
	if (tx->body != NULL && tx_body_len(tx->body) > mark->body_len)
		fresh |= TX_NEW_BODY;
	if (tx->heartbeats != mark->heartbeats)
		fresh |= TX_NEW_HEARTBEAT;
	if (!same_attempt)
		fresh |= TX_NEW_ATTEMPT;
	if (tx->rcpt_answers > (same_attempt ? mark->rcpt_answers : 0))
		fresh |= TX_NEW_RCPT_RESPONSE;
	if (tx->filter_output != NULL && tx->outputs != mark->outputs)
		fresh |= TX_NEW_FILTER_OUTPUT;
	return fresh;
}

void
tx_mark(const Tx *tx, TxMark *mark)
{
	*mark = (TxMark){
		.version = tx->version,
		.attempt = tx->attempt_count,
		.rcpts = (uint32_t)tx_rcpt_count(tx),
		.rcpt_answers = tx->rcpt_answers,
		.body_len = tx->body != NULL ? tx_body_len(tx->body) : 0,
		.body_notes = tx->body_notes,
		.outputs = tx->outputs,
		.heartbeats = tx->heartbeats,
		.seen = present(tx),
	};
}

/* ---- watching ---- */

void
tx_watch(Tx *tx, TxWatch *watch, TxWatchFn *fn, void *arg)
{
	k_assert_for(tx->queue != NULL, tx->id);
	k_assert_for(watch->tx == NULL, tx->id);
	*watch = (TxWatch){.tx = tx_ref(tx), .since = tx->round, .fn = fn, .arg = arg};
	if (tx->watches == NULL) {
		watch->prev = watch;
		tx->watches = watch;
		return;
	}
	TxWatch *last = tx->watches->prev;
	last->next = watch;
	watch->prev = last;
	tx->watches->prev = watch;
}

void
tx_unwatch(TxWatch *watch)
{
	Tx *tx = watch->tx;
	if (tx == NULL)
		return;
	if (tx->walking == watch)
		tx->walking = watch->next;
	if (watch == tx->watches)
		tx->watches = watch->next;
	else
		watch->prev->next = watch->next;
	if (watch->next != NULL)
		watch->next->prev =
			watch->prev; /* right for a new first, too: its prev is the last */
	else if (tx->watches != NULL)
		tx->watches->prev = watch->prev;
	watch->tx = NULL;
	watch->next = NULL;
	watch->prev = NULL;
	tx_unref(tx);
}
