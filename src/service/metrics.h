/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* GET /metrics, in Prometheus' text format: what base/metrics.h counts, and what the router, the
 * gateway and the store know at the moment.  Any worker. */
#include "http/server.h"
#include "service/gateway.h"
#include "service/router.h"

typedef struct MetricsSource {
	Router *router;   /* NULL: none here */
	Gateway *gateway; /* NULL: none here */
} MetricsSource;

/* Answers the request. `source` outlives it. */
void metrics_answer(const MetricsSource *source, HttpRequest *request);
