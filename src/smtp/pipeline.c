/* SPDX-License-Identifier: Apache-2.0 */
#include "smtp/pipeline.h"

static const struct {
	const char *name;
	bool ends_group;
} rows[] = {
	[PIPE_EHLO] = {"EHLO", true},         [PIPE_HELO] = {"HELO", true},
	[PIPE_STARTTLS] = {"STARTTLS", true}, [PIPE_AUTH] = {"AUTH", true},
	[PIPE_MAIL] = {"MAIL", false},        [PIPE_RCPT] = {"RCPT", false},
	[PIPE_DATA] = {"DATA", true},         [PIPE_BDAT] = {"BDAT", false},
	[PIPE_DOT] = {"end of data", true},   [PIPE_RSET] = {"RSET", false},
};
_Static_assert(G_N_ELEMENTS(rows) == PIPE_KINDS, "a row for each kind");

const char *
pipe_kind_name(PipeKind kind)
{
	return rows[kind].name;
}

void
pipeline_init(Pipeline *pipeline)
{
	pipeline->text = g_string_new(NULL);
	pipeline->commands = g_array_new(FALSE, FALSE, sizeof(PipeCommand));
	pipeline->to_answer = pipeline->to_send = 0;
}

void
pipeline_clear(Pipeline *pipeline)
{
	g_string_free(pipeline->text, TRUE);
	g_array_free(pipeline->commands, TRUE);
}

static const PipeCommand *
command_at(const Pipeline *pipeline, guint at)
{
	return &g_array_index(pipeline->commands, PipeCommand, at);
}

static size_t
start_of(const Pipeline *pipeline, guint at)
{
	return at > 0 ? command_at(pipeline, at - 1)->end : 0;
}

void
pipeline_push(Pipeline *pipeline, PipeKind kind, unsigned index)
{
	PipeCommand command = {kind, index, pipeline->text->len};
	g_array_append_val(pipeline->commands, command);
}

const char *
pipeline_take(Pipeline *pipeline, bool pipelining, size_t *ret_len)
{
	guint from = pipeline->to_send, at = from;
	*ret_len = 0;
	if (from > pipeline->to_answer &&
	    (!pipelining || rows[command_at(pipeline, from - 1)->kind].ends_group))
		return NULL;
	while (at < pipeline->commands->len && at - pipeline->to_answer < PIPELINE_WINDOW) {
		bool ends = rows[command_at(pipeline, at)->kind].ends_group;
		at++;
		if (ends || !pipelining)
			break;
	}
	pipeline->to_send = at;
	size_t start = start_of(pipeline, from);
	*ret_len = start_of(pipeline, at) - start;
	return *ret_len > 0 ? pipeline->text->str + start : NULL;
}

const PipeCommand *
pipeline_waiting(const Pipeline *pipeline)
{
	return pipeline->to_answer < pipeline->to_send ? command_at(pipeline, pipeline->to_answer)
						       : NULL;
}

size_t
pipeline_behind(const Pipeline *pipeline)
{
	k_assert(pipeline->to_answer < pipeline->to_send);
	return start_of(pipeline, pipeline->to_send) - start_of(pipeline, pipeline->to_answer + 1);
}

void
pipeline_answered(Pipeline *pipeline)
{
	k_assert(pipeline->to_answer < pipeline->to_send);
	pipeline->to_answer++;
	if (pipeline->to_answer < pipeline->commands->len)
		return;
	g_array_set_size(pipeline->commands, 0);
	g_string_truncate(pipeline->text, 0);
	pipeline->to_answer = pipeline->to_send = 0;
}

void
pipeline_drop_unsent(Pipeline *pipeline)
{
	g_string_truncate(pipeline->text, start_of(pipeline, pipeline->to_send));
	g_array_set_size(pipeline->commands, pipeline->to_send);
}

unsigned
pipeline_outstanding(const Pipeline *pipeline)
{
	return pipeline->to_send - pipeline->to_answer;
}

bool
pipeline_is_empty(const Pipeline *pipeline)
{
	return pipeline->to_answer == pipeline->commands->len;
}
