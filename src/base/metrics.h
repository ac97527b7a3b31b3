/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Counters and histograms of the whole process.
 *
 * Each thread writes into a block of its own, which it gets with its first count and which lives as
 * long as the process; who reads adds the blocks up.  So counting takes no lock and shares no cache
 * line, and a reader sees each number as it was at some moment during the reading.  Any thread.
 *
 * Global on purpose: what is counted is the process, whichever layer counts. */
#include <glib.h>
#include <stdint.h>

#include "base/clock.h"

/* name in code, name, labels, help (of the first of a name) */
#define METRICS_COUNTERS(X)                                                                        \
	X(TX_FROM_REST, "koukan_transactions_created_total", "via=\"rest\"",                       \
	  "Transactions that the router took, by where they came from.")                           \
	X(TX_FROM_PORT, "koukan_transactions_created_total", "via=\"internal\"", NULL)             \
	X(TX_FROM_QUEUE, "koukan_transactions_created_total", "via=\"queue\"", NULL)               \
	X(TX_SUCCESS, "koukan_transactions_ended_total", "outcome=\"success\"",                    \
	  "Transactions that ended in the router, by how.")                                        \
	X(TX_FAILED, "koukan_transactions_ended_total", "outcome=\"failed\"", NULL)                \
	X(TX_EXPIRED, "koukan_transactions_ended_total", "outcome=\"expired\"", NULL)              \
	X(TX_CANCELLED, "koukan_transactions_ended_total", "outcome=\"cancelled\"", NULL)          \
	X(TX_ABANDONED, "koukan_transactions_ended_total", "outcome=\"abandoned\"", NULL)          \
	X(TX_TEMPORARY, "koukan_transactions_ended_total", "outcome=\"temporary\"", NULL)          \
	X(RETRIES, "koukan_retries_total", "", "Attempts that failed for now and are repeated.")   \
	X(BOUNCES, "koukan_bounces_total", "", "Notifications that were made.")                    \
	X(REST_2XX, "koukan_rest_responses_total", "class=\"2xx\"",                                \
	  "Answers of the REST listeners, without those to probes.")                               \
	X(REST_3XX, "koukan_rest_responses_total", "class=\"3xx\"", NULL)                          \
	X(REST_4XX, "koukan_rest_responses_total", "class=\"4xx\"", NULL)                          \
	X(REST_5XX, "koukan_rest_responses_total", "class=\"5xx\"", NULL)                          \
	X(REST_UNAUTHENTICATED, "koukan_rest_refused_total", "reason=\"unauthenticated\"",         \
	  "REST requests that were refused before anything was done.")                             \
	X(REST_RATE, "koukan_rest_refused_total", "reason=\"rate\"", NULL)                         \
	X(REST_UPLOADS, "koukan_rest_refused_total", "reason=\"uploads\"", NULL)                   \
	X(REST_REPEATED, "koukan_rest_repeated_total", "",                                         \
	  "Creations that an idempotency key told to be the same again.")                          \
	X(HTTP_ACCEPTED, "koukan_http_connections_total", "", "Connections to REST listeners.")    \
	X(HTTP_CLOSED, "koukan_http_connections_closed_total", "",                                 \
	  "Connections to REST listeners that have ended.")                                        \
	X(HTTP_REFUSED, "koukan_http_connections_refused_total", "",                               \
	  "Connections that were refused with 503, being too many.")                               \
	X(SMTP_SESSIONS, "koukan_smtp_sessions_total", "", "SMTP sessions that ended.")            \
	X(SMTP_ACCEPTED, "koukan_smtp_messages_total", "outcome=\"accepted\"",                     \
	  "Mail transactions of SMTP clients, by the class of the last answer.")                   \
	X(SMTP_TEMPORARY, "koukan_smtp_messages_total", "outcome=\"temporary\"", NULL)             \
	X(SMTP_REJECTED, "koukan_smtp_messages_total", "outcome=\"rejected\"", NULL)               \
	X(SMTP_OTHER, "koukan_smtp_messages_total", "outcome=\"none\"", NULL)                      \
	X(SMTP_AUTH_FAILED, "koukan_smtp_auth_failures_total", "", "AUTH that failed.")            \
	X(DNS_OK, "koukan_dns_answers_total", "status=\"ok\"", "DNS lookups, by their outcome.")   \
	X(DNS_NODATA, "koukan_dns_answers_total", "status=\"nodata\"", NULL)                       \
	X(DNS_NXDOMAIN, "koukan_dns_answers_total", "status=\"nxdomain\"", NULL)                   \
	X(DNS_TEMP, "koukan_dns_answers_total", "status=\"temporary\"", NULL)

typedef enum Metric {
#define X(name, text, labels, help) METRIC_##name,
	METRICS_COUNTERS(X)
#undef X
		METRICS
} Metric;

/* name in code, name, what is observed, help */
#define METRICS_HISTOGRAMS(X)                                                                      \
	X(REST_READ, "koukan_rest_request_seconds", "method=\"GET\"", SECONDS,                     \
	  "REST requests, from their head to the answer; long polls included.")                    \
	X(REST_CREATE, "koukan_rest_request_seconds", "method=\"POST\"", SECONDS, NULL)            \
	X(REST_PATCH, "koukan_rest_request_seconds", "method=\"PATCH\"", SECONDS, NULL)            \
	X(REST_PUT, "koukan_rest_request_seconds", "method=\"PUT\"", SECONDS, NULL)                \
	X(ATTEMPT, "koukan_attempt_seconds", "", SECONDS, "Delivery attempts that ended.")         \
	X(SMTP_MESSAGE, "koukan_smtp_message_seconds", "", SECONDS,                                \
	  "Mail transactions of SMTP clients, from MAIL to the last answer.")                      \
	X(STORE_COMMIT, "koukan_store_commit_seconds", "", SECONDS,                                \
	  "Groups of store jobs, from their begin to the commit.")                                 \
	X(STORE_BATCH, "koukan_store_batch_jobs", "", COUNT, "Store jobs of one group.")           \
	X(DNS, "koukan_dns_lookup_seconds", "", SECONDS, "DNS lookups.")

typedef enum MetricHistogram {
#define X(name, text, labels, unit, help) HISTOGRAM_##name,
	METRICS_HISTOGRAMS(X)
#undef X
		HISTOGRAMS
} MetricHistogram;

void metric_add(Metric metric, uint64_t n);
/* Microseconds, or a count. */
void metric_observe(MetricHistogram histogram, int64_t value);
uint64_t metric_value(Metric metric);

/* Everything, in Prometheus' text format (version 0.0.4). */
void metrics_print(GString *out);
/* One number of somebody else's, with its own HELP and TYPE; `labels` "" for none.  `type` NULL:
 * the last name goes on. */
void metrics_print_one(GString *out, const char *name, const char *labels, const char *type,
		       const char *help, double value);
