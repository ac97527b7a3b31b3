/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Lua 5.4 scripts as filters and matchers, in a sandbox: no files, no processes, no bytecode, and
 * for each call a limit of instructions, of processor time and, for the state, of memory.  What
 * runs inside the C functions of a script is counted as well (script_lib.c, script_match.c).
 *
 * One Script for each use in the configuration; inside it one Lua state for each worker, made when
 * that worker first needs it, so that calls take no lock.  A reload puts a new source in place,
 * which each worker takes up at its next call; a source that does not work is not taken.
 *
 * Owner: the configuration.  Calls: on the worker of that index.  Reload: any one thread at a
 * time.  Freed when no worker runs. */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

#include "plugin/view.h"

#define SCRIPT_SIZE_MAX   (256 * 1024) /* bytes of a file */
#define SCRIPT_STRING_MAX (64 * 1024)  /* bytes of one string in a script */
#define SCRIPT_CPU_MAX    (5 * 1000) /* microseconds of one call; seen at the latest after twice */

typedef struct ScriptLimits {
	size_t memory;         /* bytes of one state */
	unsigned instructions; /* of one call */
} ScriptLimits;

typedef struct Script Script;

/* Reads, compiles and runs the file once.  `options` (counted, may be NULL) is the global `options`
 * there.  NULL: *ret_error says what and where ("FILE:LINE: ..."). */
K_MUST_CHECK Script *script_new(const char *path, const ScriptLimits *limits, json_t *options,
				bool is_matcher, GError **ret_error);
void script_free(Script *script); /* NULL is fine */
/* Reads the file again.  False: what ran before goes on. */
K_MUST_CHECK bool script_reload(Script *script, GError **ret_error);
const char *script_path(const Script *script);
const char *script_name(const Script *script); /* its file's name */
/* Whether it has a function for that event. */
bool script_wants(const Script *script, PluginEvent event);
/* One event; what it decides is in the view, for a matcher in *ret_match: 1 yes, 0 no, -1 unknown
 * (else untouched; may be NULL).  False: it failed. */
K_MUST_CHECK bool script_call(Script *script, unsigned worker, PluginView *view, int *ret_match,
			      GError **ret_error);
