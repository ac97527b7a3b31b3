/* SPDX-License-Identifier: Apache-2.0 */
/* Shared objects as filters, matchers and routing policies: tests/unit/plugin/trial.c, loaded the
 * way `modules:` loads them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "filter/plugin.h"
#include "harness.h"

#define END "- {filter: exploder}\n"
#define MESSAGE                                                                                    \
	"From: <alice@example.com>\r\nSubject: one\r\nX-Long: a\r\n b\r\nSubject: two\r\n\r\n"     \
	"body\r\n"

static char *modules_dir;

static void
destroy(void *plugin)
{
	filter_plugin_free(plugin);
}

/* ---- loading ---- */

static FilterPlugin *
load(PluginKind kind, const char *alias, const char *text, ConfReport *report)
{
	g_autofree char *line = g_strdup_printf("m: {%s: '%s'}", alias, text);
	g_autofree char *file = g_build_filename(modules_dir, "router.yaml", NULL);
	g_autoptr(YamlDoc) doc = yaml_load_text(file, line, NULL);
	assert_non_null(doc);
	const YamlNode *entry = yaml_get(yaml_get(yaml_root(doc), "m"), alias);
	return filter_plugin_load(kind, alias, entry, report);
}

typedef struct LoadCase {
	const char *alias, *text;
	PluginKind kind;
	const char *want; /* part of the problem; NULL: it loads */
} LoadCase;

static const LoadCase load_cases[] = {
	{"trial", "./trial_good.so", PLUGIN_FILTER, NULL},
	{"trial", "trial_good.so", PLUGIN_POLICY, NULL},
	{"mine", "trial_good.so:trial", PLUGIN_MATCHER, NULL},
	{"mine", "trial_good.so", PLUGIN_FILTER, "trial plug-in has no filter 'mine'"},
	{"mine", "trial_good.so:envelope", PLUGIN_MATCHER, "has no matcher 'envelope'"},
	{"m", "trial_good.so:flagged", PLUGIN_FILTER, "flags 0x1 are not known"},
	{"m", "trial_good.so:short", PLUGIN_FILTER, "a description of 16 bytes, at least"},
	{"m", "trial_good.so:empty", PLUGIN_POLICY, "needs `route`"},
	{"m", "trial_good.so:empty", PLUGIN_MATCHER, "needs `match`"},
	{"trial", "trial_newer.so", PLUGIN_FILTER,
	 "made for version 2 of the plug-in interface, this is version 1"},
	{"trial", "trial_short.so", PLUGIN_FILTER, "describes itself badly"},
	{"trial", "trial_unwilling.so", PLUGIN_FILTER, "refuses to work with this version"},
	{"trial", "trial_no_entry.so", PLUGIN_FILTER, "no function koukan_plugin_entry"},
	{"trial", "trial_absent.so", PLUGIN_FILTER, "No such file or directory"},
	{"trial", "/", PLUGIN_FILTER, "no regular file"},
	{"trial", "./text.so", PLUGIN_FILTER, "file too short"},
};

static void
test_load(void **state)
{
	(void)state;
	g_autofree char *text = g_build_filename(modules_dir, "text.so", NULL);
	assert_true(g_file_set_contents(text, "no object", -1, NULL));
	for (size_t i = 0; i < G_N_ELEMENTS(load_cases); i++) {
		const LoadCase *c = &load_cases[i];
		g_autoptr(ConfReport) report = conf_report_new();
		FilterPlugin *plugin = load(c->kind, c->alias, c->text, report);
		if (c->want == NULL) {
			if (plugin == NULL)
				fail_msg("%s: %s", c->text,
					 ((ConfProblem *)report->problems->pdata[0])->text);
			assert_string_equal(plugin->plugin->alias, c->alias);
			filter_plugin_free(plugin);
			continue;
		}
		assert_null(plugin);
		assert_int_equal(report->errors, 1);
		const ConfProblem *problem = g_ptr_array_index(report->problems, 0);
		if (strstr(problem->text, c->want) == NULL)
			fail_msg("%s: %s, not %s", c->text, problem->text, c->want);
		assert_non_null(strstr(problem->where, "router.yaml:1:"));
	}
	g_unlink(text);
}

/* Who else may write the file or its folder could have put the code there. */
static void
test_permissions(void **state)
{
	(void)state;
	static const struct {
		mode_t file, folder;
		const char *want;
	} cases[] = {
		{0644, 0755, NULL},
		{0600, 0700, NULL},
		{0664, 0775, NULL}, /* a group is somebody's decision */
		{0646, 0755, "everybody may write it (mode 0646)"},
		{0777, 0755, "everybody may write it"},
		{0644, 0777, "everybody may write its folder (mode 0777)"},
		{0644, 01777, NULL}, /* as /tmp: nobody else may replace it */
	};
	g_autofree char *from = g_build_filename(modules_dir, "trial_good.so", NULL);
	g_autofree char *folder = g_dir_make_tmp("koukan-plugin-XXXXXX", NULL);
	g_autofree char *path = g_build_filename(folder, "mine.so", NULL);
	g_autofree char *bytes = NULL;
	gsize len = 0;
	assert_true(g_file_get_contents(from, &bytes, &len, NULL));
	assert_true(g_file_set_contents(path, bytes, (gssize)len, NULL));
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(ConfReport) report = conf_report_new();
		assert_int_equal(chmod(path, cases[i].file), 0);
		assert_int_equal(chmod(folder, cases[i].folder), 0);
		FilterPlugin *plugin = load(PLUGIN_FILTER, "trial", path, report);
		if (cases[i].want != NULL) {
			const ConfProblem *problem = g_ptr_array_index(report->problems, 0);
			assert_null(plugin);
			assert_non_null(strstr(problem->text, cases[i].want));
		} else {
			assert_non_null(plugin);
		}
		filter_plugin_free(plugin);
	}
	g_unlink(path);
	g_rmdir(folder);
}

static void
test_is_path(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool want;
	} cases[] = {
		{"koukan.hello_filter", false},
		{"koukan.hello_matcher:match", false},
		{"some.module:function", false},
		{"mine.so", true},
		{"mine.so:name", true},
		{"./mine", true},
		{"/usr/lib/mine.so:name", true},
		{".so", false},
		{"lib.sod", false},
		{"a:b/c", true},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		if (plugin_is_path(cases[i].text) != cases[i].want)
			fail_msg("%s", cases[i].text);
	}
}

/* ---- in a chain ---- */

typedef struct World {
	Harness *h;
	GPtrArray *plugins;
	FilterModules modules;
} World;

static World
world_new(void)
{
	static const struct {
		PluginKind kind;
		const char *alias, *text;
	} all[] = {
		{PLUGIN_FILTER, "trial", "trial_good.so"},
		{PLUGIN_FILTER, "envelope", "trial_good.so"},
		{PLUGIN_FILTER, "facts", "trial_good.so"},
		{PLUGIN_FILTER, "unopened", "trial_good.so"},
		{PLUGIN_POLICY, "mine", "trial_good.so:trial"},
		{PLUGIN_MATCHER, "mine", "trial_good.so:trial"},
	};
	World w = {.h = harness_new(), .plugins = g_ptr_array_new_with_free_func(destroy)};
	for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
		g_ptr_array_add(w.plugins,
				load(all[i].kind, all[i].alias, all[i].text, w.h->report));
	assert_int_equal(w.h->report->errors, 0);
	w.modules.filters = w.modules.policies = w.modules.matchers = g_hash_table_new(g_str_hash,
										       g_str_equal);
	w.modules.plugins = w.plugins;
	harness_sender(w.h, "submission", NULL);
	harness_endpoint(w.h, "gateway", "http://gateway/", "router");
	harness_endpoint(w.h, "other", "http://other/", "router");
	return w;
}

static void
world_conf(World *w, const char *yaml)
{
	GError *error = NULL;
	w->h->doc = yaml_load_text("test", yaml, &error);
	if (w->h->doc == NULL)
		fail_msg("%s", error->message);
	w->h->conf = chain_conf_new("test", yaml_root(w->h->doc), w->h->model, &w->modules,
				    w->h->report);
}

static void
world_start(World *w, const char *yaml)
{
	world_conf(w, yaml);
	for (guint i = 0; i < w->h->report->problems->len; i++) {
		const ConfProblem *problem = g_ptr_array_index(w->h->report->problems, i);
		fail_msg("%s: %s: %s", yaml, problem->where, problem->text);
	}
	harness_start(w->h);
}

static void
world_free(World *w)
{
	harness_free(w->h);
	g_ptr_array_unref(w->plugins);
	g_hash_table_unref(w->modules.filters);
}

/* What the next node got as message; NULL: none. */
static char *
sent(World *w)
{
	if (w->h->opened->len == 0 || harness_port(w->h, 0)->tx->body == NULL)
		return NULL;
	const Tx *tx = harness_port(w->h, 0)->tx;
	assert_true(tx_body_is_final(tx->body));
	size_t len;
	return blob_to_string(tx->body->raw, 10000000, &len, NULL);
}

typedef struct FilterCase {
	const char *conf;
	const char *mail, *bob, *data; /* answers; "-": none by the filter */
	const char *fields;            /* how the message begins that goes on; NULL: it does not */
} FilterCase;

#define FAILED "451 4.3.0 a check failed here; please try again later"
#define SAYS   "5.7.1 says the trial"
#define OK_    "250"
static const FilterCase filter_cases[] = {
	{"trial", OK_, OK_, "-", "From:"},
	{"trial, fields: 1", OK_, OK_, "-", "NNNNNNN: vvvvv\r\nFrom:"},
	{"trial, at: mail, fields: 1", OK_, OK_, "-", "NNNNNNN: vvvvv\r\nFrom:"},
	{"trial, at: rcpt, fields: 2", OK_, OK_, "-", "NNNNNNN: vvvvv\r\nNNNNNNN: vvvvv\r\nFrom:"},
	{"envelope, at: rcpt, fields: 1", OK_, OK_, "-", "NNNNNNN: vvvvv\r\nFrom:"},
	{"trial, fields: 1, value: 'Grüße'", OK_, OK_, "-",
	 "NNNNNNN: =?utf-8?B?R3LDvMOfZQ==?=\r\nFrom:"},
	/* limits: at them and one past */
	{"trial, fields: 100", OK_, OK_, "-", "NNNNNNN: vvvvv\r\n"},
	{"trial, fields: 101, expect: -3", OK_, OK_, "-", "NNNNNNN: vvvvv\r\n"},
	{"trial, fields: 1, name_len: 76", OK_, OK_, "-", "NNNNNNNN"},
	{"trial, fields: 1, name_len: 77, expect: -2", OK_, OK_, "-", "From:"},
	{"trial, fields: 1, name_len: 0, expect: -2", OK_, OK_, "-", "From:"},
	{"trial, fields: 1, value_len: 16384", OK_, OK_, "-", "NNNNNNN: vvvvvvvvv"},
	{"trial, fields: 1, value_len: 16385, expect: -2", OK_, OK_, "-", "From:"},
	{"trial, fields: 1, value: CRLF, expect: -2", OK_, OK_, "-", "From:"},
	/* answers */
	{"trial, answer: 550", OK_, OK_, "550 " SAYS, NULL},
	{"trial, answer: 400", OK_, OK_, "400 " SAYS, NULL},
	{"trial, answer: 599", OK_, OK_, "599 " SAYS, NULL},
	{"trial, answer: 399, expect: -2", OK_, OK_, "-", "From:"},
	{"trial, answer: 600, expect: -2", OK_, OK_, "-", "From:"},
	{"trial, at: rcpt, answer: 450", OK_, "450 " SAYS, "-", "From:"},
	{"trial, at: mail, answer: 550", "550 " SAYS, "-", "-", NULL},
	/* failures */
	{"trial, result: -1", OK_, OK_, FAILED, NULL},
	{"trial, result: 7", OK_, OK_, FAILED, NULL},
	{"trial, at: rcpt, result: -1", OK_, FAILED, "-", "From:"},
	{"trial, at: mail, result: -1", FAILED, "-", "-", NULL},
	{"unopened", OK_, OK_, FAILED, NULL},
};

/* The next node takes sender and recipients; then comes the message. */
static void
drive(World *w)
{
	Harness *h = w->h;
	harness_mail(h, "alice@example.com");
	harness_turn(h);
	harness_rcpt(h, "carol@example.com");
	harness_rcpt(h, "bob@example.com");
	harness_turn(h);
	for (guint i = 0; i < h->opened->len; i++) {
		Tx *up = harness_port(h, i)->tx;
		tx_answer_mail(up, response_new(250, "ok"));
		for (size_t rcpt = 0; rcpt < tx_rcpt_count(up); rcpt++)
			tx_answer_rcpt(up, rcpt, response_new(250, "ok"));
	}
	harness_turn(h);
	harness_body(h, MESSAGE);
	harness_turn(h);
}

/* "250" is any 250, "-" whatever comes of the others' answers. */
static void
check_response(const char *what, const Response *response, const char *want)
{
	g_autofree char *got = harness_text(response);
	if (strcmp(want, "-") != 0 && !g_str_has_prefix(got, want))
		fail_msg("%s: %s, not %s", what, got, want);
}

static void
test_filter(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(filter_cases); i++) {
		const FilterCase *c = &filter_cases[i];
		World w = world_new();
		g_autofree char *yaml = g_strdup_printf("- {filter: %s}\n" END, c->conf);
		print_message("%s\n", c->conf);
		world_start(&w, yaml);
		drive(&w);
		Tx *tx = w.h->tx;
		check_response(c->conf, tx->mail_response, c->mail);
		check_response(c->conf, tx_rcpt(tx, 1)->response, c->bob);
		check_response(c->conf, tx->data_response, c->data);
		g_autofree char *got = sent(&w);
		if (c->fields == NULL)
			assert_null(got);
		else if (got == NULL || !g_str_has_prefix(got, c->fields))
			fail_msg("%s: %s", c->conf, got);
		if (got != NULL && !g_str_has_suffix(got, MESSAGE))
			fail_msg("%s: the message itself has changed", c->conf);
		world_free(&w);
	}
}

static void
test_field_count(void **state)
{
	(void)state;
	World w = world_new();
	world_start(&w, "- {filter: trial, fields: 101, expect: -3}\n" END);
	drive(&w);
	g_autofree char *got = sent(&w);
	assert_non_null(got);
	size_t count = 0;
	for (const char *p = got; g_str_has_prefix(p, "NNNNNNN: "); p = strchr(p, '\n') + 1)
		count++;
	assert_int_equal(count, 100);
	world_free(&w);
}

static const char *const facts[] = {
	"X-Text: remote_host=192.0.2.1\r\n",
	"X-Text: local_host=192.0.2.9\r\n",
	"X-Text: ehlo=client.example\r\n",
	"X-Text: auth_user=alice\r\n",
	"X-Text: tls_version=TLSv1.3\r\n",
	"X-Text: tls_cipher=(none)\r\n",
	"X-Text: tls_peer=(none)\r\n",
	"X-Text: mail_from=alice@example.com\r\n",
	"X-Text: rcpt=(none)\r\n",
	"X-Text: sender=submission\r\n",
	"X-Text: tag=msa\r\n",
	"X-Number: 0=4711\r\n",
	"X-Number: 1=1\r\n",
	"X-Number: 2=0\r\n",
	"X-Number: 3=2\r\n",
	"X-Number: 5=4\r\n",
	"X-Number: 6=-4\r\n",
	"X-Field: From|<alice@example.com>\r\n",
	"X-Field: X-Long|a b\r\n",
	"X-Read: 4 0 2\r\n",
	"X-Head: From\r\n",
	"X-Second: two\r\n",
	"X-Rcpt: bob@example.com\r\n",
	"X-Past: none\r\n",
	"X-Signal: (none)\r\n",
	"X-Conf: {\"result\":0,\"endpoint\":\"e\"}\r\n",
	"X-Route: not here\r\n",
};

static void
test_facts(void **state)
{
	(void)state;
	World w = world_new();
	world_start(&w, "- {filter: facts, result: 0, endpoint: e}\n" END);
	g_autoptr(HostPort) remote = host_port_new("192.0.2.1", 4711);
	g_autoptr(HostPort) local = host_port_new("192.0.2.9", 25);
	tx_set_hosts(w.h->tx, remote, local);
	g_autoptr(json_t)
		meta = json_pack("{s:s, s:b, s:b, s:s, s:s}", "ehlo_host", "client.example", "tls",
				 1, "auth", 0, "auth_user", "alice", "tls_version", "TLSv1.3");
	tx_set_smtp_meta(w.h->tx, meta);
	drive(&w);
	g_autofree char *got = sent(&w);
	assert_non_null(got);
	for (size_t i = 0; i < G_N_ELEMENTS(facts); i++) {
		if (strstr(got, facts[i]) == NULL)
			fail_msg("no %s in\n%s", facts[i], got);
	}
	g_autofree char *size = g_strdup_printf("X-Number: 4=%zu\r\n", strlen(MESSAGE));
	assert_non_null(strstr(got, size));
	world_free(&w);
}

/* A filter that does not judge the message lets it flow. */
static void
test_flow(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		bool flows;
	} cases[] = {{"envelope", true}, {"trial", false}};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		World w = world_new();
		g_autofree char *yaml = g_strdup_printf("- {filter: %s, at: mail, fields: 1}\n" END,
							cases[i].name);
		world_start(&w, yaml);
		g_autoptr(Blob) blob = blob_new(NULL);
		g_autoptr(TxBody) body = tx_body_new_raw(blob);
		assert_true(blob_append(blob, "From: a\r\n", 9, NULL));
		harness_mail(w.h, "alice@example.com");
		harness_rcpt(w.h, "bob@example.com");
		tx_set_body(w.h->tx, body);
		harness_turn(w.h);
		const Tx *up = harness_port(w.h, 0)->tx;
		assert_int_equal(up->body != NULL, cases[i].flows);
		assert_true(blob_append(blob, "\r\nx\r\n", 5, NULL));
		blob_finalize(blob);
		tx_note_body(w.h->tx);
		harness_turn(w.h);
		g_autofree char *got = sent(&w);
		assert_string_equal(got, "NNNNNNN: vvvvv\r\nFrom: a\r\n\r\nx\r\n");
		world_free(&w);
	}
}

/* ---- configuration ---- */

static void
test_conf_problems(void **state)
{
	(void)state;
	static const struct {
		const char *entry, *where, *want;
	} cases[] = {
		{"{filter: trial, refuse: yes}", "test:1:3",
		 "plug-in trial plug-in refuses this configuration"},
		{"{filter: trial, answer: soon}", "test:1:27",
		 "'answer' must be a whole number, not text 'soon'"},
		{"{filter: trial, refuse: 7}", "test:1:27", "'refuse' must be yes or no"},
		{"{filter: trial, feilds: 7}", "test:1:19",
		 "unknown key 'feilds', did you mean 'fields'?"},
		{"{filter: policy_action, tag: t, match: {matcher: mine, answer: x}}", "test:1:66",
		 "'answer' must be a whole number"},
		{"{filter: router, policy: {name: mine, refuse: on}}", "test:1:28",
		 "refuses this configuration"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		World w = world_new();
		g_autofree char *yaml = g_strdup_printf("- %s\n" END, cases[i].entry);
		world_conf(&w, yaml);
		assert_true(w.h->report->problems->len > 0);
		const ConfProblem *problem = g_ptr_array_index(w.h->report->problems, 0);
		if (strcmp(problem->where, cases[i].where) != 0 ||
		    strstr(problem->text, cases[i].want) == NULL)
			fail_msg("%s: %s: %s", cases[i].entry, problem->where, problem->text);
		world_free(&w);
	}
}

/* ---- matchers and policies ---- */

static void
test_matcher(void **state)
{
	(void)state;
	static const struct {
		const char *conf, *mail;
	} cases[] = {
		{"result: 0", OK_},
		{"result: 1", "550 no"},
		{"result: 2", OK_},
		{"result: 1, answer: 550", "550 no"}, /* a matcher does not answer */
		{"result: 1, fields: 1", "550 no"},
		{"result: 3", "450 internal error: OutputHandler failed to populate response"},
		{"result: -1", "450 internal error: OutputHandler failed to populate response"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		World w = world_new();
		g_autofree char *yaml = g_strdup_printf(
			"- {filter: policy_action, tag: t, match: {matcher: mine, %s}, "
			"action: REJECT, message: 'no'}\n" END,
			cases[i].conf);
		world_start(&w, yaml);
		harness_mail(w.h, "alice@example.com");
		harness_turn(w.h);
		check_response(cases[i].conf, w.h->tx->mail_response, cases[i].mail);
		world_free(&w);
	}
}

typedef struct PolicyCase {
	const char *conf;
	const char *rcpt; /* answer; "-": routed or left alone */
	const char *url;  /* of the route; NULL: none */
	unsigned hosts;
} PolicyCase;

#define ROUTING_FAILED "451 4.3.0 routing failed here; please try again later"
#define CATCH_ALL      "550 5.1.1 mailbox does not exist (RecipientRouterFilter null policy)"
static const PolicyCase policy_cases[] = {
	{"result: 0", CATCH_ALL, NULL, 0},
	{"result: 1, destination: {endpoint: gateway, host_list: [{host: h, port: 1}]}", "-",
	 "http://gateway/", 1},
	{"result: 1, endpoint: other", "-", "http://other/", 0},
	{"result: 1, endpoint: other, destination: {endpoint: gateway}", "-", "http://other/", 0},
	{"result: 1, endpoint: absent", ROUTING_FAILED, NULL, 0},
	{"result: 1, hosts: 2, destination: {endpoint: gateway}", "-", "http://gateway/", 2},
	{"result: 1, hosts: 20, destination: {endpoint: gateway}", "-", "http://gateway/", 20},
	{"result: 1, hosts: 21, expect: -3, destination: {endpoint: gateway}", "-",
	 "http://gateway/", 20},
	{"result: 2, answer: 551", "551 5.1.1 not here", NULL, 0},
	{"result: 2", ROUTING_FAILED, NULL, 0},
	{"result: -1", ROUTING_FAILED, NULL, 0},
	{"result: 9", ROUTING_FAILED, NULL, 0},
};

static void
test_policy(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(policy_cases); i++) {
		const PolicyCase *c = &policy_cases[i];
		World w = world_new();
		g_autofree char *yaml = g_strdup_printf(
			"- {filter: router, policy: {name: mine, %s}}\n"
			"- {filter: router}\n- {filter: rest_output}\n",
			c->conf);
		print_message("%s\n", c->conf);
		world_start(&w, yaml);
		harness_mail(w.h, "alice@example.com");
		harness_rcpt(w.h, "bob@example.com");
		harness_body(w.h, MESSAGE);
		harness_turn(w.h);
		assert_response(tx_rcpt(w.h->tx, 0)->response, c->rcpt);
		assert_int_equal(w.h->opened->len, c->url != NULL);
		if (c->url != NULL)
			assert_string_equal(harness_port(w.h, 0)->url, c->url);
		world_free(&w);
	}
}

/* A dry run refuses, but sets no route. */
static void
test_dry_run(void **state)
{
	(void)state;
	static const struct {
		const char *conf, *rcpt;
	} cases[] = {
		{"result: 1, endpoint: other", "-"},
		{"result: 2, answer: 550", "550 5.1.1 not here"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		World w = world_new();
		g_autofree char *yaml = g_strdup_printf(
			"- {filter: router, dry_run: true, policy: {name: mine, %s}}\n" END,
			cases[i].conf);
		world_start(&w, yaml);
		harness_mail(w.h, "alice@example.com");
		harness_rcpt(w.h, "bob@example.com");
		harness_turn(w.h);
		assert_response(tx_rcpt(w.h->tx, 0)->response, cases[i].rcpt);
		if (w.h->opened->len > 0)
			assert_null(harness_port(w.h, 0)->tx->route);
		world_free(&w);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_load),        cmocka_unit_test(test_permissions),
		cmocka_unit_test(test_is_path),     cmocka_unit_test(test_filter),
		cmocka_unit_test(test_field_count), cmocka_unit_test(test_facts),
		cmocka_unit_test(test_flow),        cmocka_unit_test(test_conf_problems),
		cmocka_unit_test(test_matcher),     cmocka_unit_test(test_policy),
		cmocka_unit_test(test_dry_run),
	};
	g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
	g_autofree char *folder = g_path_get_dirname(self);
	modules_dir = g_build_filename(folder, "plugin", NULL);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	g_free(modules_dir);
	return failed;
}
