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

#include "base/clock.h"
#include "conf/model.h"
#include "conf/schema.h"

typedef struct Thing {
	bool flag;
	bool soft;
	int64_t count;
	int64_t tries;
	Usec wait;
	Usec life;
	int64_t size;
	double factor;
	char *name;
	char *must;
	int color;
	GPtrArray *words;
	HostPort *addr;
	HostPort *hop;
	GPtrArray *hops;
	const YamlNode *raw;
	char *verify;
} Thing;

static const char *const colors[] = {"red", "green", "blue", NULL};

#define AT(member) .offset = CONF_KEY(Thing, member)
static const ConfKey keys[] = {
	{.name = "flag", .type = CONF_BOOL, AT(flag), .def = "yes", .doc = "A flag."},
	{.name = "soft", .type = CONF_BOOL, AT(soft), .flags = CONF_NULL_OK},
	{.name = "count", .type = CONF_INT, AT(count), .def = "5", .min = 1, .max = 10},
	{.name = "tries",
	 .type = CONF_INT,
	 AT(tries),
	 .def = "30",
	 .min = 0,
	 .max = 1000,
	 .flags = CONF_UNLIMITED},
	{.name = "wait", .type = CONF_SECONDS, AT(wait), .def = "1.5", .doc = "Time | to wait."},
	{.name = "life", .type = CONF_SECONDS, AT(life), .def = "null", .flags = CONF_UNLIMITED},
	{.name = "size", .type = CONF_SIZE, AT(size), .def = "64k"},
	{.name = "factor", .type = CONF_DOUBLE, AT(factor), .def = "1.5", .min = 0, .max = 100},
	{.name = "name", .type = CONF_STRING, AT(name), .def = "koukan"},
	{.name = "must", .type = CONF_STRING, AT(must), .flags = CONF_REQUIRED},
	{.name = "color", .type = CONF_ENUM, AT(color), .def = "green", .names = colors},
	{.name = "words", .type = CONF_STRINGS, AT(words)},
	{.name = "addr", .type = CONF_ADDR, AT(addr), .def = "localhost:8000"},
	{.name = "hop", .type = CONF_HOSTPORT, AT(hop)},
	{.name = "hops", .type = CONF_HOSTPORTS, AT(hops)},
	{.name = "raw", .type = CONF_NODE, AT(raw)},
	{.name = "verify", .type = CONF_VERIFY, AT(verify), .def = "yes"},
	{.name = "old", .type = CONF_IGNORED},
	{.name = "part", .type = CONF_SECTION},
	{0},
};

typedef struct Loaded {
	YamlDoc *doc;
	ConfReport *report;
	Thing thing;
	bool ok;
} Loaded;

static Loaded
load(const char *text)
{
	Loaded out = {.report = conf_report_new()};
	out.doc = yaml_load_text("t", text, NULL);
	assert_non_null(out.doc);
	out.report->fallback = g_strdup("t");
	static const char *const extra[] = {"filter", NULL};
	out.ok = conf_fill(&out.thing, keys, yaml_root(out.doc), extra, out.report);
	return out;
}

static void
unload(Loaded *loaded)
{
	conf_clear(&loaded->thing, keys);
	conf_report_free(loaded->report);
	yaml_doc_free(loaded->doc);
}

static void
test_defaults(void **state)
{
	(void)state;
	Loaded got = load("must: here\n");
	assert_true(got.ok);
	assert_int_equal(got.report->problems->len, 0);
	const Thing *thing = &got.thing;
	assert_true(thing->flag);
	assert_false(thing->soft);
	assert_int_equal(thing->count, 5);
	assert_int_equal(thing->tries, 30);
	assert_int_equal(thing->wait, 1500 * USEC_PER_MS);
	assert_int_equal(thing->life, -1);
	assert_int_equal(thing->size, 65536);
	assert_true(thing->factor == 1.5);
	assert_string_equal(thing->name, "koukan");
	assert_string_equal(thing->must, "here");
	assert_int_equal(thing->color, 1);
	assert_int_equal(thing->words->len, 0);
	assert_string_equal(thing->addr->host, "localhost");
	assert_int_equal(thing->addr->port, 8000);
	assert_null(thing->hop);
	assert_int_equal(thing->hops->len, 0);
	assert_null(thing->raw);
	assert_null(thing->verify);
	unload(&got);
}

static void
test_values(void **state)
{
	(void)state;
	Loaded got = load("filter: known to somebody else\n"
			  "flag: no\nsoft: on\ncount: 10\ntries: 0\nwait: 2\nlife: 0.25\nsize: 3M\n"
			  "factor: 0\nname: 5\nmust: yes\ncolor: blue\nwords: [a, 'b', 3]\n"
			  "addr: ['', 0]\nhop: {host: h}\n"
			  "hops:\n- {host: a, port: 1}\n- {host: b, port: 65535}\n"
			  "raw: {x: y}\nverify: ca.pem\nold: {anything: at all}\npart: []\n");
	GString *text = g_string_new(NULL);
	conf_report_format(got.report, text);
	assert_string_equal(text->str, "");
	g_string_free(text, TRUE);
	const Thing *thing = &got.thing;
	assert_false(thing->flag);
	assert_true(thing->soft);
	assert_int_equal(thing->count, 10);
	assert_int_equal(thing->tries, 0);
	assert_int_equal(thing->wait, 2 * USEC_PER_SEC);
	assert_int_equal(thing->life, 250 * USEC_PER_MS);
	assert_int_equal(thing->size, 3 * 1024 * 1024);
	assert_true(thing->factor == 0);
	assert_string_equal(thing->name, "5");
	assert_string_equal(thing->must, "yes");
	assert_int_equal(thing->color, 2);
	assert_int_equal(thing->words->len, 3);
	assert_string_equal(thing->words->pdata[2], "3");
	assert_string_equal(thing->addr->host, "");
	assert_int_equal(thing->addr->port, 0);
	assert_string_equal(thing->hop->host, "h");
	assert_int_equal(thing->hop->port, 25);
	assert_int_equal(thing->hops->len, 2);
	assert_int_equal(((HostPort *)thing->hops->pdata[1])->port, 65535);
	assert_int_equal(yaml_kind(thing->raw), YAML_MAP);
	assert_string_equal(thing->verify, "ca.pem");
	unload(&got);
}

static void
test_nulls(void **state)
{
	(void)state;
	Loaded got = load("must: x\nsoft:\ncount:\ntries:\nwait:\nlife: 5\nname:\nwords:\naddr:\n"
			  "hops: ~\nraw:\nverify: null\ncolor:\n");
	assert_true(got.ok);
	assert_int_equal(got.report->problems->len, 0);
	assert_int_equal(got.thing.count, 5);
	assert_int_equal(got.thing.tries, -1);
	assert_int_equal(got.thing.wait, 1500 * USEC_PER_MS);
	assert_string_equal(got.thing.name, "koukan");
	assert_int_equal(got.thing.words->len, 0);
	assert_non_null(got.thing.addr);
	assert_non_null(got.thing.raw);
	assert_int_equal(yaml_kind(got.thing.raw), YAML_NULL);
	unload(&got);

	got = load("must: x\nverify: no\n");
	assert_string_equal(got.thing.verify, "");
	unload(&got);
	got = load("must: x\nverify: on\n");
	assert_null(got.thing.verify);
	unload(&got);
}

static void
test_problems(void **state)
{
	(void)state;
	/* One line of YAML each (`must` comes first), and what is reported. */
	static const struct {
		const char *input, *want;
	} rows[] = {
		{"flag: maybe", "t:2:7: error: 'flag' must be yes or no, not text 'maybe'\n"},
		{"flag: 1", "t:2:7: error: 'flag' must be yes or no, not number '1'\n"},
		{"flag: 'yes'", "t:2:7: error: 'flag' must be yes or no, not text 'yes'\n"},
		{"flag:", "t:2:1: error: 'flag' must be yes or no, not nothing\n"},
		{"count: many", "t:2:8: error: 'count' must be a whole number, not text 'many'\n"},
		{"count: 1.5", "t:2:8: error: 'count' must be a whole number, not number '1.5'\n"},
		{"count: '5'", "t:2:8: error: 'count' must be a whole number, not text '5'\n"},
		{"count: [5]", "t:2:8: error: 'count' must be a whole number, not a list\n"},
		{"count: 1", ""},
		{"count: 0", "t:2:8: error: 'count' must be between 1 and 10, not 0\n"},
		{"count: 10", ""},
		{"count: 11", "t:2:8: error: 'count' must be between 1 and 10, not 11\n"},
		{"wait: -1", "t:2:7: error: 'wait' must be between 0 and 9000000000, not -1\n"},
		{"wait: 9000000000", ""},
		{"wait: 9000000001",
		 "t:2:7: error: 'wait' must be between 0 and 9000000000, not 9000000001\n"},
		{"wait: soon",
		 "t:2:7: error: 'wait' must be a number of seconds, not text 'soon'\n"},
		{"size: 5T",
		 "t:2:7: error: 'size' must be a number of bytes (or with k, M, G), not text '5T'\n"},
		{"size: k", "t:2:7: error: 'size' must be a number of bytes (or with k, M, G), not "
			    "text 'k'\n"},
		{"factor: x", "t:2:9: error: 'factor' must be a number, not text 'x'\n"},
		{"name: {}", "t:2:7: error: 'name' must be text, not a map\n"},
		{"color: gren", "t:2:8: error: 'color' must be one of red, green, blue, not text "
				"'gren'; did you mean 'green'?\n"},
		{"color: [red]",
		 "t:2:8: error: 'color' must be one of red, green, blue, not a list\n"},
		{"words: a", "t:2:8: error: 'words' must be a list, not text 'a'\n"},
		{"words: [a, [b], c]",
		 "t:2:12: error: 'words' must be a list of texts; here is a list\n"},
		{"addr: localhost", "t:2:7: error: 'addr' must be a list of host and port, as in "
				    "[localhost, 8000], not text 'localhost'\n"},
		{"addr: [localhost, 65536]",
		 "t:2:19: error: a port must be a number between 0 and 65535, not number '65536'\n"},
		{"addr: [localhost]", "t:2:7: error: 'addr' must be a list of host and port, as in "
				      "[localhost, 8000], not a list\n"},
		{"hop: x", "t:2:6: error: a map with host and port is wanted, not text 'x'\n"},
		{"hop: {port: 5}", "t:2:6: error: key 'host' is missing\n"},
		{"hop: {host: a, prt: 5}",
		 "t:2:16: warning: key 'prt' is not known here and ignored; did you mean 'port'?\n"},
		{"hops: {host: a}", "t:2:7: error: 'hops' must be a list of maps with host and "
				    "port, not a map\n"},
		{"verify: []", "t:2:9: error: 'verify' must be yes, no or the path of a CA file, "
			       "not a list\n"},
		{"cuont: 3",
		 "t:2:1: warning: key 'cuont' is not known here and ignored; did you mean 'count'?\n"},
		{"entirely_new: 3",
		 "t:2:1: warning: key 'entirely_new' is not known here and ignored\n"},
		{"name: ok", ""},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree char *input = g_strdup_printf("must: x\n%s\n", rows[i].input);
		Loaded got = load(input);
		g_autoptr(GString) text = g_string_new(NULL);
		conf_report_format(got.report, text);
		if (strcmp(text->str, rows[i].want) != 0)
			fail_msg("%s:\n got %s\nwant %s", rows[i].input, text->str, rows[i].want);
		bool want_ok = strstr(rows[i].want, "error") == NULL;
		assert_int_equal(got.ok, want_ok);
		assert_int_equal(got.report->errors, want_ok ? 0 : 1);
		unload(&got);
	}
}

static void
test_required_and_kinds(void **state)
{
	(void)state;
	static const struct {
		const char *input, *want;
	} rows[] = {
		{"count: 3\n", "t:1:1: error: key 'must' is missing\n"},
		{"must:\n", "t:1:1: error: 'must' needs a value\n"},
		{"", "t:1:1: error: key 'must' is missing\n"},
		{"[a]\n", "t:1:1: error: keys and values are wanted here, not a list\n"},
		{"word\n", "t:1:1: error: keys and values are wanted here, not text 'word'\n"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		Loaded got = load(rows[i].input);
		g_autoptr(GString) text = g_string_new(NULL);
		conf_report_format(got.report, text);
		assert_string_equal(text->str, rows[i].want);
		assert_int_equal(got.thing.count, i == 0 ? 3 : 5); /* the rest has its defaults */
		unload(&got);
	}
	ConfReport *report = conf_report_new();
	Thing thing = {0};
	assert_false(conf_fill(&thing, keys, NULL, NULL, report));
	assert_string_equal(((ConfProblem *)report->problems->pdata[0])->where, "-");
	conf_clear(&thing, keys);
	conf_report_free(report);
}

static void
test_many_at_once(void **state)
{
	(void)state;
	Loaded got = load("cuont: 1\nwait: x\nmust: y\ncolor: rot\n");
	conf_report_sort(got.report);
	g_autoptr(GString) text = g_string_new(NULL);
	conf_report_format(got.report, text);
	assert_string_equal(
		text->str,
		"t:1:1: warning: key 'cuont' is not known here and ignored; did you mean "
		"'count'?\n"
		"t:2:7: error: 'wait' must be a number of seconds, not text 'x'\n"
		"t:4:8: error: 'color' must be one of red, green, blue, not text 'rot'\n");
	assert_int_equal(got.report->errors, 2);

	ConfReport *other = conf_report_new();
	conf_report_move(other, got.report, true);
	assert_int_equal(got.report->problems->len, 0);
	assert_int_equal(got.report->errors, 0);
	assert_int_equal(other->problems->len, 3);
	assert_int_equal(other->errors, 0);
	conf_error(got.report, NULL, "more");
	conf_report_move(other, got.report, false);
	assert_int_equal(other->errors, 1);
	conf_report_free(other);
	unload(&got);
}

static void
test_doc(void **state)
{
	(void)state;
	g_autoptr(GString) out = g_string_new(NULL);
	conf_doc(out, "things", "What they are.", keys);
	static const char *const wants[] = {
		"## things\n\nWhat they are.\n\n| key | type | default | range | meaning |\n",
		"| `flag` | yes/no | yes |  | A flag. |\n",
		"| `count` | number | 5 | 1 to 10 |",
		"| `tries` | number | 30 | 0 to 1000, null: no limit |",
		"| `wait` | seconds | 1.5 |  | Time \\| to wait. |\n",
		"| `must` | text | required |",
		"| `color` | choice | green | red, green, blue |",
		"| `words` | list of texts | empty |",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(wants); i++)
		if (strstr(out->str, wants[i]) == NULL)
			fail_msg("missing '%s' in\n%s", wants[i], out->str);
	for (int type = 0; type < CONF_TYPES; type++)
		assert_string_not_equal(conf_type_name((ConfType)type), "?");
}

static SenderConf *
add_sender(GPtrArray *list, const char *name, const char *tag)
{
	SenderConf *sender = sender_conf_new();
	sender->name = g_strdup(name);
	sender->tag = g_strdup(tag);
	g_ptr_array_add(list, sender);
	return sender;
}

static void
test_model(void **state)
{
	(void)state;
	ConfModel *model = conf_model_new();
	SenderConf *plain = add_sender(model->senders, "plain", NULL);
	SenderConf *tagged = add_sender(model->senders, "tagged", NULL);
	tagged->has_tags = true;
	SenderConf *a = add_sender(tagged->tags, "tagged", "a");
	RestEndpointConf *endpoint = rest_endpoint_conf_new();
	endpoint->name = g_strdup("gw");
	assert_int_equal(endpoint->max_inline, 65536);
	g_ptr_array_add(model->rest_endpoints, endpoint);

	assert_ptr_equal(conf_model_sender(model, "plain", NULL), plain);
	assert_ptr_equal(conf_model_sender(model, "plain", "any"), plain);
	assert_ptr_equal(conf_model_sender(model, "tagged", NULL), tagged);
	assert_ptr_equal(conf_model_sender(model, "tagged", "a"), a);
	assert_null(conf_model_sender(model, "tagged", "b"));
	assert_null(conf_model_sender(model, "nobody", NULL));
	assert_ptr_equal(conf_model_rest_endpoint(model, "gw"), endpoint);
	assert_null(conf_model_rest_endpoint(model, "other"));
	conf_model_free(model);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_nulls),
		cmocka_unit_test(test_problems),
		cmocka_unit_test(test_required_and_kinds),
		cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_doc),
		cmocka_unit_test(test_model),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
