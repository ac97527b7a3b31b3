/* SPDX-License-Identifier: Apache-2.0 */
/* Recipient routing (behaviour spec section 10): each router of a chain either decides about a
 * recipient, with a destination or an error, or leaves it to the next one. */
#include <string.h>

#include "base/text.h"
#include "filter/addr_list.h"
#include "filter/kinds.h"
#include "filter/plugin.h"

#define NULL_POLICY_REJECT "5.1.1 mailbox does not exist (RecipientRouterFilter null policy)"
#define ADDR_LIST_REJECT   "5.1.1 mailbox does not exist (AddressListPolicy)"
#define TWO_DESTINATIONS   "4.5.3 recipients of one message need the same destination"

#define MAX_INLINE_DEFAULT 65536

typedef enum PolicyKind {
	POLICY_NONE, /* decides about everybody */
	POLICY_ADDRESS_LIST,
	POLICY_DEST_DOMAIN,
	POLICY_HELLO,  /* never decides */
	POLICY_PLUGIN, /* a shared object decides */
	POLICY_KINDS
} PolicyKind;

static const char *const policy_names[] = {"", "address_list", "dest_domain", "hello", ""};
#define POLICY_NAMED POLICY_PLUGIN /* from address_list on, below this: named here */
_Static_assert(G_N_ELEMENTS(policy_names) == POLICY_KINDS, "a name for each policy");

typedef struct PolicyConf {
	char *name;
	AddrList list;
	int64_t dest_port;
	const YamlNode *destination;
} PolicyConf;

typedef struct RouterConf {
	const YamlNode *policy_node, *destination_node;
	bool dry_run;
	const FilterModules *modules;
	/* made by conf_check */
	const ConfKey *policy_keys;
	PolicyKind kind;
	PolicyConf policy;
	bool has_destination; /* false: reject */
	TxRoute *route;       /* a pattern; NULL: some destination, unspecified */
	PluginPolicy *plugin; /* of POLICY_PLUGIN; NULL: the configuration has an error */
} RouterConf;

typedef struct Router {
	size_t looked; /* recipients of down */
} Router;

/* ---- deciding ---- */

typedef struct Decision {
	bool decided;
	TxRoute *route;     /* moved; NULL: unspecified */
	const char *reject; /* 550 with this text */
	Response *answer;   /* moved; a rejection in other words */
} Decision;

static void
decide_dest_domain(const RouterConf *conf, const char *addr, Decision *decision)
{
	AddrParts parts = {0};
	if (!conf->has_destination || !address_split(addr, &parts))
		return;
	decision->decided = true;
	if (conf->route != NULL && !conf->dry_run) {
		TxRoute *route = decision->route = filter_route_copy(conf->route);
		char *domain = parts.domain;
		size_t len = strlen(domain);
		if (len > 2 && domain[0] == '[' && domain[len - 1] == ']') {
			domain[len - 1] = '\0';
			domain += text_has_prefix_nocase(domain, "[IPv6:") ? 6 : 1;
		}
		g_ptr_array_set_size(route->hosts, 0);
		g_ptr_array_add(route->hosts,
				host_port_new(domain, (uint16_t)conf->policy.dest_port));
	}
	address_parts_clear(&parts);
}

static Decision
decide_by_plugin(const Filter *filter, size_t index)
{
	const RouterConf *conf = filter->conf;
	const PluginDecision made = plugin_policy_decide(conf->plugin, filter, index, conf->route);
	if (conf->dry_run)
		tx_route_free(made.route);
	return (Decision){.decided = made.decided,
			  .answer = made.answer,
			  .route = conf->dry_run ? NULL : made.route};
}

static Decision
decide(const Filter *filter, size_t index)
{
	const RouterConf *conf = filter->conf;
	const char *addr = tx_rcpt(filter->down, index)->to->addr;
	Decision decision = {0};
	switch (conf->kind) {
	case POLICY_PLUGIN:
		return decide_by_plugin(filter, index);
	case POLICY_NONE:
		decision.decided = true;
		decision.reject = conf->has_destination ? NULL : NULL_POLICY_REJECT;
		break;
	case POLICY_ADDRESS_LIST:
		decision.decided = addr_list_match(&conf->policy.list, addr);
		decision.reject = conf->has_destination ? NULL : ADDR_LIST_REJECT;
		break;
	case POLICY_DEST_DOMAIN:
		decide_dest_domain(conf, addr, &decision);
		return decision;
	default:
		return decision;
	}
	if (decision.decided && decision.reject == NULL && conf->route != NULL && !conf->dry_run)
		decision.route = filter_route_copy(conf->route);
	return decision;
}

static bool
route_equal(const TxRoute *a, const TxRoute *b)
{
	if (g_strcmp0(a->url, b->url) != 0 || g_strcmp0(a->sender, b->sender) != 0 ||
	    g_strcmp0(a->tag, b->tag) != 0 || a->hosts->len != b->hosts->len)
		return false;
	for (guint i = 0; i < a->hosts->len; i++) {
		if (!host_port_equal(g_ptr_array_index(a->hosts, i),
				     g_ptr_array_index(b->hosts, i)))
			return false;
	}
	return true;
}

/* ---- the filter ---- */

/* What `up` has, or is going to get from an earlier router. */
static const TxRoute *
current_route(const Filter *filter)
{
	return filter->up->route != NULL ? filter->up->route : filter->down->route;
}

/* The transaction has one route: a recipient that needs another one has to come again. */
static void
apply(Filter *filter, size_t index, TxRoute *route)
{
	const TxRoute *current = current_route(filter);
	if (current == NULL)
		tx_set_route(filter->up, g_steal_pointer(&route));
	else if (!route_equal(current, route))
		tx_answer_rcpt(filter->down, index, response_new(451, TWO_DESTINATIONS));
	tx_route_free(route);
}

static void
route_rcpt(Filter *filter, size_t index)
{
	Tx *down = filter->down;
	Decision decision = decide(filter, index);
	if (!decision.decided)
		return;
	filter_set_rcpt_routed(filter, index);
	if (decision.reject != NULL)
		tx_answer_rcpt(down, index, response_new(550, decision.reject));
	else if (decision.answer != NULL)
		tx_answer_rcpt(down, index, decision.answer);
	else if (decision.route != NULL)
		apply(filter, index, g_steal_pointer(&decision.route));
	tx_route_free(decision.route);
}

/* An earlier router and this one may have sent two recipients different ways. */
static void
check_routed(Filter *filter, size_t index)
{
	const TxRoute *up = filter->up->route;
	const TxRoute *down = filter->down->route;
	if (up != NULL && down != NULL && up != down && !route_equal(up, down))
		tx_answer_rcpt(filter->down, index, response_new(451, TWO_DESTINATIONS));
}

static FilterResult
router_update(Filter *filter, unsigned news)
{
	Router *router = filter->state;
	const Tx *down = filter->down;
	if ((news & TX_NEW_RCPT) != 0) {
		for (; router->looked < tx_rcpt_count(down); router->looked++) {
			if (tx_rcpt(down, router->looked)->response != NULL)
				continue;
			if (filter_rcpt_routed(filter, router->looked))
				check_routed(filter, router->looked);
			else
				route_rcpt(filter, router->looked);
		}
	}
	if (filter->up != down)
		filter_pass_body(filter, news);
	return FILTER_CONTINUE;
}

/* ---- configuration ---- */

typedef struct OptionsConf {
	const YamlNode *receive_parsing;
	bool send_filter_output;
} OptionsConf;

static const ConfKey options_keys[] = {
	{.name = "receive_parsing",
	 .type = CONF_NODE,
	 .offset = CONF_KEY(OptionsConf, receive_parsing),
	 .doc = "Send the parsed message: nothing, or a map with max_inline."},
	{.name = "send_filter_output",
	 .type = CONF_BOOL,
	 .flags = CONF_NULL_OK,
	 .offset = CONF_KEY(OptionsConf, send_filter_output),
	 .doc = "Send the filters' signals along."},
	{0},
};

typedef struct ParsingConf {
	int64_t max_inline;
} ParsingConf;

static const ConfKey parsing_keys[] = {
	{.name = "max_inline",
	 .type = CONF_SIZE,
	 .offset = CONF_KEY(ParsingConf, max_inline),
	 .def = "65536",
	 .doc = "Bytes of text that are put into the JSON itself."},
	{0},
};

typedef struct DestinationConf {
	char *endpoint;
	GPtrArray *hosts; /* HostPort* */
	const YamlNode *options;
} DestinationConf;

static const ConfKey destination_keys[] = {
	{.name = "endpoint",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(DestinationConf, endpoint),
	 .doc = "Name of a rest_endpoint."},
	{.name = "host_list",
	 .type = CONF_HOSTPORTS,
	 .offset = CONF_KEY(DestinationConf, hosts),
	 .doc = "Where the next node shall connect, in order."},
	{.name = "options",
	 .type = CONF_NODE,
	 .offset = CONF_KEY(DestinationConf, options),
	 .doc = "Options of the rest_endpoint that are different here."},
	{0},
};

TxRoute *
filter_endpoint_route(const RestEndpointConf *endpoint)
{
	TxRoute *route = tx_route_new();
	route->url = g_strdup(endpoint->endpoint);
	route->sender = g_strdup(endpoint->sender);
	route->tag = g_strdup(endpoint->tag);
	route->send_filter_output = endpoint->send_filter_output;
	route->receive_parsing = endpoint->receive_parsing;
	route->max_inline = endpoint->max_inline;
	return route;
}

/* Merged over what the rest_endpoint says; the route is a copy, so others do not see it. */
static void
read_options(const YamlNode *node, TxRoute *route, ConfReport *report)
{
	OptionsConf options = {.send_filter_output = route->send_filter_output};
	if (conf_fill(&options, options_keys, node, NULL, report) &&
	    yaml_get(node, "send_filter_output") != NULL)
		route->send_filter_output = options.send_filter_output;
	bool on = true;
	if (options.receive_parsing == NULL)
		return;
	if (yaml_kind(options.receive_parsing) == YAML_SCALAR &&
	    yaml_bool(options.receive_parsing, &on)) {
		route->receive_parsing = on;
		route->max_inline = MAX_INLINE_DEFAULT;
		return;
	}
	ParsingConf parsing = {0};
	conf_fill(&parsing, parsing_keys, options.receive_parsing, NULL, report);
	route->receive_parsing = true;
	route->max_inline = parsing.max_inline;
}

static void
warn_endpoint(const ConfModel *model, const YamlNode *node, const char *name, ConfReport *report)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	for (guint i = 0; i < model->rest_endpoints->len; i++) {
		const RestEndpointConf *endpoint = g_ptr_array_index(model->rest_endpoints, i);
		g_ptr_array_add(names, endpoint->name);
	}
	const char *nearest = text_nearest(name, (const char *const *)names->pdata, names->len);
	conf_warning(report, yaml_get(node, "endpoint"),
		     "unknown rest_endpoint '%s'%s%s%s: recipients are rejected", name,
		     nearest != NULL ? ", did you mean '" : "", nearest != NULL ? nearest : "",
		     nearest != NULL ? "'?" : "");
}

static void
read_destination(RouterConf *conf, const YamlNode *node, const ConfModel *model, ConfReport *report)
{
	if (node == NULL)
		return;
	if (yaml_kind(node) == YAML_NULL ||
	    (yaml_kind(node) == YAML_MAP && yaml_count(node) == 0)) {
		conf->has_destination = true;
		return;
	}
	DestinationConf yaml = {0};
	const RestEndpointConf *endpoint = NULL;
	conf_fill(&yaml, destination_keys, node, NULL, report);
	if (yaml.endpoint != NULL) {
		endpoint = conf_model_rest_endpoint(model, yaml.endpoint);
		if (endpoint == NULL)
			warn_endpoint(model, node, yaml.endpoint, report);
		else if (endpoint->sender == NULL)
			conf_warning(report, yaml_get(node, "endpoint"),
				     "rest_endpoint '%s' has no sender: recipients are rejected",
				     yaml.endpoint);
	}
	if (yaml.endpoint == NULL || (endpoint != NULL && endpoint->sender != NULL)) {
		TxRoute *route = conf->route = endpoint != NULL ? filter_endpoint_route(endpoint)
								: tx_route_new();
		conf->has_destination = true;
		for (guint i = 0; yaml.hosts != NULL && i < yaml.hosts->len; i++)
			g_ptr_array_add(route->hosts,
					host_port_copy(g_ptr_array_index(yaml.hosts, i)));
		if (yaml.options != NULL)
			read_options(yaml.options, route, report);
	}
	conf_clear(&yaml, destination_keys);
}

#define POLICY_NAME_KEY                                                                            \
	{                                                                                          \
		.name = "name", .type = CONF_STRING, .offset = CONF_KEY(PolicyConf, name),         \
		.flags = CONF_REQUIRED,                                                            \
		.doc = "address_list, dest_domain, or a name from modules."                        \
	}
#define POLICY_DESTINATION_KEY                                                                     \
	{                                                                                          \
		.name = "destination", .type = CONF_NODE,                                          \
		.offset = CONF_KEY(PolicyConf, destination),                                       \
		.doc = "Where the recipients go; without value: somewhere (for dry runs)."         \
	}

static const ConfKey address_list_keys[] = {
	POLICY_NAME_KEY,
	ADDR_LIST_KEYS(PolicyConf, list),
	POLICY_DESTINATION_KEY,
	{0},
};

static const ConfKey dest_domain_keys[] = {
	POLICY_NAME_KEY,
	{.name = "dest_port",
	 .type = CONF_INT,
	 .offset = CONF_KEY(PolicyConf, dest_port),
	 .def = "25",
	 .min = 1,
	 .max = 65535,
	 .doc = "Port of the recipient's domain."},
	POLICY_DESTINATION_KEY,
	{0},
};

static const ConfKey hello_keys[] = {
	POLICY_NAME_KEY,
	{0},
};

static const ConfKey *const policy_tables[] = {NULL, address_list_keys, dest_domain_keys,
					       hello_keys, NULL};
_Static_assert(G_N_ELEMENTS(policy_tables) == POLICY_KINDS, "a table for each policy");

const RouterPolicyDoc router_policy_docs[] = {
	{"address_list", "Decides about recipients in the list of domains and local parts.",
	 "- filter: router\n"
	 "  policy:\n"
	 "    name: address_list\n"
	 "    domains: [example.com]\n"
	 "    prefixes: [sales, support]\n"
	 "    delimiter: '+'\n"
	 "    destination:\n"
	 "      endpoint: gateway\n"
	 "      host_list: [{host: 192.0.2.25, port: 25}]\n"
	 "- filter: router\n",
	 address_list_keys},
	{"dest_domain", "Sends to the recipient's own domain, for dns_resolution to look up.",
	 "- filter: router\n"
	 "  policy:\n"
	 "    name: dest_domain\n"
	 "    dest_port: 25\n"
	 "    destination: {endpoint: gateway}\n",
	 dest_domain_keys},
	{"hello", "Decides about nobody.",
	 "- filter: router\n"
	 "  policy: {name: hello}\n",
	 hello_keys},
	{0},
};

static PolicyKind
find_policy(const FilterModules *modules, const char *name)
{
	for (PolicyKind kind = POLICY_ADDRESS_LIST; kind < POLICY_NAMED; kind++) {
		if (strcmp(policy_names[kind], name) == 0)
			return kind;
	}
	if (filter_plugin_find(modules, PLUGIN_POLICY, name) != NULL)
		return POLICY_PLUGIN;
	/* All other modules that are known at all stand for the one that never matches. */
	if (modules != NULL && modules->policies != NULL &&
	    g_hash_table_lookup(modules->policies, name) != NULL)
		return POLICY_HELLO;
	return POLICY_NONE;
}

bool
filter_policy_taken(const char *name)
{
	return find_policy(NULL, name) != POLICY_NONE;
}

/* Its keys are its own, but for the destination that it may fall back on. */
static void
read_plugin_policy(RouterConf *conf, const char *name, const ConfModel *model, ConfReport *report)
{
	const FilterPlugin *found = filter_plugin_find(conf->modules, PLUGIN_POLICY, name);
	conf->plugin = plugin_policy_new(found->plugin, conf->policy_node, report);
	read_destination(conf, yaml_get(conf->policy_node, "destination"), model, report);
}

static void
read_policy(RouterConf *conf, const ConfModel *model, ConfReport *report)
{
	const YamlNode *name_node = yaml_get(conf->policy_node, "name");
	const char *name = yaml_text(name_node);
	if (name == NULL) {
		conf_error(report, conf->policy_node, "a policy needs a name");
		return;
	}
	conf->kind = find_policy(conf->modules, name);
	if (conf->kind == POLICY_NONE) {
		const char *nearest = text_nearest(name, policy_names + 1, POLICY_NAMED - 1);
		conf_error(report, name_node, "unknown policy '%s'%s%s%s", name,
			   nearest != NULL ? ", did you mean '" : "",
			   nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
		return;
	}
	if (conf->kind == POLICY_PLUGIN) {
		read_plugin_policy(conf, name, model, report);
		return;
	}
	conf->policy_keys = policy_tables[conf->kind];
	conf_fill(&conf->policy, conf->policy_keys, conf->policy_node, NULL, report);
	if (conf->kind == POLICY_DEST_DOMAIN && conf->policy.destination == NULL)
		conf_error(report, conf->policy_node, "policy dest_domain needs a destination");
	read_destination(conf, conf->policy.destination, model, report);
}

static void
router_conf_check(void *data, const YamlNode *node, const ConfModel *model, ConfReport *report)
{
	(void)node;
	RouterConf *conf = data;
	if (yaml_kind(conf->policy_node) == YAML_NULL) {
		read_destination(conf, conf->destination_node, model, report);
		return;
	}
	if (conf->destination_node != NULL)
		conf_warning(
			report, conf->destination_node,
			"'destination' beside 'policy' has no effect; it belongs into the policy");
	read_policy(conf, model, report);
}

static void
router_conf_free(void *data)
{
	RouterConf *conf = data;
	if (conf->policy_keys != NULL)
		conf_clear(&conf->policy, conf->policy_keys);
	plugin_policy_free(conf->plugin);
	tx_route_free(conf->route);
}

static const ConfKey router_keys[] = {
	{.name = "policy",
	 .type = CONF_NODE,
	 .offset = CONF_KEY(RouterConf, policy_node),
	 .doc = "Which recipients this is about: a map with name (address_list, dest_domain) and its "
		"keys; absent: all that are left."},
	{.name = "dry_run",
	 .type = CONF_BOOL,
	 .offset = CONF_KEY(RouterConf, dry_run),
	 .doc = "Reject what would be rejected, but set no destination."},
	{.name = "destination",
	 .type = CONF_NODE,
	 .offset = CONF_KEY(RouterConf, destination_node),
	 .doc = "Without policy: a map with endpoint, host_list and options; absent: reject."},
	{0},
};

/* A router that never sets a route shares the transaction with its neighbours. */
static const FilterKind router_plain_kind = {
	.name = "router",
	.conf_size = sizeof(RouterConf),
	.keys = router_keys,
	.conf_free = router_conf_free,
	.state_size = sizeof(Router),
	.update = router_update,
};

static const FilterKind *
router_variant(const void *data)
{
	const RouterConf *conf = data;
	bool routes = conf->route != NULL || conf->kind == POLICY_PLUGIN;
	return conf->dry_run || !routes ? &router_plain_kind : &filter_router_kind;
}

const FilterKind filter_router_kind = {
	.name = "router",
	.doc = "Decides about recipients: a destination, a rejection, or left to the next router.",
	.flags = FILTER_PROXY,
	.conf_size = sizeof(RouterConf),
	.keys = router_keys,
	.conf_check = router_conf_check,
	.conf_free = router_conf_free,
	.state_size = sizeof(Router),
	.update = router_update,
	.variant = router_variant,
	.modules_offset = offsetof(RouterConf, modules),
	.example =
		"- filter: router\n"
		"  policy:\n"
		"    name: address_list\n"
		"    domains: [example.com]\n"
		"    destination: {endpoint: gateway, host_list: [{host: 192.0.2.25, port: 25}]}\n"
		"- filter: router\n",
};
