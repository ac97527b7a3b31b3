/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How well formed is a message: four levels (behaviour spec 9.8).  A plain small message costs a
 * scan of its header; only containers and encoded bodies are read through.  Pure apart from
 * reading the Blob; any one thread. */
#include <glib.h>
#include <stdbool.h>

#include "base/check.h"
#include "tx/blob.h"

typedef enum MimeValidity {
	MIME_VALID_NONE,
	MIME_VALID_BASIC,
	MIME_VALID_MEDIUM,
	MIME_VALID_HIGH,
	MIME_VALIDITIES
} MimeValidity;

#define MIME_NESTING_MAX 20 /* deeper is a defect */

typedef struct MimeVerdict {
	MimeValidity status;
	bool counted;      /* `received` is known */
	unsigned received; /* Received fields */
	char *err;         /* NULL at HIGH; owned */
	char *from;        /* the From address when there is exactly one, else NULL; owned */
} MimeVerdict;

typedef struct MimeValidateOptions {
	bool smtputf8;        /* header may be UTF-8 (RFC 6532) */
	unsigned nesting_max; /* 0: MIME_NESTING_MAX */
} MimeValidateOptions;

/* `blob` is final.  Fails only when it cannot be read. */
K_MUST_CHECK bool mime_validate(const Blob *blob, const MimeValidateOptions *options,
				MimeVerdict *ret_verdict, GError **ret_error);
void mime_verdict_clear(MimeVerdict *verdict);

/* The address of the From field when the header has exactly one From with exactly one address,
 * else NULL: what an alignment check needs, without depending on a verdict.  Caller frees. */
char *mime_from_address(const Blob *blob);
