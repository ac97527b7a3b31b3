/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/dkim_run.h"

#include "base/text.h"

typedef struct Ask {
	DkimRun *run;
	char *name; /* NULL: the signature needs no key, or shares the question of an earlier one */
	DnsQuery *query;
	unsigned index; /* of the signature */
} Ask;

struct DkimRun {
	DkimVerify *verify;
	Ask asks[DKIM_SIGNATURES_MAX];
	unsigned shares[DKIM_SIGNATURES_MAX]; /* whose question a signature waits for */
	unsigned count, open;
	Timer timer;
	Defer defer;
	DkimRunFn *done;
	void *arg;
};

static void
told(void *arg)
{
	DkimRun *run = arg;
	timer_cancel(&run->timer);
	run->done(run->arg);
}

static void
take(DkimRun *run, unsigned index, const DnsAnswer *answer)
{
	for (unsigned i = 0; i < run->count; i++)
		if (run->shares[i] == index)
			dkim_verify_key(run->verify, i, answer);
}

static void
on_key(void *arg, const DnsAnswer *answer)
{
	Ask *ask = arg;
	DkimRun *run = ask->run;
	ask->query = NULL;
	take(run, ask->index, answer);
	if (--run->open == 0)
		told(run);
}

static void
on_timeout(void *arg)
{
	DkimRun *run = arg;
	const DnsAnswer late = {.status = DNS_TEMP};
	for (unsigned i = 0; i < run->count; i++) {
		if (run->asks[i].query == NULL)
			continue;
		dns_cancel(g_steal_pointer(&run->asks[i].query));
		take(run, i, &late);
	}
	told(run);
}

static unsigned
same_name(const DkimRun *run, unsigned index, const char *name)
{
	for (unsigned i = 0; i < index; i++)
		if (text_equal_nocase(run->asks[i].name, name))
			return i;
	return index;
}

DkimRun *
dkim_run_start(Worker *worker, Dns *dns, DkimVerify *verify, DkimRunFn *done, void *arg)
{
	DkimRun *run = g_new0(DkimRun, 1);
	const DnsAnswer nobody = {.status = DNS_TEMP};
	*run = (DkimRun){.verify = verify, .done = done, .arg = arg};
	run->count = dkim_verify_count(verify);
	timer_init(&run->timer, worker, on_timeout, run);
	defer_init(&run->defer, told, run);
	for (unsigned i = 0; i < run->count; i++) {
		Ask *ask = &run->asks[i];
		g_autofree char *name = dkim_verify_key_name(verify, i);
		run->shares[i] = i;
		if (name == NULL)
			continue;
		if (dns == NULL) {
			dkim_verify_key(verify, i, &nobody);
			continue;
		}
		run->shares[i] = same_name(run, i, name);
		if (run->shares[i] != i)
			continue;
		*ask = (Ask){.run = run, .name = g_steal_pointer(&name), .index = i};
		run->open++;
		ask->query = dns_query(dns, ask->name, DNS_TXT, on_key, ask);
	}
	if (run->open > 0)
		timer_set(&run->timer, DKIM_RUN_TIMEOUT);
	else
		defer_queue(worker_defers(worker), &run->defer);
	return run;
}

void
dkim_run_free(DkimRun *run)
{
	if (run == NULL)
		return;
	for (unsigned i = 0; i < run->count; i++) {
		dns_cancel(run->asks[i].query);
		g_free(run->asks[i].name);
	}
	defer_cancel(&run->defer);
	timer_clear(&run->timer);
	g_free(run);
}
