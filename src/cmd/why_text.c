/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/why_text.h"

#include <string.h>

#include "base/json.h"
#include "base/text.h"

#define WIDTH  79
#define INDENT 4

/* ---- words ---- */

/* Breaks at spaces; what goes on is indented two more.  Control characters of a foreign answer do
 * not reach the terminal. */
static void
put(FILE *out, int indent, const char *text)
{
	g_autofree char *shown = text_escape(text, strlen(text), 4000);
	const char *at = shown;
	for (bool first = true; *at != '\0'; first = false) {
		int margin = first ? indent : indent + 2;
		size_t room = (size_t)(WIDTH - margin), len = strlen(at), cut = len;
		if (len > room) {
			for (cut = room; cut > 0 && at[cut] != ' ';)
				cut--;
			if (cut == 0)
				cut = strcspn(at, " "); /* one long word */
		}
		(void)fprintf(out, "%*s%.*s\n", margin, "", (int)cut, at);
		at += cut;
		at += strspn(at, " ");
	}
}

static void G_GNUC_PRINTF(3, 4) putf(FILE *out, int indent, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	g_autofree char *text = g_strdup_vprintf(format, args);
	va_end(args);
	put(out, indent, text);
}

static const char *
word(const json_t *object, const char *key)
{
	const char *text = json_get_str(object, key);
	return text != NULL ? text : "-";
}

static json_int_t
number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

/* "12 us", "3.4 ms", "2.1 s".  Caller frees. */
static char *
span_text(json_int_t usec)
{
	if (usec < 1000)
		return g_strdup_printf("%" JSON_INTEGER_FORMAT " us", MAX(usec, 0));
	if (usec < 1000000)
		return g_strdup_printf("%.1f ms", (double)usec / 1e3);
	return g_strdup_printf("%.1f s", (double)usec / 1e6);
}

/* Texts with `between`; at most `max`, then "...".  Caller frees. */
static char *
joined(const json_t *list, const char *between, size_t max)
{
	GString *out = g_string_new(NULL);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *text = json_string_value(json_array_get(list, i));
		g_string_append(out, i > 0 ? between : "");
		g_string_append(out, i < max && text != NULL ? text : "...");
		if (i >= max)
			break;
	}
	return g_string_free(out, FALSE);
}

/* ---- one filter ---- */

static bool
holds(const json_t *list, const char *wanted)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		if (g_strcmp0(json_string_value(json_array_get(list, i)), wanted) == 0)
			return true;
	}
	return false;
}

static char *
saw_text(const json_t *saw)
{
	GString *out = g_string_new("saw");
	static const char *const verbs[] = {"MAIL", "RCPT"};
	for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++) {
		if (holds(saw, verbs[i]))
			g_string_append_printf(out, " %s", verbs[i]);
	}
	if (holds(saw, "end of body"))
		g_string_append(out, " message");
	else if (holds(saw, "body"))
		g_string_append(out, " part of the message");
	if (out->len == strlen("saw"))
		g_string_append(out, " nothing");
	return g_string_free(out, FALSE);
}

static void
put_head(FILE *out, const json_t *filter)
{
	const char *left = json_get_str(filter, "left");
	const char *name = word(filter, "filter");
	int step = (int)number(filter, "step");
	if (left == NULL) {
		putf(out, 0, "%2d %-18s not reached", step, name);
		return;
	}
	g_autofree char *saw = saw_text(json_object_get(filter, "saw"));
	g_autofree char *busy = span_text(number(filter, "usec"));
	g_autofree char *waited = span_text(number(filter, "waited_usec"));
	putf(out, 0, "%2d %-18s %-22s %s%s%s%s", step, name, saw, busy,
	     number(filter, "waited_usec") > 0 ? ", waited " : "",
	     number(filter, "waited_usec") > 0 ? waited : "",
	     strcmp(left, "stop") == 0   ? "; goes no further"
	     : strcmp(left, "wait") == 0 ? "; still waits"
					 : "");
}

static char *
matcher_text(const json_t *matcher)
{
	const char *wants = json_get_str(matcher, "wants"), *saw = json_get_str(matcher, "saw");
	const char *name = word(matcher, "matcher");
	const char *dot = strrchr(name, '.'); /* "koukan.spf_check_filter.SpfCheckFilter" */
	return g_strdup_printf("%s%s%s%s%s%s", dot != NULL ? dot + 1 : name,
			       wants != NULL && *wants != '\0' ? " " : "",
			       wants != NULL ? wants : "", saw != NULL ? " (saw " : "",
			       saw != NULL ? saw : "", saw != NULL ? ")" : "");
}

static void
put_rule(FILE *out, const json_t *rule)
{
	const json_t *matchers = json_object_get(rule, "matchers");
	const char *action = json_get_str(rule, "action");
	g_autofree char *rcpt = json_object_get(rule, "rcpt") != NULL
					? g_strdup_printf(" for RCPT %" JSON_INTEGER_FORMAT,
							  number(rule, "rcpt") + 1)
					: g_strdup("");
	g_autofree char *head = g_strdup_printf("rule %s%s: %s%s%s", word(rule, "rule"), rcpt,
						word(rule, "result"), action != NULL ? ", " : "",
						action != NULL ? action : "");
	if (json_array_size(matchers) == 1) {
		const json_t *one = json_array_get(matchers, 0);
		g_autofree char *text = matcher_text(one);
		bool same = strcmp(word(one, "result"), word(rule, "result")) == 0;
		putf(out, INDENT, "%s: %s%s", head, same ? "" : "not ", text);
		return;
	}
	put(out, INDENT, head);
	for (size_t i = 0; i < json_array_size(matchers); i++) {
		const json_t *matcher = json_array_get(matchers, i);
		g_autofree char *text = matcher_text(matcher);
		putf(out, INDENT + 2, "%s: %s", word(matcher, "result"), text);
	}
}

static void
put_dns(FILE *out, const json_t *dns)
{
	const json_t *records = json_object_get(dns, "records");
	g_autofree char *text = joined(records, " | ", 8);
	const bool any = json_array_size(records) > 0;
	g_autofree char *more = number(dns, "more") > 0
					? g_strdup_printf(" and %" JSON_INTEGER_FORMAT " more",
							  number(dns, "more"))
					: g_strdup("");
	putf(out, INDENT, "DNS %s %s: %s%s", word(dns, "type"), word(dns, "name"),
	     any ? text : word(dns, "status"), more);
}

static void
put_answer(FILE *out, const json_t *answer)
{
	g_autofree char *to = joined(json_object_get(answer, "to"), ", ", 6);
	putf(out, INDENT, "answers %s: %" JSON_INTEGER_FORMAT " %s", to, number(answer, "code"),
	     word(answer, "message"));
}

static void
put_filter(FILE *out, const json_t *filter)
{
	const json_t *notes = json_object_get(filter, "notes");
	const json_t *rules = json_object_get(filter, "rules");
	const json_t *output = json_object_get(filter, "output");
	const json_t *list = json_object_get(filter, "dns");
	put_head(out, filter);
	for (size_t i = 0; i < json_array_size(notes); i++)
		put(out, INDENT,
		    json_string_value(json_array_get(notes, i)) != NULL
			    ? json_string_value(json_array_get(notes, i))
			    : "-");
	if (json_array_size(notes) == 0 && json_array_size(rules) == 0 && output != NULL) {
		g_autofree char *text = json_print(output);
		putf(out, INDENT, "signal %s", text);
	}
	for (size_t i = 0; i < json_array_size(list); i++)
		put_dns(out, json_array_get(list, i));
	for (size_t i = 0; i < json_array_size(rules); i++)
		put_rule(out, json_array_get(rules, i));
	list = json_object_get(filter, "answers");
	for (size_t i = 0; i < json_array_size(list); i++)
		put_answer(out, json_array_get(list, i));
	if (number(filter, "more") > 0)
		putf(out, INDENT, "and %" JSON_INTEGER_FORMAT " entries that are not kept",
		     number(filter, "more"));
}

/* ---- the whole ---- */

static void
put_envelope(FILE *out, const json_t *envelope)
{
	const char *remote = json_get_str(envelope, "remote"),
		   *helo = json_get_str(envelope, "helo");
	g_autofree char *rcpts = joined(json_object_get(envelope, "rcpt_to"), ", ", 3);
	putf(out, 2, "%s%s%s%s%sfrom <%s> to %s", remote != NULL ? "client " : "",
	     remote != NULL ? remote : "", helo != NULL ? ", HELO " : "", helo != NULL ? helo : "",
	     remote != NULL ? "; " : "", word(envelope, "mail_from"), rcpts);
}

void
why_text_head(FILE *out, const json_t *why)
{
	const json_t *decided = json_object_get(why, "decided");
	const json_t *answer = json_is_object(decided)
				       ? decided
				       : json_object_get(json_object_get(why, "answers"), "data");
	const char *transaction = json_get_str(why, "transaction"), *rule, *where;
	putf(out, 0, "%s%s%schain %s: %s%s", transaction != NULL ? "transaction " : "",
	     transaction != NULL ? transaction : "", transaction != NULL ? ", " : "",
	     word(why, "chain"), word(why, "outcome"),
	     json_is_true(json_object_get(why, "stored")) ? ", in our queue" : "");
	put_envelope(out, json_object_get(why, "envelope"));
	if (json_is_object(answer))
		putf(out, 2, "%" JSON_INTEGER_FORMAT " %s", number(answer, "code"),
		     word(answer, "message"));
	if (!json_is_object(decided))
		return;
	rule = json_get_str(decided, "rule");
	where = json_get_str(decided, "where");
	putf(out, 2, "decided at %s by step %d, %s%s%s%s%s%s", word(decided, "to"),
	     (int)number(decided, "step"), word(decided, "filter"), rule != NULL ? ", rule " : "",
	     rule != NULL ? rule : "", where != NULL ? " (" : "", where != NULL ? where : "",
	     where != NULL ? ")" : "");
}

void
why_text(FILE *out, const json_t *why)
{
	const json_t *filters = json_object_get(why, "filters");
	why_text_head(out, why);
	for (size_t i = 0; i < json_array_size(filters); i++)
		put_filter(out, json_array_get(filters, i));
	if (json_is_true(json_object_get(why, "shortened")))
		put(out, 2, "(shortened to what was decided)");
}
