/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "cmd/receiver_int.h"

#define TEXT_MAX 200 /* bytes of one cell */

static void
add_cell(GString *row, const char *text)
{
	g_autofree char *clean = text_escape(text != NULL ? text : "",
					     text != NULL ? strlen(text) : 0, TEXT_MAX);
	g_autofree char *safe = g_markup_escape_text(clean, -1);
	g_string_append_printf(row, "<td>%s</td>", safe);
}

/* The recipients' addresses, separated by blanks. */
static char *
all_rcpts(const ReceiverTx *tx)
{
	const json_t *list = json_object_get(tx->request, "rcpt_to");
	GString *out = g_string_new(NULL);
	for (size_t i = 0; i < json_array_size(list) && out->len < TEXT_MAX; i++) {
		const char *addr = json_get_str(json_array_get(list, i), "m");
		g_string_append_printf(out, "%s%s", i > 0 ? " " : "", addr != NULL ? addr : "?");
	}
	return g_string_free(out, FALSE);
}

void
receiver_page_add(GQueue *rows, const ReceiverTx *tx)
{
	char date[CLOCK_DATE_MAX];
	clock_format_rfc5322(clock_wall_sec(), true, date);
	g_autofree char *to = all_rcpts(tx);
	g_autofree char *size = g_strdup_printf("%" G_GUINT64_FORMAT, tx->message.size);
	g_autofree char *parts = g_strdup_printf("%zu", json_object_size(tx->parts));
	GString *row = g_string_new("<tr>");
	add_cell(row, date);
	add_cell(row, json_get_str(json_object_get(tx->request, "mail_from"), "m"));
	add_cell(row, to);
	add_cell(row, size);
	add_cell(row, parts);
	add_cell(row, tx->message.path);
	g_string_append(row, "</tr>\n");
	g_queue_push_head(rows, g_string_free(row, FALSE));
	if (g_queue_get_length(rows) > RECEIVER_PAGE_ROWS)
		g_free(g_queue_pop_tail(rows));
}

char *
receiver_page_html(const GQueue *rows)
{
	GString *html = g_string_new(
		"<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\">"
		"<title>Received</title>\n<h1>Received messages</h1>\n"
		"<p>The newest first, since the receiver was started.</p>\n"
		"<table border=\"1\">\n<tr><th>when</th><th>from</th><th>to</th>"
		"<th>bytes</th><th>parts</th><th>file</th></tr>\n");
	for (const GList *row = rows->head; row != NULL; row = row->next)
		g_string_append(html, row->data);
	g_string_append(html, "</table></html>\n");
	return g_string_free(html, FALSE);
}
