/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Surroundings for filters under test: a worker whose loop is turned by hand, next nodes that
 * record what reaches them and answer when told. */
#include "base/json.h"
#include "filter/chain.h"

typedef struct FakePort {
	TxPort port;        /* first */
	Tx *tx;             /* counted, so that it can be looked at later */
	char *url;          /* of open_url, else NULL */
	char *sender, *tag; /* of open_sender */
	TxPortOptions options;
	bool stopped;
} FakePort;

typedef struct Harness {
	Workers *workers;
	DeferQueue *queue;
	TxPorts ports;
	FilterEnv env;
	ConfModel *model;
	GPtrArray *opened; /* FakePort* */
	bool busy;         /* open_sender has no room */
	Tx *tx;
	ConfReport *report;
	YamlDoc *doc;
	ChainConf *conf;
	Chain *chain;
} Harness;

Harness *harness_new(void);
void harness_free(Harness *h);
/* A sender of our router. */
SenderConf *harness_sender(Harness *h, const char *name, const char *upstream_tag);
RestEndpointConf *harness_endpoint(Harness *h, const char *name, const char *url,
				   const char *sender);
/* Reads `chain:`, a YAML list; problems stay in h->report. */
void harness_conf(Harness *h, const char *yaml);
/* The same without problems, and starts it on h->tx. */
void harness_chain(Harness *h, const char *yaml);
/* A chain of kinds with configurations (may be NULL), ended by NULL. */
void harness_kinds(Harness *h, const FilterKind *first, ...);
void harness_start(Harness *h);
/* Turns the loop until nothing is left to do. */
void harness_turn(Harness *h);
/* Turns it until `seconds` have passed or a timer has fired and made `*done` true. */
void harness_wait(Harness *h, bool (*done)(Harness *h));
FakePort *harness_port(Harness *h, guint index);

void harness_mail(Harness *h, const char *from);
void harness_rcpt(Harness *h, const char *to);
void harness_body(Harness *h, const char *text); /* complete */
json_t *harness_output(Harness *h, const char *name);

/* "250 text" or "-". */
#define assert_response(response, want)                                                            \
	do {                                                                                       \
		char *got_ = harness_text(response);                                               \
		assert_string_equal(got_, want);                                                   \
		g_free(got_);                                                                      \
	} while (0)
char *harness_text(const Response *response);
