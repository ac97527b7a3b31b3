/* SPDX-License-Identifier: Apache-2.0 */
/* Matchers about what other filters have found out (behaviour spec section 9). */
#include <string.h>

#include "base/json.h"
#include "filter/match.h"

static bool
has_key(const YamlNode *node, const char *key)
{
	return yaml_kind(yaml_get(node, key)) != YAML_NULL;
}

/* ---- remote_host ---- */

typedef struct RemoteArgs {
	bool fcrdns, alignment;
	bool has_fcrdns, has_alignment;
} RemoteArgs;

static const ConfKey remote_keys[] = {
	{.name = "fcrdns",
	 .type = CONF_BOOL,
	 .offset = CONF_KEY(RemoteArgs, fcrdns),
	 .doc = "Whether the client's name leads back to its address."},
	{.name = "ehlo_alignment",
	 .type = CONF_BOOL,
	 .offset = CONF_KEY(RemoteArgs, alignment),
	 .doc = "Whether it is also the name of the EHLO."},
	{0},
};

static void
remote_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	(void)report;
	RemoteArgs *args = data;
	args->has_fcrdns = has_key(node, "fcrdns");
	args->has_alignment = has_key(node, "ehlo_alignment");
}

static MatchResult
remote_eval(const void *data, const json_t *output, MatchCtx *ctx)
{
	(void)ctx;
	const RemoteArgs *args = data;
	bool fcrdns = json_is_true(json_object_get(output, "fcrdns"));
	bool alignment = json_is_true(json_object_get(output, "ehlo_alignment"));
	return match_bool((!args->has_fcrdns || fcrdns == args->fcrdns) &&
			  (!args->has_alignment || alignment == args->alignment));
}

static const MatcherKind remote_kind = {
	.name = "koukan.remote_host_filter.RemoteHostFilter",
	.doc = "What remote_host found out about the client; all keys that are given must hold.",
	.args_size = sizeof(RemoteArgs),
	.keys = remote_keys,
	.check = remote_check,
	.eval_output = remote_eval,
	.example = "- filter: remote_host\n"
		   "- filter: policy_action\n"
		   "  tag: client\n"
		   "  match: {matcher: koukan.remote_host_filter.RemoteHostFilter, fcrdns: no}\n"
		   "  action: REJECT\n"
		   "  message: 5.7.25 the client's address has no name that leads back to it\n",
};

/* ---- dns_resolution ---- */

static const char *const dns_names[] = {"OK", "NX", "TEMP", NULL};

typedef struct DnsArgs {
	int mail, rcpt, resolution; /* index of dns_names; -1: not asked */
} DnsArgs;

static const ConfKey dns_keys[] = {
	{.name = "mail_result",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(DnsArgs, mail),
	 .names = dns_names,
	 .doc = "Result for the sender's domain."},
	{.name = "rcpt_result",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(DnsArgs, rcpt),
	 .names = dns_names,
	 .doc = "Result for the recipient's domain; needs mode PER_RCPT."},
	{.name = "resolution_result",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(DnsArgs, resolution),
	 .names = dns_names,
	 .doc = "Result for the hosts that the router chose."},
	{0},
};

static void
dns_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	DnsArgs *args = data;
	if (!has_key(node, "mail_result"))
		args->mail = -1;
	if (!has_key(node, "rcpt_result"))
		args->rcpt = -1;
	else if (!per_rcpt)
		conf_error(report, node, "rcpt_result needs mode: PER_RCPT");
	if (!has_key(node, "resolution_result"))
		args->resolution = -1;
}

static MatchResult
dns_one(int want, const json_t *value)
{
	if (want < 0)
		return MATCH_YES;
	if (!json_is_integer(value))
		return MATCH_UNMET;
	return match_bool(json_integer_value(value) == want);
}

static MatchResult
dns_eval(const void *data, const json_t *output, MatchCtx *ctx)
{
	const DnsArgs *args = data;
	const json_t *rcpt = NULL;
	if (args->rcpt >= 0 && ctx->per_rcpt)
		rcpt = json_array_get(json_object_get(output, "rcpt_to_result"),
				      filter_base_rcpt(ctx->filter, ctx->rcpt));
	const MatchResult results[] = {
		dns_one(args->mail, json_object_get(output, "mail_from_result")),
		dns_one(args->rcpt, rcpt),
		dns_one(args->resolution, json_object_get(output, "resolution_result")),
	};
	for (size_t i = 0; i < G_N_ELEMENTS(results); i++) {
		if (results[i] != MATCH_YES)
			return results[i];
	}
	return MATCH_YES;
}

static const MatcherKind dns_kind = {
	.name = "koukan.mx_resolution.DnsResolutionFilter",
	.doc = "What dns_resolution found out; all keys that are given must hold.",
	.args_size = sizeof(DnsArgs),
	.keys = dns_keys,
	.check = dns_check,
	.eval_output = dns_eval,
	.example = "- filter: dns_resolution\n"
		   "  suffix: ''\n"
		   "- filter: policy_action\n"
		   "  tag: sender_domain\n"
		   "  match: {matcher: koukan.mx_resolution.DnsResolutionFilter, mail_result: NX}\n"
		   "  action: REJECT\n"
		   "  message: 5.1.8 the sender's domain takes no mail\n",
};

/* ---- message_validation ---- */

static const char *const validity_names[] = {"NONE", "BASIC", "MEDIUM", "HIGH", NULL};

typedef struct ValidityArgs {
	int threshold;        /* index of validity_names; -1: not asked */
	int64_t max_received; /* -1: not asked */
} ValidityArgs;

static const ConfKey validity_keys[] = {
	{.name = "validity_threshold",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(ValidityArgs, threshold),
	 .names = validity_names,
	 .doc = "Matches messages that are worse than this."},
	{.name = "max_received_headers",
	 .type = CONF_INT,
	 .offset = CONF_KEY(ValidityArgs, max_received),
	 .def = "-1",
	 .min = -1,
	 .max = 1e9,
	 .doc = "Matches messages with more Received fields than this."},
	{0},
};

static void
validity_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	ValidityArgs *args = data;
	if (!has_key(node, "validity_threshold"))
		args->threshold = -1;
	if (args->threshold < 0 && args->max_received < 0)
		conf_error(report, node, "validity_threshold or max_received_headers is wanted");
}

static MatchResult
validity_eval(const void *data, const json_t *output, MatchCtx *ctx)
{
	(void)ctx;
	const ValidityArgs *args = data;
	json_int_t status = json_integer_value(json_object_get(output, "status"));
	json_int_t received = json_integer_value(json_object_get(output, "received_header_count"));
	return match_bool((args->threshold < 0 || status < args->threshold) &&
			  (args->max_received < 0 || received > args->max_received));
}

static const MatcherKind validity_kind = {
	.name = "koukan.message_validation_filter.MessageValidationFilter",
	.doc = "How well formed the message is; all keys that are given must hold.",
	.args_size = sizeof(ValidityArgs),
	.keys = validity_keys,
	.check = validity_check,
	.eval_output = validity_eval,
	.example =
		"- filter: message_validation\n"
		"- filter: policy_action\n"
		"  tag: form\n"
		"  match:\n"
		"    any:\n"
		"    - {matcher: koukan.message_validation_filter.MessageValidationFilter, validity_threshold: BASIC}\n"
		"    - {matcher: koukan.message_validation_filter.MessageValidationFilter, max_received_headers: 50}\n"
		"  action: REJECT\n",
};

/* ---- spf_check ---- */

static const char *const spf_names[] = {"temperror", "pass",    "permerror", "fail", "softfail",
					"none",      "neutral", "spf_pass",  NULL};
#define SPF_PASS       1
#define SPF_PASS_ALIAS 7

typedef struct SpfArgs {
	int mail, extra; /* index of spf_names; -1: not asked */
	char *extra_domain;
} SpfArgs;

static const ConfKey spf_keys[] = {
	{.name = "mail_from_result",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(SpfArgs, mail),
	 .names = spf_names,
	 .doc = "Result for the sender's domain."},
	{.name = "extra_domain",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(SpfArgs, extra_domain),
	 .doc = "One of the filter's extra domains."},
	{.name = "extra_domain_result",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(SpfArgs, extra),
	 .names = spf_names,
	 .doc = "Result for that domain."},
	{0},
};

static int
spf_wanted(const YamlNode *node, const char *key, int value)
{
	if (!has_key(node, key))
		return -1;
	return value == SPF_PASS_ALIAS ? SPF_PASS : value;
}

static void
spf_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	SpfArgs *args = data;
	args->mail = spf_wanted(node, "mail_from_result", args->mail);
	args->extra = spf_wanted(node, "extra_domain_result", args->extra);
	if ((args->extra >= 0) != (args->extra_domain != NULL))
		conf_error(report, node, "extra_domain and extra_domain_result go together");
}

static MatchResult
spf_one(int want, const json_t *value)
{
	return match_bool(want < 0 ||
			  (json_is_integer(value) && json_integer_value(value) == want));
}

static MatchResult
spf_eval(const void *data, const json_t *output, MatchCtx *ctx)
{
	(void)ctx;
	const SpfArgs *args = data;
	if (spf_one(args->mail, json_object_get(output, "mail_from_result")) != MATCH_YES)
		return MATCH_NO;
	if (args->extra < 0)
		return MATCH_YES;
	const json_t *extra = json_object_get(output, "extra_domains_results");
	return spf_one(args->extra, json_object_get(extra, args->extra_domain));
}

static const MatcherKind spf_kind = {
	.name = "koukan.spf_check_filter.SpfCheckFilter",
	.doc = "What spf_check found out; all keys that are given must hold.",
	.args_size = sizeof(SpfArgs),
	.keys = spf_keys,
	.check = spf_check,
	.eval_output = spf_eval,
	.example =
		"- filter: spf_check\n"
		"  extra_domains: [_spf.forwarder.example.com]\n"
		"- filter: policy_action\n"
		"  tag: spf\n"
		"  match:\n"
		"    all:\n"
		"    - {matcher: koukan.spf_check_filter.SpfCheckFilter, mail_from_result: fail}\n"
		"    - not:\n"
		"        matcher: koukan.spf_check_filter.SpfCheckFilter\n"
		"        extra_domain: _spf.forwarder.example.com\n"
		"        extra_domain_result: pass\n"
		"  action: REJECT\n"
		"  message: 5.7.23 the sender's domain does not let this client send\n",
};

/* ---- dkim_check ---- */

static const char *const dkim_status_names[] = {"temp_err", "dkim_pass", "fail", "unknown_algo",
						NULL};
static const char *const dkim_alignment_names[] = {"domain", "same_sld", "other", NULL};

typedef struct DkimArgs {
	int status, alignment;
	GPtrArray *domains;
} DkimArgs;

static const ConfKey dkim_keys[] = {
	{.name = "status",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(DkimArgs, status),
	 .def = "dkim_pass",
	 .names = dkim_status_names,
	 .doc = "Result of a signature."},
	{.name = "alignment",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(DkimArgs, alignment),
	 .def = "same_sld",
	 .names = dkim_alignment_names,
	 .doc = "How near its domain is to that of From, at least."},
	{.name = "domains",
	 .type = CONF_STRINGS,
	 .offset = CONF_KEY(DkimArgs, domains),
	 .doc = "Signing domains; then `alignment` does not count."},
	{0},
};

static void
dkim_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	const DkimArgs *args = data;
	if (args->domains->len > 0 && has_key(node, "alignment"))
		conf_error(report, node, "'domains' and 'alignment' exclude each other");
}

static bool
dkim_one(const DkimArgs *args, const json_t *result)
{
	const json_t *alignment = json_object_get(result, "alignment");
	if (json_integer_value(json_object_get(result, "status")) != args->status)
		return false;
	if (args->domains->len == 0)
		return json_is_integer(alignment) &&
		       json_integer_value(alignment) <= args->alignment;
	const char *domain = json_get_str(result, "domain");
	for (guint i = 0; domain != NULL && i < args->domains->len; i++) {
		if (g_ascii_strcasecmp(g_ptr_array_index(args->domains, i), domain) == 0)
			return true;
	}
	return false;
}

static MatchResult
dkim_eval(const void *data, const json_t *output, MatchCtx *ctx)
{
	(void)ctx;
	const json_t *results = json_object_get(output, "results");
	for (size_t i = 0; i < json_array_size(results); i++) {
		if (dkim_one(data, json_array_get(results, i)))
			return MATCH_YES;
	}
	return MATCH_NO;
}

static const MatcherKind dkim_kind = {
	.name = "koukan.dkim_check_filter.DkimCheckFilter",
	.doc = "Some signature of the message has that result.",
	.args_size = sizeof(DkimArgs),
	.keys = dkim_keys,
	.check = dkim_check,
	.eval_output = dkim_eval,
	.example =
		"- filter: dkim_check\n"
		"- filter: policy_action\n"
		"  tag: dkim\n"
		"  match: {not: {matcher: koukan.dkim_check_filter.DkimCheckFilter, status: dkim_pass, alignment: same_sld}}\n"
		"  action: LOG\n",
};

/* ---- policy_action ---- */

typedef struct PolicyArgs {
	char *tag, *rule;
} PolicyArgs;

static const ConfKey policy_keys[] = {
	{.name = "tag",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(PolicyArgs, tag),
	 .doc = "A group some rule of which has matched."},
	{.name = "rule",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(PolicyArgs, rule),
	 .doc = "A rule that has matched."},
	{0},
};

static bool
has_name(const json_t *output, const char *list, const char *name)
{
	const json_t *names = json_object_get(output, list);
	for (size_t i = 0; name != NULL && i < json_array_size(names); i++) {
		const char *text = json_string_value(json_array_get(names, i));
		if (text != NULL && strcmp(text, name) == 0)
			return true;
	}
	return false;
}

static MatchResult
policy_eval(const void *data, const json_t *output, MatchCtx *ctx)
{
	(void)ctx;
	const PolicyArgs *args = data;
	return match_bool(has_name(output, "matched_tags", args->tag) ||
			  has_name(output, "matched_rules", args->rule));
}

static const MatcherKind policy_kind = {
	.name = "koukan.policy_action_filter.PolicyActionFilter",
	.doc = "An earlier policy of the chain has matched, by tag or by rule.",
	.args_size = sizeof(PolicyArgs),
	.keys = policy_keys,
	.eval_output = policy_eval,
	.example =
		"- filter: policy_action\n"
		"  tag: friend\n"
		"  match: {matcher: network_address, cidr: 192.0.2.0/24}\n"
		"- filter: policy_action\n"
		"  tag: refuse\n"
		"  match:\n"
		"    all:\n"
		"    - {matcher: address_list, domains: [example.com]}\n"
		"    - not: {matcher: koukan.policy_action_filter.PolicyActionFilter, tag: friend}\n"
		"  action: LOG\n",
};

const MatcherKind *const matchers_output[] = {
	&remote_kind, &dns_kind,           &validity_kind,    &spf_kind,           &dkim_kind,
	&policy_kind, &matcher_dmarc_kind, &matcher_arc_kind, &matcher_dnsbl_kind, NULL,
};
