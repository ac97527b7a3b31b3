/* SPDX-License-Identifier: Apache-2.0 */
#include "dialogue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>

#include <cmocka.h>

#include <glib.h>
#include <string.h>

#include "live.h"

static void
run_one(uint16_t port, const Dialogue *dialogue, bool byte_by_byte)
{
	int fd = sock_connect(port);
	live_case = dialogue->name;
	assert_int_equal(sock_reply(fd, NULL), 220);
	g_auto(GStrv) steps = g_strsplit(dialogue->steps, "|", -1);
	/* "in|code\nin|code\n" split at '|': code and the next input are joined by the '\n' */
	g_autofree char *input = g_strdup(steps[0]);
	for (unsigned i = 1; steps[i] != NULL; i++) {
		const char *want = steps[i];
		bool bare = input[0] == '^';
		g_autofree char *line = g_strconcat(input + (bare ? 1 : 0), bare ? "" : "\r\n",
						    NULL);
		for (size_t at = 0, len = strlen(line); at < len;) {
			size_t n = byte_by_byte ? 1 : len - at;
			sock_send_bytes(fd, line + at, n);
			at += n;
		}
		if (want[0] != '-') {
			g_autofree char *text = NULL;
			int code = sock_reply(fd, &text);
			if (code != (int)g_ascii_strtoll(want, NULL, 10))
				fail_msg("%s: %s: got %d %s, want %.3s", dialogue->name, input,
					 code, text, want);
		}
		g_free(input);
		input = g_strdup(strchr(want, '\n') + 1);
	}
	GString *rest = sock_rest(fd);
	if (rest->len > 0)
		fail_msg("%s: left: %s", dialogue->name, rest->str);
	g_string_free(rest, TRUE);
	sock_close(fd);
}

void
dialogue_run(uint16_t port, const Dialogue *list, size_t count)
{
	for (size_t i = 0; i < 2 * count; i++)
		run_one(port, &list[i / 2], i % 2 == 1);
}
