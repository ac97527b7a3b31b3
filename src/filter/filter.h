/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One step of an output chain: a const vtable (FilterKind), a configuration made at load time and
 * a small state per transaction.  Only the engine (filter/chain.h) walks; a filter never calls its
 * neighbour.  Own worker only.
 *
 * A plain filter shares one Tx with its neighbours: it may answer (tx_answer_*) and add filter
 * output.  A proxy filter (FILTER_PROXY) has a downstream Tx and an upstream Tx of its own: the
 * engine copies requests from `down` to `up` (recipients that `down` has already answered are left
 * out, and the index mapping is remembered), brings the answers back, and leaves the body to the
 * filter, which decides when `up` gets one and which.
 *
 * A recipient that has an answer is settled: filters skip it. */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

#include "base/log.h"
#include "base/rates.h"
#include "conf/model.h"
#include "conf/schema.h"
#include "loop/dns.h"
#include "loop/pool.h"
#include "loop/worker.h"
#include "tx/port.h"

typedef struct Filter Filter;
typedef struct FilterKind FilterKind;
typedef struct Chain Chain;

typedef enum FilterResult {
	FILTER_CONTINUE, /* what was new is handled; the next filter's turn */
	FILTER_WAIT,     /* the filter started something; it calls filter_resume later, and the
			    engine comes back to it before any later filter sees this news */
	FILTER_STOP,     /* handled, but nothing goes on behind this filter until it is called
			    again and says CONTINUE */
} FilterResult;

/* Flags: what the filter may do. */
#define FILTER_PROXY       (1u << 0) /* has an upstream Tx of its own; owns the body */
#define FILTER_TERMINAL    (1u << 1) /* must be last: it sends the transaction somewhere */
#define FILTER_INCREMENTAL (1u << 2) /* terminal that accepts a growing envelope (exploder) */
#define FILTER_ROUTES      (1u << 3) /* a proxy that decides itself which route `up` gets */
#define FILTER_WHOLE_BODY                                                                          \
	(1u << 4) /* judges the finished message: nothing of it goes on behind                     \
		     this filter before it is final, else the next hop could                       \
		     have the end of it before the verdict */
#define FILTER_OPEN_KEYS                                                                           \
	(1u << 5) /* conf_check reads the entry's keys itself: no table knows them */

struct FilterKind {
	const char *name;        /* in YAML: `filter: name` */
	const char *output_name; /* key in filter_output, "koukan....Filter"; NULL: no output */
	const char *doc;         /* one or two sentences for the reference */
	const char *example; /* YAML, entries of a chain, for the reference; a test runs it as it
				stands.  NULL only where a configuration may not name it */
	unsigned flags;

	/* Configuration: conf_size bytes zeroed, filled by `keys`, then completed by `conf_check`
	 * (may be NULL), which reads CONF_NODE members, looks up names in `model` and reports
	 * problems.  conf_free releases what conf_check made (what `keys` allocated is freed by the
	 * caller). */
	size_t conf_size;
	const ConfKey *keys; /* NULL: no keys */
	void (*conf_check)(void *conf, const YamlNode *node, const ConfModel *model,
			   ConfReport *report);
	void (*conf_free)(void *conf);

	/* A filter that has to stand before this one in the chain; NULL: none. */
	const char *behind;

	/* Per transaction: state_size bytes, zeroed, in filter->state. */
	size_t state_size;
	void (*open)(Filter *filter); /* may be NULL */
	/* Something new on `down` (TxNew bits of requests since this filter last returned CONTINUE
	 * or STOP), or a resume.  `news` alone says what the filter may look at: `down` may hold
	 * more that an earlier filter still keeps back.  A filter that waits is called again when
	 * it resumes, with everything that is new by then; before that only with TX_NEW_CANCEL or
	 * TX_NEW_HEARTBEAT, which reach every filter at once.  What it returns for these two alone
	 * does not count, and after a cancellation nothing else comes. */
	FilterResult (*update)(Filter *filter, unsigned news);
	/* Ends whatever runs (queries, jobs, ports); NULL: nothing to do.  After it, silence. */
	void (*close)(Filter *filter);

	/* The kind that really runs for a finished configuration (a cheaper variant); NULL: this
	 * one. */
	const FilterKind *(*variant)(const void *conf);
	/* Offset in the configuration of a `const FilterModules *` that is set before conf_check
	 * and cleared after it; 0: not wanted (so it is never the first member). */
	size_t modules_offset;
};

struct Filter {
	const FilterKind *kind;
	const void *conf;
	void *state;
	Chain *chain;
	Tx *down;
	Tx *up;      /* == down unless FILTER_PROXY */
	TxMark seen; /* of down; kept by the engine */
};

/* What a filter may use of its surroundings; outlives the chain. */
typedef struct FilterEnv {
	Worker *worker;
	TxPorts *ports;
	Dns *dns;     /* may be NULL: every lookup is temporarily unknown */
	Pool *pool;   /* may be NULL: run it inline */
	Rates *rates; /* of the process; NULL: nothing is counted, so no limit is reached */
	const ConfModel *model;
	const char *hostname;
	LogCtx log;
} FilterEnv;

const FilterEnv *filter_env(const Filter *filter);
/* After FILTER_WAIT, or when a terminal filter has put answers into `down` by itself: the walk goes
 * on at this filter, at the end of the turn. */
void filter_resume(Filter *filter);
/* Records the filter's signal (moved) under kind->output_name for the whole chain: matchers see
 * it, and it goes into the attempt. */
void filter_set_output(Filter *filter, json_t *output);
/* The signal of that filter in this chain, or NULL.  Borrowed. */
json_t *filter_get_output(const Filter *filter, const char *output_name);
/* For proxies without interest in the body: `up` gets the body of `down` itself.  Call it with the
 * news of update; nothing happens unless they tell of the body. */
void filter_pass_body(Filter *filter, unsigned news);
/* The index in the chain's own transaction of recipient `index` of `down`. */
size_t filter_base_rcpt(const Filter *filter, size_t index);
/* Whether some router of this chain has decided about recipient `index` of `down`. */
bool filter_rcpt_routed(const Filter *filter, size_t index);
void filter_set_rcpt_routed(Filter *filter, size_t index);
/* Groups of policies (spec 11.2): a tag whose precondition is unmet rests until something new
 * comes from downstream.  `tag` is borrowed for the life of the chain. */
bool filter_tag_is_unmet(const Filter *filter, const char *tag);
void filter_set_tag_unmet(Filter *filter, const char *tag);
TxRoute *filter_route_copy(const TxRoute *route);
/* A new route to that endpoint, without hosts. */
TxRoute *filter_endpoint_route(const RestEndpointConf *endpoint);
/* A fault of ours in the middle of a chain: everything owed is answered
 * `450 internal error: OutputHandler failed to populate response`; `why` is logged. */
void filter_fail(Filter *filter, const char *why);

/* Of one YAML chain entry; immutable, part of the configuration snapshot. */
typedef struct FilterConf {
	const FilterKind *kind;
	void *conf;
} FilterConf;
typedef struct ChainConf {
	char *name;
	GPtrArray *filters; /* FilterConf* */
	bool incremental;   /* its last filter accepts a growing envelope */
} ChainConf;

/* By YAML name; NULL: unknown. */
const FilterKind *filter_kind(const char *name);
/* All built-in kinds, NULL-terminated, for the reference and for "did you mean". */
const FilterKind *const *filter_kinds(void);
/* Module paths of the original that stand for a built-in (spec 6.7), e.g. "koukan.hello_filter"
 * -> the kind "hello"; NULL: unknown module. */
const FilterKind *filter_module(const char *module_path);
bool filter_policy_module_known(const char *module_path);  /* recipient_router_policy */
bool filter_matcher_module_known(const char *module_path); /* transaction_matcher */
/* Names that mean something by themselves. */
bool filter_policy_taken(const char *name);
bool filter_matcher_taken(const char *name);

/* The routing policies of `router`, for the reference. */
typedef struct RouterPolicyDoc {
	const char *name, *doc, *example; /* as FilterKind's */
	const ConfKey *keys;
} RouterPolicyDoc;
extern const RouterPolicyDoc router_policy_docs[]; /* ends with a NULL name */

/* Reads `chain:` (a list of maps) into a ChainConf; problems go to the report; never NULL.  Names
 * from `modules:` are given as alias -> module path tables (may be NULL), and what was loaded for
 * them (may be NULL), which outlives the chain. */
typedef struct FilterModules {
	GHashTable *filters, *policies, *matchers; /* char* -> char* */
	GPtrArray *plugins;                        /* FilterPlugin*: from shared objects */
} FilterModules;
ChainConf *chain_conf_new(const char *name, const YamlNode *list, const ConfModel *model,
			  const FilterModules *modules, ConfReport *report);
void chain_conf_free(ChainConf *conf);
