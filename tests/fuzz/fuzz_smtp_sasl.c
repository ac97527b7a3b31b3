/* SPDX-License-Identifier: Apache-2.0 */
/* SASL responses, one a line of the input, in base64 as SMTP carries them: nobody gets in without
 * the password, and a secrets file made of anything is refused or works. */
#include "fuzz.h"

#include "smtp/dsn_param.h"
#include "smtp/sasl.h"

#define USERS                                                                                      \
	"{\"user\": \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"                                \
	"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"                                            \
	"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"}"

static void
run(SmtpSaslMech mech, const SmtpSecrets *secrets, const char *text)
{
	SmtpSasl sasl;
	SmtpSaslStep step = SMTP_SASL_CHALLENGE;
	g_auto(GStrv) lines = g_strsplit(text, "\n", 8);
	smtp_sasl_init(&sasl, mech, secrets, "server");
	(void)smtp_sasl_begin(&sasl);
	for (unsigned i = 0; lines[i] != NULL && step == SMTP_SASL_CHALLENGE; i++) {
		size_t len = 0;
		g_autofree uint8_t *data = smtp_sasl_decode(lines[i], strlen(lines[i]), &len);
		if (data == NULL)
			break;
		g_autofree char *again = g_base64_encode(data, len);
		k_assert(strcmp(again, lines[i]) == 0 || strcmp(lines[i], "=") == 0);
		step = smtp_sasl_step(&sasl, (const char *)data, len);
	}
	/* a proof would have to be found by chance */
	k_assert(step != SMTP_SASL_ACCEPT);
	if (step == SMTP_SASL_CHECK)
		k_assert(sasl.user != NULL && sasl.user[0] != '\0' &&
			 sasl.password_len <= SMTP_SECRET_MAX);
	smtp_sasl_clear(&sasl);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned mode = fuzz_take_byte(&data, &size) % (SMTP_SASL_MECHS + 2);
	g_autofree char *text = fuzz_string(data, size);
	if (mode < SMTP_SASL_MECHS) {
		g_autoptr(SmtpSecrets)
			secrets = smtp_secrets_parse("users", USERS, strlen(USERS), NULL);
		run((SmtpSaslMech)mode, secrets, text);
	} else if (mode == SMTP_SASL_MECHS) {
		g_autoptr(SmtpSecrets)
			secrets = smtp_secrets_parse("fuzz", (const char *)data, size, NULL);
		if (secrets != NULL && !smtp_secrets_are_slow(secrets))
			k_assert(!smtp_secrets_check(secrets, "nobody such", "x", 1));
	} else {
		g_autofree char *value = smtp_xtext_decode(text);
		k_assert((value != NULL) == smtp_xtext_is_valid(text));
		k_assert(value == NULL || strlen(value) <= strlen(text));
		(void)smtp_dsn_mail_param("ENVID", text);
		(void)smtp_dsn_rcpt_param("ORCPT", text);
		(void)smtp_dsn_rcpt_param("NOTIFY", text);
	}
	return 0;
}
