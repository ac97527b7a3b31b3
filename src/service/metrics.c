/* SPDX-License-Identifier: Apache-2.0 */
#include "service/metrics.h"

#include "base/metrics.h"
#include "service/router_int.h"

#define TYPE "text/plain; version=0.0.4; charset=utf-8"

typedef struct MetricsCall {
	const MetricsSource *source;
	HttpRequest *request;
} MetricsCall;

static void
print_store(GString *out, Store *store)
{
	StoreStats stats;
	store_stats(store, &stats);
	metrics_print_one(out, "koukan_store_jobs_total", "", "counter",
			  "Jobs that the store answered.", (double)stats.jobs);
	metrics_print_one(out, "koukan_store_commits_total", "", "counter",
			  "Transactions that the store committed.", (double)stats.commits);
	metrics_print_one(out, "koukan_store_failures_total", "", "counter",
			  "Jobs that the store answered with an error.", (double)stats.failures);
	metrics_print_one(out, "koukan_store_damaged_total", "", "counter",
			  "Rows that could not be read and were set aside.", (double)stats.damaged);
	metrics_print_one(out, "koukan_store_jobs_waiting", "", "gauge",
			  "Jobs that wait for the store.", stats.queued);
	metrics_print_one(out, "koukan_store_leaseholder", "", "gauge",
			  "1: new deliveries may start; 0: the store does not answer.",
			  store_is_leaseholder(store) ? 1 : 0);
}

static void
print_queue(GString *out, const StoreCount *count)
{
	static const char NAME[] = "koukan_queue_transactions";
	metrics_print_one(out, NAME, "state=\"queued\"", "gauge",
			  "Stored transactions, by their state.", (double)count->queued);
	metrics_print_one(out, NAME, "state=\"leased\"", NULL, NULL, (double)count->leased);
	metrics_print_one(out, NAME, "state=\"held\"", NULL, NULL, (double)count->held);
	metrics_print_one(out, NAME, "state=\"final\"", NULL, NULL, (double)count->final);
	metrics_print_one(out, "koukan_queue_oldest_seconds", "", "gauge",
			  "Age of the oldest stored transaction that is not final; 0: none.",
			  count->oldest > 0 ? (double)MAX(clock_wall_sec() - count->oldest, 0) : 0);
}

static void
finish(MetricsCall *call, const StoreCount *queue)
{
	const MetricsSource *source = call->source;
	GString *out = g_string_new(NULL);
	metrics_print_one(out, "koukan_info", "version=\"" KOUKAN_VERSION "\"", "gauge",
			  "What runs here.", 1);
	metrics_print(out);
	metrics_print_one(out, "koukan_transactions_active", "service=\"router\"", "gauge",
			  "Transactions under way.",
			  source->router != NULL ? router_active(source->router) : 0);
	metrics_print_one(out, "koukan_transactions_active", "service=\"gateway\"", NULL, NULL,
			  source->gateway != NULL ? gateway_active(source->gateway) : 0);
	metrics_print_one(out, "koukan_http_connections", "", "gauge",
			  "Connections to REST listeners that are open.", http_connections());
	if (source->router != NULL)
		print_store(out, source->router->store);
	if (queue != NULL)
		print_queue(out, queue);
	size_t len = out->len;
	http_respond(call->request, 200, NULL, 0, TYPE, g_string_free(out, FALSE), len);
	g_free(call);
}

/* Without the store's answer the rest is still worth to be known. */
static void
on_counted(void *arg, const GError *error, GPtrArray *counts)
{
	static const StoreCount nothing = {0};
	bool some = error == NULL && counts->len > 0;
	finish(arg, error != NULL ? NULL : some ? g_ptr_array_index(counts, 0) : &nothing);
}

void
metrics_answer(const MetricsSource *source, HttpRequest *request)
{
	MetricsCall *call = g_new0(MetricsCall, 1);
	*call = (MetricsCall){source, request};
	if (source->router != NULL)
		store_count(source->router->store, 0, on_counted, call);
	else
		finish(call, NULL);
}
