/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of DNS answers (loop/dns_parse.c).  The first byte chooses the type asked for, the
 * rest is the packet. */
#include "fuzz.h"

#include "base/net.h"
#include "loop/dns.h"

static void
check_record(const DnsRecord *record, DnsType type)
{
	size_t len = strlen(record->text);
	switch (type) {
	case DNS_A:
	case DNS_AAAA:
		k_assert(net_is_literal(record->text));
		break;
	case DNS_CNAME:
	case DNS_PTR:
	case DNS_MX:
		/* 254 bytes of labels, each at most as "\DDD" */
		k_assert(len > 0 && len <= 4 * 254 && record->text[len - 1] == '.');
		for (size_t i = 0; i < len; i++)
			k_assert(record->text[i] > 0x20 && record->text[i] < 0x7f);
		break;
	case DNS_TXT:
		k_assert(len <= UINT16_MAX);
		break;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const DnsType types[] = {DNS_A, DNS_CNAME, DNS_PTR, DNS_MX, DNS_TXT, DNS_AAAA};
	if (size == 0)
		return 0;
	DnsType type = types[data[0] % G_N_ELEMENTS(types)];
	DnsAnswer answer;
	dns_parse(data + 1, size - 1, type, &answer);
	k_assert((answer.status == DNS_OK) == (answer.records->len > 0));
	k_assert(answer.records->len <= DNS_RECORDS_MAX);
	for (guint i = 0; i < answer.records->len; i++)
		check_record(answer.records->pdata[i], type);
	dns_answer_clear(&answer);
	return 0;
}
