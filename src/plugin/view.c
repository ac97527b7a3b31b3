/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/view.h"

#include <string.h>

#include "mime/fold.h"

#define HEADER_STEP (64 * 1024) /* bytes of a message that are read at first for its header */

void
plugin_view_clear(PluginView *view)
{
	g_clear_pointer(&view->answer, response_unref);
	g_clear_pointer(&view->endpoint, g_free);
	g_clear_pointer(&view->hosts, g_ptr_array_unref);
	g_clear_pointer(&view->strings, g_ptr_array_unref);
	mime_header_clear(&view->header);
	g_clear_pointer(&view->block, g_free);
}

/* ---- looking ---- */

const char *
plugin_view_lend(PluginView *view, char *text)
{
	if (text == NULL)
		return NULL;
	if (view->strings == NULL)
		view->strings = g_ptr_array_new_with_free_func(g_free);
	g_ptr_array_add(view->strings, text);
	return text;
}

/* Reads until the header's end has been seen; what cannot be read is not there. */
static void
scan(PluginView *view)
{
	size_t room = MIN((uint64_t)HEADER_STEP, blob_len(view->message));
	size_t got = 0;
	size_t end = 0;
	for (;;) {
		size_t more = 0;
		view->block = g_realloc(view->block, room + 1);
		if (!blob_read(view->message, got, view->block + got, room - got, &more, NULL))
			break;
		got += more;
		end = mime_header_end(view->block, got);
		if (end > 0 || more == 0 || room >= MIME_HEADER_BLOCK_MAX)
			break;
		room = MIN((uint64_t)room * 4, MIN(blob_len(view->message), MIME_HEADER_BLOCK_MAX));
	}
	size_t len = end > 0 ? end : got;
	/* A message that is accepted is looked at as a reader of it would. */
	(void)!mime_header_scan_lenient(view->block, len, &view->header);
}

static const MimeHeader *
header_of(PluginView *view)
{
	if (!view->scanned && view->message != NULL) {
		view->scanned = true;
		scan(view);
	}
	return &view->header;
}

size_t
plugin_view_field_count(PluginView *view)
{
	return header_of(view)->n_fields;
}

const MimeField *
plugin_view_field(PluginView *view, size_t index)
{
	const MimeHeader *header = header_of(view);
	return index < header->n_fields ? &header->fields[index] : NULL;
}

const char *
plugin_view_header(PluginView *view, const char *name, size_t index)
{
	const MimeHeader *header = header_of(view);
	for (size_t i = 0; i < header->n_fields; i++) {
		if (mime_field_is(&header->fields[i], name) && index-- == 0)
			return plugin_view_lend(view, mime_field_unfold(&header->fields[i]));
	}
	return NULL;
}

const char *
plugin_view_meta(const PluginView *view, const char *key)
{
	return json_string_value(json_object_get(view->tx->smtp_meta, key));
}

bool
plugin_view_meta_true(const PluginView *view, const char *key)
{
	return json_is_true(json_object_get(view->tx->smtp_meta, key));
}

/* ---- deciding ---- */

static bool
refuse(const char **ret_why, const char *why)
{
	*ret_why = why;
	return false;
}

bool
plugin_view_answer(PluginView *view, int code, const char *text, const char **ret_why)
{
	if (view->event == PLUGIN_MATCH)
		return refuse(ret_why, "a matcher does not answer");
	if (code < 400 || code > 599)
		return refuse(ret_why, "the code of an answer is 400 to 599");
	if (text == NULL || *text == '\0' || !g_utf8_validate(text, -1, NULL))
		return refuse(ret_why, "the text of an answer is UTF-8 and not empty");
	if (view->answer != NULL)
		return refuse(ret_why, "there is an answer already");
	g_autofree char *cut = g_strndup(text, PLUGIN_ANSWER_MAX);
	g_autofree char *valid = g_utf8_make_valid(cut, -1);
	/* One line, whatever there was between. */
	g_strdelimit(valid, "\r\n", ' ');
	view->answer = response_new(code, valid);
	return true;
}

/* RFC 5322 2.2: printable ASCII without the colon. */
static bool
is_field_name(const char *name)
{
	size_t len = name != NULL ? strlen(name) : 0;
	if (len == 0 || len > PLUGIN_FIELD_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (name[i] <= 0x20 || name[i] >= 0x7f || name[i] == ':')
			return false;
	}
	return true;
}

bool
plugin_view_add_header(PluginView *view, const char *name, const char *value, const char **ret_why)
{
	if (view->fields == NULL)
		return refuse(ret_why, "header fields are added by filters, up to the message");
	if (!is_field_name(name))
		return refuse(ret_why, "a field's name is 1 to 76 printable ASCII characters");
	if (value == NULL || strlen(value) > PLUGIN_FIELD_VALUE_MAX)
		return refuse(ret_why, "a field's value has at most 16384 bytes");
	if (mime_has_controls(value, true))
		return refuse(ret_why, "a field's value is UTF-8 without line ends");
	if (*view->n_fields >= PLUGIN_FIELDS_MAX)
		return refuse(ret_why, "at most 100 header fields are added");
	MimeFold fold;
	mime_fold_start(&fold, view->fields, name);
	mime_fold_text(&fold, value);
	mime_fold_end(&fold);
	(*view->n_fields)++;
	return true;
}

static void
host_free(void *host)
{
	host_port_free(host);
}

bool
plugin_view_add_host(PluginView *view, const char *host, uint16_t port, const char **ret_why)
{
	if (view->event != PLUGIN_ROUTE)
		return refuse(ret_why, "hosts are named by routing policies");
	size_t len = host != NULL ? strlen(host) : 0;
	if (len == 0 || len > 255 ||
	    strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvw"
			 "xyz0123456789-._:") != len)
		return refuse(ret_why, "a host is a name or an address");
	if (port == 0)
		return refuse(ret_why, "a port is 1 to 65535");
	if (view->hosts == NULL)
		view->hosts = g_ptr_array_new_with_free_func(host_free);
	if (view->hosts->len >= PLUGIN_HOSTS_MAX)
		return refuse(ret_why, "at most 20 hosts are named");
	g_ptr_array_add(view->hosts, host_port_new(host, port));
	return true;
}
