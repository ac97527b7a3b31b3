/* SPDX-License-Identifier: Apache-2.0 */
#include "service/router.h"

#include "base/error.h"
#include "base/ids.h"
#include "service/router_int.h"

#define BUSY_TEXT "4.3.2 too many transactions under way, try again later"

static void
output_destroy_value(void *value)
{
	output_free(value);
}

Router *
router_new(const RouterOptions *options)
{
	Router *router = g_new0(Router, 1);
	router->config = router_config_ref(options->config);
	router->workers = options->workers;
	router->store = options->store;
	router->active_max = (unsigned)MAX(options->config->output_max, ROUTER_ACTIVE_MIN);
	router->host.blobs = options->blobs;
	router->host.entropy = (unsigned)options->config->rest_id_entropy;
	router_set_uris(router, options->uris.session_uri, options->uris.service_uri);
	router_rest_init(router);
	unsigned count = workers_count(options->workers);
	router->homes = g_new0(RouterHome, count);
	for (unsigned i = 0; i < count; i++) {
		RouterHome *home = &router->homes[i];
		home->router = router;
		home->worker = workers_get(options->workers, i);
		home->env = &options->envs[i];
		home->outputs = g_hash_table_new_full(NULL, NULL, NULL, output_destroy_value);
	}
	router->fresh_max = MAX(router->active_max * count / 4, 1);
	router_dequeue_init(router);
	return router;
}

void
router_set_uris(Router *router, const char *session_uri, const char *service_uri)
{
	g_free(router->session_uri);
	g_free(router->service_uri);
	router->session_uri = g_strdup(session_uri);
	router->service_uri = g_strdup(service_uri != NULL ? service_uri : session_uri);
	router->host.uris = (TxUris){router->session_uri, router->service_uri};
}

/* What has not got its message yet would be lost with the process anyway: its client hears now. */
static void
drain_home(void *arg)
{
	const RouterHome *home = arg;
	GHashTableIter iter;
	void *value;
	g_hash_table_iter_init(&iter, home->outputs);
	while (g_hash_table_iter_next(&iter, NULL, &value))
		output_drain(value);
}

void
router_drain(Router *router)
{
	atomic_store(&router->draining, true);
	for (unsigned i = 0; i < workers_count(router->workers); i++)
		worker_post(router->homes[i].worker, drain_home, &router->homes[i]);
}

unsigned
router_active(Router *router)
{
	unsigned active = 0;
	for (unsigned i = 0; i < workers_count(router->workers); i++)
		active += atomic_load_explicit(&router->homes[i].active, memory_order_relaxed);
	return active;
}

unsigned
router_unwritten(Router *router)
{
	unsigned unwritten = 0;
	for (unsigned i = 0; i < workers_count(router->workers); i++)
		unwritten += atomic_load_explicit(&router->homes[i].unwritten,
						  memory_order_relaxed);
	return unwritten;
}

void
router_free(Router *router)
{
	if (router == NULL)
		return;
	router_dequeue_clear(router);
	for (unsigned i = 0; i < workers_count(router->workers); i++)
		g_hash_table_unref(router->homes[i].outputs);
	gc_clear(&router->gc);
	destinations_free(router->destinations);
	g_free(router->homes);
	router_config_unref(router->config);
	g_free(router->session_uri);
	g_free(router->service_uri);
	g_free(router);
}

RestHost *
router_rest_host(Router *router)
{
	return &router->host;
}

const RouterConfig *
router_config(const Router *router)
{
	return router->config;
}

Output *
router_find(RouterHome *home, const Tx *tx)
{
	return g_hash_table_lookup(home->outputs, tx);
}

bool
router_is_full(const RouterHome *home)
{
	return atomic_load(&home->router->draining) ||
	       atomic_load_explicit(&home->active, memory_order_relaxed) >=
		       home->router->active_max;
}

/* ---- a transaction handed over within the process ---- */

/* Stands in for an Output where none could be made: the tx has been answered. */
static void
refusal_stop(TxPort *port)
{
	(void)port;
}

static const TxPortOps refusal_ops = {.name = "refusal", .stop = refusal_stop};
static TxPort refusal = {.ops = &refusal_ops};

static TxPort *
refuse(Tx *tx, Response *response)
{
	/* Answered like a real port would: MAIL now or, if it comes later, never; the user's own
	 * deadline covers that.  Nor will anything be stored here: who asks for that need not wait.
	 */
	tx_answer_mail(tx, response_ref(response));
	tx_fill_in_flight(tx, response);
	tx_refuse_durable(tx);
	response_unref(response);
	return &refusal;
}

TxPort *
router_port_start(Router *router, Worker *worker, const char *sender_name, const char *tag, Tx *tx)
{
	k_assert_on(worker);
	RouterHome *home = router_home(router, worker);
	tx_set_sender(tx, sender_name, tag);
	const SenderConf *sender = conf_model_sender(router->config->model, sender_name, tag);
	if (sender == NULL || sender->output_chain == NULL)
		return refuse(tx, response_newf(450, "4.3.5 no such sender here: %s %s",
						sender_name, tag != NULL ? tag : ""));
	const EndpointConf *endpoint = router_config_endpoint(router->config, sender->output_chain);
	if (endpoint == NULL)
		return refuse(tx, response_newf(450, "4.3.5 no such output chain here: %s",
						sender->output_chain));
	if (router_is_full(home))
		return refuse(tx, response_new(451, BUSY_TEXT));
	if (tx->id == NULL) {
		g_autofree char *id = ids_tx_new(worker_index(worker), router->host.entropy);
		tx_set_id(tx, id);
	}
	Output *output = output_new(home, tx, sender, endpoint, OUTPUT_FROM_PORT);
	output_start(output, NULL, NULL);
	return output_port(output);
}
