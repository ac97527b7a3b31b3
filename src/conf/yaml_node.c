/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/yaml.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/text.h"
#include "conf/yaml_int.h"

const YamlNode *
yaml_root(const YamlDoc *doc)
{
	return doc->root;
}

void
yaml_doc_free(YamlDoc *doc)
{
	if (doc == NULL)
		return;
	g_ptr_array_unref(doc->nodes);
	g_free(doc->name);
	g_free(doc);
}

YamlKind
yaml_kind(const YamlNode *node)
{
	return node == NULL ? YAML_NULL : node->kind;
}

const char *
yaml_kind_name(YamlKind kind)
{
	static const char *const names[] = {"nothing", "a scalar", "a list", "a map"};
	return (unsigned)kind < G_N_ELEMENTS(names) ? names[kind] : "?";
}

const char *
yaml_where(const YamlNode *node)
{
	if (node == NULL)
		return "";
	/* Made on demand: most nodes are never asked.  The node belongs to a document that one
	 * thread reads at a time. */
	YamlNode *cache = (YamlNode *)node;
	if (cache->where == NULL)
		cache->where = g_strdup_printf("%s:%u:%u", node->doc->name, node->line,
					       node->column);
	return cache->where;
}

unsigned
yaml_line(const YamlNode *node)
{
	return node == NULL ? 0 : node->line;
}

unsigned
yaml_column(const YamlNode *node)
{
	return node == NULL ? 0 : node->column;
}

const char *
yaml_text(const YamlNode *node)
{
	return yaml_kind(node) == YAML_SCALAR ? node->text : NULL;
}

bool
yaml_is_quoted(const YamlNode *node)
{
	return node != NULL && node->quoted;
}

unsigned
yaml_count(const YamlNode *node)
{
	return node == NULL || node->values == NULL ? 0 : node->values->len;
}

const YamlNode *
yaml_item(const YamlNode *list, unsigned index)
{
	if (yaml_kind(list) != YAML_LIST || index >= list->values->len)
		return NULL;
	return list->values->pdata[index];
}

const YamlNode *
yaml_key(const YamlNode *map, unsigned index)
{
	if (yaml_kind(map) != YAML_MAP || index >= map->keys->len)
		return NULL;
	return map->keys->pdata[index];
}

const YamlNode *
yaml_value(const YamlNode *map, unsigned index)
{
	if (yaml_kind(map) != YAML_MAP || index >= map->values->len)
		return NULL;
	return map->values->pdata[index];
}

const YamlNode *
yaml_get(const YamlNode *map, const char *key)
{
	if (yaml_kind(map) != YAML_MAP)
		return NULL;
	for (unsigned i = 0; i < map->keys->len; i++) {
		const YamlNode *at = map->keys->pdata[i];
		if (strcmp(at->text, key) == 0)
			return map->values->pdata[i];
	}
	return NULL;
}

/* ---- typed scalars, YAML 1.1 as the original's loader resolves them ---- */

static bool
is_one_of(const char *text, const char *const *words)
{
	for (; *words != NULL; words++)
		if (strcmp(text, *words) == 0)
			return true;
	return false;
}

bool
yaml_parse_bool(const char *text, bool *ret_value)
{
	static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes",
					  "YES",  "on",   "On",   "ON",  NULL};
	static const char *const no[] = {"false", "False", "FALSE", "no",  "No",
					 "NO",    "off",   "Off",   "OFF", NULL};
	if (is_one_of(text, yes)) {
		*ret_value = true;
		return true;
	}
	if (!is_one_of(text, no))
		return false;
	*ret_value = false;
	return true;
}

/* [-+]? ( 0b[01_]+ | 0x[0-9a-f_]+ | 0[0-7_]+ | 0 | [1-9][0-9_]* ) */
bool
yaml_parse_int(const char *text, int64_t *ret_value)
{
	const char *at = text;
	bool negative = *at == '-';
	if (*at == '-' || *at == '+')
		at++;
	int base = 10;
	if (at[0] == '0' && (at[1] == 'x' || at[1] == 'b')) {
		base = at[1] == 'x' ? 16 : 2;
		at += 2;
	} else if (at[0] == '0' && at[1] != '\0') {
		base = 8;
		at++;
	}
	bool any = false;
	int64_t value = 0;
	for (; *at != '\0'; at++) {
		if (*at == '_' && (any || base != 10))
			continue;
		int digit = g_ascii_xdigit_value(*at);
		if (digit < 0 || digit >= base)
			return false;
		int64_t step = negative ? -digit : digit;
		if (__builtin_mul_overflow(value, (int64_t)base, &value) ||
		    __builtin_add_overflow(value, step, &value))
			return false;
		any = true;
	}
	if (!any)
		return false;
	*ret_value = value;
	return true;
}

bool
yaml_parse_double(const char *text, double *ret_value)
{
	int64_t whole;
	if (yaml_parse_int(text, &whole)) {
		*ret_value = (double)whole;
		return true;
	}
	/* g_ascii_strtod also takes hexadecimal floats, "inf" and leading space. */
	if (text[0] == '\0' || text[strspn(text, "+-.0123456789eE")] != '\0')
		return false;
	char *end;
	double value = g_ascii_strtod(text, &end);
	if (*end != '\0' || !isfinite(value))
		return false;
	*ret_value = value;
	return true;
}

static const char *
plain_text(const YamlNode *node)
{
	return yaml_is_quoted(node) ? NULL : yaml_text(node);
}

bool
yaml_bool(const YamlNode *node, bool *ret_value)
{
	const char *text = plain_text(node);
	return text != NULL && yaml_parse_bool(text, ret_value);
}

bool
yaml_int(const YamlNode *node, int64_t *ret_value)
{
	const char *text = plain_text(node);
	return text != NULL && yaml_parse_int(text, ret_value);
}

bool
yaml_double(const YamlNode *node, double *ret_value)
{
	const char *text = plain_text(node);
	return text != NULL && yaml_parse_double(text, ret_value);
}

char *
yaml_describe(const YamlNode *node)
{
	const char *text = yaml_text(node);
	if (text == NULL)
		return g_strdup(yaml_kind_name(yaml_kind(node)));
	g_autofree char *shown = text_escape(text, strlen(text), 60);
	const char *type = "text";
	bool truth;
	double number;
	if (yaml_bool(node, &truth))
		type = "boolean";
	else if (yaml_double(node, &number))
		type = "number";
	return g_strdup_printf("%s '%s'", type, shown);
}
