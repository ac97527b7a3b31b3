/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A next hop that follows a script, in plain text or inside TLS, and what a delivery to it comes
 * to: the tests of the client are tables of these. */
#include "job.h"

#define MAX_CASE_RCPTS 4

/* One step a line:
 *   S line   sends it with CRLF           R text   sends it without (C escapes)
 *   D text   likewise, byte by byte       C prefix wants such a line
 *   P text   wants exactly this, in one piece (| is CRLF)
 *   N text   wants these bytes next (C escapes)
 *   B        reads to the final dot       T        TLS handshake as server
 *   U        a handshake that fails       E        wants the end of the connection, no final dot
 *   X        closes                       A        accepts the next connection
 *   O        the connection stays open    L n text sends n lines of the text */
typedef struct Case {
	const char *name, *steps;
	/* Changes the output's configuration; may be NULL. */
	void (*tweak)(Live *live);
	const char *const *rcpts; /* NULL: one_rcpt */
	const char *body;         /* NULL: "Subject: x\r\n\r\n.dot\r\n" */
	/* as of want(); NULL: does not matter, but there is one */
	const char *mail, *rcpt[MAX_CASE_RCPTS], *data;
} Case;

void cases_run(const Case *cases, size_t count);

/* Where the steps above lead to, for tests that are no table. */
typedef struct Hop Hop;
Hop *hop_new(uint16_t *ret_port);
void hop_play(Hop *hop, const char *steps); /* accepts first if there is no connection */
int hop_fd(const Hop *hop);
void hop_say(Hop *hop, const char *text, size_t len); /* to the connection that there is */
unsigned hop_resumed(const Hop *hop);                 /* TLS handshakes that resumed a session */
void hop_free(Hop *hop);

/* What T shows. */
void hop_use_cert(const char *path);
