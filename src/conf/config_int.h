/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Shared by the files that read whole configurations.  Load time only: one thread. */
#include <jansson.h>

#include "conf/config.h"

/* One table with its place in the file, for the reference. */
typedef struct ConfSection {
	const char *title; /* NULL ends a list */
	const char *intro;
	const ConfKey *keys;
} ConfSection;

extern const ConfSection config_router_sections[];
extern const ConfSection config_gateway_sections[];
extern const ConfSection config_koukan_sections[];
extern const ConfKey config_rest_keys[], config_access_keys[]; /* config_rest.c */

/* Reads the file `name`, or `text` under that name when it is not NULL.  NULL: the report has a
 * new error. */
K_MUST_CHECK YamlDoc *config_open(const char *name, const char *text, ConfReport *report);
/* `koukan:` and the level that `logging:` (a Python dictConfig) asks for. */
void config_read_koukan(KoukanConf *koukan, const YamlNode *root, ConfReport *report);
void config_clear_koukan(KoukanConf *koukan);
/* config_rest.c: `rest` of the map `koukan`. */
void config_read_rest(RestOwnConf *rest, const YamlNode *koukan, ConfReport *report);
void config_clear_rest(RestOwnConf *rest);
/* A listener that others can reach wants authentication; client certificates want TLS. */
void config_check_rest(const KoukanConf *koukan, const RestListenerConf *listener,
		       const YamlNode *root, ConfReport *report);
/* The level asked for by a dictConfig; `otherwise` when it names none. */
LogLevel config_log_level(const YamlNode *logging, LogLevel otherwise);
/* The top level: warns about unknown sections; false when it is no map or the other program's. */
K_MUST_CHECK bool config_check_root(const YamlNode *root, ConfigKind want, const ConfKey *sections,
				    ConfReport *report);

/* Entries of the list `section: [...]`, 0 with an error reported when it is no list. */
unsigned config_count(const YamlNode *section, const char *name, ConfReport *report);
/* Reports an error when `name` was seen before; remembers it and its place otherwise. */
void config_note_name(GHashTable *seen, const char *what, const char *name, const YamlNode *place,
		      ConfReport *report);
/* Where `key` stands in `map`, else the map itself: for messages. */
const YamlNode *config_place(const YamlNode *map, const char *key);
/* "; did you mean 'x'?" or "".  Caller frees. */
char *config_hint(const char *word, GPtrArray *names);
/* TLS needs both; one alone is worth a warning. */
void config_check_tls(const YamlNode *map, const char *cert, const char *key, ConfReport *report);

/* ---- router ---- */

typedef struct SenderPlace {
	const SenderConf *sender; /* a sender or one of its tags; owned by the model */
	const YamlNode *own;      /* its map */
	const YamlNode *parent;   /* a tag's sender's map; NULL for a sender */
} SenderPlace;

typedef struct EndpointPlace {
	EndpointConf *endpoint; /* owned by the configuration */
	const YamlNode *map;
} EndpointPlace;

typedef struct RouterLoader {
	RouterConfig *config;
	const YamlNode *root;
	ConfReport *report;
	GArray *senders;       /* SenderPlace */
	GArray *endpoints;     /* EndpointPlace */
	GHashTable *reachable; /* char*: chains that a sender or tag names */
	FilterModules modules;
} RouterLoader;

/* config_sender.c: `sender:` and `rest_endpoint:` */
extern const ConfKey config_sender_keys[], config_tag_keys[];
extern const ConfKey config_rest_endpoint_keys[], config_rest_options_keys[];
void config_read_senders(RouterLoader *loader);
void config_read_rest_endpoints(RouterLoader *loader);
/* config_router_check.c: what refers to what */
void config_check_router(RouterLoader *loader);
