/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The server's side of SASL (RFC 4422) as SMTP carries it (RFC 4954): PLAIN (RFC 4616), LOGIN and
 * SCRAM-SHA-256 (RFC 5802, 7677).  Pure: the client's words in, ours out; no I/O, clock or log.
 *
 * SCRAM is made of OpenSSL's HMAC and PBKDF2 and not of a SASL library: the server's half of it is
 * a page, while a library would bring its own state, callbacks and user store, and none of the
 * three forms of secrets that a file may have.  Channel binding (-PLUS) is not offered. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "smtp/secrets.h"

#define SMTP_SASL_LINE_MAX 12288 /* octets of a line with a response (RFC 4954 4) */
#define SMTP_SASL_USER_MAX SMTP_SECRET_MAX

typedef enum SmtpSaslMech {
	SMTP_SASL_PLAIN,
	SMTP_SASL_LOGIN,
	SMTP_SASL_SCRAM_SHA_256,
	SMTP_SASL_MECHS
} SmtpSaslMech;

/* SMTP_SASL_MECHS: unknown. */
SmtpSaslMech smtp_sasl_mech(const char *name, size_t len);

/* Strict base64 (RFC 4648 4) of one word; "=" alone is the empty string (RFC 4954 4).  NULL: it is
 * none.  Followed by a NUL that *ret_len does not count.  Caller frees (and wipes). */
uint8_t *smtp_sasl_decode(const char *text, size_t len, size_t *ret_len);

typedef enum SmtpSaslStep {
	SMTP_SASL_CHALLENGE, /* send `out` and give the answer to smtp_sasl_step */
	SMTP_SASL_CHECK,     /* look whether `password` is `user`'s */
	SMTP_SASL_ACCEPT,    /* `user` has proved itself */
	SMTP_SASL_REJECT,    /* it has not */
	SMTP_SASL_MALFORMED, /* not what the mechanism wants: 501 */
} SmtpSaslStep;

typedef struct SmtpSasl {
	SmtpSaslMech mech;
	const SmtpSecrets *secrets; /* borrowed */
	unsigned step;
	GString *out;   /* the challenge, not yet base64; owned */
	char *user;     /* owned; NULL before it is known */
	char *password; /* owned, wiped by smtp_sasl_clear; `password_len` bytes */
	size_t password_len;
	/* SCRAM */
	char *gs2, *first_bare, *server_first, *nonce;
	SmtpScramKeys keys;
} SmtpSasl;

/* `nonce`: ours, printable without ','; NULL makes one at random. */
void smtp_sasl_init(SmtpSasl *sasl, SmtpSaslMech mech, const SmtpSecrets *secrets,
		    const char *nonce);
void smtp_sasl_clear(SmtpSasl *sasl); /* wipes; may be called twice */
/* Without an initial response: the first challenge. */
SmtpSaslStep smtp_sasl_begin(SmtpSasl *sasl);
/* The client's decoded response (NUL-terminated behind `len`). */
SmtpSaslStep smtp_sasl_step(SmtpSasl *sasl, const char *data, size_t len);
