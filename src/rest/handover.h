/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What our own nodes tell each other beside the JSON, which has no room for it (its other readers
 * refuse keys they do not know): header fields.  Any thread. */
#include "tx/tx.h"

#define REST_HANDOVER_HEADER "koukan-handover"
/* With a creation: HostPort.name of remote_host. */
#define REST_HOST_NAME_HEADER "koukan-remote-name"

/* With an upload: the etag that the client has; the answer tells the one that the upload makes. Not
 * if-match, which no upload of the dialect carries and which others may take for a condition. */
#define REST_VERSION_HEADER "koukan-version"

/* Tx.host_refused: "yes". */
#define REST_REFUSED_HEADER "koukan-host-refused"

/* NULL: nothing to be told. */
static inline const char *
rest_handover_name(TxHandover handover)
{
	static const char *const names[] = {NULL, "relayed", "delivered"};
	_Static_assert(G_N_ELEMENTS(names) == TX_HANDOVERS, "a name for each");
	return names[handover];
}

/* `name` may be NULL. */
static inline TxHandover
rest_handover_from_name(const char *name)
{
	for (int i = TX_HANDOVER_NONE + 1; i < TX_HANDOVERS; i++) {
		if (g_strcmp0(name, rest_handover_name((TxHandover)i)) == 0)
			return (TxHandover)i;
	}
	return TX_HANDOVER_NONE;
}
