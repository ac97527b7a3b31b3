/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One delivery over the SMTP client, started on the worker and watched from the test's thread. */
#include "live.h"

typedef struct Job {
	Live *live;
	const SmtpOutputConf *output; /* NULL: live->output */
	const char *mx_name;          /* of the host, as routing knows it; or NULL */
	uint16_t port;
	const char *host, *from, *body;
	size_t body_len;
	const char *const *rcpts; /* ended by NULL */
	Tx *tx;
	Blob *blob;
	TxPort *tx_port;
	TxWatch watch;
	/* under live->lock */
	bool done;
	char *mail, *rcpt[4], *data; /* "250 text"; NULL: no answer */
} Job;

extern const char *const one_rcpt[];  /* ok@b.example */
extern const char *const two_rcpts[]; /* and two@b.example */

/* Starts the delivery of *arg, a Job with its first members filled in; for live_run. */
void job_begin(void *arg);
void job_start(Job *job, Live *live, uint16_t port, const char *const *rcpts, const char *body);
/* For one started without a body, once job_wait has come back: the message, and waiting again. */
void job_add_body(Job *job, const char *body);
/* Until all that was asked for is answered. */
void job_wait(Job *job);
/* Stops the delivery and frees. */
void job_clear(Job *job);
/* Compares an answer; a '*' at the end of `expected`: the rest does not matter. */
void want(const char *name, const char *what, const char *got, const char *expected);
