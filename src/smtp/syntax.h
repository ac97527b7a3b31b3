/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The arguments of MAIL and RCPT (RFC 5321 4.1.1.2, 4.1.1.3, 4.1.2; RFC 6531 3.3): a path and
 * its ESMTP parameters.  Pure: no I/O, clock, log or global; any thread (the Mailbox it makes
 * stays on the caller's worker). */
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"
#include "tx/address.h"

#define SMTP_COMMAND_MAX 2048 /* bytes of a command line without CRLF */
#define SMTP_LOCAL_MAX   64   /* octets of a local part (RFC 5321 4.5.3.1.1) */
#define SMTP_DOMAIN_MAX  255  /* octets of a domain (4.5.3.1.2) */
#define SMTP_LABEL_MAX   63   /* octets of one label (RFC 1035 2.3.4) */
#define SMTP_PARAMS_MAX  16   /* parameters of one command */

typedef enum SmtpPathKind { SMTP_PATH_MAIL, SMTP_PATH_RCPT } SmtpPathKind;

typedef enum SmtpPathResult {
	SMTP_PATH_OK,
	SMTP_PATH_SYNTAX,      /* no FROM: / TO:, no path, text behind the path */
	SMTP_PATH_ADDRESS,     /* the address itself */
	SMTP_PATH_LOCAL_LONG,  /* local part over SMTP_LOCAL_MAX */
	SMTP_PATH_DOMAIN_LONG, /* domain over SMTP_DOMAIN_MAX */
	SMTP_PATH_PARAMS,      /* a parameter is malformed or given twice, or there are too many */
	SMTP_PATH_UTF8,        /* outside ASCII without SMTPUTF8 */
	SMTP_PATH_RESULTS
} SmtpPathResult;

/* Reads "FROM:<path> [params]" or "TO:<path> [params]".  Spaces behind the colon and a path
 * without angle brackets are taken, as mail servers in the field do; a source route is dropped.
 * "<>" is the null path of MAIL; "<postmaster>" needs no domain in RCPT.  `utf8`: SMTPUTF8 may be
 * used (MAIL: the peer may ask for it; RCPT: the MAIL command did).  *ret_mailbox is the
 * caller's, untouched on failure. */
K_MUST_CHECK SmtpPathResult smtp_parse_path(const char *arg, size_t len, SmtpPathKind kind,
					    bool utf8, Mailbox **ret_mailbox);
/* True when `addr` may stand between angle brackets of a command that we send: a mailbox, or a
 * bare local part, or "" (the null path); never a control character, space or bracket that could
 * end the command. */
bool smtp_address_is_sendable(const char *addr);
/* The same for "keyword[=value]" of a parameter; `value` may be NULL. */
bool smtp_param_is_sendable(const char *keyword, const char *value);
/* The argument of EHLO and HELO: one word of printable ASCII without the characters that have a
 * meaning in header fields.  Wider than RFC 5321 4.1.1.1, since clients send all sorts of names. */
bool smtp_hello_name_is_valid(const char *name, size_t len);
