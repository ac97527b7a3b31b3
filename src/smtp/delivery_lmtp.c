/* SPDX-License-Identifier: Apache-2.0 */
/* LMTP with several recipients (RFC 2033 4.2): one reply after the dot for each recipient that RCPT
 * accepted, in that order.  What becomes of them is said in client_pool.h. */
#include "smtp/client_int.h"
#include "smtp/reply_text.h"

struct SmtpLmtp {
	GPtrArray *held;  /* Response* to RCPT by recipient, NULL: told or not there yet */
	GPtrArray *after; /* Response* after the dot by recipient, NULL: none */
	unsigned n_held, dots;
	bool holding;
	Timer hold;
};

static void
response_drop(void *data)
{
	response_unref(data);
}

static Response *
at(const GPtrArray *array, size_t index)
{
	return index < array->len ? array->pdata[index] : NULL;
}

static void
put(GPtrArray *array, unsigned index, const SmtpReply *reply)
{
	g_autofree char *text = smtp_reply_text(reply);
	if (array->len <= index)
		g_ptr_array_set_size(array, (int)index + 1);
	array->pdata[index] = response_new(reply->code, text);
}

/* Whoever asks has waited long enough. */
static void
on_hold_end(void *arg)
{
	delivery_lmtp_tell(arg);
}

void
delivery_lmtp_begin(SmtpDelivery *delivery)
{
	const Tx *tx = delivery->tx;
	if (delivery->lmtp != NULL || delivery->conf->protocol != SMTP_PROTOCOL_LMTP ||
	    tx_rcpt_count(tx) < 2)
		return;
	SmtpLmtp *lmtp = delivery->lmtp = g_new0(SmtpLmtp, 1);
	lmtp->held = g_ptr_array_new_with_free_func(response_drop);
	lmtp->after = g_ptr_array_new_with_free_func(response_drop);
	timer_init(&lmtp->hold, delivery->pool->worker, on_hold_end, delivery);
	lmtp->holding = tx_body_ready(tx) && tx->rcpt_answers == 0;
	if (lmtp->holding)
		timer_set(&lmtp->hold, SMTP_LMTP_HOLD);
}

void
delivery_lmtp_free(SmtpDelivery *delivery)
{
	SmtpLmtp *lmtp = g_steal_pointer(&delivery->lmtp);
	if (lmtp == NULL)
		return;
	timer_clear(&lmtp->hold);
	g_ptr_array_unref(lmtp->held);
	g_ptr_array_unref(lmtp->after);
	g_free(lmtp);
}

bool
delivery_lmtp_take_rcpt(SmtpDelivery *delivery, unsigned index, const SmtpReply *reply)
{
	SmtpLmtp *lmtp = delivery->lmtp;
	if (lmtp == NULL || !lmtp->holding)
		return false;
	put(lmtp->held, index, reply);
	lmtp->n_held++;
	return true;
}

size_t
delivery_answered(const SmtpDelivery *delivery)
{
	size_t held = delivery->lmtp != NULL ? delivery->lmtp->n_held : 0;
	return delivery->tx->rcpt_answers + held;
}

/* RCPT said yes to it. */
static bool
is_accepted(const SmtpDelivery *delivery, size_t index)
{
	const Response *told = tx_rcpt(delivery->tx, index)->response;
	if (told != NULL || delivery->lmtp == NULL)
		return response_ok(told);
	return response_ok(at(delivery->lmtp->held, index));
}

size_t
delivery_accepted(const SmtpDelivery *delivery)
{
	size_t count = 0;
	if (delivery->lmtp == NULL)
		return tx_rcpts_accepted(delivery->tx);
	for (size_t i = 0; i < tx_rcpt_count(delivery->tx); i++)
		count += is_accepted(delivery, i) ? 1 : 0;
	return count;
}

void
delivery_push_dots(SmtpDelivery *delivery)
{
	Pipeline *pipeline = &delivery->client->pipeline;
	SmtpLmtp *lmtp = delivery->lmtp;
	if (lmtp == NULL) {
		pipeline_push(pipeline, PIPE_DOT, 0);
		return;
	}
	for (size_t i = 0; i < tx_rcpt_count(delivery->tx); i++) {
		if (!is_accepted(delivery, i))
			continue;
		pipeline_push(pipeline, PIPE_DOT, (unsigned)i);
		lmtp->dots++;
	}
}

bool
delivery_lmtp_take_dot(SmtpDelivery *delivery, unsigned index, const SmtpReply *reply)
{
	put(delivery->lmtp->after, index, reply);
	return --delivery->lmtp->dots == 0;
}

/* ---- answers ---- */

static void
tell(SmtpDelivery *delivery, bool refusals_only)
{
	SmtpLmtp *lmtp = delivery->lmtp;
	timer_cancel(&lmtp->hold);
	lmtp->holding = false;
	for (guint i = 0; i < lmtp->held->len; i++) {
		Response *response = g_steal_pointer(&lmtp->held->pdata[i]);
		if (response != NULL && (response_err(response) || !refusals_only))
			(void)tx_answer_rcpt(delivery->tx, i, response);
		else
			response_unref(response);
	}
	lmtp->n_held = 0;
}

void
delivery_lmtp_tell(SmtpDelivery *delivery)
{
	tell(delivery, false);
}

void
delivery_lmtp_drop(SmtpDelivery *delivery)
{
	tell(delivery, true);
}

typedef struct Tally {
	Response *ok, *temp, *perm; /* the first of each; not counted */
	unsigned n_ok, n;
} Tally;

static Tally
count_up(SmtpDelivery *delivery, Response *missing)
{
	Tally tally = {0};
	for (size_t i = 0; i < tx_rcpt_count(delivery->tx); i++) {
		if (!is_accepted(delivery, i))
			continue;
		Response *after = at(delivery->lmtp->after, i);
		Response *verdict = after != NULL ? after : missing;
		Response **first = response_ok(verdict)     ? &tally.ok
				   : response_temp(verdict) ? &tally.temp
							    : &tally.perm;
		if (*first == NULL)
			*first = verdict;
		tally.n_ok += response_ok(verdict) ? 1 : 0;
		tally.n++;
	}
	return tally;
}

/* A recipient that was held back gets what was said after the dot when that is a refusal. */
static void
correct_held(SmtpDelivery *delivery, Response *missing)
{
	SmtpLmtp *lmtp = delivery->lmtp;
	for (guint i = 0; i < lmtp->held->len; i++) {
		Response *after = at(lmtp->after, i) != NULL ? at(lmtp->after, i) : missing;
		if (!response_ok(lmtp->held->pdata[i]) || response_ok(after))
			continue;
		response_unref(lmtp->held->pdata[i]);
		lmtp->held->pdata[i] = response_ref(after);
	}
}

Response *
delivery_lmtp_conclude(SmtpDelivery *delivery, Response *missing)
{
	Tally tally = count_up(delivery, missing);
	bool held = delivery->lmtp->holding;
	Response *failure = tally.temp != NULL ? tally.temp : tally.perm;
	Response *result;
	if (failure == NULL || (held && tally.ok != NULL))
		result = response_ref(tally.ok);
	else if (tally.ok == NULL)
		result = response_ref(failure);
	else
		result = response_newf(failure->code, "%s (%u of %u recipients have the message)",
				       failure->message, tally.n_ok, tally.n);
	if (held)
		correct_held(delivery, missing);
	delivery_lmtp_tell(delivery);
	return result;
}
