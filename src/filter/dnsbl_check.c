/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of addresses in the DNS (RFC 5782): which of them name the client.  A signal; a policy
 * decides what follows from it. */
#include <string.h>

#include "filter/kinds.h"
#include "mailauth/dkim_name.h"

#define ZONES_MAX 20
#define TIMEOUT   (10 * USEC_PER_SEC) /* then what is open is unknown */

typedef struct DnsblConf {
	GPtrArray *zones; /* char* */
} DnsblConf;

typedef enum Verdict { V_UNKNOWN, V_ABSENT, V_LISTED } Verdict;

typedef struct Ask {
	Filter *filter;
	DnsQuery *query;
	Verdict verdict;
	json_t *codes; /* of V_LISTED */
} Ask;

typedef struct DnsblState {
	Ask *asks; /* one a zone; NULL: not begun */
	guint open;
	Timer timer;
	bool done;
} DnsblState;

/* "2.0.0.127" or the nibbles of an IPv6 address; NULL: no address. */
static char *
reversed(const char *literal)
{
	static const char *const suffixes[] = {".in-addr.arpa", ".ip6.arpa"};
	char *name = net_reverse_name(literal);
	for (size_t i = 0; name != NULL && i < G_N_ELEMENTS(suffixes); i++) {
		char *suffix = strstr(name, suffixes[i]);
		if (suffix != NULL)
			*suffix = '\0';
	}
	return name;
}

/* Answers are 127/8 (RFC 5782 2.1); others come from a zone that somebody else has got, or from a
 * resolver that answers for names that do not exist.  127.255.255/24 is what lists say to those
 * whom they do not serve. */
static void
take(Ask *ask, const DnsAnswer *answer)
{
	NetCidr good, refusal;
	if (answer->status == DNS_TEMP)
		return;
	k_assert(net_cidr_parse("127.0.0.0/8", &good) &&
		 net_cidr_parse("127.255.255.0/24", &refusal));
	ask->verdict = V_ABSENT;
	for (guint i = 0; i < answer->records->len; i++) {
		const DnsRecord *record = g_ptr_array_index(answer->records, i);
		if (net_cidr_contains(&refusal, record->text)) {
			ask->verdict = V_UNKNOWN;
			g_clear_pointer(&ask->codes, json_decref);
			return;
		}
		if (!net_cidr_contains(&good, record->text))
			continue;
		ask->verdict = V_LISTED;
		if (ask->codes == NULL)
			ask->codes = json_array();
		json_array_append_new(ask->codes, json_string(record->text));
	}
}

static void
on_answer(void *arg, const DnsAnswer *answer)
{
	Ask *ask = arg;
	DnsblState *state = ask->filter->state;
	ask->query = NULL;
	take(ask, answer);
	if (--state->open == 0)
		filter_resume(ask->filter);
}

static void
on_timeout(void *arg)
{
	Filter *filter = arg;
	DnsblState *state = filter->state;
	const DnsblConf *conf = filter->conf;
	for (guint i = 0; i < conf->zones->len; i++)
		dns_cancel(g_steal_pointer(&state->asks[i].query));
	state->open = 0;
	filter_resume(filter);
}

static void
begin(Filter *filter, const char *client)
{
	DnsblState *state = filter->state;
	const DnsblConf *conf = filter->conf;
	const FilterEnv *env = filter_env(filter);
	state->asks = g_new0(Ask, conf->zones->len);
	timer_init(&state->timer, env->worker, on_timeout, filter);
	for (guint i = 0; i < conf->zones->len && env->dns != NULL; i++) {
		g_autofree char *name = g_strdup_printf("%s.%s", client,
							(char *)g_ptr_array_index(conf->zones, i));
		state->asks[i].filter = filter;
		state->asks[i].query = dns_query(env->dns, name, DNS_A, on_answer, &state->asks[i]);
		state->open++;
	}
	if (state->open > 0)
		timer_set(&state->timer, TIMEOUT);
}

static void
publish(Filter *filter)
{
	DnsblState *state = filter->state;
	const DnsblConf *conf = filter->conf;
	json_t *listed = json_object(), *unknown = json_array();
	for (guint i = 0; i < conf->zones->len; i++) {
		const char *zone = g_ptr_array_index(conf->zones, i);
		if (state->asks[i].verdict == V_LISTED)
			json_object_set(listed, zone, state->asks[i].codes);
		else if (state->asks[i].verdict == V_UNKNOWN)
			json_array_append_new(unknown, json_string(zone));
	}
	json_t *output = json_object();
	json_object_set_new(output, "listed", listed);
	json_object_set_new(output, "unknown", unknown);
	filter_set_output(filter, output);
}

static FilterResult
dnsbl_update(Filter *filter, unsigned news)
{
	DnsblState *state = filter->state;
	const HostPort *remote = filter->down->remote_host;
	if ((news & TX_NEW_MAIL_FROM) == 0 || remote == NULL || state->done)
		return FILTER_CONTINUE;
	if (state->asks == NULL) {
		g_autofree char *client = reversed(remote->host);
		if (client == NULL)
			return FILTER_CONTINUE;
		begin(filter, client);
	}
	if (state->open > 0)
		return FILTER_WAIT;
	timer_cancel(&state->timer);
	state->done = true;
	publish(filter);
	return FILTER_CONTINUE;
}

static void
dnsbl_close(Filter *filter)
{
	DnsblState *state = filter->state;
	const DnsblConf *conf = filter->conf;
	if (state->asks == NULL)
		return;
	timer_clear(&state->timer);
	for (guint i = 0; i < conf->zones->len; i++) {
		dns_cancel(state->asks[i].query);
		json_decref(state->asks[i].codes);
	}
	g_clear_pointer(&state->asks, g_free);
}

static void
dnsbl_conf_check(void *data, const YamlNode *node, const ConfModel *model, ConfReport *report)
{
	(void)model;
	const DnsblConf *conf = data;
	const YamlNode *place = yaml_get(node, "zones");
	if (conf->zones->len == 0)
		conf_error(report, place != NULL ? place : node, "'zones' names at least one");
	if (conf->zones->len > ZONES_MAX)
		conf_error(report, place, "more than %d zones", ZONES_MAX);
	for (guint i = 0; i < conf->zones->len; i++) {
		char *zone = g_ptr_array_index(conf->zones, i);
		if (!dkim_domain_ok(zone, 2))
			conf_error(report, place, "'%s' is no zone", zone);
		for (; *zone != '\0'; zone++)
			*zone = g_ascii_tolower(*zone);
	}
}

static const ConfKey dnsbl_keys[] = {
	{.name = "zones",
	 .type = CONF_STRINGS,
	 .offset = CONF_KEY(DnsblConf, zones),
	 .doc = "Names of the lists, as in zen.example.org; at most 20."},
	{0},
};

const FilterKind filter_dnsbl_check_kind = {
	.name = "dnsbl_check",
	.output_name = "dnsbl",
	.doc = "Asks lists in the DNS (RFC 5782) about the client's address, all at once and for at "
	       "most 10 seconds.  A list that does not answer, or answers that it does not serve us "
	       "(127.255.255.0/24), is unknown; answers outside 127.0.0.0/8 do not count.",
	.conf_size = sizeof(DnsblConf),
	.keys = dnsbl_keys,
	.conf_check = dnsbl_conf_check,
	.state_size = sizeof(DnsblState),
	.update = dnsbl_update,
	.close = dnsbl_close,
	.example = "- filter: dnsbl_check\n"
		   "  zones: [zen.example.org, bl.example.net]\n",
};
