/* SPDX-License-Identifier: Apache-2.0 */
/* Renders a message builder body to the bytes of a message (mime/build.h).  Bodies of other forms
 * pass through.  A spec that can never be rendered is refused before its parts have come. */
#include "base/error.h"
#include "base/json.h"
#include "filter/body_job.h"
#include "filter/kinds.h"
#include "mime/build.h"

#define BAD_SPEC "unexpected exception in MessageBuilder, likely invalid message_builder json"

typedef struct Work {
	TxBody *body; /* on the pool: a copy that shares nothing but blobs */
	Blob *message;
	GError *error;
} Work;

typedef struct State {
	BodyJob *job;
	bool checked; /* the dry run was done */
	bool done;
} State;

static void
work_run(void *arg)
{
	Work *w = (Work *)arg;
	w->message = mime_build(w->body, &w->error);
}

static void
work_free(void *arg)
{
	Work *w = (Work *)arg;
	tx_body_unref(w->body);
	blob_unref(w->message);
	g_clear_error(&w->error);
	g_free(w);
}

/* JSON and TxBody are not for two threads. */
static TxBody *
body_copy(const TxBody *body)
{
	g_autoptr(json_t) builder = json_deep_copy(body->builder);
	TxBody *copy = tx_body_new_builder(builder, NULL);
	for (guint i = 0; i < body->parts->len; i++) {
		const TxPart *part = (const TxPart *)g_ptr_array_index(body->parts, i);
		tx_body_add_part(copy, part->id, part->blob);
	}
	return copy;
}

static BodyJob *
start(Filter *filter, TxBody *body)
{
	Work *w = g_new0(Work, 1);
	uint64_t bytes = tx_body_len(body);
	w->body = bytes > BODY_JOB_INLINE_MAX ? body_copy(body) : tx_body_ref(body);
	return body_job_start(filter, bytes, work_run, work_free, w);
}

static void
refuse(Filter *filter, State *s, const GError *error)
{
	s->done = true;
	if (g_error_matches(error, K_ERROR, K_ERROR_INPUT))
		tx_answer_data(filter->down, response_newf(550, BAD_SPEC ": %s", error->message));
	else
		filter_fail(filter, error->message);
}

static void
dry_run(Filter *filter, State *s, const TxBody *body)
{
	g_autoptr(GError) error = NULL;
	s->checked = true;
	if (!mime_build_check(body->builder, &error))
		refuse(filter, s, error);
}

static void
finish(Filter *filter, State *s)
{
	Work *w = s->job != NULL ? (Work *)s->job->arg : NULL;
	s->done = true;
	if (w != NULL && w->message != NULL) {
		g_autoptr(TxBody) made = tx_body_new_raw(w->message);
		tx_set_body(filter->up, made);
	} else if (w != NULL && w->error != NULL) {
		refuse(filter, s, w->error);
	} else {
		filter_fail(filter, "the pool takes no more work");
	}
	g_clear_pointer(&s->job, body_job_free);
}

static FilterResult
builder_update(Filter *filter, unsigned news)
{
	State *s = (State *)filter->state;
	TxBody *body = filter->down->body;
	if ((news & (TX_NEW_BODY | TX_NEW_BODY_FINAL)) == 0)
		return FILTER_CONTINUE;
	if (body->raw != NULL) {
		filter_pass_body(filter, news);
		return FILTER_CONTINUE;
	}
	if ((news & TX_NEW_BODY_FINAL) == 0) {
		if (!s->checked)
			dry_run(filter, s, body);
		return FILTER_CONTINUE;
	}
	if (s->done)
		return FILTER_CONTINUE;
	if (s->job == NULL)
		s->job = start(filter, body);
	if (s->job != NULL && !s->job->finished)
		return FILTER_WAIT;
	finish(filter, s);
	return FILTER_CONTINUE;
}

static void
builder_close(Filter *filter)
{
	State *s = (State *)filter->state;
	g_clear_pointer(&s->job, body_job_free);
}

const FilterKind filter_message_builder_kind = {
	.name = "message_builder",
	.doc = "Renders a `message_builder` body to MIME; other bodies pass. Belongs in front of "
	       "every filter that reads the message.",
	.flags = FILTER_PROXY,
	.state_size = sizeof(State),
	.update = builder_update,
	.close = builder_close,
	.example = "- filter: message_builder\n",
};
