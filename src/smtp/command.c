/* SPDX-License-Identifier: Apache-2.0 */
#include "smtp/command.h"

#include <glib.h>
#include <string.h>

#include "base/text.h"

#define RUN(verb, argument, syntax, junk)                                                          \
	{                                                                                          \
#verb, SMTP_VERB_##verb, SMTP_ARGUMENT_##argument, syntax, 0, NULL, NULL, false,   \
			junk                                                                       \
	}
#define REFUSE(verb, code, status, text)                                                           \
	{                                                                                          \
#verb, SMTP_VERB_##verb, SMTP_ARGUMENT_OPTIONAL, "", code, status, text, false,    \
			true                                                                       \
	}
#define CLOSE(verb, code, status, text)                                                            \
	{                                                                                          \
#verb, SMTP_VERB_##verb, SMTP_ARGUMENT_OPTIONAL, "", code, status, text, true,     \
			true                                                                       \
	}

/* In the order of SmtpVerb.  The refused rows are commands that exist but are not offered. */
static const SmtpCommandRow rows[] = {
	RUN(HELO, REQUIRED, "Syntax: HELO hostname", true),
	RUN(EHLO, REQUIRED, "Syntax: EHLO hostname", true),
	RUN(MAIL, REQUIRED, "Syntax: MAIL FROM: <address> [SP <mail-parameters>]", false),
	RUN(RCPT, REQUIRED, "Syntax: RCPT TO: <address> [SP <rcpt-parameters>]", false),
	RUN(DATA, NONE, "Syntax: DATA", false),
	RUN(RSET, NONE, "Syntax: RSET", true),
	RUN(NOOP, OPTIONAL, "Syntax: NOOP", true),
	RUN(VRFY, REQUIRED, "Syntax: VRFY <address>", true),
	RUN(HELP, OPTIONAL, "Syntax: HELP", true),
	RUN(QUIT, NONE, "Syntax: QUIT", false),
	RUN(STARTTLS, NONE, "Syntax: STARTTLS", true),
	RUN(AUTH, OPTIONAL, "Syntax: AUTH mechanism [initial-response]", true),
	RUN(BDAT, OPTIONAL, "Syntax: BDAT chunk-size [LAST]", false),
	RUN(XCLIENT, REQUIRED, "Syntax: XCLIENT attribute=value...", true),
	RUN(LHLO, OPTIONAL, "Syntax: LHLO hostname", true),
	REFUSE(EXPN, 502, "5.5.1", "EXPN not implemented"),
	/* A browser or proxy that was made to talk to us. */
	CLOSE(CONNECT, 502, "5.5.1", "This is SMTP"),
	CLOSE(GET, 502, "5.5.1", "This is SMTP"),
	CLOSE(POST, 502, "5.5.1", "This is SMTP"),
};
_Static_assert(G_N_ELEMENTS(rows) == SMTP_VERBS, "a row for each verb");

const SmtpCommandRow *
smtp_command_row(SmtpVerb verb)
{
	k_assert((size_t)verb < SMTP_VERBS && rows[verb].verb == verb);
	return &rows[verb];
}

static const SmtpCommandRow *
find_row(const char *word, size_t len)
{
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		if (strlen(rows[i].name) == len &&
		    g_ascii_strncasecmp(word, rows[i].name, len) == 0)
			return &rows[i];
	}
	return NULL;
}

SmtpLine
smtp_command_parse(const char *line, size_t len, SmtpCommand *ret_command)
{
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			return SMTP_LINE_CONTROL;
	}
	const char *end = line + len, *word_end = len > 0 ? memchr(line, ' ', len) : NULL;
	if (word_end == NULL)
		word_end = end;
	const char *arg = word_end;
	while (arg < end && *arg == ' ')
		arg++;
	while (end > arg && end[-1] == ' ')
		end--;
	ret_command->verb_len = (size_t)(word_end - line);
	ret_command->row = find_row(line, ret_command->verb_len);
	ret_command->arg = arg;
	ret_command->arg_len = (size_t)(end - arg);
	return SMTP_LINE_OK;
}

bool
smtp_bdat_parse(const char *arg, size_t len, uint64_t *ret_size, bool *ret_last)
{
	const char *space = memchr(arg, ' ', len);
	size_t digits = space != NULL ? (size_t)(space - arg) : len;
	const char *word = space, *end = arg + len;
	while (word != NULL && word < end && *word == ' ')
		word++;
	if (word != NULL && (end - word != 4 || g_ascii_strncasecmp(word, "LAST", 4) != 0))
		return false;
	if (!text_parse_u64(arg, digits, UINT64_MAX, ret_size))
		return false;
	*ret_last = word != NULL;
	return true;
}

bool
smtp_command_argument_ok(const SmtpCommand *command)
{
	switch (command->row->argument) {
	case SMTP_ARGUMENT_NONE:
		return command->arg_len == 0;
	case SMTP_ARGUMENT_REQUIRED:
		return command->arg_len > 0;
	case SMTP_ARGUMENT_OPTIONAL:
		return true;
	}
	k_unreachable();
}
