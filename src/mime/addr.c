/* SPDX-License-Identifier: Apache-2.0 */
/* A cursor over NUL-terminated text; each take_* moves it over one production.  Nothing here
 * recurses: comments are counted. */
#include "mime/addr.h"

#include <string.h>

bool
mime_is_atext(unsigned char c)
{
	return g_ascii_isalnum((char)c) || c >= 0x80 ||
	       (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", (char)c) != NULL);
}

bool
mime_skip_cfws(const char **cursor)
{
	const char *p = *cursor;
	unsigned depth = 0;
	for (; *p != '\0'; p++) {
		if (*p == '(')
			depth++;
		else if (depth > 0 && *p == ')')
			depth--;
		else if (depth > 0 && *p == '\\' && p[1] != '\0')
			p++;
		else if (depth == 0 && *p != ' ' && *p != '\t')
			break;
	}
	*cursor = p;
	return depth == 0;
}

/* Moves over a quoted-string; its content, unescaped, goes to `out` (may be NULL). */
static bool
take_quoted(const char **cursor, GString *out)
{
	const char *p = *cursor + 1;
	for (; *p != '\0' && *p != '"'; p++) {
		if (*p == '\\' && p[1] != '\0')
			p++;
		if (out != NULL)
			g_string_append_c(out, *p);
	}
	*cursor = *p == '"' ? p + 1 : p;
	return *p == '"';
}

static bool
take_dot_atom(const char **cursor)
{
	const char *p = *cursor;
	for (;;) {
		const char *start = p;
		while (mime_is_atext((unsigned char)*p))
			p++;
		if (p == start)
			return false;
		if (*p != '.')
			break;
		p++;
	}
	*cursor = p;
	return true;
}

static bool
take_domain(const char **cursor)
{
	if (**cursor != '[')
		return take_dot_atom(cursor);
	const char *p = *cursor + 1;
	while (*p > 0x20 && *p < 0x7f && *p != '[' && *p != ']' && *p != '\\')
		p++;
	if (*p != ']')
		return false;
	*cursor = p + 1;
	return true;
}

/* White space and comments may stand around the '@' when `spaced`; *ret_addr (may be NULL) has
 * none. */
static const char *
take_addr_spec(const char **cursor, bool spaced, char **ret_addr)
{
	const char *p = *cursor;
	if (*p == '"') {
		if (!take_quoted(&p, NULL))
			return "quoted string without end";
	} else if (!take_dot_atom(&p)) {
		return "bad local part";
	}
	const char *local_end = p;
	if (spaced && !mime_skip_cfws(&p))
		return "comment without end";
	if (*p != '@')
		return "address without domain";
	p++;
	if (spaced && !mime_skip_cfws(&p))
		return "comment without end";
	const char *domain = p;
	if (!take_domain(&p))
		return "bad domain";
	if (ret_addr != NULL)
		*ret_addr = g_strdup_printf("%.*s@%.*s", (int)(local_end - *cursor), *cursor,
					    (int)(p - domain), domain);
	*cursor = p;
	return NULL;
}

bool
mime_addr_spec_ok(const char *text)
{
	return take_addr_spec(&text, false, NULL) == NULL && *text == '\0';
}

static void
addr_free(gpointer data)
{
	MimeAddr *a = (MimeAddr *)data;
	g_free(a->name);
	g_free(a->addr);
	g_free(a);
}

/* `addr` is moved. */
static void
add_addr(MimeAddrs *out, const char *name, char *addr)
{
	MimeAddr *a = g_new0(MimeAddr, 1);
	a->name = g_strdup(name != NULL ? name : "");
	a->no_name = name == NULL;
	a->addr = addr;
	g_ptr_array_add(out->list, a);
}

/* Words up to '<', ':' or a delimiter.  *ret_words 0: there was none. */
static const char *
take_phrase(const char **cursor, GString *out, unsigned *ret_words)
{
	const char *fault = NULL;
	*ret_words = 0;
	for (;;) {
		const char *before = *cursor;
		if (!mime_skip_cfws(cursor))
			return "comment without end";
		const char *p = *cursor;
		bool word = *p == '"' || *p == '.' || mime_is_atext((unsigned char)*p);
		if (!word)
			return fault;
		if (*ret_words > 0 && p != before)
			g_string_append_c(out, ' ');
		if (*p == '"') {
			if (!take_quoted(cursor, out))
				return "quoted string without end";
		} else {
			while (*p == '.' || mime_is_atext((unsigned char)*p)) {
				if (*p == '.')
					fault = "period in an unquoted name";
				p++;
			}
			g_string_append_len(out, *cursor, p - *cursor);
			*cursor = p;
		}
		++*ret_words;
	}
}

/* "<" addr-spec ">" */
static const char *
take_angle(const char **cursor, const char *name, MimeAddrs *out)
{
	++*cursor;
	if (!mime_skip_cfws(cursor))
		return "comment without end";
	if (**cursor == '>')
		return "empty address";
	if (**cursor == '@')
		return "source route";
	g_autofree char *addr = NULL;
	const char *fault = take_addr_spec(cursor, true, &addr);
	if (fault != NULL)
		return fault;
	if (!mime_skip_cfws(cursor))
		return "comment without end";
	if (**cursor != '>')
		return "missing '>'";
	++*cursor;
	add_addr(out, name, g_steal_pointer(&addr));
	return mime_skip_cfws(cursor) ? NULL : "comment without end";
}

/* One mailbox, or the head of a group up to its ':' (then *ret_group). */
static const char *
take_mailbox(const char **cursor, MimeAddrs *out, bool *ret_group)
{
	const char *start = *cursor;
	char *addr = NULL;
	const char *fault = take_addr_spec(cursor, true, &addr);
	if (fault == NULL) {
		add_addr(out, NULL, addr);
		return mime_skip_cfws(cursor) ? NULL : "comment without end";
	}
	*cursor = start;
	g_autoptr(GString) name = g_string_new(NULL);
	unsigned words;
	const char *bad = take_phrase(cursor, name, &words);
	if (**cursor == '<') {
		const char *angle = take_angle(cursor, words > 0 ? name->str : NULL, out);
		return angle != NULL ? angle : bad;
	}
	if (**cursor == ':' && words > 0) {
		++*cursor;
		*ret_group = true;
		return bad;
	}
	return **cursor == '@' || words == 0 ? fault : "address without domain";
}

/* Behind a fault: to the next delimiter outside quotes and comments. */
static void
resync(const char **cursor)
{
	const char *p = *cursor;
	while (*p != '\0' && *p != ',' && *p != ';') {
		if (*p == '"') {
			(void)take_quoted(&p, NULL);
		} else if (*p == '(') {
			if (!mime_skip_cfws(&p))
				break;
		} else {
			p++;
		}
	}
	*cursor = p;
}

static void
note_fault(MimeAddrs *out, const char *fault)
{
	if (out->fault == NULL)
		out->fault = fault;
}

static void
take_comma(const char **cursor, MimeAddrs *out)
{
	const char *p = ++*cursor;
	/* A comma at the very end is common and harmless. */
	if (!mime_skip_cfws(&p) || *p == ',' || *p == ';')
		note_fault(out, "empty list element");
}

/* Behind a mailbox or at an empty place: delimiter, end of group, or rubbish. */
static void
take_delimiter(const char **cursor, MimeAddrs *out, bool *group)
{
	if (**cursor == ',') {
		take_comma(cursor, out);
	} else if (**cursor == ';' && *group) {
		++*cursor;
		*group = false;
		if (!mime_skip_cfws(cursor) || (**cursor != ',' && **cursor != '\0'))
			note_fault(out, "text behind a group");
		if (**cursor == ',')
			take_comma(cursor, out);
	} else if (**cursor != '\0') {
		note_fault(out, "text behind an address");
		resync(cursor);
		if (**cursor == ';' && !*group)
			++*cursor;
	}
}

void
mime_addrs_parse(const char *text, MimeAddrs *ret_addrs)
{
	MimeAddrs out = {.list = g_ptr_array_new_with_free_func(addr_free)};
	bool group = false;
	const char *p = text;
	for (;;) {
		if (!mime_skip_cfws(&p))
			note_fault(&out, "comment without end");
		if (*p == '\0')
			break;
		if (out.list->len == MIME_ADDRS_MAX) {
			note_fault(&out, "too many addresses");
			break;
		}
		if (*p != ',' && *p != ';') {
			bool opened = false;
			const char *fault = take_mailbox(&p, &out, &opened);
			if (fault != NULL) {
				note_fault(&out, fault);
				if (!opened && *p != ',' && *p != ';')
					resync(&p);
			}
			if (opened) {
				if (group)
					note_fault(&out, "group inside a group");
				group = true;
				continue;
			}
		} else if (*p == ',') {
			note_fault(&out, "empty list element");
		}
		take_delimiter(&p, &out, &group);
	}
	if (group)
		note_fault(&out, "group without end");
	*ret_addrs = out;
}

void
mime_addrs_clear(MimeAddrs *addrs)
{
	if (addrs->list != NULL)
		g_ptr_array_unref(addrs->list);
	*addrs = (MimeAddrs){0};
}

const char *
mime_msg_id_fault(const char *text)
{
	const char *p = text;
	if (!mime_skip_cfws(&p))
		return "comment without end";
	if (*p != '<')
		return "does not start with '<'";
	p++;
	if (!take_dot_atom(&p))
		return "bad left part";
	if (*p != '@')
		return "no right part";
	p++;
	if (!take_domain(&p))
		return "bad right part";
	if (*p != '>')
		return "missing '>'";
	p++;
	if (!mime_skip_cfws(&p) || *p != '\0')
		return "text behind the id";
	return NULL;
}
