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
	framing->bytes += name_len + strlen(": ") + value_len + strlen("\r\n");
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

/* ---- raw heads ---- */

/* METHOD SP target SP HTTP/x.y; the version goes to `version`. */
static const char *
check_request_line(const char *line, size_t len, char version[16])
{
	const char *target = memchr(line, ' ', len);
	if (target == NULL || !is_token(line, (size_t)(target - line)))
		return "bad request line";
	target++;
	size_t rest = len - (size_t)(target - line);
	const char *last = memchr(target, ' ', rest);
	if (last == NULL || last == target)
		return "bad request line";
	size_t version_len = len - (size_t)(last + 1 - line);
	if (version_len == 0 || version_len >= 16 || memchr(last + 1, ' ', version_len) != NULL)
		return "bad request line";
	memcpy(version, last + 1, version_len);
	version[version_len] = '\0';
	return NULL;
}

static void
check_field(HttpFraming *framing, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len);
	if (colon == NULL) {
		fault(framing, "header line without colon");
		return;
	}
	size_t name_len = (size_t)(colon - line);
	const char *value = colon + 1;
	size_t value_len = len - name_len - 1;
	while (value_len > 0 && (*value == ' ' || *value == '\t')) {
		value++;
		value_len--;
	}
	http_framing_add(framing, line, name_len, value, value_len);
}

const char *
http_head_check(const char *data, size_t len, bool *ret_complete)
{
	const char *end = memmem(data, len, "\r\n\r\n", 4);
	*ret_complete = end != NULL;
	if (end == NULL)
		return NULL;
	end += 2; /* behind the last line */
	if (memchr(data, '\0', (size_t)(end - data)) != NULL)
		return "NUL in head";
	HttpFraming framing;
	char version[16] = "";
	http_framing_init(&framing);
	for (const char *line = data, *next; line < end; line = next) {
		const char *stop = memmem(line, (size_t)(end - line), "\r\n", 2);
		size_t line_len = (size_t)(stop - line);
		next = stop + 2;
		if (memchr(line, '\n', line_len) != NULL || memchr(line, '\r', line_len) != NULL)
			return "bare line end in head";
		if (line != data) {
			check_field(&framing, line, line_len);
			continue;
		}
		const char *bad = check_request_line(line, line_len, version);
		if (bad != NULL)
			return bad;
	}
	return http_framing_end(&framing, version);
}
