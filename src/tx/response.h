/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What somebody answered to a sender, a recipient or a message: an SMTP reply as a value
 * (RFC 5321 4.2).  Verdicts of peers and policies are data of this type, never errors.
 * Immutable and counted; not atomic: stays on one worker.  Pure. */
#include <glib.h>
#include <stdbool.h>

#include "base/check.h"

#define RESPONSE_TEXT_MAX 8192 /* bytes; longer text is cut */

typedef struct Response {
	int refs;
	int code;      /* 100..999; meaningful 200..599 */
	char *message; /* text without the code; lines joined by '\n'; an enhanced status (RFC
			  3463), if any, is its first word; never NULL */
} Response;

/* `message` NULL: the usual text of the class ("ok", "temporary error", "permanent error",
 * "internal error").  Carriage returns and other controls except '\n' become spaces. */
Response *response_new(int code, const char *message);
Response *response_newf(int code, const char *format, ...) K_PRINTF(2, 3);
Response *response_ref(Response *response);
void response_unref(Response *response); /* NULL is fine */
bool response_equal(const Response *a, const Response *b);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Response, response_unref)

/* All three are false for NULL. */
static inline bool
response_ok(const Response *r)
{
	return r != NULL && r->code >= 200 && r->code <= 299;
}
static inline bool
response_temp(const Response *r)
{
	return r != NULL && r->code >= 400 && r->code <= 499;
}
static inline bool
response_perm(const Response *r)
{
	return r != NULL && r->code >= 500 && r->code <= 599;
}
/* An answer that is no success. */
static inline bool
response_err(const Response *r)
{
	return r != NULL && !response_ok(r);
}
