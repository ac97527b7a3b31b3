/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* From YAML maps to structs by tables.  A key is one row: name, type, default, range, unit, doc,
 * offset; the row feeds the parser, the range check, the nearest-key hint and the reference
 * (`koukan config doc`).  All problems of a file are collected in a ConfReport, each with
 * file:line:column; unknown keys are warnings, the rest errors.  One thread. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/net.h"
#include "conf/yaml.h"

/* ---- problems ---- */

typedef enum ConfSeverity { CONF_WARNING, CONF_ERROR } ConfSeverity;
typedef struct ConfProblem {
	ConfSeverity severity;
	char *where; /* "FILE:LINE:COLUMN" */
	char *text;
	unsigned line, column; /* 0: no place */
} ConfProblem;
typedef struct ConfReport {
	GPtrArray *problems; /* ConfProblem*, as found; in file order after conf_report_sort */
	unsigned errors;
	char *fallback; /* place of problems without a node, usually the file's name; may be NULL */
} ConfReport;

ConfReport *conf_report_new(void);
void conf_report_free(ConfReport *report);
/* By line and column; problems of one place stay in the order in which they were found. */
void conf_report_sort(ConfReport *report);
/* Moves all problems of `from` to the end of `to`; with `demote` errors become warnings. */
void conf_report_move(ConfReport *to, ConfReport *from, bool demote);
/* One line each, "FILE:LINE:COLUMN: error|warning: text". */
void conf_report_format(const ConfReport *report, GString *out);
/* `node` may be NULL when there is no place; then the report's fallback is the place. */
void conf_error(ConfReport *report, const YamlNode *node, const char *format, ...) K_PRINTF(3, 4);
void conf_warning(ConfReport *report, const YamlNode *node, const char *format, ...) K_PRINTF(3, 4);
/* `message` as yaml_load_* gives it: "NAME:LINE:COLUMN: text" or "NAME: text". */
void conf_error_placed(ConfReport *report, const char *name, const char *message);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ConfReport, conf_report_free)

/* ---- key tables ---- */

typedef enum ConfType {
	CONF_BOOL,      /* bool */
	CONF_INT,       /* int64_t */
	CONF_SECONDS,   /* YAML: number of seconds; Usec */
	CONF_SIZE,      /* YAML: bytes, or with suffix k/M/G (1024); uint64_t as int64_t */
	CONF_DOUBLE,    /* double */
	CONF_STRING,    /* char *, owned; also takes numbers and booleans as written */
	CONF_ENUM,      /* int, index into `names` */
	CONF_STRINGS,   /* GPtrArray * of char *; null and absent give an empty array */
	CONF_ADDR,      /* YAML [host, port]; HostPort * */
	CONF_HOSTPORT,  /* YAML {host: h, port: p}; HostPort * */
	CONF_HOSTPORTS, /* GPtrArray * of HostPort * from a list of such maps */
	CONF_NODE, /* const YamlNode *: read by code; borrowed from the document.  NULL when the key
		      is absent, a YAML_NULL node for "key:" without a value */
	CONF_IGNORED, /* accepted without a word and without effect */
	CONF_SECTION, /* a list or map with a table of its own, which code reads; no member here */
	CONF_VERIFY,  /* yes, no or the path of a CA file; char *: NULL, "" or the path */
	CONF_SECRET,  /* the path of a file; char *: its first line, 1 to 1000 bytes */
	CONF_TYPES
} ConfType;

#define CONF_REQUIRED  (1u << 0)
#define CONF_NULL_OK   (1u << 1) /* BOOL: `key:` without value means absent, as with other types */
#define CONF_UNLIMITED (1u << 2) /* CONF_INT, CONF_SECONDS: null means -1 (no limit) */

typedef struct ConfKey {
	const char *name; /* NULL ends the table */
	ConfType type;
	size_t offset;
	const char *def;          /* default as YAML would write it (CONF_ADDR: "host:port"); NULL:
				     zero/NULL/false.  Lists have none. */
	double min, max;          /* for numbers (in YAML's unit); both 0: no range */
	const char *const *names; /* CONF_ENUM: NULL-terminated */
	unsigned flags;
	const char *doc; /* one sentence; units named */
} ConfKey;

#define CONF_KEY(type_, member_) offsetof(type_, member_)

/* Fills `out` (zeroed by the caller) from `map` by `keys`: defaults first, then what the map says.
 * A map that is YAML_NULL gives the defaults; another kind is an error.  `extra` (may be NULL):
 * names that are known to somebody else and not to be warned about.  True when no error was added.
 */
bool conf_fill(void *out, const ConfKey *keys, const YamlNode *map, const char *const *extra,
	       ConfReport *report);
/* Frees what conf_fill allocated. */
void conf_clear(void *out, const ConfKey *keys);
/* Names the nearest known key in the warning. */
void conf_warn_unknown(ConfReport *report, const YamlNode *key, const ConfKey *keys);
const char *conf_type_name(ConfType type);
/* One {host: h, port: p} map; NULL after an error was reported.  Port 25 when it is absent. */
HostPort *conf_read_hostport(const YamlNode *node, ConfReport *report);
/* One section of the reference, Markdown: a table with key, type, default, range, meaning. */
void conf_doc(GString *out, const char *title, const char *intro, const ConfKey *keys);
