/* SPDX-License-Identifier: Apache-2.0 */
/* A plug-in under test.  Built several times: as it should be, and with one fault of its
 * description (TRIAL_*). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <koukan/plugin.h>

static const KoukanHost *host;

typedef struct Trial {
	char at[16];      /* the event in which it acts */
	int64_t fields;   /* how many it adds there */
	int64_t name_len; /* bytes of their names */
	int64_t value_len;
	char value[64]; /* instead of value_len */
	int64_t answer; /* code; 0: none */
	int64_t hosts;
	int64_t expect; /* what the last call of the host must have returned */
	int64_t result; /* of the callback */
	char endpoint[64];
	char *json;
} Trial;

static void
take_text(KoukanConfig *config, const char *key, const char *otherwise, char *out, size_t room)
{
	snprintf(out, room, "%s", host->config_text(config, key, otherwise));
}

static int
trial_configure(const KoukanHost *the_host, KoukanConfig *config, void **ret_conf)
{
	static const char *const known[] = {
		"at",     "fields", "name_len", "value_len", "value",       "answer", "hosts",
		"expect", "result", "endpoint", "refuse",    "destination", NULL};
	Trial *trial = calloc(1, sizeof(*trial));
	int refuse = 0;
	(void)the_host;
	host->config_known(config, known);
	take_text(config, "at", "message", trial->at, sizeof(trial->at));
	take_text(config, "value", "", trial->value, sizeof(trial->value));
	take_text(config, "endpoint", "", trial->endpoint, sizeof(trial->endpoint));
	trial->name_len = 7;
	trial->value_len = 5;
	host->config_number(config, "fields", &trial->fields);
	host->config_number(config, "name_len", &trial->name_len);
	host->config_number(config, "value_len", &trial->value_len);
	host->config_number(config, "answer", &trial->answer);
	host->config_number(config, "hosts", &trial->hosts);
	host->config_number(config, "expect", &trial->expect);
	host->config_number(config, "result", &trial->result);
	if (host->config_bool(config, "refuse", &refuse) == 0 && refuse) {
		free(trial);
		return KOUKAN_ERROR;
	}
	trial->json = strdup(host->config_json(config));
	*ret_conf = trial;
	return 0;
}

static void
trial_release(void *conf)
{
	Trial *trial = conf;
	free(trial->json);
	free(trial);
}

static int
add_fields(const Trial *trial, KoukanCall *call)
{
	char *name = malloc((size_t)trial->name_len + 1);
	char *value = malloc((size_t)trial->value_len + 1);
	int got = 0;
	memset(name, 'N', (size_t)trial->name_len);
	name[trial->name_len] = '\0';
	for (int64_t i = 0; i < trial->value_len; i++)
		value[i] = i % 10 == 9 ? ' ' : 'v';
	value[trial->value_len] = '\0';
	const char *text = trial->value[0] != '\0' ? trial->value : value;
	if (strcmp(text, "CRLF") == 0)
		text = "a\r\nInjected: yes";
	for (int64_t i = 0; i < trial->fields; i++)
		got = host->add_header(call, name, text);
	free(name);
	free(value);
	return got;
}

static int
act(const Trial *trial, const char *event, KoukanCall *call)
{
	int got = 0;
	if (strcmp(trial->at, event) != 0)
		return KOUKAN_CONTINUE;
	if (trial->fields > 0)
		got = add_fields(trial, call);
	if (trial->answer != 0)
		got = host->answer(call, (int)trial->answer, "5.7.1 says the trial");
	if (got != trial->expect)
		return KOUKAN_ERROR;
	return (int)trial->result;
}

static int
trial_mail(void *conf, void *state, KoukanCall *call)
{
	(void)state;
	return act(conf, "mail", call);
}

static int
trial_rcpt(void *conf, void *state, KoukanCall *call)
{
	(void)state;
	const char *rcpt = host->text(call, KOUKAN_RCPT);
	return strncmp(rcpt, "bob@", 4) == 0 ? act(conf, "rcpt", call) : KOUKAN_CONTINUE;
}

static int
trial_message(void *conf, void *state, KoukanCall *call)
{
	(void)state;
	return act(conf, "message", call);
}

/* Tells all that it sees, as fields. */
static int
facts_message(void *conf, void *state, KoukanCall *call)
{
	static const char *const names[] = {"remote_host", "local_host", "ehlo",     "auth_user",
					    "tls_version", "tls_cipher", "tls_peer", "mail_from",
					    "rcpt",        "sender",     "tag"};
	char line[600];
	char head[16];
	const char *name;
	const char *value;
	const Trial *trial = conf;
	(void)state;
	for (int i = 0; i <= KOUKAN_TAG; i++) {
		value = host->text(call, (KoukanText)i);
		snprintf(line, sizeof(line), "%s=%s", names[i], value != NULL ? value : "(none)");
		host->add_header(call, "X-Text", line);
	}
	for (int i = 0; i <= KOUKAN_FIELD_COUNT + 1; i++) {
		snprintf(line, sizeof(line), "%d=%lld", i,
			 (long long)host->number(call, (KoukanNumber)i));
		host->add_header(call, "X-Number", line);
	}
	for (size_t i = 0; host->field(call, i, &name, &value) == 0; i++) {
		snprintf(line, sizeof(line), "%s|%s", name, value);
		host->add_header(call, "X-Field", line);
	}
	memset(head, 0, sizeof(head));
	snprintf(line, sizeof(line), "%lld %lld %lld", (long long)host->read(call, 0, head, 4),
		 (long long)host->read(call, 1000, head + 8, 4),
		 (long long)host->read(call, 5, head + 8, 2));
	host->add_header(call, "X-Read", line);
	host->add_header(call, "X-Head", head);
	value = host->header(call, "SUBJECT", 1);
	host->add_header(call, "X-Second", value != NULL ? value : "(none)");
	value = host->rcpt(call, 1);
	host->add_header(call, "X-Rcpt", value != NULL ? value : "(none)");
	host->add_header(call, "X-Past", host->rcpt(call, 2) == NULL ? "none" : "some");
	value = host->signal(call, "some.signal");
	host->add_header(call, "X-Signal", value != NULL ? value : "(none)");
	host->add_header(call, "X-Conf", trial->json);
	host->add_header(call, "X-Route",
			 host->route_endpoint(call, "x") == KOUKAN_E_UNAVAILABLE &&
					 host->route_host(call, "x", 25) == KOUKAN_E_UNAVAILABLE
				 ? "not here"
				 : "?");
	return KOUKAN_CONTINUE;
}

static int
failing_open(void *conf, void **ret_state)
{
	(void)conf;
	(void)ret_state;
	return KOUKAN_ERROR;
}

static int
trial_route(void *conf, KoukanCall *call)
{
	const Trial *trial = conf;
	int got = 0;
	char name[32];
	if (trial->endpoint[0] != '\0')
		got = host->route_endpoint(call, trial->endpoint);
	for (int64_t i = 0; i < trial->hosts; i++) {
		snprintf(name, sizeof(name), "mx%d.example", (int)i);
		got = host->route_host(call, name, 2525);
	}
	if (trial->answer != 0)
		got = host->answer(call, (int)trial->answer, "5.1.1 not here");
	return got == trial->expect ? (int)trial->result : KOUKAN_ERROR;
}

static int
trial_match(void *conf, KoukanCall *call)
{
	const Trial *trial = conf;
	if (trial->answer != 0 && host->answer(call, (int)trial->answer, "5.0.0 no") == 0)
		return KOUKAN_ERROR;
	if (trial->fields != 0 && host->add_header(call, "X", "y") == 0)
		return KOUKAN_ERROR;
	return (int)trial->result;
}

#define HOOKS .configure = trial_configure, .release = trial_release
static const KoukanFilter trial_filter = {.size = sizeof(KoukanFilter),
					  .name = "trial",
					  HOOKS,
					  .mail = trial_mail,
					  .rcpt = trial_rcpt,
					  .message = trial_message};
static const KoukanFilter envelope_filter = {.size = sizeof(KoukanFilter),
					     .name = "envelope",
					     HOOKS,
					     .mail = trial_mail,
					     .rcpt = trial_rcpt};
static const KoukanFilter facts_filter = {
	.size = sizeof(KoukanFilter), .name = "facts", HOOKS, .message = facts_message};
static const KoukanFilter unopened_filter = {.size = sizeof(KoukanFilter),
					     .name = "unopened",
					     .open = failing_open,
					     .message = trial_message};
static const KoukanFilter flagged_filter = {
	.size = sizeof(KoukanFilter), .name = "flagged", .flags = 1};
static const KoukanFilter short_filter = {.size = 16, .name = "short"};
static const KoukanFilter *const filters[] = {
	&trial_filter,   &envelope_filter, &facts_filter, &unopened_filter,
	&flagged_filter, &short_filter,    NULL};

static const KoukanPolicy trial_policy = {
	.size = sizeof(KoukanPolicy), .name = "trial", HOOKS, .route = trial_route};
static const KoukanPolicy empty_policy = {.size = sizeof(KoukanPolicy), .name = "empty"};
static const KoukanPolicy *const policies[] = {&trial_policy, &empty_policy, NULL};

static const KoukanMatcher trial_matcher = {
	.size = sizeof(KoukanMatcher), .name = "trial", HOOKS, .match = trial_match};
static const KoukanMatcher empty_matcher = {.size = sizeof(KoukanMatcher), .name = "empty"};
static const KoukanMatcher *const matchers[] = {&trial_matcher, &empty_matcher, NULL};

static const KoukanPlugin plugin = {
#ifdef TRIAL_SHORT
	.size = offsetof(KoukanPlugin, matchers),
#else
	.size = sizeof(KoukanPlugin),
#endif
#ifdef TRIAL_NEWER
	.abi = KOUKAN_PLUGIN_ABI + 1,
#else
	.abi = KOUKAN_PLUGIN_ABI,
#endif
	.name = "trial plug-in",
	.filters = filters,
	.policies = policies,
	.matchers = matchers,
};

#ifndef TRIAL_NO_ENTRY
const KoukanPlugin *
koukan_plugin_entry(const KoukanHost *the_host)
{
	host = the_host;
#ifdef TRIAL_UNWILLING
	return NULL;
#endif
	return KOUKAN_HAS(host, route_host) && host->abi == KOUKAN_PLUGIN_ABI ? &plugin : NULL;
}
#else
const KoukanPlugin *trial_plugin(void);
const KoukanPlugin *
trial_plugin(void)
{
	return &plugin;
}
#endif
