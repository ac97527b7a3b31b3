/* SPDX-License-Identifier: Apache-2.0 */
#include <gmime/gmime.h>
#include <string.h>

#include "mime/addr.h"
#include "mime/date.h"
#include "mime/parse_int.h"
#include "mime/value.h"

static json_t *
utf8_json(const char *text)
{
	g_autofree char *valid = g_utf8_make_valid(text != NULL ? text : "", -1);
	return json_string(valid);
}

static json_t *
text_json(const char *text)
{
	g_autofree char *decoded = mime_decode_text(text);
	return json_string(decoded);
}

static void
add_address(json_t *list, const char *name, const char *address)
{
	g_autofree char *decoded = mime_decode_phrase(name);
	json_t *entry = json_object();
	json_object_set_new(entry, "display_name", json_string(decoded));
	json_object_set_new(entry, "address", utf8_json(address));
	json_array_append_new(list, entry);
}

/* What our strict reader could not make sense of at all. */
static void
add_guessed(json_t *list, const char *text)
{
	InternetAddressList *guess = internet_address_list_parse(NULL, text);
	int n = guess != NULL ? internet_address_list_length(guess) : 0;
	for (int i = 0; i < n && i < MIME_ADDRS_MAX; i++) {
		InternetAddress *a = internet_address_list_get_address(guess, i);
		if (!INTERNET_ADDRESS_IS_MAILBOX(a))
			continue;
		const char *name = internet_address_get_name(a);
		const char *addr = internet_address_mailbox_get_addr(INTERNET_ADDRESS_MAILBOX(a));
		add_address(list, name != NULL ? name : "", addr != NULL ? addr : "");
	}
	if (guess != NULL)
		g_object_unref(guess);
}

static json_t *
addresses_json(const char *text)
{
	MimeAddrs addrs;
	mime_addrs_parse(text, &addrs);
	json_t *list = json_array();
	for (guint i = 0; i < addrs.list->len; i++) {
		const MimeAddr *a = (const MimeAddr *)g_ptr_array_index(addrs.list, i);
		add_address(list, a->name, a->addr);
	}
	if (addrs.list->len == 0 && addrs.fault != NULL)
		add_guessed(list, text);
	mime_addrs_clear(&addrs);
	return list;
}

/* A date that cannot be read stays text. */
static json_t *
date_json(const char *text)
{
	MimeDate date;
	if (!mime_date_parse(text, &date))
		return text_json(text);
	json_t *out = json_object();
	json_object_set_new(out, "unix_secs", json_integer(date.unix_secs));
	json_object_set_new(out, "tz_offset", json_integer(date.tz_offset));
	return out;
}

static json_t *
id_json(const char *text)
{
	size_t len = strlen(text);
	if (len < 2 || text[0] != '<' || text[len - 1] != '>')
		return text_json(text);
	g_autofree char *inner = g_strndup(text + 1, len - 2);
	return text_json(inner);
}

static json_t *
value_json(const char *text, bool slash)
{
	MimeValue value;
	mime_value_parse(text, slash, &value);
	json_t *params = json_object();
	for (guint i = 0; i < value.params->len; i++) {
		const MimeParam *p = (const MimeParam *)g_ptr_array_index(value.params, i);
		json_object_set_new(params, p->name, utf8_json(p->value));
	}
	json_t *out = json_array();
	json_array_append_new(out,
			      *value.value != '\0' ? json_string(value.value) : text_json(text));
	json_array_append_new(out, params);
	mime_value_clear(&value);
	return out;
}

static json_t *
field_value(const char *name, const char *text)
{
	if (strcmp(name, "from") == 0 || strcmp(name, "to") == 0 || strcmp(name, "cc") == 0 ||
	    strcmp(name, "bcc") == 0)
		return addresses_json(text);
	if (strcmp(name, "date") == 0)
		return date_json(text);
	if (strcmp(name, "message-id") == 0)
		return id_json(text);
	if (strcmp(name, "content-type") == 0)
		return value_json(text, true);
	if (strcmp(name, "content-disposition") == 0)
		return value_json(text, false);
	return text_json(text);
}

json_t *
mime_parse_headers(const MimeHeader *header)
{
	json_t *out = json_array();
	for (size_t i = 0; i < header->n_fields; i++) {
		const MimeField *f = &header->fields[i];
		g_autofree char *name = mime_field_name(f);
		g_autofree char *text = mime_field_unfold(f);
		json_t *pair = json_array();
		json_array_append_new(pair, utf8_json(name));
		json_array_append_new(pair, field_value(name, text));
		json_array_append_new(out, pair);
	}
	return out;
}
