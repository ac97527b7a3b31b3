/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "service/row.h"
#include "tx/codec.h"

static Tx *
make_tx(DeferQueue *queue)
{
	Tx *tx = tx_new(queue);
	const EsmtpParam size = {(char *)"SIZE", (char *)"276"};
	g_autoptr(Mailbox) from = mailbox_new("a@example.com", &size, 1);
	g_autoptr(Mailbox) to = mailbox_new("b@example.net", NULL, 0);
	g_autoptr(HostPort) remote = host_port_new("192.0.2.1", 4711);
	tx_set_id(tx, "AAsome-transaction-id-0123456789");
	tx_set_sender(tx, "submission", "smtp-msa");
	tx_set_hosts(tx, remote, NULL);
	tx_set_mail_from(tx, from);
	tx_add_rcpt(tx, to);
	tx_enable_retry(tx, NULL);
	tx_begin_attempt(tx);
	return tx;
}

static void
test_round_trip(void **state)
{
	(void)state;
	DeferQueue queue = {0};
	g_autoptr(Tx) tx = make_tx(&queue);
	g_autoptr(Blob) blob = blob_new_bytes("hello\r\n", 7);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	tx_set_body(tx, body);
	tx_answer_mail(tx, response_new(250, "ok"));
	tx_answer_rcpt(tx, 0, response_new(450, "4.2.1 later"));
	g_autoptr(StoreRow) row = row_from_tx(tx, NULL);
	assert_string_equal(row->mail_from, "a@example.com");
	assert_string_equal(row->rcpt, "b@example.net");
	assert_null(row->final_reason);

	GError *error = NULL;
	g_autoptr(Tx) back = tx_new(&queue);
	assert_true(row_to_tx(row, back, &error));
	assert_string_equal(back->id, tx->id);
	assert_string_equal(back->sender_name, "submission");
	assert_string_equal(back->sender_tag, "smtp-msa");
	assert_true(mailbox_equal(back->mail_from, tx->mail_from));
	assert_int_equal(tx_rcpt_count(back), 1);
	assert_int_equal(tx_rcpt(back, 0)->response->code, 450);
	assert_int_equal(back->attempt_count, 1);
	assert_non_null(back->retry);
	assert_true(back->version >= row->version);
	assert_true(tx_body_ready(back));
	assert_int_equal(tx_body_len(back->body), 7);
	while (!defer_run(&queue, 10))
		;
}

/* Each attempt leaves its word in the row, whatever the next ones bring; the newest are kept. */
static void
test_former_attempts(void **state)
{
	(void)state;
	DeferQueue queue = {0};
	static const char euros[] = "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac";
	g_autoptr(GString) text = g_string_new("4.2.1 ");
	while (text->len < ROW_FORMER_TEXT_MAX * 2)
		g_string_append(text, euros);
	g_autoptr(StoreRow) row = NULL;
	for (int attempt = 1; attempt <= ROW_FORMER_MAX + 2; attempt++) {
		json_t *former = row != NULL ? row_former(row) : NULL;
		size_t want = (size_t)MIN(attempt - 1, ROW_FORMER_MAX);
		assert_int_equal(json_array_size(former), want);
		for (size_t i = 0; i < want; i++) {
			const json_t *entry = json_array_get(former, i);
			int number = (int)json_integer_value(json_object_get(entry, "attempt"));
			assert_int_equal(number, attempt - (int)(want - i));
			assert_int_equal(json_integer_value(json_object_get(entry, "code")),
					 number == 1 ? 0 : 450);
			assert_int_equal(json_integer_value(json_object_get(entry, "ended")),
					 1000 + number);
			size_t len = json_string_length(json_object_get(entry, "message"));
			assert_true(len <= ROW_FORMER_TEXT_MAX);
			assert_true(number == 1 ? len == 0 : len > ROW_FORMER_TEXT_MAX - 4);
		}
		g_autoptr(Tx) tx = tx_new(&queue);
		if (row == NULL)
			g_clear_pointer(&tx, tx_unref);
		else
			assert_true(row_to_tx(row, tx, NULL));
		if (tx == NULL)
			tx = make_tx(&queue);
		else
			tx_begin_attempt(tx);
		assert_int_equal(tx->attempt_count, attempt);
		if (attempt > 1) {
			tx_answer_mail(tx, response_new(250, "ok"));
			tx_answer_rcpt(tx, 0, response_new(450, text->str));
		}
		g_autoptr(StoreRow) update = row_update_from_tx(tx, former, NULL);
		json_decref(former);
		if (row == NULL)
			row = row_from_tx(tx, NULL);
		g_free(row->responses);
		row->responses = g_steal_pointer(&update->responses);
		row->attempts = update->attempts;
		row->last_update = 1000 + attempt;
		while (!defer_run(&queue, 10))
			;
	}
	g_free(row->responses);
	row->responses = g_strdup("nonsense");
	assert_null(row_former(row));
}

static void
test_why(void **state)
{
	(void)state;
	DeferQueue queue = {0};
	g_autoptr(Tx) tx = make_tx(&queue);
	g_autoptr(StoreRow) without = row_from_tx(tx, NULL);
	assert_null(row_why(without));
	g_autoptr(json_t) former = json_pack("[{s:i}]", "attempt", 1);
	g_autoptr(StoreRow) row = row_from_tx(tx, "{\"chain\":\"c\"}");
	g_autoptr(StoreRow) update = row_update_from_tx(tx, former, "{\"chain\":\"d\"}");
	g_autoptr(json_t) why = row_why(row);
	g_autoptr(json_t) newer = row_why(update);
	assert_string_equal(json_get_str(why, "chain"), "c");
	assert_string_equal(json_get_str(newer, "chain"), "d");
	/* It is nothing of the transaction's. */
	g_autoptr(Tx) back = tx_new(&queue);
	assert_true(row_to_tx(row, back, NULL));
	while (!defer_run(&queue, 10))
		;
}

static void
test_oneshot_is_not_shown(void **state)
{
	(void)state;
	DeferQueue queue = {0};
	g_autoptr(Tx) tx = make_tx(&queue);
	g_autoptr(StoreRow) row = row_from_tx(tx, NULL);
	row->final_reason = g_strdup(ROW_ONESHOT);
	g_autoptr(Tx) back = tx_new(&queue);
	assert_true(row_to_tx(row, back, NULL));
	assert_null(back->final_attempt_reason);
	while (!defer_run(&queue, 10))
		;
}

static void
test_damaged_rows(void **state)
{
	(void)state;
	static const struct {
		const char *name, *json, *responses, *builder;
	} cases[] = {
		{"no requests", NULL, NULL, NULL},
		{"requests are no JSON", "{", NULL, NULL},
		{"requests are no object", "[]", NULL, NULL},
		{"unknown key", "{\"nonsense\": 1}", NULL, NULL},
		{"answers are no JSON", "{}", "nope", NULL},
		{"builder is no JSON", "{}", NULL, "{\"headers\":"},
		{"builder is no object", "{}", NULL, "[]"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		DeferQueue queue = {0};
		g_autoptr(StoreRow) row = store_row_new();
		row->id = g_strdup("AAx");
		row->sender = g_strdup("s");
		row->json = g_strdup(cases[i].json);
		row->responses = g_strdup(cases[i].responses);
		row->builder = g_strdup(cases[i].builder);
		g_autoptr(Tx) tx = tx_new(&queue);
		g_autoptr(GError) error = NULL;
		if (row_to_tx(row, tx, &error) || error == NULL)
			fail_msg("%s: taken", cases[i].name);
		while (!defer_run(&queue, 10))
			;
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),           cmocka_unit_test(test_former_attempts),
		cmocka_unit_test(test_oneshot_is_not_shown), cmocka_unit_test(test_why),
		cmocka_unit_test(test_damaged_rows),
	};
	return cmocka_run_group_tests_name("service-row", tests, NULL, NULL);
}
