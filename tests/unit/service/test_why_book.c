/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "service/why_book.h"

static bool
has(WhyBook *book, const char *id)
{
	g_autofree char *text = why_book_get(book, id);
	return text != NULL;
}

static void
test_entries(void **state)
{
	(void)state;
	WhyBook *book = why_book_new(EXPLAIN_PROBLEMS);
	char id[32];
	for (int i = 0; i < WHY_BOOK_ENTRIES; i++) {
		g_snprintf(id, sizeof(id), "id%d", i);
		why_book_put(book, id, g_strdup("{}"));
	}
	assert_true(has(book, "id0"));
	why_book_put(book, "id0", g_strdup("[]")); /* the newest now */
	g_autofree char *again = why_book_get(book, "id0");
	assert_string_equal(again, "[]");
	assert_true(has(book, "id1"));
	why_book_put(book, "one more", g_strdup("{}"));
	assert_false(has(book, "id1"));
	assert_true(has(book, "id0"));
	assert_true(has(book, "id2"));
	assert_true(has(book, "one more"));
	assert_false(has(book, "unknown"));
	why_book_free(book);
	why_book_free(NULL);
}

static void
test_bytes(void **state)
{
	(void)state;
	WhyBook *book = why_book_new(EXPLAIN_PROBLEMS);
	char *half = g_strnfill(WHY_BOOK_BYTES / 2 - 1, 'x');
	why_book_put(book, "a", g_strdup(half));
	why_book_put(book, "b", g_strdup(half));
	assert_true(has(book, "a"));
	why_book_put(book, "c", g_strdup(""));
	assert_false(has(book, "a"));
	assert_true(has(book, "b"));
	g_free(half);
	why_book_free(book);
}

/* ---- which transactions, and how much of one ---- */

static FilterResult
talk(Filter *filter, unsigned news)
{
	const int *notes = filter->conf;
	for (int i = 0; (news & TX_NEW_MAIL_FROM) != 0 && i < *notes; i++) {
		g_autofree char *text = g_strnfill(WHY_TEXT_MAX, 'x');
		filter_note(filter, "%s", text);
	}
	return FILTER_CONTINUE;
}

static const FilterKind talk_kind = {.name = "talk", .update = talk};

/* The text of a chain with so many notes; `code`: the answer to MAIL. */
static char *
kept(WhyBook *book, int notes, int code)
{
	DeferQueue queue = {0};
	FilterConf filter = {.kind = &talk_kind, .conf = &notes};
	g_autoptr(GPtrArray) filters = g_ptr_array_new();
	g_ptr_array_add(filters, &filter);
	const ChainConf conf = {.name = (char *)"talk", .filters = filters};
	const FilterEnv env = {.explain = true};
	g_autoptr(Tx) tx = tx_new(&queue);
	g_autoptr(Mailbox) from = mailbox_new("a@b.example", NULL, 0);
	tx_set_id(tx, "id");
	tx_set_mail_from(tx, from);
	Chain *chain = chain_new(&conf, tx, &env);
	while (!defer_run(&queue, 10))
		;
	tx_answer_mail(tx, response_new(code, "text"));
	char *text = why_book_text(book, chain, tx);
	chain_free(chain);
	while (!defer_run(&queue, 10))
		;
	return text;
}

static void
test_modes(void **state)
{
	(void)state;
	static const struct {
		ExplainMode mode;
		int code;
		bool want;
	} cases[] = {
		{EXPLAIN_OFF, 550, false},     {EXPLAIN_PROBLEMS, 550, true},
		{EXPLAIN_PROBLEMS, 450, true}, {EXPLAIN_PROBLEMS, 250, false},
		{EXPLAIN_ALL, 250, true},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		WhyBook *book = why_book_new(cases[i].mode);
		g_autofree char *text = kept(book, 1, cases[i].code);
		assert_int_equal(text != NULL, cases[i].want);
		assert_int_equal(has(book, "id"), cases[i].want);
		why_book_free(book);
	}
}

static void
test_size(void **state)
{
	(void)state;
	WhyBook *book = why_book_new(EXPLAIN_ALL);
	bool was_short = false, was_long = false;
	for (int notes = 1; notes <= WHY_ENTRIES_MAX; notes++) {
		g_autofree char *text = kept(book, notes, 250);
		g_autoptr(json_t) json = json_parse("text", text, strlen(text), NULL);
		bool shortened = json_is_true(json_object_get(json, "shortened"));
		assert_true(strlen(text) <= WHY_KEPT_MAX);
		/* All of it as long as there is room. */
		assert_int_equal(shortened,
				 (size_t)notes * (WHY_TEXT_MAX + 3) + 500 > WHY_KEPT_MAX &&
					 shortened);
		was_short |= shortened;
		was_long |= !shortened && strlen(text) > WHY_KEPT_MAX - WHY_TEXT_MAX - 4;
	}
	assert_true(was_short && was_long);
	why_book_free(book);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_size),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
