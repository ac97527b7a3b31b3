/* SPDX-License-Identifier: Apache-2.0 */
/* Lua scripts: what they see, what they decide, and what they cannot do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "plugin/script.h"

#define MESSAGE "From: <alice@example.com>\r\nSubject: one\r\nSubject: two\r\n\r\nbody\r\n"
#define CPU_MAX (60 * 1000) /* microseconds; the promise is ten, sanitizers are slow */

static char *folder, *path;

typedef struct Outcome {
	bool good;
	char *error;  /* or "" */
	char *answer; /* "550 text" or "-" */
	char *fields;
	int match; /* 9: untouched */
	int64_t cpu;
} Outcome;

static int64_t
cpu(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}

static void
outcome_clear(Outcome *outcome)
{
	g_free(outcome->error);
	g_free(outcome->answer);
	g_free(outcome->fields);
}

static Tx *
transaction(void)
{
	Tx *tx = tx_new(NULL);
	g_autoptr(Mailbox) from = mailbox_new("alice@example.com", NULL, 0);
	g_autoptr(Mailbox) to = mailbox_new("bob@example.com", NULL, 0);
	g_autoptr(HostPort) remote = host_port_new("192.0.2.1", 4711);
	json_t *meta = json_pack("{s:s, s:b, s:s}", "ehlo_host", "client.example", "tls", 1,
				 "auth_user", "alice");
	tx_set_mail_from(tx, from);
	tx_add_rcpt(tx, to);
	tx_set_hosts(tx, remote, NULL);
	tx_set_smtp_meta(tx, meta);
	json_decref(meta);
	return tx;
}

static Outcome
call(Script *script, PluginEvent event)
{
	Outcome outcome = {.match = 9};
	g_autoptr(Tx) tx = transaction();
	g_autoptr(Blob) message = blob_new_bytes(MESSAGE, strlen(MESSAGE));
	json_t *signals = json_pack("{s:{s:i, s:[s, b]}}", "some.signal", "n", 7, "list", "a", 1);
	GString *fields = g_string_new(NULL);
	unsigned n_fields = 0;
	GError *error = NULL;
	PluginView view = {.event = event,
			   .tx = tx,
			   .rcpt = event == PLUGIN_RCPT ? "bob@example.com" : NULL,
			   .message = message,
			   .signals = signals,
			   .name = script_name(script),
			   .fields = event == PLUGIN_MATCH ? NULL : fields,
			   .n_fields = &n_fields};
	int64_t from = cpu();
	outcome.good = script_call(script, 0, &view, &outcome.match, &error);
	outcome.cpu = cpu() - from;
	outcome.error = g_strdup(error != NULL ? error->message : "");
	outcome.answer = view.answer != NULL
				 ? g_strdup_printf("%d %s", view.answer->code, view.answer->message)
				 : g_strdup("-");
	outcome.fields = g_string_free(fields, FALSE);
	g_clear_error(&error);
	plugin_view_clear(&view);
	json_decref(signals);
	return outcome;
}

static void
write_script(const char *text)
{
	assert_true(g_file_set_contents(path, text, -1, NULL));
	assert_int_equal(chmod(path, 0644), 0);
}

static const ScriptLimits limits = {.memory = 1024 * 1024, .instructions = 100000};

static Script *
load_limited(const char *text, const ScriptLimits *with, bool is_matcher)
{
	g_autoptr(GError) error = NULL;
	write_script(text);
	json_t *options = json_pack("{s:s, s:[i, i]}", "name", "value", "list", 1, 2);
	Script *script = script_new(path, with, options, is_matcher, &error);
	json_decref(options);
	if (script == NULL)
		fail_msg("%s: %s", text, error->message);
	return script;
}

static Script *
load(const char *text, bool is_matcher)
{
	return load_limited(text, &limits, is_matcher);
}

/* ---- what they see and decide ---- */

static void
test_members(void **state)
{
	(void)state;
	static const struct {
		const char *expression, *want;
	} cases[] = {
		{"tx.mail_from", "alice@example.com"},
		{"tx.rcpts[1]", "bob@example.com"},
		{"tx.rcpts[2]", "nil"},
		{"#tx.rcpts", "1"},
		{"tx.rcpt", "nil"},
		{"tx.remote_host", "192.0.2.1"},
		{"tx.local_host", "nil"},
		{"tx.ehlo", "client.example"},
		{"tx.auth_user", "alice"},
		{"tx.tls", "true"},
		{"tx.auth", "false"},
		{"tx.tls_version", "nil"},
		{"tx.sender", "nil"},
		{"tx.size", "63"},
		{"tx.field_count", "3"},
		{"tx:header('subject')", "one"},
		{"tx:header('subject', 2)", "two"},
		{"tx:header('subject', 3)", "nil"},
		{"tx:header('subject', 0)", "nil"},
		{"select(2, tx:field(1))", "<alice@example.com>"},
		{"tx:field(4)", "nil"},
		{"tx:read(0, 4)", "From"},
		{"tx:read(63, 4)", "nil"},
		{"#tx:read(60, 65536)", "3"},
		{"tx:signal('some.signal').n", "7"},
		{"tx:signal('some.signal').list[2]", "true"},
		{"tx:signal('other')", "nil"},
		{"options.name", "value"},
		{"options.list[2]", "2"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *text = g_strdup_printf(
			"function mail(tx) return 550, tostring((%s)) end", cases[i].expression);
		g_autofree char *want = g_strdup_printf("550 %s", cases[i].want);
		Script *script = load(text, false);
		Outcome outcome = call(script, PLUGIN_MAIL);
		if (strcmp(outcome.answer, want) != 0)
			fail_msg("%s: %s %s", text, outcome.answer, outcome.error);
		outcome_clear(&outcome);
		script_free(script);
	}
}

typedef struct CallCase {
	const char *text;
	const char *error; /* part; "" none */
	const char *answer, *fields;
} CallCase;

static const CallCase call_cases[] = {
	{"function mail(tx) end", "", "-", ""},
	{"function mail(tx) return nil end", "", "-", ""},
	{"function mail(tx) return 450, '4.7.1 later' end", "", "450 4.7.1 later", ""},
	{"function mail(tx) tx:add_header('X-A', 'b') end", "", "-", "X-A: b\r\n"},
	{"function mail(tx)\n return 200, 'ok' end", "the code of an answer is 400 to 599", "-",
	 ""},
	{"function mail(tx) return 399, 'x' end", "400 to 599", "-", ""},
	{"function mail(tx) return 400, 'x' end", "", "400 x", ""},
	{"function mail(tx) return 599, 'x' end", "", "599 x", ""},
	{"function mail(tx) return 600, 'x' end", "400 to 599", "-", ""},
	{"function mail(tx) return true end", "nothing, or a code and a text", "-", ""},
	{"function mail(tx) return 550 end", "nothing, or a code and a text", "-", ""},
	{"function mail(tx) return '550', 'x' end", "nothing, or a code and a text", "-", ""},
	{"function mail(tx) return 550.5, 'x' end", "nothing, or a code and a text", "-", ""},
	{"function mail(tx)\n  local x = tx.nothing\nend", "s.lua:2: tx has no 'nothing'", "-", ""},
	{"function mail(tx)\n\n  tx.rcpt = 1\nend", "s.lua:3: tx cannot be written", "-", ""},
	{"function mail(tx)\n  error('out of order')\nend", "s.lua:2: out of order", "-", ""},
	{"function mail(tx)\n  return nil + 1\nend", "s.lua:2: attempt to perform arithmetic", "-",
	 ""},
	{"function mail(tx) error({}) end", "s.lua: the error is a table", "-", ""},
	{"function mail(tx) error() end", "s.lua: the error is a nil", "-", ""},
	{"function mail(tx) tx:add_header('X A', 'b') end", "printable ASCII", "-", ""},
	{"function mail(tx) tx:add_header('X', 'a\\r\\nB: c') end", "without line ends", "-", ""},
	{"function mail(tx) for i = 1, 100 do tx:add_header('X', 'y') end end", "", "-",
	 "X: y\r\nX"},
	{"function mail(tx) for i = 1, 101 do tx:add_header('X', 'y') end end",
	 "at most 100 header fields", "-", "X: y\r\n"},
	{"function mail(tx) tx:read(-1, 1) end", "bad argument", "-", ""},
	{"function mail(tx) tx:read(0, 65537) end", "bad argument", "-", ""},
	{"kept = 0 function mail(tx) kept = kept + 1 if kept == 1 then return 450, 'first' end end",
	 "", "450 first", ""},
};

static void
test_calls(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(call_cases); i++) {
		const CallCase *c = &call_cases[i];
		Script *script = load(c->text, false);
		Outcome outcome = call(script, PLUGIN_MAIL);
		if (outcome.good != (*c->error == '\0') ||
		    strstr(outcome.error, c->error) == NULL ||
		    strcmp(outcome.answer, c->answer) != 0 ||
		    !g_str_has_prefix(outcome.fields, c->fields))
			fail_msg("%s: %s, %s, %s", c->text, outcome.answer, outcome.fields,
				 outcome.error);
		outcome_clear(&outcome);
		script_free(script);
	}
}

static void
test_matches(void **state)
{
	(void)state;
	static const struct {
		const char *text, *error;
		int want;
	} cases[] = {
		{"function match(tx) return true end", "", 1},
		{"function match(tx) return false end", "", 0},
		{"function match(tx) return nil end", "", -1},
		{"function match(tx) end", "", -1},
		{"function match(tx) return 1 end", "returned a number, not true, false or nil", 9},
		{"function match(tx) return tx.remote_host == '192.0.2.1' end", "", 1},
		{"function match(tx) tx:add_header('X', 'y') end", "header fields are added by", 9},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		Script *script = load(cases[i].text, true);
		Outcome outcome = call(script, PLUGIN_MATCH);
		if (outcome.match != cases[i].want || strstr(outcome.error, cases[i].error) == NULL)
			fail_msg("%s: %d %s", cases[i].text, outcome.match, outcome.error);
		outcome_clear(&outcome);
		script_free(script);
	}
}

/* ---- loading ---- */

static void
test_load(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool is_matcher;
		const char *error;
	} cases[] = {
		{"function mail(tx)\n  x = = 1\nend", false, "s.lua:2: unexpected symbol near '='"},
		{"", false, "no function mail, rcpt or message"},
		{"function match() end", false, "no function mail, rcpt or message"},
		{"function mail() end", true, "no function match"},
		{"\033Lua", false, "attempt to load a binary chunk (mode is 't')"},
		{"while true do end", false, "s.lua:1: instructions used up"},
		{"\nt = {} while true do t[#t + 1] = {} end", false, "s.lua:2: memory used up"},
		{"x = tx.mail_from", false, "s.lua:1: attempt to index a nil value (global 'tx')"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) error = NULL;
		const ScriptLimits narrow = {.memory = 128 * 1024, .instructions = 100000};
		write_script(cases[i].text);
		Script *script = script_new(path, i == 6 ? &narrow : &limits, NULL,
					    cases[i].is_matcher, &error);
		assert_null(script);
		if (strstr(error->message, cases[i].error) == NULL)
			fail_msg("%s: %s", cases[i].text, error->message);
	}
}

static void
test_file(void **state)
{
	(void)state;
	static const struct {
		size_t size;
		mode_t mode;
		const char *error;
	} cases[] = {
		{SCRIPT_SIZE_MAX, 0644, NULL},
		{SCRIPT_SIZE_MAX + 1, 0644, "more than 262144 bytes"},
		{100, 0646, "everybody may write it"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) error = NULL;
		g_autoptr(GString) text = g_string_new("function mail() end\n--");
		while (text->len < cases[i].size)
			g_string_append_c(text, text->len % 80 == 0 ? '\n' : '-');
		for (size_t at = 80; at + 3 < text->len; at += 80)
			memcpy(text->str + at, "\n--", 3);
		write_script(text->str);
		assert_int_equal(chmod(path, cases[i].mode), 0);
		Script *script = script_new(path, &limits, NULL, false, &error);
		assert_int_equal(script != NULL, cases[i].error == NULL);
		if (cases[i].error != NULL)
			assert_non_null(strstr(error->message, cases[i].error));
		script_free(script);
	}
}

/* What is not there cannot be used. */
static void
test_absent(void **state)
{
	(void)state;
	static const char *const names[] = {
		"io",
		"os",
		"package",
		"require",
		"debug",
		"load",
		"loadstring",
		"loadfile",
		"dofile",
		"coroutine",
		"collectgarbage",
		"setmetatable",
		"getmetatable",
		"rawset",
		"rawget",
		"rawequal",
		"pcall",
		"xpcall",
		"print",
		"warn",
		"_G",
		"utf8",
		"string.dump",
		"string.pack",
		"string.unpack",
		"string.packsize",
		"table.sort",
		"table.move",
		"math.random",
		"math.randomseed",
		"(''.dump)",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		g_autofree char *text = g_strdup_printf(
			"function mail() if (%s) ~= nil then return 550, 'there' end end",
			names[i]);
		if (names[i][0] == '(') {
			g_free(text);
			text = g_strdup(
				"function mail() if ('').dump or ('').pack then return 550, "
				"'there' end end");
		}
		Script *script = load(text, false);
		Outcome outcome = call(script, PLUGIN_MAIL);
		if (strcmp(outcome.answer, "-") != 0 || !outcome.good)
			fail_msg("%s: %s %s", names[i], outcome.answer, outcome.error);
		outcome_clear(&outcome);
		script_free(script);
	}
}

/* ---- limits ---- */

#define LOOP "local s = ('a'):rep(60000) "
static const struct {
	const char *name, *body, *error;
} hostile[] = {
	{"endless loop", "while true do end", "instructions used up"},
	{"goto", "::again:: goto again", "instructions used up"},
	{"recursion", "local function f() return 1 + f() end f()", "used up"},
	{"tail calls", "local function f() return f() end f()", "instructions used up"},
	{"memory", "local t = {} while true do t[#t + 1] = {} end", "s.lua:2: "},
	{"string growth", "local s = 'x' while true do s = s .. s end", "s.lua:2: memory used up"},
	{"rep", "return 550, ('x'):rep(1e9)", "string.rep makes at most 65536 bytes"},
	{"rep of nothing", "local s = (''):rep(1e15)", "string.rep makes at most"},
	{"rep overflow", "local s = ('xx'):rep(math.maxinteger)", "string.rep makes at most"},
	{"format", "local s = ('%99999d'):format(1)", "invalid conversion"},
	{"format of many", LOOP "while true do local t = ('%s%s%s'):format(s, s, s) end",
	 "used up"},
	{"pattern", "local s = ('a'):rep(150) s:find('.-.-.-.-b')", "instructions used up"},
	{"stars", "local s = ('a'):rep(5000) s:match('a*a*a*a*b')", "instructions used up"},
	{"gsub", "local s = ('a'):rep(60000) while true do s:gsub('a', 'b') end",
	 "instructions used up"},
	{"gmatch", "for w in (('a'):rep(60000)):gmatch('.-.-x') do end", "instructions used up"},
	{"balance", "local s = ('('):rep(60000) s:gsub('%b()', '')", "instructions used up"},
	{"set", "local s = ('a'):rep(50000) s:find('[' .. ('b'):rep(50000) .. ']')",
	 "instructions used up"},
	{"captures", "local s = ('a'):rep(40) s:find(('(a)'):rep(33))", "too many captures"},
	{"depth", "local s = ('a'):rep(400) s:find(('a?'):rep(300))", "pattern too complex"},
	{"back reference", LOOP "s:find('(.*)%1b')", "instructions used up"},
	{"frontier", LOOP "while true do s:find('%f[b]') end", "instructions used up"},
	{"plain find", LOOP "while true do s:find('b', 1, true) end", "instructions used up"},
	{"comparison", LOOP "local t = s .. 'b' while s < t do end", "used up"},
	{"concat", LOOP "while true do local t = s .. 'x' end", "used up"},
	{"upper", LOOP "while true do s:upper() end", "used up"},
	{"bytes", LOOP "s:byte(1, -1)", ""},
	{"table.concat", LOOP "local t = {} for i = 1, 500 do t[i] = s end table.concat(t)",
	 "memory used up"},
	{"table.insert", "local t = {} while true do table.insert(t, 1, 1) end", "used up"},
	{"table.unpack", "table.unpack({}, 1, 1e8)", "at most 200 values"},
	{"unpack range", "table.unpack({}, math.mininteger, math.maxinteger)",
	 "at most 200 values"},
	{"next",
	 "local t = {} for i = 1, 9000 do t[i] = 1 end for i = 1, 9000 do t[i] = nil end "
	 "while next(t) == nil do end",
	 "used up"},
	{"varargs", "local function f(...) return f(1, ...) end f()", "used up"},
	{"error object", "error({'x'})", "the error is a table"},
	{"long error", "error(('e'):rep(60000))", "eeee"},
	{"string metatable", "local m = getmetatable('')", "attempt to call a nil value"},
	{"string table", "string.find = nil local m = ('').find", ""},
	{"string index", "('').rep.x = 1", "attempt to index a function value"},
	{"coroutine", "coroutine.wrap(function() while true do end end)()", "attempt to index"},
	{"collector", "collectgarbage('stop')", "attempt to call a nil value"},
	{"finalizer", "setmetatable({}, {__gc = function() while true do end end})",
	 "attempt to call a nil value"},
	{"close", "local x <close> = {}", "got a non-closable value"},
	{"tx metatable", "tx.__index = 1", "tx cannot be written"},
	{"tx.__gc", "local x = tx.__gc", "tx has no '__gc'"},
	{"rewritten tostring", "tostring = nil error({})", "the error is a table"},
	{"log flood", "while true do log('x') end", "instructions used up"},
	{"replacement loop", LOOP "s:gsub('.', function(c) while true do end end)",
	 "instructions used up"},
};

static void
test_hostile(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(hostile); i++) {
		g_autofree char *text = g_strdup_printf("function mail(tx)\n  %s\nend\n"
							"function rcpt(tx) return 550, 'still' end",
							hostile[i].body);
		print_message("%s\n", hostile[i].name);
		Script *script = load(text, false);
		Outcome outcome = call(script, PLUGIN_MAIL);
		if (strstr(outcome.error, hostile[i].error) == NULL ||
		    outcome.good != (hostile[i].error[0] == '\0'))
			fail_msg("%s: %s, not %s", hostile[i].name, outcome.error,
				 hostile[i].error);
		if (outcome.cpu > CPU_MAX)
			fail_msg("%s: %ld us", hostile[i].name, (long)outcome.cpu);
		outcome_clear(&outcome);
		/* and it works afterwards as before */
		outcome = call(script, PLUGIN_RCPT);
		if (strcmp(outcome.answer, "550 still") != 0)
			fail_msg("%s: afterwards %s", hostile[i].name, outcome.error);
		outcome_clear(&outcome);
		script_free(script);
	}
}

/* With as many instructions as it needs it ends, with one less it does not. */
static void
test_instructions(void **state)
{
	(void)state;
	static const char text[] = "function mail() for i = 1, 300 do local x = i end end";
	unsigned enough = 0;
	for (unsigned low = 1, high = 100000; low <= high;) {
		unsigned middle = low + (high - low) / 2;
		const ScriptLimits with = {.memory = 1024 * 1024, .instructions = middle};
		write_script(text);
		Script *script = script_new(path, &with, NULL, false, NULL);
		bool good = false;
		if (script != NULL) {
			Outcome outcome = call(script, PLUGIN_MAIL);
			good = outcome.good;
			outcome_clear(&outcome);
		}
		script_free(script);
		if (good) {
			enough = middle;
			high = middle - 1;
		} else {
			low = middle + 1;
		}
	}
	assert_in_range(enough, 600, 700);
	for (int extra = 0; extra < 2; extra++) {
		g_autofree char *longer = g_strdup_printf(
			"function mail() for i = 1, 300 do local x = i end %s end",
			extra > 0 ? "local y = 1" : "");
		const ScriptLimits with = {.memory = 1024 * 1024, .instructions = enough};
		Script *script = load_limited(longer, &with, false);
		Outcome outcome = call(script, PLUGIN_MAIL);
		assert_int_equal(outcome.good, extra == 0);
		outcome_clear(&outcome);
		script_free(script);
	}
}

static void
test_string_limit(void **state)
{
	(void)state;
	static const struct {
		const char *body, *error;
	} cases[] = {
		{"local s = ('x'):rep(65536)", ""},
		{"local s = ('x'):rep(65537)", "string.rep makes at most 65536 bytes"},
		{"local s = ('x'):rep(65535) .. 'y'", ""},
		{"local s = ('x'):rep(65536) .. ('y'):rep(50)", "memory used up"},
		{"table.unpack({}, 1, 200)", ""},
		{"table.unpack({}, 1, 201)", "at most 200 values"},
		{"('a'):find(('(a?)'):rep(32))", ""},
		{"('a'):find(('(a?)'):rep(33))", "too many captures"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *text = g_strdup_printf("function mail() %s end", cases[i].body);
		Script *script = load(text, false);
		Outcome outcome = call(script, PLUGIN_MAIL);
		if (strstr(outcome.error, cases[i].error) == NULL ||
		    outcome.good != (cases[i].error[0] == '\0'))
			fail_msg("%s: %s", cases[i].body, outcome.error);
		outcome_clear(&outcome);
		script_free(script);
	}
}

/* The state never holds more than its limit; a table of known size fits below it and not above. */
static void
test_memory(void **state)
{
	(void)state;
	static const char text[] =
		"function mail() local t = {} for i = 1, 4096 do t[i] = i end end";
	size_t enough = 0;
	for (size_t low = 16384, high = 1024 * 1024; low <= high;) {
		size_t middle = low + (high - low) / 2;
		const ScriptLimits with = {.memory = middle, .instructions = 100000};
		write_script(text);
		Script *script = script_new(path, &with, NULL, false, NULL);
		bool good = false;
		if (script != NULL) {
			Outcome outcome = call(script, PLUGIN_MAIL);
			good = outcome.good;
			if (!good)
				assert_non_null(strstr(outcome.error, "s.lua:1: memory used up"));
			outcome_clear(&outcome);
		}
		script_free(script);
		if (good) {
			enough = middle;
			high = middle - 1;
		} else {
			low = middle + 1;
		}
	}
	/* 64 KiB of the table, half of them again while it grows, and the libraries */
	assert_in_range(enough, 64 * 1024, 160 * 1024);
}

/* ---- patterns ---- */

static void
test_patterns(void **state)
{
	(void)state;
	static const struct {
		const char *expression, *want;
	} cases[] = {
		{"('hello world'):find('wor')", "7"},
		{"select(2, ('hello world'):find('o w'))", "7"},
		{"('hello'):find('l', -2)", "4"},
		{"('hello'):find('')", "1"},
		{"('hello'):find('', 6)", "6"},
		{"('hello'):find('', 7)", "nil"},
		{"('a.b'):find('.', 1, true)", "2"},
		{"('a+b'):match('%+')", "+"},
		{"('key = value'):match('^(%w+)%s*=%s*(%w+)$')", "key"},
		{"select(2, ('key = value'):match('^(%w+)%s*=%s*(%w+)$'))", "value"},
		{"('abc'):match('()b()')", "2"},
		{"('aaa'):match('a-')", ""},
		{"('aaab'):match('a-b')", "aaab"},
		{"('aaab'):match('a+')", "aaa"},
		{"('b'):match('a?b')", "b"},
		{"('x]y'):match('[]]')", "]"},
		{"('x-y'):match('[a%-z]')", "-"},
		{"('m'):match('[^a-l]')", "m"},
		{"('d'):match('[^a-l]')", "nil"},
		{"('f(a(b)c)d'):match('%b()')", "(a(b)c)"},
		{"('THE (quick) fox'):find('%f[%a]%a+%f[%A]')", "1"},
		{"('say say'):match('(%a+) %1')", "say"},
		{"('end$'):match('d$')", "nil"},
		{"('$x'):match('^%$x')", "$x"},
		{"('hello'):gsub('l', 'L')", "heLLo"},
		{"select(2, ('hello'):gsub('l', 'L'))", "2"},
		{"('hello'):gsub('l', 'L', 1)", "heLlo"},
		{"('abc'):gsub('%w', '%0%0')", "aabbcc"},
		{"('abc def'):gsub('(%w+) (%w+)', '%2 %1')", "def abc"},
		{"('abc'):gsub('', '-')", "-a-b-c-"},
		{"('abc'):gsub('b', {b = 'X'})", "aXc"},
		{"('abc'):gsub('%w', function(c) if c == 'b' then return 'Y' end end)", "aYc"},
		{"('abc'):gsub('^a', 'z')", "zbc"},
		{"('a,b,,c'):gsub(',', ';')", "a;b;;c"},
		{"(function() local n = 0 for k in ('a,b,c'):gmatch('[^,]+') do n = n + 1 end "
		 "return n end)()",
		 "3"},
		{"(function() local r = '' for k, v in ('a=1, b=2'):gmatch('(%w+)=(%w+)') do r = r "
		 ".. k .. v end return r end)()",
		 "a1b2"},
		{"(function() local n = 0 for _ in ('abc'):gmatch('') do n = n + 1 end return n end)()",
		 "4"},
		{"('x'):rep(3, ',')", "x,x,x"},
		{"('x'):rep(0)", ""},
		{"('%5.2f|%-4s|%x'):format(3.14159, 'ab', 255)", " 3.14|ab  |ff"},
		{"('Hi'):lower() .. ('Hi'):upper() .. ('Hi'):reverse() .. #'Hi'", "hiHIiH2"},
		{"table.concat({1, 2, 3}, '-')", "1-2-3"},
		{"math.max(1, 5, 3)", "5"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *text = g_strdup_printf(
			"function mail(tx) return 550, '.' .. tostring((%s)) end",
			cases[i].expression);
		g_autofree char *want = g_strdup_printf("550 .%s", cases[i].want);
		Script *script = load(text, false);
		Outcome outcome = call(script, PLUGIN_MAIL);
		if (strcmp(outcome.answer, want) != 0)
			fail_msg("%s: %s %s", text, outcome.answer, outcome.error);
		outcome_clear(&outcome);
		script_free(script);
	}
}

static void
test_bad_patterns(void **state)
{
	(void)state;
	static const struct {
		const char *pattern, *error;
	} cases[] = {
		{"%", "malformed pattern (ends with '%')"},
		{"[a", "malformed pattern (missing ']')"},
		{"[]", "malformed pattern (missing ']')"},
		{"[^]", "malformed pattern (missing ']')"},
		{"[%", "malformed pattern (missing ']')"},
		{"(a", "unfinished capture"},
		{"a)", "invalid pattern capture"},
		{"%1", "invalid capture index %1"},
		{"%b", "missing arguments to '%b'"},
		{"%bx", "missing arguments to '%b'"},
		{"%f", "missing '[' after '%f'"},
		{"%fa", "missing '[' after '%f'"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *text = g_strdup_printf(
			"function mail(tx) return ('a'):match('%s') end", cases[i].pattern);
		Script *script = load(text, false);
		Outcome outcome = call(script, PLUGIN_MAIL);
		if (outcome.good || strstr(outcome.error, cases[i].error) == NULL)
			fail_msg("%s: %s %s", cases[i].pattern, outcome.answer, outcome.error);
		outcome_clear(&outcome);
		script_free(script);
	}
}

/* ---- reload ---- */

static void
check_mail(Script *script, const char *want)
{
	Outcome outcome = call(script, PLUGIN_MAIL);
	assert_string_equal(outcome.answer, want);
	outcome_clear(&outcome);
}

static void
test_reload(void **state)
{
	(void)state;
	g_autoptr(GError) error = NULL;
	Script *script = load("function mail() return 550, 'first' end", false);
	check_mail(script, "550 first");
	assert_false(script_wants(script, PLUGIN_RCPT));
	write_script("function mail() return 550, 'second' end function rcpt() end");
	check_mail(script, "550 first");
	assert_true(script_reload(script, &error));
	check_mail(script, "550 second");
	assert_true(script_wants(script, PLUGIN_RCPT));
	write_script("function mail() return");
	assert_false(script_reload(script, &error));
	assert_non_null(strstr(error->message, "s.lua:1: 'end' expected"));
	check_mail(script, "550 second");
	g_clear_error(&error);
	g_unlink(path);
	assert_false(script_reload(script, &error));
	check_mail(script, "550 second");
	script_free(script);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members),      cmocka_unit_test(test_calls),
		cmocka_unit_test(test_matches),      cmocka_unit_test(test_load),
		cmocka_unit_test(test_file),         cmocka_unit_test(test_absent),
		cmocka_unit_test(test_hostile),      cmocka_unit_test(test_instructions),
		cmocka_unit_test(test_string_limit), cmocka_unit_test(test_memory),
		cmocka_unit_test(test_patterns),     cmocka_unit_test(test_bad_patterns),
		cmocka_unit_test(test_reload),
	};
	log_set(LOG_LEVELS, LOG_LOGFMT);
	folder = g_dir_make_tmp("koukan-script-XXXXXX", NULL);
	path = g_build_filename(folder, "s.lua", NULL);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	g_unlink(path);
	g_rmdir(folder);
	g_free(path);
	g_free(folder);
	return failed;
}
