/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/dns.h"

#include <event2/event.h>
#include <string.h>
#include <unbound-event.h>
#include <unbound.h>
#include <unistd.h>

#include "base/error.h"
#include "base/metrics.h"
#include "base/text.h"

#define CLASS_IN        1
#define RCODE_NXDOMAIN  3
#define SEC_BOGUS       1
#define SEC_SECURE      2
#define NAME_TEXT_MAX   253
#define ASKS_MAX        10000 /* questions at libunbound at a time; more are answered TEMP */
#define TIMEOUT_DEFAULT (5 * USEC_PER_SEC)

/* libunbound cannot take a question back safely in this mode, and it must not be asked from
 * inside its own callback.  So what it holds is an Ask, which outlives a cancelled or expired
 * query; and a query tells its owner from deferred work, never from libunbound's callback. */
typedef struct Ask {
	struct Ask *next;
	struct Ask *prev;
	Dns *dns;
	DnsQuery *query; /* NULL: nobody wants to know any more */
} Ask;

struct DnsQuery {
	DnsQuery *next;
	DnsQuery *prev;
	Dns *dns;
	Ask *ask; /* NULL once answered */
	DnsType type;
	DnsFn *fn;
	void *arg;
	DnsTap *tap; /* with `name`; or NULL */
	char *name;
	DnsAnswer answer;
	Defer done;
	Timer timeout;
	Deadline since;
};

struct Dns {
	Worker *worker;
	struct ub_ctx *ctx;
	bool zones_due;      /* it forwards, and open_for_questions has not been there yet */
	DnsSourceFn *source; /* in place of it */
	void *source_arg;
	DnsTap *tap; /* of the queries that are made now */
	Usec timeout;
	Ask *asks;
	unsigned ask_count;
	DnsQuery *queries;
};

static const char *const options[][2] = {
	/* The library's own sizes suit one look-up, not a mail server. */
	{"msg-cache-size:", "4m"},
	{"rrset-cache-size:", "8m"},
	{"key-cache-size:", "1m"},
	{"neg-cache-size:", "1m"},
	{"outgoing-range:", "256"},
	{"num-queries-per-thread:", "1024"},
	{"edns-buffer-size:", "1232"},
	{"do-not-query-localhost:", "no"},
	/* The order of an answer stays; who wants a random one shuffles (RFC 5321 5.1). */
	{"rrset-roundrobin:", "no"},
	/* Names of private networks are the business of the resolver asked. */
	{"unblock-lan-zones:", "yes"},
	{"insecure-lan-zones:", "yes"},
};

/* Zones that libunbound answers itself with "does not exist" though a site may use them. */
static const char *const open_zones[] = {"test.", "home.arpa."};

static const char *const anchor_files[] = {
	"/usr/share/dns/root.key",
	"/var/lib/unbound/root.key",
	"/etc/unbound/root.key",
};

static bool
ub_check(int rc, const char *what, GError **ret_error)
{
	if (rc == 0)
		return true;
	return error_set(ret_error, K_ERROR_DNS, "resolver: %s: %s", what, ub_strerror(rc));
}

static bool
set_forwarders(Dns *dns, const DnsConfig *config, bool *ret_any, GError **ret_error)
{
	*ret_any = false;
	for (guint i = 0; config->forward != NULL && i < config->forward->len; i++) {
		const char *host = config->forward->pdata[i];
		if (!ub_check(ub_ctx_set_fwd(dns->ctx, host), host, ret_error))
			return false;
		*ret_any = true;
	}
	if (*ret_any || !config->use_system)
		return true;
	*ret_any = true;
	return ub_check(ub_ctx_resolvconf(dns->ctx, NULL), "/etc/resolv.conf", ret_error);
}

/* Who forwards trusts the resolver it asks; many of those do not pass DNSSEC on, and then
 * everything would look bogus.  Who resolves from the root validates when the anchor is there. */
static bool
set_validation(Dns *dns, bool forwards, GError **ret_error)
{
	for (size_t i = 0; !forwards && i < G_N_ELEMENTS(anchor_files); i++)
		if (access(anchor_files[i], R_OK) == 0)
			return ub_check(ub_ctx_add_ta_file(dns->ctx, anchor_files[i]),
					anchor_files[i], ret_error);
	return ub_check(ub_ctx_set_option(dns->ctx, "module-config:", "iterator"), "module-config",
			ret_error);
}

static bool
configure(Dns *dns, const DnsConfig *config, GError **ret_error)
{
	for (size_t i = 0; i < G_N_ELEMENTS(options); i++)
		if (!ub_check(ub_ctx_set_option(dns->ctx, options[i][0], options[i][1]),
			      options[i][0], ret_error))
			return false;
	return set_forwarders(dns, config, &dns->zones_due, ret_error) &&
	       set_validation(dns, dns->zones_due, ret_error);
}

/* Ends the configuration.  The library takes a third of a megabyte for it, so it waits for the
 * first question: many workers never have one. */
static bool
open_for_questions(Dns *dns)
{
	for (size_t i = 0; dns->zones_due && i < G_N_ELEMENTS(open_zones); i++)
		if (ub_ctx_zone_add(dns->ctx, open_zones[i], "transparent") != 0)
			return false;
	dns->zones_due = false;
	return true;
}

Dns *
dns_new(Worker *worker, const DnsConfig *config, GError **ret_error)
{
	k_assert_on(worker);
	Dns *dns = g_new0(Dns, 1);
	dns->worker = worker;
	dns->timeout = config->timeout > 0 ? config->timeout : TIMEOUT_DEFAULT;
	dns->ctx = ub_ctx_create_event(worker_base(worker));
	if (dns->ctx == NULL) {
		error_set(ret_error, K_ERROR_DNS, "resolver: cannot make a context");
		dns_free(dns);
		return NULL;
	}
	if (!configure(dns, config, ret_error)) {
		dns_free(dns);
		return NULL;
	}
	return dns;
}

Dns *
dns_new_source(Worker *worker, DnsSourceFn *fn, void *arg)
{
	Dns *dns = g_new0(Dns, 1);
	dns->worker = worker;
	dns->source = fn;
	dns->source_arg = arg;
	return dns;
}

DnsTap *
dns_tap(Dns *dns, DnsTap *tap)
{
	DnsTap *former = dns->tap;
	dns->tap = tap;
	return former;
}

/* ---- the two lists ---- */

static void
ask_free(Ask *ask)
{
	Dns *dns = ask->dns;
	if (ask->prev != NULL)
		ask->prev->next = ask->next;
	else
		dns->asks = ask->next;
	if (ask->next != NULL)
		ask->next->prev = ask->prev;
	dns->ask_count--;
	g_free(ask);
}

static Ask *
ask_new(DnsQuery *query)
{
	Dns *dns = query->dns;
	Ask *ask = g_new0(Ask, 1);
	ask->dns = dns;
	ask->query = query;
	ask->next = dns->asks;
	if (dns->asks != NULL)
		dns->asks->prev = ask;
	dns->asks = ask;
	dns->ask_count++;
	return ask;
}

static void
query_unlink(DnsQuery *query)
{
	Dns *dns = query->dns;
	if (query->prev != NULL)
		query->prev->next = query->next;
	else
		dns->queries = query->next;
	if (query->next != NULL)
		query->next->prev = query->prev;
	if (query->ask != NULL)
		query->ask->query = NULL;
	query->ask = NULL;
	defer_cancel(&query->done);
	timer_clear(&query->timeout);
}

static void
query_free(DnsQuery *query)
{
	dns_answer_clear(&query->answer);
	g_free(query->name);
	g_free(query);
}

void
dns_free(Dns *dns)
{
	if (dns == NULL)
		return;
	k_assert_on(dns->worker);
	while (dns->queries != NULL) {
		DnsQuery *query = dns->queries;
		query_unlink(query);
		query_free(query);
	}
	if (dns->ctx != NULL)
		ub_ctx_delete(dns->ctx); /* may answer what is open */
	while (dns->asks != NULL)
		ask_free(dns->asks);
	g_free(dns);
}

/* ---- queries ---- */

static void
query_answered(DnsQuery *query)
{
	if (query->ask != NULL)
		query->ask->query = NULL;
	query->ask = NULL;
	timer_cancel(&query->timeout);
	defer_queue(worker_defers(query->dns->worker), &query->done);
}

static void
tell_tapped(const DnsQuery *query)
{
	Dns *dns = query->dns;
	query->tap->fn(query->tap, query->name, query->type, &query->answer,
		       clock_mono() - query->since);
	DnsTap *former = dns_tap(dns, query->tap);
	query->fn(query->arg, &query->answer);
	(void)dns_tap(dns, former);
}

static void
on_done(void *arg)
{
	DnsQuery *query = arg;
	static const Metric METRIC[] = {[DNS_OK] = METRIC_DNS_OK,
					[DNS_NODATA] = METRIC_DNS_NODATA,
					[DNS_NXDOMAIN] = METRIC_DNS_NXDOMAIN,
					[DNS_TEMP] = METRIC_DNS_TEMP};
	_Static_assert(G_N_ELEMENTS(METRIC) == DNS_STATUSES, "one counter each");
	metric_add(METRIC[query->answer.status], 1);
	metric_observe(HISTOGRAM_DNS, clock_mono() - query->since);
	query_unlink(query); /* the callback may free the resolver */
	if (query->answer.records == NULL)
		query->answer.records = g_ptr_array_new();
	if (query->tap != NULL)
		tell_tapped(query);
	else
		query->fn(query->arg, &query->answer);
	query_free(query);
}

static void
on_timeout(void *arg)
{
	DnsQuery *query = arg;
	query->answer.status = DNS_TEMP;
	query_answered(query);
}

/* libunbound's callback; may come from inside ub_resolve_event or ub_ctx_delete. */
static void
on_answer(void *arg, int rcode, void *packet, int packet_len, int sec, char *why_bogus,
	  int was_ratelimited)
{
	(void)why_bogus;
	(void)was_ratelimited;
	Ask *ask = arg;
	DnsQuery *query = ask->query;
	if (query == NULL) {
		ask_free(ask);
		return;
	}
	dns_answer_clear(&query->answer);
	if (rcode == RCODE_NXDOMAIN && sec != SEC_BOGUS)
		query->answer.status = DNS_NXDOMAIN;
	else if (rcode == 0 && packet != NULL && packet_len > 0 && sec != SEC_BOGUS)
		dns_parse(packet, (size_t)packet_len, query->type, &query->answer);
	query->answer.secure = sec == SEC_SECURE;
	query_answered(query);
	ask_free(ask);
}

/* Letters, digits and what else may stand in a name for mail; labels of 1..63 bytes. */
static bool
can_be_asked(const char *name)
{
	size_t len = strlen(name);
	if (len > 0 && name[len - 1] == '.')
		len--;
	if (len == 0 || len > NAME_TEXT_MAX)
		return false;
	size_t label = 0;
	for (size_t i = 0; i < len; i++) {
		char c = name[i];
		if (c == '.') {
			if (label == 0)
				return false;
			label = 0;
			continue;
		}
		/* The backslash starts an escape in libunbound's notation. */
		if (c <= 0x20 || c > 0x7e || c == '\\' || ++label > 63)
			return false;
	}
	return label > 0;
}

/* Returns the status to answer with when the question does not even leave. */
static DnsStatus
query_send(DnsQuery *query, const char *name)
{
	Dns *dns = query->dns;
	if (!can_be_asked(name))
		return DNS_NXDOMAIN;
	if (dns->source != NULL) {
		dns->source(dns->source_arg, name, query->type, &query->answer);
		query_answered(query);
		return DNS_OK;
	}
	if (dns->ask_count >= ASKS_MAX || !open_for_questions(dns))
		return DNS_TEMP;
	query->ask = ask_new(query);
	int rc = ub_resolve_event(dns->ctx, name, (int)query->type, CLASS_IN, query->ask, on_answer,
				  NULL);
	if (rc != 0 && query->ask != NULL) {
		ask_free(query->ask);
		query->ask = NULL;
		return DNS_TEMP;
	}
	return DNS_OK;
}

DnsQuery *
dns_query(Dns *dns, const char *name, DnsType type, DnsFn *fn, void *arg)
{
	k_assert_on(dns->worker);
	k_assert(fn != NULL);
	DnsQuery *query = g_new0(DnsQuery, 1);
	*query = (DnsQuery){.dns = dns,
			    .type = type,
			    .fn = fn,
			    .arg = arg,
			    .tap = dns->tap,
			    .name = dns->tap != NULL ? g_strdup(name) : NULL,
			    .since = clock_mono(),
			    .next = dns->queries};
	if (dns->queries != NULL)
		dns->queries->prev = query;
	dns->queries = query;
	query->answer.status = DNS_TEMP;
	defer_init(&query->done, on_done, query);
	timer_init(&query->timeout, dns->worker, on_timeout, query);
	DnsStatus status = query_send(query, name);
	if (status != DNS_OK) {
		query->answer.status = status;
		query_answered(query);
	} else if (query->ask != NULL) { /* not answered at once */
		timer_set(&query->timeout, dns->timeout);
	}
	return query;
}

void
dns_cancel(DnsQuery *query)
{
	if (query == NULL)
		return;
	k_assert_on(query->dns->worker);
	query_unlink(query);
	query_free(query);
}
