/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/date.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "mime/addr.h"

#define TOKENS_MAX 12 /* "Wed , 6 Mar 2024 10:42:31 -0800" has 7 */
#define TOKEN_MAX  32

static const char DAYS[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char MONTHS[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
				   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

typedef struct Tokens {
	char text[TOKENS_MAX][TOKEN_MAX];
	unsigned n;
} Tokens;

/* Splits at white space, commas and comments; '-' splits "6-Mar-2024" but starts a zone. */
static bool
split(const char *p, Tokens *out)
{
	out->n = 0;
	for (;;) {
		while (*p == ',' || *p == ' ' || *p == '\t' || *p == '(')
			if (*p == ',')
				p++;
			else if (!mime_skip_cfws(&p))
				return false;
		if (*p == '\0')
			return true;
		const char *start = p;
		while (*p != '\0' && strchr(", \t(", *p) == NULL)
			p++;
		size_t len = (size_t)(p - start);
		if (out->n == TOKENS_MAX || len >= TOKEN_MAX)
			return false;
		memcpy(out->text[out->n], start, len);
		out->text[out->n++][len] = '\0';
	}
}

static bool
number(const char *text, unsigned digits_max, int max, int *ret)
{
	uint64_t value;
	size_t len = strlen(text);
	if (len > digits_max || !text_parse_u64(text, len, (uint64_t)max, &value))
		return false;
	*ret = (int)value;
	return true;
}

/* 0..11, or -1; full names count by their first three letters. */
static int
month_of(const char *text)
{
	if (strlen(text) >= 3)
		for (int i = 0; i < 12; i++)
			if (g_ascii_strncasecmp(text, MONTHS[i], 3) == 0)
				return i;
	return -1;
}

static bool
is_weekday(const char *text)
{
	if (strlen(text) >= 3)
		for (int i = 0; i < 7; i++)
			if (g_ascii_strncasecmp(text, DAYS[i], 3) == 0)
				return true;
	return false;
}

/* "6-Mar-2024" becomes three tokens. */
static void
split_dashes(Tokens *t, unsigned at)
{
	if (at >= t->n || strchr(t->text[at], '-') == NULL || t->n + 2 > TOKENS_MAX)
		return;
	g_auto(GStrv) parts = g_strsplit(t->text[at], "-", 4);
	if (g_strv_length(parts) != 3)
		return;
	for (unsigned i = t->n; i > at + 1; i--)
		memcpy(t->text[i + 1], t->text[i - 1], TOKEN_MAX);
	for (unsigned i = 0; i < 3; i++)
		g_strlcpy(t->text[at + i], parts[i], TOKEN_MAX);
	t->n += 2;
}

static int
full_year(const char *text, int year)
{
	if (strlen(text) >= 3 || year >= 100)
		return year >= 1000 ? year : 1900 + year; /* RFC 5322 4.3: three digits */
	return year < 50 ? 2000 + year : 1900 + year;
}

typedef struct Parts {
	int year, month, day, hour, minute, second;
} Parts;

/* "10:42", "10:42:31", "10.42.31", fractions of a second ignored. */
static bool
clock_time(const char *text, Parts *out)
{
	char sep = strchr(text, ':') != NULL ? ':' : '.';
	const char seps[2] = {sep, '\0'};
	g_auto(GStrv) f = g_strsplit(text, seps, 4);
	unsigned n = g_strv_length(f);
	if (n < 2 || n > 3)
		return false;
	out->second = 0;
	if (n == 3) {
		char *dot = strchr(f[2], '.');
		if (dot != NULL)
			*dot = '\0';
	}
	return number(f[0], 2, 23, &out->hour) && number(f[1], 2, 59, &out->minute) &&
	       (n == 2 || number(f[2], 2, 60, &out->second));
}

/* Zone text to seconds; unknown names are UTC (RFC 5322 4.3). */
static bool
zone(const char *text, int *ret_offset)
{
	static const struct {
		char name[4];
		int hours;
	} names[] = {{"UT", 0},   {"UTC", 0},  {"GMT", 0},  {"Z", 0},    {"EST", -5}, {"EDT", -4},
		     {"CST", -6}, {"CDT", -5}, {"MST", -7}, {"MDT", -6}, {"PST", -8}, {"PDT", -7}};
	if (*text == '+' || *text == '-') {
		int value;
		if (!number(text + 1, 4, 9999, &value) || value % 100 >= 60)
			return false;
		int secs = (value / 100 * 60 + value % 100) * 60;
		*ret_offset = *text == '-' ? -secs : secs;
		return secs < 24 * 3600;
	}
	*ret_offset = 0;
	for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
		if (text_equal_nocase(text, names[i].name))
			*ret_offset = names[i].hours * 3600;
	return true;
}

/* Days since 1970-01-01 of a day in the proleptic Gregorian calendar. */
static int64_t
days_from_civil(int year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t yoe = y - era * 400;
	int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static int
month_days(int year, int month) /* month 1..12 */
{
	static const int days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	return days[month - 1] + (month == 2 && leap ? 1 : 0);
}

/* Day, month, year in `t` from `at`, in the order of the RFC or month first. */
static bool
calendar(const Tokens *t, unsigned at, Parts *out)
{
	const char *day = t->text[at];
	const char *month = t->text[at + 1];
	if (month_of(day) >= 0) {
		const char *swap = day;
		day = month;
		month = swap;
	}
	int m = month_of(month);
	int year;
	if (m < 0 || !number(day, 2, 31, &out->day) || out->day == 0 ||
	    !number(t->text[at + 2], 4, 9999, &year))
		return false;
	out->year = full_year(t->text[at + 2], year);
	out->month = m + 1;
	return out->day <= month_days(out->year, out->month);
}

/* "Mar 06 10:42:31 2024" (what asctime writes) becomes "Mar 06 2024 10:42:31". */
static void
swap_asctime(Tokens *t, unsigned at)
{
	char year[TOKEN_MAX];
	if (strchr(t->text[at + 2], ':') == NULL || strchr(t->text[at + 3], ':') != NULL)
		return;
	memcpy(year, t->text[at + 3], TOKEN_MAX);
	memcpy(t->text[at + 3], t->text[at + 2], TOKEN_MAX);
	memcpy(t->text[at + 2], year, TOKEN_MAX);
}

bool
mime_date_parse(const char *text, MimeDate *ret_date)
{
	Tokens t;
	if (!split(text, &t) || t.n == 0)
		return false;
	unsigned at = is_weekday(t.text[0]) && month_of(t.text[0]) < 0 ? 1 : 0;
	split_dashes(&t, at);
	if (t.n < at + 4)
		return false;
	swap_asctime(&t, at);
	Parts parts;
	if (!calendar(&t, at, &parts) || !clock_time(t.text[at + 3], &parts))
		return false;
	int offset = 0;
	if (t.n > at + 4 && !zone(t.text[at + 4], &offset))
		return false;
	ret_date->unix_secs = days_from_civil(parts.year, parts.month, parts.day) * 86400 +
			      parts.hour * 3600 + parts.minute * 60 + parts.second - offset;
	ret_date->tz_offset = offset;
	return true;
}

bool
mime_date_format(const MimeDate *date, char out[MIME_DATE_MAX])
{
	/* Years 1..9999, so that the local time cannot overflow either. */
	const int64_t least = INT64_C(-62135596800) + 86400;
	const int64_t most = INT64_C(253402300799) - 86400;
	int offset = date->tz_offset;
	if (date->unix_secs < least || date->unix_secs > most || offset % 60 != 0 ||
	    offset <= -86400 || offset >= 86400)
		return false;
	int64_t local = date->unix_secs + offset;
	int64_t days = local / 86400;
	int64_t secs = local % 86400;
	if (secs < 0) {
		secs += 86400;
		days--;
	}
	int64_t z = days + 719468;
	int64_t era = (z >= 0 ? z : z - 146096) / 146097;
	int64_t doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;
	int day = (int)(doy - (153 * mp + 2) / 5 + 1);
	int month = (int)(mp < 10 ? mp + 3 : mp - 9);
	int year = (int)(yoe + era * 400 + (month <= 2 ? 1 : 0));
	int weekday = (int)(((days + 4) % 7 + 7) % 7);
	int minutes = offset < 0 ? -offset / 60 : offset / 60;
	(void)snprintf(out, MIME_DATE_MAX, "%s, %02d %s %04d %02d:%02d:%02d %c%02d%02d",
		       DAYS[weekday], day, MONTHS[month - 1], year, (int)(secs / 3600),
		       (int)(secs / 60 % 60), (int)(secs % 60), offset < 0 ? '-' : '+',
		       minutes / 60, minutes % 60);
	return true;
}
