/* SPDX-License-Identifier: Apache-2.0 */
#include "http/framing.h"

#include <string.h>

#include "base/text.h"

void
http_framing_init(HttpFraming *framing)
{
	*framing = (HttpFraming){.length = -1};
}

static void
fault(HttpFraming *framing, const char *what)
{
	if (framing->bad == NULL)
		framing->bad = what;
}

/* token (RFC 9110 5.6.2) */
static bool
is_token(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!g_ascii_isalnum(text[i]) &&
		    (text[i] == '\0' || strchr("!#$%&'*+-.^_`|~", text[i]) == NULL))
			return false;
	}
	return len > 0;
}

static bool
has_control(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return true;
	}
	return false;
}

static bool
is_authority(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!g_ascii_isgraph(text[i]) || strchr("/\\@?#", text[i]) != NULL)
			return false;
	}
	return true;
}

static bool
is_name(const char *name, size_t len, const char *want)
{
	return len == strlen(want) && g_ascii_strncasecmp(name, want, len) == 0;
}

static void
add_length(HttpFraming *framing, const char *value, size_t len)
{
	uint64_t length = 0;
	if (++framing->lengths > 1)
		fault(framing, "more than one content-length");
	else if (len > 18 || !text_parse_u64(value, len, INT64_MAX, &length))
		fault(framing, "bad content-length");
	else
		framing->length = (int64_t)length;
}

void
http_framing_add(HttpFraming *framing, const char *name, size_t name_len, const char *value,
		 size_t value_len)
{
	while (value_len > 0 && (value[value_len - 1] == ' ' || value[value_len - 1] == '\t'))
		value_len--;
	if (!is_token(name, name_len)) {
		fault(framing, "bad header name");
	} else if (has_control(value, value_len)) {
		fault(framing, "control character in header");
	} else if (is_name(name, name_len, "host")) {
		if (++framing->hosts > 1)
			fault(framing, "more than one host");
		else if (!is_authority(value, value_len))
			fault(framing, "bad host");
	} else if (is_name(name, name_len, "content-length")) {
		add_length(framing, value, value_len);
	} else if (is_name(name, name_len, "transfer-encoding")) {
		if (++framing->encodings > 1 || !is_name(value, value_len, "chunked"))
			fault(framing, "bad transfer-encoding");
	}
}

const char *
http_framing_end(HttpFraming *framing, const char *version)
{
	bool http11 = strcmp(version, "HTTP/1.1") == 0;
	if (!http11 && strcmp(version, "HTTP/1.0") != 0)
		fault(framing, "unsupported version");
	if (http11 && framing->hosts == 0)
		fault(framing, "no host");
	if (framing->encodings > 0 && framing->lengths > 0)
		fault(framing, "content-length with transfer-encoding");
	if (framing->encodings > 0 && !http11)
		fault(framing, "transfer-encoding in HTTP/1.0");
	return framing->bad;
}
