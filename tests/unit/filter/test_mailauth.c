/* SPDX-License-Identifier: Apache-2.0 */
/* The filters of mail authentication: spf_check, dkim_check, dkim_sign, dmarc_check, auth_results,
 * against answers made here in place of the resolver. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib/gstdio.h>
#include <unistd.h>

#include "mailauth/dkim_sign.h"
#include "zone.h"

static const Zone policies[] = {
	{"pass.example", DNS_TXT, DNS_OK, {"v=spf1 ip4:192.0.2.1 -all"}},
	{"fail.example", DNS_TXT, DNS_OK, {"v=spf1 -all"}},
	{"soft.example", DNS_TXT, DNS_OK, {"v=spf1 include:pass.example ~all"}},
	{"temp.example", DNS_TXT, DNS_TEMP, {NULL}},
	{NULL, 0, 0, {NULL}},
};

static void
test_spf(void **state)
{
	(void)state;
	Harness *h = zone_setup("- {filter: spf_check, extra_domains: [d.example]}\n"
				"- {filter: rest_output, static_endpoint: 'http://x/'}\n",
				policies);
	harness_mail(h, "alice@example.com");
	harness_turn(h);
	g_autofree char *text = json_print(
		harness_output(h, "koukan.spf_check_filter.SpfCheckFilter"));
	assert_string_equal(text,
			    "{\"mail_from_result\":5,\"extra_domains_results\":{\"d.example\":5}}");
	zone_teardown(h);
}

static void
test_spf_results(void **state)
{
	(void)state;
	static const struct {
		const char *from, *ip;
		const char *want;
	} runs[] = {
		{"a@pass.example", "192.0.2.1",
		 "{\"mail_from_result\":1,\"extra_domains_results\":{\"soft.example\":1,"
		 "\"none.example\":5}}"},
		{"a@pass.example", "192.0.2.2",
		 "{\"mail_from_result\":3,\"extra_domains_results\":{\"soft.example\":4,"
		 "\"none.example\":5}}"},
		{"", "192.0.2.1",
		 "{\"mail_from_result\":3,\"extra_domains_results\":{\"soft.example\":1,"
		 "\"none.example\":5}}"},
		{"a@temp.example", "192.0.2.1",
		 "{\"mail_from_result\":0,\"extra_domains_results\":{\"soft.example\":1,"
		 "\"none.example\":5}}"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Harness *h = zone_setup(
			"- {filter: spf_check, extra_domains: [soft.example, none.example]}\n"
			"- {filter: rest_output, static_endpoint: 'http://x/'}\n",
			policies);
		g_autoptr(HostPort) remote = host_port_new(runs[i].ip, 4000);
		g_autoptr(json_t) meta = json_pack("{s:s}", "ehlo_host", "fail.example");
		tx_set_hosts(h->tx, remote, NULL);
		tx_set_smtp_meta(h->tx, meta);
		harness_mail(h, runs[i].from);
		harness_turn(h);
		g_autofree char *text = json_print(
			harness_output(h, "koukan.spf_check_filter.SpfCheckFilter"));
		assert_string_equal(text, runs[i].want);
		assert_int_equal(h->opened->len, 1);
		zone_teardown(h);
	}
}

#define MESSAGE "From: a@mail.example.com\r\nSubject: s\r\n\r\nbody\r\n"

/* Our own signature of MESSAGE, and the key's record in a zone. */
static char *
signed_message(DkimKey *key, const char *domain)
{
	const DkimSigner signer = {.key = key, .domain = domain, .selector = "sel"};
	g_autoptr(Blob) blob = blob_new_bytes(MESSAGE, strlen(MESSAGE));
	g_autofree char *fields = dkim_sign(&signer, 1, blob, 1700000000, NULL);
	assert_non_null(fields);
	return g_strconcat(fields, MESSAGE, NULL);
}

static void
test_dkim_pass(void **state)
{
	(void)state;
	static const struct {
		const char *domain;
		DnsStatus dns;
		const char *want; /* start of the output */
	} runs[] = {
		{"mail.example.com", DNS_OK, "{\"results\":[{\"status\":1,\"alignment\":0,"},
		{"example.com", DNS_OK, "{\"results\":[{\"status\":1,\"alignment\":1,"},
		{"example.org", DNS_OK, "{\"results\":[{\"status\":1,\"alignment\":2,"},
		{"example.com", DNS_TEMP, "{\"results\":[{\"status\":0,\"alignment\":1,"},
		{"example.com", DNS_NXDOMAIN, "{\"results\":[{\"status\":2,\"alignment\":1,"},
	};
	g_autoptr(DkimKey) key = dkim_private_new(DKIM_ED25519, 0, NULL);
	g_autofree char *record = dkim_key_record(key);
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *name = g_strdup_printf("sel._domainkey.%s", runs[i].domain);
		g_autofree char *message = signed_message(key, runs[i].domain);
		const Zone keys[] = {{name, DNS_TXT, runs[i].dns, {record}}, {NULL, 0, 0, {NULL}}};
		Harness *h = zone_setup("- {filter: dkim_check}\n"
					"- {filter: rest_output, static_endpoint: 'http://x/'}\n",
					keys);
		harness_mail(h, "alice@example.com");
		harness_rcpt(h, "bob@example.com");
		harness_body(h, message);
		harness_turn(h);
		g_autofree char *text = json_print(
			harness_output(h, "koukan.dkim_check_filter.DkimCheckFilter"));
		if (!g_str_has_prefix(text, runs[i].want))
			fail_msg("%s", text);
		g_autofree char *domain = g_strdup_printf("\"domain\":\"%s\"", runs[i].domain);
		assert_non_null(strstr(text, domain));
		assert_non_null(strstr(text, "\"headers\":[\"from\",\"subject\"]"));
		assert_non_null(strstr(text, "\"timestamp\":1700000000"));
		assert_null(strstr(text, "\"bh\""));
		assert_int_equal(h->opened->len, 1);
		zone_teardown(h);
	}
}

static void
test_dkim_sign(void **state)
{
	(void)state;
	g_autofree char *path = g_build_filename(g_get_tmp_dir(), "koukan-test-XXXXXX", NULL);
	g_autoptr(DkimKey) key = dkim_private_new(DKIM_RSA, 1024, NULL);
	g_autofree char *pem = dkim_private_pem(key);
	g_autoptr(GError) error = NULL;
	close(g_mkstemp(path));
	assert_true(g_file_set_contents(path, pem, -1, &error));
	g_autofree char *yaml = g_strdup_printf(
		"- filter: dkim_sign\n"
		"  key: %s\n"
		"  domain: example.com\n"
		"  selector: one\n"
		"  signatures: [{key: %s, domain: example.org, selector: two}]\n"
		"  body_canonicalization: relaxed\n"
		"- {filter: rest_output, static_endpoint: 'http://x/'}\n",
		path, path);
	static const struct {
		const char *message, *mail; /* "-": sent on */
	} runs[] = {
		{MESSAGE, "-"},
		/* nothing was answered yet, so that it is the answer to all */
		{"Subject: no from\r\n\r\n", "500 signing failed (DkimSignFilter"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Harness *h = zone_setup(yaml, policies);
		harness_mail(h, "alice@example.com");
		harness_rcpt(h, "bob@example.com");
		harness_body(h, runs[i].message);
		harness_turn(h);
		assert_response(h->tx->mail_response, runs[i].mail);
		const TxBody *body = h->opened->len > 0 ? harness_port(h, 0)->tx->body : NULL;
		assert_int_equal(body != NULL, runs[i].mail[0] == '-');
		if (body != NULL) {
			size_t len;
			g_autofree char *text = blob_to_string(body->raw, 10000, &len, &error);
			assert_true(g_str_has_prefix(text, "DKIM-Signature: v=1; a=rsa-sha256; "
							   "c=relaxed/relaxed; "));
			assert_true(g_str_has_suffix(text, MESSAGE));
			assert_non_null(strstr(text, "d=example.com;"));
			assert_non_null(strstr(text, "d=example.org;"));
			assert_non_null(strstr(text, " : subject"));
		}
		zone_teardown(h);
	}
	g_unlink(path);
}

/* What is wrong with a key is said when the configuration is loaded. */
static void
test_dkim_sign_conf(void **state)
{
	(void)state;
	static const struct {
		const char *keys;
		unsigned errors;
	} runs[] = {
		{"domain: d, selector: s", 0}, /* disabled */
		{"key: , domain: d, selector: s", 0},
		{"key: /nowhere/key.pem, domain: example.com, selector: s", 1},
		{"key: /dev/null, domain: example.com, selector: s", 1},
		{"key: /dev/null, domain: example.com", 1},
		{"signatures: [{key: /dev/null, domain: d}]", 1},
		{"signatures: x", 1},
		{"oversign: ['a b']", 1},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Harness *h = harness_new();
		g_autofree char *yaml = g_strdup_printf(
			"- {filter: dkim_sign, %s}\n"
			"- {filter: rest_output, static_endpoint: 'http://x/'}\n",
			runs[i].keys);
		harness_conf(h, yaml);
		if (h->report->errors != runs[i].errors)
			fail_msg("%s: %u errors", runs[i].keys, h->report->errors);
		harness_free(h);
	}
}

static void
test_dkim(void **state)
{
	(void)state;
	static const struct {
		const char *message, *want;
	} runs[] = {
		{"From: a@b\r\n\r\nDKIM-Signature: d=body\r\n", "{\"results\":[]}"},
		{"DKIM-Signature: v=1; d = example.com ;\r\n s=sel\r\nFrom: a@b\r\n"
		 "dkim-signature: s=x\r\n\r\nbody",
		 "{\"results\":[{\"status\":2,\"alignment\":2,\"domain\":\"example.com\","
		 "\"tags\":{\"v\":\"1\",\"s\":\"sel\"}},"
		 "{\"status\":2,\"alignment\":2,\"tags\":{\"s\":\"x\"}}]}"},
		{"no header at all", "{\"results\":[]}"},
		{"", "{\"results\":[]}"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Harness *h = zone_setup(
			"- {filter: dkim_check}\n- {filter: dkim_sign, domain: d, selector: s}\n"
			"- {filter: rest_output, static_endpoint: 'http://x/'}\n",
			policies);
		harness_mail(h, "alice@example.com");
		harness_rcpt(h, "bob@example.com");
		harness_body(h, runs[i].message);
		harness_turn(h);
		g_autofree char *text = json_print(
			harness_output(h, "koukan.dkim_check_filter.DkimCheckFilter"));
		assert_string_equal(text, runs[i].want);
		assert_ptr_equal(harness_port(h, 0)->tx->body, h->tx->body);
		zone_teardown(h);
	}
}

/* At most ten signatures of one message are reported. */
static void
test_dkim_cap(void **state)
{
	(void)state;
	for (unsigned n = 10; n <= 11; n++) {
		g_autoptr(GString) message = g_string_new(NULL);
		for (unsigned i = 0; i < n; i++)
			g_string_append(message, "DKIM-Signature: d=x\r\n");
		g_string_append(message, "\r\n");
		Harness *h = zone_setup("- {filter: dkim_check}\n"
					"- {filter: rest_output, static_endpoint: 'http://x/'}\n",
					policies);
		harness_mail(h, "alice@example.com");
		harness_rcpt(h, "bob@example.com");
		harness_body(h, message->str);
		harness_turn(h);
		const json_t *output = harness_output(h,
						      "koukan.dkim_check_filter.DkimCheckFilter");
		assert_int_equal(json_array_size(json_object_get(output, "results")), 10);
		zone_teardown(h);
	}
}

/* ---- DMARC and Authentication-Results ---- */

#define CHECKS                                                                                     \
	"- {filter: spf_check}\n- {filter: dkim_check}\n- {filter: dmarc_check}\n"                 \
	"- {filter: auth_results, authserv_id: mx.us.example}\n"
#define END "- {filter: rest_output, static_endpoint: 'http://x/'}\n"

typedef struct DmarcCase {
	const char *name, *record; /* at _dmarc.example.com */
	const char *sender;        /* p.example.com passes SPF, q.example.com and others do not */
	const char *dkim;          /* domain that signs; NULL: nobody */
	const char *want;          /* start of the output */
} DmarcCase;

static const DmarcCase dmarc_cases[] = {
	{"no record", "something", "a@p.example.com", NULL,
	 "{\"result\":\"none\",\"domain\":\"mail.example.com\"}"},
	{"spf aligned", "v=DMARC1; p=reject", "a@p.example.com", NULL,
	 "{\"result\":\"pass\",\"domain\":\"mail.example.com\",\"policy\":\"reject\","
	 "\"policy_domain\":\"example.com\",\"percent\":100,\"spf\":true,\"dkim\":false}"},
	{"spf aligned, but not strictly", "v=DMARC1; p=reject; aspf=s", "a@p.example.com", NULL,
	 "{\"result\":\"fail\""},
	{"spf passes for others", "v=DMARC1; p=reject", "a@pass.example", NULL,
	 "{\"result\":\"fail\""},
	{"spf fails", "v=DMARC1; p=reject", "a@q.example.com", NULL, "{\"result\":\"fail\""},
	{"spf may pass later", "v=DMARC1; p=reject", "a@t.example.com", NULL,
	 "{\"result\":\"temperror\""},
	{"dkim aligned", "v=DMARC1; p=reject", "a@pass.example", "example.com",
	 "{\"result\":\"pass\""},
	{"dkim aligned, but not strictly", "v=DMARC1; p=reject; adkim=s", "a@pass.example",
	 "example.com", "{\"result\":\"fail\""},
	{"dkim strictly", "v=DMARC1; p=reject; adkim=s", "a@pass.example", "mail.example.com",
	 "{\"result\":\"pass\""},
	{"dkim by others", "v=DMARC1; p=reject", "a@pass.example", "example.org",
	 "{\"result\":\"fail\""},
	{"subdomain policy", "v=DMARC1; p=reject; sp=quarantine; pct=20", "a@q.example.com", NULL,
	 "{\"result\":\"fail\",\"domain\":\"mail.example.com\",\"policy\":\"quarantine\","
	 "\"policy_domain\":\"example.com\",\"percent\":20,"},
};

/* Runs the chain on a message; `rcpt` set: what goes on. */
static Harness *
run_checks(const DmarcCase *c, const char *text, const char *yaml)
{
	static DkimKey *key;
	static char *record;
	if (key == NULL) {
		key = dkim_private_new(DKIM_ED25519, 0, NULL);
		record = dkim_key_record(key);
	}
	const Zone rows[] = {
		{"_dmarc.example.com", DNS_TXT, DNS_OK, {c->record}},
		{"p.example.com", DNS_TXT, DNS_OK, {"v=spf1 ip4:192.0.2.1 -all"}},
		{"q.example.com", DNS_TXT, DNS_OK, {"v=spf1 -all"}},
		{"t.example.com", DNS_TXT, DNS_TEMP, {NULL}},
		{"pass.example", DNS_TXT, DNS_OK, {"v=spf1 +all"}},
		{"sel._domainkey.example.com", DNS_TXT, DNS_OK, {record}},
		{"sel._domainkey.mail.example.com", DNS_TXT, DNS_OK, {record}},
		{"sel._domainkey.example.org", DNS_TXT, DNS_OK, {record}},
		{NULL, 0, 0, {NULL}},
	};
	g_autofree char *message = c->dkim != NULL ? signed_message(key, c->dkim) : g_strdup(text);
	Harness *h = zone_setup(yaml, rows);
	g_autoptr(HostPort) remote = host_port_new("192.0.2.1", 4000);
	g_autoptr(json_t) meta = json_pack("{s:s}", "ehlo_host", "client.example");
	tx_set_hosts(h->tx, remote, NULL);
	tx_set_smtp_meta(h->tx, meta);
	harness_mail(h, c->sender);
	harness_rcpt(h, "bob@example.net");
	harness_body(h, message);
	harness_turn(h);
	return h;
}

static char *
body_of(const Harness *h)
{
	size_t len;
	const TxBody *body = harness_port((Harness *)h, 0)->tx->body;
	assert_non_null(body);
	char *text = blob_to_string(body->raw, 100000, &len, NULL);
	assert_non_null(text);
	return text;
}

static void
test_dmarc(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(dmarc_cases); i++) {
		Harness *h = run_checks(&dmarc_cases[i], MESSAGE, CHECKS END);
		g_autofree char *text = json_print(harness_output(h, "dmarc"));
		if (!g_str_has_prefix(text, dmarc_cases[i].want))
			fail_msg("%s: %s", dmarc_cases[i].name, text);
		zone_teardown(h);
	}
	static const char *const senders[] = {"To: x\r\n\r\n", "From: a@b.c\r\nFrom: d@e.f\r\n\r\n",
					      "From: a@b.c, d@e.f\r\n\r\n"};
	for (size_t i = 0; i < G_N_ELEMENTS(senders); i++) {
		Harness *h = run_checks(&dmarc_cases[1], senders[i], CHECKS END);
		g_autofree char *text = json_print(harness_output(h, "dmarc"));
		assert_string_equal(text, "{\"result\":\"permerror\"}");
		zone_teardown(h);
	}
}

static void
test_dmarc_matcher(void **state)
{
	(void)state;
	static const struct {
		const char *match;
		bool rejected;
	} runs[] = {
		{"result: fail, policy: reject", true},
		{"result: fail", true},
		{"policy: reject", true},
		{"result: pass", false},
		{"result: fail, policy: none", false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *yaml = g_strdup_printf(
			CHECKS "- {filter: policy_action, tag: d, action: REJECT, match: "
			       "{matcher: dmarc, %s}}\n" END,
			runs[i].match);
		Harness *h = run_checks(&dmarc_cases[4], MESSAGE, yaml);
		assert_int_equal(h->tx->mail_response != NULL, runs[i].rejected);
		zone_teardown(h);
	}
}

static void
test_auth_results(void **state)
{
	(void)state;
	static const char forged[] =
		"Received: one\r\n"
		"Authentication-Results: mx.us.example; spf=pass smtp.mailfrom=bank.test\r\n"
		"authentication-results:\r\n (c (d)) \"MX.US.example\" 1;\r\n dkim=pass\r\n"
		"Authentication-Results: other.example; spf=pass\r\n"
		"AUTHENTICATION-RESULTS: mx.us.\r\n example; spf=pass\r\n"
		"Authentication-Results: mx.us.example\r\n"
		"Authentication-Results: (never closed mx.us.example; spf=pass\r\n"
		"From: a@mail.example.com\r\n"
		"Subject: Authentication-Results: mx.us.example; x\r\n\r\n"
		"Authentication-Results: mx.us.example; in the body\r\n";
	static const char want[] = "Authentication-Results: mx.us.example;\r\n"
				   "\tspf=pass\r\n\t smtp.mailfrom=a@p.example.com;\r\n"
				   "\tdkim=none;\r\n"
				   "\tdmarc=pass\r\n\t header.from=mail.example.com\r\n"
				   "Received: one\r\n"
				   "Authentication-Results: other.example; spf=pass\r\n"
				   "AUTHENTICATION-RESULTS: mx.us.\r\n example; spf=pass\r\n"
				   "From: a@mail.example.com\r\n"
				   "Subject: Authentication-Results: mx.us.example; x\r\n\r\n"
				   "Authentication-Results: mx.us.example; in the body\r\n";
	Harness *h = run_checks(&dmarc_cases[1], forged, CHECKS END);
	g_autofree char *text = body_of(h);
	assert_string_equal(text, want);
	zone_teardown(h);
}

/* Names of the peer's choice cannot say more than they are. */
static void
test_auth_results_quoting(void **state)
{
	(void)state;
	DmarcCase c = dmarc_cases[1];
	c.sender = "\"x; dkim=pass\"@p.example.com";
	Harness *h = run_checks(&c, MESSAGE, CHECKS END);
	g_autofree char *text = body_of(h);
	assert_non_null(strstr(text, "smtp.mailfrom=\"\\\"x; dkim=pass\\\"@p.example.com\";"));
	zone_teardown(h);
	Harness *bare = run_checks(&c, MESSAGE, "- {filter: auth_results}\n" END);
	g_autofree char *none = body_of(bare);
	assert_true(g_str_has_prefix(none, "Authentication-Results: test.example; none\r\nFrom"));
	zone_teardown(bare);
}

/* Freed in the middle of it: silence. */
static void
test_free_while_waiting(void **state)
{
	(void)state;
	for (unsigned turns = 0; turns < 8; turns++) {
		g_autoptr(DkimKey) key = dkim_private_new(DKIM_ED25519, 0, NULL);
		g_autofree char *message = signed_message(key, "example.com");
		Harness *h = zone_setup("- {filter: spf_check, extra_domains: [soft.example]}\n"
					"- {filter: dkim_check}\n- {filter: dmarc_check}\n" END,
					policies);
		g_autoptr(HostPort) remote = host_port_new("192.0.2.1", 4000);
		tx_set_hosts(h->tx, remote, NULL);
		harness_mail(h, "a@soft.example");
		harness_rcpt(h, "bob@example.net");
		harness_body(h, message);
		for (unsigned i = 0; i < turns; i++)
			(void)defer_run(h->queue, 1);
		zone_teardown(h);
	}
}

/* A resolver that never answers: the chain waits, and nothing has gone on. */
static void
test_silence(void **state)
{
	(void)state;
	Harness *h = zone_setup("- {filter: spf_check}\n" END, policies);
	zone_dns.silent = true;
	g_autoptr(HostPort) remote = host_port_new("192.0.2.1", 4000);
	tx_set_hosts(h->tx, remote, NULL);
	harness_mail(h, "a@soft.example");
	harness_turn(h);
	assert_int_equal(zone_dns.open, 1);
	assert_int_equal(h->opened->len, 0);
	tx_cancel(h->tx);
	harness_turn(h);
	zone_teardown(h);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spf),
		cmocka_unit_test(test_spf_results),
		cmocka_unit_test(test_dkim_pass),
		cmocka_unit_test(test_dkim_sign),
		cmocka_unit_test(test_dkim_sign_conf),
		cmocka_unit_test(test_dkim),
		cmocka_unit_test(test_dkim_cap),
		cmocka_unit_test(test_dmarc),
		cmocka_unit_test(test_dmarc_matcher),
		cmocka_unit_test(test_auth_results),
		cmocka_unit_test(test_auth_results_quoting),
		cmocka_unit_test(test_free_while_waiting),
		cmocka_unit_test(test_silence),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
