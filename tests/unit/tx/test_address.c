/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tx/address.h"

typedef struct SplitCase {
	const char *name, *input;
	const char *local, *domain; /* NULL: no address */
} SplitCase;

static const SplitCase SPLIT[] = {
	{"plain", "alice@example.com", "alice", "example.com"},
	{"case is kept", "Alice@Example.COM", "Alice", "Example.COM"},
	{"one label", "a@x", "a", "x"},
	{"dots", "a.b.c@x.y.z", "a.b.c", "x.y.z"},
	{"atext specials", "!#$%&'*+-/=?^_`{|}~@x", "!#$%&'*+-/=?^_`{|}~", "x"},
	{"extension", "a+tag@x", "a+tag", "x"},
	{"dot run in the local part", "a..b@x", "a..b", "x"},
	{"leading dot", ".a@x", ".a", "x"},
	{"trailing dot of the local part", "a.@x", "a.", "x"},
	{"space in the local part", "a b@x", "a b", "x"},
	{"tab in the local part", "a\tb@x", "a\tb", "x"},
	{"backslash", "a\\b@x", "a\\b", "x"},
	{"quoted local part", "\"a b\"@x", "\"a b\"", "x"},
	{"quoted at sign", "\"a@b\"@x", "\"a@b\"", "x"},
	{"quoted pair", "\"a\\\"b\"@x", "\"a\\\"b\"", "x"},
	{"empty quoted local part", "\"\"@x", "\"\"", "x"},
	{"words", "a.\"b c\".d@x", "a.\"b c\".d", "x"},
	{"comment in the local part", "a(c)@x", "a(c)", "x"},
	{"nested comment", "(a(b)c)d@x", "(a(b)c)d", "x"},
	{"comment with an at sign", "a(@)@x", "a(@)", "x"},
	{"domain literal", "a@[192.0.2.1]", "a", "[192.0.2.1]"},
	{"domain literal v6", "a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]"},
	{"non-ASCII local part", "j\xc3\xb6rg@x", "j\xc3\xb6rg", "x"},
	{"non-ASCII domain",
	 "a@b\xc3\xbc"
	 "cher.example",
	 "a",
	 "b\xc3\xbc"
	 "cher.example"},
	{"text behind", "a@x>", "a", "x"},
	{"text behind a space", "a@x y", "a", "x"},
	{"text with an at sign behind a word", "a@x y@z", "a", "x"},
	{"comment behind", "a@x(c)", "a", "x"},
	{"hyphen and digits", "a@1-2.example", "a", "1-2.example"},
	{"underscore", "a@_x.example", "a", "_x.example"},

	{"empty", "", NULL, NULL},
	{"no domain", "alice", NULL, NULL},
	{"no domain behind the at sign", "alice@", NULL, NULL},
	{"no local part", "@x", NULL, NULL},
	{"two at signs", "a@b@c", NULL, NULL},
	{"two at signs, spaced", "a@b @c", NULL, NULL},
	{"at sign behind a literal", "a@[192.0.2.1]@c", NULL, NULL},
	{"dot behind a literal", "a@[192.0.2.1].c", NULL, NULL},
	{"dot run in the domain", "a@x..y", NULL, NULL},
	{"trailing dot of the domain", "a@x.", NULL, NULL},
	{"trailing dots of the domain", "a@x..", NULL, NULL},
	{"leading dot of the domain", "a@.x", NULL, NULL},
	{"angle bracket", "<a@x>", NULL, NULL},
	{"bracket inside", "a<b@x", NULL, NULL},
	{"comma inside", "a,b@x", NULL, NULL},
	{"leading space", " a@x", NULL, NULL},
	{"only a comment", "(c)@x", NULL, NULL},
	{"open quote", "\"a@x", NULL, NULL},
	{"open comment", "(a@x", NULL, NULL},
	{"quoted pair at the end", "\"a\\", NULL, NULL},
	{"open literal", "a@[192.0.2.1", NULL, NULL},
	{"bracket in a literal", "a@[[192.0.2.1]", NULL, NULL},
	{"line break in the local part", "a\r\nb@x", NULL, NULL},
	{"line break in quotes", "\"a\nb\"@x", NULL, NULL},
	{"line break in the domain", "a@x\r\nRCPT TO:<b@y>", NULL, NULL},
	{"control in a literal", "a@[1\x01]", NULL, NULL},
	{"DEL", "a\x7f@x", NULL, NULL},
	{"space before the domain", "a@ x", NULL, NULL},
	{"source route", "@a,@b:c@d", NULL, NULL},
};

static void
test_split(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(SPLIT); i++) {
		const SplitCase *c = &SPLIT[i];
		AddrParts parts = {0};
		bool ok = address_split(c->input, &parts);
		if (ok != (c->local != NULL))
			fail_msg("%s: %s", c->name, ok ? "accepted" : "refused");
		if (g_strcmp0(parts.local, c->local) != 0 ||
		    g_strcmp0(parts.domain, c->domain) != 0)
			fail_msg("%s: %s | %s", c->name, parts.local, parts.domain);
		address_parts_clear(&parts);
		assert_null(parts.local);
	}
}

static void
test_domain(void **state)
{
	(void)state;
	static const char *const CASES[][2] = {
		{"a@Example.COM", "example.com"},
		{"a@[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"},
		{"a@x>", "x"},
		{"a@x..y", NULL},
		{"", NULL},
		{"alice", NULL},
		/* Only ASCII is folded: what else means the same is the resolver's business. */
		{"a@\xc3\x9c.EXAMPLE", "\xc3\x9c.example"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autofree char *domain = address_domain(CASES[i][0]);
		if (g_strcmp0(domain, CASES[i][1]) != 0)
			fail_msg("%s: %s", CASES[i][0], domain);
	}
}

static void
test_needs_utf8(void **state)
{
	(void)state;
	assert_false(address_needs_utf8(""));
	assert_false(address_needs_utf8("a@x\x7f"));
	assert_true(address_needs_utf8("a@\xc3\xbc"));
	assert_true(address_needs_utf8("\x80"));
}

static void
test_mailbox(void **state)
{
	(void)state;
	const EsmtpParam params[] = {{(char *)"SIZE", (char *)"276"},
				     {(char *)"smtpUTF8", NULL},
				     {(char *)"X", (char *)""}};
	g_autoptr(Mailbox) a = mailbox_new("a@x", params, 3);
	assert_string_equal(a->addr, "a@x");
	assert_int_equal(a->n_params, 3);
	assert_string_equal(mailbox_param(a, "size")->value, "276");
	assert_null(mailbox_param(a, "SMTPUTF8")->value);
	assert_string_equal(mailbox_param(a, "SMTPUTF8")->keyword, "smtpUTF8");
	assert_string_equal(mailbox_param(a, "x")->value, "");
	assert_null(mailbox_param(a, "BODY"));
	assert_ptr_not_equal(a->params[0].keyword, params[0].keyword);

	g_autoptr(Mailbox) null_path = mailbox_new("", NULL, 0);
	assert_string_equal(null_path->addr, "");
	assert_null(mailbox_param(null_path, "SIZE"));

	g_autoptr(Mailbox) again = mailbox_ref(null_path);
	assert_ptr_equal(again, null_path);
	assert_int_equal(null_path->refs, 2);
	mailbox_unref(NULL);
}

static void
test_mailbox_equal(void **state)
{
	(void)state;
	const EsmtpParam one[] = {{(char *)"A", (char *)"1"}};
	const EsmtpParam two[] = {{(char *)"A", (char *)"2"}};
	const EsmtpParam none[] = {{(char *)"A", NULL}};
	const EsmtpParam other[] = {{(char *)"B", (char *)"1"}};
	g_autoptr(Mailbox) base = mailbox_new("a@x", one, 1);
	const struct {
		const char *addr;
		const EsmtpParam *params;
		size_t n;
		bool want;
	} cases[] = {
		{"a@x", one, 1, true},   {"a@y", one, 1, false},   {"a@x", two, 1, false},
		{"a@x", none, 1, false}, {"a@x", other, 1, false}, {"a@x", NULL, 0, false},
		{"A@x", one, 1, false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(Mailbox)
			mailbox = mailbox_new(cases[i].addr, cases[i].params, cases[i].n);
		assert_int_equal(mailbox_equal(base, mailbox), cases[i].want);
		assert_int_equal(mailbox_equal(mailbox, base), cases[i].want);
	}
	assert_true(mailbox_equal(NULL, NULL));
	assert_true(mailbox_equal(base, base));
	assert_false(mailbox_equal(base, NULL));
	assert_false(mailbox_equal(NULL, base));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),         cmocka_unit_test(test_domain),
		cmocka_unit_test(test_needs_utf8),    cmocka_unit_test(test_mailbox),
		cmocka_unit_test(test_mailbox_equal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
