/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the tests over real sockets share: one worker, a server on a port that the kernel chose,
 * a backend behind it that answers by the local part of addresses, and blocking sockets for the
 * test's own thread. */
#include <glib.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "loop/listen.h"
#include "loop/worker.h"
#include "smtp/client_pool.h"
#include "smtp/session.h"

#define LIVE_WAIT_MS 5000

extern const char *live_case; /* named when something does not come */

typedef struct LiveMessage {
	char *from;
	char *rcpts;  /* accepted ones, each followed by ' ' */
	char *params; /* of MAIL, "K=V " each */
	GString *body;
} LiveMessage;

typedef struct Live {
	Workers *workers;
	Worker *worker;
	SmtpServiceConf conf;
	SmtpSessions *sessions;
	Listener *listener;
	uint16_t port;
	SmtpClientPool *pool;
	SmtpOutputConf output;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under `lock` */
	GPtrArray *messages;       /* LiveMessage*, complete ones */
	unsigned started, stopped; /* ports of the backend */
	unsigned cancelled;
	unsigned sessions_ended;
	unsigned accepts;
	char *last_reason;   /* of the last session */
	char *last_meta;     /* smtp_meta of the last transaction */
	unsigned open;       /* sessions now */
	unsigned expected;   /* sessions that a test has opened */
	uint64_t seen_early; /* bytes of a body seen before it was final */
} Live;

/* `tweak` (may be NULL) changes the configuration before the start. */
void live_start(Live *live, void (*tweak)(Live *live));
void live_stop(Live *live);
/* Runs fn(arg) on the worker and waits for it. */
void live_run(Live *live, void (*fn)(void *arg), void *arg);
/* Waits until check(live) holds (called with the lock held); fails the test otherwise. */
void live_wait(Live *live, bool (*check)(const Live *live), const char *what);
unsigned live_sessions(Live *live);
unsigned live_pool_count(Live *live);

/* ---- blocking sockets ---- */
int sock_connect(uint16_t port);
int sock_listen(uint16_t *ret_port);
int sock_accept(int listener);
void sock_send(int fd, const char *text);
void sock_send_bytes(int fd, const void *data, size_t len);
/* Reads one line, CRLF cut; NULL at the end of input.  Caller frees. */
char *sock_line(int fd);
/* Reads one reply (all its lines) and returns its code; 0 at the end of input.  `ret_text` may be
 * NULL. */
int sock_reply(int fd, char **ret_text);
/* Everything until the peer closes. */
GString *sock_rest(int fd);
void sock_close(int fd);

/* A server script: steps of what must come in and what goes out. */
void script_expect(int fd, const char *line_prefix);
