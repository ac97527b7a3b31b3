/* SPDX-License-Identifier: Apache-2.0 */
#include "filter/mx.h"

#include <ifaddrs.h>
#include <string.h>

#include "base/ids.h"
#include "base/text.h"

/* One host that takes mail for the name. */
typedef struct Host {
	Mx *mx;
	char *name;
	uint16_t preference;
	uint64_t order; /* random: equal preferences share the load (RFC 5321 5.1) */
	DnsQuery *a, *aaaa;
	GPtrArray *v4, *v6; /* char* */
} Host;

struct Mx {
	Dns *dns;
	char *name;
	DnsStatus found; /* of the MX query; DNS_TEMP until it is answered */
	MxFn *done;
	void *arg;
	MxStatus status;
	unsigned open; /* queries under way */
	DnsQuery *query;
	GPtrArray *hosts; /* Host* */
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
	host->order = ids_random_below(UINT64_MAX);
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
	if (left->order != right->order)
		return left->order < right->order ? -1 : 1;
	return 0;
}

static void
query_done(Mx *mx)
{
	if (--mx->open > 0)
		return;
	for (guint i = 0; i < mx->hosts->len; i++) {
		const Host *host = g_ptr_array_index(mx->hosts, i);
		if (host->v4->len + host->v6->len > 0)
			mx->status = MX_OK;
	}
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
	mx->found = answer->status;
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
	mx->found = DNS_TEMP;
	mx->hosts = g_ptr_array_new_with_free_func(host_free);
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

/* ---- where mail may really be sent ---- */

GPtrArray *
mx_own_addresses(void)
{
	GPtrArray *own = g_ptr_array_new_with_free_func(g_free);
	struct ifaddrs *list = NULL;
	if (getifaddrs(&list) != 0)
		return own;
	for (const struct ifaddrs *at = list; at != NULL; at = at->ifa_next) {
		int family = at->ifa_addr != NULL ? at->ifa_addr->sa_family : AF_UNSPEC;
		char text[NET_ADDR_TEXT_MAX];
		NetAddr addr;
		if (family != AF_INET && family != AF_INET6)
			continue;
		net_addr_from_sockaddr(at->ifa_addr,
				       family == AF_INET ? sizeof(struct sockaddr_in)
							 : sizeof(struct sockaddr_in6),
				       &addr);
		net_addr_format(&addr, text);
		if (!net_is_loopback(text))
			g_ptr_array_add(own, g_strdup(text));
	}
	freeifaddrs(list);
	return own;
}

static bool
is_own_address(const char *literal, const MxGuard *guard)
{
	NetCidr cidr;
	for (guint i = 0; guard->own_addresses != NULL && i < guard->own_addresses->len; i++)
		if (net_cidr_parse(g_ptr_array_index(guard->own_addresses, i), &cidr) &&
		    net_cidr_contains(&cidr, literal))
			return true;
	return false;
}

/* RFC 6890 and its successors, as far as a mail server on the Internet cannot be there. */
static const char *
special_address(const char *literal)
{
	static const struct {
		const char *cidr, *what;
	} ranges[] = {
		{"0.0.0.0/8", "no address"},
		{"127.0.0.0/8", "a loopback address"},
		{"10.0.0.0/8", "a private address"},
		{"172.16.0.0/12", "a private address"},
		{"192.168.0.0/16", "a private address"},
		{"100.64.0.0/10", "a private address"},
		{"169.254.0.0/16", "a link-local address"},
		{"224.0.0.0/3", "no address of a host"},
		{"::/128", "no address"},
		{"::1/128", "a loopback address"},
		{"fc00::/7", "a private address"},
		{"fe80::/10", "a link-local address"},
		{"ff00::/8", "no address of a host"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
		NetCidr cidr;
		if (net_cidr_parse(ranges[i].cidr, &cidr) && net_cidr_contains(&cidr, literal))
			return ranges[i].what;
	}
	return NULL;
}

const char *
mx_address_fault(const char *literal, const MxGuard *guard)
{
	if (guard->allow_private)
		return NULL;
	if (is_own_address(literal, guard))
		return "an address of ours";
	return special_address(literal);
}

static bool
is_own_name(const char *name, const MxGuard *guard)
{
	size_t len = strlen(name);
	if (guard->own_name == NULL)
		return false;
	if (len > 0 && name[len - 1] == '.')
		len--;
	return strlen(guard->own_name) == len &&
	       g_ascii_strncasecmp(name, guard->own_name, len) == 0;
}

static bool
is_own_host(const Host *host, const MxGuard *guard)
{
	if (is_own_name(host->name, guard))
		return true;
	if (guard->allow_private)
		return false;
	for (guint i = 0; i < host->v4->len; i++)
		if (is_own_address(g_ptr_array_index(host->v4, i), guard))
			return true;
	for (guint i = 0; i < host->v6->len; i++)
		if (is_own_address(g_ptr_array_index(host->v6, i), guard))
			return true;
	return false;
}

/* The preference from which on mail would come back to us; above all others: none. */
static unsigned
own_preference(const Mx *mx, const MxGuard *guard)
{
	unsigned best = UINT16_MAX + 1;
	for (guint i = 0; i < mx->hosts->len; i++) {
		const Host *host = g_ptr_array_index(mx->hosts, i);
		if (host->preference < best && is_own_host(host, guard))
			best = host->preference;
	}
	return best;
}

static void
target_free(void *data)
{
	MxTarget *target = data;
	g_free(target->addr);
	g_free(target->host);
	g_free(target);
}

GPtrArray *
mx_targets_new(void)
{
	return g_ptr_array_new_with_free_func(target_free);
}

static void
add_target(GPtrArray *out, const Host *host, const char *literal, const MxGuard *guard)
{
	if (out->len >= MX_ADDRESSES_MAX || mx_address_fault(literal, guard) != NULL)
		return;
	for (guint i = 0; i < out->len; i++)
		if (strcmp(((MxTarget *)g_ptr_array_index(out, i))->addr, literal) == 0)
			return;
	MxTarget *target = g_new0(MxTarget, 1);
	*target = (MxTarget){.addr = g_strdup(literal), .host = g_strdup(host->name)};
	g_ptr_array_add(out, target);
}

MxStatus
mx_targets(const Mx *mx, const MxGuard *guard, GPtrArray *out)
{
	unsigned own = own_preference(mx, guard);
	guint before = out->len;
	if (mx->status != MX_OK)
		return mx->status;
	for (guint i = 0; i < mx->hosts->len; i++) {
		const Host *host = g_ptr_array_index(mx->hosts, i);
		if (host->preference >= own)
			continue;
		for (guint j = 0; j < host->v4->len; j++)
			add_target(out, host, g_ptr_array_index(host->v4, j), guard);
		for (guint j = 0; j < host->v6->len; j++)
			add_target(out, host, g_ptr_array_index(host->v6, j), guard);
	}
	return out->len > before ? MX_OK : MX_NX;
}

static bool
is_null(const Mx *mx)
{
	return mx->found == DNS_OK && mx->status == MX_NX;
}

TxRouteFault
mx_fault(const Mx *mx, const MxGuard *guard)
{
	if (is_null(mx))
		return TX_ROUTE_NULL_MX;
	if (mx->status != MX_OK || mx->hosts->len == 0)
		return TX_ROUTE_NO_FAULT;
	const Host *best = g_ptr_array_index(mx->hosts, 0);
	return best->preference >= own_preference(mx, guard) ? TX_ROUTE_LOOP : TX_ROUTE_NO_FAULT;
}

/* ---- for people ---- */

static void
describe_addresses(const GPtrArray *list, const MxGuard *guard, GString *out)
{
	for (guint i = 0; i < list->len; i++) {
		const char *literal = g_ptr_array_index(list, i);
		const char *fault = mx_address_fault(literal, guard);
		g_string_append_printf(out, " %s", literal);
		if (fault != NULL)
			g_string_append_printf(out, " (refused: %s)", fault);
	}
}

void
mx_describe(const Mx *mx, const MxGuard *guard, GString *out)
{
	static const char *const found[] = {
		"MX records",
		"no MX, so the name itself takes the mail",
		"the name does not exist",
		"no answer for now",
	};
	_Static_assert(G_N_ELEMENTS(found) == DNS_STATUSES, "a text for each status");
	unsigned own = own_preference(mx, guard);
	g_string_append_printf(out, "%s: %s\n", mx->name,
			       is_null(mx) ? "takes no mail (null MX, RFC 7505)"
					   : found[mx->found]);
	for (guint i = 0; i < mx->hosts->len; i++) {
		const Host *host = g_ptr_array_index(mx->hosts, i);
		g_string_append_printf(out, "  %u %s:", host->preference, host->name);
		describe_addresses(host->v4, guard, out);
		describe_addresses(host->v6, guard, out);
		if (host->v4->len + host->v6->len == 0)
			g_string_append(out, " no address");
		if (is_own_host(host, guard))
			g_string_append(out, " (this is us)");
		else if (host->preference >= own)
			g_string_append(out, " (left out: not before ourselves)");
		g_string_append_c(out, '\n');
	}
}
