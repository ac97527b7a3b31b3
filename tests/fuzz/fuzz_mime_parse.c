/* SPDX-License-Identifier: Apache-2.0 */
/* Whole messages: the parts' byte ranges lie inside each other in order and apart; what is parsed
 * is JSON whose blob ids all exist; a verdict is always given, and the same one however the bytes
 * lie in memory. */
#include "fuzz.h"

#include "base/json.h"
#include "mime/mime.h"
#include "mime/parse.h"
#include "mime/tree.h"
#include "mime/validate.h"

#define DEPTH_MAX 5

static void
check_node(const MimeNode *node, uint64_t end)
{
	k_assert(node->depth <= DEPTH_MAX + 1);
	k_assert(node->body_at + node->body_len <= end);
	uint64_t at = node->body_at;
	for (guint i = 0; node->children != NULL && i < node->children->len; i++) {
		const MimeNode *child = (const MimeNode *)g_ptr_array_index(node->children, i);
		k_assert(child->parent == node && child->body_at >= at);
		at = child->body_at + child->body_len;
		check_node(child, MAX(node->body_at + node->body_len, child->body_at));
	}
}

static void
check_ids(const TxBody *body, const json_t *value)
{
	size_t i;
	json_t *item;
	const char *key;
	const char *id = json_get_str(value, "create_id");
	/* Fields of the message are arrays, so "create_id" is always a content of ours. */
	if (id != NULL)
		k_assert(tx_body_part(body, id) != NULL);
	json_array_foreach(value, i, item) check_ids(body, item);
	json_object_foreach((json_t *)(uintptr_t)value, key, item)
	{
		if (strcmp(key, "headers") != 0)
			check_ids(body, item);
	}
}

static void
check_parse(Blob *blob, unsigned choice)
{
	const MimeParseOptions options = {.max_inline = choice % 7 * 10};
	g_autoptr(TxBody) body = mime_parse(blob, &options, NULL);
	k_assert(body != NULL && tx_body_is_final(body));
	check_ids(body, body->builder);
	g_autofree char *text = json_print(body->builder);
	g_autoptr(json_t) back = json_parse("printed", text, strlen(text), NULL);
	k_assert(back != NULL);
}

static void
check_verdict(const Blob *one, const Blob *two, bool smtputf8)
{
	const MimeValidateOptions options = {.smtputf8 = smtputf8, .nesting_max = DEPTH_MAX};
	MimeVerdict a, b;
	k_assert(mime_validate(one, &options, &a, NULL));
	k_assert(mime_validate(two, &options, &b, NULL));
	k_assert(a.status == b.status && a.received == b.received && a.counted == b.counted);
	k_assert((a.status == MIME_VALID_HIGH) == (a.err == NULL));
	mime_verdict_clear(&a);
	mime_verdict_clear(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	mime_init();
	unsigned choice = fuzz_take_byte(&data, &size);
	size_t cut = size * choice / 256;
	g_autoptr(Blob) whole = blob_new_bytes(data, size);
	g_autoptr(Blob) rest = blob_new_bytes(data + cut, size - cut);
	g_autoptr(Blob) split = blob_new_prefixed(data, cut, rest);
	g_autoptr(MimeTree) tree = mime_tree_new(split, DEPTH_MAX, NULL);
	k_assert(tree != NULL);
	check_node(tree->root, size);
	check_parse(split, choice);
	check_verdict(whole, split, (choice & 1) != 0);
	char *from = mime_from_address(split);
	g_free(from);
	return 0;
}
