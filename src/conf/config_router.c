/* SPDX-License-Identifier: Apache-2.0 */
/* router.yaml: the sections and their keys. */
#include <string.h>

#include "base/error.h"
#include "conf/config_int.h"
#include "filter/plugin.h"

static const ConfKey root_keys[] = {
	{.name = "global", .type = CONF_SECTION, .doc = "The process."},
	{.name = "rest_listener", .type = CONF_SECTION, .doc = "Where the REST API listens."},
	{.name = "storage", .type = CONF_SECTION, .doc = "The database."},
	{.name = "sender",
	 .type = CONF_SECTION,
	 .doc = "Who may submit, and by which chain; a list."},
	{.name = "endpoint", .type = CONF_SECTION, .doc = "The output chains, a list."},
	{.name = "rest_endpoint",
	 .type = CONF_SECTION,
	 .doc = "HTTP destinations that routing may choose, a list."},
	{.name = "modules", .type = CONF_SECTION, .doc = "Plug-ins."},
	{.name = "logging",
	 .type = CONF_SECTION,
	 .doc = "A Python dictConfig, of which the levels of `root` and `koukan` matter."},
	{.name = "koukan", .type = CONF_SECTION, .doc = "Settings of this implementation."},
	{0},
};

#define AT(member) .offset = CONF_KEY(RouterConfig, member)
static const ConfKey global_keys[] = {
	{.name = "dequeue",
	 .type = CONF_BOOL,
	 AT(dequeue),
	 .def = "yes",
	 .flags = CONF_NULL_OK,
	 .doc = "Take up transactions that are due; no: only what is submitted here."},
	{.name = "executor", .type = CONF_SECTION, .doc = "See below."},
	{.name = "mailer_daemon_mailbox",
	 .type = CONF_STRING,
	 AT(mailer_daemon_mailbox),
	 .doc = "From address of bounces; its domain names the reporting MTA."},
	{.name = "rest_id_entropy",
	 .type = CONF_INT,
	 AT(rest_id_entropy),
	 .def = "16",
	 .min = 1,
	 .max = 64,
	 .doc = "Random bytes in transaction ids; values under 16 count as 16."},
	{.name = "tx_idle_timeout", .type = CONF_IGNORED},
	{.name = "gc_interval", .type = CONF_IGNORED},
	{0},
};

static const ConfKey executor_keys[] = {
	{.name = "output", .type = CONF_SECTION, .doc = "See below."},
	{.name = "rest", .type = CONF_IGNORED, .doc = "Threads of the original's REST server."},
	{0},
};

#define INFLIGHT_MIN 1000
static const ConfKey output_keys[] = {
	{.name = "max_inflight",
	 .type = CONF_INT,
	 AT(output_max),
	 .def = "1000",
	 .min = 1,
	 .max = 10000000,
	 .doc = "Transactions that may be active at the same time. The original counts threads "
		"here, so values under 1000 count as 1000."},
	{.name = "watchdog_timeout", .type = CONF_IGNORED},
	{0},
};

static const ConfKey storage_keys[] = {
	{.name = "url",
	 .type = CONF_STRING,
	 AT(storage_url),
	 .doc = "Database, as in `sqlite:///file.db`, also in SQLAlchemy's spelling "
		"`sqlite+pysqlite:///file.db`; without it a file in `koukan.state_dir`."},
	{.name = "session_refresh_interval",
	 .type = CONF_SECONDS,
	 AT(session_refresh_interval),
	 .def = "30",
	 .min = 0.01,
	 .max = 86400,
	 .doc = "Seconds between signs of life of this process in the database."},
	{.name = "gc_interval",
	 .type = CONF_SECONDS,
	 AT(gc_interval),
	 .doc = "Seconds between clean-ups; absent, 0 or null: none."},
	{.name = "gc_ttl",
	 .type = CONF_SECONDS,
	 AT(gc_ttl),
	 .def = "86400",
	 .doc = "Seconds after which finished transactions are deleted."},
	{.name = "blob_tx_refresh_interval",
	 .type = CONF_SECONDS,
	 AT(blob_tx_refresh_interval),
	 .def = "10",
	 .doc = "Seconds between refreshes of a transaction during an upload."},
	{.name = "cache_ttl",
	 .type = CONF_SECONDS,
	 AT(cache_ttl),
	 .def = "5",
	 .doc = "Seconds for which a finished transaction stays in memory."},
	{0},
};
#undef AT

#define AT(member) .offset = CONF_KEY(RestListenerConf, member)
static const ConfKey listener_keys[] = {
	{.name = "addr",
	 .type = CONF_ADDR,
	 AT(addr),
	 .def = "localhost:8000",
	 .doc = "Listen address; port 0: the kernel chooses."},
	{.name = "cert", .type = CONF_STRING, AT(cert), .doc = "PEM file; with `key`: HTTPS."},
	{.name = "key", .type = CONF_STRING, AT(key), .doc = "PEM file."},
	{.name = "session_uri",
	 .type = CONF_STRING,
	 AT(session_uri),
	 .doc = "Base URL of this process in answers; without it made of the real address."},
	{.name = "service_uri",
	 .type = CONF_STRING,
	 AT(service_uri),
	 .doc = "Base URL of all replicas; without it `session_uri`."},
	{.name = "chunk_size",
	 .type = CONF_SIZE,
	 AT(chunk_size),
	 .def = "1M",
	 .min = 1,
	 .max = 1024.0 * 1024 * 1024,
	 .doc = "Bytes per write of an upload."},
	{0},
};
#undef AT

typedef struct ModulesYaml {
	const YamlNode *filters, *policies, *matchers;
} ModulesYaml;

#define AT(member) .offset = CONF_KEY(ModulesYaml, member)
static const ConfKey modules_keys[] = {
	{.name = "sync_filter",
	 .type = CONF_NODE,
	 AT(filters),
	 .doc = "Map of a filter's name to a shared object, as in `mine: /usr/lib/koukan/mine.so` or "
		"`mine: mine.so:its_name` (docs/plugins.md; relative to the folder of this file), "
		"or to the original's module path, as in `hello: koukan.hello_filter`."},
	{.name = "recipient_router_policy",
	 .type = CONF_NODE,
	 AT(policies),
	 .doc = "The same for routing policies."},
	{.name = "transaction_matcher",
	 .type = CONF_NODE,
	 AT(matchers),
	 .doc = "The same for matchers."},
	{0},
};
#undef AT

/* ---- endpoint ---- */

#define AT(member) .offset = CONF_KEY(EndpointConf, member)
static const ConfKey endpoint_keys[] = {
	{.name = "name",
	 .type = CONF_STRING,
	 AT(name),
	 .flags = CONF_REQUIRED,
	 .doc = "What `output_chain` refers to."},
	{.name = "chain",
	 .type = CONF_SECTION,
	 .doc = "The filters, a list of maps with `filter: NAME` and the filter's keys; needed."},
	{.name = "output_handler", .type = CONF_SECTION, .doc = "See below."},
	{.name = "msa", .type = CONF_IGNORED, .doc = "The exploder filter has its own."},
	{0},
};

static const ConfKey handler_keys[] = {
	{.name = "downstream_timeout",
	 .type = CONF_SECONDS,
	 AT(downstream_timeout),
	 .def = "60",
	 .min = 0.01,
	 .max = 86400,
	 .doc = "Seconds without news from the client until an incomplete transaction is given "
		"up."},
	{.name = "upstream_refresh",
	 .type = CONF_SECONDS,
	 AT(upstream_refresh),
	 .def = "30",
	 .min = 0.01,
	 .max = 86400,
	 .doc = "Seconds between signs of life to the next hop."},
	{.name = "delay_warning",
	 .type = CONF_SECONDS,
	 AT(delay_warning),
	 .def = "0",
	 .min = 0,
	 .max = 31536000,
	 .doc = "Where bounces are sent: seconds after which the sender is told, once, that a "
		"message is still being tried; 0: never. Of this implementation."},
	{.name = "retry_params",
	 .type = CONF_SECTION,
	 .doc = "When to try again; without it nothing is retried."},
	{.name = "notification",
	 .type = CONF_SECTION,
	 .doc = "Where bounces are submitted; without it there are none."},
	{0},
};

static const ConfKey notification_keys[] = {
	{.name = "sender",
	 .type = CONF_STRING,
	 AT(notification_sender),
	 .flags = CONF_REQUIRED,
	 .doc = "Name of a `sender`."},
	{.name = "tag", .type = CONF_STRING, AT(notification_tag), .doc = "One of its tags."},
	{0},
};
#undef AT

typedef struct RetryYaml {
	int64_t max_attempts;
	double backoff_factor;
	Usec min_attempt_time, max_attempt_time, deadline, bug_retry;
} RetryYaml;

#define AT(member) .offset = CONF_KEY(RetryYaml, member)
static const ConfKey retry_keys[] = {
	{.name = "max_attempts",
	 .type = CONF_INT,
	 AT(max_attempts),
	 .def = "30",
	 .min = 1,
	 .max = 1000000,
	 .flags = CONF_UNLIMITED,
	 .doc = "Attempts, the first one included."},
	{.name = "min_attempt_time",
	 .type = CONF_SECONDS,
	 AT(min_attempt_time),
	 .def = "60",
	 .doc = "Least seconds between attempts."},
	{.name = "max_attempt_time",
	 .type = CONF_SECONDS,
	 AT(max_attempt_time),
	 .def = "3600",
	 .doc = "Most seconds between attempts."},
	{.name = "backoff_factor",
	 .type = CONF_DOUBLE,
	 AT(backoff_factor),
	 .def = "1.5",
	 .min = 0,
	 .max = 1000,
	 .doc = "The wait is the transaction's age times this."},
	{.name = "deadline",
	 .type = CONF_SECONDS,
	 AT(deadline),
	 .def = "86400",
	 .flags = CONF_UNLIMITED,
	 .doc = "Seconds after creation beyond which nothing is tried."},
	{.name = "bug_retry",
	 .type = CONF_SECONDS,
	 AT(bug_retry),
	 .def = "3600",
	 .doc = "Seconds until the next attempt after an attempt broke off by a fault here."},
	{0},
};
#undef AT

const ConfSection config_router_sections[] = {
	{"Router", "Top level of the file that `koukan router` reads.", root_keys},
	{"global", NULL, global_keys},
	{"global.executor", NULL, executor_keys},
	{"global.executor.output", NULL, output_keys},
	{"rest_listener (router)", NULL, listener_keys},
	{"storage", NULL, storage_keys},
	{"sender[]",
	 "`retry` and `notification` of a sender hold for all its tags unless the tag "
	 "says `null`.",
	 config_sender_keys},
	{"sender[].tag[]", "Keys given here replace the sender's.", config_tag_keys},
	{"rest_endpoint[]", NULL, config_rest_endpoint_keys},
	{"rest_endpoint[].options", "Options of a routing `destination` go over these.",
	 config_rest_options_keys},
	{"endpoint[]", NULL, endpoint_keys},
	{"endpoint[].output_handler", NULL, handler_keys},
	{"endpoint[].output_handler.retry_params", "An empty map `{}` takes the defaults.",
	 retry_keys},
	{"endpoint[].output_handler.notification", NULL, notification_keys},
	{"modules", "Plug-ins, and modules of the original that are built in here.", modules_keys},
	{0},
};

/* ---- reading ---- */

static int64_t
whole_seconds(Usec span)
{
	return span < 0 ? -1 : (span + USEC_PER_SEC / 2) / USEC_PER_SEC;
}

static void
read_retry(EndpointConf *endpoint, const YamlNode *map, ConfReport *report)
{
	RetryYaml yaml = {0};
	if (map == NULL)
		return;
	/* "retry_params:" without a value is none, "retry_params: {}" all defaults. */
	endpoint->has_retry = yaml_kind(map) != YAML_NULL;
	conf_fill(&yaml, retry_keys, map, NULL, report);
	if (yaml.min_attempt_time > yaml.max_attempt_time)
		conf_warning(report, config_place(map, "min_attempt_time"),
			     "'min_attempt_time' is larger than 'max_attempt_time' and wins");
	endpoint->retry = (RetryParams){
		.max_attempts = yaml.max_attempts,
		.min_attempt_time = whole_seconds(yaml.min_attempt_time),
		.max_attempt_time = whole_seconds(yaml.max_attempt_time),
		.backoff_factor = yaml.backoff_factor,
		.deadline = whole_seconds(yaml.deadline),
		.bug_retry = whole_seconds(yaml.bug_retry),
	};
}

static void
read_chain(RouterLoader *loader, EndpointConf *endpoint, const YamlNode *map)
{
	const YamlNode *list = yaml_get(map, "chain");
	if (yaml_kind(list) != YAML_LIST) {
		if (yaml_kind(map) == YAML_MAP)
			conf_error(loader->report, config_place(map, "chain"),
				   list == NULL ? "key 'chain' is missing"
						: "'chain' must be a list of filters");
		return;
	}
	/* What is wrong in a chain that no sender reaches cannot hurt a message. */
	bool reached = endpoint->name == NULL ||
		       g_hash_table_contains(loader->reachable, endpoint->name);
	g_autoptr(ConfReport) report = conf_report_new();
	report->fallback = g_strdup(loader->report->fallback);
	endpoint->chain = chain_conf_new(endpoint->name != NULL ? endpoint->name : "", list,
					 loader->config->model, &loader->modules, report);
	conf_report_move(loader->report, report, !reached);
}

static void
read_endpoint(RouterLoader *loader, const YamlNode *map, GHashTable *seen)
{
	ConfReport *report = loader->report;
	EndpointConf *endpoint = g_new0(EndpointConf, 1);
	g_ptr_array_add(loader->config->endpoints, endpoint);
	conf_fill(endpoint, endpoint_keys, map, NULL, report);
	config_note_name(seen, "endpoint", endpoint->name, config_place(map, "name"), report);
	const YamlNode *handler = yaml_get(map, "output_handler");
	conf_fill(endpoint, handler_keys, handler, NULL, report);
	read_retry(endpoint, yaml_get(handler, "retry_params"), report);
	const YamlNode *notification = yaml_get(handler, "notification");
	if (yaml_kind(notification) != YAML_NULL)
		conf_fill(endpoint, notification_keys, notification, NULL, report);
	read_chain(loader, endpoint, map);
	EndpointPlace place = {.endpoint = endpoint, .map = map};
	g_array_append_val(loader->endpoints, place);
}

static void
read_endpoints(RouterLoader *loader)
{
	for (unsigned i = 0; i < loader->senders->len; i++) {
		const SenderConf *sender = g_array_index(loader->senders, SenderPlace, i).sender;
		if (sender->output_chain != NULL)
			g_hash_table_add(loader->reachable, sender->output_chain);
	}
	const YamlNode *list = yaml_get(loader->root, "endpoint");
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	unsigned count = config_count(list, "endpoint", loader->report);
	for (unsigned i = 0; i < count; i++)
		read_endpoint(loader, yaml_item(list, i), seen);
}

static bool
filter_module_known(const char *path)
{
	return filter_module(path) != NULL;
}

/* One of the three maps of `modules`. */
typedef struct ModuleMap {
	PluginKind kind;
	const YamlNode *map;
	bool (*known)(const char *path); /* the original's paths that stand for something here */
	bool (*taken)(const char *name); /* names that mean something without `modules` */
} ModuleMap;

static bool
filter_taken(const char *name)
{
	return filter_kind(name) != NULL;
}

static void
load_plugin(RouterLoader *loader, const ModuleMap *modules, const char *alias,
	    const YamlNode *value)
{
	if (modules->taken(alias)) {
		conf_error(loader->report, value, "module '%s': the name is that of a built-in one",
			   alias);
		return;
	}
	FilterPlugin *plugin = filter_plugin_load(modules->kind, alias, value, loader->report);
	if (plugin != NULL)
		g_ptr_array_add(loader->config->plugins, plugin);
}

static GHashTable *
read_module_map(RouterLoader *loader, const ModuleMap *modules)
{
	ConfReport *report = loader->report;
	const YamlNode *map = modules->map;
	GHashTable *out = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	if (yaml_kind(map) != YAML_MAP && yaml_kind(map) != YAML_NULL) {
		g_autofree char *got = yaml_describe(map);
		conf_error(report, map, "a map of names to modules is wanted, not %s", got);
	}
	for (unsigned i = 0; yaml_kind(map) == YAML_MAP && i < yaml_count(map); i++) {
		const YamlNode *value = yaml_value(map, i);
		const char *alias = yaml_text(yaml_key(map, i));
		const char *path = yaml_text(value);
		if (path == NULL) {
			g_autofree char *got = yaml_describe(value);
			conf_error(report, value, "a module path is wanted, not %s", got);
			continue;
		}
		if (plugin_is_path(path))
			load_plugin(loader, modules, alias, value);
		else if (!modules->known(path))
			conf_warning(report, value,
				     "module '%s' is not built in: what uses '%s' cannot work",
				     path, alias);
		g_hash_table_replace(out, g_strdup(alias), g_strdup(path));
	}
	return out;
}

static void
read_modules(RouterLoader *loader)
{
	ModulesYaml yaml = {0};
	conf_fill(&yaml, modules_keys, yaml_get(loader->root, "modules"), NULL, loader->report);
	const ModuleMap filters = {PLUGIN_FILTER, yaml.filters, filter_module_known, filter_taken};
	const ModuleMap policies = {PLUGIN_POLICY, yaml.policies, filter_policy_module_known,
				    filter_policy_taken};
	const ModuleMap matchers = {PLUGIN_MATCHER, yaml.matchers, filter_matcher_module_known,
				    filter_matcher_taken};
	loader->modules = (FilterModules){.filters = read_module_map(loader, &filters),
					  .policies = read_module_map(loader, &policies),
					  .matchers = read_module_map(loader, &matchers),
					  .plugins = loader->config->plugins};
}

static void
check_storage(const RouterConfig *config, const YamlNode *storage, ConfReport *report)
{
	const char *url = config->storage_url;
	if (url == NULL || strstr(url, "://") == NULL || g_str_has_prefix(url, "sqlite") ||
	    g_str_has_prefix(url, "postgres"))
		return;
	conf_error(report, config_place(storage, "url"),
		   "'url' must be a sqlite or postgresql URL or a path, not '%s'", url);
}

static void
read_settings(RouterLoader *loader)
{
	RouterConfig *config = loader->config;
	ConfReport *report = loader->report;
	const YamlNode *global = yaml_get(loader->root, "global");
	const YamlNode *executor = yaml_get(global, "executor");
	const YamlNode *listener = yaml_get(loader->root, "rest_listener");
	const YamlNode *storage = yaml_get(loader->root, "storage");
	config_read_koukan(&config->koukan, loader->root, report);
	conf_fill(config, global_keys, global, NULL, report);
	conf_fill(config, executor_keys, executor, NULL, report);
	conf_fill(config, output_keys, yaml_get(executor, "output"), NULL, report);
	config->output_max = MAX(config->output_max, INFLIGHT_MIN);
	conf_fill(&config->rest, listener_keys, listener, NULL, report);
	config->rest.rest_id_entropy = config->rest_id_entropy;
	config_check_tls(listener, config->rest.cert, config->rest.key, report);
	config_check_rest(&config->koukan, &config->rest, loader->root, report);
	conf_fill(config, storage_keys, storage, NULL, report);
	check_storage(config, storage, report);
}

/* ---- the configuration object ---- */

static void
endpoint_free(void *data)
{
	EndpointConf *endpoint = data;
	chain_conf_free(endpoint->chain);
	conf_clear(endpoint, endpoint_keys);
	conf_clear(endpoint, handler_keys);
	conf_clear(endpoint, notification_keys);
	g_free(endpoint);
}

static void
plugin_destroy(void *plugin)
{
	filter_plugin_free(plugin);
}

static void
router_config_free(RouterConfig *config)
{
	g_ptr_array_unref(config->endpoints);
	g_ptr_array_unref(config->plugins);
	conf_model_free(config->model);
	config_clear_koukan(&config->koukan);
	conf_clear(config, global_keys);
	conf_clear(config, storage_keys);
	conf_clear(&config->rest, listener_keys);
	g_free(config->path);
	yaml_doc_free(config->doc);
	g_free(config);
}

static void
loader_clear(RouterLoader *loader)
{
	g_array_unref(loader->senders);
	g_array_unref(loader->endpoints);
	g_hash_table_unref(loader->reachable);
	g_clear_pointer(&loader->modules.filters, g_hash_table_unref);
	g_clear_pointer(&loader->modules.policies, g_hash_table_unref);
	g_clear_pointer(&loader->modules.matchers, g_hash_table_unref);
}

/* Takes the document.  What another report has found before does not count. */
static RouterConfig *
router_config_new(const char *path, YamlDoc *doc, ConfReport *report)
{
	unsigned before = report->errors;
	RouterConfig *config = g_new0(RouterConfig, 1);
	config->refs = 1;
	config->path = g_strdup(path);
	config->doc = doc;
	config->model = conf_model_new();
	config->endpoints = g_ptr_array_new_with_free_func(endpoint_free);
	config->plugins = g_ptr_array_new_with_free_func(plugin_destroy);
	RouterLoader loader = {
		.config = config,
		.root = yaml_root(doc),
		.report = report,
		.senders = g_array_new(FALSE, FALSE, sizeof(SenderPlace)),
		.endpoints = g_array_new(FALSE, FALSE, sizeof(EndpointPlace)),
		.reachable = g_hash_table_new(g_str_hash, g_str_equal),
	};
	if (config_check_root(loader.root, CONFIG_ROUTER, root_keys, report)) {
		read_settings(&loader);
		config_read_rest_endpoints(&loader);
		config_read_senders(&loader);
		read_modules(&loader);
		read_endpoints(&loader);
		config_check_router(&loader);
	}
	loader_clear(&loader);
	conf_report_sort(report);
	if (report->errors == before)
		return config;
	router_config_free(config);
	return NULL;
}

RouterConfig *
router_config_load(const char *path, ConfReport *report)
{
	YamlDoc *doc = config_open(path, NULL, report);
	return doc == NULL ? NULL : router_config_new(path, doc, report);
}

RouterConfig *
router_config_load_text(const char *name, const char *text, ConfReport *report)
{
	YamlDoc *doc = config_open(name, text, report);
	return doc == NULL ? NULL : router_config_new(name, doc, report);
}

RouterConfig *
router_config_ref(RouterConfig *config)
{
	__atomic_add_fetch(&config->refs, 1, __ATOMIC_RELAXED);
	return config;
}

void
router_config_unref(RouterConfig *config)
{
	if (config != NULL && __atomic_sub_fetch(&config->refs, 1, __ATOMIC_ACQ_REL) == 0)
		router_config_free(config);
}

const EndpointConf *
router_config_endpoint(const RouterConfig *config, const char *name)
{
	for (unsigned i = 0; i < config->endpoints->len; i++) {
		const EndpointConf *endpoint = config->endpoints->pdata[i];
		if (g_strcmp0(endpoint->name, name) == 0)
			return endpoint;
	}
	return NULL;
}
