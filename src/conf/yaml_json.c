/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/yaml_json.h"

static json_t *
json_scalar(const YamlNode *node)
{
	bool truth;
	int64_t whole;
	double real;
	if (yaml_bool(node, &truth))
		return json_boolean(truth);
	if (yaml_int(node, &whole))
		return json_integer(whole);
	if (yaml_double(node, &real))
		return json_real(real);
	return json_string(yaml_text(node));
}

json_t *
yaml_json(const YamlNode *node)
{
	json_t *out;
	switch (yaml_kind(node)) {
	case YAML_SCALAR:
		return json_scalar(node);
	case YAML_LIST:
		out = json_array();
		for (unsigned i = 0; i < yaml_count(node); i++)
			json_array_append_new(out, yaml_json(yaml_item(node, i)));
		return out;
	case YAML_MAP:
		out = json_object();
		for (unsigned i = 0; i < yaml_count(node); i++)
			json_object_set_new(out, yaml_text(yaml_key(node, i)),
					    yaml_json(yaml_value(node, i)));
		return out;
	default:
		return json_null();
	}
}
