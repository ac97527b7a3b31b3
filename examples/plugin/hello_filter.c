/* SPDX-License-Identifier: Apache-2.0 */
/* A filter: puts a greeting into each message, and refuses those that nobody shall read.
 *
 *   - filter: hello_filter
 *     greeting: Good morning       # default: Hello
 *     refuse_subject: secret       # default: none is refused
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <koukan/plugin.h>

static const KoukanHost *host;

typedef struct Hello {
	char greeting[100];
	char refuse_subject[100];
} Hello;

/* Copies a text of the configuration; one that is too long is reported at its place. */
static int
take_text(KoukanConfig *config, const char *key, const char *otherwise, char *out, size_t room)
{
	const char *text = host->config_text(config, key, otherwise);
	if (strlen(text) >= room) {
		host->config_error(config, key, "this text is too long");
		return KOUKAN_ERROR;
	}
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

static int
hello_configure(const KoukanHost *the_host, KoukanConfig *config, void **ret_conf)
{
	static const char *const known[] = {"greeting", "refuse_subject", NULL};
	(void)the_host;
	host->config_known(config, known);
	Hello *hello = calloc(1, sizeof(*hello));
	if (hello == NULL)
		return KOUKAN_ERROR;
	if (take_text(config, "greeting", "Hello", hello->greeting, sizeof(hello->greeting)) != 0 ||
	    take_text(config, "refuse_subject", "", hello->refuse_subject,
		      sizeof(hello->refuse_subject)) != 0) {
		free(hello);
		return KOUKAN_ERROR;
	}
	*ret_conf = hello;
	return 0;
}

/* The recipients that have been seen: what belongs to one transaction lives in its state. */
static int
hello_open(void *conf, void **ret_state)
{
	(void)conf;
	*ret_state = calloc(1, sizeof(unsigned));
	return *ret_state != NULL ? 0 : KOUKAN_ERROR;
}

static void
hello_close(void *conf, void *state)
{
	(void)conf;
	free(state);
}

static int
hello_rcpt(void *conf, void *state, KoukanCall *call)
{
	(void)conf;
	(void)call;
	++*(unsigned *)state;
	return KOUKAN_CONTINUE;
}

static int
hello_message(void *conf, void *state, KoukanCall *call)
{
	const Hello *hello = conf;
	const char *subject = host->header(call, "Subject", 0);
	const char *user = host->text(call, KOUKAN_AUTH_USER);
	const char *peer = host->text(call, KOUKAN_REMOTE_HOST);
	char value[512];
	if (hello->refuse_subject[0] != '\0' && subject != NULL &&
	    strstr(subject, hello->refuse_subject) != NULL) {
		host->log(call, KOUKAN_LOG_INFO, "this one is not for others");
		host->answer(call, 550, "5.7.1 such a subject is not relayed");
		return KOUKAN_CONTINUE;
	}
	snprintf(value, sizeof(value), "%s; recipients=%u; user=%s; client=%s; encrypted=%s",
		 hello->greeting, *(unsigned *)state, user != NULL ? user : "-",
		 peer != NULL ? peer : "-", host->number(call, KOUKAN_TLS) == 1 ? "yes" : "no");
	return host->add_header(call, "X-Hello", value) == 0 ? KOUKAN_CONTINUE : KOUKAN_ERROR;
}

static const KoukanFilter hello_filter = {
	.size = sizeof(KoukanFilter),
	.name = "hello_filter",
	.configure = hello_configure,
	.release = free,
	.open = hello_open,
	.close = hello_close,
	.rcpt = hello_rcpt,
	.message = hello_message,
};

static const KoukanFilter *const filters[] = {&hello_filter, NULL};

static const KoukanPlugin plugin = {
	.size = sizeof(KoukanPlugin),
	.abi = KOUKAN_PLUGIN_ABI,
	.name = "hello_filter",
	.version = "1",
	.filters = filters,
};

const KoukanPlugin *
koukan_plugin_entry(const KoukanHost *the_host)
{
	host = the_host;
	return &plugin;
}
