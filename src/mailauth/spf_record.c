/* SPDX-License-Identifier: Apache-2.0 */
/* RFC 7208 4.6.1:
 *
 *      record       = "v=spf1" *( 1*SP ( directive / modifier ) ) *SP
 *      directive    = [ "+" / "-" / "?" / "~" ] mechanism
 *      mechanism    = all / include / a / mx / ptr / ip4 / ip6 / exists
 *      modifier     = redirect / explanation / unknown-modifier
 *      name         = ALPHA *( ALPHA / DIGIT / "-" / "_" / "." ) */
#include <arpa/inet.h>
#include <string.h>

#include "base/text.h"
#include "mailauth/spf_int.h"

#define VERSION     "v=spf1"
#define VERSION_LEN 6

typedef enum SpecUse { SPEC_NONE, SPEC_MAY, SPEC_MUST } SpecUse;

static const struct {
	const char *name;
	SpfTermKind kind;
	SpecUse spec;
	bool cidr;
} mechanisms[] = {
	{"all", SPF_TERM_ALL, SPEC_NONE, false}, {"include", SPF_TERM_INCLUDE, SPEC_MUST, false},
	{"a", SPF_TERM_A, SPEC_MAY, true},       {"mx", SPF_TERM_MX, SPEC_MAY, true},
	{"ptr", SPF_TERM_PTR, SPEC_MAY, false},  {"ip4", SPF_TERM_IP4, SPEC_MUST, false},
	{"ip6", SPF_TERM_IP6, SPEC_MUST, false}, {"exists", SPF_TERM_EXISTS, SPEC_MUST, false},
};

bool
spf_record_is(const char *text)
{
	return g_ascii_strncasecmp(text, VERSION, VERSION_LEN) == 0 &&
	       (text[VERSION_LEN] == ' ' || text[VERSION_LEN] == '\0');
}

static bool
name_equals(const char *name, size_t len, const char *want)
{
	return strlen(want) == len && g_ascii_strncasecmp(name, want, len) == 0;
}

static bool
is_name(const char *name, size_t len)
{
	if (len == 0 || !g_ascii_isalpha(name[0]))
		return false;
	for (size_t i = 1; i < len; i++)
		if (!g_ascii_isalnum(name[i]) && strchr("-_.", name[i]) == NULL)
			return false;
	return true;
}

/* "0" / %x31-39 0*2DIGIT */
static bool
read_bits(const char *text, size_t len, unsigned max, unsigned *ret_bits)
{
	uint64_t value;
	if (len == 0 || (text[0] == '0' && len > 1) || !text_parse_u64(text, len, max, &value))
		return false;
	*ret_bits = (unsigned)value;
	return true;
}

/* Where the digits begin that `text` ends in, if "/" stands before them; else `len`. */
static size_t
digits_at_end(const char *text, size_t len)
{
	size_t at = len;
	while (at > 0 && g_ascii_isdigit(text[at - 1]))
		at--;
	return at < len && at > 0 && text[at - 1] == '/' ? at : len;
}

/* dual-cidr-length = [ "/" ip4-cidr ] [ "//" ip6-cidr ], cut off the end of text. */
static bool
cut_dual_cidr(const char *text, size_t *len, SpfTerm *term)
{
	size_t at = digits_at_end(text, *len);
	if (at < *len && at >= 2 && text[at - 2] == '/') {
		if (!read_bits(text + at, *len - at, 128, &term->bits6))
			return false;
		*len = at - 2;
		at = digits_at_end(text, *len);
	}
	if (at < *len) {
		if (!read_bits(text + at, *len - at, 32, &term->bits4))
			return false;
		*len = at - 1;
	}
	return true;
}

/* ip4 = "ip4" ":" ip4-network [ "/" length ], ip6 alike. */
static bool
read_network(SpfTerm *term, const char *text, size_t len)
{
	bool v6 = term->kind == SPF_TERM_IP6;
	char literal[INET6_ADDRSTRLEN];
	size_t at = digits_at_end(text, len);
	if (at < len) {
		if (!read_bits(text + at, len - at, v6 ? 128 : 32,
			       v6 ? &term->bits6 : &term->bits4))
			return false;
		len = at - 1;
	}
	if (len == 0 || len >= sizeof(literal))
		return false;
	memcpy(literal, text, len);
	literal[len] = '\0';
	return inet_pton(v6 ? AF_INET6 : AF_INET, literal, term->addr) == 1;
}

static bool
read_mechanism(SpfTerm *term, const char *name, size_t name_len, const char *rest, size_t len)
{
	size_t i = 0;
	while (i < G_N_ELEMENTS(mechanisms) && !name_equals(name, name_len, mechanisms[i].name))
		i++;
	if (i == G_N_ELEMENTS(mechanisms))
		return false;
	term->kind = mechanisms[i].kind;
	if (mechanisms[i].cidr && !cut_dual_cidr(rest, &len, term))
		return false;
	if (len == 0)
		return mechanisms[i].spec != SPEC_MUST;
	if (rest[0] != ':' || len == 1 || mechanisms[i].spec == SPEC_NONE)
		return false;
	if (term->kind == SPF_TERM_IP4 || term->kind == SPF_TERM_IP6)
		return read_network(term, rest + 1, len - 1);
	term->spec = rest + 1;
	term->spec_len = len - 1;
	return spf_domain_spec_ok(term->spec, term->spec_len);
}

static bool
read_modifier(SpfTerm *term, const char *name, size_t name_len, const char *value, size_t len)
{
	if (!is_name(name, name_len))
		return false;
	term->spec = value;
	term->spec_len = len;
	if (name_equals(name, name_len, "redirect"))
		term->kind = SPF_TERM_REDIRECT;
	else if (name_equals(name, name_len, "exp"))
		term->kind = SPF_TERM_EXP;
	else
		return spf_macro_ok(value, len, false);
	return spf_domain_spec_ok(value, len);
}

SpfRead
spf_term_next(const char **cursor, SpfTerm *ret_term)
{
	const char *text = *cursor;
	if (text[0] != ' ' && text[0] != '\0') /* the first call: the version */
		text += VERSION_LEN;
	text += strspn(text, " ");
	*cursor = text;
	if (text[0] == '\0')
		return SPF_READ_END;
	size_t len = strcspn(text, " ");
	*cursor = text + len;
	SpfTerm term = {.kind = SPF_TERM_OTHER, .qualifier = '+', .text = text, .len = len};
	term.bits4 = 32;
	term.bits6 = 128;
	size_t name_len = 0;
	while (name_len < len && strchr(":/=", text[name_len]) == NULL)
		name_len++;
	bool ok;
	if (name_len < len && text[name_len] == '=') {
		ok = read_modifier(&term, text, name_len, text + name_len + 1, len - name_len - 1);
	} else {
		size_t skip = strchr("+-~?", text[0]) != NULL ? 1 : 0;
		if (skip > 0)
			term.qualifier = text[0];
		ok = read_mechanism(&term, text + skip, name_len - skip, text + name_len,
				    len - name_len);
	}
	*ret_term = term;
	return ok ? SPF_READ_TERM : SPF_READ_BAD;
}
