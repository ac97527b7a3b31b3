/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What send.c (transactions and their outcome), send_message.c (what is sent) and send_upload.c
 * (how it gets there) share.  Main thread, but for what send_upload.c says. */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cmd/send_http.h"

/* Bytes to be uploaded; the first upload's URI serves the other recipients. */
typedef struct SendUpload {
	char *id;   /* create_id; NULL: the whole message */
	char *name; /* for people */
	char *uri;  /* NULL: not uploaded yet */
	int fd;     /* owned; a file, or memory */
	uint64_t len;
} SendUpload;

typedef struct Send {
	const char *mail_from, *url, *tag, *verify;
	const char *rfc822, *builder_file; /* what is sent: one of these, or composed */
	const char *subject, *text, *html;
	GPtrArray *attach; /* borrowed paths */
	const char *api_key_file, *client_cert, *client_key;
	int64_t timeout;
	unsigned rounds;
	bool as_json, is_inline, no_wait, progress;
	char **to;
	int n_to;

	SendHttp *http;
	json_t *builder;    /* NULL: whole message */
	char *inline_text;  /* the whole message, until there is something to refer to; or NULL */
	GPtrArray *uploads; /* SendUpload * */
} Send;

/* What became of one recipient. */
typedef struct SendOutcome {
	char *url; /* of its transaction, or NULL */
	char *etag;
	json_t *tx;  /* newest state, or NULL */
	char *error; /* ours */
} SendOutcome;

/* Always false: `outcome` has an error now. */
bool send_fail(SendOutcome *outcome, const char *what, const SendReply *reply);

/* send_message.c */
/* Reads or composes the message: sets `builder` or `uploads`. */
K_MUST_CHECK bool send_message_load(Send *send, GError **ret_error);
void send_message_clear(Send *send);
/* The member "body" of a creation, referring to what was uploaded before; NULL: none. */
json_t *send_message_body(const Send *send);

/* send_upload.c */
/* Uploads what the server wants and does not have yet. */
K_MUST_CHECK bool send_upload_all(Send *send, SendOutcome *outcome);
