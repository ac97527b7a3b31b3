/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/script.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/ids.h"
#include "plugin/file.h"
#include "plugin/script_int.h"

/* A state is used by its worker alone.  What workers share is the source: immutable, counted, put
 * in place under the lock; `generation` tells them without it that there is another. */
typedef struct Source {
	int refs; /* under the script's lock */
	char *text;
	size_t len;
} Source;

struct Script {
	char *path, *name;
	ScriptLimits limits;
	json_t *options; /* read only */
	bool is_matcher;
	pthread_mutex_t lock;
	Source *source;
	atomic_uint generation; /* from 1 */
	atomic_uint wants;      /* bit by PluginEvent */
	ScriptState **states;   /* IDS_WORKERS_MAX of them, each of its worker */
};

static const char *const event_names[] = {"mail", "rcpt", "message", "match", ""};
_Static_assert(G_N_ELEMENTS(event_names) == PLUGIN_EVENTS, "a name for each event");

static const char tx_key; /* its address is the key of `tx` in the registry */

/* ---- limits ---- */

/* The line of the script that runs, 0 when there is none. Reads only, so that the allocator may
 * ask. */
static int
line_of(lua_State *lua)
{
	lua_Debug at;
	for (int level = 0; lua != NULL && level < 20 && lua_getstack(lua, level, &at); level++) {
		if (lua_getinfo(lua, "l", &at) && at.currentline > 0)
			return at.currentline;
	}
	return 0;
}

static void *
limited(void *data, void *old, size_t old_size, size_t size)
{
	ScriptState *state = data;
	size_t had = old != NULL ? old_size : 0;
	if (size == 0) {
		state->used -= had;
		g_free(old);
		return NULL;
	}
	/* Without a block its size tells the kind of the object. */
	bool is_string = old == NULL && old_size == LUA_TSTRING;
	bool refused = size > had && (state->used - had + size > state->limits->memory ||
				      (is_string && size > SCRIPT_STRING_MAX + 64));
	void *block = refused ? NULL : g_try_realloc(old, size);
	if (block == NULL) {
		state->starved_line = line_of(state->lua);
		return size <= had ? old : NULL; /* getting smaller never fails */
	}
	state->used += size - had;
	return block;
}

static Usec
thread_cpu(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (Usec)now.tv_sec * USEC_PER_SEC + now.tv_nsec / 1000;
}

static void
end_call(lua_State *lua, int level, const char *what)
{
	luaL_where(lua, level);
	lua_pushstring(lua, what);
	lua_concat(lua, 2);
	lua_error(lua);
}

/* The wall clock is cheap, and stands still for nobody: only when it says that time is up the
 * thread's own clock is started, and after another such span asked. */
static void
check_time(lua_State *lua, ScriptState *state, int level)
{
	Usec now = (Usec)clock_mono();
	if (state->until == 0)
		state->until = now + SCRIPT_CPU_MAX;
	if (now < state->until)
		return;
	Usec cpu = thread_cpu();
	if (state->cpu_from == 0)
		state->cpu_from = cpu;
	if (cpu - state->cpu_from >= SCRIPT_CPU_MAX)
		end_call(lua, level, "processor time used up");
	state->until = now + SCRIPT_CPU_MAX - (cpu - state->cpu_from);
}

static void
on_count(lua_State *lua, lua_Debug *at)
{
	(void)at;
	ScriptState *state = script_state(lua);
	state->left -= MIN(state->left, state->step);
	if (state->left == 0)
		end_call(lua, 0, "instructions used up");
	check_time(lua, state, 0);
	if (state->left < state->step) {
		state->step = state->left;
		lua_sethook(lua, on_count, LUA_MASKCOUNT, (int)state->step);
	}
}

void
script_charge(lua_State *lua, size_t work)
{
	ScriptState *state = script_state(lua);
	if (work >= state->left)
		end_call(lua, 1, "instructions used up");
	state->left -= (unsigned)work;
	if (work >= SCRIPT_STEP)
		check_time(lua, state, 1);
}

static void
begin_call(ScriptState *state)
{
	state->left = state->limits->instructions;
	state->step = MIN(state->left, SCRIPT_STEP);
	state->until = 0;
	state->cpu_from = 0;
	state->starved_line = 0;
	lua_sethook(state->lua, on_count, LUA_MASKCOUNT, (int)state->step);
}

/* ---- errors ---- */

/* What lua_pcall left on the stack. */
static bool
failed(ScriptState *state, int status, GError **ret_error)
{
	lua_State *lua = state->lua;
	if (status == LUA_ERRMEM)
		return error_set(ret_error, K_ERROR_FULL,
				 "%s:%d: memory used up (%zu bytes, strings %d)", state->name,
				 state->starved_line, state->limits->memory, SCRIPT_STRING_MAX);
	if (lua_type(lua, -1) != LUA_TSTRING)
		return error_set(ret_error, K_ERROR_INPUT, "%s: the error is a %s", state->name,
				 luaL_typename(lua, -1));
	size_t len;
	const char *text = lua_tolstring(lua, -1, &len);
	g_autofree char *cut = g_utf8_make_valid(text, (gssize)MIN(len, LOG_VALUE_MAX));
	return error_set(ret_error, K_ERROR_INPUT, "%s", cut);
}

/* ---- states ---- */

static void
state_free(ScriptState *state)
{
	if (state == NULL)
		return;
	if (state->lua != NULL)
		lua_close(state->lua);
	g_free(state);
}

/* Inside lua_pcall: libraries, `tx`, `options`. */
static int
set_up(lua_State *lua)
{
	const json_t *options = lua_touserdata(lua, 1);
	script_lib_open(lua);
	script_tx_open(lua);
	lua_rawsetp(lua, LUA_REGISTRYINDEX, &tx_key);
	if (options != NULL) {
		script_push_json(lua, options);
		lua_setglobal(lua, "options");
	}
	return 0;
}

static ScriptState *
state_new(const Script *script, const Source *source, GError **ret_error)
{
	ScriptState *state = g_new0(ScriptState, 1);
	state->limits = &script->limits;
	state->name = script->name;
	state->lua = lua_newstate(limited, state);
	if (state->lua == NULL) {
		error_set(ret_error, K_ERROR_FULL, "%s: memory used up", script->name);
		g_free(state);
		return NULL;
	}
	*(ScriptState **)lua_getextraspace(state->lua) = state;
	g_autofree char *chunk = g_strdup_printf("@%s", script->name);
	begin_call(state);
	lua_pushcfunction(state->lua, set_up);
	lua_pushlightuserdata(state->lua, script->options);
	int status = lua_pcall(state->lua, 1, 0, 0);
	if (status == LUA_OK)
		status = luaL_loadbufferx(state->lua, source->text, source->len, chunk, "t");
	if (status == LUA_OK) {
		begin_call(state);
		status = lua_pcall(state->lua, 0, 0, 0);
	}
	if (status == LUA_OK)
		return state;
	failed(state, status, ret_error);
	state_free(state);
	return NULL;
}

/* Inside lua_pcall: looking a name up may take memory. */
static int
find_wants(lua_State *lua)
{
	unsigned *ret_wants = lua_touserdata(lua, 1);
	for (unsigned i = 0; i < PLUGIN_ROUTE; i++) {
		if (lua_getglobal(lua, event_names[i]) == LUA_TFUNCTION)
			*ret_wants |= 1u << i;
		lua_pop(lua, 1);
	}
	return 0;
}

/* ---- sources ---- */

static void
source_unref(Script *script, Source *source)
{
	pthread_mutex_lock(&script->lock);
	bool last = source != NULL && --source->refs == 0;
	pthread_mutex_unlock(&script->lock);
	if (!last)
		return;
	g_free(source->text);
	g_free(source);
}

static Source *
source_read(const char *path, GError **ret_error)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *text = NULL;
	gsize len;
	if (!plugin_file_check(path, ret_error))
		return NULL;
	if (!g_file_get_contents(path, &text, &len, &error)) {
		error_set(ret_error, K_ERROR_IO, "%s", error->message);
		return NULL;
	}
	if (len > SCRIPT_SIZE_MAX) {
		error_set(ret_error, K_ERROR_FULL, "%s: more than %d bytes", path, SCRIPT_SIZE_MAX);
		return NULL;
	}
	Source *source = g_new0(Source, 1);
	source->refs = 1;
	source->text = g_steal_pointer(&text);
	source->len = len;
	return source;
}

/* What the source has functions for, tried in a state of its own; 0 and an error when it does not
 * work. */
static unsigned
try_source(const Script *script, const Source *source, GError **ret_error)
{
	ScriptState *state = state_new(script, source, ret_error);
	if (state == NULL)
		return 0;
	unsigned wants = 0;
	lua_pushcfunction(state->lua, find_wants);
	lua_pushlightuserdata(state->lua, &wants);
	int status = lua_pcall(state->lua, 1, 0, 0);
	wants &= script->is_matcher ? 1u << PLUGIN_MATCH : ~(1u << PLUGIN_MATCH);
	if (status != LUA_OK) {
		failed(state, status, ret_error);
		wants = 0;
	} else if (wants == 0) {
		error_set(ret_error, K_ERROR_CONFIG, "%s: no function %s", script->name,
			  script->is_matcher ? "match" : "mail, rcpt or message");
	}
	state_free(state);
	return wants;
}

bool
script_reload(Script *script, GError **ret_error)
{
	Source *source = source_read(script->path, ret_error);
	if (source == NULL)
		return false;
	unsigned wants = try_source(script, source, ret_error);
	if (wants == 0) {
		source_unref(script, source);
		return false;
	}
	pthread_mutex_lock(&script->lock);
	Source *before = script->source;
	script->source = source;
	atomic_store(&script->wants, wants);
	atomic_fetch_add(&script->generation, 1);
	pthread_mutex_unlock(&script->lock);
	source_unref(script, before);
	return true;
}

Script *
script_new(const char *path, const ScriptLimits *limits, json_t *options, bool is_matcher,
	   GError **ret_error)
{
	Script *script = g_new0(Script, 1);
	script->path = g_strdup(path);
	script->name = g_path_get_basename(path);
	script->limits = *limits;
	script->options = json_incref(options);
	script->is_matcher = is_matcher;
	script->states = g_new0(ScriptState *, IDS_WORKERS_MAX);
	pthread_mutex_init(&script->lock, NULL);
	if (script_reload(script, ret_error))
		return script;
	script_free(script);
	return NULL;
}

void
script_free(Script *script)
{
	if (script == NULL)
		return;
	for (unsigned i = 0; i < IDS_WORKERS_MAX; i++)
		state_free(script->states[i]);
	source_unref(script, script->source);
	pthread_mutex_destroy(&script->lock);
	json_decref(script->options);
	g_free(script->states);
	g_free(script->path);
	g_free(script->name);
	g_free(script);
}

const char *
script_path(const Script *script)
{
	return script->path;
}

const char *
script_name(const Script *script)
{
	return script->name;
}

bool
script_wants(const Script *script, PluginEvent event)
{
	return (atomic_load(&((Script *)script)->wants) & 1u << event) != 0;
}

/* ---- calls ---- */

/* The worker's state, made anew when there is another source. */
static ScriptState *
take_state(Script *script, unsigned worker, GError **ret_error)
{
	ScriptState *state = script->states[worker];
	if (state != NULL && state->generation == atomic_load(&script->generation))
		return state;
	pthread_mutex_lock(&script->lock);
	Source *source = script->source;
	unsigned generation = atomic_load(&script->generation);
	source->refs++;
	pthread_mutex_unlock(&script->lock);
	ScriptState *made = state_new(script, source, ret_error);
	source_unref(script, source);
	if (made == NULL)
		return NULL;
	made->generation = generation;
	state_free(state);
	return script->states[worker] = made;
}

/* `code, text`, or nothing. */
static bool
take_answer(lua_State *lua, PluginView *view, GError **ret_error)
{
	const char *why = NULL;
	if (lua_isnil(lua, -2))
		return true;
	int whole;
	lua_Integer code = lua_tointegerx(lua, -2, &whole);
	if (!whole || lua_type(lua, -2) != LUA_TNUMBER || lua_type(lua, -1) != LUA_TSTRING)
		why = "a function returns nothing, or a code and a text";
	else if (code < 0 || code > 1000)
		why = "the code of an answer is 400 to 599";
	else if (plugin_view_answer(view, (int)code, lua_tostring(lua, -1), &why))
		return true;
	return error_set(ret_error, K_ERROR_INPUT, "%s: %s: %s", view->name,
			 event_names[view->event], why);
}

static bool
take_match(lua_State *lua, const PluginView *view, int *ret_match, GError **ret_error)
{
	if (lua_isnil(lua, -2))
		*ret_match = -1;
	else if (lua_isboolean(lua, -2))
		*ret_match = lua_toboolean(lua, -2);
	else
		return error_set(ret_error, K_ERROR_INPUT,
				 "%s: match: returned a %s, not true, false or nil", view->name,
				 luaL_typename(lua, -2));
	return true;
}

/* Inside lua_pcall: finds the function too, so that nothing outside can fail. */
static int
call_event(lua_State *lua)
{
	const char *name = lua_touserdata(lua, 1);
	if (lua_getglobal(lua, name) != LUA_TFUNCTION)
		return 0;
	lua_rawgetp(lua, LUA_REGISTRYINDEX, &tx_key);
	lua_call(lua, 1, 2);
	return 2;
}

bool
script_call(Script *script, unsigned worker, PluginView *view, int *ret_match, GError **ret_error)
{
	k_assert(worker < IDS_WORKERS_MAX);
	ScriptState *state = take_state(script, worker, ret_error);
	if (state == NULL)
		return false;
	lua_State *lua = state->lua;
	begin_call(state);
	state->view = view;
	lua_pushcfunction(lua, call_event);
	lua_pushlightuserdata(lua, (void *)event_names[view->event]);
	int status = lua_pcall(lua, 1, 2, 0);
	state->view = NULL;
	bool good = status == LUA_OK;
	if (!good)
		failed(state, status, ret_error);
	else if (view->event == PLUGIN_MATCH)
		good = take_match(lua, view, ret_match, ret_error);
	else
		good = take_answer(lua, view, ret_error);
	lua_settop(lua, 0);
	if (status == LUA_ERRMEM) { /* what fills it would be in the way of all later calls */
		state_free(state);
		script->states[worker] = NULL;
	}
	return good;
}
