/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "conf/config_int.h"

YamlDoc *
config_open(const char *name, const char *text, ConfReport *report)
{
	g_autoptr(GError) error = NULL;
	if (report->fallback == NULL)
		report->fallback = g_strdup(name);
	YamlDoc *doc = text != NULL ? yaml_load_text(name, text, &error)
				    : yaml_load_file(name, &error);
	if (doc == NULL)
		conf_error_placed(report, name, error->message);
	return doc;
}

/* ---- koukan: ---- */

static const char *const level_names[] = {"debug", "info", "warn", "error", NULL};
_Static_assert(G_N_ELEMENTS(level_names) == LOG_LEVELS + 1, "one name a level");
static const char *const format_names[] = {"logfmt", "json", NULL};
_Static_assert(G_N_ELEMENTS(format_names) == LOG_FORMATS + 1, "one name a format");

#define AT(member) .offset = CONF_KEY(KoukanConf, member)
static const ConfKey koukan_keys[] = {
	{.name = "workers",
	 .type = CONF_INT,
	 AT(workers),
	 .def = "0",
	 .min = 0,
	 .max = 256,
	 .doc = "Worker threads; 0: one for each core."},
	{.name = "hostname",
	 .type = CONF_STRING,
	 AT(hostname),
	 .doc = "Name in greetings and trace fields; without it the machine's."},
	{.name = "log_level",
	 .type = CONF_ENUM,
	 AT(log_level),
	 .def = "info",
	 .names = level_names,
	 .doc = "The least level that is logged; goes before `logging`."},
	{.name = "log_format",
	 .type = CONF_ENUM,
	 AT(log_format),
	 .def = "logfmt",
	 .names = format_names,
	 .doc = "One line per event, as key=value or as JSON."},
	{.name = "state_dir",
	 .type = CONF_STRING,
	 AT(state_dir),
	 .doc = "Directory of the embedded database; without it $XDG_STATE_HOME/koukan or "
		"~/.local/state/koukan."},
	{.name = "spill_dir",
	 .type = CONF_STRING,
	 AT(spill_dir),
	 .doc = "Directory of large bodies under way; without it $TMPDIR or /tmp."},
	{.name = "body_memory",
	 .type = CONF_SIZE,
	 AT(body_memory),
	 .def = "256k",
	 .min = 0,
	 .max = 1024.0 * 1024 * 1024,
	 .doc = "Bytes of one body that are kept in memory."},
	{.name = "dns_forward",
	 .type = CONF_STRINGS,
	 AT(dns_forward),
	 .doc = "Name servers to ask, `address` or `address@port`; without any those of "
		"/etc/resolv.conf."},
	{.name = "dns_timeout",
	 .type = CONF_SECONDS,
	 AT(dns_timeout),
	 .def = "10",
	 .min = 0.01,
	 .max = 300,
	 .doc = "Seconds until a lookup counts as failed for now."},
	{.name = "message_max",
	 .type = CONF_SIZE,
	 AT(message_max),
	 .def = "50M",
	 .min = 1024,
	 .max = 1024.0 * 1024 * 1024 * 1024,
	 .doc = "Largest message in bytes; announced in SIZE."},
	{.name = "rcpt_max",
	 .type = CONF_INT,
	 AT(rcpt_max),
	 .def = "1000",
	 .min = 1,
	 .max = 100000,
	 .doc = "Recipients of one SMTP transaction; RFC 5321 asks for at least 100."},
	{.name = "per_destination",
	 .type = CONF_INT,
	 AT(per_destination),
	 .def = "20",
	 .min = 1,
	 .max = 100000,
	 .doc = "Attempts from the queue to one recipient domain at a time."},
	{.name = "admin",
	 .type = CONF_BOOL,
	 AT(admin),
	 .def = "no",
	 .doc = "Serve the administration routes `/admin/v1` on a REST listener that is not on "
		"loopback, too, although it has no authentication. With `rest.access` the entries "
		"there decide instead."},
	{.name = "rest",
	 .type = CONF_SECTION,
	 .doc = "Who may use the REST API, and how much of it."},
	{0},
};
#undef AT

const ConfSection config_koukan_sections[] = {
	{"koukan",
	 "Settings of this implementation, the same in both files. Other implementations ignore "
	 "the section.",
	 koukan_keys},
	{"koukan.rest", "Around the REST API: authentication, limits.", config_rest_keys},
	{"koukan.rest.access[]",
	 "One who may use the REST API. It proves to be that by an API key (`Authorization: Bearer "
	 "KEY`) or a client certificate.",
	 config_access_keys},
	{0},
};

void
config_read_koukan(KoukanConf *koukan, const YamlNode *root, ConfReport *report)
{
	const YamlNode *map = yaml_get(root, "koukan");
	conf_fill(koukan, koukan_keys, map, NULL, report);
	config_read_rest(&koukan->rest, map, report);
	if (yaml_kind(yaml_get(map, "log_level")) == YAML_NULL)
		koukan->log_level = (int)config_log_level(yaml_get(root, "logging"),
							  (LogLevel)koukan->log_level);
}

void
config_clear_koukan(KoukanConf *koukan)
{
	conf_clear(koukan, koukan_keys);
	config_clear_rest(&koukan->rest);
}

/* ---- logging: ---- */

static bool
python_level(const YamlNode *node, LogLevel *ret_level)
{
	static const struct {
		const char *name;
		int64_t number;
		LogLevel level;
	} rows[] = {
		{"NOTSET", 0, LOG_DEBUG},    {"DEBUG", 10, LOG_DEBUG},  {"INFO", 20, LOG_INFO},
		{"WARN", 30, LOG_WARN},      {"WARNING", 30, LOG_WARN}, {"ERROR", 40, LOG_ERROR},
		{"CRITICAL", 50, LOG_ERROR}, {"FATAL", 50, LOG_ERROR},
	};
	const char *text = yaml_text(node);
	int64_t number = -1;
	bool is_number = yaml_int(node, &number);
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		if (is_number ? rows[i].number != number : !text_equal_nocase(rows[i].name, text))
			continue;
		*ret_level = rows[i].level;
		return true;
	}
	return false;
}

/* The root logger's level, else the lowest of the loggers that belong to Koukan itself.  Levels
 * of libraries (hpack, mail.log...) say nothing about our lines. */
LogLevel
config_log_level(const YamlNode *logging, LogLevel otherwise)
{
	LogLevel level;
	const YamlNode *loggers = yaml_get(logging, "loggers");
	if (python_level(yaml_get(yaml_get(logging, "root"), "level"), &level) ||
	    python_level(yaml_get(yaml_get(loggers, "root"), "level"), &level) ||
	    python_level(yaml_get(yaml_get(loggers, ""), "level"), &level))
		return level;
	bool any = false;
	LogLevel least = otherwise;
	for (unsigned i = 0; yaml_kind(loggers) == YAML_MAP && i < yaml_count(loggers); i++) {
		const char *name = yaml_text(yaml_key(loggers, i));
		if (strcmp(name, "koukan") != 0 && !g_str_has_prefix(name, "koukan."))
			continue;
		if (!python_level(yaml_get(yaml_value(loggers, i), "level"), &level))
			continue;
		if (!any || level < least)
			least = level;
		any = true;
	}
	return least;
}

/* ---- helpers ---- */

ConfigKind
config_kind(const YamlNode *root)
{
	static const char *const gateway[] = {"smtp_listener", "smtp_output", "rest_output"};
	static const char *const router[] = {"endpoint", "sender", "rest_endpoint", "storage",
					     "modules"};
	unsigned gateway_keys = 0, router_keys = 0;
	for (size_t i = 0; i < G_N_ELEMENTS(gateway); i++)
		gateway_keys += yaml_get(root, gateway[i]) != NULL;
	for (size_t i = 0; i < G_N_ELEMENTS(router); i++)
		router_keys += yaml_get(root, router[i]) != NULL;
	if (gateway_keys == router_keys)
		return CONFIG_UNKNOWN;
	return gateway_keys > router_keys ? CONFIG_GATEWAY : CONFIG_ROUTER;
}

bool
config_check_root(const YamlNode *root, ConfigKind want, const ConfKey *sections,
		  ConfReport *report)
{
	ConfigKind kind = config_kind(root);
	if (kind != CONFIG_UNKNOWN && kind != want) {
		conf_error(report, root, "this is the configuration of a %s, not of a %s",
			   want == CONFIG_ROUTER ? "gateway" : "router",
			   want == CONFIG_ROUTER ? "router" : "gateway");
		return false;
	}
	struct {
		int none;
	} nothing;
	return conf_fill(&nothing, sections, root, NULL, report);
}

unsigned
config_count(const YamlNode *section, const char *name, ConfReport *report)
{
	if (yaml_kind(section) == YAML_NULL)
		return 0;
	if (yaml_kind(section) == YAML_LIST)
		return yaml_count(section);
	g_autofree char *got = yaml_describe(section);
	conf_error(report, section, "'%s' must be a list, not %s", name, got);
	return 0;
}

void
config_note_name(GHashTable *seen, const char *what, const char *name, const YamlNode *place,
		 ConfReport *report)
{
	if (name == NULL)
		return; /* a missing name is reported already */
	const YamlNode *first = g_hash_table_lookup(seen, name);
	if (first != NULL)
		conf_error(report, place, "%s '%s' stands twice, first in line %u", what, name,
			   yaml_line(first));
	else
		g_hash_table_insert(seen, g_strdup(name), (void *)place);
}

const YamlNode *
config_place(const YamlNode *map, const char *key)
{
	const YamlNode *value = yaml_get(map, key);
	return value != NULL ? value : map;
}

char *
config_hint(const char *word, GPtrArray *names)
{
	const char *near = text_nearest(word, (const char *const *)names->pdata, names->len);
	return near == NULL ? g_strdup("") : g_strdup_printf("; did you mean '%s'?", near);
}

void
config_check_tls(const YamlNode *map, const char *cert, const char *key, ConfReport *report)
{
	if ((cert == NULL) == (key == NULL))
		return;
	conf_warning(report, config_place(map, cert != NULL ? "cert" : "key"),
		     "'%s' without '%s': TLS stays off", cert != NULL ? "cert" : "key",
		     cert != NULL ? "key" : "cert");
}
