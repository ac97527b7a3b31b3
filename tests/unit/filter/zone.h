/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A resolver in place of the real one: answers from a table, at the end of the turn. */
#include "harness.h"

typedef struct Zone {
	const char *name; /* without trailing dot */
	DnsType type;
	DnsStatus status;
	const char *records[4]; /* MX: "10 host." */
} Zone;

struct Dns {
	DeferQueue *queue;
	const Zone *zone;
	bool silent; /* never answers */
	unsigned open, asked;
	DnsTap *tap;
};

extern Dns zone_dns; /* of the test that runs */

/* A harness with that chain; `zone` ends with a row without name. */
Harness *zone_setup(const char *yaml, const Zone *zone);
void zone_teardown(Harness *h);
