/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Binding the addresses of a host.  Private to loop/; any thread (a name may block in the
 * system's resolver, so at start-up only). */
#include "loop/listen.h"

/* Listening, non-blocking descriptors (int), one an address, all on *port, which is set when it
 * was 0.  `exclusive`: fails when anybody has the port; otherwise shares it with those of our
 * own user who allow it. */
K_MUST_CHECK bool listen_bind(const char *host, uint16_t *port, bool exclusive, GArray **ret_fds,
			      GError **ret_error);
uint16_t listen_port_of(int fd); /* of a bound TCP socket */
void listen_no_delay(int fd);    /* for the sockets that are accepted from it */
