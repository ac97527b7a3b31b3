/* SPDX-License-Identifier: Apache-2.0 */
/* Reverse-path   = Path / "<>"              Path    = "<" [ A-d-l ":" ] Mailbox ">"
 * A-d-l          = At-domain *( "," At-domain )      At-domain = "@" Domain
 * Mailbox        = Local-part "@" ( Domain / address-literal )
 * Local-part     = Dot-string / Quoted-string        Dot-string = Atom *("." Atom)
 * Quoted-string  = DQUOTE *QcontentSMTP DQUOTE
 * QcontentSMTP   = %d32-33 / %d35-91 / %d93-126 / "\" %d32-126 / UTF8-non-ascii
 * Domain         = sub-domain *("." sub-domain)
 * esmtp-param    = esmtp-keyword ["=" 1*(%d33-60 / %d62-126 / UTF8-non-ascii)]
 * (RFC 5321 4.1.2, RFC 6531 3.3; an underscore in a domain is taken as well.) */
#include "smtp/syntax.h"

#include <string.h>

#include "base/net.h"
#include "base/text.h"

static bool
is_8bit(char c)
{
	return (unsigned char)c >= 0x80;
}

static bool
is_atext(char c)
{
	return g_ascii_isalnum(c) || is_8bit(c) ||
	       (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

static bool
is_label_char(char c)
{
	return g_ascii_isalnum(c) || c == '-' || c == '_' || is_8bit(c);
}

/* Well-formed UTF-8 without C1 controls; a NUL is refused as well. */
static bool
is_clean_utf8(const char *text, size_t len)
{
	if (!g_utf8_validate(text, (gssize)len, NULL))
		return false;
	for (size_t i = 0; i + 1 < len; i++) {
		if ((unsigned char)text[i] == 0xc2 && (unsigned char)text[i + 1] < 0xa0)
			return false;
	}
	return true;
}

static bool
has_8bit(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (is_8bit(text[i]))
			return true;
	}
	return false;
}

/* Other characters that resolvers of internationalised names take for a dot (RFC 3490 3.1): they
 * would make one domain look like another. */
static bool
has_other_dot(const char *p, const char *end)
{
	static const char *const dots[] = {"\xe3\x80\x82", "\xef\xbc\x8e", "\xef\xbd\xa1"};
	for (; p + 3 <= end; p++) {
		for (size_t i = 0; i < G_N_ELEMENTS(dots); i++) {
			if (memcmp(p, dots[i], 3) == 0)
				return true;
		}
	}
	return false;
}

/* Each scan_* returns the place behind what it read, or NULL. */
static const char *
scan_dot_string(const char *p, const char *end)
{
	for (;;) {
		const char *start = p;
		while (p < end && is_atext(*p))
			p++;
		if (p == start)
			return NULL;
		if (p == end || *p != '.')
			return p;
		p++;
	}
}

static const char *
scan_quoted(const char *p, const char *end)
{
	for (p++; p < end; p++) {
		if (*p == '"')
			return p + 1;
		if (*p == '\\' && (++p == end || is_8bit(*p)))
			return NULL;
		if (!is_8bit(*p) && (*p < 0x20 || *p == 0x7f))
			return NULL;
	}
	return NULL;
}

static const char *
scan_domain(const char *p, const char *end)
{
	const char *domain = p;
	for (;;) {
		const char *label = p;
		while (p < end && is_label_char(*p))
			p++;
		if (p == label || p - label > SMTP_LABEL_MAX || *label == '-' || p[-1] == '-')
			return NULL;
		if (p == end || *p != '.')
			return has_other_dot(domain, p) ? NULL : p;
		p++;
	}
}

static const char *
scan_literal(const char *p, const char *end)
{
	char text[NET_ADDR_TEXT_MAX];
	NetAddr addr;
	const char *close = memchr(p, ']', (size_t)(end - p));
	if (close == NULL)
		return NULL;
	p++;
	bool v6 = close - p > 5 && g_ascii_strncasecmp(p, "IPv6:", 5) == 0;
	if (v6)
		p += 5;
	if (close == p || (size_t)(close - p) >= sizeof(text))
		return NULL;
	memcpy(text, p, (size_t)(close - p));
	text[close - p] = '\0';
	if (strlen(text) !=
	    (size_t)(close - p)) /* what stands behind a NUL would not be looked at */
		return NULL;
	if ((strchr(text, ':') != NULL) != v6 || !net_addr_parse(text, 0, &addr))
		return NULL;
	return close + 1;
}

/* How long a run of domain characters is, also when it is no good domain. */
static size_t
domain_span(const char *p, const char *end)
{
	const char *start = p;
	while (p < end && (is_label_char(*p) || *p == '.'))
		p++;
	return (size_t)(p - start);
}

typedef enum MailboxForm { MAILBOX_FULL, MAILBOX_BARE_LOCAL_TOO } MailboxForm;

static SmtpPathResult
scan_mailbox(const char *p, const char *end, MailboxForm form, const char **ret_end)
{
	const char *at = p < end && *p == '"' ? scan_quoted(p, end) : scan_dot_string(p, end);
	if (at == NULL)
		return SMTP_PATH_ADDRESS;
	if (at - p > SMTP_LOCAL_MAX)
		return SMTP_PATH_LOCAL_LONG;
	if (at == end || *at != '@') {
		if (form != MAILBOX_BARE_LOCAL_TOO)
			return SMTP_PATH_ADDRESS;
		*ret_end = at;
		return SMTP_PATH_OK;
	}
	const char *domain = at + 1;
	if (domain_span(domain, end) > SMTP_DOMAIN_MAX)
		return SMTP_PATH_DOMAIN_LONG;
	const char *stop = domain < end && *domain == '[' ? scan_literal(domain, end)
							  : scan_domain(domain, end);
	if (stop == NULL)
		return SMTP_PATH_ADDRESS;
	*ret_end = stop;
	return SMTP_PATH_OK;
}

/* "@a,@b:" in front of a mailbox: accepted and dropped (RFC 5321 4.1.1.3, appendix C).  NULL when
 * it is malformed; `p` itself when there is none. */
static const char *
skip_source_route(const char *p, const char *end)
{
	while (p < end && *p == '@') {
		p = scan_domain(p + 1, end);
		if (p == NULL || p == end)
			return NULL;
		if (*p == ':')
			return p + 1;
		if (*p++ != ',' || p == end || *p != '@')
			return NULL;
	}
	return p;
}

static bool
is_postmaster(const char *p, const char *end)
{
	return end - p == 10 && g_ascii_strncasecmp(p, "postmaster", 10) == 0;
}

/* Reads the path at `p`; *ret_addr .. *ret_addr_end is the address, *ret_end what follows. */
static SmtpPathResult
scan_path(const char *p, const char *end, SmtpPathKind kind, const char **ret_addr,
	  const char **ret_addr_end, const char **ret_end)
{
	bool bracket = p < end && *p == '<';
	const char *addr_end = NULL;
	if (bracket)
		p++;
	if (kind == SMTP_PATH_MAIL && bracket && p < end && *p == '>') {
		*ret_addr = *ret_addr_end = p;
		*ret_end = p + 1;
		return SMTP_PATH_OK;
	}
	p = skip_source_route(p, end);
	if (p == NULL)
		return SMTP_PATH_ADDRESS;
	SmtpPathResult result = scan_mailbox(p, end, MAILBOX_BARE_LOCAL_TOO, &addr_end);
	if (result != SMTP_PATH_OK)
		return result;
	bool full = memchr(p, '@', (size_t)(addr_end - p)) != NULL && addr_end[-1] != '"';
	if (!full && !(kind == SMTP_PATH_RCPT && is_postmaster(p, addr_end)))
		return SMTP_PATH_ADDRESS;
	if (bracket && (addr_end == end || *addr_end != '>'))
		return SMTP_PATH_ADDRESS;
	*ret_addr = p;
	*ret_addr_end = addr_end;
	*ret_end = addr_end + (bracket ? 1 : 0);
	return SMTP_PATH_OK;
}

static const char *
scan_keyword(const char *p, const char *end)
{
	if (p == end || !g_ascii_isalnum(*p))
		return NULL;
	while (p < end && (g_ascii_isalnum(*p) || *p == '-'))
		p++;
	return p;
}

static const char *
scan_value(const char *p, const char *end)
{
	const char *start = p;
	while (p < end && ((*p > 0x20 && *p < 0x7f && *p != '=') || is_8bit(*p)))
		p++;
	return p == start ? NULL : p;
}

/* Cuts the parameters at `p` into strings, in place.  False when one is malformed. */
static bool
cut_params(char *p, char *end, EsmtpParam *params, size_t *ret_count)
{
	size_t count = 0;
	while (p < end) {
		if (*p == ' ') {
			*p++ = '\0';
			continue;
		}
		if (count == SMTP_PARAMS_MAX)
			return false;
		EsmtpParam *param = &params[count];
		*param = (EsmtpParam){p, NULL};
		p = (char *)scan_keyword(p, end);
		if (p == NULL)
			return false;
		if (p < end && *p == '=') {
			*p++ = '\0';
			param->value = p;
			p = (char *)scan_value(p, end);
			if (p == NULL)
				return false;
		}
		if (p < end && *p != ' ')
			return false;
		count++;
	}
	*ret_count = count;
	return true;
}

static bool
has_duplicates(const EsmtpParam *params, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < i; j++) {
			if (text_equal_nocase(params[i].keyword, params[j].keyword))
				return true;
		}
	}
	return false;
}

static bool
utf8_asked(const EsmtpParam *params, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (text_equal_nocase(params[i].keyword, "SMTPUTF8"))
			return true;
	}
	return false;
}

SmtpPathResult
smtp_parse_path(const char *arg, size_t len, SmtpPathKind kind, bool utf8, Mailbox **ret_mailbox)
{
	const char *prefix = kind == SMTP_PATH_MAIL ? "FROM:" : "TO:";
	size_t prefix_len = strlen(prefix);
	const char *addr, *addr_end, *rest;
	EsmtpParam params[SMTP_PARAMS_MAX];
	size_t n_params = 0;

	if (len < prefix_len || g_ascii_strncasecmp(arg, prefix, prefix_len) != 0)
		return SMTP_PATH_SYNTAX;
	bool wide = has_8bit(arg, len);
	if (wide && !is_clean_utf8(arg, len))
		return SMTP_PATH_ADDRESS;
	const char *p = arg + prefix_len, *end = arg + len;
	while (p < end && *p == ' ')
		p++;
	if (p == end)
		return SMTP_PATH_SYNTAX;
	SmtpPathResult result = scan_path(p, end, kind, &addr, &addr_end, &rest);
	if (result != SMTP_PATH_OK)
		return result;
	if (rest < end && *rest != ' ')
		return *addr_end == '>' ? SMTP_PATH_SYNTAX : SMTP_PATH_ADDRESS;

	g_autofree char *address = g_strndup(addr, (size_t)(addr_end - addr));
	size_t rest_len = (size_t)(end - rest);
	g_autofree char *copy = rest_len > 0 ? g_strndup(rest, rest_len) : NULL;
	if (rest_len > 0 && !cut_params(copy, copy + rest_len, params, &n_params))
		return SMTP_PATH_PARAMS;
	if (has_duplicates(params, n_params))
		return SMTP_PATH_PARAMS;
	if (wide && (!utf8 || (kind == SMTP_PATH_MAIL && !utf8_asked(params, n_params))))
		return SMTP_PATH_UTF8;
	*ret_mailbox = mailbox_new(address, n_params > 0 ? params : NULL, n_params);
	return SMTP_PATH_OK;
}

bool
smtp_address_is_sendable(const char *addr)
{
	size_t len = strlen(addr);
	const char *stop = NULL;
	if (len == 0)
		return true;
	if (has_8bit(addr, len) && !is_clean_utf8(addr, len))
		return false;
	return scan_mailbox(addr, addr + len, MAILBOX_BARE_LOCAL_TOO, &stop) == SMTP_PATH_OK &&
	       stop == addr + len;
}

bool
smtp_param_is_sendable(const char *keyword, const char *value)
{
	const char *end = keyword + strlen(keyword);
	if (scan_keyword(keyword, end) != end)
		return false;
	if (value == NULL)
		return true;
	end = value + strlen(value);
	return scan_value(value, end) == end && is_clean_utf8(value, (size_t)(end - value));
}

bool
smtp_hello_name_is_valid(const char *name, size_t len)
{
	if (len == 0 || len > SMTP_DOMAIN_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (name[i] <= 0x20 || name[i] >= 0x7f || strchr("()<>\"\\,;", name[i]) != NULL)
			return false;
	}
	return true;
}
