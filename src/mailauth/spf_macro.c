/* SPDX-License-Identifier: Apache-2.0 */
/* RFC 7208 7.1:
 *
 *      domain-spec   = macro-string domain-end
 *      domain-end    = ( "." toplabel [ "." ] ) / macro-expand
 *      macro-string  = *( macro-expand / macro-literal )
 *      macro-expand  = ( "%{" macro-letter transformers *delimiter "}" ) / "%%" / "%_" / "%-"
 *      macro-literal = %x21-24 / %x26-7E
 *      transformers  = *DIGIT [ "r" ] */
#include <arpa/inet.h>
#include <string.h>

#include "mailauth/spf.h"
#include "mailauth/spf_int.h"

#define DELIMITERS ".-+,/_="
#define EXPANDED_MAX                                                                               \
	8192 /* bytes kept while a domain is put together; the left end is cut anyway */

typedef struct Macro {
	char letter;   /* lower case; '%', '_', '-' for the three short ones */
	bool escape;   /* the letter was upper case */
	unsigned keep; /* parts from the right; 0: all */
	bool reverse;
	const char *delimiters;
	size_t n_delimiters;
	size_t len; /* of the whole macro */
} Macro;

/* One macro at the start of `text`, which begins with '%'. */
static bool
read_macro(const char *text, size_t len, bool explain, Macro *ret_macro)
{
	Macro macro = {.delimiters = ".", .n_delimiters = 1};
	if (len < 2)
		return false;
	if (text[1] != '{') {
		macro.letter = text[1];
		macro.len = 2;
		*ret_macro = macro;
		return strchr("%_-", text[1]) != NULL;
	}
	const char *end = memchr(text, '}', len);
	if (end == NULL || end == text + 2)
		return false;
	const char *at = text + 2;
	macro.letter = g_ascii_tolower(*at);
	macro.escape = g_ascii_isupper(*at++);
	if (strchr(explain ? "slodiphvcrt" : "slodiphv", macro.letter) == NULL)
		return false;
	bool digits = g_ascii_isdigit(*at);
	for (; g_ascii_isdigit(*at); at++)
		macro.keep = MIN(macro.keep * 10 + (unsigned)(*at - '0'), 1000);
	if (digits && macro.keep == 0)
		return false;
	if (*at == 'r' || *at == 'R') {
		macro.reverse = true;
		at++;
	}
	if (at < end) {
		macro.delimiters = at;
		macro.n_delimiters = (size_t)(end - at);
	}
	for (; at < end; at++)
		if (strchr(DELIMITERS, *at) == NULL)
			return false;
	macro.len = (size_t)(end - text) + 1;
	*ret_macro = macro;
	return true;
}

/* Reads through; *ret_tail: what follows the last macro. */
static bool
check(const char *text, size_t len, bool explain, size_t *ret_tail)
{
	*ret_tail = 0;
	for (size_t i = 0; i < len;) {
		unsigned char c = (unsigned char)text[i];
		Macro macro;
		if (c == '%') {
			if (!read_macro(text + i, len - i, explain, &macro))
				return false;
			i += macro.len;
			*ret_tail = i;
			continue;
		}
		if (c < (explain ? 0x20 : 0x21) || c > 0x7e)
			return false;
		i++;
	}
	return true;
}

bool
spf_macro_ok(const char *text, size_t len, bool explain)
{
	size_t tail;
	return check(text, len, explain, &tail);
}

/* toplabel: letters, digits, inner hyphens, and not digits alone. */
static bool
is_top_label(const char *text, size_t len)
{
	bool other = false;
	if (len == 0 || text[0] == '-' || text[len - 1] == '-')
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!g_ascii_isalnum(text[i]) && text[i] != '-')
			return false;
		other |= !g_ascii_isdigit(text[i]);
	}
	return other;
}

bool
spf_domain_spec_ok(const char *text, size_t len)
{
	size_t tail;
	if (len == 0 || !check(text, len, false, &tail))
		return false;
	if (tail == len)
		return true;
	text += tail;
	len -= tail;
	if (text[len - 1] == '.')
		len--;
	size_t top = len;
	while (top > 0 && text[top - 1] != '.')
		top--;
	return top > 0 && is_top_label(text + top, len - top);
}

bool
spf_macro_needs_name(const char *text, size_t len)
{
	for (size_t i = 0; i + 2 < len; i++) {
		if (text[i] != '%')
			continue;
		if (text[i + 1] == '{' && (text[i + 2] == 'p' || text[i + 2] == 'P'))
			return true;
		i++; /* "%%{p}" is no macro */
	}
	return false;
}

/* "1.2.3.4", or nibbles with dots between them. */
static void
append_ip_dotted(GString *out, const SpfMacros *m)
{
	if (!m->v6) {
		g_string_append_printf(out, "%u.%u.%u.%u", m->ip[0], m->ip[1], m->ip[2], m->ip[3]);
		return;
	}
	for (unsigned i = 0; i < 32; i++) {
		unsigned nibble = i % 2 == 0 ? m->ip[i / 2] >> 4 : m->ip[i / 2] & 15u;
		g_string_append_printf(out, i > 0 ? ".%x" : "%x", nibble);
	}
}

static void
append_value(GString *out, char letter, const SpfMacros *m)
{
	char literal[INET6_ADDRSTRLEN] = "";
	switch (letter) {
	case 's':
		g_string_append(out, m->sender);
		break;
	case 'l':
		g_string_append(out, m->local);
		break;
	case 'o':
		g_string_append(out, m->sender_domain);
		break;
	case 'd':
		g_string_append(out, m->domain);
		break;
	case 'i':
		append_ip_dotted(out, m);
		break;
	case 'p':
		g_string_append(out, m->client_name);
		break;
	case 'h':
		g_string_append(out, m->helo);
		break;
	case 'v':
		g_string_append(out, m->v6 ? "ip6" : "in-addr");
		break;
	case 'c':
		(void)inet_ntop(m->v6 ? AF_INET6 : AF_INET, m->ip, literal, sizeof(literal));
		g_string_append(out, literal);
		break;
	case 'r':
		g_string_append(out, m->receiver);
		break;
	default: /* 't' */
		g_string_append_printf(out, "%" G_GINT64_FORMAT, m->now);
	}
}

/* Splits at the delimiters, reverses, keeps so many from the right, joins with dots. */
static void
append_transformed(GString *out, const char *value, const Macro *macro)
{
	g_autoptr(GPtrArray) parts = g_ptr_array_new_with_free_func(g_free);
	const char *start = value;
	for (const char *at = value;; at++) {
		if (*at != '\0' && memchr(macro->delimiters, *at, macro->n_delimiters) == NULL)
			continue;
		g_ptr_array_add(parts, g_strndup(start, (size_t)(at - start)));
		start = at + 1;
		if (*at == '\0')
			break;
	}
	guint n = parts->len;
	guint first = macro->keep > 0 && macro->keep < n ? n - macro->keep : 0;
	for (guint i = first; i < n; i++) {
		guint index = macro->reverse ? n - 1 - i : i;
		if (i > first)
			g_string_append_c(out, '.');
		g_string_append(out, g_ptr_array_index(parts, index));
	}
}

static void
append_macro(GString *out, const Macro *macro, const SpfMacros *m)
{
	switch (macro->letter) {
	case '%':
		g_string_append_c(out, '%');
		return;
	case '_':
		g_string_append_c(out, ' ');
		return;
	case '-':
		g_string_append(out, "%20");
		return;
	default:
		break;
	}
	g_autoptr(GString) value = g_string_new(NULL);
	g_autoptr(GString) changed = g_string_new(NULL);
	append_value(value, macro->letter, m);
	append_transformed(changed, value->str, macro);
	for (gsize i = 0; i < changed->len; i++) {
		char c = changed->str[i];
		if (macro->escape && !g_ascii_isalnum(c) && strchr("-._~", c) == NULL)
			g_string_append_printf(out, "%%%02X", (unsigned char)c);
		else
			g_string_append_c(out, c);
	}
}

/* False when it becomes longer than `max`; with max 0 only the right end is kept. */
static bool
expand(GString *out, const char *text, size_t len, bool explain, size_t max, const SpfMacros *m)
{
	for (size_t i = 0; i < len;) {
		Macro macro;
		if (text[i] != '%') {
			g_string_append_c(out, text[i++]);
		} else {
			if (!read_macro(text + i, len - i, explain, &macro))
				return false;
			append_macro(out, &macro, m);
			i += macro.len;
		}
		if (max > 0 && out->len > max)
			return false;
		if (out->len > EXPANDED_MAX)
			g_string_erase(out, 0, (gssize)(out->len - EXPANDED_MAX / 2));
	}
	return true;
}

char *
spf_macro_domain(const char *text, size_t len, const SpfMacros *macros)
{
	GString *out = g_string_new(NULL);
	bool ok = expand(out, text, len, false, 0, macros);
	if (!ok)
		g_string_truncate(out, 0);
	if (out->len > 0 && out->str[out->len - 1] == '.')
		g_string_truncate(out, out->len - 1);
	/* 7.3: whole labels go from the left until it fits. */
	while (out->len > SPF_NAME_TEXT_MAX) {
		const char *dot = strchr(out->str, '.');
		if (dot == NULL)
			break;
		g_string_erase(out, 0, dot - out->str + 1);
	}
	return g_string_free(out, FALSE);
}

char *
spf_macro_explain(const char *text, const SpfMacros *macros)
{
	size_t len = strlen(text);
	g_autoptr(GString) out = g_string_new(NULL);
	if (!spf_macro_ok(text, len, true) ||
	    !expand(out, text, len, true, SPF_EXPLAIN_MAX, macros))
		return NULL;
	for (gsize i = 0; i < out->len; i++)
		if (out->str[i] < 0x20 || out->str[i] > 0x7e)
			return NULL; /* from the sender's address: 6.2 wants ASCII */
	return g_string_free(g_steal_pointer(&out), FALSE);
}
