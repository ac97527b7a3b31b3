/* SPDX-License-Identifier: Apache-2.0 */
/* The answers that `koukan explain --dns` reads from a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cmd/explain_int.h"

/* Loads `text` as a file; problems as text in *ret_problems. */
static ExplainDns *
load(const char *text, char **ret_problems)
{
	g_autoptr(ConfReport) report = conf_report_new();
	g_autoptr(GString) problems = g_string_new(NULL);
	char *path = NULL;
	int fd = g_file_open_tmp("explain-XXXXXX", &path, NULL);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	ExplainDns *dns = explain_dns_load(path, report);
	for (guint i = 0; i < report->problems->len; i++) {
		const ConfProblem *problem = g_ptr_array_index(report->problems, i);
		assert_true(g_str_has_prefix(problem->where, path));
		g_string_append_printf(problems, "%u:%u %s;", problem->line, problem->column,
				       problem->text);
	}
	unlink(path);
	g_free(path);
	*ret_problems = g_string_free(g_steal_pointer(&problems), FALSE);
	return dns;
}

static char *
ask(ExplainDns *dns, const char *name, DnsType type)
{
	DnsAnswer answer = {0};
	GString *out = g_string_new(NULL);
	explain_dns_answer(dns, name, type, &answer);
	g_string_append(out, dns_status_name(answer.status));
	for (guint i = 0; answer.records != NULL && i < answer.records->len; i++) {
		const DnsRecord *record = g_ptr_array_index(answer.records, i);
		g_string_append_printf(out, "|%s", record->text);
		if (type == DNS_MX)
			g_string_append_printf(out, "@%u", record->preference);
	}
	dns_answer_clear(&answer);
	return g_string_free(out, FALSE);
}

static void
test_answers(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		DnsType type;
		const char *want;
	} cases[] = {
		{"a.example", DNS_A, "OK|192.0.2.1|192.0.2.2"},
		{"A.Example.", DNS_A, "OK|192.0.2.1|192.0.2.2"},
		{"a.example", DNS_AAAA, "OK|2001:db8::1"},
		{"a.example", DNS_TXT, "OK|v=spf1 -all"},
		{"a.example", DNS_MX, "OK|mx.a.example.@10|.@0"},
		{"a.example", DNS_PTR, "NODATA"},
		{"b.example", DNS_A, "TEMP"},
		{"b.example", DNS_TXT, "OK|TEMP"}, /* a record, in a list or in quotes */
		{"b.example", DNS_PTR, "OK|NODATA"},
		{"b.example", DNS_MX, "NODATA"},
		{"c.example", DNS_A, "TEMP"},
		{"d.example", DNS_A, "NXDOMAIN"},
		{"e.example", DNS_A, "OK|192.0.2.1|192.0.2.2"},
		{"e.example", DNS_CNAME, "OK|f.example."},
		{"loop.example", DNS_A, "TEMP"},
		{"away.example", DNS_A, "NXDOMAIN"},
		{"unknown.example", DNS_A, "NXDOMAIN"},
	};
	g_autofree char *problems = NULL;
	g_autoptr(ExplainDns)
		dns = load("a.example:\n"
			   "  A: [192.0.2.1, 192.0.2.2]\n"
			   "  AAAA: 2001:db8::1\n"
			   "  txt: v=spf1 -all\n"
			   "  MX: [10 mx.a.example., 0 .]\n"
			   "B.example.: {A: TEMP, TXT: [TEMP], PTR: 'NODATA', MX: []}\n"
			   "c.example: TEMP\n"
			   "d.example: NXDOMAIN\n"
			   "e.example: {CNAME: f.example.}\n"
			   "f.example: {CNAME: a.example}\n"
			   "loop.example: {CNAME: loop.example}\n"
			   "away.example: {CNAME: nowhere.example}\n",
			   &problems);
	assert_string_equal(problems, "");
	assert_non_null(dns);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *got = ask(dns, cases[i].name, cases[i].type);
		if (strcmp(got, cases[i].want) != 0)
			fail_msg("%s %s: %s, not %s", cases[i].name, dns_type_name(cases[i].type),
				 got, cases[i].want);
	}
}

static void
test_problems(void **state)
{
	(void)state;
	static const struct {
		const char *text, *want;
	} cases[] = {
		{"", ""},
		{"- a\n", "1:1 a map of domain names is wanted;"},
		{"a: 5\n", "1:4 a map of types is wanted, or TEMP, NODATA or NXDOMAIN for all;"},
		{"a:\n  SRV: x\n", "2:3 a type is wanted: A, AAAA, CNAME, MX, PTR or TXT;"},
		{"a:\n  A: host\n", "2:6 no A record: text 'host';"},
		{"a:\n  A: '::1'\n", "2:6 no A record: text '::1';"},
		{"a:\n  AAAA: 192.0.2.1\n", "2:9 no AAAA record: text '192.0.2.1';"},
		{"a:\n  A: 192.0.2.0/24\n", "2:6 no A record: text '192.0.2.0/24';"},
		{"a:\n  MX: [mx.example]\n",
		 "2:8 no MX record: text 'mx.example'; \"10 host.\" is wanted;"},
		{"a:\n  MX: [65536 x]\n",
		 "2:8 no MX record: text '65536 x'; \"10 host.\" is wanted;"},
		{"a:\n  MX: ['10 ']\n", "2:8 no MX record: text '10 '; \"10 host.\" is wanted;"},
		{"a:\n  TXT: {b: c}\n", "2:8 no TXT record: a map;"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *problems = NULL;
		g_autoptr(ExplainDns) dns = load(cases[i].text, &problems);
		assert_string_equal(problems, cases[i].want);
		assert_int_equal(dns != NULL, *problems == '\0');
	}
	g_autofree char *syntax = NULL;
	assert_null(load("a: [\n", &syntax));
	assert_non_null(strstr(syntax, ":"));
}

static void
test_caps(void **state)
{
	(void)state;
	for (int count = DNS_RECORDS_MAX; count <= DNS_RECORDS_MAX + 1; count++) {
		g_autoptr(GString) text = g_string_new("a:\n  TXT: [x");
		for (int i = 1; i < count; i++)
			g_string_append(text, ", x");
		g_string_append(text, "]\n");
		g_autofree char *problems = NULL;
		g_autoptr(ExplainDns) dns = load(text->str, &problems);
		assert_int_equal(dns != NULL, count <= DNS_RECORDS_MAX);
	}
	/* Eight names on the way to a record, and one more. */
	for (int names = 8; names <= 9; names++) {
		g_autoptr(GString) text = g_string_new(NULL);
		for (int i = 1; i < names; i++)
			g_string_append_printf(text, "n%d: {CNAME: n%d}\n", i, i + 1);
		g_string_append_printf(text, "n%d: {A: 192.0.2.1}\n", names);
		g_autofree char *problems = NULL;
		g_autoptr(ExplainDns) dns = load(text->str, &problems);
		g_autofree char *got = ask(dns, "n1", DNS_A);
		assert_string_equal(got, names == 8 ? "OK|192.0.2.1" : "TEMP");
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_problems),
		cmocka_unit_test(test_caps),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
