/* SPDX-License-Identifier: Apache-2.0 */
/* Matchers about the envelope beyond those of the behaviour spec: domains with what is below them,
 * who has authenticated, how big the message is. */
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "filter/match.h"

/* ---- mail_from_domain, rcpt_domain ---- */

typedef struct DomainArgs {
	GPtrArray *domains; /* char* */
	bool subdomains;
} DomainArgs;

static const ConfKey domain_keys[] = {
	{.name = "domains",
	 .type = CONF_STRINGS,
	 .offset = CONF_KEY(DomainArgs, domains),
	 .flags = CONF_REQUIRED,
	 .doc = "Domains; upper and lower case are the same."},
	{.name = "subdomains",
	 .type = CONF_BOOL,
	 .offset = CONF_KEY(DomainArgs, subdomains),
	 .doc = "Whether domains below them match as well."},
	{0},
};

static void
domain_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	DomainArgs *args = data;
	const YamlNode *list = yaml_get(node, "domains");
	if (list != NULL && args->domains->len == 0)
		conf_error(report, list, "'domains' names at least one");
	for (guint i = 0; i < args->domains->len; i++) {
		char *domain = g_ptr_array_index(args->domains, i);
		size_t len = strlen(domain);
		if (len > 0 && domain[len - 1] == '.')
			domain[--len] = '\0';
		if (len == 0 || domain[0] == '.' || strchr(domain, '@') != NULL)
			conf_error(report, list, "'%s' is no domain", domain);
	}
}

static bool
is_below(const char *domain, const char *parent)
{
	size_t len = strlen(domain), want = strlen(parent);
	return len > want && domain[len - want - 1] == '.' &&
	       text_has_suffix_nocase(domain, parent);
}

static bool
has_domain(const DomainArgs *args, const char *addr)
{
	g_autofree char *domain = address_domain(addr);
	for (guint i = 0; domain != NULL && i < args->domains->len; i++) {
		const char *want = g_ptr_array_index(args->domains, i);
		if (text_equal_nocase(domain, want) || (args->subdomains && is_below(domain, want)))
			return true;
	}
	return false;
}

static MatchResult
mail_from_eval(const void *args, MatchCtx *ctx)
{
	const Mailbox *from = ctx->filter->down->mail_from;
	return from != NULL ? match_bool(has_domain(args, from->addr)) : MATCH_UNMET;
}

static MatchResult
rcpt_eval(const void *args, MatchCtx *ctx)
{
	return match_bool(has_domain(args, tx_rcpt(ctx->filter->down, ctx->rcpt)->to->addr));
}

const MatcherKind matcher_mail_from_domain_kind = {
	.name = "mail_from_domain",
	.doc = "The domain of the sender's address; the null sender has none.",
	.args_size = sizeof(DomainArgs),
	.keys = domain_keys,
	.check = domain_check,
	.eval = mail_from_eval,
	.example = "- filter: policy_action\n"
		   "  tag: partner\n"
		   "  match: {matcher: mail_from_domain, domains: [example.net], subdomains: yes}\n"
		   "  action: LOG\n",
};

const MatcherKind matcher_rcpt_domain_kind = {
	.name = "rcpt_domain",
	.doc = "The domain of the recipient's address; needs mode PER_RCPT.",
	.args_size = sizeof(DomainArgs),
	.keys = domain_keys,
	.check = domain_check,
	.eval = rcpt_eval,
	.needs_rcpt = true,
	.example = "- filter: policy_action\n"
		   "  tag: closed\n"
		   "  mode: PER_RCPT\n"
		   "  match: {matcher: rcpt_domain, domains: [closed.example.com]}\n"
		   "  action: REJECT\n",
};

/* ---- authenticated_user ---- */

typedef struct UserArgs {
	GPtrArray *users; /* char*; empty: any */
	bool is_sender, has_is_sender;
} UserArgs;

static const ConfKey user_keys[] = {
	{.name = "users",
	 .type = CONF_STRINGS,
	 .offset = CONF_KEY(UserArgs, users),
	 .doc = "Names of which the client has proved to be one; absent: any."},
	{.name = "is_sender",
	 .type = CONF_BOOL,
	 .offset = CONF_KEY(UserArgs, is_sender),
	 .flags = CONF_NULL_OK,
	 .doc = "Whether the name is the sender's address (upper and lower case are the same); "
		"absent: not asked.  `is_sender: false` finds users who write as somebody else."},
	{0},
};

static void
user_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	(void)report;
	UserArgs *args = data;
	args->has_is_sender = yaml_kind(yaml_get(node, "is_sender")) != YAML_NULL;
}

static bool
is_listed(const UserArgs *args, const char *user)
{
	for (guint i = 0; i < args->users->len; i++) {
		if (strcmp(g_ptr_array_index(args->users, i), user) == 0)
			return true;
	}
	return args->users->len == 0;
}

static MatchResult
user_eval(const void *data, MatchCtx *ctx)
{
	const UserArgs *args = data;
	const Tx *tx = ctx->filter->down;
	if (tx->smtp_meta == NULL)
		return match_missing_fact(ctx, MATCH_NO_SMTP_META);
	const char *user = json_get_str(tx->smtp_meta, SMTP_META_AUTH_USER);
	if (user == NULL || !is_listed(args, user))
		return MATCH_NO;
	if (!args->has_is_sender)
		return MATCH_YES;
	if (tx->mail_from == NULL)
		return MATCH_UNMET;
	return match_bool(text_equal_nocase(user, tx->mail_from->addr) == args->is_sender);
}

const MatcherKind matcher_authenticated_user_kind = {
	.name = "authenticated_user",
	.doc = "Who the client has proved to be (SMTP AUTH); all keys that are given must hold.",
	.args_size = sizeof(UserArgs),
	.keys = user_keys,
	.check = user_check,
	.eval = user_eval,
	.example = "- filter: policy_action\n"
		   "  tag: sender\n"
		   "  match: {matcher: authenticated_user, is_sender: false}\n"
		   "  action: REJECT\n"
		   "  message: 5.7.1 this is not your address\n",
};

/* ---- size ---- */

typedef struct SizeArgs {
	int64_t over, under; /* bytes; -1: not asked */
} SizeArgs;

static const ConfKey size_keys[] = {
	{.name = "over",
	 .type = CONF_SIZE,
	 .offset = CONF_KEY(SizeArgs, over),
	 .doc = "Matches messages of more bytes than this."},
	{.name = "under",
	 .type = CONF_SIZE,
	 .offset = CONF_KEY(SizeArgs, under),
	 .doc = "Matches messages of fewer bytes than this."},
	{0},
};

static void
size_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	SizeArgs *args = data;
	if (yaml_kind(yaml_get(node, "over")) == YAML_NULL)
		args->over = -1;
	if (yaml_kind(yaml_get(node, "under")) == YAML_NULL)
		args->under = -1;
	if (args->over < 0 && args->under < 0)
		conf_error(report, node, "over or under is wanted");
}

static MatchResult
size_of(const SizeArgs *args, uint64_t len)
{
	return match_bool((args->over < 0 || len > (uint64_t)args->over) &&
			  (args->under < 0 || len < (uint64_t)args->under));
}

/* What the client has declared (RFC 1870) spares it sending what will not be taken.  A declaration
 * that decides nothing is no reason to believe it. */
static bool
is_declared_over(const SizeArgs *args, const Mailbox *from)
{
	const EsmtpParam *param = from != NULL ? mailbox_param(from, "SIZE") : NULL;
	uint64_t size;
	return param != NULL && param->value != NULL && args->over >= 0 && args->under < 0 &&
	       text_parse_u64(param->value, strlen(param->value), INT64_MAX, &size) &&
	       size > (uint64_t)args->over;
}

static MatchResult
size_eval(const void *data, MatchCtx *ctx)
{
	const Tx *tx = ctx->filter->down;
	const SizeArgs *args = data;
	if (ctx->body_final)
		return size_of(args, tx->body->raw != NULL ? blob_len(tx->body->raw)
							   : tx_body_len(tx->body));
	return is_declared_over(args, tx->mail_from) ? MATCH_YES : MATCH_UNMET;
}

const MatcherKind matcher_size_kind = {
	.name = "size",
	.doc = "The size of the message once all of it is there, or, with `over` alone, already the "
	       "size that the client declares (SIZE, RFC 1870); all keys that are given must hold.",
	.args_size = sizeof(SizeArgs),
	.keys = size_keys,
	.check = size_check,
	.eval = size_eval,
	.example = "- filter: policy_action\n"
		   "  tag: size\n"
		   "  match: {matcher: size, over: 10M}\n"
		   "  action: REJECT\n"
		   "  code: 552\n"
		   "  message: 5.3.4 too big\n",
};
