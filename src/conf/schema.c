/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/schema.h"

#include <stdarg.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"

/* One reader a type: takes the value's node, stores into the member, reports what is wrong. */
typedef struct Reading {
	const ConfKey *key;
	const YamlNode *node;
	void *slot;
	ConfReport *report;
} Reading;

static void
wrong_type(const Reading *reading, const char *want)
{
	g_autofree char *got = yaml_describe(reading->node);
	conf_error(reading->report, reading->node, "'%s' must be %s, not %s", reading->key->name,
		   want, got);
}

/* ---- numbers ---- */

/* "1500", "64k", "10M", "2G"; in bytes. */
static bool
parse_size(const char *text, double *ret_bytes)
{
	size_t len = strlen(text);
	double factor = 1;
	if (len > 1) {
		switch (text[len - 1]) {
		case 'k':
		case 'K':
			factor = 1024;
			break;
		case 'm':
		case 'M':
			factor = 1024.0 * 1024;
			break;
		case 'g':
		case 'G':
			factor = 1024.0 * 1024 * 1024;
			break;
		default:
			break;
		}
	}
	g_autofree char *digits = g_strndup(text, len - (factor > 1 ? 1 : 0));
	int64_t count;
	if (!yaml_parse_int(digits, &count))
		return false;
	*ret_bytes = (double)count * factor;
	return true;
}

/* In YAML's unit; integers within +-2^53 are exact. */
static bool
parse_number(ConfType type, const char *text, double *ret_value)
{
	int64_t whole;
	switch (type) {
	case CONF_SIZE:
		return parse_size(text, ret_value);
	case CONF_INT:
		if (!yaml_parse_int(text, &whole))
			return false;
		*ret_value = (double)whole;
		return true;
	default:
		return yaml_parse_double(text, ret_value);
	}
}

static void
store_number(const ConfKey *key, double value, void *slot)
{
	if (key->type == CONF_DOUBLE)
		*(double *)slot = value;
	else if (key->type == CONF_SECONDS)
		*(Usec *)slot = (Usec)(value * (double)USEC_PER_SEC + (value < 0 ? -0.5 : 0.5));
	else
		*(int64_t *)slot = (int64_t)value;
}

/* The largest number that each type may hold without a range of its own: nothing overflows, and
 * a double still holds each integer. */
static double
type_max(ConfType type)
{
	return type == CONF_SECONDS ? 9e9 : 9007199254740992.0;
}

static bool
has_range(const ConfKey *key)
{
	return key->min != 0 || key->max != 0;
}

static void
format_number(double value, char out[G_ASCII_DTOSTR_BUF_SIZE])
{
	g_ascii_formatd(out, G_ASCII_DTOSTR_BUF_SIZE, "%.15g", value);
}

static bool
check_range(const Reading *reading, double value)
{
	const ConfKey *key = reading->key;
	double max = has_range(key) ? key->max : type_max(key->type);
	double min = key->min;
	if (!has_range(key))
		min = key->type == CONF_DOUBLE || key->type == CONF_INT ? -max : 0;
	if (value >= min && value <= max)
		return true;
	char low[G_ASCII_DTOSTR_BUF_SIZE], high[G_ASCII_DTOSTR_BUF_SIZE];
	format_number(min, low);
	format_number(max, high);
	conf_error(reading->report, reading->node, "'%s' must be between %s and %s, not %s",
		   key->name, low, high, yaml_text(reading->node));
	return false;
}

static void
read_number(const Reading *reading)
{
	const char *text = yaml_is_quoted(reading->node) ? NULL : yaml_text(reading->node);
	double value;
	if (text == NULL || !parse_number(reading->key->type, text, &value)) {
		static const char *const wants[] = {
			[CONF_INT] = "a whole number",
			[CONF_SECONDS] = "a number of seconds",
			[CONF_SIZE] = "a number of bytes (or with k, M, G)",
			[CONF_DOUBLE] = "a number",
		};
		wrong_type(reading, wants[reading->key->type]);
		return;
	}
	if (check_range(reading, value))
		store_number(reading->key, value, reading->slot);
}

/* ---- other scalars ---- */

static void
read_bool(const Reading *reading)
{
	if (!yaml_bool(reading->node, reading->slot))
		wrong_type(reading, "yes or no");
}

static void
replace_string(void *slot, const char *text)
{
	g_free(*(char **)slot);
	*(char **)slot = g_strdup(text);
}

static void
read_string(const Reading *reading)
{
	const char *text = yaml_text(reading->node);
	if (text == NULL)
		wrong_type(reading, "text");
	else
		replace_string(reading->slot, text);
}

static int
enum_index(const ConfKey *key, const char *text)
{
	for (int i = 0; key->names[i] != NULL; i++)
		if (strcmp(key->names[i], text) == 0)
			return i;
	return -1;
}

static void
read_enum(const Reading *reading)
{
	const ConfKey *key = reading->key;
	const char *text = yaml_text(reading->node);
	int index = text == NULL ? -1 : enum_index(key, text);
	if (index >= 0) {
		*(int *)reading->slot = index;
		return;
	}
	g_autofree char *all = g_strjoinv(", ", (char **)key->names);
	g_autofree char *got = yaml_describe(reading->node);
	const char *near = text == NULL ? NULL
					: text_nearest(text, key->names,
						       g_strv_length((char **)key->names));
	conf_error(reading->report, reading->node, "'%s' must be one of %s, not %s%s%s%s",
		   key->name, all, got, near == NULL ? "" : "; did you mean '",
		   near == NULL ? "" : near, near == NULL ? "" : "'?");
}

static void
read_verify(const Reading *reading)
{
	bool on;
	if (yaml_bool(reading->node, &on)) {
		replace_string(reading->slot, on ? NULL : "");
		return;
	}
	const char *text = yaml_text(reading->node);
	if (text == NULL || *text == '\0')
		wrong_type(reading, "yes, no or the path of a CA file");
	else
		replace_string(reading->slot, text);
}

#define SECRET_MAX 1000

/* Kept out of the configuration, which more people may read. */
static void
read_secret(const Reading *reading)
{
	const char *path = yaml_text(reading->node);
	char *text = NULL;
	if (path == NULL || *path == '\0') {
		wrong_type(reading, "the path of a file");
		return;
	}
	if (!g_file_get_contents(path, &text, NULL, NULL)) {
		conf_error(reading->report, reading->node, "'%s': %s cannot be read",
			   reading->key->name, path);
		return;
	}
	size_t len = strcspn(text, "\r\n");
	text[len] = '\0';
	if (len == 0 || len > SECRET_MAX)
		conf_error(reading->report, reading->node,
			   "'%s': the first line of %s is not 1 to %d bytes long",
			   reading->key->name, path, SECRET_MAX);
	else
		replace_string(reading->slot, text);
	explicit_bzero(text, len);
	g_free(text);
}

/* ---- lists and places ---- */

static void
read_strings(const Reading *reading)
{
	if (yaml_kind(reading->node) != YAML_LIST) {
		wrong_type(reading, "a list");
		return;
	}
	GPtrArray *out = *(GPtrArray **)reading->slot;
	for (unsigned i = 0; i < yaml_count(reading->node); i++) {
		const YamlNode *item = yaml_item(reading->node, i);
		if (yaml_text(item) != NULL) {
			g_ptr_array_add(out, g_strdup(yaml_text(item)));
			continue;
		}
		g_autofree char *got = yaml_describe(item);
		conf_error(reading->report, item, "'%s' must be a list of texts; here is %s",
			   reading->key->name, got);
	}
}

static bool
read_port(const YamlNode *node, ConfReport *report, uint16_t *ret_port)
{
	int64_t port;
	if (yaml_int(node, &port) && port >= 0 && port <= UINT16_MAX) {
		*ret_port = (uint16_t)port;
		return true;
	}
	g_autofree char *got = yaml_describe(node);
	conf_error(report, node, "a port must be a number between 0 and 65535, not %s", got);
	return false;
}

static void
replace_hostport(void *slot, HostPort *hp)
{
	host_port_free(*(HostPort **)slot);
	*(HostPort **)slot = hp;
}

/* [host, port]; a null or empty host means all addresses. */
static void
read_addr(const Reading *reading)
{
	const YamlNode *host = yaml_item(reading->node, 0);
	if (yaml_kind(reading->node) != YAML_LIST || yaml_count(reading->node) != 2 ||
	    (yaml_kind(host) != YAML_SCALAR && yaml_kind(host) != YAML_NULL)) {
		wrong_type(reading, "a list of host and port, as in [localhost, 8000]");
		return;
	}
	uint16_t port;
	if (!read_port(yaml_item(reading->node, 1), reading->report, &port))
		return;
	const char *text = yaml_text(host);
	replace_hostport(reading->slot, host_port_new(text == NULL ? "" : text, port));
}

typedef struct HostYaml {
	char *host;
	int64_t port;
} HostYaml;

static const ConfKey host_keys[] = {
	{.name = "host",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(HostYaml, host),
	 .flags = CONF_REQUIRED},
	{.name = "port",
	 .type = CONF_INT,
	 .offset = CONF_KEY(HostYaml, port),
	 .def = "25",
	 .min = 0,
	 .max = UINT16_MAX},
	{0},
};

HostPort *
conf_read_hostport(const YamlNode *node, ConfReport *report)
{
	HostYaml yaml = {0};
	HostPort *hp = NULL;
	if (yaml_kind(node) != YAML_MAP) {
		g_autofree char *got = yaml_describe(node);
		conf_error(report, node, "a map with host and port is wanted, not %s", got);
		return NULL;
	}
	if (conf_fill(&yaml, host_keys, node, NULL, report))
		hp = host_port_new(yaml.host, (uint16_t)yaml.port);
	conf_clear(&yaml, host_keys);
	return hp;
}

static void
read_hostport(const Reading *reading)
{
	HostPort *hp = conf_read_hostport(reading->node, reading->report);
	if (hp != NULL)
		replace_hostport(reading->slot, hp);
}

static void
read_hostports(const Reading *reading)
{
	if (yaml_kind(reading->node) != YAML_LIST) {
		wrong_type(reading, "a list of maps with host and port");
		return;
	}
	GPtrArray *out = *(GPtrArray **)reading->slot;
	for (unsigned i = 0; i < yaml_count(reading->node); i++) {
		HostPort *hp = conf_read_hostport(yaml_item(reading->node, i), reading->report);
		if (hp != NULL)
			g_ptr_array_add(out, hp);
	}
}

static void
read_node(const Reading *reading)
{
	*(const YamlNode **)reading->slot = reading->node;
}

static void
read_nothing(const Reading *reading)
{
	(void)reading;
}

/* ---- the types ---- */

typedef struct TypeRow {
	const char *name; /* in the reference */
	void (*read)(const Reading *reading);
} TypeRow;

static const TypeRow types[] = {
	[CONF_BOOL] = {"yes/no", read_bool},
	[CONF_INT] = {"number", read_number},
	[CONF_SECONDS] = {"seconds", read_number},
	[CONF_SIZE] = {"bytes", read_number},
	[CONF_DOUBLE] = {"number", read_number},
	[CONF_STRING] = {"text", read_string},
	[CONF_ENUM] = {"choice", read_enum},
	[CONF_STRINGS] = {"list of texts", read_strings},
	[CONF_ADDR] = {"[host, port]", read_addr},
	[CONF_HOSTPORT] = {"{host, port}", read_hostport},
	[CONF_HOSTPORTS] = {"list of {host, port}", read_hostports},
	[CONF_NODE] = {"see text", read_node},
	[CONF_IGNORED] = {"ignored", read_nothing},
	[CONF_SECTION] = {"section", read_nothing},
	[CONF_VERIFY] = {"yes/no or path", read_verify},
	[CONF_SECRET] = {"path", read_secret},
};
_Static_assert(G_N_ELEMENTS(types) == CONF_TYPES, "one row a type");

const char *
conf_type_name(ConfType type)
{
	return (unsigned)type < CONF_TYPES ? types[type].name : "?";
}

static bool
is_list_type(ConfType type)
{
	return type == CONF_STRINGS || type == CONF_HOSTPORTS;
}

static void
free_hostport(void *data)
{
	host_port_free(data);
}

/* The table's default.  What does not parse here is a bug of the table. */
static void
set_default(const ConfKey *key, void *slot)
{
	if (key->type == CONF_STRINGS)
		*(GPtrArray **)slot = g_ptr_array_new_with_free_func(g_free);
	if (key->type == CONF_HOSTPORTS)
		*(GPtrArray **)slot = g_ptr_array_new_with_free_func(free_hostport);
	if (key->def == NULL)
		return;
	double number;
	int64_t unlimited = -1;
	switch (key->type) {
	case CONF_BOOL:
		k_assert_for(yaml_parse_bool(key->def, slot), key->name);
		break;
	case CONF_INT:
	case CONF_SECONDS:
	case CONF_SIZE:
	case CONF_DOUBLE:
		if ((key->flags & CONF_UNLIMITED) != 0 && strcmp(key->def, "null") == 0) {
			memcpy(slot, &unlimited, sizeof(unlimited));
			break;
		}
		k_assert_for(parse_number(key->type, key->def, &number), key->name);
		store_number(key, number, slot);
		break;
	case CONF_STRING:
		replace_string(slot, key->def);
		break;
	case CONF_ENUM:
		*(int *)slot = enum_index(key, key->def);
		k_assert_for(*(int *)slot >= 0, key->name);
		break;
	case CONF_ADDR:
		k_assert_for(host_port_parse(key->def, (HostPort **)slot), key->name);
		break;
	case CONF_VERIFY:
		k_assert_for(strcmp(key->def, "yes") == 0, key->name);
		break;
	default:
		k_assert_for(false, key->name);
	}
}

static void
fill_null(const Reading *reading)
{
	const ConfKey *key = reading->key;
	if ((key->flags & CONF_UNLIMITED) != 0)
		*(int64_t *)reading->slot = -1;
	else if ((key->flags & CONF_REQUIRED) != 0)
		conf_error(reading->report, reading->node, "'%s' needs a value", key->name);
	else if (key->type == CONF_NODE)
		read_node(reading); /* code may tell "key:" from an absent key */
	else if (key->type == CONF_BOOL && (key->flags & CONF_NULL_OK) == 0)
		wrong_type(reading, "yes or no");
}

static void
fill_key(void *out, const ConfKey *key, const YamlNode *map, ConfReport *report)
{
	Reading reading = {
		.key = key,
		.node = yaml_get(map, key->name),
		.slot = (char *)out + key->offset,
		.report = report,
	};
	if (key->type != CONF_IGNORED && key->type != CONF_SECTION)
		set_default(key, reading.slot);
	if (reading.node == NULL && (key->flags & CONF_REQUIRED) != 0)
		conf_error(report, map, "key '%s' is missing", key->name);
	else if (reading.node != NULL && yaml_kind(reading.node) == YAML_NULL)
		fill_null(&reading);
	else if (reading.node != NULL)
		types[key->type].read(&reading);
}

static bool
is_known(const ConfKey *keys, const char *const *extra, const char *name)
{
	for (const ConfKey *key = keys; key != NULL && key->name != NULL; key++)
		if (strcmp(key->name, name) == 0)
			return true;
	for (; extra != NULL && *extra != NULL; extra++)
		if (strcmp(*extra, name) == 0)
			return true;
	return false;
}

bool
conf_fill(void *out, const ConfKey *keys, const YamlNode *map, const char *const *extra,
	  ConfReport *report)
{
	unsigned before = report->errors;
	if (yaml_kind(map) != YAML_MAP && yaml_kind(map) != YAML_NULL) {
		g_autofree char *got = yaml_describe(map);
		conf_error(report, map, "keys and values are wanted here, not %s", got);
		static const ConfKey none[] = {{0}};
		for (const ConfKey *key = keys; key != NULL && key->name != NULL; key++)
			if (key->type != CONF_IGNORED && key->type != CONF_SECTION)
				set_default(key, (char *)out + key->offset);
		keys = none;
	}
	for (const ConfKey *key = keys; key != NULL && key->name != NULL; key++)
		fill_key(out, key, map, report);
	for (unsigned i = 0; yaml_kind(map) == YAML_MAP && i < yaml_count(map); i++) {
		const YamlNode *name = yaml_key(map, i);
		if (!is_known(keys, extra, yaml_text(name)))
			conf_warn_unknown(report, name, keys);
	}
	return report->errors == before;
}

void
conf_clear(void *out, const ConfKey *keys)
{
	for (const ConfKey *key = keys; key != NULL && key->name != NULL; key++) {
		void *slot = (char *)out + key->offset;
		switch (key->type) {
		case CONF_STRING:
		case CONF_VERIFY:
		case CONF_SECRET:
			g_clear_pointer((char **)slot, g_free);
			break;
		case CONF_STRINGS:
		case CONF_HOSTPORTS:
			g_clear_pointer((GPtrArray **)slot, g_ptr_array_unref);
			break;
		case CONF_ADDR:
		case CONF_HOSTPORT:
			g_clear_pointer((HostPort **)slot, host_port_free);
			break;
		default:
			break;
		}
	}
}

void
conf_warn_unknown(ConfReport *report, const YamlNode *key, const ConfKey *keys)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	for (const ConfKey *at = keys; at != NULL && at->name != NULL; at++)
		g_ptr_array_add(names, (void *)at->name);
	const char *text = yaml_text(key);
	const char *near = text_nearest(text, (const char *const *)names->pdata, names->len);
	g_autofree char *shown = text_escape(text, strlen(text), 60);
	if (near == NULL)
		conf_warning(report, key, "key '%s' is not known here and ignored", shown);
	else
		conf_warning(report, key,
			     "key '%s' is not known here and ignored; did you mean '%s'?", shown,
			     near);
}

/* ---- the reference ---- */

static void
doc_cell(GString *out, const char *text)
{
	for (; text != NULL && *text != '\0'; text++) {
		if (*text == '|')
			g_string_append_c(out, '\\');
		g_string_append_c(out, *text);
	}
	g_string_append(out, " |");
}

static void
doc_range(GString *out, const ConfKey *key)
{
	if (key->type == CONF_ENUM) {
		g_autofree char *all = g_strjoinv(", ", (char **)key->names);
		doc_cell(out, all);
		return;
	}
	g_autoptr(GString) range = g_string_new(NULL);
	if (has_range(key)) {
		char low[G_ASCII_DTOSTR_BUF_SIZE], high[G_ASCII_DTOSTR_BUF_SIZE];
		format_number(key->min, low);
		format_number(key->max, high);
		g_string_append_printf(range, "%s to %s", low, high);
	}
	if ((key->flags & CONF_UNLIMITED) != 0)
		g_string_append_printf(range, "%snull: no limit", range->len > 0 ? ", " : "");
	doc_cell(out, range->str);
}

static const char *
doc_default(const ConfKey *key)
{
	if ((key->flags & CONF_REQUIRED) != 0)
		return "required";
	if (key->def != NULL)
		return key->def;
	if (key->type == CONF_BOOL)
		return "no";
	return is_list_type(key->type) ? "empty" : "";
}

void
conf_doc(GString *out, const char *title, const char *intro, const ConfKey *keys)
{
	g_string_append_printf(out, "## %s\n\n", title);
	if (intro != NULL && *intro != '\0')
		g_string_append_printf(out, "%s\n\n", intro);
	if (keys == NULL || keys->name == NULL) {
		g_string_append(out, "No keys.\n\n");
		return;
	}
	g_string_append(out, "| key | type | default | range | meaning |\n|---|---|---|---|---|\n");
	for (const ConfKey *key = keys; key->name != NULL; key++) {
		g_string_append_printf(out, "| `%s` | ", key->name);
		doc_cell(out, conf_type_name(key->type));
		g_string_append_c(out, ' ');
		doc_cell(out, doc_default(key));
		g_string_append_c(out, ' ');
		doc_range(out, key);
		g_string_append_c(out, ' ');
		doc_cell(out, key->doc == NULL ? "" : key->doc);
		g_string_append_c(out, '\n');
	}
	g_string_append_c(out, '\n');
}
