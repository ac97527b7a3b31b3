/* SPDX-License-Identifier: Apache-2.0 */
#include "filter/hook.h"

#include "filter/chain.h"

#define FAILED_TEXT "4.3.0 a check failed here; please try again later"

const Blob *
hook_message(const Tx *tx, bool is_final)
{
	return is_final && tx->body != NULL && tx_body_is_final(tx->body) ? tx->body->raw : NULL;
}

static PluginView
event_view(Filter *filter, PluginEvent event)
{
	const HookConf *conf = filter->conf;
	HookState *state = filter->state;
	if (state->fields == NULL)
		state->fields = g_string_new(NULL);
	return (PluginView){.event = event,
			    .tx = filter->down,
			    .signals = chain_outputs(filter->chain),
			    .log = &filter_env(filter)->log,
			    .name = conf->name,
			    .fields = state->fields,
			    .n_fields = &state->n_fields};
}

PluginView
hook_match_view(MatchCtx *ctx, const char *name)
{
	const Filter *filter = ctx->filter;
	const Tx *tx = filter->down;
	return (PluginView){.event = PLUGIN_MATCH,
			    .tx = tx,
			    .rcpt = ctx->per_rcpt ? tx_rcpt(tx, ctx->rcpt)->to->addr : NULL,
			    .message = hook_message(tx, ctx->body_final),
			    .signals = chain_outputs(filter->chain),
			    .log = &filter_env(filter)->log,
			    .name = name};
}

/* The answer that the event got, owned by the caller; NULL: go on. */
static Response *
run(Filter *filter, PluginView *view)
{
	const HookConf *conf = filter->conf;
	g_autoptr(GError) error = NULL;
	if (conf->call(filter, view, &error))
		return view->answer != NULL ? response_ref(view->answer) : NULL;
	log_error(view->log, "filter.hook_failed", LOG_S("filter", filter->kind->name),
		  LOG_S("code", conf->name), LOG_S("error", error->message));
	return response_new(451, FAILED_TEXT);
}

static void
on_mail(Filter *filter)
{
	HookState *state = filter->state;
	PluginView view = event_view(filter, PLUGIN_MAIL);
	state->mail_done = true;
	state->rejected = run(filter, &view);
	plugin_view_clear(&view);
}

static void
on_rcpts(Filter *filter)
{
	HookState *state = filter->state;
	Tx *down = filter->down;
	for (; state->looked < tx_rcpt_count(down); state->looked++) {
		const TxRcpt *rcpt = tx_rcpt(down, state->looked);
		if (rcpt->response != NULL)
			continue;
		PluginView view = event_view(filter, PLUGIN_RCPT);
		view.rcpt = rcpt->to->addr;
		Response *answer = run(filter, &view);
		if (answer != NULL)
			tx_answer_rcpt(down, state->looked, answer);
		plugin_view_clear(&view);
	}
}

static void
on_message(Filter *filter)
{
	HookState *state = filter->state;
	PluginView view = event_view(filter, PLUGIN_MESSAGE);
	view.message = hook_message(filter->down, true);
	state->message_done = true;
	if (view.message != NULL)
		state->rejected = run(filter, &view);
	plugin_view_clear(&view);
}

/* The body goes on, behind the fields that were added so far. */
static void
give_body(Filter *filter, unsigned news)
{
	const HookState *state = filter->state;
	const TxBody *body = filter->down->body;
	if (filter->up->body != NULL) {
		tx_note_body(filter->up); /* the view has grown */
		return;
	}
	if (state->n_fields == 0 || body->raw == NULL) {
		filter_pass_body(filter, news);
		return;
	}
	g_autoptr(Blob) view = blob_new_prefixed(state->fields->str, state->fields->len, body->raw);
	g_autoptr(TxBody) made = body->builder != NULL ? tx_body_new_builder(body->builder, view)
						       : tx_body_new_raw(view);
	for (guint i = 0; i < body->parts->len; i++) {
		const TxPart *part = g_ptr_array_index(body->parts, i);
		tx_body_add_part(made, part->id, part->blob);
	}
	tx_set_body(filter->up, made);
}

static void
on_body(Filter *filter, unsigned news, bool judged)
{
	HookState *state = filter->state;
	if (!judged && filter->up->body == NULL)
		state->message_done = true; /* it begins to flow: too late for a verdict */
	if (!state->message_done) {
		if ((news & TX_NEW_BODY_FINAL) == 0)
			return;
		on_message(filter);
	}
	if (state->rejected == NULL)
		give_body(filter, news);
}

FilterResult
hook_update(Filter *filter, unsigned news, HookWants wants)
{
	HookState *state = filter->state;
	if (state->rejected == NULL && (news & TX_NEW_MAIL_FROM) != 0 && wants.mail &&
	    !state->mail_done)
		on_mail(filter);
	if (state->rejected == NULL && (news & TX_NEW_RCPT) != 0 && wants.rcpt)
		on_rcpts(filter);
	if (state->rejected == NULL && (news & (TX_NEW_BODY | TX_NEW_BODY_FINAL)) != 0)
		on_body(filter, news, wants.message);
	if (state->rejected == NULL)
		return FILTER_CONTINUE;
	if ((news & ~(unsigned)(TX_NEW_CANCEL | TX_NEW_HEARTBEAT)) != 0)
		tx_fill_in_flight(filter->down, state->rejected);
	return FILTER_STOP;
}

void
hook_close(Filter *filter)
{
	HookState *state = filter->state;
	g_clear_pointer(&state->rejected, response_unref);
	if (state->fields != NULL)
		g_string_free(g_steal_pointer(&state->fields), TRUE);
}
