/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What filters have in common whose decisions come from outside, from a plug-in or a script: when
 * which event is due, and what becomes of its outcome.  A proxy: it keeps the message back when the
 * code judges it, and puts the fields in front that the code has added. */
#include "filter/filter.h"
#include "filter/match.h"
#include "plugin/view.h"

#define HOOK_FLAGS (FILTER_PROXY)

/* First member of the filter's configuration. */
typedef struct HookConf {
	/* One event.  False: it failed; *ret_error says why and is logged. */
	bool (*call)(Filter *filter, PluginView *view, GError **ret_error);
	const char *name; /* in logs; borrowed from the rest of the configuration */
} HookConf;

/* First member of its state. */
typedef struct HookState {
	void *own; /* of the plug-in */
	bool opened;
	bool mail_done, message_done;
	size_t looked;   /* recipients of down */
	GString *fields; /* to be added, or NULL */
	unsigned n_fields;
	Response *rejected; /* the whole transaction was */
} HookState;

/* Which events the code wants now; a script may change that when it is reloaded. */
typedef struct HookWants {
	bool mail, rcpt, message;
} HookWants;

FilterResult hook_update(Filter *filter, unsigned news, HookWants wants);
void hook_close(Filter *filter);

/* What code may look at in a match expression; plugin_view_clear it. */
PluginView hook_match_view(MatchCtx *ctx, const char *name);
/* The complete message of `tx` when it has one, as raw bytes; else NULL. */
const Blob *hook_message(const Tx *tx, bool is_final);
