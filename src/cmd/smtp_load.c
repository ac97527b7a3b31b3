/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cmd/smtp_int.h"

#define PROGRESS_MS   500
#define LATENCIES_MAX 1000000 /* of that many messages; of later ones only the sum is kept */

typedef struct Load {
	Sending *sending;
	uint64_t left; /* to be started */
	uint64_t running;
	SmtpLoadResult result;
	GArray *latencies, *dots; /* Usec */
	atomic_ullong done;
} Load;

typedef struct LoadItem {
	Load *load;
	Tx *tx;
	TxPort *port;
	TxWatch watch;
	Deadline began;
} LoadItem;

static void item_start(Load *load);

/* ---- on the worker ---- */

static Load *load_now; /* for WorkerFn, which gets the Sending */

static void
count_result(SmtpLoadResult *result, const Tx *tx)
{
	bool all = response_ok(tx->data_response) && tx_rcpts_accepted(tx) == tx_rcpt_count(tx);
	if (all)
		result->accepted++;
	else if (smtp_response_is_unacknowledged(tx->data_response))
		result->unacknowledged++;
	else if (response_temp(tx->data_response))
		result->deferred++;
	else
		result->refused++;
}

static void
item_free(void *arg)
{
	LoadItem *item = arg;
	tx_port_stop(item->port);
	tx_unref(item->tx);
	g_free(item);
}

static void
on_item(void *arg, Tx *tx)
{
	LoadItem *item = arg;
	Load *load = item->load;
	if (tx->data_response == NULL)
		return;
	tx_unwatch(&item->watch);
	count_result(&load->result, tx);
	Usec took = clock_mono() - item->began;
	Usec dot = smtp_delivery_dot_took(item->port);
	if (load->latencies->len < LATENCIES_MAX)
		g_array_append_val(load->latencies, took);
	if (dot > 0 && load->dots->len < LATENCIES_MAX)
		g_array_append_val(load->dots, dot);
	worker_reap(load->sending->worker, item, item_free);
	load->running--;
	atomic_fetch_add(&load->done, 1);
	if (load->left > 0)
		item_start(load);
	else if (load->running == 0)
		smtp_signal_idle(load->sending);
}

static void
item_start(Load *load)
{
	LoadItem *item = g_new0(LoadItem, 1);
	load->left--;
	load->running++;
	item->load = load;
	item->began = clock_mono();
	item->tx = smtp_make_tx(load->sending);
	tx_watch(item->tx, &item->watch, on_item, item);
	item->port = smtp_delivery_start(load->sending->pool, &load->sending->output, item->tx);
}

static void
load_start(void *arg)
{
	Sending *sending = arg;
	for (uint64_t i = 0; i < sending->args->connections && load_now->left > 0; i++)
		item_start(load_now);
}

/* ---- on the main thread ---- */

static int
compare(const void *a, const void *b)
{
	Usec left = *(const Usec *)a, right = *(const Usec *)b;
	return (left > right) - (left < right);
}

static double
percentile(const GArray *sorted, double share)
{
	guint at = (guint)(share * (sorted->len - 1));
	return (double)g_array_index(sorted, Usec, at) / USEC_PER_MS;
}

static void
print_times(const char *what, GArray *times)
{
	if (times->len == 0)
		return;
	g_array_sort(times, compare);
	(void)printf("%s: p50 %.3f, p90 %.3f, p99 %.3f, max %.3f\n", what, percentile(times, 0.5),
		     percentile(times, 0.9), percentile(times, 0.99), percentile(times, 1));
}

static void
print_result(Load *load, uint64_t count, Usec span)
{
	const SmtpLoadResult *result = &load->result;
	double seconds = (double)MAX(span, 1) / USEC_PER_SEC;
	double mib = (double)blob_len(load->sending->message) * (double)count / (1024 * 1024);
	(void)printf("%" G_GUINT64_FORMAT " messages in %.3f s: %.1f/s, %.2f MiB/s\n", count,
		     seconds, (double)count / seconds, mib / seconds);
	(void)printf("accepted %" G_GUINT64_FORMAT ", refused %" G_GUINT64_FORMAT
		     ", failed for now %" G_GUINT64_FORMAT ", not acknowledged %" G_GUINT64_FORMAT
		     "\n",
		     result->accepted, result->refused, result->deferred, result->unacknowledged);
	print_times("milliseconds", load->latencies);
	print_times("from the final dot to its reply", load->dots);
	(void)fflush(stdout);
}

static void
show_progress(Load *load, uint64_t count, Deadline began, bool last)
{
	uint64_t done = atomic_load(&load->done);
	double seconds = (double)MAX(clock_mono() - began, 1) / USEC_PER_SEC;
	if (isatty(STDERR_FILENO) == 1)
		(void)fprintf(stderr, "\r%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT " %.0f/s%s",
			      done, count, (double)done / seconds, last ? "\n" : "   ");
	else if (!last)
		(void)fprintf(stderr, "%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT " %.0f/s\n", done,
			      count, (double)done / seconds);
}

void
smtp_load(Sending *sending, uint64_t count, SmtpLoadResult *ret_result)
{
	Load load = {.sending = sending, .left = count};
	*ret_result = load.result;
	if (count == 0)
		return;
	load.latencies = g_array_new(FALSE, FALSE, sizeof(Usec));
	load.dots = g_array_new(FALSE, FALSE, sizeof(Usec));
	load_now = &load;
	Deadline began = clock_mono();
	worker_post(sending->worker, load_start, sending);
	while (!smtp_wait_idle(sending, PROGRESS_MS))
		show_progress(&load, count, began, false);
	Usec span = clock_mono() - began;
	show_progress(&load, count, began, true);
	print_result(&load, count, span);
	*ret_result = load.result;
	g_array_unref(load.latencies);
	g_array_unref(load.dots);
}
