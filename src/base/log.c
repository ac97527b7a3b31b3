/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <glib.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

#define LINE_MAX_BYTES 16384
#define LINE_TAIL      32       /* kept free for "truncated" and the end of the line */
#define HELD_MAX       PIPE_BUF /* so much enters a pipe in one piece */

static const char *const level_names[] = {"debug", "info", "warn", "error"};
_Static_assert(G_N_ELEMENTS(level_names) == LOG_LEVELS, "one name a level");

static atomic_int least_level = LOG_INFO;
static atomic_int line_format = LOG_LOGFMT;

/* Lines that a thread keeps back until log_flush. */
typedef struct Held {
	bool on;
	size_t len;
	char text[HELD_MAX];
} Held;

static __thread Held held;

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

/* What the bytes of a value ask for, as bits. */
#define NEEDS_QUOTES (1U << 0) /* in logfmt */
#define NEEDS_CARE   (1U << 1) /* an escape, in either format */

static const uint8_t needs_of[256] = {
	[0 ... 0x1f] = NEEDS_CARE, [' '] = NEEDS_QUOTES, ['='] = NEEDS_QUOTES,
	['"'] = NEEDS_CARE,        ['\\'] = NEEDS_CARE,  [0x7f ... 0xff] = NEEDS_CARE,
};

static unsigned
needs_of_text(const char *text, size_t len)
{
	unsigned needs = len == 0 ? NEEDS_QUOTES : 0;
	for (size_t i = 0; i < len; i++)
		needs |= needs_of[(unsigned char)text[i]];
	return needs;
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

/* A value that is not plain ASCII or too long. */
static void
line_add_escaped(Line *line, const char *value, size_t len)
{
	g_autofree char *shown = text_escape(value, len, LOG_VALUE_MAX);
	/* a byte above ASCII that is left by now is valid UTF-8 */
	bool bare = !line->json && strpbrk(shown, " =\"\\") == NULL;
	if (bare)
		line_add_str(line, shown);
	else
		line_add_quoted(line, shown);
}

static void
line_add_value(Line *line, const char *value)
{
	if (value == NULL)
		value = "";
	/* One byte more than fits tells text_escape to write the dots. */
	size_t len = strnlen(value, LOG_VALUE_MAX + 1);
	unsigned needs = needs_of_text(value, len);
	if ((needs & NEEDS_CARE) != 0 || len > LOG_VALUE_MAX) {
		line_add_escaped(line, value, len);
		return;
	}
	bool quotes = line->json || (needs & NEEDS_QUOTES) != 0;
	if (quotes)
		line_add(line, "\"", 1);
	line_add(line, value, len);
	if (quotes)
		line_add(line, "\"", 1);
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

/* Decimal, with leading zeros up to `width` digits. */
static void
line_add_decimal(Line *line, uint64_t value, unsigned width)
{
	char text[20]; /* digits of UINT64_MAX */
	size_t at = sizeof(text);
	unsigned digits = 0;
	do {
		text[--at] = (char)('0' + value % 10);
		value /= 10;
		digits++;
	} while (value > 0 || digits < width);
	line_add(line, text + at, sizeof(text) - at);
}

static void
line_add_number(Line *line, const LogField *field)
{
	uint64_t value = field->num < 0 ? -(uint64_t)field->num : (uint64_t)field->num;
	if (field->num < 0)
		line_add(line, "-", 1);
	if (field->type == LOG_TYPE_USEC) {
		line_add_decimal(line, value / USEC_PER_SEC, 1);
		line_add(line, ".", 1);
		line_add_decimal(line, value % USEC_PER_SEC, 6);
	} else {
		line_add_decimal(line, value, 1);
	}
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
write_text(const char *text, size_t len)
{
	size_t done = 0;
	while (done < len) {
		ssize_t put = write(STDERR_FILENO, text + done, len - done);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return; /* a log that cannot be written has nobody to tell */
		done += (size_t)put;
	}
}

static void
write_held(void)
{
	size_t len = held.len;
	held.len = 0;
	if (len > 0)
		write_text(held.text, len);
}

void
log_hold(void)
{
	held.on = true;
}

void
log_flush(void)
{
	int saved = errno;
	write_held();
	errno = saved;
}

static void
line_write(const Line *line, LogLevel level)
{
	bool keep = held.on && level < LOG_WARN && line->len <= HELD_MAX;
	if (!keep || held.len + line->len > HELD_MAX)
		write_held();
	if (!keep) {
		write_text(line->text, line->len);
		return;
	}
	memcpy(held.text + held.len, line->text, line->len);
	held.len += line->len;
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
	line_write(&line, level);
	errno = saved;
}
