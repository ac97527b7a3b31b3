/* SPDX-License-Identifier: Apache-2.0 */
#include "filter/body_job.h"

static void
job_run(void *arg)
{
	BodyJob *job = (BodyJob *)arg;
	job->run(job->arg);
}

static void
job_done(void *arg, bool ran)
{
	BodyJob *job = (BodyJob *)arg;
	job->finished = true;
	job->ran = ran;
	if (job->filter != NULL)
		filter_resume(job->filter);
	else
		body_job_free(job);
}

BodyJob *
body_job_start(Filter *filter, uint64_t bytes, void (*run)(void *arg), void (*free_arg)(void *arg),
	       void *arg)
{
	const FilterEnv *env = filter_env(filter);
	BodyJob *job = g_new0(BodyJob, 1);
	job->filter = filter;
	job->run = run;
	job->free_arg = free_arg;
	job->arg = arg;
	if (bytes <= BODY_JOB_INLINE_MAX || env->pool == NULL) {
		run(arg);
		job->finished = true;
		job->ran = true;
		return job;
	}
	if (pool_submit(env->pool, env->worker, job_run, job_done, job) != NULL)
		return job;
	free_arg(arg);
	g_free(job);
	return NULL;
}

void
body_job_free(BodyJob *job)
{
	if (job == NULL)
		return;
	job->filter = NULL;
	if (!job->finished)
		return; /* job_done frees it */
	job->free_arg(job->arg);
	g_free(job);
}
