/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What signing and verifying share.  Pure. */
#include "mailauth/canon.h"
#include "mailauth/dkim_key.h"
#include "mailauth/dkim_name.h"
#include "mailauth/tags.h"
#include "mime/header.h"

/* The header of a message, ready for picking fields by name. */
typedef struct DkimHeader {
	MimeHeader header; /* points into the caller's bytes */
	guint *hashes;     /* of each field's name */
	bool ok;           /* all of it could be read */
} DkimHeader;

void dkim_header_init(DkimHeader *header, const char *data, size_t len);
void dkim_header_clear(DkimHeader *header);
/* All bytes of a field but its last line end. */
const char *dkim_field_bytes(const MimeField *field, size_t *ret_len);
/* Feeds the fields of `names` in that order, each name from the last field of that name upwards;
 * a name without a (further) field counts as nothing (RFC 6376 5.4.2). */
void dkim_hash_fields(DkimHash *hash, const DkimHeader *header, CanonForm form,
		      const char *const *names);
/* Feeds the signature's own field, b= emptied, without a line end behind it (3.7).  `value` is the
 * part behind the colon. */
void dkim_hash_signature(DkimHash *hash, CanonForm form, const char *name, const char *value,
			 size_t value_len, const Tag *b);
/* Both, as the header hash of a signature that names its fields: `field` is its own, `b` its b=. */
void dkim_hash_message(uint8_t ret_hash[DKIM_HASH_LEN], const DkimHeader *header, CanonForm form,
		       const char *const *names, const MimeField *field, const Tag *b);
