/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

#define LINE_MAX_BYTES 16384
#define LINE_TAIL      32 /* kept free for "truncated" and the end of the line */

static const char *const level_names[] = {"debug", "info", "warn", "error"};
_Static_assert(G_N_ELEMENTS(level_names) == LOG_LEVELS, "one name a level");

static atomic_int least_level = LOG_INFO;
static atomic_int line_format = LOG_LOGFMT;

/* A line under construction, on the stack of its thread. */
typedef struct Line {
	bool json;
	bool full; /* something did not fit */
	size_t len;
	char text[LINE_MAX_BYTES];
} Line;

void
log_set(LogLevel least, LogFormat format)
{
	atomic_store(&least_level, (int)least);
	atomic_store(&line_format, (int)format);
}

bool
log_parse_level(const char *name, LogLevel *ret_level)
{
	for (int i = 0; i < LOG_LEVELS; i++) {
		if (text_equal_nocase(name, level_names[i])) {
			*ret_level = (LogLevel)i;
			return true;
		}
	}
	if (text_equal_nocase(name, "warning")) {
		*ret_level = LOG_WARN;
		return true;
	}
	return false;
}

bool
log_enabled(LogLevel level)
{
	return (int)level >= atomic_load_explicit(&least_level, memory_order_relaxed);
}

static void
line_add(Line *line, const char *text, size_t len)
{
	if (len > LINE_MAX_BYTES - LINE_TAIL - line->len) {
		line->full = true;
		return;
	}
	memcpy(line->text + line->len, text, len);
	line->len += len;
}

static void
line_add_str(Line *line, const char *text)
{
	line_add(line, text, strlen(text));
}

/* Whether a value stands in logfmt without quotes. */
static bool
is_bare(const char *text)
{
	if (text[0] == '\0')
		return false;
	for (; *text != '\0'; text++)
		if ((unsigned char)*text <= 0x20 || strchr("\"=\\", *text) != NULL)
			return false;
	return true;
}

/* `text` is escaped already (valid UTF-8, no control characters), so only the quote and the
 * backslash are special in both formats. */
static void
line_add_quoted(Line *line, const char *text)
{
	line_add(line, "\"", 1);
	while (*text != '\0') {
		size_t plain = strcspn(text, "\"\\");
		line_add(line, text, plain);
		text += plain;
		if (*text != '\0') {
			char pair[2] = {'\\', *text++};
			line_add(line, pair, 2);
		}
	}
	line_add(line, "\"", 1);
}

static void
line_add_value(Line *line, const char *value)
{
	if (value == NULL)
		value = "";
	/* One byte more than fits tells text_escape to write the dots. */
	g_autofree char *shown = text_escape(value, strnlen(value, LOG_VALUE_MAX + 1),
					     LOG_VALUE_MAX);
	if (!line->json && is_bare(shown))
		line_add_str(line, shown);
	else
		line_add_quoted(line, shown);
}

static void
line_add_key(Line *line, const char *key)
{
	if (line->json) {
		line_add(line, ",\"", 2);
		line_add_str(line, key);
		line_add(line, "\":", 2);
	} else {
		line_add(line, " ", 1);
		line_add_str(line, key);
		line_add(line, "=", 1);
	}
}

static void
line_add_number(Line *line, const LogField *field)
{
	char text[48];
	if (field->type == LOG_TYPE_USEC) {
		uint64_t usec = field->num < 0 ? -(uint64_t)field->num : (uint64_t)field->num;
		(void)snprintf(text, sizeof(text), "%s%" PRIu64 ".%06" PRIu64,
			       field->num < 0 ? "-" : "", usec / USEC_PER_SEC, usec % USEC_PER_SEC);
	} else {
		(void)snprintf(text, sizeof(text), "%" PRId64, field->num);
	}
	line_add_str(line, text);
}

/* A field is on the line as a whole or not at all. */
static void
line_add_field(Line *line, const LogField *field)
{
	size_t start = line->len;
	line_add_key(line, field->key);
	switch (field->type) {
	case LOG_TYPE_STR:
		line_add_value(line, field->str);
		break;
	case LOG_TYPE_BOOL:
		line_add_str(line, field->num != 0 ? "true" : "false");
		break;
	case LOG_TYPE_INT:
	case LOG_TYPE_USEC:
	case LOG_TYPE_END:
		line_add_number(line, field);
		break;
	}
	if (line->full)
		line->len = start;
}

static void
line_begin(Line *line, LogLevel level, const char *event)
{
	char time[CLOCK_DATE_MAX];
	clock_format_iso(clock_wall(), time);
	line_add_str(line, line->json ? "{\"time\":\"" : "");
	line_add_str(line, time);
	line_add_str(line, line->json ? "\",\"level\":\"" : " ");
	line_add_str(line, level_names[level]);
	line_add_str(line, line->json ? "\",\"event\":" : " ");
	line_add_value(line, event);
}

static void
line_end(Line *line)
{
	const char *tail = line->json ? (line->full ? ",\"truncated\":true}\n" : "}\n")
				      : (line->full ? " truncated=true\n" : "\n");
	size_t len = strlen(tail);
	memcpy(line->text + line->len, tail, len); /* fits into LINE_TAIL */
	line->len += len;
}

static void
line_write(const Line *line)
{
	size_t done = 0;
	while (done < line->len) {
		ssize_t put = write(STDERR_FILENO, line->text + done, line->len - done);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return; /* a log that cannot be written has nobody to tell */
		done += (size_t)put;
	}
}

void
log_emit(LogLevel level, const LogCtx *ctx, const char *event, const LogField *fields)
{
	if (!log_enabled(level))
		return;
	int saved = errno;
	Line line; /* not zeroed: 16 KiB */
	line.json = atomic_load(&line_format) == LOG_JSON;
	line.full = false;
	line.len = 0;
	line_begin(&line, level, event);
	if (ctx != NULL && ctx->session != NULL)
		line_add_field(&line, &LOG_S("session", ctx->session));
	if (ctx != NULL && ctx->tx != NULL)
		line_add_field(&line, &LOG_S("tx", ctx->tx));
	for (; fields->type != LOG_TYPE_END && !line.full; fields++)
		line_add_field(&line, fields);
	line_end(&line);
	line_write(&line);
	errno = saved;
}
