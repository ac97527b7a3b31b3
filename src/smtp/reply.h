/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One SMTP reply (RFC 5321 4.2), assembled line by line, and the way back: a code and a text as
 * reply lines.  Pure: no I/O, clock, log or global.  A reply belongs to one connection, so to one
 * worker. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

#define SMTP_REPLY_TEXT_MAX  8192 /* bytes of a received reply, all lines together */
#define SMTP_REPLY_LINES_MAX 100  /* lines of a received reply; of a sent one, too */
#define SMTP_REPLY_LINE_MAX  512  /* octets of a line we send, with CRLF (4.5.3.1.5) */

typedef enum SmtpReplyFeed {
	SMTP_REPLY_MORE, /* "250-..." taken: feed the next line */
	SMTP_REPLY_DONE, /* complete: feed no more before smtp_reply_reset */
	SMTP_REPLY_BAD,  /* not SMTP, or too long: close the connection */
} SmtpReplyFeed;

typedef struct SmtpReply {
	int code;       /* 200..599; 0 before the first line */
	bool done;      /* DONE was returned */
	unsigned lines; /* taken so far */
	GString *text;  /* lines joined by '\n', codes cut, controls made spaces; owned */
} SmtpReply;

SmtpReply *smtp_reply_new(void);
void smtp_reply_free(SmtpReply *reply);  /* NULL is fine */
void smtp_reply_reset(SmtpReply *reply); /* for the next one, keeping the memory */
/* Takes one line of `len` bytes, its CRLF cut; keeps no pointer into it. */
SmtpReplyFeed smtp_reply_feed(SmtpReply *reply, const char *line, size_t len);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(SmtpReply, smtp_reply_free)

/* Length of the enhanced status (RFC 3463 2, "5.1.1") that `text` starts with, as a word of its
 * own and of the class of `code`; 0 when there is none. */
size_t smtp_reply_status_len(int code, const char *text);

/* Appends the reply `code` (200..599) with `text` to `out`: each '\n' starts a line, lines are
 * folded (at a space where there is one) to SMTP_REPLY_LINE_MAX octets, the enhanced status of
 * the text, or else `status` (NULL: none), stands on every line.  Control characters become
 * spaces; bytes outside ASCII are kept as UTF-8 with `utf8` (RFC 6531 3.7.4.2) and become '?'
 * otherwise.  Past SMTP_REPLY_LINES_MAX lines the rest is dropped. */
void smtp_reply_format(GString *out, int code, const char *status, const char *text, bool utf8);
