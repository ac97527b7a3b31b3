/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* SMTP command lines (RFC 5321 4.1.1): verb and argument, and a table that knows each verb.
 * Pure, any thread. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

typedef enum SmtpVerb {
	SMTP_VERB_HELO,
	SMTP_VERB_EHLO,
	SMTP_VERB_MAIL,
	SMTP_VERB_RCPT,
	SMTP_VERB_DATA,
	SMTP_VERB_RSET,
	SMTP_VERB_NOOP,
	SMTP_VERB_VRFY,
	SMTP_VERB_HELP,
	SMTP_VERB_QUIT,
	SMTP_VERB_STARTTLS,
	SMTP_VERB_AUTH,
	SMTP_VERB_BDAT,
	SMTP_VERB_XCLIENT,
	SMTP_VERB_LHLO,
	SMTP_VERB_EXPN,
	SMTP_VERB_CONNECT,
	SMTP_VERB_GET,
	SMTP_VERB_POST,
	SMTP_VERBS /* count */
} SmtpVerb;

typedef enum SmtpArgument {
	SMTP_ARGUMENT_NONE, /* refused when there is one */
	SMTP_ARGUMENT_OPTIONAL,
	SMTP_ARGUMENT_REQUIRED, /* refused when there is none */
} SmtpArgument;

typedef struct SmtpCommandRow {
	const char *name;
	SmtpVerb verb;
	SmtpArgument argument;
	const char *syntax; /* behind "501 5.5.4 " when the argument rule is broken */
	int refuse_code;    /* 0: executed; else answered with these, whatever the argument */
	const char *refuse_status, *refuse_text;
	bool refuse_closes; /* what follows would not be commands: end the session */
	bool junk;          /* moves no mail: counted, so that a peer cannot go on for ever */
} SmtpCommandRow;

typedef struct SmtpCommand {
	const SmtpCommandRow *row; /* NULL: unknown */
	const char *arg;           /* into the line, outer spaces cut */
	size_t arg_len;
	size_t verb_len; /* of the line's first word */
} SmtpCommand;

typedef enum SmtpLine {
	SMTP_LINE_OK,
	SMTP_LINE_CONTROL, /* a control character, NUL, bare CR or bare LF: 501 */
} SmtpLine;

const SmtpCommandRow *smtp_command_row(SmtpVerb verb);
/* Takes a line apart; `line` is without its CRLF. */
SmtpLine smtp_command_parse(const char *line, size_t len, SmtpCommand *ret_command);
/* "chunk-size [SP LAST]" (RFC 3030 2).  False: malformed or past 2^64 - 1, so that nobody knows
 * where the next command begins. */
K_MUST_CHECK bool smtp_bdat_parse(const char *arg, size_t len, uint64_t *ret_size, bool *ret_last);
/* The argument rule of the row is kept. */
bool smtp_command_argument_ok(const SmtpCommand *command);
