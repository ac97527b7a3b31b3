/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "cmd/sink_int.h"

#define PAUSE_MAX 3600000 /* milliseconds */

const char sink_fault_help[] =
	"  --fault POINT[/N]:ACTION   misbehaves there, each Nth time; may be given again\n"
	"      POINT   greeting ehlo starttls tls auth mail rcpt data chunk message rset quit\n"
	"      ACTION  a reply (\"451 4.3.0 not now\"), or\n"
	"              drop      ends the connection instead of a reply\n"
	"              half      ends it behind half of the reply\n"
	"              hang      says nothing\n"
	"              delay=MS  replies later       slow=MS  a byte each MS milliseconds\n"
	"              junk      bytes that are no SMTP       twice  the reply two times\n"
	"              long      a line of 100,000 bytes      many   10,000 lines\n";

static const char *const point_names[] = {"greeting", "ehlo",    "starttls", "tls",
					  "auth",     "mail",    "rcpt",     "data",
					  "chunk",    "message", "rset",     "quit"};
_Static_assert(G_N_ELEMENTS(point_names) == SINK_POINTS, "a name for each point");

static const struct {
	const char *name;
	bool pause;
} action_names[] = {
	[SINK_REPLY] = {NULL, false},   [SINK_DROP] = {"drop", false},
	[SINK_HALF] = {"half", false},  [SINK_HANG] = {"hang", false},
	[SINK_DELAY] = {"delay", true}, [SINK_SLOW] = {"slow", true},
	[SINK_JUNK] = {"junk", false},  [SINK_LONG] = {"long", false},
	[SINK_MANY] = {"many", false},  [SINK_TWICE] = {"twice", false},
};
_Static_assert(G_N_ELEMENTS(action_names) == SINK_ACTIONS, "a name for each action");

/* "POINT" or "POINT/N". */
static bool
parse_point(const char *text, size_t len, SinkFault *fault)
{
	const char *slash = memchr(text, '/', len);
	size_t name = slash != NULL ? (size_t)(slash - text) : len;
	fault->every = 1;
	if (slash != NULL &&
	    (!text_parse_u64(slash + 1, len - name - 1, UINT32_MAX, &fault->every) ||
	     fault->every == 0))
		return false;
	for (int i = 0; i < SINK_POINTS; i++) {
		if (strlen(point_names[i]) == name && strncmp(point_names[i], text, name) == 0) {
			fault->point = (SinkPoint)i;
			return true;
		}
	}
	return false;
}

static bool
parse_reply(const char *text, SinkFault *fault)
{
	uint64_t code = 0;
	size_t len = strcspn(text, " ");
	if (len != 3 || !text_parse_u64(text, len, 599, &code) || code < 200)
		return false;
	text += len + (text[len] == ' ' ? 1 : 0);
	fault->action = SINK_REPLY;
	fault->code = (int)code;
	fault->text = g_strdup(*text != '\0' ? text : "as asked for");
	return true;
}

static bool
parse_action(const char *text, SinkFault *fault)
{
	for (int i = SINK_REPLY + 1; i < SINK_ACTIONS; i++) {
		const char *name = action_names[i].name;
		size_t len = strlen(name);
		uint64_t pause = 0;
		if (strncmp(text, name, len) != 0)
			continue;
		fault->action = (SinkAction)i;
		if (!action_names[i].pause)
			return text[len] == '\0';
		if (text[len] != '=' ||
		    !text_parse_u64(text + len + 1, strlen(text + len + 1), PAUSE_MAX, &pause) ||
		    pause == 0)
			return false;
		fault->pause = (Usec)pause * USEC_PER_MS;
		return true;
	}
	return parse_reply(text, fault);
}

bool
sink_fault_parse(const char *text, SinkFault *ret_fault)
{
	SinkFault fault = {0};
	const char *colon = strchr(text, ':');
	if (colon == NULL || !parse_point(text, (size_t)(colon - text), &fault) ||
	    !parse_action(colon + 1, &fault))
		return false;
	*ret_fault = fault;
	return true;
}
