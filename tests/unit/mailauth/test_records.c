/* SPDX-License-Identifier: Apache-2.0 */
/* DMARC records, and Authentication-Results fields: writing them and telling whose they are. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <string.h>

#include "mailauth/authres.h"
#include "mailauth/dmarc.h"

static void
test_dmarc_records(void **state)
{
	(void)state;
	static const struct {
		const char *text, *want; /* "p sp adkim aspf pct"; NULL: does not count */
	} runs[] = {
		{"v=DMARC1; p=none", "0 0 0 0 100"},
		{"v=DMARC1;p=reject;", "2 2 0 0 100"},
		{"v=DMARC1; p=Quarantine; sp=none; adkim=s; aspf=S; pct=5", "1 0 1 1 5"},
		{"v=DMARC1; p=reject; pct=0", "2 2 0 0 0"},
		{"v=DMARC1; p=reject; pct=101", "2 2 0 0 100"},
		{"v=DMARC1; p=reject; adkim=x; unknown=y", "2 2 0 0 100"},
		{"v=DMARC1; p=what; rua=mailto:a@b.c", "0 0 0 0 100"},
		{"v=DMARC1; p=reject; sp=what; rua=mailto:a@b.c", "0 0 0 0 100"},
		{"v=DMARC1; rua=mailto:a@b.c", "0 0 0 0 100"},
		{"v=DMARC1; p=what", NULL},
		{"v=DMARC1", NULL},
		{"v=DMARC2; p=none", NULL},
		{"v=dmarc1; p=none", NULL},
		{"p=none; v=DMARC1", NULL},
		{"p=none", NULL},
		{"v=DMARC1; p=none; p=reject", NULL},
		{"", NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		DmarcRecord r;
		bool ok = dmarc_record_parse(runs[i].text, &r);
		if (ok != (runs[i].want != NULL))
			fail_msg("%s", runs[i].text);
		if (!ok)
			continue;
		g_autofree char *got = g_strdup_printf("%d %d %d %d %u", (int)r.policy,
						       (int)r.subdomains, r.strict_dkim,
						       r.strict_spf, r.percent);
		assert_string_equal(got, runs[i].want);
	}
}

/* Two records are as good as none; what is no DMARC record does not count. */
static void
test_dmarc_answers(void **state)
{
	(void)state;
	static const struct {
		const char *texts[3];
		bool found;
	} runs[] = {
		{{"v=DMARC1; p=none"}, true},
		{{"v=spf1 -all", "v = DMARC1; p=none", "text"}, true},
		{{"v=DMARC1; p=none", "v=DMARC1; p=reject"}, false},
		{{"v=DMARC1"}, false},
		{{NULL}, false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		DnsRecord rows[3];
		DmarcRecord record;
		g_autoptr(GPtrArray) list = g_ptr_array_new();
		for (unsigned j = 0; j < 3 && runs[i].texts[j] != NULL; j++) {
			rows[j] = (DnsRecord){.text = (char *)runs[i].texts[j]};
			g_ptr_array_add(list, &rows[j]);
		}
		const DnsAnswer answer = {.status = DNS_OK, .records = list};
		assert_int_equal(dmarc_answer_record(&answer, &record), runs[i].found);
	}
}

static void
test_whose(void **state)
{
	(void)state;
	static const struct {
		const char *value;
		bool ours;
	} runs[] = {
		{" mx.example.com; spf=pass", true},
		{"mx.example.com", true},
		{" MX.Example.COM 1; spf=pass", true},
		{"\r\n\tmx.example.com;", true},
		{" (a (nested) comment) mx.example.com;", true},
		{" (mx.other.com) mx.example.com(x);", true},
		{" \"mx.example.com\"; spf=pass", true},
		{" \"mx.exa\\mple.com\"; spf=pass", true},
		{" mx.example.com.; spf=pass", true},
		{" mx.exam\r\nple.com; spf=pass", true},
		/* nobody can tell */
		{"", true},
		{" (open mx.example.com", true},
		{" \"open mx.example.com", true},
		{" ; spf=pass", true},
		/* others */
		{" example.com; spf=pass", false},
		{" xmx.example.com; spf=pass", false},
		{" mx.example.com.evil.test; spf=pass", false},
		{" other.test; x=mx.example.com", false},
		{" (mx.example.com) other.test; spf=pass", false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++)
		if (authres_is_of(runs[i].value, strlen(runs[i].value), "mx.example.com") !=
		    runs[i].ours)
			fail_msg("'%s'", runs[i].value);
	assert_true(authres_is_of("a\0b", 3, "mx.example.com"));
}

static void
test_values(void **state)
{
	(void)state;
	static const struct {
		const char *value, *want; /* NULL: left out */
	} runs[] = {
		{"example.com", "example.com"},
		{"a.b+c@example.com", "a.b+c@example.com"},
		{"legit.test(.attack.test", "\"legit.test(.attack.test\""},
		{"any@legit.test'@attack.test", "\"any@legit.test'@attack.test\""},
		{"a;dkim=pass", "\"a;dkim=pass\""},
		{"a\"b\\c", "\"a\\\"b\\\\c\""},
		{"2001:db8::1", "\"2001:db8::1\""},
		{"a\r\nInjected: x", NULL},
		{"a\x7f", NULL},
		{"\xff", NULL},
		{"", NULL},
		{NULL, NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		AuthRes *res = authres_new("mx");
		authres_add(res, "dkim", "pass");
		authres_prop(res, "header.d", runs[i].value);
		g_autofree char *got = authres_end(res);
		g_autofree char *want = g_strdup_printf(
			"Authentication-Results: mx;\r\n\tdkim=pass%s%s\r\n",
			runs[i].want != NULL ? "\r\n\t header.d=" : "",
			runs[i].want != NULL ? runs[i].want : "");
		assert_string_equal(got, want);
	}
	for (size_t more = 0; more < 2; more++) {
		g_autofree char *text = g_strnfill(AUTHRES_VALUE_MAX + more, 'x');
		AuthRes *res = authres_new("mx");
		authres_add(res, "dkim", "pass");
		authres_prop(res, "header.d", text);
		g_autofree char *got = authres_end(res);
		assert_int_equal(strstr(got, "header.d") != NULL, more == 0);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dmarc_records),
		cmocka_unit_test(test_dmarc_answers),
		cmocka_unit_test(test_whose),
		cmocka_unit_test(test_values),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
