/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/response.h"

#include <stdarg.h>
#include <string.h>

static const char *
usual_text(int code)
{
	switch (code / 100) {
	case 2:
		return "ok";
	case 4:
		return "temporary error";
	case 5:
		return "permanent error";
	default:
		return "internal error";
	}
}

/* At most RESPONSE_TEXT_MAX of the `len` bytes, not ending inside a character. */
static size_t
cut_text(const char *text, size_t len)
{
	if (len <= RESPONSE_TEXT_MAX)
		return len;
	len = RESPONSE_TEXT_MAX;
	while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
		len--;
	return len;
}

Response *
response_new(int code, const char *message)
{
	k_assert(code >= 100 && code <= 999);
	if (message == NULL)
		message = usual_text(code);
	/* Peers may send any bytes; what is kept can be printed as JSON. */
	g_autofree char *repaired = NULL;
	size_t len = cut_text(message, strnlen(message, (size_t)RESPONSE_TEXT_MAX + 1));
	if (!g_utf8_validate(message, (gssize)len, NULL)) {
		repaired = g_utf8_make_valid(message, (gssize)len);
		message = repaired;
		len = cut_text(message, strlen(message));
	}

	/* One block: the text lies behind the struct. */
	Response *response = g_malloc(sizeof *response + len + 1);
	response->refs = 1;
	response->code = code;
	response->message = (char *)(response + 1);
	for (size_t i = 0; i < len; i++) {
		char c = message[i];
		bool control = (unsigned char)c < 0x20 || c == 0x7f;
		response->message[i] = control && c != '\n' ? ' ' : c;
	}
	response->message[len] = '\0';
	return response;
}

Response *
response_newf(int code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	g_autofree char *text = g_strdup_vprintf(format, args);
	va_end(args);
	return response_new(code, text);
}

Response *
response_ref(Response *response)
{
	response->refs++;
	return response;
}

void
response_unref(Response *response)
{
	if (response == NULL)
		return;
	k_assert_for(response->refs > 0, response->message);
	if (--response->refs == 0)
		g_free(response);
}

bool
response_equal(const Response *a, const Response *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return a->code == b->code && strcmp(a->message, b->message) == 0;
}
