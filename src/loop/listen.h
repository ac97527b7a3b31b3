/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Listening sockets.  A name such as "localhost" is bound on every address it has (IPv4 and
 * IPv6), "" or "*" on all; each worker has its own socket on the same port (SO_REUSEPORT) and
 * accepts for itself.  Port 0 lets the kernel choose one port for all of them.  Owner: service/.
 * Opened and closed by main while the workers run or before; callbacks on each worker. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/net.h"
#include "loop/worker.h"

typedef struct Listener Listener;

/* The descriptor (non-blocking, close-on-exec, TCP_NODELAY) is the callee's. */
typedef void ListenerAcceptFn(void *arg, Worker *worker, int fd, const NetAddr *peer);

/* Binds, and starts to accept on each worker.  Errors name address and port. */
K_MUST_CHECK Listener *listener_open(Workers *workers, const char *host, uint16_t port,
				     ListenerAcceptFn *fn, void *arg, GError **ret_error);
/* The same on sockets that listen already (socket activation), at least one, which are taken over
 * (int).  Every worker accepts from each of them; listener_port is that of the first. */
Listener *listener_open_fds(Workers *workers, const GArray *fds, ListenerAcceptFn *fn, void *arg);
/* What a client is told before it is put out when there are no descriptors left; NULL: nothing. The
 * text outlives the listener.  Any thread. */
void listener_set_farewell(Listener *listener, const char *text);
uint16_t listener_port(const Listener *listener); /* the real one */
/* Stops accepting and closes the sockets; waits until no callback runs any more, so not on a
 * worker.  NULL is fine. */
void listener_free(Listener *listener);
/* Bound and listening, non-blocking sockets of one worker for a server with its own accept loop
 * (http/): opens one per address; caller owns the descriptors (int).  With port 0 in *port the
 * first bind chooses and *port is set; later calls pass that port on.  The first call for a host
 * and port fails when another process has it; the others share it with the first, as long as
 * its first descriptor is open. */
K_MUST_CHECK bool listener_bind_all(const char *host, uint16_t *port, GArray **ret_fds,
				    GError **ret_error);
