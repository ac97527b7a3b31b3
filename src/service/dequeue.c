/* SPDX-License-Identifier: Apache-2.0 */
/* What is due comes back from the store: worker 0 asks, each row goes to the worker that its id
 * names.  It asks when the store hints that something is due, when a destination that had all its
 * places taken has room again, and once a second whatever happens. */
#include "base/error.h"
#include "base/ids.h"
#include "service/router_int.h"
#include "service/row.h"

#define POLL_INTERVAL (1 * USEC_PER_SEC)
#define CLAIM_MAX     100                   /* rows at once */
#define NEVER         INT64_C(253402300799) /* the end of the year 9999 */
#define CLASH_PAUSE   (10 * USEC_PER_MS)
#define AGAIN_PAUSE                                                                                \
	(1 * USEC_PER_SEC) /* between two looks at a row that a former attempt holds               \
			    */

/* A claimed row on its way to an Output. */
typedef struct Due {
	RouterHome *home;
	StoreRow *row;
	bool again; /* an attempt of the former lease was at work here */
	Timer timer;
	struct Due *next, *prev; /* of those that wait, in the home */
} Due;

static void
due_free(Due *due)
{
	if (due->prev != NULL)
		due->prev->next = due->next;
	else if (due->home->waiting == due)
		due->home->waiting = due->next;
	if (due->next != NULL)
		due->next->prev = due->prev;
	timer_clear(&due->timer);
	store_row_free(due->row);
	g_free(due);
}

/* ---- rows that cannot be run ---- */

static void
on_given_back(void *arg, const StoreResult *result)
{
	(void)arg;
	if (result->error != NULL)
		log_error(NULL, "store.give_back_failed", LOG_S("error", result->error->message));
}

/* A row that cannot be run is put off, and everything else goes on.  It is not made final:
 * somebody's mail may still be got out of it.  `hold`: until an operator has looked. */
static void
put_off(RouterHome *home, const StoreRow *row, int64_t until, bool hold, const char *why)
{
	Store *store = home->router->store;
	log_error(&((LogCtx){.tx = row->id}), "queue.put_off", LOG_S("error", why),
		  LOG_I("until", until), LOG_B("held", hold),
		  LOG_S("message", "kept in the store"));
	StoreRow *update = store_row_new();
	update->id = g_strdup(row->id);
	update->attempts = row->attempts;
	update->version = row->version + 1;
	update->responses = g_strdup(row->responses);
	update->creation = row->creation;
	update->next_attempt = until;
	store_update(store, update, on_given_back, NULL);
	if (hold)
		store_act(store, row->id, STORE_HOLD, why, on_given_back, NULL);
	router_leave(home->router, row->destination, DESTINATION_QUEUED);
}

/* ---- rows that can ---- */

static void
start(RouterHome *home, const StoreRow *row)
{
	if (atomic_load(&home->router->draining)) {
		/* The end does not wait for what begins now, and might cut it off behind its final
		 * dot.  The lease goes back with the session. */
		log_debug(&((LogCtx){.tx = row->id}), "queue.not_started");
		router_leave(home->router, row->destination, DESTINATION_QUEUED);
		return;
	}
	g_autoptr(GError) error = NULL;
	g_autoptr(Tx) tx = tx_new(worker_defers(home->worker));
	if (!row_to_tx(row, tx, &error)) {
		put_off(home, row, NEVER, true, error->message);
		return;
	}
	const SenderConf *sender = conf_model_sender(home->router->config->model, row->sender,
						     row->tag);
	const EndpointConf *endpoint = sender != NULL && sender->output_chain != NULL
					       ? router_config_endpoint(home->router->config,
									sender->output_chain)
					       : NULL;
	if (endpoint == NULL) {
		put_off(home, row, clock_wall_sec() + UNCONFIGURED_RETRY, false,
			"its sender is no longer configured");
		return;
	}
	Output *output = output_new(home, tx, sender, endpoint, OUTPUT_FROM_QUEUE);
	output_set_row(output, row);
	output_start(output, NULL, NULL);
}

/* An attempt of a former lease has ended.  Either it wrote its result, by the lease that we have
 * got again, or it had lost the lease when it tried: then the row is still as it was claimed, and
 * nobody works on it. */
static void
on_looked(void *arg, const StoreResult *result)
{
	Due *due = arg;
	if (result->error != NULL && result->error->code != K_ERROR_NOT_FOUND) {
		timer_set(&due->timer, AGAIN_PAUSE);
		return;
	}
	const StoreRow *now = result->error == NULL ? g_ptr_array_index(result->rows, 0) : NULL;
	if (now != NULL && now->leased && now->owner_uri == NULL &&
	    now->version == due->row->version)
		start(due->home, due->row);
	else
		router_leave(due->home->router, due->row->destination, DESTINATION_QUEUED);
	due_free(due);
}

static void
run_due(void *arg)
{
	Due *due = arg;
	RouterHome *home = due->home;
	Tx *tx = rest_table_find(rest_table(&home->router->host, home->worker), due->row->id);
	Output *former = tx != NULL ? router_find(home, tx) : NULL;
	switch (former != NULL ? output_make_way(former) : OUTPUT_GONE) {
	case OUTPUT_GONE:
		if (due->again) {
			store_load(home->router->store, due->row->id, false, on_looked, due);
			return;
		}
		start(home, due->row);
		break;
	case OUTPUT_LEAVING:
		timer_set(&due->timer, CLASH_PAUSE);
		return;
	case OUTPUT_STAYS:
		/* Our lease had run out and we got it back: what is at work here goes on. */
		if (!due->again)
			log_warn(&((LogCtx){.tx = due->row->id}), "queue.claimed_again");
		due->again = true;
		timer_set(&due->timer, AGAIN_PAUSE);
		return;
	}
	due_free(due);
}

static void
take_due(void *arg)
{
	Due *due = arg;
	RouterHome *home = due->home;
	due->next = home->waiting;
	if (due->next != NULL)
		due->next->prev = due;
	home->waiting = due;
	timer_init(&due->timer, home->worker, run_due, due);
	run_due(due);
}

static void
log_damaged(const GPtrArray *damaged)
{
	for (unsigned i = 0; damaged != NULL && i < damaged->len; i++)
		log_error(NULL, "queue.set_aside", LOG_S("error", g_ptr_array_index(damaged, i)),
			  LOG_S("message", "kept in the store, held"));
}

static void
on_claimed(void *arg, const StoreResult *result)
{
	Router *router = arg;
	const bool again = router->claim_again;
	router->claiming = router->claim_again = false;
	if (result->error != NULL) {
		log_error(NULL, "store.claim_failed", LOG_S("error", result->error->message));
		timer_set(&router->poll, POLL_INTERVAL);
		return;
	}
	log_damaged(result->damaged);
	unsigned count = result->rows != NULL ? result->rows->len : 0;
	unsigned workers = workers_count(router->workers);
	while (result->rows != NULL && result->rows->len > 0) {
		Due *due = g_new0(Due, 1);
		due->row = g_ptr_array_steal_index(result->rows, 0);
		due->home = &router->homes[ids_tx_worker(due->row->id, workers)];
		destinations_enter(router->destinations, due->row->destination, DESTINATION_QUEUED);
		worker_post(due->home->worker, take_due, due);
	}
	timer_set(&router->poll, count > 0 || again ? 0 : POLL_INTERVAL);
}

static void
claim(void *arg)
{
	Router *router = arg;
	unsigned workers = workers_count(router->workers);
	if (atomic_load(&router->draining))
		return;
	replan_watch(&router->replan, router);
	if (router->claiming) {
		/* The claim under way may not know of what woke us: its answer asks again. */
		router->claim_again = true;
		return;
	}
	if (!store_is_leaseholder(router->store)) {
		timer_set(&router->poll, POLL_INTERVAL);
		return;
	}
	if (router_active(router) >= router->active_max * workers / 2) {
		timer_set(&router->poll, POLL_INTERVAL / 10);
		return;
	}
	router->claiming = true;
	g_autoptr(GPtrArray) busy = destinations_busy(router->destinations);
	store_claim(router->store, clock_wall_sec(), CLAIM_MAX,
		    destinations_slice(router->destinations), busy, on_claimed, router);
}

/* ---- being woken ---- */

static void
claim_soon(void *arg)
{
	Router *router = arg;
	atomic_store(&router->woken, false);
	if (router->started && !atomic_load(&router->draining))
		timer_set(&router->poll, 0);
}

static void
on_hint(void *arg)
{
	claim_soon(arg);
}

void
router_leave(Router *router, const char *destination, DestinationKind kind)
{
	if (destinations_leave(router->destinations, destination, kind) &&
	    !atomic_exchange(&router->woken, true))
		worker_post(workers_get(router->workers, 0), claim_soon, router);
}

void
router_dequeue_init(Router *router)
{
	Worker *worker = workers_get(router->workers, 0);
	timer_init(&router->poll, worker, claim, router);
	router->destinations = destinations_new((unsigned)router->config->koukan.per_destination);
	store_on_hint(router->store, worker, on_hint, router);
}

void
router_start(Router *router)
{
	if (router->config->dequeue) {
		router->started = true;
		timer_set(&router->poll, 0);
	}
	gc_start(&router->gc, router);
}

void
router_dequeue_clear(Router *router)
{
	store_on_hint(router->store, NULL, NULL, NULL);
	timer_clear(&router->poll);
	for (unsigned i = 0; i < workers_count(router->workers); i++) {
		while (router->homes[i].waiting != NULL)
			due_free(router->homes[i].waiting);
	}
}
