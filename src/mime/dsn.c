/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/dsn.h"

#include <string.h>

#include "base/clock.h"
#include "base/text.h"

#define DIAGNOSTIC_MAX    800 /* octets of a peer's text in one field */
#define ID_MAX            900 /* octets of a Message-ID that is quoted */
#define ORIGINAL_LINE_MAX 990 /* octets of a line of the original's header that are returned */

static const struct {
	const char *name, *subject, *text;
} actions[] = {
	[DSN_FAILED] = {"failed", "failure", "Your message could not be delivered to"},
	[DSN_DELAYED] = {"delayed", "delay", "Your message could not be delivered yet to"},
	[DSN_RELAYED] = {"relayed", "relay", "Your message was handed on to the next host for"},
	[DSN_DELIVERED] = {"delivered", "success", "Your message was delivered to"},
};
_Static_assert(G_N_ELEMENTS(actions) == DSN_ACTIONS, "words for each action");

/* What is being written. */
typedef struct Dsn {
	const DsnInput *input;
	GString *out;
	bool utf8; /* RFC 6533 */
} Dsn;

static bool
is_ascii(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)text[i] >= 0x80)
			return false;
	}
	return true;
}

/* Peers' text may not break out of its field: one line, printable, bounded. */
static void
append_clean(const Dsn *dsn, const char *text, size_t max)
{
	g_autofree char *valid = g_utf8_make_valid(text, -1);
	size_t used = 0;
	for (const char *p = valid; *p != '\0' && used < max; p = g_utf8_next_char(p)) {
		size_t len = (size_t)(g_utf8_next_char(p) - p);
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			g_string_append_c(dsn->out, ' ');
		else if (len > 1 && !dsn->utf8)
			g_string_append_c(dsn->out, '?');
		else
			g_string_append_len(dsn->out, p, (gssize)len);
		used += len;
	}
}

static void
append_field(const Dsn *dsn, const char *name, const char *prefix, const char *value)
{
	g_string_append_printf(dsn->out, "%s: %s", name, prefix);
	append_clean(dsn, value, DIAGNOSTIC_MAX);
	g_string_append(dsn->out, "\r\n");
}

/* utf-8-addr-xtext (RFC 6533 3): an address outside ASCII in ASCII. */
static void
append_xtext(GString *out, const char *address)
{
	g_autofree char *valid = g_utf8_make_valid(address, -1);
	gsize start = out->len;
	for (const char *p = valid; *p != '\0' && out->len - start < DIAGNOSTIC_MAX;
	     p = g_utf8_next_char(p)) {
		gunichar c = g_utf8_get_char(p);
		if (c > 0x20 && c < 0x7f && c != '+' && c != '=' && c != '\\')
			g_string_append_c(out, (char)c);
		else
			g_string_append_printf(out, "\\x{%X}", c);
	}
}

static void
append_final_recipient(const Dsn *dsn)
{
	const char *rcpt = dsn->input->rcpt;
	if (is_ascii(rcpt, strlen(rcpt))) {
		append_field(dsn, "Final-Recipient", "rfc822; ", rcpt);
	} else if (dsn->utf8) {
		append_field(dsn, "Final-Recipient", "utf-8; ", rcpt);
	} else {
		g_string_append(dsn->out, "Final-Recipient: utf-8; ");
		append_xtext(dsn->out, rcpt);
		g_string_append(dsn->out, "\r\n");
	}
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

bool
dsn_may_return(const char *message, size_t len)
{
	size_t start = 0;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)message[i];
		bool pair = c == '\r' && i + 1 < len && message[i + 1] == '\n';
		if (c == 0 || c >= 0x80 || c == '\n' || (c == '\r' && !pair) || i - start > 998)
			return false;
		if (pair)
			start = ++i + 1;
	}
	return len > 0 && start == len;
}

static const char *
domain_of(const char *address)
{
	const char *at = strrchr(address, '@');
	return at != NULL ? at + 1 : address;
}

static void
append_head(const Dsn *dsn)
{
	const DsnInput *input = dsn->input;
	GString *out = dsn->out;
	append_field(dsn, "From", "Mail Delivery Subsystem <", input->mailer_daemon);
	g_string_insert(out, (gssize)out->len - 2, ">");
	append_field(dsn, "To", "<", input->to);
	g_string_insert(out, (gssize)out->len - 2, ">");
	append_date(out, "Date", input->now);
	g_string_append_printf(out, "Message-ID: <%s@%s>\r\n", input->unique,
			       domain_of(input->mailer_daemon));
	g_string_append_printf(out, "Subject: Delivery Status Notification (%s)\r\n",
			       actions[input->action].subject);
	if (input->header != NULL) {
		g_autofree char *id = original_id(input);
		if (id != NULL)
			g_string_append_printf(out, "In-Reply-To: %s\r\nReferences: %s\r\n", id,
					       id);
	}
	g_string_append_printf(out,
			       "Auto-Submitted: auto-replied\r\n"
			       "MIME-Version: 1.0\r\n"
			       "Content-Type: multipart/report; report-type=%s;\r\n"
			       "\tboundary=\"=_%s\"\r\n%s\r\n",
			       dsn->utf8 ? "global-delivery-status" : "delivery-status",
			       input->unique,
			       dsn->utf8 ? "Content-Transfer-Encoding: 8bit\r\n" : "");
}

static void
append_part(const Dsn *dsn, const char *type)
{
	g_string_append_printf(dsn->out, "--=_%s\r\nContent-Type: %s\r\n%s\r\n", dsn->input->unique,
			       type, dsn->utf8 ? "Content-Transfer-Encoding: 8bit\r\n" : "");
}

static void
append_text(const Dsn *dsn)
{
	const DsnInput *input = dsn->input;
	GString *out = dsn->out;
	g_string_append_printf(out, "%s\r\n\r\n    ", actions[input->action].text);
	append_clean(dsn, input->rcpt, DIAGNOSTIC_MAX);
	g_string_append_printf(out, "\r\n\r\nThe last answer was:\r\n\r\n    %d ", input->code);
	append_clean(dsn, input->text, DIAGNOSTIC_MAX);
	if (input->action == DSN_DELAYED)
		g_string_append(out, "\r\n\r\nThis is a warning only: it will be tried again, and "
				     "you need not send it again.");
	else if (input->action == DSN_RELAYED)
		g_string_append(out, "\r\n\r\nThat host sends no notifications of delivery, so "
				     "this is the last one.");
	else if (input->code / 100 == 4)
		g_string_append(out, "\r\n\r\nIt was tried for as long as the settings here allow, "
				     "and will not be tried again.");
	g_string_append(out, "\r\n\r\n");
}

static size_t
digits(const char *text)
{
	return strspn(text, "0123456789");
}

void
dsn_status(int code, const char *text, DsnAction action, char out[DSN_STATUS_MAX])
{
	bool good = action == DSN_RELAYED || action == DSN_DELIVERED;
	bool delayed = action == DSN_DELAYED;
	int class = good ? 2 : code / 100 == 4 || delayed ? 4 : 5;
	g_snprintf(out, DSN_STATUS_MAX, "%d.%s", class, class == 4 && !delayed ? "4.7" : "0.0");
	if (class == 4 && !delayed)
		return;
	/* class "." 1*3digit "." 1*3digit, then no more of it */
	if (text[0] != '0' + class || text[1] != '.')
		return;
	size_t subject = digits(text + 2);
	if (subject < 1 || subject > 3 || text[2 + subject] != '.')
		return;
	size_t detail = digits(text + 3 + subject);
	char after = text[3 + subject + detail];
	if (detail < 1 || detail > 3 || g_ascii_isalnum(after) || after == '.')
		return;
	g_snprintf(out, DSN_STATUS_MAX, "%.*s", (int)(3 + subject + detail), text);
}

static void
append_status(const Dsn *dsn)
{
	const DsnInput *input = dsn->input;
	GString *out = dsn->out;
	char status[DSN_STATUS_MAX];
	dsn_status(input->code, input->text, input->action, status);
	if (input->envid != NULL)
		append_field(dsn, "Original-Envelope-Id", "", input->envid);
	g_string_append_printf(out, "Reporting-MTA: dns; %s\r\n", domain_of(input->mailer_daemon));
	append_date(out, "Arrival-Date", input->arrival);
	g_string_append(out, "\r\n");
	if (input->orcpt != NULL)
		append_field(dsn, "Original-Recipient", "", input->orcpt);
	append_final_recipient(dsn);
	g_string_append_printf(out, "Action: %s\r\n", actions[input->action].name);
	g_string_append_printf(out, "Status: %s\r\n", status);
	g_autofree char *code = g_strdup_printf("smtp; %d ", input->code);
	append_field(dsn, "Diagnostic-Code", code, input->text);
	append_date(out, "Last-Attempt-Date", input->now);
	if (input->action == DSN_DELAYED && input->retry_until != 0)
		append_date(out, "Will-Retry-Until", input->retry_until);
	g_string_append(out, "\r\n");
}

/* The original's header as it was, but for lines that no legal message may have and for bytes that
 * this one may not have. */
static void
append_original(const Dsn *dsn)
{
	const DsnInput *input = dsn->input;
	const size_t len = MIN(input->header_len, (size_t)DSN_HEADERS_MAX);
	const char *end = input->header + len;
	const bool keep = dsn->utf8 && g_utf8_validate(input->header, (gssize)len, NULL);
	for (const char *line = input->header; line != NULL && line < end;) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));
		size_t size = (size_t)((stop != NULL ? stop : end) - line);
		if (size > 0 && line[size - 1] == '\r')
			size--;
		size_t cut = MIN(size, (size_t)ORIGINAL_LINE_MAX);
		while (keep && cut < size && ((unsigned char)line[cut] & 0xc0) == 0x80)
			cut--; /* characters are not split */
		for (size_t i = 0; i < cut; i++) {
			bool bad = line[i] == '\r' || line[i] == '\0' ||
				   ((unsigned char)line[i] >= 0x80 && !keep);
			g_string_append_c(dsn->out, bad ? '?' : line[i]);
		}
		g_string_append(dsn->out, "\r\n");
		line = stop != NULL ? stop + 1 : NULL;
	}
}

GString *
dsn_build(const DsnInput *input)
{
	const Dsn dsn = {.input = input,
			 .out = g_string_new(NULL),
			 .utf8 = !is_ascii(input->to, strlen(input->to))};
	append_head(&dsn);
	append_part(&dsn, dsn.utf8 ? "text/plain; charset=utf-8" : "text/plain; charset=us-ascii");
	append_text(&dsn);
	append_part(&dsn, dsn.utf8 ? "message/global-delivery-status" : "message/delivery-status");
	append_status(&dsn);
	if (input->full != NULL)
		append_part(&dsn, "message/rfc822");
	else
		append_part(&dsn, dsn.utf8 ? "message/global-headers" : "text/rfc822-headers");
	if (input->full != NULL)
		g_string_append_len(dsn.out, input->full, (gssize)input->full_len);
	else if (input->header != NULL)
		append_original(&dsn);
	g_string_append_printf(dsn.out, "\r\n--=_%s--\r\n", input->unique);
	return dsn.out;
}
