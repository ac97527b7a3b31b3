/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/dsn.h"

#include <string.h>

#include "base/clock.h"
#include "base/text.h"

#define DIAGNOSTIC_MAX 800 /* octets of a peer's text in one field */
#define ID_MAX         900 /* octets of a Message-ID that is quoted */

/* Peers' text may not break out of its field: one line, printable or UTF-8, bounded. */
static void
append_clean(GString *out, const char *text, size_t max)
{
	g_autofree char *valid = g_utf8_make_valid(text, -1);
	size_t used = 0;
	for (const char *p = valid; *p != '\0' && used < max; p = g_utf8_next_char(p)) {
		size_t len = (size_t)(g_utf8_next_char(p) - p);
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			g_string_append_c(out, ' ');
		else
			g_string_append_len(out, p, (gssize)len);
		used += len;
	}
}

static void
append_field(GString *out, const char *name, const char *prefix, const char *value)
{
	g_string_append_printf(out, "%s: %s", name, prefix);
	append_clean(out, value, DIAGNOSTIC_MAX);
	g_string_append(out, "\r\n");
}

static void
append_date(GString *out, const char *name, int64_t unix_sec)
{
	char date[CLOCK_DATE_MAX];
	clock_format_rfc5322(unix_sec, true, date);
	g_string_append_printf(out, "%s: %s\r\n", name, date);
}

size_t
dsn_header_len(const char *message, size_t len)
{
	const char *end = memmem(message, len, "\r\n\r\n", 4);
	return end != NULL ? (size_t)(end - message) + 2 : 0;
}

/* The value of Message-ID in the original's header, for threading; NULL when there is none. */
static char *
original_id(const DsnInput *input)
{
	static const char name[] = "message-id:";
	const char *end = input->header + input->header_len;
	for (const char *line = input->header; line != NULL && line < end;) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));
		size_t len = stop != NULL ? (size_t)(stop - line) : (size_t)(end - line);
		if (len > strlen(name) && g_ascii_strncasecmp(line, name, strlen(name)) == 0) {
			g_autofree char *value = g_strndup(line + strlen(name), len - strlen(name));
			g_strstrip(value);
			bool usable = value[0] == '<' && strlen(value) <= ID_MAX &&
				      text_is_printable_ascii(value, strlen(value));
			return usable ? g_steal_pointer(&value) : NULL;
		}
		line = stop != NULL ? stop + 1 : NULL;
	}
	return NULL;
}

static const char *
domain_of(const char *address)
{
	const char *at = strrchr(address, '@');
	return at != NULL ? at + 1 : address;
}

static void
append_head(GString *out, const DsnInput *input)
{
	append_field(out, "From", "Mail Delivery Subsystem <", input->mailer_daemon);
	g_string_insert(out, (gssize)out->len - 2, ">");
	append_field(out, "To", "<", input->to);
	g_string_insert(out, (gssize)out->len - 2, ">");
	append_date(out, "Date", input->now);
	g_string_append_printf(out, "Message-ID: <%s@%s>\r\n", input->unique,
			       domain_of(input->mailer_daemon));
	g_string_append(out, "Subject: Delivery Status Notification (failure)\r\n");
	if (input->header != NULL) {
		g_autofree char *id = original_id(input);
		if (id != NULL)
			g_string_append_printf(out, "In-Reply-To: %s\r\nReferences: %s\r\n", id,
					       id);
	}
	g_string_append_printf(out,
			       "Auto-Submitted: auto-replied\r\n"
			       "MIME-Version: 1.0\r\n"
			       "Content-Type: multipart/report; report-type=delivery-status;\r\n"
			       "\tboundary=\"=_%s\"\r\n\r\n",
			       input->unique);
}

static void
append_status(GString *out, const DsnInput *input)
{
	g_string_append_printf(out, "Reporting-MTA: dns; %s\r\n", domain_of(input->mailer_daemon));
	append_date(out, "Arrival-Date", input->arrival);
	g_string_append(out, "\r\n");
	append_field(out, "Final-Recipient", "rfc822; ", input->rcpt);
	g_string_append(out, "Action: failed\r\n");
	append_date(out, "Last-Attempt-Date", input->now);
	g_string_append_printf(out, "Status: %d.0.0\r\n", input->code / 100 == 4 ? 4 : 5);
	g_autofree char *code = g_strdup_printf("smtp; %d ", input->code);
	append_field(out, "Diagnostic-Code", code, input->text);
}

/* The original's header as it was, but for lines that no legal message may have. */
static void
append_original(GString *out, const DsnInput *input)
{
	const char *end = input->header + MIN(input->header_len, (size_t)DSN_HEADERS_MAX);
	for (const char *line = input->header; line != NULL && line < end;) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));
		size_t len = (size_t)((stop != NULL ? stop : end) - line);
		if (len > 0 && line[len - 1] == '\r')
			len--;
		g_string_append_len(out, line, (gssize)MIN(len, 990));
		g_string_append(out, "\r\n");
		line = stop != NULL ? stop + 1 : NULL;
	}
}

GString *
dsn_build(const DsnInput *input)
{
	GString *out = g_string_new(NULL);
	append_head(out, input);
	g_string_append_printf(out,
			       "--=_%s\r\nContent-Type: text/plain; charset=utf-8\r\n"
			       "Content-Transfer-Encoding: 8bit\r\n\r\n"
			       "Your message could not be delivered to\r\n\r\n    ",
			       input->unique);
	append_clean(out, input->rcpt, DIAGNOSTIC_MAX);
	g_string_append_printf(out, "\r\n\r\nThe last answer was:\r\n\r\n    %d ", input->code);
	append_clean(out, input->text, DIAGNOSTIC_MAX);
	g_string_append_printf(out,
			       "\r\n\r\n--=_%s\r\nContent-Type: message/delivery-status\r\n\r\n",
			       input->unique);
	append_status(out, input);
	g_string_append_printf(out, "\r\n--=_%s\r\nContent-Type: text/rfc822-headers\r\n\r\n",
			       input->unique);
	if (input->header != NULL)
		append_original(out, input);
	g_string_append_printf(out, "\r\n--=_%s--\r\n", input->unique);
	return out;
}
