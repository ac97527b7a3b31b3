/* SPDX-License-Identifier: Apache-2.0 */
/* DKIM signatures of the finished message (behaviour spec 9.6; RFC 6376, 8301, 8463).  The results
 * are signals: a policy decides what follows from them.  Unlike the original it needs no other
 * filter in front, and names the signing domain. */
#include <string.h>

#include "base/clock.h"
#include "filter/body_job.h"
#include "filter/kinds.h"
#include "mailauth/dkim_message.h"
#include "mailauth/dkim_run.h"
#include "mailauth/psl.h"
#include "mime/validate.h"

typedef struct Work {
	Blob *raw;
	DkimVerify *verify; /* NULL: it could not be read */
	char *from;         /* the one From address, or NULL */
	GError *error;
} Work;

typedef struct CheckState {
	BodyJob *job;
	DkimRun *run;
	bool keys_known, done;
} CheckState;

static void
work_run(void *arg)
{
	Work *w = arg;
	w->verify = dkim_verify_message(w->raw, (int64_t)clock_wall_sec(), &w->error);
	if (w->verify != NULL && dkim_verify_count(w->verify) > 0)
		w->from = mime_from_address(w->raw);
}

static void
work_free(void *arg)
{
	Work *w = arg;
	blob_unref(w->raw);
	dkim_verify_free(w->verify);
	g_free(w->from);
	g_clear_error(&w->error);
	g_free(w);
}

/* ---- the output ---- */

static bool
is_known_elsewhere(const Tag *tag)
{
	static const char *const names[] = {"h", "d", "b", "bh"};
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
		if (strlen(names[i]) == tag->name_len &&
		    memcmp(names[i], tag->name, tag->name_len) == 0)
			return true;
	return false;
}

/* NULL when it is not UTF-8. */
static json_t *
tag_json(const Tag *tag)
{
	g_autofree char *text = tag_text(tag);
	return json_string(text);
}

static json_t *
tags_json(const TagList *list, json_t *result)
{
	json_t *tags = json_object();
	for (size_t i = 0; i < list->n; i++) {
		const Tag *tag = &list->tags[i];
		g_autofree char *name = g_strndup(tag->name, tag->name_len);
		int64_t number;
		bool time = strcmp(name, "t") == 0 || strcmp(name, "x") == 0;
		if (is_known_elsewhere(tag))
			continue;
		if (time && tag_number(tag, &number))
			json_object_set_new(result, *name == 't' ? "timestamp" : "expiration",
					    json_integer(number));
		else
			json_object_set_new(tags, name, tag_json(tag));
	}
	return tags;
}

static json_t *
names_json(char *const *names)
{
	json_t *list = json_array();
	for (; *names != NULL; names++)
		json_array_append_new(list, json_string(*names));
	return list;
}

static json_t *
result_json(const DkimResult *r, const char *from)
{
	const char *at = from != NULL ? strrchr(from, '@') : NULL;
	json_t *result = json_object();
	json_object_set_new(result, "status", json_integer(r->status));
	json_object_set_new(result, "alignment",
			    json_integer(psl_alignment(r->domain, at != NULL ? at + 1 : NULL)));
	if (r->domain != NULL)
		json_object_set_new(result, "domain", json_string(r->domain));
	if (r->names != NULL)
		json_object_set_new(result, "headers", names_json(r->names));
	json_t *tags = tags_json(&r->tags, result);
	if (json_object_size(tags) > 0)
		json_object_set_new(result, "tags", tags);
	else
		json_decref(tags);
	return result;
}

static void
publish(Filter *filter, const Work *w)
{
	json_t *results = json_array();
	for (unsigned i = 0; i < dkim_verify_count(w->verify); i++)
		json_array_append_new(results,
				      result_json(dkim_verify_result(w->verify, i), w->from));
	json_t *output = json_object();
	json_object_set_new(output, "results", results);
	filter_set_output(filter, output);
}

/* ---- the filter ---- */

static void
on_keys(void *arg)
{
	Filter *filter = arg;
	((CheckState *)filter->state)->keys_known = true;
	filter_resume(filter);
}

static FilterResult
give_up(Filter *filter, CheckState *state, const Work *w)
{
	filter_fail(filter, w != NULL && w->error != NULL ? w->error->message
							  : "the pool takes no more work");
	state->done = true;
	return FILTER_STOP;
}

static FilterResult
dkim_check_update(Filter *filter, unsigned news)
{
	CheckState *state = filter->state;
	const FilterEnv *env = filter_env(filter);
	const TxBody *body = filter->down->body;
	if ((news & TX_NEW_BODY_FINAL) == 0 || body->raw == NULL || state->done)
		return FILTER_CONTINUE;
	if (state->job == NULL) {
		Work *w = g_new0(Work, 1);
		w->raw = blob_ref(body->raw);
		state->job = body_job_start(filter, blob_len(w->raw), work_run, work_free, w);
	}
	if (state->job == NULL)
		return give_up(filter, state, NULL);
	if (!state->job->finished)
		return FILTER_WAIT;
	const Work *w = state->job->arg;
	if (w->verify == NULL)
		return give_up(filter, state, w);
	if (state->run == NULL)
		state->run = dkim_run_start(env->worker, env->dns, w->verify, on_keys, filter);
	if (!state->keys_known)
		return FILTER_WAIT;
	state->done = true;
	publish(filter, w);
	return FILTER_CONTINUE;
}

static void
dkim_check_close(Filter *filter)
{
	CheckState *state = filter->state;
	g_clear_pointer(&state->run, dkim_run_free);
	g_clear_pointer(&state->job, body_job_free);
}

const FilterKind filter_dkim_check_kind = {
	.name = "dkim_check",
	.output_name = "koukan.dkim_check_filter.DkimCheckFilter",
	.doc = "Verifies the DKIM signatures of the message (at most 10) and compares their domains "
	       "with that of From.",
	.flags = FILTER_WHOLE_BODY,
	.state_size = sizeof(CheckState),
	.update = dkim_check_update,
	.close = dkim_check_close,
	.example = "- filter: dkim_check\n",
};
