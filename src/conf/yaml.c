/* SPDX-License-Identifier: Apache-2.0 */
/* YAML text to nodes, from libfyaml's events.  Not from its documents: those lose the positions of
 * lists and maps, and expand aliases before anybody can count them.  Here an alias shares the
 * node it names, and each node carries the size it would have when expanded. */
#include <errno.h>
#include <fcntl.h>
#include <libfyaml.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/text.h"
#include "conf/yaml.h"
#include "conf/yaml_int.h"

typedef struct Frame {
	YamlNode *node; /* list or map that is open */
	YamlNode *key;  /* map: waits for its value */
} Frame;

typedef struct Loader {
	YamlDoc *doc;
	const char *text; /* what the library was given */
	size_t len;
	GHashTable *anchors; /* char* -> YamlNode* */
	Frame stack[YAML_DEPTH_MAX];
	unsigned depth;
	unsigned line, column; /* of the last event that had a position */
	unsigned merged;       /* pairs copied for `<<`, bounded like nodes */
	bool ended;            /* one document is complete */
	GError **ret_error;
} Loader;

static bool load_error(Loader *loader, unsigned line, unsigned column, const char *format, ...)
	K_PRINTF(4, 5);

static bool
load_error(Loader *loader, unsigned line, unsigned column, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	g_autofree char *text = g_strdup_vprintf(format, args);
	va_end(args);
	return error_set(loader->ret_error, K_ERROR_CONFIG, "%s:%u:%u: %s", loader->doc->name, line,
			 column, text);
}

static void
node_free(void *data)
{
	YamlNode *node = data;
	if (node->keys != NULL)
		g_ptr_array_unref(node->keys);
	if (node->values != NULL)
		g_ptr_array_unref(node->values);
	g_free(node->text);
	g_free(node->where);
	g_free(node);
}

static YamlNode *
node_new(YamlDoc *doc, YamlKind kind, unsigned line, unsigned column)
{
	YamlNode *node = g_new0(YamlNode, 1);
	node->doc = doc;
	node->kind = kind;
	node->line = line;
	node->column = column;
	node->size = 1;
	if (kind == YAML_MAP)
		node->keys = g_ptr_array_new();
	if (kind == YAML_MAP || kind == YAML_LIST)
		node->values = g_ptr_array_new();
	node->done = node->values == NULL;
	g_ptr_array_add(doc->nodes, node);
	return node;
}

static bool
is_null_text(const char *text)
{
	return *text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0 ||
	       strcmp(text, "Null") == 0 || strcmp(text, "NULL") == 0;
}

/* ---- tokens ---- */

/* A copy with its NUL; libfyaml's own texts have none.  NULL when there is a NUL inside. */
static char *
token_dup(struct fy_token *token)
{
	size_t len = 0;
	const char *text = token == NULL ? "" : fy_token_get_text(token, &len);
	if (text == NULL)
		return g_strdup("");
	if (memchr(text, 0, len) != NULL)
		return NULL;
	return g_strndup(text, len);
}

/* Line breaks inside a quoted text (YAML 1.2, 6.5): blanks around them go, one is a space, more
 * are one less.  `at` is the first of them; returns behind the last one. */
static const char *
fold_breaks(GString *out, const char *at, const char *end)
{
	unsigned breaks = 0;
	while (out->len > 0 && strchr(" \t", out->str[out->len - 1]) != NULL)
		g_string_truncate(out, out->len - 1);
	for (; at < end && strchr(" \t\r\n", *at) != NULL; at++)
		breaks += *at == '\n' || (*at == '\r' && (at + 1 == end || at[1] != '\n'));
	if (breaks == 1)
		g_string_append_c(out, ' ');
	for (; breaks > 1; breaks--)
		g_string_append_c(out, '\n');
	return at;
}

/* A single-quoted text from the source: where two quotes are meant, as in 'x''''y', libfyaml
 * 0.7.12 loses count, and it leaks when there are many. */
static char *
single_quoted(const Loader *loader, struct fy_token *token)
{
	const struct fy_mark *first = fy_token_start_mark(token);
	const struct fy_mark *last = fy_token_end_mark(token);
	if (first == NULL || last == NULL || first->input_pos > last->input_pos ||
	    last->input_pos > loader->len)
		return token_dup(token);
	const char *at = loader->text + first->input_pos;
	const char *end = loader->text + last->input_pos;
	GString *out = g_string_new(NULL);
	while (at < end) {
		if (*at == '\r' || *at == '\n') {
			at = fold_breaks(out, at, end);
			continue;
		}
		g_string_append_c(out, *at);
		at += *at == '\'' && at + 1 < end ? 2 : 1;
	}
	return g_string_free(out, FALSE);
}

static char *
scalar_dup(const Loader *loader, struct fy_token *token)
{
	if (token != NULL && fy_token_scalar_style(token) == FYSS_SINGLE_QUOTED)
		return single_quoted(loader, token);
	return token_dup(token);
}

static void
note_place(Loader *loader, struct fy_event *event)
{
	const struct fy_mark *mark = fy_event_start_mark(event);
	if (mark == NULL || mark->line < 0 || mark->column < 0)
		return;
	loader->line = (unsigned)mark->line + 1;
	loader->column = (unsigned)mark->column + 1;
	/* The library points behind the quote and behind the '*'. */
	struct fy_token *token = fy_event_get_token(event);
	bool quoted = event->type == FYET_SCALAR && token != NULL &&
		      (fy_token_scalar_style(token) == FYSS_SINGLE_QUOTED ||
		       fy_token_scalar_style(token) == FYSS_DOUBLE_QUOTED);
	if ((quoted || event->type == FYET_ALIAS) && loader->column > 1)
		loader->column--;
}

/* Only the tags that name YAML's own types; "!!str" makes plain text a string. */
static bool
take_tag(Loader *loader, struct fy_event *event, YamlNode *node)
{
	struct fy_token *token = fy_event_get_tag_token(event);
	if (token == NULL)
		return true;
	const char *handle = fy_tag_token_handle0(token);
	const char *suffix = fy_tag_token_suffix0(token);
	handle = handle == NULL ? "" : handle;
	suffix = suffix == NULL ? "" : suffix;
	static const char *const known[] = {"str", "int", "float", "bool", "null", "map", "seq"};
	if (strcmp(handle, "!!") == 0) {
		for (size_t i = 0; i < G_N_ELEMENTS(known); i++) {
			if (strcmp(suffix, known[i]) != 0)
				continue;
			if (i == 0 && node->text != NULL) {
				node->quoted = true;
				node->kind = YAML_SCALAR;
			}
			return true;
		}
	}
	g_autofree char *shown = text_escape(suffix, strlen(suffix), 40);
	return load_error(loader, node->line, node->column, "tag '%s%s' is not known here",
			  strcmp(handle, "!!") == 0 ? "!!" : "!", shown);
}

static bool
take_anchor(Loader *loader, struct fy_event *event, YamlNode *node)
{
	struct fy_token *token = fy_event_get_anchor_token(event);
	if (token == NULL)
		return true;
	char *name = token_dup(token);
	if (name == NULL)
		return load_error(loader, node->line, node->column, "bad anchor");
	g_hash_table_replace(loader->anchors, name, node);
	return true;
}

/* ---- putting nodes together ---- */

static bool
check_count(Loader *loader, unsigned size, unsigned line, unsigned column)
{
	if (size <= YAML_NODES_MAX)
		return true;
	return load_error(loader, line, column, "too much: more than %d nodes%s", YAML_NODES_MAX,
			  loader->doc->nodes->len <= YAML_NODES_MAX ? " with aliases expanded"
								    : "");
}

static bool
add_key(Loader *loader, Frame *frame, YamlNode *node, bool alias)
{
	if (node->text == NULL)
		return load_error(loader, loader->line, loader->column,
				  "a key must be a scalar, this is %s", yaml_kind_name(node->kind));
	if (alias) {
		YamlNode *copy = node_new(loader->doc, YAML_SCALAR, loader->line, loader->column);
		copy->text = g_strdup(node->text);
		copy->quoted = true;
		node = copy;
	}
	if (*node->text == '\0' && !node->quoted)
		return load_error(loader, node->line, node->column, "a key is missing before ':'");
	node->kind = YAML_SCALAR; /* also "null:" and "~:" */
	frame->key = node;
	return true;
}

static bool
add_node(Loader *loader, YamlNode *node, bool alias)
{
	if (!check_count(loader, loader->doc->nodes->len, loader->line, loader->column))
		return false;
	if (loader->depth == 0) {
		loader->doc->root = node;
		return true;
	}
	Frame *frame = &loader->stack[loader->depth - 1];
	if (frame->node->kind == YAML_MAP && frame->key == NULL)
		return add_key(loader, frame, node, alias);
	if (frame->node->kind == YAML_MAP) {
		g_ptr_array_add(frame->node->keys, frame->key);
		frame->key = NULL;
	}
	g_ptr_array_add(frame->node->values, node);
	return true;
}

static bool
on_scalar(Loader *loader, struct fy_event *event)
{
	struct fy_token *token = fy_event_get_token(event);
	YamlNode *node = node_new(loader->doc, YAML_SCALAR, loader->line, loader->column);
	node->text = scalar_dup(loader, token);
	if (node->text == NULL) {
		node->text = g_strdup("");
		return load_error(loader, node->line, node->column, "a NUL byte in a text");
	}
	if (token != NULL)
		node->quoted = fy_token_scalar_style(token) != FYSS_PLAIN;
	if (!node->quoted && is_null_text(node->text))
		node->kind = YAML_NULL;
	/* An empty value has no place of its own: its key's is the best one. */
	if (token == NULL && loader->depth > 0 && loader->stack[loader->depth - 1].key != NULL) {
		node->line = loader->stack[loader->depth - 1].key->line;
		node->column = loader->stack[loader->depth - 1].key->column;
	}
	return take_tag(loader, event, node) && take_anchor(loader, event, node) &&
	       add_node(loader, node, false);
}

static bool
on_alias(Loader *loader, struct fy_event *event)
{
	g_autofree char *name = token_dup(fy_event_get_token(event));
	YamlNode *node = name == NULL ? NULL : g_hash_table_lookup(loader->anchors, name);
	if (node == NULL) {
		g_autofree char *shown = name == NULL ? g_strdup("?")
						      : text_escape(name, strlen(name), 40);
		return load_error(loader, loader->line, loader->column,
				  "alias '*%s' has no anchor before it", shown);
	}
	if (!node->done)
		return load_error(loader, loader->line, loader->column,
				  "alias '*%s' stands inside what it refers to", name);
	return add_node(loader, node, true);
}

static bool
on_start(Loader *loader, struct fy_event *event, YamlKind kind)
{
	YamlNode *node = node_new(loader->doc, kind, loader->line, loader->column);
	if (loader->depth == YAML_DEPTH_MAX)
		return load_error(loader, node->line, node->column, "nested deeper than %d",
				  YAML_DEPTH_MAX);
	if (!take_tag(loader, event, node) || !take_anchor(loader, event, node) ||
	    !add_node(loader, node, false))
		return false;
	loader->stack[loader->depth++] = (Frame){.node = node};
	return true;
}

/* ---- maps: duplicate keys and `<<` ---- */

static bool
is_merge_key(const YamlNode *key)
{
	return !key->quoted && strcmp(key->text, "<<") == 0;
}

static bool
merge_map(Loader *loader, YamlNode *map, GHashTable *seen, const YamlNode *from)
{
	if (from->kind != YAML_MAP)
		return load_error(loader, from->line, from->column,
				  "'<<' takes a map or a list of maps, this is %s",
				  yaml_kind_name(from->kind));
	for (unsigned i = 0; i < from->keys->len; i++) {
		YamlNode *key = from->keys->pdata[i];
		if (!check_count(loader, ++loader->merged, map->line, map->column))
			return false;
		if (!g_hash_table_add(seen, key->text))
			continue; /* what the map says itself, or an earlier merge, wins */
		g_ptr_array_add(map->keys, key);
		g_ptr_array_add(map->values, from->values->pdata[i]);
	}
	return true;
}

static bool
apply_merges(Loader *loader, YamlNode *map, GHashTable *seen, GPtrArray *merges)
{
	for (unsigned i = 0; i < merges->len; i++) {
		YamlNode *from = merges->pdata[i];
		if (from->kind != YAML_LIST) {
			if (!merge_map(loader, map, seen, from))
				return false;
			continue;
		}
		for (unsigned j = 0; j < from->values->len; j++)
			if (!merge_map(loader, map, seen, from->values->pdata[j]))
				return false;
	}
	return true;
}

static bool
finish_map(Loader *loader, YamlNode *map)
{
	g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
	g_autoptr(GPtrArray) merges = g_ptr_array_new();
	unsigned kept = 0;
	for (unsigned i = 0; i < map->keys->len; i++) {
		YamlNode *key = map->keys->pdata[i];
		if (is_merge_key(key)) {
			g_ptr_array_add(merges, map->values->pdata[i]);
			continue;
		}
		if (!g_hash_table_add(seen, key->text)) {
			g_autofree char *shown = text_escape(key->text, strlen(key->text), 60);
			return load_error(loader, key->line, key->column,
					  "key '%s' stands twice in this map", shown);
		}
		map->keys->pdata[kept] = key;
		map->values->pdata[kept++] = map->values->pdata[i];
	}
	g_ptr_array_set_size(map->keys, (int)kept);
	g_ptr_array_set_size(map->values, (int)kept);
	return apply_merges(loader, map, seen, merges);
}

static bool
on_end(Loader *loader)
{
	YamlNode *node = loader->stack[--loader->depth].node;
	if (node->kind == YAML_MAP && !finish_map(loader, node))
		return false;
	uint64_t size = 1 + (uint64_t)(node->kind == YAML_MAP ? node->keys->len : 0);
	for (unsigned i = 0; i < node->values->len; i++)
		size += ((YamlNode *)node->values->pdata[i])->size;
	node->size = (unsigned)MIN(size, (uint64_t)YAML_NODES_MAX + 1);
	node->done = true;
	return check_count(loader, node->size, node->line, node->column);
}

static bool
on_event(Loader *loader, struct fy_event *event)
{
	note_place(loader, event);
	switch (event->type) {
	case FYET_SCALAR:
		return on_scalar(loader, event);
	case FYET_ALIAS:
		return on_alias(loader, event);
	case FYET_SEQUENCE_START:
		return on_start(loader, event, YAML_LIST);
	case FYET_MAPPING_START:
		return on_start(loader, event, YAML_MAP);
	case FYET_SEQUENCE_END:
	case FYET_MAPPING_END:
		return on_end(loader);
	case FYET_DOCUMENT_START:
		if (loader->ended)
			return load_error(loader, loader->line, loader->column,
					  "a second document: one file holds one configuration");
		return true;
	case FYET_DOCUMENT_END:
		loader->ended = true;
		return true;
	default:
		return true;
	}
}

/* ---- libfyaml ---- */

static bool
library_error(Loader *loader, struct fy_diag *diag)
{
	void *state = NULL;
	const struct fy_diag_error *error = fy_diag_errors_iterate(diag, &state);
	if (error == NULL)
		return load_error(loader, MAX(loader->line, 1u), MAX(loader->column, 1u),
				  "this is not YAML");
	const char *text = error->msg == NULL ? "this is not YAML" : error->msg;
	g_autofree char *shown = text_escape(text, strlen(text), 300);
	return load_error(loader, (unsigned)MAX(error->line, 1), (unsigned)MAX(error->column, 1),
			  "%s", shown);
}

static bool
run_parser(Loader *loader, struct fy_parser *parser, struct fy_diag *diag)
{
	for (;;) {
		struct fy_event *event = fy_parser_parse(parser);
		if (event == NULL)
			break;
		bool end = event->type == FYET_STREAM_END;
		bool ok = on_event(loader, event);
		fy_parser_event_free(parser, event);
		if (!ok)
			return false;
		if (end)
			return true;
	}
	return library_error(loader, diag);
}

static void
no_output(struct fy_diag *diag, void *user, const char *text, size_t len)
{
	(void)diag;
	(void)user;
	(void)text;
	(void)len;
}

static bool
parse_text(Loader *loader, const char *text, size_t len)
{
	struct fy_diag_cfg diag_cfg;
	fy_diag_cfg_default(&diag_cfg);
	diag_cfg.fp = NULL;
	diag_cfg.output_fn = no_output;
	diag_cfg.level = FYET_ERROR;
	struct fy_diag *diag = fy_diag_create(&diag_cfg);
	if (diag == NULL)
		return error_set(loader->ret_error, K_ERROR_CONFIG, "%s: no YAML parser",
				 loader->doc->name);
	fy_diag_set_collect_errors(diag, true);
	struct fy_parse_cfg cfg = {
		.flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG | FYPCF_JSON_NONE,
		.diag = diag,
	};
	struct fy_parser *parser = fy_parser_create(&cfg);
	loader->text = text;
	loader->len = len;
	bool ok;
	if (parser == NULL || fy_parser_set_string(parser, text, len) != 0)
		ok = error_set(loader->ret_error, K_ERROR_CONFIG, "%s: no YAML parser",
			       loader->doc->name);
	else
		ok = run_parser(loader, parser, diag);
	if (parser != NULL)
		fy_parser_destroy(parser);
	fy_diag_destroy(diag);
	return ok;
}

/* Line and column (in bytes) of a place in the text. */
static void
place_of(const char *text, const char *at, unsigned *ret_line, unsigned *ret_column)
{
	unsigned line = 1;
	const char *start = text;
	for (const char *p = text; p < at; p++) {
		if (*p == '\n') {
			line++;
			start = p + 1;
		}
	}
	*ret_line = line;
	*ret_column = (unsigned)(at - start) + 1;
}

static bool
check_bytes(Loader *loader, const char *text, size_t len)
{
	if (len > YAML_SIZE_MAX)
		return error_set(loader->ret_error, K_ERROR_CONFIG, "%s:1:1: larger than %d bytes",
				 loader->doc->name, YAML_SIZE_MAX);
	const char *bad;
	if (g_utf8_validate_len(text, len, &bad))
		return true;
	unsigned line, column;
	place_of(text, bad, &line, &column);
	return load_error(loader, line, column, *bad == '\0' ? "a NUL byte" : "not UTF-8");
}

static YamlDoc *
load_bytes(const char *name, const char *text, size_t len, GError **ret_error)
{
	g_autoptr(YamlDoc) doc = g_new0(YamlDoc, 1);
	doc->name = g_strdup(name);
	doc->nodes = g_ptr_array_new_with_free_func(node_free);
	Loader loader = {.doc = doc, .ret_error = ret_error};
	if (!check_bytes(&loader, text, len))
		return NULL;
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		text += 3;
		len -= 3;
	}
	loader.anchors = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	bool ok = len == 0 || parse_text(&loader, text, len);
	g_hash_table_unref(loader.anchors);
	if (!ok)
		return NULL;
	if (doc->root == NULL)
		doc->root = node_new(doc, YAML_NULL, 1, 1);
	return g_steal_pointer(&doc);
}

YamlDoc *
yaml_load_text(const char *name, const char *text, GError **ret_error)
{
	return load_bytes(name, text, strlen(text), ret_error);
}

/* At most one byte more than allowed, so that "too large" is noticed without reading it all. */
static bool
read_file(int fd, GString *into)
{
	char chunk[16384];
	while (into->len <= YAML_SIZE_MAX) {
		ssize_t got = read(fd, chunk, MIN(sizeof(chunk), YAML_SIZE_MAX + 1 - into->len));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return false;
		if (got == 0)
			return true;
		g_string_append_len(into, chunk, got);
	}
	return true;
}

YamlDoc *
yaml_load_file(const char *path, GError **ret_error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		error_set_errno(ret_error, K_ERROR_CONFIG, errno, "%s: cannot open", path);
		return NULL;
	}
	g_autoptr(GString) text = g_string_new(NULL);
	bool ok = read_file(fd, text);
	int saved = errno;
	close(fd);
	if (!ok) {
		error_set_errno(ret_error, K_ERROR_CONFIG, saved, "%s: cannot read", path);
		return NULL;
	}
	return load_bytes(path, text->str, text->len, ret_error);
}
