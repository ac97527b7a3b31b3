/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The transaction: one request to send one message, and the answers to it.
 *
 * It only grows.  Scalars are set once, recipients are appended, the body grows until final,
 * answers are given once.  So nobody compares snapshots: an observer keeps a small TxMark of
 * what it has seen, and what is new is (tx, mark).  The one exception is a new delivery attempt,
 * which forgets the former attempt's answers (tx_begin_attempt) and shows in the mark.
 *
 *      user (SMTP session, REST API, exploder, filter chain)     writes requests
 *        |   tx   |
 *      port (local router, remote node, SMTP client)             writes answers
 *
 * Both sides watch the same object; each tx_* setter notes the change, and all watchers are
 * called once, at the end of the loop turn, never inside the setter.
 *
 * Counted, not atomic: lives on one worker.  Pure: no I/O, no clock. */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "base/defer.h"
#include "base/net.h"
#include "tx/address.h"
#include "tx/blob.h"
#include "tx/response.h"

typedef struct Tx Tx;

#define TX_RCPTS_MAX 1000 /* default cap of recipients (RFC 5321 4.5.3.1.8: at least 100) */

/* ---- parts ---- */

typedef struct TxRcpt {
	Mailbox *to;
	Response *response; /* NULL: no answer yet */
} TxRcpt;

/* A named blob of a message-builder or parsed message. */
typedef struct TxPart {
	char *id;
	Blob *blob;
} TxPart;

/* The message, in one of three forms: `raw` alone (RFC 5322 bytes); `builder` with `parts` (JSON
 * to be rendered, spec 15); `builder` with `parts` and `raw` (parsed form and original, spec 16).
 * Counted, not atomic. */
typedef struct TxBody {
	int refs;
	Blob *raw;        /* NULL: builder form */
	json_t *builder;  /* NULL: raw form.  Contents are normalised to {"create_id": part id} */
	GPtrArray *parts; /* TxPart*; empty in raw form */
} TxBody;

TxBody *tx_body_new_raw(Blob *raw); /* takes a reference of its own */
/* `builder` is borrowed (counted); add parts with tx_body_add_part.  `raw` may be NULL. */
TxBody *tx_body_new_builder(json_t *builder, Blob *raw);
void tx_body_add_part(TxBody *body, const char *id, Blob *blob);
TxPart *tx_body_part(const TxBody *body, const char *id); /* NULL: unknown */
TxBody *tx_body_ref(TxBody *body);
void tx_body_unref(TxBody *body);          /* NULL is fine */
bool tx_body_is_final(const TxBody *body); /* every blob is; false for NULL */
uint64_t tx_body_len(const TxBody *body);  /* bytes held, all blobs */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TxBody, tx_body_unref)

typedef enum TxRouteFault {
	TX_ROUTE_NO_FAULT,
	TX_ROUTE_NULL_MX, /* the domain takes no mail (RFC 7505) */
	TX_ROUTE_LOOP,    /* its mail would come back to us (RFC 5321 5.1) */
	TX_ROUTE_FAULTS
} TxRouteFault;

/* Where routing decided to send it; never on the wire. */
typedef struct TxRoute {
	char *url;          /* creation URL of the next node; NULL: none configured */
	char *sender;       /* JSON sender.name there */
	char *tag;          /* JSON sender.tag there, or NULL */
	GPtrArray *hosts;   /* HostPort*: where that node shall connect, in order; may be empty */
	bool resolved;      /* `hosts` are addresses */
	TxRouteFault fault; /* why there are none, where that is known for good */
	bool send_filter_output;
	bool receive_parsing;
	int64_t max_inline; /* for receive_parsing, bytes */
} TxRoute;

TxRoute *tx_route_new(void);
void tx_route_free(TxRoute *route); /* NULL is fine */

/* What a 2xx to the message means to a sender who asked for a notification (RFC 3461 5.2). */
typedef enum TxHandover {
	TX_HANDOVER_NONE,      /* the next node sees to it, or nobody knows */
	TX_HANDOVER_RELAYED,   /* to a next hop without DSN: it will tell nothing */
	TX_HANDOVER_DELIVERED, /* the same, and it was the end of the way (LMTP) */
	TX_HANDOVERS
} TxHandover;

/* ---- the transaction ---- */

/* Members of smtp_meta of our own, beside the four of the contract (spec 3.5): they go with the
 * transaction from the SMTP session through the router and its rows, and no further (rest_output).
 * All are texts and absent when there is nothing to say. */
#define SMTP_META_AUTH_USER   "auth_user"   /* who the client has proved to be (SMTP AUTH) */
#define SMTP_META_TLS_VERSION "tls_version" /* such as TLSv1.3 */
#define SMTP_META_TLS_CIPHER  "tls_cipher"
#define SMTP_META_TLS_PEER    "tls_peer" /* subject of a verified client certificate */

/* Members are read freely and written only through the functions below. */
struct Tx {
	int refs;
	uint64_t version; /* 1 at creation, +1 with each noted change; the REST etag.  A body that
			     grows without becoming final does not move it (spec 4.6) */
	char *id;         /* NULL until it is a REST resource */

	/* requests */
	HostPort *remote_host, *local_host;
	Mailbox *mail_from;
	GPtrArray *rcpts; /* TxRcpt* */
	TxBody *body;
	json_t *smtp_meta;            /* object or NULL; see SMTP_META_* */
	json_t *retry, *notification; /* presence enables */
	char *sender_name, *sender_tag;
	char *idem_key, *idem_hash; /* the idempotency key that it was created with, and the hash of
				       that request; or NULL; never serialized */
	int64_t idem_until;         /* unix seconds */
	bool cancelled;
	uint32_t heartbeats; /* pings that carried nothing */

	/* answers, all of the current attempt */
	Response *mail_response;
	uint32_t rcpt_answers; /* how many recipients have one */
	Response *data_response;
	json_t *filter_output; /* object by filter name, or NULL */
	TxHandover handover;   /* set before data_response; never in the JSON */
	bool host_refused;     /* mail_response is the host's refusal to talk to us, before MAIL: it
				  says nothing about the message; never in the JSON */
	int attempt_count;     /* 0 before the first */
	char *final_attempt_reason;

	/* internal */
	TxRoute *route;
	bool durable;            /* the router has it on disk and will deliver or bounce it */
	bool durable_refused;    /* retries were asked for, and the router cannot take it over */
	bool notifies;           /* its router sends the notices: nobody is told of `handover` */
	uint32_t body_notes;     /* how often the body was noted */
	uint32_t outputs;        /* how often filter_output changed */
	bool body_final;         /* the end of the body was noted */
	uint32_t round;          /* notifications so far */
	struct TxWatch *watches; /* the first; its `prev` is the last */
	Defer defer;
	DeferQueue *queue;
	struct TxWatch *walking; /* next watch of a notification under way */
};

/* Changes are delivered through `queue` (the worker's; a test's own); NULL: no watching. */
Tx *tx_new(DeferQueue *queue);
Tx *tx_ref(Tx *tx);
void tx_unref(Tx *tx); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Tx, tx_unref)

/* ---- requests: written by the user ---- */

/* Each returns false, changing nothing, when it is already set (write once). */
bool tx_set_mail_from(Tx *tx, Mailbox *from);                               /* counted */
bool tx_set_hosts(Tx *tx, const HostPort *remote, const HostPort *local);   /* NULL: leave */
bool tx_set_smtp_meta(Tx *tx, json_t *meta);                                /* counted */
bool tx_set_sender(Tx *tx, const char *name, const char *tag);              /* tag may be NULL */
void tx_set_idem(Tx *tx, const char *key, const char *hash, int64_t until); /* no news; once */
bool tx_set_body(Tx *tx, TxBody *body);                                     /* counted */
bool tx_enable_retry(Tx *tx, json_t *value);                                /* counted; NULL: {} */
bool tx_enable_notification(Tx *tx, json_t *value);
bool tx_set_route(Tx *tx, TxRoute *route); /* moved; freed when refused */
/* Returns its index. */
size_t tx_add_rcpt(Tx *tx, Mailbox *to); /* counted */
/* The body's blobs grew or became final: whoever wrote into them says so.  Watchers are called;
 * the version moves only when the whole body has become final. */
void tx_note_body(Tx *tx);
void tx_cancel(Tx *tx); /* idempotent */
void tx_heartbeat(Tx *tx);

/* ---- answers: written by the port (or by a filter) ---- */

/* Each takes over the reference to `response` and returns false, dropping it, when there is an
 * answer already. */
bool tx_answer_mail(Tx *tx, Response *response);
bool tx_answer_rcpt(Tx *tx, size_t index, Response *response);
bool tx_answer_data(Tx *tx, Response *response);
void tx_set_host_refused(Tx *tx);                  /* before the answer, likewise */
void tx_set_handover(Tx *tx, TxHandover handover); /* notes no change: comes with the answer */
/* Merges into filter_output; `output` is moved. */
void tx_set_filter_output(Tx *tx, const char *filter, json_t *output);
/* Forgets answers and filter output, attempt_count += 1. */
void tx_begin_attempt(Tx *tx);
void tx_set_attempt_count(Tx *tx, int count); /* loading from the store */
bool tx_finish(Tx *tx, const char *final_attempt_reason);
/* The router's word on who is responsible: told once the row is committed and flushed, or cannot
 * be; later word replaces earlier. */
void tx_set_durable(Tx *tx);
void tx_refuse_durable(Tx *tx);
void tx_retry_durable(Tx *tx);          /* a refusal is forgotten: it is tried once more */
void tx_set_id(Tx *tx, const char *id); /* once; it is going to be a REST resource or a row */
void tx_set_version(Tx *tx, uint64_t version); /* loading from the store; never downwards */
/* All that it was created with is its first version.  Only while nobody has a mark or has been told
 * of a version. */
void tx_created(Tx *tx);

/* ---- reading ---- */

static inline size_t
tx_rcpt_count(const Tx *tx)
{
	return tx->rcpts->len;
}
static inline TxRcpt *
tx_rcpt(const Tx *tx, size_t index)
{
	return (TxRcpt *)g_ptr_array_index(tx->rcpts, index);
}
size_t tx_rcpts_accepted(const Tx *tx); /* recipients answered 2xx */
bool tx_body_ready(const Tx *tx);       /* has a body and it is final */

/* An answer is owed for what has been asked so far (spec 3.8 "in flight"). */
bool tx_in_flight(const Tx *tx);
/* Answers everything that is owed (spec 3.8 "fill"); what depends on a failed MAIL or on failed
 * recipients gets the class of that failure: temporary stays temporary.  Counted by itself. */
void tx_fill_in_flight(Tx *tx, Response *response);
/* Applies the SMTP preconditions: recipients behind a failed MAIL, data behind failed recipients
 * (at least one of them) are answered.  True while the transaction is live: no MAIL failure, not
 * all recipients failed with a body present, no data response. */
bool tx_check_preconditions(Tx *tx);

/* ---- marks ---- */

typedef struct TxMark {
	uint64_t version;
	int attempt;
	uint32_t rcpts;        /* how many were seen */
	uint32_t rcpt_answers; /* how many answers */
	uint64_t body_len;
	uint32_t body_notes;
	uint32_t outputs;
	uint32_t heartbeats;
	unsigned seen; /* TxNew bits whose thing was there */
} TxMark;

typedef enum TxNew {
	TX_NEW_MAIL_FROM = 1 << 0,
	TX_NEW_RCPT = 1 << 1, /* from mark.rcpts on */
	TX_NEW_BODY = 1 << 2, /* appeared or grew */
	TX_NEW_BODY_FINAL = 1 << 3,
	TX_NEW_CANCEL = 1 << 4,
	TX_NEW_HEARTBEAT = 1 << 5,
	TX_NEW_RETRY = 1 << 6, /* retry or notification was enabled */
	TX_NEW_MAIL_RESPONSE = 1 << 8,
	TX_NEW_RCPT_RESPONSE = 1 << 9,
	TX_NEW_DATA_RESPONSE = 1 << 10,
	TX_NEW_FILTER_OUTPUT = 1 << 11,
	TX_NEW_ATTEMPT = 1 << 12,
	TX_NEW_FINAL = 1 << 13, /* final_attempt_reason */
} TxNew;
#define TX_NEW_REQUESTS 0x00ff
#define TX_NEW_ANSWERS  0xff00

/* A zeroed TxMark has seen nothing. */
unsigned tx_since(const Tx *tx, const TxMark *mark); /* TxNew bits */
void tx_mark(const Tx *tx, TxMark *mark);            /* everything up to now is seen */

/* ---- watching ---- */

typedef struct TxWatch TxWatch;
typedef void TxWatchFn(void *arg, Tx *tx);
struct TxWatch {
	Tx *tx; /* counted while watching; NULL otherwise */
	TxWatch *next, *prev;
	uint32_t since; /* tx->round when it began */
	TxWatchFn *fn;
	void *arg;
};

/* Embedded in the observer.  `fn` is called after changes, several changes at once, at the end of
 * the loop turn; also when the change came before the watch in the same turn.  Watches are called
 * in the order of watching.  A watch may be removed, added or freed inside any callback; one that
 * is added there is first called for the next change.  The tx lives through the round. */
void tx_watch(Tx *tx, TxWatch *watch, TxWatchFn *fn, void *arg);
void tx_unwatch(TxWatch *watch); /* nothing happens when it does not watch */
/* Notes a change without content (version + 1). */
void tx_touch(Tx *tx);
