/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Delivery status notifications (RFC 3464) as finished messages.  Pure: the clock and the random
 * parts are passed in.  Any thread.
 *
 * The message is ASCII whatever was quoted, because it must get through to everybody; only when it
 * goes to an address outside ASCII, and so by SMTPUTF8 alone, it takes the forms of RFC 6533. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define DSN_HEADERS_MAX (64 * 1024) /* bytes of the original's header that are returned */

typedef enum DsnAction {
	DSN_FAILED,
	DSN_DELAYED,   /* a warning: it will be tried again */
	DSN_RELAYED,   /* to a host that sends no notifications */
	DSN_DELIVERED, /* its way ended there */
	DSN_ACTIONS
} DsnAction;

typedef struct DsnInput {
	const char *mailer_daemon; /* address the notification comes from */
	const char *to;            /* envelope sender of the message, not "" */
	const char *rcpt;          /* the recipient */
	const char *orcpt;         /* ORCPT as "type;address", decoded (RFC 3461 4.2); or NULL */
	const char *envid;         /* ENVID, decoded (4.4); or NULL */
	DsnAction action;
	int code;             /* of the deciding reply: 4xx (given up), 5xx; 2xx */
	const char *text;     /* its text, may have several lines */
	const char *unique;   /* for boundary and Message-ID: letters and digits */
	int64_t arrival, now; /* unix seconds */
	int64_t retry_until;  /* for a warning: unix seconds; 0: not known */
	const char *header;   /* the original's header block with its last CRLF, or NULL */
	size_t header_len;
	const char *full; /* all of the original instead, when dsn_may_return it; or NULL */
	size_t full_len;
} DsnInput;

/* Can it stand in a notification as it is: ASCII without NUL, lines of at most 998 octets that end
 * with CRLF. */
bool dsn_may_return(const char *message, size_t len);

/* The whole message with CRLF line ends; lines stay under 998 octets.  g_string_free it. */
GString *dsn_build(const DsnInput *input);
/* The Status field of such a reply (RFC 3463): 5xx, 2xx or a warning: the enhanced status that
 * begins its text, else X.0.0; 4xx: 4.4.7, delivery time expired. */
#define DSN_STATUS_MAX 16
void dsn_status(int code, const char *text, DsnAction action, char out[DSN_STATUS_MAX]);
/* Length of the header block at the start of `message`, with the CRLF of its last line and without
 * the empty line; 0 when there is no empty line within `len`. */
size_t dsn_header_len(const char *message, size_t len);
