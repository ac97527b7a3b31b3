/* SPDX-License-Identifier: Apache-2.0 */
#include "service/rest_front.h"

#include <string.h>

#include "base/metrics.h"

/* A request on its way to an answer. */
typedef struct Open {
	RestLimits *limits;
	char *client; /* as whose upload it counts; NULL: it is none */
	Deadline since;
	MetricHistogram histogram;
} Open;

static void
count_status(int status)
{
	static const Metric CLASSES[] = {METRIC_REST_2XX, METRIC_REST_3XX, METRIC_REST_4XX,
					 METRIC_REST_5XX};
	k_assert(status >= 200 && status < 600);
	metric_add(CLASSES[status / 100 - 2], 1);
}

static void
on_end(void *arg, int status)
{
	Open *open = arg;
	count_status(status);
	metric_observe(open->histogram, clock_mono() - open->since);
	if (open->client != NULL)
		rest_limits_leave(open->limits, open->client);
	g_free(open->client);
	g_free(open);
}

static MetricHistogram
histogram_of(const char *method)
{
	if (strcmp(method, "POST") == 0)
		return HISTOGRAM_REST_CREATE;
	if (strcmp(method, "PATCH") == 0)
		return HISTOGRAM_REST_PATCH;
	return strcmp(method, "PUT") == 0 ? HISTOGRAM_REST_PUT : HISTOGRAM_REST_READ;
}

static void
answer_401(HttpRequest *request)
{
	static const char text[] = "authentication required";
	const HttpHeader header = {"www-authenticate", "Bearer realm=\"koukan\""};
	metric_add(METRIC_REST_UNAUTHENTICATED, 1);
	http_respond(request, 401, &header, 1, "text/plain; charset=utf-8", g_strdup(text),
		     strlen(text));
}

static void
answer_429(HttpRequest *request, RestLimit limit, unsigned wait)
{
	char seconds[16];
	g_snprintf(seconds, sizeof(seconds), "%u", wait);
	const HttpHeader header = {"retry-after", seconds};
	bool uploads = limit == REST_LIMIT_UPLOADS;
	const char *text = uploads ? "too many uploads at a time" : "too many requests";
	metric_add(uploads ? METRIC_REST_UPLOADS : METRIC_REST_RATE, 1);
	http_respond(request, 429, &header, 1, "text/plain; charset=utf-8", g_strdup(text),
		     strlen(text));
}

/* Within the limits of who asks; else the request has been answered. */
static bool
admit(const RestFront *front, HttpRequest *request, const RestPrincipal *who, Open *open)
{
	if (front->limits == NULL)
		return true;
	g_autofree char *client = who != NULL ? g_strdup(who->name)
					      : rest_limits_client(http_peer(request)->address);
	bool upload = strcmp(http_method(request), "GET") != 0;
	unsigned wait = 1;
	RestLimit limit = rest_limits_admit(front->limits, client, upload, clock_mono(), &wait);
	if (limit != REST_LIMIT_NONE) {
		answer_429(request, limit, wait);
		return false;
	}
	if (upload)
		open->client = g_steal_pointer(&client);
	return true;
}

void
rest_front_handle(void *arg, HttpRequest *request)
{
	const RestFront *front = arg;
	if (admin_handle_probe(&front->admin, request))
		return;
	const RestPrincipal *who = NULL;
	if (front->access != NULL)
		who = access_find(front->access, request);
	Open *open = g_new0(Open, 1);
	*open = (Open){.limits = front->limits,
		       .since = clock_mono(),
		       .histogram = histogram_of(http_method(request))};
	http_on_end(request, on_end, open);
	if (!admit(front, request, who, open))
		return;
	if (front->access != NULL && who == NULL) {
		answer_401(request);
		return;
	}
	bool may_admin = who != NULL ? who->admin : front->admin.open;
	bool may_count = who != NULL ? who->metrics : front->admin.open;
	if (may_count && strcmp(http_path(request), "/metrics") == 0 &&
	    strcmp(http_method(request), "GET") == 0) {
		metrics_answer(&front->metrics, request);
		return;
	}
	if (!admin_handle(&front->admin, request, may_admin))
		rest_api_handle_as(front->api, request, who);
}
