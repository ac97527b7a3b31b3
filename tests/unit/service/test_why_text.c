/* SPDX-License-Identifier: Apache-2.0 */
/* What a chain did, as people read it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "cmd/why_text.h"

static char *
text_of(const char *json)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(json_t) why = json_parse("test", json, strlen(json), &error);
	if (why == NULL)
		fail_msg("%s", error->message);
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	why_text(out, why);
	fclose(out);
	return text;
}

static void
test_full(void **state)
{
	(void)state;
	char *text = text_of(
		"{\"chain\": \"mx\", \"transaction\": \"1\", \"outcome\": \"rejected\","
		" \"decided\": {\"code\": 550, \"message\": \"5.7.1 no\", \"step\": 2,"
		"  \"filter\": \"policy_action\", \"to\": \"DATA\", \"rule\": \"spoof\","
		"  \"where\": \"r.yaml:7:3\"},"
		" \"envelope\": {\"remote\": \"192.0.2.1\", \"helo\": \"h\", \"mail_from\": \"a@b\","
		"  \"rcpt_to\": [\"c@d\", \"e@f\", \"g@h\", \"i@j\"]},"
		" \"answers\": {\"data\": null},"
		" \"filters\": ["
		"  {\"step\": 1, \"filter\": \"spf_check\", \"saw\": [\"MAIL\"], \"left\": \"wait\","
		"   \"usec\": 999, \"waited_usec\": 1500, \"notes\": [\"fail for b: -all\"],"
		"   \"dns\": [{\"name\": \"b\", \"type\": \"TXT\", \"status\": \"OK\","
		"             \"records\": [\"x\", \"y\"], \"more\": 3},"
		"            {\"name\": \"c\", \"type\": \"A\", \"status\": \"TEMP\", \"records\": []}]},"
		"  {\"step\": 2, \"filter\": \"policy_action\", \"saw\": [\"RCPT\", \"end of body\"],"
		"   \"left\": \"stop\", \"usec\": 2500000,"
		"   \"rules\": [{\"rule\": \"one\", \"rcpt\": 1, \"result\": \"yes\","
		"     \"action\": \"LOG\", \"matchers\": [{\"matcher\": \"p.q.Last\","
		"     \"wants\": \"k: v\", \"saw\": \"k: w\", \"result\": \"no\"}]},"
		"    {\"rule\": \"two\", \"result\": \"no\", \"matchers\": [{\"matcher\": \"m\","
		"      \"wants\": \"\", \"result\": \"yes\"}, {\"matcher\": \"n\","
		"      \"result\": \"no\"}]}],"
		"   \"answers\": [{\"to\": [\"DATA\"], \"code\": 550, \"message\": \"5.7.1 no\"}],"
		"   \"more\": 4},"
		"  {\"step\": 3, \"filter\": \"hello\", \"saw\": [], \"left\": \"continue\","
		"   \"output\": {\"k\": 1}},"
		"  {\"step\": 4, \"filter\": \"exploder\", \"left\": null}]}");
	assert_string_equal(
		text, "transaction 1, chain mx: rejected\n"
		      "  client 192.0.2.1, HELO h; from <a@b> to c@d, e@f, g@h, ...\n"
		      "  550 5.7.1 no\n"
		      "  decided at DATA by step 2, policy_action, rule spoof (r.yaml:7:3)\n"
		      " 1 spf_check          saw MAIL               999 us, waited 1.5 ms; still "
		      "waits\n"
		      "    fail for b: -all\n"
		      "    DNS TXT b: x | y and 3 more\n"
		      "    DNS A c: TEMP\n"
		      " 2 policy_action      saw RCPT message       2.5 s; goes no further\n"
		      "    rule one for RCPT 2: yes, LOG: not Last k: v (saw k: w)\n"
		      "    rule two: no\n"
		      "      yes: m\n"
		      "      no: n\n"
		      "    answers DATA: 550 5.7.1 no\n"
		      "    and 4 entries that are not kept\n"
		      " 3 hello              saw nothing            0 us\n"
		      "    signal {\"k\":1}\n"
		      " 4 exploder           not reached\n");
	free(text);
}

/* From another process anything may come. */
static void
test_foreign(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"{}",
		"[]",
		"{\"filters\": [1, {}, []]}",
		"{\"decided\": {}, \"envelope\": 5, \"answers\": []}",
		("{\"filters\": [{\"left\": \"x\", \"notes\": [1], \"dns\": [2], \"rules\": [3],"
		 " \"answers\": [4], \"output\": 5}]}"),
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
		free(text_of(cases[i]));
	char *text = text_of("{\"chain\": \"\\u001b[31mred\\n\"}");
	assert_null(strchr(text, '\x1b'));
	free(text);
}

static void
test_width(void **state)
{
	(void)state;
	g_autoptr(GString)
		json = g_string_new("{\"filters\": [{\"left\": \"stop\", \"notes\": [\"");
	for (int i = 0; i < 60; i++)
		g_string_append(json, "word ");
	g_string_append(json, "\"]}]}");
	g_autofree char *text = text_of(json->str);
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	for (char **line = lines; *line != NULL; line++)
		assert_true(strlen(*line) < 80);
	assert_int_equal(g_strv_length(lines), 9);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_width),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
