/* SPDX-License-Identifier: Apache-2.0 */
/* The matchers beyond the behaviour spec: domains, users, size, header fields with their
 * expressions, rates, lists in the DNS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rates.h"
#include "filter/pattern.h"
#include "mime/mime.h"
#include "zone.h"

#define END      "- {filter: rest_output, static_endpoint: 'http://x/'}\n"
#define REJECTED "550 5.6.0 message rejected t"
#define FAULT    "450 internal error: OutputHandler failed to populate response"

static const Zone nothing[] = {{NULL, 0, 0, {NULL}}};

/* A chain with one rule that rejects. */
static Harness *
setup(const char *match, const char *mode, const Zone *zone)
{
	g_autofree char *yaml = g_strdup_printf(
		"- {filter: policy_action, tag: t, action: REJECT, mode: %s, match: %s}\n" END,
		mode, match);
	return zone_setup(yaml, zone);
}

/* The errors of a rule. */
static void
assert_conf_error(const char *match, const char *want)
{
	Harness *h = harness_new();
	g_autofree char *yaml = g_strdup_printf(
		"- filter: policy_action\n  tag: t\n  match: %s\n" END, match);
	g_autoptr(GString) text = g_string_new(NULL);
	harness_conf(h, yaml);
	conf_report_format(h->report, text);
	if (h->report->errors != 1 || strstr(text->str, want) == NULL)
		fail_msg("%s: wanted '%s': %s", match, want, text->str);
	harness_free(h);
}

static void
client(Harness *h, const char *ip, const char *user)
{
	g_autoptr(HostPort) remote = host_port_new(ip, 4000);
	g_autoptr(json_t) meta = user != NULL ? json_pack("{s:b,s:s}", "auth", 1, "auth_user", user)
					      : json_pack("{s:b}", "esmtp", 1);
	tx_set_hosts(h->tx, remote, NULL);
	tx_set_smtp_meta(h->tx, meta);
}

/* ---- domains ---- */

static void
test_domains(void **state)
{
	(void)state;
	static const struct {
		const char *keys, *addr;
		bool want;
	} runs[] = {
		{"domains: [example.com]", "a@example.com", true},
		{"domains: [Example.COM.]", "a@eXample.com", true},
		{"domains: [example.com]", "a@mail.example.com", false},
		{"domains: [example.com], subdomains: true", "a@mail.example.com", true},
		{"domains: [example.com], subdomains: true", "a@example.com", true},
		{"domains: [example.com], subdomains: true", "a@badexample.com", false},
		{"domains: [x.test, example.com]", "a@example.com", true},
		{"domains: [example.com]", "example.com", false},
		{"domains: [example.com]", "", false},
		{"domains: ['[192.0.2.1]']", "a@[192.0.2.1]", true},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *from = g_strdup_printf("{matcher: mail_from_domain, %s}",
							runs[i].keys);
		g_autofree char *to = g_strdup_printf("{matcher: rcpt_domain, %s}", runs[i].keys);
		Harness *h = setup(from, "TX", nothing);
		harness_mail(h, runs[i].addr);
		harness_turn(h);
		assert_response(h->tx->mail_response, runs[i].want ? REJECTED : "-");
		zone_teardown(h);
		h = setup(to, "PER_RCPT", nothing);
		harness_mail(h, "x@y.test");
		harness_rcpt(h, runs[i].addr);
		harness_turn(h);
		assert_response(tx_rcpt(h->tx, 0)->response, runs[i].want ? REJECTED : "-");
		zone_teardown(h);
	}
	assert_conf_error("{matcher: mail_from_domain}", "test:3:");
	assert_conf_error("{matcher: mail_from_domain, domains: []}", "at least one");
	assert_conf_error("{matcher: mail_from_domain, domains: [a@b]}", "is no domain");
	assert_conf_error("{matcher: mail_from_domain, domains: [.b]}", "is no domain");
	assert_conf_error("{matcher: rcpt_domain, domains: [b.test]}", "PER_RCPT");
}

/* ---- users ---- */

static void
test_users(void **state)
{
	(void)state;
	static const struct {
		const char *keys, *user, *from;
		bool want;
	} runs[] = {
		{"", "bob", "x@y.test", true},
		{"", NULL, "x@y.test", false},
		{", users: [bob, eve]", "eve", "x@y.test", true},
		{", users: [bob, eve]", "Eve", "x@y.test", false},
		{", users: [bob]", NULL, "x@y.test", false},
		{", is_sender: false", "a@b.test", "x@y.test", true},
		{", is_sender: false", "A@b.test", "a@B.test", false},
		{", is_sender: true", "a@b.test", "a@b.test", true},
		{", is_sender: false", NULL, "x@y.test", false},
		{", is_sender: ", "a@b.test", "x@y.test", true},
		{", is_sender: false, users: [c]", "a@b.test", "x@y.test", false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *match = g_strdup_printf("{matcher: authenticated_user%s}",
							 runs[i].keys);
		Harness *h = setup(match, "TX", nothing);
		client(h, "192.0.2.1", runs[i].user);
		harness_mail(h, runs[i].from);
		harness_turn(h);
		g_autofree char *got = harness_text(h->tx->mail_response);
		if ((strcmp(got, REJECTED) == 0) != runs[i].want)
			fail_msg("%zu: %s: %s", i, match, got);
		zone_teardown(h);
	}
	Harness *h = setup("{matcher: authenticated_user}", "TX", nothing);
	harness_mail(h, "x@y.test");
	harness_turn(h);
	assert_response(h->tx->mail_response, FAULT);
	zone_teardown(h);
}

/* ---- size ---- */

static Harness *
send_sized(const char *keys, const char *declared, size_t len)
{
	g_autofree char *match = g_strdup_printf("{matcher: size, %s}", keys);
	g_autofree char *text = g_strnfill(len, 'x');
	const EsmtpParam param = {.keyword = (char *)"size", .value = (char *)declared};
	g_autoptr(Mailbox) from = mailbox_new("a@b.test", &param, declared != NULL ? 1 : 0);
	Harness *h = setup(match, "TX", nothing);
	tx_set_mail_from(h->tx, from);
	harness_rcpt(h, "x@y.test");
	harness_turn(h);
	if (h->tx->mail_response == NULL) {
		Tx *up = harness_port(h, 0)->tx;
		tx_answer_mail(up, response_new(250, "ok"));
		tx_answer_rcpt(up, 0, response_new(250, "ok"));
		harness_turn(h);
		harness_body(h, text);
		harness_turn(h);
	}
	return h;
}

static void
test_size(void **state)
{
	(void)state;
	static const struct {
		const char *keys, *declared;
		size_t len;
		const char *mail, *data;
	} runs[] = {
		{"over: 100", NULL, 100, "250 ok", "-"},
		{"over: 100", NULL, 101, "250 ok", REJECTED},
		{"over: 100", "100", 100, "250 ok", "-"},
		{"over: 100", "101", 0, REJECTED, NULL},
		/* a lie spares nothing */
		{"over: 100", "5", 101, "250 ok", REJECTED},
		{"over: 100", "99999999999999999999", 101, "250 ok", REJECTED},
		{"over: 100", "x", 100, "250 ok", "-"},
		{"under: 100", "5", 100, "250 ok", "-"},
		{"under: 100", NULL, 99, "250 ok", REJECTED},
		{"over: 10, under: 20", "15", 20, "250 ok", "-"},
		{"over: 10, under: 20", NULL, 19, "250 ok", REJECTED},
		{"over: 1k", NULL, 1025, "250 ok", REJECTED},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Harness *h = send_sized(runs[i].keys, runs[i].declared, runs[i].len);
		assert_response(h->tx->mail_response, runs[i].mail);
		if (runs[i].data != NULL)
			assert_response(h->tx->data_response, runs[i].data);
		zone_teardown(h);
	}
	assert_conf_error("{matcher: size}", "is wanted");
	assert_conf_error("{matcher: size, over: lots}", "lots");
}

/* ---- header ---- */

/* What the rule says of a message: "550 ...", "450 ...", "-". */
static char *
judge(const char *keys, const char *message)
{
	g_autofree char *match = g_strdup_printf("{matcher: header, %s}", keys);
	Harness *h = setup(match, "TX", nothing);
	harness_mail(h, "a@b.test");
	harness_rcpt(h, "x@y.test");
	harness_body(h, message);
	harness_turn(h);
	char *got = harness_text(h->tx->mail_response);
	zone_teardown(h);
	return got;
}

static void
test_header(void **state)
{
	(void)state;
	static const char message[] = "Subject: =?utf-8?q?Caf=C3=A9?= for\r\n two\r\n"
				      "X-Spam: no\r\nX-Spam: YES\r\n: odd\r\n\r\nX-Body: here\r\n";
	static const struct {
		const char *keys;
		bool want;
	} runs[] = {
		{"name: Subject", true},
		{"name: sUBJECT", true},
		{"name: Subjec", false},
		{"name: X-Body", false},
		{"name: Subject, regex: '^Caf\xc3\xa9 for two$'", true},
		{"name: Subject, regex: '^Caf. for'", true},
		{"name: Subject, regex: '^cAf'", false},
		{"name: Subject, regex: '(?i)^cAf'", true},
		{"name: Subject, regex: '=C3', raw: true", true},
		{"name: Subject, regex: '=C3'", false},
		{"name: X-Spam, regex: '^YES$'", true}, /* the second one */
		{"name: X-Spam, regex: '^maybe$'", false},
		{"name: X-None, regex: ''", false},
		{"name: X-Spam, regex: ''", true},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *got = judge(runs[i].keys, message);
		if (strcmp(got, runs[i].want ? REJECTED : "-") != 0)
			fail_msg("%s: %s", runs[i].keys, got);
	}
	static const char *const odd[] = {"", "\r\n", "no header", "Subject", ":\r\n\r\n"};
	for (size_t i = 0; i < G_N_ELEMENTS(odd); i++) {
		g_autofree char *got = judge("name: Subject", odd[i]);
		assert_string_equal(got, "-");
	}
	assert_conf_error("{matcher: header}", "test:3:");
	assert_conf_error("{matcher: header, name: 'a b'}", "is no field name");
	assert_conf_error("{matcher: header, name: Subject, regex: 'a(b'}",
			  "test:3:50: error: the regular expression is wrong behind byte 3: "
			  "missing closing parenthesis");
	assert_conf_error("{matcher: header, name: Subject, regex: '\\C'}", "behind byte 2");
}

/* Of a name the first 50 fields, of a field the first 16 KiB. */
static void
test_header_caps(void **state)
{
	(void)state;
	for (unsigned n = 49; n <= 50; n++) {
		g_autoptr(GString) text = g_string_new(NULL);
		for (unsigned i = 0; i < n; i++)
			g_string_append(text, "X: a\r\n");
		g_string_append(text, "X: b\r\n\r\n");
		g_autofree char *got = judge("name: X, regex: b", text->str);
		assert_string_equal(got, n == 49 ? REJECTED : "-");
	}
	for (unsigned n = PATTERN_TEXT_MAX - 2; n <= PATTERN_TEXT_MAX - 1; n++) {
		g_autofree char *fill = g_strnfill(n, 'a');
		g_autofree char *text = g_strdup_printf("X: %sb\r\n\r\n", fill);
		g_autofree char *got = judge("name: X, regex: b", text);
		assert_string_equal(got, n == PATTERN_TEXT_MAX - 2 ? REJECTED : "-");
	}
}

/* An expression that a message can make endless is cut off, and the rule is not skipped for it. */
static void
test_header_bomb(void **state)
{
	(void)state;
	g_autofree char *fill = g_strnfill(5000, 'a');
	g_autofree char *text = g_strdup_printf("X: %s!\r\n\r\n", fill);
	g_autofree char *got = judge("name: X, regex: '^(a+)+$'", text);
	assert_string_equal(got, FAULT);
}

static void
test_pattern(void **state)
{
	(void)state;
	g_autofree char *fill = g_strnfill(2 * PATTERN_TEXT_MAX, 'a');
	static const struct {
		const char *pattern;
		size_t len;
		PatternResult want;
	} runs[] = {
		{"a", 1, PATTERN_YES},
		{"b", 1, PATTERN_NO},
		{"^(a|b)*$", PATTERN_TEXT_MAX, PATTERN_YES}, /* needs a step back for each byte */
		{"^a*$", 2 * PATTERN_TEXT_MAX, PATTERN_YES}, /* the rest is not looked at */
		{"(a+)+[!?]$", 60, PATTERN_LIMIT},
		{"(a|aa)+b", 60, PATTERN_NO}, /* there is no b: seen at once */
		{"(a|aa)+[b!]", 60, PATTERN_LIMIT},
		{"(?1)(a)", 10, PATTERN_YES},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		char *fault = NULL;
		size_t offset;
		Pattern *pattern = pattern_new(runs[i].pattern, &fault, &offset);
		if (pattern == NULL)
			fail_msg("%s: %s", runs[i].pattern, fault);
		PatternResult got = pattern_match(pattern, fill, runs[i].len);
		if (got != runs[i].want)
			fail_msg("%s: %d", runs[i].pattern, got);
		pattern_free(pattern);
	}
	for (const char *text = "x."; *text != '\0'; text++) {
		const char one[] = {*text, '\0'};
		char *fault = NULL;
		size_t offset;
		Pattern *pattern = pattern_new(one, &fault, &offset);
		assert_int_equal(pattern_match(pattern, "\xff", 1), PATTERN_NO);
		assert_int_equal(pattern_match(pattern, "\xffx", 2), PATTERN_YES);
		pattern_free(pattern);
	}
	for (size_t len = PATTERN_MAX; len <= PATTERN_MAX + 1; len++) {
		g_autofree char *fault = NULL;
		size_t offset;
		g_autofree char *text = g_strnfill(len, 'a');
		Pattern *pattern = pattern_new(text, &fault, &offset);
		assert_int_equal(pattern != NULL, len == PATTERN_MAX);
		pattern_free(pattern);
	}
}

/* ---- rate ---- */

typedef struct Sender {
	const char *ip, *user, *from, *to;
} Sender;

/* Whether one more message of that sender passes. */
static bool
passes(Rates *rates, const char *match, const char *mode, const Sender *s)
{
	Harness *h = setup(match, mode, nothing);
	h->env.rates = rates;
	client(h, s->ip, s->user);
	harness_mail(h, s->from);
	harness_turn(h);
	harness_rcpt(h, s->to);
	harness_turn(h);
	harness_body(h, "Subject: s\r\n\r\n");
	harness_turn(h);
	bool refused = h->tx->mail_response != NULL || tx_rcpt(h->tx, 0)->response != NULL;
	zone_teardown(h);
	return !refused;
}

/* Two pass and the third does not; `same` counts with `first`, `other` does not. */
static void
test_rate_keys(void **state)
{
	(void)state;
	static const struct {
		const char *keys, *mode;
		Sender first, same, other;
	} runs[] = {
		{"by: remote_address",
		 "TX",
		 {"192.0.2.1", NULL, "a@b.test", "x@y.test"},
		 {"192.0.2.1", "u", "c@d.test", "z@y.test"},
		 {"192.0.2.2", NULL, "a@b.test", "x@y.test"}},
		{"by: remote_address, ipv4_prefix: 23",
		 "TX",
		 {"192.0.2.1", NULL, "a@b.test", "x@y.test"},
		 {"192.0.3.255", NULL, "a@b.test", "x@y.test"},
		 {"192.0.4.1", NULL, "a@b.test", "x@y.test"}},
		{"by: remote_address",
		 "TX",
		 {"2001:db8::1", NULL, "a@b.test", "x@y.test"},
		 {"2001:db8::ffff", NULL, "a@b.test", "x@y.test"},
		 {"2001:db8:0:1::1", NULL, "a@b.test", "x@y.test"}},
		{"by: remote_address, ipv6_prefix: 128",
		 "TX",
		 {"2001:db8::1", NULL, "a@b.test", "x@y.test"},
		 {"2001:db8:0::1", NULL, "a@b.test", "x@y.test"},
		 {"2001:db8::2", NULL, "a@b.test", "x@y.test"}},
		{"by: mail_from",
		 "TX",
		 {"192.0.2.1", NULL, "A@b.test", "x@y.test"},
		 {"192.0.2.2", NULL, "a@B.test", "x@y.test"},
		 {"192.0.2.1", NULL, "c@b.test", "x@y.test"}},
		{"by: mail_from_domain",
		 "TX",
		 {"192.0.2.1", NULL, "a@b.test", "x@y.test"},
		 {"192.0.2.2", NULL, "c@B.test", "x@y.test"},
		 {"192.0.2.1", NULL, "a@c.b.test", "x@y.test"}},
		{"by: authenticated_user",
		 "TX",
		 {"192.0.2.1", "u", "a@b.test", "x@y.test"},
		 {"192.0.2.2", "u", "c@d.test", "x@y.test"},
		 {"192.0.2.1", NULL, "a@b.test", "x@y.test"}},
		{"by: rcpt_to",
		 "PER_RCPT",
		 {"192.0.2.1", NULL, "a@b.test", "x@y.test"},
		 {"192.0.2.2", NULL, "c@d.test", "X@y.test"},
		 {"192.0.2.1", NULL, "a@b.test", "z@y.test"}},
		{"by: rcpt_domain",
		 "PER_RCPT",
		 {"192.0.2.1", NULL, "a@b.test", "x@y.test"},
		 {"192.0.2.2", NULL, "c@d.test", "z@y.test"},
		 {"192.0.2.1", NULL, "a@b.test", "x@z.test"}},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *match = g_strdup_printf(
			"{matcher: rate, window: 86400, count: 2, %s}", runs[i].keys);
		Rates *rates = rates_new(1000);
		clock_test_begin(INT64_C(100000) * 86400 * USEC_PER_SEC, 0);
		const bool got[] = {
			passes(rates, match, runs[i].mode, &runs[i].first),
			passes(rates, match, runs[i].mode, &runs[i].same),
			!passes(rates, match, runs[i].mode, &runs[i].first),
			!passes(rates, match, runs[i].mode, &runs[i].same),
			passes(rates, match, runs[i].mode, &runs[i].other),
		};
		clock_test_advance(INT64_C(2) * 86400 * USEC_PER_SEC);
		bool later = passes(rates, match, runs[i].mode, &runs[i].first);
		clock_test_end();
		for (size_t j = 0; j < G_N_ELEMENTS(got); j++)
			if (!got[j])
				fail_msg("%s: step %zu", runs[i].keys, j);
		assert_true(later);
		rates_free(rates);
	}
}

/* Names are shared, other limits are apart; without a table there is no limit; a client that nobody
 * knows is no reason to skip the rule. */
static void
test_rate_names(void **state)
{
	(void)state;
	const Sender s = {"192.0.2.1", NULL, "a@b.test", "x@y.test"};
	static const char one[] = "{matcher: rate, by: mail_from, window: 60, count: 1, name: n}";
	static const char two[] = "{matcher: rate, by: mail_from, window: 60, count: 2}";
	static const char named[] = "{matcher: rate, by: mail_from, window: 60, count: 2, name: n}";
	Rates *rates = rates_new(1000);
	assert_true(passes(rates, one, "TX", &s));
	assert_false(passes(rates, one, "TX", &s));
	assert_true(passes(rates, two, "TX", &s));
	assert_true(passes(rates, named, "TX", &s));
	assert_false(passes(rates, named, "TX", &s));
	assert_true(passes(NULL, one, "TX", &s));
	Harness *h = setup("{matcher: rate, by: remote_address, window: 60, count: 1}", "TX",
			   nothing);
	h->env.rates = rates;
	harness_mail(h, "a@b.test");
	harness_turn(h);
	assert_response(h->tx->mail_response, FAULT);
	zone_teardown(h);
	rates_free(rates);
	assert_conf_error("{matcher: rate, by: rcpt_to, window: 60, count: 1}", "PER_RCPT");
	assert_conf_error("{matcher: rate, by: mail_from, window: 0, count: 1}", "between");
	assert_conf_error("{matcher: rate, by: moon, window: 60, count: 1}", "moon");
}

/* ---- dnsbl ---- */

#define ZEN  "zen.list.example"
#define LAST "10.last.example"

static const Zone lists[] = {
	{"1.2.0.192." ZEN, DNS_A, DNS_OK, {"127.0.0.2", "127.0.0.10"}},
	{"1.2.0.192." LAST, DNS_A, DNS_OK, {"127.0.0.4"}},
	{"2.2.0.192." ZEN, DNS_A, DNS_TEMP, {NULL}},
	{"2.2.0.192." LAST, DNS_A, DNS_OK, {"127.0.0.4"}},
	{"3.2.0.192." ZEN, DNS_A, DNS_OK, {"203.0.113.9"}},     /* somebody else's now */
	{"4.2.0.192." ZEN, DNS_A, DNS_OK, {"127.255.255.254"}}, /* does not serve us */
	{"5.2.0.192." ZEN, DNS_TXT, DNS_OK, {"text alone"}},
	{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2." ZEN,
	 DNS_A,
	 DNS_OK,
	 {"127.0.0.3"}},
	{NULL, 0, 0, {NULL}},
};

static void
test_dnsbl(void **state)
{
	(void)state;
	static const struct {
		const char *ip, *keys, *output;
		char want; /* yes, no, unknown */
	} runs[] = {
		{"192.0.2.1", "",
		 "{\"listed\":{\"" ZEN "\":[\"127.0.0.2\",\"127.0.0.10\"],\"" LAST
		 "\":[\"127.0.0.4\"]},\"unknown\":[]}",
		 'y'},
		{"192.0.2.1", ", lists: 2", NULL, 'y'},
		{"192.0.2.1", ", lists: 3", NULL, 'n'},
		{"192.0.2.1", ", codes: [127.0.0.10]", NULL, 'y'},
		{"192.0.2.1", ", codes: [127.0.0.4/31]", NULL, 'y'},
		{"192.0.2.1", ", codes: [127.0.0.4/31], zones: [" ZEN "]", NULL, 'n'},
		{"192.0.2.1", ", codes: [127.0.0.11]", NULL, 'n'},
		{"192.0.2.1", ", zones: [ZEN.list.example]", NULL, 'y'},
		{"192.0.2.1", ", zones: [other.example]", NULL, 'n'},
		{"192.0.2.2", "",
		 "{\"listed\":{\"" LAST "\":[\"127.0.0.4\"]},\"unknown\":[\"" ZEN "\"]}", 'y'},
		{"192.0.2.2", ", zones: [" ZEN "]", NULL, 'u'},
		{"192.0.2.2", ", zones: [" LAST "]", NULL, 'y'},
		{"192.0.2.2", ", lists: 2", NULL, 'u'},
		{"192.0.2.2", ", lists: 3", NULL, 'n'},
		{"192.0.2.3", "", "{\"listed\":{},\"unknown\":[]}", 'n'},
		{"192.0.2.4", "", "{\"listed\":{},\"unknown\":[\"" ZEN "\"]}", 'u'},
		{"192.0.2.5", "", "{\"listed\":{},\"unknown\":[]}", 'n'},
		{"192.0.2.6", "", "{\"listed\":{},\"unknown\":[]}", 'n'},
		{"2001:db8::1", "", "{\"listed\":{\"" ZEN "\":[\"127.0.0.3\"]},\"unknown\":[]}",
		 'y'},
		{"2001:db8::2", "", "{\"listed\":{},\"unknown\":[]}", 'n'},
		{"::ffff:192.0.2.1", ", lists: 2", NULL, 'y'},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *yaml = g_strdup_printf(
			"- {filter: dnsbl_check, zones: [Zen.list.example, " LAST "]}\n"
			"- {filter: policy_action, tag: t, name: yes, match: {matcher: dnsbl%s}}\n"
			"- {filter: policy_action, tag: t, name: no}\n" END,
			runs[i].keys);
		Harness *h = zone_setup(yaml, lists);
		client(h, runs[i].ip, NULL);
		harness_mail(h, "a@b.test");
		harness_turn(h);
		g_autofree char *output = json_print(harness_output(h, "dnsbl"));
		if (runs[i].output != NULL)
			assert_string_equal(output, runs[i].output);
		assert_int_equal(zone_dns.asked, 2);
		const json_t *policy = harness_output(
			h, "koukan.policy_action_filter.PolicyActionFilter");
		const char *rule = json_string_value(
			json_array_get(json_object_get(policy, "matched_rules"), 0));
		if ((rule != NULL ? rule[0] : 'u') != runs[i].want)
			fail_msg("%s%s: %s", runs[i].ip, runs[i].keys, rule);
		zone_teardown(h);
	}
	/* nobody to ask about: no output */
	Harness *h = zone_setup("- {filter: dnsbl_check, zones: [" ZEN "]}\n" END, lists);
	harness_mail(h, "a@b.test");
	harness_turn(h);
	assert_null(harness_output(h, "dnsbl"));
	assert_int_equal(h->opened->len, 1);
	zone_teardown(h);
	assert_conf_error("{matcher: dnsbl, codes: [x]}", "is no IPv4 address");
	assert_conf_error("{matcher: dnsbl, codes: ['::1']}", "is no IPv4 address");
	assert_conf_error("{matcher: dnsbl, lists: 0}", "between");
}

/* A resolver that never answers: the chain waits, and is let go in the middle of it. */
static void
test_dnsbl_silence(void **state)
{
	(void)state;
	Harness *h = zone_setup("- {filter: dnsbl_check, zones: [" ZEN "]}\n" END, lists);
	zone_dns.silent = true;
	client(h, "192.0.2.1", NULL);
	harness_mail(h, "a@b.test");
	harness_turn(h);
	assert_int_equal(zone_dns.open, 1);
	assert_int_equal(h->opened->len, 0);
	zone_teardown(h);
}

static void
test_dnsbl_conf(void **state)
{
	(void)state;
	for (unsigned n = 0; n <= 21; n++) {
		g_autoptr(GString) yaml = g_string_new("- {filter: dnsbl_check, zones: [");
		for (unsigned i = 0; i < n; i++)
			g_string_append_printf(yaml, "z%u.example, ", i);
		g_string_append(yaml, "]}\n" END);
		Harness *h = harness_new();
		harness_conf(h, yaml->str);
		assert_int_equal(h->report->errors, n == 0 || n == 21);
		harness_free(h);
	}
	Harness *h = harness_new();
	harness_conf(h, "- {filter: dnsbl_check, zones: [a b]}\n" END);
	assert_int_equal(h->report->errors, 1);
	harness_free(h);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_domains),       cmocka_unit_test(test_users),
		cmocka_unit_test(test_size),          cmocka_unit_test(test_header),
		cmocka_unit_test(test_header_caps),   cmocka_unit_test(test_header_bomb),
		cmocka_unit_test(test_pattern),       cmocka_unit_test(test_rate_keys),
		cmocka_unit_test(test_rate_names),    cmocka_unit_test(test_dnsbl),
		cmocka_unit_test(test_dnsbl_silence), cmocka_unit_test(test_dnsbl_conf),
	};
	mime_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
