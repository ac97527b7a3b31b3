/* SPDX-License-Identifier: Apache-2.0 */
/* `sender:` and `rest_endpoint:` of a router, which fill the model that filters look names up
 * in. */
#include <string.h>

#include "base/json.h"
#include "conf/config_int.h"
#include "conf/yaml_json.h"

/* ---- sender ---- */

typedef struct SenderYaml {
	char *name;
	char *output_chain;
	const YamlNode *retry, *notification;
	char *upstream_sender, *upstream_tag;
	char *remote_host;
	const YamlNode *smtp_meta;
} SenderYaml;

#define AT(member) .offset = CONF_KEY(SenderYaml, member)
#define SENDER_KEYS(name_doc)                                                                         \
	{.name = "name", .type = CONF_STRING, AT(name), .flags = CONF_REQUIRED, .doc = name_doc},     \
		{.name = "output_chain",                                                              \
		 .type = CONF_STRING,                                                                 \
		 AT(output_chain),                                                                    \
		 .doc = "Name of the `endpoint` entry that handles its transactions."},               \
		{.name = "retry",                                                                     \
		 .type = CONF_NODE,                                                                   \
		 AT(retry),                                                                           \
		 .doc = "`output_chain`: retry by the chain's `retry_params`; null: never."},         \
		{.name = "notification",                                                              \
		 .type = CONF_NODE,                                                                   \
		 AT(notification),                                                                    \
		 .doc = "`output_chain`: bounce by the chain's `notification`; null: never."},        \
		{.name = "upstream_sender",                                                           \
		 .type = CONF_STRING,                                                                 \
		 AT(upstream_sender),                                                                 \
		 .doc = "Sender of the transactions that an exploder creates; without it the same."}, \
		{.name = "upstream_tag",                                                              \
		 .type = CONF_STRING,                                                                 \
		 AT(upstream_tag),                                                                    \
		 .doc = "Tag of the transactions that an exploder creates; without it the same."},    \
		{.name = "remote_host",                                                               \
		 .type = CONF_STRING,                                                                 \
		 AT(remote_host),                                                                     \
		 .doc = "Client address shown to the next hop on a short circuit."},                  \
	{                                                                                             \
		.name = "smtp_meta", .type = CONF_NODE, AT(smtp_meta),                                \
		.doc = "SMTP session facts shown to the next hop on a short circuit, a map."          \
	}

const ConfKey config_sender_keys[] = {
	SENDER_KEYS("Path element in /senders/NAME/transactions."),
	{.name = "tag",
	 .type = CONF_SECTION,
	 .doc = "Variants of the sender, a list; see below. With a list, other tags are refused."},
	{0},
};
const ConfKey config_tag_keys[] = {
	SENDER_KEYS("Value of `sender.tag` in a transaction."),
	{0},
};
#undef AT

static bool
is_output_chain(const YamlNode *node, const char *key, ConfReport *report)
{
	if (g_strcmp0(yaml_text(node), "output_chain") == 0)
		return true;
	if (yaml_kind(node) != YAML_NULL) {
		g_autofree char *got = yaml_describe(node);
		conf_warning(report, node, "'%s' is 'output_chain' or null; %s means null", key,
			     got);
	}
	return false;
}

static void
replace(char **slot, char **value)
{
	if (*value == NULL)
		return;
	g_free(*slot);
	*slot = g_steal_pointer(value);
}

/* What `map` says goes over what `sender` has, key by key; `key: null` takes a key away. */
static void
apply_sender_map(SenderConf *sender, SenderYaml *yaml, const YamlNode *map, ConfReport *report)
{
	struct {
		const char *key;
		char **slot, **value;
	} texts[] = {
		{"output_chain", &sender->output_chain, &yaml->output_chain},
		{"upstream_sender", &sender->upstream_sender, &yaml->upstream_sender},
		{"upstream_tag", &sender->upstream_tag, &yaml->upstream_tag},
		{"remote_host", &sender->remote_host, &yaml->remote_host},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
		if (yaml_get(map, texts[i].key) != NULL)
			g_clear_pointer(texts[i].slot, g_free);
		replace(texts[i].slot, texts[i].value);
	}
	if (yaml->retry != NULL)
		sender->retry = is_output_chain(yaml->retry, "retry", report);
	if (yaml->notification != NULL)
		sender->notification = is_output_chain(yaml->notification, "notification", report);
	if (yaml->smtp_meta == NULL)
		return;
	g_clear_pointer(&sender->smtp_meta, g_free);
	if (yaml_kind(yaml->smtp_meta) == YAML_MAP) {
		g_autoptr(json_t) meta = yaml_json(yaml->smtp_meta);
		sender->smtp_meta = json_print(meta);
	} else if (yaml_kind(yaml->smtp_meta) != YAML_NULL) {
		g_autofree char *got = yaml_describe(yaml->smtp_meta);
		conf_error(report, yaml->smtp_meta, "'smtp_meta' must be a map, not %s", got);
	}
}

static SenderConf *
copy_for_tag(const SenderConf *from)
{
	SenderConf *sender = sender_conf_new();
	sender->name = g_strdup(from->name);
	sender->output_chain = g_strdup(from->output_chain);
	sender->retry = from->retry;
	sender->notification = from->notification;
	sender->upstream_sender = g_strdup(from->upstream_sender);
	sender->upstream_tag = g_strdup(from->upstream_tag);
	sender->remote_host = g_strdup(from->remote_host);
	sender->smtp_meta = g_strdup(from->smtp_meta);
	return sender;
}

static void
finish_sender(RouterLoader *loader, SenderConf *sender, const YamlNode *own, const YamlNode *parent)
{
	if (sender->upstream_sender == NULL)
		sender->upstream_sender = g_strdup(sender->name != NULL ? sender->name : "");
	if (sender->remote_host != NULL && !net_is_literal(sender->remote_host) &&
	    yaml_get(own, "remote_host") != NULL)
		conf_error(loader->report, yaml_get(own, "remote_host"),
			   "'remote_host' must be an address, not '%s'", sender->remote_host);
	SenderPlace place = {.sender = sender, .own = own, .parent = parent};
	g_array_append_val(loader->senders, place);
}

static void
read_tag(RouterLoader *loader, SenderConf *sender, const YamlNode *parent, const YamlNode *map,
	 GHashTable *seen)
{
	SenderYaml yaml = {0};
	SenderConf *tag = copy_for_tag(sender);
	conf_fill(&yaml, config_tag_keys, map, NULL, loader->report);
	config_note_name(seen, "tag", yaml.name, config_place(map, "name"), loader->report);
	apply_sender_map(tag, &yaml, map, loader->report);
	tag->tag = g_strdup(yaml.name != NULL ? yaml.name : "");
	g_ptr_array_add(sender->tags, tag);
	finish_sender(loader, tag, map, parent);
	conf_clear(&yaml, config_tag_keys);
}

static void
read_sender(RouterLoader *loader, const YamlNode *map, GHashTable *seen)
{
	SenderYaml yaml = {0};
	SenderConf *sender = sender_conf_new();
	conf_fill(&yaml, config_sender_keys, map, NULL, loader->report);
	config_note_name(seen, "sender", yaml.name, config_place(map, "name"), loader->report);
	sender->name = g_strdup(yaml.name != NULL ? yaml.name : "");
	apply_sender_map(sender, &yaml, map, loader->report);
	g_ptr_array_add(loader->config->model->senders, sender);
	finish_sender(loader, sender, map, NULL);

	const YamlNode *tags = yaml_get(map, "tag");
	unsigned count = config_count(tags, "tag", loader->report);
	sender->has_tags = count > 0;
	g_autoptr(GHashTable)
		tag_names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	for (unsigned i = 0; i < count; i++)
		read_tag(loader, sender, map, yaml_item(tags, i), tag_names);
	conf_clear(&yaml, config_sender_keys);
}

void
config_read_senders(RouterLoader *loader)
{
	const YamlNode *list = yaml_get(loader->root, "sender");
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	unsigned count = config_count(list, "sender", loader->report);
	for (unsigned i = 0; i < count; i++)
		read_sender(loader, yaml_item(list, i), seen);
	if (count == 0)
		conf_warning(loader->report, list != NULL ? list : loader->root,
			     "no 'sender': nothing can be submitted");
}

/* ---- rest_endpoint ---- */

typedef struct OptionsYaml {
	const YamlNode *receive_parsing;
	bool send_filter_output;
} OptionsYaml;

typedef struct ParsingYaml {
	int64_t max_inline;
} ParsingYaml;

const ConfKey config_rest_options_keys[] = {
	{.name = "receive_parsing",
	 .type = CONF_NODE,
	 .offset = CONF_KEY(OptionsYaml, receive_parsing),
	 .doc = "Present (null or a map): messages are sent in parsed form; `max_inline` in the "
		"map is the number of bytes of text that may stand in the JSON itself, 65536 "
		"without it."},
	{.name = "send_filter_output",
	 .type = CONF_BOOL,
	 .offset = CONF_KEY(OptionsYaml, send_filter_output),
	 .flags = CONF_NULL_OK,
	 .doc = "Send along what the filters found out."},
	{0},
};

static const ConfKey parsing_keys[] = {
	{.name = "max_inline",
	 .type = CONF_SIZE,
	 .offset = CONF_KEY(ParsingYaml, max_inline),
	 .def = "65536"},
	{0},
};

#define AT(member) .offset = CONF_KEY(RestEndpointConf, member)
const ConfKey config_rest_endpoint_keys[] = {
	{.name = "name",
	 .type = CONF_STRING,
	 AT(name),
	 .flags = CONF_REQUIRED,
	 .doc = "What `destination.endpoint` refers to."},
	{.name = "endpoint",
	 .type = CONF_STRING,
	 AT(endpoint),
	 .doc = "Creation URL, as in http://HOST:8001/senders/router/transactions."},
	{.name = "sender",
	 .type = CONF_STRING,
	 AT(sender),
	 .doc = "`sender.name` in the JSON; needed."},
	{.name = "tag",
	 .type = CONF_STRING,
	 AT(tag),
	 .doc = "`sender.tag` in the JSON; on a gateway it chooses the SMTP output."},
	{.name = "options", .type = CONF_SECTION, .doc = "See below."},
	{0},
};
#undef AT

static void
read_options(RestEndpointConf *endpoint, const YamlNode *map, ConfReport *report)
{
	OptionsYaml yaml = {0};
	conf_fill(&yaml, config_rest_options_keys, map, NULL, report);
	endpoint->send_filter_output = yaml.send_filter_output;
	endpoint->receive_parsing = yaml.receive_parsing != NULL;
	if (yaml.receive_parsing == NULL)
		return;
	ParsingYaml parsing = {0};
	conf_fill(&parsing, parsing_keys, yaml.receive_parsing, NULL, report);
	endpoint->max_inline = parsing.max_inline;
}

static void
check_url(const RestEndpointConf *endpoint, const YamlNode *map, ConfReport *report)
{
	if (endpoint->endpoint == NULL)
		conf_warning(report, map,
			     "rest_endpoint '%s' has no 'endpoint': deliveries to it fail",
			     endpoint->name);
	else if (!g_str_has_prefix(endpoint->endpoint, "http://") &&
		 !g_str_has_prefix(endpoint->endpoint, "https://"))
		conf_error(report, yaml_get(map, "endpoint"),
			   "'endpoint' must be an http:// or https:// URL, not '%s'",
			   endpoint->endpoint);
	if (endpoint->sender == NULL)
		conf_warning(report, map,
			     "rest_endpoint '%s' has no 'sender': it cannot be a destination",
			     endpoint->name);
}

void
config_read_rest_endpoints(RouterLoader *loader)
{
	const YamlNode *list = yaml_get(loader->root, "rest_endpoint");
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	unsigned count = config_count(list, "rest_endpoint", loader->report);
	for (unsigned i = 0; i < count; i++) {
		const YamlNode *map = yaml_item(list, i);
		RestEndpointConf *endpoint = rest_endpoint_conf_new();
		conf_fill(endpoint, config_rest_endpoint_keys, map, NULL, loader->report);
		config_note_name(seen, "rest_endpoint", endpoint->name, config_place(map, "name"),
				 loader->report);
		if (endpoint->name == NULL)
			endpoint->name = g_strdup(""); /* filters look names up: never NULL */
		read_options(endpoint, yaml_get(map, "options"), loader->report);
		if (yaml_kind(map) == YAML_MAP)
			check_url(endpoint, map, loader->report);
		g_ptr_array_add(loader->config->model->rest_endpoints, endpoint);
	}
}
