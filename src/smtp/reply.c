/* SPDX-License-Identifier: Apache-2.0 */
/* Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
 * Reply-code = %x32-35 %x30-35 %x30-39   (RFC 5321 4.2; any second digit is taken) */
#include "smtp/reply.h"

#include <string.h>

#include "base/text.h"

SmtpReply *
smtp_reply_new(void)
{
	SmtpReply *reply = g_new0(SmtpReply, 1);
	reply->text = g_string_new(NULL);
	return reply;
}

void
smtp_reply_free(SmtpReply *reply)
{
	if (reply == NULL)
		return;
	g_string_free(reply->text, TRUE);
	g_free(reply);
}

void
smtp_reply_reset(SmtpReply *reply)
{
	g_string_truncate(reply->text, 0);
	reply->code = 0;
	reply->done = false;
	reply->lines = 0;
}

/* The code of a reply line, or 0. */
static int
line_code(const char *line, size_t len)
{
	if (len < 3 || line[0] < '2' || line[0] > '5' || !g_ascii_isdigit(line[1]) ||
	    !g_ascii_isdigit(line[2]))
		return 0;
	if (len > 3 && line[3] != ' ' && line[3] != '-')
		return 0;
	return (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
}

SmtpReplyFeed
smtp_reply_feed(SmtpReply *reply, const char *line, size_t len)
{
	GString *text = reply->text;
	int code = line_code(line, len);
	k_assert(!reply->done);
	if (code == 0 || (reply->lines > 0 && code != reply->code))
		return SMTP_REPLY_BAD;
	size_t skip = len > 3 ? 4 : 3;
	size_t need = text->len + (reply->lines > 0) + (len - skip);
	if (reply->lines == SMTP_REPLY_LINES_MAX || need > SMTP_REPLY_TEXT_MAX)
		return SMTP_REPLY_BAD;

	if (reply->lines > 0)
		g_string_append_c(text, '\n');
	size_t start = text->len;
	g_string_append_len(text, line + skip, (gssize)(len - skip));
	for (size_t i = start; i < text->len; i++) {
		if ((unsigned char)text->str[i] < 0x20 || text->str[i] == 0x7f)
			text->str[i] = ' ';
	}
	reply->code = code;
	reply->lines++;
	if (len > 3 && line[3] == '-')
		return SMTP_REPLY_MORE;
	reply->done = true;
	return SMTP_REPLY_DONE;
}

static size_t
digits(const char *text)
{
	size_t n = 0;
	while (n < 4 && g_ascii_isdigit(text[n]))
		n++;
	return n >= 1 && n <= 3 ? n : 0;
}

size_t
smtp_reply_status_len(int code, const char *text)
{
	if (text[0] != '0' + code / 100 || strchr("245", text[0]) == NULL || text[1] != '.')
		return 0;
	size_t subject = digits(text + 2);
	if (subject == 0 || text[2 + subject] != '.')
		return 0;
	size_t detail = digits(text + 3 + subject);
	size_t len = 3 + subject + detail;
	if (detail == 0 || (text[len] != '\0' && text[len] != ' ' && text[len] != '\n'))
		return 0;
	return len;
}

typedef struct LineWriter {
	GString *out;
	char prefix[32]; /* "250-" and the enhanced status with a space behind */
	size_t prefix_len;
	size_t mark; /* offset in `out` of the last line's '-' */
	unsigned lines;
} LineWriter;

static void
put_line(LineWriter *writer, const char *text, size_t len)
{
	if (writer->lines == SMTP_REPLY_LINES_MAX)
		return;
	writer->mark = writer->out->len + 3;
	g_string_append_len(writer->out, writer->prefix, (gssize)writer->prefix_len);
	if (len == 0 && writer->prefix_len > 4)
		g_string_truncate(writer->out, writer->out->len - 1);
	g_string_append_len(writer->out, text, (gssize)len);
	g_string_append(writer->out, "\r\n");
	writer->lines++;
}

/* How much of `text` goes on one line of `room` bytes: up to the last space, else all that fits
 * without cutting a UTF-8 character. */
static size_t
fold_at(const char *text, size_t len, size_t room)
{
	if (len <= room)
		return len;
	for (size_t cut = room; cut > room / 2; cut--) {
		if (text[cut] == ' ')
			return cut;
	}
	size_t cut = room;
	while (cut > room - 4 && ((unsigned char)text[cut] & 0xc0) == 0x80)
		cut--;
	return cut;
}

static void
put_folded(LineWriter *writer, const char *text, size_t len)
{
	size_t room = SMTP_REPLY_LINE_MAX - 2 - writer->prefix_len;
	do {
		size_t cut = fold_at(text, len, room);
		put_line(writer, text, cut);
		text += cut;
		len -= cut;
		if (len > 0 && *text == ' ') {
			text++;
			len--;
		}
	} while (len > 0);
}

static void
make_prefix(LineWriter *writer, int code, const char *status, size_t status_len)
{
	k_assert(code >= 200 && code <= 599 && status_len < 16);
	char *at = writer->prefix;
	*at++ = (char)('0' + code / 100);
	*at++ = (char)('0' + code / 10 % 10);
	*at++ = (char)('0' + code % 10);
	*at++ = '-';
	if (status_len > 0) {
		memcpy(at, status, status_len);
		at += status_len;
		*at++ = ' ';
	}
	writer->prefix_len = (size_t)(at - writer->prefix);
}

/* Replaces what must not stand in a reply; '\n' stays. */
static void
sanitise(char *text, bool utf8)
{
	for (char *p = text; *p != '\0';) {
		unsigned char c = (unsigned char)*p;
		gunichar wide = c < 0x80 ? c : g_utf8_get_char_validated(p, -1);
		if (c < 0x80) {
			if ((c < 0x20 && c != '\n') || c == 0x7f)
				*p = ' ';
			p++;
		} else if (utf8 && wide < 0x110000 && wide >= 0xa0) {
			p = g_utf8_next_char(p);
		} else {
			*p++ = '?';
		}
	}
}

void
smtp_reply_format(GString *out, int code, const char *status, const char *text, bool utf8)
{
	g_autofree char *copy = NULL;
	LineWriter writer = {.out = out};
	size_t total = strlen(text);

	if (!text_is_printable_ascii(text, total)) {
		copy = g_strdup(text);
		sanitise(copy, utf8);
	}
	const char *line = copy != NULL ? copy : text;
	size_t own = smtp_reply_status_len(code, line);
	size_t status_len = own > 0 ? own : status != NULL ? strlen(status) : 0;
	if (own > 0)
		status = text;
	make_prefix(&writer, code, status, status_len);

	while (total > 0 && (line[total - 1] == '\n' || line[total - 1] == ' '))
		total--;
	const char *end = line + total;
	do {
		const char *stop = memchr(line, '\n', (size_t)(end - line));
		if (stop == NULL)
			stop = end;
		/* the sender's own status of this line, when it is the one that is put in anyway */
		if (own > 0 && (size_t)(stop - line) >= own && strncmp(line, text, own) == 0 &&
		    (line + own == stop || line[own] == ' '))
			line += (size_t)(stop - line) > own ? own + 1 : own;
		put_folded(&writer, line, (size_t)(stop - line));
		line = stop + 1;
	} while (line <= end);
	out->str[writer.mark] = ' ';
}
