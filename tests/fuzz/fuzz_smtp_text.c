/* SPDX-License-Identifier: Apache-2.0 */
/* Text for BDAT: the same in pieces of any size as in one; no bare CR or LF comes out; what is
 * written goes through unchanged a second time; binary passes as it is.  And what is kept of a
 * reply: UTF-8 without controls, within its caps. */
#include "fuzz.h"

#include "smtp/reply_text.h"
#include "smtp/text_writer.h"

static GString *
write_text(const char *data, size_t size, size_t piece, bool binary)
{
	GString *out = g_string_new(NULL);
	SmtpTextWriter writer;
	smtp_text_writer_init(&writer, binary);
	for (size_t at = 0; at < size; at += piece)
		smtp_text_write(&writer, data + at, MIN(piece, size - at), out);
	smtp_text_write_end(&writer, out);
	return out;
}

static void
check_text(const char *data, size_t size, size_t piece)
{
	GString *whole = write_text(data, size, size + 1, false);
	GString *pieces = write_text(data, size, piece, false);
	GString *again = write_text(whole->str, whole->len, piece, false);
	GString *binary = write_text(data, size, piece, true);
	k_assert(g_string_equal(whole, pieces) && g_string_equal(whole, again));
	k_assert(binary->len == size && memcmp(binary->str, data, size) == 0);
	for (size_t i = 0; i < whole->len; i++) {
		k_assert(whole->str[i] != '\r' || whole->str[i + 1] == '\n');
		k_assert(whole->str[i] != '\n' || (i > 0 && whole->str[i - 1] == '\r'));
	}
	g_string_free(whole, TRUE);
	g_string_free(pieces, TRUE);
	g_string_free(again, TRUE);
	g_string_free(binary, TRUE);
}

static void
check_reply(const char *data, size_t size)
{
	g_autoptr(SmtpReply) reply = smtp_reply_new();
	SmtpReplyFeed got = SMTP_REPLY_MORE;
	while (got == SMTP_REPLY_MORE && size > 0) {
		const char *lf = memchr(data, '\n', size);
		size_t len = lf != NULL ? (size_t)(lf - data) : size;
		got = smtp_reply_feed(reply, data,
				      len > 0 && data[len - 1] == '\r' ? len - 1 : len);
		size -= MIN(size, len + 1);
		data += len + 1;
	}
	if (got != SMTP_REPLY_DONE)
		return;
	g_autofree char *text = smtp_reply_text(reply);
	unsigned lines = 0;
	k_assert(!smtp_reply_is_plain(reply) || strcmp(text, reply->text->str) == 0);
	k_assert(g_utf8_validate(text, -1, NULL));
	for (const char *p = text; *p != '\0'; p++)
		k_assert((unsigned char)*p >= 0x20 || *p == '\n');
	for (const char *p = text; p != NULL; p = strchr(p, '\n')) {
		p += lines > 0 ? 1 : 0;
		k_assert(strcspn(p, "\n") <= SMTP_REPLY_KEEP_BYTES);
		lines++;
	}
	k_assert(lines <= SMTP_REPLY_KEEP_LINES);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t piece = 1 + fuzz_take_byte(&data, &size) % 64;
	check_text((const char *)data, size, piece);
	check_reply((const char *)data, size);
	return 0;
}
