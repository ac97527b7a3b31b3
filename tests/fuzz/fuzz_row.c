/* SPDX-License-Identifier: Apache-2.0 */
/* What the database hands back as a row, whatever has become of it there: it is refused with an
 * error, or the transaction made of it is as good as any: it prints, and the row made of it is read
 * back as the same transaction.
 *
 * An input is fields that NUL bytes end: requests, answers, message builder, final reason, sender,
 * tag, then the names of parts; an empty one stands for NULL.  A first byte says how often it was
 * tried and whether there is a body. */
#include "fuzz.h"

#include "base/json.h"
#include "service/row.h"
#include "tx/codec.h"

#define PARTS_MAX 8

typedef struct Input {
	const uint8_t *data;
	size_t size;
} Input;

static char *
take_field(Input *input)
{
	const uint8_t *end = input->size > 0 ? memchr(input->data, 0, input->size) : NULL;
	size_t len = end != NULL ? (size_t)(end - input->data) : input->size;
	char *field = len > 0 ? g_strndup((const char *)input->data, len) : NULL;
	size_t used = len + (end != NULL ? 1 : 0);
	if (used > 0)
		input->data += used;
	input->size -= used;
	return field;
}

static StoreRow *
take_row(Input *input)
{
	StoreRow *row = store_row_new();
	unsigned flags = fuzz_take_byte(&input->data, &input->size);
	char **const texts[] = {&row->json,         &row->responses, &row->builder,
				&row->final_reason, &row->sender,    &row->tag};
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
		*texts[i] = take_field(input);
	row->id = g_strdup("AAfuzz");
	row->attempts = (int)(flags >> 1);
	row->version = flags;
	g_autoptr(Blob) blob = blob_new_bytes("Subject: x\r\n\r\ny\r\n", 17);
	if ((flags & 1) != 0)
		store_row_add_blob(row, NULL, blob);
	for (unsigned i = 0; i < PARTS_MAX && input->size > 0; i++) {
		g_autofree char *name = take_field(input);
		if (name != NULL)
			store_row_add_blob(row, name, (flags & 2) != 0 ? blob : NULL);
	}
	return row;
}

static void
drop(Tx *tx, DeferQueue *queue)
{
	tx_unref(tx);
	while (!defer_run(queue, 100))
		;
}

static json_t *
shown(const Tx *tx)
{
	const TxUris uris = {"http://a.example.com", "http://b.example.com"};
	json_t *json = tx_to_json(tx, TX_JSON_READ, NULL, &uris);
	k_assert(json != NULL);
	return json;
}

static void
check_again(const Tx *tx, DeferQueue *queue)
{
	g_autoptr(StoreRow) row = row_from_tx(tx, NULL);
	Tx *back = tx_new(queue);
	g_autoptr(GError) error = NULL;
	k_assert_for(row_to_tx(row, back, &error), error != NULL ? error->message : "");
	g_autoptr(json_t) before = shown(tx);
	g_autoptr(json_t) after = shown(back);
	k_assert_for(json_equal(before, after), row->json);
	drop(back, queue);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Input input = {data, size};
	DeferQueue queue = {0};
	g_autoptr(StoreRow) row = take_row(&input);
	g_autoptr(json_t) former = row_former(row);
	k_assert(json_array_size(former) <= ROW_FORMER_MAX);
	Tx *tx = tx_new(&queue);
	g_autoptr(GError) error = NULL;
	bool ok = row_to_tx(row, tx, &error);
	k_assert(ok == (error == NULL));
	if (ok)
		check_again(tx, &queue);
	drop(tx, &queue);
	return 0;
}
