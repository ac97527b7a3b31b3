/* SPDX-License-Identifier: Apache-2.0 */
/* koukan secret: a line for the file of `auth_secrets`, or an API key. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "service/access.h"
#include "smtp/secrets.h"

#define RANDOM_BYTES  16 /* of a secret of ours: too many to guess, whatever the hash */
#define API_KEY_BYTES 32

typedef enum Form { FORM_CRYPT, FORM_SHA256, FORM_SCRAM } Form;

typedef struct Options {
	const char *user;
	Form form;
	bool from_stdin;
} Options;

static void
usage(FILE *out)
{
	(void)fputs(
		"usage: koukan secret [--user NAME] [--plain-sha256 | --scram] [--password-stdin]\n"
		"       koukan secret --api-key\n\n"
		"Makes a secret and prints it with its hash, for the JSON file of `auth_secrets`\n"
		"({\"NAME\": \"HASH\", ...}).\n"
		"  --user NAME        prints the entry \"NAME\": \"HASH\" (without: SECRET HASH)\n"
		"  --plain-sha256     unsalted SHA-256, for random secrets only\n"
		"  --scram            for AUTH SCRAM-SHA-256, too; the server never sees the password\n"
		"  --password-stdin   takes the password from standard input (one line) instead of\n"
		"                     making one\n"
		"Without a form: yescrypt, which is slow to guess.\n\n"
		"With --api-key makes a key for the REST API: the key on standard error, for the\n"
		"client (a file for --api-key-file), and on standard output the line for an entry\n"
		"of `koukan.rest.access` in the server's configuration.\n",
		out);
}

static bool
parse(Options *options, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--plain-sha256") == 0 && options->form == FORM_CRYPT)
			options->form = FORM_SHA256;
		else if (strcmp(argv[i], "--scram") == 0 && options->form == FORM_CRYPT)
			options->form = FORM_SCRAM;
		else if (strcmp(argv[i], "--password-stdin") == 0)
			options->from_stdin = true;
		else if (strcmp(argv[i], "--user") == 0 && i + 1 < argc && argv[i + 1][0] != '\0')
			options->user = argv[++i];
		else
			return false;
	}
	return true;
}

static char *
make_password(void)
{
	uint8_t random[RANDOM_BYTES];
	ids_random(random, sizeof(random));
	char *text = text_base64url(random, sizeof(random));
	explicit_bzero(random, sizeof(random));
	return text;
}

/* One line, without its end; at most SMTP_SECRET_MAX bytes. */
static char *
read_password(GError **ret_error)
{
	char line[SMTP_SECRET_MAX + 2];
	size_t len = fread(line, 1, sizeof(line) - 1, stdin);
	line[len] = '\0';
	size_t end = strcspn(line, "\r\n");
	bool whole = strspn(line + end, "\r\n") == len - end;
	char *password = whole && end > 0 && end <= SMTP_SECRET_MAX ? g_strndup(line, end) : NULL;
	explicit_bzero(line, sizeof(line));
	if (password == NULL)
		error_set(ret_error, K_ERROR_INPUT,
			  "standard input is not one line of 1 to %d bytes", SMTP_SECRET_MAX);
	return password;
}

static char *
make_hash(const Options *options, const char *password, GError **ret_error)
{
	switch (options->form) {
	case FORM_SHA256:
		return smtp_secret_sha256(password);
	case FORM_SCRAM:
		return smtp_secret_scram(password, SMTP_SCRAM_ROUNDS, ret_error);
	case FORM_CRYPT:
		return smtp_secret_crypt(password, ret_error);
	}
	k_unreachable();
}

static void
print(const Options *options, const char *password, const char *hash)
{
	if (options->user == NULL) {
		if (options->from_stdin)
			(void)printf("%s\n", hash);
		else
			(void)printf("%s %s\n", password, hash);
		return;
	}
	g_autoptr(json_t) entry = json_object();
	json_object_set_new(entry, options->user, json_string(hash));
	g_autofree char *text = json_print(entry);
	if (!options->from_stdin)
		(void)fprintf(stderr, "password: %s\n", password);
	(void)printf("%s\n", text);
}

static int
make_api_key(void)
{
	uint8_t random[API_KEY_BYTES];
	ids_random(random, sizeof(random));
	g_autofree char *text = text_base64url(random, sizeof(random));
	g_autofree char *key = g_strconcat("kk_", text, NULL);
	g_autofree char *hash = access_hash(key);
	explicit_bzero(random, sizeof(random));
	explicit_bzero(text, strlen(text));
	(void)fprintf(stderr, "key: %s\n", key);
	(void)printf("api_keys: [\"%s\"]\n", hash);
	explicit_bzero(key, strlen(key));
	return 0;
}

int
cmd_secret(int argc, char **argv)
{
	Options options = {0};
	g_autoptr(GError) error = NULL;
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		usage(stdout);
		return 0;
	}
	if (argc == 2 && strcmp(argv[1], "--api-key") == 0)
		return make_api_key();
	if (!parse(&options, argc, argv) ||
	    (options.user != NULL && !g_utf8_validate(options.user, -1, NULL))) {
		usage(stderr);
		return 2;
	}
	char *password = options.from_stdin ? read_password(&error) : make_password();
	char *hash = password != NULL ? make_hash(&options, password, &error) : NULL;
	if (hash != NULL)
		print(&options, password, hash);
	else
		(void)fprintf(stderr, "koukan secret: %s\n", error->message);
	if (password != NULL)
		explicit_bzero(password, strlen(password));
	g_free(password);
	bool ok = hash != NULL;
	g_free(hash);
	return ok ? 0 : 1;
}
