/* SPDX-License-Identifier: Apache-2.0 */
/* DKIM: tag lists, canonical forms, keys; what we sign we verify, and nothing that was changed. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "big_keys.h"
#include "mailauth/dkim_message.h"
#include "mailauth/dkim_sign.h"
#include "mailauth/psl.h"
#include "mailauth/tags.h"

#define NOW  ((int64_t)1700000000)
#define HEAD "From: Joe <joe@p.test>\r\nTo: Sue <sue@x.test>\r\nSubject: dinner\r\n"

/* ---- tags ---- */

static void
test_tags(void **state)
{
	(void)state;
	static const struct {
		const char *text, *want; /* "name=value|..."; NULL: no tag list */
	} runs[] = {
		{"a=b", "a=b|"},
		{" a = b ; c=d;", "a=b|c=d|"},
		{"a=b;\r\n\tc=d e\r\n ;", "a=b|c=d e|"},
		{"a=;b=", "a=|b=|"},
		{"a=b=c", "a=b=c|"},
		{"a_1=x", "a_1=x|"},
		{"a=b; a=c", NULL},
		{"a=b;;c=d", NULL},
		{"a=b;c", NULL},
		{"1=b", NULL},
		{"a-b=c", NULL},
		{"a=\x01", NULL},
		{"=b", NULL},
		{"", NULL},
		{";", NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		TagList list;
		bool ok = tags_parse(runs[i].text, strlen(runs[i].text), &list);
		if (ok != (runs[i].want != NULL))
			fail_msg("'%s'", runs[i].text);
		if (!ok)
			continue;
		g_autoptr(GString) got = g_string_new(NULL);
		for (size_t j = 0; j < list.n; j++) {
			g_autofree char *value = tag_text(&list.tags[j]);
			g_string_append_printf(got, "%.*s=%s|", (int)list.tags[j].name_len,
					       list.tags[j].name, value);
		}
		assert_string_equal(got->str, runs[i].want);
		tags_clear(&list);
	}
	for (unsigned n = TAGS_MAX; n <= TAGS_MAX + 1; n++) {
		g_autoptr(GString) text = g_string_new(NULL);
		TagList list;
		for (unsigned i = 0; i < n; i++)
			g_string_append_printf(text, "t%u=x;", i);
		bool ok = tags_parse(text->str, text->len, &list);
		assert_int_equal(ok, n == TAGS_MAX);
		if (ok)
			tags_clear(&list);
	}
}

/* ---- canonical forms ---- */

static void
collect(void *arg, const char *data, size_t len)
{
	g_string_append_len(arg, data, (gssize)len);
}

static void
body_in_pieces(CanonForm form, const char *body, size_t len, size_t cut, const char *want)
{
	g_autoptr(GString) got = g_string_new(NULL);
	CanonBody canon;
	canon_body_init(&canon, form, collect, got);
	canon_body_feed(&canon, body, cut);
	canon_body_feed(&canon, body + cut, len - cut);
	canon_body_end(&canon);
	assert_string_equal(got->str, want);
	assert_int_equal(canon.len, got->len);
}

static void
test_bodies(void **state)
{
	(void)state;
	static const struct {
		const char *body, *simple, *relaxed;
	} runs[] = {
		{"", "\r\n", ""},
		{"\r\n", "\r\n", ""},
		{"\r\n\r\n", "\r\n", ""},
		{" \r\n", " \r\n", ""},
		{" C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"},
		{"x", "x\r\n", "x\r\n"},
		{"x \t", "x \t\r\n", "x\r\n"},
		{"\r\n\r\nx\r\n", "\r\n\r\nx\r\n", "\r\n\r\nx\r\n"},
		{"a\r\n \t\r\n\r\nb", "a\r\n \t\r\n\r\nb\r\n", "a\r\n\r\n\r\nb\r\n"},
		{"a\rb\nc", "a\rb\nc\r\n", "a\rb\nc\r\n"},
		{"a\r\r\n", "a\r\r\n", "a\r\r\n"},
		{"a \r b\r\n", "a \r b\r\n", "a \r b\r\n"},
		{"a\r", "a\r\r\n", "a\r\r\n"},
		{"\t\tx", "\t\tx\r\n", " x\r\n"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		size_t len = strlen(runs[i].body);
		for (size_t cut = 0; cut <= len; cut++) {
			body_in_pieces(CANON_SIMPLE, runs[i].body, len, cut, runs[i].simple);
			body_in_pieces(CANON_RELAXED, runs[i].body, len, cut, runs[i].relaxed);
		}
	}
}

static void
test_fields(void **state)
{
	(void)state;
	static const struct {
		const char *field, *relaxed;
	} runs[] = {
		{"A: X", "a:X\r\n"}, /* RFC 6376 3.4.5 */
		{"B : Y\t\r\n\tZ  ", "b:Y Z\r\n"},
		{"Subject:", "subject:\r\n"},
		{"Subject: \t", "subject:\r\n"},
		{"Subject:  a  b\r\n c", "subject:a b c\r\n"},
		{"Subject: a\r\n\tb:c", "subject:a b:c\r\n"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autoptr(GString) simple = g_string_new(NULL);
		g_autoptr(GString) relaxed = g_string_new(NULL);
		g_autofree char *same = g_strconcat(runs[i].field, "\r\n", NULL);
		canon_field(CANON_SIMPLE, runs[i].field, strlen(runs[i].field), simple);
		canon_field(CANON_RELAXED, runs[i].field, strlen(runs[i].field), relaxed);
		assert_string_equal(simple->str, same);
		assert_string_equal(relaxed->str, runs[i].relaxed);
	}
}

/* ---- keys ---- */

static DkimKey *keys[DKIM_TYPES];
static char *key_records[DKIM_TYPES];

static int
make_keys(void **state)
{
	(void)state;
	keys[DKIM_RSA] = dkim_private_new(DKIM_RSA, 1024, NULL);
	keys[DKIM_ED25519] = dkim_private_new(DKIM_ED25519, 0, NULL);
	for (unsigned i = 0; i < DKIM_TYPES; i++) {
		assert_non_null(keys[i]);
		key_records[i] = dkim_key_record(keys[i]);
	}
	return 0;
}

static int
drop_keys(void **state)
{
	(void)state;
	for (unsigned i = 0; i < DKIM_TYPES; i++) {
		dkim_key_unref(keys[i]);
		g_free(key_records[i]);
	}
	return 0;
}

/* RFC 8463 A.2: the public key that goes with its record. */
#define ED_P "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="

static void
test_key_records(void **state)
{
	(void)state;
	static const struct {
		const char *record;
		bool is_record, usable;
	} runs[] = {
		{"v=DKIM1; k=ed25519; p=" ED_P, true, true},
		{"k=ed25519; p=" ED_P, true, true},
		{"v=DKIM1;k=ed25519;p=11qYAYKxCrfVS/7TyWQH Og7hcvPapiMlrwIaaPcHURo=", true, true},
		{"k=ed25519; p=" ED_P "; v=DKIM1", false, false},
		{"v=DKIM2; k=ed25519; p=" ED_P, false, false},
		{"v=DKIM1; k=ed25519", false, false},
		{"v=spf1 -all", false, false},
		{"v=DKIM1; k=ed25519; p=", true, false},
		{"v=DKIM1; k=rsa; p=" ED_P, true, false},
		{"v=DKIM1; p=" ED_P, true, false},
		{"v=DKIM1; k=dsa; p=" ED_P, true, false},
		{"v=DKIM1; k=ed25519; p=AAAA", true, false},
		{"v=DKIM1; k=ed25519; p=*" ED_P, true, false},
		{"v=DKIM1; k=ed25519; h=sha1; p=" ED_P, true, false},
		{"v=DKIM1; k=ed25519; h=sha1:sha256; p=" ED_P, true, true},
		{"v=DKIM1; k=ed25519; s=tlsrpt; p=" ED_P, true, false},
		{"v=DKIM1; k=ed25519; s=email; p=" ED_P, true, true},
		{"v=DKIM1; k=ed25519; s=*; n=note; x=y; p=" ED_P, true, true},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		DkimPublic pub = {0};
		bool is_record = dkim_public_parse(runs[i].record, &pub);
		if (is_record != runs[i].is_record || (pub.key != NULL) != runs[i].usable)
			fail_msg("%s: %s", runs[i].record, pub.fault);
		dkim_public_clear(&pub);
	}
}

/* ---- messages ---- */

typedef struct Dkim {
	DkimStatus status;
	const char *reason, *word;
	unsigned count, passes;
} Dkim;

static Dkim
verify_with(const char *message, size_t len, const char *record, DnsStatus dns, size_t piece)
{
	const char *end = memmem(message, len, "\r\n\r\n", 4);
	size_t header = end != NULL ? (size_t)(end - message) + 4 : len;
	DkimVerify *v = dkim_verify_new(message, header, NOW);
	for (size_t at = header; at < len; at += piece)
		dkim_verify_body(v, message + at, MIN(piece, len - at));
	dkim_verify_body_end(v);
	Dkim got = {.count = dkim_verify_count(v), .reason = "no signature", .word = "none"};
	DnsRecord row = {.text = (char *)record};
	DnsAnswer answer = {.status = dns, .records = g_ptr_array_new()};
	if (dns == DNS_OK)
		g_ptr_array_add(answer.records, &row);
	for (unsigned i = got.count; i-- > 0;) {
		g_autofree char *name = dkim_verify_key_name(v, i);
		if (name != NULL)
			dkim_verify_key(v, i, &answer);
		const DkimResult *r = dkim_verify_result(v, i);
		assert_true(r->decided);
		got.status = r->status;
		got.reason = r->reason; /* static */
		got.word = r->word;
		got.passes += r->status == DKIM_PASS;
	}
	g_ptr_array_unref(answer.records);
	dkim_verify_free(v);
	return got;
}

static Dkim
verify(const char *message, const char *record)
{
	return verify_with(message, strlen(message), record, DNS_OK, 100000);
}

static char *
sign_with(DkimKey *key, CanonForm header, CanonForm body, const char *message, int64_t lifetime)
{
	static const char *const oversign[] = {"From", NULL};
	const DkimSigner signer = {.key = key,
				   .domain = "p.test",
				   .selector = "sel",
				   .header_form = header,
				   .body_form = body,
				   .oversign = oversign,
				   .lifetime = lifetime};
	g_autoptr(Blob) blob = blob_new_bytes(message, strlen(message));
	g_autoptr(GError) error = NULL;
	g_autofree char *fields = dkim_sign(&signer, 1, blob, NOW, &error);
	if (fields == NULL)
		fail_msg("%s", error->message);
	return g_strconcat(fields, message, NULL);
}

static const char *const messages[] = {
	HEAD "\r\nHi.\r\n\r\nWe lost the game.\r\n\r\nJoe.\r\n",
	HEAD "\r\n",
	HEAD,
	HEAD "\r\n\r\n\r\n",
	HEAD "\r\nno end",
	HEAD "\r\n  a \t b  \r\n \r\n\t\r\n",
	HEAD "\r\na\rb\r\r\n\nc",
	"From: a@p.test\r\nX-Foo: one\r\nX-Foo: two\r\n folded\r\nx-foo:three\r\n\r\nbody\r\n",
	"From: =?utf-8?q?=C3=A9?= <a@p.test>\r\nSubject: \xc3\xa9\r\n\r\n\xc3\xa9\r\n",
	"Received: x\r\nReturn-Path: <>\r\nFrom: a@p.test\r\nComments: c\r\n\r\nx\r\n",
};

static void
test_round_trip(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(messages); i++) {
		for (unsigned form = 0; form < 4; form++) {
			for (unsigned type = 0; type < DKIM_TYPES; type++) {
				g_autofree char *text = sign_with(keys[type], form & 1, form >> 1,
								  messages[i], 0);
				size_t len = strlen(text);
				const char *end = strstr(text, "\r\n\r\n");
				size_t body = end != NULL ? len - (size_t)(end - text) - 4 : 0;
				/* The body cut at each of its bytes. */
				for (size_t piece = 1; piece <= body + 1; piece++) {
					Dkim got = verify_with(text, len, key_records[type], DNS_OK,
							       piece);
					if (got.status != DKIM_PASS)
						fail_msg("%zu/%u/%u: %s\n%s", i, form, type,
							 got.reason, text);
				}
			}
		}
	}
}

/* Lines of the field stay short, and it looks as the specification of the behaviour says. */
static void
test_field(void **state)
{
	(void)state;
	g_autofree char *text = sign_with(keys[DKIM_RSA], CANON_RELAXED, CANON_SIMPLE,
					  "From: a@p.test\r\nTo: b\r\nX-Foo: 1\r\nX-Foo: 2\r\n\r\n",
					  60);
	static const char want[] =
		"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=p.test; i=@p.test; "
		"q=dns/txt; s=sel; t=1700000000; x=1700000060; "
		"h=from : to : x-foo : x-foo : from; bh=";
	g_auto(GStrv) lines = g_strsplit(text, "\r\n\t", 0);
	for (char **line = lines; *line != NULL; line++)
		assert_true(strcspn(*line, "\r") <= 76);
	g_autofree char *unfolded = g_strjoinv(" ", lines);
	assert_memory_equal(unfolded, want, strlen(want));
}

/* Whatever is changed in what was signed: no pass. */
static void
test_mutations(void **state)
{
	(void)state;
	g_autofree char *text = sign_with(keys[DKIM_ED25519], CANON_SIMPLE, CANON_SIMPLE,
					  messages[0], 0);
	size_t len = strlen(text);
	const char *value = strstr(text, " b=");
	const char *header = strstr(text, "From:");
	for (size_t i = strlen("DKIM-Signature:"); i < len; i++) {
		if (text + i > value && text + i < header)
			continue; /* the signature itself: below */
		char old = text[i];
		text[i] = (char)(old ^ 1);
		Dkim got = verify_with(text, len, key_records[DKIM_ED25519], DNS_OK, 1000);
		if (got.passes > 0)
			fail_msg("byte %zu: %s", i, text);
		text[i] = old;
	}
	static const char *const added[] = {"From: evil@p.test\r\n", "FROM : evil@p.test\r\n"};
	for (size_t i = 0; i < G_N_ELEMENTS(added); i++) {
		g_autofree char *more = g_strconcat(added[i], text, NULL);
		assert_int_equal(verify(more, key_records[DKIM_ED25519]).passes, 0);
	}
	g_autofree char *fine = g_strconcat("X-New: field\r\n", text, NULL);
	assert_int_equal(verify(fine, key_records[DKIM_ED25519]).status, DKIM_PASS);
	g_autofree char *longer = g_strconcat(text, "more", NULL);
	assert_int_equal(verify(longer, key_records[DKIM_ED25519]).status, DKIM_FAIL);
	assert_int_equal(verify(text, key_records[DKIM_RSA]).status, DKIM_FAIL);
}

/* ---- signatures as others may write them ---- */

/* The tags of a good signature of HEAD and an empty body with one of them replaced; the key makes
 * the signature right again when that is possible. */
static Dkim
verify_tags(const char *tags)
{
	g_autofree char *text = g_strconcat("DKIM-Signature: ", tags, "\r\n" HEAD "\r\n", NULL);
	return verify(text, key_records[DKIM_RSA]);
}

#define EMPTY_SIMPLE "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="
#define BH           "bh=" EMPTY_SIMPLE "; "
#define B            "b=AAAA"

static void
test_refused(void **state)
{
	(void)state;
	static const struct {
		const char *tags;
		DkimStatus status;
		const char *reason;
	} runs[] = {
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; " BH B, DKIM_FAIL,
		 "the signature does not match"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; l=2; " BH B, DKIM_FAIL,
		 "the signature does not match"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; l=1; " BH B, DKIM_FAIL,
		 "l= is not the length of the body"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; l=0; " BH B, DKIM_FAIL,
		 "l= is not the length of the body"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; l=3; " BH B, DKIM_FAIL,
		 "l= is not the length of the body"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; l=-1; " BH B, DKIM_FAIL,
		 "l= is no number"},
		{"v=1; a=rsa-sha1; d=p.test; s=x; h=from; " BH B, DKIM_UNKNOWN_ALGO,
		 "rsa-sha1 counts no more (RFC 8301)"},
		{"v=1; a=dsa-md5; d=p.test; s=x; h=from; " BH B, DKIM_UNKNOWN_ALGO,
		 "unknown algorithm"},
		{"v=1; a=ed25519-sha256; d=p.test; s=x; h=from; " BH B, DKIM_FAIL,
		 "the key is of another algorithm"},
		{"v=2; a=rsa-sha256; d=p.test; s=x; h=from; " BH B, DKIM_FAIL, "unknown version"},
		{"a=rsa-sha256; d=p.test; s=x; h=from; " BH B, DKIM_FAIL,
		 "a required tag is missing"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=to; " BH B, DKIM_FAIL, "From is not signed"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from::to; " BH B, DKIM_FAIL,
		 "an empty name in h="},
		{"v=1; a=rsa-sha256; d=test; s=x; h=from; " BH B, DKIM_FAIL,
		 "d= is no domain name"},
		{"v=1; a=rsa-sha256; d=p.test(.evil.test; s=x; h=from; " BH B, DKIM_FAIL,
		 "d= is no domain name"},
		{"v=1; a=rsa-sha256; d=p.test; s=a..b; h=from; " BH B, DKIM_FAIL, "s= is no name"},
		{"v=1; a=rsa-sha256; d=p.test; i=@other.test; s=x; h=from; " BH B, DKIM_FAIL,
		 "i= is not within d="},
		{"v=1; a=rsa-sha256; d=p.test; i=@xp.test; s=x; h=from; " BH B, DKIM_FAIL,
		 "i= is not within d="},
		{"v=1; a=rsa-sha256; d=p.test; i=a@sub.p.test; s=x; h=from; " BH B, DKIM_FAIL,
		 "the signature does not match"},
		{"v=1; a=rsa-sha256; c=nowsp; d=p.test; s=x; h=from; " BH B, DKIM_FAIL,
		 "unknown canonical form (c=)"},
		{"v=1; a=rsa-sha256; c=relaxed/relaxed; d=p.test; s=x; h=from; " BH B, DKIM_FAIL,
		 "the body has changed"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; q=http; " BH B, DKIM_FAIL,
		 "no known way to the key (q=)"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; t=5; x=4; " BH B, DKIM_FAIL,
		 "expires before it was made"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; x=1699999999; " BH B, DKIM_FAIL,
		 "expired"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; x=1700000000; " BH B, DKIM_FAIL,
		 "the signature does not match"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; t=soon; " BH B, DKIM_FAIL,
		 "t= or x= is no time"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; bh=AAAA; " B, DKIM_FAIL,
		 "bh= is no hash"},
		{"v=1; a=rsa-sha256; d=p.test; s=x; h=from; " BH "b=", DKIM_FAIL,
		 "b= is no signature"},
		{"v=1; v=1", DKIM_FAIL, "no tag list"},
		{"", DKIM_FAIL, "no tag list"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Dkim got = verify_tags(runs[i].tags);
		assert_int_equal(got.count, 1);
		if (got.status != runs[i].status || g_strcmp0(got.reason, runs[i].reason) != 0)
			fail_msg("%s: %s", runs[i].tags, got.reason);
	}
}

static void
test_answers(void **state)
{
	(void)state;
	g_autofree char *text = sign_with(keys[DKIM_RSA], CANON_RELAXED, CANON_RELAXED, messages[0],
					  100);
	size_t len = strlen(text);
	const char *record = key_records[DKIM_RSA];
	static const struct {
		DnsStatus dns;
		DkimStatus status;
		const char *word;
	} runs[] = {
		{DNS_OK, DKIM_PASS, "pass"},
		{DNS_NXDOMAIN, DKIM_FAIL, "permerror"},
		{DNS_NODATA, DKIM_FAIL, "permerror"},
		{DNS_TEMP, DKIM_TEMP_ERR, "temperror"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		Dkim got = verify_with(text, len, record, runs[i].dns, 1000);
		assert_int_equal(got.status, runs[i].status);
		assert_string_equal(got.word, runs[i].word);
	}
	assert_int_equal(verify(text, "v=spf1 -all").status, DKIM_FAIL);
	g_autofree char *strict = g_strconcat(record, "; t=s:y", NULL);
	assert_int_equal(verify(text, strict).status, DKIM_PASS);
}

/* ---- limits ---- */

static void
test_signature_limit(void **state)
{
	(void)state;
	for (unsigned n = DKIM_SIGNATURES_MAX; n <= 1000; n = n == 10 ? 11 : n + 989) {
		g_autofree char *good = sign_with(keys[DKIM_RSA], CANON_RELAXED, CANON_RELAXED,
						  messages[0], 0);
		g_autoptr(GString) text = g_string_new(NULL);
		for (unsigned i = 1; i < n; i++)
			g_string_append(text, "DKIM-Signature: v=1\r\n");
		g_string_append(text, good);
		Dkim got = verify(text->str, key_records[DKIM_RSA]);
		assert_int_equal(got.count, DKIM_SIGNATURES_MAX);
		assert_int_equal(got.passes, n == DKIM_SIGNATURES_MAX ? 1 : 0);
	}
}

static void
test_name_limit(void **state)
{
	(void)state;
	for (unsigned n = DKIM_NAMES_MAX; n <= DKIM_NAMES_MAX + 1; n++) {
		g_autoptr(GString)
			tags = g_string_new("v=1; a=rsa-sha256; d=p.test; s=x; " BH B "; h=from");
		for (unsigned i = 1; i < n; i++)
			g_string_append(tags, ":x");
		Dkim got = verify_tags(tags->str);
		assert_string_equal(got.reason, n == DKIM_NAMES_MAX ? "the signature does not match"
								    : "too many names in h=");
	}
}

static void
test_key_bits(void **state)
{
	(void)state;
	static const struct {
		unsigned bits;
		bool usable;
	} runs[] = {{1023, false}, {1024, true}};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++) {
		g_autoptr(DkimKey) key = dkim_private_new(DKIM_RSA, runs[i].bits, NULL);
		g_autofree char *record = dkim_key_record(key);
		g_autofree char *text = sign_with(key, CANON_RELAXED, CANON_RELAXED, messages[0],
						  0);
		assert_int_equal(dkim_key_bits(key), runs[i].bits);
		Dkim got = verify(text, record);
		if ((got.status == DKIM_PASS) != runs[i].usable)
			fail_msg("%u bits: %s", runs[i].bits, got.reason);
		char *pem = dkim_private_pem(key);
		g_autoptr(DkimKey) again = dkim_private_parse(pem, "k", NULL);
		assert_int_equal(again != NULL, runs[i].usable);
		g_free(pem);
	}
}

/* OpenSSL makes keys in steps of 16 bits, hence 4112 for one past 4096. */
static void
test_big_keys(void **state)
{
	(void)state;
	g_autoptr(DkimKey) key = dkim_private_parse(key_4096, "k", NULL);
	g_autofree char *record = dkim_key_record(key);
	g_autofree char *text = sign_with(key, CANON_RELAXED, CANON_RELAXED, messages[0], 0);
	assert_int_equal(verify(text, record).status, DKIM_PASS);
	g_autoptr(GError) error = NULL;
	assert_null(dkim_private_parse(key_4112, "k", &error));
	g_autofree char *longer = g_strdup_printf("v=DKIM1; p=%s", key_4112_public);
	Dkim got = verify(text, longer);
	assert_int_equal(got.status, DKIM_FAIL);
	assert_string_equal(got.reason, "the RSA key is too long");
}

/* ---- signing ---- */

static void
test_not_signed(void **state)
{
	(void)state;
	static const char *const bad[] = {"To: x\r\n\r\nbody", "\r\nbody", "",
					  "From: a@p.test\r\nno field\r\n\r\n"};
	const DkimSigner signer = {.key = keys[DKIM_RSA], .domain = "p.test", .selector = "s"};
	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
		g_autoptr(Blob) blob = blob_new_bytes(bad[i], strlen(bad[i]));
		g_autoptr(GError) error = NULL;
		assert_null(dkim_sign(&signer, 1, blob, NOW, &error));
		assert_true(g_error_matches(error, K_ERROR, K_ERROR_INPUT));
	}
}

static void
test_several_signers(void **state)
{
	(void)state;
	const DkimSigner signers[] = {
		{.key = keys[DKIM_RSA], .domain = "p.test", .selector = "r"},
		{.key = keys[DKIM_ED25519],
		 .domain = "p.test",
		 .selector = "e",
		 .body_form = CANON_RELAXED},
	};
	g_autoptr(Blob) blob = blob_new_bytes(messages[0], strlen(messages[0]));
	g_autofree char *fields = dkim_sign(signers, 2, blob, NOW, NULL);
	assert_non_null(fields);
	g_autofree char *text = g_strconcat(fields, messages[0], NULL);
	assert_non_null(strstr(text, "s=e"));
	assert_true(strstr(text, "s=e") < strstr(text, "s=r"));
	Dkim rsa = verify(text, key_records[DKIM_RSA]);
	assert_int_equal(rsa.count, 2);
	assert_int_equal(rsa.passes, 1);
	assert_int_equal(verify(text, key_records[DKIM_ED25519]).passes, 1);
}

static void
write_file(const char *path, const char *text)
{
	g_autofree char *next = g_strconcat(path, ".new", NULL);
	assert_true(g_file_set_contents(next, text, -1, NULL));
	assert_int_equal(g_rename(next, path), 0);
}

static bool
holds(DkimKeyFile *file, unsigned type)
{
	g_autoptr(DkimKey) key = dkim_key_file_get(file);
	g_autofree char *record = dkim_key_record(key);
	return strcmp(record, key_records[type]) == 0;
}

static void
test_key_file(void **state)
{
	(void)state;
	g_autofree char *dir = g_dir_make_tmp("koukan-key-XXXXXX", NULL);
	g_autofree char *path = g_build_filename(dir, "key.pem", NULL);
	g_autofree char *rsa = dkim_private_pem(keys[DKIM_RSA]);
	g_autofree char *ed = dkim_private_pem(keys[DKIM_ED25519]);
	g_autoptr(GError) error = NULL;
	assert_null(dkim_key_file_new(path, &error));
	write_file(path, "no key");
	g_autoptr(GError) second = NULL;
	assert_null(dkim_key_file_new(path, &second));
	write_file(path, rsa);
	DkimKeyFile *file = dkim_key_file_new(path, NULL);
	assert_non_null(file);
	assert_true(holds(file, DKIM_RSA));
	write_file(path, "half wr");
	g_usleep(1100 * 1000);
	assert_true(holds(file, DKIM_RSA)); /* the key that was */
	write_file(path, ed);
	for (int i = 0; i < 50 && !holds(file, DKIM_ED25519); i++)
		g_usleep(100 * 1000);
	assert_true(holds(file, DKIM_ED25519));
	dkim_key_file_free(file);
	g_unlink(path);
	g_rmdir(dir);
}

/* ---- domains ---- */

static void
test_alignment(void **state)
{
	(void)state;
	static const struct {
		const char *a, *b;
		PslAlignment want;
	} runs[] = {
		{"example.com", "EXAMPLE.com.", PSL_SAME},
		{"mail.example.com", "example.com", PSL_SAME_ORG},
		{"a.example.co.uk", "b.example.co.uk", PSL_SAME_ORG},
		{"a.co.uk", "b.co.uk", PSL_OTHER},
		{"co.uk", "a.co.uk", PSL_OTHER},
		{"example.com", "example.org", PSL_OTHER},
		{"a.unknown-tld", "b.a.unknown-tld", PSL_SAME_ORG},
		{NULL, "example.com", PSL_OTHER},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(runs); i++)
		assert_int_equal(psl_alignment(runs[i].a, runs[i].b), runs[i].want);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tags),
		cmocka_unit_test(test_bodies),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_key_records),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_field),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_signature_limit),
		cmocka_unit_test(test_name_limit),
		cmocka_unit_test(test_key_bits),
		cmocka_unit_test(test_big_keys),
		cmocka_unit_test(test_not_signed),
		cmocka_unit_test(test_several_signers),
		cmocka_unit_test(test_key_file),
		cmocka_unit_test(test_alignment),
	};
	return cmocka_run_group_tests(tests, make_keys, drop_keys);
}
