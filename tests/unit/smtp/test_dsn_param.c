/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <string.h>

#include "smtp/dsn_param.h"

typedef struct Case {
	bool rcpt;
	const char *keyword, *value;
	SmtpDsnParam want;
} Case;

static const Case cases[] = {
	{false, "RET", "FULL", SMTP_DSN_OK},
	{false, "ret", "hdrs", SMTP_DSN_OK},
	{false, "RET", "", SMTP_DSN_BAD},
	{false, "RET", NULL, SMTP_DSN_BAD},
	{false, "RET", "FULL,HDRS", SMTP_DSN_BAD},
	{false, "ENVID", "QQ314159", SMTP_DSN_OK},
	{false, "ENVID", "a+2Bb+3D", SMTP_DSN_OK},
	{false, "ENVID", "", SMTP_DSN_BAD},
	{false, "ENVID", NULL, SMTP_DSN_BAD},
	{false, "ENVID", "a+2b", SMTP_DSN_BAD},
	{false, "ENVID", "a+0A", SMTP_DSN_BAD},
	{false, "ENVID", "a+8F", SMTP_DSN_BAD},
	{false, "ENVID", "a+", SMTP_DSN_BAD},
	{false, "ENVID", "a+2", SMTP_DSN_BAD},
	{false, "ENVID", "a b", SMTP_DSN_BAD},
	{false, "ENVID", "a=b", SMTP_DSN_BAD},
	{false, "NOTIFY", "NEVER", SMTP_DSN_OTHER},
	{true, "RET", "FULL", SMTP_DSN_OTHER},
	{true, "NOTIFY", "NEVER", SMTP_DSN_OK},
	{true, "NOTIFY", "success,FAILURE,Delay", SMTP_DSN_OK},
	{true, "NOTIFY", "FAILURE", SMTP_DSN_OK},
	{true, "NOTIFY", "FAILURE,FAILURE", SMTP_DSN_BAD},
	{true, "NOTIFY", "NEVER,FAILURE", SMTP_DSN_BAD},
	{true, "NOTIFY", "FAILURE,", SMTP_DSN_BAD},
	{true, "NOTIFY", ",", SMTP_DSN_BAD},
	{true, "NOTIFY", "", SMTP_DSN_BAD},
	{true, "NOTIFY", NULL, SMTP_DSN_BAD},
	{true, "NOTIFY", "SUCCESS,FAILURE,DELAY,SUCCESS,FAILURE,DELAY", SMTP_DSN_BAD},
	{true, "ORCPT", "rfc822;bob@example.com", SMTP_DSN_OK},
	{true, "ORCPT", "rfc822;bob+2Bx@example.com", SMTP_DSN_OK},
	{true, "ORCPT", "utf-8;bob\\x{20AC}@example.com", SMTP_DSN_OK},
	{true, "ORCPT",
	 "utf-8;b\xc3\xb6"
	 "b@example.com",
	 SMTP_DSN_OK},
	{true, "ORCPT", "utf-8;bob\\n", SMTP_DSN_BAD},
	{true, "ORCPT", "rfc822;b\xc3\xb6", SMTP_DSN_BAD},
	{true, "ORCPT", "rfc822;", SMTP_DSN_BAD},
	{true, "ORCPT", ";bob@example.com", SMTP_DSN_BAD},
	{true, "ORCPT", "bob@example.com", SMTP_DSN_BAD},
	{true, "ORCPT", "rfc 822;x", SMTP_DSN_BAD},
	{true, "ORCPT", NULL, SMTP_DSN_BAD},
};

static void
test_params(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		const Case *c = &cases[i];
		SmtpDsnParam got = c->rcpt ? smtp_dsn_rcpt_param(c->keyword, c->value)
					   : smtp_dsn_mail_param(c->keyword, c->value);
		if (got != c->want)
			fail_msg("%s=%s: %d", c->keyword, c->value, (int)got);
	}
}

static void
test_limits(void **state)
{
	(void)state;
	for (size_t over = 0; over < 2; over++) {
		SmtpDsnParam want = over == 0 ? SMTP_DSN_OK : SMTP_DSN_BAD;
		g_autofree char *id = g_strnfill(SMTP_DSN_ENVID_MAX + over, 'x');
		g_autofree char *fill = g_strnfill(SMTP_DSN_ORCPT_MAX - 7 + over, 'x');
		g_autofree char *orcpt = g_strconcat("rfc822;", fill, NULL);
		assert_int_equal(smtp_dsn_mail_param("ENVID", id), want);
		assert_int_equal(smtp_dsn_rcpt_param("ORCPT", orcpt), want);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_params),
		cmocka_unit_test(test_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
