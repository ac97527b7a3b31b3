/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* YAML to JSON by YAML 1.1's rules for plain scalars.  Load time: one thread. */
#include <jansson.h>

#include "conf/yaml.h"

/* The caller owns it.  NULL and empty nodes are null. */
json_t *yaml_json(const YamlNode *node);
