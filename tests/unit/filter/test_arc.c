/* SPDX-License-Identifier: Apache-2.0 */
/* arc_check, arc_seal and the matcher arc in chains, against answers made here in place of the
 * resolver. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib/gstdio.h>
#include <unistd.h>

#include "mailauth/arc.h"
#include "mailauth/dkim_sign.h"
#include "zone.h"

#define MESSAGE "From: a@p.test\r\nSubject: s\r\n\r\nbody\r\n"
#define END     "- {filter: rest_output, static_endpoint: 'http://x/'}\n"

static DkimKey *key;
static char *key_path;
static Zone zone[4];

static int
make_key(void **state)
{
	(void)state;
	g_autofree char *pem = NULL;
	key = dkim_private_new(DKIM_ED25519, 0, NULL);
	pem = dkim_private_pem(key);
	key_path = g_build_filename(g_get_tmp_dir(), "koukan-test-XXXXXX", NULL);
	close(g_mkstemp(key_path));
	assert_true(g_file_set_contents(key_path, pem, -1, NULL));
	char *record = dkim_key_record(key);
	zone[0] = (Zone){"s._domainkey.one.test", DNS_TXT, DNS_OK, {record}};
	zone[1] = (Zone){"s._domainkey.two.test", DNS_TXT, DNS_OK, {record}};
	zone[2] = (Zone){"s._domainkey.temp.test", DNS_TXT, DNS_TEMP, {NULL}};
	return 0;
}

static int
free_key(void **state)
{
	(void)state;
	g_free((char *)zone[0].records[0]);
	dkim_key_unref(key);
	g_unlink(key_path);
	g_free(key_path);
	return 0;
}

/* The message with sets by these domains, ended by NULL. */
static char *
sealed_by(const char *const *domains)
{
	char *message = g_strdup(MESSAGE);
	for (ArcStatus status = ARC_NONE; *domains != NULL; domains++, status = ARC_PASS) {
		const ArcSealer sealer = {
			.key = key, .domain = *domains, .selector = "s", .authserv_id = "x.test"};
		unsigned instance;
		g_autoptr(Blob) blob = blob_new_bytes(message, strlen(message));
		g_autofree char *set = arc_seal(&sealer, blob, status, 1700000000, &instance, NULL);
		assert_non_null(set);
		char *next = g_strconcat(set, message, NULL);
		g_free(message);
		message = next;
	}
	return message;
}

static Harness *
run(const char *yaml, const char *message)
{
	Harness *h = zone_setup(yaml, zone);
	g_autoptr(HostPort) remote = host_port_new("2001:db8::1", 4000);
	tx_set_hosts(h->tx, remote, NULL);
	harness_mail(h, "alice@p.test");
	harness_rcpt(h, "bob@example.net");
	harness_body(h, message);
	harness_turn(h);
	return h;
}

static char *
body_of(Harness *h)
{
	size_t len;
	const TxBody *body = harness_port(h, 0)->tx->body;
	assert_non_null(body);
	char *text = blob_to_string(body->raw, 100000, &len, NULL);
	assert_non_null(text);
	return text;
}

static const char *const nobody[] = {NULL};
static const char *const one[] = {"one.test", NULL};
static const char *const both[] = {"one.test", "two.test", NULL};
static const char *const temp[] = {"temp.test", NULL};

static void
test_check(void **state)
{
	(void)state;
	static const struct {
		const char *const *domains;
		const char *from, *to; /* what is changed, or NULL */
		const char *output;
	} runs[] = {
		{nobody, NULL, NULL, "{\"result\":\"none\",\"instances\":0,\"sealers\":[]}"},
		{both, NULL, NULL,
		 "{\"result\":\"pass\",\"instances\":2,\"sealers\":[\"one.test\",\"two.test\"]}"},
		{both, "body", "Body",
		 "{\"result\":\"fail\",\"instances\":2,\"sealers\":[\"one.test\",\"two.test\"],"
		 "\"reason\":\"the body has changed\",\"failed_instance\":2}"},
		{one, "cv=none", "cv=fail",
		 "{\"result\":\"fail\",\"instances\":1,\"sealers\":[],"
		 "\"reason\":\"the newest seal says that the chain has failed\"}"},
		{temp, NULL, NULL,
		 "{\"result\":\"temperror\",\"instances\":1,\"sealers\":[\"temp.test\"],"
		 "\"reason\":\"the key cannot be looked up now\",\"failed_instance\":1}"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *good = sealed_by(runs[i].domains);
		g_auto(GStrv)
			parts = g_strsplit(good, runs[i].from != NULL ? runs[i].from : "\x01", 2);
		g_autofree char *message = g_strjoinv(runs[i].to, parts);
		Harness *h = run("- {filter: arc_check}\n" END, message);
		g_autofree char *output = json_print(harness_output(h, "arc"));
		assert_string_equal(output, runs[i].output);
		assert_ptr_equal(harness_port(h, 0)->tx->body, h->tx->body);
		zone_teardown(h);
	}
}

static void
test_matcher(void **state)
{
	(void)state;
	static const struct {
		const char *const *domains;
		const char *keys;
		bool want;
	} runs[] = {
		{both, "", true},
		{nobody, "", false},
		{temp, "", false},
		{nobody, ", result: none", true},
		{temp, ", result: temperror", true},
		{both, ", result: fail", false},
		{both, ", sealers: [ONE.test, two.test, three.test]", true},
		{both, ", sealers: [two.test]", false},
		{both, ", sealers: [one.test]", false},
		{one, ", sealers: [one.test]", true},
		{nobody, ", result: none, sealers: [one.test]", false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *yaml = g_strdup_printf(
			"- {filter: arc_check}\n"
			"- {filter: policy_action, tag: t, action: REJECT, match: {matcher: arc%s}}\n" END,
			runs[i].keys);
		g_autofree char *message = sealed_by(runs[i].domains);
		Harness *h = run(yaml, message);
		if ((h->tx->mail_response != NULL) != runs[i].want)
			fail_msg("%zu: %s", i, runs[i].keys);
		zone_teardown(h);
	}
}

#define SEAL                                                                                       \
	"- {filter: arc_check}\n- {filter: auth_results, authserv_id: mx.us.test}\n"               \
	"- {filter: arc_seal, key: %s, domain: one.test, selector: s, authserv_id: mx.us.test}\n"

static void
test_seal(void **state)
{
	(void)state;
	static const struct {
		const char *const *domains;
		const char *from, *to;
		const char *start;  /* of what goes on */
		const char *output; /* of arc_seal */
		ArcStatus after;
	} runs[] = {
		{nobody, NULL, NULL, "ARC-Seal: i=1; a=ed25519-sha256; cv=none; d=one.test; s=s;",
		 "{\"instance\":1,\"cv\":\"none\"}", ARC_PASS},
		{both, NULL, NULL, "ARC-Seal: i=3; a=ed25519-sha256; cv=pass; d=one.test; s=s;",
		 "{\"instance\":3,\"cv\":\"pass\"}", ARC_PASS},
		{both, "body", "Body", "ARC-Seal: i=3; a=ed25519-sha256; cv=fail; d=one.test; s=s;",
		 "{\"instance\":3,\"cv\":\"fail\"}", ARC_FAIL},
		{one, "cv=none", "cv=fail", "Authentication-Results: mx.us.test;\r\n\tarc=fail",
		 "{\"instance\":0,\"reason\":\"the chain takes no further set\"}", ARC_FAIL},
		{temp, NULL, NULL, "Authentication-Results: mx.us.test;\r\n\tarc=temperror",
		 "{\"instance\":0,\"reason\":\"nobody knows whether the chain is good\"}",
		 ARC_TEMPERROR},
		{nobody, "From", "To", "Authentication-Results: mx.us.test;\r\n\tarc=none",
		 "{\"instance\":0,\"reason\":\"the message has no From\"}", ARC_NONE},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *yaml = g_strdup_printf(SEAL END, key_path);
		g_autofree char *good = sealed_by(runs[i].domains);
		g_auto(GStrv)
			parts = g_strsplit(good, runs[i].from != NULL ? runs[i].from : "\x01", 2);
		g_autofree char *message = g_strjoinv(runs[i].to, parts);
		Harness *h = run(yaml, message);
		g_autofree char *output = json_print(harness_output(h, "arc_seal"));
		g_autofree char *text = body_of(h);
		assert_string_equal(output, runs[i].output);
		if (!g_str_has_prefix(text, runs[i].start) || !g_str_has_suffix(text, message))
			fail_msg("%s", text);
		zone_teardown(h);
		Harness *next = run("- {filter: arc_check}\n" END, text);
		const char *result = json_get_str(harness_output(next, "arc"), "result");
		assert_string_equal(result, arc_status_names[runs[i].after]);
		zone_teardown(next);
	}
}

/* What we found out goes into the set, with the address that the message came from. */
static void
test_results(void **state)
{
	(void)state;
	g_autofree char *yaml = g_strdup_printf(SEAL END, key_path);
	g_autofree char *good = sealed_by(one);
	g_autofree char *message = g_strconcat("Authentication-Results: mx.us.test; dmarc=pass\r\n",
					       good, NULL);
	Harness *h = run(yaml, message);
	g_autofree char *text = body_of(h);
	assert_non_null(strstr(text, "ARC-Authentication-Results: i=2; mx.us.test;\r\n"
				     "\tarc=pass\r\n\t smtp.remote-ip=\"2001:db8::1\"\r\n"
				     "Authentication-Results: mx.us.test;\r\n"
				     "\tarc=pass\r\n\t smtp.remote-ip=\"2001:db8::1\"\r\n"
				     "ARC-Seal: i=1;"));
	assert_null(strstr(text, "dmarc=pass")); /* a forged one is not sealed */
	zone_teardown(h);
}

static void
test_conf(void **state)
{
	(void)state;
	static const struct {
		const char *chain, *want; /* "": no error */
	} runs[] = {
		{"- {filter: arc_check}\n- {filter: arc_seal, key: KEY, domain: a.test, selector: s}\n",
		 ""},
		{"- {filter: arc_seal, key: KEY, domain: a.test, selector: s}\n",
		 "test:1:3: error: filter arc_seal needs arc_check before it"},
		{"- {filter: arc_seal, key: KEY, domain: a.test, selector: s}\n- {filter: arc_check}\n",
		 "test:1:3: error: filter arc_seal needs arc_check before it"},
		{"- {filter: arc_check}\n- {filter: arc_seal, domain: a.test, selector: s}\n",
		 "'key' is missing"},
		{"- {filter: arc_check}\n- {filter: arc_seal, key: /nowhere/x, domain: a.test, selector: s}\n",
		 "test:2:27: error: ARC key: /nowhere/x"},
		{"- {filter: arc_check}\n- {filter: arc_seal, key: KEY, domain: a, selector: s}\n",
		 "no domain to seal for"},
		{"- {filter: arc_check}\n- {filter: arc_seal, key: KEY, domain: a.test, selector: 's s'}\n",
		 "no selector"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Harness *h = harness_new();
		g_auto(GStrv) parts = g_strsplit(runs[i].chain, "KEY", 2);
		g_autofree char *chain = g_strjoinv(key_path, parts);
		g_autofree char *yaml = g_strconcat(chain, END, NULL);
		g_autoptr(GString) text = g_string_new(NULL);
		harness_conf(h, yaml);
		conf_report_format(h->report, text);
		if (h->report->errors != (*runs[i].want != '\0') ||
		    strstr(text->str, runs[i].want) == NULL)
			fail_msg("%s: %s", chain, text->str);
		harness_free(h);
	}
}

/* Freed in the middle of it: silence. */
static void
test_free_while_waiting(void **state)
{
	(void)state;
	g_autofree char *yaml = g_strdup_printf(SEAL END, key_path);
	g_autofree char *message = sealed_by(both);
	for (unsigned turns = 0; turns < 8; turns++) {
		Harness *h = zone_setup(yaml, zone);
		harness_mail(h, "alice@p.test");
		harness_rcpt(h, "bob@example.net");
		harness_body(h, message);
		for (unsigned i = 0; i < turns; i++)
			(void)defer_run(h->queue, 1);
		zone_teardown(h);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check), cmocka_unit_test(test_matcher),
		cmocka_unit_test(test_seal),  cmocka_unit_test(test_results),
		cmocka_unit_test(test_conf),  cmocka_unit_test(test_free_while_waiting),
	};
	return cmocka_run_group_tests(tests, make_key, free_key);
}
