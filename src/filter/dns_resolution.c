/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of the hosts that the router chose, and whether sender's and recipients' domains
 * exist (behaviour spec 9.9; RFC 5321 5.1, RFC 7505).  A proxy: `up` gets the route with addresses.
 */
#include <string.h>

#include "base/text.h"
#include "filter/kinds.h"
#include "filter/mx.h"

#define RESOLVE_TIMEOUT (20 * USEC_PER_SEC) /* everything that is looked up at a time */
#define HOSTS_MAX       100

typedef struct DnsConf {
	char *suffix, *literal;  /* NULL: not given */
	GPtrArray *static_hosts; /* HostPort* */
	bool allow_private;
	char *own_name;
	GPtrArray *own_addresses; /* char* */
} DnsConf;

/* A name of interest: looked up, or known without. */
typedef struct Asked {
	Mx *mx; /* borrowed; NULL: `status` says it */
	MxStatus status;
	bool absent; /* nothing to say about this one */
} Asked;

typedef struct DnsState {
	GPtrArray *lookups; /* Mx*, by name */
	Timer timer;
	bool mail_begun, route_begun, route_done;
	Asked mail;
	size_t looked;    /* recipients of down */
	GArray *rcpts;    /* Asked, by recipient of the base transaction */
	GPtrArray *hosts; /* Mx* or NULL, by host of the route: NULL passes unchanged */
} DnsState;

/* ---- lookups ---- */

static bool
is_ours(const DnsConf *conf, const char *host)
{
	if (net_is_literal(host) || host[0] == '[')
		return false;
	if (conf->literal != NULL && text_equal_nocase(host, conf->literal))
		return true;
	return conf->suffix != NULL && text_has_suffix_nocase(host, conf->suffix);
}

static bool
is_static(const DnsConf *conf)
{
	return conf->static_hosts->len > 0;
}

static void
on_lookup(void *arg)
{
	const DnsState *state = ((Filter *)arg)->state;
	for (guint i = 0; i < state->lookups->len; i++) {
		if (!mx_is_done(g_ptr_array_index(state->lookups, i)))
			return;
	}
	filter_resume(arg);
}

static void
on_timeout(void *arg)
{
	const DnsState *state = ((Filter *)arg)->state;
	for (guint i = 0; i < state->lookups->len; i++)
		mx_give_up(g_ptr_array_index(state->lookups, i));
	filter_resume(arg);
}

static Mx *
look_up(Filter *filter, const char *host)
{
	DnsState *state = filter->state;
	for (guint i = 0; i < state->lookups->len; i++) {
		Mx *mx = g_ptr_array_index(state->lookups, i);
		if (text_equal_nocase(mx_name(mx), host))
			return mx;
	}
	Mx *mx = mx_start(filter_env(filter)->dns, host, on_lookup, filter);
	g_ptr_array_add(state->lookups, mx);
	if (!mx_is_done(mx) && !timer_is_set(&state->timer))
		timer_set(&state->timer, RESOLVE_TIMEOUT);
	return mx;
}

static bool
is_waiting(const DnsState *state)
{
	for (guint i = 0; i < state->lookups->len; i++) {
		if (!mx_is_done(g_ptr_array_index(state->lookups, i)))
			return true;
	}
	return false;
}

static Asked
ask_domain(Filter *filter, const char *addr)
{
	const DnsConf *conf = filter->conf;
	Asked asked = {.status = MX_OK};
	g_autofree char *domain = address_domain(addr);
	if (domain == NULL)
		asked.status = MX_NX; /* no such domain can exist */
	else if (is_ours(conf, domain) && !is_static(conf))
		asked.mx = look_up(filter, domain);
	return asked;
}

static MxStatus
asked_status(const Asked *asked)
{
	return asked->mx != NULL ? mx_status(asked->mx) : asked->status;
}

static void
begin_mail(Filter *filter)
{
	DnsState *state = filter->state;
	const char *addr = filter->down->mail_from->addr;
	state->mail_begun = true;
	if (addr[0] == '\0')
		state->mail.absent = true;
	else
		state->mail = ask_domain(filter, addr);
}

static void
begin_rcpts(Filter *filter)
{
	DnsState *state = filter->state;
	const Tx *down = filter->down;
	for (; state->looked < tx_rcpt_count(down); state->looked++) {
		const TxRcpt *rcpt = tx_rcpt(down, state->looked);
		if (rcpt->response != NULL)
			continue;
		const Asked absent = {.absent = true};
		Asked asked = ask_domain(filter, rcpt->to->addr);
		size_t base = filter_base_rcpt(filter, state->looked);
		while (state->rcpts->len < base)
			g_array_append_val(state->rcpts, absent);
		g_array_append_val(state->rcpts, asked);
	}
}

static void
begin_route(Filter *filter)
{
	DnsState *state = filter->state;
	const DnsConf *conf = filter->conf;
	const TxRoute *route = filter->down->route;
	state->route_begun = true;
	for (guint i = 0; i < MIN(route->hosts->len, HOSTS_MAX); i++) {
		const HostPort *host = g_ptr_array_index(route->hosts, i);
		bool dns = is_ours(conf, host->host) && !is_static(conf);
		g_ptr_array_add(state->hosts, dns ? look_up(filter, host->host) : NULL);
	}
}

/* ---- results ---- */

/* `name`: of the mail host, or NULL. */
static void
add_host(GPtrArray *hosts, const char *host, uint16_t port, const char *name)
{
	for (guint i = 0; i < hosts->len; i++) {
		const HostPort *known = g_ptr_array_index(hosts, i);
		if (known->port == port && text_equal_nocase(known->host, host))
			return;
	}
	if (hosts->len >= HOSTS_MAX)
		return;
	g_ptr_array_add(hosts, host_port_new_named(host, port, net_is_literal(host) ? name : NULL));
}

static MxGuard
guard_of(const Filter *filter)
{
	const DnsConf *conf = filter->conf;
	return (MxGuard){
		.own_name = conf->own_name != NULL ? conf->own_name : filter_env(filter)->hostname,
		.own_addresses = conf->own_addresses,
		.allow_private = conf->allow_private,
	};
}

/* Whether an address literal got into the route from a recipient, "user@[127.0.0.1]", rather than
 * from the configuration. */
static bool
is_of_recipient(const Filter *filter, const char *host)
{
	const Tx *down = filter->down;
	NetCidr cidr;
	if (!net_cidr_parse(host, &cidr))
		return false;
	for (size_t i = 0; i < tx_rcpt_count(down); i++) {
		g_autofree char *domain = address_domain(tx_rcpt(down, i)->to->addr);
		size_t len = domain != NULL ? strlen(domain) : 0;
		if (len < 3 || domain[0] != '[')
			continue;
		domain[len - 1] = '\0';
		const char *literal = domain + 1;
		if (text_has_prefix_nocase(literal, "ipv6:"))
			literal += strlen("ipv6:");
		if (net_cidr_contains(&cidr, literal))
			return true;
	}
	return false;
}

/* The hosts of the route with addresses in place of names; the first one that has none decides
 * the result of all. */
static MxStatus
resolve_hosts(const Filter *filter, GPtrArray *out, TxRouteFault *ret_fault)
{
	const DnsState *state = filter->state;
	const DnsConf *conf = filter->conf;
	const TxRoute *route = filter->down->route;
	const MxGuard guard = guard_of(filter);
	for (guint i = 0; i < state->hosts->len; i++) {
		const HostPort *host = g_ptr_array_index(route->hosts, i);
		const Mx *mx = g_ptr_array_index(state->hosts, i);
		g_autoptr(GPtrArray) targets = mx_targets_new();
		MxStatus status = mx != NULL ? mx_targets(mx, &guard, targets) : MX_OK;
		if (status == MX_NX)
			*ret_fault = mx_fault(mx, &guard);
		if (status != MX_OK)
			return status;
		for (guint j = 0; j < targets->len; j++) {
			const MxTarget *target = g_ptr_array_index(targets, j);
			add_host(out, target->addr, host->port, target->host);
		}
		if (mx == NULL && mx_address_fault(host->host, &guard) != NULL &&
		    is_of_recipient(filter, host->host))
			return MX_NX;
		if (mx == NULL && !is_ours(conf, host->host)) {
			add_host(out, host->host, host->port, host->name);
			continue;
		}
		for (guint j = 0; mx == NULL && j < conf->static_hosts->len; j++) {
			const HostPort *other = g_ptr_array_index(conf->static_hosts, j);
			add_host(out, other->host, other->port, host->host);
		}
	}
	return MX_OK;
}

/* Without addresses the route goes on without hosts: a policy is expected to reject, and
 * rest_output refuses what is left. */
static MxStatus
pass_route(Filter *filter)
{
	TxRoute *route = filter_route_copy(filter->down->route);
	GPtrArray *hosts = g_ptr_array_new_with_free_func((GDestroyNotify)host_port_free);
	MxStatus status = resolve_hosts(filter, hosts, &route->fault);
	if (status != MX_OK)
		g_ptr_array_set_size(hosts, 0);
	g_ptr_array_unref(route->hosts);
	route->hosts = hosts;
	route->resolved = status == MX_OK;
	tx_set_route(filter->up, route);
	return status;
}

static void
publish(Filter *filter, int resolution)
{
	const DnsState *state = filter->state;
	const json_t *old = filter_get_output(filter, filter->kind->output_name);
	json_t *output = old != NULL ? json_copy((json_t *)old) : json_object();
	if (state->mail_begun && !state->mail.absent)
		json_object_set_new(output, "mail_from_result",
				    json_integer(asked_status(&state->mail)));
	if (state->rcpts->len > 0) {
		json_t *results = json_array();
		for (guint i = 0; i < state->rcpts->len; i++) {
			const Asked *asked = &g_array_index(state->rcpts, Asked, i);
			json_array_append_new(results, asked->absent
							       ? json_null()
							       : json_integer(asked_status(asked)));
		}
		json_object_set_new(output, "rcpt_to_result", results);
	}
	if (resolution >= 0)
		json_object_set_new(output, "resolution_result", json_integer(resolution));
	filter_set_output(filter, output);
}

static FilterResult
dns_resolution_update(Filter *filter, unsigned news)
{
	DnsState *state = filter->state;
	bool envelope = (news & (TX_NEW_MAIL_FROM | TX_NEW_RCPT)) != 0;
	if ((news & TX_NEW_MAIL_FROM) != 0 && !state->mail_begun)
		begin_mail(filter);
	if ((news & TX_NEW_RCPT) != 0)
		begin_rcpts(filter);
	if (envelope && filter->down->route != NULL && !state->route_begun)
		begin_route(filter);
	if (is_waiting(state))
		return FILTER_WAIT;
	timer_cancel(&state->timer);
	if (envelope) {
		int resolution = -1;
		if (state->route_begun && !state->route_done) {
			state->route_done = true;
			resolution = (int)pass_route(filter);
		}
		publish(filter, resolution);
	}
	filter_pass_body(filter, news);
	return FILTER_CONTINUE;
}

static void
dns_resolution_open(Filter *filter)
{
	DnsState *state = filter->state;
	state->lookups = g_ptr_array_new_with_free_func((GDestroyNotify)mx_free);
	state->rcpts = g_array_new(FALSE, FALSE, sizeof(Asked));
	state->hosts = g_ptr_array_new();
	timer_init(&state->timer, filter_env(filter)->worker, on_timeout, filter);
}

static void
dns_resolution_close(Filter *filter)
{
	DnsState *state = filter->state;
	timer_clear(&state->timer);
	g_clear_pointer(&state->lookups, g_ptr_array_unref);
	g_clear_pointer(&state->rcpts, g_array_unref);
	g_clear_pointer(&state->hosts, g_ptr_array_unref);
}

static void
dns_resolution_conf_check(void *data, const YamlNode *node, const ConfModel *model,
			  ConfReport *report)
{
	(void)model;
	DnsConf *conf = data;
	NetCidr cidr;
	for (guint i = 0; i < conf->own_addresses->len; i++)
		if (!net_cidr_parse(g_ptr_array_index(conf->own_addresses, i), &cidr))
			conf_error(report, yaml_get(node, "own_addresses"), "'%s' is no address",
				   (const char *)g_ptr_array_index(conf->own_addresses, i));
	if (yaml_get(node, "own_addresses") == NULL) {
		g_ptr_array_unref(conf->own_addresses);
		conf->own_addresses = mx_own_addresses();
	}
}

static const ConfKey dns_keys[] = {
	{.name = "suffix",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(DnsConf, suffix),
	 .doc = "Resolve names that end with this; '' for all."},
	{.name = "literal",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(DnsConf, literal),
	 .doc = "Resolve exactly this name."},
	{.name = "static_hosts",
	 .type = CONF_HOSTPORTS,
	 .offset = CONF_KEY(DnsConf, static_hosts),
	 .doc = "Instead of asking the DNS: these hosts."},
	{.name = "allow_private",
	 .type = CONF_BOOL,
	 .offset = CONF_KEY(DnsConf, allow_private),
	 .def = "no",
	 .doc = "Send to loopback, private and own addresses, too, when the DNS or a recipient's "
		"address literal says so; hosts that the configuration names need it not."},
	{.name = "own_name",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(DnsConf, own_name),
	 .doc = "Our name as an MX: less preferred hosts are left out, so that mail does not come "
		"back; default `koukan.hostname`."},
	{.name = "own_addresses",
	 .type = CONF_STRINGS,
	 .offset = CONF_KEY(DnsConf, own_addresses),
	 .doc = "Addresses that lead to us, for the same purpose; default those of this machine."},
	{.name = "overwrite", .type = CONF_IGNORED, .doc = "Without effect."},
	{0},
};

const FilterKind filter_dns_resolution_kind = {
	.name = "dns_resolution",
	.output_name = "koukan.mx_resolution.DnsResolutionFilter",
	.doc = "Replaces the hosts that the router chose by addresses (MX, A, AAAA) and looks up the "
	       "domains of sender and recipients.",
	.flags = FILTER_PROXY | FILTER_ROUTES,
	.conf_size = sizeof(DnsConf),
	.keys = dns_keys,
	.conf_check = dns_resolution_conf_check,
	.state_size = sizeof(DnsState),
	.open = dns_resolution_open,
	.update = dns_resolution_update,
	.close = dns_resolution_close,
	.example = "- filter: router\n"
		   "  policy:\n"
		   "    name: dest_domain\n"
		   "    destination: {endpoint: gateway}\n"
		   "- filter: dns_resolution\n"
		   "  suffix: ''\n"
		   "- filter: rest_output\n",
};
