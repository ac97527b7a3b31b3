/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A REST API over a host that only pretends, on real workers and sockets.  Included once a test
 * program, behind cmocka.  Senders:
 *   inc      incremental; nobody answers but the test
 *   one      not incremental; nobody answers but the test
 *   auto     incremental and answers for itself: recipients "perm..." 550, "temp..." 450, else 250
 *   refuse   admitted, but creation fails with 507
 *   (else)   404 */
#include <stdatomic.h>
#include <stdio.h>

#include "../http/harness.h"
#include "base/json.h"
#include "http/client.h"
#include "rest/api.h"

#define WORKERS 3

typedef struct Live {
	Tx *tx;
	TxWatch watch;
} Live;

typedef struct World {
	Workers *workers;
	RestHost host;
	RestApi *api;
	HttpServer *server;
	HttpClient *client; /* on worker 0 */
	uint16_t port;
	char *base;
	const char *service; /* service_uri; NULL: `base` */
	GPtrArray *lives[WORKERS];
	atomic_int completed;       /* calls of host.complete */
	atomic_int complete_status; /* what it answers; 0: 200 */
	atomic_bool inactive;       /* host.is_active says no */
	atomic_int cancels;
} World;

static World world;

/* ---- the host ---- */

typedef struct Later {
	Defer defer;
	RestVerdict verdict;
	RestDoneFn *done;
	RestLoadFn *load_done;
	RestBlobFn *blob_done;
	void *arg;
	Tx *tx;
	Blob *blob;
} Later;

static void
later_run(void *arg)
{
	Later *later = arg;
	if (later->done != NULL)
		later->done(later->arg, &later->verdict);
	else if (later->load_done != NULL)
		later->load_done(later->arg, &later->verdict, later->tx);
	else
		later->blob_done(later->arg, &later->verdict, later->blob);
	tx_unref(later->tx);
	blob_unref(later->blob);
	g_free(later);
}

static void
answer_later(Worker *worker, Later later)
{
	Later *copy = g_new0(Later, 1);
	*copy = later;
	defer_init(&copy->defer, later_run, copy);
	defer_queue(worker_defers(worker), &copy->defer);
}

static RestVerdict
fake_admit(RestHost *host, const char *sender, const char *tag, bool *ret_incremental)
{
	(void)host;
	if (g_strcmp0(tag, "bad") == 0)
		return (RestVerdict){.status = 404, .text = "unknown tag"};
	*ret_incremental = strcmp(sender, "one") != 0;
	if (strcmp(sender, "inc") == 0 || strcmp(sender, "one") == 0 ||
	    strcmp(sender, "auto") == 0 || strcmp(sender, "refuse") == 0)
		return (RestVerdict){.status = 0};
	return (RestVerdict){.status = 404, .text = "unknown sender"};
}

static Response *
auto_rcpt(const Mailbox *to)
{
	if (g_str_has_prefix(to->addr, "perm"))
		return response_new(550, "no such user");
	if (g_str_has_prefix(to->addr, "temp"))
		return response_new(450, "not now");
	return response_new(250, "rcpt ok");
}

static void
on_auto(void *arg, Tx *tx)
{
	(void)arg;
	if (tx->mail_from != NULL && tx->mail_response == NULL)
		tx_answer_mail(tx, g_str_has_prefix(tx->mail_from->addr, "perm")
					   ? response_new(550, "not you")
					   : response_new(250, "mail ok"));
	tx_check_preconditions(tx);
	for (size_t i = 0; i < tx_rcpt_count(tx); i++) {
		if (tx_rcpt(tx, i)->response == NULL)
			tx_answer_rcpt(tx, i, auto_rcpt(tx_rcpt(tx, i)->to));
	}
	if (tx_body_ready(tx) && tx_rcpts_accepted(tx) > 0 && tx->data_response == NULL) {
		tx_answer_data(tx, response_newf(250, "data ok %" G_GUINT64_FORMAT,
						 tx_body_len(tx->body)));
		tx_finish(tx, "upstream response success");
	}
}

static void
fake_create(RestHost *host, Worker *worker, Tx *tx, RestDoneFn *done, void *arg)
{
	if (strcmp(tx->sender_name, "refuse") == 0) {
		answer_later(worker, (Later){.verdict = {.status = 507, .text = "disk full"},
					     .done = done,
					     .arg = arg});
		return;
	}
	rest_table_add(rest_table(host, worker), tx);
	Live *live = g_new0(Live, 1);
	live->tx = tx_ref(tx);
	g_ptr_array_add(world.lives[worker_index(worker)], live);
	if (strcmp(tx->sender_name, "auto") == 0) {
		tx_watch(tx, &live->watch, on_auto, live);
		tx_touch(tx);
	}
	answer_later(worker, (Later){.verdict = {.status = 201}, .done = done, .arg = arg});
}

/* Of ids that are not live: "..old" is in the store and finished, "..else" belongs to another node.
 */
static void
fake_load(RestHost *host, Worker *worker, const char *id, RestLoadFn *done, void *arg)
{
	(void)host;
	Later later = {.verdict = {.status = 404}, .load_done = done, .arg = arg};
	if (g_str_has_suffix(id, "old")) {
		g_autoptr(Blob) blob = blob_new_bytes("", 0);
		g_autoptr(TxBody) body = tx_body_new_raw(blob);
		later.verdict.status = 200;
		later.tx = tx_new(worker_defers(worker));
		later.tx->id = g_strdup(id);
		tx_set_sender(later.tx, "inc", NULL);
		tx_set_body(later.tx, body);
		tx_finish(later.tx, "upstream response success");
		tx_set_version(later.tx, 40);
	} else if (g_str_has_suffix(id, "else")) {
		later.verdict = (RestVerdict){.status = 308, .location = "http://other:81/base"};
	}
	answer_later(worker, later);
}

static void
fake_complete(RestHost *host, Tx *tx, RestDoneFn *done, void *arg)
{
	(void)host;
	k_assert(tx_body_ready(tx));
	atomic_fetch_add(&world.completed, 1);
	int status = atomic_load(&world.complete_status);
	answer_later(worker_current(),
		     (Later){.verdict = {.status = status != 0 ? status : 200, .text = "complete"},
			     .done = done,
			     .arg = arg});
}

static void
fake_cancel(RestHost *host, Worker *worker, const char *id, Tx *tx, RestDoneFn *done, void *arg)
{
	(void)host;
	(void)id;
	atomic_fetch_add(&world.cancels, 1);
	if (tx != NULL)
		tx_cancel(tx);
	answer_later(
		worker,
		(Later){.verdict = {.status = tx != NULL ? 200 : 404}, .done = done, .arg = arg});
}

typedef struct Reuse {
	RestHost *host;
	Worker *asker, *owner;
	char *id, *name;
	Blob *blob;
	RestVerdict verdict;
	RestBlobFn *done;
	void *arg;
} Reuse;

static void
reuse_answer(void *arg)
{
	Reuse *r = arg;
	r->done(r->arg, &r->verdict, r->blob);
	blob_unref(r->blob);
	g_free(r->id);
	g_free(r->name);
	g_free(r);
}

static void
reuse_find(void *arg)
{
	Reuse *r = arg;
	Tx *tx = rest_table_find(rest_table(r->host, r->owner), r->id);
	Blob *blob = NULL;
	if (tx != NULL && tx->body != NULL && r->name == NULL)
		blob = tx->body->raw;
	else if (tx != NULL && tx->body != NULL && tx_body_part(tx->body, r->name) != NULL)
		blob = tx_body_part(tx->body, r->name)->blob;
	r->verdict = (RestVerdict){.status = 404, .text = "reuse_uri names no blob"};
	if (blob != NULL && !blob_is_final(blob)) {
		r->verdict = (RestVerdict){.status = 409, .text = "not finished"};
	} else if (blob != NULL) {
		r->verdict.status = 200;
		r->blob = blob_ref(blob);
	}
	worker_post(r->asker, reuse_answer, r);
}

static void
fake_reuse(RestHost *host, Worker *worker, const char *id, const char *name,
	   const RestPrincipal *who, RestBlobFn *done, void *arg)
{
	(void)who;
	Reuse *r = g_new0(Reuse, 1);
	*r = (Reuse){.host = host, .asker = worker, .done = done, .arg = arg};
	r->owner = workers_get(world.workers, ids_tx_worker(id, WORKERS));
	r->id = g_strdup(id);
	r->name = g_strdup(name);
	worker_post(r->owner, reuse_find, r);
}

static bool
fake_is_active(RestHost *host, Tx *tx)
{
	(void)host;
	(void)tx;
	return !atomic_load(&world.inactive);
}

static bool
fake_is_incremental(RestHost *host, Tx *tx)
{
	(void)host;
	return strcmp(tx->sender_name, "one") != 0;
}

/* ---- a request from the test's thread ---- */

typedef struct Reply {
	HttpCallSpec spec;
	Latch done;
	int status;
	char *body, *etag, *location, *range, *type, *allow;
	json_t *json;
} Reply;

static void
reply_clear(Reply *reply)
{
	g_free(reply->body);
	g_free(reply->etag);
	g_free(reply->location);
	g_free(reply->range);
	g_free(reply->type);
	g_free(reply->allow);
	json_decref(reply->json);
	*reply = (Reply){0};
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Reply, reply_clear)

static inline void
on_replied(void *arg, const HttpResult *result)
{
	Reply *reply = arg;
	reply->status = result->status;
	reply->body = g_strdup(result->status != 0 ? result->body : result->error);
	reply->etag = g_strdup(http_result_header(result, "etag"));
	reply->location = g_strdup(http_result_header(result, "location"));
	reply->range = g_strdup(http_result_header(result, "content-range"));
	reply->type = g_strdup(http_result_header(result, "content-type"));
	reply->allow = g_strdup(http_result_header(result, "allow"));
	latch_open(&reply->done);
}

static inline void
start_ask(void *arg)
{
	Reply *reply = arg;
	(void)http_call_start(world.client, &reply->spec, on_replied, reply);
}

#define ASK_HEADERS_MAX 6

/* `headers`: name, value, ..., NULL.  Each request comes on a connection of its own, so that any
 * worker may get it. */
static inline void
ask_bytes(Reply *reply, const char *method, const char *path, const char *const *headers,
	  const char *body, size_t len)
{
	HttpHeader list[ASK_HEADERS_MAX] = {{"connection", "close"}};
	size_t n = 1;
	for (; headers != NULL && *headers != NULL; headers += 2)
		list[n++] = (HttpHeader){headers[0], headers[1]};
	g_autofree char *url = strstr(path, "://") != NULL ? g_strdup(path)
							   : g_strconcat(world.base, path, NULL);
	reply_clear(reply);
	reply->done = (Latch)LATCH_INIT;
	reply->spec = (HttpCallSpec){.method = method,
				     .url = url,
				     .headers = list,
				     .n_headers = n,
				     .body = g_memdup2(body, len),
				     .body_len = len,
				     .timeout = 15 * USEC_PER_SEC};
	on_worker(workers_get(world.workers, 0), start_ask, reply);
	k_assert(latch_wait(&reply->done, 1));
	if (reply->type != NULL && strcmp(reply->type, "application/json") == 0) {
		reply->json = json_parse("answer", reply->body, strlen(reply->body), NULL);
		k_assert_for(reply->json != NULL, reply->body);
	}
}

#define HEADERS(...) ((const char *const[]){__VA_ARGS__, NULL})

static inline void
ask(Reply *reply, const char *method, const char *path, const char *const *headers,
    const char *body)
{
	ask_bytes(reply, method, path, headers, body, body != NULL ? strlen(body) : 0);
}

/* ---- a look at, or a hand on, a live transaction ---- */

typedef struct Touch {
	const char *id;
	void (*fn)(Tx *tx, void *arg);
	void *arg;
	bool found;
} Touch;

static inline void
touch_run(void *arg)
{
	Touch *touch = arg;
	Worker *worker = worker_current();
	Tx *tx = rest_table_find(rest_table(&world.host, worker), touch->id);
	touch->found = tx != NULL;
	if (tx != NULL)
		touch->fn(tx, touch->arg);
}

static inline bool
with_tx(const char *id, void (*fn)(Tx *tx, void *arg), void *arg)
{
	Touch touch = {id, fn, arg, false};
	on_worker(workers_get(world.workers, ids_tx_worker(id, WORKERS)), touch_run, &touch);
	return touch.found;
}

/* ---- life ---- */

static void
make_client(void *arg)
{
	(void)arg;
	world.client = http_client_new(worker_current(), 0);
}

static void
free_client(void *arg)
{
	(void)arg;
	http_client_free(world.client);
}

static void
free_lives(void *arg)
{
	GPtrArray *lives = arg;
	for (guint i = 0; i < lives->len; i++) {
		Live *live = g_ptr_array_index(lives, i);
		tx_unwatch(&live->watch);
		rest_table_remove(rest_table(&world.host, worker_current()), live->tx);
		tx_unref(live->tx);
		g_free(live);
	}
	g_ptr_array_set_size(lives, 0);
}

static void
world_open(void)
{
	http_client_global_init();
	world.workers = workers_new(WORKERS, NULL);
	k_assert(world.workers != NULL);
	world.host = (RestHost){
		.entropy = 16,
		.accepts_body_json = true,
		.blobs = {.memory_max = 100000, .size_max = 5000000},
		.admit = fake_admit,
		.create = fake_create,
		.load = fake_load,
		.complete = fake_complete,
		.cancel = fake_cancel,
		.reuse = fake_reuse,
		.is_active = fake_is_active,
		.is_incremental = fake_is_incremental,
	};
	for (unsigned i = 0; i < WORKERS; i++)
		world.lives[i] = g_ptr_array_new();
	world.api = rest_api_new(world.workers, &world.host);
	const HttpServerOptions options = {.host = "127.0.0.1"};
	world.server = http_server_open(world.workers, &options, rest_api_handle, world.api, NULL);
	k_assert(world.server != NULL);
	world.port = http_server_port(world.server);
	world.base = g_strdup_printf("http://127.0.0.1:%u", world.port);
	world.host.uris = (TxUris){.session_uri = world.base, .service_uri = world.service};
	if (world.service == NULL)
		world.host.uris.service_uri = world.base;
	k_assert(workers_start(world.workers, NULL));
	on_worker(workers_get(world.workers, 0), make_client, NULL);
}

static void
world_close(void)
{
	on_worker(workers_get(world.workers, 0), free_client, NULL);
	http_server_free(world.server);
	for (unsigned i = 0; i < WORKERS; i++) {
		on_worker(workers_get(world.workers, i), free_lives, world.lives[i]);
		g_ptr_array_free(world.lives[i], TRUE);
	}
	workers_stop(world.workers);
	rest_api_free(world.api);
	workers_free(world.workers);
	g_free(world.base);
}
