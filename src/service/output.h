/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One transaction in the router: its delivery attempts, its row in the store, its end (behaviour
 * spec section 12).
 *
 *   COMMITTING --row on disk--> RUNNING --answered for good--> DONE --nobody looks--> (freed)
 *                                |   ^
 *                 temporary,     v   |  due, or retry was enabled
 *                 in memory    WAITING
 *   RUNNING --temporary, on disk--> PARKED --row updated--> (freed; dequeue brings it back)
 *
 * The row is leased to this process while an attempt runs.  When an update finds that the lease is
 * somebody else's by now, the output drops what it has and writes nothing more.
 *
 * Responsibility decides what is written (design D3): a row exists once retries are enabled and
 * the body is complete, and from then on the store knows each change of hands before anybody is
 * told.  Everything else lives in memory: its client still holds the message.  A client that has
 * uploaded all of it is told so once the row is there; or, when the store refused that row, once
 * the next hop has taken the message; or, when it has failed by then, once its notification is
 * stored.
 *
 * Owner: the RouterHome of its worker.  Own worker only. */
#include <stdbool.h>

#include "conf/config.h"
#include "filter/chain.h"
#include "rest/host.h"
#include "store/store.h"
#include "tx/port.h"

typedef struct Output Output;
struct RouterHome;

typedef enum OutputState {
	OUTPUT_COMMITTING, /* before the first attempt: its row is being written, or its creation is
			      about to be acknowledged */
	OUTPUT_RUNNING,    /* a chain works on it */
	OUTPUT_WAITING,    /* no attempt runs; it stays in memory for input or a later retry */
	OUTPUT_PARKED,     /* the end of an attempt is being written; then the queue has it */
	OUTPUT_DONE,       /* nothing more will change */
	OUTPUT_STATES
} OutputState;
const char *output_state_name(OutputState state);

/* Where it comes from, which decides who waits for it. */
typedef enum OutputOrigin {
	OUTPUT_FROM_PORT,  /* somebody in this process holds a TxPort */
	OUTPUT_FROM_REST,  /* it is in the table of REST resources */
	OUTPUT_FROM_QUEUE, /* it was loaded from the store */
} OutputOrigin;

/* `tx` is counted and has an id.  Nothing runs before output_start. */
Output *output_new(struct RouterHome *home, Tx *tx, const SenderConf *sender,
		   const EndpointConf *endpoint, OutputOrigin origin);
/* For OUTPUT_FROM_QUEUE: the row it came from. */
void output_set_row(Output *output, const StoreRow *row);
/* Starts the first attempt; when the transaction is already ours to deliver, its row goes to disk
 * first.  `done` (may be NULL) is told when the creation may be acknowledged, never inside the
 * call. */
void output_start(Output *output, RestDoneFn *done, void *arg);
/* The body is complete: `done` when that may be acknowledged. */
void output_complete(Output *output, RestDoneFn *done, void *arg);
/* The client wants it no more: `done` (may be NULL) when that is decided.  A whole message that is
 * on its way to the next hop gets OUTPUT_CANCEL_GRACE to arrive or fail, so that what readers are
 * shown is what the next hop has.  Not when it is PARKED: then the store cancels. */
#define OUTPUT_CANCEL_GRACE (5 * USEC_PER_SEC)
void output_cancel(Output *output, RestDoneFn *done, void *arg);
/* The user of the port does not care any more. */
void output_release(Output *output);

/* The queue has handed out its row again. */
typedef enum OutputWay {
	OUTPUT_GONE,    /* it had given the row back; it is out of the tables */
	OUTPUT_LEAVING, /* it is about to; ask again */
	OUTPUT_STAYS,   /* it works on it still, or has a result to write */
} OutputWay;
OutputWay output_make_way(Output *output);
/* It ended without an answer for good and without having been stored: nobody is responsible but the
 * client. */
bool output_is_unkept(const Output *output);
/* The process is about to stop: a REST transaction without its whole message is cancelled. */
void output_drain(Output *output);
/* Tear-down: ends the attempt without writing anything. */
void output_free(Output *output);

TxPort *output_port(Output *output); /* for OUTPUT_FROM_PORT; stopping it releases */
Tx *output_tx(const Output *output);
OutputState output_state(const Output *output);
bool output_is_incremental(const Output *output);
