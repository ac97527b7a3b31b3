/* SPDX-License-Identifier: Apache-2.0 */
/* The matcher about arc_check's output. */
#include <string.h>

#include "base/json.h"
#include "filter/match.h"
#include "mailauth/arc.h"

typedef struct ArcArgs {
	int result; /* index of the names */
	GPtrArray *sealers;
} ArcArgs;

static const ConfKey arc_keys[] = {
	{.name = "result",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(ArcArgs, result),
	 .def = "pass",
	 .names = arc_status_names,
	 .doc = "Result of the chain."},
	{.name = "sealers",
	 .type = CONF_STRINGS,
	 .offset = CONF_KEY(ArcArgs, sealers),
	 .doc = "Domains; all who have sealed must be among them, since each could have written "
		"what it liked.  Absent: not asked."},
	{0},
};

static bool
is_named(const GPtrArray *names, const char *name)
{
	for (guint i = 0; name != NULL && i < names->len; i++) {
		if (g_ascii_strcasecmp(g_ptr_array_index(names, i), name) == 0)
			return true;
	}
	return false;
}

static bool
all_named(const ArcArgs *args, const json_t *output)
{
	const json_t *sealers = json_object_get(output, "sealers");
	for (size_t i = 0; i < json_array_size(sealers); i++) {
		if (!is_named(args->sealers, json_string_value(json_array_get(sealers, i))))
			return false;
	}
	return json_array_size(sealers) > 0;
}

static MatchResult
arc_eval(const void *data, const json_t *output, MatchCtx *ctx)
{
	(void)ctx;
	const ArcArgs *args = data;
	const char *result = json_get_str(output, "result");
	if (result == NULL || strcmp(result, arc_status_names[args->result]) != 0)
		return MATCH_NO;
	return match_bool(args->sealers->len == 0 || all_named(args, output));
}

const MatcherKind matcher_arc_kind = {
	.name = "arc",
	.doc = "What arc_check found out; all keys that are given must hold.",
	.args_size = sizeof(ArcArgs),
	.keys = arc_keys,
	.eval_output = arc_eval,
	.example =
		"- filter: dkim_check\n"
		"- filter: dmarc_check\n"
		"- filter: arc_check\n"
		"- filter: policy_action\n"
		"  tag: dmarc\n"
		"  match: {all: [{matcher: dmarc, result: fail}, {not: {matcher: arc, sealers: [lists.example.org]}}]}\n"
		"  action: REJECT\n",
};
