/* SPDX-License-Identifier: Apache-2.0 */
/* The object `tx` of scripts: the transaction of the call under way, by name. */
#include <string.h>

#include "plugin/script_int.h"

#define JSON_WORK 2 /* instructions that each value of a signal counts for */

static PluginView *
view_of(lua_State *lua)
{
	PluginView *view = script_state(lua)->view;
	if (view == NULL)
		luaL_error(lua, "there is no transaction outside a call");
	return view;
}

/* NULL is nil; what is too long for a script is cut. */
static void
push_text(lua_State *lua, const char *text)
{
	if (text == NULL)
		lua_pushnil(lua);
	else
		lua_pushlstring(lua, text, strnlen(text, SCRIPT_STRING_MAX));
}

static void
push_host(lua_State *lua, const HostPort *host)
{
	push_text(lua, host != NULL ? host->host : NULL);
}

void
script_push_json(lua_State *lua, const json_t *value)
{
	const char *key;
	json_t *member;
	size_t index;
	luaL_checkstack(lua, 4, NULL);
	script_charge(lua, JSON_WORK);
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		lua_newtable(lua);
		json_object_foreach((json_t *)value, key, member)
		{
			push_text(lua, key);
			script_push_json(lua, member);
			lua_rawset(lua, -3);
		}
		break;
	case JSON_ARRAY:
		lua_newtable(lua);
		json_array_foreach((json_t *)value, index, member)
		{
			script_push_json(lua, member);
			lua_rawseti(lua, -2, (lua_Integer)index + 1);
		}
		break;
	case JSON_STRING:
		push_text(lua, json_string_value(value));
		break;
	case JSON_INTEGER:
		lua_pushinteger(lua, json_integer_value(value));
		break;
	case JSON_REAL:
		lua_pushnumber(lua, json_real_value(value));
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		lua_pushboolean(lua, json_is_true(value));
		break;
	case JSON_NULL:
		lua_pushnil(lua);
		break;
	}
}

/* ---- methods: tx:NAME(...) ---- */

/* header(name [, index]): the first is 1. */
static int
tx_header(lua_State *lua)
{
	const char *name = luaL_checkstring(lua, 2);
	lua_Integer index = luaL_optinteger(lua, 3, 1);
	PluginView *view = view_of(lua);
	script_charge(lua, plugin_view_field_count(view));
	push_text(lua, index >= 1 ? plugin_view_header(view, name, (size_t)index - 1) : NULL);
	return 1;
}

/* field(index): name, value */
static int
tx_field(lua_State *lua)
{
	lua_Integer index = luaL_checkinteger(lua, 2);
	PluginView *view = view_of(lua);
	const MimeField *field = index >= 1 ? plugin_view_field(view, (size_t)index - 1) : NULL;
	if (field == NULL)
		return 0;
	lua_pushlstring(lua, field->name, MIN(field->name_len, SCRIPT_STRING_MAX));
	push_text(lua, plugin_view_lend(view, mime_field_unfold(field)));
	return 2;
}

/* read(offset, length): bytes of the message, the first at 0; nil at the end. */
static int
tx_read(lua_State *lua)
{
	lua_Integer offset = luaL_checkinteger(lua, 2);
	lua_Integer len = luaL_checkinteger(lua, 3);
	const Blob *message = view_of(lua)->message;
	size_t got = 0;
	luaL_argcheck(lua, offset >= 0, 2, "from 0");
	luaL_argcheck(lua, len > 0 && len <= SCRIPT_STRING_MAX, 3, "1 to 65536");
	if (message == NULL || (uint64_t)offset >= blob_len(message))
		return 0;
	script_charge(lua, (size_t)len / 16);
	luaL_Buffer buffer;
	char *room = luaL_buffinitsize(lua, &buffer, (size_t)len);
	if (!blob_read(message, (uint64_t)offset, room, (size_t)len, &got, NULL))
		return luaL_error(lua, "the message cannot be read");
	luaL_pushresultsize(&buffer, got);
	return 1;
}

/* signal(name): what another filter has found out. */
static int
tx_signal(lua_State *lua)
{
	const json_t *signal = json_object_get(view_of(lua)->signals, luaL_checkstring(lua, 2));
	if (signal == NULL)
		return 0;
	script_push_json(lua, signal);
	return 1;
}

static int
tx_add_header(lua_State *lua)
{
	const char *name = luaL_checkstring(lua, 2);
	const char *value = luaL_checkstring(lua, 3);
	const char *why = NULL;
	script_charge(lua, strlen(value) / 16 + 10);
	if (!plugin_view_add_header(view_of(lua), name, value, &why))
		return luaL_error(lua, "%s", why);
	return 0;
}

/* ---- members: tx.NAME ---- */

typedef void PushFn(lua_State *lua, PluginView *view);

static void
push_rcpts(lua_State *lua, PluginView *view)
{
	lua_newtable(lua);
	for (size_t i = 0; i < tx_rcpt_count(view->tx); i++) {
		push_text(lua, tx_rcpt(view->tx, i)->to->addr);
		lua_rawseti(lua, -2, (lua_Integer)i + 1);
	}
}

static void
push_mail_from(lua_State *lua, PluginView *view)
{
	push_text(lua, view->tx->mail_from != NULL ? view->tx->mail_from->addr : NULL);
}

static void
push_size(lua_State *lua, PluginView *view)
{
	if (view->message != NULL)
		lua_pushinteger(lua, (lua_Integer)blob_len(view->message));
	else
		lua_pushnil(lua);
}

static void
push_field_count(lua_State *lua, PluginView *view)
{
	lua_pushinteger(lua, (lua_Integer)plugin_view_field_count(view));
}

static void
push_remote_host(lua_State *lua, PluginView *view)
{
	push_host(lua, view->tx->remote_host);
}

static void
push_local_host(lua_State *lua, PluginView *view)
{
	push_host(lua, view->tx->local_host);
}

static void
push_rcpt(lua_State *lua, PluginView *view)
{
	push_text(lua, view->rcpt);
}

static void
push_sender(lua_State *lua, PluginView *view)
{
	push_text(lua, view->tx->sender_name);
}

static void
push_tag(lua_State *lua, PluginView *view)
{
	push_text(lua, view->tx->sender_tag);
}

typedef struct Member {
	const char *name;
	PushFn *push;         /* or */
	lua_CFunction method; /* or */
	const char *text;     /* of smtp_meta, or */
	const char *truth;    /* the same */
} Member;

static const Member members[] = {
	{"mail_from", push_mail_from, NULL, NULL, NULL},
	{"rcpt", push_rcpt, NULL, NULL, NULL},
	{"rcpts", push_rcpts, NULL, NULL, NULL},
	{"remote_host", push_remote_host, NULL, NULL, NULL},
	{"local_host", push_local_host, NULL, NULL, NULL},
	{"sender", push_sender, NULL, NULL, NULL},
	{"tag", push_tag, NULL, NULL, NULL},
	{"size", push_size, NULL, NULL, NULL},
	{"field_count", push_field_count, NULL, NULL, NULL},
	{"ehlo", NULL, NULL, "ehlo_host", NULL},
	{"auth_user", NULL, NULL, SMTP_META_AUTH_USER, NULL},
	{"tls_version", NULL, NULL, SMTP_META_TLS_VERSION, NULL},
	{"tls_cipher", NULL, NULL, SMTP_META_TLS_CIPHER, NULL},
	{"tls_peer", NULL, NULL, SMTP_META_TLS_PEER, NULL},
	{"tls", NULL, NULL, NULL, "tls"},
	{"auth", NULL, NULL, NULL, "auth"},
	{"header", NULL, tx_header, NULL, NULL},
	{"field", NULL, tx_field, NULL, NULL},
	{"read", NULL, tx_read, NULL, NULL},
	{"signal", NULL, tx_signal, NULL, NULL},
	{"add_header", NULL, tx_add_header, NULL, NULL},
};

static int
tx_index(lua_State *lua)
{
	const char *name = luaL_checkstring(lua, 2);
	PluginView *view = view_of(lua);
	const Member *member = members;
	while (member < members + G_N_ELEMENTS(members) && strcmp(member->name, name) != 0)
		member++;
	if (member == members + G_N_ELEMENTS(members))
		return luaL_error(lua, "tx has no '%s'", name);
	if (member->push != NULL)
		member->push(lua, view);
	else if (member->method != NULL)
		lua_pushcfunction(lua, member->method);
	else if (member->text != NULL)
		push_text(lua, plugin_view_meta(view, member->text));
	else
		lua_pushboolean(lua, plugin_view_meta_true(view, member->truth));
	return 1;
}

static int
tx_newindex(lua_State *lua)
{
	return luaL_error(lua, "tx cannot be written");
}

void
script_tx_open(lua_State *lua)
{
	lua_newuserdatauv(lua, 1, 0);
	lua_newtable(lua);
	lua_pushcfunction(lua, tx_index);
	lua_setfield(lua, -2, "__index");
	lua_pushcfunction(lua, tx_newindex);
	lua_setfield(lua, -2, "__newindex");
	lua_setmetatable(lua, -2);
}
