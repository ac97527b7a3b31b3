/* SPDX-License-Identifier: Apache-2.0 */
#include "service/gc.h"

#include "service/router_int.h"

static void
on_collected(void *arg, const StoreResult *result)
{
	Gc *gc = arg;
	const RouterConfig *config = gc->router->config;
	gc->running = false;
	if (result->error != NULL)
		log_error(NULL, "store.collect_failed", LOG_S("error", result->error->message));
	else if (result->count > 0)
		log_info(NULL, "queue.collected", LOG_I("rows", result->count));
	bool more = result->error == NULL && result->count >= GC_SLICE;
	timer_set(&gc->timer, more ? GC_PAUSE : config->gc_interval);
}

static void
collect(void *arg)
{
	Gc *gc = arg;
	Router *router = gc->router;
	if (atomic_load(&router->draining) || gc->running)
		return;
	gc->running = true;
	store_collect(router->store, clock_wall_sec() - router->config->gc_ttl / USEC_PER_SEC,
		      GC_SLICE, on_collected, gc);
}

void
gc_start(Gc *gc, struct Router *router)
{
	if (router->config->gc_interval <= 0)
		return;
	gc->router = router;
	timer_init(&gc->timer, workers_get(router->workers, 0), collect, gc);
	timer_set(&gc->timer, router->config->gc_interval);
}

void
gc_clear(Gc *gc)
{
	if (gc->router != NULL)
		timer_clear(&gc->timer);
}
