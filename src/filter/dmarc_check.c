/* SPDX-License-Identifier: Apache-2.0 */
/* DMARC (RFC 7489) of the finished message, from what spf_check and dkim_check found in this chain.
 * A signal, with what the domain of From asks for; a policy decides what follows from it. */
#include <string.h>

#include "base/json.h"
#include "filter/kinds.h"
#include "mailauth/dkim_name.h"
#include "mailauth/dkim_verify.h"
#include "mailauth/dmarc.h"
#include "mailauth/spf.h"
#include "mime/validate.h"

#define SPF_OUTPUT  "koukan.spf_check_filter.SpfCheckFilter"
#define DKIM_OUTPUT "koukan.dkim_check_filter.DkimCheckFilter"

typedef struct DmarcState {
	bool begun, done;
	char *domain; /* of From; NULL: not exactly one */
	char *asked;  /* whose record is asked for */
	DnsQuery *query;
	bool temp, found;
	DmarcRecord record;
} DmarcState;

static void ask(Filter *filter, char *domain);

static void
on_record(void *arg, const DnsAnswer *answer)
{
	Filter *filter = arg;
	DmarcState *state = filter->state;
	state->query = NULL;
	state->temp = answer->status == DNS_TEMP;
	state->found = dmarc_answer_record(answer, &state->record);
	if (!state->found && !state->temp) {
		char *org = psl_org_domain(state->domain);
		if (g_ascii_strcasecmp(org, state->asked) != 0) {
			ask(filter, org);
			return;
		}
		g_free(org);
	}
	filter_resume(filter);
}

static void
ask(Filter *filter, char *domain) /* moved */
{
	DmarcState *state = filter->state;
	g_autofree char *name = dmarc_name(domain);
	g_free(state->asked);
	state->asked = domain;
	state->query = dns_query(filter_env(filter)->dns, name, DNS_TXT, on_record, filter);
}

static void
begin(Filter *filter, const Blob *raw)
{
	DmarcState *state = filter->state;
	g_autofree char *from = mime_from_address(raw);
	const char *at = from != NULL ? strrchr(from, '@') : NULL;
	state->begun = true;
	if (at == NULL || !dkim_domain_ok(at + 1, 2))
		return;
	state->domain = g_strdup(at + 1);
	if (filter_env(filter)->dns == NULL)
		state->temp = true;
	else
		ask(filter, g_strdup(state->domain));
}

/* ---- what SPF and DKIM said ---- */

typedef struct Votes {
	bool spf, dkim; /* aligned passes */
	bool temp;      /* an aligned identity may yet pass another time */
} Votes;

static char *
spf_domain_of(const Tx *tx)
{
	if (tx->mail_from == NULL || tx->mail_from->addr[0] == '\0')
		return g_strdup(json_get_str(tx->smtp_meta, "ehlo_host"));
	return address_domain(tx->mail_from->addr);
}

static void
vote_spf(const Filter *filter, Votes *votes)
{
	const DmarcState *state = filter->state;
	const json_t *result = json_object_get(filter_get_output(filter, SPF_OUTPUT),
					       "mail_from_result");
	g_autofree char *domain = spf_domain_of(filter->down);
	if (!json_is_integer(result) ||
	    !dmarc_is_aligned(psl_alignment(domain, state->domain), state->record.strict_spf))
		return;
	votes->spf = json_integer_value(result) == SPF_PASS;
	votes->temp |= json_integer_value(result) == SPF_TEMPERROR;
}

static void
vote_dkim(const Filter *filter, Votes *votes)
{
	const DmarcState *state = filter->state;
	const json_t *results = json_object_get(filter_get_output(filter, DKIM_OUTPUT), "results");
	for (size_t i = 0; i < json_array_size(results); i++) {
		const json_t *result = json_array_get(results, i);
		json_int_t status = json_integer_value(json_object_get(result, "status"));
		const char *domain = json_get_str(result, "domain");
		if (!dmarc_is_aligned(psl_alignment(domain, state->domain),
				      state->record.strict_dkim))
			continue;
		votes->dkim |= status == DKIM_PASS;
		votes->temp |= status == DKIM_TEMP_ERR;
	}
}

static DmarcResult
result_of(const Filter *filter, const Votes *votes)
{
	const DmarcState *state = filter->state;
	if (state->domain == NULL)
		return DMARC_PERMERROR;
	if (state->temp)
		return DMARC_TEMPERROR;
	if (!state->found)
		return DMARC_NONE;
	if (votes->spf || votes->dkim)
		return DMARC_PASS;
	return votes->temp ? DMARC_TEMPERROR : DMARC_FAIL;
}

static void
publish(Filter *filter)
{
	const DmarcState *state = filter->state;
	Votes votes = {0};
	if (state->found) {
		vote_spf(filter, &votes);
		vote_dkim(filter, &votes);
	}
	json_t *output = json_object();
	json_object_set_new(output, "result",
			    json_string(dmarc_result_names[result_of(filter, &votes)]));
	if (state->domain != NULL)
		json_object_set_new(output, "domain", json_string(state->domain));
	if (state->found) {
		bool own = g_ascii_strcasecmp(state->asked, state->domain) == 0;
		DmarcPolicyKind policy = own ? state->record.policy : state->record.subdomains;
		json_object_set_new(output, "policy", json_string(dmarc_policy_names[policy]));
		json_object_set_new(output, "policy_domain", json_string(state->asked));
		json_object_set_new(output, "percent", json_integer(state->record.percent));
		json_object_set_new(output, "spf", json_boolean(votes.spf));
		json_object_set_new(output, "dkim", json_boolean(votes.dkim));
	}
	filter_set_output(filter, output);
}

static FilterResult
dmarc_check_update(Filter *filter, unsigned news)
{
	DmarcState *state = filter->state;
	const TxBody *body = filter->down->body;
	if ((news & TX_NEW_BODY_FINAL) == 0 || body->raw == NULL || state->done)
		return FILTER_CONTINUE;
	if (!state->begun)
		begin(filter, body->raw);
	if (state->query != NULL)
		return FILTER_WAIT;
	state->done = true;
	publish(filter);
	return FILTER_CONTINUE;
}

static void
dmarc_check_close(Filter *filter)
{
	DmarcState *state = filter->state;
	dns_cancel(g_steal_pointer(&state->query));
	g_clear_pointer(&state->domain, g_free);
	g_clear_pointer(&state->asked, g_free);
}

const FilterKind filter_dmarc_check_kind = {
	.name = "dmarc_check",
	.output_name = "dmarc",
	.doc = "Does the domain of From vouch for the message (DMARC, RFC 7489)?  Stands behind "
	       "spf_check and dkim_check in the same chain.",
	.flags = FILTER_WHOLE_BODY,
	.state_size = sizeof(DmarcState),
	.update = dmarc_check_update,
	.close = dmarc_check_close,
	.example = "- filter: spf_check\n"
		   "- filter: dkim_check\n"
		   "- filter: dmarc_check\n",
};
