/* SPDX-License-Identifier: Apache-2.0 */
/* Grades the finished message (mime/validate.h) and publishes the grade as a signal.  The From
 * address for alignment checks is not part of the signal: mime_from_address() gives it to whoever
 * needs it, with or without this filter in the chain. */
#include "filter/body_job.h"
#include "filter/kinds.h"
#include "mime/validate.h"

typedef struct Work {
	Blob *raw;
	bool smtputf8;
	bool good;
	MimeVerdict verdict;
	GError *error;
} Work;

typedef struct State {
	BodyJob *job;
	bool done;
} State;

static void
work_run(void *arg)
{
	Work *w = (Work *)arg;
	MimeValidateOptions options = {.smtputf8 = w->smtputf8};
	w->good = mime_validate(w->raw, &options, &w->verdict, &w->error);
}

static void
work_free(void *arg)
{
	Work *w = (Work *)arg;
	blob_unref(w->raw);
	mime_verdict_clear(&w->verdict);
	g_clear_error(&w->error);
	g_free(w);
}

static BodyJob *
start(Filter *filter, const TxBody *body)
{
	const Tx *tx = filter->down;
	Work *w = g_new0(Work, 1);
	w->raw = blob_ref(body->raw);
	w->smtputf8 = tx->mail_from != NULL && mailbox_param(tx->mail_from, "SMTPUTF8") != NULL;
	return body_job_start(filter, blob_len(body->raw), work_run, work_free, w);
}

static json_t *
verdict_json(const MimeVerdict *v)
{
	json_t *out = json_object();
	json_object_set_new(out, "status", json_integer(v->status));
	if (v->counted)
		json_object_set_new(out, "received_header_count", json_integer(v->received));
	if (v->err != NULL)
		json_object_set_new(out, "err", json_string(v->err));
	return out;
}

static FilterResult
validation_update(Filter *filter, unsigned news)
{
	State *s = (State *)filter->state;
	const TxBody *body = filter->down->body;
	if ((news & TX_NEW_BODY_FINAL) == 0 || s->done || body->raw == NULL)
		return FILTER_CONTINUE;
	if (s->job == NULL)
		s->job = start(filter, body);
	if (s->job != NULL && !s->job->finished)
		return FILTER_WAIT;
	s->done = true;
	const Work *w = s->job != NULL ? (const Work *)s->job->arg : NULL;
	if (w != NULL && w->good)
		filter_set_output(filter, verdict_json(&w->verdict));
	else
		filter_fail(filter, w != NULL && w->error != NULL ? w->error->message
								  : "the pool takes no more work");
	g_clear_pointer(&s->job, body_job_free);
	return FILTER_CONTINUE;
}

static void
validation_close(Filter *filter)
{
	State *s = (State *)filter->state;
	g_clear_pointer(&s->job, body_job_free);
}

const FilterKind filter_message_validation_kind = {
	.name = "message_validation",
	.output_name = "koukan.message_validation_filter.MessageValidationFilter",
	.doc = "Grades how well formed the message is (NONE, BASIC, MEDIUM, HIGH) and counts its "
	       "`Received:` fields, for policies to match on.",
	.flags = FILTER_WHOLE_BODY,
	.state_size = sizeof(State),
	.update = validation_update,
	.close = validation_close,
	.example = "- filter: message_validation\n",
};
