/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Dialogues from a table: each input line and the reply code that it must get. */
#include <stddef.h>
#include <stdint.h>

typedef struct Dialogue {
	const char *name;
	const char *steps; /* "input|code\n"...; input may hold \r\n itself; '-' no reply, '^' no
			      CRLF behind the input */
} Dialogue;

/* Each dialogue on a connection of its own, whole and byte by byte; each must end with the server
 * closing, and leave nothing unread. */
void dialogue_run(uint16_t port, const Dialogue *list, size_t count);
