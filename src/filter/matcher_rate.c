/* SPDX-License-Identifier: Apache-2.0 */
/* The matcher that counts: how often lately, by client, sender, user or recipient.  The table
 * belongs to the process (FilterEnv), so that all workers count together. */
#include "base/json.h"
#include "base/rates.h"
#include "filter/match.h"

#define WINDOW_MAX 604800 /* seconds */

enum { BY_REMOTE, BY_MAIL_FROM, BY_MAIL_FROM_DOMAIN, BY_USER, BY_RCPT, BY_RCPT_DOMAIN };
static const char *const by_names[] = {
	"remote_address", "mail_from", "mail_from_domain", "authenticated_user", "rcpt_to",
	"rcpt_domain",    NULL};

typedef struct RateArgs {
	int by;
	Usec window;
	int64_t count, prefix4, prefix6;
	char *name;
} RateArgs;

static const ConfKey rate_keys[] = {
	{.name = "by",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(RateArgs, by),
	 .flags = CONF_REQUIRED,
	 .names = by_names,
	 .doc = "What is counted apart; the recipient's need mode PER_RCPT."},
	{.name = "window",
	 .type = CONF_SECONDS,
	 .offset = CONF_KEY(RateArgs, window),
	 .flags = CONF_REQUIRED,
	 .min = 1,
	 .max = WINDOW_MAX,
	 .doc = "How far it looks back, seconds."},
	{.name = "count",
	 .type = CONF_INT,
	 .offset = CONF_KEY(RateArgs, count),
	 .flags = CONF_REQUIRED,
	 .min = 0,
	 .max = 1e9,
	 .doc = "How many may come in that time; the next one matches."},
	{.name = "ipv4_prefix",
	 .type = CONF_INT,
	 .offset = CONF_KEY(RateArgs, prefix4),
	 .def = "32",
	 .min = 0,
	 .max = 32,
	 .doc = "With remote_address: IPv4 addresses that agree in so many bits count as one."},
	{.name = "ipv6_prefix",
	 .type = CONF_INT,
	 .offset = CONF_KEY(RateArgs, prefix6),
	 .def = "64",
	 .min = 0,
	 .max = 128,
	 .doc = "The same for IPv6."},
	{.name = "name",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(RateArgs, name),
	 .doc = "Limits of the same name share their counts; absent: those with the same other "
		"keys do."},
	{0},
};

static void
rate_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	RateArgs *args = data;
	if ((args->by == BY_RCPT || args->by == BY_RCPT_DOMAIN) && !per_rcpt)
		conf_error(report, node, "matcher rate by: %s needs mode: PER_RCPT",
			   by_names[args->by]);
	if (args->name == NULL)
		args->name = g_strdup_printf("%d/%" G_GINT64_FORMAT "/%" G_GINT64_FORMAT
					     "/%" G_GINT64_FORMAT "/%" G_GINT64_FORMAT,
					     args->by, args->window, args->count, args->prefix4,
					     args->prefix6);
}

/* ---- keys ---- */

static char *
folded(const char *addr)
{
	return g_utf8_validate(addr, -1, NULL) ? g_utf8_strdown(addr, -1)
					       : g_ascii_strdown(addr, -1);
}

/* The network that the client is in; what is no address counts as itself. */
static char *
network_of(const RateArgs *args, const char *literal)
{
	NetCidr cidr;
	if (!net_cidr_parse(literal, &cidr))
		return g_strdup(literal);
	bool v4 = cidr.family == AF_INET;
	unsigned bits = (unsigned)(v4 ? args->prefix4 : args->prefix6), len = v4 ? 4 : 16;
	GString *key = g_string_new(v4 ? "4:" : "6:");
	for (unsigned i = 0; i < len; i++) {
		unsigned kept = MIN(bits, 8);
		unsigned mask = 0xff00u >> kept & 0xff;
		g_string_append_printf(key, "%02x", cidr.bytes[i] & mask);
		bits -= kept;
	}
	return g_string_free(key, FALSE);
}

static char *
domain_of(const char *addr)
{
	char *domain = address_domain(addr);
	return domain != NULL ? domain : g_strdup("");
}

/* NULL: *ret_result says why there is nothing to count. */
static char *
key_of(const RateArgs *args, MatchCtx *ctx, MatchResult *ret_result)
{
	const Tx *tx = ctx->filter->down;
	const char *user;
	switch (args->by) {
	case BY_REMOTE:
		if (tx->remote_host != NULL)
			return network_of(args, tx->remote_host->host);
		*ret_result = match_missing_fact(ctx, MATCH_NO_REMOTE_HOST);
		return NULL;
	case BY_USER:
		user = json_get_str(tx->smtp_meta, SMTP_META_AUTH_USER);
		*ret_result = tx->smtp_meta != NULL ? MATCH_NO
						    : match_missing_fact(ctx, MATCH_NO_SMTP_META);
		return g_strdup(user);
	case BY_RCPT:
		return folded(tx_rcpt(tx, ctx->rcpt)->to->addr);
	case BY_RCPT_DOMAIN:
		return domain_of(tx_rcpt(tx, ctx->rcpt)->to->addr);
	default:
		break;
	}
	*ret_result = MATCH_UNMET;
	if (tx->mail_from == NULL)
		return NULL;
	return args->by == BY_MAIL_FROM ? folded(tx->mail_from->addr)
					: domain_of(tx->mail_from->addr);
}

static MatchResult
count(const RateArgs *args, MatchCtx *ctx)
{
	Rates *rates = filter_env(ctx->filter)->rates;
	MatchResult result = MATCH_NO;
	g_autofree char *key = key_of(args, ctx, &result);
	if (key == NULL)
		return result;
	return match_bool(rates != NULL && rates_over(rates, args->name, key, args->window,
						      (uint32_t)args->count, clock_mono()));
}

/* A policy asks again whenever something new has come; a transaction counts once. */
static MatchResult
rate_eval(const void *data, MatchCtx *ctx)
{
	bool once = ctx->memo != NULL;
	gpointer known = once && *ctx->memo != NULL ? g_hash_table_lookup(*ctx->memo, data) : NULL;
	if (known != NULL)
		return (MatchResult)(GPOINTER_TO_INT(known) - 1);
	MatchResult result = count(data, ctx);
	if (!once || (result != MATCH_NO && result != MATCH_YES))
		return result;
	if (*ctx->memo == NULL)
		*ctx->memo = g_hash_table_new(NULL, NULL);
	g_hash_table_insert(*ctx->memo, (gpointer)data, GINT_TO_POINTER(result + 1));
	return result;
}

const MatcherKind matcher_rate_kind = {
	.name = "rate",
	.doc = "Within the window `count` have come already.  Each transaction counts once in a "
	       "rule, each recipient once with mode PER_RCPT, when the evaluation gets as far as "
	       "here; what matches is not counted.  All workers of the process count together, up "
	       "to 65536 keys; then those are forgotten that were quiet for longest.  A client "
	       "without SMTP AUTH never matches `by: authenticated_user`.",
	.args_size = sizeof(RateArgs),
	.keys = rate_keys,
	.check = rate_check,
	.eval = rate_eval,
	.example = "- filter: policy_action\n"
		   "  tag: rate\n"
		   "  match: {matcher: rate, by: mail_from, window: 3600, count: 100}\n"
		   "  action: REJECT\n"
		   "  code: 450\n"
		   "  message: 4.7.1 too much mail from you\n",
};
