/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One process of Koukan: a gateway, a router, or both (`koukan serve`), with everything they stand
 * on - workers, resolver, HTTP, store - put together in the order in which it must start and
 * stop.  Main thread only. */
#include <glib.h>
#include <stdbool.h>

#include "conf/config.h"

typedef struct Node Node;

typedef struct NodeOptions {
	RouterConfig *router;    /* counted; NULL: no router here */
	GatewayConfig *gateway;  /* counted; NULL: no gateway here */
	const char *listen_info; /* file that is told where we listen, as JSON; NULL: none */
} NodeOptions;

/* Opens everything, the listeners last.  On failure nothing is left open. */
K_MUST_CHECK Node *node_start(const NodeOptions *options, GError **ret_error);
/* Serves until SIGTERM or SIGINT, then stops gracefully: no new work, what runs may end within
 * NODE_STOP_MAX, a second signal ends at once. */
#define NODE_STOP_MAX (25 * USEC_PER_SEC)
void node_run(Node *node);
void node_free(Node *node); /* NULL is fine */
