/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that do not come from a packet, and how answers are called. */
#include "loop/dns.h"

static void
record_free(void *data)
{
	DnsRecord *record = data;
	g_free(record->text);
	g_free(record);
}

void
dns_record_add(DnsAnswer *answer, const char *text, uint16_t preference)
{
	if (answer->records == NULL)
		answer->records = g_ptr_array_new_with_free_func(record_free);
	if (answer->records->len >= DNS_RECORDS_MAX)
		return;
	DnsRecord *record = g_new0(DnsRecord, 1);
	*record = (DnsRecord){.text = g_strdup(text), .preference = preference};
	g_ptr_array_add(answer->records, record);
}

const char *
dns_type_name(DnsType type)
{
	switch (type) {
	case DNS_A:
		return "A";
	case DNS_CNAME:
		return "CNAME";
	case DNS_PTR:
		return "PTR";
	case DNS_MX:
		return "MX";
	case DNS_TXT:
		return "TXT";
	case DNS_AAAA:
		return "AAAA";
	}
	return "?";
}

const char *
dns_status_name(DnsStatus status)
{
	static const char *const names[] = {"OK", "NODATA", "NXDOMAIN", "TEMP"};
	_Static_assert(G_N_ELEMENTS(names) == DNS_STATUSES, "a name for each status");
	return names[status];
}
