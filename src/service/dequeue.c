/* SPDX-License-Identifier: Apache-2.0 */
/* What is due comes back from the store: worker 0 asks, each row goes to the worker that its id
 * names. */
#include "base/error.h"
#include "base/ids.h"
#include "service/router_int.h"
#include "service/row.h"

#define POLL_INTERVAL      (1 * USEC_PER_SEC)
#define CLAIM_MAX          100  /* rows at once */
#define UNCONFIGURED_RETRY 3600 /* seconds; the operator may bring the sender back */
#define NEVER              INT64_C(253402300799) /* the end of the year 9999 */

typedef struct Due {
	RouterHome *home;
	StoreRow *row;
} Due;

static void
on_given_back(void *arg, const StoreResult *result)
{
	(void)arg;
	if (result->error != NULL)
		log_error(NULL, "store.give_back_failed", LOG_S("error", result->error->message));
}

/* A row that cannot be run is put off, and everything else goes on.  It is not made final:
 * somebody's mail may still be got out of it. */
static void
put_off(RouterHome *home, const StoreRow *row, int64_t until, const char *why)
{
	log_error(&((LogCtx){.tx = row->id}), "queue.put_off", LOG_S("error", why),
		  LOG_I("until", until), LOG_S("message", "kept in the store"));
	StoreRow *update = store_row_new();
	update->id = g_strdup(row->id);
	update->attempts = row->attempts;
	update->version = row->version + 1;
	update->responses = g_strdup(row->responses);
	update->creation = row->creation;
	update->next_attempt = until;
	store_update(home->router->store, update, on_given_back, NULL);
}

static void
run_due(void *arg)
{
	Due *due = arg;
	RouterHome *home = due->home;
	g_autoptr(StoreRow) row = due->row;
	g_free(due);
	g_autoptr(GError) error = NULL;
	g_autoptr(Tx) tx = tx_new(worker_defers(home->worker));
	if (!row_to_tx(row, tx, &error)) {
		put_off(home, row, NEVER, error->message);
		return;
	}
	const SenderConf *sender = conf_model_sender(home->router->config->model, row->sender,
						     row->tag);
	const EndpointConf *endpoint = sender != NULL && sender->output_chain != NULL
					       ? router_config_endpoint(home->router->config,
									sender->output_chain)
					       : NULL;
	if (endpoint == NULL) {
		put_off(home, row, clock_wall_sec() + UNCONFIGURED_RETRY,
			"its sender is no longer configured");
		return;
	}
	Output *output = output_new(home, tx, sender, endpoint, OUTPUT_FROM_QUEUE);
	output_set_row(output, row);
	output_start(output, NULL, NULL);
}

static void
on_claimed(void *arg, const StoreResult *result)
{
	Router *router = arg;
	router->claiming = false;
	if (result->error != NULL) {
		log_error(NULL, "store.claim_failed", LOG_S("error", result->error->message));
		timer_set(&router->poll, POLL_INTERVAL);
		return;
	}
	for (unsigned i = 0; result->damaged != NULL && i < result->damaged->len; i++)
		log_error(NULL, "queue.damaged_row",
			  LOG_S("error", g_ptr_array_index(result->damaged, i)));
	unsigned count = result->rows != NULL ? result->rows->len : 0;
	for (unsigned i = 0; i < count; i++) {
		Due *due = g_new0(Due, 1);
		due->row = g_ptr_array_steal_index_fast(result->rows, result->rows->len - 1);
		due->home =
			&router->homes[ids_tx_worker(due->row->id, workers_count(router->workers))];
		worker_post(due->home->worker, run_due, due);
	}
	timer_set(&router->poll, count == CLAIM_MAX ? 0 : POLL_INTERVAL);
}

static void
claim(void *arg)
{
	Router *router = arg;
	unsigned workers = workers_count(router->workers);
	if (atomic_load(&router->draining))
		return;
	if (router->claiming || router_active(router) >= router->active_max * workers / 2) {
		timer_set(&router->poll, POLL_INTERVAL / 10);
		return;
	}
	router->claiming = true;
	store_claim(router->store, clock_wall_sec(), CLAIM_MAX, CLAIM_MAX, NULL, on_claimed,
		    router);
}

void
router_dequeue_init(Router *router)
{
	timer_init(&router->poll, workers_get(router->workers, 0), claim, router);
}

void
router_start(Router *router)
{
	if (router->config->dequeue)
		timer_set(&router->poll, 0);
}

void
router_dequeue_clear(Router *router)
{
	timer_clear(&router->poll);
}
