/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Shared by the files of the sandbox.  Functions that take a lua_State may leave by a Lua error:
 * who calls them holds nothing that would leak. */
#include <jansson.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "base/clock.h"
#include "plugin/script.h"

#define SCRIPT_STEP 100 /* instructions between two looks at the clock */

typedef struct ScriptState {
	lua_State *lua;
	const ScriptLimits *limits;
	const char *name;
	unsigned generation; /* of the source */
	size_t used;         /* bytes */
	int starved_line;    /* where memory was refused last; 0: unknown */
	unsigned left;       /* instructions */
	unsigned step;       /* until the hook comes */
	Usec until;          /* of the clock; 0: not yet looked at */
	Usec cpu_from;       /* 0: the first span is not over */
	PluginView *view;    /* of the call; NULL: none */
} ScriptState;

static inline ScriptState *
script_state(lua_State *lua)
{
	return *(ScriptState **)lua_getextraspace(lua);
}

/* Counts work of a C function as that many instructions; ends the call when they are used up. */
void script_charge(lua_State *lua, size_t work);
/* Sets the globals that scripts have. */
void script_lib_open(lua_State *lua);
/* Puts find, match, gmatch, gsub into the table on top. */
void script_match_open(lua_State *lua);
/* The object `tx`: leaves it on the stack. */
void script_tx_open(lua_State *lua);
void script_push_json(lua_State *lua, const json_t *value);
