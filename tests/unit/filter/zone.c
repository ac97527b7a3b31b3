/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "zone.h"

struct DnsQuery {
	Defer defer;
	char *name;
	DnsType type;
	DnsFn *fn;
	void *arg;
	DnsTap *tap;
};

static Dns *the_dns;

static void
query_free(DnsQuery *query)
{
	the_dns->open--;
	defer_cancel(&query->defer);
	g_free(query->name);
	g_free(query);
}

static void
record_free(void *data)
{
	DnsRecord *record = data;
	g_free(record->text);
	g_free(record);
}

static void
on_answer(void *arg)
{
	DnsQuery *query = arg;
	DnsAnswer answer = {.status = DNS_NXDOMAIN,
			    .records = g_ptr_array_new_with_free_func(record_free)};
	for (const Zone *row = the_dns->zone; row->name != NULL; row++) {
		if (strcmp(row->name, query->name) != 0)
			continue;
		if (answer.status == DNS_NXDOMAIN)
			answer.status = DNS_NODATA;
		if (row->type != query->type)
			continue;
		answer.status = row->status;
		for (int i = 0; row->records[i] != NULL; i++) {
			DnsRecord *record = g_new0(DnsRecord, 1);
			const char *text = row->records[i];
			if (row->type == DNS_MX) {
				char *end = NULL;
				record->preference = (uint16_t)g_ascii_strtoull(text, &end, 10);
				text = end + 1;
			}
			record->text = g_strdup(text);
			g_ptr_array_add(answer.records, record);
		}
	}
	DnsFn *fn = query->fn;
	void *fn_arg = query->arg;
	DnsTap *tap = query->tap;
	if (tap != NULL)
		tap->fn(tap, query->name, query->type, &answer, 0);
	query_free(query);
	the_dns->tap = tap;
	fn(fn_arg, &answer);
	the_dns->tap = NULL;
	g_ptr_array_unref(answer.records);
}

DnsQuery *
dns_query(Dns *dns, const char *name, DnsType type, DnsFn *fn, void *arg)
{
	DnsQuery *query = g_new0(DnsQuery, 1);
	query->name = g_ascii_strdown(name, -1);
	size_t len = strlen(query->name);
	if (len > 0 && query->name[len - 1] == '.')
		query->name[len - 1] = '\0';
	query->type = type;
	query->fn = fn;
	query->arg = arg;
	query->tap = dns->tap;
	defer_init(&query->defer, on_answer, query);
	if (!dns->silent)
		defer_queue(dns->queue, &query->defer);
	dns->open++;
	dns->asked++;
	return query;
}

DnsTap *
dns_tap(Dns *dns, DnsTap *tap)
{
	DnsTap *former = dns->tap;
	dns->tap = tap;
	return former;
}

void
dns_cancel(DnsQuery *query)
{
	if (query != NULL)
		query_free(query);
}

Dns zone_dns;

Harness *
zone_setup(const char *yaml, const Zone *zone)
{
	Harness *h = harness_new();
	harness_endpoint(h, "gateway", "http://gw/", "router");
	zone_dns = (Dns){.queue = h->queue, .zone = zone};
	the_dns = &zone_dns;
	h->env.dns = &zone_dns;
	harness_chain(h, yaml);
	return h;
}

void
zone_teardown(Harness *h)
{
	chain_free(h->chain);
	h->chain = NULL;
	assert_int_equal(zone_dns.open, 0);
	harness_free(h);
}
