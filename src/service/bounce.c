/* SPDX-License-Identifier: Apache-2.0 */
#include "service/bounce.h"

#include "base/clock.h"
#include "base/ids.h"
#include "base/json.h"
#include "mime/build.h"
#include "mime/dsn.h"
#include "smtp/dsn_param.h"

#define FULL_MAX (1024 * 1024) /* bytes of a message that RET=FULL returns as a whole */

static const Response *
failure_of(const Tx *tx)
{
	if (response_err(tx->mail_response))
		return tx->mail_response;
	if (response_err(tx_rcpt(tx, 0)->response))
		return tx_rcpt(tx, 0)->response;
	return response_err(tx->data_response) ? tx->data_response : NULL;
}

static char *
blob_header(const Blob *blob, size_t *ret_len)
{
	g_autofree char *start = g_malloc(DSN_HEADERS_MAX);
	size_t got = 0;
	if (!blob_read(blob, 0, start, DSN_HEADERS_MAX, &got, NULL))
		return NULL;
	*ret_len = dsn_header_len(start, got);
	return *ret_len > 0 ? g_steal_pointer(&start) : NULL;
}

/* A message that was submitted as JSON: its header fields rendered, without its parts. */
static Blob *
render_headers(const json_t *builder)
{
	g_autoptr(json_t) spec = json_object();
	json_object_set(spec, "headers", json_object_get(builder, "headers"));
	g_autoptr(TxBody) body = tx_body_new_builder(spec, NULL);
	return mime_build(body, NULL);
}

/* All of the message, where that is asked for and can be done: RET=FULL, not too long, and fit to
 * stand in a notification. */
static char *
original_full(const Tx *tx, size_t *ret_len)
{
	if (tx->body == NULL || !smtp_dsn_wants_full(tx->mail_from))
		return NULL;
	g_autoptr(Blob) raw = tx->body->raw != NULL ? blob_ref(tx->body->raw)
						    : mime_build(tx->body, NULL);
	size_t len = 0;
	g_autofree char *text = raw != NULL ? blob_to_string(raw, FULL_MAX, &len, NULL) : NULL;
	if (text == NULL || !dsn_may_return(text, len))
		return NULL;
	*ret_len = len;
	return g_steal_pointer(&text);
}

/* The header block of the message; its rest is not returned (RFC 3464 2: enough to recognise it).
 */
static char *
original_header(const Tx *tx, size_t *ret_len)
{
	if (tx->body == NULL)
		return NULL;
	if (tx->body->raw != NULL)
		return blob_header(tx->body->raw, ret_len);
	g_autoptr(Blob) rendered = render_headers(tx->body->builder);
	return rendered != NULL ? blob_header(rendered, ret_len) : NULL;
}

bool
bounce_is_unwanted(const Tx *tx)
{
	if (tx->mail_from != NULL && tx->mail_from->addr[0] == '\0')
		return true; /* nobody to tell (RFC 5321 4.5.5) */
	return tx_rcpt_count(tx) == 1 &&
	       (smtp_dsn_notify(tx_rcpt(tx, 0)->to) & SMTP_NOTIFY_FAILURE) == 0;
}

static bool
can_notify(const Tx *tx, const EndpointConf *endpoint, const char *mailer_daemon)
{
	return endpoint->notification_sender != NULL && mailer_daemon != NULL &&
	       tx->mail_from != NULL && tx->mail_from->addr[0] != '\0' && tx_rcpt_count(tx) == 1;
}

/* What there is to tell, and the answer that decided; NULL: nothing. */
static const Response *
verdict_of(const Tx *tx, BounceKind kind, DsnAction *ret_action)
{
	unsigned notify = smtp_dsn_notify(tx_rcpt(tx, 0)->to);
	const Response *failure = failure_of(tx);
	if (kind == BOUNCE_END && failure == NULL) {
		bool told = response_ok(tx->data_response) && tx->handover != TX_HANDOVER_NONE;
		*ret_action = tx->handover == TX_HANDOVER_DELIVERED ? DSN_DELIVERED : DSN_RELAYED;
		return told && (notify & SMTP_NOTIFY_SUCCESS) != 0 ? tx->data_response : NULL;
	}
	unsigned wanted = kind == BOUNCE_DELAY ? SMTP_NOTIFY_DELAY : SMTP_NOTIFY_FAILURE;
	*ret_action = kind == BOUNCE_DELAY ? DSN_DELAYED : DSN_FAILED;
	return tx->notification != NULL && !tx->cancelled && (notify & wanted) != 0 ? failure
										    : NULL;
}

bool
bounce_is_owed(const Tx *tx, const EndpointConf *endpoint, const char *mailer_daemon)
{
	DsnAction action;
	return can_notify(tx, endpoint, mailer_daemon) &&
	       verdict_of(tx, BOUNCE_END, &action) != NULL;
}

/* The message; `input` lacks what is the transaction's. */
static Blob *
build_report(const Tx *tx, DsnInput *input)
{
	uint64_t random[2];
	ids_random(random, sizeof(random));
	g_autofree char *unique = g_strdup_printf(
		"%016" G_GINT64_MODIFIER "x%016" G_GINT64_MODIFIER "x", random[0], random[1]);
	g_autofree char *envid = smtp_dsn_envid(tx->mail_from);
	g_autofree char *orcpt = smtp_dsn_orcpt(tx_rcpt(tx, 0)->to);
	g_autofree char *header = original_header(tx, &input->header_len);
	g_autofree char *full = NULL;
	if (input->action == DSN_FAILED) /* RET is about these only (RFC 3461 4.3) */
		full = original_full(tx, &input->full_len);
	input->unique = unique;
	input->to = tx->mail_from->addr;
	input->rcpt = tx_rcpt(tx, 0)->to->addr;
	input->envid = envid;
	input->orcpt = orcpt;
	input->header = header;
	input->full = full;
	GString *message = dsn_build(input);
	Blob *blob = blob_new_bytes(message->str, message->len);
	g_string_free(message, TRUE);
	return blob;
}

Tx *
bounce_new(const Tx *tx, const EndpointConf *endpoint, const char *mailer_daemon, int64_t creation,
	   BounceKind kind)
{
	DsnAction action;
	if (!can_notify(tx, endpoint, mailer_daemon))
		return NULL;
	const Response *verdict = verdict_of(tx, kind, &action);
	if (verdict == NULL)
		return NULL;
	bool ends = endpoint->has_retry && endpoint->retry.deadline >= 0;
	DsnInput report = {.mailer_daemon = mailer_daemon,
			   .action = action,
			   .code = verdict->code,
			   .text = verdict->message,
			   .arrival = creation,
			   .now = clock_wall_sec(),
			   .retry_until = ends ? creation + endpoint->retry.deadline : 0};
	g_autoptr(Blob) blob = build_report(tx, &report);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	/* To an address outside ASCII the notification itself is not ASCII (mime/dsn.h). */
	static const EsmtpParam eight_bit[] = {{(char *)"BODY", (char *)"8BITMIME"},
					       {(char *)"SMTPUTF8", NULL}};
	const bool utf8 = address_needs_utf8(tx->mail_from->addr);
	g_autoptr(Mailbox) from = mailbox_new("", eight_bit, utf8 ? G_N_ELEMENTS(eight_bit) : 0);
	g_autoptr(Mailbox) to = mailbox_new(tx->mail_from->addr, NULL, 0);
	Tx *bounce = tx_new(tx->queue);
	tx_set_sender(bounce, endpoint->notification_sender, endpoint->notification_tag);
	tx_set_mail_from(bounce, from);
	tx_add_rcpt(bounce, to);
	tx_set_body(bounce, body);
	return bounce;
}

bool
bounce_delay_is_due(const EndpointConf *endpoint, int64_t creation, int64_t this_attempt,
		    int64_t next_attempt)
{
	int64_t delay = endpoint->delay_warning / USEC_PER_SEC;
	return delay > 0 && MAX(this_attempt, creation) < creation + delay &&
	       next_attempt >= creation + delay;
}
