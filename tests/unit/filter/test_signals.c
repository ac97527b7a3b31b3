/* SPDX-License-Identifier: Apache-2.0 */
/* Filters that publish signals: dns_resolution and remote_host against answers made here in place
 * of the resolver; sync. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "filter/mx.h"
#include "zone.h"

#define DNS    "koukan.mx_resolution.DnsResolutionFilter"
#define REMOTE "koukan.remote_host_filter.RemoteHostFilter"

/* ---- dns_resolution ---- */

#define ROUTE(hosts)                                                                               \
	"- filter: router\n"                                                                       \
	"  destination: {endpoint: gateway, host_list: [" hosts "]}\n"
/* The machine that runs the tests may have any address. */
#define ALL  "- {filter: dns_resolution, suffix: '', own_addresses: []}\n"
#define END  "- {filter: rest_output}\n"
#define H(n) "{host: " n ", port: 25}"

static const Zone zone[] = {
	{"mx.example", DNS_MX, DNS_OK, {"20 b.mx.example.", "10 a.mx.example."}},
	{"a.mx.example", DNS_A, DNS_OK, {"192.0.2.1", "192.0.2.2"}},
	{"a.mx.example", DNS_AAAA, DNS_OK, {"2001:db8::1"}},
	{"b.mx.example", DNS_A, DNS_OK, {"192.0.2.2", "192.0.2.3"}},
	{"equal.example", DNS_MX, DNS_OK, {"10 b.mx.example.", "10 v6.example."}},
	{"nomx.example", DNS_A, DNS_OK, {"192.0.2.9"}},
	{"private.example", DNS_A, DNS_OK, {"127.0.0.1", "192.0.2.9", "192.168.1.1"}},
	{"lan.example", DNS_A, DNS_OK, {"127.0.0.1", "10.0.0.1"}},
	{"lan.example", DNS_AAAA, DNS_OK, {"fe80::1"}},
	{"v6.example", DNS_AAAA, DNS_OK, {"2001:db8::9"}},
	{"empty.example", DNS_MX, DNS_OK, {"10 nowhere.example."}},
	{"null.example", DNS_MX, DNS_OK, {"0 ."}},
	{"temp.example", DNS_MX, DNS_TEMP, {NULL}},
	{"half.example", DNS_MX, DNS_OK, {"10 halftemp.example.", "20 nomx.example."}},
	{"halftemp.example", DNS_A, DNS_TEMP, {NULL}},
	{NULL, 0, 0, {NULL}},
};

/* Results NX with a reason of their own. */
enum { NULL_MX = 101, LOOP = 201 };

typedef struct ResolveCase {
	const char *name, *chain;
	int result;           /* -1: none */
	const char *hosts[5]; /* told to the next node, in order; none: refused */
} ResolveCase;

static const ResolveCase resolve_cases[] = {
	{"mx",
	 ROUTE(H("mx.example")) ALL END,
	 0,
	 {"192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.3"}},
	{"private addresses are refused", ROUTE(H("private.example")) ALL END, 0, {"192.0.2.9"}},
	{"nothing but private ones", ROUTE(H("lan.example")) ALL END, 1, {NULL}},
	{"unless allowed",
	 ROUTE(H("lan.example")) "- {filter: dns_resolution, suffix: '', allow_private: yes}\n" END,
	 0,
	 {"127.0.0.1", "10.0.0.1", "fe80::1"}},
	{"configured literals are not asked about",
	 ROUTE(H("127.0.0.1")) ALL END,
	 0,
	 {"127.0.0.1"}},
	{"only hosts before ourselves, by name",
	 ROUTE(H("mx.example")) "- {filter: dns_resolution, suffix: '', own_name: B.mx.example, own_addresses: []}\n" END,
	 0,
	 {"192.0.2.1", "192.0.2.2", "2001:db8::1"}},
	{"only hosts before ourselves, by address",
	 ROUTE(H("mx.example")) "- {filter: dns_resolution, suffix: '', own_addresses: [192.0.2.3]}\n" END,
	 0,
	 {"192.0.2.1", "192.0.2.2", "2001:db8::1"}},
	{"we are the best ourselves",
	 ROUTE(H("mx.example")) "- {filter: dns_resolution, suffix: '', own_name: a.mx.example, own_addresses: []}\n" END,
	 LOOP,
	 {NULL}},
	{"implicit mx, ourselves",
	 ROUTE(H("nomx.example")) "- {filter: dns_resolution, suffix: '', own_name: nomx.example, own_addresses: []}\n" END,
	 LOOP,
	 {NULL}},
	{"no mx", ROUTE(H("nomx.example")) ALL END, 0, {"192.0.2.9"}},
	{"ipv6", ROUTE(H("v6.example")) ALL END, 0, {"2001:db8::9"}},
	{"two hosts",
	 ROUTE(H("nomx.example") "," H("v6.example")) ALL END,
	 0,
	 {"192.0.2.9", "2001:db8::9"}},
	{"one host without answer", ROUTE(H("half.example")) ALL END, 0, {"192.0.2.9"}},
	{"empty", ROUTE(H("empty.example")) ALL END, 2, {NULL}},
	{"null mx", ROUTE(H("null.example")) ALL END, NULL_MX, {NULL}},
	{"nxdomain", ROUTE(H("none.example")) ALL END, 1, {NULL}},
	{"servfail", ROUTE(H("temp.example")) ALL END, 2, {NULL}},
	{"one of two fails", ROUTE(H("nomx.example") "," H("none.example")) ALL END, 1, {NULL}},
	{"literal address", ROUTE(H("192.0.2.77")) ALL END, 0, {"192.0.2.77"}},
	{"no match",
	 ROUTE(H("other.test")) "- {filter: dns_resolution, suffix: .example}\n" END,
	 0,
	 {"other.test"}},
	{"nothing configured",
	 ROUTE(H("none.example")) "- {filter: dns_resolution}\n" END,
	 0,
	 {"none.example"}},
	{"static, suffix in any case",
	 ROUTE(H("a.EXAMPLE")) "- {filter: dns_resolution, suffix: .example, static_hosts: [" H(
		 "127.0.0.1") "]}\n" END,
	 0,
	 {"127.0.0.1"}},
	{"static, literal, order kept",
	 ROUTE(H("before") "," H("fake_smtpd") "," H("behind")) "- {filter: dns_resolution, literal: fake_smtpd, overwrite: true, static_hosts: [" H(
		 "127.0.0.1") "]}\n" END,
	 0,
	 {"before", "127.0.0.1", "behind"}},
};

static const char *
refusal(int result)
{
	switch (result) {
	case 1:
		return "550 5.1.2 no mail host for the recipient's domain";
	case NULL_MX:
		return "556 5.1.10 the recipient's domain takes no mail (null MX)";
	case LOOP:
		return "550 5.4.6 mail for the recipient's domain would come back to us";
	default:
		return "450 4.4.3 the recipient's domain cannot be looked up now";
	}
}

static void
run_resolve(const ResolveCase *c)
{
	Harness *h = zone_setup(c->chain, zone);
	harness_mail(h, "");
	harness_rcpt(h, "bob@nomx.example");
	harness_turn(h);
	const json_t *output = harness_output(h, DNS);
	assert_int_equal(json_integer_value(json_object_get(output, "resolution_result")),
			 c->result % 100);
	assert_null(json_object_get(output, "mail_from_result"));
	if (c->hosts[0] == NULL) {
		assert_int_equal(h->opened->len, 0);
		assert_response(h->tx->mail_response, refusal(c->result));
	}
	for (guint i = 0; i < 5 && c->hosts[i] != NULL; i++) {
		const Tx *up = harness_port(h, i)->tx;
		assert_string_equal(up->remote_host->host, c->hosts[i]);
		assert_int_equal(up->remote_host->port, 25);
		tx_answer_mail((Tx *)up, response_new(450, NULL));
		harness_turn(h);
		assert_int_equal(h->tx->mail_response != NULL, c->hosts[i + 1] == NULL);
	}
	zone_teardown(h);
}

static void
test_resolve(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(resolve_cases); i++) {
		print_message("# %s\n", resolve_cases[i].name);
		run_resolve(&resolve_cases[i]);
	}
}

/* Of two hosts with one preference either comes first, now this one and now that one. */
static void
test_equal_preferences(void **state)
{
	(void)state;
	unsigned first[2] = {0};
	for (unsigned i = 0; i < 60; i++) {
		Harness *h = zone_setup(ROUTE(H("equal.example")) ALL END, zone);
		harness_mail(h, "");
		harness_rcpt(h, "bob@nomx.example");
		harness_turn(h);
		const char *host = harness_port(h, 0)->tx->remote_host->host;
		bool v6 = strcmp(host, "2001:db8::9") == 0;
		if (!v6)
			assert_string_equal(host, "192.0.2.2");
		first[v6]++;
		zone_teardown(h);
	}
	assert_true(first[0] > 0 && first[1] > 0);
}

/* A recipient's own address literal is a stranger's choice. */
static void
test_recipient_literals(void **state)
{
	(void)state;
	static const struct {
		const char *rcpt, *host; /* NULL: refused */
	} runs[] = {
		{"u@[192.0.2.77]", "192.0.2.77"}, {"u@[127.0.0.1]", NULL},
		{"u@[10.1.2.3]", NULL},           {"u@[IPv6:2001:db8::5]", "2001:db8::5"},
		{"u@[IPv6:::1]", NULL},           {"u@[IPv6:fe80::1]", NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Harness *h = zone_setup(
			"- filter: router\n"
			"  policy: {name: dest_domain, destination: {endpoint: gateway}}\n" ALL END,
			zone);
		harness_mail(h, "");
		harness_rcpt(h, runs[i].rcpt);
		harness_turn(h);
		assert_int_equal(h->opened->len, runs[i].host != NULL ? 1 : 0);
		if (runs[i].host != NULL)
			assert_string_equal(harness_port(h, 0)->tx->remote_host->host,
					    runs[i].host);
		zone_teardown(h);
	}
}

static void
test_address_faults(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"0.0.0.0",
		"0.1.2.3",
		"10.0.0.0",
		"10.255.255.255",
		"100.64.0.1",
		"127.0.0.1",
		"127.255.255.255",
		"169.254.0.1",
		"172.16.0.0",
		"172.31.255.255",
		"192.168.0.1",
		"224.0.0.1",
		"255.255.255.255",
		"::",
		"::1",
		"fc00::1",
		"fdff::1",
		"fe80::1",
		"ff02::1",
		"::ffff:127.0.0.1",
	};
	static const char *const good[] = {
		"1.0.0.0",        "9.255.255.255", "11.0.0.0",    "100.63.255.255",
		"100.128.0.0",    "126.0.0.1",     "128.0.0.1",   "169.253.0.1",
		"172.15.255.255", "172.32.0.0",    "192.167.0.1", "192.169.0.1",
		"223.0.0.1",      "2001:db8::1",   "fbff::1",     "fec0::1",
	};
	const MxGuard guard = {0}, open = {.allow_private = true};
	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
		assert_non_null(mx_address_fault(bad[i], &guard));
		assert_null(mx_address_fault(bad[i], &open));
	}
	for (size_t i = 0; i < G_N_ELEMENTS(good); i++)
		assert_null(mx_address_fault(good[i], &guard));
}

static void
test_mail_and_rcpts(void **state)
{
	(void)state;
	Harness *h = zone_setup(ALL "- {filter: rest_output, static_endpoint: 'http://x/'}\n",
				zone);
	harness_mail(h, "alice@none.example");
	harness_rcpt(h, "a@nomx.example");
	harness_rcpt(h, "b@null.example");
	harness_rcpt(h, "c@temp.example");
	harness_rcpt(h, "d@[192.0.2.1]");
	harness_rcpt(h, "no address");
	harness_rcpt(h, "e@NOMX.example");
	(void)defer_run(h->queue, 2);
	assert_int_equal(h->opened->len, 0);
	harness_turn(h);
	g_autofree char *text = json_print(harness_output(h, DNS));
	assert_string_equal(text, "{\"mail_from_result\":1,\"rcpt_to_result\":[0,1,2,0,1,0]}");
	assert_int_equal(h->opened->len, 1);
	/* Four names: an MX query for each, A and AAAA for the one that has them. */
	assert_int_equal(zone_dns.asked, 6);
	zone_teardown(h);
}

/* The sender first, recipients later. */
static void
test_one_by_one(void **state)
{
	(void)state;
	Harness *h = zone_setup(ALL "- {filter: rest_output, static_endpoint: 'http://x/'}\n",
				zone);
	harness_mail(h, "alice@nomx.example");
	harness_turn(h);
	g_autofree char *first = json_print(harness_output(h, DNS));
	assert_string_equal(first, "{\"mail_from_result\":0}");
	harness_rcpt(h, "a@null.example");
	harness_turn(h);
	g_autofree char *second = json_print(harness_output(h, DNS));
	assert_string_equal(second, "{\"mail_from_result\":0,\"rcpt_to_result\":[1]}");
	zone_teardown(h);
}

static void
test_body_passes(void **state)
{
	(void)state;
	Harness *h = zone_setup(ROUTE(H("nomx.example")) ALL END, zone);
	harness_body(h, "hello");
	harness_mail(h, "alice@nomx.example");
	harness_rcpt(h, "a@nomx.example");
	harness_turn(h);
	assert_ptr_equal(harness_port(h, 0)->tx->body, h->tx->body);
	zone_teardown(h);
}

static void
test_no_resolver(void **state)
{
	(void)state;
	Harness *h = zone_setup(ALL "- {filter: rest_output, static_endpoint: 'http://x/'}\n",
				zone);
	h->env.dns = NULL;
	harness_mail(h, "alice@nomx.example");
	harness_turn(h);
	g_autofree char *text = json_print(harness_output(h, DNS));
	assert_string_equal(text, "{\"mail_from_result\":2}");
	zone_teardown(h);
}

/* Freed in the middle of it: silence. */
static void
test_free_while_waiting(void **state)
{
	(void)state;
	for (unsigned rounds = 0; rounds < 6; rounds++) {
		Harness *h = zone_setup("- {filter: remote_host}\n" ROUTE(H("mx.example")) ALL END,
					zone);
		g_autoptr(HostPort) remote = host_port_new("192.0.2.50", 4000);
		tx_set_hosts(h->tx, remote, NULL);
		harness_mail(h, "alice@mx.example");
		harness_rcpt(h, "bob@equal.example");
		for (unsigned i = 0; i < rounds; i++)
			(void)defer_run(h->queue, 1);
		zone_teardown(h);
	}
}

/* ---- remote_host ---- */

static const Zone hosts[] = {
	{"1.2.0.192.in-addr.arpa", DNS_PTR, DNS_OK, {"mx.example.org.", "other.example."}},
	{"mx.example.org", DNS_A, DNS_OK, {"192.0.2.200", "192.0.2.1"}},
	{"8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
	 DNS_PTR,
	 DNS_OK,
	 {"v6.example.org."}},
	{"v6.example.org", DNS_AAAA, DNS_OK, {"2001:db8:0:0::8"}},
	{"3.2.0.192.in-addr.arpa", DNS_PTR, DNS_OK, {"gone.example.org."}},
	{"4.2.0.192.in-addr.arpa", DNS_PTR, DNS_TEMP, {NULL}},
	{"5.2.0.192.in-addr.arpa", DNS_PTR, DNS_OK, {"temp.example.org."}},
	{"temp.example.org", DNS_A, DNS_TEMP, {NULL}},
	{"temp.example.org", DNS_AAAA, DNS_TEMP, {NULL}},
	{"6.2.0.192.in-addr.arpa", DNS_PTR, DNS_OK, {"elsewhere.example.org."}},
	{"elsewhere.example.org", DNS_A, DNS_OK, {"192.0.2.66"}},
	{"elsewhere.example.org", DNS_AAAA, DNS_TEMP, {NULL}},
	{"7.2.0.192.in-addr.arpa", DNS_PTR, DNS_OK, {"half.example.org."}},
	{"half.example.org", DNS_A, DNS_TEMP, {NULL}},
	{"half.example.org", DNS_AAAA, DNS_OK, {"2001:db8::66"}},
	{"9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
	 DNS_PTR,
	 DNS_OK,
	 {"elsewhere.example.org."}},
	{NULL, 0, 0, {NULL}},
};

typedef struct RemoteCase {
	const char *name, *host, *ehlo;
	const char *output, *mail;
} RemoteCase;

static const RemoteCase remote_cases[] = {
	{"success, aligned", "192.0.2.1", "mx.example.org",
	 "{\"status\":0,\"fcrdns\":true,\"ehlo_alignment\":true,\"remote_hostname\":\"mx.example.org.\"}",
	 "-"},
	{"other ehlo", "192.0.2.1", "MX.example.org",
	 "{\"status\":0,\"fcrdns\":true,\"ehlo_alignment\":false,\"remote_hostname\":\"mx.example.org.\"}",
	 "-"},
	{"ipv6", "2001:db8::8", "v6.example.org",
	 "{\"status\":0,\"fcrdns\":true,\"ehlo_alignment\":true,\"remote_hostname\":\"v6.example.org.\"}",
	 "-"},
	{"no ptr", "192.0.2.2", "x", "{\"status\":2,\"fcrdns\":false,\"ehlo_alignment\":false}",
	 "-"},
	{"name does not exist", "192.0.2.3", "gone.example.org",
	 "{\"status\":0,\"fcrdns\":false,\"ehlo_alignment\":false,\"remote_hostname\":\"gone.example.org.\"}",
	 "-"},
	{"ptr fails", "192.0.2.4", "x", "{\"status\":1,\"fcrdns\":false,\"ehlo_alignment\":false}",
	 "450 RemoteHostFilter ptr err"},
	{"forward fails", "192.0.2.5", "x",
	 "{\"status\":1,\"fcrdns\":false,\"ehlo_alignment\":false,\"remote_hostname\":\"temp.example.org.\"}",
	 "450 RemoteHostFilter fwd err"},
	{"the half fails that counts", "192.0.2.7", "x",
	 "{\"status\":1,\"fcrdns\":false,\"ehlo_alignment\":false,\"remote_hostname\":\"half.example.org.\"}",
	 "450 RemoteHostFilter fwd err"},
	{"the half fails that counts, ipv6", "2001:db8::9", "x",
	 "{\"status\":1,\"fcrdns\":false,\"ehlo_alignment\":false,"
	 "\"remote_hostname\":\"elsewhere.example.org.\"}",
	 "450 RemoteHostFilter fwd err"},
	{"the other half fails", "192.0.2.6", "x",
	 "{\"status\":0,\"fcrdns\":false,\"ehlo_alignment\":false,"
	 "\"remote_hostname\":\"elsewhere.example.org.\"}",
	 "-"},
};

static void
test_remote_host(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(remote_cases); i++) {
		const RemoteCase *c = &remote_cases[i];
		print_message("# %s\n", c->name);
		Harness *h = zone_setup("- {filter: remote_host}\n"
					"- {filter: rest_output, static_endpoint: 'http://x/'}\n",
					hosts);
		g_autoptr(HostPort) remote = host_port_new(c->host, 4000);
		g_autoptr(json_t) meta = json_pack("{s:s}", "ehlo_host", c->ehlo);
		tx_set_hosts(h->tx, remote, NULL);
		tx_set_smtp_meta(h->tx, meta);
		harness_mail(h, "alice@example.com");
		harness_turn(h);
		g_autofree char *text = json_print(harness_output(h, REMOTE));
		assert_string_equal(text, c->output);
		assert_response(h->tx->mail_response, c->mail);
		assert_int_equal(h->opened->len, c->mail[0] == '-' ? 1 : 0);
		zone_teardown(h);
	}
}

static void
test_no_remote_host(void **state)
{
	(void)state;
	Harness *h = zone_setup("- {filter: remote_host}\n"
				"- {filter: rest_output, static_endpoint: 'http://x/'}\n",
				hosts);
	harness_mail(h, "alice@example.com");
	harness_turn(h);
	assert_null(harness_output(h, REMOTE));
	assert_int_equal(h->opened->len, 1);
	zone_teardown(h);
}

/* ---- sync ---- */

static void
test_sync(void **state)
{
	(void)state;
	Harness *h = zone_setup("- {filter: hello}\n- {filter: sync}\n", zone);
	harness_mail(h, "alice@example.com");
	harness_rcpt(h, "bob@example.com");
	harness_turn(h);
	assert_response(h->tx->mail_response, "450 4.3.5 filter sync is a placeholder");
	assert_response(tx_rcpt(h->tx, 0)->response, "450 failed precondition: MAIL");
	zone_teardown(h);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resolve),
		cmocka_unit_test(test_equal_preferences),
		cmocka_unit_test(test_recipient_literals),
		cmocka_unit_test(test_address_faults),
		cmocka_unit_test(test_mail_and_rcpts),
		cmocka_unit_test(test_one_by_one),
		cmocka_unit_test(test_body_passes),
		cmocka_unit_test(test_no_resolver),
		cmocka_unit_test(test_free_while_waiting),
		cmocka_unit_test(test_remote_host),
		cmocka_unit_test(test_no_remote_host),
		cmocka_unit_test(test_sync),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
