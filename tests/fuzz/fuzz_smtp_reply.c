/* SPDX-License-Identifier: Apache-2.0 */
/* Replies: reading is bounded; what we format is read back as one whole reply of that code, in
 * lines within the limit. */
#include "fuzz.h"

#include "smtp/reply.h"

static void
check_reading(const uint8_t *data, size_t size)
{
	g_autoptr(SmtpReply) reply = smtp_reply_new();
	SmtpReplyFeed fed = SMTP_REPLY_MORE;
	while (fed == SMTP_REPLY_MORE && size > 0) {
		const uint8_t *end = memchr(data, '\n', size);
		size_t len = end != NULL ? (size_t)(end - data) : size;
		fed = smtp_reply_feed(reply, (const char *)data, len);
		size -= end != NULL ? len + 1 : len;
		data += end != NULL ? len + 1 : len;
	}
	k_assert(reply->text->len <= SMTP_REPLY_TEXT_MAX);
	k_assert(reply->lines <= SMTP_REPLY_LINES_MAX);
	if (fed == SMTP_REPLY_DONE)
		k_assert(reply->code >= 200 && reply->code <= 599);
}

static void
check_printing(const uint8_t *data, size_t size)
{
	int code = 200 + (int)(fuzz_take_byte(&data, &size) * 400u / 256u);
	bool utf8 = (fuzz_take_byte(&data, &size) & 1) != 0;
	g_autofree char *text = fuzz_string(data, size);
	g_autoptr(GString) out = g_string_new(NULL);
	smtp_reply_format(out, code, "5.0.0", text, utf8);
	g_autoptr(SmtpReply) reply = smtp_reply_new();
	SmtpReplyFeed fed = SMTP_REPLY_MORE;
	for (char *line = out->str; *line != '\0';) {
		char *end = strstr(line, "\r\n");
		k_assert(end != NULL);
		size_t len = (size_t)(end - line);
		k_assert(len + 2 <= SMTP_REPLY_LINE_MAX);
		k_assert(memchr(line, '\r', len) == NULL && memchr(line, '\n', len) == NULL);
		k_assert(fed == SMTP_REPLY_MORE);
		fed = smtp_reply_feed(reply, line, len);
		line = end + 2;
		if (fed == SMTP_REPLY_BAD)
			return; /* we may send more text than we would take */
	}
	k_assert(fed == SMTP_REPLY_DONE && reply->code == code);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_reading(data, size);
	check_printing(data, size);
	return 0;
}
