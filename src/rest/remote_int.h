/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What remote.c (envelope, polling, cancellation) and remote_upload.c (the message) share. */
#include <jansson.h>

#include "rest/remote.h"

/* What has been begun decides how a failure is worded (behaviour spec 5.3-5.5). */
typedef enum RemotePhase {
	REMOTE_START,  /* until the first answers */
	REMOTE_UPDATE, /* envelope, heartbeats */
	REMOTE_DATA,   /* the message */
} RemotePhase;

typedef struct Remote {
	TxPort port;
	HttpClient *client;
	Worker *worker;
	Tx *tx; /* counted; NULL once stopped */
	TxWatch watch;
	Timer timer; /* between polls */
	TxPortOptions options;
	char *verify, *api_key, *client_cert, *client_key; /* what `options` names */
	char *create_url;
	char *tx_url; /* NULL until created */
	char *etag;
	json_t *body; /* "body" of the newest answer, or NULL */

	HttpCall *call; /* at most one */
	bool creating;  /* `call` is the POST */
	RemotePhase phase;
	TxMark sent;       /* what the other side knows */
	TxMark sending;    /* ...once `call` has succeeded */
	Deadline deadline; /* of the update under way */
	Deadline asked;    /* when `call` began */
	Usec pace;         /* pause before the next poll */
	unsigned polls;    /* of this update */
	unsigned conflicts;
	Response *failure; /* nothing more is sent; what comes is answered with it */
	bool cancelled;    /* a cancel was sent, or is not needed */

	/* the message */
	GPtrArray *uploads; /* RemoteUpload*, in order; NULL: not begun */
	guint current;
	bool spec_sent;
	bool uploaded;
} Remote;

typedef struct RemoteUpload {
	Blob *blob;
	char *url;
	uint64_t offset; /* bytes that the other side holds */
	uint64_t piece;  /* bytes under way */
	bool whole;      /* in one request without a range */
	bool announced;  /* the piece under way tells the total */
	unsigned stuck;  /* 416s without progress */
} RemoteUpload;

/* remote.c */
/* Ends it: everything that is owed, and will be asked, is answered with `response` (moved). */
void remote_fail(Remote *remote, Response *response);
/* "450 RestEndpoint..." by phase; `reason` as the original words it. */
void remote_fail_reason(Remote *remote, const char *reason);
void remote_step(Remote *remote);
/* Takes a READ object over: answers, blob URIs.  False after remote_fail_reason(bad_json) or
 * (bad_delta). */
K_MUST_CHECK bool remote_take(Remote *remote, const HttpResult *result, const char *bad_json,
			      const char *bad_delta);
void remote_set_etag(Remote *remote, const char *etag);

#define REMOTE_HEADERS_MAX 4
/* One request.  `json` (moved) NULL: without a body. */
void remote_send(Remote *remote, const char *method, const char *url, const char *etag_header,
		 char *json, Usec timeout, HttpCallFn *done);
/* Who we are, and how the other side is checked. */
void remote_identify(const Remote *remote, HttpCallSpec *spec);
/* remote_upload.c */
/* Sends what there is to send.  True when something is under way or was failed. */
bool remote_upload_step(Remote *remote);
void remote_upload_free(void *upload);
