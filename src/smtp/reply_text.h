/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What is kept of a peer's reply: it will stand in answers, rows, logs and bounces.  Pure. */
#include "smtp/reply.h"

#define SMTP_REPLY_KEEP_LINES 20
#define SMTP_REPLY_KEEP_BYTES 512 /* of one line */

/* The text may be kept as it is: one line, plain and short, as nearly all are. */
bool smtp_reply_is_plain(const SmtpReply *reply);
/* The text with at most SMTP_REPLY_KEEP_LINES lines of at most SMTP_REPLY_KEEP_BYTES (no character
 * is cut); bytes that are no UTF-8, and control characters of any kind, become '?'.  Caller
 * frees. */
char *smtp_reply_text(const SmtpReply *reply);
