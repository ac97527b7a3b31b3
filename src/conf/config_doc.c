/* SPDX-License-Identifier: Apache-2.0 */
/* The reference of all keys, from the tables that read them. */
#include "conf/config_int.h"
#include "filter/match.h"

static void
doc_sections(GString *out, const ConfSection *sections)
{
	for (; sections->title != NULL; sections++)
		conf_doc(out, sections->title, sections->intro, sections->keys);
}

static void
doc_example(GString *out, const char *example)
{
	if (example != NULL)
		g_string_append_printf(out, "Example:\n\n```yaml\n%s```\n\n", example);
}

static void
doc_filters(GString *out)
{
	g_string_append(out,
			"# Filters\n\n"
			"Entries of `endpoint[].chain`, each a map with `filter: NAME` and the "
			"filter's keys. The last one sends the transaction somewhere.\n\n");
	for (const FilterKind *const *kind = filter_kinds(); *kind != NULL; kind++) {
		g_autofree char *title = g_strdup_printf("filter: %s", (*kind)->name);
		g_autoptr(GString) intro = g_string_new((*kind)->doc);
		if ((*kind)->output_name != NULL)
			g_string_append_printf(intro, "%sOutput, for matchers: `%s`.",
					       intro->len > 0 ? " " : "", (*kind)->output_name);
		conf_doc(out, title, intro->str, (*kind)->keys);
		doc_example(out, (*kind)->example);
	}
}

static void
doc_policies(GString *out)
{
	g_string_append(out, "# Routing policies\n\n"
			     "`policy` of a `router` is a map with `name: NAME` and the policy's "
			     "keys.\n\n");
	for (const RouterPolicyDoc *policy = router_policy_docs; policy->name != NULL; policy++) {
		g_autofree char *title = g_strdup_printf("policy: %s", policy->name);
		conf_doc(out, title, policy->doc, policy->keys);
		doc_example(out, policy->example);
	}
}

static void
doc_matcher_table(GString *out, const MatcherKind *const *kinds)
{
	for (; *kinds != NULL; kinds++) {
		g_autofree char *title = g_strdup_printf("matcher: %s", (*kinds)->name);
		conf_doc(out, title, (*kinds)->doc, (*kinds)->keys);
		doc_example(out, (*kinds)->example);
	}
}

static void
doc_matchers(GString *out)
{
	g_string_append(
		out, "# Matchers\n\n"
		     "`match` of a `policy_action` is a map with `matcher: NAME` and the matcher's "
		     "keys, or one of `any: [...]`, `all: [...]`, `not: {...}` around others.\n\n");
	doc_matcher_table(out, matchers_tx);
	doc_matcher_table(out, matchers_output);
}

void
config_doc(GString *out)
{
	g_string_append(
		out,
		"# Configuration\n\n"
		"Koukan reads two YAML files, one for the router and one for the gateway. "
		"Unknown keys are reported and ignored; a wrong type is an error. Seconds may have "
		"fractions; bytes may end in k, M or G (1024). A key without a value (`key:` or "
		"`key: null`) counts as absent unless its row says otherwise. Anchors, aliases and "
		"`<<` work. `koukan config check FILE...` reports all problems of a file with line "
		"and column.\n\n");
	g_string_append(out, "# Router file\n\n");
	doc_sections(out, config_router_sections);
	g_string_append(out, "# Gateway file\n\n");
	doc_sections(out, config_gateway_sections);
	g_string_append(out, "# Both files\n\n");
	doc_sections(out, config_koukan_sections);
	doc_filters(out);
	doc_policies(out);
	doc_matchers(out);
}
