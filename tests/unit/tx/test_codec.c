/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "tx/codec.h"

static json_t *
parse(const char *text)
{
	g_autoptr(GError) error = NULL;
	json_t *json = json_parse("test", text, strlen(text), &error);
	if (json == NULL)
		fail_msg("%s: %s", text, error->message);
	return json;
}

/* Prints and releases. */
static char *
print(json_t *json)
{
	char *text = json_print(json);
	json_decref(json);
	return text;
}

static void
load(Tx *tx, const char *text, TxCodec codec)
{
	g_autoptr(json_t) json = parse(text);
	g_autoptr(GError) error = NULL;
	if (!tx_from_json(tx, json, codec, NULL, &error))
		fail_msg("%s: %s", text, error->message);
}

static void
load_attempt(Tx *tx, const char *text)
{
	g_autoptr(json_t) json = parse(text);
	g_autoptr(GError) error = NULL;
	if (!tx_attempt_from_json(tx, json, &error))
		fail_msg("%s: %s", text, error->message);
}

static const TxUris URIS = {"http://router-0:8000/x?y", "https://router.example"};

/* ---- round trips ---- */

static const struct {
	const char *name;
	TxCodec codec;
	const char *json;
} ROUND_TRIPS[] = {
	{"create, everything", TX_JSON_CREATE,
	 "{\"remote_host\":[\"198.51.100.7\",48920],\"local_host\":[\"192.0.2.1\",25],"
	 "\"mail_from\":{\"m\":\"a@example.org\",\"e\":[{\"k\":\"SIZE\",\"p\":\"276\"}]},"
	 "\"rcpt_to\":[{\"m\":\"b@x\"},{\"m\":\"c@x\"}],"
	 "\"smtp_meta\":{\"ehlo_host\":\"mx\",\"esmtp\":true,\"tls\":false,\"auth\":null},"
	 "\"sender\":{\"name\":\"ingress\",\"tag\":\"smtp-mx\"}}"},
	{"create, nothing", TX_JSON_CREATE, "{}"},
	{"create, tag alone", TX_JSON_CREATE, "{\"sender\":{\"tag\":\"t\"}}"},
	{"create, null reverse-path", TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"\"}}"},
	{"create, parameter without value", TX_JSON_CREATE,
	 "{\"mail_from\":{\"m\":\"a\",\"e\":[{\"k\":\"SMTPUTF8\"},{\"k\":\"X\",\"p\":\"\"}]}}"},
	{"create, UTF-8", TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"j\xc3\xb6rg@x\"}}"},
	{"create, address literal v6", TX_JSON_CREATE, "{\"remote_host\":[\"2001:db8::1\",65535]}"},
	{"create, port 0", TX_JSON_CREATE, "{\"local_host\":[\"\",0]}"},
	{"store, everything", TX_JSON_STORE,
	 "{\"remote_host\":[\"198.51.100.7\",1],\"local_host\":[\"192.0.2.1\",25],"
	 "\"mail_from\":{\"m\":\"a@x\"},\"rcpt_to\":[{\"m\":\"b@x\"}],"
	 "\"notification\":{},\"retry\":{\"x\":1},\"smtp_meta\":{},\"cancelled\":true,"
	 "\"sender\":{\"name\":\"s\"}}"},
};

static void
test_round_trips(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(ROUND_TRIPS); i++) {
		g_autoptr(Tx) tx = tx_new(NULL);
		load(tx, ROUND_TRIPS[i].json, ROUND_TRIPS[i].codec);
		g_autofree char *got = print(tx_to_json(tx, ROUND_TRIPS[i].codec, NULL, NULL));
		if (strcmp(got, ROUND_TRIPS[i].json) != 0)
			fail_msg("%s: %s", ROUND_TRIPS[i].name, got);
	}
}

/* One tx with everything, as each audience sees it. */
static Tx *
full_tx(void)
{
	Tx *tx = tx_new(NULL);
	load(tx,
	     "{\"remote_host\":[\"h\",1],\"mail_from\":{\"m\":\"a@x\"},"
	     "\"rcpt_to\":[{\"m\":\"b@x\"},{\"m\":\"c@x\"},{\"m\":\"d@x\"}],"
	     "\"smtp_meta\":{\"tls\":true},\"sender\":{\"name\":\"s\",\"tag\":\"t\"}}",
	     TX_JSON_CREATE);
	tx_enable_retry(tx, NULL);
	tx_begin_attempt(tx);
	tx_answer_mail(tx, response_new(250, "m"));
	tx_answer_rcpt(tx, 0, response_new(250, "r0"));
	tx_answer_rcpt(tx, 2, response_new(550, "r2"));
	tx_answer_data(tx, response_new(451, NULL));
	tx_set_filter_output(tx, "koukan.f", json_pack("{s:i}", "v", 1));
	tx_cancel(tx);
	tx_finish(tx, "downstream cancelled");
	return tx;
}

static void
test_audiences(void **state)
{
	(void)state;
	static const char *const WANT[TX_JSON_CODECS] = {
		[TX_JSON_CREATE] =
			"{\"remote_host\":[\"h\",1],\"mail_from\":{\"m\":\"a@x\"},"
			"\"rcpt_to\":[{\"m\":\"b@x\"},{\"m\":\"c@x\"},{\"m\":\"d@x\"}],"
			"\"smtp_meta\":{\"tls\":true},\"sender\":{\"name\":\"s\",\"tag\":\"t\"},"
			"\"filter_output\":{\"koukan.f\":{\"v\":1}}}",
		[TX_JSON_UPDATE] = "{\"mail_from\":{\"m\":\"a@x\"},"
				   "\"rcpt_to\":[{\"m\":\"b@x\"},{\"m\":\"c@x\"},{\"m\":\"d@x\"}],"
				   "\"filter_output\":{\"koukan.f\":{\"v\":1}}}",
		/* The second recipient is not answered: the list ends before it. */
		[TX_JSON_READ] = "{\"remote_host\":[\"h\",1],\"mail_from\":{},"
				 "\"mail_response\":{\"code\":250,\"message\":\"m\"},"
				 "\"rcpt_to\":[{},{},{}],"
				 "\"rcpt_response\":[{\"code\":250,\"message\":\"r0\"}],"
				 "\"data_response\":{\"code\":451,\"message\":\"temporary error\"},"
				 "\"attempt_count\":1,\"retry\":{},\"cancelled\":true,"
				 "\"final_attempt_reason\":\"downstream cancelled\",\"sender\":{}}",
		[TX_JSON_STORE] = "{\"remote_host\":[\"h\",1],\"mail_from\":{\"m\":\"a@x\"},"
				  "\"rcpt_to\":[{\"m\":\"b@x\"},{\"m\":\"c@x\"},{\"m\":\"d@x\"}],"
				  "\"retry\":{},\"smtp_meta\":{\"tls\":true},\"cancelled\":true,"
				  "\"sender\":{\"name\":\"s\",\"tag\":\"t\"}}",
		[TX_JSON_ATTEMPT] =
			"{\"mail_response\":{\"code\":250,\"message\":\"m\"},"
			"\"rcpt_response\":[{\"code\":250,\"message\":\"r0\"},null,"
			"{\"code\":550,\"message\":\"r2\"}],"
			"\"data_response\":{\"code\":451,\"message\":\"temporary error\"},"
			"\"filter_output\":{\"koukan.f\":{\"v\":1}}}",
	};
	g_autoptr(Tx) tx = full_tx();
	const TxMark zero = {0};
	for (int codec = 0; codec < TX_JSON_CODECS; codec++) {
		g_autofree char *got = print(tx_to_json(
			tx, (TxCodec)codec, codec == TX_JSON_UPDATE ? &zero : NULL, &URIS));
		if (strcmp(got, WANT[codec]) != 0)
			fail_msg("%d: %s", codec, got);
	}
}

static void
test_read_gaps(void **state)
{
	(void)state;
	/* First unanswered: no array at all rather than an empty one. */
	g_autoptr(Tx) tx = tx_new(NULL);
	load(tx, "{\"rcpt_to\":[{\"m\":\"b@x\"},{\"m\":\"c@x\"}]}", TX_JSON_CREATE);
	tx_answer_rcpt(tx, 1, response_new(550, NULL));
	g_autofree char *got = print(tx_to_json(tx, TX_JSON_READ, NULL, NULL));
	assert_string_equal(got, "{\"rcpt_to\":[{},{}]}");
	g_autoptr(Tx) empty = tx_new(NULL);
	g_autofree char *none = print(tx_to_json(empty, TX_JSON_READ, NULL, &URIS));
	assert_string_equal(none, "{}");
}

static void
test_attempt_round_trip(void **state)
{
	(void)state;
	g_autoptr(Tx) tx = full_tx();
	g_autofree char *text = print(tx_to_json(tx, TX_JSON_ATTEMPT, NULL, NULL));
	g_autoptr(Tx) back = tx_new(NULL);
	load(back, "{\"rcpt_to\":[{\"m\":\"b@x\"},{\"m\":\"c@x\"},{\"m\":\"d@x\"}]}",
	     TX_JSON_CREATE);
	load_attempt(back, text);
	g_autofree char *again = print(tx_to_json(back, TX_JSON_ATTEMPT, NULL, NULL));
	assert_string_equal(text, again);
	assert_int_equal(back->rcpt_answers, 2);
	/* Later output of a filter does not reach into JSON made before. */
	g_autoptr(json_t) before = tx_to_json(back, TX_JSON_ATTEMPT, NULL, NULL);
	tx_set_filter_output(back, "other", json_true());
	assert_int_equal(json_object_size(json_object_get(before, "filter_output")), 1);
}

static void
test_update_marks(void **state)
{
	(void)state;
	g_autoptr(Tx) tx = tx_new(NULL);
	load(tx, "{\"mail_from\":{\"m\":\"a@x\"}}", TX_JSON_CREATE);
	TxMark mark;
	tx_mark(tx, &mark);
	g_autofree char *none = print(tx_to_json(tx, TX_JSON_UPDATE, &mark, NULL));
	assert_string_equal(none, "{}");
	load(tx, "{\"rcpt_to\":[{\"m\":\"b@x\"}]}", TX_JSON_UPDATE);
	g_autofree char *first = print(tx_to_json(tx, TX_JSON_UPDATE, &mark, NULL));
	assert_string_equal(first, "{\"rcpt_to\":[{\"m\":\"b@x\"}]}");
	tx_mark(tx, &mark);
	load(tx, "{\"rcpt_to\":[{\"m\":\"c@x\"},{\"m\":\"d@x\"}],\"rcpt_to_list_offset\":1}",
	     TX_JSON_UPDATE);
	g_autofree char *more = print(tx_to_json(tx, TX_JSON_UPDATE, &mark, NULL));
	assert_string_equal(
		more, "{\"rcpt_to_list_offset\":1,\"rcpt_to\":[{\"m\":\"c@x\"},{\"m\":\"d@x\"}]}");
	tx_mark(tx, &mark);
	tx_set_filter_output(tx, "f", json_object());
	g_autofree char *output = print(tx_to_json(tx, TX_JSON_UPDATE, &mark, NULL));
	assert_string_equal(output, "{\"filter_output\":{\"f\":{}}}");
	tx_mark(tx, &mark);
	tx_heartbeat(tx);
	g_autofree char *ping = print(tx_to_json(tx, TX_JSON_UPDATE, &mark, NULL));
	assert_string_equal(ping, "{}");
}

/* Bytes that are not UTF-8 come in over SMTP; JSON must come out all the same. */
static void
test_not_utf8(void **state)
{
	(void)state;
	g_autoptr(Mailbox) mailbox = mailbox_new("a\xff@x", NULL, 0);
	g_autofree char *text = print(mailbox_to_json(mailbox));
	assert_string_equal(text, "{\"m\":\"a\xef\xbf\xbd@x\"}");
}

/* ---- strictness of requests ---- */

#define LONG_KEY "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"

static const struct {
	TxCodec codec;
	const char *json;
	const char *error; /* part of the text; NULL: accepted */
} STRICT[] = {
	{TX_JSON_CREATE, "[]", "no JSON object"},
	{TX_JSON_CREATE, "3", "no JSON object"},
	{TX_JSON_CREATE, "{\"x\":1}", "x: not valid here"},
	{TX_JSON_CREATE, "{\"" LONG_KEY "\":1}", "not valid here"},
	{TX_JSON_CREATE, "{\"mail_from\":null}", "mail_from: null"},
	{TX_JSON_CREATE, "{\"body\":null}", "body: null"},
	{TX_JSON_CREATE, "{\"rcpt_to\":[]}", "rcpt_to: empty array"},
	{TX_JSON_CREATE, "{\"remote_host\":[]}", "remote_host: empty array"},
	{TX_JSON_CREATE, "{\"mail_response\":{\"code\":250}}", "not valid here"},
	{TX_JSON_CREATE, "{\"rcpt_response\":[{\"code\":250}]}", "not valid here"},
	{TX_JSON_CREATE, "{\"data_response\":{\"code\":250}}", "not valid here"},
	{TX_JSON_CREATE, "{\"attempt_count\":1}", "not valid here"},
	{TX_JSON_CREATE, "{\"retry\":{}}", "not valid here"},
	{TX_JSON_CREATE, "{\"notification\":{}}", "not valid here"},
	{TX_JSON_CREATE, "{\"cancelled\":true}", "not valid here"},
	{TX_JSON_CREATE, "{\"final_attempt_reason\":\"x\"}", "not valid here"},
	{TX_JSON_CREATE, "{\"rcpt_to_list_offset\":0}", "not valid here"},
	{TX_JSON_CREATE, "{\"filter_output\":{\"f\":{}}}", NULL},
	{TX_JSON_CREATE, "{\"filter_output\":3}", "filter_output: no object"},
	{TX_JSON_CREATE, "{\"smtp_meta\":\"x\"}", "smtp_meta: no object"},
	{TX_JSON_CREATE, "{\"body\":{\"inline\":\"x\"}}", NULL},
	{TX_JSON_CREATE, "{\"body\":17}", NULL}, /* not recognised, no body */

	{TX_JSON_CREATE, "{\"mail_from\":{}}", "mail_from: mailbox: no valid \"m\""},
	{TX_JSON_CREATE, "{\"mail_from\":\"a@x\"}", "no valid \"m\""},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":1}}", "no valid \"m\""},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":null}}", "no valid \"m\""},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a@x\\r\\nRSET\"}}", "no valid \"m\""},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\\u007f@x\"}}", "no valid \"m\""},
	{TX_JSON_CREATE, "{\"rcpt_to\":{\"m\":\"a@x\"}}", "rcpt_to: no array"},
	{TX_JSON_CREATE, "{\"rcpt_to\":[{\"m\":\"a@x\"},{}]}", "rcpt_to: mailbox: no valid \"m\""},
	{TX_JSON_CREATE, "{\"rcpt_to\":[null]}", "no valid \"m\""},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":\"x\"}}", NULL}, /* ignored */
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":{\"k\":\"x\"}}}", NULL},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":null}}", NULL},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[]}}", NULL},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"x\":1}}", NULL},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[{\"k\":\"A\",\"p\":null}]}}", NULL},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[{\"k\":\"A\",\"p\":\"b=c\"}]}}", NULL},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[{}]}}", "without valid \"k\""},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[{\"p\":\"x\"}]}}", "without valid"},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[null]}}", "without valid \"k\""},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[\"SIZE\"]}}", "without valid \"k\""},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[{\"k\":\"\"}]}}", "without valid"},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[{\"k\":\"A B\"}]}}", "without valid"},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[{\"k\":\"A=B\"}]}}", "without valid"},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[{\"k\":\"A\",\"p\":1}]}}",
	 "bad value"},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[{\"k\":\"A\",\"p\":\"1 B=2\"}]}}",
	 "bad value"},
	{TX_JSON_CREATE, "{\"mail_from\":{\"m\":\"a\",\"e\":[{\"k\":\"A\",\"p\":\"1\\n\"}]}}",
	 "bad value"},

	{TX_JSON_CREATE, "{\"remote_host\":{\"host\":\"h\",\"port\":1}}",
	 "not a [host, port] pair"},
	{TX_JSON_CREATE, "{\"remote_host\":\"h:1\"}", "not a [host, port] pair"},
	{TX_JSON_CREATE, "{\"remote_host\":[\"h\"]}", "not a [host, port] pair"},
	{TX_JSON_CREATE, "{\"remote_host\":[\"h\",1,2]}", "not a [host, port] pair"},
	{TX_JSON_CREATE, "{\"remote_host\":[1,\"h\"]}", "not a [host, port] pair"},
	{TX_JSON_CREATE, "{\"remote_host\":[\"h\",\"25\"]}", "not a [host, port] pair"},
	{TX_JSON_CREATE, "{\"remote_host\":[\"h\",25.0]}", "not a [host, port] pair"},
	{TX_JSON_CREATE, "{\"remote_host\":[\"h\",-1]}", "not a [host, port] pair"},
	{TX_JSON_CREATE, "{\"remote_host\":[\"h\",65536]}", "not a [host, port] pair"},
	{TX_JSON_CREATE, "{\"local_host\":[\"h\\n\",1]}", "local_host: not a"},

	{TX_JSON_CREATE, "{\"sender\":{}}", NULL},
	{TX_JSON_CREATE, "{\"sender\":{\"name\":\"s\"}}", NULL},
	{TX_JSON_CREATE, "{\"sender\":[\"s\"]}", "sender: no object"},
	{TX_JSON_CREATE, "{\"sender\":{\"name\":\"s\",\"x\":1}}",
	 "tx json sender may only contain name,tag"},
	{TX_JSON_CREATE, "{\"sender\":{\"yaml\":{}}}", "may only contain name,tag"},
	{TX_JSON_CREATE, "{\"sender\":{\"name\":1}}", "name or tag is no string"},
	{TX_JSON_CREATE, "{\"sender\":{\"tag\":null}}", "name or tag is no string"},

	{TX_JSON_UPDATE, "{}", NULL},
	{TX_JSON_UPDATE, "{\"body\":{\"inline\":\"\"}}", NULL},
	{TX_JSON_UPDATE, "{\"anything_list_offset\":7}", NULL},
	{TX_JSON_UPDATE, "{\"anything_list_offset\":null}", "null"},
	{TX_JSON_UPDATE, "{\"rcpt_to_list_offset\":-1}", "no offset"},
	{TX_JSON_UPDATE, "{\"rcpt_to_list_offset\":\"0\"}", "no offset"},
	{TX_JSON_UPDATE, "{\"rcpt_to_list_offset\":0.5}", "no offset"},
	{TX_JSON_UPDATE, "{\"remote_host\":[\"h\",1]}", "not valid here"},
	{TX_JSON_UPDATE, "{\"local_host\":[\"h\",1]}", "not valid here"},
	{TX_JSON_UPDATE, "{\"smtp_meta\":{}}", "not valid here"},
	{TX_JSON_UPDATE, "{\"sender\":{}}", "not valid here"},
	{TX_JSON_UPDATE, "{\"cancelled\":true}", "not valid here"},
	{TX_JSON_UPDATE, "{\"retry\":{}}", "not valid here"},
	{TX_JSON_UPDATE, "{\"notification\":{}}", "not valid here"},

	{TX_JSON_STORE, "{\"body\":{}}", "not valid here"},
	{TX_JSON_STORE, "{\"filter_output\":{}}", "not valid here"},
	{TX_JSON_STORE, "{\"mail_response\":{\"code\":250}}", "not valid here"},
	{TX_JSON_STORE, "{\"cancelled\":\"yes\"}", "cancelled: no boolean"},
	{TX_JSON_STORE, "{\"cancelled\":false}", NULL},
	{TX_JSON_STORE, "{\"retry\":1}", "retry: no object"},
};

static void
test_strict(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(STRICT); i++) {
		g_autoptr(Tx) tx = tx_new(NULL);
		g_autoptr(json_t) json = parse(STRICT[i].json);
		g_autoptr(GError) error = NULL;
		TxRequest request = {0};
		bool ok = tx_from_json(tx, json, STRICT[i].codec, &request, &error);
		if (ok != (STRICT[i].error == NULL))
			fail_msg("%s: %s", STRICT[i].json, ok ? "accepted" : error->message);
		if (!ok && (!g_error_matches(error, K_ERROR, K_ERROR_INPUT) ||
			    strstr(error->message, STRICT[i].error) == NULL))
			fail_msg("%s: %s", STRICT[i].json, error->message);
		if (!ok && tx->version != 1)
			fail_msg("%s: changed the transaction", STRICT[i].json);
		tx_request_clear(&request);
	}
}

static void
test_rcpts_max(void **state)
{
	(void)state;
	static const struct {
		TxCodec codec;
		size_t n;
		bool want;
	} CASES[] = {
		{TX_JSON_CREATE, TX_RCPTS_MAX, true},
		{TX_JSON_CREATE, TX_RCPTS_MAX + 1, false},
		{TX_JSON_CREATE, TX_RCPTS_MAX + 1000, false},
		{TX_JSON_STORE, TX_RCPTS_MAX + 1, true}, /* has been accepted once */
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autoptr(json_t) json = json_object();
		json_t *list = json_array();
		json_object_set_new(json, "rcpt_to", list);
		for (size_t k = 0; k < CASES[i].n; k++)
			json_array_append_new(list, json_pack("{s:s}", "m", "a@x"));
		g_autoptr(Tx) tx = tx_new(NULL);
		assert_int_equal(tx_from_json(tx, json, CASES[i].codec, NULL, NULL), CASES[i].want);
		assert_int_equal(tx_rcpt_count(tx), CASES[i].want ? CASES[i].n : 0);
	}
	/* Step by step. */
	g_autoptr(Tx) tx = tx_new(NULL);
	g_autoptr(Mailbox) to = mailbox_new("a@x", NULL, 0);
	for (int i = 0; i < TX_RCPTS_MAX - 1; i++)
		tx_add_rcpt(tx, to);
	g_autoptr(json_t)
		one = parse("{\"rcpt_to\":[{\"m\":\"b@x\"}],\"rcpt_to_list_offset\":999}");
	assert_true(tx_update_check(tx, one, NULL));
	g_autoptr(json_t) two = parse(
		"{\"rcpt_to\":[{\"m\":\"b@x\"},{\"m\":\"c@x\"}],\"rcpt_to_list_offset\":999}");
	g_autoptr(GError) error = NULL;
	assert_false(tx_update_check(tx, two, &error));
	assert_true(g_error_matches(error, K_ERROR, K_ERROR_INPUT));
}

static void
test_update_check(void **state)
{
	(void)state;
	static const struct {
		size_t present;
		const char *json;
		int code; /* -1: fine */
	} CASES[] = {
		{0, "{\"rcpt_to\":[{\"m\":\"b\"}]}", -1},
		{0, "{\"rcpt_to\":[{\"m\":\"b\"}],\"rcpt_to_list_offset\":0}", -1},
		{0, "{\"rcpt_to\":[{\"m\":\"b\"}],\"rcpt_to_list_offset\":1}", K_ERROR_CONFLICT},
		{2, "{\"rcpt_to\":[{\"m\":\"b\"}],\"rcpt_to_list_offset\":2}", -1},
		{2, "{\"rcpt_to\":[{\"m\":\"b\"}],\"rcpt_to_list_offset\":1}", K_ERROR_CONFLICT},
		{2, "{\"rcpt_to\":[{\"m\":\"b\"}],\"rcpt_to_list_offset\":3}", K_ERROR_CONFLICT},
		{2, "{\"rcpt_to\":[{\"m\":\"b\"}]}", K_ERROR_CONFLICT}, /* absent is 0 */
		{2, "{\"rcpt_to_list_offset\":7}", -1},                 /* nothing to place */
		{2, "{\"mail_from\":{\"m\":\"b\"}}", -1},
		{2, "{\"rcpt_to\":[{}],\"rcpt_to_list_offset\":7}", K_ERROR_INPUT},
		{2, "{\"x\":1}", K_ERROR_INPUT},
		{2, "{}", -1},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autoptr(Tx) tx = tx_new(NULL);
		g_autoptr(Mailbox) to = mailbox_new("a@x", NULL, 0);
		for (size_t k = 0; k < CASES[i].present; k++)
			tx_add_rcpt(tx, to);
		uint64_t version = tx->version;
		g_autoptr(json_t) json = parse(CASES[i].json);
		g_autoptr(GError) error = NULL;
		bool ok = tx_update_check(tx, json, &error);
		if ((ok ? -1 : error->code) != CASES[i].code)
			fail_msg("%zu %s: %s", i, CASES[i].json, ok ? "ok" : error->message);
		assert_int_equal(tx->version, version);
	}
}

static void
test_repeats_are_ignored(void **state)
{
	(void)state;
	g_autoptr(Tx) tx = tx_new(NULL);
	tx_set_sender(tx, "from-url", "t");
	load(tx, "{\"mail_from\":{\"m\":\"a@x\"},\"sender\":{\"name\":\"other\"}}", TX_JSON_CREATE);
	assert_string_equal(tx->sender_name, "from-url");
	load(tx, "{\"mail_from\":{\"m\":\"b@x\"},\"rcpt_to\":[{\"m\":\"c@x\"}]}", TX_JSON_UPDATE);
	assert_string_equal(tx->mail_from->addr, "a@x");
	assert_int_equal(tx_rcpt_count(tx), 1);
}

static void
test_request_forms(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		TxBodyForm form;
	} CASES[] = {
		{"{}", TX_BODY_NONE},
		{"{\"body\":{}}", TX_BODY_NONE},
		{"{\"body\":\"text\"}", TX_BODY_NONE},
		{"{\"body\":{\"inline\":1}}", TX_BODY_NONE},
		{"{\"body\":{\"other\":\"x\"}}", TX_BODY_NONE},
		{"{\"body\":{\"message_builder\":[1]}}", TX_BODY_NONE},
		{"{\"body\":{\"inline\":\"\"}}", TX_BODY_INLINE},
		{"{\"body\":{\"reuse_uri\":\"/transactions/a/body\"}}", TX_BODY_REUSE},
		{"{\"body\":{\"message_builder\":{}}}", TX_BODY_BUILDER},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autoptr(Tx) tx = tx_new(NULL);
		g_autoptr(json_t) json = parse(CASES[i].json);
		TxRequest request;
		assert_true(tx_from_json(tx, json, TX_JSON_CREATE, &request, NULL));
		assert_int_equal(request.form, CASES[i].form);
		assert_ptr_equal(request.body, json_object_get(json, "body"));
		assert_false(request.has_offset);
		assert_null(tx->body); /* resolving is the caller's */
		tx_request_clear(&request);
		assert_null(request.body);
	}
	g_autoptr(Tx) tx = tx_new(NULL);
	g_autoptr(json_t) json = parse("{\"rcpt_to_list_offset\":3}");
	TxRequest request;
	assert_true(tx_from_json(tx, json, TX_JSON_UPDATE, &request, NULL));
	assert_true(request.has_offset);
	assert_int_equal(request.rcpt_offset, 3);
	tx_request_clear(&request);
}

/* ---- small forms ---- */

static void
test_responses(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		int code; /* 0: none */
		const char *message;
	} CASES[] = {
		{"{\"code\":250,\"message\":\"x\"}", 250, "x"},
		{"{\"code\":250,\"message\":\"\"}", 250, ""},
		{"{\"code\":250,\"message\":\"a\\nb\"}", 250, "a\nb"},
		{"{\"code\":250,\"message\":\"a\\r\\nb\"}", 250, "a \nb"},
		{"{\"code\":250}", 250, "ok"},
		{"{\"code\":450}", 450, "temporary error"},
		{"{\"code\":550,\"extra\":1}", 550, "permanent error"},
		{"{\"code\":100}", 100, "internal error"},
		{"{\"code\":999}", 999, "internal error"},
		{"{\"code\":99}", 0, NULL},
		{"{\"code\":1000}", 0, NULL},
		{"{\"code\":-250}", 0, NULL},
		{"{\"code\":4294967546}", 0, NULL},
		{"{\"code\":\"250\"}", 0, NULL},
		{"{\"code\":250.0}", 0, NULL},
		{"{\"code\":true}", 0, NULL},
		{"{\"message\":\"x\"}", 0, NULL},
		{"{\"code\":250,\"message\":null}", 0, NULL},
		{"{\"code\":250,\"message\":1}", 0, NULL},
		{"{}", 0, NULL},
		{"null", 0, NULL},
		{"[250,\"ok\"]", 0, NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autoptr(json_t) json = parse(CASES[i].json);
		g_autoptr(Response) response = response_from_json(json);
		if ((response != NULL ? response->code : 0) != CASES[i].code)
			fail_msg("%s", CASES[i].json);
		if (response != NULL)
			assert_string_equal(response->message, CASES[i].message);
	}
	g_autoptr(Response) response = response_new(550, "5.1.1 no \"one\"\nhere");
	g_autofree char *text = print(response_to_json(response));
	assert_string_equal(text, "{\"code\":550,\"message\":\"5.1.1 no \\\"one\\\"\\nhere\"}");
}

static void
test_attempt_errors(void **state)
{
	(void)state;
	static const char *const BAD[] = {
		"[]",
		"{\"x\":1}",
		"{\"mail_from\":{\"m\":\"a\"}}",
		"{\"mail_response\":null}",
		"{\"mail_response\":{}}",
		"{\"data_response\":\"250\"}",
		"{\"rcpt_response\":[]}",
		"{\"rcpt_response\":{}}",
		"{\"rcpt_response\":[{\"code\":\"x\"}]}",
		"{\"rcpt_response\":[null,null]}", /* more than recipients */
		"{\"mail_response\":{\"code\":250},\"filter_output\":1}",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(BAD); i++) {
		g_autoptr(Tx) tx = tx_new(NULL);
		load(tx, "{\"rcpt_to\":[{\"m\":\"b\"}]}", TX_JSON_CREATE);
		uint64_t version = tx->version;
		g_autoptr(json_t) json = parse(BAD[i]);
		g_autoptr(GError) error = NULL;
		if (tx_attempt_from_json(tx, json, &error))
			fail_msg("%s", BAD[i]);
		assert_true(g_error_matches(error, K_ERROR, K_ERROR_INPUT));
		assert_int_equal(tx->version, version);
	}
	g_autoptr(Tx) tx = tx_new(NULL);
	load_attempt(tx, "{}");
}

/* ---- what a server shows ---- */

static const struct {
	const char *name;
	const char *held;  /* answers already taken over, or NULL */
	const char *shown; /* by the server, for MAIL and two recipients sent */
	const char *error; /* NULL: fine */
	const char *want;  /* answers afterwards */
} READS[] = {
	{"nothing", NULL, "{}", NULL, "{}"},
	{"placeholders", NULL,
	 "{\"mail_from\":{},\"rcpt_to\":[{},{}],\"sender\":{},\"filter_output\":{},"
	 "\"retry\":{},\"notification\":{},\"cancelled\":true,\"attempt_count\":1,"
	 "\"final_attempt_reason\":\"x\",\"remote_host\":[\"h\",1],\"local_host\":[\"h\",1],"
	 "\"body\":{\"blob_status\":{\"uri\":\"http://x/transactions/a/body\"}}}",
	 NULL, "{}"},
	{"fewer recipients than sent so far", NULL, "{\"rcpt_to\":[{}]}", NULL, "{}"},
	{"answers", NULL,
	 "{\"mail_response\":{\"code\":250},\"rcpt_response\":[{\"code\":550}],"
	 "\"data_response\":{\"code\":250,\"message\":\"d\"}}",
	 NULL,
	 "{\"mail_response\":{\"code\":250,\"message\":\"ok\"},"
	 "\"rcpt_response\":[{\"code\":550,\"message\":\"permanent error\"}],"
	 "\"data_response\":{\"code\":250,\"message\":\"d\"}}"},
	{"growth", "{\"mail_response\":{\"code\":250},\"rcpt_response\":[{\"code\":250}]}",
	 "{\"mail_response\":{\"code\":250},\"rcpt_response\":[{\"code\":250},{\"code\":450}]}",
	 NULL,
	 "{\"mail_response\":{\"code\":250,\"message\":\"ok\"},"
	 "\"rcpt_response\":[{\"code\":250,\"message\":\"ok\"},"
	 "{\"code\":450,\"message\":\"temporary error\"}]}"},
	{"null in rcpt_response", NULL, "{\"rcpt_response\":[null,{\"code\":550}]}", NULL,
	 "{\"rcpt_response\":[null,{\"code\":550,\"message\":\"permanent error\"}]}"},
	{"precondition answered here first",
	 "{\"mail_response\":{\"code\":450},\"rcpt_response\":[{\"code\":450},{\"code\":450}],"
	 "\"data_response\":{\"code\":450}}",
	 "{\"mail_response\":{\"code\":450},\"rcpt_response\":[{\"code\":503}]}", NULL,
	 "{\"mail_response\":{\"code\":450,\"message\":\"temporary error\"},"
	 "\"rcpt_response\":[{\"code\":450,\"message\":\"temporary error\"},"
	 "{\"code\":450,\"message\":\"temporary error\"}],"
	 "\"data_response\":{\"code\":450,\"message\":\"temporary error\"}}"},

	{"no object", NULL, "[]", "no JSON object", NULL},
	{"unknown key", NULL, "{\"x\":1}", "x: not valid here", NULL},
	{"smtp_meta", NULL, "{\"smtp_meta\":{}}", "smtp_meta: not valid here", NULL},
	{"offset", NULL, "{\"rcpt_to_list_offset\":0}", "not valid here", NULL},
	{"null", NULL, "{\"retry\":null}", "retry: null", NULL},
	{"empty array", NULL, "{\"rcpt_response\":[]}", "empty array", NULL},
	{"real mail_from", NULL, "{\"mail_from\":{\"m\":\"a@x\"}}", "mail_from", NULL},
	{"real recipient", NULL, "{\"rcpt_to\":[{},{\"m\":\"c@x\"}]}", "rcpt_to", NULL},
	{"recipients that were not sent", NULL, "{\"rcpt_to\":[{},{},{}]}", "rcpt_to", NULL},
	{"rcpt_to no array", NULL, "{\"rcpt_to\":{}}", "rcpt_to", NULL},
	{"real sender", NULL, "{\"sender\":{\"name\":\"s\"}}", "sender", NULL},
	{"real filter_output", NULL, "{\"filter_output\":{\"f\":1}}", "filter_output", NULL},
	{"more answers than recipients", NULL,
	 "{\"rcpt_response\":[{\"code\":250},{\"code\":250},{\"code\":250}]}", "rcpt_response",
	 NULL},
	{"no answer", NULL, "{\"mail_response\":{\"message\":\"x\"}}", "mail_response", NULL},
	{"no recipient answer", NULL, "{\"rcpt_response\":[3]}", "rcpt_response", NULL},
	{"host", NULL, "{\"remote_host\":{\"host\":\"h\"}}", "remote_host", NULL},
	{"body", NULL, "{\"body\":[1]}", "body", NULL},
	{"MAIL changed", "{\"mail_response\":{\"code\":250}}", "{\"mail_response\":{\"code\":251}}",
	 "mail_response: changed", NULL},
	{"MAIL text changed", "{\"mail_response\":{\"code\":250}}",
	 "{\"mail_response\":{\"code\":250,\"message\":\"x\"}}", "mail_response: changed", NULL},
	{"MAIL disappeared", "{\"mail_response\":{\"code\":250}}", "{}",
	 "mail_response: disappeared", NULL},
	{"RCPT changed", "{\"rcpt_response\":[{\"code\":250}]}",
	 "{\"rcpt_response\":[{\"code\":550}]}", "rcpt_response: changed", NULL},
	{"RCPT disappeared", "{\"rcpt_response\":[{\"code\":250},{\"code\":250}]}",
	 "{\"rcpt_response\":[{\"code\":250}]}", "rcpt_response: disappeared", NULL},
	{"DATA changed", "{\"rcpt_response\":[{\"code\":250}],\"data_response\":{\"code\":250}}",
	 "{\"rcpt_response\":[{\"code\":250}],\"data_response\":{\"code\":451}}",
	 "data_response: changed", NULL},
};

static void
test_merge_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(READS); i++) {
		g_autoptr(Tx) tx = tx_new(NULL);
		load(tx,
		     "{\"mail_from\":{\"m\":\"a@x\"},\"rcpt_to\":[{\"m\":\"b@x\"},{\"m\":\"c@x\"}]}",
		     TX_JSON_CREATE);
		if (READS[i].held != NULL)
			load_attempt(tx, READS[i].held);
		uint64_t version = tx->version;
		g_autoptr(json_t) json = parse(READS[i].shown);
		g_autoptr(GError) error = NULL;
		bool ok = tx_merge_read(tx, json, &error);
		if (ok != (READS[i].error == NULL))
			fail_msg("%s: %s", READS[i].name, ok ? "accepted" : error->message);
		if (!ok) {
			if (strstr(error->message, READS[i].error) == NULL ||
			    !g_error_matches(error, K_ERROR, K_ERROR_INPUT))
				fail_msg("%s: %s", READS[i].name, error->message);
			assert_int_equal(tx->version, version);
			continue;
		}
		g_autofree char *got = print(tx_to_json(tx, TX_JSON_ATTEMPT, NULL, NULL));
		if (strcmp(got, READS[i].want) != 0)
			fail_msg("%s: %s", READS[i].name, got);
		/* The same again is no change. */
		version = tx->version;
		assert_true(tx_merge_read(tx, json, NULL));
		assert_int_equal(tx->version, version);
		assert_int_equal(tx->attempt_count, 0);
		assert_null(tx->final_attempt_reason);
	}
	g_autoptr(Tx) tx = tx_new(NULL);
	g_autoptr(json_t) json = parse("{\"mail_from\":{}}");
	assert_false(tx_merge_read(tx, json, NULL)); /* was not sent */
}

/* What we show is what our client accepts. */
static void
test_read_merges(void **state)
{
	(void)state;
	g_autoptr(Tx) server = full_tx();
	tx_set_id(server, "abc");
	g_autoptr(json_t) shown = tx_to_json(server, TX_JSON_READ, NULL, &URIS);
	g_autoptr(Tx) client = tx_new(NULL);
	load(client,
	     "{\"mail_from\":{\"m\":\"a@x\"},"
	     "\"rcpt_to\":[{\"m\":\"b@x\"},{\"m\":\"c@x\"},{\"m\":\"d@x\"}]}",
	     TX_JSON_CREATE);
	g_autoptr(GError) error = NULL;
	if (!tx_merge_read(client, shown, &error))
		fail_msg("%s", error->message);
	assert_true(response_equal(client->mail_response, server->mail_response));
	assert_int_equal(client->rcpt_answers, 1);
}

/* ---- blob URIs ---- */

static void
test_parse_blob_uri(void **state)
{
	(void)state;
	static const struct {
		const char *uri, *id, *blob; /* id NULL: refused */
	} CASES[] = {
		{"/transactions/abc/body", "abc", NULL},
		{"/transactions/abc/blob/b1", "abc", "b1"},
		{"/transactions/abc/blob/a/b", "abc", "a/b"},
		{"/transactions/abc/blob/body", "abc", "body"},
		{"/transactions/abc/blob/a%20b%2Fc", "abc", "a b/c"},
		{"http://router:8000/transactions/abc/body", "abc", NULL},
		{"https://[::1]:8000/transactions/abc/blob/x", "abc", "x"},
		{"http://router/transactions/abc/body?x=/y#z", "abc", NULL},
		{"", NULL, NULL},
		{"/", NULL, NULL},
		{"/transactions/abc", NULL, NULL},
		{"/transactions/abc/", NULL, NULL},
		{"/transactions//body", NULL, NULL},
		{"/transactions/abc/bodyx", NULL, NULL},
		{"/transactions/abc/body/", NULL, NULL},
		{"/transactions/abc/blob", NULL, NULL},
		{"/transactions/abc/blob/", NULL, NULL},
		{"/transactions/abc/blob/%00x", NULL, NULL},
		{"/transactions/abc/blob/%zz", NULL, NULL},
		{"/transactions/abc/message_builder", NULL, NULL},
		{"/x/transactions/abc/body", NULL, NULL},
		{"transactions/abc/body", NULL, NULL},
		{"http://router", NULL, NULL},
		{"http://router?/transactions/abc/body", NULL, NULL},
		{"//router/transactions/abc/body", NULL, NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autofree char *id = NULL, *blob = NULL;
		bool ok = tx_parse_blob_uri(CASES[i].uri, &id, &blob);
		if (ok != (CASES[i].id != NULL) || g_strcmp0(id, CASES[i].id) != 0 ||
		    g_strcmp0(blob, CASES[i].blob) != 0)
			fail_msg("%s: %s %s", CASES[i].uri, id, blob);
	}
}

static char *
show_body(const char *id, TxBody *body, const TxUris *uris)
{
	g_autoptr(Tx) tx = tx_new(NULL);
	if (id != NULL)
		tx_set_id(tx, id);
	if (body != NULL)
		tx_set_body(tx, body);
	return print(tx_to_json(tx, TX_JSON_READ, NULL, uris));
}

static void
test_body_status(void **state)
{
	(void)state;
	g_autofree char *none = show_body("abc", NULL, &URIS);
	assert_string_equal(none, "{\"body\":{\"blob_status\":{"
				  "\"uri\":\"https://router.example/transactions/abc/body\"}}}");
	g_autofree char *no_id = show_body(NULL, NULL, &URIS);
	assert_string_equal(no_id, "{}");
	g_autofree char *no_uris = show_body("abc", NULL, NULL);
	assert_string_equal(no_uris, "{}");

	g_autoptr(Blob) open = blob_new(NULL);
	g_autoptr(Blob) final = blob_new_bytes("x", 1);
	g_autoptr(TxBody) raw = tx_body_new_raw(open);
	g_autofree char *growing = show_body("abc", raw, &URIS);
	assert_string_equal(growing, "{\"body\":{\"blob_status\":{"
				     "\"uri\":\"http://router-0:8000/transactions/abc/body\"}}}");
	g_autoptr(TxBody) done = tx_body_new_raw(final);
	g_autofree char *whole = show_body("abc", done, &URIS);
	assert_string_equal(whole, "{\"body\":{\"blob_status\":{\"finalized\":true,"
				   "\"uri\":\"https://router.example/transactions/abc/body\"}}}");
	const TxUris bare = {NULL, "no-url"};
	g_autofree char *relative = show_body("abc", done, &bare);
	assert_string_equal(relative, "{\"body\":{\"blob_status\":{\"finalized\":true,"
				      "\"uri\":\"/transactions/abc/body\"}}}");

	g_autoptr(json_t) spec = json_object();
	g_autoptr(TxBody) skeleton = tx_body_new_builder(spec, NULL);
	g_autofree char *empty = show_body("abc", skeleton, &URIS);
	assert_string_equal(empty, "{\"body\":{\"message_builder\":{\"blob_status\":{}}}}");
	g_autoptr(TxBody) parsed = tx_body_new_builder(spec, open);
	tx_body_add_part(parsed, "b1", open);
	tx_body_add_part(parsed, "in line?", final);
	g_autofree char *parts = show_body("abc", parsed, &URIS);
	assert_string_equal(
		parts,
		"{\"body\":{\"blob_status\":{"
		"\"uri\":\"http://router-0:8000/transactions/abc/body\"},"
		"\"message_builder\":{\"blob_status\":{"
		"\"b1\":{\"uri\":\"http://router-0:8000/transactions/abc/blob/b1\"},"
		"\"in line?\":{\"finalized\":true,"
		"\"uri\":\"https://router.example/transactions/abc/blob/in%20line%3F\"}}}}}");
}

/* Any name that is shown is found again. */
static void
test_blob_names(void **state)
{
	(void)state;
	static const char *const NAMES[] = {"b1",    "a b",      "100%",  "%41",     "a/b",
					    "q?x#y", "\xc3\xbc", "a@b:c", "inline0", "\"<>\\"};
	g_autoptr(json_t) spec = json_object();
	g_autoptr(Blob) blob = blob_new_bytes("", 0);
	for (size_t i = 0; i < G_N_ELEMENTS(NAMES); i++) {
		g_autoptr(TxBody) body = tx_body_new_builder(spec, NULL);
		tx_body_add_part(body, NAMES[i], blob);
		g_autofree char *text = show_body("abc", body, &URIS);
		g_autoptr(json_t) json = parse(text);
		json_t *status = NULL;
		assert_int_equal(json_unpack(json, "{s:{s:{s:o}}}", "body", "message_builder",
					     "blob_status", &status),
				 0);
		const char *uri = json_get_str(json_object_get(status, NAMES[i]), "uri");
		g_autofree char *id = NULL, *name = NULL;
		assert_true(tx_parse_blob_uri(uri, &id, &name));
		assert_string_equal(name, NAMES[i]);
	}
}

/* ---- message-builder specs ---- */

static Blob *
reuse_png(void *arg, const char *tx_id, const char *blob_id)
{
	Blob *blob = arg;
	if (strcmp(tx_id, "t") != 0 || strcmp(blob_id, "p") != 0)
		return NULL;
	return blob_ref(blob);
}

static void
test_builder(void **state)
{
	(void)state;
	static const char SPEC[] =
		"{\"headers\":[[\"subject\",\"hello\"]],"
		"\"text_body\":[{\"content_type\":\"text/html\",\"content\":{\"create_id\":\"h\"}},"
		"{\"content_type\":\"text/plain\",\"content\":{\"inline\":\"hi\"}}],"
		"\"related_attachments\":[{\"content\":{\"reuse_uri\":\"/transactions/t/blob/p\"}}],"
		"\"file_attachments\":[{\"content\":{\"inline\":\"\"},\"filename\":\"a\"}]}";
	g_autoptr(json_t) spec = parse(SPEC);
	g_autoptr(Blob) png = blob_new_bytes("png", 3);
	g_autoptr(GError) error = NULL;
	g_autoptr(TxBody) body = tx_body_from_builder(spec, reuse_png, png, NULL, &error);
	if (body == NULL)
		fail_msg("%s", error->message);
	g_autofree char *normal = json_print(body->builder);
	assert_string_equal(
		normal,
		"{\"headers\":[[\"subject\",\"hello\"]],"
		"\"text_body\":[{\"content_type\":\"text/html\",\"content\":{\"create_id\":\"h\"}},"
		"{\"content_type\":\"text/plain\",\"content\":{\"create_id\":\"inline1\"}}],"
		"\"related_attachments\":[{\"content\":{\"create_id\":\"p\"}}],"
		"\"file_attachments\":[{\"content\":{\"create_id\":\"inline3\"},\"filename\":\"a\"}]}");
	g_autofree char *unchanged = json_print(spec);
	assert_string_equal(unchanged, SPEC);
	assert_int_equal(body->parts->len, 4);
	assert_false(blob_is_final(tx_body_part(body, "h")->blob));
	assert_true(blob_is_final(tx_body_part(body, "inline1")->blob));
	assert_int_equal(blob_len(tx_body_part(body, "inline1")->blob), 2);
	assert_ptr_equal(tx_body_part(body, "p")->blob, png);
	/* Empty contents are complete, too (spec 22 B7). */
	assert_true(blob_is_final(tx_body_part(body, "inline3")->blob));
	assert_null(body->raw);

	g_autoptr(GPtrArray) uris = tx_builder_reuse_uris(spec);
	assert_int_equal(uris->len, 1);
	assert_string_equal(g_ptr_array_index(uris, 0), "/transactions/t/blob/p");
}

static void
test_builder_whole_buffers(void **state)
{
	(void)state;
	static const size_t SIZES[] = {65535, 65536, 65537, 131072};
	for (size_t i = 0; i < G_N_ELEMENTS(SIZES); i++) {
		g_autofree char *text = g_strnfill(SIZES[i], 'x');
		g_autoptr(json_t)
			spec = json_pack("{s:[{s:{s:s}}]}", "text_body", "content", "inline", text);
		g_autoptr(TxBody) body = tx_body_from_builder(spec, NULL, NULL, NULL, NULL);
		assert_non_null(body);
		assert_true(tx_body_is_final(body));
		assert_int_equal(tx_body_len(body), SIZES[i]);
	}
}

static void
test_builder_errors(void **state)
{
	(void)state;
#define PART(content) "{\"text_body\":[{\"content\":" content "}]}"
	static const struct {
		const char *json;
		int code; /* -1: fine */
	} CASES[] = {
		{"{}", -1},
		{"{\"parts\":{},\"unknown\":1}", -1},
		{"{\"text_body\":[]}", -1},
		{PART("{\"create_id\":\"a\"}"), -1},
		{PART("{\"create_id\":\"a\",\"inline\":\"b\"}"), -1}, /* the first that is there */
		{"[]", K_ERROR_INPUT},
		{"{\"text_body\":{}}", K_ERROR_INPUT},
		{"{\"file_attachments\":null}", K_ERROR_INPUT},
		{"{\"text_body\":[null]}", K_ERROR_INPUT},
		{"{\"text_body\":[\"x\"]}", K_ERROR_INPUT},
		{"{\"text_body\":[{}]}", K_ERROR_INPUT},
		{PART("null"), K_ERROR_INPUT},
		{PART("{}"), K_ERROR_INPUT},
		{PART("\"text\""), K_ERROR_INPUT},
		{PART("{\"inline\":1}"), K_ERROR_INPUT},
		{PART("{\"create_id\":1,\"inline\":\"x\"}"), K_ERROR_INPUT},
		{PART("{\"create_id\":\"\"}"), K_ERROR_INPUT},
		{PART("{\"reuse_uri\":1}"), K_ERROR_INPUT},
		{PART("{\"reuse_uri\":\"/transactions/t/body\"}"), K_ERROR_INPUT},
		{PART("{\"reuse_uri\":\"nonsense\"}"), K_ERROR_INPUT},
		{PART("{\"reuse_uri\":\"/transactions/t/blob/q\"}"), K_ERROR_NOT_FOUND},
		{PART("{\"reuse_uri\":\"/transactions/u/blob/p\"}"), K_ERROR_NOT_FOUND},
		{PART("{\"reuse_uri\":\"/transactions/t/blob/p\"}"), K_ERROR_NOT_FOUND},
		{"{\"text_body\":[{\"content\":{\"create_id\":\"a\"}}],"
		 "\"file_attachments\":[{\"content\":{\"create_id\":\"a\"}}]}",
		 K_ERROR_INPUT},
		{"{\"text_body\":[{\"content\":{\"create_id\":\"inline1\"}},"
		 "{\"content\":{\"inline\":\"x\"}}]}",
		 K_ERROR_INPUT},
	};
	g_autoptr(Blob) unfinished = blob_new(NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autoptr(json_t) spec = parse(CASES[i].json);
		g_autoptr(GError) error = NULL;
		g_autoptr(TxBody)
			body = tx_body_from_builder(spec, reuse_png, unfinished, NULL, &error);
		int code = error != NULL ? error->code : -1;
		if ((body != NULL) != (CASES[i].code == -1) || code != CASES[i].code)
			fail_msg("%s: %s", CASES[i].json, error != NULL ? error->message : "ok");
	}
	g_autoptr(GPtrArray) none = tx_builder_reuse_uris(NULL);
	assert_int_equal(none->len, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trips),    cmocka_unit_test(test_audiences),
		cmocka_unit_test(test_read_gaps),      cmocka_unit_test(test_attempt_round_trip),
		cmocka_unit_test(test_update_marks),   cmocka_unit_test(test_not_utf8),
		cmocka_unit_test(test_strict),         cmocka_unit_test(test_rcpts_max),
		cmocka_unit_test(test_update_check),   cmocka_unit_test(test_repeats_are_ignored),
		cmocka_unit_test(test_request_forms),  cmocka_unit_test(test_responses),
		cmocka_unit_test(test_attempt_errors), cmocka_unit_test(test_merge_read),
		cmocka_unit_test(test_read_merges),    cmocka_unit_test(test_parse_blob_uri),
		cmocka_unit_test(test_body_status),    cmocka_unit_test(test_blob_names),
		cmocka_unit_test(test_builder),        cmocka_unit_test(test_builder_whole_buffers),
		cmocka_unit_test(test_builder_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
