/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "smtp/sasl.h"

/* The example of RFC 7677 3: user "user", password "pencil". */
#define RFC_KEYS                                                                                   \
	"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=" \
	":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
#define HEX_SECRET "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
#define USERS      "{\"user\": \"" RFC_KEYS "\", \"bob\": \"" HEX_SECRET "\"}"

static SmtpSecrets *
secrets_of(const char *text)
{
	GError *error = NULL;
	SmtpSecrets *secrets = smtp_secrets_parse("test", text, strlen(text), &error);
	if (secrets == NULL)
		fail_msg("%s: %s", text, error->message);
	return secrets;
}

/* ---- base64 ---- */

static void
test_base64(void **state)
{
	static const struct {
		const char *text, *want; /* NULL: refused */
	} cases[] = {
		{"", ""},        {"=", ""},          {"YQ==", "a"},
		{"YWI=", "ab"},  {"YWJj", "abc"},    {"YWJjZA==", "abcd"},
		{"YQ=", NULL},   {"YQ", NULL},       {"YQ===", NULL},
		{"YR==", NULL},  {"YWJ=", NULL},     {"====", NULL},
		{"Y===", NULL},  {"YQ==YQ==", NULL}, {" YQ=", NULL},
		{"YQ= =", NULL}, {"Y*==", NULL},     {"YWJj\n", NULL},
		{"==", NULL},    {"YW-j", NULL},     {"+/+/", "\xfb\xff\xbf"},
	};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		size_t len = 77;
		g_autofree uint8_t *got = smtp_sasl_decode(cases[i].text, strlen(cases[i].text),
							   &len);
		if ((got == NULL) != (cases[i].want == NULL))
			fail_msg("%s", cases[i].text);
		if (got == NULL) {
			assert_int_equal(len, 77);
			continue;
		}
		assert_int_equal(len, strlen(cases[i].want));
		assert_memory_equal(got, cases[i].want, len + 1);
	}
}

/* ---- PLAIN, LOGIN ---- */

typedef struct OneStep {
	const char *data;
	size_t len;
	SmtpSaslStep want;
	const char *user, *password;
} OneStep;

#define S(data) data, sizeof(data) - 1

static const OneStep plains[] = {
	{S("\0bob\0secret"), SMTP_SASL_CHECK, "bob", "secret"},
	{S("bob\0bob\0secret"), SMTP_SASL_CHECK, "bob", "secret"},
	{S("\0bob\0"), SMTP_SASL_CHECK, "bob", ""},
	{S("eve\0bob\0secret"), SMTP_SASL_REJECT, NULL, NULL},
	{S("\0\0secret"), SMTP_SASL_MALFORMED, NULL, NULL},
	{S(""), SMTP_SASL_MALFORMED, NULL, NULL},
	{S("bob"), SMTP_SASL_MALFORMED, NULL, NULL},
	{S("\0bob"), SMTP_SASL_MALFORMED, NULL, NULL},
	{S("\0bob\0sec\0ret"), SMTP_SASL_MALFORMED, NULL, NULL},
	{S("\0b\xff\0secret"), SMTP_SASL_MALFORMED, NULL, NULL},
};

static void
test_plain(void **state)
{
	g_autoptr(SmtpSecrets) secrets = secrets_of(USERS);
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(plains); i++) {
		const OneStep *c = &plains[i];
		SmtpSasl sasl;
		smtp_sasl_init(&sasl, SMTP_SASL_PLAIN, secrets, NULL);
		assert_int_equal(smtp_sasl_begin(&sasl), SMTP_SASL_CHALLENGE);
		assert_int_equal(sasl.out->len, 0);
		SmtpSaslStep got = smtp_sasl_step(&sasl, c->data, c->len);
		if (got != c->want)
			fail_msg("%zu: %d", i, (int)got);
		if (c->user != NULL) {
			assert_string_equal(sasl.user, c->user);
			assert_string_equal(sasl.password, c->password);
			assert_int_equal(sasl.password_len, strlen(c->password));
		}
		smtp_sasl_clear(&sasl);
	}
}

static void
test_plain_limits(void **state)
{
	g_autoptr(SmtpSecrets) secrets = secrets_of(USERS);
	(void)state;
	for (int over = 0; over < 4; over++) {
		size_t user = SMTP_SECRET_MAX + (size_t)(over & 1);
		size_t password = SMTP_SECRET_MAX + (size_t)(over >> 1);
		g_autofree char *data = g_malloc0(user + password + 3);
		SmtpSasl sasl;
		memset(data + 1, 'u', user);
		memset(data + 2 + user, 'p', password);
		smtp_sasl_init(&sasl, SMTP_SASL_PLAIN, secrets, NULL);
		assert_int_equal(smtp_sasl_step(&sasl, data, user + password + 2),
				 over == 0         ? SMTP_SASL_CHECK
				 : (over & 1) != 0 ? SMTP_SASL_MALFORMED
						   : SMTP_SASL_REJECT);
		smtp_sasl_clear(&sasl);
	}
}

static void
test_login(void **state)
{
	g_autoptr(SmtpSecrets) secrets = secrets_of(USERS);
	SmtpSasl sasl;
	(void)state;
	smtp_sasl_init(&sasl, SMTP_SASL_LOGIN, secrets, NULL);
	assert_int_equal(smtp_sasl_begin(&sasl), SMTP_SASL_CHALLENGE);
	assert_string_equal(sasl.out->str, "Username:");
	assert_int_equal(smtp_sasl_step(&sasl, S("bob")), SMTP_SASL_CHALLENGE);
	assert_string_equal(sasl.out->str, "Password:");
	assert_int_equal(smtp_sasl_step(&sasl, S("secret")), SMTP_SASL_CHECK);
	assert_string_equal(sasl.user, "bob");
	assert_string_equal(sasl.password, "secret");
	smtp_sasl_clear(&sasl);
	smtp_sasl_init(&sasl, SMTP_SASL_LOGIN, secrets, NULL);
	assert_int_equal(smtp_sasl_step(&sasl, S("")), SMTP_SASL_MALFORMED);
	smtp_sasl_clear(&sasl);
}

/* ---- SCRAM ---- */

#define SERVER_NONCE  "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define FIRST         "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
#define SERVER_FIRST  "r=rOprNGfwEbeRWgbNEkqO" SERVER_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define WITHOUT_PROOF "c=biws,r=rOprNGfwEbeRWgbNEkqO" SERVER_NONCE
#define PROOF         "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define SERVER_FINAL  "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

static void
test_scram(void **state)
{
	g_autoptr(SmtpSecrets) secrets = secrets_of(USERS);
	SmtpSasl sasl;
	(void)state;
	smtp_sasl_init(&sasl, SMTP_SASL_SCRAM_SHA_256, secrets, SERVER_NONCE);
	assert_int_equal(smtp_sasl_begin(&sasl), SMTP_SASL_CHALLENGE);
	assert_int_equal(smtp_sasl_step(&sasl, S(FIRST)), SMTP_SASL_CHALLENGE);
	assert_string_equal(sasl.out->str, SERVER_FIRST);
	assert_int_equal(smtp_sasl_step(&sasl, S(WITHOUT_PROOF "," PROOF)), SMTP_SASL_CHALLENGE);
	assert_string_equal(sasl.out->str, SERVER_FINAL);
	assert_int_equal(smtp_sasl_step(&sasl, S("")), SMTP_SASL_ACCEPT);
	assert_string_equal(sasl.user, "user");
	smtp_sasl_clear(&sasl);
}

static void
test_scram_first(void **state)
{
	static const struct {
		const char *data;
		SmtpSaslStep want;
		const char *user;
	} cases[] = {
		{"y,,n=user,r=x", SMTP_SASL_CHALLENGE, "user"},
		{"n,a=user,n=user,r=x", SMTP_SASL_CHALLENGE, "user"},
		{"n,,n=a=2Cb=3Dc,r=x", SMTP_SASL_CHALLENGE, "a,b=c"},
		{"n,,n=nobody,r=x,ext=1", SMTP_SASL_CHALLENGE, "nobody"},
		{"n,a=eve,n=user,r=x", SMTP_SASL_REJECT, NULL},
		{"p=tls-unique,,n=user,r=x", SMTP_SASL_MALFORMED, NULL},
		{"n,,m=1,n=user,r=x", SMTP_SASL_MALFORMED, NULL},
		{"n,,n=user,r=x,m=1", SMTP_SASL_MALFORMED, NULL},
		{"n,,n=,r=x", SMTP_SASL_MALFORMED, NULL},
		{"n,,n=a=b,r=x", SMTP_SASL_MALFORMED, NULL},
		{"n,,n=a=2,r=x", SMTP_SASL_MALFORMED, NULL},
		{"n,,n=user,r=", SMTP_SASL_MALFORMED, NULL},
		{"n,,n=user,r=a b", SMTP_SASL_MALFORMED, NULL},
		{"n,,n=user", SMTP_SASL_MALFORMED, NULL},
		{"n,n=user,r=x", SMTP_SASL_MALFORMED, NULL},
		{"n", SMTP_SASL_MALFORMED, NULL},
		{"", SMTP_SASL_MALFORMED, NULL},
		{"n,,n=us\xff,r=x", SMTP_SASL_MALFORMED, NULL},
	};
	g_autoptr(SmtpSecrets) secrets = secrets_of(USERS);
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		SmtpSasl sasl;
		smtp_sasl_init(&sasl, SMTP_SASL_SCRAM_SHA_256, secrets, NULL);
		SmtpSaslStep got = smtp_sasl_step(&sasl, cases[i].data, strlen(cases[i].data));
		if (got != cases[i].want)
			fail_msg("%s: %d", cases[i].data, (int)got);
		if (cases[i].user != NULL)
			assert_string_equal(sasl.user, cases[i].user);
		smtp_sasl_clear(&sasl);
	}
}

static void
test_scram_final(void **state)
{
	static const struct {
		const char *user, *data;
		SmtpSaslStep want;
	} cases[] = {
		{"user", WITHOUT_PROOF "," PROOF, SMTP_SASL_CHALLENGE},
		/* the same proof for somebody who is not there, or has no such keys */
		{"nobody", WITHOUT_PROOF "," PROOF, SMTP_SASL_REJECT},
		{"bob", WITHOUT_PROOF "," PROOF, SMTP_SASL_REJECT},
		{"user", WITHOUT_PROOF ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVR=",
		 SMTP_SASL_MALFORMED}, /* bits behind the end */
		{"user",
		 WITHOUT_PROOF ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVg=", SMTP_SASL_REJECT},
		{"user", "c=eSws,r=rOprNGfwEbeRWgbNEkqO" SERVER_NONCE "," PROOF, SMTP_SASL_REJECT},
		{"user", "c=biws,r=rOprNGfwEbeRWgbNEkqO," PROOF, SMTP_SASL_REJECT},
		{"user", WITHOUT_PROOF ",p=AAAA", SMTP_SASL_MALFORMED},
		{"user", WITHOUT_PROOF, SMTP_SASL_MALFORMED},
		{"user", PROOF, SMTP_SASL_MALFORMED},
		{"user", WITHOUT_PROOF ",m=x," PROOF, SMTP_SASL_MALFORMED},
		{"user", "", SMTP_SASL_MALFORMED},
	};
	g_autoptr(SmtpSecrets) secrets = secrets_of(USERS);
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		SmtpSasl sasl;
		g_autofree char *first = g_strdup_printf("n,,n=%s,r=rOprNGfwEbeRWgbNEkqO",
							 cases[i].user);
		smtp_sasl_init(&sasl, SMTP_SASL_SCRAM_SHA_256, secrets, SERVER_NONCE);
		assert_int_equal(smtp_sasl_step(&sasl, first, strlen(first)), SMTP_SASL_CHALLENGE);
		SmtpSaslStep got = smtp_sasl_step(&sasl, cases[i].data, strlen(cases[i].data));
		if (got != cases[i].want)
			fail_msg("%zu: %d", i, (int)got);
		smtp_sasl_clear(&sasl);
	}
}

/* ---- the file ---- */

static void
test_file(void **state)
{
	static const struct {
		const char *text;
		const char *error; /* NULL: fine */
	} cases[] = {
		{"{}", NULL},
		{USERS, NULL},
		{"{\"a\": \"$6$saltsalt$x\"}", NULL},
		{"[]", "not an object"},
		{"{\"a\": 1}", "user \"a\""},
		{"{\"a\": \"" HEX_SECRET "0\"}", "user \"a\""},
		{"{\"a\": \"2BB80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"}",
		 "user \"a\""},
		{"{\"a\": \"\"}", "user \"a\""},
		{"{\"a\": \"secret\"}", "user \"a\""},
		{"{\"a\": \"$nonsense$\"}", "user \"a\""},
		{"{\"\": \"" HEX_SECRET "\"}", "name"},
		{"{\"a\": \"" HEX_SECRET "\", \"a\": \"" HEX_SECRET "\"}", "duplicate"},
		{"{\"a\": \"SCRAM-SHA-256$4095:W22ZaJ0SNY7soEsUEjb6gQ==$"
		 "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
		 "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"}",
		 "user \"a\""},
		{"{\"a\": \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$AAAA:AAAA\"}",
		 "user \"a\""},
		{"{\"a\": \"SCRAM-SHA-256$4096\"}", "user \"a\""},
	};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) error = NULL;
		g_autoptr(SmtpSecrets) secrets = smtp_secrets_parse("file", cases[i].text,
								    strlen(cases[i].text), &error);
		if ((secrets != NULL) != (cases[i].error == NULL))
			fail_msg("%s: %s", cases[i].text, error != NULL ? error->message : "taken");
		if (error == NULL)
			continue;
		if (strstr(error->message, cases[i].error) == NULL)
			fail_msg("%s: %s", cases[i].text, error->message);
		/* a secret at the wrong place is not repeated in the log */
		assert_null(strstr(error->message, "secret"));
		assert_null(strstr(error->message, "2bb80d"));
	}
}

static void
test_forms(void **state)
{
	(void)state;
	for (int form = 0; form < 3; form++) {
		g_autoptr(GError) error = NULL;
		g_autofree char *hash = form == 0 ? smtp_secret_sha256("p\xc3\xa4ss")
					: form == 1
						? smtp_secret_crypt("p\xc3\xa4ss", &error)
						: smtp_secret_scram("p\xc3\xa4ss",
								    SMTP_SCRAM_ROUNDS_MIN, &error);
		assert_non_null(hash);
		g_autofree char *text = g_strdup_printf("{\"u\": \"%s\"}", hash);
		g_autoptr(SmtpSecrets) secrets = secrets_of(text);
		assert_int_equal(smtp_secrets_are_slow(secrets), form != 0);
		assert_int_equal(smtp_secrets_have_scram(secrets), form == 2);
		assert_true(smtp_secrets_check(secrets, "u", S("p\xc3\xa4ss")));
		assert_false(smtp_secrets_check(secrets, "u", S("pass")));
		assert_false(smtp_secrets_check(secrets, "u", S("")));
		assert_false(smtp_secrets_check(secrets, "u", S("p\xc3\xa4ss\0")));
		assert_false(smtp_secrets_check(secrets, "U", S("p\xc3\xa4ss")));
		assert_false(smtp_secrets_check(secrets, "nobody", S("p\xc3\xa4ss")));
	}
	g_autoptr(SmtpSecrets) none = secrets_of("{}");
	assert_false(smtp_secrets_check(none, "u", S("x")));
}

/* Who is not there looks like somebody who is, and like the same one each time. */
static void
test_invented(void **state)
{
	g_autoptr(SmtpSecrets) secrets = secrets_of(USERS), again = secrets_of(USERS);
	SmtpScramKeys one, two, three;
	(void)state;
	smtp_secrets_scram(secrets, "nobody", &one);
	smtp_secrets_scram(again, "nobody", &two);
	smtp_secrets_scram(secrets, "somebody", &three);
	assert_false(one.known);
	assert_int_equal(one.rounds, 4096);
	assert_int_equal(one.salt_len, 16);
	assert_memory_equal(one.salt, two.salt, 16);
	assert_memory_not_equal(one.salt, three.salt, 16);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base64),       cmocka_unit_test(test_plain),
		cmocka_unit_test(test_plain_limits), cmocka_unit_test(test_login),
		cmocka_unit_test(test_scram),        cmocka_unit_test(test_scram_first),
		cmocka_unit_test(test_scram_final),  cmocka_unit_test(test_file),
		cmocka_unit_test(test_forms),        cmocka_unit_test(test_invented),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
