/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Local trouble: configuration, disk, database, resolver, system calls.  Carried as GError in
 * the domain K_ERROR.  What a peer or a policy says is no error but a Response (tx/response.h);
 * a bug is k_assert (base/check.h).  Any thread. */
#include <glib.h>
#include <stdbool.h>

#include "base/check.h"

#define K_ERROR (error_quark())

typedef enum KErrorCode {
	K_ERROR_CONFIG,   /* a configuration file or command line is wrong */
	K_ERROR_IO,       /* a system call failed */
	K_ERROR_FULL,     /* no space, or one of our own limits is reached */
	K_ERROR_STORE,    /* the database failed or is away */
	K_ERROR_DNS,      /* no usable answer from the resolver */
	K_ERROR_TLS,      /* key, certificate or handshake */
	K_ERROR_INPUT,    /* data given to us does not parse */
	K_ERROR_CONFLICT, /* somebody else changed or holds it */
	K_ERROR_NOT_FOUND,
	K_ERROR_CODES /* count */
} KErrorCode;

GQuark error_quark(void);
const char *error_code_name(KErrorCode code);

/* Sets *ret_error (NULL is fine) and returns false, so that `return error_set(...)` reads well. */
bool error_set(GError **ret_error, KErrorCode code, const char *format, ...) K_PRINTF(3, 4);
/* Like error_set, with ": " and the text of `errnum` appended. */
bool error_set_errno(GError **ret_error, KErrorCode code, int errnum, const char *format, ...)
	K_PRINTF(4, 5);
