/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/config.h"

#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "conf/yaml_json.h"

void
plugin_config_clear(KoukanConfig *config)
{
	g_clear_pointer(&config->json, g_free);
}

static const YamlNode *
get(const KoukanConfig *config, const char *key)
{
	return key != NULL && strcmp(key, config->skip) != 0 ? yaml_get(config->node, key) : NULL;
}

static const YamlNode *
place(const KoukanConfig *config, const char *key)
{
	const YamlNode *node = get(config, key);
	return node != NULL ? node : config->node;
}

const char *
plugin_config_json(const KoukanConfig *config)
{
	if (config->json == NULL) {
		g_autoptr(json_t) value = yaml_json(config->node);
		json_object_del(value, config->skip);
		((KoukanConfig *)config)->json = json_print(value); /* a cache */
	}
	return config->json;
}

const char *
plugin_config_text(const KoukanConfig *config, const char *key, const char *otherwise)
{
	const YamlNode *node = get(config, key);
	return yaml_kind(node) == YAML_SCALAR ? yaml_text(node) : otherwise;
}

static int
report_type(KoukanConfig *config, const char *key, const char *wanted)
{
	g_autofree char *got = yaml_describe(get(config, key));
	conf_error(config->report, get(config, key), "'%s' must be %s, not %s", key, wanted, got);
	return KOUKAN_E_INVALID;
}

int
plugin_config_number(KoukanConfig *config, const char *key, int64_t *ret_value)
{
	const YamlNode *node = get(config, key);
	if (yaml_kind(node) == YAML_NULL)
		return KOUKAN_E_UNAVAILABLE;
	return yaml_int(node, ret_value) ? 0 : report_type(config, key, "a whole number");
}

int
plugin_config_bool(KoukanConfig *config, const char *key, int *ret_value)
{
	const YamlNode *node = get(config, key);
	bool value;
	if (yaml_kind(node) == YAML_NULL)
		return KOUKAN_E_UNAVAILABLE;
	if (!yaml_bool(node, &value))
		return report_type(config, key, "yes or no");
	*ret_value = value;
	return 0;
}

void
plugin_config_error(KoukanConfig *config, const char *key, const char *text)
{
	conf_error(config->report, place(config, key), "%s", text != NULL ? text : "");
}

void
plugin_config_known(KoukanConfig *config, const char *const *known)
{
	const size_t count = g_strv_length((char **)known);
	for (unsigned i = 0; i < yaml_count(config->node); i++) {
		const YamlNode *key = yaml_key(config->node, i);
		const char *name = yaml_text(key);
		if (name == NULL || strcmp(name, config->skip) == 0 || g_strv_contains(known, name))
			continue;
		const char *nearest = text_nearest(name, known, count);
		conf_warning(config->report, key, "unknown key '%s'%s%s%s", name,
			     nearest != NULL ? ", did you mean '" : "",
			     nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
	}
}
