/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The two protocols of a service manager such as systemd, by their documents: listening sockets
 * that it opened for us (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES) and what we tell
 * it about our state (sd_notify(3): NOTIFY_SOCKET).  Both are environment variables and
 * descriptors, nothing else.
 *
 * Main thread only, and activation_take before there are other threads: it changes the environment.
 * Owner: service/node. */
#include <glib.h>
#include <stdbool.h>

#include "base/check.h"

#define ACTIVATION_FIRST_FD 3  /* SD_LISTEN_FDS_START */
#define ACTIVATION_MAX      64 /* sockets; more is no configuration that anybody meant */

/* One socket.  `fd` is the manager's socket too (it is one open file): closing ours does not stop
 * it from listening. */
typedef struct ActivationSocket {
	int fd;     /* -1: taken by activation_fds */
	char *name; /* FileDescriptorName; "unknown" where the manager gave none */
} ActivationSocket;

typedef struct Activation {
	GArray *sockets; /* ActivationSocket, in the manager's order */
} Activation;

/* What was handed to this process; empty when nothing was, or to another one (LISTEN_PID).  Takes
 * the variables out of the environment, so that it is asked once, and marks the descriptors
 * close-on-exec.  Fails when what was handed over is no listening TCP socket. */
K_MUST_CHECK Activation *activation_take(GError **ret_error);
void activation_free(Activation *activation); /* closes what nobody took; NULL is fine */
/* The sockets of that name, now the caller's.  Empty when nothing at all was handed over: the
 * caller then opens its own.  When something was, but nothing of that name: an error that says
 * which names there are. */
K_MUST_CHECK GArray *activation_fds(Activation *activation, const char *name, GError **ret_error);
/* False, with its name in the error, when a socket was not taken: its clients would wait for
 * ever. */
K_MUST_CHECK bool activation_all_taken(const Activation *activation, GError **ret_error);

/* Tells the manager, as in "READY=1"; several lines are parted by '\n'.  True also when there is
 * none that wants to know. */
bool activation_notify(const char *state, GError **ret_error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Activation, activation_free)
