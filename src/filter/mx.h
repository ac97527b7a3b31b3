/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The addresses where mail for a name is taken (RFC 5321 5.1): MX, or the name itself, then A and
 * AAAA.  Own worker only.  The callback comes once, never inside mx_start, and not at all for a
 * lookup that is done there already. */
#include "loop/dns.h"

typedef struct Mx Mx;

typedef enum MxStatus {
	MX_OK,
	MX_NX,   /* the name does not exist, or takes no mail (RFC 7505) */
	MX_TEMP, /* not known for now, or no address at all */
} MxStatus;

#define MX_HOSTS_MAX     10 /* hosts of one name, best preference first */
#define MX_ADDRESSES_MAX 20

typedef void MxFn(void *arg);
/* `dns` NULL: temporarily unknown. */
Mx *mx_start(Dns *dns, const char *name, MxFn *done, void *arg);
void mx_free(Mx *mx); /* NULL is fine; then silence */
/* Ends what runs: temporarily unknown.  No callback. */
void mx_give_up(Mx *mx);
const char *mx_name(const Mx *mx);
bool mx_is_done(const Mx *mx);
MxStatus mx_status(const Mx *mx);                       /* MX_TEMP until it is done */
const GPtrArray *mx_addresses(const Mx *mx);            /* char*, in the order to try; borrowed */
const char *mx_address_host(const Mx *mx, guint index); /* the host that has this address */
