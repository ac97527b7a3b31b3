/* SPDX-License-Identifier: Apache-2.0 */
#include <event2/event.h>

#include "loop/worker.h"

/* Most timers are set, moved and cancelled many times and never fire.  So moving one later or
 * cancelling it only writes `at`; the event stays where it is, finds out when it fires that it
 * is early or not wanted, and goes back to sleep.  The same check keeps the promise "not
 * before": the clock of the event loop is coarse and runs some milliseconds behind. */

void
timer_init(Timer *timer, Worker *worker, TimerFn *fn, void *arg)
{
	*timer = (Timer){.worker = worker, .fn = fn, .arg = arg};
}

static void
timer_arm(Timer *timer)
{
	Usec left = clock_left(timer->at);
	/* The loop cannot wait for ever in one go; a day later it looks again. */
	if (left > INT64_C(86400) * USEC_PER_SEC)
		left = INT64_C(86400) * USEC_PER_SEC;
	struct timeval span = {.tv_sec = left / USEC_PER_SEC, .tv_usec = left % USEC_PER_SEC};
	k_assert(event_add(timer->event, &span) == 0);
	timer->armed = timer->at;
}

static void
on_fire(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	Timer *timer = arg;
	timer->armed = 0;
	if (timer->at == 0)
		return;
	if (!clock_passed(timer->at)) {
		timer_arm(timer);
		return;
	}
	timer->at = 0;
	timer->fn(timer->arg); /* may free the timer */
}

void
timer_set_at(Timer *timer, Deadline deadline)
{
	k_assert_on(timer->worker);
	timer->at = deadline;
	if (deadline == 0 || (timer->armed != 0 && timer->armed <= deadline))
		return;
	if (timer->event == NULL) {
		timer->event = event_new(worker_base(timer->worker), -1, 0, on_fire, timer);
		k_assert(timer->event != NULL);
	}
	timer_arm(timer);
}

void
timer_set(Timer *timer, Usec span)
{
	timer_set_at(timer, clock_after(span));
}

void
timer_cancel(Timer *timer)
{
	timer_set_at(timer, 0);
}

bool
timer_is_set(const Timer *timer)
{
	return timer->at != 0;
}

void
timer_clear(Timer *timer)
{
	if (timer->event != NULL) {
		k_assert_on(timer->worker);
		event_free(timer->event);
	}
	timer->event = NULL;
	timer->at = 0;
	timer->armed = 0;
}
