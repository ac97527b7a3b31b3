/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/check.h"

/* The clock of the tests.  The flag is read on every call, so it stays a relaxed load. */
static atomic_bool test_on;
static atomic_llong test_mono;
static atomic_llong test_wall;

static int64_t
read_clock(clockid_t id)
{
	struct timespec now;
	k_assert(clock_gettime(id, &now) == 0);
	return (int64_t)now.tv_sec * USEC_PER_SEC + now.tv_nsec / 1000;
}

Deadline
clock_mono(void)
{
	if (__builtin_expect(atomic_load_explicit(&test_on, memory_order_relaxed), 0))
		return atomic_load(&test_mono);
	return read_clock(CLOCK_MONOTONIC);
}

WallUsec
clock_wall(void)
{
	if (__builtin_expect(atomic_load_explicit(&test_on, memory_order_relaxed), 0))
		return atomic_load(&test_wall);
	return read_clock(CLOCK_REALTIME);
}

Deadline
clock_after(Usec span)
{
	Deadline at;
	if (__builtin_add_overflow(clock_mono(), span, &at))
		return span < 0 ? 1 : INT64_MAX;
	/* 0 means "none", so a point at or before the clock's origin is its first tick. */
	return at > 0 ? at : 1;
}

Usec
clock_left(Deadline deadline)
{
	if (deadline == 0)
		return INT64_MAX;
	Deadline now = clock_mono();
	return deadline > now ? deadline - now : 0;
}

bool
clock_passed(Deadline deadline)
{
	return deadline != 0 && deadline <= clock_mono();
}

/* Broken-down time; a year that does not fit shows as the epoch. */
static void
break_down(int64_t unix_sec, bool utc, struct tm *ret_tm)
{
	time_t when = (time_t)unix_sec;
	if ((utc ? gmtime_r(&when, ret_tm) : localtime_r(&when, ret_tm)) == NULL) {
		when = 0;
		k_assert(gmtime_r(&when, ret_tm) != NULL);
	}
}

void
clock_format_rfc5322(int64_t unix_sec, bool utc, char out[CLOCK_DATE_MAX])
{
	/* Not strftime: its names follow the locale. */
	static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	struct tm tm;
	break_down(unix_sec, utc, &tm);
	long minutes = tm.tm_gmtoff / 60;
	char sign = minutes < 0 ? '-' : '+';
	if (minutes < 0)
		minutes = -minutes;
	(void)snprintf(out, CLOCK_DATE_MAX, "%s, %d %s %lld %02d:%02d:%02d %c%02ld%02ld",
		       days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon],
		       (long long)tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec, sign,
		       minutes / 60, minutes % 60);
}

/* The text of a second up to its point; most calls of a thread fall into the second of the last. */
typedef struct IsoSecond {
	int64_t sec;
	size_t len; /* 0: none yet */
	char text[CLOCK_DATE_MAX];
} IsoSecond;

static const IsoSecond *
iso_second(int64_t sec)
{
	static __thread IsoSecond last;
	if (last.len > 0 && last.sec == sec)
		return &last;
	struct tm tm;
	break_down(sec, true, &tm);
	int len = snprintf(last.text, sizeof(last.text), "%04lld-%02d-%02dT%02d:%02d:%02d.",
			   (long long)tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
			   tm.tm_min, tm.tm_sec);
	k_assert(len > 0 && len < CLOCK_DATE_MAX - 8);
	last.sec = sec;
	last.len = (size_t)len;
	return &last;
}

void
clock_format_iso(WallUsec wall, char out[CLOCK_DATE_MAX])
{
	int64_t sec = wall / USEC_PER_SEC;
	int64_t part = wall % USEC_PER_SEC;
	if (part < 0) {
		part += USEC_PER_SEC;
		sec--;
	}
	const IsoSecond *second = iso_second(sec);
	memcpy(out, second->text, second->len);
	char *digits = out + second->len;
	for (int i = 5; i >= 0; i--, part /= 10)
		digits[i] = (char)('0' + part % 10);
	memcpy(digits + 6, "Z", 2);
}

void
clock_test_begin(Deadline mono, WallUsec wall)
{
	atomic_store(&test_mono, mono);
	atomic_store(&test_wall, wall);
	atomic_store(&test_on, true);
}

void
clock_test_advance(Usec span)
{
	atomic_fetch_add(&test_mono, span);
	atomic_fetch_add(&test_wall, span);
}

void
clock_test_end(void)
{
	atomic_store(&test_on, false);
}
