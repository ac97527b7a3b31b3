/* SPDX-License-Identifier: Apache-2.0 */
/* policy_action and match expressions, in chains with signals made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "filter/match.h"
#include "harness.h"

#define POLICY "koukan.policy_action_filter.PolicyActionFilter"
#define END    "- {filter: exploder}\n"

/* The chain is read from YAML; in front of it stands a filter that publishes a signal under the
 * name of the filter that would. */
static const char *signal_text; /* JSON, or NULL for none */
static unsigned signal_news;    /* with which news it comes */

static FilterResult
signal_update(Filter *filter, unsigned news)
{
	if ((news & signal_news) != 0 && signal_text != NULL)
		filter_set_output(filter, json_loads(signal_text, 0, NULL));
	return FILTER_CONTINUE;
}

static FilterKind signal_kind = {.name = "signal", .update = signal_update};

static Harness *
setup(const char *yaml)
{
	Harness *h = harness_new();
	harness_sender(h, "submission", NULL);
	harness_conf(h, yaml);
	for (guint i = 0; i < h->report->problems->len; i++) {
		const ConfProblem *problem = g_ptr_array_index(h->report->problems, i);
		if (problem->severity == CONF_ERROR)
			fail_msg("%s: %s", problem->where, problem->text);
	}
	return h;
}

static void
start_with_signal(Harness *h, const char *output_name)
{
	FilterConf *conf = g_new0(FilterConf, 1);
	signal_kind.output_name = output_name;
	conf->kind = &signal_kind;
	g_ptr_array_insert(h->conf->filters, 0, conf);
	harness_start(h);
}

static char *
outputs(Harness *h)
{
	const json_t *output = harness_output(h, POLICY);
	return output != NULL ? json_print(output) : g_strdup("-");
}

#define assert_output(h, want)                                                                     \
	do {                                                                                       \
		g_autofree char *got_ = outputs(h);                                                \
		assert_string_equal(got_, want);                                                   \
	} while (0)

/* ---- matchers ---- */

typedef enum Want { NO, YES, UNMET, FAULT } Want;

typedef struct MatchCase {
	const char *match;  /* flow YAML */
	const char *output; /* name of the signal, or NULL */
	const char *signal; /* JSON */
	Want want;
} MatchCase;

#define REMOTE   "koukan.remote_host_filter.RemoteHostFilter"
#define DNS      "koukan.mx_resolution.DnsResolutionFilter"
#define VALIDITY "koukan.message_validation_filter.MessageValidationFilter"
#define SPF      "koukan.spf_check_filter.SpfCheckFilter"
#define DKIM     "koukan.dkim_check_filter.DkimCheckFilter"

/* The transaction: from alice@example.com at 192.0.2.1, with TLS, without AUTH. */
static const MatchCase match_cases[] = {
	{"{matcher: network_address, cidr: 192.0.2.0/24}", NULL, NULL, YES},
	{"{matcher: network_address, cidr: 10.0.0.0/8}", NULL, NULL, NO},
	{"{matcher: network_address, cidr: '2001:db8::/32'}", NULL, NULL, NO},
	{"{matcher: smtp_tls}", NULL, NULL, YES},
	{"{matcher: smtp_auth}", NULL, NULL, NO},
	{"{matcher: address_list, domains: [example.com]}", NULL, NULL, YES},
	{"{matcher: address_list, domains: [example.com], prefixes: [bob]}", NULL, NULL, NO},
	{"{matcher: address_list, which_addr: header_from}", NULL, NULL, UNMET},
	{"{matcher: invalid_mail_from}", NULL, NULL, NO},
	/* expressions */
	{"{not: {matcher: smtp_tls}}", NULL, NULL, NO},
	{"{not: {matcher: smtp_auth}}", NULL, NULL, YES},
	{"{not: {matcher: " SPF "}}", NULL, NULL, UNMET},
	{"{any: []}", NULL, NULL, NO},
	{"{all: []}", NULL, NULL, YES},
	{"{any: [{matcher: smtp_auth}, {matcher: smtp_tls}]}", NULL, NULL, YES},
	{"{any: [{matcher: smtp_auth}, {matcher: smtp_auth}]}", NULL, NULL, NO},
	{"{any: [{matcher: smtp_tls}, {matcher: " SPF "}]}", NULL, NULL, YES},
	{"{any: [{matcher: " SPF "}, {matcher: smtp_tls}]}", NULL, NULL, UNMET},
	{"{any: [{matcher: smtp_auth}, {matcher: " SPF "}]}", NULL, NULL, UNMET},
	{"{all: [{matcher: smtp_tls}, {matcher: smtp_tls}]}", NULL, NULL, YES},
	{"{all: [{matcher: smtp_tls}, {matcher: smtp_auth}]}", NULL, NULL, NO},
	{"{all: [{matcher: smtp_auth}, {matcher: " SPF "}]}", NULL, NULL, NO},
	{"{all: [{matcher: " SPF "}, {matcher: smtp_auth}]}", NULL, NULL, UNMET},
	{"{all: [{matcher: smtp_tls}, {matcher: " SPF "}]}", NULL, NULL, UNMET},
	{"{not: {any: [{matcher: smtp_auth}, {not: {matcher: smtp_tls}}]}}", NULL, NULL, YES},
	/* names nobody knows */
	{"{matcher: some.other.Filter}", NULL, NULL, UNMET},
	{"{matcher: some.other.Filter, key: 1}", "some.other.Filter", "{}", NO},
	/* remote_host */
	{"{matcher: " REMOTE ", fcrdns: true}", NULL, NULL, UNMET},
	{"{matcher: " REMOTE ", fcrdns: true}", REMOTE, "{\"fcrdns\": true}", YES},
	{"{matcher: " REMOTE ", fcrdns: false}", REMOTE, "{\"fcrdns\": true}", NO},
	{"{matcher: " REMOTE ", fcrdns: true, ehlo_alignment: true}", REMOTE,
	 "{\"fcrdns\": true, \"ehlo_alignment\": false}", NO},
	{"{matcher: " REMOTE ", ehlo_alignment: false}", REMOTE,
	 "{\"fcrdns\": true, \"ehlo_alignment\": false}", YES},
	/* dns_resolution */
	{"{matcher: " DNS ", mail_result: NX}", DNS, "{\"mail_from_result\": 1}", YES},
	{"{matcher: " DNS ", mail_result: TEMP}", DNS, "{\"mail_from_result\": 1}", NO},
	{"{matcher: " DNS ", mail_result: OK}", DNS, "{\"mail_from_result\": 0}", YES},
	{"{matcher: " DNS ", resolution_result: NX}", DNS, "{\"mail_from_result\": 1}", UNMET},
	{"{matcher: " DNS ", mail_result: NX, resolution_result: TEMP}", DNS,
	 "{\"mail_from_result\": 1, \"resolution_result\": 2}", YES},
	/* message_validation */
	{"{matcher: " VALIDITY ", validity_threshold: HIGH}", VALIDITY, "{\"status\": 2}", YES},
	{"{matcher: " VALIDITY ", validity_threshold: MEDIUM}", VALIDITY, "{\"status\": 2}", NO},
	{"{matcher: " VALIDITY ", validity_threshold: NONE}", VALIDITY, "{\"status\": 0}", NO},
	{"{matcher: " VALIDITY ", max_received_headers: 2}", VALIDITY,
	 "{\"status\": 3, \"received_header_count\": 2}", NO},
	{"{matcher: " VALIDITY ", max_received_headers: 1}", VALIDITY,
	 "{\"status\": 3, \"received_header_count\": 2}", YES},
	{"{matcher: " VALIDITY ", max_received_headers: 1, validity_threshold: HIGH}", VALIDITY,
	 "{\"status\": 3, \"received_header_count\": 2}", NO},
	/* spf_check */
	{"{matcher: " SPF ", mail_from_result: pass}", SPF, "{\"mail_from_result\": 1}", YES},
	{"{matcher: " SPF ", mail_from_result: spf_pass}", SPF, "{\"mail_from_result\": 1}", YES},
	{"{matcher: " SPF ", mail_from_result: fail}", SPF, "{\"mail_from_result\": 1}", NO},
	{"{matcher: " SPF ", mail_from_result: temperror}", SPF, "{\"mail_from_result\": 0}", YES},
	{"{matcher: " SPF ", extra_domain: d, extra_domain_result: fail}", SPF,
	 "{\"mail_from_result\": 1, \"extra_domains_results\": {\"d\": 3}}", YES},
	{"{matcher: " SPF ", extra_domain: e, extra_domain_result: fail}", SPF,
	 "{\"mail_from_result\": 1, \"extra_domains_results\": {\"d\": 3}}", NO},
	/* dkim_check */
	{"{matcher: " DKIM "}", DKIM, "{\"results\": []}", NO},
	{"{matcher: " DKIM "}", DKIM, "{\"results\": [{\"status\": 1, \"alignment\": 1}]}", YES},
	{"{matcher: " DKIM ", alignment: domain}", DKIM,
	 "{\"results\": [{\"status\": 1, \"alignment\": 1}]}", NO},
	{"{matcher: " DKIM "}", DKIM, "{\"results\": [{\"status\": 0, \"alignment\": 0}]}", NO},
	{"{matcher: " DKIM ", status: fail, alignment: other}", DKIM,
	 "{\"results\": [{\"status\": 1, \"alignment\": 0}, {\"status\": 2, \"alignment\": 2}]}",
	 YES},
	{"{matcher: " DKIM ", domains: [b.example]}", DKIM,
	 "{\"results\": [{\"status\": 1, \"alignment\": 2, \"domain\": \"a.example\"},"
	 " {\"status\": 1, \"alignment\": 2, \"domain\": \"B.example\"}]}",
	 YES},
	{"{matcher: " DKIM ", domains: [c.example]}", DKIM,
	 "{\"results\": [{\"status\": 1, \"alignment\": 2, \"domain\": \"a.example\"}]}", NO},
};

static void
client(Harness *h)
{
	g_autoptr(HostPort) remote = host_port_new("192.0.2.1", 4000);
	g_autoptr(json_t) meta = json_pack("{s:b,s:n}", "tls", 1, "auth");
	tx_set_hosts(h->tx, remote, NULL);
	tx_set_smtp_meta(h->tx, meta);
}

/* Who has authenticated, from what the SMTP session says beyond the contract. */
static void
test_auth_users(void **state)
{
	(void)state;
	static const struct {
		const char *match, *meta;
		bool rejected;
	} cases[] = {
		{"{matcher: smtp_auth, users: [carol, bob]}",
		 "{\"auth\": true, \"auth_user\": \"bob\"}", true},
		{"{matcher: smtp_auth, users: [carol]}", "{\"auth\": true, \"auth_user\": \"bob\"}",
		 false},
		{"{matcher: smtp_auth, users: [Bob]}", "{\"auth\": true, \"auth_user\": \"bob\"}",
		 false},
		{"{matcher: smtp_auth, users: []}", "{\"auth\": true, \"auth_user\": \"bob\"}",
		 true},
		{"{matcher: smtp_auth, users: [bob]}", "{\"auth\": true}", false},
		{"{matcher: smtp_auth, users: [bob]}", "{\"auth\": null, \"auth_user\": \"bob\"}",
		 false},
		{"{matcher: smtp_auth, users: [bob]}", "{\"auth\": true, \"auth_user\": 5}", false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *chain = g_strdup_printf(
			"- {filter: policy_action, tag: t, match: %s, action: REJECT}\n" END,
			cases[i].match);
		Harness *h = setup(chain);
		harness_start(h);
		g_autoptr(json_t) meta = json_loads(cases[i].meta, 0, NULL);
		tx_set_smtp_meta(h->tx, meta);
		harness_mail(h, "alice@example.com");
		harness_turn(h);
		bool rejected = h->tx->mail_response != NULL && h->tx->mail_response->code == 550 &&
				strstr(h->tx->mail_response->message, "rejected t") != NULL;
		if (rejected != cases[i].rejected)
			fail_msg("%zu: %s", i, cases[i].match);
		harness_free(h);
	}
}

static void
check_match(const MatchCase *c)
{
	static const char *const wants[] = {
		[NO] = "{\"matched_tags\":[\"t\"],\"matched_rules\":[\"second\"]}",
		[YES] = "{\"matched_tags\":[\"t\"],\"matched_rules\":[\"first\"]}",
		[UNMET] = "-",
	};
	/* A second rule of the group shows whether the first one was unmet. */
	g_autofree char *yaml = g_strdup_printf(
		"- {filter: policy_action, tag: t, name: first, match: %s}\n"
		"- {filter: policy_action, tag: t, name: second}\n" END,
		c->match);
	Harness *h = setup(yaml);
	signal_text = c->signal;
	signal_news = TX_NEW_MAIL_FROM;
	if (c->output != NULL)
		start_with_signal(h, c->output);
	else
		harness_start(h);
	client(h);
	harness_mail(h, "alice@example.com");
	harness_turn(h);
	g_autofree char *got = outputs(h);
	if (strcmp(got, wants[c->want]) != 0)
		fail_msg("%s: %s", c->match, got);
	harness_free(h);
}

static void
test_matchers(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(match_cases); i++)
		check_match(&match_cases[i]);
}

/* The whole of three-valued logic: left to right, the first operand that is not neutral decides, be
 * it that it cannot be answered yet. */
static void
test_truth_table(void **state)
{
	(void)state;
	static const char *const operands[] = {
		[NO] = "{matcher: smtp_auth}",
		[YES] = "{matcher: smtp_tls}",
		[UNMET] = "{matcher: " SPF "}",
	};
	static const struct {
		Want a, b, any, all, not_a;
	} rows[] = {
		{NO, NO, NO, NO, YES},
		{NO, YES, YES, NO, YES},
		{NO, UNMET, UNMET, NO, YES},
		{YES, NO, YES, NO, NO},
		{YES, YES, YES, YES, NO},
		{YES, UNMET, YES, UNMET, NO},
		{UNMET, NO, UNMET, UNMET, UNMET},
		{UNMET, YES, UNMET, UNMET, UNMET},
		{UNMET, UNMET, UNMET, UNMET, UNMET},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		const char *a = operands[rows[i].a], *b = operands[rows[i].b];
		const struct {
			const char *form;
			Want want;
		} forms[] = {
			{"{any: [%s, %s]}", rows[i].any},
			{"{all: [%s, %s]}", rows[i].all},
			{"{not: {not: {any: [%s, %s]}}}", rows[i].any},
			/* De Morgan */
			{"{not: {all: [{not: %s}, {not: %s}]}}", rows[i].any},
			{"{not: {any: [{not: %s}, {not: %s}]}}", rows[i].all},
			{"{any: [{not: %s}, {all: [%s, {matcher: smtp_auth}]}]}",
			 rows[i].not_a == NO && rows[i].b == UNMET ? UNMET : rows[i].not_a},
		};
		for (size_t j = 0; j < G_N_ELEMENTS(forms); j++) {
			g_auto(GStrv) parts = g_strsplit(forms[j].form, "%s", 3);
			g_autofree char *match = g_strconcat(parts[0], a, parts[1], b, parts[2],
							     NULL);
			const MatchCase c = {match, NULL, NULL, forms[j].want};
			check_match(&c);
		}
	}
}

/* Facts about the client that never come: the chain fails rather than skip a rule. */
static void
test_faults(void **state)
{
	(void)state;
	static const char *const matches[] = {
		"{matcher: smtp_tls}",
		"{not: {matcher: smtp_auth}}",
		"{any: [{matcher: network_address, cidr: 10.0.0.0/8}, {matcher: smtp_tls}]}",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(matches); i++) {
		g_autofree char *yaml = g_strdup_printf(
			"- {filter: policy_action, tag: t, match: %s, action: LOG}\n" END,
			matches[i]);
		Harness *h = setup(yaml);
		harness_start(h);
		harness_mail(h, "alice@example.com");
		harness_turn(h);
		assert_response(h->tx->mail_response,
				"450 internal error: OutputHandler failed to populate response");
		harness_free(h);
	}
}

/* ---- matchers of a recipient ---- */

typedef struct RcptCase {
	const char *match, *rcpt;
	bool want;
} RcptCase;

static const RcptCase rcpt_cases[] = {
	{"{matcher: invalid_rcpt_to}", "bob", true},
	{"{matcher: invalid_rcpt_to}", "bob@example.com", false},
	{"{matcher: address_list, which_addr: rcpt_to, domains: [example.com]}", "x@example.com",
	 true},
	{"{matcher: address_list, which_addr: rcpt_to, domains: [example.com]}", "x@y", false},
	{"{matcher: num_rcpts, max_rcpts: 0}", "x@y", true},
	{"{matcher: num_rcpts, max_rcpts: 1}", "x@y", false},
	{"{matcher: " DNS ", rcpt_result: NX}", "x@y", false},
};

static void
test_rcpt_matchers(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(rcpt_cases); i++) {
		const RcptCase *c = &rcpt_cases[i];
		g_autofree char *yaml = g_strdup_printf(
			"- {filter: policy_action, tag: t, mode: PER_RCPT, action: REJECT, match: %s}\n" END,
			c->match);
		Harness *h = setup(yaml);
		harness_start(h);
		harness_mail(h, "alice@example.com");
		harness_rcpt(h, c->rcpt);
		harness_turn(h);
		assert_response(tx_rcpt(h->tx, 0)->response,
				c->want ? "550 5.6.0 message rejected t" : "-");
		harness_free(h);
	}
}

static void
test_dns_per_rcpt(void **state)
{
	(void)state;
	Harness *h = setup("- {filter: policy_action, tag: t, mode: PER_RCPT, action: REJECT,\n"
			   "   match: {matcher: " DNS ", rcpt_result: NX}}\n" END);
	signal_text = "{\"rcpt_to_result\": [0, 1, null]}";
	signal_news = TX_NEW_RCPT;
	start_with_signal(h, DNS);
	harness_mail(h, "alice@example.com");
	for (int i = 0; i < 4; i++)
		harness_rcpt(h, "x@y");
	harness_turn(h);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(tx_rcpt(h->tx, i)->response != NULL, i == 1);
	harness_free(h);
}

/* Accepted recipients count, those of the same update do not. */
static void
test_num_rcpts(void **state)
{
	(void)state;
	Harness *h = setup(
		"- {filter: policy_action, tag: max, mode: PER_RCPT, action: REJECT, code: 451,\n"
		"   message: 4.5.3 too many recipients, match: {matcher: num_rcpts, max_rcpts: 1}}\n" END);
	harness_start(h);
	harness_mail(h, "alice@example.com");
	harness_rcpt(h, "a@y");
	harness_rcpt(h, "b@y");
	harness_turn(h);
	assert_int_equal(h->opened->len, 2);
	for (guint i = 0; i < 2; i++) {
		Tx *tx = harness_port(h, i)->tx;
		tx_answer_mail(tx, response_new(250, NULL));
		tx_answer_rcpt(tx, 0, response_new(i == 0 ? 250 : 550, "answer"));
	}
	harness_turn(h);
	harness_rcpt(h, "c@y");
	/* Each one is refused on its own. */
	harness_rcpt(h, "d@y");
	harness_turn(h);
	assert_response(tx_rcpt(h->tx, 2)->response, "451 4.5.3 too many recipients");
	assert_response(tx_rcpt(h->tx, 3)->response, "451 4.5.3 too many recipients");
	harness_free(h);
}

/* ---- actions ---- */

static void
test_trivial(void **state)
{
	(void)state;
	Harness *h = setup("- {filter: policy_action, tag: t}\n"
			   "- {filter: policy_action, tag: t, name: never}\n"
			   "- {filter: policy_action, tag: u, action: LOG}\n"
			   "- {filter: policy_action, tag: u, name: next}\n"
			   "- {filter: policy_action, tag: u, name: never}\n" END);
	harness_start(h);
	harness_mail(h, "alice@example.com");
	harness_turn(h);
	assert_output(h,
		      "{\"matched_tags\":[\"t\",\"u\"],\"matched_rules\":[\"t\",\"u\",\"next\"]}");
	/* A new cycle: nothing is evaluated again. */
	const json_t *before = harness_output(h, POLICY);
	harness_rcpt(h, "bob@example.com");
	harness_turn(h);
	assert_ptr_equal(harness_output(h, POLICY), before);
	harness_free(h);
}

static void
test_reject(void **state)
{
	(void)state;
	static const struct {
		const char *keys, *want;
	} runs[] = {
		{"", "550 5.6.0 message rejected t"},
		{", name: rule", "550 5.6.0 message rejected rule"},
		{", code: 450, message: 4.7.1 later", "450 4.7.1 later"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *yaml = g_strdup_printf(
			"- {filter: policy_action, tag: t, action: REJECT%s}\n" END, runs[i].keys);
		Harness *h = setup(yaml);
		harness_start(h);
		harness_mail(h, "alice@example.com");
		harness_rcpt(h, "bob@example.com");
		harness_turn(h);
		assert_response(h->tx->mail_response, runs[i].want);
		assert_int_equal(h->opened->len, 0);
		harness_free(h);
	}
}

/* All at once, nothing answered yet: MAIL gets the answer, and what depends on it a 503 (spec 11.2,
 * 3.8).  Also `mode: tx` as the behaviour spec writes it. */
static void
test_reject_one_shot(void **state)
{
	(void)state;
	Harness *h = setup("- {filter: policy_action, tag: v, mode: tx, action: REJECT,\n"
			   "   match: {matcher: address_list, which_addr: header_from,\n"
			   "           domains: [example.com]}}\n" END);
	harness_start(h);
	harness_mail(h, "alice@other.test");
	harness_rcpt(h, "bob@example.com");
	harness_rcpt(h, "eve@example.com");
	harness_body(h, "From: Alice <alice@EXAMPLE.com>\r\n\r\nhi\r\n");
	harness_turn(h);
	assert_response(h->tx->mail_response, "550 5.6.0 message rejected v");
	for (size_t i = 0; i < 2; i++)
		assert_response(tx_rcpt(h->tx, i)->response, "503 5.5.1 failed precondition: MAIL");
	assert_response(h->tx->data_response, "503 5.5.1 failed precondition: all rcpts failed");
	assert_int_equal(h->opened->len, 0);
	harness_free(h);
}

/* The author's address, when there is exactly one. */
static void
test_header_from(void **state)
{
	(void)state;
	static const struct {
		const char *header;
		bool want;
	} runs[] = {
		{"From: a@example.com\r\n", true},
		{"From: \"x@other.test\" <a@Example.com>\r\n", true},
		{"From: a@sub.example.com\r\n", false},
		{"From: a@example.com, b@example.com\r\n", false},
		{"From: a@example.com\r\nFrom: a@example.com\r\n", false},
		{"Sender: a@example.com\r\n", false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Harness *h = setup("- {filter: policy_action, tag: t, name: first, match:\n"
				   "   {matcher: address_list, which_addr: header_from,\n"
				   "    domains: [example.com]}}\n" END);
		g_autofree char *message = g_strconcat(runs[i].header, "\r\nbody\r\n", NULL);
		harness_start(h);
		harness_mail(h, "alice@other.test");
		harness_rcpt(h, "bob@example.com");
		harness_body(h, message);
		harness_turn(h);
		if ((harness_output(h, POLICY) != NULL) != runs[i].want)
			fail_msg("%s", runs[i].header);
		harness_free(h);
	}
}

/* A signal that comes with the message: only the message is refused, and nobody gets it. */
static void
test_reject_body(void **state)
{
	(void)state;
	Harness *h = setup("- {filter: policy_action, tag: v, action: REJECT,\n"
			   "   match: {matcher: " VALIDITY ", validity_threshold: HIGH}}\n" END);
	signal_text = "{\"status\": 1}";
	signal_news = TX_NEW_BODY_FINAL;
	start_with_signal(h, VALIDITY);
	harness_mail(h, "alice@example.com");
	harness_rcpt(h, "bob@example.com");
	harness_turn(h);
	Tx *up = harness_port(h, 0)->tx;
	tx_answer_mail(up, response_new(250, NULL));
	tx_answer_rcpt(up, 0, response_new(250, NULL));
	harness_turn(h);
	harness_body(h, "x");
	harness_turn(h);
	assert_response(tx_rcpt(h->tx, 0)->response, "250 ok");
	assert_response(h->tx->data_response, "550 5.6.0 message rejected v");
	assert_null(up->body);
	harness_free(h);
}

/* An unmet rule keeps the later ones of its group from being evaluated in that cycle. */
static void
test_preconditions(void **state)
{
	(void)state;
	Harness *h = setup("- {filter: policy_action, tag: t, name: first, action: LOG,\n"
			   "   match: {matcher: " VALIDITY ", validity_threshold: HIGH}}\n"
			   "- {filter: policy_action, tag: t, name: second}\n"
			   "- {filter: policy_action, tag: u}\n" END);
	signal_text = "{\"status\": 1}";
	signal_news = TX_NEW_BODY_FINAL;
	start_with_signal(h, VALIDITY);
	harness_mail(h, "alice@example.com");
	harness_turn(h);
	assert_output(h, "{\"matched_tags\":[\"u\"],\"matched_rules\":[\"u\"]}");
	harness_body(h, "x");
	harness_turn(h);
	assert_output(
		h,
		"{\"matched_tags\":[\"u\",\"t\"],\"matched_rules\":[\"u\",\"first\",\"second\"]}");
	harness_free(h);
}

static void
test_per_rcpt_pipelining(void **state)
{
	(void)state;
	Harness *h = setup("- {filter: policy_action, tag: t, mode: PER_RCPT, action: REJECT,\n"
			   "   match: {matcher: invalid_rcpt_to}}\n"
			   "- {filter: policy_action, tag: u, match: {matcher: " POLICY
			   ", tag: t}}\n"
			   "- {filter: policy_action, tag: w, match: {matcher: " POLICY
			   ", rule: none}}\n" END);
	harness_start(h);
	harness_mail(h, "alice@example.com");
	harness_turn(h);
	assert_output(h, "-");
	harness_rcpt(h, "good@example.com");
	harness_turn(h);
	assert_output(h, "{\"matched_tags\":[],\"matched_rules\":[]}");
	harness_rcpt(h, "also.good@example.com");
	harness_rcpt(h, "bad");
	harness_rcpt(h, "worse");
	harness_turn(h);
	assert_output(h, "{\"matched_tags\":[\"t\",\"u\"],\"matched_rules\":[\"t\",\"u\"]}");
	assert_null(tx_rcpt(h->tx, 1)->response);
	assert_response(tx_rcpt(h->tx, 2)->response, "550 5.6.0 message rejected t");
	assert_response(tx_rcpt(h->tx, 3)->response, "550 5.6.0 message rejected t");
	harness_free(h);
}

/* Weights of any scale: 0 is never drawn, and both of two even ones are. */
static void
test_percent(void **state)
{
	(void)state;
	int matched = 0;
	for (int i = 0; i < 200; i++) {
		Harness *h = setup(
			"- {filter: policy_action, tag: t, action: [[0, REJECT], [7, LOG], [7.0, MATCH]]}\n" END);
		harness_start(h);
		harness_mail(h, "alice@example.com");
		harness_turn(h);
		assert_response(h->tx->mail_response, "250 MAIL ok (exploder noop)");
		const json_t *tags = json_object_get(harness_output(h, POLICY), "matched_tags");
		matched += json_array_size(tags) == 1;
		harness_free(h);
	}
	/* That 200 even draws fall on one side does not happen. */
	assert_in_range(matched, 1, 199);
}

static void
test_conf_errors(void **state)
{
	(void)state;
	static const struct {
		const char *keys, *text;
	} runs[] = {
		{"action: REJEKT", "did you mean REJECT?"},
		{"action: []", "at least one"},
		{"action: [[0.9: LOG]]", "[weight, action]"},
		{"action: [[0, LOG]]", "above 0"},
		{"action: [[-1, LOG], [2, LOG]]", "[weight, action]"},
		{"code: 250", "between"},
		{"mode: PER_RECIPIENT", "mode"},
		{"match: {matcher: num_rcpts, max_rcpts: 1}", "PER_RCPT"},
		{"match: {matcher: num_rcpts}, mode: PER_RCPT", "max_rcpts"},
		{"match: {matcher: network_address, cidr: 1.2.3/8}", "no network"},
		{"match: {matcher: network_adress, cidr: 1.2.3.0/8}",
		 "did you mean 'network_address'?"},
		{"match: {matcher: smtp_tls, tls: yes}", "tls"},
		{"match: {any: {matcher: smtp_tls}}", "want a list"},
		{"match: {any: [], all: []}", "a match expression is"},
		{"match: smtp_tls", "a match expression is"},
		{"match: {matcher: address_list, which_addr: rcpt_to}", "PER_RCPT"},
		{"match: {matcher: " DNS ", rcpt_result: NX}", "PER_RCPT"},
		{"match: {matcher: " VALIDITY "}", "is wanted"},
		{"match: {matcher: " SPF ", extra_domain: d}", "go together"},
		{"match: {matcher: " DKIM ", domains: [d], alignment: other}",
		 "exclude each other"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *yaml = g_strdup_printf(
			"- {filter: policy_action, tag: t, %s}\n" END, runs[i].keys);
		Harness *h = harness_new();
		harness_conf(h, yaml);
		if (h->report->problems->len == 0)
			fail_msg("no problem: %s", runs[i].keys);
		const ConfProblem *problem = g_ptr_array_index(h->report->problems, 0);
		if (strstr(problem->text, runs[i].text) == NULL)
			fail_msg("%s: %s", runs[i].keys, problem->text);
		harness_free(h);
	}
}

/* Nesting is bounded. */
static void
test_depth(void **state)
{
	(void)state;
	for (int depth = 31; depth <= 32; depth++) {
		g_autoptr(GString) yaml = g_string_new("- {filter: policy_action, tag: t, match: ");
		for (int i = 0; i < depth; i++)
			g_string_append(yaml, "{not: ");
		g_string_append(yaml, "{matcher: invalid_mail_from}");
		for (int i = 0; i < depth; i++)
			g_string_append(yaml, "}");
		g_string_append(yaml, "}\n" END);
		Harness *h = harness_new();
		harness_conf(h, yaml->str);
		assert_int_equal(h->report->errors > 0, depth == 32);
		harness_free(h);
	}
}

/* Names from `modules`. */
static void
test_aliases(void **state)
{
	(void)state;
	g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
	g_hash_table_insert(names, (gpointer) "mine", (gpointer) "koukan.hello_matcher:match");
	g_autoptr(GHashTable) filters = g_hash_table_new(g_str_hash, g_str_equal);
	g_hash_table_insert(filters, (gpointer) "noop", (gpointer) "koukan.hello_filter");
	const FilterModules modules = {.filters = filters, .policies = names, .matchers = names};
	Harness *h = harness_new();
	harness_sender(h, "submission", NULL);
	h->doc = yaml_load_text("test",
				"- {filter: noop}\n"
				"- {filter: router, policy: {name: mine}}\n"
				"- {filter: policy_action, tag: t, match: {matcher: mine}}\n" END,
				NULL);
	h->conf = chain_conf_new("test", yaml_root(h->doc), h->model, &modules, h->report);
	assert_int_equal(h->report->problems->len, 0);
	assert_true(h->conf->incremental);
	harness_start(h);
	harness_mail(h, "alice@example.com");
	harness_turn(h);
	assert_output(h, "{\"matched_tags\":[\"t\"],\"matched_rules\":[\"t\"]}");
	harness_free(h);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_matchers),      cmocka_unit_test(test_truth_table),
		cmocka_unit_test(test_auth_users),    cmocka_unit_test(test_faults),
		cmocka_unit_test(test_rcpt_matchers), cmocka_unit_test(test_dns_per_rcpt),
		cmocka_unit_test(test_num_rcpts),     cmocka_unit_test(test_trivial),
		cmocka_unit_test(test_reject),        cmocka_unit_test(test_reject_one_shot),
		cmocka_unit_test(test_header_from),   cmocka_unit_test(test_reject_body),
		cmocka_unit_test(test_preconditions), cmocka_unit_test(test_per_rcpt_pipelining),
		cmocka_unit_test(test_percent),       cmocka_unit_test(test_conf_errors),
		cmocka_unit_test(test_depth),         cmocka_unit_test(test_aliases),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
