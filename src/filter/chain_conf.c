/* SPDX-License-Identifier: Apache-2.0 */
/* `chain:` of an output chain as filters with their configuration. */
#include <string.h>

#include "base/text.h"
#include "filter/filter.h"
#include "filter/plugin.h"

static const char *const entry_keys[] = {"filter", NULL};

static void
filter_conf_free(void *data)
{
	FilterConf *filter = data;
	if (filter->conf != NULL) {
		if (filter->kind->conf_free != NULL)
			filter->kind->conf_free(filter->conf);
		conf_clear(filter->conf, filter->kind->keys);
		g_free(filter->conf);
	}
	g_free(filter);
}

static const FilterKind *
find_kind(const char *name, const FilterModules *modules)
{
	const FilterKind *kind = filter_kind(name);
	if (kind != NULL || modules == NULL || modules->filters == NULL)
		return kind;
	const FilterPlugin *plugin = filter_plugin_find(modules, PLUGIN_FILTER, name);
	if (plugin != NULL)
		return &plugin->kind;
	const char *path = g_hash_table_lookup(modules->filters, name);
	return path != NULL ? filter_module(path) : NULL;
}

static void
unknown_filter(const char *name, const YamlNode *node, ConfReport *report)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	for (const FilterKind *const *kind = filter_kinds(); *kind != NULL; kind++)
		g_ptr_array_add(names, (gpointer)(*kind)->name);
	const char *nearest = text_nearest(name, (const char *const *)names->pdata, names->len);
	if (nearest != NULL)
		conf_error(report, node, "unknown filter '%s', did you mean '%s'?", name, nearest);
	else
		conf_error(report, node, "unknown filter '%s'", name);
}

static FilterConf *
filter_conf_new(const FilterKind *kind, const YamlNode *entry, const ConfModel *model,
		const FilterModules *modules, ConfReport *report)
{
	static const ConfKey no_keys[] = {{0}};
	FilterConf *filter = g_new0(FilterConf, 1);
	filter->kind = kind;
	filter->conf = kind->conf_size > 0 ? g_malloc0(kind->conf_size) : NULL;
	unsigned before = report->errors;
	if ((kind->flags & FILTER_OPEN_KEYS) == 0)
		conf_fill(filter->conf, kind->keys != NULL ? kind->keys : no_keys, entry,
			  entry_keys, report);
	const FilterModules **wanted = NULL;
	if (kind->modules_offset > 0) {
		wanted = (void *)((char *)filter->conf + kind->modules_offset);
		*wanted = modules;
	}
	if (kind->conf_check != NULL)
		kind->conf_check(filter->conf, entry, model, report);
	if (wanted != NULL)
		*wanted = NULL;
	if (kind->variant != NULL && report->errors == before)
		filter->kind = kind->variant(filter->conf);
	return filter;
}

/* What a filter builds on has been found out before it. */
static void
check_behind(const ChainConf *chain, const FilterKind *kind, const YamlNode *entry,
	     ConfReport *report)
{
	for (guint i = 0; i < chain->filters->len; i++) {
		const FilterConf *filter = g_ptr_array_index(chain->filters, i);
		if (strcmp(filter->kind->name, kind->behind) == 0)
			return;
	}
	conf_error(report, entry, "filter %s needs %s before it in the chain", kind->name,
		   kind->behind);
}

static void
add_entry(ChainConf *chain, const YamlNode *entry, const ConfModel *model,
	  const FilterModules *modules, ConfReport *report)
{
	const YamlNode *name_node = yaml_get(entry, "filter");
	const char *name = yaml_text(name_node);
	if (name == NULL) {
		conf_error(report, entry, "an entry of a chain needs 'filter: name'");
		return;
	}
	const FilterKind *kind = find_kind(name, modules);
	if (kind == NULL) {
		unknown_filter(name, name_node, report);
		return;
	}
	if (kind->behind != NULL)
		check_behind(chain, kind, entry, report);
	g_ptr_array_add(chain->filters, filter_conf_new(kind, entry, model, modules, report));
}

/* Exactly the last filter sends the transaction somewhere. */
static void
check_terminal(ChainConf *chain, const YamlNode *list, ConfReport *report)
{
	for (guint i = 0; i < chain->filters->len; i++) {
		const FilterConf *filter = g_ptr_array_index(chain->filters, i);
		bool terminal = (filter->kind->flags & FILTER_TERMINAL) != 0;
		bool last = i + 1 == chain->filters->len;
		if (terminal && !last)
			conf_error(report, yaml_item(list, i),
				   "filter %s ends the chain; nothing may stand behind it",
				   filter->kind->name);
		else if (!terminal && last)
			conf_error(
				report, yaml_item(list, i),
				"chain '%s' ends without a filter that sends: rest_output or exploder",
				chain->name);
		if (last)
			chain->incremental = (filter->kind->flags & FILTER_INCREMENTAL) != 0;
	}
}

ChainConf *
chain_conf_new(const char *name, const YamlNode *list, const ConfModel *model,
	       const FilterModules *modules, ConfReport *report)
{
	ChainConf *chain = g_new0(ChainConf, 1);
	chain->name = g_strdup(name);
	chain->filters = g_ptr_array_new_with_free_func(filter_conf_free);
	if (yaml_kind(list) != YAML_LIST || yaml_count(list) == 0) {
		conf_error(report, list, "chain '%s' needs a list of filters", name);
		return chain;
	}
	unsigned before = report->errors;
	for (unsigned i = 0; i < yaml_count(list); i++)
		add_entry(chain, yaml_item(list, i), model, modules, report);
	/* With an entry missing the rest is not where it belongs. */
	if (report->errors == before)
		check_terminal(chain, list, report);
	return chain;
}

void
chain_conf_free(ChainConf *conf)
{
	if (conf == NULL)
		return;
	g_ptr_array_unref(conf->filters);
	g_free(conf->name);
	g_free(conf);
}
