/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What verifying and sealing of ARC share.  Pure. */
#include "mailauth/arc.h"
#include "mailauth/dkim_sig.h"

#define ARC_RESULTS_NAME "ARC-Authentication-Results"
#define ARC_MESSAGE_NAME "ARC-Message-Signature"
#define ARC_SEAL_NAME    "ARC-Seal"

/* Feeds a whole field, with its line end, in the relaxed form, as seals cover it (RFC 8617 5.1.1).
 */
void arc_hash_field(DkimHash *hash, const MimeField *field);
