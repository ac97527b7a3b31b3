/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/ids.h"
#include "base/text.h"
#include "cmd/smtp_int.h"
#include "smtp/syntax.h"

#define STDIN_MAX (256 * 1024 * 1024) /* bytes of a message from standard input */

/* ---- the message ---- */

static char *
read_stdin(GError **ret_error)
{
	GString *text = g_string_new(NULL);
	char buf[65536];
	size_t got;
	while ((got = fread(buf, 1, sizeof(buf), stdin)) > 0) {
		if (text->len + got > STDIN_MAX) {
			error_set(ret_error, K_ERROR_FULL, "message on standard input is too long");
			g_string_free(text, TRUE);
			return NULL;
		}
		g_string_append_len(text, buf, (gssize)got);
	}
	if (memchr(text->str, '\0', text->len) != NULL) {
		error_set(ret_error, K_ERROR_INPUT, "message on standard input contains a NUL");
		g_string_free(text, TRUE);
		return NULL;
	}
	return g_string_free(text, FALSE);
}

/* Whether the text begins with a header field ("Name: value"); otherwise it is the body only. */
static bool
has_header(const char *text)
{
	size_t name = 0;
	while (text[name] > ' ' && text[name] < 0x7f && text[name] != ':')
		name++;
	return name > 0 && text[name] == ':';
}

static void
put_header(GString *out, const SmtpArgs *args, bool subject)
{
	char date[CLOCK_DATE_MAX];
	uint8_t random[16];
	clock_format_rfc5322(clock_wall_sec(), false, date);
	ids_random(random, sizeof(random));
	g_string_append_printf(out, "From: <%s>\r\nTo: ", args->mail_from);
	for (int i = 0; i < args->n_rcpts; i++)
		g_string_append_printf(out, "%s<%s>", i > 0 ? ",\r\n\t" : "", args->rcpts[i]);
	g_string_append_printf(out, "\r\nDate: %s\r\nMessage-ID: <", date);
	for (size_t i = 0; i < sizeof(random); i++)
		g_string_append_printf(out, "%02x", random[i]);
	g_string_append_printf(out, "@%s>\r\n", args->ehlo);
	if (subject)
		g_string_append(out, "Subject: test message\r\n");
	g_string_append(out, "\r\n");
}

/* Lines end with CRLF on the wire, whatever they end with here. */
static void
put_lines(GString *out, const char *text)
{
	while (*text != '\0') {
		size_t len = strcspn(text, "\r\n");
		g_string_append_len(out, text, (gssize)len);
		g_string_append(out, "\r\n");
		text += len;
		if (*text == '\r')
			text++;
		if (*text == '\n')
			text++;
	}
}

static Blob *
make_message(const SmtpArgs *args, const char *text)
{
	GString *out = g_string_new(NULL);
	bool given = text != NULL && text[0] != '\0';
	if (!given || !has_header(text))
		put_header(out, args, !given);
	put_lines(out, given ? text : "This is a test message.\n");
	Blob *blob = blob_new_bytes(out->str, out->len);
	g_string_free(out, TRUE);
	return blob;
}

Blob *
smtp_args_read(SmtpArgs *args, GError **ret_error)
{
	g_autofree char *text = NULL;
	char *message;
	if (args->auth_password_stdin || isatty(STDIN_FILENO) == 0) {
		text = read_stdin(ret_error);
		if (text == NULL)
			return NULL;
	}
	message = text;
	if (args->auth_password_stdin) {
		size_t len = strcspn(text, "\r\n");
		args->auth_secret = g_strndup(text, len);
		message += len;
		message += *message == '\r' ? 1 : 0;
		message += *message == '\n' ? 1 : 0;
		if (len == 0) {
			error_set(ret_error, K_ERROR_INPUT, "no password on standard input");
			return NULL;
		}
	}
	return make_message(args, message);
}

/* ---- arguments ---- */

void
smtp_usage(FILE *out)
{
	(void)fputs(
		"usage: koukan smtp [OPTION...] HOST PORT EHLO FROM TO...\n"
		"       koukan smtp [OPTION...] --mail_from A [--host localhost] [--port 1025]\n"
		"                   [--ehlo localhost] [--iters 1] TO...\n\n"
		"Sends a message by SMTP and prints each reply.  The message comes from standard\n"
		"input (a text without header fields gets some); without one a test message is\n"
		"sent.  FROM may be empty (\"\").  Exit code 0: every recipient and the message\n"
		"were accepted.\n\n"
		"  --starttls              STARTTLS is required (without it: used if it works)\n"
		"  --tls                   TLS from the first byte\n"
		"  --tls-ca FILE           check the certificate by these authorities; and\n"
		"  --tls-name NAME         for this name (default: HOST)\n"
		"  --no-tls                plain text, whatever is offered\n"
		"  --auth-user USER        AUTH PLAIN or LOGIN, with\n"
		"  --auth-password-stdin   the first line of standard input as password\n"
		"  --lmtp                  LHLO; an answer for each recipient\n"
		"  --bdat                  BDAT where CHUNKING is offered\n"
		"  --pipelining, --no-pipelining\n"
		"                          use it where it is offered (default), or never\n"
		"  --count N               N messages; prints rates and times (milliseconds, and\n"
		"                          from the final dot to its reply) instead of replies\n"
		"  --connections M         M at a time\n",
		out);
	(void)fputs("\nExamples:\n"
		    "  koukan smtp localhost 2525 me.example a@me.example b@you.example\n"
		    "  koukan smtp --starttls --tls-ca ca.pem mx.you.example 25 me.example \\\n"
		    "      a@me.example b@you.example < letter.eml\n"
		    "  (cat password; cat letter.eml) | koukan smtp --tls --auth-user app \\\n"
		    "      --auth-password-stdin smtp.you.example 465 me.example a@me.example \\\n"
		    "      b@you.example\n"
		    "  koukan smtp --lmtp localhost 24 me.example a@me.example b@me.example\n"
		    "  koukan smtp --count 10000 --connections 20 localhost 2525 me.example \\\n"
		    "      a@me.example b@you.example\n",
		    out);
}

typedef struct Flag {
	const char *name;
	bool *on;           /* a flag without a value */
	const char **value; /* a text */
	uint64_t *number;
	SmtpTlsPolicy policy; /* with on == NULL and nothing else: args->tls */
} Flag;

static bool
take_flag(SmtpArgs *args, const Flag *flag, const char *value)
{
	if (flag->on != NULL)
		*flag->on = true;
	else if (flag->value != NULL)
		*flag->value = value;
	else if (flag->number != NULL)
		return text_parse_u64(value, strlen(value), 100000000, flag->number) &&
		       *flag->number > 0;
	else
		args->tls = flag->policy;
	return true;
}

/* Takes the options; -1, or where the rest begins. */
static int
parse_flags(SmtpArgs *args, int argc, char **argv)
{
	bool pipelining = false;
	uint64_t count = 0, connections = 0;
	const Flag flags[] = {
		{.name = "--host", .value = &args->host},
		{.name = "--port", .value = &args->port},
		{.name = "--ehlo", .value = &args->ehlo},
		{.name = "--mail_from", .value = &args->mail_from},
		{.name = "--iters", .number = &args->count},
		{.name = "--count", .number = &count},
		{.name = "--connections", .number = &connections},
		{.name = "--tls", .policy = SMTP_TLS_IMPLICIT},
		{.name = "--starttls", .policy = SMTP_TLS_REQUIRED},
		{.name = "--no-tls", .policy = SMTP_TLS_NONE},
		{.name = "--tls-ca", .value = &args->tls_ca},
		{.name = "--tls-name", .value = &args->tls_name},
		{.name = "--auth-user", .value = &args->auth_user},
		{.name = "--auth-password-stdin", .on = &args->auth_password_stdin},
		{.name = "--bdat", .on = &args->bdat},
		{.name = "--lmtp", .on = &args->lmtp},
		{.name = "--pipelining", .on = &pipelining},
		{.name = "--no-pipelining", .on = &args->no_pipelining},
	};
	int i = 1;
	for (; i < argc && g_str_has_prefix(argv[i], "--"); i++) {
		const Flag *flag = NULL;
		for (size_t f = 0; f < G_N_ELEMENTS(flags) && flag == NULL; f++)
			flag = strcmp(argv[i], flags[f].name) == 0 ? &flags[f] : NULL;
		if (flag == NULL)
			return -1;
		bool has_value = flag->value != NULL || flag->number != NULL;
		if (has_value && ++i == argc)
			return -1;
		if (!take_flag(args, flag, argv[i]))
			return -1;
	}
	args->load = count > 0 || connections > 0;
	args->count = count > 0 ? count : args->count;
	args->connections = connections > 0 ? connections : 1;
	return pipelining && args->no_pipelining ? -1 : i;
}

/* --tls-ca and --tls-name ask for a check; STARTTLS alone does not. */
static bool
check_tls(SmtpArgs *args)
{
	if (args->tls_ca == NULL && args->tls_name == NULL)
		return true;
	if (args->tls == SMTP_TLS_NONE)
		return false;
	if (args->tls != SMTP_TLS_IMPLICIT)
		args->tls = SMTP_TLS_VERIFIED;
	if (args->tls_name == NULL)
		args->tls_name = args->host;
	return true;
}

bool
smtp_args_parse(SmtpArgs *args, int argc, char **argv)
{
	uint64_t port = 0;
	*args = (SmtpArgs){.host = "localhost",
			   .port = "1025",
			   .ehlo = "localhost",
			   .count = 1,
			   .tls = SMTP_TLS_OPPORTUNISTIC};
	int at = parse_flags(args, argc, argv);
	if (at < 0)
		return false;
	if (args->mail_from == NULL) {
		if (argc - at < 5)
			return false;
		args->host = argv[at];
		args->port = argv[at + 1];
		args->ehlo = argv[at + 2];
		args->mail_from = argv[at + 3];
		at += 4;
	}
	args->rcpts = argv + at;
	args->n_rcpts = argc - at;
	if (args->n_rcpts < 1 || !text_parse_u64(args->port, strlen(args->port), 65535, &port) ||
	    port == 0 || (args->auth_user == NULL) == args->auth_password_stdin)
		return false;
	for (int i = 0; i < args->n_rcpts; i++) {
		if (args->rcpts[i][0] == '-' || !smtp_address_is_sendable(args->rcpts[i]))
			return false;
	}
	return check_tls(args) && smtp_address_is_sendable(args->mail_from) &&
	       smtp_hello_name_is_valid(args->ehlo, strlen(args->ehlo));
}
