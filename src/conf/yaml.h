/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* YAML documents as trees of nodes that know where they stand.  libfyaml stays inside
 * yaml.c.  A document owns its nodes; nodes are borrowed.  Values are resolved here as Koukan's
 * loader (YAML 1.1: yes/no/on/off, ~, null, empty) would; anchors, aliases and merge keys work. One
 * thread at a time. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"

typedef struct YamlDoc YamlDoc;
typedef struct YamlNode YamlNode;

typedef enum YamlKind { YAML_NULL, YAML_SCALAR, YAML_LIST, YAML_MAP } YamlKind;

#define YAML_SIZE_MAX  (1024 * 1024) /* bytes of a file */
#define YAML_NODES_MAX 100000        /* after aliases; an alias bomb ends here */
#define YAML_DEPTH_MAX 64            /* lists and maps inside each other */

/* Errors (K_ERROR_CONFIG) read "FILE:LINE:COLUMN: text". */
K_MUST_CHECK YamlDoc *yaml_load_file(const char *path, GError **ret_error);
K_MUST_CHECK YamlDoc *yaml_load_text(const char *name, const char *text, GError **ret_error);
void yaml_doc_free(YamlDoc *doc);              /* NULL is fine */
const YamlNode *yaml_root(const YamlDoc *doc); /* YAML_NULL for an empty file */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(YamlDoc, yaml_doc_free)

YamlKind yaml_kind(const YamlNode *node); /* NULL counts as YAML_NULL */
const char *yaml_kind_name(YamlKind kind);
/* "FILE:LINE:COLUMN"; borrowed from the document. */
const char *yaml_where(const YamlNode *node);
unsigned yaml_line(const YamlNode *node); /* from 1; 0 for NULL */
unsigned yaml_column(const YamlNode *node);
const char *yaml_text(const YamlNode *node); /* scalar text, else NULL */
bool yaml_is_quoted(const YamlNode *node);   /* quoted scalars are always strings */
unsigned yaml_count(const YamlNode *node);   /* entries of a list or map, else 0 */
const YamlNode *yaml_item(const YamlNode *list, unsigned index);
/* Maps: keys in file order. */
const YamlNode *yaml_key(const YamlNode *map, unsigned index);
const YamlNode *yaml_value(const YamlNode *map, unsigned index);
const YamlNode *yaml_get(const YamlNode *map, const char *key); /* NULL: absent */
/* Typed readings of a scalar; false when it is not of that type. */
K_MUST_CHECK bool yaml_bool(const YamlNode *node, bool *ret_value);
K_MUST_CHECK bool yaml_int(const YamlNode *node, int64_t *ret_value);
K_MUST_CHECK bool yaml_double(const YamlNode *node, double *ret_value);
/* The same on bare text, for defaults in tables. */
K_MUST_CHECK bool yaml_parse_bool(const char *text, bool *ret_value);
K_MUST_CHECK bool yaml_parse_int(const char *text, int64_t *ret_value);
K_MUST_CHECK bool yaml_parse_double(const char *text, double *ret_value); /* finite */
/* "map", "text 'abc'", "number 5"...: what stands there, for messages.  Caller frees. */
char *yaml_describe(const YamlNode *node);
