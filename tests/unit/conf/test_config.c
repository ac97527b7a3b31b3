/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <glib.h>
#include <string.h>

#include "conf/config.h"
#include "conf/local_test.h"

/* ---- helpers ---- */

typedef struct Loaded {
	ConfReport *report;
	RouterConfig *router;
	GatewayConfig *gateway;
	GString *text; /* the report */
} Loaded;

static Loaded
load(ConfigKind kind, const char *yaml)
{
	Loaded out = {.report = conf_report_new(), .text = g_string_new(NULL)};
	if (kind == CONFIG_ROUTER)
		out.router = router_config_load_text("t", yaml, out.report);
	else
		out.gateway = gateway_config_load_text("t", yaml, out.report);
	conf_report_format(out.report, out.text);
	bool loaded = out.router != NULL || out.gateway != NULL;
	assert_int_equal(loaded, out.report->errors == 0);
	return out;
}

static void
unload(Loaded *loaded)
{
	router_config_unref(loaded->router);
	gateway_config_unref(loaded->gateway);
	conf_report_free(loaded->report);
	g_string_free(loaded->text, TRUE);
}

static void
assert_clean(const Loaded *loaded)
{
	if (loaded->text->len > 0)
		fail_msg("%s", loaded->text->str);
}

/* One sender, one chain: what follows goes below `endpoint:`'s only entry. */
#define SENDER "sender: [{name: a, output_chain: out}]\n"
#define CHAIN  "  chain: [{filter: rest_output}]\n"
#define OUT    "endpoint:\n- name: out\n" CHAIN

/* ---- router ---- */

static void
test_router_defaults(void **state)
{
	(void)state;
	Loaded got = load(CONFIG_ROUTER, SENDER OUT);
	assert_clean(&got);
	const RouterConfig *config = got.router;
	assert_string_equal(config->path, "t");
	assert_true(config->dequeue);
	assert_int_equal(config->output_max, 1000);
	assert_null(config->mailer_daemon_mailbox);
	assert_int_equal(config->rest_id_entropy, 16);
	assert_string_equal(config->rest.addr->host, "localhost");
	assert_int_equal(config->rest.addr->port, 8000);
	assert_null(config->rest.session_uri);
	assert_int_equal(config->rest.chunk_size, 1 << 20);
	assert_null(config->storage_url);
	assert_int_equal(config->session_refresh_interval, 30 * USEC_PER_SEC);
	assert_int_equal(config->gc_interval, 0);
	assert_int_equal(config->gc_ttl, 86400 * USEC_PER_SEC);
	assert_int_equal(config->cache_ttl, 5 * USEC_PER_SEC);
	assert_int_equal(config->blob_tx_refresh_interval, 10 * USEC_PER_SEC);
	const KoukanConf *koukan = &config->koukan;
	assert_int_equal(koukan->workers, 0);
	assert_null(koukan->hostname);
	assert_int_equal(koukan->log_level, LOG_INFO);
	assert_int_equal(koukan->log_format, LOG_LOGFMT);
	assert_int_equal(koukan->body_memory, 256 * 1024);
	assert_int_equal(koukan->dns_forward->len, 0);
	assert_int_equal(koukan->dns_timeout, 10 * USEC_PER_SEC);
	assert_int_equal(koukan->message_max, 50 * 1024 * 1024);
	assert_int_equal(koukan->rcpt_max, 1000);
	const EndpointConf *out = router_config_endpoint(config, "out");
	assert_non_null(out);
	assert_int_equal(out->chain->filters->len, 1);
	assert_int_equal(out->downstream_timeout, 60 * USEC_PER_SEC);
	assert_int_equal(out->upstream_refresh, 30 * USEC_PER_SEC);
	assert_false(out->has_retry);
	assert_null(out->notification_sender);
	assert_null(router_config_endpoint(config, "other"));
	unload(&got);
}

static const char full_router[] =
	"global:\n"
	"  dequeue: no\n"
	"  executor:\n"
	"    rest: {max_inflight: 10, watchdog_timeout: 30}\n"
	"    output: {max_inflight: 5000, watchdog_timeout: 30}\n"
	"  mailer_daemon_mailbox: md@example.com\n"
	"  rest_id_entropy: 4\n"
	"rest_listener:\n"
	"  addr: ['', 8443]\n"
	"  cert: c.pem\n"
	"  key: k.pem\n"
	"  session_uri: https://a.example:8443\n"
	"  service_uri: https://example:8443\n"
	"  chunk_size: 16384\n"
	"storage:\n"
	"  url: sqlite+pysqlite:///koukan.db\n"
	"  session_refresh_interval: 1.5\n"
	"  gc_interval: 30\n"
	"  gc_ttl: 3600\n"
	"  blob_tx_refresh_interval: 3\n"
	"  cache_ttl: 7\n"
	"sender:\n"
	"- name: a\n"
	"  output_chain: out\n"
	"  retry: output_chain\n"
	"  notification: output_chain\n"
	"endpoint:\n"
	"- name: out\n"
	"  msa: true\n"
	"  output_handler:\n"
	"    downstream_timeout: 5\n"
	"    upstream_refresh: 0.5\n"
	"    retry_params:\n"
	"      max_attempts: null\n"
	"      min_attempt_time: 2\n"
	"      max_attempt_time: 5\n"
	"      backoff_factor: 0\n"
	"      deadline: ~\n"
	"      bug_retry: 1\n"
	"    notification: {sender: a}\n"
	"  chain: [{filter: rest_output}]\n"
	"koukan:\n"
	"  workers: 2\n"
	"  hostname: mx.example\n"
	"  log_level: debug\n"
	"  log_format: json\n"
	"  state_dir: /s\n"
	"  spill_dir: /t\n"
	"  body_memory: 0\n"
	"  dns_forward: [127.0.0.1@5300, 192.0.2.1]\n"
	"  dns_timeout: 0.25\n"
	"  message_max: 10M\n"
	"  rcpt_max: 100\n"
	"  rest: {allow_unauthenticated: yes, uri_max: 1k, uploads_max: 7,"
	" requests_per_minute: 60, idempotency_ttl: 5}\n"
	"logging: {root: {level: ERROR}}\n";

static void
test_router_values(void **state)
{
	(void)state;
	Loaded got = load(CONFIG_ROUTER, full_router);
	assert_clean(&got);
	const RouterConfig *config = got.router;
	assert_false(config->dequeue);
	assert_int_equal(config->output_max, 5000);
	assert_string_equal(config->mailer_daemon_mailbox, "md@example.com");
	assert_int_equal(config->rest_id_entropy, 4);
	assert_int_equal(config->rest.rest_id_entropy, 4);
	assert_string_equal(config->rest.addr->host, "");
	assert_string_equal(config->rest.cert, "c.pem");
	assert_string_equal(config->rest.service_uri, "https://example:8443");
	assert_int_equal(config->rest.chunk_size, 16384);
	assert_true(config->koukan.rest.allow_unauthenticated);
	assert_int_equal(config->koukan.rest.uri_max, 1024);
	assert_int_equal(config->koukan.rest.uploads_max, 7);
	assert_int_equal(config->koukan.rest.requests_per_minute, 60);
	assert_int_equal(config->koukan.rest.idempotency_ttl, 5 * USEC_PER_SEC);
	assert_int_equal(config->koukan.rest.access->len, 0);
	assert_string_equal(config->storage_url, "sqlite+pysqlite:///koukan.db");
	assert_int_equal(config->session_refresh_interval, 1500 * USEC_PER_MS);
	assert_int_equal(config->gc_interval, 30 * USEC_PER_SEC);
	const EndpointConf *out = router_config_endpoint(config, "out");
	assert_int_equal(out->upstream_refresh, 500 * USEC_PER_MS);
	assert_true(out->has_retry);
	assert_int_equal(out->retry.max_attempts, -1);
	assert_int_equal(out->retry.min_attempt_time, 2);
	assert_int_equal(out->retry.max_attempt_time, 5);
	assert_true(out->retry.backoff_factor == 0);
	assert_int_equal(out->retry.deadline, -1);
	assert_int_equal(out->retry.bug_retry, 1);
	assert_string_equal(out->notification_sender, "a");
	assert_null(out->notification_tag);
	assert_int_equal(config->koukan.workers, 2);
	assert_int_equal(config->koukan.log_level, LOG_DEBUG); /* goes before `logging` */
	assert_int_equal(config->koukan.log_format, LOG_JSON);
	assert_int_equal(config->koukan.dns_forward->len, 2);
	assert_int_equal(config->koukan.dns_timeout, 250 * USEC_PER_MS);
	assert_int_equal(config->koukan.message_max, 10 * 1024 * 1024);
	/* The snapshot is counted. */
	RouterConfig *again = router_config_ref(got.router);
	router_config_unref(again);
	assert_string_equal(config->path, "t");
	unload(&got);
}

static void
test_senders(void **state)
{
	(void)state;
	Loaded got = load(CONFIG_ROUTER,
			  "sender:\n"
			  "- name: s\n"
			  "  output_chain: out\n"
			  "  retry: output_chain\n"
			  "  remote_host: 127.0.0.1\n"
			  "  smtp_meta: {ehlo_host: localhost, esmtp: yes, n: 5}\n"
			  "  tag:\n"
			  "  - name: same\n"
			  "  - name: other\n"
			  "    output_chain: exp\n"
			  "    retry: null\n"
			  "    upstream_tag: behind\n"
			  "    remote_host: null\n"
			  "    smtp_meta: null\n"
			  "  - name: behind\n"
			  "    retry:\n"
			  "- name: p\n"
			  "  tag: [{name: t, output_chain: exp, upstream_sender: s, upstream_tag: "
			  "behind}]\n"
			  "endpoint:\n"
			  "- name: out\n"
			  "  output_handler: {retry_params: {}}\n"
			  "  chain: [{filter: rest_output}]\n"
			  "- name: exp\n"
			  "  chain: [{filter: exploder}]\n");
	assert_clean(&got);
	const ConfModel *model = got.router->model;
	const SenderConf *s = conf_model_sender(model, "s", NULL);
	assert_true(s->retry);
	assert_true(s->has_tags);
	assert_null(s->tag);
	assert_string_equal(s->upstream_sender, "s");
	assert_string_equal(s->remote_host, "127.0.0.1");
	assert_string_equal(s->smtp_meta, "{\"ehlo_host\":\"localhost\",\"esmtp\":true,\"n\":5}");
	const SenderConf *same = conf_model_sender(model, "s", "same");
	assert_string_equal(same->output_chain, "out");
	assert_string_equal(same->tag, "same");
	assert_true(same->retry);
	assert_string_equal(same->smtp_meta, s->smtp_meta);
	const SenderConf *other = conf_model_sender(model, "s", "other");
	assert_string_equal(other->output_chain, "exp");
	assert_false(other->retry);
	assert_string_equal(other->upstream_sender, "s");
	assert_string_equal(other->upstream_tag, "behind");
	assert_null(other->remote_host);
	assert_null(other->smtp_meta);
	assert_false(conf_model_sender(model, "s", "behind")->retry);
	assert_null(conf_model_sender(model, "s", "none"));
	assert_null(conf_model_sender(model, "p", NULL)->output_chain);
	assert_string_equal(conf_model_sender(model, "p", "t")->upstream_sender, "s");
	assert_true(router_config_endpoint(got.router, "exp")->chain->incremental);
	unload(&got);
}

static void
test_rest_endpoints(void **state)
{
	(void)state;
	Loaded got = load(CONFIG_ROUTER,
			  SENDER OUT "rest_endpoint:\n"
				     "- {name: a, endpoint: http://h/x, sender: r, tag: t}\n"
				     "- {name: b, endpoint: https://h/x, sender: r,\n"
				     "   options: {receive_parsing: , send_filter_output: yes}}\n"
				     "- {name: c, endpoint: http://h/x, sender: r,\n"
				     "   options: {receive_parsing: {max_inline: 0}}}\n"
				     "- {name: d, endpoint: http://h/x, sender: r, options: }\n");
	assert_clean(&got);
	const ConfModel *model = got.router->model;
	const RestEndpointConf *a = conf_model_rest_endpoint(model, "a");
	assert_string_equal(a->endpoint, "http://h/x");
	assert_string_equal(a->sender, "r");
	assert_string_equal(a->tag, "t");
	assert_false(a->receive_parsing);
	assert_false(a->send_filter_output);
	const RestEndpointConf *b = conf_model_rest_endpoint(model, "b");
	assert_true(b->receive_parsing);
	assert_int_equal(b->max_inline, 65536);
	assert_true(b->send_filter_output);
	const RestEndpointConf *c = conf_model_rest_endpoint(model, "c");
	assert_true(c->receive_parsing);
	assert_int_equal(c->max_inline, 0);
	assert_false(conf_model_rest_endpoint(model, "d")->receive_parsing);
	unload(&got);
}

static void
test_router_oddities(void **state)
{
	(void)state;
	Loaded got = load(CONFIG_ROUTER,
			  "global:\n  gc_interval: null\n  tx_idle_timeout: 5\n"
			  "storage:\n  gc_interval: null\n  gc_ttl: 0\n"
			  "rest_listener: {}\n"
			  "modules:\n"
			  "  sync_filter:\n    hello2: koukan.hello_filter\n"
			  "  recipient_router_policy:\n    hello: koukan.hello_policy\n"
			  "  transaction_matcher:\n    m: koukan.hello_matcher:match\n"
			  "logging: {version: 1, loggers: {hpack: {level: DEBUG}}, nonsense: [1]}\n"
			  "rest_endpoint:\n- {name: g, endpoint: http://h/s, sender: r}\n" SENDER
			  "endpoint:\n"
			  "- name: out   \n"
			  "  msa: true\n"
			  "  chain:\n"
			  "  - filter: hello2\n"
			  "  - filter: router\n"
			  "    dry_run: true\n"
			  "    policy:\n"
			  "      name: dest_domain\n"
			  "      destination:\n"
			  "  - filter: router\n"
			  "    policy:\n"
			  "      name: address_list\n"
			  "      prefixes: []\n"
			  "      destination:\n"
			  "        endpoint: g\n"
			  "        options:\n"
			  "          receive_parsing:\n"
			  "  - filter: dns_resolution\n"
			  "    suffix: ''\n"
			  "    overwrite: true\n"
			  "  - filter: rest_output\n"
			  "    verify: no-such-file.crt\n"
			  "- name: unused\n"
			  "  chain:\n"
			  "  - filter: exploder\n"
			  "    output_chain: out\n");
	assert_clean(&got);
	assert_int_equal(got.router->gc_interval, 0);
	assert_int_equal(got.router->gc_ttl, 0);
	assert_int_equal(got.router->koukan.log_level, LOG_INFO);
	assert_int_equal(router_config_endpoint(got.router, "out")->chain->filters->len, 5);
	unload(&got);
}

/* ---- problems ---- */

typedef struct Row {
	const char *yaml, *want;
} Row;

static void
run_rows(ConfigKind kind, const Row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		Loaded got = load(kind, rows[i].yaml);
		if (strcmp(got.text->str, rows[i].want) != 0)
			fail_msg("%s\n got: %swant: %s", rows[i].yaml, got.text->str, rows[i].want);
		unload(&got);
	}
}

#define EXPLODER                                                                                   \
	"endpoint:\n- name: out\n  chain: [{filter: exploder}]\n- name: next\n"                    \
	"  output_handler: {retry_params: {}}\n" CHAIN

static const Row router_rows[] = {
	{"- a\n", "t:1:1: error: keys and values are wanted here, not a list\n"},
	{"a: [\n", "t:2:1: error: flow sequence without a closing bracket\n"},
	{"smtp_listener: {}\n",
	 "t:1:1: error: this is the configuration of a gateway, not of a router\n"},
	{"sener: []\n" SENDER OUT,
	 "t:1:1: warning: key 'sener' is not known here and ignored; did you mean 'sender'?\n"},
	{OUT, "t:1:1: warning: no 'sender': nothing can be submitted\n"},
	{"sender: {name: a}\n" OUT, "t:1:9: error: 'sender' must be a list, not a map\n"
				    "t:1:9: warning: no 'sender': nothing can be submitted\n"},
	{"sender: [{output_chain: out}]\n" OUT, "t:1:10: error: key 'name' is missing\n"},
	{"sender: [a]\n" OUT, "t:1:10: error: keys and values are wanted here, not text 'a'\n"
			      "t:1:10: error: sender '' has no 'output_chain'\n"},
	{"sender: [{name: a}]\n" OUT, "t:1:10: error: sender 'a' has no 'output_chain'\n"},
	{"sender: [{name: a, tag: [{name: x}]}]\n" OUT,
	 "t:1:26: error: sender 'a' tag 'x' has no 'output_chain'\n"},
	{"sender: [{name: a, output_chain: uot, tag: [{name: x}]}]\n" OUT,
	 "t:1:34: error: sender 'a': there is no endpoint 'uot'; did you mean 'out'?\n"},
	{"sender: [{name: a, output_chain: out}, {name: a, output_chain: out}]\n" OUT,
	 "t:1:47: error: sender 'a' stands twice, first in line 1\n"},
	{"sender: [{name: a, output_chain: out, tag: [{name: x}, {name: x}]}]\n" OUT,
	 "t:1:63: error: tag 'x' stands twice, first in line 1\n"},
	{SENDER OUT "- name: out\n" CHAIN,
	 "t:5:9: error: endpoint 'out' stands twice, first in line 3\n"},
	{SENDER "endpoint:\n- name: out\n", "t:3:3: error: key 'chain' is missing\n"},
	{SENDER "endpoint:\n- name: out\n  chain: rest_output\n",
	 "t:4:10: error: 'chain' must be a list of filters\n"},
	{"sender: [{name: a, output_chain: out, retry: always}]\n" OUT,
	 "t:1:46: warning: 'retry' is 'output_chain' or null; text 'always' means null\n"},
	{"sender: [{name: a, output_chain: out, retry: output_chain}]\n" OUT,
	 "t:1:46: warning: sender 'a' retries, but endpoint 'out' has no 'retry_params': "
	 "each transaction is attempted once\n"},
	{"sender: [{name: a, output_chain: out, notification: output_chain}]\n" OUT,
	 "t:1:53: error: sender 'a': 'notification: output_chain' needs 'retry: "
	 "output_chain' beside it\n"},
	{"sender: [{name: a, output_chain: out, smtp_meta: 5, remote_host: host}]\n" OUT,
	 "t:1:50: error: 'smtp_meta' must be a map, not number '5'\n"
	 "t:1:66: error: 'remote_host' must be an address, not 'host'\n"},
	/* exploders */
	{"sender: [{name: a, output_chain: out, upstream_sender: b}, {name: b, output_chain: "
	 "next}]\n" EXPLODER,
	 ""},
	{"sender: [{name: a, output_chain: out, upstream_sender: c}]\n" EXPLODER,
	 "t:1:56: error: sender 'a': the exploder's transactions go to sender 'c', which "
	 "does not exist\n"},
	{"sender: [{name: a, output_chain: out, upstream_tag: x, tag: [{name: y}]}]\n"
	 "endpoint: [{name: out, chain: [{filter: rest_output}]}]\n",
	 ""},
	{"sender:\n- name: a\n  output_chain: out\n" EXPLODER,
	 "t:2:3: error: sender 'a': the exploder in endpoint 'out' would hand recipients to "
	 "itself; 'upstream_sender' or 'upstream_tag' must lead to another endpoint\n"},
	{"sender:\n- name: a\n  output_chain: next\n  retry: output_chain\n  tag:\n"
	 "  - {name: smtp, output_chain: out, upstream_tag: rcpt, retry: null}\n"
	 "  - {name: rcpt}\n" EXPLODER,
	 "t:6:51: error: sender 'a' tag 'smtp': its exploder hands recipients to sender 'a' "
	 "tag 'rcpt', which has 'retry: output_chain': the exploder turns that on itself "
	 "once it has taken the message; set 'retry: null' there (a tag takes over what its "
	 "sender says)\n"},
	{"sender: [{name: a, output_chain: out, upstream_sender: b}, {name: b, output_chain: "
	 "next}]\n"
	 "endpoint:\n- name: out\n  chain: [{filter: exploder}]\n- name: next\n" CHAIN,
	 "t:1:56: warning: sender 'a': endpoint 'next' behind its exploder has no "
	 "'retry_params': a recipient that fails for now after the message was taken is "
	 "lost\n"},
	{"sender: [{name: a, output_chain: out, retry: output_chain, upstream_sender: b},\n"
	 "         {name: b, output_chain: next}]\n"
	 "endpoint:\n- name: out\n  output_handler: {retry_params: {}}\n"
	 "  chain: [{filter: exploder}]\n- name: next\n"
	 "  output_handler: {retry_params: {}}\n" CHAIN,
	 "t:1:46: error: sender 'a' retries endpoint 'out', which ends in an exploder: "
	 "recipients that have their message would get it again; set 'retry: null' here\n"},
	/* notifications */
	{"global: {mailer_daemon_mailbox: m@d}\n" SENDER
	 "endpoint:\n- name: out\n  output_handler: {notification: {sender: b}}\n" CHAIN,
	 "t:5:43: error: bounces go to sender 'b', which does not exist\n"},
	{"global: {mailer_daemon_mailbox: m@d}\n"
	 "sender: [{name: a, output_chain: out, tag: [{name: x}]}]\n"
	 "endpoint:\n- name: out\n  output_handler: {notification: {sender: a, tag: y}}\n" CHAIN,
	 "t:5:51: error: bounces go to sender 'a' tag 'y', which does not exist\n"},
	{SENDER "endpoint:\n- name: out\n  output_handler: {notification: {sender: a}}\n" CHAIN,
	 "t:4:34: warning: bounces are on, but 'global.mailer_daemon_mailbox' is not set\n"},
	{"global: {mailer_daemon_mailbox: m@d}\n" SENDER OUT
	 "- name: unused\n  output_handler: {notification: {sender: b}}\n" CHAIN,
	 "t:7:43: warning: bounces go to sender 'b', which does not exist\n"},
	/* the rest */
	{SENDER OUT "rest_listener: {cert: x}\n",
	 "t:5:23: warning: 'cert' without 'key': TLS stays off\n"},
	{SENDER OUT "storage: {url: 'mysql://h/d'}\n",
	 "t:5:16: error: 'url' must be a sqlite or postgresql URL or a path, not "
	 "'mysql://h/d'\n"},
	{SENDER OUT "rest_endpoint:\n- {name: x, sender: r}\n- {name: x, sender: r, endpoint: "
		    "ftp://h}\n- {name: y, endpoint: http://h}\n",
	 "t:6:3: warning: rest_endpoint 'x' has no 'endpoint': deliveries to it fail\n"
	 "t:7:10: error: rest_endpoint 'x' stands twice, first in line 6\n"
	 "t:7:34: error: 'endpoint' must be an http:// or https:// URL, not 'ftp://h'\n"
	 "t:8:3: warning: rest_endpoint 'y' has no 'sender': it cannot be a destination\n"},
	{SENDER OUT "modules: {sync_filter: {mine: my.module}, transaction_matcher: [x]}\n",
	 "t:5:31: warning: module 'my.module' is not built in: what uses 'mine' cannot "
	 "work\n"
	 "t:5:64: error: a map of names to modules is wanted, not a list\n"},
	{SENDER "endpoint:\n- name: out\n  output_handler:\n    retry_params: "
		"{min_attempt_time: 10, max_attempt_time: 5}\n" CHAIN,
	 "t:5:38: warning: 'min_attempt_time' is larger than 'max_attempt_time' and wins\n"},
	{SENDER OUT "koukan: {workers: 257, log_level: loud, rcpt_max: 0}\n",
	 "t:5:19: error: 'workers' must be between 0 and 256, not 257\n"
	 "t:5:35: error: 'log_level' must be one of debug, info, warn, error, not text "
	 "'loud'\n"
	 "t:5:51: error: 'rcpt_max' must be between 1 and 100000, not 0\n"},
};

static void
test_router_problems(void **state)
{
	(void)state;
	run_rows(CONFIG_ROUTER, router_rows, G_N_ELEMENTS(router_rows));
}

/* Unknown filters and wrong types in one run, by line; in a chain that nobody reaches they are
 * warnings. */
static void
test_chain_problems(void **state)
{
	(void)state;
	static const char text[] = "rest_listner: {}\n" SENDER "endpoint:\n"
				   "- name: out\n"
				   "  output_handler: {downstream_timeout: soon}\n"
				   "  chain:\n"
				   "  - filter: remote_hots\n"
				   "  - filter: rest_output\n"
				   "- name: unused\n"
				   "  chain:\n"
				   "  - filter: nobody_knows\n"
				   "  - filter: rest_output\n";
	Loaded got = load(CONFIG_ROUTER, text);
	static const struct {
		unsigned line;
		ConfSeverity severity;
		const char *word;
	} want[] = {
		{1, CONF_WARNING, "rest_listener"},
		{5, CONF_ERROR, "downstream_timeout"},
		{7, CONF_ERROR, "remote_host'"},
		{11, CONF_WARNING, "nobody_knows"},
	};
	if (got.report->problems->len != G_N_ELEMENTS(want))
		fail_msg("%s", got.text->str);
	for (size_t i = 0; i < G_N_ELEMENTS(want); i++) {
		const ConfProblem *problem = got.report->problems->pdata[i];
		if (problem->line != want[i].line || problem->severity != want[i].severity ||
		    strstr(problem->text, want[i].word) == NULL)
			fail_msg("%zu: %s", i, got.text->str);
	}
	assert_int_equal(got.report->errors, 2);
	unload(&got);
}

/* ---- gateway ---- */

static const char full_gateway[] =
	"global: {executor: {max_inflight: 2000, watchdog_timeout: 60}}\n"
	"rest_listener: {addr: [localhost, 8001], session_uri: 'http://localhost:8001',\n"
	"  gc_interval: 2, gc_tx_ttl: 300, gc_done_ttl: 4, rest_id_entropy: 8, chunk_size: 4096}\n"
	"smtp_output:\n"
	"  use_system_smtplib: true\n"
	"  hosts:\n"
	"    outbound: {ehlo_host: h, enable_bdat: yes}\n"
	"    box: {ehlo_host: h, protocol: lmtp, timeout: 10, chunk_size: 1000}\n"
	"smtp_listener:\n"
	"  services:\n"
	"  - {addr: [localhost, 1025], endpoint: mx, sender: ingress, tag: t}\n"
	"  - {addr: ['::1', 1465], endpoint: mx, sender: s, cert: c, key: k, smtps: true,\n"
	"     auth_secrets: a.json, rcpt_timeout: 1, data_timeout: 2, enable_bdat: on,\n"
	"     chunk_size: 16384}\n"
	"  - {addr: [localhost, 1026], endpoint: mx, sender: s, proxy_protocol_timeout: 5}\n"
	"rest_output:\n"
	"- {name: mx, endpoint: 'http://localhost:8000/senders/ingress/transactions',\n"
	"   verify: no-such.crt, rcpt_timeout: 300, data_timeout: 301, chunk_size: 1048576,\n"
	"   refresh_interval: 5}\n"
	"- {name: a, endpoint: http://h/x, verify: false}\n"
	"- {name: b, endpoint: http://h/x, verify: true}\n"
	"- {name: c, endpoint: http://h/x}\n"
	"logging: {loggers: {hpack: {level: DEBUG}}}\n";

static void
test_gateway_values(void **state)
{
	(void)state;
	Loaded got = load(CONFIG_GATEWAY, full_gateway);
	assert_clean(&got);
	const GatewayConfig *config = got.gateway;
	assert_int_equal(config->max_inflight, 2000);
	assert_int_equal(config->rest.addr->port, 8001);
	assert_int_equal(config->rest.gc_interval, 2 * USEC_PER_SEC);
	assert_int_equal(config->rest.gc_tx_ttl, 300 * USEC_PER_SEC);
	assert_int_equal(config->rest.gc_done_ttl, 4 * USEC_PER_SEC);
	assert_int_equal(config->rest.rest_id_entropy, 8);
	const SmtpHostConf *outbound = gateway_config_host(config, "outbound");
	assert_string_equal(outbound->ehlo_host, "h");
	assert_int_equal(outbound->protocol, 0);
	assert_int_equal(outbound->timeout, 3300 * USEC_PER_SEC);
	assert_true(outbound->enable_bdat);
	assert_int_equal(outbound->chunk_size, 65536);
	assert_int_equal(gateway_config_host(config, "box")->protocol, 1);
	assert_null(gateway_config_host(config, "none"));
	assert_int_equal(config->services->len, 3);
	const SmtpServiceYaml *plain = config->services->pdata[0];
	assert_string_equal(plain->endpoint, "mx");
	assert_string_equal(plain->sender, "ingress");
	assert_string_equal(plain->tag, "t");
	assert_false(plain->smtps);
	assert_int_equal(plain->proxy_protocol_timeout, 0);
	assert_int_equal(plain->rcpt_timeout, 40 * USEC_PER_SEC);
	assert_int_equal(plain->data_timeout, 310 * USEC_PER_SEC);
	const SmtpServiceYaml *tls = config->services->pdata[1];
	assert_true(tls->smtps);
	assert_string_equal(tls->auth_secrets, "a.json");
	assert_null(tls->tag);
	assert_int_equal(tls->chunk_size, 16384);
	assert_int_equal(((SmtpServiceYaml *)config->services->pdata[2])->proxy_protocol_timeout,
			 5 * USEC_PER_SEC);
	assert_string_equal(gateway_config_output(config, "mx")->verify, "no-such.crt");
	assert_int_equal(gateway_config_output(config, "mx")->refresh_interval, 5 * USEC_PER_SEC);
	assert_string_equal(gateway_config_output(config, "a")->verify, "");
	assert_null(gateway_config_output(config, "b")->verify);
	assert_null(gateway_config_output(config, "c")->verify);
	assert_int_equal(gateway_config_output(config, "c")->rcpt_timeout, 30 * USEC_PER_SEC);
	assert_null(gateway_config_output(config, "z"));
	GatewayConfig *again = gateway_config_ref(got.gateway);
	gateway_config_unref(again);
	unload(&got);
}

static void
test_gateway_defaults(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"", "smtp_listener: {services: []}\nsmtp_output: {hosts: {}}\n",
		"smtp_listener:\nsmtp_output:\nrest_output:\nglobal:\nrest_listener:\n"};
	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
		Loaded got = load(CONFIG_GATEWAY, texts[i]);
		assert_clean(&got);
		assert_int_equal(got.gateway->rest.addr->port, 8001);
		assert_int_equal(got.gateway->rest.gc_tx_ttl, 600 * USEC_PER_SEC);
		assert_int_equal(got.gateway->max_inflight, 1000);
		assert_int_equal(got.gateway->services->len, 0);
		unload(&got);
	}
}

#define OUTPUTS "rest_output: [{name: mx, endpoint: http://h/x}]\n"
#define SERVICE(text)                                                                              \
	OUTPUTS "smtp_listener:\n  services:\n  - {addr: [localhost, 25], endpoint: mx, sender: "  \
		"s" text "}\n"

static void
test_gateway_problems(void **state)
{
	(void)state;
	static const Row rows[] = {
		{"sender: []\n",
		 "t:1:1: error: this is the configuration of a router, not of a gateway\n"},
		{"smtp_listner: {}\n", "t:1:1: warning: key 'smtp_listner' is not known here and "
				       "ignored; did you mean 'smtp_listener'?\n"},
		{SERVICE(""), ""},
		{SERVICE(", smtps: yes"), "t:4:61: warning: 'smtps' without 'cert' and 'key': port "
					  "25 speaks plain SMTP\n"},
		{SERVICE(", cert: c"), "t:4:60: warning: 'cert' without 'key': TLS stays off\n"},
		{SERVICE(", auth_secrets: a"),
		 "t:4:68: warning: 'auth_secrets' without 'cert' and 'key': AUTH is offered only "
		 "under TLS, so never on port 25\n"},
		{SERVICE(", cert: c, key: k, smtps: on, proxy_protocol_timeout: 5"), ""},
		{SERVICE(", xclient_from: [10.0.0.0/8, nowhere]"),
		 "t:4:68: error: 'xclient_from': 'nowhere' is no network\n"},
		{SERVICE(", socket: smtp"), ""},
		{SERVICE(", require_auth: yes"),
		 "t:4:68: error: 'require_auth' without 'auth_secrets': nobody could send\n"},
		{SERVICE(", client_ca: f"),
		 "t:4:65: error: 'client_ca' without 'cert' and 'key'\n"},
		{SERVICE(", cert: c, key: k, certificates: [{cert: d}]"),
		 "t:4:86: error: key 'key' is missing\n"},
		{SERVICE(", certificates: [{cert: c, key: k}]"),
		 "t:4:68: error: 'certificates' without 'cert' and 'key'\n"},
		{SERVICE(", protocol: x"),
		 "t:4:64: error: 'protocol' must be one of smtp, lmtp, not text 'x'\n"},
		{SERVICE(", binarymime: yes"), "t:4:66: error: 'binarymime' needs 'enable_bdat'\n"},
		{OUTPUTS "smtp_listener: {services: [{addr: [h, 25], endpoint: xm, sender: s}]}\n",
		 "t:2:54: error: there is no rest_output 'xm'\n"},
		{OUTPUTS "smtp_listener: {services: [{}]}\n",
		 "t:2:28: error: key 'addr' is missing\n"
		 "t:2:28: error: key 'endpoint' is missing\n"
		 "t:2:28: error: key 'sender' is missing\n"},
		{OUTPUTS
		 "smtp_listener: {services: [{addr: [h, 25], endpoint: mx, sender: s}, {addr: "
		 "[h, 25], endpoint: mx, sender: s}]}\n",
		 "t:2:77: error: listen address 'h:25' stands twice, first in line 2\n"},
		{OUTPUTS "rest_listener: {addr: [localhost, 25]}\n"
			 "smtp_listener: {services: [{addr: [localhost, 25], endpoint: mx, sender: "
			 "s}]}\n",
		 "t:3:35: error: listen address 'localhost:25' stands twice, first in line 2\n"},
		{"rest_listener: {addr: [h, 25]}\n",
		 "t:1:23: error: anybody who reaches h could send mail: the REST listener is not "
		 "on loopback and has no authentication; give 'koukan.rest.access' entries, or "
		 "set 'koukan.rest.allow_unauthenticated: true'\n"},
		{"rest_listener: {addr: [h, 25]}\nkoukan: {rest: {allow_unauthenticated: yes}}\n",
		 ""},
		{"koukan: {rest: {client_ca: f}}\n",
		 "t:1:28: error: 'client_ca' needs 'cert' and 'key' of 'rest_listener'\n"},
		{"koukan: {rest: {access: [{name: a, senders: [s], api_keys: [k]}]}}\n",
		 "t:1:61: error: 'api_keys' takes sha256: and 64 hexadecimal digits; koukan secret "
		 "--api-key makes them\n"},
		{"rest_output: [{name: a, endpoint: http://h, api_key_file: /nonexistent}]\n",
		 "t:1:59: error: 'api_key_file': /nonexistent cannot be read\n"},
		{OUTPUTS
		 "smtp_listener: {services: [{addr: [h, 0], endpoint: mx, sender: s}, {addr: "
		 "[h, 0], endpoint: mx, sender: s}]}\n",
		 ""},
		{OUTPUTS
		 "smtp_listener: {services: [{addr: [h, 0], endpoint: mx, sender: s, socket: a}, "
		 "{addr: [h, 0], endpoint: mx, sender: s, socket: b}, {addr: [h, 0], endpoint: mx, "
		 "sender: s, socket: a}]}\n",
		 "t:2:180: error: 'socket': 'a' is another service's already\n"},
		{"rest_output: [{name: a, endpoint: http://h}, {name: a, endpoint: h}]\n",
		 "t:1:53: error: rest_output 'a' stands twice, first in line 1\n"
		 "t:1:66: error: 'endpoint' must be an http:// or https:// URL, not 'h'\n"},
		{"smtp_output: {hosts: [a]}\n",
		 "t:1:22: error: 'hosts' must be a map of tags, not a list\n"},
		{"smtp_output: {hosts: {a: {}}}\n", "t:1:26: error: key 'ehlo_host' is missing\n"},
		{"smtp_output: {hosts: {a: {ehlo_host: h, protocol: uucp}}}\n",
		 "t:1:51: error: 'protocol' must be one of smtp, lmtp, not text 'uucp'\n"},
		{"smtp_listener: {services: 5}\n",
		 "t:1:27: error: 'services' must be a list, not number '5'\n"},
	};
	run_rows(CONFIG_GATEWAY, rows, G_N_ELEMENTS(rows));
}

/* ---- both ---- */

static void
test_logging(void **state)
{
	(void)state;
	static const struct {
		const char *logging;
		LogLevel want;
	} rows[] = {
		{"{}", LOG_INFO},
		{"", LOG_INFO},
		{"5", LOG_INFO},
		{"{root: {level: DEBUG}}", LOG_DEBUG},
		{"{root: {level: WARNING}}", LOG_WARN},
		{"{root: {level: warn}}", LOG_WARN},
		{"{root: {level: CRITICAL}}", LOG_ERROR},
		{"{root: {level: 10}}", LOG_DEBUG},
		{"{root: {level: 40}}", LOG_ERROR},
		{"{root: {level: LOUD}}", LOG_INFO},
		{"{root: [1]}", LOG_INFO},
		{"{loggers: {root: {level: ERROR}}}", LOG_ERROR},
		{"{loggers: {'': {level: ERROR}}}", LOG_ERROR},
		{"{loggers: {hpack: {level: DEBUG}, mail.log: {level: ERROR}}}", LOG_INFO},
		{"{loggers: {koukan: {level: WARNING}}}", LOG_WARN},
		{"{loggers: {koukan.filter: {level: DEBUG}, koukan: {level: ERROR}}}", LOG_DEBUG},
		{"{loggers: {koukan: {level: DEBUG}}, root: {level: ERROR}}", LOG_ERROR},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree char *text = g_strdup_printf("logging: %s\n", rows[i].logging);
		Loaded got = load(CONFIG_GATEWAY, text);
		assert_clean(&got);
		if (got.gateway->koukan.log_level != (int)rows[i].want)
			fail_msg("%s: %d", rows[i].logging, got.gateway->koukan.log_level);
		unload(&got);
	}
}

static void
test_kind(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		ConfigKind want;
	} rows[] = {
		{"", CONFIG_UNKNOWN},
		{"- a\n", CONFIG_UNKNOWN},
		{"global: {}\nrest_listener: {}\n", CONFIG_UNKNOWN},
		{"sender: []\n", CONFIG_ROUTER},
		{"storage: {}\nendpoint: []\n", CONFIG_ROUTER},
		{"smtp_listener: {}\n", CONFIG_GATEWAY},
		{"rest_output: []\n", CONFIG_GATEWAY},
		{"smtp_listener: {}\nsender: []\n", CONFIG_UNKNOWN},
		{"smtp_listener: {}\nsender: []\nendpoint: []\n", CONFIG_ROUTER},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autoptr(YamlDoc) doc = yaml_load_text("t", rows[i].text, NULL);
		if (config_kind(yaml_root(doc)) != rows[i].want)
			fail_msg("%s", rows[i].text);
	}
	assert_int_equal(config_kind(NULL), CONFIG_UNKNOWN);
}

static void
test_missing_file(void **state)
{
	(void)state;
	g_autoptr(ConfReport) report = conf_report_new();
	assert_null(router_config_load("/nonexistent/r.yaml", report));
	assert_null(gateway_config_load("/nonexistent/g.yaml", report));
	g_autoptr(GString) text = g_string_new(NULL);
	conf_report_format(report, text);
	assert_non_null(strstr(text->str, "/nonexistent/r.yaml"));
	assert_non_null(strstr(text->str, "/nonexistent/g.yaml"));
	assert_int_equal(report->errors, 2);
}

static void
test_local_test(void **state)
{
	(void)state;
	Loaded router = load(CONFIG_ROUTER, local_test_router_yaml);
	assert_clean(&router);
	Loaded gateway = load(CONFIG_GATEWAY, local_test_gateway_yaml);
	assert_clean(&gateway);
	assert_int_equal(gateway.gateway->services->len, 2);
	assert_non_null(conf_model_sender(router.router->model, "submission", "msa"));
	assert_true(router_config_endpoint(router.router, "ingress_smtp")->chain->incremental);
	assert_false(router_config_endpoint(router.router, "ingress")->chain->incremental);
	unload(&router);
	unload(&gateway);
}

static void
test_doc(void **state)
{
	(void)state;
	g_autoptr(GString) out = g_string_new(NULL);
	config_doc(out);
	static const char *const wants[] = {
		"`mailer_daemon_mailbox`",
		"`session_uri`",
		"`gc_ttl`",
		"`output_chain`",
		"`receive_parsing`",
		"`bug_retry`",
		"`sync_filter`",
		"`ehlo_host`",
		"`auth_secrets`",
		"`verify`",
		"`body_memory`",
		"## filter: rest_output",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(wants); i++)
		if (strstr(out->str, wants[i]) == NULL)
			fail_msg("%s is not in the reference", wants[i]);
	for (const FilterKind *const *kind = filter_kinds(); *kind != NULL; kind++) {
		g_autofree char *title = g_strdup_printf("## filter: %s\n", (*kind)->name);
		assert_non_null(strstr(out->str, title));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_router_defaults),
		cmocka_unit_test(test_router_values),
		cmocka_unit_test(test_senders),
		cmocka_unit_test(test_rest_endpoints),
		cmocka_unit_test(test_router_oddities),
		cmocka_unit_test(test_router_problems),
		cmocka_unit_test(test_chain_problems),
		cmocka_unit_test(test_gateway_values),
		cmocka_unit_test(test_gateway_defaults),
		cmocka_unit_test(test_gateway_problems),
		cmocka_unit_test(test_logging),
		cmocka_unit_test(test_kind),
		cmocka_unit_test(test_missing_file),
		cmocka_unit_test(test_local_test),
		cmocka_unit_test(test_doc),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
