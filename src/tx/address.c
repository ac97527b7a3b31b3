/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/address.h"

#include <string.h>

#include "base/text.h"

/* ---- mailboxes ---- */

static size_t
text_room(const char *text)
{
	return text != NULL ? strlen(text) + 1 : 0;
}

/* Copies `text` to *room and moves *room behind it. */
static char *
put_text(char **room, const char *text)
{
	if (text == NULL)
		return NULL;
	size_t len = strlen(text) + 1;
	char *copy = *room;
	memcpy(copy, text, len);
	*room += len;
	return copy;
}

/* One block: struct, parameters, texts. */
Mailbox *
mailbox_new(const char *addr, const EsmtpParam *params, size_t n)
{
	k_assert(addr != NULL);
	size_t size = sizeof(Mailbox) + n * sizeof(EsmtpParam) + text_room(addr);
	for (size_t i = 0; i < n; i++) {
		k_assert(params[i].keyword != NULL);
		size += text_room(params[i].keyword) + text_room(params[i].value);
	}
	Mailbox *mailbox = g_malloc(size);
	*mailbox = (Mailbox){.refs = 1, .n_params = n};
	if (n > 0)
		mailbox->params = (EsmtpParam *)(void *)(mailbox + 1);
	char *room = (char *)(mailbox + 1) + n * sizeof(EsmtpParam);
	mailbox->addr = put_text(&room, addr);
	for (size_t i = 0; i < n; i++) {
		mailbox->params[i].keyword = put_text(&room, params[i].keyword);
		mailbox->params[i].value = put_text(&room, params[i].value);
	}
	return mailbox;
}

Mailbox *
mailbox_ref(Mailbox *mailbox)
{
	mailbox->refs++;
	return mailbox;
}

void
mailbox_unref(Mailbox *mailbox)
{
	if (mailbox == NULL)
		return;
	k_assert_for(mailbox->refs > 0, mailbox->addr);
	if (--mailbox->refs == 0)
		g_free(mailbox);
}

bool
mailbox_equal(const Mailbox *a, const Mailbox *b)
{
	if (a == b)
		return true;
	if (a == NULL || b == NULL || a->n_params != b->n_params || strcmp(a->addr, b->addr) != 0)
		return false;
	for (size_t i = 0; i < a->n_params; i++) {
		if (strcmp(a->params[i].keyword, b->params[i].keyword) != 0 ||
		    g_strcmp0(a->params[i].value, b->params[i].value) != 0)
			return false;
	}
	return true;
}

const EsmtpParam *
mailbox_param(const Mailbox *mailbox, const char *keyword)
{
	for (size_t i = 0; i < mailbox->n_params; i++) {
		if (text_equal_nocase(mailbox->params[i].keyword, keyword))
			return &mailbox->params[i];
	}
	return NULL;
}

/* ---- addr-spec ----
 * RFC 5322 3.4.1 with the tolerance of 4.4 for the local part:
 *
 *   addr-spec  = local-part "@" domain
 *   local-part = 1*( atext / "." / WSP / "\" / quoted-string / comment )
 *                ; not white space first, not comments alone
 *   domain     = 1*atext *( "." 1*atext ) / "[" *dtext "]"
 *   atext also takes what is outside ASCII (RFC 6531)
 *
 * Each function takes the place where it starts and returns the place behind what it read, or
 * NULL.  Control characters are in no set, so that no address carries a line break. */

static bool
is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

static bool
is_atext(char c)
{
	return c != '\0' && !is_control(c) && strchr(" ()<>[]:;@\\,.\"", c) == NULL;
}

/* A quoted-string or a comment (which nests), from its opening character on. */
static const char *
read_enclosed(const char *p)
{
	bool quoted = *p == '"';
	int depth = 1;
	for (p++; *p != '\0'; p++) {
		if (is_control(*p) && *p != '\t')
			return NULL;
		if (*p == '\\') {
			p++;
			if (*p == '\0' || is_control(*p))
				return NULL;
		} else if (quoted ? *p == '"' : *p == ')') {
			if (--depth == 0)
				return p + 1;
		} else if (!quoted && *p == '(') {
			depth++;
		}
	}
	return NULL;
}

static const char *
read_local(const char *p)
{
	bool any = false; /* something else than comments */
	while (*p != '\0' && *p != '@') {
		bool comment = *p == '(';
		if (comment || *p == '"') {
			p = read_enclosed(p);
			if (p == NULL)
				return NULL;
		} else if (is_atext(*p) || *p == '.' || *p == '\\' ||
			   (any && (*p == ' ' || *p == '\t'))) {
			p++;
		} else {
			return NULL;
		}
		any = any || !comment;
	}
	return any ? p : NULL;
}

static const char *
read_literal(const char *p)
{
	for (p++; *p != '\0' && *p != ']'; p++) {
		if (is_control(*p) || *p == '[' || *p == '\\')
			return NULL;
	}
	return *p == ']' ? p + 1 : NULL;
}

static const char *
read_domain(const char *p)
{
	if (*p == '[')
		return read_literal(p);
	for (;; p++) {
		const char *label = p;
		while (is_atext(*p))
			p++;
		if (p == label)
			return NULL;
		if (*p != '.')
			return p;
	}
}

/* Finds the parts without copying. */
static bool
find_parts(const char *addr, const char **ret_at, const char **ret_end)
{
	const char *at = read_local(addr);
	if (at == NULL || *at != '@')
		return false;
	const char *end = read_domain(at + 1);
	if (end == NULL)
		return false;
	const char *rest = end + strspn(end, " \t");
	if (*rest == '@' || *rest == '.')
		return false;
	for (; *rest != '\0'; rest++) {
		if (is_control(*rest) && *rest != '\t')
			return false;
	}
	*ret_at = at;
	*ret_end = end;
	return true;
}

bool
address_split(const char *addr, AddrParts *ret_parts)
{
	const char *at, *end;
	if (!find_parts(addr, &at, &end))
		return false;
	ret_parts->local = g_strndup(addr, (size_t)(at - addr));
	ret_parts->domain = g_strndup(at + 1, (size_t)(end - at - 1));
	return true;
}

void
address_parts_clear(AddrParts *parts)
{
	g_clear_pointer(&parts->local, g_free);
	g_clear_pointer(&parts->domain, g_free);
}

char *
address_domain(const char *addr)
{
	const char *at, *end;
	return find_parts(addr, &at, &end) ? g_ascii_strdown(at + 1, end - at - 1) : NULL;
}

bool
address_needs_utf8(const char *addr)
{
	for (; *addr != '\0'; addr++) {
		if ((unsigned char)*addr >= 0x80)
			return true;
	}
	return false;
}
