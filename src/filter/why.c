/* SPDX-License-Identifier: Apache-2.0 */
#include "filter/why.h"

#include <string.h>

#include "filter/why_int.h"

#define ENTRIES_FIRST 32 /* room that most chains need */

static void
entry_clear(void *data)
{
	WhyEntry *entry = data;
	g_free(entry->text);
	if (entry->records != NULL)
		g_string_free(entry->records, TRUE);
	json_decref(entry->output);
	response_unref(entry->response);
}

Why *
why_new(guint filters)
{
	Why *why = g_new0(Why, 1);
	why->entries = g_array_sized_new(FALSE, FALSE, sizeof(WhyEntry), ENTRIES_FIRST);
	g_array_set_clear_func(why->entries, entry_clear);
	why->filters = g_new0(WhyFilter, filters);
	why->n_filters = filters;
	why->began = clock_mono();
	return why;
}

void
why_free(Why *why)
{
	if (why == NULL)
		return;
	for (guint i = 0; i < why->n_filters; i++)
		json_decref(why->filters[i].output);
	g_array_unref(why->entries);
	g_free(why->filters);
	g_free(why);
}

/* ---- entries ---- */

/* What an entry may hold of a text of `len` bytes. */
static size_t
room_for(Why *why, size_t len)
{
	size_t room = MIN(len, WHY_TEXT_MAX);
	if (why->bytes + room > WHY_BYTES_MAX)
		room = WHY_BYTES_MAX - why->bytes;
	why->bytes += room;
	return room;
}

/* In place; the cut shows as "...". */
static char *
text_fit(Why *why, char *text)
{
	if (text == NULL)
		return NULL;
	size_t len = strlen(text);
	size_t room = room_for(why, len);
	if (room < len) {
		memset(text + room - MIN(room, 3), '.', MIN(room, 3));
		text[room] = '\0';
	}
	return text;
}

/* Whether the filter has a place for it; else it is counted as lost. */
static bool
take_place(Why *why, guint filter, WhyPlace place)
{
	static const uint16_t most[] = {WHY_ENTRIES_MAX, WHY_DECISIONS_MAX, WHY_FAILURES_MAX, 2};
	_Static_assert(G_N_ELEMENTS(most) == WHY_PLACES, "a number for each");
	WhyFilter *own = &why->filters[filter];
	if (own->places[place] < most[place]) {
		own->places[place]++;
		return true;
	}
	own->lost++;
	return false;
}

static WhyEntry *
add(Why *why, guint filter, WhyKind kind, WhyPlace place)
{
	k_assert(filter < why->n_filters);
	if (!take_place(why, filter, place))
		return NULL;
	const WhyEntry entry = {.kind = (uint8_t)kind,
				.filter = (uint16_t)filter,
				.place = (uint8_t)place,
				.rcpt = WHY_EVERYBODY};
	g_array_append_val(why->entries, entry);
	return &g_array_index(why->entries, WhyEntry, why->entries->len - 1);
}

void
why_note(Why *why, guint filter, char *text)
{
	WhyEntry *entry = add(why, filter, WHY_NOTE, WHY_PLAIN);
	if (entry != NULL)
		entry->text = text_fit(why, text);
	else
		g_free(text);
}

void
why_output(Why *why, guint filter, json_t *output)
{
	WhyFilter *own = &why->filters[filter];
	json_decref(own->output);
	own->output = json_incref(output);
}

static void
append_record(Why *why, GString *records, const DnsRecord *record, DnsType type)
{
	char preference[8] = "";
	if (type == DNS_MX)
		(void)g_snprintf(preference, sizeof(preference), "%u ", record->preference);
	size_t len = strlen(record->text), room = room_for(why, len);
	g_string_append(records, preference);
	g_string_append_len(records, record->text, (gssize)room);
	if (room < len)
		g_string_append(records, "...");
	g_string_append_c(records, '\0');
}

void
why_dns(Why *why, guint filter, const char *name, DnsType type, const DnsAnswer *answer, Usec took)
{
	WhyEntry *entry = add(why, filter, WHY_DNS, WHY_PLAIN);
	if (entry == NULL)
		return;
	entry->text = text_fit(why, g_strdup(name));
	entry->type = (uint16_t)type;
	entry->result = (uint8_t)answer->status;
	entry->took = took;
	if (answer->records->len == 0)
		return;
	entry->records = g_string_sized_new(64);
	guint i = 0;
	for (; i < MIN(answer->records->len, WHY_RECORDS_MAX) && entry->records->len < WHY_TEXT_MAX;
	     i++)
		append_record(why, entry->records, g_ptr_array_index(answer->records, i), type);
	entry->lost = answer->records->len - i;
}

/* ---- rules ---- */

static WhyPlace
place_of(WhyResult result)
{
	return result == WHY_YES || result == WHY_FAULT ? WHY_DECISION : WHY_PLAIN;
}

void
why_rule_begin(Why *why, guint filter)
{
	const WhyFilter *own = &why->filters[filter];
	why->rule_at = why->entries->len;
	memcpy(why->rule_places, own->places, sizeof(own->places));
	why->rule_lost = own->lost;
	why->rule_bytes = why->bytes;
}

void
why_matcher(Why *why, guint filter, const void *matcher, WhyResult result, json_t *output,
	    char *seen)
{
	WhyEntry *entry = add(why, filter, WHY_MATCHER, place_of(result));
	if (entry == NULL) {
		g_free(seen);
		return;
	}
	entry->of = matcher;
	entry->result = (uint8_t)result;
	entry->output = json_incref(output);
	entry->text = text_fit(why, seen);
}

static const WhyEntry *
entry_at(const Why *why, guint index)
{
	return &g_array_index(why->entries, WhyEntry, index);
}

static bool
is_matcher(const WhyEntry *entry, guint filter)
{
	return entry->kind == WHY_MATCHER && entry->filter == filter;
}

/* The rule came to the same before, by the same matchers. */
static bool
is_known(const Why *why, guint filter, WhyResult result, uint32_t rcpt)
{
	guint at = why->rule_at;
	for (; at > 0; at--) {
		const WhyEntry *entry = entry_at(why, at - 1);
		if (entry->kind == WHY_RULE && entry->filter == filter && entry->rcpt == rcpt)
			break;
	}
	if (at == 0 || entry_at(why, --at)->result != (uint8_t)result)
		return false;
	const guint count = why->entries->len - why->rule_at; /* they stand in front of the rule */
	for (guint i = 1; i <= count; i++) {
		const WhyEntry *now = entry_at(why, why->entries->len - i);
		const WhyEntry *then = at >= i ? entry_at(why, at - i) : NULL;
		if (then == NULL || !is_matcher(then, filter) || now->of != then->of ||
		    now->result != then->result || now->output != then->output)
			return false;
	}
	return at == count || !is_matcher(entry_at(why, at - count - 1), filter);
}

void
why_rule_end(Why *why, guint filter, const WhyRule *rule, WhyResult result, const char *action,
	     uint32_t rcpt)
{
	if (is_known(why, filter, result, rcpt)) {
		WhyFilter *own = &why->filters[filter];
		g_array_set_size(why->entries, why->rule_at);
		memcpy(own->places, why->rule_places, sizeof(own->places));
		own->lost = why->rule_lost;
		why->bytes = why->rule_bytes;
		return;
	}
	WhyEntry *entry = add(why, filter, WHY_RULE, place_of(result));
	if (entry == NULL)
		return;
	entry->of = rule;
	entry->result = (uint8_t)result;
	entry->action = action;
	entry->rcpt = rcpt;
}

/* ---- calls ---- */

WhyTurn
why_enter(Why *why, guint filter, const Tx *down, unsigned news)
{
	WhyFilter *own = &why->filters[filter];
	const WhyTurn turn = {.filter = filter,
			      .down = down,
			      .mail = down->mail_response,
			      .data = down->data_response,
			      .rcpts = down->rcpt_answers,
			      .began = clock_mono()};
	own->calls++;
	own->saw |= news;
	if (own->waits_since != 0)
		own->waited += turn.began - own->waits_since;
	own->waits_since = 0;
	return turn;
}

static void
add_answer(Why *why, guint filter, WhyVerb verb, Response *response, uint32_t rcpt)
{
	WhyPlace place = WHY_PLAIN;
	if (response_err(response))
		place = verb == WHY_RCPT ? WHY_FAILURE : WHY_WHOLE;
	WhyEntry *entry = add(why, filter, WHY_ANSWER, place);
	if (entry == NULL)
		return;
	entry->result = (uint8_t)verb;
	entry->rcpt = rcpt;
	entry->response = response_ref(response);
}

/* The answer came from further up, or was noted in an earlier call: answers are counted, so it is
 * the same object. */
static bool
is_noted(const Why *why, const Response *response, uint32_t rcpt)
{
	for (guint i = why->entries->len; i > 0; i--) {
		const WhyEntry *entry = &g_array_index(why->entries, WhyEntry, i - 1);
		if (entry->response == response && entry->rcpt == rcpt)
			return true;
	}
	return false;
}

static void
add_rcpt_answers(Why *why, const WhyTurn *turn, WhyBaseFn *base, const void *arg)
{
	WhyFilter *own = &why->filters[turn->filter];
	const uint32_t count = (uint32_t)tx_rcpt_count(turn->down);
	uint32_t wanted = turn->down->rcpt_answers - turn->rcpts;
	if (own->places[WHY_PLAIN] >= WHY_ENTRIES_MAX &&
	    own->places[WHY_FAILURE] >= WHY_FAILURES_MAX) {
		own->lost += wanted;
		return;
	}
	bool all = true;
	for (uint32_t i = own->looked; i < count && wanted > 0; i++) {
		Response *response = tx_rcpt(turn->down, i)->response;
		all = all && response != NULL;
		own->looked = all ? i + 1 : own->looked;
		if (response == NULL)
			continue;
		uint32_t index = base(arg, i);
		if (is_noted(why, response, index))
			continue;
		add_answer(why, turn->filter, WHY_RCPT, response, index);
		wanted--;
	}
}

void
why_leave(Why *why, const WhyTurn *turn, WhyLeft left, WhyBaseFn *base, const void *arg)
{
	WhyFilter *own = &why->filters[turn->filter];
	const Tx *down = turn->down;
	Deadline now = clock_mono();
	own->busy += now - turn->began;
	own->left = left;
	if (left == WHY_WAITS)
		own->waits_since = now;
	if (down->mail_response != turn->mail)
		add_answer(why, turn->filter, WHY_MAIL, down->mail_response, WHY_EVERYBODY);
	if (down->rcpt_answers > turn->rcpts)
		add_rcpt_answers(why, turn, base, arg);
	if (down->data_response != turn->data)
		add_answer(why, turn->filter, WHY_DATA, down->data_response, WHY_EVERYBODY);
}
