/* SPDX-License-Identifier: Apache-2.0 */
/* The matcher about dmarc_check's output. */
#include <string.h>

#include "base/json.h"
#include "filter/match.h"
#include "mailauth/dmarc.h"

typedef struct DmarcArgs {
	int result, policy; /* indexes of the names; -1: not asked */
} DmarcArgs;

static const ConfKey dmarc_keys[] = {
	{.name = "result",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(DmarcArgs, result),
	 .names = dmarc_result_names,
	 .doc = "Result of the message."},
	{.name = "policy",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(DmarcArgs, policy),
	 .names = dmarc_policy_names,
	 .doc = "What the domain of From asks for when a message fails."},
	{0},
};

static void
dmarc_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	DmarcArgs *args = data;
	if (yaml_kind(yaml_get(node, "result")) == YAML_NULL)
		args->result = -1;
	if (yaml_kind(yaml_get(node, "policy")) == YAML_NULL)
		args->policy = -1;
	if (args->result < 0 && args->policy < 0)
		conf_error(report, node, "result or policy is wanted");
}

static bool
is_wanted(int want, const char *const *names, const char *got)
{
	return want < 0 || (got != NULL && strcmp(names[want], got) == 0);
}

static MatchResult
dmarc_eval(const void *data, const json_t *output, MatchCtx *ctx)
{
	(void)ctx;
	const DmarcArgs *args = data;
	bool yes = is_wanted(args->result, dmarc_result_names, json_get_str(output, "result")) &&
		   is_wanted(args->policy, dmarc_policy_names, json_get_str(output, "policy"));
	return yes ? MATCH_YES : MATCH_NO;
}

const MatcherKind matcher_dmarc_kind = {
	.name = "dmarc",
	.doc = "What dmarc_check found out; all keys that are given must hold.",
	.args_size = sizeof(DmarcArgs),
	.keys = dmarc_keys,
	.check = dmarc_check,
	.eval_output = dmarc_eval,
	.example = "- filter: spf_check\n"
		   "- filter: dkim_check\n"
		   "- filter: dmarc_check\n"
		   "- filter: policy_action\n"
		   "  tag: dmarc\n"
		   "  match: {matcher: dmarc, result: fail, policy: reject}\n"
		   "  action: REJECT\n"
		   "  message: 5.7.1 the domain of From does not vouch for this message\n",
};
