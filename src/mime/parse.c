/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/parse.h"

#include <string.h>

#include "base/json.h"
#include "mime/decode.h"
#include "mime/parse_int.h"
#include "mime/tree.h"

#define EMBEDDED_MAX (1024 * 1024) /* bytes of a leaf that is read as header blocks */
#define PARTS_MEMORY (1024 * 1024) /* bytes of small parts that stay in memory */

typedef struct Parse {
	Blob *raw;
	int64_t max_inline;
	uint64_t inlined;
	unsigned next_id;
	uint64_t held; /* bytes of parts in memory */
	Blob *pack;    /* one file for the small parts beyond PARTS_MEMORY, or NULL */
	TxBody *body;
	GError *error; /* set once: everything ends */
} Parse;

/* ---- leaves ---- */

/* Text as "inline", when there is room for it. */
static json_t *
inline_content(Parse *p, const Blob *blob)
{
	uint64_t len = blob_len(blob);
	if (p->max_inline <= 0 || p->inlined + len >= (uint64_t)p->max_inline)
		return NULL;
	size_t got;
	g_autofree char *text = blob_to_string(blob, len, &got, &p->error);
	/* NUL is not allowed in our JSON. */
	if (text == NULL || memchr(text, '\0', got) != NULL)
		return NULL;
	json_t *value = json_stringn(text, got);
	if (value == NULL)
		return NULL;
	p->inlined += len;
	json_t *content = json_object();
	json_object_set_new(content, "inline", value);
	return content;
}

/* Thousands of small parts are as much memory as one that is large, and a file for each would be
 * too many: beyond a bound they share one.  NULL: an error. */
static Blob *
pack(Parse *p, Blob *blob)
{
	const BlobLimits at_once = {.memory_max = 1};
	size_t len;
	const char *bytes = blob_peek(blob, 0, &len);
	if (bytes == NULL || len < blob_len(blob)) /* empty, or in a file of its own */
		return blob_ref(blob);
	p->held += len;
	if (p->held <= PARTS_MEMORY)
		return blob_ref(blob);
	if (p->pack == NULL)
		p->pack = blob_new(&at_once);
	uint64_t from = blob_len(p->pack);
	return blob_append(p->pack, bytes, len, &p->error) ? blob_new_range(p->pack, from, len)
							   : NULL;
}

static json_t *
blob_content(Parse *p, Blob *blob)
{
	g_autoptr(Blob) packed = pack(p, blob);
	if (packed == NULL)
		return NULL;
	g_autofree char *id = g_strdup_printf("%u", p->next_id++);
	tx_body_add_part(p->body, id, packed);
	json_t *content = json_object();
	json_object_set_new(content, "create_id", json_string(id));
	return content;
}

static json_t *
leaf_content(Parse *p, const MimeNode *leaf)
{
	bool text = g_str_has_prefix(leaf->type.value, "text/");
	const char *charset = mime_value_param(&leaf->type, "charset");
	if (text &&
	    (charset == NULL || *charset == '\0' || g_ascii_strcasecmp(charset, "us-ascii") == 0))
		charset = "utf-8"; /* which contains ASCII and mends what claims to be it */
	g_autoptr(Blob) blob = mime_decode_leaf(p->raw, leaf, text ? charset : NULL, &p->error);
	if (blob == NULL)
		return NULL;
	json_t *content = text ? inline_content(p, blob) : NULL;
	return content != NULL ? content : blob_content(p, blob);
}

/* ---- header blocks as content ---- */

/* The next header block of `text`; moves the cursor behind the empty line. */
static json_t *
block_json(const char **cursor, const char *end)
{
	MimeHeader h;
	/* A fault leaves the fields before it, which is all that is wanted. */
	MimeHeaderFault fault = mime_header_scan_lenient(*cursor, (size_t)(end - *cursor), &h);
	json_t *part = json_object();
	json_object_set_new(part, "headers", mime_parse_headers(&h));
	const char *p = *cursor + h.len;
	mime_header_clear(&h);
	if (fault != MIME_HEADER_OK) {
		p = end;
	} else {
		while (p < end && (*p == '\r' || *p == '\n'))
			p++;
	}
	*cursor = p;
	return part;
}

/* text/rfc822-headers: one block; message/delivery-status: all of them (RFC 3464 2.1). */
static json_t *
blocks_json(Parse *p, const MimeNode *leaf, bool all)
{
	if (leaf->body_len > EMBEDDED_MAX)
		return NULL;
	g_autoptr(Blob) blob = mime_decode_leaf(p->raw, leaf, NULL, &p->error);
	size_t len = 0;
	g_autofree char *text = blob != NULL ? blob_to_string(blob, EMBEDDED_MAX, &len, &p->error)
					     : NULL;
	if (text == NULL)
		return NULL;
	json_t *parts = json_array();
	const char *cursor = text;
	const char *end = text + len;
	while (cursor < end && (*cursor == '\r' || *cursor == '\n'))
		cursor++;
	while (cursor < end && json_array_size(parts) < (all ? MIME_HEADER_FIELDS_MAX : 1))
		json_array_append_new(parts, block_json(&cursor, end));
	return parts;
}

/* ---- the tree ---- */

static json_t *node_json(Parse *p, const MimeNode *node);

static json_t *
children_json(Parse *p, const MimeNode *node)
{
	json_t *parts = json_array();
	for (guint i = 0; i < node->children->len && p->error == NULL; i++)
		json_array_append_new(parts, node_json(p, (const MimeNode *)g_ptr_array_index(
								  node->children, i)));
	return parts;
}

/* Recursion is capped by the depth of the tree. */
static json_t *
node_json(Parse *p, const MimeNode *node)
{
	const char *type = node->type.value;
	json_t *out = json_object();
	json_object_set_new(out, "headers", mime_parse_headers(&node->header));
	json_object_set_new(out, "content_type", json_string(type));
	json_t *parts = NULL;
	if (node->kind != MIME_LEAF && node->children->len > 0)
		parts = children_json(p, node);
	else if (node->kind == MIME_LEAF && strcmp(type, "message/delivery-status") == 0)
		parts = blocks_json(p, node, true);
	else if (node->kind == MIME_LEAF && strcmp(type, "text/rfc822-headers") == 0)
		parts = blocks_json(p, node, false);
	json_t *content = parts == NULL && p->error == NULL ? leaf_content(p, node) : NULL;
	if (parts != NULL)
		json_object_set_new(out, "parts", parts);
	else if (content != NULL)
		json_object_set_new(out, "content", content);
	return out;
}

TxBody *
mime_parse(Blob *raw, const MimeParseOptions *options, GError **ret_error)
{
	g_autoptr(MimeTree) tree = mime_tree_new(raw, MIME_PARSE_DEPTH_MAX, ret_error);
	if (tree == NULL)
		return NULL;
	g_autoptr(json_t) builder = json_object();
	Parse p = {.raw = raw, .max_inline = options->max_inline};
	p.body = tx_body_new_builder(builder, raw);
	json_t *root = node_json(&p, tree->root);
	json_object_set_new(builder, "parts", root);
	if (p.pack != NULL)
		blob_finalize(p.pack);
	blob_unref(p.pack);
	if (p.error != NULL) {
		g_propagate_error(ret_error, p.error);
		tx_body_unref(p.body);
		return NULL;
	}
	mime_parse_flatten(tree->root, root, builder);
	return p.body;
}
