/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A resolver for a verb that asks something and prints the answer: one worker, started, used for
 * one piece of work and stopped.  The caller's thread waits. */
#include "loop/dns.h"

typedef struct DnsTool DnsTool;

/* Begins the work on the worker; it ends when dns_tool_done is called there.  `stop` then frees
 * what belongs to the worker. */
typedef struct DnsToolWork {
	void (*start)(DnsTool *tool, Worker *worker, Dns *dns, void *arg);
	void (*stop)(void *arg);
} DnsToolWork;

/* `server`: "host" or "host@port"; NULL: the system's resolvers. */
K_MUST_CHECK bool dns_tool_run(const char *server, const DnsToolWork *work, void *arg,
			       GError **ret_error);
/* The same with a resolver of the caller's choice: `source`, or, when that is NULL, `config`. */
K_MUST_CHECK bool dns_tool_run_as(const DnsConfig *config, DnsSourceFn *source, void *source_arg,
				  const DnsToolWork *work, void *arg, GError **ret_error);
void dns_tool_done(DnsTool *tool);
