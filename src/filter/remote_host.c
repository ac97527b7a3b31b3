/* SPDX-License-Identifier: Apache-2.0 */
/* Who the client is by reverse DNS (behaviour spec 9.1): the name of its address, and whether that
 * name leads back to it. */
#include <string.h>

#include "base/json.h"
#include "filter/kinds.h"

#define PTR_FAILED "RemoteHostFilter ptr err"
#define FWD_FAILED "RemoteHostFilter fwd err"

enum { STATUS_OK, STATUS_TEMP, STATUS_NOT_FOUND };

typedef struct RemoteHost {
	bool begun;
	unsigned open; /* queries under way */
	DnsQuery *ptr, *a, *aaaa;
	char *name;    /* with its trailing dot; NULL: unknown */
	bool fwd_temp; /* the lookup that could have led back failed for now */
	bool ptr_temp;
	bool found; /* the name leads back */
} RemoteHost;

static void
query_done(Filter *filter)
{
	RemoteHost *remote = filter->state;
	if (--remote->open == 0)
		filter_resume(filter);
}

/* Textual forms differ for IPv6, so addresses are compared as such. */
static bool
same_address(const char *a, const char *b)
{
	NetCidr cidr;
	return net_cidr_parse(a, &cidr) && net_cidr_contains(&cidr, b);
}

static int
client_family(const Filter *filter)
{
	NetAddr addr;
	bool literal = net_addr_parse(filter->down->remote_host->host, 0, &addr);
	return literal ? addr.storage.ss_family : AF_UNSPEC;
}

/* Only addresses of the client's own family can be its: without the answer about them nobody knows,
 * whatever the other one says. */
static void
take_addresses(Filter *filter, const DnsAnswer *answer, int family)
{
	RemoteHost *remote = filter->state;
	remote->fwd_temp |= answer->status == DNS_TEMP && family == client_family(filter);
	for (guint i = 0; i < answer->records->len; i++) {
		const DnsRecord *record = g_ptr_array_index(answer->records, i);
		remote->found |= same_address(record->text, filter->down->remote_host->host);
	}
	query_done(filter);
}

static void
on_a(void *arg, const DnsAnswer *answer)
{
	Filter *filter = arg;
	((RemoteHost *)filter->state)->a = NULL;
	take_addresses(filter, answer, AF_INET);
}

static void
on_aaaa(void *arg, const DnsAnswer *answer)
{
	Filter *filter = arg;
	((RemoteHost *)filter->state)->aaaa = NULL;
	take_addresses(filter, answer, AF_INET6);
}

static void
on_ptr(void *arg, const DnsAnswer *answer)
{
	Filter *filter = arg;
	RemoteHost *remote = filter->state;
	Dns *dns = filter_env(filter)->dns;
	remote->ptr = NULL;
	remote->ptr_temp = answer->status == DNS_TEMP;
	if (answer->status == DNS_OK) {
		const DnsRecord *record = g_ptr_array_index(answer->records, 0);
		remote->name = g_strdup(record->text);
		remote->open += 2;
		remote->a = dns_query(dns, remote->name, DNS_A, on_a, filter);
		remote->aaaa = dns_query(dns, remote->name, DNS_AAAA, on_aaaa, filter);
	}
	query_done(filter);
}

static void
begin(Filter *filter)
{
	RemoteHost *remote = filter->state;
	Dns *dns = filter_env(filter)->dns;
	const HostPort *host = filter->down->remote_host;
	remote->begun = true;
	g_autofree char *reverse = net_reverse_name(host->host);
	if (dns == NULL) {
		remote->ptr_temp = true;
		return;
	}
	if (reverse == NULL)
		return; /* no address literal: it has no such name */
	remote->open = 1;
	remote->ptr = dns_query(dns, reverse, DNS_PTR, on_ptr, filter);
}

/* The name without its trailing dot is what the client called itself. */
static bool
is_aligned(const Filter *filter)
{
	const RemoteHost *remote = filter->state;
	const char *ehlo = json_get_str(filter->down->smtp_meta, "ehlo_host");
	if (!remote->found || ehlo == NULL || remote->name == NULL)
		return false;
	size_t len = strlen(remote->name);
	if (len > 0 && remote->name[len - 1] == '.')
		len--;
	return strlen(ehlo) == len && strncmp(ehlo, remote->name, len) == 0;
}

static FilterResult
finish(Filter *filter)
{
	const RemoteHost *remote = filter->state;
	const char *failed = NULL;
	if (remote->ptr_temp)
		failed = PTR_FAILED;
	else if (remote->fwd_temp && !remote->found)
		failed = FWD_FAILED;
	int status = remote->name != NULL ? STATUS_OK : STATUS_NOT_FOUND;
	json_t *output = json_object();
	json_object_set_new(output, "status", json_integer(failed != NULL ? STATUS_TEMP : status));
	json_object_set_new(output, "fcrdns", json_boolean(remote->found));
	json_object_set_new(output, "ehlo_alignment", json_boolean(is_aligned(filter)));
	if (remote->name != NULL) {
		json_t *name = json_string(remote->name);
		json_object_set_new(output, "remote_hostname",
				    name != NULL ? name : json_string("(not UTF-8)"));
	}
	filter_set_output(filter, output);
	if (failed == NULL)
		return FILTER_CONTINUE;
	tx_answer_mail(filter->down, response_new(450, failed));
	return FILTER_STOP;
}

static FilterResult
remote_host_update(Filter *filter, unsigned news)
{
	RemoteHost *remote = filter->state;
	if ((news & TX_NEW_MAIL_FROM) == 0 || filter->down->remote_host == NULL)
		return FILTER_CONTINUE;
	if (!remote->begun)
		begin(filter);
	return remote->open > 0 ? FILTER_WAIT : finish(filter);
}

static void
remote_host_close(Filter *filter)
{
	RemoteHost *remote = filter->state;
	dns_cancel(g_steal_pointer(&remote->ptr));
	dns_cancel(g_steal_pointer(&remote->a));
	dns_cancel(g_steal_pointer(&remote->aaaa));
	g_clear_pointer(&remote->name, g_free);
}

const FilterKind filter_remote_host_kind = {
	.name = "remote_host",
	.output_name = "koukan.remote_host_filter.RemoteHostFilter",
	.doc = "Looks up the name of the client's address and whether the name leads back to it.",
	.state_size = sizeof(RemoteHost),
	.update = remote_host_update,
	.close = remote_host_close,
	.example = "- filter: remote_host\n",
};
