/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Requests one after the other, from the main thread: the client runs on a worker of its own and
 * each call waits for the answer.  For the command line tools. */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

#include "http/client.h"

typedef struct SendHttp SendHttp;

K_MUST_CHECK SendHttp *send_http_new(GError **ret_error);
void send_http_free(SendHttp *http); /* NULL is fine */

/* Who we are to the server, for all requests.  `api_key_file`: its first line is the key; any may
 * be NULL.  The strings outlive `http`. */
K_MUST_CHECK bool send_http_identify(SendHttp *http, const char *api_key_file,
				     const char *client_cert, const char *client_key,
				     GError **ret_error);

typedef struct SendReply {
	int status;            /* 0: no answer; `text` says why */
	char *text;            /* the body */
	char *etag, *location; /* or NULL */
	json_t *json;          /* the body, when it is JSON; else NULL */
} SendReply;
void send_reply_clear(SendReply *reply);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(SendReply, send_reply_clear)

/* `spec` as for http_call_start.  *ret_reply is cleared first. */
void send_http_ask(SendHttp *http, const HttpCallSpec *spec, SendReply *ret_reply);
