/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the chains of recent transactions did and why, by id: in memory, because most of what is
 * refused never gets a row in the store.  The newest attempt of each; the oldest ones go when the
 * book is full.  Owner: the router.  Any thread. */
#include "base/check.h"
#include "conf/config.h"
#include "filter/chain.h"

#define WHY_BOOK_ENTRIES 2000
#define WHY_BOOK_BYTES   (8u * 1024 * 1024)
#define WHY_KEPT_MAX     (8u * 1024) /* bytes of one; what is longer is shortened to decisions */

typedef struct WhyBook WhyBook;

WhyBook *why_book_new(ExplainMode mode);
void why_book_free(WhyBook *book); /* NULL is fine */
/* The JSON text of what `chain` has done with `tx`, which is also kept in the book; NULL when the
 * mode does not ask for it.  Caller frees. */
char *why_book_text(WhyBook *book, const Chain *chain, const Tx *tx);
/* `text` is moved.  Replaces what there is of that id. */
void why_book_put(WhyBook *book, const char *id, char *text);
char *why_book_get(WhyBook *book, const char *id); /* NULL; caller frees */
