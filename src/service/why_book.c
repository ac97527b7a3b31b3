/* SPDX-License-Identifier: Apache-2.0 */
#include "service/why_book.h"

#include <pthread.h>
#include <string.h>

#include "base/json.h"

typedef struct Page {
	GList link; /* in `order`; data: the page */
	char *id, *text;
} Page;

struct WhyBook {
	ExplainMode mode;
	pthread_mutex_t lock; /* of what follows */
	GHashTable *pages;    /* char* (of the page) -> Page* */
	GQueue order;         /* Page*, oldest first */
	size_t bytes;
};

static void
page_free(void *data)
{
	Page *page = data;
	g_free(page->id);
	g_free(page->text);
	g_free(page);
}

WhyBook *
why_book_new(ExplainMode mode)
{
	WhyBook *book = g_new0(WhyBook, 1);
	book->mode = mode;
	pthread_mutex_init(&book->lock, NULL);
	book->pages = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, page_free);
	g_queue_init(&book->order);
	return book;
}

void
why_book_free(WhyBook *book)
{
	if (book == NULL)
		return;
	g_hash_table_unref(book->pages);
	pthread_mutex_destroy(&book->lock);
	g_free(book);
}

static size_t
page_size(const Page *page)
{
	return strlen(page->id) + strlen(page->text);
}

/* Under the lock. */
static void
tear_out(WhyBook *book, Page *page)
{
	book->bytes -= page_size(page);
	g_queue_unlink(&book->order, &page->link);
	g_hash_table_remove(book->pages, page->id);
}

void
why_book_put(WhyBook *book, const char *id, char *text)
{
	Page *page = g_new0(Page, 1);
	page->link.data = page;
	page->id = g_strdup(id);
	page->text = text;
	pthread_mutex_lock(&book->lock);
	Page *former = g_hash_table_lookup(book->pages, id);
	if (former != NULL)
		tear_out(book, former);
	g_hash_table_insert(book->pages, page->id, page);
	g_queue_push_tail_link(&book->order, &page->link);
	book->bytes += page_size(page);
	while (book->order.length > WHY_BOOK_ENTRIES || book->bytes > WHY_BOOK_BYTES)
		tear_out(book, g_queue_peek_head(&book->order));
	pthread_mutex_unlock(&book->lock);
}

char *
why_book_get(WhyBook *book, const char *id)
{
	pthread_mutex_lock(&book->lock);
	const Page *page = g_hash_table_lookup(book->pages, id);
	char *text = page != NULL ? g_strdup(page->text) : NULL;
	pthread_mutex_unlock(&book->lock);
	return text;
}

char *
why_book_text(WhyBook *book, const Chain *chain, const Tx *tx)
{
	if (book->mode == EXPLAIN_OFF || (book->mode == EXPLAIN_PROBLEMS && !why_is_problem(tx)))
		return NULL;
	char *text = NULL;
	for (WhyDetail detail = WHY_ALL; detail <= WHY_VERDICT; detail++) {
		g_autoptr(json_t) json = chain_why(chain, detail);
		if (json == NULL)
			return NULL;
		if (tx->attempt_count > 0)
			json_object_set_new(json, "attempt", json_integer(tx->attempt_count));
		g_free(text);
		text = json_print(json);
		if (strlen(text) <= WHY_KEPT_MAX)
			break;
	}
	if (tx->id != NULL)
		why_book_put(book, tx->id, g_strdup(text));
	return text;
}
