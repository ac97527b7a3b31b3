/* SPDX-License-Identifier: Apache-2.0 */
/* Adds the parsed form (mime/parse.h) to a finished message when the destination asks for it
 * (`receive_parsing`).  A message that cannot be parsed goes on as it came. */
#include "filter/body_job.h"
#include "filter/kinds.h"
#include "mime/parse.h"

typedef struct Work {
	Blob *raw;
	MimeParseOptions options;
	TxBody *parsed; /* made by the job, moved to the worker */
	GError *error;
} Work;

typedef struct State {
	BodyJob *job;
} State;

static void
work_run(void *arg)
{
	Work *w = (Work *)arg;
	w->parsed = mime_parse(w->raw, &w->options, &w->error);
}

static void
work_free(void *arg)
{
	Work *w = (Work *)arg;
	blob_unref(w->raw);
	tx_body_unref(w->parsed);
	g_clear_error(&w->error);
	g_free(w);
}

static bool
wanted(const Filter *filter)
{
	const Tx *tx = filter->down;
	return tx->route != NULL && tx->route->receive_parsing && tx->body->builder == NULL;
}

static BodyJob *
start(Filter *filter)
{
	const Tx *tx = filter->down;
	Work *w = g_new0(Work, 1);
	w->raw = blob_ref(tx->body->raw);
	w->options.max_inline = tx->route->max_inline;
	return body_job_start(filter, blob_len(w->raw), work_run, work_free, w);
}

static void
finish(Filter *filter, State *s, unsigned news)
{
	Work *w = s->job != NULL ? (Work *)s->job->arg : NULL;
	if (w != NULL && w->parsed != NULL) {
		tx_set_body(filter->up, w->parsed);
	} else {
		log_warn(&filter_env(filter)->log, "message_parser.raw",
			 LOG_S("error", w != NULL && w->error != NULL
						? w->error->message
						: "the pool takes no more work"));
		filter_pass_body(filter, news);
	}
	g_clear_pointer(&s->job, body_job_free);
}

static FilterResult
parser_update(Filter *filter, unsigned news)
{
	State *s = (State *)filter->state;
	if ((news & (TX_NEW_BODY | TX_NEW_BODY_FINAL)) == 0)
		return FILTER_CONTINUE;
	if (filter->up->body != NULL || !wanted(filter)) {
		if (filter->up->body == NULL || filter->up->body == filter->down->body)
			filter_pass_body(filter, news);
		return FILTER_CONTINUE;
	}
	if ((news & TX_NEW_BODY_FINAL) == 0)
		return FILTER_CONTINUE;
	if (s->job == NULL)
		s->job = start(filter);
	if (s->job != NULL && !s->job->finished)
		return FILTER_WAIT;
	finish(filter, s, news);
	return FILTER_CONTINUE;
}

static void
parser_close(Filter *filter)
{
	State *s = (State *)filter->state;
	g_clear_pointer(&s->job, body_job_free);
}

const FilterKind filter_message_parser_kind = {
	.name = "message_parser",
	.doc = "Adds the parsed form of the message for destinations with `receive_parsing`. Must "
	       "follow the `router`.",
	.flags = FILTER_PROXY,
	.state_size = sizeof(State),
	.update = parser_update,
	.close = parser_close,
	.example = "- filter: router\n"
		   "  destination:\n"
		   "    endpoint: gateway\n"
		   "    host_list: [{host: 192.0.2.25, port: 25}]\n"
		   "    options: {receive_parsing: {max_inline: 65536}}\n"
		   "- filter: message_parser\n",
};
