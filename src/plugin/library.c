/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/library.h"

#include <dlfcn.h>
#include <string.h>

#include "base/error.h"
#include "plugin/config.h"
#include "plugin/file.h"

/* The sizes that the first version of the interface had: what is shorter is none of it. */
#define PLUGIN_SIZE_MIN  (offsetof(KoukanPlugin, matchers) + sizeof(void *))
#define FILTER_SIZE_MIN  (offsetof(KoukanFilter, message) + sizeof(void *))
#define POLICY_SIZE_MIN  (offsetof(KoukanPolicy, route) + sizeof(void *))
#define MATCHER_SIZE_MIN (offsetof(KoukanMatcher, match) + sizeof(void *))

static const char *const kind_names[] = {"filter", "routing policy", "matcher"};
_Static_assert(G_N_ELEMENTS(kind_names) == PLUGIN_KINDS, "a name for each kind");

/* "PATH.so:NAME": the length of the path; *ret_name is NULL without a name. */
static size_t
split(const char *text, const char **ret_name)
{
	size_t len = strlen(text);
	const char *colon = strrchr(text, ':');
	*ret_name = NULL;
	if (colon == NULL || colon[1] == '\0' || strchr(colon, '/') != NULL)
		return len;
	*ret_name = colon + 1;
	return (size_t)(colon - text);
}

bool
plugin_is_path(const char *text)
{
	const char *name;
	size_t len = split(text, &name);
	return memchr(text, '/', len) != NULL || (len > 3 && memcmp(text + len - 3, ".so", 3) == 0);
}

/* ---- what is in it ---- */

/* Copies what both sides know; the rest stays zero. */
static bool
take(void *to, size_t room, size_t least, const void *from, GError **ret_error)
{
	uint32_t size;
	memcpy(&size, from, sizeof(size));
	if (size < least)
		return error_set(ret_error, K_ERROR_CONFIG,
				 "a description of %u bytes, at least %zu are wanted", size, least);
	memcpy(to, from, MIN(room, size));
	return true;
}

typedef struct Head { /* how each description begins */
	uint32_t size, flags;
	const char *name;
} Head;
_Static_assert(offsetof(Head, name) == offsetof(KoukanFilter, name), "a filter's head");
_Static_assert(offsetof(Head, name) == offsetof(KoukanPolicy, name), "a policy's head");
_Static_assert(offsetof(Head, name) == offsetof(KoukanMatcher, name), "a matcher's head");

static const void *
find(const void *const *list, const char *name)
{
	for (; list != NULL && *list != NULL; list++) {
		const Head *head = *list;
		if (head->name != NULL && strcmp(head->name, name) == 0)
			return *list;
	}
	return NULL;
}

static bool
take_kind(Plugin *plugin, const void *found, GError **ret_error)
{
	switch (plugin->kind) {
	case PLUGIN_FILTER:
		return take(&plugin->filter, sizeof(plugin->filter), FILTER_SIZE_MIN, found,
			    ret_error);
	case PLUGIN_POLICY:
		return take(&plugin->policy, sizeof(plugin->policy), POLICY_SIZE_MIN, found,
			    ret_error) &&
		       (plugin->policy.route != NULL ||
			error_set(ret_error, K_ERROR_CONFIG, "a routing policy needs `route`"));
	case PLUGIN_MATCHER:
		return take(&plugin->matcher, sizeof(plugin->matcher), MATCHER_SIZE_MIN, found,
			    ret_error) &&
		       (plugin->matcher.match != NULL ||
			error_set(ret_error, K_ERROR_CONFIG, "a matcher needs `match`"));
	default:
		k_unreachable();
	}
}

static bool
pick(Plugin *plugin, const char *name, GError **ret_error)
{
	const KoukanPlugin *all = plugin->description;
	const void *const *lists[] = {(const void *const *)all->filters,
				      (const void *const *)all->policies,
				      (const void *const *)all->matchers};
	const void *found = find(lists[plugin->kind], name);
	if (found == NULL)
		return error_set(ret_error, K_ERROR_CONFIG,
				 "plug-in %s has no %s '%s' (PATH:NAME picks another name)",
				 all->name, kind_names[plugin->kind], name);
	if (((const Head *)found)->flags != 0)
		return error_set(ret_error, K_ERROR_CONFIG, "flags 0x%x are not known here",
				 ((const Head *)found)->flags);
	return take_kind(plugin, found, ret_error);
}

/* ---- loading ---- */

typedef const KoukanPlugin *EntryFn(const KoukanHost *host);

static bool
describe(Plugin *plugin, EntryFn *entry, GError **ret_error)
{
	const KoukanPlugin *description = plugin->description = entry(&plugin_host);
	if (description == NULL)
		return error_set(ret_error, K_ERROR_CONFIG,
				 "the plug-in refuses to work with this version (interface %u)",
				 KOUKAN_PLUGIN_ABI);
	if (description->abi != KOUKAN_PLUGIN_ABI)
		return error_set(ret_error, K_ERROR_CONFIG,
				 "made for version %u of the plug-in interface, this is version %u",
				 description->abi, KOUKAN_PLUGIN_ABI);
	if (description->size < PLUGIN_SIZE_MIN || description->name == NULL)
		return error_set(ret_error, K_ERROR_CONFIG, "the plug-in describes itself badly");
	return true;
}

static bool
open_object(Plugin *plugin, GError **ret_error)
{
	if (!plugin_file_check(plugin->path, ret_error))
		return false;
	(void)dlerror();
	plugin->handle = dlopen(plugin->path, RTLD_NOW | RTLD_LOCAL);
	if (plugin->handle == NULL)
		return error_set(ret_error, K_ERROR_CONFIG, "%s", dlerror());
	void *symbol = dlsym(plugin->handle, KOUKAN_PLUGIN_ENTRY);
	if (symbol == NULL)
		return error_set(ret_error, K_ERROR_CONFIG, "%s: no function %s", plugin->path,
				 KOUKAN_PLUGIN_ENTRY);
	EntryFn *entry;
	memcpy(&entry, &symbol, sizeof(entry)); /* POSIX's way from object to function */
	return describe(plugin, entry, ret_error);
}

Plugin *
plugin_load(PluginKind kind, const char *alias, const YamlNode *node, ConfReport *report)
{
	const char *text = yaml_text(node);
	const char *name;
	size_t len = split(text, &name);
	g_autofree char *path = g_strndup(text, len);
	g_autoptr(GError) error = NULL;
	Plugin *plugin = g_new0(Plugin, 1);
	plugin->kind = kind;
	plugin->alias = g_strdup(alias);
	plugin->path = plugin_file_path(path, yaml_where(node));
	if (open_object(plugin, &error) && pick(plugin, name != NULL ? name : alias, &error))
		return plugin;
	conf_error(report, node, "module '%s': %s", alias, error->message);
	plugin_free(plugin);
	return NULL;
}

void
plugin_free(Plugin *plugin)
{
	if (plugin == NULL)
		return;
	if (plugin->handle != NULL)
		dlclose(plugin->handle);
	g_free(plugin->alias);
	g_free(plugin->path);
	g_free(plugin);
}

/* ---- configuring ---- */

typedef int ConfigureFn(const KoukanHost *host, KoukanConfig *config, void **ret_conf);
typedef void ReleaseFn(void *conf);

static ConfigureFn *
configure_of(const Plugin *plugin)
{
	ConfigureFn *const all[] = {plugin->filter.configure, plugin->policy.configure,
				    plugin->matcher.configure};
	return all[plugin->kind];
}

bool
plugin_configure(const Plugin *plugin, const YamlNode *node, const char *skip, ConfReport *report,
		 void **ret_conf)
{
	ConfigureFn *configure = configure_of(plugin);
	if (configure == NULL)
		return true;
	KoukanConfig config = {.node = node, .skip = skip, .report = report};
	unsigned before = report->errors;
	void *made = NULL;
	int result = configure(&plugin_host, &config, &made);
	plugin_config_clear(&config);
	if (result == 0 && report->errors == before) {
		*ret_conf = made;
		return true;
	}
	if (result == 0)
		plugin_release(plugin, made);
	if (report->errors == before)
		conf_error(report, node, "plug-in %s refuses this configuration",
			   plugin->description->name);
	return false;
}

void
plugin_release(const Plugin *plugin, void *conf)
{
	ReleaseFn *const all[] = {plugin->filter.release, plugin->policy.release,
				  plugin->matcher.release};
	if (all[plugin->kind] != NULL)
		all[plugin->kind](conf);
}
