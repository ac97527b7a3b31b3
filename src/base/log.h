/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Structured log lines on standard error: `time level event key=value ...` (logfmt) or one JSON
 * object a line.  Values that came from peers are escaped and capped here, never by the caller.
 * Any thread; a line is written in one piece, at once or with others of its thread. */
#include <stdbool.h>
#include <stdint.h>

typedef enum LogLevel {
	LOG_DEBUG, /* dialogue details */
	LOG_INFO,  /* what an operator wants to read: a line per session and per transaction end */
	LOG_WARN,  /* something is wrong with a peer or a configuration */
	LOG_ERROR, /* something is wrong here */
	LOG_LEVELS
} LogLevel;

typedef enum LogFormat { LOG_LOGFMT, LOG_JSON, LOG_FORMATS } LogFormat;

/* The ids that each line about an object carries; NULL members are left out.  Borrowed. */
typedef struct LogCtx {
	const char *session; /* connection */
	const char *tx;      /* transaction */
} LogCtx;

typedef enum LogType {
	LOG_TYPE_END,
	LOG_TYPE_STR,
	LOG_TYPE_INT,
	LOG_TYPE_USEC,
	LOG_TYPE_BOOL
} LogType;
typedef struct LogField {
	LogType type;
	const char *key;
	const char *str;
	int64_t num;
} LogField;

#define LOG_VALUE_MAX 512 /* bytes of one value; more is cut and ends in "..." */

/* NULL strings are printed as an empty value. */
#define LOG_S(key, value) ((LogField){LOG_TYPE_STR, (key), (value), 0})
#define LOG_I(key, value) ((LogField){LOG_TYPE_INT, (key), 0, (int64_t)(value)})
#define LOG_T(key, usec)  ((LogField){LOG_TYPE_USEC, (key), 0, (usec)}) /* printed as seconds */
#define LOG_B(key, value) ((LogField){LOG_TYPE_BOOL, (key), 0, (value) ? 1 : 0})

void log_set(LogLevel least, LogFormat format);
bool log_parse_level(const char *name, LogLevel *ret_level);
bool log_enabled(LogLevel level);
/* `fields` ends with a LOG_TYPE_END entry; `ctx` may be NULL. */
void log_emit(LogLevel level, const LogCtx *ctx, const char *event, const LogField *fields);

/* From now on lines of this thread below LOG_WARN are kept, some KiB of them at most, until
 * log_flush or a line that is not kept, so that several leave in one write. */
void log_hold(void);
void log_flush(void); /* writes what was kept */

#define log_at(level, ctx, event, ...)                                                             \
	do {                                                                                       \
		if (log_enabled(level))                                                            \
			log_emit((level), (ctx), (event),                                          \
				 (const LogField[]){__VA_ARGS__ __VA_OPT__(, ){0}});               \
	} while (0)
#define log_debug(ctx, event, ...) log_at(LOG_DEBUG, ctx, event, __VA_ARGS__)
#define log_info(ctx, event, ...)  log_at(LOG_INFO, ctx, event, __VA_ARGS__)
#define log_warn(ctx, event, ...)  log_at(LOG_WARN, ctx, event, __VA_ARGS__)
#define log_error(ctx, event, ...) log_at(LOG_ERROR, ctx, event, __VA_ARGS__)
