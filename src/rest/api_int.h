/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the files of the REST API share.  A RestCall is one HTTP request on its way: born on the
 * worker whose connection brought it (home), worked on by the worker that owns the transaction
 * (owner), answered at home.  It is touched by one of the two at a time; between different
 * workers it is handed over with worker_post. */
#include <stdatomic.h>

#include "rest/api.h"
#include "rest/handover.h"
#include "rest/range.h"

typedef enum RestRoute {
	REST_CREATE,
	REST_READ,
	REST_UPDATE,
	REST_CANCEL,
	REST_PUT_BODY,
	REST_PUT_BLOB,
} RestRoute;

typedef struct RestEntry RestEntry;
typedef struct RestCall RestCall;

struct RestApi {
	Workers *workers;
	RestHost *host;
	RestTable *tables; /* one per worker */
	atomic_bool draining;
};

struct RestTable {
	RestApi *api;
	Worker *worker;
	GHashTable *entries; /* id -> RestEntry* */
};

/* A live transaction and who waits for it to change. */
struct RestEntry {
	Tx *tx;
	RestCall *waiting;
};

struct RestCall {
	atomic_int refs; /* beyond one: a notice that the client has gone is under way */
	RestApi *api;
	HttpRequest *request; /* home only */
	Worker *home, *owner;
	RestRoute route;
	const RestPrincipal *who; /* NULL: may everything */
	char *id, *blob;          /* blob: name of a part, or NULL */
	char *sender;             /* REST_CREATE; from here on */
	char *idem;               /* the Idempotency-Key as it came, or NULL */
	char *idem_key;           /* what it is kept as */
	char *idem_hash;          /* of the request's body */
	char *host_name;          /* REST_CREATE; REST_HOST_NAME_HEADER */
	char *if_match, *if_none_match, *request_timeout, *content_type;
	char *body; /* REST_UPDATE */
	size_t body_len;

	/* the answer */
	int status;
	char *etag, *location, *content_range;
	const char *handover; /* REST_HANDOVER_HEADER; static */
	bool host_refused;    /* REST_REFUSED_HEADER */
	char *text;           /* JSON or plain */
	bool is_json;

	/* a long poll, on the owner */
	RestEntry *entry;
	RestCall *next, *prev;
	TxWatch watch;
	Timer timer;
	uint64_t seen;  /* version that the client has */
	Deadline until; /* then it is 304 */
	bool held;      /* news came, but more is about to */
	bool waiting;

	/* an update with a body to resolve, or an upload, on the owner */
	Tx *tx;

	/* an upload: read at home */
	char *content_range_in, *finalize_in;
	int64_t content_length;
	GString *piece; /* gathered for another worker */
	bool last;      /* `piece` is the last */
	bool aborted;   /* the client went away */

	/* an upload: on the owner */
	bool begun, answered;
	bool lost; /* the transaction is not live: bytes are dropped */
	bool ranged, finalize;
	bool finalized;   /* by this request */
	bool current;     /* the client knew the version... */
	uint64_t version; /* ...which became this one when the upload began */
	RestRange range;
	uint64_t finalize_len;
	Blob *target;
	uint64_t pos;  /* offset of the next byte */
	uint64_t sent; /* bytes of this request */
};

/* api.c */
RestCall *rest_call_new(RestApi *api, HttpRequest *request, RestRoute route);
void rest_call_unref(RestCall *call);
RestHost *rest_call_host(const RestCall *call);
RestTable *rest_call_table(const RestCall *call); /* of the owner */
RestEntry *rest_table_entry(RestTable *table, const char *id);
/* Whether a transaction may be shown to who asks; else the call has been answered 404. */
K_MUST_CHECK bool rest_call_may(RestCall *call, const Tx *tx);
/* The same for what a load answered. */
K_MUST_CHECK bool rest_call_may_see(RestCall *call, const RestVerdict *verdict, const Tx *tx);
/* Runs fn(call) on the owner, at once when that is here. */
void rest_call_to_owner(RestCall *call, WorkerFn *fn);

/* Each ends the call.  On the owner or at home. */
void rest_answer_text(RestCall *call, int status, const char *text);
void rest_answer_tx(RestCall *call, int status, const Tx *tx);
void rest_answer_etag(RestCall *call, int status, const char *etag); /* no body */
void rest_answer_json(RestCall *call, int status, char *json);       /* moved */
/* `not_found`: the text of a 404. */
void rest_answer_verdict(RestCall *call, const RestVerdict *verdict, const char *not_found);

/* wait.c */
void rest_read(void *call);
/* Ends a long poll: 200 when there is news, else 304. */
void rest_wait_end(RestCall *call);
void rest_wait_end_all(RestEntry *entry);
/* True when an etag as a client sends it, quoted or not, says `version`. */
bool rest_etag_is(const char *etag, uint64_t version);

/* create.c, update.c, upload.c */
void rest_create(RestApi *api, HttpRequest *request, const RestPrincipal *who, const char *sender);
void rest_update(void *call);
void rest_upload(RestCall *call);

/* body_json.c: the "body" member of a POST or PATCH into a TxBody. */
typedef void RestBodyDoneFn(void *arg, const RestVerdict *verdict, TxBody *body);
/* Answers exactly once, never inside the call; `body` is borrowed and NULL unless status is 200.
 * On the call's owner, who must be here. */
void rest_body_resolve(RestCall *call, const TxRequest *request, RestBodyDoneFn *done, void *arg);
/* Largest POST or PATCH that this host can have a use for. */
size_t rest_json_max(const RestHost *host);
