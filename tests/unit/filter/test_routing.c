/* SPDX-License-Identifier: Apache-2.0 */
/* Address lists, routing policies and the router filter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "filter/addr_list.h"
#include "harness.h"

/* ---- addr_list ---- */

typedef struct ListCase {
	const char *domains[3], *prefixes[3], *delimiter;
	const char *addr;
	bool want;
} ListCase;

static const ListCase list_cases[] = {
	{{"d1", "d2"}, {"alice", "bob"}, "+", "alice@d1", true},
	{{"d1", "d2"}, {"alice", "bob"}, "+", "bob+lists@d2", true},
	{{"d1", "d2"}, {"alice", "bob"}, "+", "BOB+Lists@D2", true},
	{{"d1", "d2"}, {"alice", "bob"}, "+", "bobby@d1", false},
	{{"d1", "d2"}, {"alice", "bob"}, "+", "carol@d1", false},
	{{"d1", "d2"}, {"alice", "bob"}, "+", "alice@d3", false},
	{{"d1"}, {"bob"}, NULL, "bob+lists@d1", false},
	{{"d1"}, {"bob"}, "", "bob+lists@d1", false},
	{{"d1"}, {"bob"}, "--", "bob--x@d1", true},
	{{"d1"}, {"bob"}, "--", "bob-x@d1", false},
	{{"d1"}, {NULL}, NULL, "anybody@d1", true},
	{{NULL}, {"bob"}, NULL, "bob@anywhere.example", true},
	{{NULL}, {NULL}, NULL, "x@y", true},
	{{NULL}, {NULL}, NULL, "x", false},
	{{NULL}, {NULL}, NULL, "", false},
	{{NULL}, {NULL}, NULL, "@y", false},
	{{NULL}, {NULL}, NULL, "a@b@c", false},
	/* The list is compared as written. */
	{{"D1"}, {NULL}, NULL, "x@d1", false},
	{{"bücher.example"}, {NULL}, NULL, "x@BÜCHER.example", true},
};

static void
test_addr_list(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(list_cases); i++) {
		const ListCase *c = &list_cases[i];
		g_autoptr(GPtrArray) domains = g_ptr_array_new();
		g_autoptr(GPtrArray) prefixes = g_ptr_array_new();
		for (int j = 0; c->domains[j] != NULL; j++)
			g_ptr_array_add(domains, (gpointer)c->domains[j]);
		for (int j = 0; c->prefixes[j] != NULL; j++)
			g_ptr_array_add(prefixes, (gpointer)c->prefixes[j]);
		const AddrList list = {domains, prefixes, (char *)c->delimiter};
		if (addr_list_match(&list, c->addr) != c->want)
			fail_msg("case %zu: %s", i, c->addr);
	}
}

/* ---- the router ---- */

#define URL    "http://gw/"
#define END    "- {filter: rest_output}\n"
#define REJECT "- {filter: router}\n"
#define LIST(keys)                                                                                 \
	"- filter: router\n"                                                                       \
	"  policy: {name: address_list, domains: [example.com]" keys "}\n"
#define DOMAIN_TO                                                                                  \
	"- filter: router\n  policy: {name: dest_domain, destination: {endpoint: gateway}}\n"

#define NULL_POLICY "550 5.1.1 mailbox does not exist (RecipientRouterFilter null policy)"
#define LIST_POLICY "550 5.1.1 mailbox does not exist (AddressListPolicy)"
#define NO_URL      "503 5.5.1 failed precondition: MAIL"

typedef struct RouteCase {
	const char *name, *chain, *rcpt;
	const char *answer; /* "-": it is on its way */
	const char *host;   /* what the next node is told; NULL: nothing */
	int port;
} RouteCase;

static const RouteCase route_cases[] = {
	{"list, endpoint", LIST(", destination: {endpoint: gateway}") REJECT END, "bob@example.com",
	 "-", NULL, 0},
	{"list, hosts",
	 LIST(", destination: {endpoint: gateway, host_list: [{host: h1, port: 26}]}") REJECT END,
	 "bob@EXAMPLE.com", "-", "h1", 26},
	{"list, other domain", LIST(", destination: {endpoint: gateway}") REJECT END,
	 "bob@example.org", NULL_POLICY, NULL, 0},
	{"list, no destination", LIST("") REJECT END, "bob@example.com", LIST_POLICY, NULL, 0},
	{"list, no destination, other domain", LIST("") DOMAIN_TO END, "bob@example.org", "-",
	 "example.org", 25},
	{"list, unknown endpoint", LIST(", destination: {endpoint: nowhere}") REJECT END,
	 "bob@example.com", LIST_POLICY, NULL, 0},
	{"list, endpoint without sender", LIST(", destination: {endpoint: nosender}") REJECT END,
	 "bob@example.com", LIST_POLICY, NULL, 0},
	{"first decides", LIST(", destination: {endpoint: gateway}") DOMAIN_TO END,
	 "bob@example.com", "-", NULL, 0},
	{"null policy, destination", "- {filter: router, destination: {endpoint: gateway}}\n" END,
	 "bob@example.com", "-", NULL, 0},
	{"null policy, empty destination", "- {filter: router, destination: }\n" END,
	 "bob@example.com", NO_URL, NULL, 0},
	{"dest_domain", DOMAIN_TO END, "bob@d.example", "-", "d.example", 25},
	{"dest_domain, port",
	 "- filter: router\n"
	 "  policy: {name: dest_domain, dest_port: 2525, destination: {endpoint: gateway}}\n" END,
	 "bob@d.example", "-", "d.example", 2525},
	{"dest_domain, literal", DOMAIN_TO END, "bob@[192.0.2.7]", "-", "192.0.2.7", 25},
	{"dest_domain, IPv6 literal", DOMAIN_TO END, "bob@[IPv6:2001:db8::7]", "-", "2001:db8::7",
	 25},
	{"dest_domain, no address", DOMAIN_TO REJECT END, "bob", NULL_POLICY, NULL, 0},
	{"hello", "- {filter: router, policy: {name: hello}}\n" REJECT END, "bob@x", NULL_POLICY,
	 NULL, 0},
	{"dry run counts as routed",
	 "- {filter: router, dry_run: true, policy: {name: dest_domain, destination: }}\n" REJECT
	 "- {filter: rest_output, static_endpoint: 'http://gw/'}\n",
	 "bob@x", "-", NULL, 0},
	{"dry run rejects", "- {filter: router, dry_run: true}\n" END, "bob@x", NULL_POLICY, NULL,
	 0},
	{"dry run sets nothing",
	 "- filter: router\n"
	 "  dry_run: true\n"
	 "  policy: {name: dest_domain, destination: {endpoint: gateway}}\n" END,
	 "bob@x", NO_URL, NULL, 0},
};

static Harness *
setup(const char *chain)
{
	Harness *h = harness_new();
	harness_endpoint(h, "gateway", URL, "router");
	harness_endpoint(h, "nosender", URL, NULL);
	harness_chain(h, chain);
	return h;
}

static void
test_router(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(route_cases); i++) {
		const RouteCase *c = &route_cases[i];
		print_message("# %s\n", c->name);
		Harness *h = setup(c->chain);
		harness_mail(h, "alice@example.com");
		harness_rcpt(h, c->rcpt);
		harness_turn(h);
		assert_response(tx_rcpt(h->tx, 0)->response, c->answer);
		assert_int_equal(h->opened->len, c->answer[0] == '-' ? 1 : 0);
		if (c->answer[0] == '-') {
			const FakePort *port = harness_port(h, 0);
			assert_string_equal(port->url, URL);
			const HostPort *host = port->tx->remote_host;
			assert_int_equal(host != NULL, c->host != NULL);
			if (host != NULL) {
				assert_string_equal(host->host, c->host);
				assert_int_equal(host->port, c->port);
			}
		}
		harness_free(h);
	}
}

/* Bad first recipient rejected, good second one on its way. */
static void
test_mixed(void **state)
{
	(void)state;
	Harness *h = setup(LIST(", destination: {endpoint: gateway}") REJECT END);
	harness_mail(h, "alice@example.com");
	harness_rcpt(h, "bad@example.org");
	harness_rcpt(h, "bob@example.com");
	harness_turn(h);
	assert_response(tx_rcpt(h->tx, 0)->response, NULL_POLICY);
	assert_null(tx_rcpt(h->tx, 1)->response);
	const Tx *up = harness_port(h, 0)->tx;
	assert_int_equal(tx_rcpt_count(up), 1);
	assert_string_equal(tx_rcpt(up, 0)->to->addr, "bob@example.com");
	harness_free(h);
}

/* One transaction has one destination; whoever needs another one has to come again. */
static void
test_two_destinations(void **state)
{
	(void)state;
	static const struct {
		const char *chain;
		bool refused[3];
	} runs[] = {
		{DOMAIN_TO END, {false, false, true}},
		/* The first router has chosen for the third recipient before the second router
		   looks. */
		{LIST(", destination: {endpoint: gateway}") DOMAIN_TO END, {true, true, false}},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Harness *h = setup(runs[i].chain);
		harness_mail(h, "alice@example.com");
		harness_rcpt(h, "bob@example.org");
		harness_rcpt(h, "carol@example.org");
		harness_rcpt(h, "dave@example.com");
		harness_turn(h);
		size_t sent = 0;
		for (size_t j = 0; j < 3; j++) {
			assert_response(tx_rcpt(h->tx, j)->response,
					runs[i].refused[j]
						? "451 4.5.3 recipients of one message need "
						  "the same destination"
						: "-");
			sent += !runs[i].refused[j];
		}
		assert_int_equal(tx_rcpt_count(harness_port(h, 0)->tx), sent);
		harness_free(h);
	}
}

/* The same over time: what comes later does not change where the transaction goes. */
static void
test_two_destinations_later(void **state)
{
	(void)state;
	Harness *h = setup(LIST(", destination: {endpoint: gateway}") DOMAIN_TO END);
	harness_mail(h, "alice@example.com");
	harness_rcpt(h, "bob@example.org");
	harness_turn(h);
	harness_rcpt(h, "dave@example.com");
	harness_turn(h);
	assert_null(tx_rcpt(h->tx, 0)->response);
	assert_int_equal(tx_rcpt(h->tx, 1)->response->code, 451);
	assert_int_equal(tx_rcpt_count(harness_port(h, 0)->tx), 1);
	harness_free(h);
}

/* Options of a destination are merged over the rest_endpoint's and change no other. */
static void
test_options(void **state)
{
	(void)state;
	Harness *h = setup(
		"- filter: router\n"
		"  policy:\n"
		"    name: address_list\n"
		"    domains: [example.com]\n"
		"    destination:\n"
		"      endpoint: gateway\n"
		"      options: {receive_parsing: {max_inline: 7}, send_filter_output: true}\n"
		"- filter: router\n"
		"  destination: {endpoint: gateway}\n" END);
	const RestEndpointConf *gateway = g_ptr_array_index(h->model->rest_endpoints, 0);
	assert_false(gateway->receive_parsing);
	assert_false(gateway->send_filter_output);
	harness_mail(h, "alice@example.com");
	harness_rcpt(h, "bob@example.org");
	harness_turn(h);
	assert_false(harness_port(h, 0)->options.receive_parsing);
	assert_false(harness_port(h, 0)->options.send_filter_output);
	harness_free(h);
}

/* ---- configuration ---- */

typedef struct ConfCase {
	const char *chain;
	const char *where, *text; /* of the first problem */
} ConfCase;

static const ConfCase conf_cases[] = {
	{"- {filter: ruter}\n", "test:1:", "unknown filter 'ruter', did you mean 'router'?"},
	{"- {filter: xyzzy}\n", "test:1:", "unknown filter 'xyzzy'"},
	{"- {fliter: router}\n", "test:1:", "needs 'filter: name'"},
	{"- {filter: router, dryrun: yes}\n" END, "test:1:", "dry_run"},
	{"- {filter: router, dry_run: 7}\n" END, "test:1:", "dry_run"},
	{"- {filter: router, policy: {name: adress_list}}\n" END,
	 "test:1:", "unknown policy 'adress_list', did you mean 'address_list'?"},
	{"- {filter: router, policy: {name: dest_domain}}\n" END, "test:1:", "needs a destination"},
	{"- {filter: router, policy: {}}\n" END, "test:1:", "needs a name"},
	{"- {filter: router, policy: {name: address_list, domain: [x]}}\n" END,
	 "test:1:", "domains"},
	{"- {filter: router, destination: {endpoint: gatway}}\n" END,
	 "test:1:", "unknown rest_endpoint 'gatway', did you mean 'gateway'?"},
	{"- {filter: router}\n", "test:1:", "rest_output or exploder"},
	{END "- {filter: router}\n", "test:1:", "nothing may stand behind it"},
	{"- {filter: exploder_upstream}\n", "test:1:", "internal"},
	{"- {filter: sync}\n", "test:1:", "placeholder"},
	{"- {filter: dkim_sign, key: dkim.pem}\n" END, "test:1:", "needs 'domain' and 'selector'"},
	{"- {filter: add_route, sender: nobody}\n" END, "test:1:", "unknown sender 'nobody'"},
	{"- {filter: exploder, rcpt_timeout: -1}\n", "test:1:", "rcpt_timeout"},
	{"- {filter: policy_action}\n" END, "test:1:", "tag"},
	{"{}\n", "test:1:", "list of filters"},
	{"[]\n", "test:1:", "list of filters"},
};

static void
test_conf(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(conf_cases); i++) {
		const ConfCase *c = &conf_cases[i];
		Harness *h = harness_new();
		harness_endpoint(h, "gateway", URL, "router");
		harness_conf(h, c->chain);
		if (h->report->problems->len == 0)
			fail_msg("no problem: %s", c->chain);
		const ConfProblem *problem = g_ptr_array_index(h->report->problems, 0);
		if (strstr(problem->text, c->text) == NULL ||
		    !g_str_has_prefix(problem->where, c->where))
			fail_msg("%s: %s: %s", c->chain, problem->where, problem->text);
		harness_free(h);
	}
}

static void
test_registry(void **state)
{
	(void)state;
	for (const FilterKind *const *kind = filter_kinds(); *kind != NULL; kind++) {
		assert_ptr_equal(filter_kind((*kind)->name), *kind);
		assert_non_null((*kind)->doc);
		/* exploder_upstream is no part of any configuration */
		assert_int_equal((*kind)->example != NULL,
				 strcmp((*kind)->name, "exploder_upstream") != 0);
		assert_non_null((*kind)->update);
		for (const ConfKey *key = (*kind)->keys; key != NULL && key->name != NULL; key++)
			assert_non_null(key->doc);
	}
	assert_null(filter_kind("nothing"));
	assert_ptr_equal(filter_module("koukan.hello_filter"), filter_kind("hello"));
	assert_ptr_equal(filter_module("koukan.hello_filter:factory"), filter_kind("hello"));
	assert_null(filter_module("koukan.hello_filters"));
	assert_true(filter_policy_module_known("koukan.hello_policy"));
	assert_false(filter_policy_module_known("my.policy"));
	assert_true(filter_matcher_module_known("koukan.hello_matcher:match"));
	assert_false(filter_matcher_module_known("koukan.hello_matcher:other"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addr_list),
		cmocka_unit_test(test_router),
		cmocka_unit_test(test_mixed),
		cmocka_unit_test(test_two_destinations),
		cmocka_unit_test(test_two_destinations_later),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_conf),
		cmocka_unit_test(test_registry),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
