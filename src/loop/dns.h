/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The resolver of one worker, on libunbound.  Answers are parsed here and are data, with the
 * three outcomes that mail cares about: found, known not to exist, and temporarily unknown.
 * Own worker only.  A callback never fires inside dns_query; after dns_cancel there is silence. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/net.h"
#include "loop/worker.h"

typedef struct Dns Dns;
typedef struct DnsQuery DnsQuery;

typedef enum DnsType {
	DNS_A = 1,
	DNS_CNAME = 5,
	DNS_PTR = 12,
	DNS_MX = 15,
	DNS_TXT = 16,
	DNS_AAAA = 28
} DnsType;

typedef enum DnsStatus {
	DNS_OK,       /* at least one record of the asked type */
	DNS_NODATA,   /* the name exists without such records */
	DNS_NXDOMAIN, /* the name does not exist */
	DNS_TEMP,     /* timeout, SERVFAIL, refused, bogus, malformed */
	DNS_STATUSES
} DnsStatus;

typedef struct DnsRecord {
	char *text;          /* A, AAAA: literal; PTR, CNAME, MX: name with its trailing dot, odd
				bytes as \DDD; TXT: the strings joined, a NUL in them as SUB (0x1a) */
	uint16_t preference; /* MX */
} DnsRecord;

#define DNS_RECORDS_MAX 256 /* records kept of one answer */

typedef struct DnsAnswer {
	DnsStatus status;
	GPtrArray *records; /* DnsRecord*, of the asked type, in answer order; empty unless OK */
	bool secure;        /* validated (DNSSEC) */
} DnsAnswer;

typedef struct DnsConfig {
	GPtrArray *
		forward; /* char* "host" or "host@port": ask these; empty or NULL: full recursion */
	bool use_system; /* take forwarders from /etc/resolv.conf when `forward` is empty */
	Usec timeout;    /* for one query, default 5 s */
} DnsConfig;

K_MUST_CHECK Dns *dns_new(Worker *worker, const DnsConfig *config, GError **ret_error);
void dns_free(Dns *dns); /* open queries end without a callback; NULL is fine */

/* `answer` is borrowed for the call. */
typedef void DnsFn(void *arg, const DnsAnswer *answer);
/* `name`: with or without trailing dot; a name that cannot be asked is answered NXDOMAIN. */
DnsQuery *dns_query(Dns *dns, const char *name, DnsType type, DnsFn *fn, void *arg);
void dns_cancel(DnsQuery *query); /* NULL is fine; not after its callback */

/* Who wants to know of questions and answers.  A query belongs to the tap that is set when it is
 * made; while its callback runs that tap is set again, so that what follows from an answer belongs
 * to the same one.  `fn` is called before the callback; everything is borrowed for the call.  The
 * tap outlives its queries, and the callback of such a query must not free the resolver. */
typedef struct DnsTap DnsTap;
struct DnsTap {
	void (*fn)(DnsTap *tap, const char *name, DnsType type, const DnsAnswer *answer, Usec took);
};
/* Sets it (NULL: nobody) and returns the former one. */
DnsTap *dns_tap(Dns *dns, DnsTap *tap);

/* A resolver that asks nobody: `fn` answers, at once; the callbacks come as from the other one.  It
 * fills a zeroed answer whose records are its own to make (dns_record_add). */
typedef void DnsSourceFn(void *arg, const char *name, DnsType type, DnsAnswer *answer);
Dns *dns_new_source(Worker *worker, DnsSourceFn *fn, void *arg);
/* Copies `text`; no more than DNS_RECORDS_MAX are kept. */
void dns_record_add(DnsAnswer *answer, const char *text, uint16_t preference);
const char *dns_type_name(DnsType type);       /* "A"..., or "?" */
const char *dns_status_name(DnsStatus status); /* "OK", "NODATA", "NXDOMAIN", "TEMP" */

/* Pure: reads a wire-format answer (RFC 1035 4) for `type`; anything malformed gives DNS_TEMP.
 * The fuzz target.  Caller clears with dns_answer_clear. */
void dns_parse(const uint8_t *packet, size_t len, DnsType type, DnsAnswer *ret_answer);
void dns_answer_clear(DnsAnswer *answer);
