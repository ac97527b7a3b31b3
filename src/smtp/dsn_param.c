/* SPDX-License-Identifier: Apache-2.0 */
#include "smtp/dsn_param.h"

#include <glib.h>
#include <string.h>

#include "base/text.h"

static bool
is_upper_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F');
}

char *
smtp_xtext_decode(const char *text)
{
	GString *out = g_string_new(NULL);
	bool ok = true;
	for (const char *p = text; ok && *p != '\0'; p++) {
		if (*p != '+') {
			ok = *p >= 0x21 && *p <= 0x7e && *p != '=';
			g_string_append_c(out, *p);
			continue;
		}
		ok = is_upper_hex(p[1]) && is_upper_hex(p[2]);
		if (!ok)
			break;
		int value = g_ascii_xdigit_value(p[1]) * 16 + g_ascii_xdigit_value(p[2]);
		ok = value >= 0x20 && value <= 0x7e;
		g_string_append_c(out, (char)value);
		p += 2;
	}
	return g_string_free(out, !ok);
}

bool
smtp_xtext_is_valid(const char *text)
{
	g_autofree char *value = smtp_xtext_decode(text);
	return value != NULL;
}

/* RFC 6533 3: utf-8-addr-xtext and utf-8-addr-unitext; a loose check, since the value is only
 * carried on: printable, no "=", and "+" and "\" as the grammar's escapes begin. */
static bool
is_utf8_address(const char *text)
{
	if (!g_utf8_validate(text, -1, NULL))
		return false;
	for (const char *p = text; *p != '\0'; p++) {
		if ((unsigned char)*p <= 0x20 || *p == 0x7f || *p == '=')
			return false;
		if (*p == '\\' && (p[1] != 'x' || p[2] != '{'))
			return false;
	}
	return true;
}

static bool
is_orcpt(const char *value)
{
	const char *semicolon = strchr(value, ';');
	if (semicolon == NULL || semicolon == value || semicolon[1] == '\0' ||
	    strlen(value) > SMTP_DSN_ORCPT_MAX)
		return false;
	for (const char *p = value; p < semicolon; p++) {
		if (!g_ascii_isalnum(*p) && *p != '-')
			return false;
	}
	if (semicolon - value == 5 && g_ascii_strncasecmp(value, "utf-8", 5) == 0)
		return is_utf8_address(semicolon + 1);
	return smtp_xtext_is_valid(semicolon + 1);
}

/* False when it is malformed. */
static bool
read_notify(const char *value, unsigned *ret_bits)
{
	static const char *const names[] = {"SUCCESS", "FAILURE", "DELAY"};
	unsigned seen = 0;
	if (text_equal_nocase(value, "NEVER")) {
		*ret_bits = 0;
		return true;
	}
	g_auto(GStrv) words = g_strsplit(value, ",", 5);
	for (unsigned i = 0; words[i] != NULL; i++) {
		unsigned bit = 0;
		for (unsigned j = 0; j < G_N_ELEMENTS(names); j++)
			bit |= text_equal_nocase(words[i], names[j]) ? 1U << j : 0;
		if (bit == 0 || (seen & bit) != 0)
			return false;
		seen |= bit;
	}
	if (seen != 0)
		*ret_bits = seen;
	return seen != 0;
}

static bool
is_notify(const char *value)
{
	unsigned bits = 0;
	return read_notify(value, &bits);
}

static SmtpDsnParam
verdict(bool ok)
{
	return ok ? SMTP_DSN_OK : SMTP_DSN_BAD;
}

SmtpDsnParam
smtp_dsn_mail_param(const char *keyword, const char *value)
{
	if (text_equal_nocase(keyword, "RET"))
		return verdict(text_equal_nocase(value, "FULL") ||
			       text_equal_nocase(value, "HDRS"));
	if (text_equal_nocase(keyword, "ENVID"))
		return verdict(value != NULL && value[0] != '\0' &&
			       strlen(value) <= SMTP_DSN_ENVID_MAX && smtp_xtext_is_valid(value));
	return SMTP_DSN_OTHER;
}

SmtpDsnParam
smtp_dsn_rcpt_param(const char *keyword, const char *value)
{
	if (text_equal_nocase(keyword, "NOTIFY"))
		return verdict(value != NULL && is_notify(value));
	if (text_equal_nocase(keyword, "ORCPT"))
		return verdict(value != NULL && is_orcpt(value));
	return SMTP_DSN_OTHER;
}

/* ---- of a mailbox ---- */

unsigned
smtp_dsn_notify(const Mailbox *to)
{
	unsigned bits = SMTP_NOTIFY_FAILURE | SMTP_NOTIFY_DELAY;
	const EsmtpParam *param = mailbox_param(to, "NOTIFY");
	if (param != NULL && param->value != NULL)
		(void)read_notify(param->value, &bits);
	return bits;
}

bool
smtp_dsn_wants_full(const Mailbox *from)
{
	const EsmtpParam *param = mailbox_param(from, "RET");
	return param != NULL && text_equal_nocase(param->value, "FULL");
}

char *
smtp_dsn_envid(const Mailbox *from)
{
	const EsmtpParam *param = mailbox_param(from, "ENVID");
	bool good = param != NULL &&
		    smtp_dsn_mail_param(param->keyword, param->value) == SMTP_DSN_OK;
	return good ? smtp_xtext_decode(param->value) : NULL;
}

char *
smtp_dsn_orcpt(const Mailbox *to)
{
	const EsmtpParam *param = mailbox_param(to, "ORCPT");
	if (param == NULL || param->value == NULL || !is_orcpt(param->value))
		return NULL;
	const char *address = strchr(param->value, ';') + 1;
	g_autofree char *decoded = smtp_xtext_decode(address);
	/* of type utf-8 it may stand there as it is */
	return g_strdup_printf("%.*s%s", (int)(address - param->value), param->value,
			       decoded != NULL ? decoded : address);
}
