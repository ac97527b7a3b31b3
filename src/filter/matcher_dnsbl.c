/* SPDX-License-Identifier: Apache-2.0 */
/* The matcher about dnsbl_check's output. */
#include "filter/match.h"

typedef struct DnsblArgs {
	GPtrArray *zones, *codes; /* char* */
	int64_t lists;
	GArray *networks; /* NetCidr, of `codes` */
} DnsblArgs;

static const ConfKey dnsbl_keys[] = {
	{.name = "zones",
	 .type = CONF_STRINGS,
	 .offset = CONF_KEY(DnsblArgs, zones),
	 .doc = "Lists that count; absent: all that dnsbl_check asks."},
	{.name = "codes",
	 .type = CONF_STRINGS,
	 .offset = CONF_KEY(DnsblArgs, codes),
	 .doc = "Answers that count, addresses or networks as in 127.0.0.2 and 127.0.0.4/30; "
		"absent: any."},
	{.name = "lists",
	 .type = CONF_INT,
	 .offset = CONF_KEY(DnsblArgs, lists),
	 .def = "1",
	 .min = 1,
	 .max = 20,
	 .doc = "On how many lists the client must be at least."},
	{0},
};

static void
dnsbl_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	DnsblArgs *args = data;
	args->networks = g_array_new(FALSE, FALSE, sizeof(NetCidr));
	for (guint i = 0; i < args->codes->len; i++) {
		const char *code = g_ptr_array_index(args->codes, i);
		NetCidr network;
		if (net_cidr_parse(code, &network) && network.family == AF_INET)
			g_array_append_val(args->networks, network);
		else
			conf_error(report, yaml_get(node, "codes"),
				   "'%s' is no IPv4 address or network", code);
	}
}

static void
dnsbl_clear(void *data)
{
	DnsblArgs *args = data;
	if (args->networks != NULL)
		g_array_unref(args->networks);
}

static bool
is_wanted(const DnsblArgs *args, const char *zone)
{
	for (guint i = 0; i < args->zones->len; i++) {
		if (g_ascii_strcasecmp(g_ptr_array_index(args->zones, i), zone) == 0)
			return true;
	}
	return args->zones->len == 0;
}

static bool
has_code(const DnsblArgs *args, const json_t *codes)
{
	for (size_t i = 0; i < json_array_size(codes); i++) {
		const char *code = json_string_value(json_array_get(codes, i));
		for (guint j = 0; code != NULL && j < args->networks->len; j++) {
			if (net_cidr_contains(&g_array_index(args->networks, NetCidr, j), code))
				return true;
		}
	}
	return args->networks->len == 0;
}

/* Unknown while those that have not answered could make it match. */
static MatchResult
dnsbl_eval(const void *data, const json_t *output, MatchCtx *ctx)
{
	(void)ctx;
	const DnsblArgs *args = data;
	const json_t *unknown = json_object_get(output, "unknown");
	int64_t listed = 0, open = 0;
	const char *zone;
	json_t *codes;
	json_object_foreach(json_object_get(output, "listed"), zone, codes)
	{
		listed += is_wanted(args, zone) && has_code(args, codes);
	}
	for (size_t i = 0; i < json_array_size(unknown); i++)
		open += is_wanted(args, json_string_value(json_array_get(unknown, i)));
	if (listed >= args->lists)
		return MATCH_YES;
	return listed + open >= args->lists ? MATCH_UNMET : MATCH_NO;
}

const MatcherKind matcher_dnsbl_kind = {
	.name = "dnsbl",
	.doc = "The client is on lists that dnsbl_check has asked.  Neither true nor false while "
	       "lists that do not answer could decide it.",
	.args_size = sizeof(DnsblArgs),
	.keys = dnsbl_keys,
	.check = dnsbl_check,
	.clear = dnsbl_clear,
	.eval_output = dnsbl_eval,
	.example = "- filter: dnsbl_check\n"
		   "  zones: [zen.example.org]\n"
		   "- filter: policy_action\n"
		   "  tag: listed\n"
		   "  match: {matcher: dnsbl, codes: [127.0.0.2, 127.0.0.4/30]}\n"
		   "  action: REJECT\n"
		   "  message: 5.7.1 your address is listed\n",
};
