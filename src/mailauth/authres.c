/* SPDX-License-Identifier: Apache-2.0 */
/*      authres-payload = [CFWS] authserv-id [ CFWS authres-version ] ( no-result / 1*resinfo ) ...
 *      authserv-id     = value = token / quoted-string */
#include "mailauth/authres.h"

#include <string.h>

#include "mime/addr.h"

struct AuthRes {
	GString *text;
	bool any;
};

static bool
is_token(const char *text)
{
	if (*text == '\0')
		return false;
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;
		if (c <= 0x20 || c >= 0x7f || strchr("()<>@,;:\\\"/[]?=", *text) != NULL)
			return false;
	}
	return true;
}

/* local@domain, both without anything special (RFC 8601 2.2, pvalue). */
static bool
is_plain_address(const char *text)
{
	const char *at = strrchr(text, '@');
	if (at == NULL || !is_token(at + 1))
		return false;
	for (const char *c = text; c < at; c++)
		if (*c != '.' && ((unsigned char)*c > 0x7e || !mime_is_atext((unsigned char)*c)))
			return false;
	return true;
}

static void
append_value(GString *out, const char *value)
{
	if (is_token(value) || is_plain_address(value)) {
		g_string_append(out, value);
		return;
	}
	g_string_append_c(out, '"');
	for (; *value != '\0'; value++) {
		if (*value == '"' || *value == '\\')
			g_string_append_c(out, '\\');
		g_string_append_c(out, *value);
	}
	g_string_append_c(out, '"');
}

static bool
can_be_said(const char *value)
{
	if (value == NULL || *value == '\0' || strlen(value) > AUTHRES_VALUE_MAX ||
	    !g_utf8_validate(value, -1, NULL))
		return false;
	for (; *value != '\0'; value++)
		if ((unsigned char)*value < 0x20 || *value == 0x7f)
			return false;
	return true;
}

char *
authres_value(const char *text)
{
	GString *out = g_string_new(NULL);
	append_value(out, text);
	return g_string_free(out, FALSE);
}

AuthRes *
authres_new(const char *id)
{
	AuthRes *res = g_new0(AuthRes, 1);
	res->text = g_string_new(AUTHRES_FIELD ": ");
	append_value(res->text, id);
	return res;
}

void
authres_add(AuthRes *res, const char *method, const char *result)
{
	g_string_append_printf(res->text, ";\r\n\t%s=%s", method, result);
	res->any = true;
}

void
authres_prop(AuthRes *res, const char *property, const char *value)
{
	if (!can_be_said(value))
		return;
	g_string_append_printf(res->text, "\r\n\t %s=", property);
	append_value(res->text, value);
}

char *
authres_end(AuthRes *res)
{
	g_string_append(res->text, res->any ? "\r\n" : "; none\r\n");
	char *text = g_string_free(res->text, FALSE);
	g_free(res);
	return text;
}

/* The authserv-id; NULL when it cannot be read. */
static char *
read_id(const char *text)
{
	if (!mime_skip_cfws(&text) || *text == '\0')
		return NULL;
	if (*text != '"') {
		size_t len = strcspn(text, " \t;(\"");
		return len > 0 ? g_strndup(text, len) : NULL;
	}
	g_autoptr(GString) id = g_string_new(NULL);
	for (text++; *text != '"'; text++) {
		if (*text == '\\')
			text++;
		if (*text == '\0')
			return NULL;
		g_string_append_c(id, *text);
	}
	return g_string_free(g_steal_pointer(&id), FALSE);
}

typedef enum Owner { OWNER_OTHER, OWNER_ID, OWNER_UNKNOWN } Owner;

static Owner
owner_of(const char *value, size_t len, const char *id)
{
	if (memchr(value, '\0', len) != NULL)
		return OWNER_UNKNOWN;
	g_autofree char *text = g_strndup(value, len);
	char *to = text;
	for (const char *from = text; *from != '\0'; from++) /* folds */
		if (*from != '\r' && *from != '\n')
			*to++ = *from;
	*to = '\0';
	g_autofree char *found = read_id(text);
	if (found == NULL)
		return OWNER_UNKNOWN;
	size_t end = strlen(found);
	while (end > 0 && found[end - 1] == '.')
		found[--end] = '\0';
	return g_ascii_strcasecmp(found, id) == 0 ? OWNER_ID : OWNER_OTHER;
}

bool
authres_is_of(const char *value, size_t len, const char *id)
{
	return owner_of(value, len, id) != OWNER_OTHER;
}

/* The first semicolon outside quoted strings and comments, or `len`. */
static size_t
find_semicolon(const char *value, size_t len)
{
	unsigned depth = 0;
	bool quoted = false;
	for (size_t i = 0; i < len; i++) {
		char c = value[i];
		if (c == '\\' && (quoted || depth > 0))
			i++;
		else if (c == '"' && depth == 0)
			quoted = !quoted;
		else if (c == '(' && !quoted)
			depth++;
		else if (c == ')' && depth > 0)
			depth--;
		else if (c == ';' && !quoted && depth == 0)
			return i;
	}
	return len;
}

char *
authres_results(const char *value, size_t len, const char *id)
{
	size_t at = owner_of(value, len, id) == OWNER_ID ? find_semicolon(value, len) : len;
	if (at == len)
		return NULL;
	g_autofree char *results = g_strstrip(g_strndup(value + at + 1, len - at - 1));
	if (*results == '\0' || g_ascii_strcasecmp(results, "none") == 0)
		return NULL;
	return g_steal_pointer(&results);
}
