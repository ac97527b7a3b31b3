/* SPDX-License-Identifier: Apache-2.0 */
/* Three small kinds: hello does nothing, sync stands for a test double of the original, and
 * exploder_upstream is known by name only. */
#include "filter/kinds.h"

#define SYNC_TEXT "4.3.5 filter sync is a placeholder"

static FilterResult
hello_update(Filter *filter, unsigned news)
{
	(void)filter;
	(void)news;
	return FILTER_CONTINUE;
}

const FilterKind filter_hello_kind = {
	.name = "hello",
	.doc = "Does nothing.",
	.update = hello_update,
	.example = "- filter: hello\n",
};

/* Everything that is asked for gets the same temporary answer: nothing is lost or pretended. */
static FilterResult
sync_update(Filter *filter, unsigned news)
{
	(void)news;
	g_autoptr(Response) response = response_new(450, SYNC_TEXT);
	tx_fill_in_flight(filter->down, response);
	return FILTER_CONTINUE;
}

static void
sync_conf_check(void *conf, const YamlNode *node, const ConfModel *model, ConfReport *report)
{
	(void)conf;
	(void)model;
	conf_warning(
		report, node,
		"filter sync is a placeholder: what comes here is answered 450; use rest_output");
}

const FilterKind filter_sync_kind = {
	.name = "sync",
	.doc = "Placeholder at the end of a chain under test: answers everything 450.",
	.flags = FILTER_TERMINAL,
	.conf_check = sync_conf_check,
	.update = sync_update,
	.example = "- filter: sync\n",
};

static void
exploder_upstream_conf_check(void *conf, const YamlNode *node, const ConfModel *model,
			     ConfReport *report)
{
	(void)conf;
	(void)model;
	conf_error(report, node, "filter exploder_upstream is internal; use exploder");
}

static const ConfKey exploder_upstream_keys[] = {
	{.name = "sender", .type = CONF_IGNORED, .doc = "Internal."},
	{.name = "rcpt_timeout", .type = CONF_IGNORED, .doc = "Internal."},
	{.name = "data_timeout", .type = CONF_IGNORED, .doc = "Internal."},
	{.name = "store_and_forward", .type = CONF_IGNORED, .doc = "Internal."},
	{.name = "block_upstream", .type = CONF_IGNORED, .doc = "Internal."},
	{.name = "notify", .type = CONF_IGNORED, .doc = "Internal."},
	{.name = "retry", .type = CONF_IGNORED, .doc = "Internal."},
	{0},
};

const FilterKind filter_exploder_upstream_kind = {
	.name = "exploder_upstream",
	.doc = "Internal building block of exploder; not for configurations.",
	.flags = FILTER_TERMINAL,
	.keys = exploder_upstream_keys,
	.conf_check = exploder_upstream_conf_check,
	.update = sync_update,
};
