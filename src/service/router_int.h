/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What router.c, router_rest.c, dequeue.c, gc.c, output.c and admin.c share. */
#include <stdatomic.h>

#include "service/destinations.h"
#include "service/gc.h"
#include "service/output.h"
#include "service/replan.h"
#include "service/router.h"

/* The router's part of one worker; touched by that worker alone, but for the counts. */
typedef struct RouterHome {
	Router *router;
	Worker *worker;
	const FilterEnv *env;
	GHashTable *outputs;   /* Tx* -> Output*; the outputs are owned here */
	atomic_uint active;    /* outputs that are not done */
	atomic_uint unwritten; /* outputs whose row does not show the newest state yet */
	struct Due *waiting;   /* rows claimed whose former Output is still here; dequeue.c */
} RouterHome;

struct Router {
	RestHost host; /* first: RestHost* is Router* */
	RouterConfig *config;
	Workers *workers;
	Store *store;
	RouterHome *homes; /* one per worker */
	atomic_bool draining;
	unsigned active_max; /* per worker */
	unsigned fresh_max;  /* attempts to one destination that begin with the submission */
	char *session_uri, *service_uri;
	Destinations *destinations;
	atomic_bool woken; /* a claim has been posted to worker 0 */

	/* dequeue and garbage collection, worker 0 only */
	Timer poll;
	bool started, claiming, claim_again;
	Replan replan;
	Gc gc;
};

#define UNCONFIGURED_RETRY 3600 /* seconds until a row whose sender is gone is looked at again */
#define ROUTER_ACTIVE_MIN  1000 /* least cap of active transactions of one worker */

static inline RouterHome *
router_home(Router *router, const Worker *worker)
{
	return &router->homes[worker_index(worker)];
}
Output *router_find(RouterHome *home, const Tx *tx); /* NULL */
bool router_is_full(const RouterHome *home);

/* dequeue.c */
/* An attempt has ended.  Any thread. */
void router_leave(Router *router, const char *destination, DestinationKind kind);
void router_dequeue_init(Router *router);
void router_dequeue_clear(Router *router);
/* router_rest.c */
void router_rest_init(Router *router);
