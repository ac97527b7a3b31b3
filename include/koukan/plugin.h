/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KOUKAN_PLUGIN_H
#define KOUKAN_PLUGIN_H
/* The interface between Koukan and shared objects that add filters, routing policies and matchers
 * (docs/plugins.md).  Plain C11: no other header of Koukan and no library is needed.
 *
 * A plug-in is a shared object with one exported function, koukan_plugin_entry, that describes what
 * is in it.  Koukan loads it when it reads `modules:` of router.yaml.
 *
 * VERSIONS.  KOUKAN_PLUGIN_ABI is the version of this interface; a plug-in of another version is
 * refused.  Within a version only the ends of structs and enums grow.  Each struct begins with its
 * size as its maker knew it; Koukan takes what lies beyond the plug-in's size as zero, and a
 * plug-in asks KOUKAN_HAS(host, member) before it calls what came later than the version 1.0.
 *
 * OWNERSHIP.  What the plug-in hands out (its description, names) is static and must stay valid
 * while the object is loaded.  Texts that the host hands out belong to the host and are valid until
 * the callback returns.  Texts that the plug-in passes to the host are copied.  What `configure`
 * and `open` make belongs to the plug-in and comes back in `release` and `close`.
 *
 * THREADS.  koukan_plugin_entry, `configure` and `release` are called by one thread at a time,
 * never while any callback about a transaction runs with the same configuration.  All other
 * callbacks come from worker threads: from several at the same time for different transactions,
 * for one transaction always from the same.  So a configuration is read-only once it is made, or
 * the plug-in locks it.  A worker serves many connections: a callback that blocks or computes for
 * long stops all of them.  Host functions are called from inside a callback only, with the handle
 * that it was given, and never from another thread.
 *
 * ERRORS.  Functions that can fail return 0 or above for success and a negative KoukanError
 * otherwise.  A callback that returns KOUKAN_ERROR, or a value that is none of its results, makes
 * the step fail: the peer gets a temporary answer (4xx) and the log a line, so that no message
 * gets past a check that could not be made.  A plug-in that crashes takes the process with it. */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KOUKAN_PLUGIN_ABI 1u

/* Whether the host's table reaches as far as `member`. */
#define KOUKAN_HAS(host, member)                                                                   \
	((host)->size >= offsetof(KoukanHost, member) + sizeof((host)->member))

typedef struct KoukanConfig KoukanConfig; /* the YAML around an entry, while it is read */
typedef struct KoukanCall KoukanCall;     /* one callback about one transaction */

typedef enum KoukanError {
	KOUKAN_ERROR = -1,        /* the plug-in's own trouble */
	KOUKAN_E_INVALID = -2,    /* an argument that cannot be */
	KOUKAN_E_LIMIT = -3,      /* more than the host takes */
	KOUKAN_E_UNAVAILABLE = -4 /* not in this kind of callback, or not known (yet) */
} KoukanError;

typedef enum KoukanLevel {
	KOUKAN_LOG_DEBUG,
	KOUKAN_LOG_INFO,
	KOUKAN_LOG_WARN,
	KOUKAN_LOG_ERROR
} KoukanLevel;

/* Texts about the transaction; what is not known is NULL. */
typedef enum KoukanText {
	KOUKAN_REMOTE_HOST, /* the client's address, without port */
	KOUKAN_LOCAL_HOST,  /* ours */
	KOUKAN_EHLO,        /* what it called itself */
	KOUKAN_AUTH_USER,   /* who it has proved to be (SMTP AUTH) */
	KOUKAN_TLS_VERSION, /* such as "TLSv1.3" */
	KOUKAN_TLS_CIPHER,
	KOUKAN_TLS_PEER,  /* subject of a verified client certificate */
	KOUKAN_MAIL_FROM, /* without brackets; "" is the null sender */
	KOUKAN_RCPT,      /* the recipient that this callback is about; else NULL */
	KOUKAN_SENDER,    /* name of the `sender:` of router.yaml */
	KOUKAN_TAG        /* its tag */
} KoukanText;

/* Numbers about it; what is not known is KOUKAN_E_UNAVAILABLE. */
typedef enum KoukanNumber {
	KOUKAN_REMOTE_PORT,
	KOUKAN_TLS,        /* 1: the client's connection was encrypted; 0: not */
	KOUKAN_AUTH,       /* 1: the client has authenticated; 0: not */
	KOUKAN_RCPT_COUNT, /* recipients so far */
	KOUKAN_SIZE,       /* bytes of the message; only when it is complete */
	KOUKAN_FIELD_COUNT /* its header fields */
} KoukanNumber;

#define KOUKAN_FIELDS_MAX      100   /* header fields that one filter adds to a message */
#define KOUKAN_FIELD_VALUE_MAX 16384 /* bytes of the value of one of them */
#define KOUKAN_HOSTS_MAX       20    /* hosts of one routing answer */

/* What Koukan offers.  `call` and `config` are those of the callback. */
typedef struct KoukanHost {
	uint32_t size;       /* of this table, bytes */
	uint32_t abi;        /* KOUKAN_PLUGIN_ABI */
	const char *version; /* of Koukan, for logs */

	/* ---- configuration: in `configure` ---- */

	/* The keys of the entry as JSON text, an object. */
	const char *(*config_json)(const KoukanConfig *config);
	/* The value of a key as it stands there; `otherwise` when it is absent, null, a list or a
	 * map. */
	const char *(*config_text)(const KoukanConfig *config, const char *key,
				   const char *otherwise);
	/* 0, or KOUKAN_E_UNAVAILABLE (absent or null: *ret_value stays) or KOUKAN_E_INVALID (no
	 * whole number, no boolean: it has been reported). */
	int (*config_number)(KoukanConfig *config, const char *key, int64_t *ret_value);
	int (*config_bool)(KoukanConfig *config, const char *key, int *ret_value);
	/* Reports a problem at the place of `key` (NULL: of the entry), FILE:LINE:COLUMN. */
	void (*config_error)(KoukanConfig *config, const char *key, const char *text);
	/* A warning for each key that is not in `known` (NULL-terminated). */
	void (*config_known)(KoukanConfig *config, const char *const *known);

	/* ---- looking: in the callbacks about a transaction ---- */

	const char *(*text)(const KoukanCall *call, KoukanText which);
	int64_t (*number)(const KoukanCall *call, KoukanNumber which);
	/* Recipient `index`, from 0; NULL past the last. */
	const char *(*rcpt)(const KoukanCall *call, size_t index);
	/* The value of the `index`th header field of that name (case does not matter), unfolded and
	 * without white space at its ends; NULL when there is none, or no complete message yet. */
	const char *(*header)(KoukanCall *call, const char *name, size_t index);
	/* Header field `index` of the message, whatever its name; 0 or KOUKAN_E_UNAVAILABLE. */
	int (*field)(KoukanCall *call, size_t index, const char **ret_name, const char **ret_value);
	/* Bytes of the complete message at `offset`, header included; how many, 0 at the end. */
	int64_t (*read)(KoukanCall *call, uint64_t offset, void *buf, size_t len);
	/* What another filter of the chain has found out, by the name in docs/configuration.md
	 * ("Output, for matchers"), as JSON text; NULL when it has not (yet). */
	const char *(*signal)(KoukanCall *call, const char *name);

	/* ---- doing ---- */

	/* A line in the log, with the transaction's ids.  `call` NULL: about no transaction. */
	void (*log)(const KoukanCall *call, KoukanLevel level, const char *text);
	/* Refuses what the callback is about: the sender, the recipient, the message.  `code` 400
	 * to 599; `text` begins with an enhanced status (RFC 3463) of the same class, as in "5.7.1
	 * not today".  Filters and routing policies. */
	int (*answer)(KoukanCall *call, int code, const char *text);
	/* Puts a field in front of the message.  `value` is UTF-8 without line ends; it is folded
	 * and encoded here.  Filters, in any callback up to `message`. */
	int (*add_header)(KoukanCall *call, const char *name, const char *value);
	/* Routing policies: the recipient goes to that `rest_endpoint` of router.yaml. */
	int (*route_endpoint)(KoukanCall *call, const char *name);
	/* Routing policies: the next node shall connect there; several in order. */
	int (*route_host)(KoukanCall *call, const char *host, uint16_t port);
} KoukanHost;

/* ---- what a plug-in offers ---- */

/* `conf` is what `configure` made.  `configure` may be NULL (then `conf` is NULL and every key of
 * the entry is accepted); it returns 0, or KOUKAN_ERROR after config_error. */

typedef enum KoukanFilterResult {
	KOUKAN_CONTINUE /* handled; what was refused with `answer` is refused */
} KoukanFilterResult;

typedef struct KoukanFilter {
	uint32_t size;
	uint32_t flags;   /* 0 */
	const char *name; /* which of the plug-in's filters this is */
	int (*configure)(const KoukanHost *host, KoukanConfig *config, void **ret_conf);
	void (*release)(void *conf);
	/* State of one transaction (of one attempt to deliver it); may be NULL, then `state` is. */
	int (*open)(void *conf, void **ret_state);
	void (*close)(void *conf, void *state);
	/* Each may be NULL.  The sender is known (once); a recipient has come that nobody has
	 * refused yet (for each); the message is complete (once, and nothing of it goes on before).
	 * Without `message` the message flows on while it comes. */
	int (*mail)(void *conf, void *state, KoukanCall *call);
	int (*rcpt)(void *conf, void *state, KoukanCall *call);
	int (*message)(void *conf, void *state, KoukanCall *call);
} KoukanFilter;

typedef enum KoukanPolicyResult {
	KOUKAN_NOT_MINE, /* the next router decides */
	KOUKAN_ROUTE,    /* to the endpoint and hosts that were named, and where none were to the
			    `destination` of the policy in router.yaml */
	KOUKAN_REFUSE    /* after `answer` */
} KoukanPolicyResult;

typedef struct KoukanPolicy {
	uint32_t size;
	uint32_t flags; /* 0 */
	const char *name;
	int (*configure)(const KoukanHost *host, KoukanConfig *config, void **ret_conf);
	void (*release)(void *conf);
	/* About the recipient KOUKAN_RCPT. */
	int (*route)(void *conf, KoukanCall *call);
} KoukanPolicy;

typedef enum KoukanMatch {
	KOUKAN_NO,
	KOUKAN_YES,
	KOUKAN_UNKNOWN /* cannot be said yet: asked again when there is more */
} KoukanMatch;

typedef struct KoukanMatcher {
	uint32_t size;
	uint32_t flags; /* 0 */
	const char *name;
	int (*configure)(const KoukanHost *host, KoukanConfig *config, void **ret_conf);
	void (*release)(void *conf);
	/* KOUKAN_RCPT is there in rules with mode PER_RCPT. */
	int (*match)(void *conf, KoukanCall *call);
} KoukanMatcher;

typedef struct KoukanPlugin {
	uint32_t size;
	uint32_t abi;        /* KOUKAN_PLUGIN_ABI */
	const char *name;    /* for messages and logs */
	const char *version; /* its own; may be NULL */
	/* NULL-terminated lists of pointers; NULL: none. */
	const KoukanFilter *const *filters;
	const KoukanPolicy *const *policies;
	const KoukanMatcher *const *matchers;
} KoukanPlugin;

/* Defined by the plug-in.  Called for each entry of `modules:` that names the object, so perhaps
 * several times, and always with the same `host`, which stays valid.  NULL: it cannot work with
 * this host. */
#define KOUKAN_PLUGIN_ENTRY "koukan_plugin_entry"
#if defined(__GNUC__)
#define KOUKAN_EXPORT __attribute__((visibility("default")))
#else
#define KOUKAN_EXPORT
#endif
KOUKAN_EXPORT const KoukanPlugin *koukan_plugin_entry(const KoukanHost *host);

#ifdef __cplusplus
}
#endif
#endif
