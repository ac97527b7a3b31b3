/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/arc_run.h"

struct ArcRun {
	ArcVerify *verify;
	Dns *dns;
	DnsQuery *query;
	Timer timer;
	Defer defer; /* for what ends without a question */
	ArcRunFn *done;
	void *arg;
};

static void
told(void *arg)
{
	ArcRun *run = arg;
	timer_cancel(&run->timer);
	run->done(run->arg);
}

static void on_key(void *arg, const DnsAnswer *answer);

/* False: decided. */
static bool
ask(ArcRun *run)
{
	g_autofree char *name = arc_verify_key_name(run->verify);
	if (name == NULL)
		return false;
	run->query = dns_query(run->dns, name, DNS_TXT, on_key, run);
	return true;
}

static void
on_key(void *arg, const DnsAnswer *answer)
{
	ArcRun *run = arg;
	run->query = NULL;
	arc_verify_key(run->verify, answer);
	if (!ask(run))
		told(run);
}

static void
on_timeout(void *arg)
{
	ArcRun *run = arg;
	dns_cancel(g_steal_pointer(&run->query));
	arc_verify_give_up(run->verify);
	told(run);
}

ArcRun *
arc_run_start(Worker *worker, Dns *dns, ArcVerify *verify, ArcRunFn *done, void *arg)
{
	ArcRun *run = g_new0(ArcRun, 1);
	*run = (ArcRun){.verify = verify, .dns = dns, .done = done, .arg = arg};
	timer_init(&run->timer, worker, on_timeout, run);
	defer_init(&run->defer, told, run);
	if (dns == NULL)
		arc_verify_give_up(verify);
	if (ask(run))
		timer_set(&run->timer, ARC_RUN_TIMEOUT);
	else
		defer_queue(worker_defers(worker), &run->defer);
	return run;
}

void
arc_run_free(ArcRun *run)
{
	if (run == NULL)
		return;
	dns_cancel(run->query);
	defer_cancel(&run->defer);
	timer_clear(&run->timer);
	g_free(run);
}
