/* SPDX-License-Identifier: Apache-2.0 */
/* Lists for consumers that do not want the tree (spec 16): what to show, what belongs to it, what
 * is attached. */
#include <string.h>

#include "mime/parse_int.h"

typedef struct Lists {
	json_t *text, *related, *files;
} Lists;

static const MimeNode *
child(const MimeNode *node, guint index)
{
	return (const MimeNode *)g_ptr_array_index(node->children, index);
}

static const json_t *
child_json(const json_t *json, guint index)
{
	return json_array_get(json_object_get(json, "parts"), index);
}

static bool
is_container(const MimeNode *node, const char *type)
{
	return node->kind == MIME_MULTIPART && node->children->len > 0 &&
	       strcmp(node->type.value, type) == 0;
}

static bool
is_leaf(const MimeNode *node, const char *type)
{
	return node->kind == MIME_LEAF && strcmp(node->type.value, type) == 0;
}

/* The file name of an attachment or the content id, whichever field comes first. */
static void
add_label(const MimeNode *node, json_t *item)
{
	for (size_t i = 0; i < node->header.n_fields; i++) {
		const MimeField *f = &node->header.fields[i];
		if (mime_field_is(f, "content-id")) {
			g_autofree char *text = mime_field_unfold(f);
			g_autofree char *decoded = mime_decode_text(text);
			json_object_set_new(item, "content_id", json_string(decoded));
			return;
		}
		if (!mime_field_is(f, "content-disposition"))
			continue;
		g_autofree char *text = mime_field_unfold(f);
		MimeValue value;
		mime_value_parse(text, false, &value);
		const char *name = mime_value_param(&value, "filename");
		bool labelled = strcmp(value.value, "attachment") == 0 && name != NULL;
		if (labelled)
			json_object_set_new(item, "filename", json_string(name));
		mime_value_clear(&value);
		if (labelled)
			return;
	}
}

static void
add_item(json_t *list, const MimeNode *node, const json_t *json)
{
	json_t *item = json_object();
	json_object_set(item, "content_type", json_object_get(json, "content_type"));
	add_label(node, item);
	json_t *content = json_object_get(json, "content");
	if (content != NULL) /* the same blob, an object of its own */
		json_object_set_new(item, "content", json_copy(content));
	json_array_append_new(list, item);
}

static void
add_rest(json_t *list, const MimeNode *node, const json_t *json)
{
	for (guint i = 1; i < node->children->len; i++)
		add_item(list, child(node, i), child_json(json, i));
}

static void flatten_text(const MimeNode *node, const json_t *json, Lists *lists);

/* text/plain first, then the rich ones. */
static void
flatten_alternative(const MimeNode *node, const json_t *json, Lists *lists)
{
	for (guint i = 0; i < node->children->len; i++)
		if (is_leaf(child(node, i), "text/plain"))
			add_item(lists->text, child(node, i), child_json(json, i));
	for (guint i = 0; i < node->children->len; i++) {
		const MimeNode *c = child(node, i);
		if (is_leaf(c, "text/html") || is_container(c, "multipart/related"))
			flatten_text(c, child_json(json, i), lists);
	}
}

/* Recursion is capped by the depth of the tree. */
static void
flatten_text(const MimeNode *node, const json_t *json, Lists *lists)
{
	if (is_container(node, "multipart/signed")) {
		flatten_text(child(node, 0), child_json(json, 0), lists);
	} else if (is_container(node, "multipart/mixed")) {
		flatten_text(child(node, 0), child_json(json, 0), lists);
		add_rest(lists->files, node, json);
	} else if (is_container(node, "multipart/related")) {
		flatten_text(child(node, 0), child_json(json, 0), lists);
		add_rest(lists->related, node, json);
	} else if (is_container(node, "multipart/alternative")) {
		flatten_alternative(node, json, lists);
	} else if (is_leaf(node, "text/plain") || is_leaf(node, "text/html")) {
		add_item(lists->text, node, json);
	} else if (node->parent != NULL && is_container(node->parent, "multipart/mixed")) {
		add_item(lists->files, node, json); /* a message that begins with a file */
	}
}

static void
give(json_t *out, const char *name, json_t *list)
{
	if (json_array_size(list) > 0)
		json_object_set(out, name, list);
	json_decref(list);
}

void
mime_parse_flatten(const MimeNode *root, const json_t *json, json_t *out)
{
	Lists lists = {json_array(), json_array(), json_array()};
	flatten_text(root, json, &lists);
	give(out, "text_body", lists.text);
	give(out, "related_attachments", lists.related);
	give(out, "file_attachments", lists.files);
}
