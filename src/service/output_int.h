/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Shared by the files of an Output: output.c (attempts and events), output_end.c (how they end),
 * output_row.c (what is written, and who waits for it). */
#include "base/ids.h"
#include "service/bounce.h"
#include "service/router_int.h"

#define REASON_SUCCESS   "upstream response success"
#define REASON_PERM      "upstream response permfail"
#define REASON_MAIL_PERM "upstream mail_response permfail"
#define REASON_RCPT_PERM "upstream rcpt_response permfail"
#define REASON_RCPTS     "exploder/oneshot all rcpts failed"
#define REASON_TIMEOUT   "downstream timeout"
#define REASON_CANCELLED "downstream cancelled"

#define WRITE_AGAIN (1 * USEC_PER_SEC) /* after a failed write of a row */

typedef enum RowState {
	ROW_NONE,    /* not in the store */
	ROW_WRITING, /* the insert is under way */
	ROW_STORED
} RowState;

/* Its sender is to hear from us that it has failed. */
typedef enum NoticeState {
	NOTICE_NONE,    /* nothing is owed (yet) */
	NOTICE_OWED,    /* a notification is to be on disk before all else; with a row it is tried
			   again and again, without one the client that still holds the message
			   decides */
	NOTICE_WRITING, /* on its way there */
	NOTICE_STORED
} NoticeState;

/* Somebody who waits until the transaction may be acknowledged. */
typedef struct Ack {
	RestDoneFn *done;
	void *arg;
} Ack;

struct Output {
	TxPort port; /* first */
	RouterHome *home;
	Tx *tx;
	const SenderConf *sender;
	const EndpointConf *endpoint;
	OutputOrigin origin;
	OutputState state;
	RowState row;
	bool released; /* its user has gone */
	bool dirty;    /* the row does not show the newest state yet; output_set_dirty */
	bool deferred; /* its destination has enough to do: the queue starts the first attempt */
	bool drained;  /* cancelled by our own end, before its message was complete */
	bool promised; /* its client has been told that we have the whole message */
	NoticeState notice;
	RestVerdict refusal; /* the store did not take it, and the next hop's word is awaited: what
				to answer if that is no 2xx; status 0: not so */
	char *destination;   /* counted there (service/destinations.h); NULL: not counted */
	DestinationKind kind;
	Deadline cancel_by; /* cancelled, but the attempt may still end by itself; 0: not */
	bool gone;          /* out of the home; freed when the last store job is answered */
	unsigned jobs;      /* store jobs under way */
	json_t *former;     /* row_former of the row it came from, or NULL */
	int64_t creation, next_attempt; /* unix seconds */
	Deadline started, changed;      /* the attempt; the last news from downstream */
	Chain *chain;                   /* of the running attempt */
	TxWatch watch;
	TxMark mark;
	Timer timer;
	Defer ack_defer;
	GArray *acks;    /* Ack; NULL: none */
	GArray *cancels; /* Ack: who waits for the end of a cancelled attempt; NULL: nobody */
};

/* output.c */
static inline bool
output_is_active(OutputState state)
{
	return state != OUTPUT_DONE && state != OUTPUT_PARKED;
}
void output_set_state(Output *output, OutputState state);
/* Something is to be written, or nothing any more: the end of the process waits for it. */
void output_set_dirty(Output *output, bool dirty);
/* Out of the home's tables; freed at the end of the turn. */
void output_remove(Output *output);
void output_start_attempt(Output *output);
void output_arm_timer(Output *output);
/* Retries are enabled here, so that the message becomes ours once it is complete. */
bool output_is_ours(const Output *output);
/* Around each store job: an output lives until the last is answered. */
void output_job_begin(Output *output);
/* False: the output is gone and has been freed. */
K_MUST_CHECK bool output_job_end(Output *output);

/* output_end.c */
/* `reason` NULL: the one attempt of a transaction without retries failed for now; readers keep
 * its answers and are shown no final reason. */
void output_finish(Output *output, const char *reason);
/* The attempt failed for now. */
void output_end_temporary(Output *output);
/* When to try next, into output->next_attempt. */
RetryVerdict output_plan_retry(Output *output);
/* The attempt has failed for good and the sender of the message is to hear of it from us. */
void output_take_over_failure(Output *output);
/* Done and nobody looks: it goes.  Readers over REST may look for a while. */
void output_linger(Output *output);
void output_log_end(const Output *output, const char *event, const char *reason);
/* The notification of `output` is under way; false when none is owed or can be made.  `done` (may
 * be NULL) is told when it is on disk, never inside the call. */
bool output_send_bounce(Output *output, BounceKind kind, RestDoneFn *done, void *arg);

/* output_row.c */
void output_insert(Output *output);
void output_write(Output *output);
/* The row says "final" once the notification, if one is owed, is on disk: whatever fails or dies
 * between the two repeats the notification instead of losing it.  Without a row the same goes for
 * the acknowledgement. */
void output_settle(Output *output);
/* Waits for the row when there is, or will be, one; else for what makes the acknowledgement true
 * all the same; else the answer comes at the end of the turn. */
void output_add_ack(Output *output, RestDoneFn *done, void *arg);
void output_ack_now(void *output);
void output_list_ack(GArray **list, RestDoneFn *done, void *arg);
/* Tells them all and forgets them. */
void output_run_acks(GArray **list, const RestVerdict *verdict);
