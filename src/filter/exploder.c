/* SPDX-License-Identifier: Apache-2.0 */
/* The end of every chain that faces SMTP (behaviour spec section 13): one transaction per recipient
 * into our own router, and one answer made of theirs.
 *
 * A recipient:  ASKING --2xx, or msa and temporary--> ACCEPTED --> (verdict on the message)
 *                  `-----any other answer---------> RELEASED <---- once the message is answered
 *
 * "Upgrading" makes a temporary failure ours: retries and bounces are enabled on the recipient's
 * transaction, and the 250 is given only after the router has it on disk (tx->durable). */
#include "base/clock.h"
#include "base/new.h"
#include "filter/kinds.h"

#define STORE_TIMEOUT (30 * USEC_PER_SEC) /* for the router's word after an upgrade */

#define RCPT_STORED   "RCPT ok (AsyncFilterWrapper store&forward)"
#define DATA_STORED   "DATA ok (AsyncFilterWrapper store&forward)"
#define MIXED_STORED  "DATA ok (Exploder store&forward)"
#define MAIL_FAILED   "RCPT failed precondition MAIL (AsyncFilterWrapper)"
#define RCPT_FAILED   "DATA failed precondition RCPT (AsyncFilterWrapper)"
#define UPSTREAM_SLOW "upstream timeout (AsyncFilterWrapper)"
#define STORE_REFUSED "4.3.1 message cannot be stored for later delivery"

typedef struct ExploderConf {
	bool msa;
	Usec rcpt_timeout, data_timeout;
} ExploderConf;

typedef enum RcptState { ASKING, ACCEPTED, RELEASED } RcptState;

typedef struct Rcpt {
	Filter *filter;
	size_t index; /* in down */
	Tx *tx;
	TxPort *port;
	TxWatch watch;
	RcptState state;
	Deadline answer_by; /* ASKING; later of the router's word while storing */
	bool upgraded;      /* accepted although the next hop has not */
	bool was_failed;    /* for good, before it was asked to store: a bounce is wanted */
	bool storing;       /* retries were enabled, the router's word is awaited */
	bool refused;       /* the router could not take it over */
	Response *fallback; /* what to answer then */
	Response *verdict;  /* on the message; NULL: not known yet */
} Rcpt;

typedef struct Exploder {
	GPtrArray *rcpts; /* Rcpt* */
	size_t taken;     /* recipients of down */
	bool body_seen, body_final;
	bool mixed; /* answers of both kinds: the failed ones are being stored */
	Deadline data_by;
	Timer timer;
} Exploder;

/* ---- one recipient ---- */

static void
rcpt_release(Rcpt *rcpt)
{
	rcpt->state = RELEASED;
	tx_unwatch(&rcpt->watch);
	tx_port_stop(g_steal_pointer(&rcpt->port));
	g_clear_pointer(&rcpt->tx, tx_unref);
}

static void
rcpt_free(void *data)
{
	Rcpt *rcpt = data;
	rcpt_release(rcpt);
	response_unref(rcpt->fallback);
	response_unref(rcpt->verdict);
	g_free(rcpt);
}

static void
on_upstream(void *arg, Tx *tx)
{
	(void)tx;
	filter_resume(((Rcpt *)arg)->filter);
}

static Tx *
rcpt_tx_new(const Tx *down, Mailbox *to)
{
	Tx *tx = tx_new(down->queue);
	tx_set_hosts(tx, down->remote_host, down->local_host);
	if (down->smtp_meta != NULL)
		tx_set_smtp_meta(tx, down->smtp_meta);
	if (down->mail_from != NULL)
		tx_set_mail_from(tx, down->mail_from);
	tx_add_rcpt(tx, to);
	return tx;
}

static void
rcpt_start(Filter *filter, size_t index, const SenderConf *sender)
{
	Exploder *exploder = filter->state;
	const ExploderConf *conf = filter->conf;
	TxPorts *ports = filter_env(filter)->ports;
	Tx *down = filter->down;
	Rcpt *rcpt = k_new0(Rcpt);
	rcpt->filter = filter;
	rcpt->index = index;
	rcpt->tx = rcpt_tx_new(down, tx_rcpt(down, index)->to);
	g_ptr_array_add(exploder->rcpts, rcpt);
	const char *tag = sender->upstream_tag != NULL ? sender->upstream_tag : down->sender_tag;
	rcpt->port = ports->open_sender(ports, sender->upstream_sender, tag, rcpt->tx);
	if (rcpt->port == NULL) {
		tx_answer_rcpt(down, index, response_new(451, "4.5.3 too many recipients"));
		rcpt_release(rcpt);
		return;
	}
	if (exploder->body_seen)
		tx_set_body(rcpt->tx, down->body);
	rcpt->answer_by = clock_after(conf->rcpt_timeout);
	tx_watch(rcpt->tx, &rcpt->watch, on_upstream, rcpt);
}

/* Does the recipient's answer say no more than that MAIL has failed? */
static bool
is_echo(const Response *response)
{
	return response != NULL && response->code == 503;
}

/* What MAIL and RCPT upstream come to at our RCPT; NULL: not known yet.  A failed MAIL decides the
 * class, whatever the next node put into the recipient's answer behind it. */
static Response *
rcpt_answer(const Rcpt *rcpt)
{
	Response *mail = rcpt->tx->mail_response;
	Response *response = tx_rcpt(rcpt->tx, 0)->response;
	if (response_err(mail) && rcpt->tx->durable_refused)
		return response_ref(mail); /* our own router: its reason is worth telling */
	if (response_perm(mail) && is_echo(response))
		return response_ref(mail); /* why the sender cannot send */
	if (response_err(mail)) {
		bool verbatim = response_perm(mail) && response_perm(response);
		return verbatim ? response_ref(response) : response_new(mail->code, MAIL_FAILED);
	}
	if (response != NULL)
		return response_ref(response);
	if (clock_passed(rcpt->answer_by))
		return response_new(450, UPSTREAM_SLOW);
	return NULL;
}

static void
rcpt_ask(Rcpt *rcpt)
{
	const ExploderConf *conf = rcpt->filter->conf;
	g_autoptr(Response) response = rcpt_answer(rcpt);
	if (response == NULL)
		return;
	bool ok = response_ok(response);
	if (!ok && conf->msa && !response_perm(response) && !rcpt->tx->durable_refused) {
		rcpt->upgraded = true;
		ok = true;
		response_unref(response);
		response = response_new(250, RCPT_STORED);
	}
	tx_answer_rcpt(rcpt->filter->down, rcpt->index, response_ref(response));
	if (ok)
		rcpt->state = ACCEPTED;
	else
		rcpt_release(rcpt);
}

/* ---- the message ---- */

static bool
envelope_failed(const Tx *tx)
{
	return response_perm(tx->mail_response) ||
	       (!response_err(tx->mail_response) && response_perm(tx_rcpt(tx, 0)->response));
}

static bool
rcpt_failed_for_good(const Tx *tx)
{
	return envelope_failed(tx) ||
	       (!response_err(tx->mail_response) && response_perm(tx->data_response));
}

/* Makes it ours; `fallback` (moved) is the answer when the router cannot. */
static void
rcpt_store(Rcpt *rcpt, Response *fallback)
{
	rcpt->storing = true;
	rcpt->was_failed = rcpt_failed_for_good(rcpt->tx);
	rcpt->fallback = fallback;
	rcpt->answer_by = clock_after(STORE_TIMEOUT);
	tx_enable_notification(rcpt->tx, NULL);
	tx_enable_retry(rcpt->tx, NULL);
}

static void
rcpt_check_stored(Rcpt *rcpt)
{
	const Tx *tx = rcpt->tx;
	if (tx->durable || response_ok(tx->data_response)) {
		rcpt->verdict = response_new(250, DATA_STORED);
	} else if (!rcpt->was_failed && rcpt_failed_for_good(tx)) {
		rcpt->verdict = response_perm(tx->data_response) ? response_ref(tx->data_response)
								 : response_new(550, RCPT_FAILED);
	} else if (tx->durable_refused || clock_passed(rcpt->answer_by)) {
		rcpt->refused = true;
		rcpt->verdict = g_steal_pointer(&rcpt->fallback);
	}
}

/* Finds the recipient's verdict, or what has to happen before. */
static void
rcpt_judge(Rcpt *rcpt, bool late)
{
	const ExploderConf *conf = rcpt->filter->conf;
	Response *data = rcpt->tx->data_response;
	if (rcpt->storing) {
		rcpt_check_stored(rcpt);
	} else if (response_ok(data)) {
		rcpt->verdict = response_ref(data);
	} else if (rcpt->upgraded && envelope_failed(rcpt->tx)) {
		/* Accepted on our own account and refused for good since. */
		rcpt->verdict = response_new(550, RCPT_FAILED);
	} else if (response_perm(data) && !rcpt->upgraded) {
		rcpt->verdict = response_ref(data);
	} else if (rcpt->upgraded) {
		rcpt_store(rcpt, response_new(452, STORE_REFUSED));
	} else if (data != NULL && conf->msa) {
		rcpt_store(rcpt, response_ref(data));
	} else if (data != NULL) {
		rcpt->verdict = response_ref(data);
	} else if (late && conf->msa) {
		rcpt_store(rcpt, response_new(452, STORE_REFUSED));
	} else if (late) {
		rcpt->verdict = response_new(450, UPSTREAM_SLOW);
	}
}

static void
answer_data(Filter *filter, Response *response)
{
	Exploder *exploder = filter->state;
	tx_answer_data(filter->down, response);
	for (guint i = 0; i < exploder->rcpts->len; i++)
		rcpt_release(g_ptr_array_index(exploder->rcpts, i));
}

static void
answer_nobody(Filter *filter)
{
	bool temporary = false;
	for (size_t i = 0; i < tx_rcpt_count(filter->down); i++)
		temporary |= response_temp(tx_rcpt(filter->down, i)->response);
	answer_data(filter, response_new(temporary ? 450 : 550, RCPT_FAILED));
}

/* Is the router's word on a recipient that is to be stored still awaited? */
static bool
rcpt_is_storing(const Rcpt *rcpt)
{
	return rcpt->storing && !rcpt->tx->durable && !rcpt->refused && !response_ok(rcpt->verdict);
}

/* Some recipients have the message and others have not: those are stored, so that the client does
 * not send it again to all.  One that failed for good while it was being stored counts as stored
 * once its row is there, from which the notification follows.  False: that is under way. */
static bool
store_failed(const Exploder *exploder)
{
	bool done = true;
	for (guint i = 0; i < exploder->rcpts->len; i++) {
		Rcpt *rcpt = g_ptr_array_index(exploder->rcpts, i);
		if (rcpt->state != ACCEPTED || response_ok(rcpt->verdict))
			continue;
		if (!rcpt->storing)
			rcpt_store(rcpt, g_steal_pointer(&rcpt->verdict));
		else if (rcpt_is_storing(rcpt))
			rcpt->refused = rcpt->tx->durable_refused || clock_passed(rcpt->answer_by);
		done &= !rcpt_is_storing(rcpt);
	}
	return done;
}

/* The failure of a recipient that could not be stored; a temporary one first. */
static const Response *
refused_response(const Exploder *exploder)
{
	const Response *found = NULL;
	for (guint i = 0; i < exploder->rcpts->len; i++) {
		const Rcpt *rcpt = g_ptr_array_index(exploder->rcpts, i);
		if (rcpt->state == ACCEPTED && rcpt->refused &&
		    (found == NULL || !response_temp(found)))
			found = rcpt->verdict;
	}
	return found;
}

static void
answer_mixed(Filter *filter)
{
	Exploder *exploder = filter->state;
	exploder->mixed = true;
	if (!store_failed(exploder))
		return;
	const Response *refused = refused_response(exploder);
	if (refused != NULL)
		answer_data(filter, response_new(refused->code, refused->message));
	else
		answer_data(filter, response_new(250, MIXED_STORED));
}

/* All accepted recipients have a verdict. */
static void
answer_combined(Filter *filter)
{
	const Exploder *exploder = filter->state;
	const Rcpt *first = NULL;
	bool same = true;
	for (guint i = 0; i < exploder->rcpts->len; i++) {
		const Rcpt *rcpt = g_ptr_array_index(exploder->rcpts, i);
		if (rcpt->state != ACCEPTED)
			continue;
		if (first == NULL)
			first = rcpt;
		same &= rcpt->verdict->code / 100 == first->verdict->code / 100;
	}
	if (first == NULL)
		answer_nobody(filter);
	else if (tx_rcpt_count(filter->down) == 1)
		answer_data(filter, response_ref(first->verdict));
	else if (exploder->mixed || !same)
		answer_mixed(filter);
	else
		answer_data(filter,
			    response_newf(first->verdict->code, "%s (Exploder same response)",
					  first->verdict->message));
}

static void
step_data(Filter *filter)
{
	Exploder *exploder = filter->state;
	const ExploderConf *conf = filter->conf;
	if (!exploder->body_final || filter->down->data_response != NULL)
		return;
	for (guint i = 0; i < exploder->rcpts->len; i++) {
		if (((Rcpt *)g_ptr_array_index(exploder->rcpts, i))->state == ASKING)
			return;
	}
	if (exploder->data_by == 0)
		exploder->data_by = clock_after(conf->data_timeout);
	bool late = clock_passed(exploder->data_by);
	bool complete = true;
	for (guint i = 0; i < exploder->rcpts->len; i++) {
		Rcpt *rcpt = g_ptr_array_index(exploder->rcpts, i);
		if (rcpt->state != ACCEPTED)
			continue;
		if (rcpt->verdict == NULL)
			rcpt_judge(rcpt, late);
		complete &= rcpt->verdict != NULL;
	}
	if (complete)
		answer_combined(filter);
}

/* ---- news ---- */

static void
take_rcpts(Filter *filter)
{
	Exploder *exploder = filter->state;
	Tx *down = filter->down;
	const ConfModel *model = filter_env(filter)->model;
	const SenderConf *sender = NULL;
	if (down->sender_name != NULL)
		sender = conf_model_sender(model, down->sender_name, down->sender_tag);
	if (sender == NULL || sender->upstream_sender == NULL) {
		filter_fail(filter, "the sender of the transaction is not in the configuration");
		return;
	}
	for (; exploder->taken < tx_rcpt_count(down); exploder->taken++) {
		if (tx_rcpt(down, exploder->taken)->response == NULL)
			rcpt_start(filter, exploder->taken, sender);
	}
}

static void
give_body(Filter *filter)
{
	Exploder *exploder = filter->state;
	exploder->body_seen = true;
	for (guint i = 0; i < exploder->rcpts->len; i++) {
		Tx *tx = ((Rcpt *)g_ptr_array_index(exploder->rcpts, i))->tx;
		if (tx == NULL)
			continue;
		if (tx->body == NULL)
			tx_set_body(tx, filter->down->body);
		else
			tx_note_body(tx);
	}
}

/* Recipients whose message has been judged keep it; once our client has its answer there are none
 * left here. */
static void
pass_control(const Exploder *exploder, unsigned news)
{
	for (guint i = 0; i < exploder->rcpts->len; i++) {
		const Rcpt *rcpt = g_ptr_array_index(exploder->rcpts, i);
		if (rcpt->tx == NULL || rcpt->tx->data_response != NULL)
			continue;
		if ((news & TX_NEW_CANCEL) != 0)
			tx_cancel(rcpt->tx);
		if ((news & TX_NEW_HEARTBEAT) != 0)
			tx_heartbeat(rcpt->tx);
	}
}

static Deadline
earlier(Deadline a, Deadline b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

static void
arm(Filter *filter)
{
	Exploder *exploder = filter->state;
	Deadline next = 0;
	if (filter->down->data_response == NULL && !filter->down->cancelled) {
		for (guint i = 0; i < exploder->rcpts->len; i++) {
			const Rcpt *rcpt = g_ptr_array_index(exploder->rcpts, i);
			bool storing = rcpt->state == ACCEPTED && rcpt_is_storing(rcpt) &&
				       (rcpt->verdict == NULL || exploder->mixed);
			if (rcpt->state == ASKING || storing)
				next = earlier(next, rcpt->answer_by);
		}
		if (!clock_passed(exploder->data_by))
			next = earlier(next, exploder->data_by);
	}
	timer_set_at(&exploder->timer, next);
}

static FilterResult
exploder_update(Filter *filter, unsigned news)
{
	Exploder *exploder = filter->state;
	if ((news & (TX_NEW_CANCEL | TX_NEW_HEARTBEAT)) != 0)
		pass_control(exploder, news);
	if ((news & TX_NEW_MAIL_FROM) != 0)
		tx_answer_mail(filter->down, response_new(250, "MAIL ok (exploder noop)"));
	if ((news & TX_NEW_RCPT) != 0)
		take_rcpts(filter);
	if ((news & (TX_NEW_BODY | TX_NEW_BODY_FINAL)) != 0)
		give_body(filter);
	if ((news & TX_NEW_BODY_FINAL) != 0)
		exploder->body_final = true;
	for (guint i = 0; i < exploder->rcpts->len && !filter->down->cancelled; i++) {
		Rcpt *rcpt = g_ptr_array_index(exploder->rcpts, i);
		if (rcpt->state == ASKING)
			rcpt_ask(rcpt);
	}
	if (!filter->down->cancelled)
		step_data(filter);
	arm(filter);
	return FILTER_CONTINUE;
}

static void
on_timer(void *arg)
{
	filter_resume(arg);
}

static void
exploder_open(Filter *filter)
{
	Exploder *exploder = filter->state;
	exploder->rcpts = g_ptr_array_new_with_free_func(rcpt_free);
	timer_init(&exploder->timer, filter_env(filter)->worker, on_timer, filter);
}

static void
exploder_close(Filter *filter)
{
	Exploder *exploder = filter->state;
	timer_clear(&exploder->timer);
	g_clear_pointer(&exploder->rcpts, g_ptr_array_unref);
}

/* ---- configuration ---- */

static void
exploder_conf_check(void *data, const YamlNode *node, const ConfModel *model, ConfReport *report)
{
	(void)node;
	(void)model;
	(void)report;
	ExploderConf *conf = data;
	if (conf->rcpt_timeout == 0)
		conf->rcpt_timeout = (conf->msa ? 5 : 30) * USEC_PER_SEC;
	if (conf->data_timeout == 0)
		conf->data_timeout = (conf->msa ? 30 : 300) * USEC_PER_SEC;
}

static const ConfKey exploder_keys[] = {
	{.name = "msa",
	 .type = CONF_BOOL,
	 .offset = CONF_KEY(ExploderConf, msa),
	 .doc = "Submission: temporary failures are accepted and retried by us (store and forward)."},
	{.name = "rcpt_timeout",
	 .type = CONF_SECONDS,
	 .offset = CONF_KEY(ExploderConf, rcpt_timeout),
	 .min = 0,
	 .max = 86400,
	 .doc = "Seconds to wait for the next hop's answer to a recipient; 0: 30, with msa 5."},
	{.name = "data_timeout",
	 .type = CONF_SECONDS,
	 .offset = CONF_KEY(ExploderConf, data_timeout),
	 .min = 0,
	 .max = 86400,
	 .doc = "Seconds to wait for the next hops' answers to the message; 0: 300, with msa 30."},
	{.name = "output_chain",
	 .type = CONF_IGNORED,
	 .doc = "Without effect: the sender's upstream_sender and upstream_tag decide."},
	{0},
};

const FilterKind filter_exploder_kind = {
	.name = "exploder",
	.doc = "Ends a chain that faces SMTP: starts one transaction per recipient and answers for "
	       "all of them.",
	.flags = FILTER_TERMINAL | FILTER_INCREMENTAL,
	.conf_size = sizeof(ExploderConf),
	.keys = exploder_keys,
	.conf_check = exploder_conf_check,
	.state_size = sizeof(Exploder),
	.open = exploder_open,
	.update = exploder_update,
	.close = exploder_close,
	.example = "- filter: exploder\n"
		   "  msa: yes\n"
		   "  rcpt_timeout: 5\n"
		   "  data_timeout: 30\n",
};
