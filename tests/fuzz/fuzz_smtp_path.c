/* SPDX-License-Identifier: Apache-2.0 */
/* MAIL and RCPT arguments: what is accepted can be sent on, and reads back as the same. */
#include "fuzz.h"

#include "smtp/syntax.h"

static char *
print(const Mailbox *mailbox, SmtpPathKind kind)
{
	GString *out = g_string_new(kind == SMTP_PATH_MAIL ? "FROM:<" : "TO:<");
	g_string_append_printf(out, "%s>", mailbox->addr);
	for (size_t i = 0; i < mailbox->n_params; i++) {
		g_string_append_printf(out, " %s", mailbox->params[i].keyword);
		if (mailbox->params[i].value != NULL)
			g_string_append_printf(out, "=%s", mailbox->params[i].value);
	}
	return g_string_free(out, FALSE);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned mode = fuzz_take_byte(&data, &size);
	SmtpPathKind kind = (mode & 1) != 0 ? SMTP_PATH_MAIL : SMTP_PATH_RCPT;
	bool utf8 = (mode & 2) != 0;
	g_autoptr(Mailbox) mailbox = NULL;
	if (smtp_parse_path((const char *)data, size, kind, utf8, &mailbox) != SMTP_PATH_OK) {
		k_assert(mailbox == NULL);
		return 0;
	}
	k_assert(smtp_address_is_sendable(mailbox->addr));
	k_assert(mailbox->n_params <= SMTP_PARAMS_MAX);
	for (size_t i = 0; i < mailbox->n_params; i++)
		k_assert(smtp_param_is_sendable(mailbox->params[i].keyword,
						mailbox->params[i].value));
	g_autofree char *text = print(mailbox, kind);
	g_autoptr(Mailbox) again = NULL;
	k_assert(smtp_parse_path(text, strlen(text), kind, utf8, &again) == SMTP_PATH_OK);
	k_assert(mailbox_equal(mailbox, again));
	return 0;
}
