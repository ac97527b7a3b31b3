/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Names of transactions and sessions.  A transaction id is URL-safe, carries at least 128 random
 * bits from the kernel, whatever `rest_id_entropy` says, and tells which worker owns it: its
 * first two characters are the worker's index in base64url digits.  Six more are the time, so that
 * a database finds the ids of new rows side by side in its index: 200 rows that are stored together
 * touch some pages of it, not 200.  Any thread. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IDS_WORKERS_MAX 4096
#define IDS_ENTROPY_MIN 16 /* bytes */
#define IDS_ENTROPY_MAX 64
#define IDS_TX_MAX      104 /* longest transaction id, with the terminator */

/* `entropy` in bytes is raised to IDS_ENTROPY_MIN and cut to IDS_ENTROPY_MAX.  Caller frees. */
char *ids_tx_new(unsigned worker, unsigned entropy);
/* Which worker (index taken modulo `workers`) owns a transaction; any text is answered, so that
 * unknown ids are looked up, and refused, in one place. */
unsigned ids_tx_worker(const char *id, unsigned workers);
bool ids_tx_is_valid(const char *id); /* characters and length, nothing else */
/* Short id of a connection for log lines, unique in this process: at least 16 bytes. */
#define IDS_SESSION_MAX 24
void ids_session(char out[IDS_SESSION_MAX]);
/* Fills with random bytes from the kernel; asserts that they come. */
void ids_random(void *out, size_t len);
uint64_t ids_random_below(uint64_t bound); /* uniform in 0..bound-1 */
