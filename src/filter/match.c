/* SPDX-License-Identifier: Apache-2.0 */
#include "filter/match.h"

#include <string.h>

#include "base/text.h"
#include "filter/plugin.h"

#define DEPTH_MAX 32 /* of nested any/all/not */

typedef enum MatchOp { OP_ANY, OP_ALL, OP_NOT, OP_MATCHER, OP_OUTPUT, OP_ALWAYS } MatchOp;

struct Match {
	MatchOp op;
	GPtrArray *operands;     /* Match*; of ANY, ALL, NOT */
	const MatcherKind *kind; /* of MATCHER */
	void *args;
	char *output; /* of OUTPUT: a filter nobody here knows how to ask */
};

/* ---- evaluating ---- */

/* The first operand that is not `neutral` decides, left to right. */
static MatchResult
eval_list(const GPtrArray *operands, MatchResult neutral, MatchCtx *ctx)
{
	for (guint i = 0; i < operands->len; i++) {
		MatchResult result = match_eval(g_ptr_array_index(operands, i), ctx);
		if (result != neutral)
			return result;
	}
	return neutral;
}

static MatchResult
eval_not(const Match *operand, MatchCtx *ctx)
{
	MatchResult result = match_eval(operand, ctx);
	if (result == MATCH_YES)
		return MATCH_NO;
	return result == MATCH_NO ? MATCH_YES : result;
}

static MatchResult
eval_matcher(const Match *match, MatchCtx *ctx)
{
	const MatcherKind *kind = match->kind;
	if (kind->eval != NULL)
		return kind->eval(match->args, ctx);
	const json_t *output = filter_get_output(ctx->filter, kind->name);
	return output != NULL ? kind->eval_output(match->args, output, ctx) : MATCH_UNMET;
}

MatchResult
match_eval(const Match *match, MatchCtx *ctx)
{
	switch (match->op) {
	case OP_ANY:
		return eval_list(match->operands, MATCH_NO, ctx);
	case OP_ALL:
		return eval_list(match->operands, MATCH_YES, ctx);
	case OP_NOT:
		return eval_not(g_ptr_array_index(match->operands, 0), ctx);
	case OP_MATCHER:
		return eval_matcher(match, ctx);
	case OP_OUTPUT:
		return filter_get_output(ctx->filter, match->output) != NULL ? MATCH_NO
									     : MATCH_UNMET;
	case OP_ALWAYS:
		return MATCH_YES;
	}
	k_unreachable();
}

/* ---- compiling ---- */

static void
match_destroy(void *match)
{
	match_free(match);
}

void
match_free(Match *match)
{
	if (match == NULL)
		return;
	if (match->operands != NULL)
		g_ptr_array_unref(match->operands);
	if (match->args != NULL) {
		if (match->kind->clear != NULL)
			match->kind->clear(match->args);
		conf_clear(match->args, match->kind->keys);
		g_free(match->args);
	}
	g_free(match->output);
	g_free(match);
}

static const MatcherKind *
find_in(const MatcherKind *const *table, const char *name)
{
	for (; *table != NULL; table++) {
		if (strcmp((*table)->name, name) == 0)
			return *table;
	}
	return NULL;
}

bool
filter_matcher_taken(const char *name)
{
	return find_in(matchers_tx, name) != NULL || find_in(matchers_output, name) != NULL;
}

static void
add_names(GPtrArray *names, const MatcherKind *const *table)
{
	for (; *table != NULL; table++)
		g_ptr_array_add(names, (gpointer)(*table)->name);
}

/* It may be the output of a filter that is unknown here, so this is no error. */
static void
warn_unknown(const YamlNode *node, const char *name, ConfReport *report)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	add_names(names, matchers_tx);
	add_names(names, matchers_output);
	const char *nearest = text_nearest(name, (const char *const *)names->pdata, names->len);
	if (nearest != NULL)
		conf_warning(report, node, "unknown matcher '%s' never matches, did you mean '%s'?",
			     name, nearest);
	else
		conf_warning(report, node, "unknown matcher '%s' never matches", name);
}

static bool
is_alias(const FilterModules *modules, const char *name)
{
	return modules != NULL && modules->matchers != NULL &&
	       g_hash_table_lookup(modules->matchers, name) != NULL;
}

static void
compile_kind(Match *match, const YamlNode *node, bool per_rcpt, const FilterModules *modules,
	     ConfReport *report)
{
	static const char *const extra[] = {"matcher", NULL};
	static const ConfKey no_keys[] = {{0}};
	const MatcherKind *kind = match->kind;
	if (kind->needs_rcpt && !per_rcpt)
		conf_error(report, node, "matcher %s needs mode: PER_RCPT", kind->name);
	if (kind->args_size > 0)
		match->args = g_malloc0(kind->args_size);
	if (!kind->open_keys)
		conf_fill(match->args, kind->keys != NULL ? kind->keys : no_keys, node, extra,
			  report);
	const FilterModules **wanted = NULL;
	if (kind->modules_offset > 0) {
		wanted = (void *)((char *)match->args + kind->modules_offset);
		*wanted = modules;
	}
	if (kind->check != NULL)
		kind->check(match->args, node, per_rcpt, report);
	if (wanted != NULL)
		*wanted = NULL;
}

static Match *
compile_matcher(const YamlNode *node, bool per_rcpt, const FilterModules *modules,
		ConfReport *report)
{
	const YamlNode *name_node = yaml_get(node, "matcher");
	const char *name = yaml_text(name_node);
	if (name == NULL) {
		conf_error(report, name_node, "'matcher' must be a name");
		return NULL;
	}
	Match *match = g_new0(Match, 1);
	match->kind = find_in(matchers_tx, name);
	if (match->kind == NULL)
		match->kind = find_in(matchers_output, name);
	if (match->kind == NULL && filter_plugin_find(modules, PLUGIN_MATCHER, name) != NULL)
		match->kind = &matcher_plugin_kind;
	if (match->kind != NULL) {
		match->op = OP_MATCHER;
		compile_kind(match, node, per_rcpt, modules, report);
	} else if (is_alias(modules, name)) {
		match->op = OP_ALWAYS;
	} else {
		match->op = OP_OUTPUT;
		match->output = g_strdup(name);
		warn_unknown(name_node, name, report);
	}
	return match;
}

typedef struct Compiler {
	bool per_rcpt;
	const FilterModules *modules;
	ConfReport *report;
	unsigned depth;
} Compiler;

static Match *compile(Compiler *compiler, const YamlNode *node);

static Match *
compile_operands(Compiler *compiler, MatchOp op, const YamlNode *node)
{
	Match *match = g_new0(Match, 1);
	match->op = op;
	match->operands = g_ptr_array_new_with_free_func(match_destroy);
	unsigned before = compiler->report->errors;
	if (op == OP_NOT) {
		Match *operand = compile(compiler, node);
		if (operand != NULL)
			g_ptr_array_add(match->operands, operand);
	} else if (yaml_kind(node) != YAML_LIST) {
		conf_error(compiler->report, node, "'any' and 'all' want a list of matchers");
	}
	for (unsigned i = 0; op != OP_NOT && i < yaml_count(node); i++) {
		Match *operand = compile(compiler, yaml_item(node, i));
		if (operand != NULL)
			g_ptr_array_add(match->operands, operand);
	}
	if (compiler->report->errors == before)
		return match;
	match_free(match);
	return NULL;
}

static Match *
compile(Compiler *compiler, const YamlNode *node)
{
	static const struct {
		const char *key;
		MatchOp op;
	} forms[] = {{"any", OP_ANY}, {"all", OP_ALL}, {"not", OP_NOT}};
	if (compiler->depth >= DEPTH_MAX) {
		conf_error(compiler->report, node, "match expressions nest deeper than %d",
			   DEPTH_MAX);
		return NULL;
	}
	if (yaml_kind(node) == YAML_MAP && yaml_get(node, "matcher") != NULL)
		return compile_matcher(node, compiler->per_rcpt, compiler->modules,
				       compiler->report);
	for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
		const YamlNode *operand = yaml_get(node, forms[i].key);
		if (operand == NULL || yaml_count(node) != 1)
			continue;
		compiler->depth++;
		Match *match = compile_operands(compiler, forms[i].op, operand);
		compiler->depth--;
		return match;
	}
	conf_error(compiler->report, node,
		   "a match expression is a map with 'matcher' and its arguments, or with one of "
		   "'any', 'all', 'not'");
	return NULL;
}

Match *
match_new(const YamlNode *node, bool per_rcpt, const FilterModules *modules, ConfReport *report)
{
	Compiler compiler = {.per_rcpt = per_rcpt, .modules = modules, .report = report};
	return compile(&compiler, node);
}
