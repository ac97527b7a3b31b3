/* SPDX-License-Identifier: Apache-2.0 */
/* One line at a time:
 *
 *   HEADER  lines of cur's header            -> BODY at the empty line or at a line that is none
 *   BODY    cur is a leaf: skip; cur is a multipart: preamble or epilogue, skip;
 *           message/rfc822 opens a child in HEADER at once
 *   any     a boundary line of cur or of an ancestor, innermost first, ends everything inside it
 *           and opens the next part in HEADER, or, with "--", begins its epilogue
 *
 * So the open nodes are always the path from the root to cur. */
#include "mime/tree.h"

#include <string.h>

#include "base/text.h"
#include "mime/reader.h"

typedef struct Walk {
	MimeTree *tree;
	MimeNode *cur;
	unsigned max_depth;
	bool in_header;
	bool skip_header;    /* the block is full: the rest of it is passed over */
	bool after_boundary; /* repeated boundary lines make no part */
	size_t header_bytes;
	uint64_t
		text_end; /* where the last line's text ended: its line end belongs to a boundary */
} Walk;

static void
node_free(gpointer data)
{
	MimeNode *n = (MimeNode *)data;
	if (n->children != NULL)
		g_ptr_array_unref(n->children); /* depth is capped, so is the recursion */
	mime_header_clear(&n->header);
	mime_value_clear(&n->type);
	if (n->block != NULL)
		g_string_free(n->block, TRUE);
	g_free(n->boundary);
	g_free(n);
}

void
mime_tree_free(MimeTree *tree)
{
	if (tree == NULL)
		return;
	if (tree->root != NULL)
		node_free(tree->root);
	g_free(tree);
}

static MimeNode *
open_node(Walk *w, MimeNode *parent, uint64_t at)
{
	MimeNode *n = g_new0(MimeNode, 1);
	n->parent = parent;
	n->block = g_string_new(NULL);
	n->depth = parent != NULL ? parent->depth + 1 : 0;
	n->body_at = at;
	if (parent != NULL)
		g_ptr_array_add(parent->children, n);
	else
		w->tree->root = n;
	w->tree->parts++;
	w->cur = n;
	w->in_header = true;
	w->skip_header = false;
	return n;
}

MimeEncoding
mime_encoding_of(const MimeHeader *header)
{
	const MimeField *f = mime_header_find(header, "content-transfer-encoding", NULL);
	if (f == NULL)
		return MIME_IDENTITY;
	g_autofree char *text = mime_field_unfold(f);
	MimeValue v;
	mime_value_parse(text, false, &v);
	MimeEncoding e = MIME_IDENTITY;
	if (strcmp(v.value, "base64") == 0)
		e = MIME_BASE64;
	else if (strcmp(v.value, "quoted-printable") == 0)
		e = MIME_QUOTED_PRINTABLE;
	mime_value_clear(&v);
	return e;
}

static void
read_type(MimeNode *n)
{
	const MimeField *f = mime_header_find(&n->header, "content-type", NULL);
	bool digest = n->parent != NULL && strcmp(n->parent->type.value, "multipart/digest") == 0;
	g_autofree char *text = f != NULL ? mime_field_unfold(f) : NULL;
	mime_value_parse(f != NULL ? text : "text/plain", true, &n->type);
	if (n->type.fault != NULL)
		n->defects |= MIME_DEFECT_CONTENT_TYPE;
	if (f == NULL && digest) {
		g_free(n->type.value);
		n->type.value = g_strdup("message/rfc822");
	} else if (*n->type.value == '\0') {
		g_free(n->type.value);
		n->type.value = g_strdup("text/plain");
	}
}

/* Encodings that containers may have (RFC 2046 5); unknown ones change nothing. */
static bool
is_plain_encoding(const MimeHeader *header)
{
	const MimeField *f = mime_header_find(header, "content-transfer-encoding", NULL);
	if (f == NULL)
		return true;
	g_autofree char *text = mime_field_unfold(f);
	return text_equal_nocase(text, "7bit") || text_equal_nocase(text, "8bit") ||
	       text_equal_nocase(text, "binary");
}

static void
decide_multipart(Walk *w, MimeNode *n)
{
	if (!is_plain_encoding(&n->header))
		n->defects |= MIME_DEFECT_ENCODED;
	const char *boundary = mime_value_param(&n->type, "boundary");
	size_t len = boundary != NULL ? strlen(boundary) : 0;
	while (len > 0 && boundary[len - 1] == ' ')
		len--;
	if (len == 0 || len > MIME_BOUNDARY_MAX) {
		n->defects |= MIME_DEFECT_NO_BOUNDARY;
		return;
	}
	if (n->depth > w->max_depth) {
		n->defects |= MIME_DEFECT_TOO_DEEP;
		return;
	}
	n->boundary = g_strndup(boundary, len);
	n->kind = MIME_MULTIPART;
	n->children = g_ptr_array_new_with_free_func(node_free);
}

static void
decide_message(Walk *w, MimeNode *n)
{
	if (n->encoding == MIME_BASE64)
		n->defects |= MIME_DEFECT_ENCODED;
	if (n->encoding != MIME_IDENTITY)
		return;
	if (n->depth > w->max_depth) {
		n->defects |= MIME_DEFECT_TOO_DEEP;
	} else if (w->tree->parts >= MIME_PARTS_MAX) {
		n->defects |= MIME_DEFECT_TOO_MANY;
	} else {
		n->kind = MIME_MESSAGE;
		n->children = g_ptr_array_new_with_free_func(node_free);
	}
}

/* The header of cur is complete; its body begins at `at`. */
static void
end_header(Walk *w, uint64_t at)
{
	MimeNode *n = w->cur;
	w->in_header = false;
	if (mime_header_scan_lenient(n->block->str, n->block->len, &n->header) != MIME_HEADER_OK ||
	    n->header.misplaced)
		n->defects |= MIME_DEFECT_HEADER;
	n->body_at = at;
	read_type(n);
	n->encoding = mime_encoding_of(&n->header);
	if (g_str_has_prefix(n->type.value, "multipart/")) {
		decide_multipart(w, n);
	} else if (strcmp(n->type.value, "message/rfc822") == 0 ||
		   strcmp(n->type.value, "message/global") == 0) {
		decide_message(w, n);
		if (n->kind == MIME_MESSAGE)
			open_node(w, n, at);
	}
}

/* False when the line is no header line: the header ended in front of it. */
static bool
header_line(Walk *w, const MimeLine *line)
{
	MimeNode *n = w->cur;
	if (line->starts && line->text == 0) {
		end_header(w, line->at + line->len);
		return true;
	}
	if (line->starts && !mime_header_line_ok(line->data, line->text)) {
		n->defects |= MIME_DEFECT_HEADER;
		end_header(w, line->at);
		return false;
	}
	if (w->skip_header || n->block->len + line->len > MIME_HEADER_BLOCK_MAX ||
	    w->header_bytes + line->len > MIME_HEADERS_MAX) {
		n->defects |= MIME_DEFECT_HEADER;
		w->skip_header = true;
		return true;
	}
	g_string_append_len(n->block, line->data, (gssize)line->len);
	w->header_bytes += line->len;
	return true;
}

typedef enum Match { NO_MATCH, MATCH_PART, MATCH_CLOSE } Match;

static Match
match_boundary(const char *line, size_t text, const char *boundary)
{
	size_t len = strlen(boundary);
	if (text < len + 2 || memcmp(line + 2, boundary, len) != 0)
		return NO_MATCH;
	const char *rest = line + 2 + len;
	size_t left = text - 2 - len;
	Match match = MATCH_PART;
	if (left >= 2 && rest[0] == '-' && rest[1] == '-') {
		match = MATCH_CLOSE;
		rest += 2;
		left -= 2;
	}
	while (left > 0 && (*rest == ' ' || *rest == '\t')) {
		rest++;
		left--;
	}
	return left == 0 ? match : NO_MATCH;
}

static void
close_node(Walk *w, uint64_t end)
{
	MimeNode *n = w->cur;
	n->body_len = end > n->body_at ? end - n->body_at : 0;
	if (n->kind == MIME_MULTIPART && n->children->len == 0)
		n->defects |= MIME_DEFECT_NO_START;
	if (n->kind == MIME_MULTIPART && n->bounds != MIME_EPILOGUE)
		n->defects |= MIME_DEFECT_NO_CLOSE;
	w->tree->defects |= n->defects;
	w->cur = n->parent;
}

/* Ends the open nodes below `owner` (NULL: all); their bodies end at `end`. */
static void
close_below(Walk *w, const MimeNode *owner, uint64_t end, uint64_t header_end)
{
	if (w->cur == owner)
		return;
	while (w->in_header) /* twice when a nested message begins and ends here */
		end_header(w, header_end);
	while (w->cur != owner)
		close_node(w, end);
}

/* A boundary line of an open multipart?  Handles it then. */
static bool
boundary_line(Walk *w, const MimeLine *line)
{
	if (!line->starts || line->text < 3 || line->data[0] != '-' || line->data[1] != '-')
		return false;
	MimeNode *owner = w->cur;
	Match match = NO_MATCH;
	for (; owner != NULL; owner = owner->parent) {
		if (owner->boundary == NULL || owner->bounds == MIME_EPILOGUE)
			continue;
		match = match_boundary(line->data, line->text, owner->boundary);
		if (match != NO_MATCH)
			break;
	}
	if (owner == NULL)
		return false;
	if (match == MATCH_PART && w->after_boundary && w->in_header && w->cur->parent == owner) {
		w->cur->body_at = line->at + line->len;
		return true;
	}
	close_below(w, owner, w->text_end, line->at);
	if (match == MATCH_CLOSE) {
		owner->bounds = MIME_EPILOGUE;
	} else if (w->tree->parts >= MIME_PARTS_MAX || w->header_bytes >= MIME_HEADERS_MAX) {
		owner->defects |= MIME_DEFECT_TOO_MANY; /* the rest belongs to no part */
	} else {
		owner->bounds = MIME_IN_PARTS;
		open_node(w, owner, line->at + line->len);
	}
	return true;
}

static void
take_line(Walk *w, const MimeLine *line)
{
	bool boundary = boundary_line(w, line);
	/* A line that ends a header may belong to a message that begins there, or be the first
	 * boundary line of the multipart. */
	for (int i = 0; i < 3 && !boundary && w->in_header; i++) {
		if (header_line(w, line))
			break;
		boundary = boundary_line(w, line);
	}
	w->after_boundary = boundary;
	w->text_end = line->at + line->text;
}

MimeTree *
mime_tree_new(const Blob *blob, unsigned max_depth, GError **ret_error)
{
	Walk w = {.tree = g_new0(MimeTree, 1), .max_depth = max_depth};
	uint64_t end = blob_len(blob);
	MimeReader reader;
	MimeLine line;
	mime_reader_init(&reader, blob, 0, end);
	open_node(&w, NULL, 0);
	while (mime_reader_line(&reader, &line))
		take_line(&w, &line);
	close_below(&w, NULL, end, end);
	GError *error = g_steal_pointer(&reader.error);
	mime_reader_clear(&reader);
	if (error == NULL)
		return w.tree;
	mime_tree_free(w.tree);
	g_propagate_error(ret_error, error);
	return NULL;
}
