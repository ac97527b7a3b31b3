/* SPDX-License-Identifier: Apache-2.0 */
/* SPF (RFC 7208) of the sender's domain and of the domains configured beside it (behaviour spec
 * 9.7).  The results are signals: a policy decides what follows from them. */
#include "base/clock.h"
#include "base/json.h"
#include "filter/kinds.h"
#include "mailauth/spf_run.h"

typedef struct SpfConf {
	GPtrArray *extra_domains;
} SpfConf;

typedef struct SpfState {
	GPtrArray *runs; /* SpfRun*: the sender's domain, then the extra ones; NULL: not begun */
	guint done;
} SpfState;

static void
on_result(void *arg, const Spf *spf)
{
	(void)spf;
	Filter *filter = arg;
	SpfState *state = filter->state;
	if (++state->done == state->runs->len)
		filter_resume(filter);
}

static void
begin(Filter *filter)
{
	SpfState *state = filter->state;
	const SpfConf *conf = filter->conf;
	const FilterEnv *env = filter_env(filter);
	const Tx *tx = filter->down;
	SpfParams params = {
		.ip = tx->remote_host != NULL ? tx->remote_host->host : NULL,
		.helo = json_get_str(tx->smtp_meta, "ehlo_host"),
		.mail_from = tx->mail_from->addr,
		.receiver = env->hostname,
		.now = (int64_t)clock_wall_sec(),
	};
	state->runs = g_ptr_array_new_with_free_func((GDestroyNotify)spf_run_free);
	g_ptr_array_add(state->runs,
			spf_run_start(env->worker, env->dns, &params, on_result, filter));
	for (guint i = 0; i < conf->extra_domains->len; i++) {
		params.domain = g_ptr_array_index(conf->extra_domains, i);
		g_ptr_array_add(state->runs,
				spf_run_start(env->worker, env->dns, &params, on_result, filter));
	}
}

static json_t *
result_of(const SpfState *state, guint index)
{
	return json_integer(spf_result(spf_run_spf(g_ptr_array_index(state->runs, index))));
}

static FilterResult
spf_check_update(Filter *filter, unsigned news)
{
	SpfState *state = filter->state;
	const SpfConf *conf = filter->conf;
	if ((news & TX_NEW_MAIL_FROM) == 0)
		return FILTER_CONTINUE;
	if (state->runs == NULL)
		begin(filter);
	if (state->done < state->runs->len)
		return FILTER_WAIT;
	json_t *extra = json_object();
	for (guint i = 0; i < conf->extra_domains->len; i++)
		json_object_set_new(extra, g_ptr_array_index(conf->extra_domains, i),
				    result_of(state, i + 1));
	json_t *output = json_object();
	json_object_set_new(output, "mail_from_result", result_of(state, 0));
	json_object_set_new(output, "extra_domains_results", extra);
	filter_set_output(filter, output);
	return FILTER_CONTINUE;
}

static void
spf_check_close(Filter *filter)
{
	SpfState *state = filter->state;
	g_clear_pointer(&state->runs, g_ptr_array_unref);
}

static const ConfKey spf_check_keys[] = {
	{.name = "extra_domains",
	 .type = CONF_STRINGS,
	 .offset = CONF_KEY(SpfConf, extra_domains),
	 .doc = "More domains: would their policies let this client send?"},
	{0},
};

const FilterKind filter_spf_check_kind = {
	.name = "spf_check",
	.output_name = "koukan.spf_check_filter.SpfCheckFilter",
	.doc = "May the client send for the sender's domain (SPF, RFC 7208)?  With the null sender: "
	       "for the name in its EHLO.",
	.conf_size = sizeof(SpfConf),
	.keys = spf_check_keys,
	.state_size = sizeof(SpfState),
	.update = spf_check_update,
	.close = spf_check_close,
	.example = "- filter: spf_check\n"
		   "  extra_domains: [_spf.forwarder.example.com]\n",
};
