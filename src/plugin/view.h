/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What code from outside (a shared object, a script) sees of a transaction in one call, and what
 * it decides there.  The filter that makes the call fills in the upper part, reads the lower one
 * afterwards and acts on it: nothing here changes the transaction.
 *
 * Owner: the caller, usually on its stack.  Texts that come out of it live until it is cleared.
 * Own worker only. */
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "mime/header.h"
#include "tx/tx.h"

typedef enum PluginEvent {
	PLUGIN_MAIL,    /* a filter: the sender is known */
	PLUGIN_RCPT,    /* a filter: a recipient */
	PLUGIN_MESSAGE, /* a filter: the complete message */
	PLUGIN_MATCH,   /* a matcher */
	PLUGIN_ROUTE,   /* a routing policy */
	PLUGIN_EVENTS
} PluginEvent;

#define PLUGIN_ANSWER_MAX 512 /* bytes of the text of an answer; more is cut */

typedef struct PluginView {
	/* what it may look at */
	PluginEvent event;
	const Tx *tx;
	const char *rcpt;      /* the recipient that it is about, or NULL */
	const Blob *message;   /* complete; NULL: not yet, or none */
	const json_t *signals; /* of the other filters, by name; may be NULL */
	const LogCtx *log;
	const char *name; /* of the plug-in or script, in logs */
	GString *fields;  /* where header fields may be put, each with its line end, or NULL */
	unsigned *n_fields;

	/* what it decided */
	Response *answer;   /* or NULL */
	char *endpoint;     /* name of a rest_endpoint, or NULL */
	GPtrArray *hosts;   /* HostPort*, or NULL */
	GPtrArray *strings; /* lent texts */

	/* the message's header, read when it is first asked for */
	bool scanned;
	char *block;
	MimeHeader header;
} PluginView;

void plugin_view_clear(PluginView *view);

/* ---- looking ---- */

/* Both NULL when there is none, or no complete message. */
const MimeField *plugin_view_field(PluginView *view, size_t index);
const char *plugin_view_header(PluginView *view, const char *name, size_t index);
size_t plugin_view_field_count(PluginView *view);
/* Takes over `text` and lends it. */
const char *plugin_view_lend(PluginView *view, char *text);
const char *plugin_view_meta(const PluginView *view, const char *key); /* of smtp_meta, or NULL */
bool plugin_view_meta_true(const PluginView *view, const char *key);

/* ---- deciding; false: it cannot be, *ret_why says why (static) ---- */

/* The first answer counts. */
K_MUST_CHECK bool plugin_view_answer(PluginView *view, int code, const char *text,
				     const char **ret_why);
#define PLUGIN_FIELDS_MAX      100
#define PLUGIN_FIELD_NAME_MAX  76
#define PLUGIN_FIELD_VALUE_MAX 16384
K_MUST_CHECK bool plugin_view_add_header(PluginView *view, const char *name, const char *value,
					 const char **ret_why);
#define PLUGIN_HOSTS_MAX 20
K_MUST_CHECK bool plugin_view_add_host(PluginView *view, const char *host, uint16_t port,
				       const char **ret_why);
