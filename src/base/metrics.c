/* SPDX-License-Identifier: Apache-2.0 */
#include "base/metrics.h"

#include <stdatomic.h>
#include <string.h>

#define BUCKETS 16
#define ALIGN   64 /* a cache line */

/* Upper bounds, inclusive; the last bucket of a histogram has none. */
static const int64_t SECONDS[BUCKETS] = {500,     1000,     2500,     5000,    10000,   25000,
					 50000,   100000,   250000,   500000,  1000000, 2500000,
					 5000000, 10000000, 30000000, 60000000};
static const int64_t COUNT[BUCKETS] = {1,  2,  3,   5,   8,   10,   15,   20,
				       30, 50, 100, 200, 500, 1000, 2000, 5000};

typedef struct Info {
	const char *name, *labels, *help;
	const int64_t *bounds; /* NULL: a counter */
} Info;

static const Info COUNTERS[] = {
#define X(code, name, labels, help) {name, labels, help, NULL},
	METRICS_COUNTERS(X)
#undef X
};
static const Info HISTOGRAM_INFO[] = {
#define X(code, name, labels, unit, help) {name, labels, help, unit},
	METRICS_HISTOGRAMS(X)
#undef X
};

typedef struct Histogram {
	_Atomic uint64_t buckets[BUCKETS + 1];
	_Atomic int64_t sum;
} Histogram;

/* Written by one thread. */
typedef struct Block {
	struct Block *next;
	_Atomic uint64_t counters[METRICS];
	Histogram histograms[HISTOGRAMS];
} Block;

static Block *_Atomic blocks;
static _Thread_local Block *own;

static Block *
block(void)
{
	if (own != NULL)
		return own;
	own = g_aligned_alloc0(1, (sizeof(Block) + ALIGN - 1) / ALIGN * ALIGN, ALIGN);
	own->next = atomic_load(&blocks);
	while (!atomic_compare_exchange_weak(&blocks, &own->next, own))
		;
	return own;
}

/* Only its own thread writes, so nothing is lost between the two halves. */
static void
add(_Atomic uint64_t *number, uint64_t n)
{
	uint64_t now = atomic_load_explicit(number, memory_order_relaxed);
	atomic_store_explicit(number, now + n, memory_order_relaxed);
}

void
metric_add(Metric metric, uint64_t n)
{
	add(&block()->counters[metric], n);
}

void
metric_observe(MetricHistogram which, int64_t value)
{
	Histogram *histogram = &block()->histograms[which];
	const int64_t *bounds = HISTOGRAM_INFO[which].bounds;
	int i = 0;
	while (i < BUCKETS && value > bounds[i])
		i++;
	add(&histogram->buckets[i], 1);
	int64_t sum = atomic_load_explicit(&histogram->sum, memory_order_relaxed);
	atomic_store_explicit(&histogram->sum, sum + value, memory_order_relaxed);
}

uint64_t
metric_value(Metric metric)
{
	uint64_t sum = 0;
	for (const Block *b = atomic_load(&blocks); b != NULL; b = b->next)
		sum += atomic_load_explicit(&b->counters[metric], memory_order_relaxed);
	return sum;
}

/* ---- printing ---- */

static void
print_head(GString *out, const char *name, const char *type, const char *help)
{
	if (help != NULL)
		g_string_append_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void
print_labels(GString *out, const char *labels, const char *bound)
{
	bool some = labels[0] != '\0';
	if (!some && bound == NULL)
		return;
	g_string_append_printf(out, "{%s", labels);
	if (bound != NULL)
		g_string_append_printf(out, "%sle=\"%s\"", some ? "," : "", bound);
	g_string_append_c(out, '}');
}

static void
print_number(GString *out, double value)
{
	char text[G_ASCII_DTOSTR_BUF_SIZE];
	g_string_append_printf(out, " %s\n", g_ascii_formatd(text, sizeof(text), "%.15g", value));
}

void
metrics_print_one(GString *out, const char *name, const char *labels, const char *type,
		  const char *help, double value)
{
	if (type != NULL)
		print_head(out, name, type, help);
	g_string_append(out, name);
	print_labels(out, labels, NULL);
	print_number(out, value);
}

static void
print_histogram(GString *out, MetricHistogram which)
{
	const Info *info = &HISTOGRAM_INFO[which];
	bool seconds = info->bounds == SECONDS;
	uint64_t counts[BUCKETS + 1] = {0}, total = 0;
	double sum = 0, scale = seconds ? (double)USEC_PER_SEC : 1.0;
	for (const Block *b = atomic_load(&blocks); b != NULL; b = b->next) {
		const Histogram *from = &b->histograms[which];
		for (int i = 0; i <= BUCKETS; i++)
			counts[i] += atomic_load_explicit(&from->buckets[i], memory_order_relaxed);
		sum += (double)atomic_load_explicit(&from->sum, memory_order_relaxed);
	}
	print_head(out, info->name, "histogram", info->help);
	for (int i = 0; i <= BUCKETS; i++) {
		char bound[G_ASCII_DTOSTR_BUF_SIZE] = "+Inf";
		if (i < BUCKETS)
			g_ascii_formatd(bound, sizeof(bound), "%.15g",
					(double)info->bounds[i] / scale);
		total += counts[i];
		g_string_append_printf(out, "%s_bucket", info->name);
		print_labels(out, info->labels, bound);
		print_number(out, (double)total);
	}
	g_string_append_printf(out, "%s_sum", info->name);
	print_labels(out, info->labels, NULL);
	print_number(out, sum / scale);
	g_string_append_printf(out, "%s_count", info->name);
	print_labels(out, info->labels, NULL);
	print_number(out, (double)total);
}

void
metrics_print(GString *out)
{
	for (int i = 0; i < METRICS; i++)
		metrics_print_one(out, COUNTERS[i].name, COUNTERS[i].labels,
				  COUNTERS[i].help != NULL ? "counter" : NULL, COUNTERS[i].help,
				  (double)metric_value((Metric)i));
	for (int i = 0; i < HISTOGRAMS; i++)
		print_histogram(out, (MetricHistogram)i);
}
