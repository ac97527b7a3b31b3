/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How many attempts run towards each destination, so that one that hangs cannot take the places of
 * all others.  Two kinds are counted apart: attempts taken from the queue, which are limited by
 * `limit`, and those that began with the submission.
 *
 * The limit holds exactly although rows are claimed in groups: a destination counts as busy as long
 * as a further group of destinations_slice() rows would pass the limit.
 *
 * Owner: the Router.  Any thread. */
#include <glib.h>
#include <stdbool.h>

typedef struct Destinations Destinations;

typedef enum DestinationKind {
	DESTINATION_QUEUED, /* claimed from the store */
	DESTINATION_FRESH,  /* tried at once */
	DESTINATION_KINDS
} DestinationKind;

Destinations *destinations_new(unsigned limit); /* at least 1 */
void destinations_free(Destinations *all);      /* NULL is fine */

/* `name` NULL counts as "". */
void destinations_enter(Destinations *all, const char *name, DestinationKind kind);
/* True when the destination was busy for the queue and is not any more. */
bool destinations_leave(Destinations *all, const char *name, DestinationKind kind);
unsigned destinations_count(Destinations *all, const char *name, DestinationKind kind);

/* Rows of one destination that one claim may take. */
unsigned destinations_slice(const Destinations *all);
/* Names (char*, owned by the array) that take no further slice now; NULL when there are none. */
GPtrArray *destinations_busy(Destinations *all);
