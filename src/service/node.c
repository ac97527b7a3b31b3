/* SPDX-License-Identifier: Apache-2.0 */
#include "service/node.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/activation.h"
#include "base/error.h"
#include "base/json.h"
#include "http/client.h"
#include "http/server.h"
#include "loop/dns.h"
#include "loop/pool.h"
#include "mime/mime.h"
#include "service/gateway.h"
#include "service/ports.h"
#include "service/rest_front.h"
#include "service/router.h"
#include "store/store.h"

#define POOL_THREADS 2
#define DESCRIPTORS  65536 /* taken when the hard limit allows it */

typedef struct NodeWorker {
	WorkerPorts ports;
	Dns *dns;
	HttpClient *http;
} NodeWorker;

/* The REST side of a router or a gateway. */
typedef struct NodeRest {
	RestFront front;
	HttpServer *server;
	char *base; /* "http://127.0.0.1:8000": where it really listens */
} NodeRest;

struct Node {
	RouterConfig *router_config;
	GatewayConfig *gateway_config;
	char *hostname;
	Activation *activation; /* sockets of the service manager */
	Workers *workers;
	Pool *pool;
	Rates *rates;
	NodeWorker *per_worker;
	FilterEnv *envs;
	TxPorts **ports;
	LocalUrls urls;
	Store *store;
	Router *router;
	Gateway *gateway;
	NodeRest router_rest, gateway_rest;
	atomic_bool draining;
	atomic_uint turns_due; /* workers that have not answered ask_turns yet */
};

static const KoukanConf *
own_conf(const Node *node)
{
	return node->router_config != NULL ? &node->router_config->koukan
					   : &node->gateway_config->koukan;
}

/* ---- parts, in the order of starting ---- */

static char *
find_hostname(const KoukanConf *conf)
{
	char name[256] = "localhost";
	if (conf->hostname != NULL)
		return g_strdup(conf->hostname);
	if (gethostname(name, sizeof(name) - 1) != 0)
		return g_strdup("localhost");
	return g_strdup(name);
}

/* A wildcard address is no name to be found by. */
static const char *
public_name(const Node *node, const RestListenerConf *conf)
{
	static const char *const wildcards[] = {"", "*", "0.0.0.0", "::", NULL};
	bool any = g_strv_contains(wildcards, conf->addr->host);
	return any ? node->hostname : conf->addr->host;
}

static BlobLimits
blob_limits(const KoukanConf *conf)
{
	/* In memory once more than what came in, for encodings: the limit proper is counted where
	 * bytes arrive. */
	return (BlobLimits){.memory_max = (size_t)conf->body_memory,
			    .size_max = (uint64_t)conf->message_max * 2,
			    .spill_dir = conf->spill_dir};
}

static bool
open_workers(Node *node, GError **ret_error)
{
	const KoukanConf *conf = own_conf(node);
	node->workers = workers_new((unsigned)conf->workers, ret_error);
	if (node->workers == NULL)
		return false;
	node->pool = pool_new(POOL_THREADS, ret_error);
	if (node->pool == NULL)
		return false;
	unsigned count = workers_count(node->workers);
	node->rates = rates_new(RATES_KEYS_DEFAULT);
	node->per_worker = g_new0(NodeWorker, count);
	node->envs = g_new0(FilterEnv, count);
	node->ports = g_new0(TxPorts *, count);
	const DnsConfig dns = {
		.forward = conf->dns_forward, .use_system = true, .timeout = conf->dns_timeout};
	for (unsigned i = 0; i < count; i++) {
		NodeWorker *own = &node->per_worker[i];
		Worker *worker = workers_get(node->workers, i);
		own->dns = dns_new(worker, &dns, ret_error);
		if (own->dns == NULL)
			return false;
		own->http = http_client_new(worker, 0);
		worker_ports_init(&own->ports);
		own->ports.worker = worker;
		own->ports.http = own->http;
		own->ports.urls = &node->urls;
		node->ports[i] = &own->ports.ports;
		node->envs[i] = (FilterEnv){
			.worker = worker,
			.ports = &own->ports.ports,
			.dns = own->dns,
			.pool = node->pool,
			.rates = node->rates,
			.model = node->router_config != NULL ? node->router_config->model : NULL,
			.hostname = node->hostname};
	}
	return true;
}

/* Without storage.url: one file in the state directory. */
static char *
embedded_url(const KoukanConf *conf, GError **ret_error)
{
	g_autofree char *dir = g_strdup(conf->state_dir);
	if (dir == NULL)
		dir = g_build_filename(g_get_user_state_dir(), "koukan", NULL);
	if (g_mkdir_with_parents(dir, 0700) != 0) {
		error_set_errno(ret_error, K_ERROR_STORE, errno, "state directory %s", dir);
		return NULL;
	}
	return g_build_filename(dir, "koukan.db", NULL);
}

/* Where others find the transactions that this process holds; NULL when only the kernel's choice of
 * a port will tell. */
static char *
session_uri_of(const Node *node)
{
	const RestListenerConf *conf = &node->router_config->rest;
	if (conf->session_uri != NULL)
		return g_strdup(conf->session_uri);
	if (conf->addr->port == 0)
		return NULL;
	bool tls = conf->cert != NULL && conf->key != NULL;
	return url_of_listener(tls, public_name(node, conf), conf->addr->port);
}

/* What the database does not promise is said loudly, once. */
static void
log_store_warnings(const GPtrArray *warnings)
{
	for (guint i = 0; i < warnings->len; i++)
		log_error(NULL, "store.unsafe", LOG_S("message", g_ptr_array_index(warnings, i)));
}

static bool
open_router(Node *node, GError **ret_error)
{
	const RouterConfig *config = node->router_config;
	g_autofree char *url = config->storage_url != NULL
				       ? g_strdup(config->storage_url)
				       : embedded_url(&config->koukan, ret_error);
	if (url == NULL)
		return false;
	g_autofree char *session_uri = session_uri_of(node);
	g_autoptr(GPtrArray) warnings = g_ptr_array_new_with_free_func(g_free);
	const StoreConfig store = {.url = url,
				   .warnings = warnings,
				   .blobs = blob_limits(&config->koukan),
				   .session_uri = session_uri,
				   .session_refresh = config->session_refresh_interval};
	node->store = store_open(&store, ret_error);
	if (node->store == NULL)
		return false;
	log_store_warnings(warnings);
	const RouterOptions options = {.config = node->router_config,
				       .workers = node->workers,
				       .store = node->store,
				       .envs = node->envs,
				       .uris = {"", ""},
				       .blobs = blob_limits(&config->koukan)};
	node->router = router_new(&options);
	for (unsigned i = 0; i < workers_count(node->workers); i++)
		node->per_worker[i].ports.router = node->router;
	return true;
}

static void
open_gateway(Node *node)
{
	const GatewayOptions options = {.config = node->gateway_config,
					.workers = node->workers,
					.ports = node->ports,
					.pool = node->pool,
					.activation = node->activation,
					.hostname = node->hostname,
					.blobs = blob_limits(&node->gateway_config->koukan),
					.uris = {"", ""}};
	node->gateway = gateway_new(&options);
	for (unsigned i = 0; i < workers_count(node->workers); i++)
		node->per_worker[i].ports.gateway = node->gateway;
}

static bool
is_loopback(const HostPort *addr)
{
	return g_str_equal(addr->host, "localhost") || net_is_loopback(addr->host);
}

static bool
open_rest(Node *node, NodeRest *rest, RestHost *host, const RestListenerConf *conf,
	  GPtrArray *local, const char *what, GError **ret_error)
{
	bool is_router = rest == &node->router_rest;
	const KoukanConf *koukan = is_router ? &node->router_config->koukan
					     : &node->gateway_config->koukan;
	const RestOwnConf *own = &koukan->rest;
	rest->front.api = rest_api_new(node->workers, host);
	rest->front.admin = (Admin){.router = is_router ? node->router : NULL,
				    .open = koukan->admin || is_loopback(conf->addr),
				    .draining = &node->draining};
	rest->front.metrics = (MetricsSource){.router = node->router, .gateway = node->gateway};
	rest->front.access = access_new(own);
	rest->front.limits = rest_limits_new(
		&(RestLimitsConf){.requests_per_minute = (unsigned)own->requests_per_minute,
				  .uploads_max = (unsigned)own->uploads_max});
	const HttpServerOptions options = {.host = conf->addr->host,
					   .port = conf->addr->port,
					   .cert_path = conf->cert,
					   .key_path = conf->key,
					   .client_ca_path = own->client_ca,
					   .connections_max = (unsigned)own->connections_max,
					   .head_max = (size_t)own->head_max,
					   .uri_max = (size_t)own->uri_max,
					   .head_timeout = own->head_timeout,
					   .body_timeout = own->body_timeout};
	rest->server = http_server_open(node->workers, &options, rest_front_handle, &rest->front,
					ret_error);
	if (rest->server == NULL) {
		g_prefix_error(ret_error, "%s rest_listener: ", what);
		return false;
	}
	bool tls = http_server_is_tls(rest->server);
	uint16_t port = http_server_port(rest->server);
	rest->base = url_of_listener(tls, public_name(node, conf), port);
	local_urls_add_listener(local, tls, conf->addr->host, port);
	local_urls_add(local, conf->session_uri);
	local_urls_add(local, conf->service_uri);
	return true;
}

/* ---- where we listen ---- */

static json_t *
smtp_info(const Node *node)
{
	json_t *list = json_array();
	for (unsigned i = 0; node->gateway != NULL && i < gateway_services(node->gateway); i++) {
		const SmtpServiceYaml *yaml = gateway_service_conf(node->gateway, i);
		unsigned port = gateway_service_port(node->gateway, i);
		log_info(NULL, "smtp.listening", LOG_S("addr", yaml->addr->host),
			 LOG_I("port", port), LOG_S("endpoint", yaml->endpoint),
			 LOG_S("tag", yaml->tag));
		json_array_append_new(
			list, json_pack("{s:s, s:i, s:s, s:s?}", "addr", yaml->addr->host, "port",
					(int)port, "endpoint", yaml->endpoint, "tag", yaml->tag));
	}
	return list;
}

static json_t *
rest_info(const Node *node)
{
	json_t *rest = json_object();
	const struct {
		const char *name;
		const NodeRest *rest;
	} all[] = {{"router", &node->router_rest}, {"gateway", &node->gateway_rest}};
	for (size_t i = 0; i < G_N_ELEMENTS(all); i++) {
		if (all[i].rest->base == NULL)
			continue;
		log_info(NULL, "rest.listening", LOG_S("service", all[i].name),
			 LOG_S("url", all[i].rest->base));
		json_object_set_new(rest, all[i].name, json_string(all[i].rest->base));
	}
	return rest;
}

/* Atomically, so that who waits for the file never reads half of it. */
static bool
tell_listeners(const Node *node, const char *path, GError **ret_error)
{
	g_autoptr(json_t) info = json_pack("{s:i, s:o, s:o}", "pid", (int)getpid(), "smtp",
					   smtp_info(node), "rest", rest_info(node));
	if (path == NULL)
		return true;
	g_autofree char *text = json_print(info);
	g_autoptr(GError) error = NULL;
	if (!g_file_set_contents(path, text, -1, &error))
		return error_set(ret_error, K_ERROR_IO, "--listen-info: %s", error->message);
	return true;
}

static bool
open_listeners(Node *node, const char *listen_info, GError **ret_error)
{
	if (node->router != NULL) {
		const RestListenerConf *conf = &node->router_config->rest;
		if (!open_rest(node, &node->router_rest, router_rest_host(node->router), conf,
			       node->urls.router, "router", ret_error))
			return false;
		const char *session = conf->session_uri != NULL ? conf->session_uri
								: node->router_rest.base;
		router_set_uris(node->router, session,
				conf->service_uri != NULL ? conf->service_uri : session);
	}
	if (node->gateway != NULL) {
		const RestListenerConf *conf = &node->gateway_config->rest;
		if (!open_rest(node, &node->gateway_rest, gateway_rest_host(node->gateway), conf,
			       node->urls.gateway, "gateway", ret_error))
			return false;
		gateway_set_uris(node->gateway, conf->session_uri != NULL
							? conf->session_uri
							: node->gateway_rest.base);
		if (!gateway_listen(node->gateway, ret_error))
			return false;
	}
	if (!activation_all_taken(node->activation, ret_error))
		return false;
	return tell_listeners(node, listen_info, ret_error);
}

/* ---- start, run, stop ---- */

/* Before any thread, so that all inherit it: signals are for node_run. */
static void
block_signals(sigset_t *ret_set)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigaction(SIGPIPE, &ignore, NULL);
	sigaction(SIGXFSZ, &ignore, NULL); /* a full quota is an error of write() */
	sigemptyset(ret_set);
	sigaddset(ret_set, SIGTERM);
	sigaddset(ret_set, SIGINT);
	sigaddset(ret_set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, ret_set, NULL);
}

/* The soft limit is low so that programs with select() do not fail; we have none. */
static void
raise_descriptors(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= DESCRIPTORS)
		return;
	limit.rlim_cur = MIN(limit.rlim_max, (rlim_t)DESCRIPTORS);
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* Nobody who waits for it shall wait in vain without a trace of why. */
static void
tell_manager(const char *state)
{
	g_autoptr(GError) error = NULL;
	if (!activation_notify(state, &error))
		log_warn(NULL, "server.notify_failed", LOG_S("state", state),
			 LOG_S("error", error->message));
}

Node *
node_start(const NodeOptions *options, GError **ret_error)
{
	sigset_t signals;
	block_signals(&signals);
	raise_descriptors();
	Node *node = g_new0(Node, 1);
	if (options->router != NULL)
		node->router_config = router_config_ref(options->router);
	if (options->gateway != NULL)
		node->gateway_config = gateway_config_ref(options->gateway);
	const KoukanConf *conf = own_conf(node);
	log_set((LogLevel)conf->log_level, (LogFormat)conf->log_format);
	mime_init();
	http_client_global_init();
	local_urls_init(&node->urls);
	node->hostname = find_hostname(conf);
	node->activation = activation_take(ret_error);
	if (node->activation == NULL || !open_workers(node, ret_error) ||
	    (node->router_config != NULL && !open_router(node, ret_error))) {
		node_free(node);
		return NULL;
	}
	if (node->gateway_config != NULL)
		open_gateway(node);
	if (!open_listeners(node, options->listen_info, ret_error)) {
		node_free(node);
		return NULL;
	}
	if (node->router != NULL)
		router_start(node->router);
	if (!workers_start(node->workers, ret_error)) {
		node_free(node);
		return NULL;
	}
	(void)malloc_trim(0); /* what reading the configuration took */
	log_info(NULL, "server.ready", LOG_S("version", KOUKAN_VERSION),
		 LOG_I("workers", workers_count(node->workers)), LOG_I("pid", getpid()));
	tell_manager("READY=1");
	return node;
}

static unsigned
node_active(Node *node)
{
	return (node->router != NULL ? router_active(node->router) + router_unwritten(node->router)
				     : 0) +
	       (node->gateway != NULL ? gateway_active(node->gateway) : 0);
}

static void
on_turn(void *arg)
{
	Node *node = arg;
	atomic_fetch_sub(&node->turns_due, 1);
}

/* What is counted is as of each worker's last turn, and one that a busy machine does not let run
 * says nothing of what it holds. */
static void
ask_turns(Node *node)
{
	unsigned count = workers_count(node->workers);
	atomic_store(&node->turns_due, count);
	for (unsigned i = 0; i < count; i++)
		worker_post(workers_get(node->workers, i), on_turn, node);
}

static void
drain(Node *node)
{
	atomic_store(&node->draining, true);
	if (node->gateway != NULL)
		gateway_drain(node->gateway);
	if (node->router != NULL)
		router_drain(node->router);
	if (node->router_rest.front.api != NULL)
		rest_api_drain(node->router_rest.front.api);
	if (node->gateway_rest.front.api != NULL)
		rest_api_drain(node->gateway_rest.front.api);
}

/* The time tells the manager of several reloads which one has ended (Type=notify-reload). */
static void
reload(Node *node)
{
	g_autofree char *begun = g_strdup_printf("RELOADING=1\nMONOTONIC_USEC=%" G_GINT64_FORMAT,
						 clock_mono());
	tell_manager(begun);
	if (node->gateway != NULL)
		gateway_reload(node->gateway);
	tell_manager("READY=1");
}

void
node_run(Node *node)
{
	sigset_t signals;
	block_signals(&signals);
	int got;
	do {
		got = sigwaitinfo(&signals, NULL);
		if (got == SIGHUP)
			reload(node);
	} while (got == SIGHUP || (got < 0 && errno == EINTR));
	tell_manager("STOPPING=1");
	drain(node);
	log_info(NULL, "server.stopping", LOG_I("signal", got)); /* nothing new is taken on now */
	Deadline until = clock_after(NODE_STOP_MAX);
	const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
	unsigned quiet = 0; /* the counts lag by a turn: twice nothing is nothing */
	while (quiet < 3 && !clock_passed(until)) {
		if (atomic_load(&node->turns_due) == 0) {
			quiet = node_active(node) == 0 ? quiet + 1 : 0;
			ask_turns(node);
		}
		got = sigtimedwait(&signals, NULL, &pause);
		if (got == SIGTERM || got == SIGINT)
			break;
	}
	log_info(NULL, "server.stopped", LOG_I("unfinished", node_active(node)));
}

static void
rest_clear(NodeRest *rest)
{
	rest_api_free(rest->front.api);
	access_free(rest->front.access);
	rest_limits_free(rest->front.limits);
	g_free(rest->base);
}

void
node_free(Node *node)
{
	if (node == NULL)
		return;
	http_server_free(node->router_rest.server);
	http_server_free(node->gateway_rest.server);
	if (node->workers != NULL)
		workers_stop(node->workers);
	/* From here on one thread.  Answers under way reach their askers while those still stand;
	 * then who asks is freed before who is asked. */
	store_stop(node->store);
	pool_free(node->pool);
	if (node->workers != NULL)
		workers_settle(node->workers);
	rest_clear(&node->router_rest);
	rest_clear(&node->gateway_rest);
	gateway_free(node->gateway);
	activation_free(node->activation);
	router_free(node->router);
	rates_free(node->rates);
	store_close(node->store);
	for (unsigned i = 0; node->per_worker != NULL && i < workers_count(node->workers); i++) {
		http_client_free(node->per_worker[i].http);
		dns_free(node->per_worker[i].dns);
	}
	if (node->workers != NULL)
		workers_free(node->workers);
	g_free(node->per_worker);
	g_free(node->envs);
	g_free(node->ports);
	local_urls_clear(&node->urls);
	if (node->router_config != NULL)
		router_config_unref(node->router_config);
	if (node->gateway_config != NULL)
		gateway_config_unref(node->gateway_config);
	g_free(node->hostname);
	g_free(node);
}
