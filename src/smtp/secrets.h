/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Users and what proves that they know their passwords.  The file is one JSON object, user to:
 *
 *   "<64 hex digits, lower case>"     SHA-256 of the password, without salt: for random secrets
 * only
 *   "$y$...", "$6$..." and the like   crypt(3): for passwords that people choose
 *   "SCRAM-SHA-256$N:SALT$STORED:SERVER"  RFC 5803 with base64: also good for AUTH SCRAM-SHA-256
 *
 * Immutable and counted atomically, so shared between workers and pool threads.  Passwords and
 * hashes are never printed, in errors neither. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

typedef struct SmtpSecrets SmtpSecrets;

#define SMTP_SECRETS_USERS_MAX 100000
#define SMTP_SECRET_MAX        1024 /* bytes of a user name or a password */
#define SMTP_SCRAM_SALT_MAX    64
#define SMTP_SCRAM_KEY         32 /* bytes of SHA-256 */
#define SMTP_SCRAM_ROUNDS_MIN  4096
#define SMTP_SCRAM_ROUNDS_MAX  10000000
#define SMTP_SCRAM_ROUNDS      32768 /* of new ones */

K_MUST_CHECK SmtpSecrets *smtp_secrets_load(const char *path, GError **ret_error);
/* `what` names the text in errors. */
K_MUST_CHECK SmtpSecrets *smtp_secrets_parse(const char *what, const char *text, size_t len,
					     GError **ret_error);
SmtpSecrets *smtp_secrets_ref(SmtpSecrets *secrets);
void smtp_secrets_unref(SmtpSecrets *secrets); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SmtpSecrets, smtp_secrets_unref)

/* Whether the password is the user's; `password` is any `len` bytes.  An unknown user costs what
 * some user of the file costs, always the same one for the same name.  Any thread; takes long when
 * smtp_secrets_are_slow. */
bool smtp_secrets_check(const SmtpSecrets *secrets, const char *user, const char *password,
			size_t len);
bool smtp_secrets_are_slow(const SmtpSecrets *secrets);

/* What SCRAM needs to know of a user. */
typedef struct SmtpScramKeys {
	bool known; /* false: made up, and no proof will fit */
	unsigned rounds;
	uint8_t salt[SMTP_SCRAM_SALT_MAX];
	size_t salt_len;
	uint8_t stored[SMTP_SCRAM_KEY], server[SMTP_SCRAM_KEY];
} SmtpScramKeys;

bool smtp_secrets_have_scram(const SmtpSecrets *secrets);
/* For a user without such an entry the same invented values each time, so that nobody learns who
 * there is. */
void smtp_secrets_scram(const SmtpSecrets *secrets, const char *user, SmtpScramKeys *ret_keys);

/* New entries for a file; caller frees.  NULL and K_ERROR_IO when the system cannot. */
char *smtp_secret_sha256(const char *password);
char *smtp_secret_crypt(const char *password, GError **ret_error);
char *smtp_secret_scram(const char *password, unsigned rounds, GError **ret_error);
