/* SPDX-License-Identifier: Apache-2.0 */
#include "stub_dns.h"

static void
record_free(void *data)
{
	DnsRecord *record = data;
	g_free(record->text);
	g_free(record);
}

void
stub_answer(const StubRow *zone, const char *name, DnsType type, DnsAnswer *ret_answer)
{
	*ret_answer = (DnsAnswer){.status = DNS_NXDOMAIN,
				  .records = g_ptr_array_new_with_free_func(record_free)};
	for (const StubRow *row = zone; row->name != NULL; row++) {
		if (g_ascii_strcasecmp(row->name, name) != 0)
			continue;
		if (ret_answer->status == DNS_NXDOMAIN)
			ret_answer->status = DNS_NODATA;
		if (row->type != type)
			continue;
		ret_answer->status = row->status;
		for (size_t i = 0; i < G_N_ELEMENTS(row->records) && row->records[i] != NULL; i++) {
			DnsRecord *record = g_new0(DnsRecord, 1);
			char *end = (char *)row->records[i];
			if (type == DNS_MX) {
				record->preference = (uint16_t)g_ascii_strtoull(end, &end, 10);
				end++;
			}
			record->text = g_strdup(end);
			g_ptr_array_add(ret_answer->records, record);
		}
	}
}
