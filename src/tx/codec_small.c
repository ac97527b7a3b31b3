/* SPDX-License-Identifier: Apache-2.0 */
/* The small shared forms of spec 3.3. */
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "tx/codec_int.h"

json_t *
codec_text(const char *text)
{
	json_t *value = json_string(text);
	if (value != NULL)
		return value;
	g_autofree char *repaired = g_utf8_make_valid(text, -1);
	value = json_string(repaired);
	k_assert(value != NULL);
	return value;
}

void
codec_put(json_t *object, const char *key, json_t *value)
{
	int rc = json_object_set_new_nocheck(object, key, value);
	k_assert_for(rc == 0, key);
}

/* ---- responses ---- */

json_t *
response_to_json(const Response *response)
{
	json_t *json = json_object();
	codec_put(json, "code", json_integer(response->code));
	codec_put(json, "message", codec_text(response->message));
	return json;
}

Response *
response_from_json(const json_t *json)
{
	const json_t *code = json_object_get(json, "code");
	const json_t *message = json_object_get(json, "message");
	if (!json_is_integer(code) || (message != NULL && !json_is_string(message)))
		return NULL;
	json_int_t value = json_integer_value(code);
	if (value < 100 || value > 999)
		return NULL;
	return response_new((int)value, json_string_value(message));
}

/* ---- mailboxes ---- */

json_t *
mailbox_to_json(const Mailbox *mailbox)
{
	json_t *json = json_object();
	codec_put(json, "m", codec_text(mailbox->addr));
	if (mailbox->n_params == 0)
		return json;
	json_t *list = json_array();
	for (size_t i = 0; i < mailbox->n_params; i++) {
		const EsmtpParam *param = &mailbox->params[i];
		json_t *entry = json_object();
		codec_put(entry, "k", codec_text(param->keyword));
		if (param->value != NULL)
			codec_put(entry, "p", codec_text(param->value));
		json_array_append_new(list, entry);
	}
	codec_put(json, "e", list);
	return json;
}

/* What ends up in a command line or a header must not bring line breaks along. */
static bool
has_control(const char *text)
{
	for (; *text != '\0'; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	}
	return false;
}

/* Keywords and values stand between spaces in an SMTP command (RFC 5321 4.1.2 esmtp-param). */
static bool
is_param_text(const char *text, bool keyword)
{
	return !has_control(text) && strpbrk(text, keyword ? " =" : " ") == NULL &&
	       (!keyword || text[0] != '\0');
}

static bool
read_param(const json_t *json, EsmtpParam *ret_param, GError **ret_error)
{
	const json_t *value = json_object_get(json, "p");
	const char *keyword = json_get_str(json, "k");
	if (keyword == NULL || !is_param_text(keyword, true))
		return error_set(ret_error, K_ERROR_INPUT,
				 "mailbox: parameter without valid \"k\"");
	if (value != NULL && !json_is_null(value) &&
	    (!json_is_string(value) || !is_param_text(json_string_value(value), false)))
		return error_set(ret_error, K_ERROR_INPUT, "mailbox: parameter %s: bad value",
				 keyword);
	/* Borrowed from the JSON; mailbox_new copies. */
	ret_param->keyword = (char *)(uintptr_t)keyword;
	ret_param->value = (char *)(uintptr_t)json_string_value(value);
	return true;
}

Mailbox *
mailbox_from_json(const json_t *json, GError **ret_error)
{
	const char *addr = json_get_str(json, "m");
	if (addr == NULL || has_control(addr)) {
		error_set(ret_error, K_ERROR_INPUT, "mailbox: no valid \"m\"");
		return NULL;
	}
	const json_t *list = json_object_get(json, "e"); /* anything but an array is ignored */
	size_t n = json_array_size(list);
	g_autofree EsmtpParam *params = g_new0(EsmtpParam, n);
	for (size_t i = 0; i < n; i++) {
		if (!read_param(json_array_get(list, i), &params[i], ret_error))
			return NULL;
	}
	return mailbox_new(addr, params, n);
}

/* ---- hosts: ["192.0.2.1", 25] ---- */

json_t *
codec_host_port(const HostPort *hp)
{
	json_t *json = json_array();
	json_array_append_new(json, codec_text(hp->host));
	json_array_append_new(json, json_integer(hp->port));
	return json;
}

HostPort *
codec_read_host_port(const char *key, const json_t *json, GError **ret_error)
{
	const char *host = json_string_value(json_array_get(json, 0));
	const json_t *port = json_array_get(json, 1);
	json_int_t number = json_integer_value(port);
	if (json_array_size(json) != 2 || host == NULL || has_control(host) ||
	    !json_is_integer(port) || number < 0 || number > UINT16_MAX) {
		error_set(ret_error, K_ERROR_INPUT, "%s: not a [host, port] pair", key);
		return NULL;
	}
	return host_port_new(host, (uint16_t)number);
}
