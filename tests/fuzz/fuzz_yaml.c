/* SPDX-License-Identifier: Apache-2.0 */
/* The YAML reader: a tree within its limits or an error with a place; every node can be visited. */
#include "fuzz.h"

#include "conf/yaml.h"

static unsigned
visit(const YamlNode *node, unsigned depth)
{
	unsigned count = 1;
	int64_t number;
	bool flag;
	double real;
	k_assert(depth <= YAML_DEPTH_MAX + 1);
	(void)!yaml_int(node, &number);
	(void)!yaml_bool(node, &flag);
	(void)!yaml_double(node, &real);
	k_assert(yaml_where(node) != NULL);
	for (unsigned i = 0; i < yaml_count(node); i++) {
		if (yaml_kind(node) == YAML_LIST) {
			count += visit(yaml_item(node, i), depth + 1);
		} else {
			k_assert(yaml_key(node, i) != NULL);
			count += 1 + visit(yaml_value(node, i), depth + 1);
		}
	}
	return count;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	g_autofree char *text = fuzz_string(data, size);
	g_autoptr(GError) error = NULL;
	g_autoptr(YamlDoc) doc = yaml_load_text("fuzz.yaml", text, &error);
	k_assert((doc == NULL) == (error != NULL));
	if (doc == NULL)
		k_assert(g_str_has_prefix(error->message, "fuzz.yaml"));
	else
		k_assert(visit(yaml_root(doc), 1) <= 2 * YAML_NODES_MAX);
	return 0;
}
