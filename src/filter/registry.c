/* SPDX-License-Identifier: Apache-2.0 */
/* The built-in filters by name, and the module paths of the original that stand for built-ins
 * (behaviour spec 6.7). */
#include <string.h>

#include "filter/kinds.h"

static const FilterKind *const kinds[] = {
	&filter_add_route_kind,
	&filter_arc_check_kind,
	&filter_arc_seal_kind,
	&filter_auth_results_kind,
	&filter_dkim_check_kind,
	&filter_dkim_sign_kind,
	&filter_dmarc_check_kind,
	&filter_dns_resolution_kind,
	&filter_dnsbl_check_kind,
	&filter_exploder_kind,
	&filter_exploder_upstream_kind,
	&filter_hello_kind,
	&filter_lua_kind,
	&filter_message_builder_kind,
	&filter_message_parser_kind,
	&filter_message_validation_kind,
	&filter_policy_action_kind,
	&filter_received_header_kind,
	&filter_remote_host_kind,
	&filter_rest_output_kind,
	&filter_router_kind,
	&filter_spf_check_kind,
	&filter_sync_kind,
	NULL,
};

const FilterKind *const *
filter_kinds(void)
{
	return kinds;
}

const FilterKind *
filter_kind(const char *name)
{
	for (const FilterKind *const *kind = kinds; *kind != NULL; kind++) {
		if (strcmp((*kind)->name, name) == 0)
			return *kind;
	}
	return NULL;
}

/* A path may name its function, "package.module:function"; `factory` is the usual one. */
static bool
is_module(const char *path, const char *module, const char *function)
{
	size_t len = strlen(module);
	if (strncmp(path, module, len) != 0)
		return false;
	return path[len] == '\0' || (path[len] == ':' && strcmp(path + len + 1, function) == 0);
}

const FilterKind *
filter_module(const char *module_path)
{
	return is_module(module_path, "koukan.hello_filter", "factory") ? &filter_hello_kind : NULL;
}

bool
filter_policy_module_known(const char *module_path)
{
	return is_module(module_path, "koukan.hello_policy", "factory");
}

bool
filter_matcher_module_known(const char *module_path)
{
	return is_module(module_path, "koukan.hello_matcher", "match");
}
