/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The example receiver (behaviour spec 20): what receiver.c (HTTP) and receiver_tx.c (transactions
 * and their files) share.  Everything on one worker. */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

#include "base/check.h"
#include "base/clock.h"

#define RECEIVER_IDLE (300 * USEC_PER_SEC) /* a transaction that nobody touches is forgotten */

/* One blob that is uploaded: a part, or the message itself. */
typedef struct ReceiverFile {
	char *path; /* where it is going to be */
	char *temp; /* where it is written, or NULL */
	int fd;     /* -1: no upload under way */
	uint64_t size;
	bool final;
} ReceiverFile;

typedef struct ReceiverTx {
	char *id;
	unsigned version;
	Deadline touched;
	json_t *request;   /* as it came */
	json_t *output;    /* filter_output so far, or NULL */
	json_t *parts;     /* object: blob id -> true, in order of appearance; NULL: no spec yet */
	GHashTable *files; /* blob id -> ReceiverFile * */
	ReceiverFile message; /* the original */
	char *spec_path;      /* NULL: none was posted */
	bool cancelled;
	unsigned uploads; /* under way */
} ReceiverTx;

/* `request` is counted.  `dir` is where the files go. */
ReceiverTx *receiver_tx_new(const char *dir, json_t *request);
void receiver_tx_free(void *tx);
/* What a GET shows; `base` is "http://host:port".  New reference. */
json_t *receiver_tx_show(const ReceiverTx *tx, const char *base);
/* Takes the parsed message: inline texts go into files, create_ids become places to upload.
 * `spec` is changed.  K_ERROR_INPUT or K_ERROR_IO. */
K_MUST_CHECK bool receiver_tx_set_spec(ReceiverTx *tx, const char *dir, json_t *spec,
				       GError **ret_error);
/* Envelope and answers, when the message is complete. */
K_MUST_CHECK bool receiver_tx_save(const ReceiverTx *tx, const char *dir, GError **ret_error);

K_MUST_CHECK bool receiver_file_open(ReceiverFile *file, GError **ret_error);
K_MUST_CHECK bool receiver_file_write(ReceiverFile *file, const char *data, size_t len,
				      GError **ret_error);
/* Gives it its name, unless something has that name. */
K_MUST_CHECK bool receiver_file_finish(ReceiverFile *file, GError **ret_error);
void receiver_file_abort(ReceiverFile *file); /* nothing happens when no upload is under way */

/* receiver_page.c: HTML rows of the last messages, the newest first; the queue owns its strings. */
#define RECEIVER_PAGE_ROWS 100
void receiver_page_add(GQueue *rows, const ReceiverTx *tx);
char *receiver_page_html(const GQueue *rows);
