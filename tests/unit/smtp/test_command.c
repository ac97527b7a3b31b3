/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <string.h>

#include "smtp/command.h"

typedef struct Case {
	const char *line;
	const char *name; /* NULL: unknown verb */
	const char *arg;
	bool argument_ok;
} Case;

static const Case cases[] = {
	{"EHLO client.example", "EHLO", "client.example", true},
	{"ehlo client.example  ", "EHLO", "client.example", true},
	{"HELO", "HELO", "", false},
	{"MAIL FROM:<a@b> SIZE=1", "MAIL", "FROM:<a@b> SIZE=1", true},
	{"MAIL   FROM:<a@b>", "MAIL", "FROM:<a@b>", true},
	{"MAIL", "MAIL", "", false},
	{"RCPT TO:<a@b>", "RCPT", "TO:<a@b>", true},
	{"DATA", "DATA", "", true},
	{"DATA ", "DATA", "", true},
	{"DATA x", "DATA", "x", false},
	{"RSET x", "RSET", "x", false},
	{"NOOP whatever", "NOOP", "whatever", true},
	{"VRFY", "VRFY", "", false},
	{"VRFY bob", "VRFY", "bob", true},
	{"HELP MAIL", "HELP", "MAIL", true},
	{"QUIT", "QUIT", "", true},
	{"STARTTLS", "STARTTLS", "", true},
	{"BDAT 5 LAST", "BDAT", "5 LAST", true},
	{"GET / HTTP/1.1", "GET", "/ HTTP/1.1", true},
	{"DATAX", NULL, "", true},
	{"DAT", NULL, "", true},
	{"", NULL, "", true},
	{" DATA", NULL, "DATA", true},
	{"MAILFROM:<a@b>", NULL, "", true},
};

static void
test_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		const Case *c = &cases[i];
		SmtpCommand command;
		size_t len = strlen(c->line);
		g_autofree char *line = g_memdup2(c->line, len);
		assert_int_equal(smtp_command_parse(line, len, &command), SMTP_LINE_OK);
		if (c->name == NULL) {
			if (command.row != NULL)
				fail_msg("%s", c->line);
		} else {
			assert_non_null(command.row);
			assert_string_equal(command.row->name, c->name);
			assert_int_equal(smtp_command_argument_ok(&command), c->argument_ok);
		}
		assert_int_equal(command.arg_len, strlen(c->arg));
		if (command.arg_len > 0)
			assert_memory_equal(command.arg, c->arg, command.arg_len);
	}
}

static void
test_controls(void **state)
{
	(void)state;
	for (int c = 0; c < 256; c++) {
		char line[] = "NOOP x y";
		SmtpCommand command;
		line[6] = (char)c;
		SmtpLine want = c < 0x20 || c == 0x7f ? SMTP_LINE_CONTROL : SMTP_LINE_OK;
		assert_int_equal(smtp_command_parse(line, 8, &command), want);
	}
}

static void
test_rows(void **state)
{
	(void)state;
	for (unsigned v = 0; v < SMTP_VERBS; v++) {
		const SmtpCommandRow *row = smtp_command_row((SmtpVerb)v);
		SmtpCommand command;
		assert_int_equal(smtp_command_parse(row->name, strlen(row->name), &command),
				 SMTP_LINE_OK);
		assert_ptr_equal(command.row, row);
		assert_true(row->refuse_code == 0 || row->refuse_code == 454 ||
			    row->refuse_code == 502);
		assert_true(row->refuse_code == 0 || row->refuse_text != NULL);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_controls),
		cmocka_unit_test(test_rows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
