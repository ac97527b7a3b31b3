/* SPDX-License-Identifier: Apache-2.0 */
/* ARC: which sets there are, what we seal we verify, and nothing that was changed. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <string.h>

#include "mailauth/arc.h"
#include "mailauth/authres.h"
#include "stub_dns.h"

#define NOW ((int64_t)1700000000)
#define MESSAGE                                                                                    \
	"Authentication-Results: mx.us.test; spf=pass\r\n\tsmtp.mailfrom=a@p.test\r\n"             \
	"Authentication-Results: mx.other.test; spf=fail\r\n"                                      \
	"From: Joe <joe@p.test>\r\nSubject: dinner\r\nX-Other: y\r\n\r\nHi.\r\n\r\n"

static DkimKey *rsa, *ed25519;
static StubRow zone[4];

static int
make_keys(void **state)
{
	(void)state;
	rsa = dkim_private_new(DKIM_RSA, 1024, NULL);
	ed25519 = dkim_private_new(DKIM_ED25519, 0, NULL);
	zone[0] = (StubRow){"r._domainkey.one.test", DNS_TXT, DNS_OK, {dkim_key_record(rsa)}};
	zone[1] = (StubRow){"e._domainkey.two.test", DNS_TXT, DNS_OK, {dkim_key_record(ed25519)}};
	zone[2] = (StubRow){"t._domainkey.three.test", DNS_TXT, DNS_TEMP, {NULL}};
	return 0;
}

static int
free_keys(void **state)
{
	(void)state;
	dkim_key_unref(rsa);
	dkim_key_unref(ed25519);
	g_free((char *)zone[0].records[0]);
	g_free((char *)zone[1].records[0]);
	return 0;
}

/* ---- sealing and verifying ---- */

static char *
seal_as(const char *message, ArcStatus status, DkimKey *key, const char *selector,
	const char *domain)
{
	const ArcSealer sealer = {
		.key = key, .domain = domain, .selector = selector, .authserv_id = "mx.us.test"};
	g_autoptr(Blob) blob = blob_new_bytes(message, strlen(message));
	g_autoptr(GError) error = NULL;
	unsigned instance = 0;
	g_autofree char *set = arc_seal(&sealer, blob, status, NOW, &instance, &error);
	if (set == NULL)
		fail_msg("%s", error->message);
	assert_int_equal(instance == 0, *set == '\0');
	return g_strconcat(set, message, NULL);
}

/* The next set, by two sealers in turn. */
static char *
seal(const char *message, ArcStatus status, unsigned turn)
{
	return turn % 2 == 0 ? seal_as(message, status, rsa, "r", "one.test")
			     : seal_as(message, status, ed25519, "e", "two.test");
}

static unsigned asked; /* by the last `verify` */

static ArcVerify *
verify_bytes(const char *message, size_t len)
{
	g_autoptr(Blob) blob = blob_new_bytes(message, len);
	ArcVerify *v = arc_verify_message(blob, NOW, NULL);
	assert_non_null(v);
	char *name;
	for (asked = 0; (name = arc_verify_key_name(v)) != NULL; asked++) {
		DnsAnswer answer;
		assert_true(asked <= ARC_SETS_MAX);
		assert_false(arc_verify_result(v)->decided);
		stub_answer(zone, name, DNS_TXT, &answer);
		arc_verify_key(v, &answer);
		dns_answer_clear(&answer);
		g_free(name);
	}
	assert_true(arc_verify_result(v)->decided);
	return v;
}

static ArcStatus
verify(const char *message)
{
	ArcVerify *v = verify_bytes(message, strlen(message));
	ArcStatus status = arc_verify_result(v)->status;
	assert_int_equal(arc_verify_result(v)->reason == NULL,
			 status == ARC_PASS || status == ARC_NONE);
	arc_verify_free(v);
	return status;
}

static char *
chain_of(unsigned n)
{
	char *message = g_strdup(MESSAGE);
	for (unsigned i = 0; i < n; i++) {
		char *next = seal(message, i == 0 ? ARC_NONE : ARC_PASS, i);
		g_free(message);
		message = next;
	}
	return message;
}

static void
test_chain(void **state)
{
	(void)state;
	assert_int_equal(verify(MESSAGE), ARC_NONE);
	assert_int_equal(asked, 0);
	g_autofree char *message = g_strdup(MESSAGE);
	for (unsigned i = 1; i <= ARC_SETS_MAX; i++) {
		char *next = seal(message, i == 1 ? ARC_NONE : ARC_PASS, i);
		g_free(message);
		message = next;
		if (i > 5 && i < 49)
			continue;
		ArcVerify *v = verify_bytes(message, strlen(message));
		assert_int_equal(arc_verify_result(v)->status, ARC_PASS);
		assert_int_equal(arc_verify_result(v)->count, i);
		assert_string_equal(arc_verify_sealer(v, i - 1),
				    i % 2 == 0 ? "one.test" : "two.test");
		assert_int_equal(asked, i); /* the newest seal has the key of the newest AMS */
		arc_verify_free(v);
	}
	/* no 51st: neither made nor accepted */
	g_autofree char *full = seal(message, ARC_PASS, 0);
	assert_string_equal(full, message);
	g_autofree char *more = g_strconcat("ARC-Seal: i=51; cv=pass\r\n", message, NULL);
	assert_int_equal(verify(more), ARC_FAIL);
	assert_int_equal(asked, 0);
}

static void
test_fields(void **state)
{
	(void)state;
	g_autofree char *message = seal(MESSAGE, ARC_NONE, 0);
	static const char *const parts[] = {
		"ARC-Seal: i=1; a=rsa-sha256; cv=none; d=one.test; s=r; t=1700000000;",
		"\r\nARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed;",
		"h=from : subject : from;",
		("\r\nARC-Authentication-Results: i=1; mx.us.test;\r\n\tspf=pass\r\n"
		 "\tsmtp.mailfrom=a@p.test\r\nAuthentication-Results: mx.us.test;"),
	};
	const char *at = message;
	for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
		const char *found = strstr(at, parts[i]);
		if (found == NULL)
			fail_msg("no %s in %s", parts[i], at);
		at = found;
	}
	/* nothing of ours to say */
	g_autofree char *plain = seal("From: a@b.test\r\n\r\n", ARC_NONE, 1);
	assert_non_null(strstr(plain, "ARC-Authentication-Results: i=1; mx.us.test; none\r\n"));
	assert_int_equal(verify(plain), ARC_PASS);
}

/* What others may change on the way, and what not. */
static void
test_changes(void **state)
{
	(void)state;
	static const struct {
		const char *from, *to;
		ArcStatus want;
	} runs[] = {
		{"X-Other: y", "X-Other: n", ARC_PASS},
		{"Authentication-Results: mx.other.test", "Authentication-Results: mx.o.test",
		 ARC_PASS},
		{"\r\nHi.", "\r\nHi. \t", ARC_PASS}, /* relaxed */
		{"Subject: dinner", "SUBJECT:  dinner ", ARC_PASS},
		{"Subject: dinner", "Subject: lunch", ARC_FAIL},
		{"From: Joe", "From: eve@x.test\r\nFrom: Joe", ARC_FAIL},
		{"Hi.", "Ho.", ARC_FAIL},
		{"i=1; mx.us.test;", "i=1; mx.us2.test;", ARC_FAIL},
		{"spf=pass\r\n\tsmtp.mailfrom=a@p.test\r\nARC",
		 "spf=fail\r\n\tsmtp.mailfrom=a@p.test\r\nARC", ARC_FAIL},
		{"cv=none", "cv=pass", ARC_FAIL},
		{"cv=pass", "cv=none", ARC_FAIL},
		{"d=one.test", "d=two.test", ARC_FAIL},
		{"s=r", "s=x", ARC_FAIL},
		{"ARC-Seal: i=1", "ARC-Sea: i=1", ARC_FAIL},
		{"ARC-Message-Signature: i=1", "X: i=1", ARC_FAIL},
		{"ARC-Authentication-Results: i=1", "X: i=1", ARC_FAIL},
		{"ARC-Seal: i=2", "ARC-Seal: i=3", ARC_FAIL},
		{"ARC-Seal: i=2", "ARC-Seal: i=0", ARC_FAIL},
		{"ARC-Seal: i=2", "ARC-Seal: x=2", ARC_FAIL},
		{"ARC-Seal: i=2", "ARC-Seal: i=02", ARC_FAIL},
		{"ARC-Seal: i=2;", "ARC-Seal: i=2; h=from;", ARC_FAIL},
		{"ARC-Seal: i=2;", "ARC-Seal: i=2; z=1;", ARC_FAIL},
	};
	g_autofree char *good = chain_of(2);
	assert_int_equal(verify(good), ARC_PASS);
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_auto(GStrv) parts = g_strsplit(good, runs[i].from, 2);
		if (parts[1] == NULL)
			fail_msg("%s does not occur", runs[i].from);
		g_autofree char *changed = g_strconcat(parts[0], runs[i].to, parts[1], NULL);
		if (verify(changed) != runs[i].want)
			fail_msg("%s -> %s", runs[i].from, runs[i].to);
	}
}

/* Each byte of the three fields of each set, of the covered fields and of the body. */
static void
test_every_byte(void **state)
{
	(void)state;
	g_autofree char *good = chain_of(2);
	const size_t len = strlen(good), covered = (size_t)(strstr(good, "From: Joe") - good);
	const size_t results = (size_t)(strstr(good, "\r\nAuthentication-Results:") - good) + 2;
	const size_t other = (size_t)(strstr(good, "X-Other") - good);
	const size_t body = (size_t)(strstr(good, "\r\n\r\n") - good);
	/* bits at the end of base64 that say nothing */
	const size_t spare = (size_t)(strstr(good, "\r\nARC-Message-Signature") - good) - 4;
	for (size_t i = 0; i < len; i++) {
		char before = good[i];
		if (strchr(" \t\r\n", before) != NULL || (i >= results && i < covered) ||
		    (i >= other && i < body) || (i >= spare && i < spare + 4))
			continue;
		good[i] = before == '7' ? '8' : '7';
		ArcVerify *v = verify_bytes(good, len);
		if (arc_verify_result(v)->status == ARC_PASS)
			fail_msg("byte %zu: %.*s[%c]%s", i, (int)i, good, before, good + i + 1);
		arc_verify_free(v);
		good[i] = before;
	}
	assert_int_equal(verify(good), ARC_PASS);
}

/* A chain that has failed is sealed once, over the new set alone, and then left alone. */
static void
test_failed(void **state)
{
	(void)state;
	g_autofree char *good = chain_of(2);
	g_auto(GStrv) parts = g_strsplit(good, "Hi.", 2);
	g_autofree char *broken = g_strconcat(parts[0], "Ho.", parts[1], NULL);
	assert_int_equal(verify(broken), ARC_FAIL);
	g_autofree char *sealed = seal(broken, ARC_FAIL, 0);
	assert_true(g_str_has_prefix(sealed, "ARC-Seal: i=3; a=rsa-sha256; cv=fail; "));
	ArcVerify *v = verify_bytes(sealed, strlen(sealed));
	assert_int_equal(arc_verify_result(v)->status, ARC_FAIL);
	assert_string_equal(arc_verify_result(v)->reason,
			    "the newest seal says that the chain has failed");
	assert_int_equal(arc_verify_result(v)->count, 3);
	arc_verify_free(v);
	g_autofree char *again = seal(sealed, ARC_FAIL, 1);
	assert_string_equal(again, sealed);
	g_autofree char *unknown = seal(good, ARC_TEMPERROR, 1);
	assert_string_equal(unknown, good);
}

/* What cannot be sealed: not what was verified, no From, no header. */
static void
test_refused(void **state)
{
	(void)state;
	g_autofree char *good = chain_of(1);
	const struct {
		const char *message;
		ArcStatus status;
		const char *want;
	} runs[] = {
		{MESSAGE, ARC_PASS, "these sets were not verified"},
		{good, ARC_NONE, "these sets were not verified"},
		{"ARC-Seal: i=1; cv=none\r\nFrom: a@b.test\r\n\r\n", ARC_PASS,
		 "these sets were not verified"},
		{"Subject: x\r\n\r\n", ARC_NONE, "the message has no From"},
		{"no header\r\nat all\r\n\r\n", ARC_NONE, "the header is malformed"},
		{" goes on\r\nFrom: a@b.test\r\n\r\n", ARC_NONE, "the header is malformed"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		const ArcSealer sealer = {
			.key = rsa, .domain = "one.test", .selector = "r", .authserv_id = "x.test"};
		g_autoptr(Blob) blob = blob_new_bytes(runs[i].message, strlen(runs[i].message));
		g_autoptr(GError) error = NULL;
		unsigned instance = 0;
		assert_null(arc_seal(&sealer, blob, runs[i].status, NOW, &instance, &error));
		assert_string_equal(error->message, runs[i].want);
	}
}

/* Keys: unknown for now is neither pass nor fail; one that is gone fails. */
static void
test_keys(void **state)
{
	(void)state;
	g_autofree char *temp = seal_as(MESSAGE, ARC_NONE, rsa, "t", "three.test");
	assert_int_equal(verify(temp), ARC_TEMPERROR);
	g_autofree char *over = seal(temp, ARC_PASS, 0);
	ArcVerify *v = verify_bytes(over, strlen(over));
	assert_int_equal(arc_verify_result(v)->status, ARC_TEMPERROR);
	assert_int_equal(arc_verify_result(v)->instance, 1);
	arc_verify_free(v);
	g_autofree char *gone = seal_as(MESSAGE, ARC_NONE, rsa, "x", "one.test");
	assert_int_equal(verify(gone), ARC_FAIL);
	assert_int_equal(asked, 1); /* no word about the seal once the message's own fails */
	g_autofree char *wrong = seal_as(MESSAGE, ARC_NONE, rsa, "e", "two.test");
	assert_int_equal(verify(wrong), ARC_FAIL);
	g_autofree char *good = chain_of(1);
	g_autoptr(Blob) blob = blob_new_bytes(good, strlen(good));
	v = arc_verify_message(blob, NOW, NULL);
	arc_verify_give_up(v);
	assert_int_equal(arc_verify_result(v)->status, ARC_TEMPERROR);
	assert_null(arc_verify_key_name(v));
	arc_verify_free(v);
}

/* ---- sets ---- */

#define SEAL(i, cv) "ARC-Seal: i=" #i "; cv=" #cv "\r\n"
#define AMS(i)      "ARC-Message-Signature: i=" #i "; a=b\r\n"
#define AAR(i)      "ARC-Authentication-Results: i=" #i "; x.test; none\r\n"

static void
test_sets(void **state)
{
	(void)state;
	static const struct {
		const char *header;
		unsigned count;
		const char *fault; /* start of it */
	} runs[] = {
		{"", 0, NULL},
		{"From: a\r\n", 0, NULL},
		{SEAL(1, none) AMS(1) AAR(1), 1, NULL},
		{AAR(1) SEAL(1, none) "X: y\r\n" AMS(1), 1, NULL},
		{SEAL(1, none) AMS(1) "arc-authentication-RESULTS: (c) i (c) = (c) 1 (c) ; x\r\n",
		 1, NULL},
		{SEAL(1, None) AMS(1) AAR(1), 1, NULL},
		{SEAL(2, pass) AMS(2) AAR(2) SEAL(1, none) AMS(1) AAR(1), 2, NULL},
		{SEAL(1, none) AMS(1), 1, "a set is not"},
		{SEAL(1, none) AAR(1), 1, "a set is not"},
		{AMS(1) AAR(1), 1, "a set is not"},
		{SEAL(2, pass) AMS(2) AAR(2), 2, "a set is not"},
		{SEAL(1, none) SEAL(1, none) AMS(1) AAR(1), 1, "an instance has"},
		{SEAL(1, none) AMS(1) AMS(1) AAR(1), 1, "an instance has"},
		{SEAL(1, none) AMS(1) AAR(1) AAR(1), 1, "an instance has"},
		{SEAL(1, pass) AMS(1) AAR(1), 1, "cv="},
		{SEAL(1, x) AMS(1) AAR(1), 1, "cv="},
		{"ARC-Seal: i=1\r\n" AMS(1) AAR(1), 1, "cv="},
		{SEAL(1, fail) AMS(1) AAR(1), 1, "the newest seal"},
		{SEAL(2, fail) AMS(2) AAR(2), 2, "the newest seal"},
		{SEAL(2, pass) AMS(2) AAR(2) SEAL(1, fail) AMS(1) AAR(1), 2, "cv="},
		{SEAL(2, none) AMS(2) AAR(2) SEAL(1, none) AMS(1) AAR(1), 2, "cv="},
		{SEAL(0, none) AMS(1) AAR(1), 1, "an instance (i=)"},
		{SEAL(1, none) AMS(1) AAR(), 1, "an instance (i=)"},
		{SEAL(1, none) AMS(1) AAR(x), 1, "an instance (i=)"},
		{SEAL(1, none) AMS(1) "ARC-Authentication-Results: i=1 x\r\n", 1,
		 "an instance (i=)"},
		{SEAL(1, none) AMS(1) "ARC-Authentication-Results: i=(1; x\r\n", 1,
		 "an instance (i=)"},
		{SEAL(51, pass), 0, "an instance (i=)"},
		{SEAL(50, pass), 50, "a set is not"},
		{SEAL(001, none) AMS(1) AAR(1), 1, "an instance (i=)"},
		{SEAL(-1, none), 0, "an instance (i=)"},
		{"ARC-Seal: nothing\r\n", 0, "an instance (i=)"},
		{"ARC-Seal:\r\n", 0, "an instance (i=)"},
		{"ARC-Sealed: i=1\r\n", 0, NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		MimeHeader header;
		ArcSets sets;
		MimeHeaderFault fault = mime_header_scan_lenient(runs[i].header,
								 strlen(runs[i].header), &header);
		assert_int_equal(fault, MIME_HEADER_OK);
		arc_sets_collect(&header, &sets);
		if (sets.count != runs[i].count ||
		    (sets.fault != NULL) != (runs[i].fault != NULL) ||
		    (sets.fault != NULL && !g_str_has_prefix(sets.fault, runs[i].fault)))
			fail_msg("%s: %u, %s", runs[i].header, sets.count, sets.fault);
		mime_header_clear(&header);
	}
}

/* A signature that covers ARC's own fields, or no From, is none (RFC 8617 4.1.2). */
static void
test_names(void **state)
{
	(void)state;
	static const struct {
		const char *names, *want;
	} runs[] = {
		{"from:subject", "bh= is no hash"}, /* so far it is good */
		{"subject", "From is not signed"},
		{"from:arc-seal", "a field of ARC itself is in h="},
		{"from:ARC-Message-Signature", "a field of ARC itself is in h="},
		{"from:ARC-Authentication-Results", "a field of ARC itself is in h="},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *text = g_strdup_printf(
			"ARC-Seal: i=1; a=rsa-sha256; cv=none; d=one.test; s=r; b=AAAA\r\n"
			"ARC-Message-Signature: i=1; a=rsa-sha256; d=one.test; s=r; h=%s; bh=x; "
			"b=AAAA\r\n" AAR(1) "From: a@b.test\r\n\r\n",
			runs[i].names);
		ArcVerify *v = verify_bytes(text, strlen(text));
		assert_int_equal(arc_verify_result(v)->status, ARC_FAIL);
		assert_string_equal(arc_verify_result(v)->reason, runs[i].want);
		assert_int_equal(arc_verify_result(v)->instance, 1);
		arc_verify_free(v);
	}
}

/* ---- our own results ---- */

static void
test_results(void **state)
{
	(void)state;
	static const struct {
		const char *value, *want;
	} runs[] = {
		{" mx.us.test; spf=pass", "spf=pass"},
		{" MX.us.test 1;\r\n\tspf=pass;\r\n\tdkim=fail ", "spf=pass;\r\n\tdkim=fail"},
		{" (a;b) \"mx.us.test\" (c;\"d); spf=pass", "spf=pass"},
		{" mx.us.test; none", NULL},
		{" mx.us.test;", NULL},
		{" mx.us.test", NULL},
		{" mx.other.test; spf=pass", NULL},
		{" (mx.us.test; spf=pass", NULL},
		{" \"mx.us.test; spf=pass", NULL},
		{"", NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autofree char *got = authres_results(runs[i].value, strlen(runs[i].value),
						       "mx.us.test");
		if (g_strcmp0(got, runs[i].want) != 0)
			fail_msg("%s: %s", runs[i].value, got);
	}
	g_autofree char *plain = authres_value("mx.us.test");
	g_autofree char *quoted = authres_value("a \"b");
	assert_string_equal(plain, "mx.us.test");
	assert_string_equal(quoted, "\"a \\\"b\"");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chain),   cmocka_unit_test(test_fields),
		cmocka_unit_test(test_changes), cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_failed),  cmocka_unit_test(test_refused),
		cmocka_unit_test(test_keys),    cmocka_unit_test(test_sets),
		cmocka_unit_test(test_names),   cmocka_unit_test(test_results),
	};
	return cmocka_run_group_tests(tests, make_keys, free_keys);
}
