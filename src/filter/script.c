/* SPDX-License-Identifier: Apache-2.0 */
/* Lua scripts as filter and as matcher, both of the name `lua`. */
#include "plugin/script.h"
#include "conf/yaml_json.h"
#include "filter/hook.h"
#include "filter/kinds.h"
#include "plugin/file.h"

/* What both have; the place of `path` is the key's. */
typedef struct ScriptConf {
	char *path;
	int64_t memory, instructions;
	const YamlNode *options;
	Script *script; /* owned by the configuration; NULL: it has an error */
} ScriptConf;

#define SCRIPT_KEYS(type_, member_)                                                                \
	{.name = "script",                                                                         \
	 .type = CONF_STRING,                                                                      \
	 .offset = CONF_KEY(type_, member_.path),                                                  \
	 .flags = CONF_REQUIRED,                                                                   \
	 .doc = "The Lua file (docs/scripts.md), relative to the folder of this one; read again "  \
		"on SIGHUP."},                                                                     \
		{.name = "memory",                                                                 \
		 .type = CONF_SIZE,                                                                \
		 .offset = CONF_KEY(type_, member_.memory),                                        \
		 .def = "1M",                                                                      \
		 .min = 65536,                                                                     \
		 .max = 64.0 * 1024 * 1024,                                                        \
		 .doc = "Bytes that it may use, on each worker."},                                 \
		{.name = "instructions",                                                           \
		 .type = CONF_INT,                                                                 \
		 .offset = CONF_KEY(type_, member_.instructions),                                  \
		 .def = "100000",                                                                  \
		 .min = 1000,                                                                      \
		 .max = 10000000,                                                                  \
		 .doc = "Instructions of one call."},                                              \
	{                                                                                          \
		.name = "options", .type = CONF_NODE, .offset = CONF_KEY(type_, member_.options),  \
		.doc = "What the script finds in its global `options`."                            \
	}

static void
script_check(ScriptConf *conf, const YamlNode *node, const FilterModules *modules, bool is_matcher,
	     ConfReport *report)
{
	const YamlNode *place = yaml_get(node, "script");
	if (conf->path == NULL)
		return; /* has been reported */
	if (modules == NULL || modules->scripts == NULL) {
		conf_error(report, place, "there are no scripts in this place");
		return;
	}
	const ScriptLimits limits = {.memory = (size_t)conf->memory,
				     .instructions = (unsigned)conf->instructions};
	g_autofree char *path = plugin_file_path(conf->path, yaml_where(place));
	g_autoptr(GError) error = NULL;
	json_t *options = conf->options != NULL ? yaml_json(conf->options) : NULL;
	conf->script = script_new(path, &limits, options, is_matcher, &error);
	json_decref(options);
	if (conf->script == NULL)
		conf_error(report, place, "%s", error->message);
	else
		g_ptr_array_add(modules->scripts, conf->script);
}

/* ---- filter ---- */

typedef struct LuaConf {
	HookConf hook; /* first */
	ScriptConf script;
	const FilterModules *modules;
} LuaConf;

static bool
lua_call_hook(Filter *filter, PluginView *view, GError **ret_error)
{
	const LuaConf *conf = filter->conf;
	return script_call(conf->script.script, worker_index(filter_env(filter)->worker), view,
			   NULL, ret_error);
}

static FilterResult
lua_update(Filter *filter, unsigned news)
{
	const LuaConf *conf = filter->conf;
	const Script *script = conf->script.script;
	return hook_update(filter, news,
			   (HookWants){.mail = script_wants(script, PLUGIN_MAIL),
				       .rcpt = script_wants(script, PLUGIN_RCPT),
				       .message = script_wants(script, PLUGIN_MESSAGE)});
}

static void
lua_conf_check(void *data, const YamlNode *node, const ConfModel *model, ConfReport *report)
{
	(void)model;
	LuaConf *conf = data;
	script_check(&conf->script, node, conf->modules, false, report);
	conf->hook.call = lua_call_hook;
	conf->hook.name = conf->script.script != NULL ? script_name(conf->script.script) : "";
}

static const ConfKey lua_keys[] = {
	SCRIPT_KEYS(LuaConf, script),
	{0},
};

const FilterKind filter_lua_kind = {
	.name = "lua",
	.doc = "A Lua script looks at the transaction, refuses, and adds header fields.",
	.example = "- filter: lua\n"
		   "  script: /etc/koukan/greet.lua\n"
		   "  options: {internal: example.com}\n",
	.flags = HOOK_FLAGS,
	.conf_size = sizeof(LuaConf),
	.keys = lua_keys,
	.conf_check = lua_conf_check,
	.state_size = sizeof(HookState),
	.update = lua_update,
	.close = hook_close,
	.modules_offset = offsetof(LuaConf, modules),
};

/* ---- matcher ---- */

typedef struct LuaArgs {
	ScriptConf script;
	const FilterModules *modules;
} LuaArgs;

static void
lua_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	LuaArgs *args = data;
	script_check(&args->script, node, args->modules, true, report);
}

static MatchResult
lua_eval(const void *data, MatchCtx *ctx)
{
	static const MatchResult results[] = {MATCH_UNMET, MATCH_NO, MATCH_YES};
	const LuaArgs *args = data;
	const FilterEnv *env = filter_env(ctx->filter);
	PluginView view = hook_match_view(ctx, script_name(args->script.script));
	g_autoptr(GError) error = NULL;
	int match = -1;
	bool good = script_call(args->script.script, worker_index(env->worker), &view, &match,
				&error);
	plugin_view_clear(&view);
	if (good)
		return results[match + 1];
	log_error(&env->log, "filter.hook_failed", LOG_S("filter", ctx->filter->kind->name),
		  LOG_S("code", script_name(args->script.script)), LOG_S("error", error->message));
	ctx->fault = "the script of a matcher failed";
	return MATCH_FAULT;
}

static const ConfKey lua_matcher_keys[] = {
	SCRIPT_KEYS(LuaArgs, script),
	{0},
};

const MatcherKind matcher_lua_kind = {
	.name = "lua",
	.doc = "What the function `match` of a Lua script says.",
	.example = "- filter: policy_action\n"
		   "  tag: newsletters\n"
		   "  match: {matcher: lua, script: /etc/koukan/newsletter.lua}\n"
		   "  action: REJECT\n",
	.args_size = sizeof(LuaArgs),
	.keys = lua_matcher_keys,
	.check = lua_check,
	.eval = lua_eval,
	.modules_offset = offsetof(LuaArgs, modules),
};
