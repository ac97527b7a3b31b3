/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/queue_table.h"

#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/text.h"

#define CELL_MAX 48 /* bytes of one value in a list */
#define COLUMNS  8

/* ---- ages ---- */

static const struct {
	char unit;
	int64_t seconds;
} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};

bool
queue_parse_age(const char *text, int64_t *ret_seconds)
{
	size_t len = strlen(text);
	int64_t factor = 1;
	for (size_t i = 0; i < G_N_ELEMENTS(units) && len > 0; i++) {
		if (text[len - 1] == units[i].unit) {
			factor = units[i].seconds;
			len--;
			break;
		}
	}
	uint64_t value = 0;
	if (!text_parse_u64(text, len, (uint64_t)(INT64_C(3155760000) / factor), &value))
		return false;
	*ret_seconds = (int64_t)value * factor;
	return true;
}

char *
queue_format_age(int64_t seconds)
{
	for (size_t i = G_N_ELEMENTS(units); i > 1; i--) {
		if (seconds >= 2 * units[i - 1].seconds)
			return g_strdup_printf("%" G_GINT64_FORMAT "%c",
					       seconds / units[i - 1].seconds, units[i - 1].unit);
	}
	return g_strdup_printf("%" G_GINT64_FORMAT "s", MAX(seconds, 0));
}

/* ---- cells ---- */

/* Peers' text in a terminal: printable, and bounded when `max` says so. */
static char *
cell(const json_t *object, const char *key, size_t max)
{
	const char *text = json_get_str(object, key);
	return text != NULL ? text_escape(text, strlen(text), max) : g_strdup("-");
}

static char *
number_cell(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	return json_is_integer(value)
		       ? g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value))
		       : g_strdup("-");
}

static char *
age_cell(const json_t *object, const char *key, int64_t now)
{
	const json_t *value = json_object_get(object, key);
	return json_is_integer(value) ? queue_format_age(now - json_integer_value(value))
				      : g_strdup("-");
}

/* "now", "in 5m", or "-" when none is planned. */
static char *
next_cell(const json_t *row, int64_t now)
{
	const json_t *value = json_object_get(row, "next_attempt");
	if (g_strcmp0(json_get_str(row, "state"), "queued") != 0)
		return g_strdup("-");
	if (!json_is_integer(value) || json_integer_value(value) <= now)
		return g_strdup("now");
	g_autofree char *age = queue_format_age(json_integer_value(value) - now);
	return g_strconcat("in ", age, NULL);
}

/* ---- tables ---- */

typedef char *Line[COLUMNS];

static void
line_clear(void *data)
{
	char **line = data;
	for (size_t i = 0; i < COLUMNS; i++)
		g_free(line[i]);
}

static GArray *
table_new(const char *const heads[COLUMNS])
{
	GArray *table = g_array_new(FALSE, TRUE, sizeof(Line));
	g_array_set_clear_func(table, line_clear);
	Line line = {NULL};
	for (size_t i = 0; i < COLUMNS; i++)
		line[i] = g_strdup(heads[i]);
	g_array_append_val(table, line);
	return table;
}

static void
table_print(FILE *out, GArray *table)
{
	size_t widths[COLUMNS] = {0};
	for (guint k = 0; k < table->len; k++) {
		char **line = (char **)&g_array_index(table, Line, k);
		for (size_t i = 0; i < COLUMNS && line[i] != NULL; i++)
			widths[i] = MAX(widths[i], strlen(line[i]));
	}
	for (guint k = 0; k < table->len; k++) {
		char **line = (char **)&g_array_index(table, Line, k);
		for (size_t i = 0; i < COLUMNS && line[i] != NULL; i++) {
			bool last = i + 1 == COLUMNS || line[i + 1] == NULL;
			if (last)
				fprintf(out, "%s\n", line[i]);
			else
				fprintf(out, "%-*s  ", (int)widths[i], line[i]);
		}
	}
	g_array_unref(table);
}

void
queue_table_rows(FILE *out, const json_t *rows)
{
	static const char *const heads[COLUMNS] = {"ID",   "STATE", "AGE", "TRIES",
						   "NEXT", "FROM",  "TO",  "REASON"};
	int64_t now = clock_wall_sec();
	GArray *table = table_new(heads);
	for (size_t i = 0; i < json_array_size(rows); i++) {
		const json_t *row = json_array_get(rows, i);
		const char *reason = json_is_string(json_object_get(row, "held_reason"))
					     ? "held_reason"
					     : "final_reason";
		Line line = {cell(row, "id", 200),          cell(row, "state", CELL_MAX),
			     age_cell(row, "created", now), number_cell(row, "attempts"),
			     next_cell(row, now),           cell(row, "from", CELL_MAX),
			     cell(row, "to", CELL_MAX),     cell(row, reason, CELL_MAX)};
		g_array_append_val(table, line);
	}
	table_print(out, table);
}

static void
print_response(FILE *out, const char *what, const json_t *response)
{
	const char *message = json_get_str(response, "message");
	if (!json_is_object(response))
		return;
	g_autofree char *text = message != NULL ? text_escape(message, strlen(message), 1000)
						: g_strdup("");
	fprintf(out, "  %-5s %" JSON_INTEGER_FORMAT " %s\n", what,
		json_integer_value(json_object_get(response, "code")), text);
}

static void
print_responses(FILE *out, const json_t *responses)
{
	if (!json_is_object(responses))
		return;
	fputs("answers of the newest attempt:\n", out);
	print_response(out, "MAIL", json_object_get(responses, "mail_response"));
	const json_t *rcpts = json_object_get(responses, "rcpt_response");
	for (size_t i = 0; i < json_array_size(rcpts); i++)
		print_response(out, "RCPT", json_array_get(rcpts, i));
	print_response(out, "DATA", json_object_get(responses, "data_response"));
}

static void
print_former(FILE *out, const json_t *former, int64_t now)
{
	if (json_array_size(former) == 0)
		return;
	fputs("attempts before:\n", out);
	for (size_t i = 0; i < json_array_size(former); i++) {
		const json_t *entry = json_array_get(former, i);
		g_autofree char *number = number_cell(entry, "attempt");
		g_autofree char *age = age_cell(entry, "ended", now);
		g_autofree char *code = number_cell(entry, "code");
		g_autofree char *text = cell(entry, "message", 1000);
		fprintf(out, "  %-5s %s ago: %s %s\n", number, age, code, text);
	}
}

void
queue_table_row(FILE *out, const json_t *row)
{
	static const char *const texts[] = {"id",           "state",  "from",        "to",
					    "destination",  "sender", "tag",         "held_reason",
					    "final_reason", "owner",  "last_attempt"};
	int64_t now = clock_wall_sec();
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
		g_autofree char *text = cell(row, texts[i], 1000);
		fprintf(out, "%-13s %s\n", texts[i], text);
	}
	g_autofree char *created = age_cell(row, "created", now);
	g_autofree char *updated = age_cell(row, "updated", now);
	g_autofree char *next = next_cell(row, now);
	g_autofree char *attempts = number_cell(row, "attempts");
	g_autofree char *crashes = number_cell(row, "crashes");
	fprintf(out, "%-13s %s ago\n%-13s %s ago\n%-13s %s\n%-13s %s\n%-13s %s\n", "created",
		created, "updated", updated, "attempts", attempts, "crashes", crashes,
		"next_attempt", next);
	print_responses(out, json_object_get(row, "responses"));
	print_former(out, json_object_get(row, "former_attempts"), now);
}

static void
stats_line(GArray *table, const char *name, const json_t *counts)
{
	const json_t *age = json_object_get(counts, "oldest_age");
	Line line = {text_escape(name, strlen(name), CELL_MAX),
		     number_cell(counts, "queued"),
		     number_cell(counts, "leased"),
		     number_cell(counts, "held"),
		     number_cell(counts, "final"),
		     number_cell(counts, "active"),
		     json_is_integer(age) ? queue_format_age(json_integer_value(age))
					  : g_strdup("-")};
	g_array_append_val(table, line);
}

void
queue_table_stats(FILE *out, const json_t *stats)
{
	static const char *const heads[COLUMNS] = {"DESTINATION", "QUEUED", "LEASED", "HELD",
						   "FINAL",       "ACTIVE", "OLDEST"};
	GArray *table = table_new(heads);
	stats_line(table, "(all)", stats);
	const json_t *list = json_object_get(stats, "destinations");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *counts = json_array_get(list, i);
		const char *name = json_get_str(counts, "destination");
		stats_line(table, name != NULL ? name : "-", counts);
	}
	table_print(out, table);
}
