/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Delivery status notifications (RFC 3464) as finished messages.  Pure: the clock and the random
 * parts are passed in.  Any thread. */
#include <glib.h>
#include <stdint.h>

#define DSN_HEADERS_MAX (64 * 1024) /* bytes of the original's header that are returned */

typedef struct DsnInput {
	const char *mailer_daemon; /* address the notification comes from */
	const char *to;            /* envelope sender of the failed message, not "" */
	const char *rcpt;          /* the recipient that failed */
	int code;                  /* of the deciding reply: 4xx or 5xx */
	const char *text;          /* its text, may have several lines */
	const char *unique;        /* for boundary and Message-ID: letters and digits */
	int64_t arrival, now;      /* unix seconds */
	const char *header;        /* the original's header block with its last CRLF, or NULL */
	size_t header_len;
} DsnInput;

/* The whole message with CRLF line ends; lines stay under 998 octets.  g_string_free it. */
GString *dsn_build(const DsnInput *input);
/* Length of the header block at the start of `message`, with the CRLF of its last line and without
 * the empty line; 0 when there is no empty line within `len`. */
size_t dsn_header_len(const char *message, size_t len);
