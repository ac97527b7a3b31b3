/* SPDX-License-Identifier: Apache-2.0 */
/* The PROXY header: asking for more never asks for a byte behind its end, what is read in the steps
 * that it asks for is what is read at once, and XCLIENT's values come out as addresses. */
#include "fuzz.h"

#include "smtp/proxy.h"

static void
try_header(const uint8_t *data, size_t size)
{
	SmtpProxy whole = {0}, steps = {0};
	size_t want = 0, at = 0, ignored = 0;
	SmtpProxyResult once = smtp_proxy_parse(data, size, &whole, &ignored);
	if (once == SMTP_PROXY_DONE)
		k_assert(whole.len <= size && whole.len >= SMTP_PROXY_FIRST &&
			 whole.len <= 16 + SMTP_PROXY_V2_EXTRA);
	for (;;) {
		SmtpProxyResult result = smtp_proxy_parse(data, at, &steps, &want);
		if (result != SMTP_PROXY_MORE) {
			k_assert(result == once || once == SMTP_PROXY_MORE);
			if (result == SMTP_PROXY_DONE)
				k_assert(steps.len == at && whole.len == at);
			return;
		}
		k_assert(want > at);
		if (want > size) {
			/* all of a good header would have been read before */
			k_assert(once != SMTP_PROXY_DONE);
			return;
		}
		at = want;
	}
}

static void
try_xclient(const uint8_t *data, size_t size)
{
	SmtpXclient xclient;
	if (!smtp_xclient_parse((const char *)data, size, &xclient))
		return;
	k_assert(xclient.addr == NULL || net_is_literal(xclient.addr));
	k_assert(xclient.dest_addr == NULL || net_is_literal(xclient.dest_addr));
	k_assert(xclient.port >= -1 && xclient.port <= 65535);
	k_assert(xclient.login == NULL || xclient.login[0] != '\0');
	smtp_xclient_clear(&xclient);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	try_header(data, size);
	try_xclient(data, size);
	return 0;
}
