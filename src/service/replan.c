/* SPDX-License-Identifier: Apache-2.0 */
#include "service/replan.h"

#include "base/clock.h"
#include "service/router_int.h"

#define JUMP (5 * USEC_PER_SEC) /* less is not worth the work */

/* The longest that any row is put off, in seconds. */
static int64_t
longest_pause(const RouterConfig *config)
{
	int64_t longest = UNCONFIGURED_RETRY;
	for (guint i = 0; i < config->endpoints->len; i++) {
		const EndpointConf *endpoint = g_ptr_array_index(config->endpoints, i);
		if (endpoint->has_retry)
			longest = MAX(longest, MAX(endpoint->retry.max_attempt_time,
						   endpoint->retry.min_attempt_time));
	}
	return longest + longest / 10 + REPLAN_SLACK; /* the tenth: the jitter of tx/retry.h */
}

static void on_replanned(void *arg, const StoreResult *result);

static void
run(Router *router)
{
	router->replan.running = true;
	store_replan(router->store, clock_wall_sec() + longest_pause(router->config), REPLAN_SLICE,
		     on_replanned, router);
}

static void
on_replanned(void *arg, const StoreResult *result)
{
	Router *router = arg;
	router->replan.running = false;
	if (result->error != NULL) {
		log_error(NULL, "store.replan_failed", LOG_S("error", result->error->message));
		router->replan.started = false; /* so that it is tried again */
		return;
	}
	if (result->count == 0)
		return;
	log_warn(
		NULL, "queue.replanned", LOG_I("rows", result->count),
		LOG_S("reason", "they waited for longer than any retry: the clock had been ahead"));
	if (result->count >= REPLAN_SLICE && !atomic_load(&router->draining))
		run(router);
}

void
replan_watch(Replan *replan, struct Router *router)
{
	const int64_t ahead = clock_wall() - clock_mono();
	const bool went_back = replan->started && ahead < replan->ahead - JUMP;
	if (went_back)
		log_warn(NULL, "clock.went_back",
			 LOG_I("seconds", (replan->ahead - ahead) / USEC_PER_SEC));
	if ((went_back || !replan->started) && !replan->running) {
		replan->started = true;
		run(router);
	}
	replan->ahead = ahead;
}
