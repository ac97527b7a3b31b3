/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The whole configuration of a router (router.yaml, behaviour spec section 6) or a gateway
 * (gateway.yaml, section 7) as an immutable snapshot, counted atomically, shared by all threads. */
#include <glib.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/net.h"
#include "conf/model.h"
#include "conf/schema.h"
#include "filter/filter.h"
#include "tx/retry.h"

/* ---- common ---- */

typedef struct RestListenerConf {
	HostPort *addr;    /* default localhost:8000 (router), localhost:8001 (gateway) */
	char *cert, *key;  /* TLS when both are set */
	char *session_uri; /* NULL: made of the real address */
	char *service_uri; /* NULL: session_uri */
	int64_t chunk_size;
	/* gateway */
	Usec gc_interval, gc_tx_ttl, gc_done_ttl;
	int64_t rest_id_entropy;
} RestListenerConf;

/* One who may use the REST API: koukan.rest.access[]. */
typedef struct RestAccessConf {
	char *name;              /* in logs, and the scope of rates and idempotency keys */
	GPtrArray *api_keys;     /* char*, "sha256:HEX" of the keys */
	GPtrArray *certificates; /* char*, names in client certificates, or "sha256:HEX" */
	GPtrArray *senders;      /* char*; "*": all */
	bool admin, metrics;
} RestAccessConf;

/* koukan.rest: around the REST dialect. */
typedef struct RestOwnConf {
	bool allow_unauthenticated;
	char *client_ca;   /* PEM file; asks for client certificates; NULL: does not */
	GPtrArray *access; /* RestAccessConf*; empty: no authentication */
	int64_t uri_max, head_max, connections_max;
	Usec head_timeout, body_timeout;
	int64_t requests_per_minute, uploads_max; /* per client; 0: no limit */
	Usec idempotency_ttl;
} RestOwnConf;

/* Keys of our own, the same in both files, under `koukan:` (ignored by the original). */
typedef struct KoukanConf {
	int64_t workers;        /* threads; 0: one per core */
	char *hostname;         /* in greetings and trace fields; NULL: the machine's */
	int log_level;          /* LogLevel */
	int log_format;         /* LogFormat */
	char *state_dir;        /* of the embedded database; NULL: $XDG_STATE_HOME/koukan or
				   ~/.local/state/koukan */
	char *spill_dir;        /* of large bodies; NULL: $TMPDIR or /tmp */
	int64_t body_memory;    /* bytes of one body in memory */
	GPtrArray *dns_forward; /* char* host or host@port */
	Usec dns_timeout;
	int64_t message_max; /* bytes */
	int64_t rcpt_max;
	int64_t per_destination; /* attempts from the queue at a time */
	bool admin;              /* /admin/v1 on listeners that are not on loopback, too */
	RestOwnConf rest;
} KoukanConf;

/* ---- router ---- */

typedef struct EndpointConf {
	char *name;
	ChainConf *chain;
	Usec downstream_timeout; /* 60 s */
	Usec upstream_refresh;   /* 30 s */
	Usec delay_warning;      /* 0: none */
	bool has_retry;
	RetryParams retry;
	char *notification_sender, *notification_tag; /* NULL: no bounces */
} EndpointConf;

typedef struct RouterConfig {
	int refs; /* atomic */
	char *path;
	KoukanConf koukan;
	bool dequeue;
	int64_t output_max; /* executor.output.max_inflight: kept for information; ours is a cap on
			       active transactions, never below 1000 */
	char *mailer_daemon_mailbox;
	int64_t rest_id_entropy;
	RestListenerConf rest;
	char *storage_url; /* NULL: embedded file in the state directory */
	Usec session_refresh_interval, gc_interval, gc_ttl, cache_ttl, blob_tx_refresh_interval;
	ConfModel *model;
	GPtrArray *endpoints; /* EndpointConf* */
	YamlDoc *doc;         /* nodes borrowed by filters */
	GPtrArray *plugins;   /* FilterPlugin*; borrowed by filters */
} RouterConfig;

/* Reads and checks.  NULL when there is an error (a syntax error of the YAML is a problem in the
 * report too); warnings alone do not fail. */
K_MUST_CHECK RouterConfig *router_config_load(const char *path, ConfReport *report);
K_MUST_CHECK RouterConfig *router_config_load_text(const char *name, const char *text,
						   ConfReport *report);
RouterConfig *router_config_ref(RouterConfig *config);
void router_config_unref(RouterConfig *config);
const EndpointConf *router_config_endpoint(const RouterConfig *config, const char *name);

/* ---- gateway ---- */

typedef struct SmtpHostConf { /* smtp_output.hosts.TAG */
	char *tag;
	char *ehlo_host;
	int protocol; /* 0 smtp, 1 lmtp */
	Usec timeout;
	bool enable_bdat;
	int64_t chunk_size;
	int tls; /* SmtpTlsPolicy */
	char *tls_ca, *tls_name;
	bool tls_mx_name;
	char *auth_user, *auth_secret_file;
	char *source;        /* address literal */
	int64_t connections; /* at once to one address, per worker */
	int64_t reuse_max;   /* transactions over one connection */
	Usec reuse_idle;
} SmtpHostConf;

typedef struct SmtpCertYaml { /* smtp_listener.services[].certificates[] */
	char *cert, *key;
} SmtpCertYaml;

typedef struct SmtpServiceYaml { /* smtp_listener.services[] */
	HostPort *addr;
	char *socket;   /* of socket activation, goes before `addr`; NULL: none */
	char *endpoint; /* name of a rest_output */
	char *sender, *tag;
	char *cert, *key, *auth_secrets;
	char *client_ca;         /* NULL: clients are not asked for certificates */
	GPtrArray *certificates; /* SmtpCertYaml*, beside `cert` */
	bool smtps;
	int protocol;                /* 0 SMTP, 1 LMTP */
	Usec proxy_protocol_timeout; /* 0: none */
	Usec rcpt_timeout, data_timeout;
	bool enable_bdat;
	int64_t chunk_size;
	/* keys of our own */
	bool require_auth, auth_clear_loopback;
	int64_t auth_failures_per_hour; /* per client address; 0: no limit */
	GPtrArray *proxy_protocol_from; /* char*, networks; empty: loopback */
	GPtrArray *xclient_from;        /* char*, networks; empty: nobody */
	int bare_newline;               /* 0 reject, 1 normalize */
	bool binarymime, dsn, announce_limits;
	int64_t connections_max, connections_per_client; /* 0: no limit */
	int64_t connections_per_minute, messages_per_minute, recipients_per_minute; /* per client */
} SmtpServiceYaml;

typedef struct RestOutputConf { /* rest_output[] */
	char *name;
	char *endpoint; /* creation URL of the router */
	char *verify;   /* as TxPortOptions.verify */
	Usec rcpt_timeout, data_timeout, refresh_interval;
	int64_t chunk_size;
	/* keys of our own: who we are to the router */
	char *api_key; /* the key itself */
	char *client_cert, *client_key;
} RestOutputConf;

typedef struct GatewayConfig {
	int refs; /* atomic */
	char *path;
	KoukanConf koukan;
	int64_t max_inflight;
	RestListenerConf rest;
	GPtrArray *hosts;    /* SmtpHostConf* */
	GPtrArray *services; /* SmtpServiceYaml* */
	GPtrArray *outputs;  /* RestOutputConf* */
	YamlDoc *doc;
} GatewayConfig;

K_MUST_CHECK GatewayConfig *gateway_config_load(const char *path, ConfReport *report);
K_MUST_CHECK GatewayConfig *gateway_config_load_text(const char *name, const char *text,
						     ConfReport *report);
GatewayConfig *gateway_config_ref(GatewayConfig *config);
void gateway_config_unref(GatewayConfig *config);
const RestOutputConf *gateway_config_output(const GatewayConfig *config, const char *name);
const SmtpHostConf *gateway_config_host(const GatewayConfig *config, const char *tag);

/* Which of the two a file is, by its top-level keys. */
typedef enum ConfigKind { CONFIG_UNKNOWN, CONFIG_ROUTER, CONFIG_GATEWAY } ConfigKind;
ConfigKind config_kind(const YamlNode *root);
/* The reference of all keys and filters, Markdown. */
void config_doc(GString *out);
