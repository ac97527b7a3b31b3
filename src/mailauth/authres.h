/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Authentication-Results (RFC 8601): writing the field, and telling whose a field is that came with
 * a message.  Pure. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#define AUTHRES_FIELD     "Authentication-Results"
#define AUTHRES_VALUE_MAX 320 /* bytes of one value; longer ones are left out */

typedef struct AuthRes AuthRes;

AuthRes *authres_new(const char *id); /* our authserv-id */
/* "; method=result" */
void authres_add(AuthRes *res, const char *method, const char *result);
/* " property=value" of the last method; the value is quoted when it has to be.  NULL, empty, too
 * long and what no quoting helps (controls): left out. */
void authres_prop(AuthRes *res, const char *property, const char *value);
/* Frees it and returns the field with its line end.  Caller frees. */
char *authres_end(AuthRes *res);

/* A value as it stands in such fields, quoted when it has to be.  Caller frees. */
char *authres_value(const char *text);

/* Is a field of that value (behind the colon) by `id`?  One whose authserv-id cannot be read counts
 * as such, since nobody can tell. */
bool authres_is_of(const char *value, size_t len, const char *id);
/* What such a field says, behind its authserv-id, without white space around it; NULL: it is not by
 * `id`, or says nothing.  Caller frees. */
char *authres_results(const char *value, size_t len, const char *id);
