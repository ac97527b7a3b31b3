/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The addresses where mail for a name is taken (RFC 5321 5.1): MX, or the name itself, then A and
 * AAAA.  Own worker only.  The callback comes once, never inside mx_start, and not at all for a
 * lookup that is done there already. */
#include "loop/dns.h"
#include "tx/tx.h"

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
MxStatus mx_status(const Mx *mx); /* MX_TEMP until it is done */

/* ---- where mail may really be sent ---- */

/* Who we are, and what else is out of bounds for names that strangers choose. */
typedef struct MxGuard {
	const char *own_name;           /* NULL: not known */
	const GPtrArray *own_addresses; /* char*; may be NULL */
	bool allow_private;             /* loopback, private and other special addresses too */
} MxGuard;

/* The addresses of this machine, loopback aside (char*, owned by the caller). */
GPtrArray *mx_own_addresses(void);
/* Why mail is not sent to that address, or NULL.  Static text. */
const char *mx_address_fault(const char *literal, const MxGuard *guard);
/* An address to try, and the host that has it. */
typedef struct MxTarget {
	char *addr, *host;
} MxTarget;
GPtrArray *mx_targets_new(void); /* MxTarget* */
/* Appends to `out` the addresses to try: hosts that are less preferred than ourselves are
 * left out (RFC 5321 5.1), so are addresses that the guard refuses.  MX_NX when nothing is left of
 * what there was. */
MxStatus mx_targets(const Mx *mx, const MxGuard *guard, GPtrArray *out);
/* What is behind an MX_NX of mx_targets, where it is more than that there is no such host. */
TxRouteFault mx_fault(const Mx *mx, const MxGuard *guard);
/* All that was found and what became of it, line by line, for people. */
void mx_describe(const Mx *mx, const MxGuard *guard, GString *out);
