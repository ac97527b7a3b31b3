/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Starting a thread the way every thread of ours is started.  For loop/ and store/. */
#include <pthread.h>

/* Starts `run` under `name` (at most 15 bytes) with all signals blocked but those that a fault
 * of the thread itself raises: signals are for main.  Returns 0 or an errno value. */
int thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *), void *arg);
