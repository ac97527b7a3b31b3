/* SPDX-License-Identifier: Apache-2.0 */
/* The Authenticated Received Chain of the finished message (RFC 8617).  A signal; a policy decides
 * whose word about a forwarded message counts. */
#include "base/clock.h"
#include "filter/body_job.h"
#include "filter/kinds.h"
#include "mailauth/arc_run.h"

typedef struct Work {
	Blob *raw;
	ArcVerify *verify; /* NULL: it could not be read */
	GError *error;
} Work;

typedef struct ArcState {
	BodyJob *job;
	ArcRun *run;
	bool keys_known, done;
} ArcState;

static void
work_run(void *arg)
{
	Work *w = arg;
	w->verify = arc_verify_message(w->raw, clock_wall_sec(), &w->error);
}

static void
work_free(void *arg)
{
	Work *w = arg;
	blob_unref(w->raw);
	arc_verify_free(w->verify);
	g_clear_error(&w->error);
	g_free(w);
}

static void
publish(Filter *filter, const ArcVerify *verify)
{
	const ArcResult *result = arc_verify_result(verify);
	json_t *output = json_object(), *sealers = json_array();
	json_object_set_new(output, "result", json_string(arc_status_names[result->status]));
	json_object_set_new(output, "instances", json_integer(result->count));
	for (unsigned i = 0; i < result->count; i++) {
		const char *sealer = arc_verify_sealer(verify, i);
		if (sealer != NULL)
			json_array_append_new(sealers, json_string(sealer));
	}
	json_object_set_new(output, "sealers", sealers);
	if (result->reason != NULL)
		json_object_set_new(output, "reason", json_string(result->reason));
	if (result->instance > 0)
		json_object_set_new(output, "failed_instance", json_integer(result->instance));
	filter_set_output(filter, output);
}

static void
on_keys(void *arg)
{
	Filter *filter = arg;
	((ArcState *)filter->state)->keys_known = true;
	filter_resume(filter);
}

static FilterResult
give_up(Filter *filter, ArcState *state, const Work *w)
{
	filter_fail(filter, w != NULL && w->error != NULL ? w->error->message
							  : "the pool takes no more work");
	state->done = true;
	return FILTER_STOP;
}

static FilterResult
arc_check_update(Filter *filter, unsigned news)
{
	ArcState *state = filter->state;
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
		state->run = arc_run_start(env->worker, env->dns, w->verify, on_keys, filter);
	if (!state->keys_known)
		return FILTER_WAIT;
	state->done = true;
	publish(filter, w->verify);
	return FILTER_CONTINUE;
}

static void
arc_check_close(Filter *filter)
{
	ArcState *state = filter->state;
	g_clear_pointer(&state->run, arc_run_free);
	g_clear_pointer(&state->job, body_job_free);
}

const FilterKind filter_arc_check_kind = {
	.name = "arc_check",
	.output_name = "arc",
	.doc = "Verifies the chain of those who handled the message before us (ARC, RFC 8617): at "
	       "most 50 sets, one key after the other, for at most 20 seconds.",
	.flags = FILTER_WHOLE_BODY,
	.state_size = sizeof(ArcState),
	.update = arc_check_update,
	.close = arc_check_close,
	.example = "- filter: arc_check\n",
};
