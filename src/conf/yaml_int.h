/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Shared by yaml.c (making) and yaml_node.c (reading).  Nodes are never freed one by one: the
 * document owns all of them, so that aliases may share. */
#include "conf/yaml.h"

struct YamlNode {
	YamlDoc *doc;
	char *text;        /* scalars, null ones too */
	char *where;       /* made when first asked for */
	GPtrArray *keys;   /* maps: YamlNode*, borrowed */
	GPtrArray *values; /* lists and maps: YamlNode*, borrowed */
	unsigned line, column;
	unsigned size; /* nodes below and including this one, aliases expanded */
	YamlKind kind;
	bool quoted;
	bool done; /* complete: an alias may refer to it */
};

struct YamlDoc {
	char *name;
	GPtrArray *nodes; /* YamlNode*, owned */
	YamlNode *root;
};
