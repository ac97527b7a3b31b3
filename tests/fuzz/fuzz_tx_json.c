/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON of transactions in every direction: a request is refused and the transaction unchanged,
 * or what was taken prints; what the store would write is read back. */
#include "fuzz.h"

#include "base/json.h"
#include "tx/codec.h"

static void
check_create(const json_t *json)
{
	g_autoptr(Tx) tx = tx_new(NULL);
	TxRequest request = {0};
	g_autoptr(GError) error = NULL;
	if (!tx_from_json(tx, json, TX_JSON_CREATE, &request, &error)) {
		k_assert(error != NULL);
		return;
	}
	const TxUris uris = {"http://a.example.com", "http://b.example.com"};
	g_autoptr(json_t) read = tx_to_json(tx, TX_JSON_READ, NULL, &uris);
	k_assert(read != NULL);
	g_autoptr(json_t) stored = tx_to_json(tx, TX_JSON_STORE, NULL, NULL);
	g_autoptr(Tx) back = tx_new(NULL);
	g_autoptr(GError) second = NULL;
	k_assert(tx_from_json(back, stored, TX_JSON_STORE, NULL, &second));
	g_autoptr(json_t) again = tx_to_json(back, TX_JSON_STORE, NULL, NULL);
	k_assert(json_equal(stored, again));
	tx_request_clear(&request);
}

static void
check_others(const json_t *json)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(Tx) tx = tx_new(NULL);
	if (tx_update_check(tx, json, &error))
		(void)!tx_from_json(tx, json, TX_JSON_UPDATE, NULL, NULL);
	g_autoptr(Tx) attempt = tx_new(NULL);
	(void)!tx_attempt_from_json(attempt, json, NULL);
	g_autoptr(Tx) merged = tx_new(NULL);
	(void)!tx_merge_read(merged, json, NULL);
	Response *response = response_from_json(json);
	response_unref(response);
	g_autoptr(GPtrArray) uris = tx_builder_reuse_uris(json);
	k_assert(uris != NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	g_autofree char *text = fuzz_string(data, size);
	char *id = NULL, *blob = NULL;
	if (tx_parse_blob_uri(text, &id, &blob)) {
		k_assert(id[0] != '\0');
		g_free(id);
		g_free(blob);
	}
	g_autoptr(json_t) json = json_parse("fuzz", (const char *)data, size, NULL);
	if (json == NULL)
		return 0;
	check_create(json);
	check_others(json);
	return 0;
}
