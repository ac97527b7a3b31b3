/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Stands between a store and its server, and cuts the line where it hurts.  A thread of its own. */
#include <stdbool.h>

typedef enum CutMode {
	CUT_NONE,
	CUT_BEFORE_COMMIT, /* the server never sees it */
	CUT_AFTER_COMMIT,  /* the server gets it, its answer gets lost */
	CUT_FOR_LONG,      /* the same, and nobody gets through until pg_proxy_refuse(false) */
	HOLD_CLAIM,        /* from the lease of a claim on nothing passes on that line */
} CutMode;

typedef struct PgProxy PgProxy;

/* Listens on the socket that port 5433 in `dir` means, forwards to 5432. */
PgProxy *pg_proxy_start(const char *dir);
/* The next `times` groups that commit, or claims, meet that. */
void pg_proxy_cut(PgProxy *proxy, CutMode mode, unsigned times);
unsigned pg_proxy_cuts(PgProxy *proxy); /* how many there were */
/* All lines are cut, new ones refused. */
void pg_proxy_refuse(PgProxy *proxy, bool refuse);
void pg_proxy_stop(PgProxy *proxy);
