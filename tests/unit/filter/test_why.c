/* SPDX-License-Identifier: Apache-2.0 */
/* What a chain keeps of its decisions: how much of it, and what it says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "filter/why_int.h"
#include "zone.h"

/* ---- bounds ---- */

static void
note(Why *why, guint filter, size_t len)
{
	char *text = g_malloc(len + 1);
	memset(text, 'x', len);
	text[len] = '\0';
	why_note(why, filter, text);
}

static const WhyRule rule = {.tag = "tag", .name = "rule"};

static void
decide(Why *why, guint filter, uint32_t rcpt)
{
	why_rule_begin(why, filter);
	why_rule_end(why, filter, &rule, WHY_YES, "REJECT", rcpt);
}

static void
test_entries(void **state)
{
	(void)state;
	Why *why = why_new(2);
	for (int i = 0; i < WHY_ENTRIES_MAX; i++)
		note(why, 0, 3);
	assert_int_equal(why->entries->len, WHY_ENTRIES_MAX);
	assert_int_equal(why->filters[0].lost, 0);
	note(why, 0, 3);
	assert_int_equal(why->entries->len, WHY_ENTRIES_MAX);
	assert_int_equal(why->filters[0].lost, 1);
	/* Decisions have places of their own, other filters too. */
	for (uint32_t i = 0; i < WHY_DECISIONS_MAX; i++)
		decide(why, 0, i);
	assert_int_equal(why->entries->len, WHY_ENTRIES_MAX + WHY_DECISIONS_MAX);
	decide(why, 0, WHY_DECISIONS_MAX);
	assert_int_equal(why->entries->len, WHY_ENTRIES_MAX + WHY_DECISIONS_MAX);
	assert_int_equal(why->filters[0].lost, 2);
	note(why, 1, 3);
	assert_int_equal(why->filters[1].lost, 0);
	why_free(why);
	why_free(NULL);
}

static const char *
last_text(const Why *why)
{
	return g_array_index(why->entries, WhyEntry, why->entries->len - 1).text;
}

static void
test_texts(void **state)
{
	(void)state;
	Why *why = why_new(WHY_BYTES_MAX / WHY_TEXT_MAX / WHY_ENTRIES_MAX + 2);
	note(why, 0, WHY_TEXT_MAX);
	assert_int_equal(strlen(last_text(why)), WHY_TEXT_MAX);
	assert_null(strchr(last_text(why), '.'));
	note(why, 0, WHY_TEXT_MAX + 1);
	assert_int_equal(strlen(last_text(why)), WHY_TEXT_MAX);
	assert_true(g_str_has_suffix(last_text(why), "xxx..."));
	for (guint i = 0; i < why->n_filters * WHY_ENTRIES_MAX; i++)
		note(why, i / WHY_ENTRIES_MAX, WHY_TEXT_MAX);
	assert_int_equal(why->bytes, WHY_BYTES_MAX);
	size_t sum = 0;
	for (guint i = 0; i < why->entries->len; i++)
		sum += strlen(g_array_index(why->entries, WhyEntry, i).text);
	assert_int_equal(sum, WHY_BYTES_MAX);
	why_free(why);
}

static void
test_dns_records(void **state)
{
	(void)state;
	for (guint count = WHY_RECORDS_MAX; count <= WHY_RECORDS_MAX + 1; count++) {
		Why *why = why_new(1);
		DnsAnswer answer = {.status = DNS_OK};
		for (guint i = 0; i < count; i++)
			dns_record_add(&answer, "mx.example.", (uint16_t)i);
		why_dns(why, 0, "example", DNS_MX, &answer, 5);
		const WhyEntry *entry = &g_array_index(why->entries, WhyEntry, 0);
		assert_int_equal(entry->records->len, WHY_RECORDS_MAX * strlen("0 mx.example.~"));
		assert_int_equal(entry->lost, count - WHY_RECORDS_MAX);
		assert_string_equal(entry->records->str, "0 mx.example.");
		dns_answer_clear(&answer);
		why_free(why);
	}
}

static void
test_same_again(void **state)
{
	(void)state;
	Why *why = why_new(1);
	const int matchers[2] = {0};
	static const struct {
		int matcher;
		WhyResult one, result;
		uint32_t rcpt;
		guint want; /* entries afterwards */
	} runs[] = {
		{0, WHY_UNMET, WHY_UNMET, 0, 2}, {0, WHY_UNMET, WHY_UNMET, 0, 2},
		{1, WHY_UNMET, WHY_UNMET, 0, 4}, /* something else decided */
		{1, WHY_NO, WHY_NO, 0, 6},       {1, WHY_NO, WHY_NO, 0, 6},
		{1, WHY_NO, WHY_NO, 1, 8}, /* for somebody else */
		{1, WHY_NO, WHY_NO, 0, 8},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		why_rule_begin(why, 0);
		why_matcher(why, 0, &matchers[runs[i].matcher], runs[i].one, NULL,
			    g_strdup("seen"));
		why_rule_end(why, 0, &rule, runs[i].result, NULL, runs[i].rcpt);
		assert_int_equal(why->entries->len, runs[i].want);
		assert_int_equal(why->filters[0].places[WHY_PLAIN], runs[i].want);
		assert_int_equal(why->bytes, runs[i].want / 2 * strlen("seen"));
	}
	why_free(why);
}

/* ---- what a chain says ---- */

#define CHAIN                                                                                      \
	"- {filter: remote_host}\n"                                                                \
	"- {filter: spf_check}\n"                                                                  \
	"- {filter: dkim_check}\n"                                                                 \
	"- {filter: dmarc_check}\n"                                                                \
	"- filter: policy_action\n"                                                                \
	"  tag: spoof\n"                                                                           \
	"  name: no-spoof\n"                                                                       \
	"  match: {all: [{matcher: dmarc, result: fail}, {not: {matcher: smtp_tls}}]}\n"           \
	"  action: REJECT\n"                                                                       \
	"  message: 5.7.1 spoofed\n"                                                               \
	"- {filter: rest_output, static_endpoint: 'http://x/'}\n"

static const Zone zone[] = {
	{"1.2.0.192.in-addr.arpa", DNS_PTR, DNS_OK, {"mail.spoofer.example."}},
	{"bank.example", DNS_TXT, DNS_OK, {"v=spf1 ip4:198.51.100.0/24 -all"}},
	{"_dmarc.bank.example", DNS_TXT, DNS_OK, {"v=DMARC1; p=reject"}},
	{NULL, 0, 0, {NULL}},
};

static Harness *
spoof(bool explain)
{
	Harness *h = zone_setup(CHAIN, zone);
	chain_free(h->chain);
	h->env.explain = explain;
	harness_start(h);
	g_autoptr(HostPort) remote = host_port_new("192.0.2.1", 4000);
	g_autoptr(json_t) meta = json_pack("{s:s, s:b}", "ehlo_host", "mail", "tls", 0);
	tx_set_hosts(h->tx, remote, NULL);
	tx_set_smtp_meta(h->tx, meta);
	harness_mail(h, "ceo@bank.example");
	harness_rcpt(h, "alice@example.com");
	harness_turn(h);
	tx_answer_mail(harness_port(h, 0)->tx, response_new(250, "ok"));
	tx_answer_rcpt(harness_port(h, 0)->tx, 0, response_new(250, "ok"));
	harness_turn(h);
	harness_body(h, "From: ceo@bank.example\r\n\r\nbody\r\n");
	harness_turn(h);
	assert_response(h->tx->data_response, "550 5.7.1 spoofed");
	return h;
}

/* The member at "filters.3.notes.0", as text. */
static char *
at(json_t *json, const char *path)
{
	g_auto(GStrv) keys = g_strsplit(path, ".", -1);
	for (char **key = keys; *key != NULL && json != NULL; key++)
		json = json_is_array(json)
			       ? json_array_get(json, (size_t)g_ascii_strtoull(*key, NULL, 10))
			       : json_object_get(json, *key);
	return json == NULL           ? g_strdup("-")
	       : json_is_string(json) ? g_strdup(json_string_value(json))
				      : json_print(json);
}

static void
test_spoof(void **state)
{
	(void)state;
	static const struct {
		const char *path, *want;
	} cases[] = {
		{"chain", "test"},
		{"outcome", "rejected"},
		{"decided.rule", "no-spoof"},
		{"decided.where", "test:5:3"},
		{"decided.filter", "policy_action"},
		{"decided.step", "5"},
		{"decided.to", "DATA"},
		{"decided.code", "550"},
		{"envelope.remote", "192.0.2.1"},
		{"envelope.mail_from", "ceo@bank.example"},
		{"envelope.rcpt_to", "[\"alice@example.com\"]"},
		{"answers.data.message", "5.7.1 spoofed"},
		{"filters.0.saw", "[\"MAIL\",\"RCPT\",\"body\",\"end of body\"]"},
		{"filters.0.dns.0.name", "1.2.0.192.in-addr.arpa"},
		{"filters.0.dns.0.type", "PTR"},
		{"filters.0.dns.0.records", "[\"mail.spoofer.example.\"]"},
		{"filters.0.dns.1.name", "mail.spoofer.example"}, /* asked in a callback */
		{"filters.0.dns.1.status", "NXDOMAIN"},
		{"filters.0.dns.2.type", "AAAA"},
		{"filters.1.notes.0", "fail for bank.example: -all"},
		{"filters.1.dns.0.records", "[\"v=spf1 ip4:198.51.100.0/24 -all\"]"},
		{"filters.1.output.mail_from_result", "3"},
		{"filters.1.left", "continue"},
		{"filters.2.notes", "[\"no signature\"]"},
		{"filters.3.dns.0.name", "_dmarc.bank.example"},
		{"filters.4.left", "stop"},
		{"filters.4.rules.0.rule", "no-spoof"},
		{"filters.4.rules.0.tag", "spoof"},
		{"filters.4.rules.0.result", "yes"},
		{"filters.4.rules.0.action", "REJECT"},
		{"filters.4.rules.0.rcpt", "-"},
		{"filters.4.rules.1", "-"}, /* what it came to before is not shown */
		{"filters.4.rules.0.matchers.0.matcher", "dmarc"},
		{"filters.4.rules.0.matchers.0.wants", "result: fail"},
		{"filters.4.rules.0.matchers.0.saw", "result: fail, policy: reject"},
		{"filters.4.rules.0.matchers.0.result", "yes"},
		{"filters.4.rules.0.matchers.1.matcher", "smtp_tls"},
		{"filters.4.rules.0.matchers.1.result", "no"},
		{"filters.4.answers.0.to", "[\"DATA\"]"},
		{"filters.5.answers.1.to", "[\"RCPT 1\"]"},
		{"filters.5.left", "continue"},
		{"filters.5.saw", "[\"MAIL\",\"RCPT\"]"},
		{"filters.5.more", "-"},
		{"shortened", "-"},
	};
	Harness *h = spoof(true);
	g_autoptr(json_t) why = chain_why(h->chain, WHY_ALL);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *got = at(why, cases[i].path);
		if (strcmp(got, cases[i].want) != 0)
			fail_msg("%s: %s, not %s", cases[i].path, got, cases[i].want);
	}
	assert_true(why_is_problem(h->tx));
	zone_teardown(h);
}

static void
test_shorter(void **state)
{
	(void)state;
	Harness *h = spoof(true);
	g_autoptr(json_t) decisions = chain_why(h->chain, WHY_DECISIONS);
	g_autoptr(json_t) verdict = chain_why(h->chain, WHY_VERDICT);
	g_autofree char *filters = at(decisions, "filters.0.filter");
	g_autofree char *rule_name = at(decisions, "filters.0.rules.0.rule");
	g_autofree char *decided = at(verdict, "decided.rule");
	assert_int_equal(json_array_size(json_object_get(decisions, "filters")), 1);
	assert_string_equal(filters, "policy_action");
	assert_string_equal(rule_name, "no-spoof");
	assert_string_equal(decided, "no-spoof");
	assert_int_equal(json_array_size(json_object_get(verdict, "filters")), 0);
	assert_true(json_is_true(json_object_get(verdict, "shortened")));
	zone_teardown(h);
}

static void
test_off(void **state)
{
	(void)state;
	Harness *h = spoof(false);
	assert_null(chain_why(h->chain, WHY_ALL));
	assert_null(zone_dns.tap);
	zone_teardown(h);
}

/* ---- recipients ---- */

static void
test_recipients(void **state)
{
	(void)state;
	for (unsigned rcpts = 1; rcpts <= WHY_RCPTS_MAX + 1; rcpts++) {
		Harness *h = harness_new();
		harness_sender(h, "submission", NULL);
		h->env.explain = true;
		harness_chain(h, "- filter: policy_action\n"
				 "  tag: t\n"
				 "  mode: PER_RCPT\n"
				 "  match: {matcher: address_list, which_addr: rcpt_to, "
				 "domains: [bad.example]}\n"
				 "  action: REJECT\n"
				 "- {filter: exploder}\n");
		harness_mail(h, "a@example.com");
		harness_rcpt(h, "ok@example.com");
		for (unsigned i = 1; i < rcpts; i++)
			harness_rcpt(h, "no@bad.example");
		harness_turn(h);
		g_autoptr(json_t) why = chain_why(h->chain, WHY_ALL);
		const json_t *envelope = json_object_get(why, "envelope");
		assert_int_equal(json_array_size(json_object_get(envelope, "rcpt_to")),
				 MIN(rcpts, WHY_RCPTS_MAX));
		assert_int_equal(json_integer_value(json_object_get(envelope, "rcpts")), rcpts);
		if (rcpts > 2) {
			g_autofree char *first = at(why, "filters.0.answers.0.to");
			g_autofree char *second = at(why, "filters.0.answers.1.to");
			g_autofree char *saw = at(why, "filters.0.rules.0.matchers.0.saw");
			g_autofree char *decided = at(why, "decided.to");
			assert_string_equal(first, "[\"RCPT 2\"]");
			assert_string_equal(second, "[\"RCPT 3\"]");
			assert_string_equal(saw, "ok@example.com");
			assert_string_equal(decided, "RCPT 2");
		}
		assert_int_equal(why_is_problem(h->tx), rcpts > 1);
		harness_free(h);
	}
}

/* All recipients are refused: as many as there are places for are named, and the message too. */
static void
test_failures(void **state)
{
	(void)state;
	for (unsigned rcpts = WHY_FAILURES_MAX; rcpts <= WHY_FAILURES_MAX + 1; rcpts++) {
		Harness *h = harness_new();
		h->env.explain = true;
		harness_chain(h, "- {filter: policy_action, tag: t, action: REJECT}\n"
				 "- {filter: rest_output, static_endpoint: 'http://x/'}\n");
		for (unsigned i = 0; i < rcpts; i++)
			harness_rcpt(h, "x@example.com");
		harness_body(h, "body\r\n");
		harness_mail(h, "a@example.com");
		harness_turn(h);
		g_autoptr(json_t) why = chain_why(h->chain, WHY_ALL);
		g_autofree char *more = at(why, "filters.0.more");
		const json_t *filters = json_object_get(why, "filters");
		const json_t *answers = json_object_get(json_array_get(filters, 0), "answers");
		size_t named = 0;
		for (size_t i = 0; i < json_array_size(answers); i++)
			named += json_array_size(json_object_get(json_array_get(answers, i), "to"));
		assert_int_equal(named, WHY_FAILURES_MAX + 2); /* with MAIL and DATA */
		assert_string_equal(more, rcpts > WHY_FAILURES_MAX ? "1" : "-");
		g_autofree char *decided = at(why, "decided.to");
		assert_string_equal(decided, "MAIL");
		harness_free(h);
	}
}

/* A thousand recipients, one by one as SMTP does: what decides about the message is kept. */
static void
test_flood(void **state)
{
	(void)state;
	Harness *h = harness_new();
	harness_sender(h, "submission", NULL);
	h->env.explain = true;
	harness_chain(h, "- filter: policy_action\n"
			 "  tag: t\n"
			 "  name: late\n"
			 "  match: {matcher: address_list, which_addr: header_from, "
			 "domains: [bad.example]}\n"
			 "  action: REJECT\n"
			 "- {filter: exploder}\n");
	harness_mail(h, "a@example.com");
	for (int i = 0; i < 1000; i++) {
		harness_rcpt(h, "x@example.com");
		harness_turn(h);
		tx_answer_rcpt(h->tx, (size_t)i, response_new(250, "ok"));
	}
	harness_body(h, "From: a@bad.example\r\n\r\nbody\r\n");
	harness_turn(h);
	g_autoptr(json_t) why = chain_why(h->chain, WHY_ALL);
	g_autofree char *decided = at(why, "decided.rule");
	g_autofree char *text = json_print(why);
	assert_string_equal(decided, "late");
	assert_true(strlen(text) < 64 * 1024);
	harness_free(h);
}

/* ---- outcomes ---- */

static void
test_outcomes(void **state)
{
	(void)state;
	static const struct {
		int mail, one, two, data; /* codes; 0: no answer */
		const char *want;
		bool problem;
	} cases[] = {
		{250, 250, 250, 250, "accepted", false}, {250, 250, 250, 550, "rejected", true},
		{250, 250, 250, 450, "deferred", true},  {550, 0, 0, 0, "rejected", true},
		{450, 0, 0, 0, "deferred", true},        {250, 250, 550, 250, "partial", true},
		{250, 550, 550, 0, "rejected", true},    {250, 550, 450, 0, "deferred", true},
		{250, 250, 250, 0, "unanswered", false}, {0, 0, 0, 0, "unanswered", false},
		{250, 550, 0, 0, "unanswered", true},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		Harness *h = harness_new();
		harness_sender(h, "submission", NULL);
		h->env.explain = true;
		harness_chain(h, "- {filter: exploder}\n");
		harness_rcpt(h, "one@example.com");
		harness_rcpt(h, "two@example.com");
		if (cases[i].mail != 0)
			tx_answer_mail(h->tx, response_new(cases[i].mail, "text"));
		if (cases[i].one != 0)
			tx_answer_rcpt(h->tx, 0, response_new(cases[i].one, "text"));
		if (cases[i].two != 0)
			tx_answer_rcpt(h->tx, 1, response_new(cases[i].two, "text"));
		if (cases[i].data != 0)
			tx_answer_data(h->tx, response_new(cases[i].data, "text"));
		g_autoptr(json_t) why = chain_why(h->chain, WHY_ALL);
		g_autofree char *got = at(why, "outcome");
		if (strcmp(got, cases[i].want) != 0 || why_is_problem(h->tx) != cases[i].problem)
			fail_msg("%zu: %s", i, got);
		chain_free(h->chain);
		h->chain = NULL;
		harness_turn(h);
		harness_free(h);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries),     cmocka_unit_test(test_texts),
		cmocka_unit_test(test_dns_records), cmocka_unit_test(test_same_again),
		cmocka_unit_test(test_spoof),       cmocka_unit_test(test_shorter),
		cmocka_unit_test(test_off),         cmocka_unit_test(test_recipients),
		cmocka_unit_test(test_flood),       cmocka_unit_test(test_failures),
		cmocka_unit_test(test_outcomes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
