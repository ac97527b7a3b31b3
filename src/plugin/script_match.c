/* SPDX-License-Identifier: Apache-2.0 */
/* Lua's patterns (reference manual 6.4.1), with every step counted against the call's instructions:
 * Lua's own matcher may take minutes inside one C call, where no hook ends it. */
#include <string.h>

#include "plugin/script_int.h"

#define CAPTURES_MAX 32
#define DEPTH_MAX    200 /* of recursion */
#define STEPS        128 /* counted at a time */
#define OPEN         (-1)
#define POSITION     (-2)
#define SPECIALS     "^$*+?.([%-"

typedef struct Matcher {
	lua_State *lua;
	const char *text, *text_end, *pattern_end;
	int depth;
	unsigned steps;
	int n_captures;
	struct {
		const char *at;
		ptrdiff_t len; /* or OPEN, POSITION */
	} captures[CAPTURES_MAX];
} Matcher;

static const char *match(Matcher *m, const char *s, const char *p);

static void
step(Matcher *m)
{
	if (++m->steps < STEPS)
		return;
	m->steps = 0;
	script_charge(m->lua, STEPS);
}

/* ---- single characters ---- */

static bool
in_class(unsigned char c, char letter)
{
	bool in;
	switch (g_ascii_tolower(letter)) {
	case 'a':
		in = g_ascii_isalpha(c);
		break;
	case 'c':
		in = g_ascii_iscntrl(c);
		break;
	case 'd':
		in = g_ascii_isdigit(c);
		break;
	case 'g':
		in = g_ascii_isgraph(c);
		break;
	case 'l':
		in = g_ascii_islower(c);
		break;
	case 'p':
		in = g_ascii_ispunct(c);
		break;
	case 's':
		in = g_ascii_isspace(c) || c == '\v';
		break;
	case 'u':
		in = g_ascii_isupper(c);
		break;
	case 'w':
		in = g_ascii_isalnum(c);
		break;
	case 'x':
		in = g_ascii_isxdigit(c);
		break;
	default:
		return letter == (char)c;
	}
	return g_ascii_isupper(letter) ? !in : in;
}

/* Behind the single-character item at `p`. */
static const char *
item_end(Matcher *m, const char *p)
{
	char c = *p++;
	if (c == '%') {
		if (p == m->pattern_end)
			luaL_error(m->lua, "malformed pattern (ends with '%%')");
		return p + 1;
	}
	if (c != '[')
		return p;
	if (p < m->pattern_end && *p == '^')
		p++;
	do { /* a ']' in the first place is itself */
		if (p == m->pattern_end)
			luaL_error(m->lua, "malformed pattern (missing ']')");
		c = *p++;
		if (c == '%' && p < m->pattern_end)
			p++;
	} while (p == m->pattern_end || *p != ']');
	return p + 1;
}

/* `p` at '[', `end` at its ']'. */
static bool
in_set(Matcher *m, unsigned char c, const char *p, const char *end)
{
	bool want = true;
	if (p[1] == '^') {
		want = false;
		p++;
	}
	while (++p < end) {
		step(m);
		if (*p == '%') {
			p++;
			if (in_class(c, *p))
				return want;
		} else if (p[1] == '-' && p + 2 < end) {
			if ((unsigned char)p[0] <= c && c <= (unsigned char)p[2])
				return want;
			p += 2;
		} else if ((unsigned char)*p == c) {
			return want;
		}
	}
	return !want;
}

static bool
is_one(Matcher *m, const char *s, const char *p, const char *end)
{
	step(m);
	if (s >= m->text_end)
		return false;
	unsigned char c = (unsigned char)*s;
	switch (*p) {
	case '.':
		return true;
	case '%':
		return in_class(c, p[1]);
	case '[':
		return in_set(m, c, p, end - 1);
	default:
		return (unsigned char)*p == c;
	}
}

/* ---- items ---- */

static const char *
most(Matcher *m, const char *s, const char *p, const char *end)
{
	ptrdiff_t count = 0;
	while (is_one(m, s + count, p, end))
		count++;
	for (; count >= 0; count--) {
		const char *found = match(m, s + count, end + 1);
		if (found != NULL)
			return found;
	}
	return NULL;
}

static const char *
least(Matcher *m, const char *s, const char *p, const char *end)
{
	for (;;) {
		const char *found = match(m, s, end + 1);
		if (found != NULL)
			return found;
		if (!is_one(m, s, p, end))
			return NULL;
		s++;
	}
}

static const char *
begin_capture(Matcher *m, const char *s, const char *p, ptrdiff_t what)
{
	if (m->n_captures >= CAPTURES_MAX)
		luaL_error(m->lua, "too many captures");
	m->captures[m->n_captures].at = s;
	m->captures[m->n_captures].len = what;
	m->n_captures++;
	const char *found = match(m, s, p);
	if (found == NULL)
		m->n_captures--;
	return found;
}

static const char *
end_capture(Matcher *m, const char *s, const char *p)
{
	int i = m->n_captures - 1;
	while (i >= 0 && m->captures[i].len != OPEN)
		i--;
	if (i < 0)
		luaL_error(m->lua, "invalid pattern capture");
	m->captures[i].len = s - m->captures[i].at;
	const char *found = match(m, s, p);
	if (found == NULL)
		m->captures[i].len = OPEN;
	return found;
}

/* %bxy: `p` at x. */
static const char *
balance(Matcher *m, const char *s, const char *p)
{
	if (p + 1 >= m->pattern_end)
		luaL_error(m->lua, "malformed pattern (missing arguments to '%%b')");
	if (s >= m->text_end || *s != *p)
		return NULL;
	int depth = 1;
	while (++s < m->text_end) {
		step(m);
		if (*s == p[1]) {
			if (--depth == 0)
				return s + 1;
		} else if (*s == *p) {
			depth++;
		}
	}
	return NULL;
}

/* %1 to %9 */
static const char *
same_again(Matcher *m, const char *s, char digit)
{
	int i = digit - '1';
	if (i < 0 || i >= m->n_captures || m->captures[i].len == OPEN)
		luaL_error(m->lua, "invalid capture index %%%d", i + 1);
	size_t len = m->captures[i].len > 0 ? (size_t)m->captures[i].len : 0;
	script_charge(m->lua, len / STEPS);
	if ((size_t)(m->text_end - s) < len || memcmp(m->captures[i].at, s, len) != 0)
		return NULL;
	return s + len;
}

/* %f[set]: `p` at '['.  Behind the set, or NULL. */
static const char *
frontier(Matcher *m, const char *s, const char *p)
{
	if (p >= m->pattern_end || *p != '[')
		luaL_error(m->lua, "missing '[' after '%%f' in pattern");
	const char *end = item_end(m, p);
	unsigned char before = s == m->text ? 0 : (unsigned char)s[-1];
	unsigned char here = s < m->text_end ? (unsigned char)*s : 0;
	return !in_set(m, before, p, end - 1) && in_set(m, here, p, end - 1) ? end : NULL;
}

/* %b, %f, %1...: true when `*p` is one; then *s is NULL or both are behind it. */
static bool
escape(Matcher *m, const char **s, const char **p)
{
	if (**p != '%' || *p + 1 >= m->pattern_end)
		return false;
	char c = (*p)[1];
	if (c == 'b') {
		*s = balance(m, *s, *p + 2);
		*p += 4;
	} else if (c == 'f') {
		const char *end = frontier(m, *s, *p + 2);
		if (end == NULL)
			*s = NULL;
		else
			*p = end;
	} else if (g_ascii_isdigit(c)) {
		*s = same_again(m, *s, c);
		*p += 2;
	} else {
		return false;
	}
	return true;
}

/* A single-character item and what follows it: true when the match is decided (*s its end or
 * NULL); else both are behind the item. */
static bool
item(Matcher *m, const char **s, const char **p)
{
	const char *end = item_end(m, *p);
	char suffix = end < m->pattern_end ? *end : '\0';
	bool one;
	switch (suffix) {
	case '*':
		*s = most(m, *s, *p, end);
		return true;
	case '-':
		*s = least(m, *s, *p, end);
		return true;
	case '+':
		*s = is_one(m, *s, *p, end) ? most(m, *s + 1, *p, end) : NULL;
		return true;
	case '?':
		if (is_one(m, *s, *p, end)) {
			const char *found = match(m, *s + 1, end + 1);
			if (found != NULL) {
				*s = found;
				return true;
			}
		}
		*p = end + 1;
		return false;
	default:
		one = is_one(m, *s, *p, end);
		*s = one ? *s + 1 : NULL;
		*p = end;
		return !one;
	}
}

/* The end of the match of pattern `p` at `s`, or NULL. */
static const char *
match(Matcher *m, const char *s, const char *p)
{
	if (++m->depth > DEPTH_MAX)
		luaL_error(m->lua, "pattern too complex");
	bool decided = false;
	while (!decided && s != NULL && p < m->pattern_end) {
		step(m);
		if (*p == '(') {
			bool position = p + 1 < m->pattern_end && p[1] == ')';
			s = begin_capture(m, s, p + (position ? 2 : 1), position ? POSITION : OPEN);
			decided = true;
		} else if (*p == ')') {
			s = end_capture(m, s, p + 1);
			decided = true;
		} else if (*p == '$' && p + 1 == m->pattern_end) {
			s = s == m->text_end ? s : NULL;
			decided = true;
		} else if (!escape(m, &s, &p)) {
			decided = item(m, &s, &p);
		}
	}
	m->depth--;
	return s;
}

/* ---- results ---- */

static void
push_capture(Matcher *m, int i, const char *s, const char *end)
{
	if (i >= m->n_captures) {
		if (i != 0)
			luaL_error(m->lua, "invalid capture index %%%d", i + 1);
		lua_pushlstring(m->lua, s, (size_t)(end - s));
	} else if (m->captures[i].len == OPEN) {
		luaL_error(m->lua, "unfinished capture");
	} else if (m->captures[i].len == POSITION) {
		lua_pushinteger(m->lua, m->captures[i].at - m->text + 1);
	} else {
		lua_pushlstring(m->lua, m->captures[i].at, (size_t)m->captures[i].len);
	}
}

/* All of them; without any the whole match, when `s` is given. */
static int
push_captures(Matcher *m, const char *s, const char *end)
{
	int count = m->n_captures == 0 && s != NULL ? 1 : m->n_captures;
	luaL_checkstack(m->lua, count, "too many captures");
	for (int i = 0; i < count; i++)
		push_capture(m, i, s, end);
	return count;
}

static Matcher
matcher_of(lua_State *lua, const char **ret_pattern)
{
	size_t text_len;
	size_t pattern_len;
	const char *text = luaL_checklstring(lua, 1, &text_len);
	*ret_pattern = luaL_checklstring(lua, 2, &pattern_len);
	return (Matcher){.lua = lua,
			 .text = text,
			 .text_end = text + text_len,
			 .pattern_end = *ret_pattern + pattern_len};
}

/* A start as scripts give it, 1 the first, -1 the last character; past the end: len + 1. */
static size_t
start_of(lua_Integer init, size_t len)
{
	if (init > 0)
		return (size_t)(init - 1) > len ? len + 1 : (size_t)(init - 1);
	if (init == 0 || (lua_Unsigned)-init > len)
		return 0;
	return len - (size_t)-init;
}

static int
find_plain(Matcher *m, const char *s, const char *pattern)
{
	size_t len = (size_t)(m->pattern_end - pattern);
	size_t room = (size_t)(m->text_end - s);
	script_charge(m->lua, room / STEPS);
	const char *found = len == 0 ? s : memmem(s, room, pattern, len);
	if (found == NULL) {
		lua_pushnil(m->lua);
		return 1;
	}
	lua_pushinteger(m->lua, found - m->text + 1);
	lua_pushinteger(m->lua, found - m->text + (lua_Integer)len);
	return 2;
}

static bool
has_specials(const char *pattern, const char *end)
{
	for (; pattern < end; pattern++) {
		if (*pattern != '\0' && strchr(SPECIALS, *pattern) != NULL)
			return true;
	}
	return false;
}

static int
search(lua_State *lua, bool find)
{
	const char *p;
	Matcher m = matcher_of(lua, &p);
	size_t at = start_of(luaL_optinteger(lua, 3, 1), (size_t)(m.text_end - m.text));
	if (at > (size_t)(m.text_end - m.text)) {
		lua_pushnil(lua);
		return 1;
	}
	const char *s = m.text + at;
	if (find && (lua_toboolean(lua, 4) || !has_specials(p, m.pattern_end)))
		return find_plain(&m, s, p);
	bool anchored = p < m.pattern_end && *p == '^';
	p += anchored;
	do {
		m.n_captures = m.depth = 0;
		const char *end = match(&m, s, p);
		if (end == NULL)
			continue;
		if (!find)
			return push_captures(&m, s, end);
		lua_pushinteger(lua, s - m.text + 1);
		lua_pushinteger(lua, end - m.text);
		return push_captures(&m, NULL, NULL) + 2;
	} while (s++ < m.text_end && !anchored);
	lua_pushnil(lua);
	return 1;
}

static int
string_find(lua_State *lua)
{
	return search(lua, true);
}

static int
string_match(lua_State *lua)
{
	return search(lua, false);
}

/* Upvalues: text, pattern, where to go on, where the last match ended. */
static int
gmatch_next(lua_State *lua)
{
	const char *p;
	lua_settop(lua, 0);
	lua_pushvalue(lua, lua_upvalueindex(1));
	lua_pushvalue(lua, lua_upvalueindex(2));
	Matcher m = matcher_of(lua, &p);
	const char *s = m.text + lua_tointeger(lua, lua_upvalueindex(3));
	lua_Integer last = lua_tointeger(lua, lua_upvalueindex(4));
	for (; s <= m.text_end; s++) {
		m.n_captures = m.depth = 0;
		const char *end = match(&m, s, p);
		if (end == NULL || end - m.text == last)
			continue;
		lua_pushinteger(lua, end - m.text);
		lua_copy(lua, -1, lua_upvalueindex(3));
		lua_replace(lua, lua_upvalueindex(4));
		return push_captures(&m, s, end);
	}
	return 0;
}

static int
string_gmatch(lua_State *lua)
{
	luaL_checkstring(lua, 1);
	luaL_checkstring(lua, 2);
	lua_settop(lua, 2);
	lua_pushinteger(lua, 0);
	lua_pushinteger(lua, -1);
	lua_pushcclosure(lua, gmatch_next, 4);
	return 1;
}

/* The replacement text, in which %0 to %9 stand for captures. */
static void
add_text(Matcher *m, luaL_Buffer *out, const char *s, const char *end)
{
	size_t len;
	const char *news = lua_tolstring(m->lua, 3, &len);
	for (size_t i = 0; i < len; i++) {
		step(m);
		if (news[i] != '%') {
			luaL_addchar(out, news[i]);
			continue;
		}
		i++;
		if (i < len && news[i] == '%') {
			luaL_addchar(out, '%');
		} else if (i < len && news[i] == '0') {
			luaL_addlstring(out, s, (size_t)(end - s));
		} else if (i < len && g_ascii_isdigit(news[i])) {
			push_capture(m, news[i] - '1', s, end);
			luaL_tolstring(m->lua, -1, NULL);
			lua_remove(m->lua, -2);
			luaL_addvalue(out);
		} else {
			luaL_error(m->lua, "invalid use of '%%' in replacement string");
		}
	}
}

static void
add_value(Matcher *m, luaL_Buffer *out, const char *s, const char *end)
{
	lua_State *lua = m->lua;
	int type = lua_type(lua, 3);
	if (type == LUA_TSTRING || type == LUA_TNUMBER) {
		add_text(m, out, s, end);
		return;
	}
	if (type == LUA_TFUNCTION) {
		lua_pushvalue(lua, 3);
		lua_call(lua, push_captures(m, s, end), 1);
	} else {
		push_capture(m, 0, s, end);
		lua_rawget(lua, 3);
	}
	if (!lua_toboolean(lua, -1)) {
		lua_pop(lua, 1);
		luaL_addlstring(out, s, (size_t)(end - s));
	} else if (lua_isstring(lua, -1)) {
		luaL_addvalue(out);
	} else {
		luaL_error(lua, "invalid replacement value (a %s)", luaL_typename(lua, -1));
	}
}

static int
string_gsub(lua_State *lua)
{
	const char *p;
	Matcher m = matcher_of(lua, &p);
	int type = lua_type(lua, 3);
	luaL_argexpected(lua,
			 type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION ||
				 type == LUA_TTABLE,
			 3, "string/function/table");
	lua_Integer most_wanted = luaL_optinteger(lua, 4, m.text_end - m.text + 1);
	bool anchored = p < m.pattern_end && *p == '^';
	const char *s = m.text;
	const char *last = NULL;
	lua_Integer count = 0;
	luaL_Buffer out;
	luaL_buffinit(lua, &out);
	p += anchored;
	while (count < most_wanted) {
		m.n_captures = m.depth = 0;
		const char *end = match(&m, s, p);
		if (end != NULL && end != last) {
			count++;
			add_value(&m, &out, s, end);
			s = last = end;
		} else if (s < m.text_end) {
			luaL_addchar(&out, *s++);
		} else {
			break;
		}
		if (anchored)
			break;
	}
	luaL_addlstring(&out, s, (size_t)(m.text_end - s));
	luaL_pushresult(&out);
	lua_pushinteger(lua, count);
	return 2;
}

void
script_match_open(lua_State *lua)
{
	static const luaL_Reg functions[] = {{"find", string_find},
					     {"match", string_match},
					     {"gmatch", string_gmatch},
					     {"gsub", string_gsub},
					     {NULL, NULL}};
	luaL_setfuncs(lua, functions, 0);
}
