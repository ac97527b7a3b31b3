/* SPDX-License-Identifier: Apache-2.0 */
#include "smtp/envelope.h"

#include <string.h>

#include "base/text.h"
#include "smtp/syntax.h"

/* ---- what the hop offers ---- */

static void
parse_size(const char *line, size_t len, SmtpCaps *caps)
{
	const char *arg = memchr(line, ' ', len);
	caps->size = true;
	if (arg == NULL)
		return;
	uint64_t max = 0;
	if (text_parse_u64(arg + 1, (size_t)(line + len - arg - 1), UINT64_MAX, &max))
		caps->size_max = max;
}

/* limits-param = limit-name-value 0*[SP limit-name-value], each NAME=number of at most six digits
 * (RFC 9422 3); what is malformed or unknown is left out (4). */
static void
parse_limit(const char *word, size_t len, SmtpCaps *caps)
{
	const char *equals = memchr(word, '=', len);
	uint64_t value = 0;
	if (equals == NULL ||
	    !text_parse_u64(equals + 1, (size_t)(word + len - equals - 1), 999999, &value) ||
	    value == 0)
		return;
	size_t name = (size_t)(equals - word);
	if (name == 7 && g_ascii_strncasecmp(word, "MAILMAX", name) == 0)
		caps->mail_max = (unsigned)value;
	else if (name == 7 && g_ascii_strncasecmp(word, "RCPTMAX", name) == 0)
		caps->rcpt_max = (unsigned)value;
}

static void
parse_limits(const char *line, size_t len, SmtpCaps *caps)
{
	const char *end = line + len, *word = line + strlen("LIMITS");
	while (word < end) {
		const char *stop = memchr(word, ' ', (size_t)(end - word));
		size_t n = (size_t)((stop != NULL ? stop : end) - word);
		parse_limit(word, n, caps);
		word += n + 1;
	}
}

/* "AUTH PLAIN LOGIN", and "AUTH=PLAIN LOGIN" as servers of old say it. */
static void
parse_auth(const char *line, size_t len, SmtpCaps *caps)
{
	const char *end = line + len, *word = line + 5;
	while (word < end) {
		const char *stop = memchr(word, ' ', (size_t)(end - word));
		size_t n = (size_t)((stop != NULL ? stop : end) - word);
		if (n == 5 && g_ascii_strncasecmp(word, "PLAIN", n) == 0)
			caps->auth_plain = true;
		else if (n == 5 && g_ascii_strncasecmp(word, "LOGIN", n) == 0)
			caps->auth_login = true;
		word += n + 1;
	}
}

static void
parse_keyword(const char *line, size_t word, size_t len, SmtpCaps *caps)
{
	const struct {
		const char *name;
		bool *flag;
	} table[] = {
		{"PIPELINING", &caps->pipelining},
		{"8BITMIME", &caps->eightbit},
		{"SMTPUTF8", &caps->smtputf8},
		{"STARTTLS", &caps->starttls},
		{"CHUNKING", &caps->chunking},
		{"BINARYMIME", &caps->binarymime},
		{"DSN", &caps->dsn},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
		if (strlen(table[i].name) == word &&
		    g_ascii_strncasecmp(line, table[i].name, word) == 0)
			*table[i].flag = true;
	}
	if (word == 4 && g_ascii_strncasecmp(line, "SIZE", 4) == 0)
		parse_size(line, len, caps);
	else if (word == 4 && len > 4 && g_ascii_strncasecmp(line, "AUTH", 4) == 0)
		parse_auth(line, len, caps);
	else if (word == 6 && g_ascii_strncasecmp(line, "LIMITS", 6) == 0)
		parse_limits(line, len, caps);
}

void
smtp_caps_parse(const char *text, SmtpCaps *ret_caps)
{
	GString *keywords = g_string_new("\n");
	*ret_caps = (SmtpCaps){0};
	const char *line = strchr(text, '\n');
	while (line != NULL) {
		line++;
		const char *end = strchr(line, '\n');
		size_t len = end != NULL ? (size_t)(end - line) : strlen(line);
		size_t word = strcspn(line, " =\n");
		for (size_t i = 0; i < word; i++)
			g_string_append_c(keywords, g_ascii_toupper(line[i]));
		g_string_append_c(keywords, '\n');
		parse_keyword(line, word, len, ret_caps);
		line = end;
	}
	ret_caps->keywords = g_string_free(keywords, FALSE);
}

void
smtp_caps_clear(SmtpCaps *caps)
{
	g_free(caps->keywords);
	*caps = (SmtpCaps){0};
}

bool
smtp_caps_has(const SmtpCaps *caps, const char *keyword)
{
	if (caps->keywords == NULL || strchr(keyword, '\n') != NULL)
		return false;
	g_autofree char *upper = g_ascii_strup(keyword, -1);
	g_autofree char *line = g_strconcat("\n", upper, "\n", NULL);
	return strstr(caps->keywords, line) != NULL;
}

/* ---- commands ---- */

static void
put_param(GString *out, const char *keyword, const char *value)
{
	g_string_append_c(out, ' ');
	g_string_append(out, keyword);
	if (value != NULL) {
		g_string_append_c(out, '=');
		g_string_append(out, value);
	}
}

/* 8bit text is not made 7bit for a hop that cannot take it: that would break signatures. */
static Response *
put_body_param(GString *out, const EsmtpParam *param, const SmtpCaps *caps, bool bdat)
{
	bool seven = text_equal_nocase(param->value, "7BIT");
	bool binary = text_equal_nocase(param->value, "BINARYMIME");
	if (param->value == NULL || (!seven && !smtp_caps_has(caps, param->value)) ||
	    (binary && !bdat))
		return response_newf(504, "body=%s and not advertised",
				     param->value != NULL ? param->value : "");
	/* 7BIT is what a hop without 8BITMIME takes anyway */
	if (!seven || caps->eightbit)
		put_param(out, param->keyword, param->value);
	return NULL;
}

static Response *
put_size_param(GString *out, const EsmtpParam *param, const SmtpCaps *caps, int64_t known)
{
	uint64_t size = 0;
	char text[32];
	if (known >= 0)
		size = (uint64_t)known;
	else if (param->value == NULL ||
		 !text_parse_u64(param->value, strlen(param->value), UINT64_MAX, &size))
		return response_new(501, "5.5.4 bad SIZE parameter");
	if (caps->size && caps->size_max > 0 && size > caps->size_max)
		return response_newf(504,
				     "size=%" G_GUINT64_FORMAT " > upstream %" G_GUINT64_FORMAT " ",
				     size, caps->size_max);
	if (!caps->size && size > SMTP_SIZE_UNASKED_MAX)
		return response_newf(504, "size=%" G_GUINT64_FORMAT ", not advertised upstream ",
				     size);
	g_snprintf(text, sizeof(text), "%" G_GUINT64_FORMAT, size);
	if (caps->size)
		put_param(out, param->keyword, text);
	return NULL;
}

/* RFC 3461: to a hop that does not know them the message goes without them (5.2.2). */
static bool
is_dsn_param(const char *keyword)
{
	return text_equal_nocase(keyword, "RET") || text_equal_nocase(keyword, "ENVID") ||
	       text_equal_nocase(keyword, "NOTIFY") || text_equal_nocase(keyword, "ORCPT");
}

static Response *
put_params(GString *out, const Mailbox *mailbox, const SmtpCaps *caps,
	   const SmtpMailOptions *options)
{
	for (size_t i = 0; i < mailbox->n_params; i++) {
		const EsmtpParam *param = &mailbox->params[i];
		Response *refusal = NULL;
		if (param->keyword == NULL || !smtp_param_is_sendable(param->keyword, param->value))
			return response_new(501, "5.5.4 bad ESMTP parameter");
		if (text_equal_nocase(param->keyword, "BODY"))
			refusal = put_body_param(out, param, caps, options->bdat);
		else if (text_equal_nocase(param->keyword, "SIZE"))
			refusal = put_size_param(out, param, caps, options->size);
		else if (smtp_caps_has(caps, param->keyword) ||
			 (caps->dsn && is_dsn_param(param->keyword)))
			put_param(out, param->keyword, param->value);
		else if (!is_dsn_param(param->keyword))
			refusal = response_newf(504,
						"smtp_endpoint: MAIL esmtp param not advertised "
						"by peer: %s",
						param->keyword);
		if (refusal != NULL)
			return refusal;
	}
	return NULL;
}

static Response *
put_path(GString *out, const char *command, const Mailbox *mailbox)
{
	if (!smtp_address_is_sendable(mailbox->addr))
		return response_new(501, "5.1.3 Bad mailbox address syntax");
	g_string_append(out, command);
	g_string_append(out, mailbox->addr);
	g_string_append_c(out, '>');
	return NULL;
}

static Response *
finish_line(GString *out, gsize start, Response *refusal)
{
	if (refusal != NULL)
		g_string_truncate(out, start);
	else
		g_string_append(out, "\r\n");
	return refusal;
}

Response *
smtp_envelope_mail(GString *out, const Mailbox *from, const SmtpCaps *caps,
		   const SmtpMailOptions *options)
{
	gsize start = out->len;
	if ((options->utf8 || address_needs_utf8(from->addr)) && !caps->smtputf8)
		return response_new(553,
				    "5.6.7 next hop does not take internationalized addresses");
	Response *refusal = put_path(out, "MAIL FROM:<", from);
	if (refusal == NULL)
		refusal = put_params(out, from, caps, options);
	if (refusal == NULL && (options->utf8 || address_needs_utf8(from->addr)) &&
	    mailbox_param(from, "SMTPUTF8") == NULL)
		put_param(out, "SMTPUTF8", NULL);
	return finish_line(out, start, refusal);
}

Response *
smtp_envelope_rcpt(GString *out, const Mailbox *to, const SmtpCaps *caps, bool utf8)
{
	gsize start = out->len;
	if (address_needs_utf8(to->addr) && !(utf8 && caps->smtputf8))
		return response_new(553,
				    "5.6.7 next hop does not take internationalized addresses");
	if (to->addr[0] == '\0')
		return response_new(501, "5.1.3 Bad mailbox address syntax");
	Response *refusal = put_path(out, "RCPT TO:<", to);
	if (refusal == NULL)
		refusal = put_params(out, to, caps, &(SmtpMailOptions){.size = -1});
	return finish_line(out, start, refusal);
}
