/* SPDX-License-Identifier: Apache-2.0 */
/* SPF evaluation: grammar, macros, limits at and one past. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <string.h>

#include "mailauth/spf.h"
#include "mailauth/spf_int.h"
#include "stub_dns.h"

#define LABEL63 "a23456789012345678901234567890123456789012345678901234567890123"

typedef struct Asked {
	unsigned questions;
	char *explanation, *reason;
} Asked;

static SpfResult
check(const StubRow *zone, const SpfParams *params, Asked *ret_asked)
{
	Spf *spf = spf_new(params);
	const char *name;
	DnsType type;
	Asked asked = {0};
	while (spf_next(spf, &name, &type)) {
		DnsAnswer answer = {0};
		assert_true(++asked.questions < 200);
		stub_answer(zone, name, type, &answer);
		spf_answer(spf, &answer);
		dns_answer_clear(&answer);
	}
	SpfResult result = spf_result(spf);
	assert_true(spf_lookups(spf) <= SPF_LOOKUPS_MAX);
	asked.explanation = g_strdup(spf_explanation(spf));
	asked.reason = g_strdup(spf_reason(spf));
	spf_free(spf);
	*ret_asked = asked;
	return result;
}

static void
asked_clear(Asked *asked)
{
	g_free(asked->explanation);
	g_free(asked->reason);
}

static SpfResult
check_record(const char *record, const char *ip, Asked *ret_asked)
{
	const StubRow zone[] = {
		{"p.test", DNS_TXT, DNS_OK, {record}},
		{"p.test", DNS_A, DNS_OK, {"192.0.2.1", "192.0.2.200"}},
		{"p.test", DNS_AAAA, DNS_OK, {"2001:db8::1"}},
		{"p.test", DNS_MX, DNS_OK, {"10 mx.p.test.", "20 v6.p.test."}},
		{"mx.p.test", DNS_A, DNS_OK, {"192.0.2.25"}},
		{"v6.p.test", DNS_AAAA, DNS_OK, {"2001:db8::25"}},
		{"temp.test", DNS_A, DNS_TEMP, {NULL}},
		{"temp.test", DNS_MX, DNS_TEMP, {NULL}},
		{"temp.test", DNS_TXT, DNS_TEMP, {NULL}},
		{"pass.test", DNS_TXT, DNS_OK, {"v=spf1 +all"}},
		{"fail.test", DNS_TXT, DNS_OK, {"v=spf1 -all exp=why.test"}},
		{"none.test", DNS_TXT, DNS_OK, {"something else"}},
		{"bad.test", DNS_TXT, DNS_OK, {"v=spf1 what"}},
		{"two.test", DNS_TXT, DNS_OK, {"v=spf1 +all", "V=SPF1 -all"}},
		{"a.b", DNS_A, DNS_OK, {"127.0.0.2"}},
		{"why.test", DNS_TXT, DNS_OK, {"%{i} is not %{d}'s%_%%_%-"}},
		{"client.test", DNS_TXT, DNS_OK, {"%{c} %{r} %{t} %{p}"}},
		{"syntax.test", DNS_TXT, DNS_OK, {"%{z}"}},
		{"nonascii.test", DNS_TXT, DNS_OK, {"\xc3\xa9"}},
		{"1.2.0.192.in-addr.arpa", DNS_PTR, DNS_OK, {"host.p.test.", "other.test."}},
		{"host.p.test", DNS_A, DNS_OK, {"192.0.2.1"}},
		{"other.test", DNS_A, DNS_OK, {"192.0.2.99"}},
		{"1.2.0.192.in-addr._spf.p.test", DNS_A, DNS_OK, {"127.0.0.2"}},
		{"user.x.p.test", DNS_A, DNS_OK, {"127.0.0.2"}},
		{"x-user.p.test", DNS_A, DNS_OK, {"127.0.0.2"}},
		{"helo.p.test.h.test", DNS_A, DNS_OK, {"127.0.0.2"}},
		{NULL, 0, 0, {NULL}},
	};
	const SpfParams params = {
		.ip = ip,
		.helo = "helo.p.test",
		.mail_from = "user-x@p.test",
		.receiver = "mx.us.test",
		.now = 1234,
	};
	return check(zone, &params, ret_asked);
}

#define V4 "192.0.2.1"
#define V6 "2001:db8::1"

static const struct {
	const char *record, *ip;
	SpfResult want;
} records[] = {
	{"v=spf1", V4, SPF_NEUTRAL},
	{"v=spf10 -all", V4, SPF_NONE},
	{"v=spf1-all", V4, SPF_NONE},
	{"v=spf1  -all  ", V4, SPF_FAIL},
	{"v=spf1\t-all", V4, SPF_NONE},
	{"v=spf1 +all", V4, SPF_PASS},
	{"v=spf1 ALL", V4, SPF_PASS},
	{"v=spf1 ~all", V4, SPF_SOFTFAIL},
	{"v=spf1 ?all", V4, SPF_NEUTRAL},
	{"v=spf1 all.", V4, SPF_PERMERROR},
	{"v=spf1 all:x.test", V4, SPF_PERMERROR},
	{"v=spf1 all/8", V4, SPF_PERMERROR},
	{"v=spf1 -all what", V4, SPF_PERMERROR},
	{"v=spf1 ip4:192.0.2.1", V4, SPF_PASS},
	{"v=spf1 ip4:192.0.2.2", V4, SPF_NEUTRAL},
	{"v=spf1 ip4:192.0.2.2", V6, SPF_NEUTRAL},
	{"v=spf1 ip4:192.0.2.129/25 -all", V4, SPF_FAIL},
	{"v=spf1 ip4:192.0.2.127/25 -all", V4, SPF_PASS},
	{"v=spf1 ip4:1.1.1.1/0", V4, SPF_PASS},
	{"v=spf1 ip4:192.0.2.1/32", V4, SPF_PASS},
	{"v=spf1 ip4:192.0.2.1/33", V4, SPF_PERMERROR},
	{"v=spf1 ip4:192.0.2.1/032", V4, SPF_PERMERROR},
	{"v=spf1 ip4:192.0.2.1/", V4, SPF_PERMERROR},
	{"v=spf1 ip4:192.0.2.1//32", V4, SPF_PERMERROR},
	{"v=spf1 ip4:192.0.2", V4, SPF_PERMERROR},
	{"v=spf1 ip4:192.0.2.1:25", V4, SPF_PERMERROR},
	{"v=spf1 ip4", V4, SPF_PERMERROR},
	{"v=spf1 ip4:", V4, SPF_PERMERROR},
	{"v=spf1 ip4:2001:db8::1", V6, SPF_PERMERROR},
	{"v=spf1 ip4:192.0.2.1", "::ffff:192.0.2.1", SPF_PASS},
	{"v=spf1 ip6:::1.1.1.1/0", "::ffff:192.0.2.1", SPF_NEUTRAL},
	{"v=spf1 ip6:2001:db8::/32 -all", V6, SPF_PASS},
	{"v=spf1 ip6:2001:db8::2/126 -all", V6, SPF_PASS},
	{"v=spf1 ip6:2001:db8::2/127 -all", V6, SPF_FAIL},
	{"v=spf1 ip6:2001:db8::1/128", V6, SPF_PASS},
	{"v=spf1 ip6:::1/129", V6, SPF_PERMERROR},
	{"v=spf1 ip6:::1//33", V6, SPF_PERMERROR},
	{"v=spf1 ip6:::1.1.1.1::/0", V6, SPF_PERMERROR},
	{"v=spf1 ip6", V6, SPF_PERMERROR},
	{"v=spf1 a", V4, SPF_PASS},
	{"v=spf1 a", V6, SPF_PASS},
	{"v=spf1 a", "192.0.2.2", SPF_NEUTRAL},
	{"v=spf1 a/24", "192.0.2.2", SPF_PASS},
	{"v=spf1 a/24//64", "2001:db8::99", SPF_PASS},
	{"v=spf1 a//64", "192.0.2.2", SPF_NEUTRAL},
	{"v=spf1 a//129", V4, SPF_PERMERROR},
	{"v=spf1 a/33", V4, SPF_PERMERROR},
	{"v=spf1 a:", V4, SPF_PERMERROR},
	{"v=spf1 a:museum", V4, SPF_PERMERROR},
	{"v=spf1 a:p.test", V4, SPF_PASS},
	{"v=spf1 a:p.test.", V4, SPF_PASS},
	{"v=spf1 a:p.test:25", V4, SPF_PERMERROR},
	{"v=spf1 a:p.123", V4, SPF_PERMERROR},
	{"v=spf1 a:p.t-t", V4, SPF_NEUTRAL},
	{"v=spf1 a:p.-t", V4, SPF_PERMERROR},
	{"v=spf1 a:no.test", V4, SPF_NEUTRAL},
	{"v=spf1 a:temp.test -all", V4, SPF_TEMPERROR},
	{"v=spf1 a:" LABEL63 ".test -all", V4, SPF_FAIL},
	{"v=spf1 a:x" LABEL63 ".test -all", V4, SPF_FAIL},
	{"v=spf1 mx", "192.0.2.25", SPF_PASS},
	{"v=spf1 mx", "2001:db8::25", SPF_PASS},
	{"v=spf1 mx -all", V4, SPF_FAIL},
	{"v=spf1 mx/24 -all", V4, SPF_PASS},
	{"v=spf1 mx:temp.test -all", V4, SPF_TEMPERROR},
	{"v=spf1 exists:a.b", V4, SPF_PASS},
	{"v=spf1 exists:a.b", V6, SPF_PASS},
	{"v=spf1 exists:v6.p.test", V6, SPF_NEUTRAL}, /* always A */
	{"v=spf1 exists", V4, SPF_PERMERROR},
	{"v=spf1 exists:", V4, SPF_PERMERROR},
	{"v=spf1 exists:a.b/24", V4, SPF_PERMERROR},
	{"v=spf1 ptr", V4, SPF_PASS},
	{"v=spf1 ptr:test", V4, SPF_PERMERROR},
	{"v=spf1 ptr:other.test", V4, SPF_NEUTRAL}, /* does not lead back */
	{"v=spf1 ptr", "192.0.2.9", SPF_NEUTRAL},
	{"v=spf1 include:pass.test -all", V4, SPF_PASS},
	{"v=spf1 ~include:pass.test -all", V4, SPF_SOFTFAIL},
	{"v=spf1 include:fail.test ?all", V4, SPF_NEUTRAL},
	{"v=spf1 include:none.test ?all", V4, SPF_PERMERROR},
	{"v=spf1 include:no.test ?all", V4, SPF_PERMERROR},
	{"v=spf1 include:bad.test ?all", V4, SPF_PERMERROR},
	{"v=spf1 include:two.test ?all", V4, SPF_PERMERROR},
	{"v=spf1 include:temp.test ?all", V4, SPF_TEMPERROR},
	{"v=spf1 include ?all", V4, SPF_PERMERROR},
	{"v=spf1 redirect=pass.test", V4, SPF_PASS},
	{"v=spf1 redirect=pass.test -all", V4, SPF_FAIL},
	{"v=spf1 redirect=none.test", V4, SPF_PERMERROR},
	{"v=spf1 redirect=temp.test", V4, SPF_TEMPERROR},
	{"v=spf1 redirect=", V4, SPF_PERMERROR},
	{"v=spf1 redirect=pass.test redirect=pass.test", V4, SPF_PERMERROR},
	{"v=spf1 redirect:pass.test", V4, SPF_PERMERROR},
	{"v=spf1 +redirect=pass.test", V4, SPF_PERMERROR},
	{"v=spf1 exp=why.test exp=why.test", V4, SPF_PERMERROR},
	{"v=spf1 exp= -all", V4, SPF_PERMERROR},
	{"v=spf1 moo.cow-far_out=man:dog/cat +all", V4, SPF_PASS},
	{"v=spf1 moo= +all", V4, SPF_PASS},
	{"v=spf1 =moo +all", V4, SPF_PERMERROR},
	{"v=spf1 1moo=x +all", V4, SPF_PERMERROR},
	{"v=spf1 moo=%x +all", V4, SPF_PERMERROR},
	{"v=spf1 moo=%{x} +all", V4, SPF_PERMERROR},
	{"v=spf1 moo=%{c} +all", V4, SPF_PERMERROR}, /* only in explanations */
	{"v=spf1 moo=%{d0} +all", V4, SPF_PERMERROR},
	{"v=spf1 moo=%{d +all", V4, SPF_PERMERROR},
	{"v=spf1 moo=% +all", V4, SPF_PERMERROR},
	{"v=spf1 moo=%{d1r.-} +all", V4, SPF_PASS},
	{"v=spf1 moo=%{d1r*} +all", V4, SPF_PERMERROR},
	{"v=spf1 moo=\xc3\xa9 +all", V4, SPF_PERMERROR},
	{"v=spf1 exists:%{ir}.%{v}._spf.%{d} -all", V4, SPF_PASS},
	{"v=spf1 exists:%{l-}.%{d} -all", V4, SPF_PASS},
	{"v=spf1 exists:%{lr-}.%{d} -all", V4, SPF_FAIL},
	{"v=spf1 exists:%{h}.h.test -all", V4, SPF_PASS},
	{"v=spf1 a:%{p} -all", V4, SPF_PASS},
	{"v=spf1 a:%{o2} -all", V4, SPF_PASS},
	{"v=spf1 a:%{d}%_ -all", V4, SPF_FAIL},
};

static void
test_records(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(records); i++) {
		Asked asked;
		SpfResult got = check_record(records[i].record, records[i].ip, &asked);
		if (got != records[i].want)
			fail_msg("%s: %s (%s)", records[i].record, spf_result_name(got),
				 asked.reason);
		asked_clear(&asked);
	}
}

static const struct {
	const char *record;
	const char *want; /* NULL: none */
} explanations[] = {
	{"v=spf1 -all", NULL},
	{"v=spf1 -all exp=why.test", "192.0.2.1 is not p.test's %_%20"},
	{"v=spf1 exp=why.test -all", "192.0.2.1 is not p.test's %_%20"},
	{"v=spf1 -all exp=client.test", "192.0.2.1 mx.us.test 1234 host.p.test"},
	{"v=spf1 -all exp=syntax.test", NULL},
	{"v=spf1 -all exp=nonascii.test", NULL},
	{"v=spf1 -all exp=none.such.test", NULL},
	{"v=spf1 -all exp=temp.test", NULL},
	{"v=spf1 -all exp=two.test", NULL},
	{"v=spf1 exp=client.test redirect=fail.test", "192.0.2.1 is not fail.test's %_%20"},
	{"v=spf1 include:fail.test -all", NULL},
};

static void
test_explanations(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(explanations); i++) {
		Asked asked;
		SpfResult got = check_record(explanations[i].record, V4, &asked);
		assert_int_equal(got, SPF_FAIL);
		if (g_strcmp0(asked.explanation, explanations[i].want) != 0)
			fail_msg("%s: %s", explanations[i].record, asked.explanation);
		asked_clear(&asked);
	}
}

/* Examples of RFC 7208 7.4. */
static void
test_macros(void **state)
{
	(void)state;
	static const uint8_t ip4[4] = {192, 0, 2, 3};
	static const uint8_t ip6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 0xcb, [14] = 0x01};
	SpfMacros m = {
		.sender = "strong-bad@email.example.com",
		.local = "strong-bad",
		.sender_domain = "email.example.com",
		.domain = "email.example.com",
		.helo = "h",
		.receiver = "r",
		.client_name = "mx.example.org",
		.ip = ip4,
	};
	static const struct {
		const char *spec, *want;
	} runs[] = {
		{"%{s}", "strong-bad@email.example.com"},
		{"%{o}", "email.example.com"},
		{"%{d4}", "email.example.com"},
		{"%{d3}", "email.example.com"},
		{"%{d2}", "example.com"},
		{"%{d1}", "com"},
		{"%{dr}", "com.example.email"},
		{"%{d2r}", "example.email"},
		{"%{l}", "strong-bad"},
		{"%{l-}", "strong.bad"},
		{"%{lr}", "strong-bad"},
		{"%{lr-}", "bad.strong"},
		{"%{l1r-}", "strong"},
		{"%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"},
		{"%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"},
		{"%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}",
		 "3.2.0.192.in-addr.strong.lp._spf.example.com"},
		{"%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"},
		{"%{S}", "strong-bad%40email.example.com"},
		{"%{d}.", "email.example.com"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *got = spf_macro_domain(runs[i].spec, strlen(runs[i].spec), &m);
		assert_string_equal(got, runs[i].want);
	}
	m.ip = ip6;
	m.v6 = true;
	const char *spec = "%{ir}.%{v}._spf.%{d2}";
	g_autofree char *v6 = spf_macro_domain(spec, strlen(spec), &m);
	assert_string_equal(v6, "b.c.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2."
				"ip6._spf.example.com");
}

/* Over 253 bytes whole labels go from the left. */
static void
test_truncation(void **state)
{
	(void)state;
	g_autoptr(GString) domain = g_string_new(NULL);
	for (int i = 0; i < 24; i++)
		g_string_append_printf(domain, "label-%03d.", i);
	g_string_append(domain, "example.com"); /* 251 */
	SpfMacros m = {.sender = "",
		       .local = "xy",
		       .sender_domain = "",
		       .domain = domain->str,
		       .helo = "",
		       .receiver = "",
		       .client_name = "",
		       .ip = (const uint8_t *)"abcd"};
	g_autofree char *whole = spf_macro_domain("%{d}", 4, &m);
	assert_string_equal(whole, domain->str);
	g_autofree char *cut = spf_macro_domain("%{l}.%{d}", 9, &m); /* 254 */
	assert_string_equal(cut, domain->str);
	g_autoptr(GString) spec = g_string_new(NULL);
	for (int i = 0; i < 2000; i++)
		g_string_append(spec, "%{d}.");
	g_string_append(spec, "%{d}");
	g_autofree char *huge = spf_macro_domain(spec->str, spec->len, &m);
	assert_string_equal(huge, domain->str);
}

/* ---- limits ---- */

/* `n` terms of that form, then -all. */
static SpfResult
many(const char *term, unsigned n, const StubRow *more, Asked *ret_asked)
{
	g_autoptr(GString) record = g_string_new("v=spf1");
	for (unsigned i = 0; i < n; i++)
		g_string_append_printf(record, " %s", term);
	g_string_append(record, " -all");
	StubRow zone[20] = {{"p.test", DNS_TXT, DNS_OK, {record->str}}};
	for (unsigned i = 0; more[i].name != NULL; i++)
		zone[i + 1] = more[i];
	const SpfParams params = {.ip = V4, .helo = "h.test", .mail_from = "u@p.test"};
	return check(zone, &params, ret_asked);
}

static void
test_lookups(void **state)
{
	(void)state;
	static const StubRow more[] = {
		{"a.test", DNS_A, DNS_OK, {"192.0.2.77"}},
		{"a.test", DNS_MX, DNS_OK, {"1 a.test."}},
		{"a.test", DNS_TXT, DNS_OK, {"v=spf1 ?all"}},
		{"1.2.0.192.in-addr.arpa", DNS_PTR, DNS_OK, {"a.test."}},
		{NULL, 0, 0, {NULL}},
	};
	static const struct {
		const char *term;
		SpfResult at, past;
		unsigned questions; /* at the limit, the policy itself aside */
	} runs[] = {
		{"a:a.test", SPF_FAIL, SPF_PERMERROR, 10},
		{"mx:a.test", SPF_FAIL, SPF_PERMERROR, 20},
		{"include:a.test", SPF_FAIL, SPF_PERMERROR, 10},
		{"ptr:a.test", SPF_FAIL, SPF_PERMERROR, 2},
		{"ip4:192.0.2.2", SPF_FAIL, SPF_FAIL, 0},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Asked asked;
		assert_int_equal(many(runs[i].term, 10, more, &asked), runs[i].at);
		assert_int_equal(asked.questions, 1 + runs[i].questions);
		asked_clear(&asked);
		assert_int_equal(many(runs[i].term, 11, more, &asked), runs[i].past);
		asked_clear(&asked);
	}
}

static void
test_loops(void **state)
{
	(void)state;
	static const StubRow zone[] = {
		{"i.test", DNS_TXT, DNS_OK, {"v=spf1 include:i.test -all"}},
		{"r.test", DNS_TXT, DNS_OK, {"v=spf1 redirect=r.test"}},
		{"ir.test", DNS_TXT, DNS_OK, {"v=spf1 include:ri.test -all"}},
		{"ri.test", DNS_TXT, DNS_OK, {"v=spf1 redirect=ir.test"}},
		{NULL, 0, 0, {NULL}},
	};
	static const char *const senders[] = {"u@i.test", "u@r.test", "u@ir.test"};
	for (size_t i = 0; i < G_N_ELEMENTS(senders); i++) {
		const SpfParams params = {.ip = V4, .helo = "h.test", .mail_from = senders[i]};
		Asked asked;
		assert_int_equal(check(zone, &params, &asked), SPF_PERMERROR);
		assert_int_equal(asked.questions, 11);
		asked_clear(&asked);
	}
}

static void
test_voids(void **state)
{
	(void)state;
	static const StubRow more[] = {
		{"mx.test", DNS_MX, DNS_OK, {"1 no1.test.", "1 no2.test.", "1 no3.test."}},
		{"v6.test", DNS_MX, DNS_OK, {"1 a6.test.", "1 b6.test.", "1 c6.test."}},
		{"a6.test", DNS_AAAA, DNS_OK, {"2001:db8::1"}},
		{"b6.test", DNS_AAAA, DNS_OK, {"2001:db8::1"}},
		{"c6.test", DNS_AAAA, DNS_OK, {"2001:db8::1"}},
		{"e.test", DNS_MX, DNS_OK, {"1 x.test."}},
		{NULL, 0, 0, {NULL}},
	};
	static const struct {
		const char *term;
		SpfResult at, past;
	} runs[] = {
		{"a:no.test", SPF_FAIL, SPF_PERMERROR},
		{"a:e.test", SPF_FAIL, SPF_PERMERROR}, /* the name exists */
		{"mx:no.test", SPF_FAIL, SPF_PERMERROR},
		{"exists:no.test", SPF_FAIL, SPF_PERMERROR},
		{"mx:mx.test", SPF_FAIL, SPF_PERMERROR}, /* none of its hosts exists */
		{"mx:v6.test", SPF_FAIL, SPF_FAIL},      /* hosts of the other family do */
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Asked asked;
		assert_int_equal(many(runs[i].term, 2, more, &asked), runs[i].at);
		asked_clear(&asked);
		assert_int_equal(many(runs[i].term, 3, more, &asked), runs[i].past);
		asked_clear(&asked);
	}
}

/* Ten hosts of an MX are looked up, eleven are refused; of eleven names of the client the first
 * ten count. */
static void
test_hosts(void **state)
{
	(void)state;
#define TEN(x) x "0", x "1", x "2", x "3", x "4", x "5", x "6", x "7", x "8", x "9"
	static const StubRow zone[] = {
		{"ten.test", DNS_TXT, DNS_OK, {"v=spf1 mx -all"}},
		{"ten.test", DNS_MX, DNS_OK, {TEN("1 h")}},
		{"eleven.test", DNS_TXT, DNS_OK, {"v=spf1 mx -all"}},
		{"eleven.test", DNS_MX, DNS_OK, {TEN("1 h"), "1 hx"}},
		{"h9", DNS_A, DNS_OK, {V4}},
		{"p9.test", DNS_TXT, DNS_OK, {"v=spf1 ptr -all"}},
		{"px.test", DNS_TXT, DNS_OK, {"v=spf1 ptr -all"}},
		{"1.2.0.192.in-addr.arpa",
		 DNS_PTR,
		 DNS_OK,
		 {"p0.test", "p1.test", "p2.test", "p3.test", "p4.test", "p5.test", "p6.test",
		  "p7.test", "p8.test", "p9.test", "px.test"}},
		{"p9.test", DNS_A, DNS_OK, {V4}},
		{"px.test", DNS_A, DNS_OK, {V4}},
		{NULL, 0, 0, {NULL}},
	};
	static const struct {
		const char *sender;
		SpfResult want;
		unsigned questions;
	} runs[] = {
		{"u@ten.test", SPF_PASS, 12},
		{"u@eleven.test", SPF_PERMERROR, 2},
		{"u@p9.test", SPF_PASS, 12},
		{"u@px.test", SPF_FAIL, 12},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		const SpfParams params = {.ip = V4, .helo = "h.test", .mail_from = runs[i].sender};
		Asked asked;
		assert_int_equal(check(zone, &params, &asked), runs[i].want);
		assert_int_equal(asked.questions, runs[i].questions);
		asked_clear(&asked);
	}
}

static SpfResult
record_of_size(size_t size)
{
	g_autoptr(GString) record = g_string_new("v=spf1 -all x=");
	while (record->len < size)
		g_string_append_c(record, 'y');
	Asked asked;
	SpfResult result = check_record(record->str, V4, &asked);
	asked_clear(&asked);
	return result;
}

static void
test_sizes(void **state)
{
	(void)state;
	assert_int_equal(record_of_size(SPF_RECORD_MAX), SPF_FAIL);
	assert_int_equal(record_of_size(SPF_RECORD_MAX + 1), SPF_PERMERROR);
	for (size_t more = 0; more < 2; more++) {
		g_autofree char *helo = g_strnfill(SPF_IDENTITY_MAX + more, 'h');
		memcpy(helo, "fail.test", 9);
		const StubRow zone[] = {{"fail.test", DNS_TXT, DNS_OK, {"v=spf1 -all"}},
					{NULL, 0, 0, {NULL}}};
		const SpfParams params = {.ip = V4, .helo = helo, .mail_from = "u@fail.test"};
		Asked asked;
		assert_int_equal(check(zone, &params, &asked), more == 0 ? SPF_FAIL : SPF_NONE);
		asked_clear(&asked);
	}
	for (size_t more = 0; more < 2; more++) {
		g_autofree char *text = g_strnfill(SPF_EXPLAIN_MAX + more, 'e');
		const StubRow zone[] = {{"p.test", DNS_TXT, DNS_OK, {"v=spf1 -all exp=e.test"}},
					{"e.test", DNS_TXT, DNS_OK, {text}},
					{NULL, 0, 0, {NULL}}};
		const SpfParams params = {.ip = V4, .helo = "h", .mail_from = "u@p.test"};
		Asked asked;
		assert_int_equal(check(zone, &params, &asked), SPF_FAIL);
		assert_int_equal(asked.explanation != NULL, more == 0);
		asked_clear(&asked);
	}
}

/* Who is the sender, and what when it is nobody? */
static void
test_identities(void **state)
{
	(void)state;
	static const StubRow zone[] = {
		{"p.test", DNS_TXT, DNS_OK, {"v=spf1 exists:%{l}.l.test -all"}},
		{"h.test", DNS_TXT, DNS_OK, {"v=spf1 exists:%{l}.h.test ~all"}},
		{"postmaster.l.test", DNS_A, DNS_OK, {"127.0.0.1"}},
		{"postmaster.h.test", DNS_A, DNS_OK, {"127.0.0.1"}},
		{NULL, 0, 0, {NULL}},
	};
	static const struct {
		SpfParams params;
		SpfResult want;
	} runs[] = {
		{{V4, "h.test", "u@p.test", NULL, NULL, 0}, SPF_FAIL},
		{{V4, "h.test", "@p.test", NULL, NULL, 0}, SPF_PASS},
		{{V4, "h.test", "", NULL, NULL, 0}, SPF_PASS},
		{{V4, "h.test", NULL, NULL, NULL, 0}, SPF_PASS},
		{{V4, NULL, NULL, NULL, NULL, 0}, SPF_NONE},
		{{V4, "h", "", NULL, NULL, 0}, SPF_NONE},
		{{V4, "[192.0.2.1]", "", NULL, NULL, 0}, SPF_NONE},
		{{V4, "h.test", "u@[192.0.2.1]", NULL, NULL, 0}, SPF_NONE},
		{{V4, "h.test", "u@a..test", NULL, NULL, 0}, SPF_NONE},
		{{V4, "h.test", "u@p.test.", NULL, NULL, 0}, SPF_FAIL},
		{{V4, "h.test", "u@p.test", "h.test", NULL, 0}, SPF_SOFTFAIL},
		{{V4, "h.test", "u@p.test", "none.test", NULL, 0}, SPF_NONE},
		{{NULL, "h.test", "u@p.test", NULL, NULL, 0}, SPF_NONE},
		{{"/run/socket", "h.test", "u@p.test", NULL, NULL, 0}, SPF_NONE},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Asked asked;
		SpfResult got = check(zone, &runs[i].params, &asked);
		if (got != runs[i].want)
			fail_msg("%zu: %s (%s)", i, spf_result_name(got), asked.reason);
		asked_clear(&asked);
	}
}

static void
test_give_up(void **state)
{
	(void)state;
	const SpfParams params = {.ip = V4, .helo = "h", .mail_from = "u@p.test"};
	Spf *spf = spf_new(&params);
	const char *name;
	DnsType type;
	assert_true(spf_next(spf, &name, &type));
	assert_string_equal(name, "p.test");
	spf_give_up(spf, "too slow");
	assert_false(spf_next(spf, &name, &type));
	assert_int_equal(spf_result(spf), SPF_TEMPERROR);
	assert_string_equal(spf_reason(spf), "too slow");
	spf_free(spf);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_records), cmocka_unit_test(test_explanations),
		cmocka_unit_test(test_macros),  cmocka_unit_test(test_truncation),
		cmocka_unit_test(test_lookups), cmocka_unit_test(test_loops),
		cmocka_unit_test(test_voids),   cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_sizes),   cmocka_unit_test(test_identities),
		cmocka_unit_test(test_give_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
