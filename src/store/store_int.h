/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Shared by the files of the store.
 *
 *   worker:  store_*() -> queue of a lane    (mutex)
 *   lane:    take the whole queue -> one transaction of the backend -> worker_post
 *   worker:  callback
 *
 * Two lanes, each a thread with a connection of its own: one for everything that mail waits for,
 * one for the questions of operators, which may take long.  A Job is written by the worker until
 * it is queued, by the lane's thread until its answer is posted, then by the worker again.  A
 * Backend is touched by one thread at a time: by the opener, then by its lane's thread; what is
 * said to be for any thread excepted. */
#include "store/store.h"

/* ---- jobs ---- */

typedef enum JobKind {
	JOB_INSERT,
	JOB_UPDATE,
	JOB_CLAIM,
	JOB_LOAD,
	JOB_REUSE,
	JOB_CANCEL,
	JOB_COLLECT,
	JOB_ACT,
	JOB_REPLAN,
	JOB_IDEM_PUT,
	JOB_IDEM_GET,
	JOB_LIST, /* from here on: the second lane */
	JOB_COUNT,
	JOB_KINDS
} JobKind;

typedef struct Job {
	struct Job *next; /* in the queue */
	JobKind kind;
	Worker *asker;
	StoreFn *fn;
	StoreCountFn *count_fn;
	void *arg;
	Deadline since; /* when it was asked */

	/* the request */
	StoreRow *row;
	char *id, *text; /* `text`: a blob's name or a reason */
	int64_t time;
	unsigned limit, per_destination;
	GHashTable *busy; /* char*, a set; NULL: none */
	StoreFilter filter;
	StoreAction action;
	bool with_blobs;

	/* the answer */
	GError *error;
	GPtrArray *rows;
	int64_t next_due;
	uint64_t count;
	GPtrArray *damaged;
	GPtrArray *counts;
	bool due; /* after it something is due: a hint */
} Job;

void job_clear_answer(Job *job);
/* What it had answered before it failed goes. */
void job_keep_error(Job *job);
/* Answers of a claim. */
void job_add_damaged(Job *job, const char *id, const char *reason);
/* The one row; moved. */
void job_answer_row(Job *job, StoreRow *row);
bool job_key_taken(Job *job);                 /* so does this, K_ERROR_CONFLICT */
bool job_not_found(Job *job);                 /* sets the error, returns false */
bool job_under_way(Job *job, const char *id); /* so does this, K_ERROR_CONFLICT */

/* ---- rows ---- */

/* "b.example" of "A@B.example"; "" without a domain.  Caller frees. */
char *row_destination_of(const char *rcpt);
const StoreBlob *row_body(const StoreRow *row); /* or NULL */
static inline bool
row_is_waiting(const StoreRow *row)
{
	return !row->leased && !row->held && row->final_reason == NULL;
}
GPtrArray *row_array_new(void); /* frees its StoreRow* */
GPtrArray *count_array_new(void);

#define BLOB_CHUNK (128 * 1024) /* bytes of a body in one row of the database */

/* ---- which bodies are stored: blob_ids.c ---- */

/* What one backend knows about the ids under which Blobs lie in its database. */
typedef struct BlobIds {
	int64_t instance; /* tells the ids of this backend from those of others */
	GPtrArray *fresh; /* Blob*, borrowed: stored in the current transaction, in order */
	GHashTable *ids;  /* Blob* -> int64_t* of those */
	GHashTable *gone; /* Blob*, borrowed: known, but not there any more */
} BlobIds;

void blob_ids_init(BlobIds *ids);
void blob_ids_clear(BlobIds *ids);
int64_t blob_ids_find(const BlobIds *ids, const Blob *blob); /* 0: not stored */
/* Stored in the transaction that runs. */
void blob_ids_add(BlobIds *ids, Blob *blob, int64_t id);
guint blob_ids_count(const BlobIds *ids);
/* Forgets those that came after the first `keep`: their job was undone. */
void blob_ids_forget(BlobIds *ids, guint keep);
/* The transaction is on disk: its blobs learn their ids. */
void blob_ids_publish(BlobIds *ids);
/* Until the transaction ends it is stored again when it is met. */
void blob_ids_set_gone(BlobIds *ids, Blob *blob);
/* A blob that was loaded. */
void blob_ids_tell(const BlobIds *ids, Blob *blob, int64_t id);

/* ---- a fair choice ---- */

/* A due row, found by its destination. */
typedef struct DueRow {
	int64_t n;    /* its number in the database */
	int64_t due;  /* unix seconds */
	unsigned at;  /* 0: the first of its destination */
	guint source; /* which destination, for the backend */
} DueRow;

/* The most rows that one of `destinations` can get. */
unsigned due_quota(unsigned limit, unsigned per_destination, unsigned destinations);
/* Orders, and cuts to `limit`: first the first of each destination, then the second... */
void due_choose(GArray *due, unsigned limit);

/* ---- suspects ---- */

/* All that a process had leased when it died has crashed once more, whoever was to blame.  So a row
 * that one more crash would hold runs only while no other such row does: the next crash blames
 * one.  Those that must wait for that are put off by some seconds, out of the way of others. */
typedef struct Suspect {
	char *id;   /* the one that runs in this process; NULL: none */
	bool fresh; /* since this transaction */
} Suspect;

/* How long the n-th is put off, in seconds; when the one that runs has ended there is a hint. */
#define SUSPECT_PAUSE(n) (1 + (int64_t)(n) / 8)

bool suspect_is(const StoreRow *row, unsigned crash_max);
void suspect_take(Suspect *suspect, const char *id);
bool suspect_end(Suspect *suspect, const char *id); /* whether it is that one */
/* The end of the transaction. */
void suspect_settle(Suspect *suspect, bool committed);

/* ---- backends ---- */

typedef enum GroupEnd {
	GROUP_GOES_ON, /* no end yet */
	GROUP_COMMITTED,
	GROUP_UNDONE, /* nothing of it is there; its members may be tried alone */
	GROUP_LOST,   /* it failed, and trying again now is of no use or not safe */
} GroupEnd;

typedef struct Backend Backend;

typedef struct BackendOps {
	void (*close)(Backend *db);
	/* The connection of the second lane; reads only. */
	Backend *(*open_reader)(Backend *db, const StoreConfig *config, GError **ret_error);
	/* All jobs in one transaction, in the fastest way there is; NULL: there is no special
	 * one.  After GROUP_UNDONE they are run one after the other. */
	GroupEnd (*run_all)(Backend *db, Job *jobs, GError **ret_error);
	bool (*begin)(Backend *db, const Job *jobs, GError **ret_error);
	/* One job; what it did is undone when it fails, and the group goes on; or the whole
	 * transaction is lost. */
	GroupEnd (*run_member)(Backend *db, Job *job);
	GroupEnd (*commit)(Backend *db, GError **ret_error);
	void (*rollback)(Backend *db);
	/* Between transactions: what keeps the files small. */
	void (*maintain)(Backend *db, bool idle, bool collected);
	/* Between transactions, at the latest when it said: heartbeat, reclaim, reconnecting.
	 * When it wants to be called again, 0 for never.  *ret_due: something became due. */
	Deadline (*tick)(Backend *db, bool *ret_due);
	/* Something became due in this process.  May be NULL. */
	void (*tell_others)(Backend *db);
	/* The last call of the lane.  The process ends in good order: leases are given back at
	 * once; or a test says that it dies.  May be NULL. */
	void (*sign_off)(Backend *db, bool orderly);
	/* Any thread.  NULL: always. */
	bool (*is_leaseholder)(Backend *db);
	/* A claim is the last job of its transaction. */
	bool claims_end_groups;
} BackendOps;

struct Backend {
	const BackendOps *ops;
	Store *store; /* for store_hint */
};

K_MUST_CHECK Backend *sqlite_open(const StoreConfig *config, GError **ret_error);
K_MUST_CHECK bool sqlite_migrate(const char *path, GError **ret_error);
K_MUST_CHECK bool sqlite_check(const char *path, GString *report, GError **ret_error);
K_MUST_CHECK Backend *pg_open(const StoreConfig *config, GError **ret_error);
K_MUST_CHECK bool pg_migrate(const char *url, GError **ret_error);
K_MUST_CHECK bool pg_check(const char *url, GString *report, GError **ret_error);

/* Something may be due.  Any thread, while the store runs. */
void store_hint(Store *store);

/* Tests only: from now on the store ends as if its process had died. */
void store_test_abandon(Store *store);

/* ---- addresses: url.c ---- */

bool store_url_is_postgres(const char *url);
/* The file that a URL names; K_ERROR_CONFIG.  Caller frees. */
K_MUST_CHECK char *store_url_path(const char *url, GError **ret_error);
/* The same as libpq knows it: without the "+driver".  Caller frees. */
char *store_url_libpq(const char *url);
