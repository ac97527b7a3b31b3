/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/dkim_message.h"

#include "mailauth/dkim_sig.h"

static void
on_body(void *verify, const char *data, size_t len)
{
	dkim_verify_body(verify, data, len);
}

DkimVerify *
dkim_verify_message(const Blob *message, int64_t now, GError **ret_error)
{
	size_t len;
	bool cut;
	g_autofree char *header = dkim_read_header(message, &len, &cut, ret_error);
	if (header == NULL)
		return NULL;
	DkimVerify *verify = dkim_verify_new(header, len, now);
	if (dkim_verify_wants_body(verify) &&
	    !dkim_feed_body(message, len, on_body, verify, ret_error)) {
		dkim_verify_free(verify);
		return NULL;
	}
	dkim_verify_body_end(verify);
	return verify;
}
