/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* koukan smtp: smtp_args.c has the command line and the message, smtp.c the dialogue that is
 * printed, smtp_load.c many messages at a time.  The dialogue is that of the product's own client,
 * on one worker; the main thread waits for it. */
#include <stdatomic.h>

#include "smtp/client_pool.h"

typedef struct SmtpArgs {
	const char *host, *port, *ehlo, *mail_from;
	uint64_t count;       /* messages */
	uint64_t connections; /* at the same time */
	bool load;            /* rates at the end instead of replies */
	SmtpTlsPolicy tls;
	const char *tls_ca, *tls_name;
	const char *auth_user;
	char *auth_secret; /* from standard input; owned */
	bool auth_password_stdin, bdat, lmtp, no_pipelining;
	char **rcpts;
	int n_rcpts;
} SmtpArgs;

void smtp_usage(FILE *out);
bool smtp_args_parse(SmtpArgs *args, int argc, char **argv);
/* The message, and the password before it if that is asked for, from standard input. */
Blob *smtp_args_read(SmtpArgs *args, GError **ret_error);

typedef struct Sending {
	Worker *worker;
	SmtpClientPool *pool;
	SmtpOutputConf output;
	const SmtpArgs *args;
	Blob *message;
	HostPort *to;
	Tx *tx;
	TxPort *port;
	TxWatch watch;
	int idle; /* eventfd: the worker has done what it was told to */
} Sending;

/* Runs fn(sending) on the worker and waits until smtp_signal_idle. */
void smtp_on_worker(Sending *sending, WorkerFn *fn);
void smtp_signal_idle(Sending *sending);
/* A transaction with the message; nothing runs yet. */
Tx *smtp_make_tx(const Sending *sending);
/* The worker's answer is there within `timeout` milliseconds (-1: wait). */
bool smtp_wait_idle(Sending *sending, int timeout);

typedef struct SmtpLoadResult {
	uint64_t accepted, refused, deferred, unacknowledged;
} SmtpLoadResult;
/* Sends `count` more messages to sending->to, args->connections at a time. */
void smtp_load(Sending *sending, uint64_t count, SmtpLoadResult *ret_result);
