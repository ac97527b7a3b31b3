/* SPDX-License-Identifier: Apache-2.0 */
/* Matchers about the transaction itself (behaviour spec 11.4). */
#include "filter/addr_list.h"
#include "filter/match.h"
#include "mime/validate.h"

MatchResult
match_missing_fact(MatchCtx *ctx, const char *fault)
{
	if (ctx->filter->down->mail_from == NULL)
		return MATCH_UNMET;
	ctx->fault = fault;
	return MATCH_FAULT;
}

/* ---- network_address ---- */

typedef struct NetworkArgs {
	char *text;
	NetCidr cidr;
} NetworkArgs;

static const ConfKey network_keys[] = {
	{.name = "cidr",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(NetworkArgs, text),
	 .flags = CONF_REQUIRED,
	 .doc = "Network, as in 192.0.2.0/24."},
	{0},
};

static void
network_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	NetworkArgs *args = data;
	if (args->text != NULL && !net_cidr_parse(args->text, &args->cidr))
		conf_error(report, yaml_get(node, "cidr"), "'%s' is no network", args->text);
}

static MatchResult
network_eval(const void *data, MatchCtx *ctx)
{
	const NetworkArgs *args = data;
	const HostPort *remote = ctx->filter->down->remote_host;
	if (remote == NULL)
		return match_missing_fact(ctx, MATCH_NO_REMOTE_HOST);
	return match_bool(net_cidr_contains(&args->cidr, remote->host));
}

static const MatcherKind network_kind = {
	.name = "network_address",
	.doc = "The client's address is in the network.",
	.args_size = sizeof(NetworkArgs),
	.keys = network_keys,
	.check = network_check,
	.eval = network_eval,
	.example = "- filter: policy_action\n"
		   "  tag: friends\n"
		   "  match: {matcher: network_address, cidr: 192.0.2.0/24}\n"
		   "  action: LOG\n",
};

/* ---- smtp_tls, smtp_auth ---- */

/* A JSON value as a condition: false, 0, "", null and empty containers do not hold. */
static bool
is_set(const json_t *value)
{
	switch (value != NULL ? json_typeof(value) : JSON_NULL) {
	case JSON_TRUE:
		return true;
	case JSON_STRING:
		return json_string_length(value) > 0;
	case JSON_INTEGER:
		return json_integer_value(value) != 0;
	case JSON_REAL:
		return json_real_value(value) < 0 || json_real_value(value) > 0;
	case JSON_OBJECT:
		return json_object_size(value) > 0;
	case JSON_ARRAY:
		return json_array_size(value) > 0;
	default:
		return false;
	}
}

static MatchResult
meta_eval(const char *key, MatchCtx *ctx)
{
	const json_t *meta = ctx->filter->down->smtp_meta;
	if (meta == NULL)
		return match_missing_fact(ctx, MATCH_NO_SMTP_META);
	return match_bool(is_set(json_object_get(meta, key)));
}

static MatchResult
tls_eval(const void *args, MatchCtx *ctx)
{
	(void)args;
	return meta_eval("tls", ctx);
}

typedef struct AuthArgs {
	GPtrArray *users; /* char*; empty: anybody */
} AuthArgs;

static const ConfKey auth_keys[] = {
	{.name = "users",
	 .type = CONF_STRINGS,
	 .offset = CONF_KEY(AuthArgs, users),
	 .doc = "Names of which the client has proved to be one; absent: any."},
	{0},
};

static MatchResult
auth_eval(const void *data, MatchCtx *ctx)
{
	const AuthArgs *args = data;
	const json_t *meta = ctx->filter->down->smtp_meta;
	MatchResult any = meta_eval("auth", ctx);
	if (any != MATCH_YES || args->users->len == 0)
		return any;
	const char *user = json_string_value(json_object_get(meta, SMTP_META_AUTH_USER));
	for (guint i = 0; i < args->users->len && user != NULL; i++) {
		if (g_str_equal(g_ptr_array_index(args->users, i), user))
			return MATCH_YES;
	}
	return MATCH_NO;
}

static const MatcherKind tls_kind = {
	.name = "smtp_tls",
	.doc = "The client's connection is encrypted.",
	.eval = tls_eval,
	.example = "- filter: policy_action\n"
		   "  tag: tls\n"
		   "  match: {not: {matcher: smtp_tls}}\n"
		   "  action: REJECT\n"
		   "  code: 530\n"
		   "  message: 5.7.0 use STARTTLS first\n",
};

static const MatcherKind auth_kind = {
	.name = "smtp_auth",
	.doc = "The client has authenticated.",
	.args_size = sizeof(AuthArgs),
	.keys = auth_keys,
	.eval = auth_eval,
	.example = "- filter: policy_action\n"
		   "  tag: login\n"
		   "  match: {matcher: smtp_auth, users: [alice, bob]}\n"
		   "  action: LOG\n",
};

/* ---- address_list ---- */

enum { WHICH_MAIL_FROM, WHICH_RCPT_TO, WHICH_HEADER_FROM };
static const char *const which_names[] = {"mail_from", "rcpt_to", "header_from", NULL};

typedef struct AddressArgs {
	AddrList list;
	int which;
} AddressArgs;

static const ConfKey address_keys[] = {
	ADDR_LIST_KEYS(AddressArgs, list),
	{.name = "which_addr",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(AddressArgs, which),
	 .def = "mail_from",
	 .names = which_names,
	 .doc = "Whose address; rcpt_to needs mode PER_RCPT, header_from the whole message."},
	{0},
};

static void
address_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	const AddressArgs *args = data;
	if (args->which == WHICH_RCPT_TO && !per_rcpt)
		conf_error(report, node,
			   "matcher address_list with which_addr: rcpt_to needs mode: "
			   "PER_RCPT");
}

static MatchResult
header_from_eval(const AddressArgs *args, const MatchCtx *ctx)
{
	const TxBody *body = ctx->filter->down->body;
	if (!ctx->body_final || body->raw == NULL)
		return MATCH_UNMET;
	g_autofree char *from = mime_from_address(body->raw);
	return match_bool(from != NULL && addr_list_match(&args->list, from));
}

static MatchResult
address_eval(const void *data, MatchCtx *ctx)
{
	const AddressArgs *args = data;
	const Tx *tx = ctx->filter->down;
	if (args->which == WHICH_HEADER_FROM)
		return header_from_eval(args, ctx);
	if (args->which == WHICH_RCPT_TO)
		return match_bool(addr_list_match(&args->list, tx_rcpt(tx, ctx->rcpt)->to->addr));
	if (tx->mail_from == NULL)
		return MATCH_UNMET;
	return match_bool(addr_list_match(&args->list, tx->mail_from->addr));
}

static const MatcherKind address_kind = {
	.name = "address_list",
	.doc = "An address is in the list of domains and local parts.",
	.args_size = sizeof(AddressArgs),
	.keys = address_keys,
	.check = address_check,
	.eval = address_eval,
	.example =
		"- filter: policy_action\n"
		"  tag: lists\n"
		"  mode: PER_RCPT\n"
		"  match: {matcher: address_list, which_addr: rcpt_to, domains: [lists.example.com], prefixes: [owner], delimiter: '-'}\n"
		"  action: REJECT\n",
};

/* ---- num_rcpts ---- */

typedef struct NumArgs {
	int64_t max;
} NumArgs;

static const ConfKey num_keys[] = {
	{.name = "max_rcpts",
	 .type = CONF_INT,
	 .offset = CONF_KEY(NumArgs, max),
	 .flags = CONF_REQUIRED,
	 .min = 0,
	 .max = 1e9,
	 .doc = "Recipients that may be accepted before this one."},
	{0},
};

static MatchResult
num_eval(const void *data, MatchCtx *ctx)
{
	const NumArgs *args = data;
	int64_t accepted = 0;
	for (size_t i = 0; i < ctx->rcpt; i++)
		accepted += response_ok(tx_rcpt(ctx->filter->down, i)->response);
	return match_bool(accepted >= args->max);
}

static const MatcherKind num_kind = {
	.name = "num_rcpts",
	.doc = "As many recipients as allowed were accepted before this one.",
	.args_size = sizeof(NumArgs),
	.keys = num_keys,
	.eval = num_eval,
	.needs_rcpt = true,
	.example = "- filter: policy_action\n"
		   "  tag: count\n"
		   "  mode: PER_RCPT\n"
		   "  match: {matcher: num_rcpts, max_rcpts: 100}\n"
		   "  action: REJECT\n"
		   "  code: 452\n"
		   "  message: 4.5.3 too many recipients\n",
};

/* ---- invalid addresses ---- */

static bool
is_invalid(const char *addr)
{
	AddrParts parts = {0};
	if (!address_split(addr, &parts))
		return true;
	address_parts_clear(&parts);
	return false;
}

static MatchResult
mail_from_eval(const void *args, MatchCtx *ctx)
{
	(void)args;
	const Mailbox *from = ctx->filter->down->mail_from;
	if (from == NULL)
		return MATCH_UNMET;
	return match_bool(from->addr[0] != '\0' && is_invalid(from->addr));
}

static MatchResult
rcpt_to_eval(const void *args, MatchCtx *ctx)
{
	(void)args;
	return match_bool(is_invalid(tx_rcpt(ctx->filter->down, ctx->rcpt)->to->addr));
}

static const MatcherKind mail_from_kind = {
	.name = "invalid_mail_from",
	.doc = "The sender's address cannot be read; the null sender is valid.",
	.eval = mail_from_eval,
	.example = "- filter: policy_action\n"
		   "  tag: envelope\n"
		   "  match: {matcher: invalid_mail_from}\n"
		   "  action: REJECT\n"
		   "  code: 501\n"
		   "  message: 5.1.7 bad sender address syntax\n",
};

static const MatcherKind rcpt_to_kind = {
	.name = "invalid_rcpt_to",
	.doc = "The recipient's address cannot be read.",
	.eval = rcpt_to_eval,
	.needs_rcpt = true,
	.example = "- filter: policy_action\n"
		   "  tag: envelope\n"
		   "  mode: PER_RCPT\n"
		   "  match: {matcher: invalid_rcpt_to}\n"
		   "  action: REJECT\n"
		   "  code: 501\n"
		   "  message: 5.1.3 bad recipient address syntax\n",
};

const MatcherKind *const matchers_tx[] = {
	&network_kind,
	&tls_kind,
	&auth_kind,
	&matcher_authenticated_user_kind,
	&address_kind,
	&matcher_mail_from_domain_kind,
	&matcher_rcpt_domain_kind,
	&num_kind,
	&matcher_rate_kind,
	&matcher_size_kind,
	&mail_from_kind,
	&rcpt_to_kind,
	&matcher_header_kind,
	NULL,
};
