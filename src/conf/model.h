/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The parts of the router's configuration that filters refer to by name: senders and REST
 * endpoints (behaviour spec 6.4, 6.5).  Filled by conf/config.c; immutable afterwards and shared
 * by all threads as part of the configuration snapshot, which owns it.  Names are never NULL. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* A sender, or one of its tags with the sender's keys merged under the tag's. */
typedef struct SenderConf {
	char *name;
	char *tag;          /* NULL: the sender itself */
	char *output_chain; /* may be NULL on a sender whose tags name theirs */
	bool retry;         /* retry: output_chain */
	bool notification;
	char *upstream_sender; /* of the transactions that an exploder creates; never NULL */
	char *upstream_tag;    /* NULL: same tag */
	char *remote_host;     /* address literal presented on a short circuit, or NULL */
	char *smtp_meta;       /* JSON text presented on a short circuit, or NULL */
	bool has_tags;         /* the sender defines a tag list: other tags are refused */
	GPtrArray *tags;       /* SenderConf*, merged */
} SenderConf;

typedef struct RestEndpointConf {
	char *name;
	char *endpoint; /* creation URL, or NULL */
	char *sender;   /* JSON sender.name, or NULL (then it is no destination) */
	char *tag;      /* or NULL */
	bool receive_parsing;
	int64_t max_inline; /* default 65536 */
	bool send_filter_output;
} RestEndpointConf;

typedef struct ConfModel {
	GPtrArray *senders;        /* SenderConf* */
	GPtrArray *rest_endpoints; /* RestEndpointConf* */
} ConfModel;

ConfModel *conf_model_new(void);
void conf_model_free(ConfModel *model);
SenderConf *sender_conf_new(void);
void sender_conf_free(SenderConf *sender);
RestEndpointConf *rest_endpoint_conf_new(void);
void rest_endpoint_conf_free(RestEndpointConf *endpoint);
/* The effective sender for name and tag (tag may be NULL).  An unknown tag gives the sender
 * itself when it has no tag list, else NULL. */
const SenderConf *conf_model_sender(const ConfModel *model, const char *name, const char *tag);
const RestEndpointConf *conf_model_rest_endpoint(const ConfModel *model, const char *name);
