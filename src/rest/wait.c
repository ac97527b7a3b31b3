/* SPDX-License-Identifier: Apache-2.0 */
/* GET: reading a transaction, now or when it has changed (behaviour spec 4.4). */
#include <string.h>

#include "base/text.h"
#include "rest/api_int.h"

#define WAIT_MAX_SEC 30
/* A client acts when nothing is in flight any more.  News before that is held this long, because
 * the rest of it mostly follows at once, and each answer costs the client a request. */
#define HOLD (5 * USEC_PER_MS)

bool
rest_etag_is(const char *etag, uint64_t version)
{
	size_t len = strlen(etag);
	if (len >= 2 && etag[0] == '"' && etag[len - 1] == '"') {
		etag++;
		len -= 2;
	}
	uint64_t value = 0;
	/* Only the spelling that we give out: "07" is another string than "7". */
	return text_parse_u64(etag, len, UINT64_MAX, &value) && value == version &&
	       (etag[0] != '0' || len == 1);
}

/* "" and absent: the longest; zero or less: none.  False when it is no whole number. */
static bool
parse_timeout(const char *text, int64_t *ret_seconds)
{
	uint64_t value = 0;
	if (text == NULL) {
		*ret_seconds = WAIT_MAX_SEC;
		return true;
	}
	bool minus = *text == '-';
	text += minus ? 1 : 0;
	if (!text_parse_u64(text, strlen(text), INT64_MAX, &value))
		return false;
	*ret_seconds = minus ? 0 : (int64_t)MIN(value, (uint64_t)WAIT_MAX_SEC);
	return true;
}

/* ---- waiting ---- */

static void
wait_unlink(RestCall *call)
{
	RestEntry *entry = call->entry;
	if (call->next != NULL)
		call->next->prev = call->prev;
	if (call->prev != NULL)
		call->prev->next = call->next;
	else
		entry->waiting = call->next;
	tx_unwatch(&call->watch);
	timer_clear(&call->timer);
	call->entry = NULL;
	call->waiting = false;
}

void
rest_wait_end(RestCall *call)
{
	k_assert(call->waiting);
	g_autoptr(Tx) tx = tx_ref(call->entry->tx);
	wait_unlink(call);
	if (tx->version != call->seen)
		rest_answer_tx(call, 200, tx);
	else
		rest_answer_etag(call, 304, call->if_none_match);
}

void
rest_wait_end_all(RestEntry *entry)
{
	while (entry->waiting != NULL)
		rest_wait_end(entry->waiting);
}

static void
on_timer(void *arg)
{
	rest_wait_end(arg);
}

static void
on_change(void *arg, Tx *tx)
{
	RestCall *call = arg;
	if (tx->version == call->seen)
		return; /* body bytes: no news for readers */
	if (tx->final_attempt_reason != NULL || tx->data_response != NULL || !tx_in_flight(tx)) {
		rest_wait_end(call);
	} else if (!call->held) {
		call->held = true;
		timer_set_at(&call->timer, MIN(call->until, clock_after(HOLD)));
	}
}

static void
wait_begin(RestCall *call, RestEntry *entry, int64_t seconds)
{
	call->entry = entry;
	call->waiting = true;
	call->seen = entry->tx->version;
	call->until = clock_after(seconds * USEC_PER_SEC);
	call->next = entry->waiting;
	if (call->next != NULL)
		call->next->prev = call;
	entry->waiting = call;
	tx_watch(entry->tx, &call->watch, on_change, call);
	timer_init(&call->timer, call->owner, on_timer, call);
	timer_set_at(&call->timer, call->until);
}

/* ---- reading ---- */

static void
on_loaded(void *arg, const RestVerdict *verdict, Tx *tx)
{
	RestCall *call = arg;
	if (!rest_call_may_see(call, verdict, tx))
		return;
	if (verdict->status != 200)
		rest_answer_verdict(call, verdict, "unknown tx");
	else if (call->if_none_match != NULL && rest_etag_is(call->if_none_match, tx->version))
		rest_answer_etag(call, 304, call->if_none_match);
	else
		rest_answer_tx(call, 200, tx);
}

void
rest_read(void *arg)
{
	RestCall *call = arg;
	RestHost *host = rest_call_host(call);
	RestEntry *entry = rest_table_entry(rest_call_table(call), call->id);
	int64_t seconds = 0;
	if (entry != NULL && !rest_call_may(call, entry->tx))
		return;
	if (entry == NULL) {
		host->load(host, call->owner, call->id, on_loaded, call);
	} else if (call->if_none_match == NULL) {
		rest_answer_tx(call, 200, entry->tx);
	} else if (!parse_timeout(call->request_timeout, &seconds)) {
		rest_answer_text(call, 400, "invalid request-timeout header");
	} else if (!rest_etag_is(call->if_none_match, entry->tx->version)) {
		rest_answer_tx(call, 200, entry->tx);
	} else if (seconds == 0 || atomic_load(&call->api->draining) ||
		   !host->is_active(host, entry->tx)) {
		rest_answer_etag(call, 304, call->if_none_match);
	} else {
		wait_begin(call, entry, seconds);
	}
}
