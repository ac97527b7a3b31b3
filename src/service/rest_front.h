/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What every request to a REST listener passes first: probes, who asks, how much of it; then it
 * goes to the administration or to the REST API.  Owner: service/node; requests on any worker. */
#include "rest/api.h"
#include "service/access.h"
#include "service/admin.h"
#include "service/metrics.h"
#include "service/rest_limits.h"

typedef struct RestFront {
	RestApi *api;
	Admin admin;
	Access *access;     /* NULL: no authentication */
	RestLimits *limits; /* NULL: none */
	MetricsSource metrics;
} RestFront;

/* The handler for http_server_*: arg is the RestFront. */
void rest_front_handle(void *arg, HttpRequest *request);
