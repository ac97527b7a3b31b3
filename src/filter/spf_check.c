/* SPDX-License-Identifier: Apache-2.0 */
/* SPF (RFC 7208).  Policies are not evaluated yet: each result is "none", the one that claims
 * nothing, and never a pass. */
#include "base/json.h"
#include "filter/kinds.h"

#define RESULT_NONE 5

typedef struct SpfConf {
	GPtrArray *extra_domains;
} SpfConf;

static FilterResult
spf_check_update(Filter *filter, unsigned news)
{
	const SpfConf *conf = filter->conf;
	if ((news & TX_NEW_MAIL_FROM) == 0)
		return FILTER_CONTINUE;
	json_t *extra = json_object();
	for (guint i = 0; i < conf->extra_domains->len; i++)
		json_object_set_new(extra, g_ptr_array_index(conf->extra_domains, i),
				    json_integer(RESULT_NONE));
	json_t *output = json_object();
	json_object_set_new(output, "mail_from_result", json_integer(RESULT_NONE));
	json_object_set_new(output, "extra_domains_results", extra);
	filter_set_output(filter, output);
	return FILTER_CONTINUE;
}

static const ConfKey spf_check_keys[] = {
	{.name = "extra_domains",
	 .type = CONF_STRINGS,
	 .offset = CONF_KEY(SpfConf, extra_domains),
	 .doc = "More domains whose policies are asked."},
	{0},
};

const FilterKind filter_spf_check_kind = {
	.name = "spf_check",
	.output_name = "koukan.spf_check_filter.SpfCheckFilter",
	.doc = "SPF of the sender's domain.  Not evaluated in this version: the result is always none.",
	.conf_size = sizeof(SpfConf),
	.keys = spf_check_keys,
	.update = spf_check_update,
};
