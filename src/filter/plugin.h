/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Entries of `modules:` that are shared objects, as filters, routing policies and matchers. */
#include "filter/filter.h"
#include "plugin/library.h"

typedef struct FilterPlugin {
	Plugin *plugin;  /* owned */
	FilterKind kind; /* of a filter: its name is the alias */
} FilterPlugin;

/* Loads what `node`, the entry's value, names (plugin_is_path).  NULL after a problem has been
 * reported. */
FilterPlugin *filter_plugin_load(PluginKind kind, const char *alias, const YamlNode *node,
				 ConfReport *report);
void filter_plugin_free(FilterPlugin *plugin); /* NULL is fine */
/* NULL: no such.  `modules` may be NULL. */
const FilterPlugin *filter_plugin_find(const FilterModules *modules, PluginKind kind,
				       const char *alias);

/* ---- routing ---- */

typedef struct PluginPolicy PluginPolicy; /* a configured one */

/* From the `policy:` of a router.  NULL after a problem has been reported. */
PluginPolicy *plugin_policy_new(const Plugin *plugin, const YamlNode *node, ConfReport *report);
void plugin_policy_free(PluginPolicy *policy); /* NULL is fine */

typedef struct PluginDecision {
	bool decided;
	Response *answer; /* refused; owned */
	TxRoute *route;   /* NULL: none was named; owned */
} PluginDecision;

/* Where recipient `index` of `down` goes; `pattern` (may be NULL) is the policy's destination. A
 * failure is a temporary answer. */
PluginDecision plugin_policy_decide(const PluginPolicy *policy, const Filter *filter, size_t index,
				    const TxRoute *pattern);
