/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines: the argument lies inside the line, and no control character gets through. */
#include "fuzz.h"

#include "smtp/command.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *line = (const char *)data;
	SmtpCommand command;
	if (smtp_command_parse(line, size, &command) != SMTP_LINE_OK)
		return 0;
	for (size_t i = 0; i < size; i++)
		k_assert(data[i] >= 0x20 || data[i] == '\t');
	k_assert(command.verb_len <= size && command.arg_len <= size);
	if (command.arg_len > 0)
		k_assert(command.arg >= line && command.arg + command.arg_len <= line + size);
	if (command.row != NULL) {
		k_assert(strlen(command.row->name) == command.verb_len);
		(void)smtp_command_argument_ok(&command);
	}
	return 0;
}
