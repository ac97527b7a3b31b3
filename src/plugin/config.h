/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The configuration that a plug-in reads, and the host's functions for it.  Load time only. */
#include <glib.h>
#include <koukan/plugin.h>

#include "conf/schema.h"

struct KoukanConfig {
	const YamlNode *node;
	const char *skip; /* a key that is ours */
	ConfReport *report;
	char *json; /* lent */
};

void plugin_config_clear(KoukanConfig *config);
const char *plugin_config_json(const KoukanConfig *config);
const char *plugin_config_text(const KoukanConfig *config, const char *key, const char *otherwise);
int plugin_config_number(KoukanConfig *config, const char *key, int64_t *ret_value);
int plugin_config_bool(KoukanConfig *config, const char *key, int *ret_value);
void plugin_config_error(KoukanConfig *config, const char *key, const char *text);
void plugin_config_known(KoukanConfig *config, const char *const *known);
