/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Commands on their way to a server (RFC 2920): one queue, two cursors.
 *
 *   [ answered ... | sent, to be answered ... | to be sent ... ]
 *
 * With PIPELINING everything up to the end of a group goes out at once; a command that ends a
 * group must be answered before the next is sent.  Pure, one connection. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

#define PIPELINE_WINDOW 128 /* commands sent and not answered */

typedef enum PipeKind {
	PIPE_EHLO, /* or LHLO */
	PIPE_HELO,
	PIPE_STARTTLS,
	PIPE_AUTH, /* a step of it */
	PIPE_MAIL,
	PIPE_RCPT,
	PIPE_DATA,
	PIPE_BDAT, /* a chunk that is not the last; its bytes do not pass the queue */
	PIPE_DOT,  /* the end of the message: the dot or BDAT LAST; likewise */
	PIPE_RSET,
	PIPE_KINDS
} PipeKind;

const char *pipe_kind_name(PipeKind kind);

typedef struct PipeCommand {
	PipeKind kind;
	unsigned index; /* of the recipient */
	size_t end;     /* of its line in `text` */
} PipeCommand;

typedef struct Pipeline {
	GString *text; /* all lines, with CRLF */
	GArray *commands;
	guint to_answer; /* cursor */
	guint to_send;   /* cursor */
} Pipeline;

void pipeline_init(Pipeline *pipeline);
void pipeline_clear(Pipeline *pipeline);
/* Ends the command whose line (with CRLF; nothing for PIPE_BDAT and PIPE_DOT) was appended to
 * `text`. */
void pipeline_push(Pipeline *pipeline, PipeKind kind, unsigned index);
/* What may be sent now, contiguous in `text`; it counts as sent.  NULL and 0: nothing. */
const char *pipeline_take(Pipeline *pipeline, bool pipelining, size_t *ret_len);
/* The command that the next reply answers; NULL: none was sent. */
const PipeCommand *pipeline_waiting(const Pipeline *pipeline);
/* Bytes of `text` that count as sent behind it; there must be one. */
size_t pipeline_behind(const Pipeline *pipeline);
/* It was answered; the pointer from pipeline_waiting is void after this. */
void pipeline_answered(Pipeline *pipeline);
/* Forgets what was not sent. */
void pipeline_drop_unsent(Pipeline *pipeline);
/* Sent and not answered. */
unsigned pipeline_outstanding(const Pipeline *pipeline);
bool pipeline_is_empty(const Pipeline *pipeline);
