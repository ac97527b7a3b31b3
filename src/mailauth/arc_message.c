/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/arc_int.h"

ArcVerify *
arc_verify_message(const Blob *message, int64_t now, GError **ret_error)
{
	size_t len;
	bool cut;
	g_autofree char *header = dkim_read_header(message, &len, &cut, ret_error);
	if (header == NULL)
		return NULL;
	ArcVerify *verify = arc_verify_new(header, len, now);
	if (arc_verify_wants_body(verify) &&
	    !dkim_feed_body(message, len, arc_verify_body, verify, ret_error)) {
		arc_verify_free(verify);
		return NULL;
	}
	arc_verify_body_end(verify);
	return verify;
}
