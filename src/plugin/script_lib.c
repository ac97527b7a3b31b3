/* SPDX-License-Identifier: Apache-2.0 */
/* The library of scripts: what of Lua's own cannot hurt, by name, so that a later Lua cannot add to
 * it.  Not there: files, processes, loading code, coroutines and pcall (they could catch the end of
 * a call), metatables (finalizers run where no hook comes), random numbers, the collector. */
#include <string.h>

#include "plugin/script_int.h"

#define LOG_WORK   5000 /* instructions that a line in the log counts for */
#define BYTES_WORK 16   /* bytes that a string function handles in the time of an instruction */
#define UNPACK_MAX 200

static const char *const base_names[] = {"assert", "error",    "ipairs",   "next", "pairs",
					 "select", "tonumber", "tostring", "type", NULL};
static const char *const math_names[] = {"abs",  "ceil",       "floor", "fmod",       "huge",
					 "max",  "maxinteger", "min",   "mininteger", "tointeger",
					 "type", "ult",        NULL};
static const char *const table_names[] = {"concat", "insert", "pack", "remove", NULL};
static const char *const string_names[] = {"byte",    "char", "format", "len", "lower",
					   "reverse", "sub",  "upper",  NULL};

/* Of the table on top only those names stay. */
static void
keep(lua_State *lua, const char *const *names)
{
	lua_newtable(lua);
	for (; *names != NULL; names++) {
		lua_getfield(lua, -2, *names);
		lua_setfield(lua, -2, *names);
	}
	/* The same table, because others refer to it: emptied, then filled. */
	lua_pushnil(lua);
	while (lua_next(lua, -3) != 0) {
		lua_pop(lua, 1);
		lua_pushvalue(lua, -1);
		lua_pushnil(lua);
		lua_rawset(lua, -5);
	}
	lua_pushnil(lua);
	while (lua_next(lua, -2) != 0) {
		lua_pushvalue(lua, -2);
		lua_insert(lua, -2);
		lua_rawset(lua, -5);
	}
	lua_pop(lua, 1);
}

/* Lua's own function behind a charge for the size of its first argument: a table's elements, a
 * string's bytes. */
static int
charged(lua_State *lua)
{
	size_t size = lua_gettop(lua) > 0 ? (size_t)lua_rawlen(lua, 1) : 0;
	script_charge(lua, lua_type(lua, 1) == LUA_TSTRING ? size / BYTES_WORK : size);
	lua_pushvalue(lua, lua_upvalueindex(1));
	lua_insert(lua, 1);
	lua_call(lua, lua_gettop(lua) - 1, LUA_MULTRET);
	return lua_gettop(lua);
}

static void
charge_all(lua_State *lua, const char *const *names)
{
	for (; *names != NULL; names++) {
		lua_getfield(lua, -1, *names);
		lua_pushcclosure(lua, charged, 1);
		lua_setfield(lua, -2, *names);
	}
}

/* string.rep(s, n [, sep]) */
static int
string_rep(lua_State *lua)
{
	size_t len;
	size_t sep_len;
	const char *text = luaL_checklstring(lua, 1, &len);
	lua_Integer count = luaL_checkinteger(lua, 2);
	const char *sep = luaL_optlstring(lua, 3, "", &sep_len);
	if (count <= 0) {
		lua_pushliteral(lua, "");
		return 1;
	}
	if (count > SCRIPT_STRING_MAX || len + sep_len > SCRIPT_STRING_MAX ||
	    (size_t)count * (len + sep_len) > SCRIPT_STRING_MAX)
		return luaL_error(lua, "string.rep makes at most %d bytes", SCRIPT_STRING_MAX);
	script_charge(lua, (size_t)count * (len + sep_len) / BYTES_WORK + (size_t)count);
	luaL_Buffer buffer;
	luaL_buffinit(lua, &buffer);
	for (lua_Integer i = 0; i < count; i++) {
		luaL_addlstring(&buffer, text, len);
		if (i + 1 < count)
			luaL_addlstring(&buffer, sep, sep_len);
	}
	luaL_pushresult(&buffer);
	return 1;
}

/* table.unpack(t [, i [, j]]) */
static int
table_unpack(lua_State *lua)
{
	luaL_checktype(lua, 1, LUA_TTABLE);
	lua_Integer from = luaL_optinteger(lua, 2, 1);
	lua_Integer to = luaL_optinteger(lua, 3, (lua_Integer)lua_rawlen(lua, 1));
	if (from > to)
		return 0;
	if ((lua_Unsigned)to - (lua_Unsigned)from >= UNPACK_MAX)
		return luaL_error(lua, "table.unpack gives at most %d values", UNPACK_MAX);
	int count = (int)(to - from) + 1;
	luaL_checkstack(lua, count, NULL);
	for (int i = 0; i < count; i++)
		lua_geti(lua, 1, from + i);
	return count;
}

/* log(text) */
static int
script_log(lua_State *lua)
{
	const ScriptState *state = script_state(lua);
	const char *text = luaL_checkstring(lua, 1);
	script_charge(lua, LOG_WORK);
	log_info(state->view != NULL ? state->view->log : NULL, "script.says",
		 LOG_S("script", state->name), LOG_S("message", text));
	return 0;
}

void
script_lib_open(lua_State *lua)
{
	luaL_requiref(lua, LUA_MATHLIBNAME, luaopen_math, 0);
	keep(lua, math_names);
	luaL_requiref(lua, LUA_TABLIBNAME, luaopen_table, 0);
	keep(lua, table_names);
	charge_all(lua, table_names);
	lua_pushcfunction(lua, table_unpack);
	lua_setfield(lua, -2, "unpack");
	luaL_requiref(lua, LUA_STRLIBNAME, luaopen_string, 0);
	keep(lua, string_names);
	charge_all(lua, string_names);
	lua_pushcfunction(lua, string_rep);
	lua_setfield(lua, -2, "rep");
	script_match_open(lua);
	luaL_requiref(lua, LUA_GNAME, luaopen_base, 0);
	keep(lua, base_names);
	lua_insert(lua, -4);
	lua_setfield(lua, -4, LUA_STRLIBNAME);
	lua_setfield(lua, -3, LUA_TABLIBNAME);
	lua_setfield(lua, -2, LUA_MATHLIBNAME);
	lua_pushcfunction(lua, script_log);
	lua_setfield(lua, -2, "log");
	lua_pop(lua, 1);
}
