/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Answers from a table, for machines that ask for them (no resolver, no loop). */
#include "loop/dns.h"

typedef struct StubRow {
	const char *name; /* NULL ends the table */
	DnsType type;
	DnsStatus status;        /* DNS_OK: with the records */
	const char *records[14]; /* MX: "10 host" */
} StubRow;

/* A name that is in the table for another type has no data; others do not exist.  Clear the answer
 * with dns_answer_clear. */
void stub_answer(const StubRow *zone, const char *name, DnsType type, DnsAnswer *ret_answer);
