/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Shared objects with filters, routing policies and matchers (include/koukan/plugin.h), one object
 * here for each entry of `modules:` that names one.
 *
 * Owner: the configuration, which outlives everything that was made with them.  Loaded and freed by
 * one thread; immutable in between. */
#include <koukan/plugin.h>
#include <stdbool.h>

#include "conf/schema.h"
#include "plugin/view.h"

typedef enum PluginKind { PLUGIN_FILTER, PLUGIN_POLICY, PLUGIN_MATCHER, PLUGIN_KINDS } PluginKind;

typedef struct Plugin {
	PluginKind kind;
	char *alias; /* the name in `modules:` */
	char *path;
	void *handle;
	const KoukanPlugin *description;
	/* The one of its kind: copies, zero where the plug-in's own are shorter. */
	KoukanFilter filter;
	KoukanPolicy policy;
	KoukanMatcher matcher;
} Plugin;

/* Whether that text of `modules:` names a shared object: it has a '/' in it, or ends in ".so", a
 * ":NAME" behind that aside. */
bool plugin_is_path(const char *text);
/* Loads "PATH.so" or "PATH.so:NAME"; the name is the alias when there is none.  NULL after one
 * problem has been reported at `node`, the entry's value. */
Plugin *plugin_load(PluginKind kind, const char *alias, const YamlNode *node, ConfReport *report);
void plugin_free(Plugin *plugin); /* NULL is fine */

/* ---- configuring ---- */

/* The keys of `node`, an entry of a chain, a policy or a matcher, but for `skip` (its name). False
 * when a problem has been reported. */
K_MUST_CHECK bool plugin_configure(const Plugin *plugin, const YamlNode *node, const char *skip,
				   ConfReport *report, void **ret_conf);
void plugin_release(const Plugin *plugin, void *conf);

/* ---- calling ---- */

/* The call as plug-ins know it. */
static inline KoukanCall *
plugin_call_of(PluginView *view)
{
	return (KoukanCall *)view;
}
extern const KoukanHost plugin_host; /* host.c */
