/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A worker: one thread, one event loop.  Whatever belongs to a session, its chain and its
 * transaction lives on one worker and is touched by its thread alone; other threads post.
 * Each loop turn: I/O and timer callbacks, then the inbox, then deferred work, then the reap
 * list.  Owner: the Workers set, itself owned by main. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/defer.h"

struct event_base;

typedef struct Worker Worker;
typedef struct Workers Workers;
typedef void WorkerFn(void *arg);

/* `count` 1..IDS_WORKERS_MAX; 0 means the number of cores.  Nothing runs yet. */
K_MUST_CHECK Workers *workers_new(unsigned count, GError **ret_error);
/* Starts the threads.  Before it, the objects of each worker may be set up by the caller. */
K_MUST_CHECK bool workers_start(Workers *workers, GError **ret_error);
/* Asks every loop to end after its turn, and joins.  Idempotent. */
void workers_stop(Workers *workers);
/* After workers_stop (or when never started), on the caller's thread, as if each worker still ran:
 * runs what is in inboxes, deferred queues and reap lists until all are empty.  Before the objects
 * are freed that the posted work is about. */
void workers_settle(Workers *workers);
/* After workers_stop (or when never started): runs what is left in inboxes, deferred queues and
 * reap lists on the caller's thread, as if each worker still ran, then frees.  NULL is fine. */
void workers_free(Workers *workers);
unsigned workers_count(const Workers *workers);
Worker *workers_get(Workers *workers, unsigned index);

/* The worker of this thread; NULL on other threads. */
Worker *worker_current(void);
unsigned worker_index(const Worker *worker);
Workers *worker_set(Worker *worker);
/* Only http/ and loop/ may use it. */
struct event_base *worker_base(Worker *worker);
/* The queue that transactions and others defer to; drained each turn. */
DeferQueue *worker_defers(Worker *worker);

/* Any thread: runs fn(arg) on the worker, in order of posting, never inside this call.  Never
 * blocks on the worker.  What is posted to a stopped worker runs in workers_free. */
void worker_post(Worker *worker, WorkerFn *fn, void *arg);
/* Own worker only: calls free_fn(object) when the loop turn ends (style: nobody is freed inside
 * their own callback). */
void worker_reap(Worker *worker, void *object, WorkerFn *free_fn);

/* True on the worker's own thread, and while its loop does not run (set-up, tear-down). */
bool worker_is_here(const Worker *worker);
#define k_assert_on(worker) k_assert(worker_is_here(worker))

/* Tests only, while no thread runs: one turn of the loop on the caller's thread, waiting at most
 * `wait` for something to happen. */
void worker_test_turn(Worker *worker, Usec wait);

/* ---- timers: loop/timer.c ---- */

typedef struct Timer Timer;
typedef void TimerFn(void *arg);
struct Timer {
	Worker *worker;
	TimerFn *fn;
	void *arg;
	struct event *event; /* made at the first timer_set */
	Deadline at;         /* 0 = not set */
	Deadline armed;      /* when the event fires, at or before `at`; 0 = it sleeps */
};

void timer_init(Timer *timer, Worker *worker, TimerFn *fn, void *arg);
/* (Re)arms; fires once, not before `span` has passed.  A span of 0 fires in the next turn. */
void timer_set(Timer *timer, Usec span);
void timer_set_at(Timer *timer, Deadline deadline); /* 0 cancels */
void timer_cancel(Timer *timer);
bool timer_is_set(const Timer *timer);
void timer_clear(Timer *timer); /* cancels and frees; may be called in its own callback */
