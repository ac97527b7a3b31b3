/* SPDX-License-Identifier: Apache-2.0 */
/* koukan dkim: make a key, verify a message, sign one. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "cmd/dns_tool.h"
#include "cmd/message_file.h"
#include "mailauth/dkim_message.h"
#include "mailauth/dkim_name.h"
#include "mailauth/dkim_run.h"
#include "mailauth/dkim_sign.h"

#define BITS_DEFAULT 2048
#define TXT_PIECE    255 /* bytes of one string of a TXT record (RFC 1035 3.3.14) */

typedef struct Options {
	const char *domain, *selector, *type, *bits, *out; /* key */
	const char *server, *file;                         /* verify */
	const char *key;                                   /* sign */
} Options;

static void
usage(FILE *out)
{
	(void)fputs(
		"usage: koukan dkim key --domain NAME --selector NAME [--type rsa|ed25519]\n"
		"                       [--bits N] [--out FILE]\n"
		"       koukan dkim verify [--dns SERVER[@PORT]] FILE\n"
		"       koukan dkim sign --key FILE --domain NAME --selector NAME FILE\n\n"
		"key     makes a private key in FILE (default SELECTOR.DOMAIN.pem, never overwritten)\n"
		"        and prints the DNS record that goes with it.  RSA has 2048 bits by default.\n"
		"verify  verifies all signatures of a message and says what is wrong with those that\n"
		"        do not pass.  Exit code 0 when at least one passes.\n"
		"sign    prints the message with a signature in front.\n"
		"FILE may be - for standard input; lines may end in LF alone.\n",
		out);
}

static bool
parse(Options *options, int argc, char **argv)
{
	const struct {
		const char *name;
		const char **value;
	} known[] = {
		{"--domain", &options->domain}, {"--selector", &options->selector},
		{"--type", &options->type},     {"--bits", &options->bits},
		{"--out", &options->out},       {"--dns", &options->server},
		{"--key", &options->key},
	};
	for (int i = 2; i < argc; i++) {
		size_t at = 0;
		while (at < G_N_ELEMENTS(known) && strcmp(argv[i], known[at].name) != 0)
			at++;
		if (at < G_N_ELEMENTS(known) && i + 1 < argc)
			*known[at].value = argv[++i];
		else if ((argv[i][0] == '-' && argv[i][1] != '\0') || options->file != NULL)
			return false;
		else
			options->file = argv[i];
	}
	return true;
}

/* ---- key ---- */

static bool
write_key(const char *path, const DkimKey *key, GError **ret_error)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set_errno(ret_error, K_ERROR_IO, errno, "%s", path);
	char *pem = dkim_private_pem(key);
	size_t len = strlen(pem);
	bool ok = write(fd, pem, len) == (ssize_t)len && fsync(fd) == 0;
	int errnum = errno;
	explicit_bzero(pem, len);
	g_free(pem);
	if (close(fd) == 0 && ok)
		return true;
	(void)unlink(path);
	return error_set_errno(ret_error, K_ERROR_IO, errnum, "%s", path);
}

static void
print_record(const Options *options, const DkimKey *key)
{
	g_autofree char *record = dkim_key_record(key);
	size_t len = strlen(record);
	(void)printf("%s._domainkey.%s. IN TXT (", options->selector, options->domain);
	for (size_t at = 0; at < len; at += TXT_PIECE)
		(void)printf(" \"%.*s\"", TXT_PIECE, record + at);
	(void)printf(" )\n");
}

static bool
make_key(const Options *options, GError **ret_error)
{
	bool ed25519 = g_strcmp0(options->type, "ed25519") == 0;
	uint64_t bits = BITS_DEFAULT;
	if (options->bits != NULL &&
	    (!text_parse_u64(options->bits, strlen(options->bits), DKIM_RSA_BITS_MAX, &bits) ||
	     bits < DKIM_RSA_BITS_MIN))
		return error_set(ret_error, K_ERROR_CONFIG, "--bits is %d to %d", DKIM_RSA_BITS_MIN,
				 DKIM_RSA_BITS_MAX);
	if (!dkim_domain_ok(options->domain, 2) || !dkim_domain_ok(options->selector, 1))
		return error_set(ret_error, K_ERROR_CONFIG, "no domain or no selector");
	g_autofree char *path = options->out != NULL
					? g_strdup(options->out)
					: g_strdup_printf("%s.%s.pem", options->selector,
							  options->domain);
	g_autoptr(DkimKey) key = dkim_private_new(ed25519 ? DKIM_ED25519 : DKIM_RSA, (unsigned)bits,
						  ret_error);
	if (key == NULL || !write_key(path, key, ret_error))
		return false;
	(void)fprintf(stderr, "private key: %s\n", path);
	print_record(options, key);
	return true;
}

/* ---- verify ---- */

typedef struct Verifying {
	DnsTool *tool;
	DkimVerify *verify;
	DkimRun *run;
} Verifying;

static void
on_keys(void *arg)
{
	dns_tool_done(((Verifying *)arg)->tool);
}

static void
start(DnsTool *tool, Worker *worker, Dns *dns, void *arg)
{
	Verifying *verifying = arg;
	verifying->tool = tool;
	verifying->run = dkim_run_start(worker, dns, verifying->verify, on_keys, verifying);
}

static void
stop(void *arg)
{
	dkim_run_free(((Verifying *)arg)->run);
}

static bool
print_results(const DkimVerify *verify)
{
	bool pass = false;
	for (unsigned i = 0; i < dkim_verify_count(verify); i++) {
		const DkimResult *r = dkim_verify_result(verify, i);
		pass |= r->status == DKIM_PASS;
		(void)printf("%u: %s d=%s s=%s a=%s", i + 1, r->word,
			     r->domain != NULL ? r->domain : "?",
			     r->selector != NULL ? r->selector : "?",
			     r->algorithm != NULL ? r->algorithm : "?");
		if (r->key_bits > 0)
			(void)printf(" bits=%u", r->key_bits);
		(void)printf("%s%s%s\n", r->reason != NULL ? " (" : "",
			     r->reason != NULL ? r->reason : "", r->reason != NULL ? ")" : "");
	}
	if (dkim_verify_count(verify) == 0)
		(void)printf("no signature\n");
	return pass;
}

static bool
verify(const Options *options, GError **ret_error)
{
	static const DnsToolWork work = {.start = start, .stop = stop};
	Verifying verifying = {0};
	g_autoptr(Blob) message = message_file_read(options->file, ret_error);
	if (message == NULL)
		return false;
	verifying.verify = dkim_verify_message(message, (int64_t)clock_wall_sec(), ret_error);
	bool ok = verifying.verify != NULL &&
		  dns_tool_run(options->server, &work, &verifying, ret_error);
	if (ok && !print_results(verifying.verify))
		ok = error_set(ret_error, K_ERROR_INPUT, "no signature passes");
	dkim_verify_free(verifying.verify);
	return ok;
}

/* ---- sign ---- */

static bool
print_signed(const char *fields, const Blob *message, GError **ret_error)
{
	size_t len;
	g_autofree char *text = blob_to_string(message, UINT64_MAX, &len, ret_error);
	if (text == NULL)
		return false;
	if (fputs(fields, stdout) == EOF || fwrite(text, 1, len, stdout) != len ||
	    fflush(stdout) != 0)
		return error_set_errno(ret_error, K_ERROR_IO, errno, "standard output");
	return true;
}

static bool
sign(const Options *options, GError **ret_error)
{
	static const char *const oversign[] = {"From", NULL};
	g_autoptr(Blob) message = message_file_read(options->file, ret_error);
	DkimKeyFile *file = message != NULL ? dkim_key_file_new(options->key, ret_error) : NULL;
	if (file == NULL)
		return false;
	const DkimSigner signer = {
		.key = dkim_key_file_get(file),
		.domain = options->domain,
		.selector = options->selector,
		.header_form = CANON_RELAXED,
		.body_form = CANON_RELAXED,
		.oversign = oversign,
	};
	g_autofree char *fields = dkim_sign(&signer, 1, message, (int64_t)clock_wall_sec(),
					    ret_error);
	dkim_key_unref(signer.key);
	dkim_key_file_free(file);
	return fields != NULL && print_signed(fields, message, ret_error);
}

int
cmd_dkim(int argc, char **argv)
{
	Options options = {0};
	g_autoptr(GError) error = NULL;
	const char *what = argc > 1 ? argv[1] : "";
	if (strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0) {
		usage(stdout);
		return 0;
	}
	bool known = parse(&options, argc, argv);
	bool named = options.domain != NULL && options.selector != NULL;
	bool typed = options.type == NULL || strcmp(options.type, "rsa") == 0 ||
		     strcmp(options.type, "ed25519") == 0;
	bool (*run)(const Options *, GError **) = NULL;
	if (known && strcmp(what, "key") == 0 && named && typed && options.file == NULL)
		run = make_key;
	else if (known && strcmp(what, "verify") == 0 && options.file != NULL)
		run = verify;
	else if (known && strcmp(what, "sign") == 0 && named && options.file != NULL &&
		 options.key != NULL)
		run = sign;
	if (run == NULL) {
		usage(stderr);
		return 2;
	}
	if (run(&options, &error))
		return 0;
	(void)fprintf(stderr, "koukan dkim: %s\n", error->message);
	return 1;
}
