/* SPDX-License-Identifier: Apache-2.0 */
/* DKIM signing (RFC 6376).  Only the disabled form, without a key, is available in this version; a
 * key is a configuration error, so that nobody believes mail is signed. */
#include "filter/kinds.h"

typedef struct DkimSignConf {
	const YamlNode *key;
	char *domain, *selector;
} DkimSignConf;

static FilterResult
dkim_sign_update(Filter *filter, unsigned news)
{
	(void)filter;
	(void)news;
	return FILTER_CONTINUE;
}

static void
dkim_sign_conf_check(void *data, const YamlNode *node, const ConfModel *model, ConfReport *report)
{
	(void)node;
	(void)model;
	const DkimSignConf *conf = data;
	if (yaml_kind(conf->key) != YAML_NULL)
		conf_error(
			report, conf->key,
			"DKIM signing is not available in this version; without 'key' the filter "
			"is disabled");
}

static const ConfKey dkim_sign_keys[] = {
	{.name = "key",
	 .type = CONF_NODE,
	 .offset = CONF_KEY(DkimSignConf, key),
	 .doc = "Path of the private key; absent: the filter is disabled."},
	{.name = "domain",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(DkimSignConf, domain),
	 .doc = "Signing domain (d=)."},
	{.name = "selector",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(DkimSignConf, selector),
	 .doc = "Selector of the key (s=)."},
	{0},
};

const FilterKind filter_dkim_sign_kind = {
	.name = "dkim_sign",
	.doc = "Signs messages.  In this version only without key, which means disabled.",
	.conf_size = sizeof(DkimSignConf),
	.keys = dkim_sign_keys,
	.conf_check = dkim_sign_conf_check,
	.update = dkim_sign_update,
};
