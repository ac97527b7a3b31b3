/* SPDX-License-Identifier: Apache-2.0 */
/* A matcher: has the client said HELO or EHLO with that name?
 *
 *   - filter: policy_action
 *     tag: greeting
 *     match: {matcher: hello_matcher, ehlo: bad.example}
 *     action: REJECT
 */
#include <stdlib.h>
#include <string.h>

#include <koukan/plugin.h>

static const KoukanHost *host;

static int
hello_configure(const KoukanHost *the_host, KoukanConfig *config, void **ret_conf)
{
	(void)the_host;
	const char *ehlo = host->config_text(config, "ehlo", NULL);
	char *copy;
	if (ehlo == NULL) {
		host->config_error(config, NULL, "hello_matcher needs the key 'ehlo'");
		return KOUKAN_ERROR;
	}
	copy = malloc(strlen(ehlo) + 1);
	if (copy == NULL)
		return KOUKAN_ERROR;
	memcpy(copy, ehlo, strlen(ehlo) + 1);
	*ret_conf = copy;
	return 0;
}

static int
hello_match(void *conf, KoukanCall *call)
{
	const char *ehlo = host->text(call, KOUKAN_EHLO);
	if (host->text(call, KOUKAN_MAIL_FROM) == NULL)
		return KOUKAN_UNKNOWN; /* what is known of the client comes with the sender */
	return ehlo != NULL && strcmp(ehlo, conf) == 0 ? KOUKAN_YES : KOUKAN_NO;
}

static const KoukanMatcher hello_matcher = {
	.size = sizeof(KoukanMatcher),
	.name = "hello_matcher",
	.configure = hello_configure,
	.release = free,
	.match = hello_match,
};

static const KoukanMatcher *const matchers[] = {&hello_matcher, NULL};

static const KoukanPlugin plugin = {
	.size = sizeof(KoukanPlugin),
	.abi = KOUKAN_PLUGIN_ABI,
	.name = "hello_matcher",
	.version = "1",
	.matchers = matchers,
};

const KoukanPlugin *
koukan_plugin_entry(const KoukanHost *the_host)
{
	host = the_host;
	return &plugin;
}
