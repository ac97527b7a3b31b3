/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "smtp/syntax.h"

typedef struct Case {
	const char *arg;
	SmtpPathKind kind;
	bool utf8;
	SmtpPathResult want;
	const char *addr;   /* NULL: refused */
	const char *params; /* "K=V;K;" */
} Case;

#define M SMTP_PATH_MAIL
#define R SMTP_PATH_RCPT

static const Case cases[] = {
	{"FROM:<alice@example.com>", M, false, SMTP_PATH_OK, "alice@example.com", ""},
	{"from:<alice@example.com>", M, false, SMTP_PATH_OK, "alice@example.com", ""},
	{"FROM: <alice@example.com>", M, false, SMTP_PATH_OK, "alice@example.com", ""},
	{"FROM:alice@example.com", M, false, SMTP_PATH_OK, "alice@example.com", ""},
	{"FROM:alice@example.com SIZE=1", M, false, SMTP_PATH_OK, "alice@example.com", "SIZE=1;"},
	{"FROM:<>", M, false, SMTP_PATH_OK, "", ""},
	{"FROM:<> BODY=8BITMIME", M, false, SMTP_PATH_OK, "", "BODY=8BITMIME;"},
	{"FROM:<a@b.example> SIZE=276  BODY=7BIT SMTPUTF8", M, true, SMTP_PATH_OK, "a@b.example",
	 "SIZE=276;BODY=7BIT;SMTPUTF8;"},
	{"FROM:<a@b> AUTH=<> X-Y=e+3Dmc2@x", M, false, SMTP_PATH_OK, "a@b",
	 "AUTH=<>;X-Y=e+3Dmc2@x;"},
	{"TO:<a@[192.0.2.1]>", R, false, SMTP_PATH_OK, "a@[192.0.2.1]", ""},
	{"TO:<a@[IPv6:2001:db8::1]>", R, false, SMTP_PATH_OK, "a@[IPv6:2001:db8::1]", ""},
	{"TO:<a@[ipv6:::1]>", R, false, SMTP_PATH_OK, "a@[ipv6:::1]", ""},
	{"TO:<\"a b\\\"<>@\"@example.com>", R, false, SMTP_PATH_OK, "\"a b\\\"<>@\"@example.com",
	 ""},
	{"TO:<\"\"@example.com>", R, false, SMTP_PATH_OK, "\"\"@example.com", ""},
	{"TO:<a.b+c=d{}|/~!#$%&'*?^_`@e-x.example>", R, false, SMTP_PATH_OK,
	 "a.b+c=d{}|/~!#$%&'*?^_`@e-x.example", ""},
	{"TO:<@r1.example,@r2.example:bob@example.com>", R, false, SMTP_PATH_OK, "bob@example.com",
	 ""},
	{"TO:<@r1.example:bob@example.com> NOTIFY=NEVER", R, false, SMTP_PATH_OK, "bob@example.com",
	 "NOTIFY=NEVER;"},
	{"TO:<Postmaster>", R, false, SMTP_PATH_OK, "Postmaster", ""},
	{"TO:<b_c@under_score.example>", R, false, SMTP_PATH_OK, "b_c@under_score.example", ""},
	{"FROM:<\xc3\xa4@\xc3\xb6.example> SMTPUTF8", M, true, SMTP_PATH_OK,
	 "\xc3\xa4@\xc3\xb6.example", "SMTPUTF8;"},
	{"TO:<\"\xc3\xa4 \"@x.example>", R, true, SMTP_PATH_OK, "\"\xc3\xa4 \"@x.example", ""},

	{"", M, false, SMTP_PATH_SYNTAX, NULL, NULL},
	{"FROM:", M, false, SMTP_PATH_SYNTAX, NULL, NULL},
	{"FROM:  ", M, false, SMTP_PATH_SYNTAX, NULL, NULL},
	{"FROM", M, false, SMTP_PATH_SYNTAX, NULL, NULL},
	{"FROM <a@b>", M, false, SMTP_PATH_SYNTAX, NULL, NULL},
	{"TO:<a@b>", M, false, SMTP_PATH_SYNTAX, NULL, NULL},
	{"FROM:<a@b>", R, false, SMTP_PATH_SYNTAX, NULL, NULL},
	{"FROM:<a@b>SIZE=1", M, false, SMTP_PATH_SYNTAX, NULL, NULL},
	{"FROM:<a@b>>", M, false, SMTP_PATH_SYNTAX, NULL, NULL},
	{"TO:<>", R, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<alice>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<postmaster>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"TO:<postmasters>", R, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<@example.com>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@b@c>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@b", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:a@b>", M, false, SMTP_PATH_SYNTAX, NULL, NULL},
	{"FROM:<a@b.>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@.b>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@b..c>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@-b>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@b->", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<.a@b>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a.@b>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a..b@c>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a b@c>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a(c)@b>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<\"a@b>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<\"a\\\"@b>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<\"a\"b@c>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<\"a@b\">", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<\"a\tb\"@c>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@[192.0.2.999]>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@[192.0.2.1>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@[]>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@[::1]>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@[IPv6:192.0.2.1]>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@[x-tag:content]>", M, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"TO:<@r1.example,bob@example.com>", R, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"TO:<@r1.example>", R, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"TO:<@:bob@example.com>", R, false, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<\xff@b>", M, true, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<\xc2\x85@b> SMTPUTF8", M, true, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<a@b\xe3\x80\x82"
	 "c> SMTPUTF8",
	 M, true, SMTP_PATH_ADDRESS, NULL, NULL},
	{"FROM:<\xc3\xa4@b>", M, true, SMTP_PATH_UTF8, NULL, NULL},
	{"FROM:<\xc3\xa4@b> SMTPUTF8", M, false, SMTP_PATH_UTF8, NULL, NULL},
	{"TO:<\xc3\xa4@b>", R, false, SMTP_PATH_UTF8, NULL, NULL},
	{"FROM:<a@b> =1", M, false, SMTP_PATH_PARAMS, NULL, NULL},
	{"FROM:<a@b> SIZE=", M, false, SMTP_PATH_PARAMS, NULL, NULL},
	{"FROM:<a@b> SIZE=1=2", M, false, SMTP_PATH_PARAMS, NULL, NULL},
	{"FROM:<a@b> -X", M, false, SMTP_PATH_PARAMS, NULL, NULL},
	{"FROM:<a@b> X_Y", M, false, SMTP_PATH_PARAMS, NULL, NULL},
	{"FROM:<a@b> SIZE=1 size=2", M, false, SMTP_PATH_PARAMS, NULL, NULL},
};

static char *
params_text(const Mailbox *mailbox)
{
	GString *text = g_string_new(NULL);
	for (size_t i = 0; i < mailbox->n_params; i++) {
		const EsmtpParam *param = &mailbox->params[i];
		g_string_append_printf(text, "%s%s%s;", param->keyword, param->value ? "=" : "",
				       param->value ? param->value : "");
	}
	return g_string_free(text, FALSE);
}

static void
test_paths(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		const Case *c = &cases[i];
		g_autoptr(Mailbox) mailbox = NULL;
		/* a copy of exactly that length: reading past it is an error */
		size_t len = strlen(c->arg);
		g_autofree char *arg = g_memdup2(c->arg, len);
		SmtpPathResult got = smtp_parse_path(arg, len, c->kind, c->utf8, &mailbox);
		if (got != c->want)
			fail_msg("%s: got %d, want %d", c->arg, got, c->want);
		if (c->addr == NULL) {
			assert_null(mailbox);
			continue;
		}
		assert_string_equal(mailbox->addr, c->addr);
		g_autofree char *params = params_text(mailbox);
		assert_string_equal(params, c->params);
	}
}

/* A control character, NUL among them, anywhere in a good argument: refused, never an end. */
static void
test_controls(void **state)
{
	static const char *const good[] = {"TO:<\"a b\"@[IPv6:2001:db8::1]> NOTIFY=NEVER",
					   "TO:<@r.example:a@[192.0.2.1]> ORCPT=rfc822;a@b",
					   "TO:<bob@mx.example.com>"};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
		size_t len = strlen(good[i]);
		for (size_t at = 0; at <= len; at++) {
			for (char control = 0; control < 0x20; control++) {
				g_autoptr(Mailbox) mailbox = NULL;
				g_autoptr(GString) arg = g_string_new(good[i]);
				g_string_insert_c(arg, (gssize)at, control);
				if (smtp_parse_path(arg->str, arg->len, R, true, &mailbox) ==
				    SMTP_PATH_OK)
					fail_msg("%s: %d at %zu", good[i], control, at);
				assert_null(mailbox);
			}
		}
	}
}

/* "FROM:<LOCAL@DOMAIN>" with a local part and labels of given sizes. */
static SmtpPathResult
parse_sized(size_t local, size_t label, size_t domain)
{
	GString *arg = g_string_new("FROM:<");
	g_autoptr(Mailbox) mailbox = NULL;
	for (size_t i = 0; i < local; i++)
		g_string_append_c(arg, 'l');
	g_string_append_c(arg, '@');
	for (size_t i = 1; i <= domain; i++)
		g_string_append_c(arg, i % (label + 1) == 0 && i < domain ? '.' : 'd');
	g_string_append_c(arg, '>');
	SmtpPathResult result = smtp_parse_path(arg->str, arg->len, M, false, &mailbox);
	g_string_free(arg, TRUE);
	return result;
}

static void
test_limits(void **state)
{
	(void)state;
	assert_int_equal(parse_sized(SMTP_LOCAL_MAX, 63, 100), SMTP_PATH_OK);
	assert_int_equal(parse_sized(SMTP_LOCAL_MAX + 1, 63, 100), SMTP_PATH_LOCAL_LONG);
	assert_int_equal(parse_sized(SMTP_LOCAL_MAX + 1000, 63, 100), SMTP_PATH_LOCAL_LONG);
	assert_int_equal(parse_sized(1, 62, SMTP_DOMAIN_MAX), SMTP_PATH_OK);
	assert_int_equal(parse_sized(1, 62, SMTP_DOMAIN_MAX + 1), SMTP_PATH_DOMAIN_LONG);
	assert_int_equal(parse_sized(1, 62, SMTP_DOMAIN_MAX + 1000), SMTP_PATH_DOMAIN_LONG);
	assert_int_equal(parse_sized(1, SMTP_LABEL_MAX, SMTP_LABEL_MAX), SMTP_PATH_OK);
	assert_int_equal(parse_sized(1, SMTP_LABEL_MAX + 1, SMTP_LABEL_MAX + 1), SMTP_PATH_ADDRESS);
}

static void
test_param_limit(void **state)
{
	(void)state;
	for (unsigned n = SMTP_PARAMS_MAX; n <= SMTP_PARAMS_MAX + 1; n++) {
		g_autoptr(Mailbox) mailbox = NULL;
		GString *arg = g_string_new("FROM:<a@b>");
		for (unsigned i = 0; i < n; i++)
			g_string_append_printf(arg, " X%u=%u", i, i);
		SmtpPathResult got = smtp_parse_path(arg->str, arg->len, M, false, &mailbox);
		g_string_free(arg, TRUE);
		assert_int_equal(got, n <= SMTP_PARAMS_MAX ? SMTP_PATH_OK : SMTP_PATH_PARAMS);
		if (mailbox != NULL)
			assert_int_equal(mailbox->n_params, n);
	}
}

static void
test_sendable(void **state)
{
	(void)state;
	static const struct {
		const char *addr;
		bool want;
	} table[] = {
		{"", true},
		{"a@b", true},
		{"alice", true},
		{"\"a b\"@c", true},
		{"\xc3\xa4@b", true},
		{"a@[192.0.2.1]", true},
		{"a@b> SIZE=1", false},
		{"a@b\r\nRCPT TO:<x@y>", false},
		{"a@b\n", false},
		{"a b@c", false},
		{"<a@b>", false},
		{"a@b\x7f", false},
		{"\"a\nb\"@c", false},
		{"\xff@b", false},
		{"@a:b@c", false},
		{"a@b c", false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
		if (smtp_address_is_sendable(table[i].addr) != table[i].want)
			fail_msg("%s", table[i].addr);
	}
	assert_true(smtp_param_is_sendable("SIZE", "1"));
	assert_true(smtp_param_is_sendable("SMTPUTF8", NULL));
	assert_false(smtp_param_is_sendable("SIZE", ""));
	assert_false(smtp_param_is_sendable("SIZE", "1\r\nDATA"));
	assert_false(smtp_param_is_sendable("SI ZE", "1"));
	assert_false(smtp_param_is_sendable("", "1"));
	assert_false(smtp_param_is_sendable("X", "\xff"));
}

static void
test_hello_name(void **state)
{
	(void)state;
	g_autofree char *longest = g_strnfill(SMTP_DOMAIN_MAX + 1, 'a');
	assert_true(smtp_hello_name_is_valid("client.example.com", 18));
	assert_true(smtp_hello_name_is_valid("[IPv6:::1]", 10));
	assert_true(smtp_hello_name_is_valid("my_pc", 5));
	assert_true(smtp_hello_name_is_valid(longest, SMTP_DOMAIN_MAX));
	assert_false(smtp_hello_name_is_valid(longest, SMTP_DOMAIN_MAX + 1));
	assert_false(smtp_hello_name_is_valid("", 0));
	assert_false(smtp_hello_name_is_valid("a b", 3));
	assert_false(smtp_hello_name_is_valid("a(b", 3));
	assert_false(smtp_hello_name_is_valid("a\0b", 3));
	assert_false(smtp_hello_name_is_valid("\xc3\xa4", 2));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),       cmocka_unit_test(test_limits),
		cmocka_unit_test(test_param_limit), cmocka_unit_test(test_sendable),
		cmocka_unit_test(test_hello_name),  cmocka_unit_test(test_controls),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
