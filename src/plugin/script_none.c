/* SPDX-License-Identifier: Apache-2.0 */
/* In place of script*.c where Lua is left out of the build: no script loads. */
#include "base/error.h"
#include "plugin/script.h"

Script *
script_new(const char *path, const ScriptLimits *limits, json_t *options, bool is_matcher,
	   GError **ret_error)
{
	(void)limits;
	(void)options;
	(void)is_matcher;
	error_set(ret_error, K_ERROR_CONFIG, "%s: this Koukan was built without Lua", path);
	return NULL;
}

void
script_free(Script *script)
{
	k_assert(script == NULL);
}

bool
script_reload(Script *script, GError **ret_error)
{
	(void)script;
	(void)ret_error;
	k_unreachable();
}

const char *
script_path(const Script *script)
{
	(void)script;
	k_unreachable();
}

const char *
script_name(const Script *script)
{
	(void)script;
	k_unreachable();
}

bool
script_wants(const Script *script, PluginEvent event)
{
	(void)script;
	(void)event;
	k_unreachable();
}

bool
script_call(Script *script, unsigned worker, PluginView *view, int *ret_match, GError **ret_error)
{
	(void)script;
	(void)worker;
	(void)view;
	(void)ret_match;
	(void)ret_error;
	k_unreachable();
}
