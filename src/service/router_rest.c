/* SPDX-License-Identifier: Apache-2.0 */
/* The router as a host of REST resources (rest/host.h). */
#include <string.h>

#include "base/error.h"
#include "base/ids.h"
#include "service/router_int.h"
#include "service/row.h"

static const EndpointConf *
find_endpoint(const Router *router, const char *sender, const char *tag,
	      const SenderConf **ret_sender)
{
	*ret_sender = conf_model_sender(router->config->model, sender, tag);
	if (*ret_sender == NULL || (*ret_sender)->output_chain == NULL)
		return NULL;
	return router_config_endpoint(router->config, (*ret_sender)->output_chain);
}

static RestVerdict
admit(RestHost *host, const char *sender_name, const char *tag, bool *ret_incremental)
{
	const Router *router = (const Router *)host;
	const SenderConf *sender = NULL;
	const EndpointConf *endpoint = find_endpoint(router, sender_name, tag, &sender);
	if (sender == NULL)
		return (RestVerdict){.status = 404, .text = "unknown sender or tag"};
	if (endpoint == NULL)
		return (RestVerdict){.status = 404, .text = "the sender has no output chain"};
	if (atomic_load(&router->draining))
		return (RestVerdict){.status = 503, .text = "shutting down"};
	*ret_incremental = endpoint->chain->incremental;
	return (RestVerdict){.status = 0};
}

/* An answer that is known at once but must not fire inside the call. */
typedef struct Later {
	Defer defer;
	RestVerdict verdict;
	RestDoneFn *done;
	void *arg;
} Later;

static void
later_run(void *arg)
{
	Later *later = arg;
	later->done(later->arg, &later->verdict);
	g_free(later);
}

static void
answer_later(Worker *worker, RestVerdict verdict, RestDoneFn *done, void *arg)
{
	Later *later = g_new0(Later, 1);
	*later = (Later){.verdict = verdict, .done = done, .arg = arg};
	defer_init(&later->defer, later_run, later);
	defer_queue(worker_defers(worker), &later->defer);
}

static void
create_now(RestHost *host, Worker *worker, Tx *tx, RestDoneFn *done, void *arg)
{
	Router *router = (Router *)host;
	RouterHome *home = router_home(router, worker);
	const SenderConf *sender = NULL;
	const EndpointConf *endpoint = find_endpoint(router, tx->sender_name, tx->sender_tag,
						     &sender);
	if (endpoint == NULL) {
		answer_later(worker, (RestVerdict){.status = 404, .text = "unknown sender or tag"},
			     done, arg);
	} else if (router_is_full(home)) {
		answer_later(worker, (RestVerdict){.status = 503, .text = "too many transactions"},
			     done, arg);
	} else {
		Output *output = output_new(home, tx, sender, endpoint, OUTPUT_FROM_REST);
		tx_created(tx);
		output_start(output, done, arg);
	}
}

/* ---- idempotency keys ---- */

/* A transaction whose row will not be written at once: its key is written before it is made, and
 * taken back when it is not. */
typedef struct KeyCall {
	Router *router;
	Worker *worker;
	Tx *tx;
	RestDoneFn *done;
	void *arg;
} KeyCall;

static StoreRow *
key_row(const Tx *tx, int64_t until)
{
	StoreRow *row = store_row_new();
	row->id = g_strdup(tx->id);
	row->idem_key = g_strdup(tx->idem_key);
	row->idem_hash = g_strdup(tx->idem_hash);
	row->idem_until = until;
	return row;
}

static void
key_answer(KeyCall *call, const RestVerdict *verdict)
{
	call->done(call->arg, verdict);
	tx_unref(call->tx);
	g_free(call);
}

static void
on_made(void *arg, const RestVerdict *verdict)
{
	KeyCall *call = arg;
	if (verdict->status != 200 && verdict->status != 201)
		store_idem_put(call->router->store, key_row(call->tx, 0), NULL, NULL);
	key_answer(call, verdict);
}

static void
on_key_kept(void *arg, const StoreResult *result)
{
	KeyCall *call = arg;
	if (result->error == NULL) {
		create_now(&call->router->host, call->worker, call->tx, on_made, call);
		return;
	}
	RestVerdict no = {.status = 503, .text = "the store does not answer"};
	if (g_error_matches(result->error, K_ERROR, K_ERROR_CONFLICT))
		no = (RestVerdict){.status = 409, .text = "the idempotency key is in use"};
	else
		log_error(NULL, "store.key_failed", LOG_S("error", result->error->message));
	key_answer(call, &no);
}

/* Its row is written before its creation is acknowledged, and the key with it. */
static bool
is_stored_at_once(const Router *router, const Tx *tx)
{
	const SenderConf *sender = NULL;
	const EndpointConf *endpoint = find_endpoint(router, tx->sender_name, tx->sender_tag,
						     &sender);
	return endpoint != NULL && sender->retry && endpoint->has_retry && tx_body_ready(tx);
}

static void
create(RestHost *host, Worker *worker, Tx *tx, RestDoneFn *done, void *arg)
{
	Router *router = (Router *)host;
	if (tx->idem_key == NULL || is_stored_at_once(router, tx)) {
		create_now(host, worker, tx, done, arg);
		return;
	}
	KeyCall *call = g_new0(KeyCall, 1);
	*call = (KeyCall){router, worker, tx_ref(tx), done, arg};
	store_idem_put(router->store, key_row(tx, tx->idem_until), on_key_kept, call);
}

typedef struct FindCall {
	RestKeyFn *done;
	void *arg;
} FindCall;

static RestVerdict store_verdict(const GError *error, const char *not_found);

static void
on_key(void *arg, const StoreResult *result)
{
	g_autofree FindCall *call = arg;
	if (result->error != NULL) {
		const RestVerdict no = store_verdict(result->error, "no such key");
		call->done(call->arg, &no, NULL, NULL);
		return;
	}
	const StoreRow *row = g_ptr_array_index(result->rows, 0);
	bool here = row->owner_uri == NULL || row->owner_uri[0] == '\0';
	const RestVerdict verdict = {.status = here ? 200 : 308, .location = row->owner_uri};
	call->done(call->arg, &verdict, here ? row->id : NULL, here ? row->idem_hash : NULL);
}

static void
find_key(RestHost *host, Worker *worker, const char *key, RestKeyFn *done, void *arg)
{
	(void)worker;
	FindCall *call = g_new0(FindCall, 1);
	*call = (FindCall){done, arg};
	store_idem_get(((Router *)host)->store, key, on_key, call);
}

/* ---- from the store ---- */

typedef struct LoadCall {
	Worker *worker;
	RestLoadFn *done;
	void *arg;
} LoadCall;

static RestVerdict
store_verdict(const GError *error, const char *not_found)
{
	if (g_error_matches(error, K_ERROR, K_ERROR_NOT_FOUND))
		return (RestVerdict){.status = 404, .text = not_found};
	log_error(NULL, "store.read_failed", LOG_S("error", error->message));
	return (RestVerdict){.status = 503, .text = "the store does not answer"};
}

/* Another process works on it, and knows more than the row. */
static bool
is_elsewhere(const StoreRow *row)
{
	return row->leased && row->owner_uri != NULL && row->owner_uri[0] != '\0';
}

static void
on_loaded(void *arg, const StoreResult *result)
{
	g_autofree LoadCall *call = arg;
	if (result->error != NULL) {
		const RestVerdict no = store_verdict(result->error, "unknown tx");
		call->done(call->arg, &no, NULL);
		return;
	}
	g_autoptr(GError) error = NULL;
	g_autoptr(Tx) tx = tx_new(worker_defers(call->worker));
	const StoreRow *row = g_ptr_array_index(result->rows, 0);
	if (is_elsewhere(row)) {
		const RestVerdict there = {
			.status = 308, .location = row->owner_uri, .sender = row->sender};
		call->done(call->arg, &there, NULL);
		return;
	}
	if (!row_to_tx(row, tx, &error)) {
		log_error(&((LogCtx){.tx = row->id}), "store.bad_row",
			  LOG_S("error", error->message));
		const RestVerdict no = {.status = 500, .text = "the stored transaction is damaged"};
		call->done(call->arg, &no, NULL);
		return;
	}
	const RestVerdict yes = {.status = 200};
	call->done(call->arg, &yes, tx);
}

static void
load(RestHost *host, Worker *worker, const char *id, RestLoadFn *done, void *arg)
{
	LoadCall *call = g_new0(LoadCall, 1);
	*call = (LoadCall){worker, done, arg};
	store_load(((Router *)host)->store, id, false, on_loaded, call);
}

static void
complete(RestHost *host, Tx *tx, RestDoneFn *done, void *arg)
{
	Worker *worker = worker_current();
	Output *output = router_find(router_home((Router *)host, worker), tx);
	if (output == NULL)
		answer_later(worker, (RestVerdict){.status = 404, .text = "unknown transaction"},
			     done, arg);
	else if (output_is_unkept(output))
		answer_later(worker,
			     (RestVerdict){.status = 503, .text = "the message was not stored"},
			     done, arg);
	else
		output_complete(output, done, arg);
}

/* ---- cancel ---- */

typedef struct CancelCall {
	Router *router;
	char *id;
	RestDoneFn *done;
	void *arg;
} CancelCall;

static void
cancel_answer(CancelCall *call, RestVerdict verdict)
{
	call->done(call->arg, &verdict);
	g_free(call->id);
	g_free(call);
}

/* It is leased: by whom? */
static void
on_owner_loaded(void *arg, const StoreResult *result)
{
	CancelCall *call = arg;
	const StoreRow *row = result->error == NULL ? g_ptr_array_index(result->rows, 0) : NULL;
	if (row != NULL && is_elsewhere(row))
		cancel_answer(call, (RestVerdict){.status = 308, .location = row->owner_uri});
	else if (row != NULL && row->final_reason != NULL)
		cancel_answer(call, (RestVerdict){.status = 200});
	else
		cancel_answer(call, (RestVerdict){.status = 503,
						  .text = "an attempt is under way, try again"});
}

static void
on_cancelled(void *arg, const StoreResult *result)
{
	CancelCall *call = arg;
	/* Unknown: 200 all the same (behaviour spec 4.7). */
	if (result->error == NULL || g_error_matches(result->error, K_ERROR, K_ERROR_NOT_FOUND))
		cancel_answer(call, (RestVerdict){.status = 200});
	else if (g_error_matches(result->error, K_ERROR, K_ERROR_CONFLICT))
		store_load(call->router->store, call->id, false, on_owner_loaded, call);
	else
		cancel_answer(call, store_verdict(result->error, NULL));
}

static void
cancel(RestHost *host, Worker *worker, const char *id, Tx *tx, RestDoneFn *done, void *arg)
{
	Router *router = (Router *)host;
	Output *output = tx != NULL ? router_find(router_home(router, worker), tx) : NULL;
	if (output != NULL && output_state(output) != OUTPUT_PARKED) {
		output_cancel(output, done, arg);
		return;
	}
	CancelCall *call = g_new0(CancelCall, 1);
	*call = (CancelCall){.router = router, .id = g_strdup(id), .done = done, .arg = arg};
	store_cancel(router->store, id, "downstream cancelled", on_cancelled, call);
}

/* ---- reuse: asker's worker -> owner's table -> store -> asker ---- */

typedef struct ReuseCall {
	Router *router;
	Worker *asker, *owner;
	char *id, *name;
	const RestPrincipal *who;
	Blob *blob; /* found */
	RestVerdict verdict;
	RestBlobFn *done;
	void *arg;
} ReuseCall;

static void
reuse_answer(void *arg)
{
	ReuseCall *call = arg;
	call->done(call->arg, &call->verdict, call->blob);
	blob_unref(call->blob);
	g_free(call->id);
	g_free(call->name);
	g_free(call);
}

static void
on_reused(void *arg, const StoreResult *result)
{
	ReuseCall *call = arg;
	if (result->error != NULL) {
		call->verdict = store_verdict(result->error, "reuse_uri names no finished blob");
	} else {
		const StoreRow *row = g_ptr_array_index(result->rows, 0);
		const StoreBlob *stored = g_ptr_array_index(row->blobs, 0);
		call->verdict.status = 200;
		call->blob = blob_ref(stored->blob);
	}
	worker_post(call->asker, reuse_answer, call);
}

static Blob *
find_blob(const Tx *tx, const char *name)
{
	if (tx == NULL || tx->body == NULL)
		return NULL;
	if (name == NULL)
		return tx->body->raw;
	const TxPart *part = tx_body_part(tx->body, name);
	return part != NULL ? part->blob : NULL;
}

/* Whose is it? */
static void
on_source_loaded(void *arg, const StoreResult *result)
{
	ReuseCall *call = arg;
	const StoreRow *row = result->error == NULL ? g_ptr_array_index(result->rows, 0) : NULL;
	if (row != NULL && rest_principal_may(call->who, row->sender)) {
		store_reuse(call->router->store, call->id, call->name, on_reused, call);
		return;
	}
	if (row != NULL)
		call->verdict = (RestVerdict){.status = 404, .text = "reuse_uri names no blob"};
	else
		call->verdict = store_verdict(result->error, "reuse_uri names no blob");
	worker_post(call->asker, reuse_answer, call);
}

static void
reuse_on_owner(void *arg)
{
	ReuseCall *call = arg;
	Store *store = call->router->store;
	Tx *tx = rest_table_find(rest_table(&call->router->host, call->owner), call->id);
	Blob *blob = find_blob(tx, call->name);
	if (tx == NULL && call->who != NULL && !call->who->all_senders) {
		store_load(store, call->id, false, on_source_loaded, call);
		return;
	}
	if (tx == NULL) {
		store_reuse(store, call->id, call->name, on_reused, call);
		return;
	}
	if (!rest_principal_may(call->who, tx->sender_name))
		blob = NULL;
	if (blob != NULL && blob_is_final(blob)) {
		call->verdict.status = 200;
		call->blob = blob_ref(blob);
	} else {
		call->verdict = (RestVerdict){.status = blob != NULL ? 409 : 404,
					      .text = blob != NULL
							      ? "the reused blob is not finished"
							      : "reuse_uri names no blob"};
	}
	worker_post(call->asker, reuse_answer, call);
}

static void
reuse(RestHost *host, Worker *worker, const char *id, const char *name, const RestPrincipal *who,
      RestBlobFn *done, void *arg)
{
	Router *router = (Router *)host;
	ReuseCall *call = g_new0(ReuseCall, 1);
	*call = (ReuseCall){
		.router = router, .asker = worker, .who = who, .done = done, .arg = arg};
	call->owner = workers_get(router->workers,
				  ids_tx_worker(id, workers_count(router->workers)));
	call->id = g_strdup(id);
	call->name = g_strdup(name);
	worker_post(call->owner, reuse_on_owner, call);
}

static bool
is_active(RestHost *host, Tx *tx)
{
	return router_find(router_home((Router *)host, worker_current()), tx) != NULL;
}

static bool
is_incremental(RestHost *host, Tx *tx)
{
	const Output *output = router_find(router_home((Router *)host, worker_current()), tx);
	const SenderConf *sender = NULL;
	if (output != NULL)
		return output_is_incremental(output);
	const EndpointConf *endpoint = find_endpoint((Router *)host, tx->sender_name,
						     tx->sender_tag, &sender);
	return endpoint != NULL && endpoint->chain->incremental;
}

void
router_rest_init(Router *router)
{
	RestHost *host = &router->host;
	host->accepts_body_json = true;
	/* What comes from clients; on its way to next hops a message may still grow. */
	host->blobs.size_max = (uint64_t)router->config->koukan.message_max;
	host->arg = router;
	host->admit = admit;
	host->create = create;
	host->load = load;
	host->find_key = find_key;
	host->key_ttl = router->config->koukan.rest.idempotency_ttl;
	host->complete = complete;
	host->cancel = cancel;
	host->reuse = reuse;
	host->is_active = is_active;
	host->is_incremental = is_incremental;
}
