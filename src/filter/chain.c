/* SPDX-License-Identifier: Apache-2.0 */
#include "filter/chain.h"

#include <string.h>

#include "base/new.h"

/* The filters stand in slots.  A proxy's slot has a link: between its `down` and its `up` the
 * engine carries requests down and answers up.  The transactions between two links are shared by
 * the plain filters in a row.
 *
 *   base tx   slot 0   slot 1   link 0   up 0   slot 2   link 1   up 1   slot 3 (terminal)
 *
 * A walk is one pass over the slots.  `open` says whether envelope and body may go on; once a
 * filter keeps them back (WAIT, STOP), or the transaction is dead, only cancellation and heartbeats
 * pass. */

#define CONTROL  ((unsigned)(TX_NEW_CANCEL | TX_NEW_HEARTBEAT))
#define REQUESTS ((unsigned)(TX_NEW_REQUESTS & ~TX_NEW_RETRY))

typedef struct Link {
	Tx *down; /* borrowed */
	Tx *up;
	GArray *map;         /* guint32 by recipient of `up`: its index in `down` */
	guint looked;        /* recipients of `down` that were carried over or left out */
	uint64_t answers_at; /* up->version when its answers were taken last */
} Link;

typedef struct Slot {
	Filter filter;    /* first: a Filter* is a Slot* */
	Link *link;       /* NULL: plain */
	guint depth;      /* links above this filter */
	bool judged;      /* behind a FILTER_WHOLE_BODY */
	bool waiting;     /* it returned WAIT */
	bool stopped;     /* it returned STOP */
	bool resumed;     /* it called filter_resume */
	unsigned pending; /* what it was told when it returned WAIT, */
	TxMark offered;   /* and up to where */
} Slot;

struct Chain {
	const ChainConf *conf;
	const FilterEnv *env;
	Tx *tx;
	TxWatch watch;
	TxMark mark; /* of tx, at the last walk */
	Defer defer; /* the next walk */
	json_t *outputs;
	GPtrArray *unmet; /* const char*: tags of policies that rest */
	GArray *routed;   /* guint8 by recipient of `tx` */
	guint n_slots, n_links;
	Slot *slots;
	Link *links;
	bool failed;  /* filter_fail */
	bool beat;    /* chain_heartbeat */
	bool calling; /* inside a filter callback */
};

static void
chain_wake(Chain *chain)
{
	defer_queue(chain->tx->queue, &chain->defer);
}

static void
on_change(void *arg, Tx *tx)
{
	Chain *chain = arg;
	if ((tx_since(tx, &chain->mark) & REQUESTS) != 0)
		chain_wake(chain);
}

/* ---- links ---- */

static void
link_copy_control(Link *link, unsigned control)
{
	if ((control & TX_NEW_CANCEL) != 0)
		tx_cancel(link->up);
	if ((control & TX_NEW_HEARTBEAT) != 0)
		tx_heartbeat(link->up);
}

static void
link_copy_peers(Link *link)
{
	const Tx *down = link->down;
	Tx *up = link->up;
	if (down->remote_host != NULL && up->remote_host == NULL)
		tx_set_hosts(up, down->remote_host, NULL);
	if (down->local_host != NULL && up->local_host == NULL)
		tx_set_hosts(up, NULL, down->local_host);
	if (down->smtp_meta != NULL && up->smtp_meta == NULL)
		tx_set_smtp_meta(up, down->smtp_meta);
	if (down->sender_name != NULL && up->sender_name == NULL)
		tx_set_sender(up, down->sender_name, down->sender_tag);
}

/* Carries over what the filter has let pass: the requests up to `upto`.  Recipients that have an
 * answer are settled and stay behind. */
static void
link_copy(Link *link, const TxMark *upto, bool with_route)
{
	const Tx *down = link->down;
	Tx *up = link->up;
	link_copy_peers(link);
	if (with_route && down->route != NULL && up->route == NULL)
		tx_set_route(up, filter_route_copy(down->route));
	if ((upto->seen & TX_NEW_MAIL_FROM) != 0 && up->mail_from == NULL)
		tx_set_mail_from(up, down->mail_from);
	for (; link->looked < upto->rcpts; link->looked++) {
		const TxRcpt *rcpt = tx_rcpt(down, link->looked);
		if (rcpt->response != NULL)
			continue;
		tx_add_rcpt(up, rcpt->to);
		guint32 index = link->looked;
		g_array_append_val(link->map, index);
	}
}

static void
link_take_answers(Link *link)
{
	Tx *up = link->up;
	Tx *down = link->down;
	if (up->version == link->answers_at)
		return;
	link->answers_at = up->version;
	if (up->mail_response != NULL && down->mail_response == NULL)
		tx_answer_mail(down, response_ref(up->mail_response));
	for (guint i = 0; i < link->map->len && up->rcpt_answers > 0; i++) {
		Response *response = tx_rcpt(up, i)->response;
		guint32 index = g_array_index(link->map, guint32, i);
		if (response != NULL && tx_rcpt(down, index)->response == NULL)
			tx_answer_rcpt(down, index, response_ref(response));
	}
	if (up->data_response != NULL && down->data_response == NULL) {
		tx_set_handover(down, up->handover);
		tx_answer_data(down, response_ref(up->data_response));
	}
}

/* ---- the walk ---- */

/* Every recipient was refused here and none can be added: the next node need not hear of it, so
 * that nobody else will answer MAIL. */
static bool
is_refused(const Chain *chain, Tx *tx)
{
	size_t rcpts = tx_rcpt_count(tx);
	if (chain->conf->incremental || rcpts == 0 || tx->rcpt_answers < rcpts ||
	    tx_rcpts_accepted(tx) > 0)
		return false;
	if (tx->mail_from != NULL && tx->mail_response == NULL)
		tx_answer_mail(tx, response_new(250, "2.1.0 ok"));
	return true;
}

/* Whether it makes sense to go on with `tx`; answers what depends on a failure. */
static bool
is_live(const Chain *chain, Tx *tx)
{
	bool refused = is_refused(chain, tx);
	return tx_check_preconditions(tx) && !refused;
}

static unsigned
slot_fresh(const Slot *slot)
{
	return tx_since(slot->filter.down, &slot->filter.seen) & REQUESTS;
}

static FilterResult
slot_call(Chain *chain, Slot *slot, unsigned news)
{
	chain->calling = true;
	FilterResult result = slot->filter.kind->update(&slot->filter, news);
	chain->calling = false;
	return result;
}

/* Cancellation and heartbeats count as seen, everything else is still new. */
static void
slot_mark_control(Slot *slot, unsigned control)
{
	TxMark *seen = &slot->filter.seen;
	seen->seen |= control & TX_NEW_CANCEL;
	seen->heartbeats = slot->filter.down->heartbeats;
}

/* The filter has handled what it was offered.  True when it goes on behind it. */
static bool
slot_pass(Chain *chain, Slot *slot, FilterResult result, const TxMark *upto)
{
	const uint32_t heartbeats = slot->filter.down->heartbeats;
	slot->waiting = false;
	slot->stopped = result == FILTER_STOP;
	slot->filter.seen = *upto;
	slot->filter.seen.heartbeats = heartbeats;
	if (chain->failed || !is_live(chain, slot->filter.down) || slot->stopped)
		return false;
	if (slot->link == NULL)
		return true;
	link_copy(slot->link, upto, (slot->filter.kind->flags & FILTER_ROUTES) == 0);
	return is_live(chain, slot->link->up);
}

/* A growing body is not news behind a filter that judges the whole. */
static void
hide_body(TxMark *upto, const TxMark *seen)
{
	upto->seen = (upto->seen & ~(unsigned)TX_NEW_BODY) | (seen->seen & TX_NEW_BODY);
	upto->body_len = seen->body_len;
	upto->body_notes = seen->body_notes;
}

/* One filter's turn; `beat`: TX_NEW_HEARTBEAT or 0.  Returns `open` for the next one. */
static bool
slot_step(Chain *chain, Slot *slot, bool open, unsigned beat)
{
	const Tx *down = slot->filter.down;
	unsigned fresh = slot_fresh(slot) | beat;
	if (fresh == 0 && open && !slot->waiting && !slot->resumed) {
		/* what has changed since is none of its business */
		slot->filter.seen.version = down->version;
		slot->filter.seen.body_notes = down->body_notes;
		return !slot->stopped;
	}
	bool hide = slot->judged && (fresh & TX_NEW_BODY_FINAL) == 0;
	unsigned control = fresh & CONTROL;
	bool resumed = slot->resumed && !chain->tx->cancelled;
	bool ready = !slot->waiting || resumed;
	bool all = open && ready; /* everything that is new may be shown */
	unsigned news = control;
	TxMark upto = slot->filter.seen;
	if (all) {
		news = fresh;
		tx_mark(down, &upto);
		if (hide && (fresh & TX_NEW_BODY) != 0) {
			news &= ~(unsigned)TX_NEW_BODY;
			hide_body(&upto, &slot->filter.seen);
		}
	} else if (ready && slot->waiting) {
		news |= slot->pending;
		upto = slot->offered;
	}
	slot->resumed = false;
	bool counts = resumed || (news & ~CONTROL) != 0;
	if (news == 0 && !counts) {
		if (all)
			slot->filter.seen = upto;
		return all && !slot->stopped;
	}
	FilterResult result = slot_call(chain, slot, news);
	if (slot->link != NULL)
		link_copy_control(slot->link, control);
	if (!counts || result == FILTER_WAIT) {
		slot_mark_control(slot, control);
		if (!counts)
			return all && !slot->stopped && !chain->failed;
		slot->waiting = true;
		slot->pending = news & ~CONTROL;
		slot->offered = upto;
		return false;
	}
	return slot_pass(chain, slot, result, &upto) && open;
}

static void
chain_settle(Chain *chain)
{
	for (guint i = chain->n_links; i > 0; i--)
		link_take_answers(&chain->links[i - 1]);
	if (!chain->tx->cancelled && !chain->failed) {
		is_live(chain, chain->tx);
		return;
	}
	g_autoptr(Response) response =
		chain->tx->cancelled
			? response_new(550, "cancelled")
			: response_new(450,
				       "internal error: OutputHandler failed to populate response");
	tx_fill_in_flight(chain->tx, response);
}

static void
chain_walk(void *arg)
{
	Chain *chain = arg;
	Tx *tx = chain->tx;
	unsigned beat = chain->beat ? TX_NEW_HEARTBEAT : 0;
	chain->beat = false;
	if (chain->unmet != NULL && (tx_since(tx, &chain->mark) & REQUESTS) != 0)
		g_ptr_array_set_size(chain->unmet, 0);
	tx_mark(tx, &chain->mark);
	bool open = !tx->cancelled && !chain->failed && is_live(chain, tx);
	for (guint i = 0; i < chain->n_slots; i++)
		open = slot_step(chain, &chain->slots[i], open, beat);
	chain_settle(chain);
}

/* ---- life ---- */

#define ALIGN16(size) (((size) + 15) & ~(size_t)15)

static void
slot_init(Chain *chain, guint i, char *state, Tx *down)
{
	Slot *slot = &chain->slots[i];
	const FilterConf *conf = g_ptr_array_index(chain->conf->filters, i);
	slot->depth = chain->n_links;
	if (i > 0) {
		const Slot *before = &chain->slots[i - 1];
		slot->judged = before->judged ||
			       (before->filter.kind->flags & FILTER_WHOLE_BODY) != 0;
	}
	slot->filter.kind = conf->kind;
	slot->filter.conf = conf->conf;
	slot->filter.state = conf->kind->state_size > 0 ? state : NULL;
	slot->filter.chain = chain;
	slot->filter.down = down;
	slot->filter.up = down;
	if ((conf->kind->flags & FILTER_PROXY) == 0)
		return;
	Link *link = &chain->links[chain->n_links++];
	link->down = down;
	link->up = slot->filter.up = tx_new(chain->tx->queue);
	link->map = g_array_new(FALSE, FALSE, sizeof(guint32));
	slot->link = link;
}

Chain *
chain_new(const ChainConf *conf, Tx *tx, const FilterEnv *env)
{
	guint n = conf->filters->len;
	guint proxies = 0;
	size_t states = 0;
	for (guint i = 0; i < n; i++) {
		const FilterConf *filter = g_ptr_array_index(conf->filters, i);
		proxies += (filter->kind->flags & FILTER_PROXY) != 0;
		states += ALIGN16(filter->kind->state_size);
	}
	size_t head = ALIGN16(sizeof(Chain)) + ALIGN16(n * sizeof(Slot)) +
		      ALIGN16(proxies * sizeof(Link));
	char *block = k_alloc0(head + states);
	Chain *chain = (void *)block;
	chain->conf = conf;
	chain->env = env;
	chain->tx = tx_ref(tx);
	chain->n_slots = n;
	chain->slots = (void *)(block + ALIGN16(sizeof(Chain)));
	chain->links = (void *)((char *)chain->slots + ALIGN16(n * sizeof(Slot)));
	char *state = block + head;
	Tx *down = tx;
	for (guint i = 0; i < n; i++) {
		slot_init(chain, i, state, down);
		down = chain->slots[i].filter.up;
		state += ALIGN16(chain->slots[i].filter.kind->state_size);
	}
	for (guint i = 0; i < n; i++) {
		Filter *filter = &chain->slots[i].filter;
		if (filter->kind->open != NULL)
			filter->kind->open(filter);
	}
	defer_init(&chain->defer, chain_walk, chain);
	tx_watch(tx, &chain->watch, on_change, chain);
	chain_wake(chain);
	return chain;
}

void
chain_free(Chain *chain)
{
	if (chain == NULL)
		return;
	k_assert_for(!chain->calling, chain->conf->name);
	tx_unwatch(&chain->watch);
	for (guint i = chain->n_slots; i > 0; i--) {
		Filter *filter = &chain->slots[i - 1].filter;
		if (filter->kind->close != NULL)
			filter->kind->close(filter);
	}
	defer_cancel(&chain->defer);
	for (guint i = 0; i < chain->n_links; i++) {
		tx_unref(chain->links[i].up);
		g_array_unref(chain->links[i].map);
	}
	json_decref(chain->outputs);
	if (chain->unmet != NULL)
		g_ptr_array_unref(chain->unmet);
	if (chain->routed != NULL)
		g_array_unref(chain->routed);
	tx_unref(chain->tx);
	g_free(chain);
}

void
chain_heartbeat(Chain *chain)
{
	chain->beat = true;
	chain_wake(chain);
}

bool
chain_is_waiting(const Chain *chain)
{
	for (guint i = 0; i < chain->n_slots; i++) {
		if (chain->slots[i].waiting)
			return true;
	}
	return false;
}

json_t *
chain_outputs(const Chain *chain)
{
	return chain->outputs;
}

/* ---- for filters ---- */

const FilterEnv *
filter_env(const Filter *filter)
{
	return filter->chain->env;
}

void
filter_resume(Filter *filter)
{
	((Slot *)filter)->resumed = true;
	chain_wake(filter->chain);
}

void
filter_set_output(Filter *filter, json_t *output)
{
	Chain *chain = filter->chain;
	const char *name = filter->kind->output_name;
	k_assert_for(name != NULL, filter->kind->name);
	if (chain->outputs == NULL)
		chain->outputs = json_object();
	json_object_set(chain->outputs, name, output);
	tx_set_filter_output(chain->tx, name, output);
}

json_t *
filter_get_output(const Filter *filter, const char *output_name)
{
	return json_object_get(filter->chain->outputs, output_name);
}

void
filter_fail(Filter *filter, const char *why)
{
	Chain *chain = filter->chain;
	chain->failed = true;
	log_error(&chain->env->log, "filter.failed", LOG_S("chain", chain->conf->name),
		  LOG_S("filter", filter->kind->name), LOG_S("error", why));
	chain_wake(chain);
}

void
filter_pass_body(Filter *filter, unsigned news)
{
	if ((news & (TX_NEW_BODY | TX_NEW_BODY_FINAL)) == 0)
		return;
	Tx *up = filter->up;
	if (up->body == NULL)
		tx_set_body(up, filter->down->body);
	else
		tx_note_body(up);
}

size_t
filter_base_rcpt(const Filter *filter, size_t index)
{
	const Slot *slot = (const Slot *)filter;
	for (guint i = slot->depth; i > 0; i--) {
		const GArray *map = filter->chain->links[i - 1].map;
		k_assert_for(index < map->len, filter->kind->name);
		index = g_array_index(map, guint32, index);
	}
	return index;
}

bool
filter_rcpt_routed(const Filter *filter, size_t index)
{
	const GArray *routed = filter->chain->routed;
	size_t base = filter_base_rcpt(filter, index);
	return routed != NULL && base < routed->len && g_array_index(routed, guint8, base) != 0;
}

void
filter_set_rcpt_routed(Filter *filter, size_t index)
{
	Chain *chain = filter->chain;
	size_t base = filter_base_rcpt(filter, index);
	if (chain->routed == NULL)
		chain->routed = g_array_new(FALSE, TRUE, sizeof(guint8));
	if (base >= chain->routed->len)
		g_array_set_size(chain->routed, (guint)base + 1);
	g_array_index(chain->routed, guint8, base) = 1;
}

bool
filter_tag_is_unmet(const Filter *filter, const char *tag)
{
	const GPtrArray *unmet = filter->chain->unmet;
	for (guint i = 0; unmet != NULL && i < unmet->len; i++) {
		if (strcmp(g_ptr_array_index(unmet, i), tag) == 0)
			return true;
	}
	return false;
}

void
filter_set_tag_unmet(Filter *filter, const char *tag)
{
	Chain *chain = filter->chain;
	if (chain->unmet == NULL)
		chain->unmet = g_ptr_array_new();
	if (!filter_tag_is_unmet(filter, tag))
		g_ptr_array_add(chain->unmet, (gpointer)tag);
}

static gpointer
host_port_dup(gconstpointer hp, gpointer unused)
{
	(void)unused;
	return host_port_copy(hp);
}

TxRoute *
filter_route_copy(const TxRoute *route)
{
	TxRoute *copy = tx_route_new();
	copy->url = g_strdup(route->url);
	copy->sender = g_strdup(route->sender);
	copy->tag = g_strdup(route->tag);
	g_ptr_array_extend(copy->hosts, route->hosts, host_port_dup, NULL);
	copy->resolved = route->resolved;
	copy->fault = route->fault;
	copy->send_filter_output = route->send_filter_output;
	copy->receive_parsing = route->receive_parsing;
	copy->max_inline = route->max_inline;
	return copy;
}
