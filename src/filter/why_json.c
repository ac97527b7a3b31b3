/* SPDX-License-Identifier: Apache-2.0 */
/* A Why in words: the object that docs/explain.md describes. */
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "filter/why_int.h"

#define MESSAGE_MAX 250 /* bytes of an answer's text */

static const char *const result_names[] = {"no", "yes", "unmet", "fault"};
_Static_assert(G_N_ELEMENTS(result_names) == WHY_RESULTS, "a name for each result");
static const char *const left_names[] = {"continue", "wait", "stop"};
_Static_assert(G_N_ELEMENTS(left_names) == WHY_LEFTS, "a name for each way to leave");
static const char *const verb_names[] = {"MAIL", "RCPT", "DATA"};
_Static_assert(G_N_ELEMENTS(verb_names) == WHY_VERBS, "a name for each verb");

/* Peers' bytes as JSON text. */
static json_t *
text_json(const char *text, size_t max)
{
	g_autofree char *shown = text_escape(text, strlen(text), max);
	return json_string(shown);
}

static void
set_text(json_t *object, const char *key, const char *text)
{
	if (text != NULL)
		json_object_set_new(object, key, text_json(text, MESSAGE_MAX));
}

static void
set_usec(json_t *object, const char *key, Usec usec)
{
	json_object_set_new(object, key, json_integer((json_int_t)usec));
}

static json_t *
response_json(const Response *response)
{
	if (response == NULL)
		return json_null();
	json_t *out = json_object();
	json_object_set_new(out, "code", json_integer(response->code));
	set_text(out, "message", response->message);
	return out;
}

/* The array under that key, made when it is not there. */
static json_t *
list_of(json_t *object, const char *key)
{
	json_t *list = json_object_get(object, key);
	if (list == NULL) {
		list = json_array();
		json_object_set_new(object, key, list);
	}
	return list;
}

/* ---- one entry ---- */

static json_t *
dns_json(const WhyEntry *entry)
{
	json_t *out = json_object();
	set_text(out, "name", entry->text);
	json_object_set_new(out, "type", json_string(dns_type_name((DnsType)entry->type)));
	json_object_set_new(out, "status", json_string(dns_status_name((DnsStatus)entry->result)));
	json_t *records = json_array();
	for (size_t at = 0; entry->records != NULL && at < entry->records->len;) {
		const char *record = entry->records->str + at;
		json_array_append_new(records, text_json(record, WHY_TEXT_MAX + 16));
		at += strlen(record) + 1;
	}
	json_object_set_new(out, "records", records);
	if (entry->lost > 0)
		json_object_set_new(out, "more", json_integer(entry->lost));
	set_usec(out, "usec", entry->took);
	return out;
}

static json_t *
matcher_json(const WhyEntry *entry, const WhyNames *names)
{
	json_t *out = names->matcher(entry->of, entry->output);
	if (entry->text != NULL)
		set_text(out, "saw", entry->text);
	json_object_set_new(out, "result", json_string(result_names[entry->result]));
	return out;
}

static json_t *
rule_json(const WhyEntry *entry, json_t *matchers) /* moved */
{
	const WhyRule *rule = entry->of;
	json_t *out = json_object();
	set_text(out, "rule", rule->name);
	set_text(out, "tag", rule->tag);
	if (rule->node != NULL)
		set_text(out, "where", yaml_where(rule->node));
	if (entry->rcpt != WHY_EVERYBODY)
		json_object_set_new(out, "rcpt", json_integer(entry->rcpt));
	json_object_set_new(out, "result", json_string(result_names[entry->result]));
	if (entry->action != NULL)
		json_object_set_new(out, "action", json_string(entry->action));
	json_object_set_new(out, "matchers", matchers);
	return out;
}

/* "MAIL", "RCPT 2" (counted from 1), "DATA". */
static char *
verb_text(const WhyEntry *entry)
{
	if (entry->result != WHY_RCPT)
		return g_strdup(verb_names[entry->result]);
	return g_strdup_printf("RCPT %u", (unsigned)entry->rcpt + 1);
}

/* Answers that are the same object stand together. */
static void
add_answer(json_t *filter, const WhyEntry *entry, const Response **last)
{
	json_t *answers = list_of(filter, "answers");
	g_autofree char *verb = verb_text(entry);
	if (*last != entry->response || json_array_size(answers) == 0) {
		json_t *out = response_json(entry->response);
		json_object_set_new(out, "to", json_array());
		json_array_append_new(answers, out);
		*last = entry->response;
	}
	json_t *answer = json_array_get(answers, json_array_size(answers) - 1);
	json_array_append_new(json_object_get(answer, "to"), json_string(verb));
}

/* ---- one filter ---- */

static json_t *
saw_json(unsigned news)
{
	static const struct {
		unsigned bit;
		const char *name;
	} names[] = {{TX_NEW_MAIL_FROM, "MAIL"},
		     {TX_NEW_RCPT, "RCPT"},
		     {TX_NEW_BODY, "body"},
		     {TX_NEW_BODY_FINAL, "end of body"},
		     {TX_NEW_CANCEL, "cancellation"}};
	json_t *out = json_array();
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		if ((news & names[i].bit) != 0)
			json_array_append_new(out, json_string(names[i].name));
	}
	return out;
}

/* Whether a later evaluation of the same rule for the same recipient follows. */
static bool
is_superseded(const Why *why, guint at)
{
	const WhyEntry *entry = &g_array_index(why->entries, WhyEntry, at);
	for (guint i = at + 1; i < why->entries->len; i++) {
		const WhyEntry *other = &g_array_index(why->entries, WhyEntry, i);
		if (other->kind == WHY_RULE && other->filter == entry->filter &&
		    other->rcpt == entry->rcpt)
			return true;
	}
	return false;
}

static void
add_entries(const Why *why, const WhyNames *names, guint index, WhyDetail detail, json_t *out)
{
	const Response *last = NULL;
	json_t *matchers = json_array();
	for (guint i = 0; i < why->entries->len; i++) {
		const WhyEntry *entry = &g_array_index(why->entries, WhyEntry, i);
		if (entry->filter != index ||
		    (detail == WHY_DECISIONS && entry->place == WHY_PLAIN))
			continue;
		if (entry->kind == WHY_NOTE) {
			json_array_append_new(list_of(out, "notes"),
					      text_json(entry->text, WHY_TEXT_MAX + 16));
		} else if (entry->kind == WHY_DNS) {
			json_array_append_new(list_of(out, "dns"), dns_json(entry));
		} else if (entry->kind == WHY_MATCHER) {
			json_array_append_new(matchers, matcher_json(entry, names));
		} else if (entry->kind == WHY_ANSWER) {
			add_answer(out, entry, &last);
		} else {
			if (!is_superseded(why, i))
				json_array_append_new(list_of(out, "rules"),
						      rule_json(entry, json_incref(matchers)));
			json_decref(matchers);
			matchers = json_array();
		}
	}
	json_decref(matchers);
}

static json_t *
filter_json(const Why *why, const WhyNames *names, guint index, WhyDetail detail)
{
	const WhyFilter *own = &why->filters[index];
	json_t *out = json_object();
	json_object_set_new(out, "step", json_integer(index + 1));
	json_object_set_new(out, "filter", json_string(names->filter(names->arg, index)));
	json_object_set_new(out, "saw", saw_json(own->saw));
	json_object_set_new(out, "left",
			    own->calls > 0 ? json_string(left_names[own->left]) : json_null());
	set_usec(out, "usec", own->busy);
	set_usec(out, "waited_usec",
		 own->waited + (own->waits_since != 0 ? clock_mono() - own->waits_since : 0));
	add_entries(why, names, index, detail, out);
	if (own->output != NULL && detail == WHY_ALL)
		json_object_set(out, "output", own->output);
	if (own->lost > 0)
		json_object_set_new(out, "more", json_integer(own->lost));
	return out;
}

/* ---- the whole ---- */

bool
why_is_problem(const Tx *tx)
{
	if (response_err(tx->mail_response) || response_err(tx->data_response))
		return true;
	return tx->rcpt_answers > tx_rcpts_accepted(tx);
}

/* "accepted"; "rejected" or "deferred" when nobody gets it; "partial"; "unanswered". */
static const char *
outcome_of(const Tx *tx)
{
	const size_t rcpts = tx_rcpt_count(tx), accepted = tx_rcpts_accepted(tx);
	const Response *whole = tx->mail_response;
	if (!response_err(whole))
		whole = tx->data_response;
	bool temporary = response_temp(whole);
	if (!response_err(whole)) {
		if (rcpts > 0 && tx->rcpt_answers == rcpts && accepted == 0) {
			for (size_t i = 0; i < rcpts; i++)
				temporary |= response_temp(tx_rcpt(tx, i)->response);
			return temporary ? "deferred" : "rejected";
		}
		if (whole == NULL || tx->data_response == NULL)
			return "unanswered";
		return accepted < rcpts ? "partial" : "accepted";
	}
	return temporary ? "deferred" : "rejected";
}

static json_t *
envelope_json(const Tx *tx)
{
	json_t *out = json_object();
	if (tx->remote_host != NULL)
		set_text(out, "remote", tx->remote_host->host);
	set_text(out, "helo", json_get_str(tx->smtp_meta, "ehlo_host"));
	if (tx->mail_from != NULL)
		set_text(out, "mail_from", tx->mail_from->addr);
	json_t *rcpts = json_array();
	for (size_t i = 0; i < MIN(tx_rcpt_count(tx), WHY_RCPTS_MAX); i++)
		json_array_append_new(rcpts, text_json(tx_rcpt(tx, i)->to->addr, MESSAGE_MAX));
	json_object_set_new(out, "rcpt_to", rcpts);
	json_object_set_new(out, "rcpts", json_integer((json_int_t)tx_rcpt_count(tx)));
	return out;
}

static json_t *
answers_json(const Tx *tx)
{
	json_t *out = json_object();
	json_object_set_new(out, "mail", response_json(tx->mail_response));
	json_t *rcpts = json_array();
	for (size_t i = 0; i < MIN(tx_rcpt_count(tx), WHY_RCPTS_MAX); i++)
		json_array_append_new(rcpts, response_json(tx_rcpt(tx, i)->response));
	json_object_set_new(out, "rcpt", rcpts);
	json_object_set_new(out, "data", response_json(tx->data_response));
	return out;
}

/* The answer that failed first; that of the whole message goes before those of recipients. */
static const WhyEntry *
deciding_entry(const Why *why)
{
	const WhyEntry *found = NULL;
	for (guint i = 0; i < why->entries->len; i++) {
		const WhyEntry *entry = &g_array_index(why->entries, WhyEntry, i);
		if (entry->kind != WHY_ANSWER || !response_err(entry->response))
			continue;
		if (found == NULL || (found->result == WHY_RCPT && entry->result != WHY_RCPT))
			found = entry;
	}
	return found;
}

/* The rule behind an answer: the newest of that filter that had matched for that recipient. */
static const WhyEntry *
rule_behind(const Why *why, const WhyEntry *answer)
{
	const WhyEntry *found = NULL;
	for (const WhyEntry *entry = &g_array_index(why->entries, WhyEntry, 0); entry < answer;
	     entry++) {
		if (entry->kind == WHY_RULE && entry->filter == answer->filter &&
		    entry->result == WHY_YES &&
		    (entry->rcpt == WHY_EVERYBODY || entry->rcpt == answer->rcpt))
			found = entry;
	}
	return found;
}

static json_t *
decided_json(const Why *why, const WhyNames *names)
{
	const WhyEntry *answer = deciding_entry(why);
	if (answer == NULL)
		return json_null();
	g_autofree char *verb = verb_text(answer);
	json_t *out = response_json(answer->response);
	json_object_set_new(out, "step", json_integer(answer->filter + 1));
	json_object_set_new(out, "filter", json_string(names->filter(names->arg, answer->filter)));
	json_object_set_new(out, "to", json_string(verb));
	const WhyEntry *rule = rule_behind(why, answer);
	if (rule != NULL) {
		const WhyRule *of = rule->of;
		set_text(out, "rule", of->name);
		if (of->node != NULL)
			set_text(out, "where", yaml_where(of->node));
	}
	return out;
}

static bool
has_decision(const Why *why, guint filter)
{
	const uint16_t *places = why->filters[filter].places;
	return places[WHY_DECISION] > 0 || places[WHY_FAILURE] > 0 || places[WHY_WHOLE] > 0;
}

json_t *
why_json(const Why *why, const WhyNames *names, const Tx *tx, WhyDetail detail)
{
	json_t *out = json_object();
	json_object_set_new(out, "chain", json_string(names->chain));
	json_object_set_new(out, "outcome", json_string(outcome_of(tx)));
	json_object_set_new(out, "decided", decided_json(why, names));
	json_object_set_new(out, "envelope", envelope_json(tx));
	json_object_set_new(out, "answers", answers_json(tx));
	set_usec(out, "usec", clock_mono() - why->began);
	json_t *filters = json_array();
	for (guint i = 0; i < why->n_filters && detail != WHY_VERDICT; i++) {
		if (detail == WHY_ALL || has_decision(why, i))
			json_array_append_new(filters, filter_json(why, names, i, detail));
	}
	json_object_set_new(out, "filters", filters);
	if (detail != WHY_ALL)
		json_object_set_new(out, "shortened", json_true());
	return out;
}
