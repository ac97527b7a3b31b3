/* SPDX-License-Identifier: Apache-2.0 */
/* Rules on the signals of a transaction (behaviour spec section 11): reject, label, or note. */
#include <string.h>

#include "base/ids.h"
#include "base/text.h"
#include "filter/kinds.h"
#include "filter/match.h"

#define CONTROL ((unsigned)(TX_NEW_CANCEL | TX_NEW_HEARTBEAT))

typedef enum Action { ACTION_REJECT, ACTION_LOG, ACTION_MATCH, ACTIONS } Action;
static const char *const action_names[] = {"REJECT", "LOG", "MATCH"};
_Static_assert(G_N_ELEMENTS(action_names) == ACTIONS, "a name for each action");

typedef struct Weighted {
	double weight;
	Action action;
} Weighted;

enum { MODE_TX, MODE_PER_RCPT, MODE_TX_LOWER };
static const char *const mode_names[] = {"TX", "PER_RCPT", "tx", NULL};

typedef struct PolicyConf {
	char *tag, *name;
	const YamlNode *match_node, *action_node;
	int mode;
	int64_t code;
	char *message;
	const FilterModules *modules;
	/* made by conf_check */
	Match *match;    /* NULL: always */
	GArray *actions; /* Weighted */
	double total;    /* of the weights */
} PolicyConf;

typedef struct Policy {
	size_t looked;      /* recipients of down */
	bool body_final;    /* was shown */
	Response *rejected; /* the whole transaction was */
	GHashTable *memo;   /* of MatchCtx; NULL: not needed yet */
} Policy;

/* ---- the output that all policies of a chain share ---- */

static bool
has_name(const json_t *names, const char *name)
{
	for (size_t i = 0; i < json_array_size(names); i++) {
		if (strcmp(json_string_value(json_array_get(names, i)), name) == 0)
			return true;
	}
	return false;
}

static json_t *
names_with(const json_t *old, const char *name)
{
	json_t *names = old != NULL ? json_copy((json_t *)old) : json_array();
	if (name != NULL && !has_name(names, name))
		json_array_append_new(names, json_string(name));
	return names;
}

/* Outputs are replaced, not changed: others may hold the former one. */
static void
record(Filter *filter, const char *tag, const char *rule)
{
	const json_t *old = filter_get_output(filter, filter->kind->output_name);
	json_t *output = json_object();
	json_object_set_new(output, "matched_tags",
			    names_with(json_object_get(old, "matched_tags"), tag));
	json_object_set_new(output, "matched_rules",
			    names_with(json_object_get(old, "matched_rules"), rule));
	filter_set_output(filter, output);
}

static bool
is_retired(const Filter *filter)
{
	const PolicyConf *conf = filter->conf;
	const json_t *output = filter_get_output(filter, filter->kind->output_name);
	return has_name(json_object_get(output, "matched_tags"), conf->tag) ||
	       has_name(json_object_get(output, "matched_rules"), conf->name);
}

/* ---- acting ---- */

static Action
choose_action(const PolicyConf *conf)
{
	const uint64_t steps = UINT64_C(1) << 53; /* a double holds each */
	double at = 0;
	if (conf->actions->len > 1)
		at = (double)ids_random_below(steps) / (double)steps * conf->total;
	for (guint i = 0; i < conf->actions->len; i++) {
		const Weighted *choice = &g_array_index(conf->actions, Weighted, i);
		if (at < choice->weight)
			return choice->action;
		at -= choice->weight;
	}
	return g_array_index(conf->actions, Weighted, conf->actions->len - 1).action;
}

static Response *
reject_response(const PolicyConf *conf)
{
	if (conf->message != NULL)
		return response_new((int)conf->code, conf->message);
	return response_newf((int)conf->code, "5.6.0 message rejected %s", conf->name);
}

static MatchResult
evaluate(Filter *filter, size_t rcpt)
{
	const PolicyConf *conf = filter->conf;
	Policy *policy = filter->state;
	if (conf->match == NULL)
		return MATCH_YES;
	bool per_rcpt = conf->mode == MODE_PER_RCPT; /* each of them is looked at once */
	MatchCtx ctx = {
		.filter = filter,
		.per_rcpt = per_rcpt,
		.rcpt = rcpt,
		.body_final = policy->body_final,
		.memo = per_rcpt ? NULL : &policy->memo,
	};
	MatchResult result = match_eval(conf->match, &ctx);
	if (result == MATCH_FAULT)
		filter_fail(filter, ctx.fault);
	return result;
}

static void
act_on_rcpt(Filter *filter, size_t index)
{
	const PolicyConf *conf = filter->conf;
	if (evaluate(filter, index) != MATCH_YES)
		return;
	Action action = choose_action(conf);
	record(filter, action == ACTION_LOG ? NULL : conf->tag, conf->name);
	if (action == ACTION_REJECT)
		tx_answer_rcpt(filter->down, index, reject_response(conf));
}

static void
step_rcpts(Filter *filter)
{
	Policy *policy = filter->state;
	const Tx *down = filter->down;
	if (filter_get_output(filter, filter->kind->output_name) == NULL)
		record(filter, NULL, NULL);
	for (; policy->looked < tx_rcpt_count(down); policy->looked++) {
		if (tx_rcpt(down, policy->looked)->response == NULL)
			act_on_rcpt(filter, policy->looked);
	}
}

static void
step_tx(Filter *filter)
{
	Policy *policy = filter->state;
	const PolicyConf *conf = filter->conf;
	if (is_retired(filter) || filter_tag_is_unmet(filter, conf->tag))
		return;
	MatchResult result = evaluate(filter, 0);
	if (result == MATCH_UNMET)
		filter_set_tag_unmet(filter, conf->tag);
	if (result != MATCH_YES)
		return;
	Action action = choose_action(conf);
	record(filter, action == ACTION_LOG ? NULL : conf->tag, conf->name);
	if (action == ACTION_REJECT)
		policy->rejected = reject_response(conf);
}

static FilterResult
policy_update(Filter *filter, unsigned news)
{
	Policy *policy = filter->state;
	const PolicyConf *conf = filter->conf;
	if ((news & ~CONTROL) == 0)
		return FILTER_CONTINUE;
	policy->body_final |= (news & TX_NEW_BODY_FINAL) != 0;
	if (conf->mode == MODE_TX && policy->rejected == NULL)
		step_tx(filter);
	else if (conf->mode == MODE_PER_RCPT && (news & TX_NEW_RCPT) != 0)
		step_rcpts(filter);
	if (policy->rejected == NULL)
		return FILTER_CONTINUE;
	tx_fill_in_flight(filter->down, policy->rejected);
	return FILTER_STOP;
}

static void
policy_close(Filter *filter)
{
	Policy *policy = filter->state;
	g_clear_pointer(&policy->rejected, response_unref);
	g_clear_pointer(&policy->memo, g_hash_table_unref);
}

/* ---- configuration ---- */

static void
add_action(PolicyConf *conf, double weight, const YamlNode *node, ConfReport *report)
{
	const char *name = yaml_text(node);
	for (Action action = 0; name != NULL && action < ACTIONS; action++) {
		if (strcmp(action_names[action], name) != 0)
			continue;
		const Weighted choice = {weight, action};
		g_array_append_val(conf->actions, choice);
		conf->total += weight;
		return;
	}
	const char *nearest = name != NULL ? text_nearest(name, action_names, ACTIONS) : NULL;
	if (nearest != NULL)
		conf_error(report, node, "unknown action '%s', did you mean %s?", name, nearest);
	else
		conf_error(report, node,
			   "'action' is REJECT, LOG, MATCH or a list of [weight, action]");
}

static void
read_actions(PolicyConf *conf, ConfReport *report)
{
	const YamlNode *node = conf->action_node;
	conf->actions = g_array_new(FALSE, FALSE, sizeof(Weighted));
	if (yaml_kind(node) == YAML_NULL) {
		const Weighted match = {1, ACTION_MATCH};
		g_array_append_val(conf->actions, match);
		return;
	}
	if (yaml_kind(node) != YAML_LIST) {
		add_action(conf, 1, node, report);
		return;
	}
	if (yaml_count(node) == 0)
		conf_error(report, node, "'action' needs at least one [weight, action]");
	for (unsigned i = 0; i < yaml_count(node); i++) {
		const YamlNode *pair = yaml_item(node, i);
		double weight = 0;
		if (yaml_kind(pair) == YAML_LIST && yaml_count(pair) == 2 &&
		    yaml_double(yaml_item(pair, 0), &weight) && weight >= 0 && weight <= 1e9)
			add_action(conf, weight, yaml_item(pair, 1), report);
		else
			conf_error(report, pair, "a pair is wanted: [weight, action]");
	}
	if (conf->actions->len > 0 && !(conf->total > 0))
		conf_error(report, node, "some weight must be above 0");
}

static void
policy_conf_check(void *data, const YamlNode *node, const ConfModel *model, ConfReport *report)
{
	(void)node;
	(void)model;
	PolicyConf *conf = data;
	if (conf->mode == MODE_TX_LOWER)
		conf->mode = MODE_TX;
	if (conf->name == NULL)
		conf->name = g_strdup(conf->tag);
	if (yaml_kind(conf->match_node) != YAML_NULL)
		conf->match = match_new(conf->match_node, conf->mode == MODE_PER_RCPT,
					conf->modules, report);
	read_actions(conf, report);
}

static void
policy_conf_free(void *data)
{
	PolicyConf *conf = data;
	match_free(conf->match);
	if (conf->actions != NULL)
		g_array_unref(conf->actions);
}

static const ConfKey policy_keys[] = {
	{.name = "tag",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(PolicyConf, tag),
	 .flags = CONF_REQUIRED,
	 .doc = "Group of rules; once one of them has matched, the others rest."},
	{.name = "name",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(PolicyConf, name),
	 .doc = "Name of the rule; absent: the tag."},
	{.name = "match",
	 .type = CONF_NODE,
	 .offset = CONF_KEY(PolicyConf, match_node),
	 .doc = "Match expression; absent: always."},
	{.name = "mode",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(PolicyConf, mode),
	 .def = "TX",
	 .names = mode_names,
	 .doc = "Once for the transaction, or for each recipient on its own."},
	{.name = "action",
	 .type = CONF_NODE,
	 .offset = CONF_KEY(PolicyConf, action_node),
	 .doc = "REJECT, LOG (note the rule), MATCH (note rule and tag; the default), or a list of "
		"[weight, action], one of which is drawn."},
	{.name = "code",
	 .type = CONF_INT,
	 .offset = CONF_KEY(PolicyConf, code),
	 .def = "550",
	 .min = 400,
	 .max = 599,
	 .doc = "Reply code of REJECT."},
	{.name = "message",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(PolicyConf, message),
	 .doc = "Reply text of REJECT; absent: 5.6.0 message rejected NAME."},
	{0},
};

const FilterKind filter_policy_action_kind = {
	.name = "policy_action",
	.output_name = "koukan.policy_action_filter.PolicyActionFilter",
	.doc = "Rejects, labels or notes transactions that match an expression.",
	.conf_size = sizeof(PolicyConf),
	.keys = policy_keys,
	.conf_check = policy_conf_check,
	.conf_free = policy_conf_free,
	.state_size = sizeof(Policy),
	.update = policy_update,
	.close = policy_close,
	.modules_offset = offsetof(PolicyConf, modules),
	.example = "- filter: policy_action\n"
		   "  tag: envelope\n"
		   "  name: too_many\n"
		   "  mode: PER_RCPT\n"
		   "  match: {matcher: num_rcpts, max_rcpts: 100}\n"
		   "  action: REJECT\n"
		   "  code: 452\n"
		   "  message: 4.5.3 too many recipients\n"
		   "- filter: policy_action\n"
		   "  tag: trial\n"
		   "  match:\n"
		   "    all:\n"
		   "    - not: {matcher: smtp_tls}\n"
		   "    - any:\n"
		   "      - {matcher: network_address, cidr: 192.0.2.0/24}\n"
		   "      - {matcher: network_address, cidr: '2001:db8::/32'}\n"
		   "  action:\n"
		   "  - [9, LOG]\n"
		   "  - [1, REJECT]\n",
};
