/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <glib.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "conf/yaml.h"

/* {key=value,...}, [a,b], ~ for null, quoted scalars in "". */
static void
render(const YamlNode *node, GString *out)
{
	switch (yaml_kind(node)) {
	case YAML_NULL:
		g_string_append_c(out, '~');
		break;
	case YAML_SCALAR:
		g_string_append_printf(out, yaml_is_quoted(node) ? "\"%s\"" : "%s",
				       yaml_text(node));
		break;
	case YAML_LIST:
		g_string_append_c(out, '[');
		for (unsigned i = 0; i < yaml_count(node); i++) {
			g_string_append(out, i > 0 ? "," : "");
			render(yaml_item(node, i), out);
		}
		g_string_append_c(out, ']');
		break;
	case YAML_MAP:
		g_string_append_c(out, '{');
		for (unsigned i = 0; i < yaml_count(node); i++) {
			g_string_append_printf(out, "%s%s=", i > 0 ? "," : "",
					       yaml_text(yaml_key(node, i)));
			render(yaml_value(node, i), out);
		}
		g_string_append_c(out, '}');
		break;
	}
}

static void
test_shapes(void **state)
{
	(void)state;
	static const struct {
		const char *name, *input, *want;
	} rows[] = {
		{"empty", "", "~"},
		{"only comments", "# nothing\n\n", "~"},
		{"scalar", "abc\n", "abc"},
		{"map in file order", "b: 1\na: 2\n", "{b=1,a=2}"},
		{"nulls", "a:\nb: ~\nc: null\nd: Null\ne: NULL\nf: ''\n",
		 "{a=~,b=~,c=~,d=~,e=~,f=\"\"}"},
		{"quoted null", "a: 'null'\nb: \"~\"\n", "{a=\"null\",b=\"~\"}"},
		{"list under a key, not indented", "a:\n- 1\n- x: y\n", "{a=[1,{x=y}]}"},
		{"flow", "a: [1, 'two', {b: c}]\n", "{a=[1,\"two\",{b=c}]}"},
		{"empty list items", "-\n- a\n-\n", "[~,a,~]"},
		{"empty containers", "a: []\nb: {}\n", "{a=[],b={}}"},
		{"trailing blanks", "a: x    \nb: y\n", "{a=x,b=y}"},
		{"key that looks like null", "null: a\n~: b\n", "{null=a,~=b}"},
		{"quotes in single quotes", "a: 'x''y'\nb: ''''\nc: '''a'''\n",
		 "{a=\"x'y\",b=\"'\",c=\"'a'\"}"},
		{"many quotes", "a: 'x''''y'\nb: 'x''''''yz'\nc: ''''''''''''''''''''''\n",
		 "{a=\"x''y\",b=\"x'''yz\",c=\"''''''''''\"}"},
		{"single quotes over lines",
		 "a: 'x  \n  y\n\n\n  z '\nb: 'x\r\n  y'\nc: '\n  x\n  '\n",
		 "{a=\"x y\n\nz \",b=\"x y\",c=\" x \"}"},
		{"double quotes over lines", "a: \"x  \n  y\n\n\n  z \"\nc: \"\n  x\n  \"\n",
		 "{a=\"x y\n\nz \",c=\" x \"}"},
		{"quoted empty key", "'': a\n", "{=a}"},
		{"block texts are strings", "a: |\n  x\n  y\nb: >-\n  1\n",
		 "{a=\"x\ny\n\",b=\"1\"}"},
		{"escapes", "a: \"\\u00e9\\t\"\n", "{a=\"\xc3\xa9\t\"}"},
		{"UTF-8 mark at the start",
		 "\xef\xbb\xbf"
		 "a: b\n",
		 "{a=b}"},
		{"CRLF", "a: b\r\nc: d\r\n", "{a=b,c=d}"},
		{"alias", "a: &x [1, 2]\nb: *x\n", "{a=[1,2],b=[1,2]}"},
		{"alias as key", "a: &x k\n*x : v\n", "{a=k,k=v}"},
		{"anchor is replaced", "a: &x 1\nb: &x 2\nc: *x\n", "{a=1,b=2,c=2}"},
		{"merge, own keys win", "a: &x {p: 1, q: 2}\nb:\n  q: 3\n  <<: *x\n",
		 "{a={p=1,q=2},b={q=3,p=1}}"},
		{"merge list, first wins", "a: &x {p: 1}\nb: &y {p: 2, q: 3}\nc:\n  <<: [*x, *y]\n",
		 "{a={p=1},b={p=2,q=3},c={p=1,q=3}}"},
		{"merge of a merge", "a: &x {p: 1}\nb: &y\n  <<: *x\n  q: 2\nc:\n  <<: *y\n",
		 "{a={p=1},b={q=2,p=1},c={q=2,p=1}}"},
		{"quoted << is a key", "'<<': a\n", "{<<=a}"},
		{"str tag", "a: !!str 5\nb: !!str\nc: !!int 5\n", "{a=\"5\",b=\"\",c=5}"},
		{"document marks", "---\na: b\n...\n", "{a=b}"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autoptr(GError) error = NULL;
		g_autoptr(YamlDoc) doc = yaml_load_text("t", rows[i].input, &error);
		if (doc == NULL)
			fail_msg("%s: %s", rows[i].name, error->message);
		g_autoptr(GString) got = g_string_new(NULL);
		render(yaml_root(doc), got);
		if (strcmp(got->str, rows[i].want) != 0)
			fail_msg("%s: got %s, want %s", rows[i].name, got->str, rows[i].want);
	}
}

static void
test_errors(void **state)
{
	(void)state;
	/* `want` is how the message starts. */
	static const struct {
		const char *input, *want;
	} rows[] = {
		{"a: 1\nb: 2\na: 3\n", "t:3:1: key 'a' stands twice"},
		{"a: {b: 1, 'b': 2}\n", "t:1:11: key 'b' stands twice"},
		{"a: [1, 2\nb: 3\n", "t:3:1: "},
		{"a:\n\t- b\n", "t:2:1: "},
		{"a: b: c\n", "t:1:5: "},
		{"a: \"abc\n", "t:1:"},
		{"a: @x\n", "t:1:4: "},
		{"a: *x\n", "t:1:4: alias '*x' has no anchor"},
		{"a: &x [1, *x]\n", "t:1:11: alias '*x' stands inside"},
		{"a: &x\n  <<: *x\n", "t:2:7: alias '*x' stands inside"},
		{"<<: 5\n", "t:1:5: '<<' takes a map"},
		{"<<: [{a: b}, 5]\n", "t:1:14: '<<' takes a map"},
		{"[a]: b\n", "t:1:1: a key must be a scalar, this is a list"},
		{"? {a: b}\n: c\n", "t:1:3: a key must be a scalar, this is a map"},
		{": x\n", "t:1:1: a key is missing"},
		{"a: !python/object x\n", "t:1:"},
		{"a: 1\n---\nb: 2\n", "t:2:1: a second document"},
		{"a: \"x\\0y\"\n", "t:1:4: a NUL byte"},
		{"a: b\nc: \xff\n", "t:2:4: not UTF-8"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autoptr(GError) error = NULL;
		YamlDoc *doc = yaml_load_text("t", rows[i].input, &error);
		if (doc != NULL)
			fail_msg("accepted: %s", rows[i].input);
		assert_true(g_error_matches(error, K_ERROR, K_ERROR_CONFIG));
		if (!g_str_has_prefix(error->message, rows[i].want))
			fail_msg("'%s': got '%s', want '%s'", rows[i].input, error->message,
				 rows[i].want);
	}
}

static void
test_places(void **state)
{
	(void)state;
	g_autoptr(YamlDoc) doc = yaml_load_text(
		"f.yaml", "a:\n  - 'x'\n  - k: {m: 1}\nempty:\nz: [\n 9]\n", NULL);
	assert_non_null(doc);
	const YamlNode *root = yaml_root(doc);
	const YamlNode *list = yaml_get(root, "a");
	const YamlNode *map = yaml_item(list, 1);
	assert_string_equal(yaml_where(list), "f.yaml:2:3");
	assert_string_equal(yaml_where(yaml_item(list, 0)), "f.yaml:2:5");
	assert_string_equal(yaml_where(yaml_key(map, 0)), "f.yaml:3:5");
	assert_string_equal(yaml_where(yaml_get(map, "k")), "f.yaml:3:8");
	assert_string_equal(yaml_where(yaml_get(root, "empty")), "f.yaml:4:1");
	assert_string_equal(yaml_where(yaml_item(yaml_get(root, "z"), 0)), "f.yaml:6:2");
	assert_int_equal(yaml_line(map), 3);
	assert_int_equal(yaml_column(map), 5);
	assert_string_equal(yaml_where(NULL), "");
	assert_int_equal(yaml_line(NULL), 0);
}

static void
test_reading_past(void **state)
{
	(void)state;
	g_autoptr(YamlDoc) doc = yaml_load_text("t", "a: [1]\n", NULL);
	const YamlNode *root = yaml_root(doc);
	assert_null(yaml_get(root, "b"));
	assert_null(yaml_get(yaml_get(root, "a"), "b"));
	assert_null(yaml_get(NULL, "b"));
	assert_null(yaml_item(root, 0));
	assert_null(yaml_item(yaml_get(root, "a"), 1));
	assert_null(yaml_key(root, 1));
	assert_null(yaml_value(root, 1));
	assert_null(yaml_text(root));
	assert_int_equal(yaml_kind(NULL), YAML_NULL);
	assert_int_equal(yaml_count(NULL), 0);
}

static const YamlNode *
only(YamlDoc *doc)
{
	return yaml_get(yaml_root(doc), "v");
}

static void
test_bools(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int want; /* -1: no boolean */
	} rows[] = {
		{"true", 1},  {"True", 1},       {"TRUE", 1},   {"yes", 1},     {"Yes", 1},
		{"YES", 1},   {"on", 1},         {"On", 1},     {"ON", 1},      {"false", 0},
		{"False", 0}, {"FALSE", 0},      {"no", 0},     {"No", 0},      {"NO", 0},
		{"off", 0},   {"Off", 0},        {"OFF", 0},    {"y", -1},      {"n", -1},
		{"tRue", -1}, {"1", -1},         {"'yes'", -1}, {"\"no\"", -1}, {"null", -1},
		{"[]", -1},   {"!!str yes", -1},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree char *text = g_strdup_printf("v: %s\n", rows[i].text);
		g_autoptr(YamlDoc) doc = yaml_load_text("t", text, NULL);
		bool value = rows[i].want == 0;
		bool ok = yaml_bool(only(doc), &value);
		if (ok != (rows[i].want >= 0) || (ok && value != (rows[i].want == 1)))
			fail_msg("%s: %d %d", rows[i].text, ok, value);
	}
}

static void
test_numbers(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool is_int;
		int64_t whole;
		bool is_double;
		double real;
	} rows[] = {
		{"0", true, 0, true, 0},
		{"42", true, 42, true, 42},
		{"-7", true, -7, true, -7},
		{"+7", true, 7, true, 7},
		{"1_000", true, 1000, true, 1000},
		{"0x1f", true, 31, true, 31},
		{"010", true, 8, true, 8},
		{"0b101", true, 5, true, 5},
		{"9223372036854775807", true, INT64_MAX, true, 9223372036854775807.0},
		{"-9223372036854775808", true, INT64_MIN, true, -9223372036854775808.0},
		{"9223372036854775808", false, 0, true, 9223372036854775808.0},
		{"09", false, 0, true, 9},
		{"1.5", false, 0, true, 1.5},
		{".5", false, 0, true, 0.5},
		{"-2.50", false, 0, true, -2.5},
		{"1e3", false, 0, true, 1000},
		{"1e999", false, 0, false, 0},
		{".inf", false, 0, false, 0},
		{".nan", false, 0, false, 0},
		{"inf", false, 0, false, 0},
		{"0x", false, 0, false, 0},
		{"_1", false, 0, false, 0},
		{"+", false, 0, false, 0},
		{"1:30", false, 0, false, 0},
		{"12abc", false, 0, false, 0},
		{"'42'", false, 0, false, 0},
		{"yes", false, 0, false, 0},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree char *text = g_strdup_printf("v: %s\n", rows[i].text);
		g_autoptr(YamlDoc) doc = yaml_load_text("t", text, NULL);
		int64_t whole = 99;
		double real = 99;
		bool is_int = yaml_int(only(doc), &whole);
		bool is_double = yaml_double(only(doc), &real);
		if (is_int != rows[i].is_int || whole != (is_int ? rows[i].whole : 99))
			fail_msg("%s as int: %d %" PRId64, rows[i].text, is_int, whole);
		if (is_double != rows[i].is_double || real != (is_double ? rows[i].real : 99))
			fail_msg("%s as double: %d %f", rows[i].text, is_double, real);
	}
}

static void
expect_load(const char *name, const GString *text, bool want, const char *message)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(YamlDoc) doc = yaml_load_text("t", text->str, &error);
	if ((doc != NULL) != want)
		fail_msg("%s: %s", name, error != NULL ? error->message : "accepted");
	if (!want && strstr(error->message, message) == NULL)
		fail_msg("%s: %s", name, error->message);
}

static void
test_limits(void **state)
{
	(void)state;
	g_autoptr(GString) text = g_string_new("#");
	g_string_set_size(text, YAML_SIZE_MAX);
	memset(text->str, ' ', text->len);
	text->str[0] = '#';
	expect_load("size at the cap", text, true, NULL);
	g_string_append_c(text, ' ');
	expect_load("size past the cap", text, false, "larger than");

	for (int past = 0; past < 2; past++) {
		g_string_truncate(text, 0);
		for (int i = 0; i < YAML_DEPTH_MAX + past; i++)
			g_string_append_c(text, '[');
		for (int i = 0; i < YAML_DEPTH_MAX + past; i++)
			g_string_append_c(text, ']');
		expect_load("depth", text, past == 0, "nested deeper than");

		g_string_assign(text, "[a");
		for (int i = 2; i < YAML_NODES_MAX + past; i++)
			g_string_append(text, ",a");
		g_string_append_c(text, ']');
		expect_load("nodes", text, past == 0, "more than 100000 nodes");

		/* 1 list, `v` and its list of 998, 99 aliases of 999 each: 2 + ... */
		g_string_assign(text, "- &x [a");
		for (int i = 1; i < 998 + past; i++)
			g_string_append(text, ",a");
		g_string_append_c(text, ']');
		for (int i = 0; i < 99; i++)
			g_string_append(text, "\n- *x");
		/* 1 + 100 * 999 = 99901, and with one more element 1 + 100 * 1000 = 100001 */
		expect_load("nodes behind aliases", text, past == 0, "with aliases expanded");
	}
}

static void
test_bombs(void **state)
{
	(void)state;
	g_autoptr(GString) text = g_string_new("- &a0 [x,x,x,x,x,x,x,x,x]\n");
	for (int i = 1; i < 40; i++) {
		g_string_append_printf(text, "- &a%d [", i);
		for (int j = 0; j < 9; j++)
			g_string_append_printf(text, "%s*a%d", j > 0 ? "," : "", i - 1);
		g_string_append(text, "]\n");
	}
	expect_load("aliases of aliases", text, false, "with aliases expanded");

	g_string_assign(text, "- &m {");
	for (int i = 0; i < 2000; i++)
		g_string_append_printf(text, "%sk%d: v", i > 0 ? "," : "", i);
	g_string_append(text, "}\n");
	for (int i = 0; i < 1000; i++)
		g_string_append(text, "- {<<: *m}\n");
	expect_load("merges", text, false, "too much");
}

static void
test_files(void **state)
{
	(void)state;
	g_autofree char *dir = g_strdup("/tmp/koukan-yaml-XXXXXX");
	assert_non_null(g_mkdtemp(dir));
	g_autofree char *path = g_build_filename(dir, "a.yaml", NULL);
	g_autoptr(GError) error = NULL;
	assert_null(yaml_load_file(path, &error));
	assert_true(g_str_has_prefix(error->message, path));
	assert_non_null(strstr(error->message, "cannot open"));
	g_clear_error(&error);
	assert_null(yaml_load_file(dir, &error));
	assert_non_null(strstr(error->message, "cannot read"));
	g_clear_error(&error);
	assert_true(g_file_set_contents(path, "a: [\n", -1, NULL));
	assert_null(yaml_load_file(path, &error));
	g_autofree char *want = g_strdup_printf("%s:2:1: ", path);
	assert_true(g_str_has_prefix(error->message, want));
	g_clear_error(&error);
	assert_true(g_file_set_contents(path, "a: b\n", -1, NULL));
	g_autoptr(YamlDoc) doc = yaml_load_file(path, &error);
	assert_non_null(doc);
	assert_string_equal(yaml_text(yaml_get(yaml_root(doc), "a")), "b");
	g_unlink(path);
	rmdir(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes), cmocka_unit_test(test_errors),
		cmocka_unit_test(test_places), cmocka_unit_test(test_reading_past),
		cmocka_unit_test(test_bools),  cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_limits), cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_files),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
