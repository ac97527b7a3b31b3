/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What router.c, router_rest.c, dequeue.c and output.c share. */
#include <stdatomic.h>

#include "service/output.h"
#include "service/router.h"

/* The router's part of one worker; touched by that worker alone, but for `active`. */
typedef struct RouterHome {
	Router *router;
	Worker *worker;
	const FilterEnv *env;
	GHashTable *outputs; /* Tx* -> Output*; the outputs are owned here */
	atomic_uint active;  /* outputs that are not done */
} RouterHome;

struct Router {
	RestHost host; /* first: RestHost* is Router* */
	RouterConfig *config;
	Workers *workers;
	Store *store;
	RouterHome *homes; /* one per worker */
	atomic_bool draining;
	unsigned active_max; /* per worker */
	char *session_uri, *service_uri;

	/* dequeue, worker 0 only */
	Timer poll;
	bool claiming;
};

#define ROUTER_ACTIVE_MIN 1000 /* least cap of active transactions of one worker */

static inline RouterHome *
router_home(Router *router, const Worker *worker)
{
	return &router->homes[worker_index(worker)];
}
Output *router_find(RouterHome *home, const Tx *tx); /* NULL */
bool router_is_full(const RouterHome *home);

/* dequeue.c */
void router_dequeue_init(Router *router);
void router_dequeue_clear(Router *router);
/* router_rest.c */
void router_rest_init(Router *router);
