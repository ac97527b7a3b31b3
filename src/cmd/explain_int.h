/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Shared by the files of `koukan explain`: explain.c (arguments, exit code), explain_run.c (the
 * chains, on their worker), explain_dns.c (answers from a file). */
#include <jansson.h>

#include "conf/config.h"
#include "loop/dns.h"
#include "tx/blob.h"

/* ---- answers of the DNS from a file (docs/explain.md) ---- */

typedef struct ExplainDns ExplainDns;

/* NULL after problems in the report. */
ExplainDns *explain_dns_load(const char *path, ConfReport *report);
void explain_dns_free(ExplainDns *dns); /* NULL is fine */
/* A DnsSourceFn; `arg`: the ExplainDns.  Any one thread. */
void explain_dns_answer(void *arg, const char *name, DnsType type, DnsAnswer *answer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ExplainDns, explain_dns_free)

/* ---- the run ---- */

typedef struct ExplainTask {
	const RouterConfig *config;
	const EndpointConf *endpoint;
	const SenderConf *sender; /* NULL: nobody has that chain */
	const char *hostname;
	const char *mail_from;
	const GPtrArray *rcpts; /* char* */
	Blob *message;
	/* The SMTP client; `remote` NULL: submitted over REST. */
	const HostPort *remote;
	const char *helo, *user;
	bool tls;
	ExplainDns *dns; /* NULL: ask as the configuration says */
	Usec timeout;
} ExplainTask;

#define EXPLAIN_RUNS_MAX 50 /* transactions that are followed, chains behind chains */

/* An array of what the chains did (docs/explain.md), the one that was asked about first; NULL and
 * *ret_error when none could be run.  The caller's thread waits. */
K_MUST_CHECK json_t *explain_run(const ExplainTask *task, GError **ret_error);
