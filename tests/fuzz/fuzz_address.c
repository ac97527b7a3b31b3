/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of envelopes and of header fields, message ids, dates: no fault, and what is read as a
 * date prints to what is read as the same date. */
#include "fuzz.h"

#include "mime/addr.h"
#include "mime/date.h"
#include "tx/address.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	g_autofree char *text = fuzz_string(data, size);
	AddrParts parts = {0};
	bool split = address_split(text, &parts);
	g_autofree char *domain = address_domain(text);
	k_assert(split == (domain != NULL));
	if (split) {
		k_assert(parts.local[0] != '\0' && parts.domain[0] != '\0');
		address_parts_clear(&parts);
	}
	MimeAddrs addrs;
	mime_addrs_parse(text, &addrs);
	k_assert(addrs.list->len <= MIME_ADDRS_MAX);
	mime_addrs_clear(&addrs);
	(void)mime_addr_spec_ok(text);
	(void)mime_msg_id_fault(text);
	MimeDate date, again;
	char printed[MIME_DATE_MAX];
	if (mime_date_parse(text, &date) && mime_date_format(&date, printed)) {
		k_assert(mime_date_parse(printed, &again));
		k_assert(again.unix_secs == date.unix_secs && again.tz_offset == date.tz_offset);
	}
	return 0;
}
