/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/spf_run.h"

struct SpfRun {
	Spf *spf;
	Dns *dns;
	DnsQuery *query;
	Timer timer;
	Defer defer; /* for what ends without a question */
	SpfRunFn *done;
	void *arg;
};

static void
told(void *arg)
{
	SpfRun *run = arg;
	timer_cancel(&run->timer);
	run->done(run->arg, run->spf);
}

static void go_on(SpfRun *run);

static void
on_dns(void *arg, const DnsAnswer *answer)
{
	SpfRun *run = arg;
	run->query = NULL;
	spf_answer(run->spf, answer);
	go_on(run);
}

static void
go_on(SpfRun *run)
{
	const char *name;
	DnsType type;
	if (spf_next(run->spf, &name, &type))
		run->query = dns_query(run->dns, name, type, on_dns, run);
	else
		told(run);
}

static void
on_timeout(void *arg)
{
	SpfRun *run = arg;
	dns_cancel(g_steal_pointer(&run->query));
	spf_give_up(run->spf, "the look-ups took too long");
	told(run);
}

SpfRun *
spf_run_start(Worker *worker, Dns *dns, const SpfParams *params, SpfRunFn *done, void *arg)
{
	SpfRun *run = g_new0(SpfRun, 1);
	const char *name;
	DnsType type;
	run->spf = spf_new(params);
	run->dns = dns;
	run->done = done;
	run->arg = arg;
	timer_init(&run->timer, worker, on_timeout, run);
	defer_init(&run->defer, told, run);
	if (dns == NULL)
		spf_give_up(run->spf, "there is no resolver");
	if (spf_next(run->spf, &name, &type)) {
		timer_set(&run->timer, SPF_TIMEOUT);
		run->query = dns_query(dns, name, type, on_dns, run);
	} else {
		defer_queue(worker_defers(worker), &run->defer);
	}
	return run;
}

void
spf_run_free(SpfRun *run)
{
	if (run == NULL)
		return;
	dns_cancel(run->query);
	defer_cancel(&run->defer);
	timer_clear(&run->timer);
	spf_free(run->spf);
	g_free(run);
}

const Spf *
spf_run_spf(const SpfRun *run)
{
	return run->spf;
}
