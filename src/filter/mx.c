/* SPDX-License-Identifier: Apache-2.0 */
#include "filter/mx.h"

#include <string.h>

/* One host that takes mail for the name. */
typedef struct Host {
	Mx *mx;
	char *name;
	uint16_t preference;
	guint order; /* in the answer */
	DnsQuery *a, *aaaa;
	GPtrArray *v4, *v6; /* char* */
} Host;

struct Mx {
	Dns *dns;
	char *name;
	MxFn *done;
	void *arg;
	MxStatus status;
	unsigned open; /* queries under way */
	DnsQuery *query;
	GPtrArray *hosts;     /* Host* */
	GPtrArray *addresses; /* char* */
	GPtrArray *names;     /* char*, by address: the host's */
};

static void
host_free(void *data)
{
	Host *host = data;
	dns_cancel(host->a);
	dns_cancel(host->aaaa);
	g_ptr_array_unref(host->v4);
	g_ptr_array_unref(host->v6);
	g_free(host->name);
	g_free(host);
}

static void
host_add(Mx *mx, const char *name, uint16_t preference)
{
	Host *host = g_new0(Host, 1);
	host->mx = mx;
	host->name = g_strdup(name);
	host->preference = preference;
	host->order = mx->hosts->len;
	host->v4 = g_ptr_array_new_with_free_func(g_free);
	host->v6 = g_ptr_array_new_with_free_func(g_free);
	g_ptr_array_add(mx->hosts, host);
}

static gint
host_compare(gconstpointer a, gconstpointer b)
{
	const Host *left = *(const Host *const *)a;
	const Host *right = *(const Host *const *)b;
	if (left->preference != right->preference)
		return left->preference < right->preference ? -1 : 1;
	return left->order < right->order ? -1 : 1;
}

static void
collect(Mx *mx, const char *name, const GPtrArray *from)
{
	for (guint i = 0; i < from->len && mx->addresses->len < MX_ADDRESSES_MAX; i++) {
		const char *addr = g_ptr_array_index(from, i);
		bool known = false;
		for (guint j = 0; j < mx->addresses->len; j++)
			known |= strcmp(g_ptr_array_index(mx->addresses, j), addr) == 0;
		if (known)
			continue;
		g_ptr_array_add(mx->addresses, g_strdup(addr));
		g_ptr_array_add(mx->names, g_strdup(name));
	}
}

static void
query_done(Mx *mx)
{
	if (--mx->open > 0)
		return;
	for (guint i = 0; i < mx->hosts->len; i++) {
		const Host *host = g_ptr_array_index(mx->hosts, i);
		collect(mx, host->name, host->v4);
		collect(mx, host->name, host->v6);
	}
	if (mx->addresses->len > 0)
		mx->status = MX_OK;
	mx->done(mx->arg);
}

/* Errors of one host are no matter as long as another has an address. */
static void
host_take(Host *host, GPtrArray *into, const DnsAnswer *answer)
{
	for (guint i = 0; i < answer->records->len; i++) {
		const DnsRecord *record = g_ptr_array_index(answer->records, i);
		g_ptr_array_add(into, g_strdup(record->text));
	}
	query_done(host->mx);
}

static void
on_a(void *arg, const DnsAnswer *answer)
{
	Host *host = arg;
	host->a = NULL;
	host_take(host, host->v4, answer);
}

static void
on_aaaa(void *arg, const DnsAnswer *answer)
{
	Host *host = arg;
	host->aaaa = NULL;
	host_take(host, host->v6, answer);
}

static void
ask_hosts(Mx *mx)
{
	for (guint i = 0; i < mx->hosts->len; i++) {
		Host *host = g_ptr_array_index(mx->hosts, i);
		mx->open += 2;
		host->a = dns_query(mx->dns, host->name, DNS_A, on_a, host);
		host->aaaa = dns_query(mx->dns, host->name, DNS_AAAA, on_aaaa, host);
	}
}

static bool
is_null_mx(const DnsAnswer *answer)
{
	if (answer->records->len != 1)
		return false;
	const DnsRecord *record = g_ptr_array_index(answer->records, 0);
	return record->preference == 0 &&
	       (record->text[0] == '\0' || strcmp(record->text, ".") == 0);
}

static void
take_mx(Mx *mx, const DnsAnswer *answer)
{
	for (guint i = 0; i < answer->records->len; i++) {
		const DnsRecord *record = g_ptr_array_index(answer->records, i);
		host_add(mx, record->text, record->preference);
	}
	g_ptr_array_sort(mx->hosts, host_compare);
	if (mx->hosts->len > MX_HOSTS_MAX)
		g_ptr_array_set_size(mx->hosts, MX_HOSTS_MAX);
}

static void
on_mx(void *arg, const DnsAnswer *answer)
{
	Mx *mx = arg;
	mx->query = NULL;
	switch (answer->status) {
	case DNS_OK:
		if (is_null_mx(answer))
			mx->status = MX_NX;
		else
			take_mx(mx, answer);
		break;
	case DNS_NODATA:
		host_add(mx, mx->name, 0);
		break;
	case DNS_NXDOMAIN:
		mx->status = MX_NX;
		break;
	default:
		break;
	}
	ask_hosts(mx);
	query_done(mx);
}

Mx *
mx_start(Dns *dns, const char *name, MxFn *done, void *arg)
{
	Mx *mx = g_new0(Mx, 1);
	mx->dns = dns;
	mx->name = g_strdup(name);
	mx->done = done;
	mx->arg = arg;
	mx->status = MX_TEMP;
	mx->hosts = g_ptr_array_new_with_free_func(host_free);
	mx->addresses = g_ptr_array_new_with_free_func(g_free);
	mx->names = g_ptr_array_new_with_free_func(g_free);
	if (dns != NULL) {
		mx->open = 1;
		mx->query = dns_query(dns, name, DNS_MX, on_mx, mx);
	}
	return mx;
}

void
mx_give_up(Mx *mx)
{
	dns_cancel(g_steal_pointer(&mx->query));
	if (mx->open > 0)
		g_ptr_array_set_size(mx->hosts, 0);
	mx->open = 0;
}

void
mx_free(Mx *mx)
{
	if (mx == NULL)
		return;
	mx_give_up(mx);
	g_ptr_array_unref(mx->hosts);
	g_ptr_array_unref(mx->addresses);
	g_ptr_array_unref(mx->names);
	g_free(mx->name);
	g_free(mx);
}

const char *
mx_name(const Mx *mx)
{
	return mx->name;
}

bool
mx_is_done(const Mx *mx)
{
	return mx->open == 0;
}

MxStatus
mx_status(const Mx *mx)
{
	return mx->status;
}

const GPtrArray *
mx_addresses(const Mx *mx)
{
	return mx->addresses;
}

const char *
mx_address_host(const Mx *mx, guint index)
{
	return g_ptr_array_index(mx->names, index);
}
