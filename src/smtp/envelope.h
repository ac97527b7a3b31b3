/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What a next hop can do (its reply to EHLO, RFC 5321 4.1.1.1) and the MAIL and RCPT commands
 * made for it (behaviour spec 19).  Pure; values belong to one connection. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "tx/address.h"
#include "tx/response.h"

/* Declared sizes up to here are sent to a hop that does not offer SIZE. */
#define SMTP_SIZE_UNASKED_MAX 8388608

typedef struct SmtpCaps {
	bool pipelining, eightbit, smtputf8, size, starttls, chunking, binarymime, dsn;
	bool auth_plain, auth_login;
	uint64_t size_max; /* 0: no fixed limit, or none told */
	unsigned mail_max; /* transactions over one connection (MAILMAX); 0: none told */
	unsigned rcpt_max; /* recipients of a transaction (RCPTMAX); 0: none told */
	char *keywords;    /* "\nKEYWORD\n...", upper case; NULL after HELO */
} SmtpCaps;

/* `text`: the reply to EHLO, lines joined by '\n', the first of them its greeting. */
void smtp_caps_parse(const char *text, SmtpCaps *ret_caps);
void smtp_caps_clear(SmtpCaps *caps);
bool smtp_caps_has(const SmtpCaps *caps, const char *keyword);

typedef struct SmtpMailOptions {
	int64_t size; /* bytes of the message if they are known, else -1: replaces a SIZE given */
	bool bdat;    /* the message goes by BDAT, so it may be binary */
	bool utf8;    /* an address of the transaction is outside ASCII: asks for SMTPUTF8 */
} SmtpMailOptions;

/* Each appends a command line with CRLF to `out` and returns NULL, or returns the answer to give
 * instead (the caller's), leaving `out` alone. */
K_MUST_CHECK Response *smtp_envelope_mail(GString *out, const Mailbox *from, const SmtpCaps *caps,
					  const SmtpMailOptions *options);
K_MUST_CHECK Response *smtp_envelope_rcpt(GString *out, const Mailbox *to, const SmtpCaps *caps,
					  bool utf8);
