/* SPDX-License-Identifier: Apache-2.0 */
/* A routing policy: recipients of one domain go to the `destination` of the policy, the one called
 * nobody is refused, others are left to the next router.
 *
 *   - filter: router
 *     policy:
 *       name: hello_policy
 *       domain: hello.example
 *       destination: {endpoint: gateway, host_list: [{host: next-hop, port: 25}]}
 */
#include <stdlib.h>
#include <string.h>

#include <koukan/plugin.h>

static const KoukanHost *host;

typedef struct Hello {
	char domain[256];
} Hello;

static int
hello_configure(const KoukanHost *the_host, KoukanConfig *config, void **ret_conf)
{
	(void)the_host;
	const char *domain = host->config_text(config, "domain", "");
	Hello *hello;
	if (domain[0] == '\0' || strlen(domain) >= sizeof(hello->domain)) {
		host->config_error(config, "domain", "hello_policy needs the name of a domain");
		return KOUKAN_ERROR;
	}
	hello = calloc(1, sizeof(*hello));
	if (hello == NULL)
		return KOUKAN_ERROR;
	memcpy(hello->domain, domain, strlen(domain) + 1);
	*ret_conf = hello;
	return 0;
}

static int
hello_route(void *conf, KoukanCall *call)
{
	const Hello *hello = conf;
	const char *rcpt = host->text(call, KOUKAN_RCPT);
	const char *at = strrchr(rcpt, '@');
	if (at == NULL || strcmp(at + 1, hello->domain) != 0)
		return KOUKAN_NOT_MINE;
	if (strncmp(rcpt, "nobody@", 7) != 0)
		return KOUKAN_ROUTE;
	host->answer(call, 550, "5.1.1 nobody lives here");
	return KOUKAN_REFUSE;
}

static const KoukanPolicy hello_policy = {
	.size = sizeof(KoukanPolicy),
	.name = "hello_policy",
	.configure = hello_configure,
	.release = free,
	.route = hello_route,
};

static const KoukanPolicy *const policies[] = {&hello_policy, NULL};

static const KoukanPlugin plugin = {
	.size = sizeof(KoukanPlugin),
	.abi = KOUKAN_PLUGIN_ABI,
	.name = "hello_policy",
	.version = "1",
	.policies = policies,
};

const KoukanPlugin *
koukan_plugin_entry(const KoukanHost *the_host)
{
	host = the_host;
	return &plugin;
}
