/* SPDX-License-Identifier: Apache-2.0 */
#include "filter/plugin.h"

#include <string.h>

#include "base/error.h"
#include "filter/hook.h"

#define POLICY_FAILED "4.3.0 routing failed here; please try again later"

/* ---- filters ---- */

typedef struct PluginConf {
	HookConf hook; /* first */
	const FilterModules *modules;
	const Plugin *plugin; /* NULL: the configuration has an error */
	void *made;           /* by the plug-in */
	bool configured;
} PluginConf;

static bool
failed(GError **ret_error, int result, const char *what)
{
	return error_set(ret_error, K_ERROR_CONFIG, "%s returned %d", what, result);
}

static bool
plugin_filter_call(Filter *filter, PluginView *view, GError **ret_error)
{
	static const char *const names[] = {"mail", "rcpt", "message"};
	const PluginConf *conf = filter->conf;
	const KoukanFilter *code = &conf->plugin->filter;
	HookState *state = filter->state;
	if (!state->opened && code->open != NULL) {
		int result = code->open(conf->made, &state->own);
		if (result != 0)
			return failed(ret_error, result, "open");
		state->opened = true;
	}
	int (*const calls[])(void *, void *, KoukanCall *) = {code->mail, code->rcpt,
							      code->message};
	int result = calls[view->event](conf->made, state->own, plugin_call_of(view));
	return result == KOUKAN_CONTINUE || failed(ret_error, result, names[view->event]);
}
_Static_assert(PLUGIN_MAIL == 0 && PLUGIN_RCPT == 1 && PLUGIN_MESSAGE == 2, "order of the calls");

static FilterResult
plugin_filter_update(Filter *filter, unsigned news)
{
	const PluginConf *conf = filter->conf;
	const KoukanFilter *code = &conf->plugin->filter;
	return hook_update(filter, news,
			   (HookWants){.mail = code->mail != NULL,
				       .rcpt = code->rcpt != NULL,
				       .message = code->message != NULL});
}

static void
plugin_filter_close(Filter *filter)
{
	const PluginConf *conf = filter->conf;
	HookState *state = filter->state;
	if (state->opened && conf->plugin->filter.close != NULL)
		conf->plugin->filter.close(conf->made, state->own);
	state->opened = false;
	hook_close(filter);
}

static void
plugin_filter_check(void *data, const YamlNode *node, const ConfModel *model, ConfReport *report)
{
	(void)model;
	PluginConf *conf = data;
	const char *alias = yaml_text(yaml_get(node, "filter"));
	conf->plugin = filter_plugin_find(conf->modules, PLUGIN_FILTER, alias)->plugin;
	conf->hook.call = plugin_filter_call;
	conf->hook.name = conf->plugin->alias;
	conf->configured = plugin_configure(conf->plugin, node, "filter", report, &conf->made);
}

static void
plugin_filter_conf_free(void *data)
{
	PluginConf *conf = data;
	if (conf->configured)
		plugin_release(conf->plugin, conf->made);
}

static const FilterKind plugin_filter_kind = {
	.flags = HOOK_FLAGS | FILTER_OPEN_KEYS,
	.conf_size = sizeof(PluginConf),
	.conf_check = plugin_filter_check,
	.conf_free = plugin_filter_conf_free,
	.state_size = sizeof(HookState),
	.update = plugin_filter_update,
	.close = plugin_filter_close,
	.modules_offset = offsetof(PluginConf, modules),
};

/* ---- what was loaded ---- */

FilterPlugin *
filter_plugin_load(PluginKind kind, const char *alias, const YamlNode *node, ConfReport *report)
{
	Plugin *loaded = plugin_load(kind, alias, node, report);
	if (loaded == NULL)
		return NULL;
	FilterPlugin *plugin = g_new0(FilterPlugin, 1);
	plugin->plugin = loaded;
	plugin->kind = plugin_filter_kind;
	plugin->kind.name = loaded->alias;
	return plugin;
}

void
filter_plugin_free(FilterPlugin *plugin)
{
	if (plugin == NULL)
		return;
	plugin_free(plugin->plugin);
	g_free(plugin);
}

const FilterPlugin *
filter_plugin_find(const FilterModules *modules, PluginKind kind, const char *alias)
{
	const GPtrArray *plugins = modules != NULL ? modules->plugins : NULL;
	for (guint i = 0; plugins != NULL && i < plugins->len; i++) {
		const FilterPlugin *plugin = g_ptr_array_index(plugins, i);
		if (plugin->plugin->kind == kind && strcmp(plugin->plugin->alias, alias) == 0)
			return plugin;
	}
	return NULL;
}

/* ---- matchers ---- */

typedef struct PluginArgs {
	const Plugin *plugin;
	const FilterModules *modules;
	void *made;
	bool configured;
} PluginArgs;

static void
matcher_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	PluginArgs *args = data;
	const char *alias = yaml_text(yaml_get(node, "matcher"));
	args->plugin = filter_plugin_find(args->modules, PLUGIN_MATCHER, alias)->plugin;
	args->configured = plugin_configure(args->plugin, node, "matcher", report, &args->made);
}

static void
matcher_clear(void *data)
{
	const PluginArgs *args = data;
	if (args->configured)
		plugin_release(args->plugin, args->made);
}

static MatchResult
matcher_eval(const void *data, MatchCtx *ctx)
{
	const PluginArgs *args = data;
	PluginView view = hook_match_view(ctx, args->plugin->alias);
	int result = args->plugin->matcher.match(args->made, plugin_call_of(&view));
	plugin_view_clear(&view);
	switch (result) {
	case KOUKAN_NO:
		return MATCH_NO;
	case KOUKAN_YES:
		return MATCH_YES;
	case KOUKAN_UNKNOWN:
		return MATCH_UNMET;
	default:
		ctx->fault = "a matcher of a plug-in failed";
		return MATCH_FAULT;
	}
}

const MatcherKind matcher_plugin_kind = {
	.name = "plugin",
	.args_size = sizeof(PluginArgs),
	.check = matcher_check,
	.eval = matcher_eval,
	.clear = matcher_clear,
	.modules_offset = offsetof(PluginArgs, modules),
	.open_keys = true,
};

/* ---- routing ---- */

struct PluginPolicy {
	const Plugin *plugin;
	void *made;
};

PluginPolicy *
plugin_policy_new(const Plugin *plugin, const YamlNode *node, ConfReport *report)
{
	PluginPolicy *policy = g_new0(PluginPolicy, 1);
	policy->plugin = plugin;
	if (plugin_configure(plugin, node, "name", report, &policy->made))
		return policy;
	g_free(policy);
	return NULL;
}

void
plugin_policy_free(PluginPolicy *policy)
{
	if (policy == NULL)
		return;
	plugin_release(policy->plugin, policy->made);
	g_free(policy);
}

/* What was named, over the policy's destination; NULL when an endpoint is not there. */
static TxRoute *
named_route(const PluginView *view, const ConfModel *model, const TxRoute *pattern)
{
	TxRoute *route = pattern != NULL ? filter_route_copy(pattern) : tx_route_new();
	if (view->endpoint != NULL) {
		const RestEndpointConf *endpoint = conf_model_rest_endpoint(model, view->endpoint);
		if (endpoint == NULL || endpoint->sender == NULL) {
			tx_route_free(route);
			return NULL;
		}
		tx_route_free(route);
		route = filter_endpoint_route(endpoint);
	}
	if (view->hosts != NULL)
		g_ptr_array_set_size(route->hosts, 0);
	for (guint i = 0; view->hosts != NULL && i < view->hosts->len; i++)
		g_ptr_array_add(route->hosts, host_port_copy(g_ptr_array_index(view->hosts, i)));
	return route;
}

static PluginDecision
policy_failed(const PluginPolicy *policy, const Filter *filter, const char *why, int64_t result)
{
	log_error(&filter_env(filter)->log, "router.policy_failed",
		  LOG_S("plugin", policy->plugin->alias), LOG_S("error", why),
		  LOG_I("result", result));
	return (PluginDecision){.decided = true, .answer = response_new(451, POLICY_FAILED)};
}

static PluginDecision
judge(const PluginPolicy *policy, const Filter *filter, const PluginView *view, int result,
      const TxRoute *pattern)
{
	PluginDecision decision = {0};
	switch (result) {
	case KOUKAN_NOT_MINE:
		return decision;
	case KOUKAN_REFUSE:
		if (view->answer == NULL)
			return policy_failed(policy, filter, "refused without an answer", result);
		decision.decided = true;
		decision.answer = response_ref(view->answer);
		return decision;
	case KOUKAN_ROUTE:
		decision.decided = true;
		if (view->endpoint == NULL && view->hosts == NULL && pattern == NULL)
			return decision; /* somewhere, unspecified */
		decision.route = named_route(view, filter_env(filter)->model, pattern);
		if (decision.route == NULL)
			return policy_failed(policy, filter, "no such rest_endpoint", result);
		return decision;
	default:
		return policy_failed(policy, filter, "it failed", result);
	}
}

PluginDecision
plugin_policy_decide(const PluginPolicy *policy, const Filter *filter, size_t index,
		     const TxRoute *pattern)
{
	PluginView view = {.event = PLUGIN_ROUTE,
			   .tx = filter->down,
			   .rcpt = tx_rcpt(filter->down, index)->to->addr,
			   .log = &filter_env(filter)->log,
			   .name = policy->plugin->alias};
	int result = policy->plugin->policy.route(policy->made, plugin_call_of(&view));
	PluginDecision decision = judge(policy, filter, &view, result, pattern);
	plugin_view_clear(&view);
	return decision;
}
